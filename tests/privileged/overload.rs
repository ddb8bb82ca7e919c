//! More than fits: many uploads, little memory, a broker that does not answer.

use std::{sync::Arc, time::Duration};

use penstock_tests::{
    bridge::{Bridge, Settings},
    distribution::Version,
    eventually,
    https::{Answer, Connection},
    kafka::Cluster,
    shared::one_broker,
    tools::kcat_read_lines,
    unique, wire,
};
use tokio::{sync::watch, time::Instant};

use crate::{cgroup::MemoryGroup, support::assert_counts};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 128 * MIB;
const PARTITIONS: i32 = 6;
const UPLOADS: usize = 200;
const LINES: u64 = 2 * 1024;
const SHORT: Shape = Shape { lines: LINES, line_bytes: 1024, chunk_lines: 32 };
/// Just below the limit: most of what is held are lines that have begun.
const LONG: Shape = Shape { lines: 3, line_bytes: 900_000, chunk_lines: 1 };
const END: Duration = Duration::from_secs(120);

/// What an upload is made of.
#[derive(Debug, Clone, Copy)]
struct Shape {
    lines: u64,
    /// With the line end.
    line_bytes: usize,
    chunk_lines: u64,
}

/// Line `number` of upload `upload`, with its line end.
fn line(upload: usize, number: u64, bytes: usize) -> Vec<u8> {
    let mut line = format!("{{\"upload\":\"{upload:03}\",\"line\":\"{number:06}\",\"pad\":\"").into_bytes();
    line.resize(bytes - 3, b'x');
    line.extend_from_slice(b"\"}\n");
    line
}

/// Sends every line of an upload to a partition, in chunks, and returns what it was answered.
async fn upload(port: u16, topic: String, partition: i32, number: usize, shape: Shape) -> Answer {
    let Shape { lines, line_bytes, chunk_lines } = shape;
    let mut connection = Connection::open(port).await;
    let request = format!("POST /v1/topics/{topic}/records?partition={partition}");
    connection.begin_chunked(&request, &["Content-Type: application/x-ndjson"]).await;
    let Connection { mut writer, mut reader } = connection;
    let send = async {
        for first in (0..lines).step_by(chunk_lines as usize) {
            let mut chunk = format!("{:x}\r\n", chunk_lines as usize * line_bytes).into_bytes();
            for at in first..first + chunk_lines {
                chunk.extend_from_slice(&line(number, at, line_bytes));
            }
            chunk.extend_from_slice(b"\r\n");
            // Refused uploads are answered and closed: the answer says more than the error here.
            if writer.try_send(&chunk).await.is_err() {
                return;
            }
        }
        let _ = writer.try_send(b"0\r\n\r\n").await;
    };
    let (answer, ()) = tokio::join!(reader.answer(), send);
    answer
}

/// A topic without replicas, so that a partition is as stopped as its one broker.
fn create_topic(cluster: &Cluster) -> String {
    let topic = unique("overload");
    wire::create_topic(cluster.ports()[0], &topic, PARTITIONS, 1, &[("min.insync.replicas", "1")]);
    for port in cluster.ports() {
        eventually("every broker knows the topic", END, || {
            let known = wire::partitions(port, &topic)?;
            (known.len() == PARTITIONS as usize && known.iter().all(|known| known.leader > 0)).then_some(())
        });
    }
    topic
}

/// Asks for health ten times a second until told to stop; returns how often it did, and the longest answer's time.
async fn watch_health(bridge: Arc<Bridge>, stop: watch::Receiver<bool>) -> (u32, Duration) {
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let (mut asked, mut longest) = (0, Duration::ZERO);
    while !*stop.borrow() {
        pace.tick().await;
        let bridge = bridge.clone();
        let ask = move || {
            for path in ["/livez", "/readyz"] {
                let answer = bridge.management(path).unwrap_or_else(|| panic!("{path} is not answered"));
                assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            }
        };
        let begin = Instant::now();
        tokio::task::spawn_blocking(ask).await.expect("health is answered all the time");
        longest = longest.max(begin.elapsed());
        asked += 1;
    }
    (asked, longest)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_uploads_and_a_stopped_broker_fit_into_128_mib() {
    let cluster = Cluster::start(Version::V4_1_1, 3, &[]);
    let topic = create_topic(&cluster);
    let leaders: Vec<_> =
        (0..PARTITIONS).map(|partition| cluster.leader(0, &topic, partition).expect("a leader")).collect();
    let group = MemoryGroup::new(LIMIT);
    // The records of the stopped broker wait for it to go on, not for their time to be over.
    let settings = Settings::new(&cluster.bootstrap()).set("producer.delivery_timeout", "\"120s\"");
    let bridge = Arc::new(Bridge::start_under(&group.prefix(), &settings));
    let budget = bridge.metric("penstock_memory_limit_bytes", &[]);
    assert_eq!(budget, (LIMIT / 2) as f64, "the default budget is half of the group's limit");
    let (stop, stopped) = watch::channel(false);
    let health = tokio::spawn(watch_health(bridge.clone(), stopped));

    let hung = leaders[0];
    cluster.signal(hung, "STOP");
    let (mut going, mut hanging) = (Vec::new(), Vec::new());
    for number in 0..UPLOADS {
        let partition = number as i32 % PARTITIONS;
        let upload = tokio::spawn(upload(bridge.port, topic.clone(), partition, number, SHORT));
        if leaders[partition as usize] == hung { hanging.push(upload) } else { going.push(upload) }
    }
    assert!(hanging.len() >= UPLOADS / 6 && going.len() >= UPLOADS / 6, "the partitions are spread");
    // What has nothing to do with that broker is written while it hangs.
    for upload in going {
        let answer = tokio::time::timeout(END, upload).await.expect("other partitions go on").expect("no panic");
        assert_counts(&answer.expect(200).json(), LINES, LINES, 0, 0);
    }
    assert!(hanging.iter().all(|upload| !upload.is_finished()), "the others wait for their broker");
    let used = bridge.metric("penstock_memory_used_bytes", &[]);
    let resident = bridge.resident_bytes();
    cluster.signal(hung, "CONT");
    for upload in hanging {
        let answer = tokio::time::timeout(END, upload).await.expect("they are resolved").expect("no panic");
        assert_counts(&answer.expect(200).json(), LINES, LINES, 0, 0);
    }
    stop.send_replace(true);
    let (asked, longest) = health.await.expect("health was answered all the time");
    eventually("the budget is given back", END, || {
        (bridge.metric("penstock_memory_used_bytes", &[]) <= 4.0 * MIB as f64).then_some(())
    });
    assert_eq!(group.oom_kills(), 0);
    eprintln!(
        "128 MiB: {} MiB charged at most; the bridge: {} MiB resident at most, {} while a broker hung (budget used: \
         {} of {} MiB), {} at the end; health asked {asked} times, answered within {longest:?}",
        group.peak_bytes() / MIB,
        bridge.peak_resident_bytes() / MIB,
        resident / MIB,
        used as u64 / MIB,
        budget as u64 / MIB,
        bridge.resident_bytes() / MIB,
    );

    let mut next = vec![0; UPLOADS];
    kcat_read_lines(&cluster.bootstrap(), &topic, |_, value| {
        let field = |at: std::ops::Range<usize>| -> u64 {
            std::str::from_utf8(&value[at]).ok().and_then(|text| text.parse().ok()).expect("a line of ours")
        };
        let (upload, number) = (field(11..14) as usize, field(24..30));
        assert_eq!(value, &line(upload, number, SHORT.line_bytes)[..SHORT.line_bytes - 1], "byte for byte");
        assert_eq!(number, next[upload], "upload {upload}: once, and in order");
        next[upload] += 1;
    });
    assert_eq!(next, vec![LINES; UPLOADS], "every line is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_uploads_of_long_lines_fit_into_128_mib() {
    let cluster = one_broker();
    let topic = cluster.create_topic("longlines", PARTITIONS);
    let group = MemoryGroup::new(LIMIT);
    let bridge = Bridge::start_under(&group.prefix(), &Settings::new(&cluster.bootstrap()));
    let uploads: Vec<_> = (0..UPLOADS)
        .map(|number| tokio::spawn(upload(bridge.port, topic.clone(), number as i32 % PARTITIONS, number, LONG)))
        .collect();
    let mut written = 0;
    for upload in uploads {
        let answer = tokio::time::timeout(END, upload).await.expect("it is resolved").expect("an answer");
        match answer.status {
            200 => {
                assert_counts(&answer.json(), LONG.lines, LONG.lines, 0, 0);
                written += 1;
            }
            // They do not all fit at once: some are refused.
            _ => assert_eq!(answer.expect(503).json()["error_code"], 50301),
        }
    }
    assert!(written >= UPLOADS / 10, "only {written} were written");
    assert_eq!(group.oom_kills(), 0);
    eprintln!(
        "128 MiB, long lines: {written} of {UPLOADS} written, {} MiB charged at most, {} MiB resident at most",
        group.peak_bytes() / MIB,
        bridge.peak_resident_bytes() / MIB
    );
}

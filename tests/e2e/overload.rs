//! More than fits, and clients that do not behave: what is refused is refused early, what was accepted is finished, and
//! what a client leaves behind is cleared away.

use std::{fs, process::Command, time::Duration};

use penstock_tests::{
    at_rest,
    bridge::{Bridge, Settings},
    distribution::Version,
    eventually,
    https::{Answer, Connection},
    kafka::Cluster,
    shared::one_broker,
    tools::{curl_answer, curl_command, curl_ndjson, curl_with_input, with_input},
    unique, wire,
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::support::{assert_counts, log_lines};

const NDJSON: &str = "Content-Type: application/x-ndjson";
const END: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

/// Posts `body` on a connection of its own and reads the answer meanwhile, as a client does that is answered early.
fn post(port: u16, path: &str, header: &'static str, body: Vec<u8>) -> JoinHandle<Answer> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\nContent-Length: {}\r\n\r\n", body.len());
    tokio::spawn(async move {
        let Connection { mut writer, mut reader } = Connection::open(port).await;
        let send = async {
            writer.try_send(head.as_bytes()).await?;
            writer.try_send(&body).await
        };
        // Whoever is refused may find the connection closed before all is sent: what counts is that the answer comes.
        let (answer, _) = tokio::join!(reader.answer(), send);
        answer
    })
}

fn used(bridge: &Bridge) -> f64 {
    bridge.metric("penstock_memory_used_bytes", &[])
}

fn body_bytes(bridge: &Bridge) -> f64 {
    bridge.metric("penstock_http_body_bytes_total", &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory_new_requests_are_refused_before_their_body_is_read() {
    let cluster = one_broker();
    let settings = Settings::new(&cluster.bootstrap()).set("producer.memory_bytes", "\"16MiB\"");
    let bridge = Bridge::start_with(&settings);
    let topic = cluster.create_topic("refused", 1);
    let path = format!("/v1/topics/{topic}/records");
    curl_ndjson(&bridge, &path, b"warm\n").expect(200);
    // Single records, because each is a request of its own: nobody's share keeps them from filling the memory. Their
    // bodies do not end, so they stay.
    let full = || used(&bridge) >= 0.8 * 16.0 * MIB as f64;
    let mut fillers = Vec::new();
    while !full() {
        let mut filler = Connection::open(bridge.port).await;
        filler.begin_chunked(&format!("POST {path}"), &["Content-Type: application/octet-stream"]).await;
        filler.writer.chunk(&[b'x'; 1_000_000]).await;
        fillers.push(filler);
        let taken = fillers.len() * 1_000_000;
        eventually("it is read", END, || (full() || used(&bridge) >= taken as f64).then_some(()));
    }
    assert!(fillers.len() >= 6, "only {} filled the memory", fillers.len());

    // The memory may be full of the last filler's head: what it sent is read to its end all the same.
    let before = ("warm\n".len() + fillers.len() * 1_000_000) as f64;
    eventually("the last one is read", END, || (body_bytes(&bridge) == before).then_some(()));
    // Eight mebibytes that nobody asked for: the client sees the answer, not a reset.
    let blind: Vec<_> = (0..8).map(|_| post(bridge.port, &path, NDJSON, log_lines(0, 40_000))).collect();
    for refused in blind {
        let answer = refused.await.expect("an answer, not a reset").expect(503);
        assert_eq!(answer.json()["error_code"], 50301);
        let retry_after = answer.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
        assert!(retry_after.is_some_and(|seconds| seconds > 0), "{}", answer.head);
    }
    // A client that waits to be asked keeps its body.
    let mut command = curl_command(&bridge, &path);
    command.args(["-X", "POST", "-H", NDJSON, "-H", "Expect: 100-continue", "--expect100-timeout", "60"]);
    command.args(["--data-binary", "@-", "--write-out", "%{stderr}sent=%{size_upload};"]);
    let answer = curl_answer(with_input(&mut command, &log_lines(0, 40_000))).expect(503);
    assert_eq!(answer.json()["error_code"], 50301);
    assert!(!answer.head.contains(" 100 ") && answer.head.contains("sent=0;"), "{}", answer.head);
    assert_eq!(body_bytes(&bridge), before, "no body was read");

    for mut filler in fillers {
        filler.writer.last_chunk().await;
        filler.reader.answer().await.expect(200);
    }
    eventually("requests are taken again", END, || {
        (curl_ndjson(&bridge, &path, b"again\n").status == 200).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn half_read_lines_that_fill_the_memory_are_read_to_their_ends() {
    const UPLOADS: usize = 64;
    const HALF: usize = 400_000;
    let cluster = one_broker();
    let settings = Settings::new(&cluster.bootstrap()).set("producer.memory_bytes", "\"16MiB\"");
    let bridge = Bridge::start_with(&settings);
    let topic = cluster.create_topic("halves", 2);
    let request = format!("POST /v1/topics/{topic}/records");
    let mut uploads = Vec::new();
    for _ in 0..UPLOADS {
        let mut upload = Connection::open(bridge.port).await;
        upload.begin_chunked(&request, &[NDJSON]).await;
        upload.writer.chunk(b"begun\n").await;
        uploads.push(upload);
    }
    eventually("all of them are accepted", END, || {
        let written = bridge.metric("penstock_records_total", &["outcome=\"written\""]);
        (written == UPLOADS as f64).then_some(())
    });
    // The second half of them is silent until the first is answered: whoever may read on must not keep the others from it.
    let (go_on, going_on) = watch::channel(0);
    let uploads: Vec<_> = uploads
        .into_iter()
        .enumerate()
        .map(|(at, mut upload)| {
            let mut going_on = going_on.clone();
            tokio::spawn(async move {
                upload.writer.chunk(&[b'x'; HALF]).await;
                going_on.wait_for(|through| at < *through).await.expect("the test goes on");
                upload.writer.chunk(&[b'x'; HALF]).await;
                upload.writer.chunk(b"\n").await;
                upload.writer.last_chunk().await;
                upload.reader.answer().await
            })
        })
        .collect();
    at_rest("no more halves are taken", END, || body_bytes(&bridge));
    assert!(used(&bridge) >= 0.8 * 16.0 * MIB as f64, "the memory is full of halves: {}", used(&bridge));
    for (at, upload) in uploads.into_iter().enumerate() {
        if at % (UPLOADS / 2) == 0 {
            go_on.send_replace(at + UPLOADS / 2);
        }
        let answer = upload.await.expect("no panic").expect(200);
        assert_counts(&answer.json(), 2, 2, 0, 0);
    }
    eprintln!("half-read lines: {} MiB resident at most", bridge.peak_resident_bytes() / MIB as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_below_the_least_rate_is_given_up_with_what_it_brought() {
    let cluster = one_broker();
    let settings = Settings::new(&cluster.bootstrap()).set("listen.min_body_rate", "\"1KiB\"");
    let bridge = Bridge::start_with(&settings);
    let topic = cluster.create_topic("slowbody", 1);
    let mut upload = Connection::open(bridge.port).await;
    upload.begin_chunked(&format!("POST /v1/topics/{topic}/records"), &[NDJSON]).await;
    upload.writer.chunk(b"whole\nhal").await;
    let answer = upload.reader.answer().await.expect(408);
    assert_counts(&answer.json(), 1, 1, 0, 0);
    upload.reader.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_slows_only_its_partitions() {
    const PARTITIONS: i32 = 3;
    let cluster = Cluster::start(Version::V4_1_1, 3, &[]);
    // Without replicas, so that a partition is as slow as its one broker.
    let topic = unique("isolated");
    wire::create_topic(cluster.ports()[0], &topic, PARTITIONS, 1, &[("min.insync.replicas", "1")]);
    let settings = Settings::new(&cluster.bootstrap())
        .set("producer.memory_bytes", "\"32MiB\"")
        .set("producer.delivery_timeout", "\"120s\"");
    let bridge = Bridge::start_with(&settings);
    let path = |partition: i32| format!("/v1/topics/{topic}/records?partition={partition}");
    eventually("every partition takes records", END, || {
        (0..PARTITIONS).all(|partition| curl_ndjson(&bridge, &path(partition), b"warm\n").status == 200).then_some(())
    });
    let hung = cluster.leader(0, &topic, 0).expect("a leader");
    let others: Vec<_> = (1..PARTITIONS).filter(|&p| cluster.leader(0, &topic, p) != Some(hung)).collect();
    assert!(!others.is_empty(), "one broker leads everything");
    cluster.signal(hung, "STOP");
    // Twenty uploads of four mebibytes: more than twice what there is.
    let hanging: Vec<_> = (0..20).map(|_| post(bridge.port, &path(0), NDJSON, log_lines(0, 16_000))).collect();
    eventually("the uploads have begun", END, || (body_bytes(&bridge) > MIB as f64).then_some(()));
    at_rest("the uploads hang", END, || body_bytes(&bridge));
    // A deadline of a second and a half has passed: by then the bridge takes the broker for one that does not answer.
    let arguments = ["-H", "Kafka-Timeout-Ms: 1500", "--data-binary", "@-"];
    let late = curl_with_input(&bridge, &path(0), &arguments, b"late");
    assert!(matches!(late.status, 503 | 504), "{}", late.text());
    // Single records are nobody's share. They may wait for the broker, too, until so many do that the others would be
    // left without.
    let mut singles = Vec::new();
    eventually("further records for it are refused", END, || {
        if singles.iter().any(JoinHandle::is_finished) {
            return Some(());
        }
        singles.push(post(bridge.port, &path(0), "Content-Type: application/octet-stream", vec![b'x'; 1_000_000]));
        None
    });
    eventually("the rest is left to others", END, || (used(&bridge) < 0.8 * 32.0 * MIB as f64).then_some(()));
    for _ in 0..5 {
        for &partition in &others {
            let answer = post(bridge.port, &path(partition), NDJSON, log_lines(0, 16_000)).await.expect("an answer");
            assert_counts(&answer.expect(200).json(), 16_000, 16_000, 0, 0);
        }
    }
    assert!(hanging.iter().all(|upload| !upload.is_finished()), "they wait for their broker");
    cluster.signal(hung, "CONT");
    for upload in hanging {
        let answer = upload.await.expect("an answer").expect(200);
        assert_counts(&answer.json(), 16_000, 16_000, 0, 0);
    }
    for single in singles {
        let answer = single.await.expect("an answer");
        assert!(answer.status == 200 || answer.json()["error_code"] == 50301, "written, or refused: {}", answer.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_in_the_middle_leave_nothing_behind() {
    const CLIENTS: usize = 200;
    let cluster = one_broker();
    let bridge = Bridge::start(&cluster.bootstrap());
    let topic = cluster.create_topic("leaving", 2);
    let request = format!("POST /v1/topics/{topic}/records");
    let written = || bridge.metric("penstock_records_total", &["outcome=\"written\""]);
    // What the bridge opens once and keeps is open by now.
    for _ in 0..8 {
        let mut upload = Connection::open(bridge.port).await;
        upload.send(&request, &[NDJSON], b"warm\n").await;
        upload.reader.answer().await.expect(200);
    }
    eventually("they are gone", END, || (bridge.metric("penstock_http_connections", &[]) == 0.0).then_some(()));
    let (files, memory) = (bridge.open_files(), used(&bridge));
    let mut uploads = Vec::new();
    for _ in 0..CLIENTS {
        let mut upload = Connection::open(bridge.port).await;
        upload.begin_chunked(&request, &[NDJSON]).await;
        upload.writer.chunk(&log_lines(0, 200)).await;
        // A line that never ends.
        upload.writer.chunk(&[b'x'; 10_000]).await;
        uploads.push(upload);
    }
    eventually("their lines are written", END, || (written() == (8 + 200 * CLIENTS) as f64).then_some(()));
    drop(uploads);
    eventually("nothing is left of them", END, || {
        (bridge.open_files() <= files && used(&bridge) <= memory + 2.0 * MIB as f64).then_some(())
    });
    assert_eq!(written(), (8 + 200 * CLIENTS) as f64, "half a line is nobody's record");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_wait_take_no_memory_and_reads_of_much_take_their_share() {
    let cluster = one_broker();
    let settings = Settings::new(&cluster.bootstrap()).set("producer.memory_bytes", "\"16MiB\"");
    let bridge = Bridge::start_with(&settings.set("runtime.workers", "2"));
    let topic = cluster.create_topic("waiting", 2);
    let request = format!("GET /v1/topics/{topic}/partitions/0/records?max_bytes=16777216&wait_ms=60000");
    let mut readers = Vec::new();
    for _ in 0..100 {
        let mut reader = Connection::open(bridge.port).await;
        reader.send(&request, &[], b"").await;
        readers.push(reader);
    }
    // A read asks first for what is there already, and is charged for it; then it waits and holds nothing. What is left
    // are the slabs that two workers keep.
    let connections = || bridge.metric("penstock_http_connections", &[]);
    let wait = || (connections() == 100.0 && used(&bridge) <= f64::from(4 << 20)).then_some(());
    eventually("all of them wait", END, wait);
    // Another partition takes five mebibytes meanwhile: they are in nobody's way.
    let path = format!("/v1/topics/{topic}/records?partition=1");
    let lines = log_lines(0, 25_000);
    let answer = post(bridge.port, &path, NDJSON, lines.clone()).await.expect("an answer").expect(200);
    assert_counts(&answer.json(), 25_000, 25_000, 0, 0);
    curl_ndjson(&bridge, &format!("/v1/topics/{topic}/records?partition=0"), b"come\n").expect(200);
    for mut reader in readers {
        let answer = reader.reader.answer().await.expect(200);
        assert_eq!(answer.json()["value_encoding"], "base64");
    }
    // A reader gets as much at a time as there is a share for, and gets everything.
    let (mut offset, mut read, mut answers) = (0, Vec::new(), 0);
    while offset < 25_000 {
        let mut reader = Connection::open(bridge.port).await;
        let query = format!("offset={offset}&max_bytes=16777216&max_records=100000&value=text");
        reader.send(&format!("GET /v1/topics/{topic}/partitions/1/records?{query}"), &[], b"").await;
        let answer = reader.reader.answer().await.expect(200);
        let next: u64 = answer.header("kafka-next-offset").and_then(|next| next.parse().ok()).expect("a number");
        assert!(next > offset, "it goes on");
        for line in answer.body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let record: serde_json::Value = serde_json::from_slice(line).expect("JSON");
            read.extend_from_slice(record["value"].as_str().expect("text").as_bytes());
            read.push(b'\n');
        }
        (offset, answers) = (next, answers + 1);
    }
    assert!(read == lines, "byte for byte");
    assert!(answers > 1, "five mebibytes are more than a share of sixteen");
}

/// CPU time that a process has used, in clock ticks (a hundred a second).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // After the name, which may hold anything, in brackets: state is field 3, utime and stime are 14 and 15.
    let fields: Vec<_> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_file_descriptors_the_listener_waits_and_recovers() {
    let cluster = one_broker();
    let bridge = Bridge::start(&cluster.bootstrap());
    let topic = cluster.create_topic("descriptors", 1);
    let path = format!("/v1/topics/{topic}/records");
    curl_ndjson(&bridge, &path, b"before\n").expect(200);
    let pid = bridge.process().pid();
    let limit = bridge.open_files() + 8;
    let limited = Command::new("prlimit").arg(format!("--pid={pid}")).arg(format!("--nofile={limit}:")).output();
    let limited = limited.expect("prlimit is installed: apt-get install util-linux");
    assert!(limited.status.success(), "{}", String::from_utf8_lossy(&limited.stderr));
    // The kernel takes them; the bridge cannot.
    let clients: Vec<_> = (0..64)
        .map(|_| std::net::TcpStream::connect(("127.0.0.1", bridge.port)).expect("the backlog has room"))
        .collect();
    let refusals = |count| {
        bridge
            .process()
            .wait_for_lines("it says so", count, END, |line| line.contains("no connection can be accepted"));
        (Instant::now(), cpu_ticks(pid))
    };
    // The pauses double from 10 ms on, so ten of them are more than a second.
    let (begin, ticks) = refusals(2);
    let (end, more_ticks) = refusals(10);
    let (took, cpu) = (end - begin, Duration::from_millis(10 * (more_ticks - ticks)));
    assert!(cpu < took / 2, "{cpu:?} of CPU in {took:?} for nothing");
    drop(clients);
    eventually("connections are taken again", END, || {
        let answer = curl_command(&bridge, "/healthz").output().expect("curl is installed");
        answer.status.success().then_some(())
    });
    curl_ndjson(&bridge, &path, b"after\n").expect(200);
}

//! Size: a gibibyte through one request, with the bridge's memory flat.

use std::{io::Write, process::Stdio, time::Duration};

use penstock_tests::{
    at_rest,
    bridge::{Bridge, Settings},
    eventually,
    https::Connection,
    kafka::Cluster,
    shared::one_broker,
    tools::{curl_answer, curl_command, kcat_read_lines},
};

use crate::support::assert_counts;

/// Most memory that the bridge may ever have resident, whatever it is sent.
const PEAK: u64 = 200 << 20;

/// Bytes of one large upload: `$PENSTOCK_TEST_LARGE_BYTES`, by default a gibibyte.
pub(crate) fn large_bytes() -> u64 {
    match std::env::var("PENSTOCK_TEST_LARGE_BYTES") {
        Ok(bytes) => bytes.parse().expect("PENSTOCK_TEST_LARGE_BYTES is a number"),
        Err(_) => 1 << 30,
    }
}

/// Makes numbered lines of `length` bytes, line end included, as many as make `bytes`.
pub(crate) struct NumberedLines {
    template: Vec<u8>,
    pub(crate) count: u64,
}

impl NumberedLines {
    pub(crate) fn new(bytes: u64, length: usize) -> Self {
        let mut template = format!("{{\"n\":\"{:020}\",\"pad\":\"", 0).into_bytes();
        let pad: Vec<u8> = (b'a'..=b'z').cycle().take(length - template.len() - 3).collect();
        template.extend_from_slice(&pad);
        template.extend_from_slice(b"\"}\n");
        Self { template, count: bytes / length as u64 }
    }

    /// Writes lines `first..last` to `out`.
    pub(crate) fn write(&self, first: u64, last: u64, out: &mut impl Write) -> std::io::Result<()> {
        let mut line = self.template.clone();
        for number in first..last {
            line[6..26].copy_from_slice(format!("{number:020}").as_bytes());
            out.write_all(&line)?;
        }
        Ok(())
    }

    /// The number of a line without its end; panics when any byte is not as it was made.
    fn number(&self, line: &[u8]) -> u64 {
        let made = &self.template[..self.template.len() - 1];
        assert!(line.len() == made.len() && line[..6] == made[..6] && line[26..] == made[26..], "not our line");
        std::str::from_utf8(&line[6..26]).expect("digits").parse().expect("a number")
    }

    /// The topic holds every line, in order per partition; each once, or where `repeats` are allowed, at least once.
    pub(crate) fn assert_in_topic(&self, cluster: &Cluster, topic: &str, repeats: bool) {
        let mut last = std::collections::HashMap::new();
        let mut seen = vec![false; usize::try_from(self.count).expect("it fits")];
        kcat_read_lines(&cluster.bootstrap(), topic, |partition, line| {
            let number = self.number(line);
            let again = std::mem::replace(&mut seen[usize::try_from(number).expect("it fits")], true);
            let before = last.insert(partition, number);
            if !repeats {
                assert!(!again, "line {number} is there twice");
                assert!(before.is_none_or(|before| before < number), "line {number} after {before:?}");
            }
        });
        let missing = seen.iter().filter(|seen| !**seen).count();
        assert_eq!(missing, 0, "of {} lines are missing", self.count);
    }
}

fn assert_flat(bridge: &Bridge) {
    let peak = bridge.peak_resident_bytes();
    eprintln!("peak resident: {} MiB", peak >> 20);
    assert!(peak < PEAK, "{} MiB resident", peak >> 20);
}

#[test]
fn a_gibibyte_in_one_request_leaves_memory_flat() {
    let cluster = one_broker();
    let bridge = Bridge::start_with(&Settings::new(&cluster.bootstrap()).set("runtime.workers", "0"));
    let topic = cluster.create_topic("gibibyte", 3);
    let lines = NumberedLines::new(large_bytes(), 1_024);
    let mut command = curl_command(&bridge, &format!("/v1/topics/{topic}/records"));
    command.args(["-X", "POST", "-H", "Content-Type: application/x-ndjson", "-T", "-"]);
    let mut curl = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("curl");
    let mut pipe = std::io::BufWriter::with_capacity(1 << 16, curl.stdin.take().expect("it is piped"));
    lines.write(0, lines.count, &mut pipe).expect("curl reads");
    pipe.flush().expect("curl reads");
    drop(pipe);
    let answer = curl_answer(curl.wait_with_output().expect("it is our child")).expect(200);
    assert_counts(&answer.json(), lines.count, lines.count, 0, 0);
    assert_flat(&bridge);
    lines.assert_in_topic(cluster, &topic, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_line_a_chunk_leaves_memory_flat() {
    let cluster = one_broker();
    let bridge = Bridge::start_with(&Settings::new(&cluster.bootstrap()).set("runtime.workers", "0"));
    let topic = cluster.create_topic("chunks", 3);
    let lines = NumberedLines::new(large_bytes() / 16, 128);
    let mut connection = Connection::open(bridge.port).await;
    let request = format!("POST /v1/topics/{topic}/records");
    connection.begin_chunked(&request, &["Content-Type: application/x-ndjson"]).await;
    // Many chunks a write: what counts is how the bridge takes them, not how slowly they are sent.
    let mut number = 0;
    while number < lines.count {
        let mut framed = Vec::with_capacity(1 << 16);
        while number < lines.count && framed.len() < 60_000 {
            framed.extend_from_slice(b"80\r\n");
            lines.write(number, number + 1, &mut framed).expect("a Vec takes it");
            framed.extend_from_slice(b"\r\n");
            number += 1;
        }
        connection.writer.send(&framed).await;
    }
    connection.writer.last_chunk().await;
    let answer = connection.reader.answer().await.expect(200);
    assert_counts(&answer.json(), lines.count, lines.count, 0, 0);
    assert_flat(&bridge);
    lines.assert_in_topic(cluster, &topic, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_kafka_does_not_take_wait_in_a_bounded_memory() {
    // A broker that hangs: everything that is read stays in memory. The budget must stop the reading.
    let cluster = Cluster::start(penstock_tests::distribution::Version::V4_1_1, 1, &[]);
    let bridge = Bridge::start_with(
        &Settings::new(&cluster.bootstrap())
            .set("runtime.workers", "0")
            .set("producer.memory_bytes", "\"64MiB\"")
            .set("producer.delivery_timeout", "\"120s\""),
    );
    let topic = cluster.create_topic("hangs", 3);
    let lines = NumberedLines::new(16 << 20, 1_024);
    let mut body = Vec::new();
    lines.write(0, lines.count, &mut body).expect("a Vec takes it");
    let path = format!("/v1/topics/{topic}/records");
    penstock_tests::tools::curl_ndjson(&bridge, &path, b"warm\n").expect(200);
    cluster.signal(0, "STOP");
    let uploads: Vec<_> = (0..12)
        .map(|_| {
            let (body, port, path) = (body.clone(), bridge.port, path.clone());
            tokio::spawn(async move {
                let mut connection = Connection::open(port).await;
                connection.send(&format!("POST {path}"), &["Content-Type: application/x-ndjson"], &body).await;
                connection.reader.answer().await
            })
        })
        .collect();
    // They have filled what they may when no more bytes are taken.
    let taken = || bridge.metric("penstock_http_body_bytes_total", &[]);
    let end = Duration::from_secs(60);
    eventually("the uploads have begun", end, || (taken() > f64::from(1 << 20)).then_some(()));
    at_rest("the bridge stops reading", end, taken);
    assert_flat(&bridge);
    cluster.signal(0, "CONT");
    for upload in uploads {
        let answer = upload.await.expect("no panic");
        // Refused before its body was read, or written whole once the broker went on.
        match answer.status {
            200 => assert_counts(&answer.json(), lines.count, lines.count, 0, 0),
            503 => assert_eq!(answer.json()["error_code"], 50301),
            status => panic!("{status}: {}", String::from_utf8_lossy(&answer.body)),
        }
    }
    assert_flat(&bridge);
}

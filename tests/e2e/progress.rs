//! Answers that run beside the upload: what is settled is told while more is still being sent.

use penstock_tests::{
    https::{Connection, Reader},
    shared::{bridge, three_brokers},
};
use serde_json::Value;

use crate::support::{assert_counts, assert_topic_is_log, log_lines, values};

const HEADERS: [&str; 2] = ["Content-Type: application/x-ndjson", "Accept: application/x-ndjson"];

/// The JSON lines of an answer, whatever pieces they come in.
struct Lines<'a> {
    reader: &'a mut Reader,
    buffer: Vec<u8>,
}

impl<'a> Lines<'a> {
    /// Reads the head: 200, NDJSON.
    async fn begin(reader: &'a mut Reader) -> Self {
        let (status, head) = reader.head().await;
        assert_eq!(status, 200, "{head}");
        assert!(head.to_ascii_lowercase().contains("content-type: application/x-ndjson"), "{head}");
        Self { reader, buffer: Vec::new() }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<_> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("each line is JSON"));
            }
            let piece = self.reader.piece().await;
            let Some(piece) = piece else {
                assert!(self.buffer.is_empty(), "the last line ends with a line end");
                return None;
            };
            self.buffer.extend_from_slice(&piece);
        }
    }

    /// Reads progress lines until one covers `line`; what they promise never goes back.
    async fn until_settled(&mut self, line: u64) {
        let mut before = 0;
        loop {
            let progress = self.next().await.expect("the answer goes on");
            assert_eq!(progress.get("done"), None, "{progress}");
            let through = progress["through_line"].as_u64().expect("a number");
            assert!(through >= before, "{progress} after {before}");
            before = through;
            if through >= line {
                return;
            }
        }
    }

    /// Reads on to the last line, the summary.
    async fn summary(&mut self) -> Value {
        let mut last = None;
        while let Some(line) = self.next().await {
            last = Some(line);
        }
        let last = last.expect("at least the summary");
        assert_eq!(last["done"], true, "{last}");
        last
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_comes_while_the_upload_still_runs() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("progress", 3);
    let Connection { mut writer, mut reader } = {
        let mut connection = Connection::open(bridge.port).await;
        connection.begin_chunked(&format!("POST /v1/topics/{topic}/records"), &HEADERS).await;
        connection
    };
    writer.chunk(&log_lines(0, 100)).await;
    let mut lines = Lines::begin(&mut reader).await;
    lines.until_settled(100).await;
    // Settled means written: another client sees them while this request is still being sent.
    assert_topic_is_log(&cluster.bootstrap(), &topic, 0, 100);
    writer.chunk(&log_lines(100, 400)).await;
    lines.until_settled(500).await;
    writer.chunk(&log_lines(500, 1)).await;
    writer.last_chunk().await;
    let summary = lines.summary().await;
    assert_counts(&summary, 501, 501, 0, 0);
    assert_topic_is_log(&cluster.bootstrap(), &topic, 0, 501);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_only_at_the_end_does_not_stall() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("latereader", 3);
    let mut connection = Connection::open(bridge.port).await;
    connection.begin_chunked(&format!("POST /v1/topics/{topic}/records"), &HEADERS).await;
    for part in 0..64 {
        connection.writer.chunk(&log_lines(part * 2_000, 2_000)).await;
    }
    connection.writer.last_chunk().await;
    let summary = Lines::begin(&mut connection.reader).await.summary().await;
    assert_counts(&summary, 128_000, 128_000, 0, 0);
    // The connection is as good as new.
    connection.send(&format!("POST /v1/topics/{topic}/records"), &HEADERS[..1], b"more\n").await;
    assert_counts(&connection.reader.answer().await.expect(200).json(), 1, 1, 0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_upload_counts_on_from_its_first_line() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("firstline", 1);
    let mut connection = Connection::open(bridge.port).await;
    let headers = [HEADERS[0], HEADERS[1], "Kafka-First-Line: 1001"];
    let request = format!("POST /v1/topics/{topic}/records?validate=json");
    connection.begin_chunked(&request, &headers).await;
    connection.writer.chunk(b"1\n2\n\n").await;
    let mut lines = Lines::begin(&mut connection.reader).await;
    lines.until_settled(1_003).await;
    connection.writer.chunk(b"broken{\n5\n").await;
    connection.writer.last_chunk().await;
    let summary = lines.summary().await;
    assert_counts(&summary, 5, 3, 1, 0);
    assert_eq!(summary["failures"][0]["first_line"], 1_004);
    assert_eq!(summary["failures"][0]["last_line"], 1_004);
    assert_eq!(values(&cluster.bootstrap(), &topic), [b"1", b"2", b"5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_stands_in_the_last_line_of_an_answer_that_began_with_200() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("lastline", 1);
    let mut connection = Connection::open(bridge.port).await;
    let request = format!("POST /v1/topics/{topic}/records?validate=json");
    connection.send(&request, &HEADERS, b"{}\n{\n").await;
    let summary = Lines::begin(&mut connection.reader).await.summary().await;
    assert_counts(&summary, 2, 1, 1, 0);
    assert_eq!(summary["error_code"].as_u64().map(|code| code / 100 % 1_000 == 4 || code / 100 == 400), Some(true));
    assert_eq!(summary["failures"][0]["outcome"], "not_written");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_to_an_unknown_topic_is_refused_before_it_is_sent() {
    let mut connection = Connection::open(bridge().port).await;
    let headers = [HEADERS[0], HEADERS[1], "Expect: 100-continue"];
    connection.begin_chunked("POST /v1/topics/no-such-topic/records", &headers).await;
    // Not one byte of the body was sent: the answer came to the head alone.
    let (status, _) = connection.reader.head().await;
    assert_eq!(status, 404);
}

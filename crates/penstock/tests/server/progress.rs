use crate::harness::{Bridge, Client, run};
use krafka::testing::{ApiKey, Control};
use std::time::Duration;
use tokio::net::TcpStream;

const HEADERS: [(&str, &str); 3] =
    [("Content-Type", "application/x-ndjson"), ("Accept", "application/x-ndjson"), ("Transfer-Encoding", "chunked")];

fn head(more: &[(&str, &str)]) -> String {
    Client::<TcpStream>::head("POST", "/v1/topics/events/records", &[&HEADERS[..], more].concat())
}

/// Reads lines until one promises `through`.
async fn settled(client: &mut Client, through: u64) {
    while client.line().await.expect("the upload goes on")["through_line"] != through {}
}

#[test]
fn progress_comes_while_the_upload_runs() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        client.send(head(&[("Kafka-First-Line", "101")])).await;
        let answer = client.answer_head().await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
        for round in 0..3 {
            client.send_chunk(b"{\"a\":1}\n\n{\"a\":2}\n{\"unfinished\":").await;
            settled(&mut client, 103 + round * 4).await;
            client.send_chunk(b"true}\n").await;
            settled(&mut client, 104 + round * 4).await;
        }
        client.send_chunk(b"last").await;
        client.send_chunk(b"").await;
        let last = loop {
            let line = client.line().await.expect("a last line");
            if line["done"] == true {
                break line;
            }
        };
        assert_eq!((&last["lines"], &last["written"]), (&13.into(), &10.into()));
        assert_eq!(last["error_code"], serde_json::Value::Null);
        assert!(client.chunk().await.is_none(), "nothing after the summary");
        // The connection is as good as before.
        assert_eq!(client.request("GET", "/healthz", &[], b"").await.status, 200);
        assert_eq!(bridge.values().len(), 10);
    });
}

#[test]
fn a_client_that_reads_after_it_has_sent_everything_is_not_stalled() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        client.send(head(&[])).await;
        let lines = "{\"message\":\"hello\"}\n".repeat(50_000);
        for chunk in lines.as_bytes().chunks(100_000) {
            client.send_chunk(chunk).await;
        }
        client.send_chunk(b"").await;
        assert_eq!(client.answer_head().await.status, 200);
        let mut last = client.line().await.expect("lines");
        while let Some(line) = client.line().await {
            last = line;
        }
        assert_eq!((&last["done"], &last["written"]), (&true.into(), &50_000.into()));
    });
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_before_the_answer() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        client.send(head(&[("Expect", "100-continue")])).await;
        assert_eq!(client.answer_head().await.status, 100);
        client.send_chunk(b"one\n").await;
        assert_eq!(client.answer_head().await.status, 200);
        settled(&mut client, 1).await;
    });
}

#[test]
fn the_last_line_says_what_went_wrong() {
    run(async {
        let bridge = Bridge::with("[limits]\nrecord_bytes = 1024\n").await;
        let mut client = bridge.client().await;
        client.send(head(&[])).await;
        client.send_chunk(format!("short\n{}\nshort\n", "long".repeat(257)).as_bytes()).await;
        client.send("zz\r\n").await;
        assert_eq!(client.answer_head().await.status, 200);
        let mut last = client.line().await.expect("lines");
        while let Some(line) = client.line().await {
            last = line;
        }
        assert_eq!((&last["done"], &last["written"], &last["not_written"]), (&true.into(), &2.into(), &1.into()));
        assert_eq!(last["error_code"], 413, "the first failure by line");
        assert!(last["message"].as_str().is_some_and(|message| message.contains("not read on")), "{last}");
        assert!(client.is_closed().await);
    });
}

#[test]
fn lines_settle_although_their_client_is_gone() {
    run(async {
        let bridge = Bridge::start().await;
        bridge.kafka.on_once(ApiKey::Produce, |_| Control::Delay(Duration::from_millis(200)));
        let mut client = bridge.client().await;
        client.send(head(&[])).await;
        client.send_chunk(b"one\ntwo\nhal").await;
        assert_eq!(client.answer_head().await.status, 200);
        bridge.asked(ApiKey::Produce).await;
        drop(client);
        let kafka = bridge.stopped().await;
        let mut values: Vec<_> = kafka
            .all_records("events")
            .expect("readable")
            .into_iter()
            .map(|record| (record.offset, record.value))
            .collect();
        values.sort();
        let values: Vec<_> = values.iter().map(|(_, value)| value.as_deref().unwrap_or_default()).collect();
        assert_eq!(values, [&b"one"[..], b"two"]);
    });
}

use crate::harness::{Answer, Bridge, Client, GIVE_UP, run};
use krafka::testing::{ApiKey, Control};
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;

const RECORDS: &str = "/v1/topics/events/records";
const PARTITION: &str = "/v1/topics/events/partitions/0/records";

fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    answer.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn offsets(answer: &Answer) -> Vec<i64> {
    lines(answer).iter().map(|line| line["offset"].as_i64().expect("a number")).collect()
}

#[test]
fn what_was_posted_is_read_back() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let headers = [("Kafka-Key", "k1"), ("Kafka-Header", "trace=abc"), ("Kafka-Timestamp", "1700000000000")];
        client.ndjson(RECORDS, &headers, b"{\"b\": 1.50,\"a\":[ ]}\nplain text\n").await;
        let answer = client.request("GET", PARTITION, &[], b"").await;
        assert_eq!(
            answer.text(),
            "{\"partition\":0,\"offset\":0,\"timestamp\":1700000000000,\"key\":\"k1\",\"value\":{\"b\": 1.50,\"a\":[ ]},\
             \"headers\":[[\"trace\",\"abc\"]]}\n\
             {\"partition\":0,\"offset\":1,\"timestamp\":1700000000000,\"key\":\"k1\",\"value\":\"cGxhaW4gdGV4dA==\",\
             \"value_encoding\":\"base64\",\"headers\":[[\"trace\",\"abc\"]]}\n"
        );
        assert_eq!(answer.header("kafka-next-offset"), Some("2"));
        assert_eq!(answer.header("kafka-high-watermark"), Some("2"));
        let text = client.request("GET", &format!("{PARTITION}?value=text&offset=1"), &[], b"").await;
        assert_eq!(lines(&text)[0]["value"], "plain text");
    });
}

#[test]
fn a_read_begins_and_ends_where_it_is_told() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        for (timestamp, body) in [("1000", "a\nb\nc"), ("2000", "d\ne")] {
            client.ndjson(RECORDS, &[("Kafka-Timestamp", timestamp)], body.as_bytes()).await;
        }
        for (query, expected, next) in [
            ("", vec![0, 1, 2, 3, 4], "5"),
            ("offset=earliest", vec![0, 1, 2, 3, 4], "5"),
            ("offset=1&max_records=3", vec![1, 2, 3], "4"),
            ("offset=2&max_bytes=1", vec![2], "3"),
            ("offset=latest", vec![], "5"),
            ("offset=timestamp:1500", vec![3, 4], "5"),
            ("offset=timestamp:9000", vec![], "5"),
        ] {
            let answer = client.request("GET", &format!("{PARTITION}?{query}"), &[], b"").await;
            assert_eq!((offsets(&answer), answer.header("kafka-next-offset")), (expected, Some(next)), "{query}");
        }
        let answer = client.request("GET", &format!("{PARTITION}?offset=99"), &[], b"").await;
        assert_eq!(answer.error_code(), 400);
        assert!(answer.text().contains("begin at 0 and end before 5"), "{}", answer.text());
        for query in ["offset=x", "max_records=0", "wait_ms=60001", "value=xml", "limit=1"] {
            assert_eq!(
                client.request("GET", &format!("{PARTITION}?{query}"), &[], b"").await.error_code(),
                400,
                "{query}"
            );
        }
    });
}

#[test]
fn a_long_poll_answers_when_a_record_comes() {
    run(async {
        let bridge = Bridge::start().await;
        let (mut reader, mut writer) = (bridge.client().await, bridge.client().await);
        let path = format!("{PARTITION}?wait_ms=50000");
        let (read, _) =
            tokio::join!(reader.request("GET", &path, &[], b""), writer.request("POST", RECORDS, &[], b"1"));
        assert_eq!(offsets(&read), [0]);
    });
}

#[test]
fn a_long_poll_does_not_hold_up_the_end() {
    run(async {
        let bridge = Bridge::with("[drain]\nnotice = \"0s\"\ndeadline = \"1s\"\n").await;
        let mut reader = bridge.client().await;
        let stop = bridge.stop.clone();
        let path = format!("{PARTITION}?wait_ms=60000");
        let (read, _) = tokio::join!(reader.request("GET", &path, &[], b""), async {
            bridge.asked(ApiKey::Fetch).await;
            stop.stop();
        });
        assert_eq!(offsets(&read), [0; 0]);
        bridge.finished().await;
    });
}

#[test]
fn reads_that_wait_for_their_turn_hold_no_memory() {
    const READERS: usize = 150;
    run(async {
        // Shares of all of them at once would be more than there is.
        let bridge = Bridge::with("[producer]\nmemory_bytes = \"16MiB\"\n").await;
        // As many as a broker is asked at a time.
        bridge.kafka.on_times(ApiKey::Fetch, 4, |_| Control::Delay(Duration::from_secs(1)));
        let path = format!("{PARTITION}?max_bytes=16777216&wait_ms=50000");
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let mut reader = bridge.client().await;
            reader.send(Client::<TcpStream>::head("GET", &path, &[])).await;
            readers.push(reader);
        }
        assert!(bridge.kafka.wait_for_requests(ApiKey::Fetch, READERS, GIVE_UP).await, "each had a turn");
        bridge.client().await.request("POST", RECORDS, &[], b"1").await;
        for mut reader in readers {
            assert_eq!(offsets(&reader.answer().await), [0]);
        }
    });
}

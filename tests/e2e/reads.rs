//! Reading a partition: any instance can serve it, nothing is remembered between requests.

use penstock_tests::{
    shared::{bridge, three_brokers},
    tools::{Answer, curl, curl_ndjson, curl_with_input, kcat_write},
};
use serde_json::{Value, json};

use crate::support::{log_line, log_lines};

fn read(topic: &str, query: &str) -> Answer {
    curl(bridge(), &format!("/v1/topics/{topic}/partitions/0/records?{query}"), &[])
}

fn records(answer: &Answer) -> Vec<Value> {
    answer.text().lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn next_offset(answer: &Answer) -> i64 {
    answer.header("kafka-next-offset").and_then(|offset| offset.parse().ok()).expect("Kafka-Next-Offset")
}

#[test]
fn a_record_is_told_whole() {
    let topic = three_brokers().create_topic("read", 1);
    let headers = [
        "-H",
        "Kafka-Key: k",
        "-H",
        "Kafka-Header: a=1",
        "-H",
        "Kafka-Header: a=2",
        "-H",
        "Kafka-Timestamp: 1700000000123",
    ];
    let body = b"{\"price\": 1.50, \"text\": \"\\u00e4\"}";
    curl_with_input(
        bridge(),
        &format!("/v1/topics/{topic}/records"),
        &[&headers[..], &["--data-binary", "@-", "-H", "Content-Type: application/json"]].concat(),
        body,
    )
    .expect(200);
    let answer = read(&topic, "offset=earliest").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(answer.header("kafka-high-watermark"), Some("1"));
    assert_eq!(next_offset(&answer), 1);
    let line = &records(&answer)[0];
    assert_eq!((&line["partition"], &line["offset"]), (&json!(0), &json!(0)));
    assert_eq!(line["timestamp"], 1_700_000_000_123_i64);
    assert_eq!(line["key"], "k");
    assert_eq!(line["headers"], json!([["a", "1"], ["a", "2"]]));
    // The document's own text, not a document that means the same.
    assert!(answer.text().contains(r#""value":{"price": 1.50, "text": "\u00e4"}"#), "{}", answer.text());
}

#[test]
fn values_come_as_json_text_or_base64() {
    let topic = three_brokers().create_topic("valueform", 1);
    kcat_write(&three_brokers().bootstrap(), &topic, &[], "{\"a\":1}\nplain \"text\"\n");
    let path = format!("/v1/topics/{topic}/records");
    curl_with_input(bridge(), &path, &["--data-binary", "@-", "-H", "Content-Type: a/b"], b"\xff\x00\n").expect(200);
    curl(bridge(), &path, &["-X", "DELETE", "-H", "Kafka-Key: k"]).expect(200);
    let column = |query: &str| -> Vec<Value> {
        let answer = read(&topic, &format!("offset=0&{query}")).expect(200);
        records(&answer).iter().map(|record| json!([record["value"], record["value_encoding"]])).collect()
    };
    let text = json!("cGxhaW4gInRleHQi");
    let expected = json!([[{"a": 1}, null], [text, "base64"], ["/wAK", "base64"], [null, null]]);
    assert_eq!(json!(column("value=json")), expected);
    assert_eq!(json!(column("")), expected);
    let texts = column("value=text");
    assert_eq!(texts[0][0], "{\"a\":1}");
    assert_eq!(texts[1][0], "plain \"text\"");
    let base64: Vec<_> = column("value=base64").iter().map(|pair| pair[0].clone()).collect();
    assert_eq!(json!(base64), json!(["eyJhIjoxfQ==", "cGxhaW4gInRleHQi", "/wAK", null]));
    assert_eq!(read(&topic, "value=xml").expect(400).json()["error_code"], 400);
}

#[test]
fn reading_on_from_the_next_offset_misses_nothing_and_repeats_nothing() {
    let topic = three_brokers().create_topic("paged", 1);
    curl_ndjson(bridge(), &format!("/v1/topics/{topic}/records"), &log_lines(0, 1_000)).expect(200);
    for limit in ["max_records=7", "max_bytes=2000", "max_records=100&max_bytes=5000", "max_records=1000"] {
        let (mut offset, mut number) = (0, 0);
        while offset < 1_000 {
            let answer = read(&topic, &format!("offset={offset}&{limit}")).expect(200);
            let page = records(&answer);
            assert!(!page.is_empty(), "{limit}: no record at {offset}");
            if limit.starts_with("max_records=7") {
                assert!(page.len() <= 7);
            }
            for record in &page {
                assert_eq!(record["offset"], number);
                let value: Value = serde_json::from_str(&log_line(number)).expect("JSON");
                assert_eq!(record["value"], value);
                number += 1;
            }
            offset = next_offset(&answer);
            assert_eq!(offset, i64::try_from(number).expect("small"));
        }
    }
}

#[test]
fn offsets_are_numbers_or_earliest_latest_and_timestamps() {
    let topic = three_brokers().create_topic("offsets", 1);
    let path = format!("/v1/topics/{topic}/records");
    for second in 0..5 {
        let timestamp = format!("Kafka-Timestamp: {}", 1_700_000_000_000_i64 + second * 1_000);
        let arguments = ["--data-binary", "@-", "-H", "Content-Type: text/plain", "-H", &timestamp];
        curl_with_input(bridge(), &path, &arguments, format!("{second}").as_bytes()).expect(200);
    }
    let first = |offset: &str| records(&read(&topic, &format!("offset={offset}")).expect(200)).first().cloned();
    assert_eq!(first("earliest").expect("a record")["offset"], 0);
    assert_eq!(first("3").expect("a record")["offset"], 3);
    assert_eq!(first("latest"), None);
    assert_eq!(first("5"), None);
    assert_eq!(first("timestamp:1700000002000").expect("a record")["offset"], 2);
    assert_eq!(first("timestamp:1700000002001").expect("a record")["offset"], 3);
    assert_eq!(first("timestamp:1800000000000"), None);
    assert_eq!(next_offset(&read(&topic, "offset=latest").expect(200)), 5);
    for offset in ["-1", "x", "timestamp:", "timestamp:x", "9223372036854775808"] {
        assert_eq!(read(&topic, &format!("offset={offset}")).expect(400).json()["error_code"], 400, "{offset}");
    }
    // Past the end: said, not waited for.
    let answer = read(&topic, "offset=1000");
    assert!((400..500).contains(&answer.status), "{}", answer.head);
}

#[test]
fn a_long_poll_answers_when_a_record_comes() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("longpoll", 1);
    assert!(records(&read(&topic, "offset=0").expect(200)).is_empty());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| read(&topic, "offset=0&wait_ms=60000").expect(200));
        curl_ndjson(bridge, &format!("/v1/topics/{topic}/records"), b"\"awaited\"\n").expect(200);
        let answer = waiting.join().expect("no panic");
        assert_eq!(records(&answer)[0]["value"], "awaited");
    });
    assert_eq!(read(&topic, "offset=0&wait_ms=60001").expect(400).json()["error_code"], 400);
}

#[test]
fn a_partition_that_is_not_there_is_told_as_40402() {
    let topic = three_brokers().create_topic("absent", 2);
    let path = format!("/v1/topics/{topic}/partitions/2/records");
    assert_eq!(curl(bridge(), &path, &[]).expect(404).json()["error_code"], 40402);
}

#[test]
fn every_partition_is_read_through_its_own_leader() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("leaders", 6);
    for partition in 0..6 {
        let line = format!("{partition}\n");
        curl_ndjson(bridge, &format!("/v1/topics/{topic}/records?partition={partition}"), line.as_bytes()).expect(200);
        let path = format!("/v1/topics/{topic}/partitions/{partition}/records?offset=earliest");
        assert_eq!(records(&curl(bridge, &path, &[]).expect(200))[0]["value"], partition);
    }
}

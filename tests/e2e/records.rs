//! One record a request: any bytes, with key, headers and timestamp; and tombstones.

use penstock_tests::{
    https::Connection,
    shared::{bridge, three_brokers},
    tools::{Answer, curl, curl_with_input, kcat_read},
};

fn post(topic: &str, query: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut arguments = vec!["--data-binary", "@-", "-H", "Content-Type: application/octet-stream"];
    for header in headers {
        arguments.extend(["-H", header]);
    }
    curl_with_input(bridge(), &format!("/v1/topics/{topic}/records{query}"), &arguments, body)
}

#[test]
fn a_binary_body_is_one_record_byte_for_byte() {
    let cluster = three_brokers();
    let topic = cluster.create_topic("binary", 3);
    let body: Vec<u8> = (0..=255).chain(*b"\r\n\n\r\n").chain((0..=255).rev()).collect();

    let answer = post(&topic, "", &[], &body).expect(200).json();

    let records = kcat_read(&cluster.bootstrap(), &topic);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].value.as_deref(), Some(body.as_slice()));
    assert_eq!((&records[0].key, records[0].headers.as_str()), (&None, ""));
    let told = serde_json::json!({
        "topic": topic,
        "partition": records[0].partition,
        "offset": records[0].offset,
        "timestamp": records[0].timestamp,
    });
    assert_eq!(answer, told);
}

#[test]
fn json_is_not_reserialised() {
    let cluster = three_brokers();
    let topic = cluster.create_topic("json", 1);
    let body = b"{ \"b\" : 1.50,\n  \"a\":1e2, \"a\": \"\\u00e4\" }\n";
    let arguments = ["-H", "Content-Type: application/json", "--data-binary", "@-"];
    curl_with_input(bridge(), &format!("/v1/topics/{topic}/records"), &arguments, body).expect(200);
    assert_eq!(kcat_read(&cluster.bootstrap(), &topic)[0].value.as_deref(), Some(body.as_slice()));
}

#[test]
fn key_headers_and_timestamp_are_the_record_s() {
    let cluster = three_brokers();
    let topic = cluster.create_topic("headers", 1);
    let headers = [
        "Kafka-Key: the key",
        "Kafka-Header: trace=abc",
        "Kafka-Header: trace=def=ghi",
        "kafka-header: empty=",
        "Kafka-Timestamp: 1700000000123",
    ];
    let answer = post(&topic, "", &headers, b"value").expect(200).json();
    assert_eq!(answer["timestamp"], 1_700_000_000_123_i64);
    let record = &kcat_read(&cluster.bootstrap(), &topic)[0];
    assert_eq!(record.key.as_deref(), Some(b"the key".as_slice()));
    assert_eq!(record.headers, "trace=abc,trace=def=ghi,empty=");
    assert_eq!(record.timestamp, 1_700_000_000_123);
}

#[test]
fn key_and_headers_that_no_http_header_can_hold_come_as_base64() {
    let cluster = three_brokers();
    let topic = cluster.create_topic("base64", 1);
    // "AP8KDQ==": 00 ff 0a 0d; "w6TigqwB": "ä€" and 01.
    post(&topic, "", &["Kafka-Key-Base64: AP8KDQ==", "Kafka-Header-Base64: bytes=w6TigqwB"], b"value").expect(200);
    let record = &kcat_read(&cluster.bootstrap(), &topic)[0];
    assert_eq!(record.key.as_deref(), Some(b"\x00\xff\x0a\x0d".as_slice()));
    assert_eq!(record.headers, "bytes=\u{e4}\u{20ac}\u{1}");
    assert_eq!(post(&topic, "", &["Kafka-Key-Base64: %%%"], b"value").expect(400).json()["error_code"], 400);
    assert_eq!(kcat_read(&cluster.bootstrap(), &topic).len(), 1);
}

#[test]
fn an_empty_key_is_not_a_missing_one() {
    let cluster = three_brokers();
    let topic = cluster.create_topic("emptykey", 1);
    // curl sends a header without a value when the name ends with a semicolon.
    post(&topic, "", &["Kafka-Key;"], b"value").expect(200);
    assert_eq!(kcat_read(&cluster.bootstrap(), &topic)[0].key.as_deref(), Some(b"".as_slice()));
}

#[test]
fn delete_writes_a_tombstone_for_a_key() {
    let cluster = three_brokers();
    let topic = cluster.create_topic("tombstone", 3);
    let path = format!("/v1/topics/{topic}/records");
    post(&topic, "", &["Kafka-Key: gone"], b"value").expect(200);
    let answer = curl(bridge(), &path, &["-X", "DELETE", "-H", "Kafka-Key: gone"]).expect(200).json();
    assert_eq!(answer["topic"], topic.as_str());
    let records = kcat_read(&cluster.bootstrap(), &topic);
    assert_eq!(records.len(), 2);
    // The same key, so the same partition, the tombstone after the value.
    assert_eq!(records[0].partition, records[1].partition);
    assert_eq!((records[0].value.is_some(), &records[1].value), (true, &None));
    assert_eq!(records[1].key.as_deref(), Some(b"gone".as_slice()));
    assert_eq!(answer["offset"], records[1].offset);

    assert_eq!(curl(bridge(), &path, &["-X", "DELETE"]).expect(400).json()["error_code"], 400);
    assert_eq!(kcat_read(&cluster.bootstrap(), &topic).len(), 2);
}

#[test]
fn a_partition_that_is_named_is_used() {
    let cluster = three_brokers();
    let topic = cluster.create_topic("partition", 4);
    for partition in [3, 0, 2] {
        let answer =
            post(&topic, &format!("?partition={partition}"), &["Kafka-Key: same"], b"value").expect(200).json();
        assert_eq!(answer["partition"], partition);
    }
    let seen: Vec<_> = kcat_read(&cluster.bootstrap(), &topic).iter().map(|record| record.partition).collect();
    assert_eq!(seen, [0, 2, 3]);
}

#[test]
fn a_partition_that_is_not_there_is_told_as_40402() {
    let cluster = three_brokers();
    let topic = cluster.create_topic("partition", 2);
    for query in ["?partition=2", "?partition=2147483647"] {
        assert_eq!(post(&topic, query, &[], b"value").expect(404).json()["error_code"], 40402, "{query}");
    }
    for query in ["?partition=-1", "?partition=x", "?partition=2147483648", "?partition=", "?nonsense=1"] {
        assert_eq!(post(&topic, query, &[], b"value").expect(400).json()["error_code"], 400, "{query}");
    }
    assert!(kcat_read(&cluster.bootstrap(), &topic).is_empty());
}

#[test]
fn a_body_over_the_record_limit_is_refused() {
    let cluster = three_brokers();
    let topic = cluster.create_topic_with("toolarge", 1, &[("max.message.bytes", "2097152")]);
    let body = vec![b'x'; (1 << 20) + 1];
    assert_eq!(post(&topic, "", &[], &body).expect(413).json()["error_code"], 413);
    // The same without a length in the head.
    let path = format!("/v1/topics/{topic}/records");
    let arguments = ["-X", "POST", "-T", "-", "-H", "Content-Type: application/octet-stream"];
    assert_eq!(curl_with_input(bridge(), &path, &arguments, &body).expect(413).json()["error_code"], 413);
    assert!(kcat_read(&cluster.bootstrap(), &topic).is_empty());
    post(&topic, "", &[], &body[1..]).expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_and_chunks_at_once_are_refused_and_nothing_is_smuggled() {
    let cluster = three_brokers();
    let topic = cluster.create_topic("smuggled", 1);
    let mut connection = Connection::open(bridge().port).await;
    let path = format!("POST /v1/topics/{topic}/records HTTP/1.1\r\nHost: localhost\r\n");
    let inner = format!("{path}Content-Length: 8\r\n\r\nsmuggled");
    let outer =
        format!("{path}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}", inner.len() + 5);
    connection.writer.send(outer.as_bytes()).await;
    // Chunked wins and is empty (RFC 9112 section 6.3), or the request is refused; either way the connection ends there.
    let answer = connection.reader.answer().await;
    assert!((400..500).contains(&answer.status), "{}", answer.head);
    connection.reader.closed().await;
    assert!(kcat_read(&cluster.bootstrap(), &topic).iter().all(|record| record.text() != "smuggled"));
}

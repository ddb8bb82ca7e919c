use crate::harness::{Bridge, Client, TOPIC, run};
use krafka::error::ErrorCode as Code;
use krafka::testing::{ApiKey, Control, FakeBroker};
use std::io::Write;

const RECORDS: &str = "/v1/topics/events/records";

#[test]
fn lines_reach_the_log_byte_for_byte_and_in_order() {
    run(async {
        let bridge = Bridge::start().await;
        let mut lines: Vec<String> = (0..5000).map(|n| format!("{{\"n\":{n}, \"t\":\"ü€😀\"}}")).collect();
        lines.push("not json at all \u{1}".into());
        lines.push("x".repeat(300_000));
        lines.push("after the long one".into());
        let answer = bridge.client().await.ndjson(RECORDS, &[], (lines.join("\n") + "\n").as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(
            answer.text(),
            "{\"topic\":\"events\",\"lines\":5003,\"written\":5003,\"not_written\":0,\"unknown\":0,\"partitions\":\
             [{\"partition\":0,\"count\":5003,\"first_offset\":0,\"last_offset\":5002}],\"failures\":[]}\n"
        );
        assert_eq!(bridge.values(), lines);
        bridge.stopped().await;
    });
}

#[test]
fn a_body_of_one_byte_chunks_is_the_same_body() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        client
            .send(Client::<tokio::net::TcpStream>::head(
                "POST",
                RECORDS,
                &[("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")],
            ))
            .await;
        for byte in "{\"a\":1}\r\n\n{\"b\":\"€\"}".bytes() {
            client.send_chunk(&[byte]).await;
        }
        client.send_chunk(b"").await;
        let summary = client.answer().await.json();
        assert_eq!((&summary["lines"], &summary["written"]), (&3.into(), &2.into()), "the empty line counts as a line");
        assert_eq!(bridge.values(), ["{\"a\":1}", "{\"b\":\"€\"}"]);
    });
}

#[test]
fn a_long_line_is_refused_alone() {
    run(async {
        let bridge = Bridge::with("[limits]\nrecord_bytes = 1024\n").await;
        let body = format!("first\n{}\n{}\nlast", "x".repeat(1024), "y".repeat(1025));
        let answer = bridge.client().await.ndjson(RECORDS, &[("Kafka-First-Line", "11")], body.as_bytes()).await;
        assert_eq!(answer.error_code(), 413);
        let summary = answer.json();
        assert_eq!(
            (&summary["lines"], &summary["written"], &summary["not_written"]),
            (&4.into(), &3.into(), &1.into())
        );
        let failure = &summary["failures"][0];
        assert_eq!((&failure["first_line"], &failure["last_line"]), (&13.into(), &13.into()));
        assert_eq!((&failure["outcome"], &failure["error_code"]), (&"not_written".into(), &413.into()));
        assert_eq!(bridge.values(), ["first".to_owned(), "x".repeat(1024), "last".into()]);
    });
}

#[test]
fn one_record_is_answered_with_its_place() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let binary: Vec<u8> = (0..=255).collect();
        for (offset, timestamp) in [(0, "1700000000000"), (1, "1700000000001")] {
            let answer = client.request("POST", RECORDS, &[("Kafka-Timestamp", timestamp)], &binary).await;
            let expected =
                format!("{{\"topic\":\"events\",\"partition\":0,\"offset\":{offset},\"timestamp\":{timestamp}}}\n");
            assert_eq!((answer.status, answer.text()), (200, expected));
        }
        let log = bridge.log(TOPIC, 0);
        assert_eq!(log[1].value.as_deref(), Some(&binary[..]));
        assert_eq!(log[1].timestamp, 1_700_000_000_001);
    });
}

#[test]
fn one_record_may_come_in_many_pieces() {
    run(async {
        let bridge = Bridge::with("[limits]\nrecord_bytes = 300000\n").await;
        let value = "v".repeat(300_000);
        let answer = bridge.client().await.request("POST", RECORDS, &[], value.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(bridge.values(), [value]);
        let mut client = bridge.client().await;
        client.send(Client::<tokio::net::TcpStream>::head("POST", RECORDS, &[("Transfer-Encoding", "chunked")])).await;
        client.try_send(format!("493e1\r\n{}\r\n0\r\n\r\n", "v".repeat(300_001))).await;
        assert_eq!(client.answer().await.error_code(), 413, "announced by nothing, one byte too long");
        assert_eq!(bridge.values().len(), 1);
    });
}

#[test]
fn keys_headers_and_partitions_are_those_of_the_request() {
    run(async {
        let bridge = Bridge::start().await;
        bridge.kafka.create_topic("wide", 3);
        let mut client = bridge.client().await;
        let headers = [
            ("Kafka-Key", "user-1"),
            ("Kafka-Header", "trace=1"),
            ("Kafka-Header", "trace=2"),
            ("Kafka-Header-Base64", "bin=AP8="),
        ];
        let answer = client.request("POST", "/v1/topics/wide/records?partition=2", &headers, b"v").await;
        assert_eq!(answer.json()["partition"], 2, "{}", answer.text());
        let record = &bridge.log("wide", 2)[0];
        assert_eq!(record.key.as_deref(), Some(&b"user-1"[..]));
        assert_eq!(record.headers.len(), 3, "duplicates are kept");

        // Java's murmur2 of "user-1" decides where it goes without a partition: always the same.
        let first =
            client.request("POST", "/v1/topics/wide/records", &headers[..1], b"v").await.json()["partition"].clone();
        let again =
            client.request("POST", "/v1/topics/wide/records", &headers[..1], b"v").await.json()["partition"].clone();
        assert_eq!(first, again);
    });
}

#[test]
fn a_key_may_be_a_member_of_each_document() {
    run(async {
        let bridge = Bridge::start().await;
        let body = b"{\"id\":\"a\",\"v\":1}\n{\"v\":2}\n{\"id\":7}\n";
        let answer = bridge.client().await.ndjson(&format!("{RECORDS}?key=/id"), &[], body).await;
        assert_eq!(answer.error_code(), 400);
        assert_eq!(answer.json()["failures"][0]["first_line"], 2);
        assert!(answer.text().contains("/id"), "the pointer is named");
        let keys: Vec<_> = bridge.log(TOPIC, 0).into_iter().map(|record| record.key.expect("keyed").to_vec()).collect();
        assert_eq!(keys, [b"a".to_vec(), b"7".to_vec()]);
    });
}

#[test]
fn lines_that_are_no_json_are_refused_where_that_is_asked_for() {
    run(async {
        let bridge = Bridge::with("[producer]\nvalidate = \"json\"\n").await;
        let body = b"{\"a\":1}\n{\"a\":}\n[1,2]\n1 2\n{\"a\":\"\xff\"}\n";
        let answer = bridge.client().await.ndjson(RECORDS, &[], body).await;
        assert_eq!(answer.error_code(), 400);
        assert_eq!(answer.json()["not_written"], 3);
        assert_eq!(bridge.values(), ["{\"a\":1}", "[1,2]"]);
        let answer = bridge.client().await.ndjson(&format!("{RECORDS}?validate=none"), &[], b"{\"a\":}\n").await;
        assert_eq!(answer.status, 200);
    });
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn encoded_bodies_are_decoded_on_the_way_in() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let lines: Vec<String> = (0..20_000).map(|n| format!("{{\"n\":{n}}}")).collect();
        let body = lines.join("\n");
        let zstd = zstd::stream::encode_all(body.as_bytes(), 1).expect("memory");
        for (encoding, body) in [("gzip", gzip(body.as_bytes())), ("zstd", zstd)] {
            let answer = client.ndjson(RECORDS, &[("Content-Encoding", encoding)], &body).await;
            assert_eq!((answer.status, &answer.json()["written"]), (200, &20_000.into()), "{encoding}");
        }
        let answer = client.request("POST", RECORDS, &[("Content-Encoding", "gzip")], &gzip(b"one")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(bridge.values(), [&lines[..], &lines[..], &["one".to_owned()]].concat());
    });
}

#[test]
fn a_broken_encoding_is_told_with_what_was_written_before_it() {
    run(async {
        let bridge = Bridge::start().await;
        let mut body = gzip(b"whole 1\nwhole 2\nhalf");
        let checksum = body.len() - 8;
        body[checksum] ^= 1;
        let answer = bridge.client().await.ndjson(RECORDS, &[("Content-Encoding", "gzip")], &body).await;
        assert_eq!(answer.error_code(), 400);
        assert_eq!((&answer.json()["lines"], &answer.json()["written"]), (&2.into(), &2.into()));
        assert_eq!(bridge.values(), ["whole 1", "whole 2"]);
    });
}

#[test]
fn a_tombstone_is_a_null_value_for_a_key() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        assert_eq!(client.request("DELETE", RECORDS, &[], b"").await.error_code(), 400, "no key");
        let answer = client.request("DELETE", RECORDS, &[("Kafka-Key", "gone")], b"").await;
        assert_eq!((answer.status, &answer.json()["offset"]), (200, &0.into()));
        let record = &bridge.log(TOPIC, 0)[0];
        assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b"gone"[..]), None));
    });
}

#[test]
fn a_body_that_breaks_off_leaves_no_half_line() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        client
            .send(Client::<tokio::net::TcpStream>::head(
                "POST",
                RECORDS,
                &[("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")],
            ))
            .await;
        client.send_chunk(b"whole\nhal").await;
        drop(client);
        while bridge.values().is_empty() {
            tokio::task::yield_now().await;
        }
        // The end of the bridge is behind everything that the lost connection could still cause.
        let left = bridge.stopped().await.all_records(TOPIC).expect("readable");
        assert_eq!(left.iter().map(|record| record.value.as_deref()).collect::<Vec<_>>(), [Some(&b"whole"[..])]);
    });
}

#[test]
fn pipelined_requests_are_answered_and_written_in_order() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let requests: String =
            (0..20).map(|n| format!("POST {RECORDS} HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\n{n:02}")).collect();
        client.send(requests).await;
        for offset in 0..20 {
            assert_eq!(client.answer().await.json()["offset"], offset);
        }
        assert_eq!(bridge.values(), (0..20).map(|n| format!("{n:02}")).collect::<Vec<_>>());
    });
}

#[test]
fn too_few_replicas_is_a_503_and_a_missing_answer_a_504() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        bridge.kafka.on(ApiKey::Produce, |_| Control::Error(Code::NotEnoughReplicas));
        let headers = [("Kafka-Timeout-Ms", "300")];
        let answer = client.ndjson(RECORDS, &headers, b"a\nb\n").await;
        assert_eq!(answer.error_code(), 50303);
        assert_eq!(answer.json()["not_written"], 2);

        // Another topic: the first one's partition may still be pausing between two attempts.
        bridge.kafka.create_topic("other", 1);
        bridge.kafka.clear_hooks();
        bridge.kafka.on(ApiKey::Produce, |_| Control::Silence);
        let other = "/v1/topics/other/records";
        let answer = client.ndjson(other, &headers, b"a\nb\n").await;
        assert_eq!(answer.error_code(), 50401);
        let summary = answer.json();
        assert_eq!((&summary["unknown"], &summary["failures"][0]["outcome"]), (&2.into(), &"unknown".into()));
        bridge.kafka.create_topic("third", 1);
        let answer = client.request("POST", "/v1/topics/third/records", &headers, b"one").await;
        assert_eq!(answer.error_code(), 50401);
        assert_eq!(answer.json()["unknown"], 1, "one record's error has the summary's members too");
        bridge.kafka.clear_hooks();
    });
}

#[test]
fn no_broker_until_the_deadline_is_a_503_and_certainly_not_written() {
    run(async {
        let kafka = FakeBroker::start_cluster(1).await.expect("loopback");
        kafka.create_topic(TOPIC, 1);
        let bridge = Bridge::in_front_of(kafka, "").await;
        let mut client = bridge.client().await;
        assert_eq!(client.request("POST", RECORDS, &[], b"warm").await.status, 200);
        let node = *bridge.kafka.request_nodes(ApiKey::Produce).first().expect("one request");
        bridge.kafka.crash(node);
        let answer = client.ndjson(RECORDS, &[("Kafka-Timeout-Ms", "300")], b"a\n").await;
        // The first attempt may have met the dying connection: then nobody can say.
        assert!([50302, 50401].contains(&answer.error_code()), "{}", answer.text());
        let answer = client.ndjson(RECORDS, &[("Kafka-Timeout-Ms", "300")], b"b\n").await;
        assert_eq!(answer.error_code(), 50302);
        assert_eq!(answer.json()["not_written"], 1);
        assert_eq!(bridge.values(), ["warm"]);
    });
}

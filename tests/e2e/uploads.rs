//! The main job: NDJSON over HTTPS into three brokers, read back by clients that are not ours.

use std::{collections::HashMap, io::Write, process::Stdio, time::Duration};

use penstock_tests::{
    bridge::Bridge,
    distribution::Version,
    eventually,
    https::Connection,
    kafka::Cluster,
    shared::{bridge, one_broker, three_brokers},
    tools::{Answer, console_consumer, curl, curl_answer, curl_command, curl_ndjson, curl_with_input, kcat_read},
};

use crate::support::{assert_counts, assert_partitions, assert_topic_is_log, log_lines, values};

#[test]
fn a_file_that_curl_posts_is_read_back_byte_for_byte() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("upload", 6);
    let body = log_lines(0, 20_000);

    let answer = curl_ndjson(bridge, &format!("/v1/topics/{topic}/records"), &body).expect(200);

    assert_eq!(answer.header("content-type"), Some("application/json"));
    let summary = answer.json();
    assert_eq!(summary["topic"], topic.as_str());
    assert_eq!(summary["failures"], serde_json::json!([]));
    assert_counts(&summary, 20_000, 20_000, 0, 0);
    let records = assert_topic_is_log(&cluster.bootstrap(), &topic, 0, 20_000);
    assert_partitions(&summary, &records);
    assert!(records.iter().all(|record| record.key.is_none() && record.headers.is_empty()));

    // The Java consumer sees the same lines; it mixes partitions, so compare them sorted.
    let seen = console_consumer(&cluster.bootstrap(), &topic, 20_000);
    let sorted = |bytes: &[u8]| {
        let mut lines: Vec<_> = bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort_unstable();
        lines
    };
    assert!(sorted(&seen) == sorted(&body), "the console consumer printed other lines than were sent");
}

#[test]
fn a_pipe_that_curl_uploads_is_in_kafka_before_the_pipe_ends() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("pipe", 1);
    let mut command = curl_command(bridge, &format!("/v1/topics/{topic}/records"));
    command.args(["-X", "POST", "-H", "Content-Type: application/x-ndjson", "-T", "-"]);
    let mut curl = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("curl");
    let mut pipe = curl.stdin.take().expect("it is piped");

    pipe.write_all(&log_lines(0, 1_000)).expect("curl reads");
    eventually("the first thousand lines are in Kafka", Duration::from_secs(30), || {
        (kcat_read(&cluster.bootstrap(), &topic).len() == 1_000).then_some(())
    });
    pipe.write_all(&log_lines(1_000, 500)).expect("curl reads");
    drop(pipe);

    let answer = curl_answer(curl.wait_with_output().expect("it is our child")).expect(200);
    assert_counts(&answer.json(), 1_500, 1_500, 0, 0);
    let records = assert_topic_is_log(&cluster.bootstrap(), &topic, 0, 1_500);
    assert_partitions(&answer.json(), &records);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_line_a_chunk_is_as_good_as_one_chunk() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("chunks", 3);
    let mut connection = Connection::open(bridge.port).await;
    let request = format!("POST /v1/topics/{topic}/records");
    connection.begin_chunked(&request, &["Content-Type: application/x-ndjson"]).await;
    for number in 0..5_000 {
        connection.writer.chunk(&log_lines(number, 1)).await;
    }
    connection.writer.last_chunk().await;
    let answer = connection.reader.answer().await.expect(200);
    assert_counts(&answer.json(), 5_000, 5_000, 0, 0);
    assert_topic_is_log(&cluster.bootstrap(), &topic, 0, 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_one_connection_keep_their_order() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("order", 1);
    let mut connection = Connection::open(bridge.port).await;
    for request in 0..50 {
        let path = format!("POST /v1/topics/{topic}/records");
        connection.send(&path, &["Content-Type: application/x-ndjson"], &log_lines(request * 20, 20)).await;
        connection.reader.answer().await.expect(200);
    }
    assert_topic_is_log(&cluster.bootstrap(), &topic, 0, 1_000);
}

#[test]
fn uploads_at_the_same_time_each_keep_their_order() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("together", 3);
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let path = format!("/v1/topics/{topic}/records");
            scope.spawn(move || {
                let body: String = (0..3_000).map(|line| format!("{writer} {line}\n")).collect();
                let answer = curl_ndjson(bridge, &path, body.as_bytes()).expect(200);
                assert_counts(&answer.json(), 3_000, 3_000, 0, 0);
            });
        }
    });
    let mut last: HashMap<(i32, String), u32> = HashMap::new();
    let records = kcat_read(&cluster.bootstrap(), &topic);
    assert_eq!(records.len(), 24_000);
    for record in &records {
        let (writer, line) = record.text().split_once(' ').expect("writer and line");
        let line: u32 = line.parse().expect("a number");
        // Strictly rising: neither out of order nor twice.
        if let Some(before) = last.insert((record.partition, writer.to_owned()), line) {
            assert!(before < line, "writer {writer}: {line} after {before} in partition {}", record.partition);
        }
    }
}

#[test]
fn a_body_of_a_kind_that_names_ndjson_otherwise_is_ndjson_too() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let kinds =
        ["application/ndjson", "application/jsonl", "application/x-ndjson; charset=utf-8", "Application/X-NDJSON"];
    for kind in kinds {
        let topic = cluster.create_topic("kind", 1);
        let header = format!("Content-Type: {kind}");
        let path = format!("/v1/topics/{topic}/records");
        let answer = curl_with_input(bridge, &path, &["-H", &header, "--data-binary", "@-"], b"a\nb\n").expect(200);
        assert_counts(&answer.json(), 2, 2, 0, 0);
        assert_eq!(values(&cluster.bootstrap(), &topic), [b"a", b"b"], "{kind}");
    }
}

#[test]
fn lines_that_are_not_json_are_refused_alone_where_json_is_asked_for() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("validated", 1);
    let body = b"{\"a\":1}\n{\"a\":\n\n[1, 2]\nnull nonsense\n{\"b\":\"\xff\"}\n  {\"c\": 1.50}  \n";
    let answer = curl_ndjson(bridge, &format!("/v1/topics/{topic}/records?validate=json"), body).expect(400);
    let summary = answer.json();
    assert_counts(&summary, 7, 3, 3, 0);
    let refused: Vec<_> = summary["failures"]
        .as_array()
        .expect("a list")
        .iter()
        .flat_map(|range| {
            assert_eq!(range["outcome"], "not_written");
            range["first_line"].as_u64().expect("a line")..=range["last_line"].as_u64().expect("a line")
        })
        .collect();
    assert_eq!(refused, [2, 5, 6]);
    let expected: [&[u8]; 3] = [b"{\"a\":1}", b"[1, 2]", b"  {\"c\": 1.50}  "];
    assert_eq!(values(&cluster.bootstrap(), &topic), expected);
}

/// What must work on every version of Kafka: lines, keys, headers, a single record, a tombstone.
fn the_main_job_works(cluster: &Cluster) {
    let bridge = Bridge::start(&cluster.bootstrap());
    let bootstrap = cluster.bootstrap();

    let topic = cluster.create_topic("versions", 3);
    let path = format!("/v1/topics/{topic}/records");
    let answer: Answer = curl_ndjson(&bridge, &path, &log_lines(0, 5_000)).expect(200);
    assert_counts(&answer.json(), 5_000, 5_000, 0, 0);
    let records = assert_topic_is_log(&bootstrap, &topic, 0, 5_000);
    assert_partitions(&answer.json(), &records);

    let topic = cluster.create_topic("versions", 1);
    let path = format!("/v1/topics/{topic}/records");
    let headers = ["-H", "Kafka-Key: k", "-H", "Kafka-Header: a=1", "-H", "Kafka-Header: a=2"];
    curl_with_input(&bridge, &path, &[&headers[..], &["--data-binary", "@-"]].concat(), b"one\nvalue").expect(200);
    curl(&bridge, &path, &["-X", "DELETE", "-H", "Kafka-Key: k"]).expect(200);
    let records = kcat_read(&bootstrap, &topic);
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].value.as_deref(), Some(b"one\nvalue".as_slice()));
    assert_eq!(records[0].headers, "a=1,a=2");
    assert_eq!(records[1].value, None);
    assert!(records.iter().all(|record| record.key.as_deref() == Some(b"k")));

    let read = curl(&bridge, &format!("/v1/topics/{topic}/partitions/0/records?offset=earliest&value=text"), &[]);
    let read = read.expect(200);
    let first: serde_json::Value = serde_json::from_str(read.text().lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["value"], "one\nvalue");
}

#[test]
fn the_main_job_works_on_kafka_4_1() {
    the_main_job_works(one_broker());
}

#[test]
fn the_main_job_works_on_kafka_3_9() {
    the_main_job_works(&Cluster::start(Version::V3_9_2, 1, &[]));
}

#[test]
fn the_main_job_works_on_kafka_2_2() {
    the_main_job_works(&Cluster::start(Version::V2_2_1, 1, &[]));
}

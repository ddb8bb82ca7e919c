//! Keys: taken from documents, and sent to the partition that every other client would send them to.

use std::collections::HashMap;

use penstock_tests::{
    shared::{bridge, three_brokers},
    tools::{Record, console_producer, curl_ndjson, curl_with_input, kcat_read, kcat_write},
};

use crate::support::assert_counts;

fn partitions_by_key(records: &[Record]) -> HashMap<Vec<u8>, i32> {
    let mut partitions = HashMap::new();
    for record in records {
        let key = record.key.clone().expect("a key");
        let before = partitions.insert(key, record.partition);
        assert!(before.is_none_or(|before| before == record.partition), "one key in two partitions");
    }
    partitions
}

/// Keys of every length from 1 to 24 (murmur2 eats four bytes at a time), some of them not ASCII.
fn keys() -> Vec<String> {
    (0..300_usize)
        .map(|number| {
            let text = format!("k{number:x}-äß€-abcdefghijklmnopqrstuvwxyz");
            text.chars().cycle().skip(number % 7).take(1 + number % 24).chain(number.to_string().chars()).collect()
        })
        .collect()
}

#[test]
fn keys_go_where_the_java_client_and_librdkafka_send_them() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let bootstrap = cluster.bootstrap();
    let keys = keys();

    let ours = cluster.create_topic("keys-ours", 7);
    let body: String =
        keys.iter().map(|key| format!("{}\n", serde_json::json!({ "id": { "key": key }, "x": 1 }))).collect();
    let answer = curl_ndjson(bridge, &format!("/v1/topics/{ours}/records?key=/id/key"), body.as_bytes()).expect(200);
    assert_counts(&answer.json(), 300, 300, 0, 0);

    let java = cluster.create_topic("keys-java", 7);
    let lines: String = keys.iter().map(|key| format!("{key}\tvalue\n")).collect();
    console_producer(&bootstrap, &java, &["parse.key=true", "key.separator=\t"], &lines);
    let librdkafka = cluster.create_topic("keys-librdkafka", 7);
    kcat_write(&bootstrap, &librdkafka, &["-K", "\t", "-X", "partitioner=murmur2_random"], &lines);

    let ours = partitions_by_key(&kcat_read(&bootstrap, &ours));
    assert_eq!(ours.len(), 300);
    assert_eq!(ours, partitions_by_key(&kcat_read(&bootstrap, &java)));
    assert_eq!(ours, partitions_by_key(&kcat_read(&bootstrap, &librdkafka)));
}

#[test]
fn a_key_is_a_string_s_characters_or_else_the_json_text() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("keytext", 1);
    let body = concat!(
        "{\"k\":\"plain\"}\n",
        "{\"k\":\"esc\\u00e4ped \\\"quotes\\\" \\\\ \\n\"}\n",
        "{\"k\":1.50}\n",
        "{\"k\":true}\n",
        "{\"k\":{\"b\": [1, 2]}}\n",
        "{\"x\":{\"k\":\"not this\"},\"k\":\"this\"}\n",
    );
    let answer = curl_ndjson(bridge, &format!("/v1/topics/{topic}/records?key=/k"), body.as_bytes()).expect(200);
    assert_counts(&answer.json(), 6, 6, 0, 0);
    let records = kcat_read(&cluster.bootstrap(), &topic);
    let keys: Vec<_> = records.iter().map(|record| String::from_utf8(record.key.clone().expect("a key"))).collect();
    let keys: Vec<_> = keys.iter().map(|key| key.as_deref().expect("UTF-8")).collect();
    assert_eq!(keys, ["plain", "esc\u{e4}ped \"quotes\" \\ \n", "1.50", "true", "{\"b\": [1, 2]}", "this"]);
    // The documents themselves are untouched.
    let lines: Vec<_> = records.iter().map(Record::text).collect();
    assert_eq!(lines, body.lines().collect::<Vec<_>>());
}

#[test]
fn a_line_without_the_key_is_refused_and_the_others_go_on() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("keyless", 1);
    let body = b"{\"k\":1}\n{\"x\":1}\nnot json\n{\"k\":2}\n";
    let answer = curl_ndjson(bridge, &format!("/v1/topics/{topic}/records?key=/k"), body).expect(400);
    assert_counts(&answer.json(), 4, 2, 2, 0);
    let records = kcat_read(&cluster.bootstrap(), &topic);
    assert_eq!(records.iter().map(Record::text).collect::<Vec<_>>(), ["{\"k\":1}", "{\"k\":2}"]);
}

#[test]
fn one_key_and_headers_for_a_whole_upload() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("fixedkey", 5);
    let arguments = [
        "-H",
        "Content-Type: application/x-ndjson",
        "-H",
        "Kafka-Key: k",
        "-H",
        "Kafka-Header: a=b",
        "--data-binary",
        "@-",
    ];
    let path = format!("/v1/topics/{topic}/records");
    curl_with_input(bridge, &path, &arguments, b"one\ntwo\nthree\n").expect(200);
    let records = kcat_read(&cluster.bootstrap(), &topic);
    assert_eq!(partitions_by_key(&records).len(), 1);
    assert_eq!(records.iter().map(Record::text).collect::<Vec<_>>(), ["one", "two", "three"]);
    assert!(records.iter().all(|record| record.headers == "a=b"));
}

#[test]
fn lines_without_keys_reach_every_partition_in_the_long_run() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("sticky", 3);
    let line = "x".repeat(999) + "\n";
    let body = line.repeat(20_000);
    curl_ndjson(bridge, &format!("/v1/topics/{topic}/records"), body.as_bytes()).expect(200);
    let mut counts = [0_u32; 3];
    for record in kcat_read(&cluster.bootstrap(), &topic) {
        counts[usize::try_from(record.partition).expect("0 to 2")] += 1;
    }
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
    assert_eq!(counts.iter().sum::<u32>(), 20_000);
}

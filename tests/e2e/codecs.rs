//! Compressed batches: every codec of the bridge is read by clients that are not ours, and theirs by the bridge.

use penstock_tests::{
    bridge::{Bridge, Settings},
    shared::{bridge, one_broker, three_brokers},
    tools::{console_consumer, curl, curl_ndjson, kcat_write},
};

use crate::support::{assert_counts, assert_topic_is_log, log_line, log_lines};

#[test]
fn batches_of_every_codec_are_read_by_kcat_and_the_console_consumer() {
    let cluster = one_broker();
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let bridge =
            Bridge::start_with(&Settings::new(&cluster.bootstrap()).set("producer.compression", &format!("{codec:?}")));
        let topic = cluster.create_topic(codec, 1);
        let body = log_lines(0, 3_000);
        let answer = curl_ndjson(&bridge, &format!("/v1/topics/{topic}/records"), &body).expect(200);
        assert_counts(&answer.json(), 3_000, 3_000, 0, 0);
        assert_topic_is_log(&cluster.bootstrap(), &topic, 0, 3_000);
        let printed = console_consumer(&cluster.bootstrap(), &topic, 3_000);
        assert!(printed == body, "{codec}: the console consumer printed other lines than were sent");
        let stored = cluster.log_bytes(&topic, 0);
        assert!(stored < body.len() as u64 / 2, "{codec}: {stored} bytes in the log for {} sent", body.len());
    }
}

#[test]
fn the_bridge_reads_batches_of_every_codec() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let lines = String::from_utf8(log_lines(0, 500)).expect("UTF-8");
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = cluster.create_topic(codec, 1);
        kcat_write(&cluster.bootstrap(), &topic, &["-z", codec, "-X", "linger.ms=50"], &lines);
        let path = format!("/v1/topics/{topic}/partitions/0/records?offset=earliest&max_records=500");
        let read = curl(bridge, &path, &[]).expect(200);
        let read: Vec<_> = read.text().lines().map(ToOwned::to_owned).collect();
        assert_eq!(read.len(), 500, "{codec}");
        for (number, line) in read.iter().enumerate() {
            let value = format!("\"value\":{}", log_line(number as u64));
            assert!(line.contains(&value), "{codec}: {value} is not as it was in {line}");
        }
    }
}

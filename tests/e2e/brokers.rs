//! Brokers that die, hang, or lack replicas: what was acknowledged is there, once and in order, and what was not is told.

use std::time::Duration;

use penstock_tests::{
    bridge::{Bridge, Settings},
    distribution::Version,
    https::Connection,
    kafka::Cluster,
    tools::{curl_ndjson, curl_with_input},
};

use crate::support::{assert_counts, assert_topic_is_log, log_lines, values};

const NDJSON: &[&str] = &["Content-Type: application/x-ndjson"];

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_loses_repeats_and_reorders_nothing() {
    let cluster = Cluster::start(Version::V4_1_1, 3, &[("broker.session.timeout.ms", "6000")]);
    let bridge = Bridge::start_with(&Settings::new(&cluster.bootstrap()).set("producer.delivery_timeout", "\"120s\""));
    let topic = cluster.create_topic("failover", 3);
    let mut upload = Connection::open(bridge.port).await;
    upload.begin_chunked(&format!("POST /v1/topics/{topic}/records"), NDJSON).await;
    let mut sent = 0;
    for part in 0..40 {
        if part == 15 {
            let leader = cluster.leader(0, &topic, 0).expect("a leader");
            cluster.kill(leader);
        }
        upload.writer.chunk(&log_lines(sent, 2_500)).await;
        sent += 2_500;
    }
    upload.writer.last_chunk().await;
    let answer = upload.reader.answer().await.expect(200);
    assert_counts(&answer.json(), sent, sent, 0, 0);
    assert_topic_is_log(&cluster.bootstrap(), &topic, 0, sent);
}

#[test]
fn too_few_replicas_in_sync_is_told_as_not_written() {
    let cluster = Cluster::start(Version::V4_1_1, 3, &[("broker.session.timeout.ms", "6000")]);
    let bridge = Bridge::start(&cluster.bootstrap());
    let topic = cluster.create_topic_with("insync", 1, &[("min.insync.replicas", "3")]);
    let path = format!("/v1/topics/{topic}/records");
    curl_ndjson(&bridge, &path, b"before\n").expect(200);
    let leader = cluster.leader(0, &topic, 0).expect("a leader");
    let follower = (0..3).find(|&node| node != leader).expect("three nodes");
    cluster.kill(follower);
    penstock_tests::eventually("the follower has left the in-sync replicas", Duration::from_secs(60), || {
        let known = penstock_tests::wire::partitions(cluster.ports()[leader], &topic)?;
        (known[0].in_sync == 2).then_some(())
    });
    let arguments = ["-H", NDJSON[0], "-H", "Kafka-Timeout-Ms: 2000", "--data-binary", "@-"];
    let answer = curl_with_input(&bridge, &path, &arguments, b"never\nnever\n").expect(503).json();
    assert_eq!(answer["error_code"], 50303, "{answer}");
    assert_counts(&answer, 2, 0, 2, 0);
    cluster.restart(follower);
    penstock_tests::eventually("the follower is back in sync", Duration::from_secs(60), || {
        let known = penstock_tests::wire::partitions(cluster.ports()[leader], &topic)?;
        (known[0].in_sync == 3).then_some(())
    });
    curl_ndjson(&bridge, &path, b"after\n").expect(200);
    // `not_written` is certain.
    assert_eq!(values(&cluster.bootstrap(), &topic), [b"before".as_slice(), b"after"]);
}

#[test]
fn a_broker_that_hangs_leaves_records_unknown_and_one_that_is_gone_not_written() {
    let cluster = Cluster::start(Version::V4_1_1, 1, &[]);
    // One worker, so that the connection of the first record is the one that hangs.
    let bridge = Bridge::start_with(&Settings::new(&cluster.bootstrap()).set("runtime.workers", "1"));
    let topic = cluster.create_topic("hanging", 1);
    let path = format!("/v1/topics/{topic}/records");
    curl_ndjson(&bridge, &path, b"before\n").expect(200);
    let arguments = ["-H", NDJSON[0], "-H", "Kafka-Timeout-Ms: 2000", "--data-binary", "@-"];

    cluster.signal(0, "STOP");
    let answer = curl_with_input(&bridge, &path, &arguments, b"maybe\n").expect(504).json();
    assert_eq!(answer["error_code"], 50401, "{answer}");
    assert_counts(&answer, 1, 0, 0, 1);
    cluster.signal(0, "CONT");
    penstock_tests::eventually("the bridge writes again", Duration::from_secs(60), || {
        (curl_ndjson(&bridge, &path, b"between\n").status == 200).then_some(())
    });

    cluster.kill(0);
    let answer = curl_with_input(&bridge, &path, &arguments, b"never\n");
    // The first batch after the kill may have been on the wire when the connection broke; the next cannot.
    assert!(matches!(answer.status, 503 | 504), "{}", answer.text());
    let answer = curl_with_input(&bridge, &path, &arguments, b"never\n").expect(503).json();
    assert_eq!(answer["error_code"], 50302, "{answer}");
    assert_counts(&answer, 1, 0, 1, 0);

    cluster.restart(0);
    penstock_tests::eventually("the bridge writes again", Duration::from_secs(60), || {
        (curl_ndjson(&bridge, &path, b"after\n").status == 200).then_some(())
    });
    let seen = values(&cluster.bootstrap(), &topic);
    assert_eq!(seen.first().map(Vec::as_slice), Some(b"before".as_slice()));
    assert_eq!(seen.last().map(Vec::as_slice), Some(b"after".as_slice()));
    let maybe = seen.iter().filter(|value| value.as_slice() == b"maybe").count();
    assert!(maybe <= 1, "an unknown record is there at most once");
    let never = seen.iter().filter(|value| value.as_slice() == b"never").count();
    assert!(never <= 1, "the second of them was certainly not written");
}

//! Topics: created, described, listed, deleted; and what is said of those that are not there.

use std::time::{Duration, SystemTime};

use penstock_tests::{
    bridge::Bridge,
    eventually,
    shared::{bridge, one_broker, three_brokers},
    tools::{curl, curl_ndjson, curl_with_input, kcat_metadata},
    unique, wire,
};

use crate::support::{assert_counts, values};

fn put(bridge: &Bridge, topic: &str, body: &str) -> penstock_tests::tools::Answer {
    let arguments = ["-X", "PUT", "-H", "Content-Type: application/json", "--data-binary", "@-"];
    curl_with_input(bridge, &format!("/v1/topics/{topic}"), &arguments, body.as_bytes())
}

/// How many partitions and replicas librdkafka sees; `None` when it sees no such topic.
fn shape(bootstrap: &str, topic: &str) -> Option<(usize, usize)> {
    let metadata = kcat_metadata(bootstrap);
    let topics = metadata["topics"].as_array().expect("a list");
    let partitions = topics.iter().find(|found| found["topic"] == topic)?["partitions"].as_array().expect("a list");
    Some((partitions.len(), partitions[0]["replicas"].as_array().expect("a list").len()))
}

#[test]
fn put_creates_a_topic_and_is_idempotent() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = unique("created");
    let body = r#"{"partitions":4,"replication_factor":3,"configs":{"cleanup.policy":"compact"}}"#;
    let created = put(bridge, &topic, body).expect(201);
    assert_eq!(created.json()["partitions"], 4);
    eventually("librdkafka sees it", Duration::from_secs(10), || {
        (shape(&cluster.bootstrap(), &topic)? == (4, 3)).then_some(())
    });
    put(bridge, &topic, body).expect(200);
    put(bridge, &topic, r#"{"partitions":4,"replication_factor":3}"#).expect(200);
    assert_eq!(put(bridge, &topic, r#"{"partitions":5,"replication_factor":3}"#).expect(409).json()["error_code"], 409);
    assert_eq!(put(bridge, &topic, r#"{"partitions":4,"replication_factor":1}"#).expect(409).json()["error_code"], 409);
    assert_eq!(shape(&cluster.bootstrap(), &topic), Some((4, 3)));
}

#[test]
fn a_topic_that_cannot_be_is_refused() {
    let bridge = bridge();
    let topic = unique("refused");
    for body in [r#"{"partitions":0}"#, r#"{"partitions":"many"}"#, r#"{"partition":3}"#, "not json"] {
        let answer = put(bridge, &topic, body);
        assert!(matches!(answer.status, 400 | 422), "{body}: {}{}", answer.head, answer.text());
    }
    // One replica more than there are brokers, and a setting that Kafka does not have: Kafka's own refusals.
    for body in [
        r#"{"partitions":1,"replication_factor":4}"#,
        r#"{"partitions":1,"replication_factor":3,"configs":{"no.such.setting":"1"}}"#,
    ] {
        put(bridge, &topic, body).expect(400);
    }
    curl(bridge, &format!("/v1/topics/{topic}"), &[]).expect(404);
}

#[test]
fn a_topic_is_described_and_listed() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic_with("described", 3, &[("retention.ms", "123456789")]);
    let described = curl(bridge, &format!("/v1/topics/{topic}"), &[]).expect(200);
    let (described, text) = (described.json(), described.text().to_owned());
    let partitions = described["partitions"].as_array().expect("a list of partitions");
    assert_eq!(partitions.len(), 3);
    for (number, partition) in partitions.iter().enumerate() {
        assert_eq!(partition["partition"], number);
        let leader = cluster.leader(0, &topic, i32::try_from(number).expect("small")).expect("a leader");
        assert_eq!(partition["leader"], leader + 1, "{partition}");
    }
    assert!(text.contains("123456789"), "its settings are told: {text}");

    let listed = curl(bridge, "/v1/topics", &[]).expect(200);
    assert!(listed.text().contains(&format!("\"{topic}\"")), "{}", listed.text());
}

#[test]
fn a_deleted_topic_is_gone() {
    let (cluster, bridge) = (three_brokers(), bridge());
    let topic = cluster.create_topic("deleted", 2);
    let records = format!("/v1/topics/{topic}/records");
    curl_ndjson(bridge, &records, b"before\n").expect(200);
    let answer = curl(bridge, &format!("/v1/topics/{topic}"), &["-X", "DELETE"]);
    assert!(matches!(answer.status, 200 | 204), "{}", answer.head);
    eventually("librdkafka no longer sees it", Duration::from_secs(10), || {
        shape(&cluster.bootstrap(), &topic).is_none().then_some(())
    });
    assert_eq!(curl(bridge, &format!("/v1/topics/{topic}"), &["-X", "DELETE"]).expect(404).json()["error_code"], 40401);
    eventually("the bridge no longer takes records for it", Duration::from_secs(10), || {
        (curl_ndjson(bridge, &records, b"after\n").status == 404).then_some(())
    });
}

#[test]
fn an_unknown_topic_is_told_as_40401() {
    let bridge = bridge();
    let topic = unique("unknown");
    for path in [format!("/v1/topics/{topic}"), format!("/v1/topics/{topic}/partitions/0/records")] {
        assert_eq!(curl(bridge, &path, &[]).expect(404).json()["error_code"], 40401, "{path}");
    }
    let records = format!("/v1/topics/{topic}/records");
    for _ in 0..2 {
        let answer = curl_ndjson(bridge, &records, b"line\n").expect(404).json();
        assert_eq!(answer["error_code"], 40401);
        assert!(answer["message"].as_str().is_some_and(|message| !message.is_empty()));
        assert_eq!(
            curl(bridge, &records, &["-X", "DELETE", "-H", "Kafka-Key: k"]).expect(404).json()["error_code"],
            40401
        );
    }
    // Nobody created it by asking.
    assert_eq!(shape(&three_brokers().bootstrap(), &topic), None);
}

#[test]
fn an_unknown_topic_is_not_asked_for_twice() {
    // A cluster that has stopped answering shows it: what needs Kafka would wait.
    let cluster = penstock_tests::kafka::Cluster::start(penstock_tests::distribution::Version::V4_1_1, 1, &[]);
    let bridge = Bridge::start(&cluster.bootstrap());
    // A missing name is remembered for a second. On a machine that is too busy to ask twice within it, the attempt shows
    // nothing, and another one is made.
    for _ in 0..30 {
        let records = format!("/v1/topics/{}/records", unique("unknown"));
        let asked = SystemTime::now();
        curl_ndjson(&bridge, &records, b"line\n").expect(404);
        cluster.signal(0, "STOP");
        let answer = curl_ndjson(&bridge, &records, b"line\n");
        cluster.signal(0, "CONT");
        if asked.elapsed().is_ok_and(|elapsed| elapsed < Duration::from_secs(1)) {
            assert_eq!(answer.expect(404).json()["error_code"], 40401);
            return;
        }
    }
    panic!("thirty times, two requests took longer than a second");
}

#[test]
fn a_topic_created_a_moment_ago_is_found() {
    let (cluster, bridge) = (one_broker(), Bridge::start(&one_broker().bootstrap()));
    for _ in 0..10 {
        let topic = unique("moment");
        wire::create_topic(cluster.ports()[0], &topic, 2, 1, &[]);
        let answer = curl_ndjson(&bridge, &format!("/v1/topics/{topic}/records"), b"line\n").expect(200);
        assert_counts(&answer.json(), 1, 1, 0, 0);
        assert_eq!(values(&cluster.bootstrap(), &topic), [b"line"]);
    }
}

#[test]
fn a_topic_that_was_unknown_is_found_once_it_is_created() {
    let (cluster, bridge) = (three_brokers(), bridge());
    // Through the bridge: at once.
    let topic = unique("later");
    let records = format!("/v1/topics/{topic}/records");
    curl_ndjson(bridge, &records, b"too early\n").expect(404);
    put(bridge, &topic, r#"{"partitions":1,"replication_factor":3}"#);
    curl_ndjson(bridge, &records, b"in time\n").expect(200);
    assert_eq!(values(&cluster.bootstrap(), &topic), [b"in time"]);
    // Behind its back: soon.
    let topic = unique("later");
    let records = format!("/v1/topics/{topic}/records");
    curl_ndjson(bridge, &records, b"too early\n").expect(404);
    wire::create_topic(cluster.ports()[0], &topic, 1, 3, &[]);
    eventually("the bridge has heard of it", Duration::from_secs(15), || {
        (curl_ndjson(bridge, &records, b"in time\n").status == 200).then_some(())
    });
    assert_eq!(values(&cluster.bootstrap(), &topic), [b"in time"]);
}

#[test]
fn names_that_no_topic_can_have_are_refused() {
    for name in ["a%20b", "a%2Fb", "%C3%A4", "..", &"x".repeat(250)] {
        let answer = curl_with_input(
            bridge(),
            &format!("/v1/topics/{name}/records"),
            &["--path-as-is", "-H", "Content-Type: application/x-ndjson", "--data-binary", "@-"],
            b"x\n",
        );
        assert_eq!(answer.expect(400).json()["error_code"], 400, "{name}");
    }
}

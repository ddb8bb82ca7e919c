//! Health, readiness, metrics.

use std::time::Duration;

use penstock_tests::{
    bridge::{Bridge, Settings},
    distribution::Version,
    eventually, free_port,
    kafka::Cluster,
    shared::{bridge, one_broker, three_brokers},
    tools::{curl, curl_ndjson},
};

#[test]
fn a_running_bridge_is_live_ready_and_healthy() {
    let bridge = bridge();
    for path in ["/livez", "/readyz"] {
        assert_eq!(bridge.management(path).expect("an answer").status, 200, "{path}");
    }
    curl(bridge, "/healthz", &[]).expect(200);
    assert_eq!(bridge.management("/nonsense").expect("an answer").status, 404);
    // Each listener serves its own: what operators see is not for callers.
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(curl(bridge, path, &[]).expect(404).json()["error_code"], 404, "{path}");
    }
}

#[test]
fn a_bridge_without_kafka_is_live_and_not_ready() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let bridge = Bridge::start_unready(&Settings::new(&nobody));
    assert_eq!(bridge.management("/livez").expect("an answer").status, 200);
    let answer = bridge.management("/readyz").expect("an answer");
    assert_eq!(answer.status, 503);
    assert!(!answer.body.trim().is_empty(), "it says why");
    curl(&bridge, "/healthz", &[]).expect(200);
}

#[test]
fn a_bridge_becomes_ready_when_kafka_comes() {
    let cluster = Cluster::start(Version::V4_1_1, 1, &[]);
    cluster.kill(0);
    let bridge = Bridge::start_unready(&Settings::new(&cluster.bootstrap()));
    assert_eq!(bridge.management("/readyz").expect("an answer").status, 503);
    cluster.restart(0);
    eventually("the bridge is ready", Duration::from_secs(30), || {
        (bridge.management("/readyz")?.status == 200).then_some(())
    });
    // And stays so when Kafka goes again: the whole fleet would leave the balancer otherwise.
    cluster.kill(0);
    let topic = "whatever";
    let answer = curl(
        &bridge,
        &format!("/v1/topics/{topic}/records"),
        &["-X", "DELETE", "-H", "Kafka-Key: k", "-H", "Kafka-Timeout-Ms: 500"],
    );
    assert!(matches!(answer.status, 404 | 503), "{}{}", answer.head, answer.text());
    assert_eq!(bridge.management("/readyz").expect("an answer").status, 200);
}

#[test]
fn metrics_count_what_was_done() {
    let cluster = one_broker();
    let bridge = Bridge::start(&cluster.bootstrap());
    let topic = cluster.create_topic("metrics", 1);
    let path = format!("/v1/topics/{topic}/records?validate=json");
    curl_ndjson(&bridge, &path, b"1\n2\n{\n3\n").expect(400);
    curl_ndjson(&bridge, &path, b"4\n").expect(200);
    curl_ndjson(&bridge, "/v1/topics/no-such-topic/records", b"4\n").expect(404);

    let answer = bridge.management("/metrics").expect("an answer");
    assert!(answer.head.to_ascii_lowercase().contains("content-type: text/plain"), "{}", answer.head);
    let produce = r#"route="produce""#;
    // The count is made when the answer's last byte is handed on, which the client may see a moment earlier.
    eventually("three requests are counted", Duration::from_secs(10), || {
        (bridge.metric("penstock_http_requests_total", &[produce]) == 3.0).then_some(())
    });
    assert_eq!(bridge.metric("penstock_http_requests_total", &[produce, r#"status="200""#]), 1.0);
    assert_eq!(bridge.metric("penstock_http_requests_total", &[produce, r#"status="404""#]), 1.0);
    assert_eq!(bridge.metric("penstock_http_request_duration_seconds_count", &[produce]), 3.0);
    assert_eq!(bridge.metric("penstock_records_total", &[r#"outcome="written""#]), 4.0);
    assert_eq!(bridge.metric("penstock_records_total", &[r#"outcome="unknown""#]), 0.0);
    assert!(bridge.metric("penstock_batch_records_count", &[]) >= 2.0);
    assert!(bridge.metric("penstock_kafka_produce_round_trip_seconds_count", &[]) >= 2.0);
    assert!(bridge.metric("penstock_kafka_connections", &[r#"broker="1""#]) >= 1.0);
    assert!(bridge.metric("penstock_memory_limit_bytes", &[]) > 0.0);
}

#[test]
fn the_interface_describes_itself() {
    let document = curl(bridge(), "/openapi.json", &[]).expect(200).json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")), "{document}");
    let paths = document["paths"].as_object().expect("paths");
    for path in ["/v1/topics", "/v1/topics/{topic}", "/v1/topics/{topic}/records", "/healthz"] {
        assert!(paths.contains_key(path), "{path} is not in {:?}", paths.keys());
    }
}

#[test]
fn what_is_not_served_is_told_so() {
    let topic = three_brokers().create_topic("unserved", 1);
    assert_eq!(curl(bridge(), "/v9/nothing", &[]).expect(404).json()["error_code"], 404);
    let answer = curl(bridge(), &format!("/v1/topics/{topic}/records"), &["-X", "PATCH"]).expect(405);
    assert_eq!(answer.json()["error_code"], 405);
    assert!(answer.header("allow").is_some_and(|allow| allow.contains("POST") && allow.contains("DELETE")));
}

//! SIGTERM: what was accepted is finished, no answer is cut, then the process ends with status 0.

use std::time::Duration;

use penstock_tests::{
    bridge::{Bridge, Settings},
    eventually,
    https::Connection,
    shared::one_broker,
    tools::{curl, curl_ndjson},
};

use crate::support::{assert_counts, assert_topic_is_log, log_lines};

const NDJSON: &[&str] = &["Content-Type: application/x-ndjson"];
const END: Duration = Duration::from_secs(60);

/// Waits until the bridge has written `count` records: then their request is certainly under way.
fn wait_for_written(bridge: &Bridge, count: f64) {
    eventually("the lines are written", END, || {
        (bridge.metric("penstock_records_total", &["outcome=\"written\""]) == count).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_runs_is_finished_and_answered() {
    let cluster = one_broker();
    let mut bridge = Bridge::start(&cluster.bootstrap());
    let topic = cluster.create_topic("drained", 2);
    let mut upload = Connection::open(bridge.port).await;
    upload.begin_chunked(&format!("POST /v1/topics/{topic}/records"), NDJSON).await;
    upload.writer.chunk(&log_lines(0, 1_000)).await;
    // A connection that waits for its next request holds nothing up, and is closed.
    let mut idle = Connection::open(bridge.port).await;
    idle.send("GET /healthz", &[], b"").await;
    idle.reader.answer().await.expect(200);
    wait_for_written(&bridge, 1_000.0);

    bridge.signal("TERM");
    eventually("readiness fails first", END, || {
        // The management listener may be gone already only when the process is; it has an upload to finish.
        (bridge.management("/readyz")?.status == 503).then_some(())
    });
    assert_eq!(bridge.management("/livez").expect("it still serves").status, 200);
    idle.reader.closed().await;

    upload.writer.chunk(&log_lines(1_000, 1_000)).await;
    upload.writer.last_chunk().await;
    let answer = upload.reader.answer().await.expect(200);
    assert_counts(&answer.json(), 2_000, 2_000, 0, 0);
    upload.reader.closed().await;
    assert_eq!(bridge.wait_for_exit(END), 0);
    assert_topic_is_log(&cluster.bootstrap(), &topic, 0, 2_000);
}

#[test]
fn new_requests_are_served_during_the_notice() {
    let cluster = one_broker();
    let mut bridge = Bridge::start_with(
        &Settings::new(&cluster.bootstrap()).set("drain.notice", "\"8s\"").set("drain.deadline", "\"30s\""),
    );
    let topic = cluster.create_topic("notice", 1);
    bridge.signal("TERM");
    eventually("readiness fails first", END, || (bridge.management("/readyz")?.status == 503).then_some(()));
    // The balancer has not noticed yet.
    curl(&bridge, "/healthz", &[]).expect(200);
    curl_ndjson(&bridge, &format!("/v1/topics/{topic}/records"), &log_lines(0, 100)).expect(200);
    assert_eq!(bridge.wait_for_exit(END), 0);
    assert_topic_is_log(&cluster.bootstrap(), &topic, 0, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_never_ends_is_given_up_at_the_deadline_with_what_was_written() {
    let cluster = one_broker();
    let mut bridge = Bridge::start_with(&Settings::new(&cluster.bootstrap()).set("drain.deadline", "\"2s\""));
    let topic = cluster.create_topic("deadline", 1);
    let mut upload = Connection::open(bridge.port).await;
    upload.begin_chunked(&format!("POST /v1/topics/{topic}/records"), NDJSON).await;
    upload.writer.chunk(&log_lines(0, 500)).await;
    wait_for_written(&bridge, 500.0);
    bridge.signal("TERM");
    let answer = upload.reader.answer().await.expect(503);
    assert_counts(&answer.json(), 500, 500, 0, 0);
    bridge.wait_for_exit(END);
    assert_topic_is_log(&cluster.bootstrap(), &topic, 0, 500);
}

#[test]
fn an_idle_bridge_ends_at_once() {
    let cluster = one_broker();
    let mut bridge = Bridge::start(&cluster.bootstrap());
    bridge.signal("TERM");
    assert_eq!(bridge.wait_for_exit(END), 0);
    assert!(bridge.management("/livez").is_none());
}

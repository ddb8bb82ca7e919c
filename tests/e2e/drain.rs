//! SIGTERM: what was accepted is finished, no answer is cut, then the process ends with status 0.

use std::time::Duration;

use penstock_tests::{
    bridge::{Bridge, Settings},
    distribution::Version,
    eventually,
    https::Connection,
    kafka::Cluster,
    shared::one_broker,
    tools::{curl, curl_ndjson},
};

use crate::support::{assert_counts, assert_topic_is_log, log_lines, values};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_gives_up_what_is_on_its_way_and_says_that_nobody_knows() {
    let cluster = Cluster::start(Version::V4_1_1, 1, &[]);
    let settings = Settings::new(&cluster.bootstrap())
        .set("producer.delivery_timeout", "\"600s\"")
        .set("drain.deadline", "\"600s\"")
        .set("runtime.workers", "1");
    let mut bridge = Bridge::start_with(&settings);
    let topic = cluster.create_topic("twice", 3);
    let path = |partition: i32| format!("/v1/topics/{topic}/records?partition={partition}");
    curl_ndjson(&bridge, &path(2), b"before\n").expect(200);
    cluster.signal(0, "STOP");
    let mut whole = Connection::open(bridge.port).await;
    whole.send(&format!("POST {}", path(0)), NDJSON, b"maybe\n").await;
    let mut half = Connection::open(bridge.port).await;
    half.begin_chunked(&format!("POST {}", path(1)), NDJSON).await;
    half.writer.chunk(b"perhaps\nhal").await;
    eventually("both are on their way to the broker", END, || {
        (bridge.metric("penstock_batch_records_count", &[]) == 3.0).then_some(())
    });
    bridge.signal("TERM");
    eventually("it drains", END, || (bridge.management("/readyz")?.status == 503).then_some(()));
    bridge.signal("TERM");
    for upload in [&mut whole, &mut half] {
        let answer = upload.reader.answer().await;
        assert!(answer.status == 504 || answer.status == 503, "{}", answer.head);
        assert_counts(&answer.json(), 1, 0, 0, 1);
        assert_eq!(answer.json()["failures"][0]["outcome"], "unknown");
    }
    bridge.wait_for_exit(END);
}

/// Posts one record after the other until nobody listens any more. Returns those that were told to be written, and those
/// that a connection ended before.
async fn post_until_the_end(port: u16, path: String, client: usize) -> (Vec<String>, Vec<String>) {
    let (mut written, mut unanswered) = (Vec::new(), Vec::new());
    let mut number = 0;
    while let Ok(mut connection) = Connection::try_open(port).await {
        for request in 0.. {
            let value = format!("{client}:{number}");
            number += 1;
            let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{value}", value.len());
            // It may have been closed while it waited for this: then there is no answer either.
            let _ = connection.writer.try_send(head.as_bytes()).await;
            let Some(answer) = connection.reader.answer_or_end().await else {
                assert!(request > 0, "a new connection was closed without an answer");
                unanswered.push(value);
                break;
            };
            if answer.status == 200 {
                written.push(value);
            } else {
                assert_eq!(answer.status, 503, "{}", answer.head);
            }
            if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                break;
            }
        }
    }
    (written, unanswered)
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_no_answer_is_cut() {
    const CLIENTS: usize = 16;
    let cluster = one_broker();
    // These clients come as long as they can: what ends the drain is the bound on that.
    let mut bridge = Bridge::start_with(&Settings::new(&cluster.bootstrap()).set("drain.notice", "\"1s\""));
    let topic = cluster.create_topic("underload", 2);
    let path = format!("/v1/topics/{topic}/records");
    let clients: Vec<_> =
        (0..CLIENTS).map(|client| tokio::spawn(post_until_the_end(bridge.port, path.clone(), client))).collect();
    eventually("the load runs", END, || {
        (bridge.metric("penstock_records_total", &["outcome=\"written\""]) > 500.0).then_some(())
    });
    bridge.signal("TERM");
    assert_eq!(bridge.wait_for_exit(END), 0);
    let (mut written, mut unanswered) = (Vec::new(), Vec::new());
    for client in clients {
        let (more_written, more_unanswered) = client.await.expect("whole answers, or none");
        written.extend(more_written);
        unanswered.extend(more_unanswered);
    }
    // Every connection was told with an answer that it ends.
    assert!(unanswered.is_empty(), "requests without an answer: {unanswered:?}");
    let mut there: Vec<_> =
        values(&cluster.bootstrap(), &topic).into_iter().map(|value| String::from_utf8(value).expect("text")).collect();
    there.sort();
    written.sort();
    assert_eq!(there, written, "what was told to be written is there, once, and nothing else");
}

#[test]
fn an_idle_bridge_ends_at_once() {
    let cluster = one_broker();
    let mut bridge = Bridge::start(&cluster.bootstrap());
    bridge.signal("TERM");
    assert_eq!(bridge.wait_for_exit(END), 0);
    assert!(bridge.management("/livez").is_none());
}

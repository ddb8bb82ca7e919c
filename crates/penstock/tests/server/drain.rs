use crate::harness::{Bridge, Client, run};
use krafka::testing::{ApiKey, Control};
use std::time::Duration;
use tokio::net::TcpStream;

const RECORDS: &str = "/v1/topics/events/records";

fn upload_head() -> String {
    Client::<TcpStream>::head(
        "POST",
        RECORDS,
        &[
            ("Content-Type", "application/x-ndjson"),
            ("Accept", "application/x-ndjson"),
            ("Transfer-Encoding", "chunked"),
        ],
    )
}

#[test]
fn readiness_fails_first_and_the_rest_goes_on_through_the_notice() {
    run(async {
        let bridge = Bridge::with("[drain]\nnotice = \"50s\"\ndeadline = \"100s\"\n").await;
        assert_eq!(bridge.manage("/readyz").await.status, 200);
        let mut early = bridge.client().await;
        bridge.stop.stop();
        loop {
            let ready = bridge.manage("/readyz").await;
            if ready.status == 503 {
                assert!(ready.text().contains("draining"), "{}", ready.text());
                break;
            }
        }
        assert_eq!(bridge.manage("/livez").await.status, 200);
        let mut late = bridge.client().await;
        for client in [&mut early, &mut late] {
            assert_eq!(client.request("POST", RECORDS, &[], b"during the notice").await.status, 200);
        }
        // A second signal does not wait for the notice.
        bridge.stopped().await;
    });
}

#[test]
fn connections_are_asked_to_leave_during_the_notice() {
    run(async {
        let bridge = Bridge::with("[drain]\nnotice = \"1s\"\ndeadline = \"100s\"\n").await;
        let mut client = bridge.client().await;
        assert_eq!(client.request("POST", RECORDS, &[], b"x").await.header("connection"), None);
        bridge.stop.stop();
        // The last answer is one, and says that it is the last.
        while client.request("POST", RECORDS, &[], b"x").await.header("connection").is_none() {}
        assert!(client.is_closed().await);
        let mut late = bridge.client().await;
        assert_eq!(late.request("POST", RECORDS, &[], b"x").await.status, 200);
        bridge.stopped().await;
    });
}

#[test]
fn a_request_under_way_is_answered_and_idle_connections_end() {
    run(async {
        let bridge = Bridge::start().await;
        let mut idle = bridge.client().await;
        assert_eq!(idle.request("GET", "/healthz", &[], b"").await.status, 200);
        bridge.kafka.on_once(ApiKey::Produce, |_| Control::Delay(Duration::from_millis(300)));
        let mut busy = bridge.client().await;
        let stop = bridge.stop.clone();
        let (answer, ()) = tokio::join!(busy.request("POST", RECORDS, &[], b"x"), async {
            bridge.asked(ApiKey::Produce).await;
            stop.stop();
            assert!(idle.is_closed().await);
        });
        assert_eq!(answer.status, 200);
        let data = bridge.data;
        bridge.finished().await;
        TcpStream::connect(data).await.expect_err("nobody listens any more");
    });
}

#[test]
fn an_endless_upload_is_told_how_far_it_came() {
    run(async {
        let bridge = Bridge::with("[drain]\nnotice = \"0s\"\ndeadline = \"1s\"\n").await;
        let mut client = bridge.client().await;
        client.send(upload_head()).await;
        client.send_chunk(b"one\ntwo\nhalf").await;
        assert_eq!(client.answer_head().await.status, 200);
        while client.line().await.expect("progress")["through_line"] != 2 {}
        bridge.stop.stop();
        let mut last = client.line().await.expect("lines");
        while let Some(line) = client.line().await {
            last = line;
        }
        assert_eq!((&last["done"], &last["lines"], &last["written"]), (&true.into(), &2.into(), &2.into()), "{last}");
        assert_eq!(last["error_code"], 50301);
        drop(client);
        bridge.finished().await;
    });
}

#[test]
fn what_is_unresolved_at_the_deadline_is_unknown_and_said_so() {
    run(async {
        let bridge = Bridge::with("[drain]\nnotice = \"0s\"\ndeadline = \"1s\"\n").await;
        bridge.kafka.on(ApiKey::Produce, |_| Control::Silence);
        let mut client = bridge.client().await;
        let stop = bridge.stop.clone();
        let (answer, ()) = tokio::join!(client.ndjson(RECORDS, &[], b"a\nb\n"), async {
            bridge.asked(ApiKey::Produce).await;
            stop.stop();
        });
        assert_eq!(answer.error_code(), 50401);
        assert_eq!(answer.json()["unknown"], 2);
        bridge.finished().await;
    });
}

#[test]
fn the_management_listener_takes_a_proxy_header_or_none() {
    run(async {
        let bridge = Bridge::start().await;
        let request = Client::<TcpStream>::head("GET", "/metrics", &[]);
        let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        v2.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, 80, 0, 81]);
        for header in [&v2[..], b"PROXY UNKNOWN\r\n", b""] {
            let mut client = Client::connect(bridge.management).await;
            client.send([header, request.as_bytes()].concat()).await;
            let answer = client.answer().await;
            assert_eq!(answer.status, 200);
            assert!(answer.text().contains("# TYPE"), "{}", answer.text());
        }
        let mut client = Client::connect(bridge.management).await;
        client.send("PROXY nonsense without an end".repeat(10)).await;
        assert!(client.is_closed().await);
        assert_eq!(bridge.manage("/nothing").await.status, 404);
    });
}

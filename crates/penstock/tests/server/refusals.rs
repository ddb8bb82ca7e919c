//! Requests that are refused before their body is read, and connections that misbehave.

use crate::harness::{Bridge, Client, TOPIC, run};
use krafka::testing::{ApiKey, FakeBroker};
use tokio::net::TcpStream;

const RECORDS: &str = "/v1/topics/events/records";

fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    Client::<TcpStream>::head(method, path, headers)
}

#[test]
fn what_is_not_served_is_told_and_the_connection_goes_on() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        for (method, path, code) in [
            ("GET", "/nothing", 404),
            ("POST", "/v1/nothing", 404),
            ("PUT", RECORDS, 405),
            ("POST", "/healthz", 405),
            ("POST", "/v1/topics/a%20b/records", 400),
            ("POST", "/v1/topics/events/records?partition=x", 400),
            ("POST", "/v1/topics/events/records?unknown=1", 400),
            ("POST", "/v1/topics/absent/records", 40401),
            ("GET", "/v1/topics/absent", 40401),
            ("POST", "/v1/topics/events/records?partition=1", 40402),
            ("GET", "/v1/topics/events/partitions/1/records", 40402),
        ] {
            let answer = client.request(method, path, &[], b"body").await;
            assert_eq!(answer.error_code(), code, "{method} {path}");
            assert_eq!(answer.header("allow").is_some(), code == 405);
        }
        assert_eq!(client.request("POST", RECORDS, &[("Content-Encoding", "br")], b"x").await.error_code(), 415);
        assert_eq!(client.request("POST", RECORDS, &[], b"").await.error_code(), 42206);
        assert_eq!(client.ndjson(RECORDS, &[], b"").await.error_code(), 42206);
        assert_eq!(client.request("GET", "/healthz", &[], b"").await.status, 200);
        let description = client.request("GET", "/openapi.json", &[], b"").await.json();
        assert!(description["paths"]["/v1/topics/{topic}/records"]["post"].is_object());
        assert!(bridge.values().is_empty());
    });
}

#[test]
fn an_unknown_topic_is_asked_for_once() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        assert_eq!(client.request("POST", "/v1/topics/absent/records", &[], b"x").await.error_code(), 40401);
        let asked = bridge.kafka.request_count(ApiKey::Metadata);
        assert_eq!(client.request("POST", "/v1/topics/absent/records", &[], b"x").await.error_code(), 40401);
        assert_eq!(bridge.kafka.request_count(ApiKey::Metadata), asked, "the second time Kafka is not asked");
    });
}

#[test]
fn a_topic_created_a_moment_ago_is_found() {
    run(async {
        let bridge = Bridge::start().await;
        bridge.kafka.create_topic("fresh", 1);
        let answer = bridge.client().await.request("POST", "/v1/topics/fresh/records", &[], b"x").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    });
}

#[test]
fn a_client_that_waits_for_100_continue_keeps_a_refused_body() {
    run(async {
        let bridge = Bridge::with("[limits]\nrecord_bytes = 1024\n").await;
        for (path, length, code) in [(RECORDS, "1025", 413), ("/v1/topics/absent/records", "5", 40401)] {
            let mut client = bridge.client().await;
            client.send(head("POST", path, &[("Expect", "100-continue"), ("Content-Length", length)])).await;
            let answer = client.answer().await;
            assert_eq!(answer.error_code(), code, "no 100 in front of it");
            assert_eq!(answer.header("connection"), Some("close"));
            assert!(client.is_closed().await);
        }
        let mut client = bridge.client().await;
        client.send(head("POST", RECORDS, &[("Expect", "100-continue"), ("Content-Length", "2")])).await;
        assert_eq!(client.answer_head().await.status, 100);
        client.send("ok").await;
        assert_eq!(client.answer().await.status, 200);
    });
}

#[test]
fn a_client_that_sends_without_asking_sees_why_it_was_refused() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let body = vec![b'x'; 4 << 20];
        client.send(head("POST", "/v1/topics/absent/records", &[("Content-Length", &body.len().to_string())])).await;
        // It sends all it has before it looks at the answer, as simple clients do.
        client.try_send(&body).await;
        let answer = client.answer().await;
        assert_eq!(answer.error_code(), 40401);
        assert_eq!(answer.header("connection"), Some("close"));
    });
}

#[test]
fn nobody_gets_what_no_rule_allows() {
    run(async {
        let rules = "[[access]]\nidentity = \"anyone\"\ntopics = [\"ev*\"]\nallow = [\"produce\"]\n";
        let bridge = Bridge::with(rules).await;
        bridge.kafka.create_topic("other", 1);
        let mut client = bridge.client().await;
        assert_eq!(client.request("POST", RECORDS, &[], b"x").await.status, 200);
        for (method, path) in [
            ("POST", "/v1/topics/other/records"),
            ("POST", "/v1/topics/absent/records"),
            ("GET", "/v1/topics/events/partitions/0/records"),
            ("GET", "/v1/topics/events"),
            ("PUT", "/v1/topics/events"),
            ("DELETE", "/v1/topics/events"),
        ] {
            assert_eq!(client.request(method, path, &[], b"").await.error_code(), 40301, "{method} {path}");
        }
        let topics = client.request("GET", "/v1/topics", &[], b"").await.json();
        assert_eq!(topics["topics"].as_array().map(Vec::len), Some(1), "{topics}");
        assert_eq!(topics["topics"][0]["topic"], TOPIC);
    });
}

#[test]
fn a_request_has_one_host_and_a_head_of_bounded_size() {
    run(async {
        let bridge = Bridge::with("[limits]\nhead_bytes = 8192\n").await;
        for request in ["GET /healthz HTTP/1.1\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"] {
            let mut client = bridge.client().await;
            client.send(request).await;
            assert_eq!(client.answer().await.error_code(), 400);
            assert!(client.is_closed().await);
        }
        let mut client = bridge.client().await;
        client.send(head("GET", "/healthz", &[("X-Long", &"x".repeat(9000))])).await;
        assert_eq!(client.answer_head().await.status, 431);
    });
}

/// What servers and proxies frame differently is refused, and a request that is hidden behind it is not served.
#[test]
fn a_request_that_others_may_read_differently_ends_the_connection() {
    run(async {
        let bridge = Bridge::start().await;
        let smuggled = "POST /v1/topics/events/records HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\ncanary";
        let post = format!("POST {RECORDS} HTTP/1.1\r\nHost: h\r\n");
        for (request, status) in [
            (format!("{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
            (format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"), 400),
            (format!("{post}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), 400),
            (format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 400),
            (format!("{post}Transfer-Encoding: identity\r\n\r\n"), 400),
            (format!("{post}Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n"), 400),
            (format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), 400),
            (format!("{post}Content-Length: 0\r\nContent-Length: 6\r\n\r\n"), 400),
            (format!("{post}Content-Length: 0\r\nContent-Length: 0\r\n\r\n"), 400),
            (format!("{post}Content-Length: 0, 0\r\n\r\n"), 400),
            (format!("{post}Content-Length: +0\r\n\r\n"), 400),
            (format!("{post}Content-Length:\r\n\r\n"), 400),
            (format!("{post}X: a\r\n folded\r\nContent-Length: 0\r\n\r\n"), 400),
            (format!("{post}Content-Length: 0\n\r\n"), 400),
            (format!("{post}Content-Length: 0\r\n\n"), 400),
            (format!("{post}X: a\rb\r\nContent-Length: 0\r\n\r\n"), 400),
            (format!("{post}: no name\r\nContent-Length: 0\r\n\r\n"), 400),
            (format!("POST {RECORDS} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
            (format!("POST {RECORDS} HTTP/1.1\r\nContent-Length: 0\r\n\r\n"), 400),
            (format!("POST {RECORDS} HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n"), 400),
            (format!("POST {RECORDS} HTTP/1.1\r\nHost: a b\r\nContent-Length: 0\r\n\r\n"), 400),
            (format!("POST {RECORDS} HTTP/1.1\r\nHost:\r\nContent-Length: 0\r\n\r\n"), 400),
            (format!("POST {RECORDS}#fragment HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"), 400),
            ("POST v1/topics HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".to_owned(), 400),
            (format!("POST {RECORDS} HTTP/1.1 \r\nHost: h\r\nContent-Length: 0\r\n\r\n"), 400),
            (format!("POST  {RECORDS} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"), 400),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
            (format!("{post}{}Content-Length: 0\r\n\r\n", "A: b\r\n".repeat(101)), 431),
            (format!("{post}Expect: everything\r\nContent-Length: 0\r\n\r\n"), 417),
            // The head is good, the chunks are not.
            (format!("{post}Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n"), 400),
            (format!("{post}Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n"), 400),
            (format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"), 400),
            (format!("{post}Transfer-Encoding: chunked\r\n\r\n00000000000000001\r\na\r\n0\r\n\r\n"), 400),
        ] {
            let mut client = bridge.client().await;
            client.send(format!("{request}{smuggled}")).await;
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{request:?}");
            assert_eq!(answer.error_code(), u64::from(status), "{request:?}");
            assert!(client.is_closed().await, "{request:?}");
        }
        assert_eq!(bridge.values(), [""; 0]);
    });
}

#[test]
fn of_a_chunked_body_that_breaks_off_the_last_half_line_is_not_written() {
    run(async {
        let bridge = Bridge::start().await;
        for end in ["8\r\nwhole\nha", "8\r\nwhole\nha\r\n", "8\r\nwhole\nha\r\n0\r\n", "8\r\nwhole\nha\r\n5\r\nlf"] {
            let mut client = bridge.client().await;
            let fields = [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")];
            client.send(head("POST", RECORDS, &fields) + end).await;
            client.finish_sending().await;
            let answer = client.answer().await;
            assert_eq!((answer.error_code(), &answer.json()["written"]), (400, &1.into()), "{end:?}");
        }
        assert_eq!(bridge.values(), ["whole"; 4]);
    });
}

#[test]
fn a_slow_head_ends_a_connection_and_idleness_does_not() {
    run(async {
        let bridge = Bridge::with("[listen]\nhead_timeout = \"1s\"\nidle_timeout = \"60s\"\n").await;
        let mut idle = bridge.client().await;
        assert_eq!(idle.request("GET", "/healthz", &[], b"").await.status, 200);
        let mut slow = bridge.client().await;
        slow.send("GET /healthz HTT").await;
        assert!(slow.is_closed().await);
        assert_eq!(idle.request("GET", "/healthz", &[], b"").await.status, 200);
    });
}

#[test]
fn an_idle_connection_and_a_silent_body_end() {
    run(async {
        let bridge = Bridge::with("[listen]\nidle_timeout = \"1s\"\n").await;
        let mut idle = bridge.client().await;
        assert!(idle.is_closed().await);
        let mut silent = bridge.client().await;
        silent
            .send(head("POST", RECORDS, &[("Content-Type", "application/x-ndjson"), ("Content-Length", "100")]))
            .await;
        silent.send("whole\nhalf").await;
        let answer = silent.answer().await;
        assert_eq!(answer.error_code(), 408);
        assert_eq!(answer.json()["written"], 1);
        assert_eq!(bridge.values(), ["whole"]);
    });
}

#[test]
fn without_a_broker_nothing_is_promised() {
    run(async {
        let kafka = FakeBroker::start_cluster(1).await.expect("loopback");
        let bridge = Bridge::in_front_of(kafka, "").await;
        let node = *bridge.kafka.request_nodes(ApiKey::Metadata).first().expect("it is ready");
        bridge.kafka.crash(node);
        let answer = bridge.client().await.request("POST", RECORDS, &[], b"x").await;
        assert_eq!(answer.error_code(), 50302);
        assert!(answer.header("retry-after").is_some());
        assert_eq!(bridge.manage("/readyz").await.status, 200, "an outage of Kafka takes no instance out");
    });
}

use crate::harness::{Answer, Bridge, Client, run};
use krafka::error::ErrorCode;
use krafka::testing::{ApiKey, Control};
use serde_json::{Value, json};
use tokio::net::TcpStream;

const RECORDS: &str = "/v1/topics/events/records";

/// Begins a stream of records.
async fn stream(bridge: &Bridge, query: &str, headers: &[(&str, &str)]) -> (Client, Answer) {
    let mut client = bridge.client().await;
    client.send(Client::<TcpStream>::head("GET", &format!("{RECORDS}?{query}"), headers)).await;
    let head = client.answer_head().await;
    (client, head)
}

/// The records of a stream, until so many have come.
async fn records(client: &mut Client, count: usize) -> Vec<Value> {
    let mut records = Vec::new();
    while records.len() < count {
        let chunk = client.chunk().await.expect("the stream goes on");
        let lines = chunk.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        records.extend(lines.map(|line| serde_json::from_slice::<Value>(line).expect("JSON")));
    }
    records
}

fn offsets(records: &[Value]) -> Vec<i64> {
    records.iter().map(|record| record["offset"].as_i64().expect("a number")).collect()
}

async fn write(bridge: &Bridge, body: &str) {
    assert_eq!(bridge.client().await.ndjson(RECORDS, &[], body.as_bytes()).await.status, 200);
}

/// Waits until the offset is committed.
async fn committed(bridge: &Bridge, offset: i64) {
    while bridge.kafka.committed_offset("g", "events", 0) != Some(offset) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Waits until so many members have left.
async fn left(bridge: &Bridge, count: usize) {
    while bridge.kafka.leave_group_members().len() < count {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[test]
fn a_stream_brings_what_is_there_and_what_comes() {
    run(async {
        let bridge = Bridge::start().await;
        write(&bridge, "{\"a\": 1.50}\nplain\n").await;
        let (mut client, head) = stream(&bridge, "group=g&start=earliest", &[]).await;
        assert_eq!((head.status, head.header("content-type")), (200, Some("application/x-ndjson")));
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        let first = records(&mut client, 2).await;
        assert_eq!((&first[0]["value"], &first[1]["value_encoding"]), (&json!({"a": 1.5}), &json!("base64")));
        write(&bridge, "\"more\"\n").await;
        assert_eq!(records(&mut client, 1).await[0]["value"], "more");
        // Nothing was asked to be committed, and nothing is.
        drop(client);
        left(&bridge, 1).await;
        assert_eq!(bridge.kafka.committed_offset("g", "events", 0), None);
    });
}

#[test]
fn what_was_delivered_is_committed_and_the_next_stream_goes_on_behind_it() {
    run(async {
        let bridge = Bridge::start().await;
        write(&bridge, "1\n2\n3\n").await;
        let query = "group=g&start=earliest&commit=delivered&value=text";
        let (mut client, _) = stream(&bridge, query, &[]).await;
        assert_eq!(offsets(&records(&mut client, 3).await), [0, 1, 2]);
        committed(&bridge, 3).await;
        drop(client);
        left(&bridge, 1).await;
        write(&bridge, "4\n").await;
        let (mut client, _) = stream(&bridge, query, &[]).await;
        assert_eq!(offsets(&records(&mut client, 1).await), [3]);
    });
}

#[test]
fn events_can_be_gone_on_from() {
    run(async {
        let bridge = Bridge::start().await;
        write(&bridge, "1\n2\n3\n").await;
        let accept = ("Accept", "text/event-stream");
        let (mut client, head) = stream(&bridge, "group=g&start=earliest", &[accept]).await;
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        let mut text = String::new();
        while text.matches("\n\n").count() < 3 {
            text += &String::from_utf8(client.chunk().await.expect("events")).expect("UTF-8");
        }
        assert!(text.starts_with("data: {\"partition\":0,\"offset\":0,"), "{text}");
        assert!(text.contains("id: 0:3\ndata: {\"partition\":0,\"offset\":2,"), "{text}");
        drop(client);
        left(&bridge, 1).await;
        let (mut client, _) = stream(&bridge, "group=g&start=earliest", &[("Last-Event-ID", "0:2")]).await;
        assert_eq!(offsets(&records(&mut client, 1).await), [2]);
    });
}

#[test]
fn offsets_and_lag_are_told_and_set() {
    run(async {
        let bridge = Bridge::start().await;
        write(&bridge, "1\n2\n3\n").await;
        let mut client = bridge.client().await;
        let path = "/v1/groups/g/offsets";
        let empty = client.request("GET", path, &[], b"").await;
        assert_eq!(empty.json(), json!({"group": "g", "offsets": []}));
        let body = br#"{"offsets":[{"topic":"events","partition":0,"offset":2,"metadata":"by hand"}]}"#;
        assert_eq!(client.request("POST", path, &[], body).await.status, 204);
        let told = client.request("GET", path, &[], b"").await.json();
        let offset = json!({"topic": "events", "partition": 0, "offset": 2, "metadata": "by hand"});
        assert_eq!(told["offsets"], json!([offset]));
        let lag = client.request("GET", "/v1/groups/g/lag", &[], b"").await.json();
        let partition = json!({"topic": "events", "partition": 0, "offset": 2, "end_offset": 3, "lag": 1});
        assert_eq!(lag, json!({"group": "g", "total_lag": 1, "partitions": [partition]}));
        // A stream's own offsets are committed in its name.
        let (mut reader, _) = stream(&bridge, "group=g", &[]).await;
        assert_eq!(offsets(&records(&mut reader, 1).await), [2]);
        let body = br#"{"offsets":[{"topic":"events","partition":0,"offset":3}]}"#;
        assert_eq!(client.request("POST", path, &[], body).await.status, 204);
        assert_eq!(bridge.kafka.committed_offset("g", "events", 0), Some(3));
        for body in ["", "[]", "{}", r#"{"offsets":[{"topic":"events","partition":-1,"offset":3}]}"#] {
            let answer = client.request("POST", path, &[], body.as_bytes()).await;
            assert!((400..500).contains(&answer.status), "{body}: {}", answer.text());
        }
    });
}

#[test]
fn a_group_whose_members_are_elsewhere_is_not_committed_over_their_heads() {
    run(async {
        let bridge = Bridge::start().await;
        bridge.kafka.on(ApiKey::OffsetCommit, |_| Control::Error(ErrorCode::UnknownMemberId));
        let body = br#"{"offsets":[{"topic":"events","partition":0,"offset":3}]}"#;
        let answer = bridge.client().await.request("POST", "/v1/groups/g/offsets", &[], body).await;
        assert_eq!(answer.error_code(), 409);
        assert!(answer.text().contains("commit=delivered"), "{}", answer.text());
    });
}

#[test]
fn a_group_that_refuses_ends_the_stream_with_the_reason() {
    run(async {
        let bridge = Bridge::start().await;
        bridge.kafka.on(ApiKey::JoinGroup, |_| Control::Error(ErrorCode::GroupAuthorizationFailed));
        let (mut client, _) = stream(&bridge, "group=g", &[]).await;
        let last = &records(&mut client, 1).await[0];
        assert_eq!(last["error_code"], 40301);
        assert_eq!(client.chunk().await, None);
        for (query, code) in [("", 400), ("group=g&start=0", 400), ("group=", 400)] {
            let mut client = bridge.client().await;
            let answer = client.request("GET", &format!("{RECORDS}?{query}"), &[], b"").await;
            assert_eq!(answer.error_code(), code, "{query}");
        }
        let answer = bridge.client().await.request("GET", "/v1/topics/none/records?group=g", &[], b"").await;
        assert_eq!(answer.error_code(), 40401);
    });
}

#[test]
fn a_stop_ends_streams_and_leaves_their_groups() {
    run(async {
        let bridge = Bridge::start().await;
        write(&bridge, "1\n").await;
        let (mut client, _) = stream(&bridge, "group=g&start=earliest&commit=delivered", &[]).await;
        assert_eq!(offsets(&records(&mut client, 1).await), [0]);
        bridge.stop.stop();
        while let Some(chunk) = client.chunk().await {
            assert_eq!(chunk, b"\n", "nothing but signs of life");
        }
        let kafka = bridge.finished().await;
        assert_eq!(kafka.committed_offset("g", "events", 0), Some(1));
        assert_eq!(kafka.leave_group_members().len(), 1);
    });
}

#[test]
fn groups_are_for_those_whom_a_rule_allows() {
    run(async {
        let rule =
            "[[access]]\nidentity = \"anyone\"\ntopics = [\"*\"]\ngroups = [\"mine-*\"]\nallow = [\"consume\"]\n";
        let bridge = Bridge::with(rule).await;
        let mut client = bridge.client().await;
        for path in ["/v1/groups/g/offsets", "/v1/groups/g/lag", "/v1/topics/events/records?group=g"] {
            assert_eq!(client.request("GET", path, &[], b"").await.error_code(), 40301, "{path}");
        }
        assert_eq!(client.request("GET", "/v1/groups/mine-1/lag", &[], b"").await.status, 200);
    });
}

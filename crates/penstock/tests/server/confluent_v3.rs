//! Confluent's API, version 3, as far as the in-process Kafka goes: topics, partitions, records. The rest is among the
//! end-to-end tests.

use krafka::testing::FakeBroker;
use serde_json::{Value, json};

use crate::harness::{Bridge, Client, TOPIC, run};

/// The records of the topic, whatever the cluster is called.
const RECORDS: &str = "/v3/clusters/any/topics/events/records";

async fn cluster_id(client: &mut Client) -> String {
    let clusters = client.request("GET", "/v3/clusters", &[], b"").await.json();
    clusters["data"][0]["cluster_id"].as_str().expect("a cluster").to_owned()
}

/// The documents of an answer, one a line.
fn lines(body: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(body).expect("JSON is UTF-8");
    assert!(text.is_empty() || text.ends_with("\r\n"), "{text:?}");
    text.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect()
}

fn codes(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["error_code"].as_u64().expect("every line has one")).collect()
}

async fn produce(client: &mut Client, body: &str) -> Vec<Value> {
    let headers = [("Content-Type", "application/json")];
    let answer = client.request("POST", RECORDS, &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    lines(&answer.body)
}

#[test]
fn clusters_topics_partitions_and_replicas_lead_to_one_another() {
    run(async {
        let kafka = FakeBroker::start_cluster(2).await.expect("loopback");
        kafka.create_topic(TOPIC, 3);
        let bridge = Bridge::in_front_of(kafka, "").await;
        let mut client = bridge.client().await;
        let id = cluster_id(&mut client).await;
        let base = format!("/v3/clusters/{id}");
        let mut get = async |path: &str| {
            let answer = client.request("GET", path, &[], b"").await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            answer.json()
        };
        let cluster = get(&base).await;
        assert_eq!(cluster["kind"], "KafkaCluster");
        assert_eq!(cluster["metadata"]["self"], format!("http://bridge{base}"));
        assert_eq!(cluster["metadata"]["resource_name"], format!("crn:///kafka={id}"));
        let brokers = get(&format!("{base}/brokers")).await;
        let ids: Vec<i64> =
            brokers["data"].as_array().expect("a list").iter().filter_map(|b| b["broker_id"].as_i64()).collect();
        assert_eq!(ids.len(), 2, "{brokers}");
        assert!(brokers["data"][0]["port"].is_u64() && brokers["data"][0]["host"].is_string());

        let topic = get(&format!("{base}/topics/{TOPIC}")).await;
        assert_eq!(topic["partitions_count"], 3);
        assert_eq!(topic["configs"]["related"], format!("http://bridge{base}/topics/{TOPIC}/configs"));
        let listed = get(&format!("{base}/topics")).await;
        assert_eq!((&listed["kind"], &listed["metadata"]["next"]), (&json!("KafkaTopicList"), &Value::Null));
        assert_eq!(listed["data"], json!([topic]));
        // Every link of a resource leads to it: the links are followed as they are.
        let partitions = topic["partitions"]["related"].as_str().expect("a link");
        let partitions = get(partitions.strip_prefix("http://bridge").expect("ours")).await;
        let first = &partitions["data"][0];
        assert_eq!((partitions["data"].as_array().map(Vec::len), &first["partition_id"]), (Some(3), &json!(0)));
        let leader =
            get(first["leader"]["related"].as_str().and_then(|l| l.strip_prefix("http://bridge")).expect("a link"))
                .await;
        assert_eq!((&leader["kind"], &leader["is_leader"]), (&json!("KafkaReplica"), &json!(true)));
        let replicas =
            get(first["replicas"]["related"].as_str().and_then(|l| l.strip_prefix("http://bridge")).expect("a link"))
                .await;
        assert!(replicas["data"].as_array().expect("a list").contains(&leader));
        let on = leader["broker_id"].as_i64().expect("an id");
        let held = get(&format!("{base}/brokers/{on}/partition-replicas")).await;
        assert!(held["data"].as_array().expect("a list").contains(&leader), "{held}");
    });
}

#[test]
fn topics_are_created_and_deleted() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let base = format!("/v3/clusters/{}", cluster_id(&mut client).await);
        let topics = format!("{base}/topics");
        let body = br#"{"topic_name":"new","partitions_count":2,"replication_factor":1,"configs":[{"name":"retention.ms","value":"5"}]}"#;
        let created = client.request("POST", &topics, &[], body).await;
        assert_eq!((created.status, &created.json()["partitions_count"]), (201, &json!(2)), "{}", created.text());
        assert_eq!(created.header("location"), Some(&*format!("http://bridge{topics}/new")));
        let again = client.request("POST", &topics, &[], body).await;
        assert_eq!((again.error_code(), again.status), (40002, 400), "{}", again.text());
        assert_eq!(again.json()["message"], "Topic 'new' already exists.");
        assert_eq!(client.request("DELETE", &format!("{topics}/new"), &[], b"").await.status, 204);
        let gone = client.request("GET", &format!("{topics}/new"), &[], b"").await;
        assert_eq!(gone.error_code(), 40403);
        assert_eq!(gone.json()["message"], "This server does not host this topic-partition.");
        for body in [&b"[]"[..], b"{}", b"{\"topic_name\":\"a b\"}", b"{\"topic_name\":\"x\",\"partitions\":1}", b"{"] {
            assert_eq!(client.request("POST", &topics, &[], body).await.error_code(), 400);
        }
        assert_eq!(client.request("POST", &topics, &[], b" ").await.error_code(), 42206);
    });
}

#[test]
fn what_is_not_there_is_404() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let base = format!("/v3/clusters/{}", cluster_id(&mut client).await);
        for (path, code) in [
            ("/v3/clusters/other".to_owned(), 404),
            ("/v3/clusters/other/topics".to_owned(), 404),
            (format!("{base}/brokers/77"), 404),
            (format!("{base}/topics/none"), 40403),
            (format!("{base}/topics/events/partitions/1"), 40402),
            (format!("{base}/topics/events/partitions/0/replicas/77"), 404),
            (format!("{base}/nothing"), 404),
        ] {
            assert_eq!(client.request("GET", &path, &[], b"").await.error_code(), code, "{path}");
        }
    });
}

#[test]
fn records_of_every_type_are_written_byte_for_byte() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let told = produce(
            &mut client,
            r#"{"key":{"type":"STRING","data":"k\u0031"},"value":{"type":"JSON","data":{"b":1.10,"a":[ 1e400,"é"],"b":2}}}
               {"value":{"type":"BINARY","data":"aGk="},"headers":[{"name":"h","value":"AQ=="},{"name":"h","value":null}]}
               {"key":{"type":"BINARY","data":""},"value":{"type":"JSON","data":null},"timestamp":"2023-11-14T22:13:20.5Z"}{}"#,
        )
        .await;
        assert_eq!(codes(&told), [200; 4], "{told:?}");
        assert_eq!(told[0]["cluster_id"], "any");
        assert_eq!(told[0]["topic_name"], TOPIC);
        assert_eq!((&told[0]["partition_id"], &told[0]["offset"]), (&json!(0), &json!(0)));
        assert_eq!(told[0]["key"], json!({"type":"STRING","size":2}));
        assert_eq!(told[0]["value"], json!({"type":"JSON","size":34}));
        assert_eq!(told[1].get("key"), None);
        assert_eq!(told[2]["timestamp"], "2023-11-14T22:13:20.5Z");
        assert_eq!(told.iter().map(|line| line["offset"].as_i64()).collect::<Vec<_>>(), [0, 1, 2, 3].map(Some));
        let log = bridge.log(TOPIC, 0);
        let value = |at: usize| log[at].value.as_deref();
        assert_eq!(value(0), Some("{\"b\":1.10,\"a\":[ 1e400,\"é\"],\"b\":2}".as_bytes()));
        assert_eq!(log[0].key.as_deref(), Some(&b"k1"[..]));
        assert_eq!(value(1), Some(&b"hi"[..]));
        assert_eq!(log[1].headers.len(), 2);
        assert_eq!((log[2].key.as_deref(), value(2), log[2].timestamp), (Some(&b""[..]), None, 1_700_000_000_500));
        assert_eq!((log[3].key.as_deref(), value(3)), (None, None));
    });
}

#[test]
fn a_record_that_is_none_has_its_own_error_and_the_others_go_on() {
    run(async {
        let bridge = Bridge::with("[limits]\nrecord_bytes = 1024\n").await;
        let mut client = bridge.client().await;
        let long = format!(r#"{{"value":{{"type":"STRING","data":"{}"}}}}"#, "x".repeat(1025));
        let endless = format!(r#"{{"value":{{"type":"STRING","data":"{}"}}}}"#, "x".repeat(200_000));
        let records = [
            r#"{"value":{"type":"STRING","data":"first"}}"#,
            r#"{"value":{"type":"BINARY","data":"???"}}"#,
            r#"{"value":{"type":"JSON","data":1},"partition_id":1}"#,
            r#"{"value":{"data":1}}"#,
            r#"{"value":{"type":"AVRO","schema":"\"int\"","data":1}}"#,
            r#"{"values":{"type":"JSON","data":1}}"#,
            r#"{"value":{"type":"JSON","data":1},"timestamp":"yesterday"}"#,
            &long,
            &endless,
            r#"{"value":{"type":"STRING","data":"last"}}"#,
        ];
        let told = produce(&mut client, &records.concat()).await;
        assert_eq!(codes(&told), [200, 400, 40402, 400, 415, 400, 400, 413, 413, 200], "{told:?}");
        assert!(told[1]["message"].as_str().is_some_and(|message| message.contains("base64")));
        assert_eq!(bridge.values(), ["first", "last"]);
    });
}

#[test]
fn broken_json_ends_the_stream_with_an_error() {
    run(async {
        let bridge = Bridge::start().await;
        for (body, told) in [
            (r#"{"value":{"type":"JSON","data":1}} {"value":{"type":"JSON","data":01}} {}"#, vec![200, 400]),
            (r#"{"value":{"type":"JSON","data":1}} [] {}"#, vec![200, 400]),
            (r#"{"value":{"type":"JSON","data":1}} {"value":"#, vec![200, 400]),
            ("  \n ", vec![42206]),
        ] {
            let mut client = bridge.client().await;
            assert_eq!(codes(&produce(&mut client, body).await), told, "{body}");
        }
        assert_eq!(bridge.values(), ["1", "1", "1"]);
    });
}

#[test]
fn what_stands_before_the_stream_has_a_status() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let nothing = client.request("POST", RECORDS, &[], b"").await;
        assert_eq!((nothing.status, nothing.error_code()), (422, 42206));
        let none = client.request("POST", "/v3/clusters/any/topics/none/records", &[], b"{}").await;
        assert_eq!((none.status, none.error_code()), (404, 40403));
        let mut client = bridge.client().await;
        let text = client.request("POST", RECORDS, &[("Content-Type", "text/plain")], b"{}").await;
        assert_eq!(text.error_code(), 415);
    });
}

#[test]
fn answers_come_while_the_body_still_flows() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        client.send(<Client>::head("POST", RECORDS, &[("Transfer-Encoding", "chunked")])).await;
        assert_eq!(client.answer_head().await.status, 200);
        for number in 0..5 {
            let record = format!("{{\"value\":{{\"type\":\"JSON\",\"data\":{number}}}}}");
            // Cut within the record: the answer waits for its end.
            let (begin, end) = record.as_bytes().split_at(7);
            client.send_chunk(begin).await;
            client.send_chunk(end).await;
            let told = lines(&client.chunk().await.expect("an answer"));
            assert_eq!((told.len(), &told[0]["offset"]), (1, &json!(number)));
        }
        client.send("0\r\n\r\n").await;
        assert_eq!(client.chunk().await, None);
        assert_eq!(bridge.values(), ["0", "1", "2", "3", "4"]);
    });
}

#[test]
fn who_reads_only_at_the_end_does_not_stall() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        client.send(<Client>::head("POST", RECORDS, &[("Transfer-Encoding", "chunked")])).await;
        // Their answers are larger than all the buffers in between.
        const RECORDS_OF_ALL: usize = 60_000;
        let record = br#"{"value":{"type":"JSON","data":1}}"#;
        for _ in 0..RECORDS_OF_ALL / 1000 {
            client.send_chunk(&record.repeat(1000)).await;
        }
        client.send("0\r\n\r\n").await;
        let answer = client.answer().await;
        let told = lines(&answer.body);
        assert_eq!(told.len(), RECORDS_OF_ALL);
        for (at, line) in told.iter().enumerate() {
            assert_eq!((&line["error_code"], &line["offset"]), (&json!(200), &json!(at)));
        }
    });
}

#[test]
fn a_client_that_goes_away_leaves_what_it_sent() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        client.send(<Client>::head("POST", RECORDS, &[("Transfer-Encoding", "chunked")])).await;
        client.answer_head().await;
        client.send_chunk(br#"{"value":{"type":"JSON","data":1}}{"value":"#).await;
        assert_eq!(codes(&lines(&client.chunk().await.expect("an answer"))), [200]);
        drop(client);
        // The bridge ends only when nothing of the stream is left.
        let kafka = bridge.stopped().await;
        assert_eq!(kafka.all_records(TOPIC).expect("readable").len(), 1);
    });
}

#[test]
fn a_refusal_does_not_repeat_all_that_it_refuses() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let told = produce(&mut client, &format!("{{\"{}\":1}}", "ä".repeat(10_000))).await;
        let message = told[0]["message"].as_str().expect("a message");
        assert!(message.len() < 300 && message.contains("unknown field"), "{message}");
    });
}

#[test]
fn a_batch_tells_what_was_written_and_what_was_not() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let path = format!("{RECORDS}:batch");
        let body = br#"{"entries":[
            {"id":"a","value":{"type":"STRING","data":"one"}},
            {"id":"b","value":{"type":"BINARY","data":"?"}},
            {"id":"c","key":{"type":"STRING","data":"k"},"value":{"type":"JSON","data":2.0}}]}"#;
        let answer = client.request("POST", &path, &[], body).await;
        assert_eq!(answer.status, 207, "{}", answer.text());
        let told = answer.json();
        let ids = |list: &Value| -> Vec<String> {
            list.as_array().expect("a list").iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
        };
        assert_eq!((ids(&told["successes"]), ids(&told["failures"])), (vec!["a".into(), "c".into()], vec!["b".into()]));
        assert_eq!((&told["successes"][1]["offset"], &told["failures"][0]["error_code"]), (&json!(1), &json!(400)));
        assert_eq!(bridge.values(), ["one", "2.0"]);

        let entries = |ids: &[&str]| {
            let entries: Vec<_> =
                ids.iter().map(|id| json!({"id": id, "value": {"type": "JSON", "data": 1}})).collect();
            json!({ "entries": entries }).to_string()
        };
        for (body, code) in [
            (entries(&[]), 42208),
            (entries(&["a", "b", "a"]), 42208),
            (entries(&["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]), 42208),
            (entries(&[""]), 422),
            (entries(&[&"x".repeat(81)]), 422),
            (r#"{"entries":[{"value":null}]}"#.to_owned(), 422),
            ("{\"entries\":7}".to_owned(), 400),
            ("{".to_owned(), 400),
        ] {
            let answer = client.request("POST", &path, &[], body.as_bytes()).await;
            assert_eq!(answer.error_code(), code, "{body}");
        }
        assert_eq!(bridge.values().len(), 2, "nothing else was written");
    });
}

#[test]
fn whom_no_rule_knows_is_not_told_which_cluster_this_is() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let users = folder.path().join("users");
        let hash = "$2y$05$opQtzp70cnBMmcLC1ty9MejvKkFxbAceJZxXcTPKsU2ThiQsIH9ka";
        std::fs::write(&users, format!("alice:{hash}\n")).expect("written");
        let rule = |identity: &str| {
            format!("[[access]]\nidentity = \"{identity}\"\ntopics = [\"none-yet-*\"]\nallow = [\"produce\"]\n")
        };
        let bridge = Bridge::with(&format!("[auth]\nusers_file = {users:?}\n{}", rule("user:alice"))).await;
        let known = bridge.beside(&rule("anyone")).await;
        let path = format!("/v3/clusters/{}", cluster_id(&mut known.client().await).await);
        assert_eq!(known.client().await.request("GET", &path, &[], b"").await.status, 200);
        let mut nobody = bridge.client().await;
        for path in ["/v3/clusters", "/v3/clusters/any", &path] {
            assert_eq!(nobody.request("GET", path, &[], b"").await.error_code(), 40101, "{path}");
        }
    });
}

#[test]
fn rules_decide_what_is_seen_and_done() {
    run(async {
        let rules = "[[access]]\nidentity = \"anyone\"\ntopics = [\"events\"]\nallow = [\"produce\"]\n";
        let kafka = FakeBroker::start_cluster(1).await.expect("loopback");
        kafka.create_topic(TOPIC, 1);
        kafka.create_topic("secret", 1);
        let bridge = Bridge::in_front_of(kafka, rules).await;
        let mut client = bridge.client().await;
        let base = format!("/v3/clusters/{}", cluster_id(&mut client).await);
        let topics = client.request("GET", &format!("{base}/topics"), &[], b"").await.json();
        assert_eq!(topics["data"].as_array().map(Vec::len), Some(1), "{topics}");
        assert_eq!(codes(&produce(&mut client, "{}").await), [200]);
        for (method, path, body) in [
            ("GET", "/topics/events", &b""[..]),
            ("GET", "/topics/secret/partitions", b""),
            ("DELETE", "/topics/events", b""),
            ("POST", "/topics", b"{\"topic_name\":\"new\"}"),
            ("GET", "/brokers", b""),
            ("GET", "/broker-configs", b""),
            ("GET", "/acls", b""),
            ("GET", "/consumer-groups/g", b""),
            ("POST", "/topics/secret/records", b"{}"),
            ("POST", "/topics/secret/records:batch", b"{}"),
        ] {
            let answer = client.request(method, &format!("{base}{path}"), &[], body).await;
            assert_eq!(answer.error_code(), 40301, "{method} {path}");
        }
    });
}

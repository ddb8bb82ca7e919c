//! Confluent's API as its clients use it: published libraries, and a fleet behind a balancer that knows no stickiness.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use penstock_tests::{
    bridge::{Bridge, Settings},
    https::{Answer, Connection},
    nlb::{self, Nlb, group::Target},
    shared::{bridge, three_brokers},
    tls::certificates,
    tools::{curl, curl_with_input, kcat_read},
};
use serde_json::{Value, json};

use crate::support::fleet_of_two;

const JSON: &str = "Content-Type: application/vnd.kafka.json.v2+json";

// ---- published clients ----

/// Runs one client's flow to its end.
fn published(client: &str, bridge: &Bridge) {
    let topic = three_brokers().create_topic("client", 1);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/run");
    let output = Command::new(script)
        .args([client, bridge.url("").as_str(), topic.as_str()])
        .env("CACERT", &certificates().ca)
        .output()
        .expect("bash is there");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.ends_with("ok\n"), "{client}: {}\n{out}\n{err}", output.status);
}

#[test]
fn published_clients_of_confluents_proxy_run_unchanged() {
    for client in ["kafka-bridge-client-confluent", "nlp-kafka-rest-api", "pymapr-kafkarest", "kafka-rest"] {
        published(client, bridge());
    }
}

#[test]
fn published_clients_of_strimzis_bridge_run_unchanged() {
    let settings = Settings::new(&three_brokers().bootstrap()).set("listen.dialect", "\"strimzi\"");
    published("kafka-bridge-client-strimzi", &Bridge::start_with(&settings));
}

// ---- one bridge ----

#[test]
fn records_of_a_document_are_where_their_answer_says() {
    let topic = three_brokers().create_topic("v2", 3);
    let records: Vec<Value> = (0..1000).map(|n| json!({"key": n % 7, "value": {"n": n}})).collect();
    let body = json!({ "records": records }).to_string();
    let path = format!("/topics/{topic}");
    let answer = curl_with_input(bridge(), &path, &["-H", JSON, "--data-binary", "@-"], body.as_bytes()).expect(200);
    let there: BTreeMap<(i64, i64), String> = kcat_read(&three_brokers().bootstrap(), &topic)
        .iter()
        .map(|record| ((record.partition.into(), record.offset), record.text().to_owned()))
        .collect();
    assert_eq!(there.len(), 1000);
    let document = answer.json();
    for (n, told) in document["offsets"].as_array().expect("a list").iter().enumerate() {
        let place = (told["partition"].as_i64().expect("a partition"), told["offset"].as_i64().expect("an offset"));
        assert_eq!(there[&place], format!("{{\"n\":{n}}}"));
    }
    let described = curl(bridge(), &path, &[]).expect(200).json();
    assert_eq!(described["partitions"].as_array().map(Vec::len), Some(3));
    assert!(described["configs"]["retention.ms"].is_string(), "{described}");
}

// ---- a fleet ----

const CONSUMERS: usize = 100;
const GROUPS: usize = 10;
const RECORDS: usize = 500;

/// A fleet of two and a balancer in front that ties nobody to any of them.
fn fleet(runtime: &tokio::runtime::Runtime) -> ([Bridge; 2], Nlb) {
    let bridges = fleet_of_two();
    let settings = nlb::Settings { proxy_protocol: false, ..nlb::Settings::new("vpce-1").faster(20.0) };
    let balancer = Nlb::start(runtime.handle(), settings).expect("loopback");
    for bridge in &bridges {
        let address = |port: u16| ([127, 0, 0, 1], port).into();
        balancer.register(Target { address: address(bridge.port), health: address(bridge.management_port) });
    }
    (bridges, balancer)
}

/// One request on a connection of its own: the balancer may send it anywhere.
async fn ask(port: u16, request: &str, headers: &[&str], body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut connection = Connection::open(port).await;
    connection.send(request, headers, body.as_bytes()).await;
    connection.reader.answer().await
}

#[test]
fn a_hundred_consumers_behind_a_balancer_without_stickiness_find_their_instances() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut bridges, balancer) = fleet(&runtime);
    let port = balancer.address().port();
    let topic = three_brokers().create_topic("fleet", 10);
    runtime.block_on(async {
        // Until its first checks have passed, the balancer resets what it is sent.
        while balancer.status().iter().any(|target| !target.takes_new_flows) {
            tokio::task::yield_now().await;
        }
        let records: Vec<Value> = (0..RECORDS).map(|n| json!({"partition": n % 10, "value": n})).collect();
        ask(port, &format!("POST /topics/{topic}"), &[JSON], &json!({ "records": records })).await.expect(200);

        let read: Vec<Read> = (0..GROUPS).map(|_| Read::default()).collect();
        let consumers: Vec<_> =
            (0..CONSUMERS).map(|n| tokio::spawn(consume(port, topic.clone(), n, read[n % GROUPS].clone()))).collect();
        for consumer in consumers {
            consumer.await.expect("no instance was missed");
        }
        assert!(read.iter().all(|read| read.lock().expect("no panic").len() == RECORDS));
    });
    let handed_on = bridges.each_ref().map(|bridge| {
        assert_eq!(bridge.metric("penstock_fleet_requests_total", &["outcome=\"unanswered\""]), 0.0);
        bridge.metric("penstock_fleet_requests_total", &["outcome=\"answered\""])
    });
    assert!(handed_on.iter().all(|count| *count > 0.0), "the balancer did send requests elsewhere: {handed_on:?}");

    // An owner that is gone is told at once.
    runtime.block_on(async {
        let made = ask(bridges[0].port, "POST /consumers/lost", &[], &Value::Null).await.expect(200).json();
        let base = base_of(&made);
        bridges[0].kill();
        let answer = ask(bridges[1].port, &format!("GET {base}/records"), &[], &Value::Null).await;
        assert_eq!((answer.status, &answer.json()["error_code"]), (404, &json!(40403)));
    });
}

/// The path in a creation's answer.
fn base_of(created: &Value) -> String {
    let uri = created["base_uri"].as_str().expect("a URI");
    uri.strip_prefix("https://localhost").expect("the host that the request named").to_owned()
}

/// What the members of one group have read together.
type Read = Arc<Mutex<BTreeSet<u64>>>;

/// One consumer's life, until its group has read everything. Every other one goes by the name that it chose, and not by
/// what it was told.
async fn consume(port: u16, topic: String, n: usize, read: Read) {
    let group = format!("{topic}-{}", n % GROUPS);
    let name = format!("consumer-{n}");
    let settings =
        json!({"name": name, "format": "json", "auto.offset.reset": "earliest", "auto.commit.enable": "false"});
    let created = ask(port, &format!("POST /consumers/{group}"), &[], &settings).await.expect(200).json();
    let base = if n.is_multiple_of(2) { base_of(&created) } else { format!("/consumers/{group}/instances/{name}") };
    ask(port, &format!("POST {base}/subscription"), &[], &json!({"topics": [topic]})).await.expect(204);
    for _ in 0..100 {
        let records =
            ask(port, &format!("GET {base}/records?timeout=3000"), &[], &Value::Null).await.expect(200).json();
        let values =
            records.as_array().expect("a list").iter().map(|record| record["value"].as_u64().expect("a number"));
        read.lock().expect("no panic").extend(values);
        // While members come and go, a commit may be refused: what it was for is read again.
        let committed = ask(port, &format!("POST {base}/offsets"), &[], &Value::Null).await;
        assert!([200, 409].contains(&committed.status), "{}", String::from_utf8_lossy(&committed.body));
        if read.lock().expect("no panic").len() == RECORDS {
            break;
        }
    }
    ask(port, &format!("DELETE {base}"), &[], &Value::Null).await.expect(204);
}

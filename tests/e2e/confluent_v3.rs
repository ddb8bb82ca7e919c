//! Confluent's API, version 3, on a real Kafka: what the in-process one does not know, settings, groups, access rules, and
//! a stream of records whose answers come while it is sent.

use std::{sync::OnceLock, time::Duration};

use penstock_tests::{
    bridge::Bridge,
    distribution::Version,
    eventually,
    https::Connection,
    kafka::Cluster,
    process::Process,
    shared::{bridge, three_brokers},
    tools::{Answer, curl, curl_with_input, kcat_read, kcat_write},
    unique,
};
use serde_json::{Value, json};

/// One request under the cluster of the shared bridge.
fn v3(method: &str, path: &str, body: Option<Value>) -> Answer {
    static CLUSTER: OnceLock<String> = OnceLock::new();
    let base = CLUSTER.get_or_init(|| base(bridge()));
    ask(bridge(), method, &format!("{base}{path}"), body)
}

/// `/v3/clusters/{id}` of the cluster behind a bridge.
pub(crate) fn base(bridge: &Bridge) -> String {
    let clusters = curl(bridge, "/v3/clusters", &[]).expect(200).json();
    format!("/v3/clusters/{}", clusters["data"][0]["cluster_id"].as_str().expect("a cluster has an id"))
}

pub(crate) fn ask(bridge: &Bridge, method: &str, path: &str, body: Option<Value>) -> Answer {
    match body {
        None => curl(bridge, path, &["-X", method]),
        Some(body) => {
            let arguments = ["-X", method, "-H", "Content-Type: application/json", "--data-binary", "@-"];
            curl_with_input(bridge, path, &arguments, body.to_string().as_bytes())
        }
    }
}

/// A setting out of a list.
fn setting(list: &Value, name: &str) -> Value {
    let settings = list["data"].as_array().expect("a list").iter();
    settings.into_iter().find(|setting| setting["name"] == name).unwrap_or_else(|| panic!("{name} in {list}")).clone()
}

#[test]
fn a_topic_is_created_grown_changed_and_deleted() {
    let topic = unique("v3");
    let path = format!("/topics/{topic}");
    let wanted = json!({
        "topic_name": topic, "partitions_count": 2, "replication_factor": 3,
        "configs": [{"name": "retention.ms", "value": "60000"}],
    });
    let dry = json!({"topic_name": topic, "partitions_count": 2, "replication_factor": 3, "validate_only": true});
    assert_eq!(v3("POST", "/topics", Some(dry)).expect(200).json()["partitions_count"], 2);
    v3("GET", &path, None).expect(404);
    assert_eq!(v3("POST", "/topics", Some(wanted)).expect(201).json()["replication_factor"], 3);
    assert_eq!(v3("PATCH", &path, Some(json!({"partitions_count": 4}))).expect(200).json()["partitions_count"], 4);
    let fewer = v3("PATCH", &path, Some(json!({"partitions_count": 3}))).expect(400).json();
    assert_eq!(fewer["error_code"], 40002, "{fewer}");
    three_brokers().wait_until_whole(&topic, 4);

    let configs = format!("{path}/configs");
    let retention = setting(&v3("GET", &configs, None).expect(200).json(), "retention.ms");
    assert_eq!((&retention["value"], &retention["source"]), (&json!("60000"), &json!("DYNAMIC_TOPIC_CONFIG")));
    assert_eq!(retention["synonyms"][0]["value"], "60000");
    let one = |name: &str| v3("GET", &format!("{configs}/{name}"), None).expect(200).json();
    v3("PUT", &format!("{configs}/retention.ms"), Some(json!({"value": "70000"}))).expect(204);
    let told = |name: &'static str, value: &'static str| {
        eventually(name, Duration::from_secs(20), || (one(name)["value"] == value).then_some(()));
    };
    told("retention.ms", "70000");
    let changes = json!({"data": [
        {"name": "retention.ms", "operation": "DELETE"}, {"name": "cleanup.policy", "value": "compact"},
    ]});
    v3("POST", &format!("{configs}:alter"), Some(changes)).expect(204);
    told("cleanup.policy", "compact");
    told("retention.ms", "-1");
    v3("DELETE", &format!("{configs}/cleanup.policy"), None).expect(204);
    told("cleanup.policy", "delete");
    // What is only looked at is refused as what is meant, and changes nothing.
    let checked = |value: &str| {
        let changes = json!({"data": [{"name": "retention.ms", "value": value}], "validate_only": true});
        v3("POST", &format!("{configs}:alter"), Some(changes))
    };
    checked("80000").expect(204);
    assert_eq!(checked("soon").expect(400).json()["error_code"], 40002);
    assert_eq!(one("retention.ms")["value"], "-1");
    v3("GET", &format!("{configs}/no.such"), None).expect(404);
    let defaults = v3("GET", &format!("{path}/default-configs"), None).expect(200).json();
    assert_eq!(setting(&defaults, "retention.ms")["value"], "-1");

    v3("DELETE", &path, None).expect(204);
    eventually("it is gone", Duration::from_secs(20), || (v3("GET", &path, None).status == 404).then_some(()));
    assert_eq!(v3("DELETE", &path, None).expect(404).json()["error_code"], 40403);
}

#[test]
fn replicas_are_placed_as_asked() {
    let topic = unique("v3-placed");
    let wanted = json!({"topic_name": topic, "replicas_assignments": [
        {"partition_id": 0, "broker_ids": [2, 3]}, {"partition_id": 1, "broker_ids": [3, 1]},
    ]});
    let created = v3("POST", "/topics", Some(wanted)).expect(201).json();
    assert_eq!((&created["partitions_count"], &created["replication_factor"]), (&json!(2), &json!(2)));
    let replicas = v3("GET", &format!("/topics/{topic}/partitions/1/replicas"), None).expect(200).json();
    let brokers: Vec<_> = replicas["data"].as_array().expect("a list").iter().map(|one| &one["broker_id"]).collect();
    assert_eq!(brokers, [3, 1]);
    assert_eq!(
        v3("GET", &format!("/topics/{topic}/partitions/-/reassignment"), None).expect(200).json()["data"],
        json!([])
    );
    v3("GET", &format!("/topics/{topic}/partitions/0/reassignment"), None).expect(404);
    v3("DELETE", &format!("/topics/{topic}"), None).expect(204);
}

#[test]
fn brokers_settings_are_changed_one_by_one_and_together() {
    let name = "log.cleaner.backoff.ms";
    let read = |path: &str| v3("GET", path, None).expect(200).json();
    let own = setting(&read("/brokers/2/configs"), name);
    assert_eq!(own["source"], "DEFAULT_CONFIG");
    v3("PUT", &format!("/brokers/2/configs/{name}"), Some(json!({"value": "14000"}))).expect(204);
    let told = |path: &'static str, value: Option<&'static str>, source: &'static str| {
        eventually(path, Duration::from_secs(20), || {
            let told = v3("GET", path, None).json();
            (value.is_none_or(|value| told["value"] == value) && told["source"] == source).then_some(())
        });
    };
    told("/brokers/2/configs/log.cleaner.backoff.ms", Some("14000"), "DYNAMIC_BROKER_CONFIG");
    told("/brokers/1/configs/log.cleaner.backoff.ms", None, "DEFAULT_CONFIG");
    v3("DELETE", &format!("/brokers/2/configs/{name}"), None).expect(204);
    told("/brokers/2/configs/log.cleaner.backoff.ms", None, "DEFAULT_CONFIG");
    let all = json!({"data": [{"name": name, "value": "13000"}]});
    v3("POST", "/broker-configs:alter", Some(all)).expect(204);
    told("/broker-configs/log.cleaner.backoff.ms", Some("13000"), "DYNAMIC_DEFAULT_BROKER_CONFIG");
    told("/brokers/3/configs/log.cleaner.backoff.ms", Some("13000"), "DYNAMIC_DEFAULT_BROKER_CONFIG");
    v3("DELETE", &format!("/broker-configs/{name}"), None).expect(204);
    told("/brokers/3/configs/log.cleaner.backoff.ms", None, "DEFAULT_CONFIG");
    assert_eq!(
        v3("PUT", "/brokers/1/configs/broker.id", Some(json!({"value": "9"}))).expect(400).json()["error_code"],
        40002
    );
}

#[test]
fn a_group_and_its_lag_are_what_its_members_make_of_it() {
    let cluster = three_brokers();
    let topic = cluster.create_topic("v3-group", 2);
    let group = unique("group/with a slash");
    let encoded = group.replace('/', "%2F").replace(' ', "%20");
    let path = format!("/consumer-groups/{encoded}");
    assert_eq!(v3("GET", &path, None).expect(404).json()["error_code"], 40405);
    kcat_write(&cluster.bootstrap(), &topic, &["-p", "0"], "1\n2\n3\n");
    let bootstrap = cluster.bootstrap();
    let arguments = [
        "-b",
        &bootstrap,
        "-X",
        "auto.offset.reset=earliest",
        "-X",
        "auto.commit.interval.ms=100",
        "-G",
        &group,
        &topic,
    ];
    let mut member = Process::spawn("kcat", "kcat", arguments, &[]);
    let lag = |path: &str| v3("GET", path, None);
    eventually("the member has read all", Duration::from_secs(60), || {
        let told = lag(&format!("{path}/lags/{topic}/partitions/0"));
        (told.status == 200 && told.json()["current_offset"] == 3).then_some(())
    });
    let described = v3("GET", &path, None).expect(200).json();
    assert_eq!((&described["state"], &described["is_simple"]), (&json!("STABLE"), &json!(false)), "{described}");
    assert_eq!(described["consumer_group_id"], *group);
    assert_ne!(described["partition_assignor"], "");
    let listed = v3("GET", "/consumer-groups", None).expect(200).json();
    assert!(listed["data"].as_array().expect("a list").contains(&described), "{listed}");
    let consumers = v3("GET", &format!("{path}/consumers"), None).expect(200).json();
    let consumer = consumers["data"][0]["consumer_id"].as_str().expect("one member").to_owned();
    let one = format!("{path}/consumers/{consumer}");
    assert_eq!(v3("GET", &one, None).expect(200).json()["client_id"], "rdkafka");
    let assigned = v3("GET", &format!("{one}/assignments"), None).expect(200).json();
    assert_eq!(assigned["data"].as_array().map(Vec::len), Some(2), "{assigned}");
    v3("GET", &format!("{one}/assignments/{topic}/partitions/1"), None).expect(200);
    v3("GET", &format!("{one}/assignments/{topic}/partitions/2"), None).expect(404);
    let told = lag(&format!("{path}/lags/{topic}/partitions/0")).expect(200).json();
    assert_eq!((&told["lag"], &told["consumer_id"]), (&json!(0), &json!(consumer)), "{told}");

    // Without its member the group falls behind.
    member.signal("TERM");
    member.wait_for_exit(Duration::from_secs(30));
    eventually("it is empty", Duration::from_secs(60), || {
        (v3("GET", &path, None).json()["state"] == "EMPTY").then_some(())
    });
    kcat_write(&cluster.bootstrap(), &topic, &["-p", "0"], "4\n5\n");
    let summary = lag(&format!("{path}/lag-summary")).expect(200).json();
    assert_eq!((&summary["max_lag"], &summary["total_lag"]), (&json!(2), &json!(2)), "{summary}");
    assert_eq!((&summary["max_lag_topic_name"], &summary["max_lag_consumer_id"]), (&json!(topic), &json!("")));
    let lags = lag(&format!("{path}/lags")).expect(200).json();
    assert_eq!(lags["data"][0]["log_end_offset"], 5, "{lags}");
}

#[test]
fn kafka_s_access_rules_are_searched_created_and_deleted() {
    let settings = [
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("super.users", "User:ANONYMOUS"),
    ];
    let cluster = Cluster::start(Version::V4_1_1, 1, &settings);
    let bridge = Bridge::start(&cluster.bootstrap());
    let base = base(&bridge);
    let acls = |method: &str, tail: &str, body| ask(&bridge, method, &format!("{base}/acls{tail}"), body);
    let rule = |name: &str, operation: &str| {
        json!({
            "resource_type": "TOPIC", "resource_name": name, "pattern_type": "PREFIXED", "principal": "User:alice",
            "host": "*", "operation": operation, "permission": "ALLOW",
        })
    };
    assert_eq!(acls("GET", "", None).expect(200).json()["data"], json!([]));
    let created = acls("POST", "", Some(rule("logs-", "READ"))).expect(201);
    assert!(created.header("location").is_some_and(|address| address.contains("resource_name=logs-")));
    acls("POST", ":batch", Some(json!({"data": [rule("a", "WRITE"), rule("b", "DESCRIBE")]}))).expect(201);
    let found = |query: &str, count: usize| {
        eventually(query, Duration::from_secs(20), || {
            let found = acls("GET", query, None).expect(200).json();
            (found["data"].as_array().expect("a list").len() == count).then_some(found)
        })
    };
    let one = found("?resource_type=topic&operation=READ", 1);
    assert_eq!(one["data"][0]["principal"], "User:alice");
    assert_eq!(one["data"][0]["pattern_type"], "PREFIXED");
    found("?principal=User:alice", 3);
    found("?principal=User:bob", 0);
    // A filter that says too little, or something else, deletes nothing.
    acls("DELETE", "?resource_type=TOPIC", None).expect(400);
    acls("DELETE", "?resource_type=TOPIC&pattern_type=ANY&operation=ANY&permission=ANY&principle=User:bob", None)
        .expect(400);
    for wrong in ["ANY", "TOPICS"] {
        let mut rule = rule("x", "READ");
        rule["resource_type"] = json!(wrong);
        acls("POST", "", Some(rule)).expect(400);
    }
    let query = "?resource_type=TOPIC&pattern_type=PREFIXED&operation=ANY&permission=ANY&resource_name=logs-";
    let deleted = acls("DELETE", query, None).expect(200).json();
    assert_eq!(deleted["data"][0]["resource_name"], "logs-", "{deleted}");
    found("", 2);
    // Without an authorizer there are none, and Kafka says so.
    assert_eq!(v3("GET", "/acls", None).expect(400).json()["error_code"], 40002);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_is_answered_before_the_next_is_sent() {
    let topic = three_brokers().create_topic("v3-stream", 1);
    let mut connection = Connection::open(bridge().port).await;
    let request = format!("POST /v3/clusters/any/topics/{topic}/records");
    connection.begin_chunked(&request, &["Content-Type: application/json"]).await;
    assert_eq!(connection.reader.head().await.0, 200);
    let values = ["1.10", "0", "false", "\"\"", "{}", "{\"b\":1,\"a\":2,\"b\":3}", "1e400"];
    for (offset, value) in values.iter().enumerate() {
        let record = format!(
            "{{\"key\":{{\"type\":\"STRING\",\"data\":\"k\"}},\"value\":{{\"type\":\"JSON\",\"data\":{value}}}}}\n"
        );
        connection.writer.chunk(record.as_bytes()).await;
        let answer = connection.reader.piece().await.expect("an answer before the next record");
        let answer: Value = serde_json::from_slice(&answer).expect("one document");
        assert_eq!((&answer["error_code"], &answer["offset"]), (&json!(200), &json!(offset)), "{answer}");
    }
    connection.writer.last_chunk().await;
    assert_eq!(connection.reader.piece().await, None);
    let there: Vec<_> =
        kcat_read(&three_brokers().bootstrap(), &topic).into_iter().map(|record| record.value).collect();
    assert_eq!(there, values.map(|value| Some(value.as_bytes().to_vec())));
}

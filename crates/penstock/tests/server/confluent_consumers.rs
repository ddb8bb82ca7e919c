use crate::harness::{Answer, Bridge, Client, TOPIC, run};
use krafka::testing::FakeBroker;
use serde_json::{Value, json};
use std::net::SocketAddr;

const V2: &str = "application/vnd.kafka.v2+json";
const JSON: &str = "application/vnd.kafka.json.v2+json";

/// One client with a consumer instance.
struct Consumer {
    client: Client,
    base: String,
}

impl Consumer {
    async fn create(bridge: &Bridge, group: &str, settings: Value) -> Self {
        let mut client = bridge.client().await;
        let created = post(&mut client, &format!("/consumers/{group}"), &settings).await;
        assert_eq!(created.status, 200, "{}", created.text());
        let base = created.json()["base_uri"].as_str().expect("a URI").to_owned();
        let base = base.strip_prefix("http://bridge").expect("the host that the request named").to_owned();
        Self { client, base }
    }

    async fn post(&mut self, path: &str, body: &Value) -> Answer {
        post(&mut self.client, &format!("{}{path}", self.base), body).await
    }

    async fn get(&mut self, path: &str, body: &str) -> Answer {
        self.client.request("GET", &format!("{}{path}", self.base), &[("Accept", V2)], body.as_bytes()).await
    }

    async fn delete(&mut self, path: &str) -> Answer {
        self.client.request("DELETE", &format!("{}{path}", self.base), &[], b"").await
    }

    async fn records(&mut self, query: &str) -> Vec<Value> {
        let path = format!("{}/records{query}", self.base);
        let answer = self.client.request("GET", &path, &[("Accept", JSON)], b"").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some(JSON));
        answer.json().as_array().expect("a list").clone()
    }

    /// Reads until there are so many; each read returns when there is something.
    async fn values(&mut self, count: usize) -> Vec<Value> {
        let mut values = Vec::new();
        while values.len() < count {
            values.extend(self.records("?timeout=30000").await.into_iter().map(|record| record["value"].clone()));
        }
        values
    }
}

async fn post(client: &mut Client, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    client.request("POST", path, &[("Content-Type", V2)], body.as_bytes()).await
}

async fn write(bridge: &Bridge, topic: &str, values: &[Value]) {
    let records: Vec<Value> = values.iter().map(|value| json!({ "value": value })).collect();
    let body = json!({ "records": records }).to_string();
    let mut client = bridge.client().await;
    let path = format!("/topics/{topic}");
    assert_eq!(client.request("POST", &path, &[("Content-Type", JSON)], body.as_bytes()).await.status, 200);
}

fn places(partitions: &[i32]) -> Value {
    let partitions: Vec<Value> = partitions.iter().map(|p| json!({"topic": TOPIC, "partition": p})).collect();
    json!({ "partitions": partitions })
}

#[test]
fn an_assigned_instance_reads_commits_and_seeks() {
    run(async {
        let bridge = Bridge::start().await;
        write(&bridge, TOPIC, &[json!(1.5), json!("two"), json!({"three": 3})]).await;
        let mut consumer =
            Consumer::create(&bridge, "g", json!({"name": "c", "format": "json", "auto.offset.reset": "earliest"}))
                .await;
        assert_eq!(consumer.post("/assignments", &places(&[0])).await.status, 204);
        assert_eq!(consumer.get("/assignments", "").await.json(), places(&[0]));
        let records = consumer.records("?timeout=30000").await;
        assert_eq!(
            records[0],
            json!({"topic": TOPIC, "key": null, "value": 1.5, "partition": 0, "offset": 0}),
            "just what Confluent's readers know"
        );
        assert_eq!(records.len(), 3);
        assert!(consumer.records("?timeout=1").await.is_empty());

        // Without a body: everything that was answered. With one: the last record that is done.
        let committed = consumer.post("/offsets", &Value::Null).await;
        assert_eq!((committed.status, committed.json()), (200, json!([])));
        let told =
            |offset: i64| json!({"offsets": [{"topic": TOPIC, "partition": 0, "offset": offset, "metadata": ""}]});
        assert_eq!(consumer.get("/offsets", &places(&[0]).to_string()).await.json(), told(3));
        let one = json!({"offsets": [{"topic": TOPIC, "partition": 0, "offset": 0}]});
        assert_eq!(consumer.post("/offsets", &one).await.status, 200);
        assert_eq!(consumer.get("/offsets", &places(&[0]).to_string()).await.json(), told(1));

        let seek = |offset: i64| json!({"offsets": [{"topic": TOPIC, "partition": 0, "offset": offset}]});
        assert_eq!(consumer.post("/positions", &seek(2)).await.status, 204);
        assert_eq!(consumer.values(1).await, [json!({"three": 3})]);
        assert_eq!(consumer.post("/positions/beginning", &places(&[0])).await.status, 204);
        assert_eq!(consumer.values(3).await[0], json!(1.5));
        assert_eq!(consumer.post("/positions/end", &places(&[0])).await.status, 204);
        assert!(consumer.records("?timeout=1").await.is_empty());
        let time = json!({"timestamps": [{"topic": TOPIC, "partition": 0, "timestamp": "1970-01-01T00:00:00Z"}]});
        assert_eq!(consumer.post("/positions", &time).await.status, 204);
        assert_eq!(consumer.values(3).await.len(), 3);
        assert_eq!(consumer.post("/positions/beginning/", &places(&[7])).await.error_code(), 40403);

        assert_eq!(consumer.delete("").await.status, 204);
        assert_eq!(consumer.delete("").await.error_code(), 40403);
        assert_eq!(consumer.get("/records", "").await.error_code(), 40403);
    });
}

#[test]
fn a_subscribed_instance_reads_its_topics_and_goes_on_where_its_group_was() {
    run(async {
        let bridge = Bridge::start().await;
        write(&bridge, TOPIC, &[json!(1), json!(2)]).await;
        let settings =
            json!({"name": "c", "format": "json", "auto.offset.reset": "earliest", "auto.commit.enable": "false"});
        let mut consumer = Consumer::create(&bridge, "g", settings.clone()).await;
        assert_eq!(consumer.get("/subscription", "").await.json(), json!({"topics": []}));
        assert_eq!(consumer.post("/subscription", &json!({"topics": [TOPIC]})).await.status, 204);
        assert_eq!(consumer.get("/subscription", "").await.json(), json!({"topics": [TOPIC]}));
        assert_eq!(consumer.post("/assignments", &places(&[0])).await.error_code(), 40903);
        assert_eq!(consumer.values(2).await, [json!(1), json!(2)]);
        assert_eq!(consumer.get("/assignments", "").await.json(), places(&[0]));
        assert_eq!(consumer.post("/offsets", &Value::Null).await.status, 200);
        assert_eq!(consumer.delete("").await.status, 204);

        write(&bridge, TOPIC, &[json!(3)]).await;
        let mut consumer = Consumer::create(&bridge, "g", settings).await;
        assert_eq!(consumer.post("/subscription", &json!({"topic_pattern": "ev.*"})).await.status, 204);
        assert_eq!(consumer.values(1).await, [json!(3)]);
        assert_eq!(consumer.delete("/subscription").await.status, 204);
        assert!(consumer.records("?timeout=1").await.is_empty());
    });
}

#[test]
fn a_read_is_answered_when_there_is_data() {
    run(async {
        let bridge = Bridge::start().await;
        let mut consumer =
            Consumer::create(&bridge, "g", json!({"format": "json", "auto.offset.reset": "earliest"})).await;
        consumer.post("/assignments", &places(&[0])).await;
        // The read waits for a minute; the test gives up before it.
        let read = consumer.records("?timeout=60000");
        let written = async {
            bridge.asked(krafka::testing::ApiKey::Fetch).await;
            write(&bridge, TOPIC, &[json!("now")]).await;
        };
        let (records, ()) = tokio::join!(read, written);
        assert_eq!(records[0]["value"], "now");
    });
}

#[test]
fn a_record_above_the_bound_is_returned_alone() {
    run(async {
        let bridge = Bridge::start().await;
        let long = "x".repeat(200_000);
        write(&bridge, TOPIC, &[json!(1), json!(long), json!(2)]).await;
        let mut consumer =
            Consumer::create(&bridge, "g", json!({"format": "json", "auto.offset.reset": "earliest"})).await;
        consumer.post("/assignments", &places(&[0])).await;
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let records = consumer.records("?timeout=30000&max_bytes=1000").await;
            assert_eq!(records.len(), 1);
            seen.extend(records.into_iter().map(|record| record["value"].clone()));
        }
        assert_eq!(seen, [json!(1), json!(long), json!(2)]);
    });
}

#[test]
fn what_is_no_json_is_named_and_can_be_passed() {
    run(async {
        let bridge = Bridge::start().await;
        write(&bridge, TOPIC, &[json!(1)]).await;
        bridge.client().await.request("POST", "/v1/topics/events/records", &[], b"{not json").await;
        write(&bridge, TOPIC, &[json!(2)]).await;
        let mut consumer =
            Consumer::create(&bridge, "g", json!({"format": "json", "auto.offset.reset": "earliest"})).await;
        consumer.post("/assignments", &places(&[0])).await;
        assert_eq!(consumer.values(1).await, [json!(1)]);
        let answer = consumer.get("/records?timeout=30000", "").await;
        assert_eq!(answer.error_code(), 42203);
        assert!(answer.text().contains("offset 1 of partition 0 of events"), "{}", answer.text());
        let seek = json!({"offsets": [{"topic": TOPIC, "partition": 0, "offset": 2}]});
        assert_eq!(consumer.post("/positions", &seek).await.status, 204);
        assert_eq!(consumer.values(1).await, [json!(2)]);
    });
}

#[test]
fn instances_have_their_own_errors() {
    run(async {
        let bridge = Bridge::with("[consumers]\nmax_instances = 2\n").await;
        let mut client = bridge.client().await;
        let mut create = async |settings: Value| post(&mut client, "/consumers/g", &settings).await;
        assert_eq!(create(json!({"name": "a", "format": "binary"})).await.status, 200);
        assert_eq!(create(json!({"name": "a"})).await.error_code(), 40902);
        for wrong in [
            json!({"format": "xml"}),
            json!({"auto.offset.reset": "sometimes"}),
            json!({"auto.commit.enable": "maybe"}),
            json!({"fetch.min.bytes": 10_000_001}),
            json!({"consumer.request.timeout.ms": "soon"}),
            json!({"name": "a/b"}),
            json!({"unknown": 1}),
        ] {
            assert_eq!(create(wrong.clone()).await.error_code(), 42204, "{wrong}");
        }
        assert_eq!(create(Value::Null).await.status, 200, "a body is not needed");
        assert_eq!(create(Value::Null).await.error_code(), 50301, "two are allowed");
        let answer = client.request("GET", "/consumers/g/instances/a/records", &[("Accept", JSON)], b"").await;
        assert_eq!(answer.error_code(), 40601);
        let both = json!({"topics": [TOPIC], "topic_pattern": ".*"});
        assert_eq!(post(&mut client, "/consumers/g/instances/a/subscription", &both).await.error_code(), 422);
        let none = json!({"topics": ["none"]});
        assert_eq!(post(&mut client, "/consumers/g/instances/a/subscription", &none).await.error_code(), 40401);
        let pattern = json!({"topic_pattern": "("});
        assert_eq!(post(&mut client, "/consumers/g/instances/a/subscription", &pattern).await.error_code(), 422);
        assert_eq!(post(&mut client, "/consumers/g/instances/b/subscription", &none).await.error_code(), 40403);
        assert!(bridge.manage("/metrics").await.text().contains("penstock_consumer_instances 2"));
    });
}

#[test]
fn strimzis_consumers_commit_offsets_as_they_are_sent() {
    run(async {
        let bridge = Bridge::with("[listen]\ndialect = \"strimzi\"\n").await;
        write(&bridge, TOPIC, &[json!(1), json!(2)]).await;
        let settings =
            json!({"name": "s", "format": "json", "auto.offset.reset": "earliest", "enable.auto.commit": false});
        let mut consumer = Consumer::create(&bridge, "g", settings).await;
        consumer.post("/assignments", &places(&[0])).await;
        let record = consumer.records("?timeout=30000").await.remove(0);
        assert!(record["timestamp"].is_number() && record["headers"] == json!([]), "{record}");
        let one = json!({"offsets": [{"topic": TOPIC, "partition": 0, "offset": 1}]});
        assert_eq!(consumer.post("/offsets", &one).await.status, 204);
        let committed = consumer.get("/offsets", &places(&[0]).to_string()).await.json();
        assert_eq!(committed["offsets"][0]["offset"], 1);
        let mut client = bridge.client().await;
        assert_eq!(client.request("GET", "/healthy", &[], b"").await.status, 204);
        assert_eq!(client.request("GET", "/ready", &[], b"").await.status, 204);
        let topic = json!({"topic_name": "made", "partitions_count": 2, "replication_factor": 1});
        assert_eq!(post(&mut client, "/admin/topics", &topic).await.status, 201);
        assert_eq!(
            client.request("GET", "/topics/made/partitions", &[], b"").await.json().as_array().map(Vec::len),
            Some(2)
        );
    });
}

#[test]
fn an_idle_instance_ends() {
    run(async {
        let bridge = Bridge::with("[consumers]\nidle_timeout = \"1s\"\n").await;
        let mut consumer = Consumer::create(&bridge, "g", json!({})).await;
        while bridge.manage("/metrics").await.text().contains("penstock_consumer_instances 1") {
            tokio::task::yield_now().await;
        }
        assert_eq!(consumer.delete("").await.error_code(), 40403);
    });
}

// ---- a fleet ----

/// Two bridges of one fleet in front of one Kafka, and the file of the fleet's secret.
async fn fleet(peers: bool) -> (Bridge, Bridge, tempfile::NamedTempFile) {
    let kafka = FakeBroker::start_cluster(1).await.expect("loopback");
    kafka.create_topic(TOPIC, 1);
    let secret = secret(OURS);
    let first = Bridge::in_front_of(kafka, &fleet_settings(&secret, None)).await;
    let second = first.beside(&fleet_settings(&secret, first.fleet.filter(|_| peers))).await;
    (first, second, secret)
}

const OURS: &str = "0123456789abcdef0123456789abcdef\n";

fn secret(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    file
}

fn fleet_settings(secret: &tempfile::NamedTempFile, peer: Option<SocketAddr>) -> String {
    let peers = peer.map(|peer| format!("peers = [\"{peer}\"]\n")).unwrap_or_default();
    format!("[fleet]\naddress = \"127.0.0.1:0\"\nsecret_file = {:?}\n{peers}", secret.path())
}

#[test]
fn an_instance_is_reached_through_any_bridge_by_what_its_creation_said() {
    run(async {
        let (first, second, _secret) = fleet(false).await;
        write(&first, TOPIC, &[json!(1)]).await;
        let mut consumer =
            Consumer::create(&first, "g", json!({"name": "c ü", "format": "json", "auto.offset.reset": "earliest"}))
                .await;
        consumer.client = second.client().await;
        assert_eq!(consumer.post("/assignments", &places(&[0])).await.status, 204);
        assert_eq!(consumer.values(1).await, [json!(1)]);
        assert_eq!(consumer.post("/offsets", &Value::Null).await.json(), json!([]));
        assert_eq!(consumer.get("/offsets", "{").await.error_code(), 400);
        assert_eq!(consumer.post("/subscription", &json!({"topics": [TOPIC]})).await.error_code(), 40903);
        assert!(
            second.manage("/metrics").await.text().contains("penstock_fleet_requests_total{outcome=\"answered\"} 5")
        );
        assert_eq!(consumer.delete("").await.status, 204);
        assert_eq!(consumer.delete("").await.error_code(), 40403);

        // An owner that is gone is found out at once.
        let mut consumer = Consumer::create(&first, "g", json!({})).await;
        consumer.client = second.client().await;
        first.stopped().await;
        assert_eq!(consumer.get("/records", "").await.error_code(), 40403);
    });
}

#[test]
fn an_instance_is_reached_by_its_name_alone_where_peers_are_known() {
    run(async {
        let (first, second, _secret) = fleet(true).await;
        let mut consumer = Consumer::create(&first, "g", json!({"name": "c"})).await;
        consumer.base = "/consumers/g/instances/c".into();
        consumer.client = second.client().await;
        for _ in 0..2 {
            assert_eq!(consumer.get("/subscription", "").await.json(), json!({"topics": []}));
        }
        let again = post(&mut consumer.client, "/consumers/g", &json!({"name": "c"})).await;
        assert_eq!(again.error_code(), 40902, "names are the fleet's");
        consumer.base = "/consumers/g/instances/none".into();
        assert_eq!(consumer.get("/subscription", "").await.error_code(), 40403);
    });
}

#[test]
fn peers_and_the_secret_change_without_a_restart() {
    run(async {
        let (first, _, of_first) = fleet(false).await;
        let of_second = secret(OURS);
        let second = first.beside(&fleet_settings(&of_second, None)).await;
        let mut consumer = Consumer::create(&first, "g", json!({"name": "c"})).await;
        consumer.base = "/consumers/g/instances/c".into();
        consumer.client = second.client().await;
        assert_eq!(consumer.get("/subscription", "").await.error_code(), 40403, "nobody is asked");

        second.write_settings(&fleet_settings(&of_second, first.fleet));
        second.reload("rules", "ok").await;
        assert_eq!(second.metric("penstock_restart_needed").await, 0);
        assert_eq!(consumer.get("/subscription", "").await.status, 200);

        // A secret is replaced in three steps; each bridge takes each in its own time.
        let new = "fedcba9876543210fedcba9876543210";
        let secrets = async |first_has: &str, second_has: &str| {
            for (bridge, file, text) in [(&first, &of_first, first_has), (&second, &of_second, second_has)] {
                std::fs::write(file.path(), text).expect("written");
                bridge.reload("fleet_secret", "ok").await;
            }
        };
        let (both, turned) = (format!("{OURS}{new}\n"), format!("{new}\n{OURS}"));
        for (a, b) in [(&*both, OURS), (&both, &both), (&both, &turned), (&turned, &turned), (&turned, new), (new, new)]
        {
            secrets(a, b).await;
            assert_eq!(consumer.get("/subscription", "").await.status, 200, "{a:?} and {b:?}");
        }
        secrets(OURS, new).await;
        assert_eq!(consumer.get("/subscription", "").await.error_code(), 40403, "strangers");
        assert!(first.metric("penstock_fleet_requests_refused_total").await > 0);

        // What cannot be used changes nothing.
        secrets(new, new).await;
        std::fs::write(of_first.path(), "short\n").expect("written");
        first.reload("fleet_secret", "failed").await;
        assert_eq!(first.metric("penstock_reload_failing{what=\"fleet_secret\"}").await, 1);
        assert_eq!(consumer.get("/subscription", "").await.status, 200);
    });
}

#[test]
fn the_fleets_listener_is_for_the_fleet_alone() {
    run(async {
        let (first, _second, _secret) = fleet(false).await;
        let mut client = Client::connect(first.fleet.expect("a fleet")).await;
        let answer = client.request("POST", "/forward", &[], b"").await;
        assert_eq!(answer.error_code(), 40301);
        let mut client = Client::connect(first.fleet.expect("a fleet")).await;
        let forged = [("Penstock-Seal", "1;2;3"), ("Penstock-Envelope", "e30=")];
        assert_eq!(client.request("POST", "/forward", &forged, b"").await.error_code(), 40301);
        assert!(first.manage("/metrics").await.text().contains("penstock_fleet_requests_refused_total 2"));
    });
}

//! Formats that need a schema, against a registry of ours that follows Confluent's published API.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Answer, Bridge, Client, TOPIC, run};

/// Schemas in the order of their numbers, which begin at 1; and what was asked.
#[derive(Default)]
struct Registry {
    schemas: Vec<Value>,
    subjects: BTreeMap<String, Vec<usize>>,
    asked: Vec<String>,
    /// What `Authorization` has to say.
    login: Option<String>,
}

impl Registry {
    fn answer(&mut self, line: &str, body: &[u8]) -> (u16, Value) {
        self.asked.push(line.to_owned());
        let mut words = line.split(' ');
        let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method, &parts[..]) {
            ("GET", ["schemas", "ids", id]) => match self.schemas.get(id.parse::<usize>().expect("a number") - 1) {
                Some(schema) => (200, schema.clone()),
                None => (404, json!({"error_code": 40403, "message": "Schema not found"})),
            },
            ("GET", ["subjects", subject, "versions", version]) => {
                let subject = subject.replace("%2F", "/");
                let versions = self.subjects.get(&subject);
                let version = match *version {
                    "latest" => versions.map_or(0, Vec::len),
                    number => number.parse().expect("a number"),
                };
                match versions.and_then(|versions| versions.get(version.wrapping_sub(1))) {
                    Some(at) => {
                        let mut told = self.schemas[*at].clone();
                        let place = json!({"subject": subject, "version": version, "id": at + 1});
                        told.as_object_mut().expect("an object").extend(place.as_object().expect("an object").clone());
                        (200, told)
                    }
                    None => (404, json!({"error_code": 40401, "message": "Subject not found"})),
                }
            }
            ("POST", ["subjects", subject, "versions"]) => {
                let mut schema: Value = serde_json::from_slice(body).expect("JSON");
                if schema["schemaType"] == "AVRO" {
                    // As the original does.
                    schema.as_object_mut().expect("an object").remove("schemaType");
                }
                (200, json!({"id": self.register(subject, schema)}))
            }
            ("POST", ["subjects", _]) => (404, json!({"error_code": 40403, "message": "Schema not found"})),
            _ => (405, json!({"error_code": 405, "message": "what is this"})),
        }
    }

    fn register(&mut self, subject: &str, schema: Value) -> usize {
        let known = self.schemas.iter().position(|known| *known == schema);
        let at = known.unwrap_or(self.schemas.len());
        if known.is_none() {
            self.schemas.push(schema);
        }
        let versions = self.subjects.entry(subject.to_owned()).or_default();
        if !versions.contains(&at) {
            versions.push(at);
        }
        at + 1
    }
}

async fn registry() -> (String, Arc<Mutex<Registry>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let registry = Arc::new(Mutex::new(Registry::default()));
    let shared = registry.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("loopback");
            tokio::spawn(serve(stream, shared.clone()));
        }
    });
    (url, registry)
}

async fn serve(mut stream: TcpStream, registry: Arc<Mutex<Registry>>) {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .map_or(0, |rest| rest.split("\r\n").next().and_then(|text| text.parse().ok()).expect("a number"));
            if bytes.len() >= end + 4 + length {
                break (String::from_utf8_lossy(&bytes[..end]).into_owned(), bytes[end + 4..].to_vec());
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let line = head.lines().next().expect("a request line").trim_end_matches(" HTTP/1.1");
    let (status, answer) = {
        let mut registry = registry.lock().expect("alive");
        let login = registry.login.as_ref().map(|login| format!("authorization: {}", login.to_lowercase()));
        if login.is_some_and(|login| !head.to_lowercase().lines().any(|line| line == login)) {
            (401, json!({"error_code": 40101, "message": "who is this"}))
        } else {
            registry.answer(line, &body)
        }
    };
    let text = answer.to_string();
    let head = format!("HTTP/1.1 {status} Told\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
    // The bridge may have given up.
    let _ = stream.write_all((head + &text).as_bytes()).await;
}

async fn start(settings: &str) -> (Bridge, Arc<Mutex<Registry>>) {
    let (url, registry) = registry().await;
    (Bridge::with(&format!("[schema_registry]\nurl = \"{url}\"\n{settings}")).await, registry)
}

fn asked(registry: &Mutex<Registry>) -> Vec<String> {
    std::mem::take(&mut registry.lock().expect("alive").asked)
}

async fn produce(bridge: &Bridge, format: &str, document: &Value) -> Answer {
    let media = format!("application/vnd.kafka.{format}.v2+json");
    let body = document.to_string();
    bridge.client().await.request("POST", "/topics/events", &[("Content-Type", &media)], body.as_bytes()).await
}

/// The lines of an answer of version 3.
async fn stream(bridge: &Bridge, records: &[Value]) -> Vec<Value> {
    let body: String = records.iter().map(Value::to_string).collect();
    let path = "/v3/clusters/any/topics/events/records";
    let headers = [("Content-Type", "application/json")];
    let answer = bridge.client().await.request("POST", path, &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect()
}

fn values(bridge: &Bridge) -> Vec<Option<Vec<u8>>> {
    bridge.log(TOPIC, 0).into_iter().map(|record| record.value.map(|value| value.to_vec())).collect()
}

const ORDER: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"id","type":"long"},{"name":"note","type":["null","string"]}]}"#;
const PROTO_ORDER: &str = "syntax = \"proto3\"; message Order { int64 id = 1; message Line { int32 sum = 1; } }";

#[test]
fn values_are_written_by_their_schema_behind_its_number() {
    run(async {
        let (bridge, registry) = start("").await;
        let order = json!({"id": 3, "note": {"string": "a"}});
        let document = json!({"value_schema": ORDER, "records": [{"value": order}, {"value": null}]});
        let answer = produce(&bridge, "avro", &document).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!((&answer.json()["value_schema_id"], &answer.json()["offsets"][1]["offset"]), (&json!(1), &json!(1)));
        assert_eq!(produce(&bridge, "avro", &document).await.status, 200);
        // Known by now: by text, and a first time by number.
        let document =
            json!({"value_schema_id": 1, "key_schema": "\"string\"", "records": [{"key": "k", "value": order}]});
        let answer = produce(&bridge, "avro", &document).await;
        assert_eq!(answer.json()["key_schema_id"], 2, "{}", answer.text());

        let document = json!({"value_schema": PROTO_ORDER, "records": [{"value": {"id": 3}}]});
        assert_eq!(produce(&bridge, "protobuf", &document).await.status, 200);
        let money = json!({"schema": r#"{"type":"integer"}"#, "schemaType": "JSON"});
        let id = {
            let mut registry = registry.lock().expect("alive");
            registry.register("money", money);
            let text = r#"{"type":"object","properties":{"sum":{"$ref":"money.json"}}}"#;
            let reference = json!([{"name": "money.json", "subject": "money", "version": 1}]);
            registry.register("bills", json!({"schema": text, "schemaType": "JSON", "references": reference}))
        };
        let document = json!({"value_schema_id": id, "records": [{"value": {"sum": 1}}]});
        let answer = produce(&bridge, "jsonschema", &document).await;
        assert_eq!(answer.status, 200, "{}", answer.text());

        let written = values(&bridge);
        let avro = Some(vec![0, 0, 0, 0, 1, 6, 2, 2, b'a']);
        assert_eq!(written[..5], [avro.clone(), None, avro.clone(), None, avro]);
        assert_eq!(bridge.log(TOPIC, 0)[4].key.as_deref(), Some(&[0, 0, 0, 0, 2, 2, b'k'][..]));
        assert_eq!(written[5], Some(vec![0, 0, 0, 0, 3, 0, 8, 3]), "the first message's index is one zero byte");
        assert_eq!(written[6], Some([&[0, 0, 0, 0, 5][..], b"{\"sum\":1}"].concat()));
        let expected = [
            "POST /subjects/events-value/versions",
            "POST /subjects/events-key/versions",
            "GET /schemas/ids/1",
            "POST /subjects/events-value/versions",
            "GET /schemas/ids/5",
            "GET /subjects/money/versions/1",
        ];
        assert_eq!(asked(&registry), expected, "and nothing twice");
    });
}

#[test]
fn a_registry_that_tells_no_types_is_understood() {
    run(async {
        let (bridge, registry) = start("").await;
        let json_schema = r#"{"$schema":"http://json-schema.org/draft-07/schema#","type":"integer"}"#;
        for (format, schema, value) in [
            ("protobuf", PROTO_ORDER, json!({"id": 3})),
            ("jsonschema", json_schema, json!(3)),
            ("avro", "\"int\"", json!(3)),
        ] {
            let id = registry.lock().expect("alive").register(format, json!({"schema": schema}));
            let document = json!({"value_schema_id": id, "records": [{"value": value}]});
            let answer = produce(&bridge, format, &document).await;
            assert_eq!(answer.status, 200, "{format}: {}", answer.text());
        }
    });
}

#[test]
fn what_stands_between_a_value_and_its_schema_is_told_and_nothing_is_written() {
    run(async {
        let (bridge, registry) = start("[limits]\nrecord_bytes = 1024\n").await;
        registry.lock().expect("alive").register("x", json!({"schema": "{}", "schemaType": "JSON"}));
        registry.lock().expect("alive").register("y", json!({"schema": "?", "schemaType": "XML"}));
        let records = json!([{"value": {"id": 1, "note": null}}]);
        let with = |value: Value| json!({"value_schema": ORDER, "records": [{"value": value}]});
        let long = json!({"id": 1, "note": {"string": "x".repeat(3000)}});
        for (document, code, told) in [
            (json!({"records": records}), 42202, "no value_schema"),
            (json!({"value_schema": ORDER, "records": [{"key": 1, "value": null}]}), 42201, "no key_schema"),
            (json!({"value_schema_id": 77, "records": records}), 42205, "Schema not found"),
            (json!({"value_schema_id": 1, "records": records}), 42205, "is JSON, not AVRO"),
            (json!({"value_schema_id": 2, "records": records}), 42205, "XML"),
            (json!({"value_schema": "{\"type\":\"nonsense\"}", "records": records}), 42205, "cannot be used"),
            (with(json!({"id": "x", "note": null})), 42203, "records[0].value.id must be a long"),
            (with(json!({"id": 1, "note": "bare"})), 42203, "one of null, string"),
            (with(json!({"id": 1})), 42203, "lacks the member \"note\""),
            (with(long), 413, "longer"),
        ] {
            let answer = produce(&bridge, "avro", &document).await;
            assert_eq!(answer.error_code(), code, "{document}: {}", answer.text());
            assert!(answer.text().contains(&told.replace('"', "\\\"")), "{told}: {}", answer.text());
        }
        let document = json!({"value_schema": r#"{"type":"string"}"#, "records": [{"value": 7}]});
        assert_eq!(produce(&bridge, "jsonschema", &document).await.error_code(), 42203);
        let document = json!({"value_schema": PROTO_ORDER, "records": [{"value": {"di": 7}}]});
        assert_eq!(produce(&bridge, "protobuf", &document).await.error_code(), 42203);
        assert!(values(&bridge).is_empty());
        let asked = asked(&registry);
        assert!(
            !asked.iter().any(|line| line.contains("nonsense")),
            "what cannot be used is not registered: {asked:?}"
        );
    });
}

#[test]
fn a_registry_that_is_away_is_no_concern_of_other_formats() {
    run(async {
        // Nobody listens there.
        let bridge = Bridge::with("[schema_registry]\nurl = \"http://127.0.0.1:1\"\n").await;
        let document = json!({"value_schema": ORDER, "records": [{"value": {"id": 1, "note": null}}]});
        let answer = produce(&bridge, "avro", &document).await;
        assert_eq!((answer.error_code(), answer.header("retry-after")), (40801, Some("1")));
        assert!(answer.text().contains("127.0.0.1:1"), "{}", answer.text());
        assert_eq!(produce(&bridge, "json", &json!({"records": [{"value": 1}]})).await.status, 200);
        let plain = json!({"value": {"type": "JSON", "data": 2}});
        let schema = json!({"value": {"type": "AVRO", "schema": "\"int\"", "data": 3}});
        let told = stream(&bridge, &[schema, plain]).await;
        assert_eq!((&told[0]["error_code"], &told[1]["error_code"]), (&json!(40801), &json!(200)), "{told:?}");
        assert_eq!(bridge.values(), ["1", "2"]);
    });
}

#[test]
fn what_the_registry_is_asked_is_counted_by_what_came_of_it() {
    run(async {
        let (bridge, registry) = start("").await;
        let counted = async || {
            let text = bridge.manage("/metrics").await.text();
            [
                "requests_total{outcome=\"answered\"}",
                "requests_total{outcome=\"refused\"}",
                "requests_total{outcome=\"failed\"}",
                "request_duration_seconds_count",
            ]
            .map(|series| {
                let series = format!("penstock_schema_registry_{series} ");
                let value = text.lines().find_map(|line| line.strip_prefix(&*series));
                value.and_then(|value| value.parse::<u64>().ok()).expect("a count")
            })
        };
        let by_text = json!({"value_schema": ORDER, "records": [{"value": {"id": 1, "note": null}}]});
        assert_eq!(produce(&bridge, "avro", &by_text).await.status, 200);
        // It is known by now.
        assert_eq!(produce(&bridge, "avro", &by_text).await.status, 200);
        assert_eq!(counted().await, [1, 0, 0, 1]);
        let by_id = |id: i32| json!({"value_schema_id": id, "records": [{"value": 1}]});
        assert_eq!(produce(&bridge, "avro", &by_id(98)).await.error_code(), 42205);
        assert_eq!(counted().await, [1, 1, 0, 2]);
        registry.lock().expect("alive").login = Some("Basic eDp5".to_owned());
        assert_eq!(produce(&bridge, "avro", &by_id(99)).await.error_code(), 40801);
        assert_eq!(counted().await, [1, 1, 1, 3]);
    });
}

#[test]
fn a_schema_is_registered_only_where_the_settings_say_so_and_with_a_login() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("password");
        std::fs::write(&file, "wrong\n").expect("written");
        let login = format!("username = \"bridge\"\npassword_file = \"{}\"\n", file.display());
        let (bridge, registry) = start(&format!("register = false\nsubject_names = \"topic_record\"\n{login}")).await;
        // bridge:secret
        registry.lock().expect("alive").login = Some("Basic YnJpZGdlOnNlY3JldA==".to_owned());
        let document = json!({"value_schema": ORDER, "records": [{"value": {"id": 1, "note": null}}]});
        let answer = produce(&bridge, "avro", &document).await;
        assert_eq!(answer.error_code(), 40801, "a login that fails is the operator's: {}", answer.text());
        assert!(answer.text().contains("401") && !answer.text().contains("YnJp"), "{}", answer.text());

        std::fs::write(&file, "secret\n").expect("written");
        // A registry that could not be asked has a pause before it is asked again.
        let answer = loop {
            let answer = produce(&bridge, "avro", &document).await;
            if answer.error_code() != 40801 {
                break answer;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(answer.error_code(), 42205, "it is not registered");
        assert_eq!(asked(&registry), ["POST /subjects/events-shop.Order"]);
    });
}

#[test]
fn records_of_version_three_name_their_schemas_in_every_way() {
    run(async {
        let (bridge, registry) = start("").await;
        {
            let mut registry = registry.lock().expect("alive");
            registry.register("events-value", json!({"schema": "\"string\""}));
            registry.register("events-value", json!({"schema": "\"long\""}));
            registry.register("a/b", json!({"schema": r#"{"type":"integer"}"#, "schemaType": "JSON"}));
        }
        let records = [
            json!({"value": {"type": "STRING", "data": "before"}}),
            json!({"value": {"data": 3}}),
            json!({"value": {"schema_version": 1, "data": "v"}}),
            json!({"value": {"type": "AVRO", "schema_id": 2, "data": 4}}),
            json!({"value": {"type": "JSONSCHEMA", "subject": "a/b", "data": 5}}),
            json!({"value": {"type": "PROTOBUF", "schema": PROTO_ORDER, "data": {"id": 3}}}),
            json!({"value": {"type": "AVRO", "subject_name_strategy": "RECORD_NAME", "schema": ORDER,
                             "data": {"id": 1, "note": null}}}),
            json!({"key": {"type": "AVRO", "schema": "\"int\"", "data": 6}, "value": {"type": "AVRO", "data": null}}),
            json!({"value": {"type": "STRING", "data": "after"}}),
        ];
        let told = stream(&bridge, &records).await;
        let codes: Vec<_> = told.iter().map(|line| line["error_code"].as_u64()).collect();
        assert_eq!(codes, [Some(200); 9], "{told:?}");
        let offsets: Vec<_> = told.iter().map(|line| line["offset"].as_u64().expect("written")).collect();
        assert_eq!(offsets, (0..9).collect::<Vec<_>>(), "in their order");
        let of = |kind: &str, id: i32| json!({"type": kind, "schema_id": id});
        for (at, mut expected, place) in [
            (1, of("AVRO", 2), json!({"subject": "events-value", "schema_version": 2, "size": 6})),
            (2, of("AVRO", 1), json!({"subject": "events-value", "schema_version": 1, "size": 7})),
            (3, of("AVRO", 2), json!({"size": 6})),
            (4, of("JSONSCHEMA", 3), json!({"subject": "a/b", "schema_version": 1, "size": 6})),
            (5, of("PROTOBUF", 4), json!({"subject": "events-value", "size": 8})),
            (6, of("AVRO", 5), json!({"subject": "shop.Order", "size": 7})),
        ] {
            expected.as_object_mut().expect("an object").extend(place.as_object().expect("an object").clone());
            assert_eq!(told[at]["value"], expected, "{at}");
        }
        assert_eq!(told[7]["key"], json!({"type": "AVRO", "subject": "events-key", "schema_id": 6, "size": 6}));
        let written = values(&bridge);
        assert_eq!(written[0].as_deref(), Some(&b"before"[..]));
        assert_eq!(written[1].as_deref(), Some(&[0, 0, 0, 0, 2, 6][..]));
        assert_eq!(written[4].as_deref(), Some(&b"\0\0\0\0\x035"[..]));
        assert_eq!((written[7].as_deref(), written[8].as_deref()), (None, Some(&b"after"[..])));
        assert!(asked(&registry).contains(&"GET /subjects/a%2Fb/versions/latest".to_owned()));

        // The same again asks for nothing but what may have changed, and that not so soon.
        assert_eq!(stream(&bridge, &records).await.len(), 9);
        assert_eq!(asked(&registry), Vec::<String>::new());

        let entries = json!({"entries": [
            {"id": "a", "value": {"schema_id": 2, "data": 7}},
            {"id": "b", "value": {"schema_id": 99, "data": 7}},
        ]});
        let path = "/v3/clusters/any/topics/events/records:batch";
        let headers = [("Content-Type", "application/json")];
        let answer = bridge.client().await.request("POST", path, &headers, entries.to_string().as_bytes()).await;
        assert_eq!(answer.status, 207, "{}", answer.text());
        assert_eq!(answer.json()["successes"][0]["value"], json!({"type": "AVRO", "schema_id": 2, "size": 6}));
        assert_eq!(answer.json()["failures"][0]["error_code"], 42205);
    });
}

#[test]
fn a_record_of_version_three_that_has_no_schema_is_told_why() {
    run(async {
        let (bridge, registry) = start("").await;
        registry.lock().expect("alive").register("s", json!({"schema": "\"long\""}));
        for (value, code, told) in [
            (json!({"type": "JSON", "schema_id": 1, "data": 1}), 400, "type=JSON has no schema"),
            (json!({"schema_id": 1, "schema_version": 1, "data": 1}), 400, "exclude one another"),
            (json!({"subject": "s", "subject_name_strategy": "TOPIC_NAME", "data": 1}), 400, "exclude each other"),
            (json!({"subject_name_strategy": "BY_MOOD", "data": 1}), 400, "subject_name_strategy is"),
            (json!({"subject_name_strategy": "RECORD_NAME", "data": 1}), 400, "name the subject"),
            (json!({"schema": "\"long\"", "data": 1}), 400, "needs a type"),
            (json!({"data": 1}), 42205, "Subject not found"),
            (json!({"subject": "s", "schema_version": 2, "data": 1}), 42205, "404"),
            (json!({"type": "PROTOBUF", "schema_id": 1, "data": 1}), 42205, "is AVRO, not PROTOBUF"),
            (json!({"schema_id": 1, "data": "x"}), 42203, "value.data must be a long"),
        ] {
            let told_so = stream(&bridge, &[json!({"value": value})]).await;
            assert_eq!(told_so[0]["error_code"], code, "{value}: {told_so:?}");
            assert!(told_so[0]["message"].as_str().is_some_and(|text| text.contains(told)), "{told}: {told_so:?}");
        }
        assert!(values(&bridge).is_empty());
    });
}

/// An instance that reads the topic from its beginning.
async fn reader(bridge: &Bridge, format: &str) -> (Client, String) {
    let mut client = bridge.client().await;
    let v2 = [("Content-Type", "application/vnd.kafka.v2+json")];
    let body = json!({"format": format, "auto.offset.reset": "earliest"}).to_string();
    let created = client.request("POST", "/consumers/g", &v2, body.as_bytes()).await;
    assert_eq!(created.status, 200, "{}", created.text());
    let base = created.json()["base_uri"].as_str().expect("a URI").replace("http://bridge", "");
    let partitions = json!({"partitions": [{"topic": TOPIC, "partition": 0}]}).to_string();
    let assigned = client.request("POST", &format!("{base}/assignments"), &v2, partitions.as_bytes()).await;
    assert_eq!(assigned.status, 204, "{}", assigned.text());
    (client, base)
}

async fn read(client: &mut Client, base: &str, format: &str) -> Answer {
    let accept = format!("application/vnd.kafka.{format}.v2+json");
    client.request("GET", &format!("{base}/records?timeout=30000"), &[("Accept", &accept)], b"").await
}

#[test]
fn what_was_written_by_a_schema_is_read_by_its_number() {
    run(async {
        let value = json!({"id": 3, "note": {"string": "a€"}});
        for (format, schema, written, told) in [
            ("avro", ORDER, value.clone(), value),
            ("protobuf", PROTO_ORDER, json!({"id": 3}), json!({"id": "3"})),
            ("jsonschema", r#"{"type":"object"}"#, json!({"a": 1.5}), json!({"a": 1.5})),
        ] {
            let (bridge, registry) = start("").await;
            let document = json!({"value_schema": schema, "records": [{"value": written}, {"value": null}]});
            assert_eq!(produce(&bridge, format, &document).await.status, 200);
            let (mut client, base) = reader(&bridge, format).await;
            asked(&registry);
            let answer = read(&mut client, &base, format).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.header("content-type"), Some(&*format!("application/vnd.kafka.{format}.v2+json")));
            let records = answer.json();
            assert_eq!((&records[0]["value"], &records[1]["value"]), (&told, &Value::Null), "{records}");
            let expected: &[&str] = if format == "jsonschema" { &[] } else { &["GET /schemas/ids/1"] };
            assert_eq!(asked(&registry), expected, "a JSON value needs no schema to be read");
        }
    });
}

#[test]
fn a_record_that_no_schema_tells_is_met_again_until_it_is_sought_past() {
    run(async {
        let (bridge, _registry) = start("").await;
        let document = json!({"value_schema": "\"long\"", "records": [{"value": 1}]});
        assert_eq!(produce(&bridge, "avro", &document).await.status, 200);
        let plain = json!({"records": [{"value": 1}]});
        assert_eq!(produce(&bridge, "json", &plain).await.status, 200);
        // Schema 77.
        let unknown = json!({"records": [{"value": "AAAAAE0C"}]});
        assert_eq!(produce(&bridge, "binary", &unknown).await.status, 200);
        let (mut client, base) = reader(&bridge, "avro").await;
        let answer = read(&mut client, &base, "avro").await;
        assert_eq!(answer.json().as_array().map(Vec::len), Some(1), "what comes before it: {}", answer.text());
        for _ in 0..2 {
            let answer = read(&mut client, &base, "avro").await;
            assert_eq!(answer.error_code(), 42203, "{}", answer.text());
            assert!(
                answer.text().contains("offset 1") && answer.text().contains("schema's number"),
                "{}",
                answer.text()
            );
        }
        let seek = json!({"offsets": [{"topic": TOPIC, "partition": 0, "offset": 2}]}).to_string();
        let v2 = [("Content-Type", "application/vnd.kafka.v2+json")];
        assert_eq!(client.request("POST", &format!("{base}/positions"), &v2, seek.as_bytes()).await.status, 204);
        let answer = read(&mut client, &base, "avro").await;
        assert_eq!(answer.error_code(), 42203, "{}", answer.text());
        assert!(answer.text().contains("schema 77"), "{}", answer.text());
    });
}

#[test]
fn a_reader_waits_for_a_registry_that_is_away() {
    run(async {
        let (bridge, registry) = start("").await;
        let document = json!({"value_schema": "\"long\"", "records": [{"value": 1}]});
        assert_eq!(produce(&bridge, "avro", &document).await.status, 200);
        let (mut client, base) = reader(&bridge, "avro").await;
        registry.lock().expect("alive").login = Some("Basic nobody".to_owned());
        let answer = read(&mut client, &base, "avro").await;
        assert_eq!(answer.error_code(), 40801, "{}", answer.text());
        registry.lock().expect("alive").login = None;
        let records = loop {
            let answer = read(&mut client, &base, "avro").await;
            if answer.status == 200 {
                break answer.json();
            }
            assert_eq!(answer.error_code(), 40801, "{}", answer.text());
            tokio::task::yield_now().await;
        };
        assert_eq!(records[0]["value"], 1, "nothing is lost: {records}");
    });
}

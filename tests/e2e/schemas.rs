//! Records with schemas, on a real Kafka and a Schema Registry that others wrote.

use penstock_tests::{
    bridge::{Bridge, Settings},
    registry::Registry,
    shared::three_brokers,
    tools::{Answer, curl, curl_with_input, kcat_read},
    unique,
};
use serde_json::{Value, json};

use crate::confluent_v3::{ask, base};

fn media_type(format: &str) -> String {
    format!("application/vnd.kafka.{format}.v2+json")
}

fn produce(bridge: &Bridge, topic: &str, format: &str, document: &Value) -> Answer {
    let media_type = format!("Content-Type: {}", media_type(format));
    let arguments = ["-H", &media_type, "--data-binary", "@-"];
    curl_with_input(bridge, &format!("/topics/{topic}"), &arguments, document.to_string().as_bytes())
}

/// The path of an instance that reads a topic of one partition from its beginning.
fn reader(bridge: &Bridge, topic: &str, format: &str) -> String {
    let post = |path: &str, body: Value| {
        let arguments = ["-H", "Content-Type: application/vnd.kafka.v2+json", "--data-binary", "@-"];
        curl_with_input(bridge, path, &arguments, body.to_string().as_bytes())
    };
    let group = unique("schemas");
    let settings = json!({"name": "i", "format": format, "auto.offset.reset": "earliest"});
    post(&format!("/consumers/{group}"), settings).expect(200);
    let instance = format!("/consumers/{group}/instances/i");
    let partitions = json!({"partitions": [{"topic": topic, "partition": 0}]});
    post(&format!("{instance}/assignments"), partitions).expect(204);
    instance
}

fn read(bridge: &Bridge, instance: &str, format: &str) -> Answer {
    let accept = format!("Accept: {}", media_type(format));
    curl(bridge, &format!("{instance}/records?timeout=30000"), &["-H", &accept])
}

/// What goes before a value.
fn frame(id: &Value) -> Vec<u8> {
    let id = u32::try_from(id.as_u64().expect("a number")).expect("four bytes");
    [&[0][..], &id.to_be_bytes()].concat()
}

const AVRO: &str = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"long"},{"name":"note","type":["null","string"]}]}"#;
const JSON_SCHEMA: &str = r#"{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","properties":{"id":{"type":"integer"}},"required":["id"]}"#;
const PROTOBUF: &str = "syntax = \"proto3\"; message Order { int64 id = 1; }";

/// A format, and what is written and read in it.
struct Case {
    format: &'static str,
    schema: &'static str,
    value: Value,
    /// The value behind its schema's number.
    bytes: &'static [u8],
    told: Value,
    unfit: Value,
}

fn cases() -> [Case; 3] {
    let order = json!({"id": 3, "note": {"string": "a"}});
    [
        Case {
            format: "avro",
            schema: AVRO,
            value: order.clone(),
            bytes: b"\x06\x02\x02a",
            told: order,
            unfit: json!({"id": "x", "note": null}),
        },
        Case {
            format: "jsonschema",
            schema: JSON_SCHEMA,
            value: json!({"id": 3}),
            bytes: b"{\"id\":3}",
            told: json!({"id": 3}),
            unfit: json!({}),
        },
        Case {
            format: "protobuf",
            schema: PROTOBUF,
            value: json!({"id": 3}),
            // The first message, then field 1.
            bytes: b"\0\x08\x03",
            told: json!({"id": "3"}),
            unfit: json!({"id": "x"}),
        },
    ]
}

#[test]
fn records_are_written_and_read_by_schemas_of_a_registry_that_others_wrote() {
    let kafka = three_brokers().bootstrap();
    let mut registry = Registry::start();
    let settings = Settings::new(&kafka).set("schema_registry.url", &format!("{:?}", registry.url()));
    let bridge = Bridge::start_with(&settings);
    let base = base(&bridge);
    let v3 = |topic: &str, value: Value| {
        let body = Some(json!({ "value": value }));
        ask(&bridge, "POST", &format!("{base}/topics/{topic}/records"), body).expect(200).json()
    };

    let mut topics = Vec::new();
    for Case { format, schema, value, bytes, told, unfit } in &cases() {
        let topic = three_brokers().create_topic(format, 1);
        let by_text = json!({"value_schema": schema, "records": [{"value": value}]});
        let id = produce(&bridge, &topic, format, &by_text).expect(200).json()["value_schema_id"].clone();
        let by_id = json!({"value_schema_id": id, "records": [{"value": value}, {"value": null}]});
        assert_eq!(produce(&bridge, &topic, format, &by_id).expect(200).json()["value_schema_id"], id, "{format}");
        let refused = json!({"value_schema_id": id, "records": [{"value": unfit}]});
        let refused = produce(&bridge, &topic, format, &refused);
        assert_eq!(refused.json()["error_code"], 42203, "{format}: {}", refused.text());

        // By a version of a subject, by the subject's latest, by number.
        let subject = format!("{topic}-value");
        for named in [
            json!({"subject": subject, "schema_version": 1, "data": value}),
            json!({"subject": subject, "data": value}),
            json!({"schema_id": id, "data": value}),
        ] {
            let answer = v3(&topic, named.clone());
            assert_eq!((&answer["error_code"], &answer["value"]["schema_id"]), (&json!(200), &id), "{named}: {answer}");
            assert_eq!(answer["value"]["type"], format.to_uppercase(), "{named}: {answer}");
        }

        let written: Vec<_> = kcat_read(&kafka, &topic).into_iter().map(|record| record.value).collect();
        let value = || Some([&frame(&id)[..], bytes].concat());
        assert_eq!(written, [value(), value(), None, value(), value(), value()], "{format}");

        let answer = read(&bridge, &reader(&bridge, &topic, format), format).expect(200);
        assert_eq!(answer.header("content-type"), Some(&*media_type(format)));
        let records = answer.json();
        let values: Vec<_> = records.as_array().expect("a list").iter().map(|record| &record["value"]).collect();
        assert_eq!(values, [told, told, &Value::Null, told, told, told], "{format}: {records}");
        topics.push((*format, topic));
    }

    registry.kill();
    for (format, topic) in &topics {
        let unknown = json!({"value_schema_id": 4711, "records": [{"value": {"id": 3}}]});
        let answer = produce(&bridge, topic, format, &unknown).expect(408);
        assert_eq!(answer.json()["error_code"], 40801, "{format}: {}", answer.text());
        let answer = v3(topic, json!({"schema_id": 4711, "data": 1}));
        assert_eq!(answer["error_code"], 40801, "{format}: {answer}");
    }
    // A reader meets the record of a schema that nobody asked for yet: 4711 again.
    let topic = three_brokers().create_topic("unknown", 1);
    produce(&bridge, &topic, "binary", &json!({"records": [{"value": "AAAAEmcC"}]})).expect(200);
    let answer = read(&bridge, &reader(&bridge, &topic, "avro"), "avro").expect(408);
    assert_eq!(answer.json()["error_code"], 40801, "{}", answer.text());
    // What needs no registry goes on, and so does what was asked of it before.
    produce(&bridge, &topic, "json", &json!({"records": [{"value": {"n": 1}}]})).expect(200);
    let (_, topic) = &topics[0];
    let known = json!({"value_schema": AVRO, "records": [{"value": {"id": 4, "note": null}}]});
    produce(&bridge, topic, "avro", &known).expect(200);
    for format in ["avro", "binary"] {
        let records = read(&bridge, &reader(&bridge, topic, format), format).expect(200).json();
        assert_eq!(records.as_array().map(Vec::len), Some(7), "{format}: {records}");
    }
}

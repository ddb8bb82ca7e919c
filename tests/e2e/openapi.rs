//! The description of the interface, held against the bridge that serves it: every operation in it is asked for, and every
//! answer is what it says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use penstock_tests::{
    bridge::Bridge,
    distribution::Version,
    eventually,
    kafka::Cluster,
    process::Process,
    tools::{Answer, curl, curl_with_input, kcat_write},
};
use serde_json::{Value, json};

use crate::confluent_v3::base;

/// What is asked: an operation, how its path goes on behind the parameters, media type and body.
struct Case {
    operation: &'static str,
    query: &'static str,
    media_type: &'static str,
    body: String,
}

const fn ask(operation: &'static str) -> Case {
    Case { operation, query: "", media_type: "", body: String::new() }
}

fn with(operation: &'static str, query: &'static str) -> Case {
    Case { query, ..ask(operation) }
}

fn send(operation: &'static str, body: Value) -> Case {
    Case { media_type: "application/json", body: body.to_string(), ..ask(operation) }
}

const FILTER: &str = "?resource_type=TOPIC&pattern_type=ANY&operation=ANY&permission=ANY";

/// Every operation at least once, what is read before what is deleted.
fn cases() -> Vec<Case> {
    let setting = || json!({"value": "12000"});
    let changes = |name: &str| json!({"data": [{"name": name, "value": "12000"}]});
    let acl = json!({
        "resource_type": "TOPIC", "resource_name": "t", "pattern_type": "LITERAL", "principal": "User:a", "host": "*",
        "operation": "READ", "permission": "ALLOW",
    });
    let record = json!({"key": {"type": "STRING", "data": "k"}, "value": {"type": "JSON", "data": 1}});
    let mut entry = record.clone();
    entry["id"] = json!("a");
    let records = json!({"records": [{"value": 1}]});
    let partitions = || json!({"partitions": [{"topic": "{topic}", "partition": 0}]});
    vec![
        ask("health"),
        ask("openapi"),
        ask("docs"),
        Case { media_type: "application/x-ndjson", body: "1\n2\n".to_owned(), ..ask("produce") },
        // JSON too, for whoever reads the topic as JSON.
        Case { media_type: "text/plain", body: "3".to_owned(), ..ask("produce") },
        ask("tombstone"),
        with("readPartition", "?max_records=3"),
        // Without a group there is nothing to read: with one, the answer would never end.
        ask("readGroup"),
        send("commitOffsets", json!({"offsets": [{"topic": "{topic}", "partition": 0, "offset": 1}]})),
        ask("groupOffsets"),
        ask("groupLag"),
        ask("listTopics"),
        ask("describeTopic"),
        send("createTopic", json!({})),
        ask("v2Root"),
        ask("v2ListBrokers"),
        ask("v2ListTopics"),
        ask("v2DescribeTopic"),
        send("v2Produce", records.clone()),
        ask("v2ListPartitions"),
        ask("v2DescribePartition"),
        send("v2ProduceToPartition", records),
        ask("v2PartitionOffsets"),
        send("v2CreateConsumer", json!({"name": "i", "format": "json"})),
        send("v2Assign", partitions()),
        ask("v2Assignments"),
        send("v2SeekToEnd", partitions()),
        send("v2SeekToBeginning", partitions()),
        send("v2Seek", json!({"offsets": [{"topic": "{topic}", "partition": 0, "offset": 0}]})),
        ask("v2Records"),
        send("v2Commit", json!({})),
        send("v2Committed", partitions()),
        ask("v2Unsubscribe"),
        send("v2Subscribe", json!({"topics": ["{topic}"]})),
        ask("v2Subscription"),
        with("v2TopicRecords", "?timeout=1"),
        ask("v2DeleteConsumer"),
        // Strimzi's alone.
        send("v2CreateTopic", json!({"topic_name": "t"})),
        ask("v2Health"),
        ask("listClustersV3"),
        ask("getClusterV3"),
        send("createAclV3", acl.clone()),
        send("createAclsV3", json!({"data": [acl]})),
        ask("searchAclsV3"),
        with("deleteAclsV3", FILTER),
        ask("listClusterConfigsV3"),
        send("updateClusterConfigV3", setting()),
        send("alterClusterConfigsV3", changes("log.cleaner.backoff.ms")),
        ask("getClusterConfigV3"),
        ask("resetClusterConfigV3"),
        ask("listBrokerConfigsV3"),
        send("updateBrokerConfigV3", setting()),
        send("alterBrokerConfigsV3", changes("log.cleaner.backoff.ms")),
        ask("getBrokerConfigV3"),
        ask("resetBrokerConfigV3"),
        ask("listTopicConfigsV3"),
        send("updateTopicConfigV3", setting()),
        send("alterTopicConfigsV3", changes("retention.ms")),
        ask("getTopicConfigV3"),
        ask("resetTopicConfigV3"),
        ask("listBrokersV3"),
        ask("getBrokerV3"),
        ask("listAllBrokerConfigsV3"),
        ask("searchReplicasV3"),
        ask("listGroupsV3"),
        ask("getGroupV3"),
        ask("listConsumersV3"),
        ask("getConsumerV3"),
        ask("listAssignmentsV3"),
        ask("getAssignmentV3"),
        ask("getLagSummaryV3"),
        ask("listLagsV3"),
        ask("getLagV3"),
        ask("listTopicsV3"),
        send("createTopicV3", json!({"topic_name": "created", "partitions_count": 1})),
        ask("listAllTopicConfigsV3"),
        ask("listAllReassignmentsV3"),
        ask("getTopicV3"),
        ask("listDefaultTopicConfigsV3"),
        ask("listPartitionsV3"),
        ask("listReassignmentsV3"),
        ask("getPartitionV3"),
        ask("listReplicasV3"),
        ask("getReplicaV3"),
        // Nothing is being moved: the one answer here that is an error.
        ask("getReassignmentV3"),
        Case {
            media_type: "application/json",
            // The second is none.
            body: format!("{record}{{\"value\":{{}}}}{{\"value\":1}}"),
            ..ask("produceV3")
        },
        send("produceBatchV3", json!({"entries": [entry, {"id": "b", "partition_id": 77}]})),
        send("growTopicV3", json!({"partitions_count": 3})),
        ask("deleteTopicV3"),
        ask("deleteTopic"),
    ]
}

#[test]
fn every_operation_answers_as_it_is_described() {
    let settings = [
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("super.users", "User:ANONYMOUS"),
    ];
    let cluster = Cluster::start(Version::V4_1_1, 1, &settings);
    let bridge = Bridge::start(&cluster.bootstrap());
    let topic = cluster.create_topic("described", 2);
    let doomed = cluster.create_topic("doomed", 1);
    kcat_write(&cluster.bootstrap(), &topic, &["-p", "0"], "1\n");
    let bootstrap = cluster.bootstrap();
    let arguments =
        ["-b", &bootstrap, "-X", "auto.offset.reset=earliest", "-X", "auto.commit.interval.ms=100", "-G", "g", &topic];
    let _member = Process::spawn("kcat", "kcat", arguments, &[]);
    let base = base(&bridge);
    eventually("the group has read all", Duration::from_secs(60), || {
        let lag = curl(&bridge, &format!("{base}/consumer-groups/g/lags/{topic}/partitions/0"), &[]);
        (lag.status == 200 && lag.json()["current_offset"] == 1).then_some(())
    });
    let consumers = curl(&bridge, &format!("{base}/consumer-groups/g/consumers"), &[]).expect(200).json();
    let consumer = consumers["data"][0]["consumer_id"].as_str().expect("one member");

    let description = Description(curl(&bridge, "/openapi.json", &[]).expect(200).json());
    let described = description.operations();
    let mut asked = BTreeSet::new();
    for case in cases() {
        let (method, path) = described.get(case.operation).unwrap_or_else(|| panic!("no {}", case.operation)).clone();
        asked.insert(case.operation);
        let topic = if case.operation.starts_with("deleteTopic") { &doomed } else { &topic };
        let config = if path.contains("topics/") { "retention.ms" } else { "log.cleaner.backoff.ms" };
        let path = [
            ("{topic}", &**topic),
            ("{topic_name}", topic),
            ("{partition}", "0"),
            ("{partition_id}", "0"),
            ("{broker_id}", "1"),
            ("{name}", config),
            ("{consumer_group_id}", "g"),
            // Only a group without members takes offsets from somebody else.
            ("{group}", "empty"),
            ("{instance}", "i"),
            ("{consumer_id}", consumer),
            ("/v3/clusters/{cluster_id}", &base),
        ]
        .iter()
        .fold(path, |path, (name, value)| path.replace(name, value));
        let media_type = format!("Content-Type: {}", case.media_type);
        let mut arguments = vec!["-X", &method, "-H", &media_type];
        if case.operation == "tombstone" {
            arguments.extend(["-H", "Kafka-Key: k"]);
        }
        let answer = if case.body.is_empty() {
            curl(&bridge, &format!("{path}{}", case.query), &arguments)
        } else {
            arguments.extend(["--data-binary", "@-"]);
            let body = case.body.replace("{topic}", topic);
            curl_with_input(&bridge, &format!("{path}{}", case.query), &arguments, body.as_bytes())
        };
        let fine = (200..300).contains(&answer.status);
        let gone =
            ["deleteTopic", "getReassignmentV3", "readGroup", "v2CreateTopic", "v2Health"].contains(&case.operation);
        assert!(fine || gone, "{}: {}\n{}", case.operation, answer.head, answer.text());
        description.check(case.operation, &answer);
    }
    let not_asked: Vec<_> = described.keys().filter(|id| !asked.contains(id.as_str())).collect();
    assert!(not_asked.is_empty(), "described, and asked for by no case of this test: {not_asked:?}");
}

/// `openapi.json`.
struct Description(Value);

impl Description {
    /// Method and path by operation.
    fn operations(&self) -> BTreeMap<String, (String, String)> {
        let paths = self.0["paths"].as_object().expect("paths").iter();
        let operations = paths.flat_map(|(path, item)| {
            let methods = item.as_object().expect("methods").iter().filter(|(name, _)| *name != "parameters");
            methods.map(|(method, operation)| {
                let id = operation["operationId"].as_str().expect("a name").to_owned();
                (id, (method.to_uppercase(), path.clone()))
            })
        });
        operations.collect()
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            None => value,
            Some(reference) => {
                let pointer = reference.strip_prefix('#').expect("within the document");
                self.resolve(self.0.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere")))
            }
        }
    }

    /// An answer has a status that is described, and a body of the media type and the schema that are described for it.
    fn check(&self, operation: &str, answer: &Answer) {
        let (method, path) = &self.operations()[operation];
        let responses = &self.0["paths"][path][method.to_lowercase()]["responses"];
        let status = answer.status.to_string();
        let response = [&*status, "default"].iter().find_map(|status| responses.get(status));
        let response = response.unwrap_or_else(|| panic!("{operation}: {status} is not described"));
        let response = self.resolve(response);
        let Some(content) = response.get("content") else {
            assert_eq!(answer.text(), "", "{operation}: a body where none is described");
            return;
        };
        let media_type = answer.header("content-type").expect("a body has a media type");
        let essence = media_type.split(';').next().unwrap_or_default();
        let schema =
            &content.get(essence).unwrap_or_else(|| panic!("{operation}: {essence} is not described"))["schema"];
        if essence.ends_with("json") || essence.ends_with("ndjson") {
            let documents = serde_json::Deserializer::from_slice(&answer.body).into_iter::<Value>();
            let documents: Vec<_> = documents.collect::<Result<_, _>>().expect("JSON, one document or more");
            assert!(!documents.is_empty(), "{operation}: no document");
            for document in &documents {
                if let Err(problem) = self.validate(schema, document) {
                    panic!("{operation}: {problem}\n{document:#}");
                }
            }
        }
    }

    /// As much of JSON Schema as the description uses.
    fn validate(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = self.resolve(schema);
        let list = |name: &str| schema[name].as_array().map_or(&[][..], Vec::as_slice);
        let types = match &schema["type"] {
            Value::String(one) => vec![one.as_str()],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let is = |name: &&str| match *name {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("{other} is no type"),
        };
        if !types.is_empty() && !types.iter().any(is) {
            return Err(format!("{value} is not of type {types:?}"));
        }
        if schema.get("const").is_some_and(|only| only != value) {
            return Err(format!("{value} is not {}", schema["const"]));
        }
        if schema.get("enum").is_some() && !list("enum").contains(value) {
            return Err(format!("{value} is none of {}", schema["enum"]));
        }
        for one in list("allOf") {
            self.validate(one, value)?;
        }
        for several in ["anyOf", "oneOf"] {
            let fits = |one: &Value| self.validate(one, value);
            if !list(several).is_empty() && list(several).iter().all(|one| fits(one).is_err()) {
                let why: Vec<_> = list(several).iter().filter_map(|one| fits(one).err()).collect();
                return Err(format!("it fits none: {why:?}"));
            }
        }
        if let Some(members) = value.as_object() {
            for name in list("required").iter().filter_map(Value::as_str) {
                if !members.contains_key(name) {
                    return Err(format!("{name} is missing"));
                }
            }
            for (name, value) in members {
                match (schema["properties"].get(name), schema.get("additionalProperties")) {
                    (Some(schema), _) => {
                        self.validate(schema, value).map_err(|problem| format!("{name}: {problem}"))?;
                    }
                    (None, Some(Value::Bool(false))) => return Err(format!("{name} is not described")),
                    (None, Some(schema @ Value::Object(_))) => self.validate(schema, value)?,
                    (None, _) => {}
                }
            }
        }
        if let (Some(elements), Some(items)) = (value.as_array(), schema.get("items")) {
            for (at, element) in elements.iter().enumerate() {
                self.validate(items, element).map_err(|problem| format!("[{at}]: {problem}"))?;
            }
        }
        Ok(())
    }
}

#[test]
fn the_page_loads_nothing_from_anywhere_else() {
    let bridge = penstock_tests::shared::bridge();
    for (path, media_type) in [("/docs", "text/html"), ("/docs.js", "text/javascript"), ("/docs.css", "text/css")] {
        let file = curl(bridge, path, &[]).expect(200);
        assert!(file.header("content-type").is_some_and(|found| found.starts_with(media_type)), "{}", file.head);
        let policy = file.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        assert!(!file.text().contains("://"), "{path} names another address");
    }
}

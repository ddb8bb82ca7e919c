use crate::harness::{Answer, Bridge, Client, TOPIC, run};
use krafka::error::ErrorCode as Code;
use krafka::testing::{ApiKey, Control, FakeBroker};
use serde_json::json;
use std::io::Write;

const JSON: &str = "application/vnd.kafka.json.v2+json";
const BINARY: &str = "application/vnd.kafka.binary.v2+json";

async fn post(client: &mut Client, path: &str, media: &str, body: &str) -> Answer {
    client.request("POST", path, &[("Content-Type", media)], body.as_bytes()).await
}

#[test]
fn json_reaches_the_log_byte_for_byte_with_an_offset_each() {
    run(async {
        let bridge = Bridge::start().await;
        let values = ["1.10", "0", "false", "\"\"", "{}", "{\"b\": 1,\"a\":2,\"b\":3}", "\"\\u00e9\\/\"", "1e400"];
        let records: Vec<String> = values.iter().map(|value| format!("{{\"value\":{value}}}")).collect();
        let body = format!("{{\"records\":[{}]}}", records.join(","));
        let answer = post(&mut bridge.client().await, "/topics/events", JSON, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/vnd.kafka.v2+json"));
        let told = |offset| format!("{{\"partition\":0,\"offset\":{offset},\"error_code\":null,\"error\":null}}");
        let offsets: Vec<String> = (0..values.len()).map(told).collect();
        assert_eq!(
            answer.text().trim_end(),
            format!("{{\"offsets\":[{}],\"key_schema_id\":null,\"value_schema_id\":null}}", offsets.join(","))
        );
        assert_eq!(bridge.values(), values);
    });
}

#[test]
fn null_is_a_tombstone_and_keys_keep_their_quotes() {
    run(async {
        let bridge = Bridge::start().await;
        let body = "{\"records\":[{\"key\":\"k\",\"value\":null},{\"key\":{\"id\":1}},{}]}";
        let answer = post(&mut bridge.client().await, "/topics/events/partitions/0", JSON, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let log = bridge.log(TOPIC, 0);
        let keys: Vec<_> = log.iter().map(|record| record.key.as_deref()).collect();
        assert_eq!(keys, [Some(&b"\"k\""[..]), Some(b"{\"id\":1}"), None]);
        assert!(log.iter().all(|record| record.value.is_none()));
    });
}

#[test]
fn binary_is_decoded_and_one_bad_value_refuses_all() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let body = "{\"records\":[{\"key\":\"aw==\",\"value\":\"dsO8\"},{\"value\":\"\\/\\/\\/\\/\"}]}";
        assert_eq!(post(&mut client, "/topics/events", BINARY, body).await.status, 200);
        let log = bridge.log(TOPIC, 0);
        assert_eq!((log[0].key.as_deref(), log[0].value.as_deref()), (Some(&b"k"[..]), Some("vü".as_bytes())));
        assert_eq!(log[1].value.as_deref(), Some(&[0xff; 3][..]));
        for wrong in ["\"?\"", "{\"a\":1}", "7"] {
            let body = format!("{{\"records\":[{{\"value\":\"aw==\"}},{{\"value\":{wrong}}}]}}");
            let answer = post(&mut client, "/topics/events", BINARY, &body).await;
            assert_eq!(answer.error_code(), 400);
            assert!(answer.text().contains("records[1].value"), "{}", answer.text());
        }
        assert_eq!(bridge.log(TOPIC, 0).len(), 2, "nothing of a refused document is written");
    });
}

#[test]
fn a_gzipped_body_and_lenient_media_types_are_understood() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"{\"records\":[{\"value\":1}]}").expect("in memory");
        let headers = [("Content-Type", "application/json; charset=utf-8"), ("Content-Encoding", "gzip")];
        let answer = client.request("POST", "/topics/events", &headers, &gzip.finish().expect("in memory")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = client.request("POST", "/topics/events", &[], b"{\"records\":[{\"value\":2}]}").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(bridge.values(), ["1", "2"]);
        let answer = post(&mut client, "/topics/events", "text/xml", "{\"records\":[{\"value\":1}]}").await;
        assert_eq!(answer.error_code(), 415);
        let avro = "application/vnd.kafka.avro.v2+json";
        let answer =
            post(&mut client, "/topics/events", avro, "{\"records\":[{\"value\":1}],\"value_schema_id\":1}").await;
        assert_eq!(answer.error_code(), 415);
    });
}

#[test]
fn each_record_is_told_its_own_fate_in_the_order_of_the_request() {
    run(async {
        let kafka = FakeBroker::start_cluster(1).await.expect("loopback");
        kafka.create_topic("four", 4);
        let bridge = Bridge::in_front_of(kafka, "[limits]\nrecord_bytes = 1024\n").await;
        let records: Vec<_> = (0..200)
            .map(|n| match n {
                77 => json!({"value": "x".repeat(2000)}),
                n if n % 3 == 0 => json!({"key": n, "value": n}),
                n => json!({"partition": n % 4, "value": n}),
            })
            .collect();
        let body = json!({ "records": records }).to_string();
        let answer = post(&mut bridge.client().await, "/topics/four", JSON, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let document = answer.json();
        let told = document["offsets"].as_array().expect("a list");
        assert_eq!(told.len(), 200);
        for (n, told) in told.iter().enumerate() {
            if n == 77 {
                assert_eq!(
                    (&told["partition"], &told["offset"], &told["error_code"]),
                    (&json!(null), &json!(null), &json!(50002))
                );
                assert!(told["error"].as_str().is_some_and(|error| error.contains("1024 bytes")), "{told}");
                continue;
            }
            let partition = i32::try_from(told["partition"].as_i64().expect("a partition")).expect("small");
            let record = bridge.log("four", partition).into_iter().find(|record| told["offset"] == record.offset);
            assert_eq!(record.expect("where it says").value.as_deref(), Some(n.to_string().as_bytes()));
            assert!(n % 3 == 0 || partition == i32::try_from(n % 4).expect("small"));
        }
    });
}

#[test]
fn what_kafka_refuses_is_told_in_confluents_numbers() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let records = "{\"records\":[{\"value\":1}]}";
        for (kafka, status, number) in [(Code::TopicAuthorizationFailed, 403, 40301), (Code::InvalidRecord, 200, 50002)]
        {
            bridge.kafka.clear_hooks();
            bridge.kafka.on(ApiKey::Produce, move |_| Control::Error(kafka));
            let answer = post(&mut client, "/topics/events", JSON, records).await;
            assert_eq!(answer.status, status, "{}", answer.text());
            assert_eq!(answer.json()["offsets"][0]["error_code"], number);
        }
        bridge.kafka.clear_hooks();
        assert_eq!(post(&mut client, "/topics/events", JSON, records).await.json()["offsets"][0]["offset"], 0);
    });
}

#[test]
fn what_is_no_document_of_records_is_refused() {
    run(async {
        let bridge = Bridge::with("[limits]\ndocument_bytes = 2048\n").await;
        let mut client = bridge.client().await;
        for (body, number) in [
            ("{\"records\":[]}", 422),
            ("{\"records\":[{\"valeu\":1}]}", 400),
            ("{\"records\":[1]}", 400),
            ("[]", 400),
            ("{\"records\":[{\"value\":1}", 400),
            ("{\"records\":[{\"value\":1,\"partition\":1}]}", 40402),
        ] {
            assert_eq!(post(&mut client, "/topics/events", JSON, body).await.error_code(), number, "{body}");
        }
        assert_eq!(post(&mut client, "/topics/events", JSON, "").await.error_code(), 42206);
        let answer = post(
            &mut client,
            "/topics/events",
            JSON,
            &format!("{{\"records\":[{{\"value\":\"{}\"}}]}}", "x".repeat(3000)),
        )
        .await;
        assert_eq!(answer.error_code(), 413);
        let mut client = bridge.client().await;
        assert_eq!(post(&mut client, "/topics/none", JSON, "{\"records\":[{}]}").await.error_code(), 40401);
        assert_eq!(
            post(&mut client, "/topics/events/partitions/9", JSON, "{\"records\":[{}]}").await.error_code(),
            40402
        );
        assert!(bridge.values().is_empty());
    });
}

#[test]
fn topics_partitions_offsets_and_brokers_are_described() {
    run(async {
        let bridge = Bridge::start().await;
        let mut client = bridge.client().await;
        let mut get = async |path: &str| {
            let answer = client.request("GET", path, &[], b"").await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            assert_eq!(answer.header("content-type"), Some("application/vnd.kafka.v2+json"));
            answer.json()
        };
        assert_eq!(get("/").await, json!({}));
        assert_eq!(get("/topics").await, json!(["events"]));
        let brokers = get("/brokers").await;
        let broker = brokers["brokers"][0].clone();
        assert!(broker.is_number(), "{brokers}");
        let partition = json!({"partition": 0, "leader": broker, "replicas": [{"broker": broker, "leader": true, "in_sync": true}]});
        let topic = get("/topics/events").await;
        assert_eq!((&topic["name"], &topic["partitions"]), (&json!("events"), &json!([partition])));
        assert!(topic["configs"].is_object(), "{topic}");
        assert_eq!(get("/topics/events/partitions").await, json!([partition]));
        assert_eq!(get("/topics/events/partitions/0").await, partition);
        assert_eq!(get("/topics/events/partitions/0/offsets").await, json!({"beginning_offset": 0, "end_offset": 0}));
        for (path, number) in
            [("/topics/none", 40401), ("/topics/events/partitions/7", 40402), ("/topics/events/partitions/x", 400)]
        {
            assert_eq!(client.request("GET", path, &[], b"").await.error_code(), number, "{path}");
        }
        assert_eq!(client.request("DELETE", "/topics/events", &[], b"").await.error_code(), 405);
    });
}

#[test]
fn who_may_do_nothing_is_told_nothing() {
    run(async {
        let rule = "[[access]]\nidentity = \"anyone\"\ntopics = [\"other\"]\nallow = [\"consume\"]\n";
        let bridge = Bridge::with(rule).await;
        let mut client = bridge.client().await;
        assert_eq!(client.request("GET", "/topics", &[], b"").await.json(), json!([]));
        for path in ["/brokers", "/topics/events", "/topics/events/partitions", "/topics/events/partitions/0/offsets"] {
            assert_eq!(client.request("GET", path, &[], b"").await.error_code(), 40301, "{path}");
        }
        assert_eq!(post(&mut client, "/topics/events", JSON, "{\"records\":[{}]}").await.error_code(), 40301);
        assert_eq!(post(&mut client, "/consumers/g", JSON, "").await.error_code(), 40301);
        assert!(bridge.values().is_empty());
    });
}

#[test]
fn strimzis_dialect_answers_as_strimzi_does() {
    run(async {
        let bridge = Bridge::with("[listen]\ndialect = \"strimzi\"\n[limits]\nrecord_bytes = 1024\n").await;
        let mut client = bridge.client().await;
        let long = "x".repeat(2000);
        let body = format!(
            "{{\"records\":[{{\"key\":\"k\",\"value\":1,\"headers\":[{{\"key\":\"h\",\"value\":\"eA==\"}}],\"timestamp\":1700000000000}},{{\"value\":\"{long}\"}}]}}"
        );
        let answer = post(&mut client, "/topics/events", JSON, &body).await;
        let document = answer.json();
        assert_eq!((answer.status, &document["offsets"][0]), (200, &json!({"partition": 0, "offset": 0})));
        assert_eq!(document["offsets"][1]["error_code"], 500);
        assert!(document["offsets"][1]["message"].is_string() && document.get("key_schema_id").is_none(), "{document}");
        let answer = post(&mut client, "/topics/events?async=true", JSON, "{\"records\":[{\"value\":2}]}").await;
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        let kafka = bridge.stopped().await;
        let mut log = kafka.all_records(TOPIC).expect("readable");
        log.sort_by_key(|record| record.offset);
        assert_eq!(log.len(), 2);
        assert_eq!(log[0].timestamp, 1_700_000_000_000);
        assert_eq!(log[0].headers.len(), 1);
    });
}

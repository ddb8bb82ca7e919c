use super::*;

fn find(method: &str, path: &str) -> Result<Call, u32> {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    match Operation::find(&method, path) {
        Ok(Operation::Of(cluster, call)) => {
            assert_eq!(cluster, "c");
            Ok(call)
        }
        Ok(Operation::ListClusters) => panic!("{path} is no list of clusters"),
        Err(error) => Err(error.code),
    }
}

#[test]
fn paths_and_methods_lead_to_what_is_asked() {
    let t = || "t".to_owned();
    let topic = || ConfigResource::Topic("t".to_owned());
    let name = || "retention.ms".to_owned();
    let group = |call| Call::Group("a/b c".to_owned(), call);
    for (method, path, call) in [
        ("GET", "clusters/c", Call::GetCluster),
        ("HEAD", "clusters/c/brokers", Call::ListBrokers),
        ("GET", "clusters/c/brokers/1", Call::GetBroker(1)),
        ("GET", "clusters/c/brokers/1/partition-replicas", Call::SearchReplicas(1)),
        ("GET", "clusters/c/brokers/-/configs", Call::ListAllBrokerConfigs),
        ("GET", "clusters/c/brokers/1/configs", Call::Configs(ConfigResource::Broker(1), ConfigCall::List)),
        ("POST", "clusters/c/brokers/1/configs:alter", Call::Configs(ConfigResource::Broker(1), ConfigCall::Alter)),
        (
            "DELETE",
            "clusters/c/broker-configs/retention.ms",
            Call::Configs(ConfigResource::BrokerDefaults, ConfigCall::Reset(name())),
        ),
        ("POST", "clusters/c/broker-configs:alter", Call::Configs(ConfigResource::BrokerDefaults, ConfigCall::Alter)),
        ("GET", "clusters/c/broker-configs", Call::Configs(ConfigResource::BrokerDefaults, ConfigCall::List)),
        ("PUT", "clusters/c/topics/t/configs/retention.ms", Call::Configs(topic(), ConfigCall::Update(name()))),
        ("POST", "clusters/c/topics/t/configs%3Aalter", Call::Configs(topic(), ConfigCall::Alter)),
        ("GET", "clusters/c/topics/t/default-configs", Call::ListDefaultTopicConfigs(t())),
        ("GET", "clusters/c/topics/-/configs", Call::ListAllTopicConfigs),
        ("GET", "clusters/c/topics", Call::ListTopics),
        ("POST", "clusters/c/topics", Call::CreateTopic),
        ("PATCH", "clusters/c/topics/t", Call::GrowTopic(t())),
        ("DELETE", "clusters/c/topics/t", Call::DeleteTopic(t())),
        ("GET", "clusters/c/topics/t/partitions/3/replicas/1", Call::GetReplica(t(), 3, 1)),
        ("GET", "clusters/c/topics/-/partitions/-/reassignment", Call::ListAllReassignments),
        ("GET", "clusters/c/topics/t/partitions/-/reassignment", Call::ListReassignments(t())),
        ("GET", "clusters/c/topics/t/partitions/0/reassignment", Call::GetReassignment(t(), 0)),
        ("POST", "clusters/c/topics/t/records", Call::Produce(t())),
        ("POST", "clusters/c/topics/t/records:batch", Call::ProduceBatch(t())),
        ("DELETE", "clusters/c/acls", Call::DeleteAcls),
        ("POST", "clusters/c/acls:batch", Call::CreateAcls),
        ("GET", "clusters/c/consumer-groups/a%2Fb%20c", group(GroupCall::Get)),
        ("GET", "clusters/c/consumer-groups/a%2Fb%20c/lags/t/partitions/0", group(GroupCall::GetLag(t(), 0))),
        (
            "GET",
            "clusters/c/consumer-groups/a%2Fb%20c/consumers/m/assignments/t/partitions/0",
            group(GroupCall::GetAssignment("m".to_owned(), t(), 0)),
        ),
    ] {
        assert_eq!(find(method, path), Ok(call.clone()), "{method} {path}");
        assert!(Operation::NAMES.contains(&Operation::Of("c".to_owned(), call).name()));
    }
    assert_eq!(Operation::find(&Method::GET, "clusters"), Ok(Operation::ListClusters));
}

#[test]
fn what_is_not_served_is_told_apart() {
    for (method, path, code) in [
        ("GET", "clusters/c/", 404),
        ("GET", "clusters/c/nothing", 404),
        ("GET", "clusters/c/topics/t/configs/", 404),
        ("GET", "clusters/c/topics/t/configsx", 404),
        ("GET", "clusters/c/a/b/c/d/e/f/g/h/i/j", 404),
        ("GET", "clusters/c/topics/a b", 400),
        ("GET", "clusters/c/topics/%ff", 400),
        ("GET", "clusters/c/brokers/one", 400),
        ("GET", "clusters/c/topics/t/partitions/-1", 400),
        ("GET", "clusters/c/topics/t/records", 405),
        ("PUT", "clusters/c/acls", 405),
        ("POST", "clusters/c/consumer-groups/g", 405),
    ] {
        assert_eq!(find(method, path), Err(code), "{method} {path}");
    }
    let error = Operation::find(&Method::PUT, "clusters/c/topics/t").expect_err("no such method");
    assert_eq!(error.allow, Some("GET, HEAD, PATCH, DELETE"));
    assert_eq!(Operation::find(&Method::PUT, "clusters").map_err(|error| error.allow), Err(Some("GET, HEAD")));
}

#[test]
fn kafka_s_refusals_have_confluent_s_numbers() {
    let refusal =
        |code, message: Option<&str>| kafka_client::Error::Broker { api: "X", code, message: message.map(Into::into) };
    for (error, code) in [
        (refusal(ErrorCode::TOPIC_ALREADY_EXISTS, None), 40002),
        (refusal(ErrorCode::INVALID_CONFIG, Some("no.such is unknown")), 40002),
        (refusal(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, None), 40403),
        (refusal(ErrorCode::CLUSTER_AUTHORIZATION_FAILED, None), 40301),
        (refusal(ErrorCode::REQUEST_TIMED_OUT, None), 50302),
        (kafka_client::Error::Unsupported { api: "IncrementalAlterConfigs" }, 501),
        (kafka_client::Error::ShutDown, 50302),
    ] {
        assert_eq!(in_confluents_words(of_kafka("t", &error)).code, code, "{error}");
    }
    let told = in_confluents_words(ApiError::no_topic("t"));
    assert_eq!(told.message, "This server does not host this topic-partition.");
    let told = of_kafka("t", &refusal(ErrorCode::INVALID_CONFIG, Some("no.such is unknown")));
    assert_eq!(told.message, "no.such is unknown");
}

//! Every message at every version against an independent implementation (kafka-protocol), and every decoder against
//! bytes that are not what it expects.

mod admin;

use super::*;
use crate::ErrorCode;
use bytes::{BufMut, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Our request as the other implementation reads it, and the version for the assertions.
fn read_by_theirs<R: Request, T: Decodable>(request: &R, version: i16) -> T {
    let frame = encode_frame(request, version, 77, "a client").expect("short fields").concat();
    let mut frame = Bytes::from(frame);
    assert_eq!(frame.split_to(4)[..], (frame.len() as i32).to_be_bytes());
    let header_version = if version >= R::API.first_flexible { 2 } else { 1 };
    let header = theirs::RequestHeader::decode(&mut frame, header_version).expect("their header");
    assert_eq!((header.request_api_key, header.request_api_version), (R::API.key, version));
    assert_eq!((header.correlation_id, header.client_id), (77, Some(text("a client"))));
    let body = T::decode(&mut frame, version).expect("their body");
    assert_eq!(frame.len(), 0, "bytes left at version {version}");
    body
}

/// The other implementation's response as ours reads it.
fn written_by_theirs<R: Request>(response: &impl Encodable, version: i16) -> R::Response {
    decode_answer::<R>(version, answer_of_theirs::<R>(response, version)).expect("our decoder")
}

/// What follows the correlation id.
fn answer_of_theirs<R: Request>(response: &impl Encodable, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    if version >= R::API.first_flexible && R::API.key != 18 {
        // A tag from the future in the header.
        bytes.put_slice(&[1, 42, 2, 9, 9]);
    }
    response.encode(&mut bytes, version).expect("a response of theirs");
    bytes.freeze()
}

fn versions<R: Request>() -> std::ops::RangeInclusive<i16> {
    R::API.min..=R::API.max
}

/// As the other implementation's type for ids.
fn uuid<U: std::str::FromStr<Err: std::fmt::Debug>>(id: TopicId) -> U {
    format!("{id:?}").parse().expect("32 hexadecimal digits")
}

const ID: TopicId = TopicId([3; 16]);

mod groups;

// ---- ApiVersions ----

fn api_versions_response(version: i16) -> theirs::ApiVersionsResponse {
    use theirs::api_versions_response as t;
    let mut response = theirs::ApiVersionsResponse::default().with_api_keys(vec![
        t::ApiVersion::default().with_api_key(0).with_min_version(0).with_max_version(13),
        t::ApiVersion::default().with_api_key(3).with_min_version(4).with_max_version(8),
    ]);
    if version >= 3 {
        response.supported_features =
            vec![t::SupportedFeatureKey::default().with_name(text("kraft.version")).with_max_version(1)];
        response.finalized_features_epoch = 5;
    }
    response
}

#[test]
fn api_versions_is_the_same_message_at_every_version() {
    let request = ApiVersionsRequest { software_name: "penstock", software_version: "0.1.0" };
    for version in versions::<ApiVersionsRequest>() {
        let read: theirs::ApiVersionsRequest = read_by_theirs(&request, version);
        if version >= 3 {
            assert_eq!((&*read.client_software_name, &*read.client_software_version), ("penstock", "0.1.0"));
        }
        let response = written_by_theirs::<ApiVersionsRequest>(&api_versions_response(version), version);
        assert!(response.error.is_ok());
        // 4.x says Produce from 0 on; the newest common version counts.
        assert_eq!(response.agree(&ProduceRequest::API), Some(13));
        assert_eq!(response.agree(&MetadataRequest::API), Some(8));
        assert_eq!(response.agree(&FetchRequest::API), None);
    }
}

#[test]
fn a_refused_api_versions_is_read_in_version_0_whatever_was_asked() {
    let refusal = api_versions_response(0).with_error_code(35);
    let mut bytes = BytesMut::new();
    refusal.encode(&mut bytes, 0).expect("theirs");
    let response = decode_answer::<ApiVersionsRequest>(3, bytes.freeze()).expect("ours");
    assert_eq!((response.error, response.apis.len()), (ErrorCode::UNSUPPORTED_VERSION, 2));
}

#[test]
fn no_version_is_agreed_on_outside_the_broker_s_range() {
    let range = |min, max| ApiVersionsResponse { error: ErrorCode::NONE, apis: vec![ApiRange { key: 0, min, max }] };
    assert_eq!(range(0, 6).agree(&ProduceRequest::API), None);
    assert_eq!(range(14, 15).agree(&ProduceRequest::API), None);
    assert_eq!(range(9, 20).agree(&ProduceRequest::API), Some(13));
    assert_eq!(range(5, 4).agree(&ProduceRequest::API), None);
}

// ---- Metadata ----

fn metadata_response(version: i16) -> theirs::MetadataResponse {
    use theirs::metadata_response as t;
    let partition = t::MetadataResponsePartition::default()
        .with_error_code(5)
        .with_partition_index(1)
        .with_leader_id(4.into())
        .with_leader_epoch(9)
        .with_replica_nodes(vec![4.into(), 5.into()])
        .with_isr_nodes(vec![4.into()])
        .with_offline_replicas(vec![5.into()]);
    let mut topic = t::MetadataResponseTopic::default()
        .with_name(Some(text("orders").into()))
        .with_is_internal(true)
        .with_partitions(vec![partition]);
    if version >= 10 {
        topic.topic_id = uuid(ID);
    }
    let mut response = theirs::MetadataResponse::default()
        .with_throttle_time_ms(250)
        .with_brokers(vec![
            t::MetadataResponseBroker::default()
                .with_node_id(4.into())
                .with_host(text("b-4"))
                .with_port(9092)
                .with_rack(Some(text("az1"))),
            t::MetadataResponseBroker::default().with_node_id(5.into()).with_host(text("b-5")).with_port(65535),
        ])
        .with_cluster_id(Some(text("cluster")))
        .with_controller_id(5.into())
        .with_topics(vec![topic]);
    if version >= 13 {
        response.error_code = 129;
    }
    response
}

#[test]
fn metadata_is_the_same_message_at_every_version() {
    for version in versions::<MetadataRequest>() {
        let some = MetadataRequest { topics: Some(vec!["a".into(), "b".into()]) };
        let read: theirs::MetadataRequest = read_by_theirs(&some, version);
        let names: Vec<_> = read.topics.iter().flatten().map(|t| t.name.clone().expect("a name").to_string()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(!read.allow_auto_topic_creation);
        let read: theirs::MetadataRequest = read_by_theirs(&MetadataRequest { topics: None }, version);
        assert_eq!(read.topics, None);
        let read: theirs::MetadataRequest = read_by_theirs(&MetadataRequest { topics: Some(vec![]) }, version);
        assert_eq!(read.topics, Some(vec![]));

        let response = written_by_theirs::<MetadataRequest>(&metadata_response(version), version);
        let broker = |id, host: &str, port, rack: Option<&str>| Broker {
            id,
            host: host.into(),
            port,
            rack: rack.map(Into::into),
        };
        let expected = MetadataResponse {
            throttle: Duration::from_millis(250),
            brokers: vec![broker(4, "b-4", 9092, Some("az1")), broker(5, "b-5", 65535, None)],
            cluster_id: Some("cluster".into()),
            controller: 5,
            topics: vec![TopicMetadata {
                error: ErrorCode::NONE,
                name: Some("orders".into()),
                id: if version >= 10 { ID } else { TopicId::ZERO },
                internal: true,
                partitions: vec![PartitionMetadata {
                    error: ErrorCode::LEADER_NOT_AVAILABLE,
                    index: 1,
                    leader: 4,
                    leader_epoch: 9,
                    replicas: vec![4, 5],
                    in_sync: vec![4],
                }],
            }],
            error: if version >= 13 { ErrorCode::REBOOTSTRAP_REQUIRED } else { ErrorCode::NONE },
        };
        // Their default for a rack is an empty string, not null.
        let mut response = response;
        response.brokers[1].rack = response.brokers[1].rack.take().filter(|rack| !rack.is_empty());
        assert_eq!(response, expected, "version {version}");
    }
}

// ---- Produce ----

fn produce_request() -> ProduceRequest {
    let partition = |index| ProducePartition { index, records: Bytes::from(vec![index as u8; 300]) };
    ProduceRequest {
        timeout: Duration::from_secs(30),
        topics: vec![
            ProduceTopic { name: "orders".into(), id: ID, partitions: vec![partition(0), partition(7)] },
            ProduceTopic { name: "logs".into(), id: TopicId([9; 16]), partitions: vec![partition(2)] },
        ],
    }
}

fn produce_response(version: i16) -> theirs::ProduceResponse {
    use theirs::produce_response as t;
    let mut partition = t::PartitionProduceResponse::default()
        .with_index(7)
        .with_error_code(6)
        .with_base_offset(1 << 40)
        .with_log_append_time_ms(1_700_000_000_000)
        .with_log_start_offset(3);
    if version >= 8 {
        partition.record_errors = vec![
            t::BatchIndexAndErrorMessage::default()
                .with_batch_index(2)
                .with_batch_index_error_message(Some(text("bad"))),
        ];
        partition.error_message = Some(text("words"));
    }
    if version >= 10 {
        partition.current_leader = t::LeaderIdAndEpoch::default().with_leader_id(5.into()).with_leader_epoch(12);
    }
    let mut topic = t::TopicProduceResponse::default().with_partition_responses(vec![partition]);
    if version >= 13 {
        topic.topic_id = uuid(ID);
    } else {
        topic.name = text("orders").into();
    }
    let mut response = theirs::ProduceResponse::default().with_responses(vec![topic]).with_throttle_time_ms(40);
    if version >= 10 {
        response.node_endpoints = vec![
            t::NodeEndpoint::default()
                .with_node_id(5.into())
                .with_host(text("b-5"))
                .with_port(9094)
                .with_rack(Some(text("az2"))),
        ];
    }
    response
}

#[test]
fn produce_is_the_same_message_at_every_version() {
    for version in versions::<ProduceRequest>() {
        let request = produce_request();
        let read: theirs::ProduceRequest = read_by_theirs(&request, version);
        assert_eq!((read.transactional_id, read.acks, read.timeout_ms), (None, -1, 30_000));
        for (ours, theirs) in request.topics.iter().zip(&read.topic_data) {
            if version >= 13 {
                assert_eq!(theirs.topic_id.as_bytes(), &ours.id.0);
            } else {
                assert_eq!(*theirs.name.0, *ours.name);
            }
            let parts: Vec<_> = theirs.partition_data.iter().map(|p| (p.index, p.records.clone())).collect();
            let expected: Vec<_> = ours.partitions.iter().map(|p| (p.index, Some(p.records.clone()))).collect();
            assert_eq!(parts, expected);
        }

        let response = written_by_theirs::<ProduceRequest>(&produce_response(version), version);
        let expected = ProduceResponse {
            throttle: Duration::from_millis(40),
            topics: vec![ProduceTopicResponse {
                name: if version >= 13 { "" } else { "orders" }.into(),
                id: if version >= 13 { ID } else { TopicId::ZERO },
                partitions: vec![ProducePartitionResponse {
                    index: 7,
                    error: ErrorCode::NOT_LEADER_OR_FOLLOWER,
                    base_offset: 1 << 40,
                    log_append_time: 1_700_000_000_000,
                    log_start_offset: 3,
                    record_errors: if version >= 8 { vec![(2, Some("bad".into()))] } else { vec![] },
                    message: (version >= 8).then(|| "words".into()),
                    current_leader: (version >= 10).then_some((5, 12)),
                }],
            }],
            endpoints: if version >= 10 {
                vec![Broker { id: 5, host: "b-5".into(), port: 9094, rack: Some("az2".into()) }]
            } else {
                vec![]
            },
        };
        assert_eq!(response, expected, "version {version}");
    }
}

#[test]
fn record_batches_are_not_copied_into_the_frame() {
    let request = produce_request();
    let frame = encode_frame(&request, 9, 1, "c").expect("short");
    for partition in request.topics.iter().flat_map(|topic| &topic.partitions) {
        assert!(frame.iter().any(|piece| piece.as_ptr() == partition.records.as_ptr()));
    }
}

// ---- InitProducerId ----

fn init_producer_id_response() -> theirs::InitProducerIdResponse {
    theirs::InitProducerIdResponse::default()
        .with_throttle_time_ms(1)
        .with_error_code(14)
        .with_producer_id(4000.into())
        .with_producer_epoch(3)
}

#[test]
fn init_producer_id_is_the_same_message_at_every_version() {
    for version in versions::<InitProducerIdRequest>() {
        let read: theirs::InitProducerIdRequest = read_by_theirs(&InitProducerIdRequest, version);
        assert_eq!((read.transactional_id, read.producer_id.0, read.producer_epoch), (None, -1, -1));
        let response = written_by_theirs::<InitProducerIdRequest>(&init_producer_id_response(), version);
        assert_eq!((response.error, response.identity.id, response.identity.epoch), (ErrorCode(14), 4000, 3));
    }
}

// ---- SaslHandshake and SaslAuthenticate ----

fn sasl_handshake_response() -> theirs::SaslHandshakeResponse {
    theirs::SaslHandshakeResponse::default()
        .with_error_code(33)
        .with_mechanisms(vec![text("PLAIN"), text("SCRAM-SHA-512")])
}

fn sasl_authenticate_response(version: i16) -> theirs::SaslAuthenticateResponse {
    let mut response = theirs::SaslAuthenticateResponse::default()
        .with_error_code(58)
        .with_error_message(Some(text("no")))
        .with_auth_bytes(Bytes::from_static(b"v=abc"));
    if version >= 1 {
        response.session_lifetime_ms = 3_600_000;
    }
    response
}

#[test]
fn sasl_handshake_is_the_same_message_at_every_version() {
    for version in versions::<SaslHandshakeRequest>() {
        let request = SaslHandshakeRequest { mechanism: "PLAIN" };
        let read: theirs::SaslHandshakeRequest = read_by_theirs(&request, version);
        assert_eq!(&*read.mechanism, "PLAIN");
        let response = written_by_theirs::<SaslHandshakeRequest>(&sasl_handshake_response(), version);
        assert_eq!(response.error, ErrorCode::UNSUPPORTED_SASL_MECHANISM);
        assert_eq!(response.mechanisms, ["PLAIN".into(), "SCRAM-SHA-512".into()]);
    }
}

#[test]
fn sasl_authenticate_is_the_same_message_at_every_version() {
    for version in versions::<SaslAuthenticateRequest>() {
        let request = SaslAuthenticateRequest { message: Bytes::from_static(b"n,,n=user") };
        let read: theirs::SaslAuthenticateRequest = read_by_theirs(&request, version);
        assert_eq!(&read.auth_bytes[..], b"n,,n=user");
        let response = written_by_theirs::<SaslAuthenticateRequest>(&sasl_authenticate_response(version), version);
        assert_eq!((response.error, response.message.as_deref()), (ErrorCode::SASL_AUTHENTICATION_FAILED, Some("no")));
        assert_eq!(&response.challenge[..], b"v=abc");
        assert_eq!(response.session_lifetime, (version >= 1).then_some(Duration::from_secs(3600)));
    }
}

// ---- Fetch ----

fn fetch_response(version: i16) -> theirs::FetchResponse {
    use theirs::fetch_response as t;
    let mut partition = t::PartitionData::default()
        .with_partition_index(3)
        .with_error_code(6)
        .with_high_watermark(100)
        .with_last_stable_offset(90)
        .with_log_start_offset(10)
        .with_aborted_transactions(Some(vec![
            t::AbortedTransaction::default().with_producer_id(1.into()).with_first_offset(50),
        ]))
        .with_records(Some(Bytes::from_static(b"batches")));
    if version >= 11 {
        partition.preferred_read_replica = 6.into();
    }
    if version >= 12 {
        partition.current_leader = t::LeaderIdAndEpoch::default().with_leader_id(5.into()).with_leader_epoch(12);
    }
    let mut topic = t::FetchableTopicResponse::default().with_partitions(vec![partition]);
    if version >= 13 {
        topic.topic_id = uuid(ID);
    } else {
        topic.topic = text("orders").into();
    }
    let mut response = theirs::FetchResponse::default().with_throttle_time_ms(40).with_responses(vec![topic]);
    if version >= 16 {
        response.node_endpoints =
            vec![t::NodeEndpoint::default().with_node_id(5.into()).with_host(text("b-5")).with_port(9094)];
    }
    response
}

#[test]
fn fetch_is_the_same_message_at_every_version() {
    let partition = |index| FetchPartition { index, leader_epoch: 12, offset: 77, max_bytes: 500 };
    let request = FetchRequest {
        max_wait: Duration::from_millis(500),
        max_bytes: 1000,
        isolation: Isolation::ReadCommitted,
        topics: vec![
            FetchTopic { name: "orders".into(), id: ID, partitions: vec![partition(3), partition(4)] },
            FetchTopic { name: "logs".into(), id: TopicId([9; 16]), partitions: vec![partition(0)] },
        ],
        rack: "az1".into(),
    };
    for version in versions::<FetchRequest>() {
        let read: theirs::FetchRequest = read_by_theirs(&request, version);
        assert_eq!((read.max_wait_ms, read.min_bytes, read.max_bytes, read.isolation_level), (500, 1, 1000, 1));
        // Session id 0 with epoch 0 would open a session; there are only a thousand per broker.
        assert_eq!((read.session_id, read.session_epoch), (0, -1));
        assert_eq!(read.rack_id, text(if version >= 11 { "az1" } else { "" }));
        let topic = &read.topics[0];
        if version >= 13 {
            assert_eq!(topic.topic_id.as_bytes(), &ID.0);
        } else {
            assert_eq!(&**topic.topic, "orders");
        }
        let partition = &topic.partitions[0];
        assert_eq!((partition.partition, partition.current_leader_epoch, partition.fetch_offset), (3, 12, 77));
        assert_eq!(
            (partition.last_fetched_epoch, partition.log_start_offset, partition.partition_max_bytes),
            (-1, -1, 500)
        );
        assert_eq!((topic.partitions[1].partition, read.topics[1].partitions[0].partition), (4, 0));

        let answer = answer_of_theirs::<FetchRequest>(&fetch_response(version), version);
        let response = decode_answer::<FetchRequest>(version, answer.clone()).expect("ours");
        let fetched = &response.topics[0].partitions[0];
        assert_eq!((fetched.index, fetched.error, fetched.high_watermark), (3, ErrorCode(6), 100));
        assert_eq!((fetched.last_stable_offset, fetched.log_start_offset), (90, 10));
        assert_eq!(fetched.aborted, [(1, 50)]);
        assert_eq!(fetched.preferred_replica, (version >= 11).then_some(6));
        assert_eq!(fetched.current_leader, (version >= 12).then_some((5, 12)));
        assert_eq!(response.endpoints.len(), usize::from(version >= 16));
        assert_eq!(&fetched.records[..], b"batches");
        assert!(answer.as_ptr_range().contains(&fetched.records.as_ptr()), "records are a slice of the frame");
    }
}

// ---- ListOffsets ----

fn list_offsets_response() -> theirs::ListOffsetsResponse {
    use theirs::list_offsets_response as t;
    let partition = t::ListOffsetsPartitionResponse::default()
        .with_partition_index(2)
        .with_error_code(0)
        .with_timestamp(123)
        .with_offset(456)
        .with_leader_epoch(7);
    let topic = t::ListOffsetsTopicResponse::default().with_name(text("t").into()).with_partitions(vec![partition]);
    theirs::ListOffsetsResponse::default().with_throttle_time_ms(1).with_topics(vec![topic])
}

#[test]
fn list_offsets_is_the_same_message_at_every_version() {
    let wanted = |partition| WantedOffset { partition, leader_epoch: 7, timestamp: -2 };
    let request = ListOffsetsRequest {
        isolation: Isolation::ReadCommitted,
        topics: vec![("t".into(), vec![wanted(2), wanted(5)]), ("u".into(), vec![wanted(0)])],
        timeout: Duration::from_secs(3),
    };
    for version in versions::<ListOffsetsRequest>() {
        let read: theirs::ListOffsetsRequest = read_by_theirs(&request, version);
        let partition = &read.topics[0].partitions[0];
        assert_eq!((partition.partition_index, partition.current_leader_epoch, partition.timestamp), (2, 7, -2));
        assert_eq!((read.replica_id.0, read.timeout_ms), (-1, if version >= 10 { 3000 } else { 0 }));
        assert_eq!((read.isolation_level, read.topics[0].partitions[1].partition_index), (1, 5));
        assert_eq!((&**read.topics[1].name, read.topics[1].partitions.len()), ("u", 1));
        let response = written_by_theirs::<ListOffsetsRequest>(&list_offsets_response(), version);
        let expected =
            ListedPartition { index: 2, error: ErrorCode::NONE, timestamp: 123, offset: 456, leader_epoch: 7 };
        assert_eq!(response.topics, [("t".into(), vec![expected])]);
    }
}

// ---- CreateTopics, DeleteTopics ----

fn create_topics_response(version: i16) -> theirs::CreateTopicsResponse {
    use theirs::create_topics_response as t;
    let mut topic = t::CreatableTopicResult::default()
        .with_name(text("t").into())
        .with_error_code(36)
        .with_error_message(Some(text("there")));
    if version >= 5 {
        topic.configs = Some(vec![t::CreatableTopicConfigs::default().with_name(text("c"))]);
        topic.topic_config_error_code = 29;
    }
    if version >= 7 {
        topic.topic_id = uuid(ID);
    }
    theirs::CreateTopicsResponse::default().with_throttle_time_ms(1).with_topics(vec![topic])
}

fn delete_topics_response(version: i16) -> theirs::DeleteTopicsResponse {
    use theirs::delete_topics_response as t;
    let mut topic = t::DeletableTopicResult::default().with_name(Some(text("t").into())).with_error_code(3);
    if version >= 5 {
        topic.error_message = Some(text("gone"));
    }
    if version >= 6 {
        topic.topic_id = uuid(ID);
    }
    theirs::DeleteTopicsResponse::default().with_responses(vec![topic])
}

#[test]
fn topic_changes_are_the_same_messages_at_every_version() {
    let mut topic = NewTopic::new("t", 6, 3);
    topic.configs = vec![("retention.ms".into(), Some("5".into())), ("x".into(), None)];
    let mut request = CreateTopicsRequest { topic, timeout: Duration::from_secs(30) };
    for version in versions::<CreateTopicsRequest>() {
        let read: theirs::CreateTopicsRequest = read_by_theirs(&request, version);
        let topic = &read.topics[0];
        assert_eq!((&**topic.name, topic.num_partitions, topic.replication_factor), ("t", 6, 3));
        assert!(topic.assignments.is_empty() && !read.validate_only);
        let configs: Vec<_> = topic.configs.iter().map(|c| (&*c.name, c.value.as_deref())).collect();
        assert_eq!(configs, [("retention.ms", Some("5")), ("x", None)]);
        let response = written_by_theirs::<CreateTopicsRequest>(&create_topics_response(version), version);
        assert_eq!(response.topics[0].error, ErrorCode::TOPIC_ALREADY_EXISTS);
        assert_eq!(response.topics[0].message.as_deref(), Some("there"));
    }
    request.topic.assignments = vec![(0, vec![1, 2]), (1, vec![2, 3])];
    request.topic.validate_only = true;
    for version in versions::<CreateTopicsRequest>() {
        let read: theirs::CreateTopicsRequest = read_by_theirs(&request, version);
        let assignments = read.topics[0].assignments.iter().map(|a| {
            let brokers: Vec<i32> = a.broker_ids.iter().map(|id| id.0).collect();
            (a.partition_index, brokers)
        });
        assert_eq!(assignments.collect::<Vec<_>>(), request.topic.assignments);
        assert!(read.validate_only);
    }
    let request = DeleteTopicsRequest { name: "t".into(), timeout: Duration::from_secs(30) };
    for version in versions::<DeleteTopicsRequest>() {
        let read: theirs::DeleteTopicsRequest = read_by_theirs(&request, version);
        if version >= 6 {
            assert_eq!(read.topics[0].name, Some(text("t").into()));
            assert!(read.topics[0].topic_id.is_nil());
        } else {
            assert_eq!(read.topic_names, [text("t")]);
        }
        let response = written_by_theirs::<DeleteTopicsRequest>(&delete_topics_response(version), version);
        assert_eq!(response.topics[0].error, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }
}

// ---- hostile bytes ----

/// Every decoder at every version.
fn decode_all(bytes: &Bytes) {
    fn decode<R: Request>(bytes: &Bytes) {
        for version in versions::<R>() {
            let _ = decode_answer::<R>(version, bytes.clone());
        }
    }
    decode::<ApiVersionsRequest>(bytes);
    decode::<MetadataRequest>(bytes);
    decode::<ProduceRequest>(bytes);
    decode::<InitProducerIdRequest>(bytes);
    decode::<FetchRequest>(bytes);
    decode::<ListOffsetsRequest>(bytes);
    decode::<CreateTopicsRequest>(bytes);
    decode::<DeleteTopicsRequest>(bytes);
    admin::decode_all(bytes);
    decode::<SaslHandshakeRequest>(bytes);
    decode::<SaslAuthenticateRequest>(bytes);
    groups::decode_all(bytes);
}

/// Valid answers to mutate, one of each kind and encoding.
fn valid_answers() -> Vec<Bytes> {
    let mut answers = Vec::new();
    for (old, new) in [(true, false), (false, true)] {
        let v = |api: Api| {
            if old {
                api.min
            } else {
                assert!(new);
                api.max
            }
        };
        answers.extend([
            answer_of_theirs::<ApiVersionsRequest>(
                &api_versions_response(v(ApiVersionsRequest::API)),
                v(ApiVersionsRequest::API),
            ),
            answer_of_theirs::<MetadataRequest>(&metadata_response(v(MetadataRequest::API)), v(MetadataRequest::API)),
            answer_of_theirs::<ProduceRequest>(&produce_response(v(ProduceRequest::API)), v(ProduceRequest::API)),
            answer_of_theirs::<InitProducerIdRequest>(&init_producer_id_response(), v(InitProducerIdRequest::API)),
            answer_of_theirs::<FetchRequest>(&fetch_response(v(FetchRequest::API)), v(FetchRequest::API)),
            answer_of_theirs::<ListOffsetsRequest>(&list_offsets_response(), v(ListOffsetsRequest::API)),
            answer_of_theirs::<CreateTopicsRequest>(
                &create_topics_response(v(CreateTopicsRequest::API)),
                v(CreateTopicsRequest::API),
            ),
            answer_of_theirs::<DeleteTopicsRequest>(
                &delete_topics_response(v(DeleteTopicsRequest::API)),
                v(DeleteTopicsRequest::API),
            ),
            answer_of_theirs::<SaslHandshakeRequest>(&sasl_handshake_response(), v(SaslHandshakeRequest::API)),
            answer_of_theirs::<SaslAuthenticateRequest>(
                &sasl_authenticate_response(v(SaslAuthenticateRequest::API)),
                v(SaslAuthenticateRequest::API),
            ),
        ]);
        answers.extend(admin::valid_answers(old));
        answers.extend(groups::valid_answers(v));
    }
    answers
}

#[test]
fn every_cut_of_a_valid_answer_is_an_error_or_a_message() {
    for answer in valid_answers() {
        for end in 0..answer.len() {
            decode_all(&answer.slice(..end));
        }
    }
}

#[test]
fn a_cut_answer_is_never_the_whole_message() {
    let version = MetadataRequest::API.max;
    let answer = answer_of_theirs::<MetadataRequest>(&metadata_response(version), version);
    for end in 0..answer.len() {
        assert!(decode_answer::<MetadataRequest>(version, answer.slice(..end)).is_err(), "cut at {end}");
    }
    let longer = [&answer[..], &[0]].concat();
    assert_eq!(decode_answer::<MetadataRequest>(version, longer.into()), Err(DecodeError::TrailingBytes(1)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        decode_all(&bytes.into());
    }

    #[test]
    fn mutated_answers_do_not_panic(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![Just(0xff_u8), Just(0x7f), Just(0x80), any::<u8>()]),
            1..6,
        ),
    ) {
        let answers = valid_answers();
        let mut answer = which.get(&answers).to_vec();
        for (at, byte) in changes {
            let at = at.index(answer.len());
            answer[at] = byte;
        }
        decode_all(&answer.into());
    }
}

//! Against an in-process Kafka.

use super::*;
use crate::{Isolation, NewTopic, ProducePartition, ProduceRequest, ProduceTopic};
use bytes::Bytes;
use krafka::testing::{ApiKey, FakeBroker};

mod groups;
mod login;
mod lost;

/// A batch of one record, `hello`, without producer id; captured from a Kafka 4.1 producer's own layout.
fn batch() -> Bytes {
    // Filled in by kafka-protocol's encoder: an opinion that is not ours.
    use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
    let mut out = bytes::BytesMut::new();
    let record = Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence: -1,
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(Bytes::from_static(b"hello")),
        headers: Default::default(),
    };
    RecordBatchEncoder::encode(
        &mut out,
        [&record],
        &RecordEncodeOptions { version: 2, compression: Compression::None },
    )
    .expect("a record");
    out.freeze()
}

async fn start(brokers: usize) -> (FakeBroker, Cluster) {
    let fake = FakeBroker::start_cluster(brokers).await.expect("loopback");
    let cluster = Cluster::start(config(&fake));
    (fake, cluster)
}

fn config(fake: &FakeBroker) -> Config {
    Config {
        bootstrap_servers: fake.bootstrap_servers().split(',').map(str::to_owned).collect(),
        request_timeout: Duration::from_secs(10),
        ..Config::default()
    }
}

fn request(topic: &TopicInfo, partition: i32) -> ProduceRequest {
    ProduceRequest {
        timeout: Duration::from_secs(5),
        topics: vec![ProduceTopic {
            name: topic.name.clone(),
            id: topic.id,
            partitions: vec![ProducePartition { index: partition, records: batch() }],
        }],
    }
}

#[tokio::test]
async fn a_batch_is_written_by_its_leader_and_read_back() {
    let (fake, cluster) = start(3).await;
    fake.create_topic("t", 3);
    let topic = cluster.topic("t").await.expect("the topic");
    assert_eq!(topic.id.0, fake.topic_id("t").expect("an id"));
    let identity = cluster.init_producer_id().await.expect("an identity");
    assert!(identity.id >= 0);
    for partition in 0..3 {
        let leader = topic.partitions[partition as usize].leader.expect("a leader");
        let connection = cluster.dial(leader).await.expect("a connection");
        assert_eq!(connection.produce_version(), 12);
        let response = connection.produce(request(&topic, partition)).await;
        let response = response.expect("an answer");
        let written = &response.topics[0].partitions[0];
        assert_eq!((written.error, written.base_offset), (ErrorCode::NONE, 0));
        let fetched = cluster
            .fetch(&topic, partition, 0, Isolation::ReadUncommitted, || 1 << 20, Duration::ZERO)
            .await
            .expect("records");
        assert_eq!(fetched.high_watermark, 1);
        assert_eq!(fetched.records.len(), batch().len());
    }
    assert!(fake.request_count(ApiKey::Produce) == 3);
}

/// The metadata requests that any broker has seen.
fn asked(fake: &FakeBroker) -> usize {
    fake.request_count(ApiKey::Metadata)
}

/// Waits for a snapshot in which `predicate` holds. The test's own time limit is the harness's.
async fn until(cluster: &Cluster, predicate: impl Fn(&Metadata) -> bool) {
    let mut generation = cluster.subscribe();
    while !predicate(&cluster.metadata()) {
        generation.changed().await.expect("the cluster lives");
    }
}

fn leader(metadata: &Metadata, topic: &str) -> Option<i32> {
    metadata.topics.get(topic).and_then(|topic| topic.partitions[0].leader)
}

#[tokio::test]
async fn an_unknown_topic_is_asked_for_twice_and_then_remembered() {
    let (fake, cluster) = start(2).await;
    until(&cluster, |known| known.generation > 0).await;
    fake.clear_requests();
    assert!(matches!(cluster.topic("nope").await, Err(TopicError::Unknown)));
    // Two asks, of two brokers.
    let nodes = fake.request_nodes(ApiKey::Metadata);
    assert_eq!(nodes.len(), 2);
    assert_ne!(nodes[0], nodes[1]);
    assert!(matches!(cluster.topic("nope").await, Err(TopicError::Unknown)));
    assert_eq!(asked(&fake), 2, "the second time without asking");
}

#[tokio::test]
async fn an_unknown_topic_that_is_created_is_found_at_once() {
    let (fake, cluster) = start(2).await;
    assert!(matches!(cluster.topic("t").await, Err(TopicError::Unknown)));
    cluster.create_topic(&NewTopic::new("t", 2, 1)).await.expect("created");
    let topic = cluster.topic("t").await.expect("the topic");
    assert_eq!(topic.partitions.len(), 2);
    assert!(!topic.is_leaderless());
    let error = cluster.create_topic(&NewTopic::new("t", 2, 1)).await.expect_err("it is there");
    assert_eq!(error.code(), Some(ErrorCode::TOPIC_ALREADY_EXISTS));
    cluster.delete_topic("t").await.expect("deleted");
    assert!(cluster.metadata().topics.is_empty());
    let error = cluster.delete_topic("t").await.expect_err("it is gone");
    assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    drop(fake);
}

#[tokio::test]
async fn names_no_topic_can_have_are_not_asked_for() {
    let (fake, cluster) = start(1).await;
    until(&cluster, |known| known.generation > 0).await;
    fake.clear_requests();
    assert!(matches!(cluster.topic("a/b").await, Err(TopicError::InvalidName)));
    assert_eq!(asked(&fake), 0);
}

#[tokio::test]
async fn a_known_topic_costs_no_request() {
    let (fake, cluster) = start(1).await;
    fake.create_topic("t", 1);
    cluster.topic("t").await.expect("the topic");
    fake.clear_requests();
    for _ in 0..100 {
        cluster.topic("t").await.expect("the topic");
    }
    assert_eq!(asked(&fake), 0);
}

#[tokio::test]
async fn names_asked_for_together_share_a_request() {
    let (fake, cluster) = start(1).await;
    until(&cluster, |known| known.generation > 0).await;
    let names: Vec<_> = (0..50).map(|i| format!("t{i}")).collect();
    for name in &names {
        fake.create_topic(name, 1);
    }
    fake.clear_requests();
    let mut lookups = tokio::task::JoinSet::new();
    for name in names {
        let cluster = cluster.clone();
        lookups.spawn(async move { cluster.topic(&name).await.map(|_| ()) });
    }
    while let Some(found) = lookups.join_next().await {
        found.expect("no panic").expect("the topic");
    }
    assert!(asked(&fake) <= 3, "{} requests", asked(&fake));
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_stop_the_asking() {
    let (fake, cluster) = start(1).await;
    fake.create_topic("t", 1);
    {
        let lookup = cluster.topic("t");
        tokio::pin!(lookup);
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(lookup.as_mut().poll(cx).is_pending())).await);
    }
    cluster.topic("t").await.expect("the topic");
}

#[tokio::test]
async fn a_leader_that_moves_is_found_by_a_refresh() {
    let (fake, cluster) = start(3).await;
    fake.create_topic("t", 1);
    let topic = cluster.topic("t").await.expect("the topic");
    let next = (topic.partitions[0].leader.expect("a leader") + 1) % 3;
    fake.set_leader("t", 0, next);
    cluster.request_refresh();
    until(&cluster, |known| leader(known, "t") == Some(next)).await;
}

#[tokio::test]
async fn a_read_follows_its_leader() {
    let (fake, cluster) = start(3).await;
    fake.create_topic("t", 1);
    let topic = cluster.topic("t").await.expect("the topic");
    let first = topic.partitions[0].leader.expect("a leader");
    let connection = cluster.dial(first).await.expect("a connection");
    connection.produce(request(&topic, 0)).await.expect("written");
    let next = (first + 1) % 3;
    fake.set_leader("t", 0, next);
    let fetched =
        cluster.fetch(&topic, 0, 0, Isolation::ReadUncommitted, || 1 << 20, Duration::ZERO).await.expect("records");
    assert_eq!(fetched.records.len(), batch().len());
    assert_eq!(fake.request_nodes(ApiKey::Fetch).last(), Some(&next));
    fake.set_leader("t", 0, first);
    let end = cluster.list_offset(&topic, 0, OffsetSpec::Latest, Isolation::ReadUncommitted).await.expect("an offset");
    assert_eq!(end.offset, Some(1));
    assert_eq!(fake.request_nodes(ApiKey::ListOffsets).last(), Some(&first));
}

#[tokio::test]
async fn an_offset_out_of_range_is_the_caller_s_to_know() {
    let (fake, cluster) = start(1).await;
    fake.create_topic("t", 1);
    let topic = cluster.topic("t").await.expect("the topic");
    let error = cluster
        .fetch(&topic, 0, 7, Isolation::ReadUncommitted, || 1 << 20, Duration::from_secs(5))
        .await
        .expect_err("no such offset");
    assert_eq!(error.code(), Some(ErrorCode::OFFSET_OUT_OF_RANGE));
    assert_eq!(fake.request_count(ApiKey::Fetch), 1);
}

#[tokio::test]
async fn a_partition_that_is_not_there_is_not_read() {
    let (fake, cluster) = start(1).await;
    fake.create_topic("t", 1);
    let topic = cluster.topic("t").await.expect("the topic");
    for partition in [-1, 1, i32::MAX] {
        let error = cluster
            .fetch(&topic, partition, 0, Isolation::ReadUncommitted, || 1 << 20, Duration::ZERO)
            .await
            .expect_err("no such partition");
        assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    }
    assert_eq!(fake.request_count(ApiKey::Fetch), 0);
}

#[tokio::test]
async fn a_read_waits_for_the_first_record() {
    let (fake, cluster) = start(1).await;
    fake.create_topic("t", 1);
    let topic = cluster.topic("t").await.expect("the topic");
    let reading = {
        let (cluster, topic) = (cluster.clone(), topic.clone());
        tokio::spawn(async move {
            cluster.fetch(&topic, 0, 0, Isolation::ReadUncommitted, || 1 << 20, Duration::from_mins(1)).await
        })
    };
    assert!(fake.wait_for_requests(ApiKey::Fetch, 1, Duration::from_secs(30)).await);
    let connection = cluster.dial(0).await.expect("a connection");
    connection.produce(request(&topic, 0)).await.expect("written");
    let fetched = reading.await.expect("no panic").expect("records");
    assert!(!fetched.records.is_empty());
}

#[tokio::test]
async fn more_readers_than_connections_all_get_their_turn() {
    let (fake, cluster) = start(1).await;
    fake.create_topic("t", 1);
    let topic = cluster.topic("t").await.expect("the topic");
    let mut reads = tokio::task::JoinSet::new();
    for _ in 0..3 * fetch::MAX_ROUNDS {
        let (cluster, topic) = (cluster.clone(), topic.clone());
        reads.spawn(async move {
            cluster.fetch(&topic, 0, 0, Isolation::ReadUncommitted, || 1 << 20, Duration::from_mins(1)).await
        });
    }
    assert!(fake.wait_for_requests(ApiKey::Fetch, 1, Duration::from_secs(30)).await);
    let connection = cluster.dial(0).await.expect("a connection");
    connection.produce(request(&topic, 0)).await.expect("written");
    while let Some(read) = reads.join_next().await {
        assert!(!read.expect("no panic").expect("records").records.is_empty());
    }
    // One control connection, one of the produce test, and no more than the bound for reads.
    assert!(cluster.connection_counts()[&0] <= fetch::MAX_ROUNDS + 2);
}

#[tokio::test]
async fn a_topic_created_anew_is_not_read_under_its_old_id() {
    let (fake, cluster) = start(1).await;
    fake.create_topic("t", 1);
    let old = cluster.topic("t").await.expect("the topic");
    fake.delete_topic("t");
    fake.create_topic("t", 1);
    cluster.request_refresh();
    until(&cluster, |known| known.topics.get("t").is_some_and(|topic| topic.id != old.id)).await;
    let error = cluster
        .fetch(&old, 0, 0, Isolation::ReadUncommitted, || 1 << 20, Duration::ZERO)
        .await
        .expect_err("another topic");
    assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_ID));
}

#[tokio::test]
async fn a_deleted_topic_leaves_the_snapshot() {
    let (fake, cluster) = start(2).await;
    fake.create_topic("t", 1);
    cluster.topic("t").await.expect("the topic");
    fake.delete_topic("t");
    cluster.request_refresh();
    until(&cluster, |known| known.topics.is_empty()).await;
    assert!(matches!(cluster.topic("t").await, Err(TopicError::Unknown)));
}

#[tokio::test]
async fn a_hint_moves_the_leader_at_once_and_an_old_one_does_not() {
    let (fake, cluster) = start(3).await;
    fake.create_topic("t", 1);
    let topic = cluster.topic("t").await.expect("the topic");
    let (first, epoch) = (topic.partitions[0].leader.expect("a leader"), topic.partitions[0].leader_epoch);
    let next = (first + 1) % 3;
    cluster.apply_leader_hint(("t", topic.id), 0, next, epoch, &[]);
    assert_eq!(leader(&cluster.metadata(), "t"), Some(first));
    cluster.apply_leader_hint(("t", topic.id), 0, next, epoch + 1, &[]);
    assert_eq!(leader(&cluster.metadata(), "t"), Some(next));
    // The refresh that follows still tells the older epoch, which is not believed.
    let generation = cluster.metadata().generation;
    until(&cluster, |known| known.generation > generation).await;
    assert_eq!(leader(&cluster.metadata(), "t"), Some(next));
}

#[tokio::test]
async fn a_partition_without_a_leader_is_asked_for_until_it_has_one() {
    let (fake, cluster) = start(2).await;
    fake.create_topic("t", 1);
    let topic = cluster.topic("t").await.expect("the topic");
    let first = topic.partitions[0].leader.expect("a leader");
    fake.set_leader("t", 0, -1);
    cluster.request_refresh();
    until(&cluster, |known| leader(known, "t").is_none()).await;
    // Nobody requests a refresh from here on.
    fake.set_leader("t", 0, first);
    until(&cluster, |known| leader(known, "t") == Some(first)).await;
}

#[tokio::test]
async fn a_dead_broker_does_not_hold_up_a_refresh() {
    let (fake, cluster) = start(3).await;
    fake.create_topic("t", 1);
    cluster.topic("t").await.expect("the topic");
    fake.crash(0);
    fake.crash(1);
    for i in 0..5 {
        let name = format!("u{i}");
        fake.create_topic(&name, 1);
        cluster.topic(&name).await.expect("the third broker answers");
    }
}

#[tokio::test]
async fn a_broker_that_keeps_silent_does_not_hold_up_a_refresh() {
    let (fake, cluster) = start(2).await;
    until(&cluster, |known| known.generation > 0).await;
    fake.on(ApiKey::Metadata, |request| match request.node_id {
        0 => krafka::testing::Control::Silence,
        _ => krafka::testing::Control::Pass,
    });
    for i in 0..5 {
        let name = format!("u{i}");
        fake.create_topic(&name, 1);
        cluster.topic(&name).await.expect("the other broker answers");
    }
    // It was asked once at most, and comes last since.
    let silent = fake.request_nodes(ApiKey::Metadata).into_iter().filter(|node| *node == 0).count();
    assert!(silent <= 2, "asked {silent} times");
}

#[tokio::test]
async fn when_no_known_broker_answers_the_bootstrap_servers_are_asked_again() {
    // Another cluster's broker takes over the bootstrap address's role: here, the same cluster behind a changing
    // transport.
    let (fake, cluster) = start(2).await;
    fake.create_topic("t", 1);
    until(&cluster, |known| known.generation > 0).await;
    fake.crash(0);
    fake.crash(1);
    cluster.request_refresh();
    let failed = |stats: HashMap<i32, BrokerStats>| stats[&-1].connect_failures > 0;
    while !failed(cluster.broker_stats()) {
        tokio::task::yield_now().await;
    }
    fake.restart(1);
    cluster.topic("t").await.expect("the topic");
}

#[tokio::test]
async fn a_refresh_that_nobody_answered_is_not_forgotten() {
    let (fake, cluster) = start(2).await;
    fake.create_topic("t", 1);
    cluster.topic("t").await.expect("the topic");
    let moved = 1 - leader(&cluster.metadata(), "t").expect("a leader");
    fake.crash(0);
    fake.crash(1);
    cluster.request_refresh();
    while matches!(cluster.0.core.last_failure(), Error::NoBroker(_)) {
        tokio::task::yield_now().await;
    }
    fake.set_leader("t", 0, moved);
    fake.restart(0);
    fake.restart(1);
    // Nobody asks again.
    until(&cluster, |known| leader(known, "t") == Some(moved)).await;
}

#[tokio::test]
async fn a_broker_that_came_back_at_another_address_is_dialled_there() {
    let (fake, cluster) = start(1).await;
    cluster.init_producer_id().await.expect("an identity");
    // The old connection lives on: nothing but the metadata says that the broker is elsewhere.
    fake.with_state(|state| state.brokers[0].host = "localhost".to_owned());
    cluster.request_refresh();
    until(&cluster, |known| &*known.brokers[&0].host == "localhost").await;
    cluster.init_producer_id().await.expect("an identity");
    let mut asked = fake.requests();
    asked.retain(|request| request.api_key == ApiKey::InitProducerId);
    assert_ne!(asked[0].connection, asked[1].connection);
}

/// Connects nowhere to the host `silent`, and to everything else as TCP does.
#[derive(Debug)]
struct SilentHost(crate::transport::TcpConnector);

impl crate::Connector for SilentHost {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> crate::Connecting<'a> {
        match host {
            "silent" => Box::pin(std::future::pending()),
            _ => self.0.connect(host, port),
        }
    }
}

#[tokio::test]
async fn a_silent_bootstrap_server_does_not_hide_the_next_one() {
    let fake = FakeBroker::start().await.expect("loopback");
    let mut config = config(&fake);
    config.bootstrap_servers.insert(0, "silent:9092".to_owned());
    config.connector = Some(Arc::new(SilentHost(crate::transport::TcpConnector::new(None, Duration::from_secs(10)))));
    let cluster = Cluster::start(config);
    until(&cluster, |known| known.generation > 0).await;
    assert_eq!(fake.request_count(ApiKey::Metadata), 1);
}

#[tokio::test]
async fn without_a_broker_calls_fail_with_the_reason() {
    let config = Config {
        bootstrap_servers: vec!["127.0.0.1:1".to_owned()],
        request_timeout: Duration::from_millis(200),
        ..Config::default()
    };
    let cluster = Cluster::start(config);
    let Err(TopicError::Unavailable(error)) = cluster.topic("t").await else {
        panic!("no broker is there");
    };
    assert!(matches!(*error, Error::Connect { .. }), "{error}");
    assert!(!cluster.init_producer_id().await.expect_err("no broker").maybe_sent());
    assert_eq!(cluster.metadata().generation, 0);
}

#[tokio::test]
async fn a_controller_that_moved_is_found() {
    let (fake, cluster) = start(2).await;
    until(&cluster, |known| known.generation > 0).await;
    fake.on_once(ApiKey::CreateTopics, |_| krafka::testing::Control::Error(krafka::error::ErrorCode::NotController));
    fake.set_controller(1);
    cluster.create_topic(&NewTopic::new("t", 1, 1)).await.expect("created");
    assert_eq!(fake.request_nodes(ApiKey::CreateTopics), [0, 1]);
}

#[tokio::test]
async fn an_identity_is_asked_for_until_there_is_one() {
    let (fake, cluster) = start(2).await;
    fake.on_times(ApiKey::InitProducerId, 2, |_| {
        krafka::testing::Control::Error(krafka::error::ErrorCode::CoordinatorLoadInProgress)
    });
    let first = cluster.init_producer_id().await.expect("an identity");
    let second = cluster.init_producer_id().await.expect("an identity");
    assert_ne!(first.id, second.id);
    assert_eq!(fake.request_count(ApiKey::InitProducerId), 4);
}

#[tokio::test]
async fn all_topics_are_listed_without_entering_the_snapshot() {
    let (fake, cluster) = start(1).await;
    fake.create_topic("b", 2);
    fake.create_topic("a", 1);
    let topics = cluster.list_topics().await.expect("topics");
    let names: Vec<_> = topics.iter().map(|t| (&*t.name, t.partitions.len())).collect();
    assert_eq!(names, [("a", 1), ("b", 2)]);
    assert!(cluster.metadata().topics.is_empty());
}

#[tokio::test]
async fn connections_are_counted_while_they_are_open() {
    let (_fake, cluster) = start(1).await;
    until(&cluster, |known| known.generation > 0).await;
    assert!(cluster.dial(9).await.is_err_and(|error| matches!(error, Error::NoBroker(_))));
    let connection = cluster.dial(0).await.expect("a connection");
    let open = cluster.connection_counts()[&0];
    let another = cluster.dial(0).await.expect("a connection");
    assert_eq!(cluster.connection_counts()[&0], open + 1);
    drop((connection, another));
    while cluster.connection_counts()[&0] >= open {
        tokio::task::yield_now().await;
    }
    let stats = cluster.broker_stats()[&0];
    assert!(stats.connects >= 2 && stats.bytes_in > 0 && stats.bytes_out > 0);
}

#[tokio::test]
async fn a_broker_of_another_version_is_refused_by_name() {
    let (fake, cluster) = start(1).await;
    fake.create_topic("t", 1);
    let topic = cluster.topic("t").await.expect("the topic");
    fake.set_api_versions(ApiKey::Produce, 0, 6);
    let connection = cluster.dial(0).await.expect("a connection");
    assert_eq!(connection.produce_version(), 0);
    let error = connection.produce(request(&topic, 0)).await.expect_err("too old");
    assert!(matches!(error, Error::Unsupported { api: "Produce" }) && !error.maybe_sent());
}

#[test]
fn back_off_doubles_to_its_bound_with_jitter() {
    let (first, max) = (Duration::from_millis(50), Duration::from_secs(1));
    for failures in 0..40 {
        let exact = (50 << failures.min(10)).min(1000);
        let pause = backoff(first, max, failures).as_millis();
        assert!((exact * 8 / 10..=exact * 12 / 10).contains(&pause), "{pause} after {failures}");
    }
}

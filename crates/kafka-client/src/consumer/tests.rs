//! Against an in-process Kafka, which forms groups and can be told to fail.

use super::*;
use crate::{Config, ProducePartition, ProduceRequest, ProduceTopic};
use bytes::{Bytes, BytesMut};
use kafka_protocol::records as theirs;
use krafka::error::ErrorCode as TheirCode;
use krafka::testing::{ApiKey, Control, FakeBroker};
use std::collections::BTreeMap;

const GIVE_UP: Duration = Duration::from_secs(30);
const ROOM: Room = Room { records: 1000, bytes: 1 << 20, first: true };

struct Fixture {
    fake: FakeBroker,
    cluster: Cluster,
}

impl Fixture {
    async fn start(brokers: usize, partitions: i32) -> Self {
        let fake = FakeBroker::start_cluster(brokers).await.expect("loopback");
        fake.create_topic("t", partitions);
        let cluster = Cluster::start(Config {
            bootstrap_servers: fake.bootstrap_servers().split(',').map(str::to_owned).collect(),
            request_timeout: Duration::from_secs(10),
            ..Config::default()
        });
        Self { fake, cluster }
    }

    /// Writes these values to a partition.
    async fn write(&self, partition: i32, values: &[&str]) {
        let topic = self.cluster.topic("t").await.expect("the topic");
        let leader = topic.partitions[partition as usize].leader.expect("a leader");
        let partitions = vec![ProducePartition { index: partition, records: batch(values) }];
        let topics = vec![ProduceTopic { name: topic.name.clone(), id: topic.id, partitions }];
        let connection = self.cluster.dial(leader).await.expect("a connection");
        let answer = connection.produce(ProduceRequest { timeout: Duration::from_secs(5), topics }).await;
        assert!(answer.expect("an answer").topics[0].partitions[0].error.is_ok());
    }

    fn member(&self, change: impl FnOnce(&mut ConsumerConfig)) -> Consumer {
        let consumer = self.alone(|config| {
            config.group = Some("g".into());
            change(config);
        });
        consumer.subscribe(Wants::Topics(vec!["t".into()])).expect("it has a group");
        consumer
    }

    fn alone(&self, change: impl FnOnce(&mut ConsumerConfig)) -> Consumer {
        let mut config = ConsumerConfig {
            reset: OffsetReset::Earliest,
            heartbeat_interval: Duration::from_millis(50),
            ..ConsumerConfig::default()
        };
        change(&mut config);
        Consumer::new(&self.cluster, config, Arc::new(Unaccounted))
    }

    fn committed(&self, partition: i32) -> Option<i64> {
        self.fake.committed_offset("g", "t", partition)
    }
}

fn batch(values: &[&str]) -> Bytes {
    let records: Vec<_> = (0..)
        .zip(values)
        .map(|(offset, value)| theirs::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: theirs::TimestampType::Creation,
            offset,
            sequence: -1 + i32::try_from(offset).expect("small"),
            timestamp: 1_700_000_000_000,
            key: None,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: Default::default(),
        })
        .collect();
    let mut out = BytesMut::new();
    let options = theirs::RecordEncodeOptions { version: 2, compression: theirs::Compression::None };
    theirs::RecordBatchEncoder::encode(&mut out, &records, &options).expect("a batch");
    out.freeze()
}

fn values(polled: &[PartitionRecords]) -> Vec<String> {
    let records = polled.iter().flat_map(|of_one| &of_one.records);
    records.map(|record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into()).collect()
}

/// Polls until so many records have come.
async fn read(consumer: &Consumer, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let polled = consumer.poll(ROOM, GIVE_UP).await.expect("records");
        assert!(!polled.is_empty(), "only {all:?} came");
        all.extend(values(&polled));
    }
    all.sort();
    all
}

/// Waits for something that another task brings about.
async fn eventually(mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + GIVE_UP;
    while !done() {
        assert!(Instant::now() < limit, "it never happens");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn part(partition: i32) -> TopicPartition {
    ("t".into(), partition)
}

fn offset(partition: i32, offset: i64) -> GroupOffset {
    GroupOffset { topic: "t".into(), partition, offset, leader_epoch: -1, metadata: None }
}

#[tokio::test]
async fn a_member_reads_everything_and_the_next_one_goes_on_behind_it() {
    let f = Fixture::start(3, 3).await;
    f.write(0, &["a", "b"]).await;
    f.write(2, &["c"]).await;
    let member = f.member(|config| config.auto_commit = Some(Duration::ZERO));
    assert_eq!(read(&member, 3).await, ["a", "b", "c"]);
    assert_eq!(member.assignment(), [part(0), part(1), part(2)]);
    assert_eq!(member.position(&part(0)).await.expect("known"), 2);
    // What was handed out counts as delivered when more is asked for.
    assert!(f.committed(0).is_none_or(|offset| offset == 0), "{:?}", f.committed(0));
    assert!(member.poll(ROOM, Duration::ZERO).await.expect("nothing").is_empty());
    eventually(|| f.committed(0) == Some(2) && f.committed(2) == Some(1)).await;
    member.close().await;
    assert_eq!(f.fake.leave_group_members().len(), 1);
    f.write(0, &["d"]).await;
    let next = f.member(|_| {});
    assert_eq!(read(&next, 1).await, ["d"]);
}

#[tokio::test]
async fn what_was_not_delivered_is_not_committed() {
    let f = Fixture::start(1, 1).await;
    f.write(0, &["a"]).await;
    let member = f.member(|config| config.auto_commit = Some(Duration::ZERO));
    read(&member, 1).await;
    member.close().await;
    assert_eq!(f.committed(0).unwrap_or(0), 0);
    let next = f.member(|config| config.auto_commit = Some(Duration::ZERO));
    assert_eq!(read(&next, 1).await, ["a"]);
    next.mark_delivered();
    next.close().await;
    assert_eq!(f.committed(0), Some(1));
}

#[tokio::test]
async fn heartbeats_do_not_wait_for_polls() {
    let f = Fixture::start(1, 1).await;
    let member = f.member(|_| {});
    eventually(|| member.is_joined()).await;
    let joined = f.fake.request_count(ApiKey::JoinGroup);
    assert!(f.fake.wait_for_requests(ApiKey::Heartbeat, 10, GIVE_UP).await);
    assert_eq!(f.fake.request_count(ApiKey::JoinGroup), joined);
}

#[tokio::test]
async fn who_was_put_out_of_the_group_comes_back() {
    for code in [TheirCode::UnknownMemberId, TheirCode::IllegalGeneration, TheirCode::RebalanceInProgress] {
        let f = Fixture::start(2, 2).await;
        f.write(0, &["a"]).await;
        let member = f.member(|_| {});
        // Nothing is committed, and nothing is told twice.
        read(&member, 1).await;
        f.fake.on_once(ApiKey::Heartbeat, move |_| Control::Error(code));
        let joined = f.fake.request_count(ApiKey::JoinGroup);
        assert!(f.fake.wait_for_requests(ApiKey::JoinGroup, joined + 1, GIVE_UP).await);
        f.write(1, &["b"]).await;
        assert_eq!(read(&member, 1).await, ["b"], "{code:?}");
    }
}

#[tokio::test]
async fn a_group_that_has_gone_on_meanwhile_is_followed() {
    let f = Fixture::start(1, 1).await;
    f.write(0, &["a", "b", "c", "d"]).await;
    let member = f.member(|_| {});
    assert_eq!(values(&member.poll(Room::new(1, 1), GIVE_UP).await.expect("a record")), ["a"]);
    // Another member had the partition for a while, and read two more.
    f.cluster.commit_group_offsets(&"g".into(), None, &[offset(0, 3)]).await.expect("the fake takes it");
    f.fake.on_once(ApiKey::Heartbeat, |_| Control::Error(TheirCode::UnknownMemberId));
    let joined = f.fake.request_count(ApiKey::JoinGroup);
    assert!(f.fake.wait_for_requests(ApiKey::JoinGroup, joined + 1, GIVE_UP).await);
    eventually(|| member.is_joined()).await;
    assert_eq!(member.position(&part(0)).await.expect("known"), 3);
    assert_eq!(read(&member, 1).await, ["d"]);
}

#[tokio::test]
async fn a_commit_in_a_rebalance_waits_for_its_end() {
    let f = Fixture::start(2, 2).await;
    f.write(0, &["a"]).await;
    let member = f.member(|_| {});
    read(&member, 1).await;
    f.fake.on_once(ApiKey::OffsetCommit, |_| Control::Error(TheirCode::RebalanceInProgress));
    member.commit(&[offset(0, 1)]).await.expect("committed at last");
    assert_eq!(f.committed(0), Some(1));
    let error = member.commit(&[offset(7, 1)]).await.expect_err("not its own");
    assert!(matches!(error, ConsumerError::NotAssigned(_, 7)));
    // A coordinator that moves takes its group along.
    f.fake.set_group_coordinator("g", 1);
    member.commit(&[offset(1, 0)]).await.expect("committed elsewhere");
}

#[tokio::test]
async fn a_member_that_the_group_does_not_take_says_so() {
    let f = Fixture::start(1, 1).await;
    f.fake.on_once(ApiKey::JoinGroup, |_| Control::Error(TheirCode::GroupAuthorizationFailed));
    let member = f.member(|_| {});
    for _ in 0..2 {
        let error = member.poll(ROOM, GIVE_UP).await.expect_err("refused");
        assert!(matches!(&error, ConsumerError::Fatal(e) if e.code() == Some(ErrorCode::GROUP_AUTHORIZATION_FAILED)));
    }
}

#[tokio::test]
async fn partitions_given_by_hand_are_read_from_where_one_seeks() {
    let f = Fixture::start(2, 2).await;
    f.write(0, &["a", "b", "c"]).await;
    f.write(1, &["x"]).await;
    let consumer = f.alone(|config| config.reset = OffsetReset::None);
    assert!(matches!(consumer.subscribe(Wants::Topics(vec![])), Err(ConsumerError::IllegalState(_))));
    consumer.assign(&[part(0), part(1)]).expect("it reads nothing else");
    let mut troubles = 0;
    while troubles < 2 {
        let error = consumer.poll(ROOM, GIVE_UP).await.expect_err("nobody said where to begin");
        assert!(matches!(error, ConsumerError::NoOffset(..)), "{error}");
        troubles += 1;
    }
    consumer.seek(&part(0), 1).expect("its own");
    assert_eq!(read(&consumer, 2).await, ["b", "c"]);
    consumer.seek_to(&[(part(0), OffsetSpec::Earliest), (part(1), OffsetSpec::Earliest)]).await.expect("found");
    consumer.pause(&[part(0)]).expect("its own");
    assert_eq!(read(&consumer, 1).await, ["x"]);
    assert!(consumer.poll(ROOM, Duration::ZERO).await.expect("paused").is_empty());
    consumer.resume(&[part(0)]).expect("its own");
    assert_eq!(read(&consumer, 3).await, ["a", "b", "c"]);
    consumer.seek_to(&[(part(0), OffsetSpec::Timestamp(i64::MAX))]).await.expect("the end");
    assert_eq!(consumer.position(&part(0)).await.expect("known"), 3);
    consumer.seek(&part(0), 99).expect("its own");
    let error = consumer.poll(ROOM, GIVE_UP).await.expect_err("out of range");
    assert!(matches!(error, ConsumerError::OutOfRange(_, 0, 99)), "{error}");
    consumer.assign(&[part(1)]).expect("fewer");
    assert_eq!(consumer.assignment(), [part(1)]);
    assert!(matches!(consumer.seek(&part(0), 0), Err(ConsumerError::NotAssigned(..))));
}

#[tokio::test]
async fn an_offset_out_of_range_is_reset_as_configured() {
    let f = Fixture::start(1, 1).await;
    f.write(0, &["a"]).await;
    let consumer = f.alone(|_| {});
    consumer.assign(&[part(0)]).expect("assigned");
    consumer.position(&part(0)).await.expect("the beginning");
    consumer.seek(&part(0), 50).expect("its own");
    assert_eq!(read(&consumer, 1).await, ["a"]);
}

#[tokio::test]
async fn topics_that_match_are_read_when_they_come() {
    let f = Fixture::start(1, 1).await;
    f.write(0, &["a"]).await;
    let consumer = f.alone(|config| config.group = Some("g".into()));
    consumer.subscribe(Wants::Matching(Arc::new(|name| name.len() == 1))).expect("it has a group");
    assert_eq!(read(&consumer, 1).await, ["a"]);
    assert_eq!(consumer.subscription(), ["t".into()]);
    consumer.unsubscribe();
    eventually(|| f.fake.leave_group_members().len() == 1).await;
    assert!(consumer.assignment().is_empty());
}

/// Counts what is held, and has only so much to give.
#[derive(Debug, Default)]
struct Counting(Arc<std::sync::atomic::AtomicUsize>);

struct Counted(Arc<std::sync::atomic::AtomicUsize>, usize);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Account for Counting {
    fn share(&self, wanted: usize) -> Option<usize> {
        Some(wanted.min(1000))
    }

    fn charge(&self, bytes: usize) -> Held {
        self.0.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        Arc::new(Counted(self.0.clone(), bytes))
    }
}

#[tokio::test]
async fn what_is_not_taken_stays_with_the_broker() {
    let f = Fixture::start(1, 2).await;
    let value = "x".repeat(400);
    for _ in 0..50 {
        f.write(0, &[&value]).await;
        f.write(1, &[&value]).await;
    }
    let account = Arc::new(Counting::default());
    let held = account.0.clone();
    let config = ConsumerConfig { reset: OffsetReset::Earliest, ..ConsumerConfig::default() };
    let consumer = Consumer::new(&f.cluster, config, account);
    consumer.assign(&[part(0), part(1)]).expect("assigned");
    let now = || held.load(std::sync::atomic::Ordering::Relaxed);
    let first = consumer.poll(Room::new(1, 1), GIVE_UP).await.expect("a record");
    assert_eq!(values(&first).len(), 1);
    let asked = f.fake.request_count(ApiKey::Fetch);
    assert!(now() >= 400, "what came is counted: {}", now());
    // Nobody takes more, so nothing more is asked for.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(f.fake.request_count(ApiKey::Fetch), asked);
    drop(first);
    let mut counts = BTreeMap::new();
    while counts.values().sum::<usize>() < 99 {
        for polled in consumer.poll(ROOM, GIVE_UP).await.expect("records") {
            *counts.entry(polled.partition).or_default() += polled.records.len();
        }
    }
    eventually(|| now() < 1000).await;
}

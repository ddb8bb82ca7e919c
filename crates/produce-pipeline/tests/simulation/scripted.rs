//! One scenario for each way in which a batch or a request can come to grief, on the model cluster: what goes wrong is
//! written down, the rest goes well, and time is paused.
//!
//! `faults.rs` has scenarios on another author's fake broker, over sockets: a second opinion on Kafka's rules.

use crate::broker::{FIRST_PORT, Fate, INVALID, Step, Twist};
use crate::cluster::{Cluster, Partition};
use crate::scenario::Scenario;
use fastrand::Rng;
use kafka_client::{ErrorCode, TopicError};
use kafka_protocol::messages::ApiKey;
use kafka_records::HeaderBlock;
use produce_pipeline::{Cause, Config, Delivery, MemoryBudget, Outcome, Pipeline, Summary, Target, Topic};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::Instant;

const TOPIC: &str = "orders";

/// A calm cluster and a worker's pipeline on it.
struct Stage {
    cluster: Cluster,
    client: kafka_client::Cluster,
    pipeline: Pipeline,
}

fn config() -> Config {
    Config { delivery_timeout: Duration::from_secs(10), ..Config::default() }
}

/// Runs `scenario` on a cluster of two brokers and a topic of so many partitions; nothing of it may stay behind.
fn on_stage(partitions: usize, config: Config, scenario: impl AsyncFnOnce(&Stage)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    fastrand::seed(1);
    LocalSet::new().block_on(&runtime, async {
        let cluster = Cluster::new(Scenario::calm(2, config.clone()), Rng::with_seed(1));
        {
            let mut state = cluster.state();
            (state.healed, state.scripted) = (true, true);
            state.topics[0].partitions.resize_with(partitions, Partition::default);
            state.elect();
            state.publish();
        }
        let client = kafka_client::Cluster::start(kafka_client::Config {
            bootstrap_servers: (0..2).map(|broker| format!("b:{}", FIRST_PORT + broker)).collect(),
            connector: Some(Arc::new(cluster.clone())),
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(2),
            ..kafka_client::Config::default()
        });
        let budget = MemoryBudget::new(64 << 20);
        let pipeline = Pipeline::new(config, client.clone(), budget.clone(), Arc::new(()));
        let stage = Stage { cluster, client, pipeline };
        scenario(&stage).await;
        stage.pipeline.flush().await;
        assert!(stage.cluster.state().script.is_empty(), "the script was played to its end");
        drop(stage);
        // The tasks that the last handles ended go at their next turn.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(budget.used(), 0);
    });
}

impl Stage {
    fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.cluster.state().script.extend(steps);
    }

    async fn topic(&self) -> Topic {
        loop {
            match self.pipeline.topic(TOPIC).await {
                Ok(topic) => return topic,
                // Two brokers that keep silent one after the other take longer than the client lets its caller wait.
                Err(TopicError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Begins a request to partition 0.
    async fn begin(&self, values: &[&str]) -> Delivery {
        let (topic, delivery) = (self.topic().await, self.pipeline.delivery(None, 1));
        append(&topic, &delivery, 0, values);
        delivery
    }

    async fn send(&self, values: &[&str]) -> Summary {
        let delivery = self.begin(values).await;
        delivery.resolved().await;
        delivery.summary()
    }

    async fn written(&self, values: &[&str]) {
        let summary = self.send(values).await;
        assert_eq!((summary.written, summary.failures), (values.len() as u64, vec![]));
    }

    /// What is in partition `index` of the topic that was made as number `topic`.
    fn log(&self, topic: usize, index: usize) -> Vec<String> {
        let state = self.cluster.state();
        state.topics[topic].partitions[index].log.records.iter().map(|record| record.value.clone()).collect()
    }

    fn move_leader(&self) {
        let mut state = self.cluster.state();
        let partition = &mut state.topics[0].partitions[0];
        partition.leader = partition.leader.map(|leader| 1 - leader);
        partition.epoch += 1;
        state.publish();
    }

    fn leader(&self) -> usize {
        self.cluster.state().topics[0].partitions[0].leader.expect("one is elected")
    }

    /// (epoch, base sequence) of every batch that came for a partition, copies too.
    fn stamps(&self, index: i32) -> Vec<(i16, i32)> {
        let state = self.cluster.state();
        let of_partition = state.arrivals.iter().filter(|(at, _)| *at == index);
        of_partition
            .map(|(_, bytes)| {
                let batch = kafka_records::batches(bytes.clone()).next().expect("a batch").expect("a sound one");
                (batch.producer_epoch, batch.base_sequence)
            })
            .collect()
    }
}

fn append(topic: &Topic, delivery: &Delivery, partition: i32, values: &[&str]) {
    let mut appender = topic.appender(delivery, 1_700_000_000_000, HeaderBlock::none());
    for value in values {
        appender.append(Target::Partition(partition, None), Some(value.as_bytes()));
    }
}

fn only_cause(summary: &Summary) -> (Outcome, Cause) {
    assert_eq!(summary.failures.len(), 1, "{summary:?}");
    (summary.failures[0].outcome, summary.failures[0].cause.clone())
}

/// Every request kind of the pipeline, with every way in which it can be lost: before and after it was carried out.
#[test]
fn whatever_request_is_lost_each_record_is_written_once() {
    let fates = [
        Fate::CutBefore,
        Fate::CutAfter,
        Fate::CutAnswered,
        Fate::SilentBefore,
        Fate::SilentAfter,
        Fate::Late(Duration::from_secs(4)),
        Fate::Torn,
        Fate::Garbage,
    ];
    for api in [ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::InitProducerId, ApiKey::Produce] {
        for fate in fates {
            on_stage(1, config(), async |stage| {
                // The first request of its kind, and the one that repeats it.
                stage.script([Step::Request(api, fate)]);
                if api != ApiKey::Produce || !matches!(fate, Fate::SilentBefore | Fate::SilentAfter) {
                    // Two connections that fall silent one after the other use a batch's time up.
                    stage.script([Step::Request(api, fate)]);
                }
                stage.written(&["a", "b"]).await;
                while !stage.cluster.state().script.is_empty() {
                    // A kind that is asked once in a while only.
                    let leader = stage.leader();
                    stage.cluster.state().crash(leader);
                    stage.cluster.state().brokers[leader].up = true;
                    stage.cluster.state().elect();
                    stage.cluster.state().publish();
                    stage.client.request_refresh();
                    stage.written(&["again"]).await;
                    if api == ApiKey::InitProducerId {
                        stage.cluster.state().script.clear();
                    }
                }
                stage.written(&["c"]).await;
                tokio::time::sleep(Duration::from_secs(5)).await;
                let mut log = stage.log(0, 0);
                log.retain(|value| value != "again");
                assert_eq!(log, ["a", "b", "c"], "{api:?} {fate:?}");
            });
        }
    }
}

#[test]
fn an_error_that_may_pass_is_retried_with_the_same_bytes() {
    let refused = [
        ErrorCode::CORRUPT_MESSAGE,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::LEADER_NOT_AVAILABLE,
        ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ErrorCode::REQUEST_TIMED_OUT,
        ErrorCode::NOT_ENOUGH_REPLICAS,
        ErrorCode::KAFKA_STORAGE_ERROR,
        ErrorCode::FENCED_LEADER_EPOCH,
        ErrorCode::UNKNOWN_LEADER_EPOCH,
        ErrorCode::THROTTLING_QUOTA_EXCEEDED,
        ErrorCode::UNKNOWN_TOPIC_ID,
        ErrorCode::UNKNOWN_SERVER_ERROR,
    ]
    .map(|code| Twist::Refused(code, false));
    let appended = [
        ErrorCode::REQUEST_TIMED_OUT,
        ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::KAFKA_STORAGE_ERROR,
        ErrorCode::UNKNOWN_SERVER_ERROR,
    ]
    .map(Twist::Appended);
    for twist in refused.into_iter().chain(appended).chain([Twist::LeftOut(true), Twist::LeftOut(false)]) {
        on_stage(1, config(), async |stage| {
            stage.script([Step::Batch(Twist::None), Step::Batch(twist), Step::Batch(twist)]);
            stage.written(&["a"]).await;
            stage.written(&["b"]).await;
            stage.written(&["c"]).await;
            assert_eq!(stage.log(0, 0), ["a", "b", "c"], "{twist:?}");
            assert_eq!(stage.stamps(0), [(0, 0), (0, 1), (0, 1), (0, 1), (0, 2)], "{twist:?}");
            let state = stage.cluster.state();
            assert!(state.arrivals[1..4].windows(2).all(|two| two[0] == two[1]), "{twist:?}");
        });
    }
}

#[test]
fn a_final_error_is_not_retried_and_leaves_no_gap() {
    for code in
        [ErrorCode::INVALID_TIMESTAMP, ErrorCode::INVALID_REQUIRED_ACKS, ErrorCode::UNSUPPORTED_COMPRESSION_TYPE]
    {
        on_stage(1, config(), async |stage| {
            stage.script([Step::Batch(Twist::None), Step::Batch(Twist::Refused(code, false))]);
            stage.written(&["a"]).await;
            let refused = stage.send(&["b"]).await;
            assert_eq!(only_cause(&refused), (Outcome::NotWritten, Cause::Rejected { code, message: None }));
            stage.written(&["c"]).await;
            assert_eq!(stage.log(0, 0), ["a", "c"]);
            assert_eq!(stage.stamps(0), [(0, 0), (0, 1), (0, 1)], "its number goes to the next batch");
        });
    }
}

/// apache/kafka#23234: the first batch of a producer is accepted with any sequence, so none may go ahead of it.
#[test]
fn while_the_first_batch_is_refused_for_now_no_later_one_goes() {
    on_stage(1, config(), async |stage| {
        stage.script([Step::Batch(Twist::Refused(ErrorCode::NOT_ENOUGH_REPLICAS, false)); 4]);
        let first = stage.begin(&["a"]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let second = stage.begin(&["b"]).await;
        first.resolved().await;
        second.resolved().await;
        assert_eq!((first.summary().written, second.summary().written), (1, 1));
        assert_eq!(stage.log(0, 0), ["a", "b"]);
    });
}

/// librdkafka#4953: what one partition goes through is no reason to stamp another one's batches anew.
#[test]
fn one_partitions_new_epoch_leaves_a_lost_answer_of_another_alone() {
    on_stage(2, config(), async |stage| {
        let topic = stage.topic().await;
        let (of_0, of_1) = (stage.pipeline.delivery(None, 1), stage.pipeline.delivery(None, 1));
        // Partition 1's batch is appended and nobody says so; before it goes again, partition 0 gets a new epoch.
        stage.script([Step::Batch(Twist::LeftOut(true))]);
        append(&topic, &of_1, 1, &["b"]);
        tokio::time::sleep(Duration::from_millis(30)).await;
        stage.script([Step::Batch(Twist::Refused(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, false))]);
        append(&topic, &of_0, 0, &["a"]);
        of_0.resolved().await;
        of_1.resolved().await;
        assert_eq!((of_0.summary().written, of_1.summary().written), (1, 1));
        assert_eq!((stage.stamps(0), stage.stamps(1)), (vec![(0, 0), (1, 0)], vec![(0, 0), (0, 0)]));
        assert_eq!((stage.log(0, 0), stage.log(0, 1)), (vec!["a".to_owned()], vec!["b".to_owned()]));
    });
}

#[test]
fn a_duplicate_is_written_though_nobody_tells_where() {
    on_stage(1, config(), async |stage| {
        stage.script([Step::Batch(Twist::Appended(ErrorCode::DUPLICATE_SEQUENCE_NUMBER))]);
        let summary = stage.send(&["a"]).await;
        assert_eq!((summary.written, summary.partitions[0].first_offset), (1, None));
        stage.written(&["b"]).await;
        assert_eq!(stage.log(0, 0), ["a", "b"]);
    });
}

/// librdkafka#2163, twmb/franz-go#1217: a batch given up at its deadline may still arrive. What follows must neither
/// wait for its number nor be taken for it.
#[test]
fn what_follows_a_batch_that_was_given_up_is_not_taken_for_it() {
    for fate in [Fate::SilentBefore, Fate::SilentAfter, Fate::Late(Duration::from_secs(8))] {
        let short = Config { delivery_timeout: Duration::from_secs(1), ..config() };
        on_stage(1, short, async |stage| {
            stage.written(&["a"]).await;
            stage.script([Step::Request(ApiKey::Produce, fate); 20]);
            let given_up = stage.send(&["b"]).await;
            assert_eq!(only_cause(&given_up).0, Outcome::Unknown);
            stage.cluster.state().script.clear();
            let mut next = stage.send(&["c"]).await;
            while next.written == 0 {
                assert_eq!(next.unknown, 0, "it was not on the wire");
                next = stage.send(&["c"]).await;
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
            let mut log = stage.log(0, 0);
            // Once at the most, in its place.
            if log.get(1).is_some_and(|value| value == "b") {
                log.remove(1);
            }
            assert_eq!(log, ["a", "c"], "{fate:?}");
        });
    }
}

#[test]
fn a_leader_that_moves_is_followed_whatever_tells_of_it() {
    // A hint, or only metadata: which of the two is drawn by the model.
    on_stage(1, config(), async |stage| {
        for round in 0..20 {
            stage.written(&[&format!("{round}")]).await;
            stage.move_leader();
        }
        assert_eq!(stage.log(0, 0).len(), 20);
    });
    // Its connections end, with a batch on the wire.
    on_stage(1, config(), async |stage| {
        stage.written(&["a"]).await;
        stage.script([Step::Request(ApiKey::Produce, Fate::SilentAfter)]);
        let on_the_wire = stage.begin(&["b"]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let old = stage.leader();
        stage.cluster.state().crash(old);
        stage.cluster.state().elect();
        stage.cluster.state().publish();
        on_the_wire.resolved().await;
        assert_eq!(on_the_wire.summary().written, 1);
        assert_ne!(stage.leader(), old);
        assert_eq!(stage.log(0, 0), ["a", "b"]);
    });
}

#[test]
fn a_leader_that_hangs_slows_only_its_own_partitions() {
    on_stage(2, config(), async |stage| {
        {
            let mut state = stage.cluster.state();
            for (leader, partition) in state.topics[0].partitions.iter_mut().enumerate() {
                (partition.leader, partition.epoch) = (Some(leader), 5);
            }
            state.publish();
        }
        let topic = stage.topic().await;
        let delivery = stage.pipeline.delivery(None, 1);
        for round in 0..10 {
            // Both connections are made, then broker 0 hangs with the second record on the wire.
            stage.cluster.state().brokers[0].frozen = round > 0;
            append(&topic, &delivery, 0, &["hangs"]);
            let other = stage.pipeline.delivery(None, 1);
            append(&topic, &other, 1, &["goes on"]);
            let began = Instant::now();
            other.resolved().await;
            assert_eq!(other.summary().written, 1);
            // The model's longest answer without a fault takes 40 ms.
            assert!(round == 0 || began.elapsed() <= Duration::from_millis(50), "{round}: {:?}", began.elapsed());
        }
        assert!(!delivery.is_resolved());
        stage.cluster.state().brokers[0].frozen = false;
        delivery.resolved().await;
        assert_eq!(delivery.summary().written, 10);
    });
}

#[test]
fn a_batch_above_the_brokers_limit_is_split_until_it_fits() {
    on_stage(1, config(), async |stage| {
        stage.topic().await;
        stage.cluster.state().topics[0].max_message_bytes = 100;
        let values: Vec<_> = (0..16).map(|i| format!("{i:010}")).collect();
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        stage.written(&values).await;
        assert_eq!(stage.log(0, 0), values);
    });
}

/// apache/kafka#20358: a record that no split makes small enough ends the splitting.
#[test]
fn splitting_ends_with_single_records() {
    on_stage(1, config(), async |stage| {
        stage.topic().await;
        stage.cluster.state().topics[0].max_message_bytes = 10;
        let refused = stage.send(&["a", "b", "c"]).await;
        assert_eq!((refused.not_written, only_cause(&refused)), (3, (Outcome::NotWritten, Cause::TooLarge)));
        stage.cluster.state().topics[0].max_message_bytes = 1_000;
        stage.written(&["d"]).await;
        assert_eq!(stage.log(0, 0), ["d"]);
    });
}

#[test]
fn records_that_the_broker_names_are_refused_and_the_others_written_in_order() {
    on_stage(1, config(), async |stage| {
        let bad = format!("{INVALID}bad");
        let summary = stage.send(&["a", &bad, "b", &bad, "c"]).await;
        assert_eq!((summary.written, summary.not_written, summary.failures.len()), (3, 2, 2));
        assert_eq!(stage.log(0, 0), ["a", "b", "c"]);
    });
}

/// librdkafka#4898: a batch on its way when its topic is made again belongs to the old one.
#[test]
fn a_topic_made_again_gets_nothing_that_was_meant_for_the_old_one() {
    for twist in [Twist::Refused(ErrorCode::NOT_ENOUGH_REPLICAS, false), Twist::LeftOut(true), Twist::LeftOut(false)] {
        on_stage(1, config(), async |stage| {
            stage.script([Step::Batch(twist)]);
            let before = stage.begin(&["old"]).await;
            tokio::time::sleep(Duration::from_millis(60)).await;
            {
                let mut state = stage.cluster.state();
                let name = state.delete_topic(0);
                state.create_topic(&name);
            }
            before.resolved().await;
            let (outcome, cause) = only_cause(&before.summary());
            let maybe = !matches!(twist, Twist::Refused(..));
            assert_eq!(
                (outcome, cause),
                (if maybe { Outcome::Unknown } else { Outcome::NotWritten }, Cause::TopicGone)
            );
            stage.written(&["new"]).await;
            assert_eq!(stage.log(1, 0), ["new"]);
        });
    }
}

#[test]
fn at_the_deadline_what_was_never_sent_is_certain_and_what_was_sent_is_not() {
    on_stage(1, config(), async |stage| {
        stage.topic().await;
        // Nobody leads it.
        stage.cluster.state().topics[0].partitions[0].leader = None;
        stage.cluster.state().publish();
        stage.client.request_refresh();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(only_cause(&stage.send(&["a"]).await), (Outcome::NotWritten, Cause::NoBroker));
        stage.cluster.state().elect();
        stage.cluster.state().publish();
        // Every attempt is refused, and says so.
        stage.cluster.state().topics[0].partitions[0].starved = true;
        assert_eq!(only_cause(&stage.send(&["b"]).await), (Outcome::NotWritten, Cause::NotEnoughReplicas));
        stage.cluster.state().topics[0].partitions[0].starved = false;
        // One was lost, and all after it were refused.
        stage.script([Step::Batch(Twist::LeftOut(false))]);
        let lost = stage.begin(&["c"]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        stage.cluster.state().topics[0].partitions[0].starved = true;
        lost.resolved().await;
        assert_eq!(only_cause(&lost.summary()).0, Outcome::Unknown);
        stage.cluster.state().topics[0].partitions[0].starved = false;
        stage.written(&["d"]).await;
        assert_eq!(stage.log(0, 0), ["d"]);
    });
}

#[test]
fn a_sequence_that_is_refused_goes_on_under_a_new_epoch_only_if_nothing_was_lost() {
    for code in [
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        ErrorCode::UNKNOWN_PRODUCER_ID,
        ErrorCode::INVALID_PRODUCER_EPOCH,
        ErrorCode::PRODUCER_FENCED,
    ] {
        on_stage(1, config(), async |stage| {
            let refused = Step::Batch(Twist::Refused(code, false));
            stage.written(&["a"]).await;
            stage.script([refused]);
            stage.written(&["b"]).await;
            stage.script([Step::Batch(Twist::LeftOut(true)), refused]);
            let unknown = stage.send(&["c"]).await;
            assert_eq!(only_cause(&unknown).0, Outcome::Unknown);
            stage.written(&["d"]).await;
            assert_eq!(stage.log(0, 0), ["a", "b", "c", "d"]);
            assert_eq!(stage.stamps(0), [(0, 0), (0, 1), (1, 0), (1, 1), (1, 1), (2, 0)]);
        });
    }
}

/// vectordotdev/vector#25375: no leader once must not mean none for ever.
#[test]
fn a_partition_that_gets_its_leader_late_is_written() {
    on_stage(1, config(), async |stage| {
        stage.cluster.state().topics[0].partitions[0].leader = None;
        stage.cluster.state().publish();
        let waits = stage.begin(&["a"]).await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(!waits.is_resolved());
        stage.cluster.state().elect();
        stage.cluster.state().publish();
        waits.resolved().await;
        assert_eq!(waits.summary().written, 1);
    });
}

//! The pipeline and the client against an in-process cluster that can be told to misbehave: every fault leaves each
//! record in the log once, in order, and reported as what it is.

use kafka_client::Cluster;
use kafka_records::HeaderBlock;
use krafka::error::ErrorCode as Code;
use krafka::testing::{ApiKey, Control, FakeBroker};
use produce_pipeline::{Cause, Config, Delivery, MemoryBudget, Outcome, Pipeline, Summary, Target, Topic};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::LocalSet;

const TOPIC: &str = "events";

/// A cluster of `brokers`, a topic, and a worker's pipeline on it.
struct Bridge {
    broker: FakeBroker,
    cluster: Cluster,
    pipeline: Pipeline,
}

impl Bridge {
    async fn new(brokers: usize, partitions: i32, config: Config) -> Self {
        Self::with(brokers, partitions, config, |_| {}).await
    }

    /// `prepare` is done to the cluster before the client knows of it.
    async fn with(brokers: usize, partitions: i32, config: Config, prepare: impl FnOnce(&FakeBroker)) -> Self {
        let broker = FakeBroker::start_cluster(brokers).await.expect("loopback");
        broker.create_topic(TOPIC, partitions);
        prepare(&broker);
        let cluster = Cluster::start(kafka_client::Config {
            bootstrap_servers: broker.bootstrap_servers().split(',').map(str::to_owned).collect(),
            // Shorter than the delivery timeout, so that a request without an answer is tried again.
            request_timeout: Duration::from_millis(800),
            ..kafka_client::Config::default()
        });
        let pipeline = Pipeline::new(config, cluster.clone(), MemoryBudget::new(64 << 20), Arc::new(()));
        Self { broker, cluster, pipeline }
    }

    async fn topic(&self) -> Topic {
        self.pipeline.topic(TOPIC).await.expect("it was made")
    }

    /// The values of one partition's log.
    fn log(&self, partition: i32) -> Vec<String> {
        let mut records = self.broker.all_records(TOPIC).expect("readable");
        records.retain(|record| record.partition == partition);
        records.sort_by_key(|record| record.offset);
        records
            .iter()
            .map(|record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into())
            .collect()
    }

    fn leader(&self) -> i32 {
        self.cluster.metadata().topics[TOPIC].partitions[0].leader.expect("known")
    }

    async fn send(&self, values: impl IntoIterator<Item = String>) -> Summary {
        let topic = self.topic().await;
        let delivery = self.pipeline.delivery(None, 1);
        append(&topic, &delivery, values);
        delivery.resolved().await;
        delivery.summary()
    }
}

fn append(topic: &Topic, delivery: &Delivery, values: impl IntoIterator<Item = String>) {
    let mut appender = topic.appender(delivery, 1_700_000_000_000, HeaderBlock::none());
    for value in values {
        appender.append(Target::Partition(0, None), Some(value.as_bytes()));
    }
}

fn lines(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| format!("line {i}")).collect()
}

fn config() -> Config {
    Config { delivery_timeout: Duration::from_secs(5), ..Config::default() }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, test);
}

/// Three requests in a row, with `fault` on the second.
async fn three_requests_with(fault: Control) -> Bridge {
    let bridge = Bridge::new(2, 1, config()).await;
    assert_eq!(bridge.send(lines(0..3)).await.written, 3);
    bridge.broker.on_once(ApiKey::Produce, move |_| fault.clone());
    let second = bridge.send(lines(3..6)).await;
    assert_eq!((second.written, second.failures), (3, vec![]));
    assert_eq!(bridge.send(lines(6..9)).await.written, 3);
    assert_eq!(bridge.log(0), lines(0..9));
    bridge
}

#[test]
fn keyed_and_unkeyed_lines_reach_all_partitions_in_order() {
    run(async {
        let bridge = Bridge::new(3, 12, Config { batch_bytes: 4_000, ..config() }).await;
        let topic = bridge.topic().await;
        assert_eq!(topic.partition_count(), 12);
        let delivery = bridge.pipeline.delivery(None, 1);
        for chunk in 0..20 {
            let mut appender = topic.appender(&delivery, 5, HeaderBlock::none());
            for i in 0..100 {
                let value = format!("{:05}", chunk * 100 + i);
                let key = format!("key-{}", i % 40);
                let target = if chunk % 2 == 0 { Target::Any } else { Target::Key(key.as_bytes()) };
                appender.append(target, Some(value.as_bytes()));
            }
        }
        delivery.resolved().await;
        let summary = delivery.summary();
        assert_eq!((summary.lines, summary.written, summary.failures), (2_000, 2_000, vec![]));
        assert_eq!(delivery.progress().through_line, 2_000);
        let mut total = 0;
        for partition in &summary.partitions {
            let log = bridge.log(partition.partition);
            assert!(log.is_sorted(), "partition {} is out of order", partition.partition);
            assert_eq!(log.len() as u64, partition.count);
            assert_eq!(partition.last_offset, Some(log.len() as i64 - 1));
            total += log.len();
        }
        assert_eq!(total, 2_000);
    });
}

#[test]
fn an_answer_that_is_lost_after_the_append_makes_no_duplicate() {
    run(async {
        three_requests_with(Control::ApplyThen(Box::new(Control::Disconnect))).await;
    });
}

#[test]
fn a_request_that_is_lost_is_sent_again() {
    run(async {
        three_requests_with(Control::Disconnect).await;
    });
}

#[test]
fn a_connection_that_falls_silent_is_given_up_and_the_request_sent_again() {
    run(async {
        three_requests_with(Control::Silence).await;
    });
}

#[test]
fn a_connection_that_falls_silent_after_the_append_makes_no_duplicate() {
    run(async {
        three_requests_with(Control::ApplyThen(Box::new(Control::Silence))).await;
    });
}

#[test]
fn retriable_errors_are_retried_whether_or_not_the_batch_was_appended() {
    run(async {
        for code in [
            Code::NotLeaderForPartition,
            Code::LeaderNotAvailable,
            Code::UnknownTopicOrPartition,
            Code::NotEnoughReplicas,
            Code::CorruptMessage,
            Code::NetworkException,
        ] {
            three_requests_with(Control::Error(code)).await;
        }
        for code in [Code::RequestTimedOut, Code::NotEnoughReplicasAfterAppend] {
            three_requests_with(Control::Error(code)).await;
            three_requests_with(Control::ApplyThen(Box::new(Control::Error(code)))).await;
        }
    });
}

#[test]
fn a_leader_that_moves_is_followed() {
    run(async {
        let bridge = Bridge::new(2, 1, config()).await;
        assert_eq!(bridge.send(lines(0..3)).await.written, 3);
        let leader = bridge.leader();
        bridge.broker.set_leader(TOPIC, 0, if leader == 0 { 1 } else { 1 - leader });
        assert_eq!(bridge.send(lines(3..6)).await.written, 3);
        assert_eq!(bridge.log(0), lines(0..6));
    });
}

#[test]
fn a_broker_that_is_down_until_the_deadline_leaves_records_certainly_not_written() {
    run(async {
        let bridge = Bridge::new(2, 1, Config { delivery_timeout: Duration::from_secs(1), ..config() }).await;
        bridge.topic().await;
        let leader = bridge.leader();
        bridge.broker.crash(leader);
        let summary = bridge.send(lines(0..3)).await;
        assert_eq!(summary.not_written, 3);
        assert_eq!(summary.failures[0].cause, Cause::NoBroker);
        bridge.broker.restart(leader);
        assert_eq!(bridge.send(lines(3..6)).await.written, 3);
        assert_eq!(bridge.log(0), lines(3..6));
    });
}

#[test]
fn without_an_answer_until_the_deadline_records_are_unknown_and_those_behind_them_are_written() {
    run(async {
        let bridge = Bridge::new(1, 1, Config { delivery_timeout: Duration::from_millis(600), ..config() }).await;
        assert_eq!(bridge.send(lines(0..1)).await.written, 1);
        bridge.broker.on(ApiKey::Produce, |_| Control::ApplyThen(Box::new(Control::Silence)));
        let summary = bridge.send(lines(1..2)).await;
        bridge.broker.clear_hooks();
        assert_eq!((summary.unknown, summary.failures[0].outcome), (1, Outcome::Unknown));
        // The request times out a little later; only then may the next batch go, under a new epoch.
        let mut next = bridge.send(lines(2..3)).await;
        while next.written == 0 {
            assert_eq!(next.unknown, 0, "it was not on the wire");
            next = bridge.send(lines(2..3)).await;
        }
        assert_eq!(bridge.log(0), lines(0..3), "the unknown one is there once");
    });
}

#[test]
fn a_topic_made_again_gets_nothing_of_what_waited_for_the_old_one() {
    run(async {
        let bridge = Bridge::new(1, 1, config()).await;
        let topic = bridge.topic().await;
        assert_eq!(bridge.send(lines(0..1)).await.written, 1);
        bridge.broker.on(ApiKey::Produce, |_| Control::Error(Code::NotEnoughReplicas));
        let delivery = bridge.pipeline.delivery(None, 1);
        append(&topic, &delivery, lines(1..2));
        assert!(bridge.broker.wait_for_requests(ApiKey::Produce, 2, Duration::from_secs(5)).await);
        bridge.broker.delete_topic(TOPIC);
        bridge.broker.create_topic(TOPIC, 1);
        bridge.cluster.request_refresh();
        delivery.resolved().await;
        bridge.broker.clear_hooks();
        append(&topic, &delivery, lines(2..3));
        delivery.resolved().await;
        assert_eq!(delivery.summary().failures.last().map(|failure| failure.cause.clone()), Some(Cause::TopicGone));
        assert_eq!((delivery.summary().written, delivery.summary().not_written), (0, 2));
        assert_eq!(bridge.log(0), Vec::<String>::new());
        assert_eq!(bridge.send(lines(3..4)).await.written, 1);
        assert_eq!(bridge.log(0), lines(3..4));
    });
}

#[test]
fn a_refused_topic_is_reported_as_denied() {
    run(async {
        let bridge = Bridge::new(1, 1, config()).await;
        bridge.topic().await;
        bridge.broker.on(ApiKey::Produce, |_| Control::Error(Code::TopicAuthorizationFailed));
        let summary = bridge.send(lines(0..2)).await;
        assert_eq!(summary.not_written, 2);
        assert!(matches!(summary.failures[0].cause, Cause::Denied { .. }));
    });
}

#[test]
fn flush_waits_for_everything_and_abandon_for_nothing() {
    run(async {
        let bridge = Bridge::new(1, 1, Config { linger: Duration::from_secs(3600), ..config() }).await;
        let topic = bridge.topic().await;
        let delivery = bridge.pipeline.delivery(None, 1);
        append(&topic, &delivery, lines(0..2));
        assert_eq!(bridge.pipeline.unresolved_records(), 2);
        bridge.pipeline.flush().await;
        assert_eq!(delivery.summary().written, 2);
        bridge.broker.on(ApiKey::Produce, |_| Control::Silence);
        append(&topic, &delivery, lines(2..4));
        bridge.pipeline.abandon();
        assert!(delivery.is_resolved());
        assert_eq!(delivery.summary().not_written + delivery.summary().unknown, 2);
    });
}

#[test]
fn any_request_whose_answer_is_lost_is_made_again() {
    run(async {
        for api in [ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::InitProducerId, ApiKey::Produce] {
            for fault in [Control::Disconnect, Control::ApplyThen(Box::new(Control::Disconnect))] {
                let bridge = Bridge::with(2, 1, config(), |broker| {
                    let fault = fault.clone();
                    broker.on_times(api, 2, move |_| fault.clone());
                })
                .await;
                assert_eq!(bridge.send(lines(0..3)).await.written, 3, "{api:?}");
                assert_eq!(bridge.send(lines(3..6)).await.written, 3, "{api:?}");
                assert_eq!(bridge.log(0), lines(0..6), "{api:?}");
            }
        }
    });
}

#[test]
fn a_batch_whose_sequence_is_refused_goes_under_a_new_epoch() {
    run(async {
        for code in
            [Code::OutOfOrderSequenceNumber, Code::UnknownProducerId, Code::InvalidProducerEpoch, Code::ProducerFenced]
        {
            three_requests_with(Control::Error(code)).await;
        }
    });
}

#[test]
fn a_batch_that_may_be_there_is_unknown_when_its_sequence_is_refused() {
    run(async {
        let bridge = Bridge::new(1, 1, config()).await;
        assert_eq!(bridge.send(lines(0..1)).await.written, 1);
        bridge.broker.on_times(ApiKey::Produce, 2, {
            let faults =
                [Control::ApplyThen(Box::new(Control::Disconnect)), Control::Error(Code::OutOfOrderSequenceNumber)];
            let next = std::sync::Mutex::new(faults.into_iter());
            move |_| next.lock().expect("not poisoned").next().expect("two times")
        });
        let summary = bridge.send(lines(1..2)).await;
        assert_eq!(
            (summary.written, summary.unknown),
            (0, 1),
            "sent again under another epoch it would be there twice"
        );
        assert_eq!(bridge.send(lines(2..3)).await.written, 1);
        assert_eq!(bridge.log(0), lines(0..3));
    });
}

#[test]
fn a_producer_that_the_broker_forgot_goes_on() {
    run(async {
        let bridge = Bridge::new(1, 1, config()).await;
        assert_eq!(bridge.send(lines(0..3)).await.written, 3);
        assert!(bridge.broker.clear_producer_state(TOPIC, 0));
        assert_eq!(bridge.send(lines(3..6)).await.written, 3);
        assert_eq!(bridge.log(0), lines(0..6));
    });
}

#[test]
fn a_batch_that_is_too_large_is_split_and_stays_in_order() {
    run(async {
        let bridge = Bridge::new(1, 1, config()).await;
        bridge.topic().await;
        bridge.broker.on_times(ApiKey::Produce, 2, |_| Control::Error(Code::MessageTooLarge));
        let summary = bridge.send(lines(0..9)).await;
        assert_eq!((summary.written, summary.failures), (9, vec![]));
        assert_eq!(bridge.log(0), lines(0..9));
        assert_eq!(bridge.send(lines(9..12)).await.written, 3);
        assert_eq!(bridge.log(0), lines(0..12));
    });
}

#[test]
fn who_stops_waiting_does_not_stop_his_records() {
    run(async {
        let bridge = Bridge::new(1, 1, config()).await;
        let topic = bridge.topic().await;
        bridge.broker.on_once(ApiKey::Produce, |_| Control::ApplyThen(Box::new(Control::Disconnect)));
        let delivery = bridge.pipeline.delivery(None, 1);
        append(&topic, &delivery, lines(0..3));
        drop(delivery);
        assert_eq!(bridge.send(lines(3..6)).await.written, 3);
        assert_eq!(bridge.log(0), lines(0..6));
    });
}

#[test]
fn a_partition_without_a_leader_waits_for_the_next_one() {
    run(async {
        let bridge = Bridge::new(2, 1, config()).await;
        assert_eq!(bridge.send(lines(0..3)).await.written, 3);
        let leader = bridge.leader();
        bridge.broker.with_state(|state| state.partition_mut(TOPIC, 0).expect("it is there").leader = -1);
        bridge.cluster.request_refresh();
        let mut snapshots = bridge.cluster.subscribe();
        while bridge.cluster.metadata().topics[TOPIC].partitions[0].leader.is_some() {
            snapshots.changed().await.expect("the client lives");
        }
        let topic = bridge.topic().await;
        let delivery = bridge.pipeline.delivery(None, 1);
        append(&topic, &delivery, lines(3..6));
        assert!(!delivery.is_resolved());
        bridge.broker.set_leader(TOPIC, 0, 1 - leader);
        delivery.resolved().await;
        assert_eq!(delivery.summary().written, 3);
        assert_eq!(bridge.log(0), lines(0..6));
    });
}

#[test]
fn a_rolling_restart_loses_nothing_and_fails_nothing() {
    run(async {
        let bridge = Bridge::new(3, 1, config()).await;
        let mut sent = 0;
        for round in 0..3 {
            assert_eq!(bridge.send(lines(sent..sent + 2)).await.written, 2, "round {round}");
            sent += 2;
            let leader = bridge.leader();
            bridge.broker.crash(leader);
            bridge.broker.set_leader(TOPIC, 0, (leader + 1) % 3);
            let summary = bridge.send(lines(sent..sent + 2)).await;
            assert_eq!((summary.written, summary.failures), (2, vec![]), "round {round}");
            sent += 2;
            bridge.broker.restart(leader);
        }
        assert_eq!(bridge.log(0), lines(0..sent));
    });
}

#[test]
fn a_throttled_producer_waits_and_sends_nothing_twice() {
    run(async {
        let bridge = Bridge::new(1, 1, config()).await;
        bridge.topic().await;
        bridge.broker.set_throttle(ApiKey::Produce, Duration::from_millis(100));
        for i in 0..3 {
            assert_eq!(bridge.send(lines(i..i + 1)).await.written, 1);
        }
        assert_eq!(bridge.broker.request_count(ApiKey::Produce), 3);
        assert_eq!(bridge.log(0), lines(0..3));
    });
}

#[test]
fn partitions_that_are_added_are_used() {
    run(async {
        let bridge = Bridge::new(2, 1, config()).await;
        let topic = bridge.topic().await;
        assert_eq!(bridge.send(lines(0..1)).await.written, 1);
        bridge.broker.add_partitions(TOPIC, 3);
        bridge.cluster.request_refresh();
        let mut snapshots = bridge.cluster.subscribe();
        while bridge.cluster.metadata().topics[TOPIC].partitions.len() < 3 {
            snapshots.changed().await.expect("the client lives");
        }
        while topic.partition_count() < 3 {
            tokio::task::yield_now().await;
        }
        let delivery = bridge.pipeline.delivery(None, 1);
        let mut appender = topic.appender(&delivery, 5, HeaderBlock::none());
        appender.append(Target::Partition(2, None), Some(b"new"));
        drop(appender);
        delivery.resolved().await;
        assert_eq!(delivery.summary().written, 1);
        assert_eq!(bridge.log(2), ["new"]);
    });
}

#[test]
fn a_topic_that_seemed_to_be_gone_goes_on_where_it_was() {
    run(async {
        let bridge = Bridge::new(1, 1, config()).await;
        assert_eq!(bridge.send(lines(0..1)).await.written, 1);
        // Two brokers in a row do not know it; then it is back, as it was.
        let hidden = bridge.broker.with_state(|state| state.topics.remove(TOPIC)).expect("it is there");
        bridge.cluster.request_refresh();
        let mut snapshots = bridge.cluster.subscribe();
        while bridge.cluster.metadata().topics.contains_key(TOPIC) {
            snapshots.changed().await.expect("the client lives");
        }
        // The pipeline learns of it at its next turn.
        tokio::task::yield_now().await;
        bridge.broker.with_state(|state| state.topics.insert(TOPIC.to_owned(), hidden));
        assert_eq!(bridge.send(lines(1..2)).await.written, 1);
        assert_eq!(bridge.log(0), lines(0..2));
    });
}

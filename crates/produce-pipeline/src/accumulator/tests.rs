use super::*;
use crate::budget::MemoryBudget;
use crate::delivery::Delivery;
use crate::outcome::{Failure, Outcome};
use bytes::Bytes;
use kafka_client::{ErrorCode, PartitionInfo, ProducePartitionResponse};
use kafka_records::{Batch, HeaderBlock};

mod topics;

const LEADER: i32 = 1;

/// An accumulator with a topic, a clock and one request.
struct Bench {
    acc: Accumulator,
    lease: Rc<Lease>,
    slot: usize,
    _handle: Rc<()>,
    now: Instant,
    delivery: Delivery,
    next_offset: i64,
}

fn info(id: u8, partitions: usize, leader: Option<i32>, leader_epoch: i32) -> TopicInfo {
    let partition = PartitionInfo { leader, leader_epoch, replicas: vec![1, 2], in_sync: vec![1, 2] };
    TopicInfo { name: "t".into(), id: TopicId([id; 16]), internal: false, partitions: vec![partition; partitions] }
}

fn metadata(topic: Option<TopicInfo>) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.topics.extend(topic.map(|info| (info.name.clone(), Arc::new(info))));
    metadata
}

fn config() -> Config {
    Config { batch_bytes: 2_000, ..Config::default() }
}

impl Bench {
    fn new(config: Config, partitions: usize) -> Self {
        let lease = Rc::new(Lease::new(MemoryBudget::new(64 << 20)));
        let timeout = config.delivery_timeout;
        let mut acc = Accumulator::new(config, lease.clone(), Arc::new(()), 7);
        let now = Instant::now();
        acc.handle_identity(ProducerIdentity { id: 9, epoch: 0 }, now);
        let (slot, handle) = acc.topic(&info(1, partitions, Some(LEADER), 0), now);
        let delivery = Delivery::new(lease.clone(), timeout, 1 << 20, 1);
        Self { acc, lease, slot, _handle: handle, now, delivery, next_offset: 0 }
    }

    /// Appends one line to a partition, as an appender would, a chunk of its own.
    fn append(&mut self, partition: usize, value: &[u8]) {
        let id = PartitionId { topic: self.slot, index: partition };
        let record = Record { timestamp: 5, key: None, value: Some(value), headers: HeaderBlock::none() };
        let line = self.delivery.next_line();
        let timeout = self.delivery.timeout();
        let mut before = 0;
        let appended = |acc: &mut Accumulator, before: &mut usize| {
            let open = acc.open(id, timeout, self.now);
            *before = acc.open_size(id).1;
            open && acc.append(id, record)
        };
        if !appended(&mut self.acc, &mut before) {
            self.acc.close(id);
            assert!(appended(&mut self.acc, &mut before), "an empty batch takes any record");
        }
        let bytes = self.acc.open_size(id).1 - before;
        let range = Range { delivery: self.delivery.clone(), first_line: line, count: 1, bytes: bytes as u32 };
        self.acc.add_range(id, range);
        self.acc.touch(id);
        self.delivery.handle_appended(line + 1, 1, bytes);
        self.acc.finish(self.slot, vec![partition], 0, self.now);
    }

    fn later(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.acc.handle_tick(self.now);
    }

    /// The next request for the leader: batches as (reference, bytes).
    fn drain(&mut self) -> Vec<(BatchRef, Bytes)> {
        self.drain_from(LEADER)
    }

    fn drain_from(&mut self, broker: i32) -> Vec<(BatchRef, Bytes)> {
        let Some(drained) = self.acc.drain(broker, self.now) else { return Vec::new() };
        let batch = |topic: usize, partition: &ProducePartition| {
            (drained.batches[&(topic, partition.index)], partition.records.clone())
        };
        drained
            .topics
            .iter()
            .enumerate()
            .flat_map(|(at, topic)| topic.partitions.iter().map(move |partition| batch(at, partition)))
            .collect()
    }

    fn one(&mut self) -> (BatchRef, Bytes) {
        let mut batches = self.drain();
        assert_eq!(batches.len(), 1, "one batch is ready");
        batches.remove(0)
    }

    fn answer(&mut self, batch: BatchRef, error: ErrorCode) {
        let mut response = response(error);
        response.base_offset = if error.is_ok() { self.next_offset } else { -1 };
        self.acc.handle_response(batch, &response, self.now);
    }

    fn ack(&mut self, batch: &(BatchRef, Bytes)) {
        self.answer(batch.0, ErrorCode::NONE);
        self.next_offset += i64::from(header(&batch.1).count);
    }

    fn counts(&self) -> (u64, u64, u64) {
        let summary = self.delivery.summary();
        (summary.written, summary.not_written, summary.unknown)
    }

    fn only_failure(&self) -> Failure {
        let failures = self.delivery.summary().failures;
        assert_eq!(failures.len(), 1, "{failures:?}");
        failures[0].clone()
    }

    /// Everything is settled and nothing is held.
    fn assert_clean(&mut self) {
        assert!(self.delivery.is_resolved());
        self.acc.handle_tick(self.now);
        assert!(self.acc.is_idle());
        assert_eq!(self.lease.held(), 0, "every charge is released");
        assert_eq!(self.acc.open_records(), 0);
    }
}

fn response(error: ErrorCode) -> ProducePartitionResponse {
    ProducePartitionResponse {
        index: 0,
        error,
        base_offset: -1,
        log_append_time: -1,
        log_start_offset: -1,
        record_errors: Vec::new(),
        message: None,
        current_leader: None,
    }
}

fn header(bytes: &Bytes) -> Batch {
    kafka_records::batches(bytes.clone()).next().expect("a batch").expect("ours")
}

fn values(bytes: &Bytes) -> Vec<String> {
    let records = header(bytes).records(1 << 20).expect("ours");
    records.map(|record| String::from_utf8(record.expect("ours").value.expect("set").to_vec()).expect("text")).collect()
}

fn identity(bytes: &Bytes) -> (i16, i32) {
    let batch = header(bytes);
    (batch.producer_epoch, batch.base_sequence)
}

#[test]
fn a_lone_record_goes_out_at_once_and_its_offset_comes_back() {
    let mut b = Bench::new(config(), 3);
    b.append(2, b"hello");
    assert_eq!(b.acc.effects().kick, [LEADER]);
    let batch = b.one();
    assert_eq!(values(&batch.1), ["hello"]);
    b.next_offset = 41;
    b.ack(&batch);
    let summary = b.delivery.summary();
    assert_eq!((summary.partitions[0].partition, summary.partitions[0].first_offset), (2, Some(41)));
    b.assert_clean();
}

#[test]
fn records_gather_while_a_batch_is_on_the_wire_and_follow_it_in_order() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let first = b.one();
    b.append(0, b"b");
    b.append(0, b"c");
    assert!(b.drain().is_empty(), "one batch of a partition at a time");
    b.ack(&first);
    let second = b.one();
    assert_eq!(values(&second.1), ["b", "c"]);
    assert_eq!((identity(&first.1), identity(&second.1)), ((0, 0), (0, 1)));
    b.ack(&second);
    b.assert_clean();
}

#[test]
fn a_full_batch_is_queued_behind_the_others() {
    let mut b = Bench::new(config(), 1);
    for i in 0..5 {
        b.append(0, format!("{i}{}", "x".repeat(900)).as_bytes());
    }
    let mut sent = Vec::new();
    loop {
        let batches = b.drain();
        let Some(batch) = batches.first() else { break };
        assert!(batch.1.len() <= 2_000);
        sent.extend(values(&batch.1).iter().map(|value| value[..1].to_owned()));
        b.ack(batch);
    }
    assert_eq!(sent, ["0", "1", "2", "3", "4"]);
    assert_eq!(b.counts(), (5, 0, 0));
    b.assert_clean();
}

#[test]
fn a_record_above_the_batch_limit_travels_alone() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"small");
    b.append(0, &[b'x'; 5_000]);
    let first = b.one();
    assert_eq!(values(&first.1).len(), 1);
    b.ack(&first);
    let second = b.one();
    assert!(second.1.len() > 5_000);
    b.ack(&second);
    b.assert_clean();
}

#[test]
fn linger_holds_an_open_batch_back_until_it_is_over() {
    let mut b = Bench::new(Config { linger: Duration::from_millis(5), ..config() }, 1);
    b.append(0, b"a");
    assert!(b.drain().is_empty());
    b.later(4);
    b.append(0, b"b");
    assert!(b.drain().is_empty());
    b.later(1);
    let batch = b.one();
    assert_eq!(values(&batch.1), ["a", "b"]);
    b.ack(&batch);
    b.append(0, b"c");
    b.acc.handle_flush(b.now);
    let batch = b.one();
    b.ack(&batch);
    b.assert_clean();
}

#[test]
fn one_request_carries_the_heads_of_all_ready_partitions() {
    let mut b = Bench::new(config(), 3);
    for partition in [0, 2, 1] {
        b.append(partition, b"x");
    }
    let batches = b.drain();
    assert_eq!(batches.len(), 3);
    for batch in &batches {
        b.ack(batch);
    }
    b.assert_clean();
}

#[test]
fn a_lost_answer_sends_the_same_bytes_again_after_a_backoff() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let first = b.one();
    b.acc.handle_lost(first.0, true, b.now);
    assert!(b.acc.effects().refresh);
    b.append(0, b"b");
    assert!(b.drain().is_empty(), "backing off");
    b.later(150);
    let again = b.one();
    assert_eq!(first.1, again.1, "byte for byte");
    b.ack(&again);
    let next = b.one();
    assert_eq!(identity(&next.1), (0, 1));
    b.ack(&next);
    b.assert_clean();
}

#[test]
fn a_duplicate_is_written_at_an_offset_that_nobody_told() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let batch = b.one();
    b.answer(batch.0, ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
    assert_eq!(b.counts(), (1, 0, 0));
    assert_eq!(b.delivery.summary().partitions[0].first_offset, None);
    b.assert_clean();
}

#[test]
fn a_moved_leader_gets_the_batch_without_waiting_for_the_backoff() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let first = b.one();
    b.answer(first.0, ErrorCode::NOT_LEADER_OR_FOLLOWER);
    assert!(b.acc.effects().refresh);
    b.acc.handle_metadata(&metadata(Some(info(1, 1, Some(2), 1))), b.now);
    assert!(b.drain_from(LEADER).is_empty());
    let again = b.drain_from(2).remove(0);
    assert_eq!(first.1, again.1);
    b.ack(&again);
    b.assert_clean();
}

#[test]
fn while_the_old_leader_has_not_answered_the_new_one_gets_nothing() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let first = b.one();
    b.append(0, b"b");
    b.acc.handle_metadata(&metadata(Some(info(1, 1, Some(2), 1))), b.now);
    assert!(b.drain_from(2).is_empty());
    b.acc.handle_lost(first.0, true, b.now);
    b.later(150);
    assert_eq!(b.drain_from(2).remove(0).1, first.1);
}

#[test]
fn never_sent_until_the_deadline_is_not_written() {
    let mut b = Bench::new(config(), 1);
    b.acc.handle_metadata(&metadata(Some(info(1, 1, None, 1))), b.now);
    b.append(0, b"a");
    b.later(29_999);
    assert!(!b.delivery.is_resolved());
    b.later(1);
    let failure = b.only_failure();
    assert_eq!((failure.outcome, failure.cause), (Outcome::NotWritten, Cause::NoBroker));
    b.assert_clean();
}

#[test]
fn refused_for_want_of_replicas_until_the_deadline_is_not_written() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    for _ in 0..40 {
        for batch in b.drain() {
            b.answer(batch.0, ErrorCode::NOT_ENOUGH_REPLICAS);
        }
        b.later(1_000);
    }
    let failure = b.only_failure();
    assert_eq!((failure.outcome, failure.cause), (Outcome::NotWritten, Cause::NotEnoughReplicas));
    b.append(0, b"b");
    let next = b.one();
    assert_eq!(identity(&next.1), (0, 0), "its numbers were given back");
    b.ack(&next);
    b.assert_clean();
}

#[test]
fn on_the_wire_at_the_deadline_is_unknown_even_if_an_acknowledgement_comes_later() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let first = b.one();
    b.later(30_000);
    let failure = b.only_failure();
    assert_eq!((failure.outcome, failure.cause), (Outcome::Unknown, Cause::Deadline));
    b.append(0, b"b");
    assert!(b.drain().is_empty(), "the wire still has the head");
    b.answer(first.0, ErrorCode::NONE);
    assert_eq!(b.counts(), (0, 0, 1), "what was reported stays reported");
    let next = b.one();
    assert_eq!(identity(&next.1), (0, 1), "it was appended: the sequence goes on");
    b.next_offset = 1;
    b.ack(&next);
    assert_eq!(b.counts(), (1, 0, 1));
    b.assert_clean();
}

#[test]
fn an_unresolved_head_is_fenced_by_a_new_epoch() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let first = b.one();
    b.later(30_000);
    b.append(0, b"b");
    b.acc.handle_lost(first.0, true, b.now);
    b.later(200);
    let next = b.one();
    assert_eq!(values(&next.1), ["b"], "what was reported is not sent again");
    assert_eq!(identity(&next.1), (1, 0));
    b.ack(&next);
    b.assert_clean();
}

#[test]
fn possibly_written_and_waiting_at_the_deadline_is_unknown() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let first = b.one();
    b.acc.handle_metadata(&metadata(Some(info(1, 1, None, 1))), b.now);
    b.acc.handle_lost(first.0, true, b.now);
    b.later(30_000);
    assert_eq!(b.only_failure().outcome, Outcome::Unknown);
    b.acc.handle_metadata(&metadata(Some(info(1, 1, Some(1), 2))), b.now);
    b.append(0, b"b");
    let next = b.one();
    assert_eq!(identity(&next.1), (1, 0));
    b.ack(&next);
    b.assert_clean();
}

#[test]
fn a_request_that_never_left_is_certain() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let first = b.one();
    b.acc.handle_lost(first.0, false, b.now);
    b.acc.handle_metadata(&metadata(Some(info(1, 1, None, 1))), b.now);
    b.later(30_000);
    assert_eq!(b.only_failure().outcome, Outcome::NotWritten);
    b.assert_clean();
}

#[test]
fn an_out_of_order_sequence_with_every_attempt_answered_goes_under_a_new_epoch() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    b.append(0, b"b");
    let first = b.one();
    b.answer(first.0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    b.later(150);
    let again = b.one();
    assert_eq!(values(&again.1), ["a", "b"]);
    assert_eq!(identity(&again.1), (1, 0));
    b.ack(&again);
    assert_eq!(b.counts(), (2, 0, 0));
    b.assert_clean();
}

#[test]
fn an_out_of_order_sequence_after_a_lost_answer_is_unknown_and_never_stamped_anew() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let first = b.one();
    b.acc.handle_lost(first.0, true, b.now);
    b.later(150);
    let again = b.one();
    b.answer(again.0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_eq!(b.only_failure().outcome, Outcome::Unknown);
    b.append(0, b"b");
    b.later(2_000);
    let next = b.one();
    assert_eq!((values(&next.1), identity(&next.1)), (vec!["b".to_owned()], (1, 0)));
    b.ack(&next);
    b.assert_clean();
}

#[test]
fn one_partitions_new_epoch_leaves_the_others_alone() {
    let mut b = Bench::new(config(), 2);
    b.append(0, b"a");
    b.append(1, b"b");
    let batches = b.drain();
    b.answer(batches[0].0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    b.acc.handle_lost(batches[1].0, true, b.now);
    b.later(150);
    let again = b.drain();
    assert_eq!(again.len(), 2);
    assert!(again.iter().any(|batch| batch.1 == batches[1].1), "byte for byte");
}

#[test]
fn a_batch_that_is_too_large_is_split_between_records() {
    let mut b = Bench::new(config(), 1);
    for value in [b"a", b"b", b"c", b"d", b"e"] {
        b.append(0, value);
    }
    let first = b.one();
    b.answer(first.0, ErrorCode::MESSAGE_TOO_LARGE);
    let left = b.one();
    assert_eq!((values(&left.1), identity(&left.1)), (vec!["a".to_owned(), "b".to_owned()], (0, 0)));
    b.ack(&left);
    let right = b.one();
    assert_eq!((values(&right.1).len(), identity(&right.1)), (3, (0, 2)));
    b.ack(&right);
    assert_eq!(b.counts(), (5, 0, 0));
    let offsets = b.delivery.summary().partitions[0];
    assert_eq!((offsets.first_offset, offsets.last_offset), (Some(0), Some(4)));
    b.assert_clean();
}

#[test]
fn a_record_that_is_too_large_alone_is_refused_and_the_others_go_on() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    b.append(0, &[b'x'; 500]);
    let mut refused = 0;
    for _ in 0..5 {
        for batch in b.drain() {
            if batch.1.len() > 300 {
                refused += 1;
                b.answer(batch.0, ErrorCode::MESSAGE_TOO_LARGE);
            } else {
                b.ack(&batch);
            }
        }
    }
    assert_eq!(refused, 2);
    let failure = b.only_failure();
    assert_eq!((failure.first_line, failure.last_line, failure.cause), (2, 2, Cause::TooLarge));
    assert_eq!(b.counts(), (1, 1, 0));
    b.assert_clean();
}

#[test]
fn records_that_the_broker_names_are_left_out_and_their_siblings_written() {
    let mut b = Bench::new(config(), 1);
    for value in [b"a", b"b", b"c", b"d"] {
        b.append(0, value);
    }
    let first = b.one();
    let mut refusal = response(ErrorCode::INVALID_RECORD);
    refusal.record_errors = vec![(1, Some("no key".to_owned()))];
    b.acc.handle_response(first.0, &refusal, b.now);
    let again = b.one();
    assert_eq!((values(&again.1), identity(&again.1)), (["a", "c", "d"].map(str::to_owned).to_vec(), (0, 0)));
    b.ack(&again);
    let failure = b.only_failure();
    assert_eq!((failure.first_line, failure.last_line), (2, 2));
    assert_eq!(b.counts(), (3, 1, 0));
    b.assert_clean();
}

#[test]
fn a_denied_batch_is_not_written_and_the_sequence_goes_on() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let first = b.one();
    b.answer(first.0, ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    let code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    assert_eq!(b.only_failure().cause, Cause::Denied { code });
    b.append(0, b"b");
    let next = b.one();
    assert_eq!(identity(&next.1), (0, 0));
    b.ack(&next);
    b.assert_clean();
}

#[test]
fn batches_wait_for_a_producer_id() {
    let mut b = Bench::new(config(), 1);
    b.acc.identity = None;
    b.acc.effects();
    b.append(0, b"a");
    assert!(b.acc.effects().identity);
    assert!(b.drain().is_empty());
    b.acc.handle_identity(ProducerIdentity { id: 10, epoch: 3 }, b.now);
    let batch = b.one();
    assert_eq!(identity(&batch.1), (3, 0));
    b.ack(&batch);
    b.assert_clean();
}

#[test]
fn when_the_epochs_run_out_a_new_producer_id_is_asked_for() {
    let mut b = Bench::new(config(), 1);
    b.acc.handle_identity(ProducerIdentity { id: 9, epoch: i16::MAX - 1 }, b.now);
    b.append(0, b"a");
    let first = b.one();
    b.answer(first.0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert!(b.acc.effects().identity);
    b.later(150);
    assert!(b.drain().is_empty());
    b.acc.handle_identity(ProducerIdentity { id: 11, epoch: 0 }, b.now);
    let again = b.one();
    assert_eq!(header(&again.1).producer_id, 11);
    b.ack(&again);
    b.assert_clean();
}

#[test]
fn without_idempotence_batches_carry_no_identity() {
    let mut b = Bench::new(Config { idempotence: false, ..config() }, 1);
    b.acc.identity = None;
    b.append(0, b"a");
    let batch = b.one();
    assert_eq!((header(&batch.1).producer_id, identity(&batch.1)), (-1, (-1, -1)));
    b.ack(&batch);
    b.assert_clean();
}

#[test]
fn an_answer_to_an_earlier_batch_is_not_taken_for_the_next_ones() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let first = b.one();
    b.ack(&first);
    b.append(0, b"b");
    let second = b.one();
    b.ack(&first);
    assert_eq!(b.counts(), (1, 0, 0));
    b.ack(&second);
    b.assert_clean();
}

#[test]
fn abandoning_settles_everything_by_what_is_known() {
    let mut b = Bench::new(config(), 2);
    b.append(0, b"on the wire");
    let first = b.one();
    b.append(0, b"waiting");
    b.append(1, b"waiting too");
    b.acc.handle_abandon(b.now);
    assert_eq!(b.counts(), (0, 2, 1));
    assert!(b.delivery.is_resolved());
    b.acc.handle_lost(first.0, true, b.now);
    b.assert_clean();
}

#[test]
fn requests_with_another_timeout_do_not_share_a_batch() {
    let mut b = Bench::new(config(), 1);
    b.acc.handle_metadata(&metadata(Some(info(1, 1, None, 1))), b.now);
    b.append(0, b"patient");
    let patient =
        std::mem::replace(&mut b.delivery, Delivery::new(b.lease.clone(), Duration::from_secs(1), 1 << 20, 1));
    b.append(0, b"hasty");
    b.later(1_000);
    assert_eq!(b.counts(), (0, 1, 0));
    assert!(!patient.is_resolved());
    b.later(29_000);
    assert_eq!(patient.summary().not_written, 1);
    b.assert_clean();
}

#[test]
fn a_leader_that_nobody_can_connect_to_is_stalled() {
    let mut b = Bench::new(config(), 2);
    b.append(0, b"waits");
    assert!(!b.acc.is_stalled(b.slot, Some(0), b.now));
    b.later(1_001);
    assert!(b.acc.is_stalled(b.slot, Some(0), b.now), "its batch was taken by nobody for a second");
    assert!(!b.acc.is_stalled(b.slot, Some(1), b.now) && !b.acc.is_stalled(b.slot, None, b.now));
    b.append(1, b"waits, too");
    b.later(1_001);
    assert!(b.acc.is_stalled(b.slot, None, b.now), "every partition");
}

#[test]
fn a_linger_is_no_stall() {
    let mut b = Bench::new(Config { linger: Duration::from_secs(5), ..config() }, 1);
    b.append(0, b"lingers");
    b.later(5_500);
    assert!(!b.acc.is_stalled(b.slot, Some(0), b.now));
    b.later(1_000);
    assert!(b.acc.is_stalled(b.slot, Some(0), b.now));
}

#[test]
fn unkeyed_records_leave_a_leader_that_does_not_answer() {
    let mut b = Bench::new(config(), 2);
    let stuck = b.acc.sticky(b.slot, b.now);
    b.append(stuck, b"a");
    let _on_the_wire = b.one();
    assert_eq!(b.acc.sticky(b.slot, b.now), stuck);
    b.later(1_001);
    assert_ne!(b.acc.sticky(b.slot, b.now), stuck);
}

#[test]
fn compressed_batches_split_and_keep_their_codec() {
    let mut b = Bench::new(Config { compression: kafka_records::Compression::Lz4, ..config() }, 1);
    b.append(0, &[b'a'; 400]);
    b.append(0, &[b'b'; 400]);
    let first = b.one();
    assert_eq!(header(&first.1).compression, kafka_records::Compression::Lz4);
    b.answer(first.0, ErrorCode::MESSAGE_TOO_LARGE);
    let left = b.one();
    assert_eq!(header(&left.1).compression, kafka_records::Compression::Lz4);
    b.ack(&left);
    let right = b.one();
    b.ack(&right);
    assert_eq!(b.counts(), (2, 0, 0));
    b.assert_clean();
}

#[test]
fn a_leader_that_appended_before_it_lost_the_leadership_leaves_records_unknown() {
    for code in [ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::INVALID_TIMESTAMP]
    {
        let mut b = Bench::new(config(), 1);
        b.append(0, b"a");
        let first = b.one();
        let mut told = response(code);
        told.base_offset = 7;
        b.acc.handle_response(first.0, &told, b.now);
        b.later(30_000);
        assert_eq!(b.only_failure().outcome, Outcome::Unknown, "{code}");
        b.assert_clean();
    }
}

#[test]
fn record_errors_that_name_no_record_of_the_batch_refuse_it_as_a_whole() {
    let mut b = Bench::new(config(), 1);
    b.append(0, b"a");
    let first = b.one();
    let mut refusal = response(ErrorCode::INVALID_RECORD);
    refusal.record_errors = vec![(1, None), (i32::MAX, None)];
    b.acc.handle_response(first.0, &refusal, b.now);
    assert!(b.drain().is_empty());
    assert_eq!(b.counts(), (0, 1, 0));
    b.assert_clean();
}

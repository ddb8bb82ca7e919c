//! How batches end: by the broker's answer, by a lost connection, by their deadline.

use super::{Accumulator, BatchRef, PartitionId};
use crate::batch::{Head, cause_of};
use crate::delivery::{Range, settle_failed, settle_written};
use crate::outcome::{Cause, Outcome};
use crate::verdict::{Verdict, appended};
use kafka_client::{ErrorCode, ProducePartitionResponse};
use std::time::Duration;
use tokio::time::Instant;

/// Waiting times between attempts: doubled from the first to the last, ±20 %.
const RETRY_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

impl Accumulator {
    fn head(&mut self, batch: BatchRef) -> Option<&mut Head> {
        let topic = self.topics[batch.partition.topic].as_mut()?;
        let partition = topic.partitions.get_mut(batch.partition.index)?;
        partition.head.as_mut().filter(|head| head.id == batch.id && head.sent.is_some())
    }

    /// The connection ended, or the request timed out, without an answer for `batch`.
    pub(crate) fn handle_lost(&mut self, batch: BatchRef, maybe_sent: bool, now: Instant) {
        if self.head(batch).is_some() {
            self.again(batch.partition, maybe_sent, true, now);
        }
    }

    /// The broker answered for `batch`.
    pub(crate) fn handle_response(&mut self, batch: BatchRef, response: &ProducePartitionResponse, now: Instant) {
        let id = batch.partition;
        if self.head(batch).is_none() {
            return;
        }
        if !response.error.is_ok() {
            self.observer.broker_error(response.error);
            let partition = self.partition(id);
            partition.last_error = Some(response.error);
            if let Some(head) = &mut partition.head {
                head.maybe_written |= appended(response);
            }
        }
        match Verdict::of(response) {
            Verdict::Written { base_offset, log_append_time } => self.written(id, base_offset, log_append_time, now),
            Verdict::Again { maybe_written, refresh } => self.again(id, maybe_written, refresh, now),
            Verdict::SequenceLost => self.sequence_lost(id, response.error, now),
            Verdict::TooLarge => self.too_large(id, now),
            Verdict::WithoutRecords(causes) => self.without_records(id, response.error, &causes, now),
            Verdict::Refused(cause) => {
                self.conclude(id, &cause, now);
                self.offer(id, now);
            }
        }
    }

    fn written(&mut self, id: PartitionId, base_offset: Option<i64>, log_append_time: Option<i64>, now: Instant) {
        let partition = self.partition(id);
        partition.backoff_until = None;
        partition.last_error = None;
        let Some(head) = partition.head.take() else { return };
        settle_written(&head.ranges, id.index as i32, base_offset, log_append_time);
        self.lease.release(head.charged);
        if !head.ranges.is_empty() {
            self.observer.batch_resolved(Outcome::Written, head.count, now - head.created);
        }
        self.offer(id, now);
    }

    /// The same bytes go out again, unless their time is over.
    fn again(&mut self, id: PartitionId, maybe_written: bool, refresh: bool, now: Instant) {
        self.effects.refresh |= refresh;
        let retired = !self.takes_records(id.topic);
        let jitter = 0.8 + 0.4 * self.rng.f64();
        let partition = self.partition(id);
        let Some(head) = partition.head.as_mut() else { return };
        head.sent = None;
        head.maybe_written |= maybe_written;
        let (first, last) = RETRY_BACKOFF;
        let backoff = (first * (1 << (head.attempts - 1).min(5))).min(last).mul_f64(jitter);
        partition.backoff_until = Some(now + backoff);
        if retired {
            self.conclude(id, &Cause::TopicGone, now);
        } else if self.partition(id).head.as_ref().is_some_and(|head| head.ranges.is_empty()) {
            // Its records were reported at the deadline, while it was on the wire.
            self.conclude(id, &Cause::Deadline, now);
        }
    }

    /// The broker will never take this batch under this sequence.
    fn sequence_lost(&mut self, id: PartitionId, code: ErrorCode, now: Instant) {
        let idempotent = self.config.idempotence;
        let Some(head) = self.partition(id).head.as_ref() else { return };
        if head.maybe_written || !idempotent {
            self.conclude(id, &Cause::Rejected { code, message: None }, now);
            self.offer(id, now);
            return;
        }
        // Every attempt was answered, and the answer was no: it is not in the log, and may go under a new epoch.
        self.bump(id);
        self.reframe(id, 1, |_| Some(0), &[], now);
        self.partition(id).backoff_until = Some(now + RETRY_BACKOFF.0);
    }

    fn too_large(&mut self, id: PartitionId, now: Instant) {
        let Some(head) = self.partition(id).head.as_ref() else { return };
        let (count, bytes, maybe_written) = (head.count, head.bytes.len(), head.maybe_written);
        if count == 1 || maybe_written {
            self.conclude(id, &Cause::TooLarge, now);
        } else {
            let topic = self.topics[id.topic].as_mut().expect("a topic outlives its batches");
            topic.batch_bytes = topic.batch_bytes.min(bytes / 2);
            self.rewind(id);
            self.reframe(id, 2, |index| Some(usize::from(index >= count / 2)), &[], now);
        }
        self.offer(id, now);
    }

    fn without_records(&mut self, id: PartitionId, code: ErrorCode, causes: &[(u32, Cause)], now: Instant) {
        let Some(head) = self.partition(id).head.as_ref() else { return };
        // A broker that names no record of this batch would refuse it again and again.
        let names_one = causes.first().is_some_and(|(index, _)| *index < head.count);
        if head.maybe_written || !names_one {
            let cause = causes.first().map_or(Cause::Rejected { code, message: None }, |(_, cause)| cause.clone());
            self.conclude(id, &cause, now);
        } else {
            self.rewind(id);
            self.reframe(id, 1, |index| cause_of(index, causes).is_none().then_some(0), causes, now);
        }
        self.offer(id, now);
    }

    /// Replaces the head by batches framed anew from its records, at the front of the queue.
    fn reframe(
        &mut self,
        id: PartitionId,
        parts: usize,
        part: impl Fn(u32) -> Option<usize>,
        causes: &[(u32, Cause)],
        now: Instant,
    ) {
        let Some(head) = self.partition(id).head.take() else { return };
        if head.ranges.is_empty() {
            // Reported at its deadline: nobody waits for its records, and they were certainly not written.
            self.lease.release(head.charged);
            return;
        }
        let Ok(reframed) = head.reframe(parts, part) else {
            // Our own bytes do not read back: nothing can be sent, but nothing is written either.
            debug_assert!(false, "a batch of ours does not read back");
            let cause = Cause::Rejected { code: ErrorCode::CORRUPT_MESSAGE, message: None };
            self.fail_unsent(&head.ranges, head.charged, &cause, now - head.created);
            return;
        };
        for (index, range) in &reframed.left_out {
            let cause = cause_of(*index, causes).expect("only records with a cause are left out");
            settle_failed(std::slice::from_ref(range), Outcome::NotWritten, cause);
            self.observer.batch_resolved(Outcome::NotWritten, 1, now - head.created);
        }
        for queued in reframed.batches.into_iter().rev() {
            self.lease.charge(queued.charged);
            self.partition(id).queued.push_front(queued);
        }
        self.lease.release(head.charged);
        if !self.takes_records(id.topic) {
            // The topic went while the batch was on the wire; under its name there may be another one by now.
            self.give_up(id, &Cause::TopicGone, now);
        }
    }

    /// Ends the head without success: see the module's table.
    pub(super) fn conclude(&mut self, id: PartitionId, cause: &Cause, now: Instant) {
        let Some(head) = self.partition(id).head.as_ref() else { return };
        let outcome = if head.maybe_written {
            self.bump(id);
            Outcome::Unknown
        } else {
            self.rewind(id);
            Outcome::NotWritten
        };
        let Some(head) = self.partition(id).head.take() else { return };
        if !head.ranges.is_empty() {
            settle_failed(&head.ranges, outcome, cause);
            self.observer.batch_resolved(outcome, head.count, now - head.created);
        }
        self.lease.release(head.charged);
    }

    pub(super) fn fail_unsent(&mut self, ranges: &[Range], charged: usize, cause: &Cause, age: Duration) {
        settle_failed(ranges, Outcome::NotWritten, cause);
        let records: u32 = ranges.iter().map(|range| range.count).sum();
        self.observer.batch_resolved(Outcome::NotWritten, records, age);
        self.lease.release(charged);
    }

    /// The head was certainly not appended: its numbers go to the next batch.
    fn rewind(&mut self, id: PartitionId) {
        let partition = self.partition(id);
        if let (Some(sequence), Some(head)) = (&mut partition.sequence, &partition.head) {
            sequence.rewind(head.stamp);
        }
    }

    /// Nobody knows whether the head was appended: nothing may follow it under its epoch.
    fn bump(&mut self, id: PartitionId) {
        let partition = self.partition(id);
        if let Some(sequence) = &mut partition.sequence
            && !sequence.bump()
        {
            partition.sequence = None;
            self.identity = None;
            self.effects.identity = true;
        }
    }

    /// Deadlines, backoffs and lingers that are over. To be called every [`Accumulator::tick`] while not idle.
    pub(crate) fn handle_tick(&mut self, now: Instant) {
        for at in 0..self.active.len() {
            let id = self.active[at];
            self.expire(id, now);
            let partition = self.partition(id);
            if partition.backoff_until.is_some_and(|until| until <= now) && partition.head.is_none() {
                partition.backoff_until = None;
            }
            if partition.leader.is_none()
                && !partition.is_empty()
                && partition.backoff_until.is_none_or(|until| until <= now)
            {
                // The client asks for leaders that it misses, but it need not know of this partition.
                partition.backoff_until = Some(now + RETRY_BACKOFF.1);
                self.effects.refresh = true;
            }
            self.offer(id, now);
        }
        self.sweep();
    }

    /// How often time has to be looked at.
    pub(crate) fn tick(&self) -> Duration {
        const COARSE: Duration = Duration::from_millis(25);
        if self.config.linger.is_zero() {
            COARSE
        } else {
            (self.config.linger / 4).clamp(Duration::from_millis(1), COARSE)
        }
    }

    /// Settles what is past its deadline.
    fn expire(&mut self, id: PartitionId, now: Instant) {
        let partition = self.partition(id);
        let cause = partition.cause();
        if let Some(head) = &mut partition.head
            && head.deadline <= now
        {
            if head.sent.is_some() {
                self.report_head(id, &Cause::Deadline, now);
            } else {
                let cause =
                    if head.maybe_written && cause == Cause::NoBroker { Cause::Deadline } else { cause.clone() };
                self.conclude(id, &cause, now);
            }
        }
        let partition = self.partition(id);
        let open = partition.open.take_if(|open| open.created + open.timeout <= now);
        let mut expired = Vec::new();
        let mut at = 0;
        while at < partition.queued.len() {
            if partition.queued[at].deadline <= now {
                expired.extend(partition.queued.remove(at));
            } else {
                at += 1;
            }
        }
        for queued in expired {
            self.fail_unsent(&queued.ranges, queued.charged, &cause, now - queued.created);
        }
        if let Some(open) = open {
            self.fail_unsent(&open.ranges, open.charged, &cause, now - open.created);
        }
    }

    /// Tells those who wait for the head, which is on the wire, that nobody knows. What becomes of its sequence numbers
    /// is decided when the wire gives it back.
    pub(super) fn report_head(&mut self, id: PartitionId, cause: &Cause, now: Instant) {
        let Some(head) = self.partition(id).head.as_mut() else { return };
        let ranges = std::mem::take(&mut head.ranges);
        let (count, age) = (head.count, now - head.created);
        if !ranges.is_empty() {
            settle_failed(&ranges, Outcome::Unknown, cause);
            self.observer.batch_resolved(Outcome::Unknown, count, age);
        }
    }
}

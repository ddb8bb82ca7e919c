//! One request's records on their way: what is still open, what became of the rest, and up to which line all is settled.
//!
//! A request does not wait for records but for ranges: a batch remembers that `count` of its records, from `first_line`
//! on, belong to a delivery, and settles them with one call. Lines are grouped into segments of about a chunk, in the
//! order in which they came; the settled prefix grows when the first segments have nothing open. So the work per record
//! is nothing, and the memory is a few words per chunk in flight.

use crate::budget::{Lease, Reserve};
use crate::outcome::{Cause, Failure, Outcome};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

/// How many failures a summary lists.
const MAX_FAILURES: usize = 100;

/// A segment takes further chunks until it has this many bytes: one line a chunk must not make one segment a line.
const SEGMENT_BYTES: usize = 64 * 1024;

/// One partition's share of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionSummary {
    /// The partition.
    pub partition: i32,
    /// Records written to it.
    pub count: u64,
    /// The lowest offset; `None` where the broker did not tell (it knew the batch as a duplicate, but no longer where it is).
    pub first_offset: Option<i64>,
    /// The highest offset, likewise.
    pub last_offset: Option<i64>,
}

/// What became of a whole request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// All lines, empty ones too.
    pub lines: u64,
    /// Records acknowledged with acks=all.
    pub written: u64,
    /// Records that are certainly not written.
    pub not_written: u64,
    /// Records of which nobody can say.
    pub unknown: u64,
    /// Where the written ones are, by partition.
    pub partitions: Vec<PartitionSummary>,
    /// The first runs of lines that were not written, a hundred at the most, by line. Nothing is left out before the
    /// last of them: a line up to there that none of them names was written, or was no record.
    pub failures: Vec<Failure>,
    /// There were more than `failures` lists, behind its last one.
    pub failures_truncated: bool,
    /// The broker's timestamp, ms since the epoch, of the batch acknowledged last, where the topic stamps LogAppendTime.
    pub log_append_time: Option<i64>,
}

/// Where consecutive lines were written: neighbours in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The first of them.
    pub first_line: u64,
    /// How many they are.
    pub count: u64,
    /// Their partition.
    pub partition: i32,
    /// The offset of the first; `None` where the broker did not tell.
    pub first_offset: Option<i64>,
    /// The broker's timestamp, ms since the epoch, where the topic stamps LogAppendTime.
    pub log_append_time: Option<i64>,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Every line up to and including this one is settled.
    pub through_line: u64,
    /// Records written so far, also beyond `through_line`.
    pub written: u64,
    /// Records certainly not written so far.
    pub not_written: u64,
    /// Records of which nobody can say so far.
    pub unknown: u64,
}

/// One request's records on their way. Cheap to clone; lives on the worker that made it.
///
/// Dropping it drops the waiting and not the records: what was appended goes on to Kafka (promise P5).
#[derive(Clone)]
pub struct Delivery(Rc<Shared>);

struct Shared {
    lease: Rc<Lease>,
    timeout: Duration,
    quota: usize,
    /// Taken when memory was full, until there is room again.
    reserve: RefCell<Option<Reserve>>,
    state: RefCell<State>,
    /// Something was settled.
    settled: Notify,
}

#[derive(Debug)]
struct State {
    first_line: u64,
    /// What the next line is called.
    next_line: u64,
    through_line: u64,
    written: u64,
    not_written: u64,
    unknown: u64,
    /// Records appended and not settled.
    open: u64,
    /// Their bytes, as framed.
    open_bytes: usize,
    segments: VecDeque<Segment>,
    /// By partition.
    partitions: Vec<PartitionSummary>,
    /// By first line; neighbours of the same fate are one entry.
    failures: BTreeMap<u64, Failure>,
    /// The first line of the first failure that was left out, if there is one. From there on nothing is listed, also when
    /// neighbours that become one entry make room again: the list must have no gap.
    left_out: Option<u64>,
    log_append_time: Option<i64>,
    /// Of every written line, if somebody wants to know.
    places: Option<Vec<Place>>,
}

/// Lines after the segment before it, up to `last_line`.
#[derive(Debug)]
struct Segment {
    last_line: u64,
    open: u64,
    bytes: usize,
}

/// A batch's note that `count` of its records, from `first_line` on, belong to `delivery`.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    pub(crate) delivery: Delivery,
    pub(crate) first_line: u64,
    pub(crate) count: u32,
    /// Their bytes as framed, for the delivery's quota.
    pub(crate) bytes: u32,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Delivery").field(&self.0.state).finish()
    }
}

impl Delivery {
    pub(crate) fn new(lease: Rc<Lease>, timeout: Duration, quota: usize, first_line: u64) -> Self {
        let through_line = first_line.saturating_sub(1);
        Self(Rc::new(Shared {
            lease,
            timeout,
            quota,
            reserve: RefCell::default(),
            state: RefCell::new(State {
                first_line,
                next_line: first_line,
                through_line,
                written: 0,
                not_written: 0,
                unknown: 0,
                open: 0,
                open_bytes: 0,
                segments: VecDeque::new(),
                partitions: Vec::new(),
                failures: BTreeMap::new(),
                left_out: None,
                log_append_time: None,
                places: None,
            }),
            settled: Notify::new(),
        }))
    }

    /// True if this delivery may hold another chunk now, and so may the process.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let Shared { lease, quota, state, reserve, .. } = &*self.0;
        if !lease.share_has_room(state.borrow().open_bytes, *quota) {
            return false;
        }
        if lease.has_room() {
            reserve.take();
            return true;
        }
        reserve.borrow().is_some()
    }

    /// Gets room out of the reserve, if what stands in the way is not this delivery's own doing.
    fn takes_reserve(&self) -> bool {
        let Shared { lease, quota, state, reserve, .. } = &*self.0;
        if !lease.share_has_room(state.borrow().open_bytes, *quota) {
            return false;
        }
        *reserve.borrow_mut() = lease.take_reserve();
        reserve.borrow().is_some()
    }

    /// Waits until [`Delivery::has_room`]. To be asked before a chunk is read, and again before it is appended.
    ///
    /// # Errors
    /// [`Cause::NoMemory`] if there was no room during the whole delivery timeout: the caller stops reading and says so.
    ///
    /// # Cancel safety
    /// Safe: nothing is reserved.
    pub async fn room(&self) -> Result<(), Cause> {
        if self.has_room() {
            return Ok(());
        }
        let waiting = self.0.lease.wait();
        let wait = async {
            loop {
                let (settled, freed) = (self.0.settled.notified(), waiting.freed());
                if self.has_room() || self.takes_reserve() {
                    return;
                }
                tokio::select! { biased; () = settled => {}, () = freed => {} }
            }
        };
        tokio::time::timeout(self.0.timeout, wait).await.map_err(|_| Cause::NoMemory)
    }

    /// True if it reads on beyond the budget, as one delivery at a time may. Others wait for that: a caller whose client
    /// sends nothing gives the reserve back ([`Delivery::give_back_reserve`]).
    #[must_use]
    pub fn is_on_reserve(&self) -> bool {
        self.0.reserve.borrow().is_some()
    }

    /// Lets another delivery have the reserve, if this one has it.
    pub fn give_back_reserve(&self) {
        self.0.reserve.take();
    }

    /// As much of `wanted_bytes` as a request may hold now: at least a chunk (64 KiB), where so much is wanted.
    #[must_use]
    pub fn share(&self, wanted_bytes: usize) -> usize {
        self.0.lease.share(wanted_bytes)
    }

    /// Charges `bytes` that the caller holds outside of batches (a partial line) to the process's budget.
    #[must_use]
    pub fn charge(&self, bytes: usize) -> Charge {
        self.0.lease.charge(bytes);
        Charge { lease: self.0.lease.clone(), bytes }
    }

    /// True if every line so far is settled.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        self.0.state.borrow().open == 0
    }

    /// Waits until every line so far is settled. It comes to an end: no record outlives its delivery timeout by more
    /// than a tick.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn resolved(&self) {
        loop {
            let settled = self.0.settled.notified();
            if self.is_resolved() {
                return;
            }
            settled.await;
        }
    }

    /// How far it is now.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let state = self.0.state.borrow();
        Progress {
            through_line: state.through_line,
            written: state.written,
            not_written: state.not_written,
            unknown: state.unknown,
        }
    }

    /// Waits until [`Delivery::progress`] differs from `seen`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn progressed(&self, seen: Progress) -> Progress {
        loop {
            let settled = self.0.settled.notified();
            let now = self.progress();
            if now != seen {
                return now;
            }
            settled.await;
        }
    }

    /// What became of everything so far. Complete once [`Delivery::is_resolved`].
    #[must_use]
    pub fn summary(&self) -> Summary {
        let state = self.0.state.borrow();
        Summary {
            lines: state.next_line - state.first_line,
            written: state.written,
            not_written: state.not_written,
            unknown: state.unknown,
            partitions: state.partitions.clone(),
            failures: state.failures.values().cloned().collect(),
            failures_truncated: state.left_out.is_some(),
            log_append_time: state.log_append_time,
        }
    }

    /// From now on remembers what became of every single line: its place, and its failure without a bound on their
    /// number. For requests whose lines are bounded and charged by the caller: it takes up to a [`Place`] or a
    /// [`Failure`] a line.
    pub fn keep_places(&self) {
        self.0.state.borrow_mut().places.get_or_insert_default();
    }

    /// Where the written lines are, by line. Empty without [`Delivery::keep_places`].
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let mut places = self.0.state.borrow().places.clone().unwrap_or_default();
        places.sort_unstable_by_key(|place| place.first_line);
        places
    }

    /// Takes what became of the lines up to [`Progress::through_line`], unless it was taken before: where they were written,
    /// and the failures, each by line. For requests without an end, of which nothing may be kept for long. Nothing without
    /// [`Delivery::keep_places`].
    #[must_use]
    pub fn take_settled(&self) -> (Vec<Place>, Vec<Failure>) {
        let mut state = self.0.state.borrow_mut();
        let State { through_line, places: Some(places), failures, .. } = &mut *state else {
            return (Vec::new(), Vec::new());
        };
        let through = *through_line;
        let mut written: Vec<Place> = places.extract_if(.., |place| place.first_line <= through).collect();
        written.sort_unstable_by_key(|place| place.first_line);
        let mut later = failures.split_off(&(through + 1));
        // Neighbours of the same fate are one failure, also where one of them is not settled in line yet.
        if let Some((_, last)) = failures.iter_mut().next_back()
            && last.last_line > through
        {
            later.insert(through + 1, Failure { first_line: through + 1, ..last.clone() });
            last.last_line = through;
        }
        let failed = std::mem::replace(failures, later).into_values().collect();
        (written, failed)
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    pub(crate) fn next_line(&self) -> u64 {
        self.0.state.borrow().next_line
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// The lines up to `next_line` (excluded) have come; `records` of them, of `bytes` as framed, are on their way.
    /// Called before any of them can be settled.
    pub(crate) fn handle_appended(&self, next_line: u64, records: u64, bytes: usize) {
        let mut state = self.0.state.borrow_mut();
        if next_line == state.next_line {
            return;
        }
        state.next_line = next_line;
        state.open += records;
        state.open_bytes += bytes;
        match state.segments.back_mut() {
            Some(last) if last.bytes < SEGMENT_BYTES => {
                last.last_line = next_line - 1;
                last.open += records;
                last.bytes += bytes;
            }
            _ => state.segments.push_back(Segment { last_line: next_line - 1, open: records, bytes }),
        }
        if state.advance() {
            self.0.settled.notify_waiters();
        }
    }

    /// One line is refused before it became a record; it does not count among the appended records.
    pub(crate) fn handle_refused(&self, line: u64, cause: Cause) {
        let mut state = self.0.state.borrow_mut();
        state.not_written += 1;
        state.fail(Failure { first_line: line, last_line: line, outcome: Outcome::NotWritten, cause });
    }
}

/// The records of a batch, which `ranges` share out, are in `partition` from `base_offset` on.
pub(crate) fn settle_written(ranges: &[Range], partition: i32, base_offset: Option<i64>, log_append_time: Option<i64>) {
    let mut next_offset = base_offset;
    for of_one in ranges.chunk_by(|a, b| a.delivery.is(&b.delivery)) {
        let shared = &of_one[0].delivery.0;
        let mut state = shared.state.borrow_mut();
        let mut count = 0;
        for range in of_one {
            if let Some(places) = &mut state.places {
                let first_offset = next_offset.map(|offset| offset + count as i64);
                let (first_line, count) = (range.first_line, u64::from(range.count));
                places.push(Place { first_line, count, partition, first_offset, log_append_time });
            }
            count += u64::from(range.count);
            state.settle(range);
        }
        let first_offset = next_offset;
        next_offset = next_offset.map(|offset| offset + count as i64);
        state.written += count;
        state.log_append_time = log_append_time.or(state.log_append_time);
        state.add_written(partition, count, first_offset, next_offset.map(|next| next - 1));
        drop(state);
        shared.settled.notify_waiters();
    }
}

/// The records of a batch, which `ranges` share out, are not written, or nobody can say.
pub(crate) fn settle_failed(ranges: &[Range], outcome: Outcome, cause: &Cause) {
    for of_one in ranges.chunk_by(|a, b| a.delivery.is(&b.delivery)) {
        let shared = &of_one[0].delivery.0;
        let mut state = shared.state.borrow_mut();
        for range in of_one {
            let count = u64::from(range.count);
            match outcome {
                Outcome::Written => unreachable!("a failure is not a success"),
                Outcome::NotWritten => state.not_written += count,
                Outcome::Unknown => state.unknown += count,
            }
            state.fail(Failure {
                first_line: range.first_line,
                last_line: range.first_line + count - 1,
                outcome,
                cause: cause.clone(),
            });
            state.settle(range);
        }
        drop(state);
        shared.settled.notify_waiters();
    }
}

impl State {
    fn settle(&mut self, range: &Range) {
        let count = u64::from(range.count);
        self.open -= count;
        self.open_bytes -= range.bytes as usize;
        let segment = self.segments.partition_point(|s| s.last_line < range.first_line);
        self.segments[segment].open -= count;
        if segment == 0 {
            self.advance();
        }
    }

    fn add_written(&mut self, partition: i32, count: u64, first: Option<i64>, last: Option<i64>) {
        match self.partitions.binary_search_by_key(&partition, |p| p.partition) {
            Ok(at) => {
                let known = &mut self.partitions[at];
                known.count += count;
                known.first_offset = known.first_offset.into_iter().chain(first).min();
                known.last_offset = known.last_offset.max(last);
            }
            Err(at) => self
                .partitions
                .insert(at, PartitionSummary { partition, count, first_offset: first, last_offset: last }),
        }
    }

    /// Moves `through_line` over the segments that have nothing open. True if it moved.
    fn advance(&mut self) -> bool {
        let before = self.through_line;
        while let Some(segment) = self.segments.pop_front_if(|s| s.open == 0) {
            self.through_line = segment.last_line;
        }
        self.through_line != before
    }

    fn fail(&mut self, mut failure: Failure) {
        if self.left_out.is_some_and(|line| line <= failure.first_line) {
            return;
        }
        let alike = |a: &Failure, b: &Failure| a.outcome == b.outcome && a.cause == b.cause;
        if let Some((&first, before)) = self.failures.range(..failure.first_line).next_back()
            && before.last_line + 1 == failure.first_line
            && alike(before, &failure)
        {
            failure.first_line = first;
        }
        if let Some(after) = self.failures.get(&(failure.last_line + 1))
            && alike(after, &failure)
        {
            let after_first = after.first_line;
            failure.last_line = after.last_line;
            self.failures.remove(&after_first);
        }
        self.failures.insert(failure.first_line, failure);
        if self.failures.len() > MAX_FAILURES && self.places.is_none() {
            self.left_out = self.failures.pop_last().map(|(line, _)| line);
        }
    }
}

/// Bytes charged to the process's budget for as long as it lives.
pub struct Charge {
    lease: Rc<Lease>,
    bytes: usize,
}

impl Charge {
    /// Changes the charge to `bytes`.
    pub fn set(&mut self, bytes: usize) {
        self.lease.recharge(self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.lease.release(self.bytes);
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

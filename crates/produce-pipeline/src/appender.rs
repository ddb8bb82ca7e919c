//! A chunk's lines on their way into batches.

use crate::accumulator::{Accumulator, PartitionId};
use crate::delivery::{Delivery, Range};
use crate::outcome::Cause;
use crate::partitioner::partition_for_key;
use crate::pipeline::Shell;
use kafka_records::{HeaderBlock, Record};
use std::cell::RefMut;
use std::fmt;
use tokio::time::Instant;

/// Where a record is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// Any partition: sticky (KIP-794). The key is null.
    Any,
    /// The partition that Java's client picks for this key.
    Key(&'a [u8]),
    /// This partition, which must be below [`Topic::partition_count`](crate::Topic::partition_count), with this key.
    Partition(i32, Option<&'a [u8]>),
}

/// Appends the lines of one chunk, in their order. When it is dropped the chunk counts as consumed: what belongs to
/// idle partitions goes out. It must not be held across an await; the worker can do nothing else meanwhile.
pub struct Appender<'a> {
    acc: RefMut<'a, Accumulator>,
    shell: &'a Shell,
    slot: usize,
    delivery: &'a Delivery,
    timestamp: i64,
    /// When the chunk came: the clock is read once for all of it.
    now: Instant,
    headers: &'a HeaderBlock,
    /// The topic still takes records.
    live: bool,
    partitions: u32,
    /// Where unkeyed records go; [`NOWHERE`] until the first of them.
    sticky: usize,
    /// The line after the last run.
    next_line: u64,
    records: u64,
    bytes: usize,
    sticky_bytes: usize,
    run: Run,
    touched: Vec<usize>,
}

/// No partition.
const NOWHERE: usize = usize::MAX;
/// No partition, and another one.
const NO_RUN: usize = usize::MAX - 1;

/// Lines appended to one partition without a gap, not yet in its batch's ranges. How many there are, its open batch
/// knows: nothing is counted per record.
struct Run {
    /// [`NO_RUN`] between two runs.
    partition: usize,
    /// They are all unkeyed.
    sticky: bool,
    /// What the batch had before them.
    count: u32,
    bytes: usize,
}

impl Run {
    const NONE: Self = Self { partition: NO_RUN, sticky: false, count: 0, bytes: 0 };
}

impl<'a> Appender<'a> {
    pub(crate) fn new(
        shell: &'a Shell,
        slot: usize,
        delivery: &'a Delivery,
        timestamp: i64,
        headers: &'a HeaderBlock,
    ) -> Self {
        let mut acc = shell.acc.borrow_mut();
        Self {
            live: acc.takes_records(slot),
            partitions: acc.partition_count(slot) as u32,
            sticky: NOWHERE,
            next_line: delivery.next_line(),
            records: 0,
            bytes: 0,
            sticky_bytes: 0,
            run: Run::NONE,
            touched: acc.touched_scratch(),
            acc,
            shell,
            slot,
            delivery,
            timestamp,
            now: Instant::now(),
            headers,
        }
    }

    /// The next line is this record; `None` is a null value (a tombstone).
    ///
    /// # Panics
    /// If a given partition is not below the topic's partition count, or the topic has no partition.
    #[inline(always)]
    pub fn append(&mut self, target: Target<'_>, value: Option<&[u8]>) {
        self.append_with(target, value, self.timestamp, self.headers);
    }

    /// The same for a record with a timestamp (ms since the epoch) and headers of its own.
    ///
    /// # Panics
    /// As [`append`](Self::append).
    #[inline(always)]
    pub fn append_with(&mut self, target: Target<'_>, value: Option<&[u8]>, timestamp: i64, headers: &HeaderBlock) {
        let (partition, key) = match target {
            Target::Any => (self.sticky, None),
            Target::Key(key) => (partition_for_key(key, self.partitions) as usize, Some(key)),
            Target::Partition(partition, key) => (partition as usize, key),
        };
        let record = Record { timestamp, key, value, headers };
        // Most lines go where the one before them went.
        if partition == self.run.partition
            && matches!(target, Target::Any) == self.run.sticky
            && self.acc.append(PartitionId { topic: self.slot, index: partition }, record)
        {
            return;
        }
        self.begin_run(partition, matches!(target, Target::Any), record);
    }

    /// Appends the first record of a run. With keys that may be every record.
    #[inline(never)]
    fn begin_run(&mut self, mut partition: usize, sticky: bool, record: Record<'_>) {
        self.end_run();
        if !self.live {
            self.refuse_line(Cause::TopicGone);
            return;
        }
        if sticky && partition == NOWHERE {
            partition = self.acc.sticky(self.slot, self.now);
            self.sticky = partition;
        }
        loop {
            let id = PartitionId { topic: self.slot, index: partition };
            if self.acc.open(id, self.delivery.timeout(), self.now) {
                let (count, bytes) = self.acc.open_size(id);
                if self.acc.append(id, record) {
                    self.run = Run { partition, sticky, count, bytes };
                    return;
                }
            }
            self.acc.close(id);
            self.touch(partition);
            if sticky {
                partition = self.acc.switch_sticky(self.slot, self.now);
                self.sticky = partition;
                self.sticky_bytes = 0;
            }
        }
    }

    /// The next line is empty: it counts as a line, and nothing is written.
    pub fn skip_line(&mut self) {
        self.end_run();
        self.next_line += 1;
    }

    /// The next line is refused by the caller: `not_written` for this reason. The others go on.
    pub fn refuse_line(&mut self, cause: Cause) {
        self.end_run();
        self.delivery.handle_refused(self.next_line, cause);
        self.next_line += 1;
    }

    fn end_run(&mut self) {
        let run = std::mem::replace(&mut self.run, Run::NONE);
        if run.partition == NO_RUN {
            return;
        }
        let id = PartitionId { topic: self.slot, index: run.partition };
        let (count, len) = self.acc.open_size(id);
        let (count, bytes) = (count - run.count, len - run.bytes);
        let range = Range { delivery: self.delivery.clone(), first_line: self.next_line, count, bytes: bytes as u32 };
        self.next_line += u64::from(count);
        self.records += u64::from(count);
        self.bytes += bytes;
        if run.sticky {
            self.sticky_bytes += bytes;
        }
        self.acc.add_range(id, range);
        self.touch(run.partition);
    }

    fn touch(&mut self, partition: usize) {
        if self.acc.touch(PartitionId { topic: self.slot, index: partition }) {
            self.touched.push(partition);
        }
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        self.end_run();
        self.delivery.handle_appended(self.next_line, self.records, self.bytes);
        if self.live {
            let touched = std::mem::take(&mut self.touched);
            self.acc.finish(self.slot, touched, self.sticky_bytes, self.now);
        }
        let effects = self.acc.effects();
        self.shell.apply(effects);
    }
}

impl fmt::Debug for Appender<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appender").field("next_line", &self.next_line).finish_non_exhaustive()
    }
}

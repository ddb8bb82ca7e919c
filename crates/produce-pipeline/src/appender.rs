//! A chunk's lines on their way into batches.

use crate::accumulator::{Accumulator, Full, PartitionId};
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
    headers: &'a HeaderBlock,
    /// The topic still takes records.
    live: bool,
    partitions: u32,
    /// Where unkeyed records go.
    sticky: Option<usize>,
    next_line: u64,
    records: u64,
    bytes: usize,
    sticky_bytes: usize,
    /// Lines appended to one partition without a gap, not yet in its batch's ranges.
    run: Run,
    touched: Vec<usize>,
}

#[derive(Default)]
struct Run {
    partition: usize,
    first_line: u64,
    count: u32,
    bytes: u32,
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
            sticky: None,
            next_line: delivery.next_line(),
            records: 0,
            bytes: 0,
            sticky_bytes: 0,
            run: Run::default(),
            touched: acc.touched_scratch(),
            acc,
            shell,
            slot,
            delivery,
            timestamp,
            headers,
        }
    }

    /// The next line is this record; `None` is a null value (a tombstone).
    ///
    /// # Panics
    /// If a given partition is not below the topic's partition count, or the topic has no partition.
    #[inline]
    pub fn append(&mut self, target: Target<'_>, value: Option<&[u8]>) {
        let line = self.next_line;
        self.next_line += 1;
        if !self.live {
            self.delivery.handle_refused(line, Cause::TopicGone);
            return;
        }
        let (mut partition, key) = match target {
            Target::Any => (self.sticky(), None),
            Target::Key(key) => (partition_for_key(key, self.partitions) as usize, Some(key)),
            Target::Partition(partition, key) => (partition as usize, key),
        };
        let record = Record { timestamp: self.timestamp, key, value, headers: self.headers };
        let framed = loop {
            if self.run.count > 0 && (self.run.partition != partition || self.next_in_run() != line) {
                self.end_run();
            }
            let id = PartitionId { topic: self.slot, index: partition };
            match self.acc.append(id, record, self.delivery.timeout(), Instant::now) {
                Ok(framed) => break framed,
                Err(Full) => {
                    self.end_run();
                    self.acc.close(id);
                    self.touch(partition);
                    if matches!(target, Target::Any) {
                        partition = self.acc.switch_sticky(self.slot, Instant::now());
                        self.sticky = Some(partition);
                        self.sticky_bytes = 0;
                    }
                }
            }
        };
        if self.run.count == 0 {
            self.run = Run { partition, first_line: line, count: 0, bytes: 0 };
        }
        self.run.count += 1;
        self.run.bytes += framed as u32;
        self.records += 1;
        self.bytes += framed;
        if matches!(target, Target::Any) {
            self.sticky_bytes += framed;
        }
    }

    /// The next line is empty: it counts as a line, and nothing is written.
    pub fn skip_line(&mut self) {
        self.next_line += 1;
    }

    /// The next line is refused by the caller: `not_written` for this reason. The others go on.
    pub fn refuse_line(&mut self, cause: Cause) {
        self.delivery.handle_refused(self.next_line, cause);
        self.next_line += 1;
    }

    fn sticky(&mut self) -> usize {
        *self.sticky.get_or_insert_with(|| self.acc.sticky(self.slot, Instant::now()))
    }

    fn next_in_run(&self) -> u64 {
        self.run.first_line + u64::from(self.run.count)
    }

    fn end_run(&mut self) {
        let Run { partition, first_line, count, bytes } = std::mem::take(&mut self.run);
        if count > 0 {
            let range = Range { delivery: self.delivery.clone(), first_line, count, bytes };
            self.acc.add_range(PartitionId { topic: self.slot, index: partition }, range);
            self.touch(partition);
        }
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
            self.acc.finish(self.slot, touched, self.sticky_bytes, Instant::now());
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

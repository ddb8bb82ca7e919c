//! A batch's three ages, each a type, so that bytes which may be on the wire cannot be changed (promise P4):
//! [`Open`] takes records, [`Queued`] waits with its records fixed, [`Head`] is stamped and its bytes are frozen.

use crate::delivery::Range;
use crate::outcome::Cause;
use bytes::Bytes;
use kafka_records::{BatchBuilder, ClosedBatch, Compression, DecodeError, Stamp};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of free buffers that a worker keeps: what a few uploads at their quota have on the wire. A buffer that has to be
/// made anew costs its page faults and its growth, a few per cent of an upload of small records.
const KEPT_BYTES: usize = 16 << 20;

/// Free buffers are not charged to the budget: a worker keeps no more of them than this part of it.
const KEPT_SHARE: usize = 64;

/// The free buffers of one worker. A buffer comes back when the last reference to its batch's bytes goes, be it the
/// partition's or the connection's.
#[derive(Debug)]
pub(crate) struct BufferPool {
    kept_bytes: usize,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// The longest unused first.
    buffers: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl BufferPool {
    /// Buffers from this size on are worth keeping: smaller ones cost less to allocate than to look after.
    const LEAST_BYTES: usize = 16 * 1024;

    /// For a worker of a process whose budget is so large.
    pub(crate) fn new(budget_bytes: usize) -> Self {
        Self { kept_bytes: KEPT_BYTES.min(budget_bytes / KEPT_SHARE), free: Mutex::default() }
    }

    /// A buffer for a batch that is likely to become so large: a recycled one of about that size, else an empty one.
    pub(crate) fn take(&self, likely_bytes: usize) -> Vec<u8> {
        if likely_bytes < Self::LEAST_BYTES {
            return Vec::new();
        }
        let mut free = self.lock();
        // All of a buffer is charged, used or not.
        let fits = |buf: &Vec<u8>| (likely_bytes..=4 * likely_bytes).contains(&buf.capacity());
        let Some(at) = free.buffers.iter().rposition(fits) else { return Vec::new() };
        let buf = free.buffers.remove(at).unwrap_or_default();
        free.bytes -= buf.capacity();
        buf
    }

    fn put(&self, buf: Vec<u8>) {
        if !(Self::LEAST_BYTES..=self.kept_bytes).contains(&buf.capacity()) {
            return;
        }
        let mut free = self.lock();
        free.bytes += buf.capacity();
        free.buffers.push_back(buf);
        while free.bytes > self.kept_bytes {
            free.bytes -= free.buffers.pop_front().map_or(0, |oldest| oldest.capacity());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives its buffer back to the pool when it is dropped.
struct Pooled {
    buf: Vec<u8>,
    pool: Arc<BufferPool>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buf
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.buf));
    }
}

/// Takes records.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) builder: BatchBuilder,
    pub(crate) ranges: Vec<Range>,
    pub(crate) created: Instant,
    /// The delivery timeout of all its records: a request with another one begins another batch.
    pub(crate) timeout: Duration,
    /// What is charged to the budget for it.
    pub(crate) charged: usize,
}

impl Open {
    pub(crate) fn new(buf: Vec<u8>, created: Instant, timeout: Duration) -> Self {
        Self { builder: BatchBuilder::new(buf), ranges: Vec::new(), created, timeout, charged: 0 }
    }

    /// Bytes that it holds of memory.
    pub(crate) fn footprint(&self) -> usize {
        self.builder.capacity() + self.ranges.capacity() * size_of::<Range>()
    }

    pub(crate) fn close(self, compression: Compression) -> Queued {
        Queued {
            closed: self.builder.close(compression),
            ranges: self.ranges,
            created: self.created,
            deadline: self.created + self.timeout,
            charged: self.charged,
        }
    }
}

/// Waits for its turn; its records are fixed, its identity is not.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) closed: ClosedBatch,
    pub(crate) ranges: Vec<Range>,
    pub(crate) created: Instant,
    pub(crate) deadline: Instant,
    pub(crate) charged: usize,
}

impl Queued {
    pub(crate) fn footprint(&self) -> usize {
        self.closed.capacity() + self.ranges.capacity() * size_of::<Range>()
    }

    pub(crate) fn stamp(self, stamp: Stamp, id: u64, pool: &Arc<BufferPool>) -> Head {
        let count = self.closed.count();
        let buf = self.closed.stamp(stamp);
        Head {
            id,
            bytes: Bytes::from_owner(Pooled { buf, pool: pool.clone() }),
            count,
            stamp,
            ranges: self.ranges,
            created: self.created,
            deadline: self.deadline,
            charged: self.charged,
            sent: None,
            attempts: 0,
            maybe_written: false,
        }
    }
}

/// The one stamped batch of its partition: on the wire, or waiting to go there again with the same bytes.
#[derive(Debug)]
pub(crate) struct Head {
    /// Tells a late answer from the answer to this batch.
    pub(crate) id: u64,
    pub(crate) bytes: Bytes,
    pub(crate) count: u32,
    pub(crate) stamp: Stamp,
    /// Empty once its records were reported `unknown`, while the wire still has it.
    pub(crate) ranges: Vec<Range>,
    pub(crate) created: Instant,
    pub(crate) deadline: Instant,
    pub(crate) charged: usize,
    /// Since when it is on the wire; `None` while it is not.
    pub(crate) sent: Option<Instant>,
    pub(crate) attempts: u32,
    /// An attempt ended without a definite answer.
    pub(crate) maybe_written: bool,
}

impl Head {
    /// Frames the records anew, without identity: those for which `part` says `Some(n)` into the `n`th batch; `None`
    /// leaves a record out. Only for a batch that is certainly not in the log.
    pub(crate) fn reframe(&self, parts: usize, part: impl Fn(u32) -> Option<usize>) -> Result<Reframed, DecodeError> {
        let mut builders: Vec<_> = (0..parts).map(|_| BatchBuilder::new(Vec::new())).collect();
        let mut codec = Compression::None;
        let mut index = 0;
        for batch in kafka_records::batches(self.bytes.clone()) {
            let batch = batch?;
            codec = batch.compression;
            for record in batch.records(usize::MAX)? {
                let record = record?;
                if let Some(part) = part(index) {
                    builders[part].append(record.as_record());
                }
                index += 1;
            }
        }
        let (ranges, left_out) = split_ranges(&self.ranges, parts, part);
        let batches = builders
            .into_iter()
            .zip(ranges)
            .filter(|(builder, _)| !builder.is_empty())
            .map(|(builder, ranges)| {
                let mut queued = Queued {
                    closed: builder.close(codec),
                    ranges,
                    created: self.created,
                    deadline: self.deadline,
                    charged: 0,
                };
                queued.charged = queued.footprint();
                queued
            })
            .collect();
        Ok(Reframed { batches, left_out })
    }
}

/// What [`Head::reframe`] makes.
pub(crate) struct Reframed {
    pub(crate) batches: Vec<Queued>,
    /// Index within the old batch, and the one-record range of each record that was left out.
    pub(crate) left_out: Vec<(u32, Range)>,
}

/// Deals the ranges of a batch out as [`Head::reframe`] deals its records.
fn split_ranges(
    ranges: &[Range],
    parts: usize,
    part: impl Fn(u32) -> Option<usize>,
) -> (Vec<Vec<Range>>, Vec<(u32, Range)>) {
    let mut dealt: Vec<Vec<Range>> = (0..parts).map(|_| Vec::new()).collect();
    let mut left_out = Vec::new();
    let mut index = 0;
    for range in ranges {
        let mut bytes_left = range.bytes;
        for offset in 0..range.count {
            // Every record takes an equal share, the last one what is left: the sum is what the delivery was told.
            let bytes = if offset + 1 == range.count { bytes_left } else { range.bytes / range.count };
            bytes_left -= bytes;
            let line = range.first_line + u64::from(offset);
            let one = Range { delivery: range.delivery.clone(), first_line: line, count: 1, bytes };
            match part(index) {
                None => left_out.push((index, one)),
                Some(part) => match dealt[part].last_mut() {
                    Some(last)
                        if last.delivery.is(&one.delivery) && last.first_line + u64::from(last.count) == line =>
                    {
                        last.count += 1;
                        last.bytes += bytes;
                    }
                    _ => dealt[part].push(one),
                },
            }
            index += 1;
        }
    }
    (dealt, left_out)
}

/// Why a record that was left out was left out. `causes` is sorted.
pub(crate) fn cause_of(index: u32, causes: &[(u32, Cause)]) -> Option<&Cause> {
    let at = causes.binary_search_by_key(&index, |(at, _)| *at).ok()?;
    Some(&causes[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gets_a_free_buffer_of_about_its_size() {
        let pool = BufferPool::new((4 << 20) * KEPT_SHARE);
        pool.put(Vec::with_capacity(1 << 20));
        pool.put(Vec::with_capacity(20_000));
        assert_eq!(pool.take(1_000).capacity(), 0, "a small one is not worth it");
        assert_eq!(pool.take(30_000).capacity(), 0, "one is too small and the other would be charged whole");
        assert!(pool.take(18_000).capacity() >= 20_000);
        assert!(pool.take(900_000).capacity() >= 1 << 20);
        assert_eq!(pool.take(900_000).capacity(), 0, "each is given out once");
        assert_eq!(pool.lock().bytes, 0);
    }

    #[test]
    fn what_was_free_for_the_longest_makes_room() {
        let pool = BufferPool::new((1 << 20) * KEPT_SHARE);
        pool.put(Vec::with_capacity(2 << 20));
        assert_eq!(pool.lock().bytes, 0, "larger than all that may be kept");
        pool.put(Vec::with_capacity(20_000));
        pool.put(Vec::with_capacity(600_000));
        pool.put(Vec::with_capacity(440_000));
        let mut kept: Vec<_> = pool.lock().buffers.iter().map(Vec::capacity).collect();
        kept.sort_unstable();
        assert_eq!(kept, [440_000, 600_000]);
        assert_eq!(pool.lock().bytes, 1_040_000);
    }
}

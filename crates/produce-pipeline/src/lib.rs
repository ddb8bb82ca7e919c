//! Batching between many uploads and few brokers.
//!
//! ```text
//!  request ── Topic::appender ──▶ Open batch ──▶ Queued ──▶ Head ── sender ──▶ broker
//!     ▲        (a chunk's lines)     one of each per partition                    │
//!     └── Delivery: ranges of lines settled ◀── Accumulator::handle_response ◀────┘
//! ```
//!
//! One [`Pipeline`] belongs to one worker (an OS thread with a current-thread runtime) and shares nothing per record with
//! the others: it has its own accumulator, producer id and connections, one per broker. What is shared is the
//! [`MemoryBudget`], leased in slabs, and the cluster's metadata.
//!
//! In reading order:
//!
//! - `outcome`: what became of a record, and why
//! - `appender`: a chunk's lines on their way into batches
//! - `partitioner`: which partition
//! - `accumulator`: every partition's batches, from the first record to the broker's last word; pure
//! - `batch`: a batch's three ages
//! - `sequence`: sequence numbers and epochs of one partition
//! - `verdict`: what a broker's answer means
//! - `sender`: one broker's connection
//! - `delivery`: what a request waits for
//! - `budget`: memory
//! - `pipeline`: the shell that ties them together

mod accumulator;
mod appender;
mod batch;
mod budget;
mod delivery;
mod outcome;
mod partitioner;
mod pipeline;
mod sender;
mod sequence;
mod verdict;

pub use appender::{Appender, Target};
pub use budget::{BudgetCharge, MemoryBudget};
pub use delivery::{Charge, Delivery, PartitionSummary, Place, Progress, Summary};
pub use outcome::{Cause, Failure, Outcome};
pub use partitioner::{murmur2, partition_for_key};
pub use pipeline::{Pipeline, Topic};

use kafka_client::ErrorCode;
use kafka_records::Compression;
use std::time::Duration;

/// How a worker batches. The default is right for production.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long an open batch waits for more records while its partition is idle. Zero, the default, does not wait:
    /// batches then grow only while the one before them is on the wire, and a lone record goes out at once.
    pub linger: Duration,
    /// A batch takes no further record beyond this many bytes, framing included and before compression. Default
    /// 1,000,000, below brokers' default `message.max.bytes`. A single larger record makes a batch of its own.
    pub batch_bytes: usize,
    /// From appending to the last attempt; then a record is reported `not_written` or `unknown`. Default 30 s.
    pub delivery_timeout: Duration,
    /// Codec of batches. Default none: compression costs more CPU than everything else here together.
    pub compression: Compression,
    /// Whether brokers recognise batches that are sent again (KIP-98). Default true; without it a lost answer makes
    /// duplicates.
    pub idempotence: bool,
    /// Bytes that one delivery may have open before [`Delivery::room`] waits. Default 4 MiB.
    pub delivery_quota: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            linger: Duration::ZERO,
            batch_bytes: 1_000_000,
            delivery_timeout: Duration::from_secs(30),
            compression: Compression::None,
            idempotence: true,
            delivery_quota: 4 << 20,
        }
    }
}

impl Config {
    /// How long a leader may wait for its replicas: a third of the delivery timeout, so that there is time to try again.
    fn replication_timeout(&self) -> Duration {
        (self.delivery_timeout / 3).max(Duration::from_millis(100))
    }
}

/// Told what happens, per batch or per request to a broker and never per record; a place for metrics. Called on worker
/// threads, so it must not block.
pub trait Observer: Send + Sync + 'static {
    /// A batch went to a connection: the first time or again.
    fn batch_sent(&self, records: u32, bytes: usize) {
        let _ = (records, bytes);
    }
    /// That was not the batch's first time.
    fn batch_retried(&self) {}
    /// Records of one batch were settled, so long after the batch was begun.
    fn batch_resolved(&self, outcome: Outcome, records: u32, age: Duration) {
        let _ = (outcome, records, age);
    }
    /// A broker refused a batch, for good or for now.
    fn broker_error(&self, code: ErrorCode) {
        let _ = code;
    }
    /// A Produce request was answered.
    fn produce_round_trip(&self, broker: i32, took: Duration) {
        let _ = (broker, took);
    }
}

/// Observes nothing.
impl Observer for () {}

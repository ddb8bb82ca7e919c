//! Batching between many uploads and few brokers. Contract sketch: bodies come next.
#![allow(missing_docs, clippy::todo, unused_variables, dead_code, reason = "contract sketch")]
use kafka_client::{Cluster, ErrorCode, TopicError};
use kafka_records::{Compression, HeaderBlock};
use std::{rc::Rc, sync::{Arc, atomic::AtomicU64}, time::Duration};

#[derive(Debug, Clone)]
pub struct Config { pub linger: Duration, pub batch_bytes: usize, pub delivery_timeout: Duration, pub compression: Compression, pub idempotence: bool,
    /// Unacknowledged bytes that one delivery (one upload) may hold: 4 MiB.
    pub delivery_quota: usize }
impl Default for Config { fn default() -> Self { todo!() } }

/// The process's memory for records, shared by all workers (leased in slabs).
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<AtomicU64>);
impl MemoryBudget {
    pub fn new(total_bytes: usize) -> Self { todo!() }
    pub fn used(&self) -> usize { todo!() }
    pub fn total(&self) -> usize { todo!() }
    /// Above 80 %: new requests are refused (503), running ones go on.
    pub fn refuses_new(&self) -> bool { todo!() }
}

/// What the pipeline tells about itself, per process; implemented by the bridge's metrics. Called per batch or request to a broker, never per record.
pub trait Observer: Send + Sync + 'static {
    fn batch_sent(&self, records: u32, bytes: usize) {}
    fn batch_resolved(&self, outcome: Outcome, records: u32, since_created: Duration) {}
    fn broker_error(&self, code: ErrorCode) {}
    /// Round trip of one Produce request.
    fn produce_round_trip(&self, broker: i32, took: Duration) {}
}

/// One worker's pipeline: `!Send`, lives in a `LocalSet` of a current-thread runtime. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline(Rc<()>);
impl Pipeline {
    pub fn new(config: Config, cluster: Cluster, budget: MemoryBudget, observer: Arc<dyn Observer>) -> Self { todo!() }
    /// Cached metadata, or one question to the cluster (bounded by the client's own timeouts; callers put their deadline around it).
    pub async fn topic(&self, name: &str) -> Result<Topic, TopicError> { todo!() }
    /// One per request. `first_line`: what the first record's line is called (1, or Kafka-First-Line).
    /// `timeout`: shorter delivery timeout of this request; None: the configuration's.
    pub fn delivery(&self, timeout: Option<Duration>, first_line: u64) -> Delivery { todo!() }
    /// Waits until everything that was appended is resolved. # Cancel safety: safe.
    pub async fn flush(&self) { todo!() }
    /// Resolves everything unresolved at once: never sent → not_written, else unknown. For the end of a drain.
    pub fn abandon(&self) { todo!() }
    pub fn unresolved_records(&self) -> u64 { todo!() }
}

/// A topic as this worker sees it.
#[derive(Clone)]
pub struct Topic(Rc<()>);
impl Topic {
    pub fn name(&self) -> &Arc<str> { todo!() }
    pub fn partition_count(&self) -> i32 { todo!() }
    /// Appends lines of one chunk; dropped at the chunk's end, when idle partitions are sealed and senders woken.
    /// One clock read (the timestamp) per chunk is the caller's. Never held across an await.
    pub fn appender<'a>(&'a self, delivery: &'a Delivery, timestamp_ms: i64, headers: &'a HeaderBlock) -> Appender<'a> { todo!() }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// Sticky (KIP-794). The record's key is null.
    Any,
    /// Java's murmur2 of the key.
    Key(&'a [u8]),
    /// A given partition (must be below `partition_count`), with or without a key.
    Partition(i32, Option<&'a [u8]>),
}
pub struct Appender<'a>(&'a ());
impl Appender<'_> {
    /// The next line is this record. `None` as value is a tombstone.
    pub fn append(&mut self, target: Target<'_>, value: Option<&[u8]>) { todo!() }
    /// The next line is empty: counted as a line, nothing written.
    pub fn skip_line(&mut self) { todo!() }
    /// The next line is refused by the caller (too long, not JSON): not_written with this failure; the others go on.
    pub fn refuse_line(&mut self, cause: Cause) { todo!() }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome { Written, NotWritten, Unknown }

/// Why records were not written or are unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Refused by the caller before it reached the pipeline; `code` is the caller's own (an HTTP error code).
    Refused { code: u32, message: Arc<str> },
    /// No leader or no connection until the deadline, never on the wire.
    NoBroker,
    /// NOT_ENOUGH_REPLICAS until the deadline.
    NotEnoughReplicas,
    /// The deadline passed with the record on the wire or possibly written.
    Deadline,
    /// The topic was deleted, or created again under another id.
    TopicGone,
    /// MESSAGE_TOO_LARGE for a batch of this record alone.
    TooLarge,
    /// The broker refused this record (KIP-467) or its batch.
    Rejected { code: ErrorCode, message: Option<Arc<str>> },
    /// TOPIC_AUTHORIZATION_FAILED and its kin.
    Denied { code: ErrorCode },
    /// The process ended its drain.
    Stopped,
    /// No memory became free until the deadline.
    NoMemory,
}

/// Lines `first..=last` share an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure { pub first_line: u64, pub last_line: u64, pub outcome: Outcome, pub cause: Cause }

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionSummary { pub partition: i32, pub count: u64, /// None where the broker did not tell (duplicate outside its window)
    pub first_offset: Option<i64>, pub last_offset: Option<i64> }

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary { /// All lines, empty ones too.
    pub lines: u64, pub written: u64, pub not_written: u64, pub unknown: u64, /// By partition.
    pub partitions: Vec<PartitionSummary>, /// By first line, at most 100.
    pub failures: Vec<Failure>, pub failures_truncated: bool, /// LogAppendTime of the last acknowledged batch, if the topic stamps it
    pub log_append_time: Option<i64> }

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress { /// Every line up to and including it is resolved.
    pub through_line: u64, pub written: u64, pub not_written: u64, pub unknown: u64 }

/// One request's records on their way. Dropping it drops the waiting, not the records (P5). Cheap to clone.
#[derive(Clone)]
pub struct Delivery(Rc<()>);
impl Delivery {
    /// Waits until this delivery and the process have room for another chunk. Err: no room until the delivery timeout.
    /// Call before polling the body, and again before appending a chunk that came.
    pub async fn room(&self) -> Result<(), Cause> { todo!() }
    /// The same without waiting: true if there is room now.
    pub fn has_room(&self) -> bool { todo!() }
    /// Waits until every line appended so far is resolved.
    pub async fn resolved(&self) { todo!() }
    /// Waits until `progress` differs from `seen`. # Cancel safety: safe.
    pub async fn progressed(&self, seen: Progress) -> Progress { todo!() }
    pub fn progress(&self) -> Progress { todo!() }
    pub fn is_resolved(&self) -> bool { todo!() }
    pub fn summary(&self) -> Summary { todo!() }
    /// Charges `bytes` that the caller holds outside batches (a partial line) to the budget; the guard releases them.
    pub fn charge(&self, bytes: usize) -> Charge { todo!() }
}
/// Bytes charged to the budget until it is dropped.
pub struct Charge(Rc<()>);
impl Charge { pub fn grow_to(&mut self, bytes: usize) { todo!() } }

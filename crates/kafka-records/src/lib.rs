//! Kafka record batches (message format v2, KIP-98) as bytes. Contract sketch: bodies come next.
#![allow(missing_docs, clippy::todo, unused_variables, dead_code, reason = "contract sketch")]
use bytes::Bytes;

/// Length of a batch's header on the wire: what `BatchBuilder` keeps free in front of the records.
pub const BATCH_HEADER_BYTES: usize = 61;

/// Codec ids as in the batch's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression { #[default] None, Gzip, Snappy, Lz4, Zstd }

/// Record headers, encoded once per request and appended to each of its records as bytes.
#[derive(Debug, Clone)]
pub struct HeaderBlock(Vec<u8>);
impl HeaderBlock {
    pub const fn none() -> &'static Self { todo!() }
    /// Keeps order and duplicates; a header key is any UTF-8, a value any bytes or null.
    pub fn new<'a>(headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>) -> Self { todo!() }
}

/// One record to append.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// CreateTime, ms since the epoch.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a HeaderBlock,
}
impl Record<'_> {
    /// An upper bound of what this record takes in a batch (framing included).
    pub fn framed_bound(&self) -> usize { todo!() }
}

/// An open batch: records are framed straight into its buffer, behind 61 bytes kept free for the header.
#[derive(Debug)]
pub struct BatchBuilder { buf: Vec<u8> }
impl BatchBuilder {
    /// Reuses `buf`'s allocation; its content is dropped.
    pub fn new(buf: Vec<u8>) -> Self { todo!() }
    /// The one copy of a payload that is ours.
    pub fn append(&mut self, record: Record<'_>) { todo!() }
    pub fn count(&self) -> u32 { todo!() }
    /// Wire bytes so far, header included, before compression.
    pub fn len(&self) -> usize { todo!() }
    pub fn is_empty(&self) -> bool { todo!() }
    pub fn capacity(&self) -> usize { todo!() }
    /// Ends appending; compresses the records when that makes them smaller (else the batch stays uncompressed).
    /// `scratch` is where compressed bytes go; the buffer that is not used any more comes back as the second value.
    pub fn close(self, compression: Compression) -> ClosedBatch { todo!() }
}

/// A batch that takes no more records and carries no producer identity yet.
#[derive(Debug)]
pub struct ClosedBatch { buf: Vec<u8>, count: u32 }

/// Producer identity and sequence (KIP-98). `Stamp::NONE` (-1, -1, -1) without idempotence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp { pub producer_id: i64, pub producer_epoch: i16, pub base_sequence: i32 }
impl Stamp { pub const NONE: Self = Self { producer_id: -1, producer_epoch: -1, base_sequence: -1 }; }

impl ClosedBatch {
    pub fn count(&self) -> u32 { todo!() }
    pub fn len(&self) -> usize { todo!() }
    pub fn is_empty(&self) -> bool { todo!() }
    pub fn capacity(&self) -> usize { todo!() }
    /// Writes the header and the CRC32C in one pass. The bytes are final: nothing changes them afterwards (P4).
    pub fn stamp(self, stamp: Stamp) -> Vec<u8> { todo!() }
    /// The records as they were appended (a closed batch can be taken apart and framed anew: split, siblings of a refused record).
    pub fn records(&self) -> Result<Records, DecodeError> { todo!() }
}

/// Typed reasons why bytes are not record batches. Never a panic, never more memory than the input plus `max_inflated`.
#[derive(Debug, thiserror::Error)]
#[error("sketch")]
pub struct DecodeError;

/// Reads a Fetch response's records field: whole batches, one after the other; a truncated last one ends it quietly.
pub fn batches(records: Bytes) -> Batches { todo!() }
pub struct Batches(());
impl Iterator for Batches { type Item = Result<Batch, DecodeError>; fn next(&mut self) -> Option<Self::Item> { todo!() } }

/// One batch, header decoded and CRC checked.
#[derive(Debug, Clone)]
pub struct Batch { pub base_offset: i64, pub last_offset_delta: i32, pub count: u32, pub compression: Compression, pub is_control: bool,
    pub is_transactional: bool, pub log_append_time: bool, pub base_timestamp: i64, pub max_timestamp: i64, pub producer_id: i64, pub producer_epoch: i16, pub base_sequence: i32, pub leader_epoch: i32 }
impl Batch {
    pub fn next_offset(&self) -> i64 { self.base_offset + i64::from(self.last_offset_delta) + 1 }
    /// Inflates (never past `max_inflated`) and iterates.
    pub fn records(&self, max_inflated: usize) -> Result<Records, DecodeError> { todo!() }
}
pub struct Records(());
impl Iterator for Records { type Item = Result<ReadRecord, DecodeError>; fn next(&mut self) -> Option<Self::Item> { todo!() } }
/// A record read back; slices of the batch, no copy.
#[derive(Debug, Clone)]
pub struct ReadRecord { pub offset: i64, pub timestamp: i64, pub key: Option<Bytes>, pub value: Option<Bytes>, pub headers: Vec<(Bytes, Option<Bytes>)> }

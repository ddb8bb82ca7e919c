//! Where the fields of a batch's header lie (see the drawing in the crate's documentation) and what the attributes say.

/// Length of a batch's header on the wire: what [`BatchBuilder`](crate::BatchBuilder) keeps free in front of the records.
pub const BATCH_HEADER_BYTES: usize = 61;

/// The only message format handled here.
pub(crate) const MAGIC: u8 = 2;

pub(crate) const BASE_OFFSET: usize = 0;
pub(crate) const BATCH_LENGTH: usize = 8;
pub(crate) const LEADER_EPOCH: usize = 12;
pub(crate) const MAGIC_AT: usize = 16;
pub(crate) const CRC: usize = 17;
/// Also where the CRC begins to count.
pub(crate) const ATTRIBUTES: usize = 21;
pub(crate) const LAST_OFFSET_DELTA: usize = 23;
pub(crate) const BASE_TIMESTAMP: usize = 27;
pub(crate) const MAX_TIMESTAMP: usize = 35;
pub(crate) const PRODUCER_ID: usize = 43;
pub(crate) const PRODUCER_EPOCH: usize = 51;
pub(crate) const BASE_SEQUENCE: usize = 53;
pub(crate) const RECORD_COUNT: usize = 57;

/// Bytes in front of what the batch length counts: itself and the base offset.
pub(crate) const LENGTH_PREFIX_BYTES: usize = 12;

/// Bits of the attributes: the codec's id in the lowest three, then flags.
pub(crate) const CODEC_MASK: i16 = 0b111;
pub(crate) const LOG_APPEND_TIME: i16 = 1 << 3;
pub(crate) const TRANSACTIONAL: i16 = 1 << 4;
pub(crate) const CONTROL: i16 = 1 << 5;

/// A record's fields are one byte each at the least: length, attributes, timestamp delta, offset delta, key length,
/// value length, header count.
pub(crate) const MIN_RECORD_BYTES: usize = 7;

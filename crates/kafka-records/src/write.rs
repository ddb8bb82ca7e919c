//! Framing records into a batch, and closing and stamping it.

use crate::{
    Compression, DecodeError, HeaderBlock, Records,
    compression::{compress, inflate},
    header::{
        ATTRIBUTES, BASE_OFFSET, BASE_SEQUENCE, BASE_TIMESTAMP, BATCH_HEADER_BYTES, BATCH_LENGTH, CRC,
        LAST_OFFSET_DELTA, LEADER_EPOCH, LENGTH_PREFIX_BYTES, MAGIC, MAGIC_AT, MAX_TIMESTAMP, PRODUCER_EPOCH,
        PRODUCER_ID, RECORD_COUNT,
    },
    records::Numbering,
    varint,
};

/// What an empty builder allocates for its first record: a lone record should not cost a page fault more than it needs.
const INITIAL_BYTES: usize = 4 << 10;

/// The zigzag of −1, the length of what is null.
const NULL: u8 = 1;

/// Kafka counts a batch's bytes in an `i32`.
const MAX_BATCH_BYTES: usize = i32::MAX as usize;

/// One record to append.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// CreateTime in milliseconds since the epoch. May be lower than that of the record before.
    pub timestamp: i64,
    /// The key, or null. An empty key is not null.
    pub key: Option<&'a [u8]>,
    /// The value, or null (a tombstone in compacted topics). An empty value is not null.
    pub value: Option<&'a [u8]>,
    /// The headers; [`HeaderBlock::none`] when there are none.
    pub headers: &'a HeaderBlock,
}

impl Record<'_> {
    /// Framing that a record takes beside key, value and headers, at the most.
    const FRAMING_BOUND: usize = 4 * varint::MAX_VARINT_BYTES + varint::MAX_VARLONG_BYTES + 1;

    /// An upper bound of the bytes that this record takes in a batch, framing included. At most 31 bytes too high.
    #[inline]
    pub fn framed_bound(&self) -> usize {
        Self::FRAMING_BOUND
            + self.key.map_or(0, <[u8]>::len)
            + self.value.map_or(0, <[u8]>::len)
            + self.headers.encoded_len()
    }
}

/// An open batch: records are framed straight into its buffer, behind the 61 bytes kept free for the header.
///
/// ```text
///  0          61                 end           buf.len()      buf.capacity()
///  ├──────────┼──────────────────┼─────────────┼──────────────┤
///  │ (header) │ record record …  │ initialised │ not yet      │
///  └──────────┴──────────────────┴─────────────┴──────────────┘
/// ```
///
/// The buffer's length runs ahead of the records so that an append is one comparison and plain writes into a slice. It
/// grows by doubling, first within the capacity, so no byte is initialised far before it is needed; a recycled buffer
/// keeps the bytes that it has.
#[derive(Debug)]
pub struct BatchBuilder {
    buf: Vec<u8>,
    /// Where the next record goes. At least 61; `buf` may be shorter than that only while there is no record.
    end: usize,
    count: u32,
    /// That of the first record; meaningless without one.
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch in `buf`, whose content is dropped and whose allocation is reused. An empty `Vec` is cheap: it
    /// allocates 4 KiB with the first record and doubles from there.
    ///
    /// A buffer that comes back from [`ClosedBatch::stamp`] is best handed over as it is: `clear` would make its bytes
    /// count as uninitialised, and they would be zeroed again.
    pub fn new(buf: Vec<u8>) -> Self {
        Self { buf, end: BATCH_HEADER_BYTES, count: 0, base_timestamp: 0, max_timestamp: i64::MIN }
    }

    /// Frames `record` behind the others: the one copy of a payload that is ours.
    ///
    /// # Panics
    /// If the batch would pass `i32::MAX` bytes, Kafka's limit. Callers mostly have a lower one of their own:
    /// [`try_append`](Self::try_append).
    #[inline]
    pub fn append(&mut self, record: Record<'_>) {
        assert!(self.try_append(record, MAX_BATCH_BYTES), "a record batch passes what Kafka can count");
    }

    /// The same if the batch surely stays within `limit` bytes, by [`Record::framed_bound`]; else nothing happens, and
    /// it says false.
    // Part of the loop over a chunk's lines: as a call it costs a fifth more.
    #[inline(always)]
    pub fn try_append(&mut self, record: Record<'_>, limit: usize) -> bool {
        let needed = self.end + record.framed_bound();
        if needed > self.buf.len() {
            if needed > limit.min(MAX_BATCH_BYTES) {
                return false;
            }
            self.grow(needed);
        } else if needed > limit {
            return false;
        }
        if self.count == 0 {
            self.base_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);

        // Readers add with wrap-around too, so that any two timestamps have a difference.
        let timestamp = varint::zigzag(record.timestamp.wrapping_sub(self.base_timestamp));
        let offset = u64::from(self.count) << 1;
        let value = Field::new(record.value);
        let out = &mut self.buf[self.end..needed];
        self.count += 1;
        let framed = if record.key.is_none() && record.headers.is_empty() {
            frame_plain(out, timestamp, offset, value)
        } else {
            frame(out, timestamp, offset, Field::new(record.key), value, record.headers)
        };
        self.end += framed;
        true
    }

    /// Records so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Wire bytes so far, header included, before compression.
    pub fn len(&self) -> usize {
        self.end
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that the buffer holds of memory, used or not: what a memory budget charges.
    pub fn capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// Ends appending; compresses the records when that makes them smaller (else the batch stays uncompressed).
    ///
    /// While it compresses, up to twice the batch's bytes are held. Closing a batch without records is allowed, but
    /// a broker refuses it.
    pub fn close(mut self, compression: Compression) -> ClosedBatch {
        self.buf.resize(self.end, 0);
        let inflated_bytes = self.end - BATCH_HEADER_BYTES;
        let (buf, compression) = match compress(compression, &self.buf) {
            Some(compressed) => (compressed, compression),
            None => (self.buf, Compression::None),
        };
        ClosedBatch {
            buf,
            count: self.count,
            compression,
            inflated_bytes,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
        }
    }

    /// Makes the buffer's length `needed` bytes or more.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, needed: usize) {
        let mut target = needed.max(2 * self.buf.len()).clamp(INITIAL_BYTES, MAX_BATCH_BYTES);
        if needed <= self.buf.capacity() {
            target = target.min(self.buf.capacity());
        }
        self.buf.reserve_exact(target.saturating_sub(self.buf.len()));
        self.buf.resize(target, 0);
    }
}

/// Frames a record without key and headers, which most lines are: two words in front of the value and a byte behind it.
/// `out` has room for the record's bound. Returns what it took of it.
///
/// ```text
///  first: length, attributes, timestamp   second: offset, key (null), value's length   value   headers: none
/// ```
#[inline(always)]
fn frame_plain(out: &mut [u8], timestamp: u64, offset: u64, value: Field<'_>) -> usize {
    // No varint here takes more than three bytes, so the body is longer than the value by no more than this.
    let longest = varint::zigzag_len(value.bytes.len() + 16);
    if timestamp | offset | longest >= varint::SHORT_END {
        return frame(out, timestamp, offset, Field::new(None), value, HeaderBlock::none());
    }
    let (timestamp, timestamp_bytes) = varint::short(timestamp);
    let (offset, offset_bytes) = varint::short(offset);
    let (value_len, value_len_bytes) = varint::short(value.len);
    let body = 1 + timestamp_bytes + offset_bytes + 1 + value_len_bytes + value.bytes.len() + 1;
    let (len, len_bytes) = varint::short(varint::zigzag_len(body));

    // A field's place in its word is behind those before it; attributes are a byte of 0.
    let first = len | timestamp << (8 * (len_bytes + 1));
    let second = offset | u64::from(NULL) << (8 * offset_bytes) | value_len << (8 * (offset_bytes + 1));
    let (first_bytes, second_bytes) = (len_bytes + 1 + timestamp_bytes, offset_bytes + 1 + value_len_bytes);
    out[..8].copy_from_slice(&first.to_le_bytes());
    out[first_bytes..first_bytes + 8].copy_from_slice(&second.to_le_bytes());
    let at = put_bytes(out, first_bytes + second_bytes, value.bytes);
    out[at] = 0;
    at + 1
}

/// Frames any record.
fn frame(
    out: &mut [u8],
    timestamp: u64,
    offset: u64,
    key: Field<'_>,
    value: Field<'_>,
    headers: &HeaderBlock,
) -> usize {
    let body = 1 // Attributes: none is defined for a record.
        + varint::encoded_len(timestamp)
        + varint::encoded_len(offset)
        + key.framed_len()
        + value.framed_len()
        + headers.encoded_len();
    let mut at = varint::put(out, 0, varint::zigzag_len(body));
    out[at] = 0;
    at = varint::put(out, at + 1, timestamp);
    at = varint::put(out, at, offset);
    at = key.put(out, at);
    at = value.put(out, at);
    if headers.is_empty() {
        out[at] = 0;
        at + 1
    } else {
        put_bytes(out, at, &headers.encoded)
    }
}

/// A nullable byte field, its zigzagged length worked out once.
#[derive(Clone, Copy)]
struct Field<'a> {
    bytes: &'a [u8],
    /// Zigzagged.
    len: u64,
}

impl<'a> Field<'a> {
    #[inline]
    fn new(bytes: Option<&'a [u8]>) -> Self {
        match bytes {
            Some(bytes) => Self { bytes, len: varint::zigzag_len(bytes.len()) },
            None => Self { bytes: &[], len: NULL.into() },
        }
    }

    #[inline]
    fn framed_len(self) -> usize {
        varint::encoded_len(self.len) + self.bytes.len()
    }

    #[inline]
    fn put(self, out: &mut [u8], at: usize) -> usize {
        let at = varint::put(out, at, self.len);
        // An unkeyed record should not pay for a copy of nothing.
        if self.bytes.is_empty() { at } else { put_bytes(out, at, self.bytes) }
    }
}

#[inline]
fn put_bytes(out: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let end = at + bytes.len();
    out[at..end].copy_from_slice(bytes);
    end
}

/// A batch that takes no more records and carries no producer identity yet.
#[derive(Debug)]
pub struct ClosedBatch {
    /// The records from byte 61 on, compressed or not; its length is the batch's.
    buf: Vec<u8>,
    count: u32,
    /// How the records in `buf` are compressed.
    compression: Compression,
    /// Bytes of the records before compression.
    inflated_bytes: usize,
    base_timestamp: i64,
    max_timestamp: i64,
}

/// Producer identity and sequence of a batch (KIP-98), by which a broker recognises what it already has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// From InitProducerId.
    pub producer_id: i64,
    /// From InitProducerId, raised when the sequence of a partition has to start again.
    pub producer_epoch: i16,
    /// Sequence number of the batch's first record; the others follow it, and after `i32::MAX` comes 0.
    pub base_sequence: i32,
}

impl Stamp {
    /// No identity: the batch is written without idempotence.
    pub const NONE: Self = Self { producer_id: -1, producer_epoch: -1, base_sequence: -1 };
}

impl ClosedBatch {
    /// Records in the batch.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Wire bytes, header included, after compression.
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that the buffer holds of memory: what a memory budget charges.
    pub fn capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// How the records are compressed: what was asked for, or [`Compression::None`] if that was not smaller.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The records as they were appended, to frame them anew: in halves when the batch is too large for the broker, or
    /// without the one that it refused. Copies, and inflates if need be.
    pub fn records(&self) -> Result<Records, DecodeError> {
        let payload = &self.buf[BATCH_HEADER_BYTES..];
        let bytes = inflate(self.compression, payload, self.inflated_bytes)?;
        let numbering = Numbering {
            base_offset: 0,
            last_offset_delta: self.last_offset_delta(),
            base_timestamp: self.base_timestamp,
            append_time: None,
        };
        Records::new(bytes.into(), self.count, numbering)
    }

    /// Writes the header, with the CRC32C in one pass over the batch, and returns the batch as it goes on the wire: its
    /// length is the batch's, its capacity the buffer's. The bytes are final, nothing changes them afterwards.
    ///
    /// Base offset and leader epoch are the broker's to fill in; a producer sends 0 and −1.
    pub fn stamp(mut self, stamp: Stamp) -> Vec<u8> {
        let length =
            i32::try_from(self.buf.len() - LENGTH_PREFIX_BYTES).expect("grow and compress keep to MAX_BATCH_BYTES");
        let last_offset_delta = self.last_offset_delta();
        let attributes = i16::from(self.compression.id());

        let mut put = |at: usize, bytes: &[u8]| self.buf[at..at + bytes.len()].copy_from_slice(bytes);
        put(BASE_OFFSET, &0_i64.to_be_bytes());
        put(BATCH_LENGTH, &length.to_be_bytes());
        put(LEADER_EPOCH, &(-1_i32).to_be_bytes());
        put(MAGIC_AT, &[MAGIC]);
        put(ATTRIBUTES, &attributes.to_be_bytes());
        put(LAST_OFFSET_DELTA, &last_offset_delta.to_be_bytes());
        put(BASE_TIMESTAMP, &self.base_timestamp.to_be_bytes());
        put(MAX_TIMESTAMP, &self.max_timestamp.to_be_bytes());
        put(PRODUCER_ID, &stamp.producer_id.to_be_bytes());
        put(PRODUCER_EPOCH, &stamp.producer_epoch.to_be_bytes());
        put(BASE_SEQUENCE, &stamp.base_sequence.to_be_bytes());
        put(RECORD_COUNT, &self.count.to_be_bytes());

        let crc = crc_fast::crc32_iscsi(&self.buf[ATTRIBUTES..]);
        self.buf[CRC..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
        self.buf
    }

    fn last_offset_delta(&self) -> i32 {
        i32::try_from(self.count.saturating_sub(1)).expect("each record takes seven of MAX_BATCH_BYTES")
    }
}

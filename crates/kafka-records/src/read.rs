//! Reading batches back: the header, checked whole with its CRC before the batch is handed out. An error ends the
//! iteration, for behind a wrong length nothing can be trusted.

use bytes::Bytes;

use crate::{
    Compression, DecodeError,
    compression::inflate,
    header::{
        ATTRIBUTES, BASE_OFFSET, BASE_SEQUENCE, BASE_TIMESTAMP, BATCH_HEADER_BYTES, BATCH_LENGTH, CODEC_MASK, CONTROL,
        CRC, LAST_OFFSET_DELTA, LEADER_EPOCH, LENGTH_PREFIX_BYTES, LOG_APPEND_TIME, MAGIC, MAGIC_AT, MAX_TIMESTAMP,
        PRODUCER_EPOCH, PRODUCER_ID, RECORD_COUNT, TRANSACTIONAL,
    },
    records::{Numbering, Records},
};

/// Reads a Fetch response's records field: whole batches, one after the other.
///
/// A broker cuts the field off at the size that was asked for, so a truncated last batch ends the iteration quietly.
/// A batch may begin before the offset that was fetched: it comes whole, the caller skips.
pub fn batches(records: Bytes) -> Batches {
    Batches { rest: records, at: 0 }
}

/// Iterator over [`batches`]. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
    /// Where `rest` begins in the field.
    at: usize,
}

impl Iterator for Batches {
    type Item = Result<Batch, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        match Batch::split_from(&mut self.rest, self.at).transpose()? {
            Ok((batch, len)) => {
                self.at += len;
                Some(Ok(batch))
            }
            Err(error) => {
                self.rest.clear();
                Some(Err(error))
            }
        }
    }
}

/// One batch, header decoded and CRC checked. Its records stay as they came until they are asked for.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Offset of the first record. In a batch that a producer sent and no broker has stored: 0.
    pub base_offset: i64,
    /// Offset of the last record, counted from `base_offset`. Compaction keeps it when it drops that record.
    pub last_offset_delta: i32,
    /// Records in the batch as the header has it; compaction may leave none.
    pub count: u32,
    /// How the records are compressed.
    pub compression: Compression,
    /// The records are markers of a transaction's end, nothing that a producer sent.
    pub is_control: bool,
    /// The records belong to a transaction.
    pub is_transactional: bool,
    /// The broker has set the time: `max_timestamp` is that of every record (`message.timestamp.type=LogAppendTime`).
    pub log_append_time: bool,
    /// What the records' timestamps are counted from, milliseconds since the epoch.
    pub base_timestamp: i64,
    /// The highest timestamp in the batch, milliseconds since the epoch; −1 when there is none.
    pub max_timestamp: i64,
    /// −1 without idempotence, like the two that follow.
    pub producer_id: i64,
    /// See [`Stamp`](crate::Stamp).
    pub producer_epoch: i16,
    /// Sequence number of the first record.
    pub base_sequence: i32,
    /// Epoch of the leader that stored the batch; −1 as a producer sends it.
    pub leader_epoch: i32,
    /// The records, compressed or not.
    payload: Bytes,
}

impl Batch {
    /// The offset to fetch after this batch.
    pub fn next_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta) + 1
    }

    /// Iterates over the records. Compressed ones are inflated first, all at once, to at most `max_inflated` bytes; beside
    /// that, a codec takes what its frame format needs, at most a few MiB. Uncompressed ones need no memory and no bound.
    pub fn records(&self, max_inflated: usize) -> Result<Records, DecodeError> {
        let bytes = match self.compression {
            Compression::None => self.payload.clone(),
            codec => inflate(codec, &self.payload, max_inflated)?.into(),
        };
        Records::new(
            bytes,
            self.count,
            Numbering {
                base_offset: self.base_offset,
                last_offset_delta: self.last_offset_delta,
                base_timestamp: self.base_timestamp,
                append_time: self.log_append_time.then_some(self.max_timestamp),
            },
        )
    }

    /// Takes the batch that `rest` begins with and its length off `rest`; `None` if it is not all there.
    fn split_from(rest: &mut Bytes, at: usize) -> Result<Option<(Self, usize)>, DecodeError> {
        // All formats agree on the fields up to the magic.
        if rest.len() <= MAGIC_AT {
            return Ok(None);
        }
        let magic = rest[MAGIC_AT];
        if magic != MAGIC {
            return Err(DecodeError::UnsupportedMagic { at, magic: magic.cast_signed() });
        }
        let length = i32::from_be_bytes(array(rest, BATCH_LENGTH));
        let len = usize::try_from(length).map_or(0, |length| length.saturating_add(LENGTH_PREFIX_BYTES));
        if len < BATCH_HEADER_BYTES {
            return Err(DecodeError::BatchLength { at, length });
        }
        if rest.len() < len {
            return Ok(None);
        }
        let batch = rest.split_to(len);
        Self::decode(&batch, at).map(|batch| Some((batch, len)))
    }

    /// Decodes a batch that is whole and of format v2.
    fn decode(batch: &Bytes, at: usize) -> Result<Self, DecodeError> {
        let stored = u32::from_be_bytes(array(batch, CRC));
        let computed = crc_fast::crc32_iscsi(&batch[ATTRIBUTES..]);
        if stored != computed {
            return Err(DecodeError::Crc { at, stored, computed });
        }
        let attributes = i16::from_be_bytes(array(batch, ATTRIBUTES));
        let codec = (attributes & CODEC_MASK) as u8;
        let Some(compression) = Compression::from_id(codec) else {
            return Err(DecodeError::UnknownCompression { at, id: codec });
        };
        let refuse = |field, value| Err(DecodeError::HeaderField { at, field, value });
        let base_offset = i64::from_be_bytes(array(batch, BASE_OFFSET));
        let last_offset_delta = i32::from_be_bytes(array(batch, LAST_OFFSET_DELTA));
        let count = i32::from_be_bytes(array(batch, RECORD_COUNT));
        if last_offset_delta < 0 {
            return refuse("last offset delta", i64::from(last_offset_delta));
        }
        if !(0..i64::MAX - i64::from(last_offset_delta)).contains(&base_offset) {
            return refuse("base offset", base_offset);
        }
        let Ok(count) = u32::try_from(count) else {
            return refuse("record count", i64::from(count));
        };
        Ok(Self {
            base_offset,
            last_offset_delta,
            count,
            compression,
            is_control: attributes & CONTROL != 0,
            is_transactional: attributes & TRANSACTIONAL != 0,
            log_append_time: attributes & LOG_APPEND_TIME != 0,
            base_timestamp: i64::from_be_bytes(array(batch, BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(array(batch, MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(array(batch, PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(array(batch, PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(array(batch, BASE_SEQUENCE)),
            leader_epoch: i32::from_be_bytes(array(batch, LEADER_EPOCH)),
            payload: batch.slice(BATCH_HEADER_BYTES..),
        })
    }
}

/// A header field. The caller has compared the length.
fn array<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    header[at..at + N].try_into().expect("a slice of N bytes")
}

//! Why bytes are not record batches.

use std::io;

use crate::Compression;

/// Bytes that are not a record batch of format v2, or not one within the caller's bounds. Decoding ends with the first.
///
/// Positions count from the start of what was decoded: the records field for a batch, the inflated records of
/// the batch for a record.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A message set of Kafka before 0.11 (magic 0 or 1), or something that no Kafka has written yet.
    #[error("record batch at byte {at} has message format {magic}, only 2 is read")]
    UnsupportedMagic {
        /// Where the batch begins.
        at: usize,
        /// The format that it names.
        magic: i8,
    },
    /// A batch length that leaves no room for the header.
    #[error("record batch at byte {at} claims a length of {length} bytes, its header alone takes 49")]
    BatchLength {
        /// Where the batch begins.
        at: usize,
        /// The batch length field, which counts from behind itself.
        length: i32,
    },
    /// The bytes are not those that were written.
    #[error("record batch at byte {at} has CRC32C {stored:#010x} in its header, its bytes have {computed:#010x}")]
    Crc {
        /// Where the batch begins.
        at: usize,
        /// The header's.
        stored: u32,
        /// That of the bytes.
        computed: u32,
    },
    /// The attributes name a codec that does not exist.
    #[error("record batch at byte {at} has unknown compression {id}")]
    UnknownCompression {
        /// Where the batch begins.
        at: usize,
        /// The codec's id.
        id: u8,
    },
    /// A header field that contradicts the protocol or another field.
    #[error("record batch at byte {at} has {field} {value}")]
    HeaderField {
        /// Where the batch begins.
        at: usize,
        /// The field, as Kafka calls it.
        field: &'static str,
        /// Its value.
        value: i64,
    },
    /// More records than the bytes can hold.
    #[error("record batch claims {count} records in {bytes} bytes")]
    RecordCount {
        /// The header's record count.
        count: u32,
        /// Bytes of the records, inflated.
        bytes: usize,
    },
    /// The compressed records are not what the codec writes.
    #[error("{codec} records do not inflate")]
    Inflate {
        /// The batch's codec.
        codec: Compression,
        /// What the codec says.
        source: io::Error,
    },
    /// The records inflate to more than the caller allows.
    #[error("{codec} records inflate to more than {limit} bytes")]
    InflatedTooLarge {
        /// The batch's codec.
        codec: Compression,
        /// The caller's bound.
        limit: usize,
    },
    /// A field of a record.
    #[error("record {index} of the batch, byte {at}: {field} {problem}")]
    Record {
        /// Which record of the batch, from 0.
        index: u32,
        /// Where the field begins, or would.
        at: usize,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: FieldProblem,
    },
    /// Bytes behind the last record that the header counts.
    #[error("{bytes} bytes follow the last record of the batch")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
}

/// What is wrong with a field of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldProblem {
    /// The record or the batch ends first.
    #[error("is cut off")]
    CutOff,
    /// A varint with more bits than its type.
    #[error("is a varint with too many bits")]
    Overlong,
    /// A length, count or delta that no writer can mean.
    #[error("is out of range: {0}")]
    OutOfRange(i64),
    /// The record is longer than its fields.
    #[error("is {0} bytes longer than the fields in it")]
    Slack(usize),
}

//! The records of a batch, read one by one as they are asked for.

use bytes::Bytes;

use crate::{DecodeError, FieldProblem, HeaderBlock, Record, header::MIN_RECORD_BYTES, varint};

/// What a batch's header says about its records' offsets and timestamps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbering {
    pub(crate) base_offset: i64,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    /// Every record's timestamp, if the broker sets it.
    pub(crate) append_time: Option<i64>,
}

/// A record read back: slices of the batch, or of what it inflated to, which they keep alive as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    /// Where the record is in its partition.
    pub offset: i64,
    /// CreateTime or LogAppendTime, as the batch says; milliseconds since the epoch.
    pub timestamp: i64,
    /// The key, or null.
    pub key: Option<Bytes>,
    /// The value, or null.
    pub value: Option<Bytes>,
    /// The headers, in order, duplicates included.
    pub headers: HeaderBlock,
}

impl ReadRecord {
    /// This record, to be appended to another batch.
    pub fn as_record(&self) -> Record<'_> {
        Record {
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        }
    }
}

/// Iterator over the records of a batch. Ends after the first error, and yields as many records as the header counts or
/// an error.
#[derive(Debug, Clone)]
pub struct Records {
    bytes: Bytes,
    at: usize,
    index: u32,
    count: u32,
    numbering: Numbering,
    ended: bool,
}

impl Records {
    /// The bytes that the records are slices of, and keep alive: the batch's own, or what it inflated to.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn new(bytes: Bytes, count: u32, numbering: Numbering) -> Result<Self, DecodeError> {
        if count as usize > bytes.len() / MIN_RECORD_BYTES {
            return Err(DecodeError::RecordCount { count, bytes: bytes.len() });
        }
        Ok(Self { bytes, at: 0, index: 0, count, numbering, ended: false })
    }

    fn decode(&mut self) -> Result<ReadRecord, DecodeError> {
        let mut fields = Fields { bytes: &self.bytes, at: self.at, index: self.index };
        // The record's own end bounds every field in it.
        let (start, end) = fields.bytes("length")?;
        fields.at = start;
        fields.bytes = &self.bytes[..end];

        fields.take("attributes", 1)?; // No bit is defined for a record.
        let timestamp_delta = fields.varlong("timestamp delta")?;
        let offset_at = fields.at;
        let offset_delta = fields.varint("offset delta")?;
        if !(0..=self.numbering.last_offset_delta).contains(&offset_delta) {
            let problem = FieldProblem::OutOfRange(i64::from(offset_delta));
            return Err(fields.error(offset_at, "offset delta", problem));
        }
        let key = fields.nullable_bytes("key")?;
        let value = fields.nullable_bytes("value")?;
        let headers = fields.headers()?;
        if fields.at < end {
            return Err(fields.error(self.at, "length", FieldProblem::Slack(end - fields.at)));
        }

        let slice = |(start, end)| self.bytes.slice(start..end);
        let timestamp = || self.numbering.base_timestamp.wrapping_add(timestamp_delta);
        let record = ReadRecord {
            offset: self.numbering.base_offset + i64::from(offset_delta),
            timestamp: self.numbering.append_time.unwrap_or_else(timestamp),
            key: key.map(slice),
            value: value.map(slice),
            headers: headers.map(slice).map_or_else(HeaderBlock::default, HeaderBlock::from_checked),
        };
        self.at = end;
        self.index += 1;
        Ok(record)
    }
}

impl Iterator for Records {
    type Item = Result<ReadRecord, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = if self.index < self.count {
            Some(self.decode())
        } else {
            let bytes = self.bytes.len() - self.at;
            self.ended = true;
            (bytes > 0).then_some(Err(DecodeError::TrailingBytes { bytes }))
        };
        self.ended |= matches!(item, Some(Err(_)));
        item
    }
}

/// Where a field's bytes lie: start and end.
type Span = (usize, usize);

/// Takes fields off the front of `bytes[at..]`, each compared with what is left.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The record, for errors.
    index: u32,
}

impl Fields<'_> {
    fn varlong(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        let (value, end) = varint::get(self.bytes, self.at).map_err(|problem| self.error(self.at, field, problem))?;
        self.at = end;
        Ok(varint::unzigzag(value))
    }

    fn varint(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        let at = self.at;
        let value = self.varlong(field)?;
        i32::try_from(value).map_err(|_| self.error(at, field, FieldProblem::Overlong))
    }

    /// The next `len` bytes.
    fn take(&mut self, field: &'static str, len: i32) -> Result<Span, DecodeError> {
        let start = self.at;
        let problem = match usize::try_from(len) {
            Ok(len) if len <= self.bytes.len() - start => {
                self.at += len;
                return Ok((start, self.at));
            }
            Ok(_) => FieldProblem::CutOff,
            Err(_) => FieldProblem::OutOfRange(i64::from(len)),
        };
        Err(self.error(start, field, problem))
    }

    /// Bytes behind their length.
    fn bytes(&mut self, field: &'static str) -> Result<Span, DecodeError> {
        let len = self.varint(field)?;
        self.take(field, len)
    }

    /// Bytes behind their length, which is −1 for null.
    fn nullable_bytes(&mut self, field: &'static str) -> Result<Option<Span>, DecodeError> {
        match self.varint(field)? {
            -1 => Ok(None),
            len => self.take(field, len).map(Some),
        }
    }

    /// The header block, its count included; `None` without headers.
    fn headers(&mut self) -> Result<Option<Span>, DecodeError> {
        let start = self.at;
        let count = self.varint("header count")?;
        if count < 0 {
            let problem = FieldProblem::OutOfRange(i64::from(count));
            return Err(self.error(start, "header count", problem));
        }
        // No memory is taken for the count, and too high a one ends with the bytes.
        for _ in 0..count {
            self.bytes("header key")?;
            self.nullable_bytes("header value")?;
        }
        Ok((count > 0).then_some((start, self.at)))
    }

    fn error(&self, at: usize, field: &'static str, problem: FieldProblem) -> DecodeError {
        DecodeError::Record { index: self.index, at, field, problem }
    }
}

//! `GET /v1/topics/{topic}/partitions/{partition}/records`: reads one partition, with no state between two requests.
//!
//! Any instance can serve the next request: it needs only the `Kafka-Next-Offset` of this one. Records are read into
//! memory once, and become JSON lines as the connection takes them, so the answer itself is never held whole.
//!
//! What is there already is charged to the budget when it is the read's turn to ask a broker, as much of it as there is a
//! share for then. A read that waits for its turn, or for a record, holds nothing: thousands may wait, of which the client
//! lets eight at a time ask a broker, for little. What came is charged until it is written, with what it was inflated
//! to.

use std::borrow::Cow;
use std::fmt::Display;
use std::task::Poll;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use kafka_client::{ErrorCode, Fetched, Isolation, OffsetSpec, TopicInfo};
use kafka_records::{Compression, ReadRecord};
use produce_pipeline::Charge;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::Context;
use super::caller::Caller;
use super::error::ApiError;
use super::params::Query;
use super::respond::{NDJSON, Response};
use super::topics::topic_info;
use crate::config::Verb;
use crate::http1::{PieceStream, ResponseBody};

const NEXT_OFFSET: HeaderName = HeaderName::from_static("kafka-next-offset");
const HIGH_WATERMARK: HeaderName = HeaderName::from_static("kafka-high-watermark");

const MAX_WAIT_MS: u64 = 60_000;
const MAX_RECORDS: usize = 100_000;
const DEFAULT_RECORDS: usize = 10_000;
const MAX_BYTES: i32 = 16 * 1024 * 1024;
const DEFAULT_BYTES: i32 = 1024 * 1024;
/// What a compressed batch may inflate to.
const MAX_INFLATED: usize = 64 * 1024 * 1024;
/// Lines are handed to the connection in pieces of about this size.
const PIECE_BYTES: usize = 32 * 1024;
/// What a read that waits asks for: what comes then is new. A first batch that is larger comes whole (KIP-74).
const WAITING_BYTES: i32 = 64 * 1024;
/// How long Kafka may take beyond the wait that was asked for.
const PATIENCE: Duration = Duration::from_secs(15);

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueFormat {
    Json,
    Text,
    Base64,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Offset(i64),
    Earliest,
    Latest,
    /// The first record of this time or later, ms since the epoch; the end if there is none.
    Timestamp(i64),
}

impl From {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "earliest" => Some(Self::Earliest),
            "latest" => Some(Self::Latest),
            _ => {
                let (timestamp, digits) = match text.strip_prefix("timestamp:") {
                    Some(digits) => (true, digits),
                    None => (false, text),
                };
                let number = digits.parse().ok().filter(|number| *number >= 0 && !digits.starts_with('+'))?;
                Some(if timestamp { Self::Timestamp(number) } else { Self::Offset(number) })
            }
        }
    }
}

/// What a read asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ReadParams {
    from: From,
    max_records: usize,
    max_bytes: i32,
    wait: Duration,
    format: ValueFormat,
}

impl ReadParams {
    fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let mut query = Query::parse(query)?;
        let from = match query.take("offset") {
            None => From::Earliest,
            Some(text) => From::parse(&text).ok_or_else(|| {
                ApiError::bad_request(
                    "offset is a number from 0 on, earliest, latest, or timestamp: and milliseconds since the epoch",
                )
            })?,
        };
        let format = match query.take("value").as_deref() {
            None | Some("json") => ValueFormat::Json,
            Some("text") => ValueFormat::Text,
            Some("base64") => ValueFormat::Base64,
            Some(_) => return Err(ApiError::bad_request("value is json, text or base64")),
        };
        let params = Self {
            from,
            max_records: query.take_number("max_records", 1, MAX_RECORDS)?.unwrap_or(DEFAULT_RECORDS),
            max_bytes: query.take_number("max_bytes", 1, MAX_BYTES)?.unwrap_or(DEFAULT_BYTES),
            wait: Duration::from_millis(query.take_number("wait_ms", 0, MAX_WAIT_MS)?.unwrap_or(0)),
            format,
        };
        query.finish()?;
        Ok(params)
    }
}

/// Reads from a partition and answers with what is there, at most `wait_ms` later if nothing is.
pub(crate) async fn read(
    context: &Context,
    caller: &Caller,
    name: &str,
    partition: i32,
    query: Option<&str>,
) -> Result<Response, ApiError> {
    context.access.check(caller, name, &[Verb::Consume])?;
    let params = ReadParams::parse(query)?;
    let topic = topic_info(context, name).await?;
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    if partition >= count {
        return Err(ApiError::no_partition(name, partition, count));
    }
    if context.budget.refuses_new() {
        return Err(ApiError::overloaded());
    }
    let mut offset = first_offset(context, &topic, partition, params.from).await?;
    let deadline = Instant::now() + params.wait;
    let delivery = context.pipeline.delivery(None, 1);
    let mut charge = delivery.charge(0);
    let mut nothing_there = false;
    loop {
        // The end of a drain does not wait for a record that may never come.
        charge.set(0);
        let waits = nothing_there && !context.stop_reading.is_cancelled();
        let wait = if waits { deadline.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
        let max_bytes = || {
            if waits {
                return params.max_bytes.min(WAITING_BYTES);
            }
            let share = delivery.share(usize::try_from(params.max_bytes).unwrap_or(0));
            charge.set(share);
            i32::try_from(share).unwrap_or(params.max_bytes)
        };
        let fetch = context.cluster.fetch(&topic, partition, offset, Isolation::ReadUncommitted, max_bytes, wait);
        let fetched = tokio::select! {
            fetched = tokio::time::timeout(wait + PATIENCE, fetch) => fetched,
            () = context.stop_reading.cancelled(), if !wait.is_zero() => continue,
        };
        let fetched = match fetched {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(error)) if error.code() == Some(ErrorCode::OFFSET_OUT_OF_RANGE) => {
                return Err(out_of_range(context, &topic, partition, offset).await);
            }
            Ok(Err(error)) => return Err(ApiError::of_client(name, &error)),
            Err(_) => return Err(ApiError::no_broker()),
        };
        let read = collect(&fetched, offset, &params)?;
        // The records are slices of these bytes, or of what they inflated to.
        charge.set(fetched.records.len() + read.inflated_bytes + read.records.capacity() * size_of::<ReadRecord>());
        let moved = read.next_offset > offset;
        offset = read.next_offset;
        if read.records.is_empty() {
            let over = deadline <= Instant::now() || context.stop_reading.is_cancelled();
            // Batches of transaction markers alone move the offset and bring nothing: go on behind them. Where nothing
            // is left, wait on; but not with something that brings neither a record nor a step.
            let behind = moved && offset < fetched.high_watermark;
            if behind || (!over && (moved || fetched.records.is_empty())) {
                nothing_there = fetched.records.is_empty();
                continue;
            }
        }
        return Ok(answer(partition, read, fetched.high_watermark, params.format, charge));
    }
}

/// Where the read begins.
async fn first_offset(context: &Context, topic: &TopicInfo, partition: i32, from: From) -> Result<i64, ApiError> {
    let at = match from {
        From::Offset(offset) => return Ok(offset),
        From::Earliest => OffsetSpec::Earliest,
        From::Latest => OffsetSpec::Latest,
        From::Timestamp(timestamp) => OffsetSpec::Timestamp(timestamp),
    };
    if let Some(offset) = list_offset(context, topic, partition, at).await? {
        return Ok(offset);
    }
    let end = list_offset(context, topic, partition, OffsetSpec::Latest).await?;
    end.ok_or_else(ApiError::no_broker)
}

pub(super) async fn list_offset(
    context: &Context,
    topic: &TopicInfo,
    partition: i32,
    at: OffsetSpec,
) -> Result<Option<i64>, ApiError> {
    match tokio::time::timeout(PATIENCE, context.cluster.list_offset(topic, partition, at)).await {
        Ok(Ok(listed)) => Ok(listed.offset),
        Ok(Err(error)) => Err(ApiError::of_client(&topic.name, &error)),
        Err(_) => Err(ApiError::no_broker()),
    }
}

async fn out_of_range(context: &Context, topic: &TopicInfo, partition: i32, offset: i64) -> ApiError {
    let earliest = list_offset(context, topic, partition, OffsetSpec::Earliest).await;
    let latest = list_offset(context, topic, partition, OffsetSpec::Latest).await;
    match (earliest, latest) {
        (Ok(Some(earliest)), Ok(Some(latest))) => ApiError::bad_request(format!(
            "offset {offset} is not there: the partition's records begin at {earliest} and end before {latest}"
        )),
        (Err(error), _) | (_, Err(error)) => error,
        _ => ApiError::bad_request(format!("offset {offset} is not there")),
    }
}

/// What a fetch brought of what was asked for.
#[derive(Debug)]
struct Read {
    records: Vec<ReadRecord>,
    /// Where the next read goes on.
    next_offset: i64,
    /// What compressed batches were inflated to, which the records keep.
    inflated_bytes: usize,
}

/// Takes records from `offset` on until one of the limits. A batch comes whole, so what lies before `offset` is
/// skipped; control batches are Kafka's own. The first record comes whatever its size.
fn collect(fetched: &Fetched, offset: i64, params: &ReadParams) -> Result<Read, ApiError> {
    let mut read = Read { records: Vec::new(), next_offset: offset, inflated_bytes: 0 };
    let mut bytes = 0;
    let max_bytes = usize::try_from(params.max_bytes).unwrap_or(usize::MAX);
    'batches: for batch in kafka_records::batches(fetched.records.clone()) {
        let broken = |error: &dyn Display, read: Read| {
            tracing::warn!(%error, offset = read.next_offset, "a batch in the log cannot be read");
            // What lies before it is intact, and is answered; the next read begins at what is broken.
            if read.records.is_empty() {
                Err(ApiError::new(500, format!("the batch at offset {} cannot be read: {error}", read.next_offset)))
            } else {
                Ok(read)
            }
        };
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => return broken(&error, read),
        };
        if batch.next_offset() <= read.next_offset {
            continue;
        }
        if !batch.is_control {
            let records = match batch.records(MAX_INFLATED) {
                Ok(records) => records,
                Err(error) => return broken(&error, read),
            };
            if batch.compression != Compression::None {
                read.inflated_bytes += records.held_bytes();
            }
            for record in records {
                let record = match record {
                    Ok(record) => record,
                    Err(error) => return broken(&error, read),
                };
                if record.offset < read.next_offset {
                    continue;
                }
                let size = record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
                let full = read.records.len() == params.max_records || bytes + size > max_bytes;
                if full && !read.records.is_empty() {
                    break 'batches;
                }
                bytes += size;
                read.next_offset = record.offset + 1;
                read.records.push(record);
            }
        }
        read.next_offset = batch.next_offset();
    }
    Ok(read)
}

fn answer(partition: i32, read: Read, high_watermark: i64, format: ValueFormat, charge: Charge) -> Response {
    let lines = RecordLines { partition, records: read.records.into_iter(), format, _charge: charge };
    let mut response = Response::new(ResponseBody::pieces(lines));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, NDJSON);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(NEXT_OFFSET, HeaderValue::from(read.next_offset));
    headers.insert(HIGH_WATERMARK, HeaderValue::from(high_watermark));
    response
}

/// The lines of an answer, written piece by piece.
struct RecordLines {
    partition: i32,
    records: std::vec::IntoIter<ReadRecord>,
    format: ValueFormat,
    _charge: Charge,
}

impl PieceStream for RecordLines {
    fn poll_next(&mut self, _cx: &mut std::task::Context<'_>) -> Poll<Option<Bytes>> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES
            && let Some(record) = self.records.next()
        {
            write_line(&mut piece, self.partition, &record, self.format);
        }
        Poll::Ready((!piece.is_empty()).then(|| piece.into()))
    }
}

/// Writes one record as a JSON line.
fn write_line(out: &mut Vec<u8>, partition: i32, record: &ReadRecord, format: ValueFormat) {
    let head = format!("{{\"partition\":{partition},\"offset\":{},\"timestamp\":{}", record.offset, record.timestamp);
    out.extend_from_slice(head.as_bytes());
    // Keys are names much more often than documents: text wherever they are text.
    let key_format = if format == ValueFormat::Base64 { ValueFormat::Base64 } else { ValueFormat::Text };
    write_member(out, "key", record.key.as_deref(), key_format);
    write_member(out, "value", record.value.as_deref(), format);
    out.extend_from_slice(b",\"headers\":[");
    for (at, (name, value)) in record.headers.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.push(b'[');
        write_string(out, &String::from_utf8_lossy(name));
        out.push(b',');
        match value.map(|value| (value, std::str::from_utf8(value))) {
            None => out.extend_from_slice(b"null"),
            Some((_, Ok(text))) => write_string(out, text),
            Some((bytes, Err(_))) => {
                write_string(out, &BASE64_STANDARD.encode(bytes));
                out.extend_from_slice(b",\"base64\"");
            }
        }
        out.push(b']');
    }
    out.extend_from_slice(b"]}\n");
}

/// Writes `,"name":…`, and `,"name_encoding":"base64"` where the bytes are not what the format asks for.
fn write_member(out: &mut Vec<u8>, name: &str, bytes: Option<&[u8]>, format: ValueFormat) {
    out.extend_from_slice(format!(",\"{name}\":").as_bytes());
    let Some(bytes) = bytes else {
        out.extend_from_slice(b"null");
        return;
    };
    match format {
        ValueFormat::Json
            if serde_json::from_slice::<IgnoredAny>(bytes).is_ok() && std::str::from_utf8(bytes).is_ok() =>
        {
            out.extend_from_slice(&one_line(bytes));
        }
        ValueFormat::Text if let Ok(text) = std::str::from_utf8(bytes) => write_string(out, text),
        _ => {
            write_string(out, &BASE64_STANDARD.encode(bytes));
            out.extend_from_slice(format!(",\"{name}_encoding\":\"base64\"").as_bytes());
        }
    }
}

/// A JSON document as it is. Line ends can stand only between its tokens, and would end our line: they become spaces,
/// and the document stays the same.
fn one_line(document: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\n', b'\r', document).is_none() {
        return Cow::Borrowed(document);
    }
    let space = |&byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte };
    Cow::Owned(document.iter().map(space).collect())
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a vector takes what is written, and a string is JSON");
}

#[cfg(test)]
mod tests;

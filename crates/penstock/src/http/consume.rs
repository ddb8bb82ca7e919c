//! `GET /v1/topics/{topic}/partitions/{partition}/records`: reads one partition, with no state between two requests.
//!
//! Any instance can serve the next request: it needs only the `Kafka-Next-Offset` of this one. Records are read into
//! memory once, and become JSON lines as the connection takes them, so the answer itself is never held whole.
//!
//! What is there already is charged to the budget when it is the read's turn to ask a broker, as much of it as there is a
//! share for then. A read that waits for its turn, or for a record, holds nothing: thousands may wait, of which the client
//! lets eight at a time ask a broker, for little. What came is charged until it is written, with what it was inflated
//! to.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use kafka_client::{Cursor, ErrorCode, Fetched, Isolation, OffsetSpec, Room, TopicInfo};
use kafka_records::ReadRecord;
use produce_pipeline::Charge;
use tokio::time::Instant;

use super::Context;
use super::caller::Caller;
use super::error::ApiError;
use super::group_stream::take_isolation;
use super::params::Query;
use super::record_lines::{PIECE_BYTES, ValueFormat, empty_piece, write_line};
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
/// What a read that waits asks for: what comes then is new. A first batch that is larger comes whole (KIP-74).
const WAITING_BYTES: i32 = 64 * 1024;
/// How long Kafka may take beyond the wait that was asked for.
const PATIENCE: Duration = Duration::from_secs(15);

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
    isolation: Isolation,
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
        let params = Self {
            from,
            max_records: query.take_number("max_records", 1, MAX_RECORDS)?.unwrap_or(DEFAULT_RECORDS),
            max_bytes: query.take_number("max_bytes", 1, MAX_BYTES)?.unwrap_or(DEFAULT_BYTES),
            wait: Duration::from_millis(query.take_number("wait_ms", 0, MAX_WAIT_MS)?.unwrap_or(0)),
            format: ValueFormat::take(&mut query)?,
            isolation: take_isolation(&mut query)?,
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
    let mut offset = first_offset(context, &topic, partition, &params).await?;
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
        let fetch = context.cluster.fetch(&topic, partition, offset, params.isolation, max_bytes, wait);
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
async fn first_offset(
    context: &Context,
    topic: &TopicInfo,
    partition: i32,
    params: &ReadParams,
) -> Result<i64, ApiError> {
    let at = match params.from {
        From::Offset(offset) => return Ok(offset),
        From::Earliest => OffsetSpec::Earliest,
        From::Latest => OffsetSpec::Latest,
        From::Timestamp(timestamp) => OffsetSpec::Timestamp(timestamp),
    };
    if let Some(offset) = list_offset(context, topic, partition, at, params.isolation).await? {
        return Ok(offset);
    }
    let end = list_offset(context, topic, partition, OffsetSpec::Latest, params.isolation).await?;
    end.ok_or_else(ApiError::no_broker)
}

pub(super) async fn list_offset(
    context: &Context,
    topic: &TopicInfo,
    partition: i32,
    at: OffsetSpec,
    isolation: Isolation,
) -> Result<Option<i64>, ApiError> {
    match tokio::time::timeout(PATIENCE, context.cluster.list_offset(topic, partition, at, isolation)).await {
        Ok(Ok(listed)) => Ok(listed.offset),
        Ok(Err(error)) => Err(ApiError::of_client(&topic.name, &error)),
        Err(_) => Err(ApiError::no_broker()),
    }
}

async fn out_of_range(context: &Context, topic: &TopicInfo, partition: i32, offset: i64) -> ApiError {
    let earliest = list_offset(context, topic, partition, OffsetSpec::Earliest, Isolation::ReadUncommitted).await;
    let latest = list_offset(context, topic, partition, OffsetSpec::Latest, Isolation::ReadUncommitted).await;
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

/// Takes records from `offset` on until one of the limits. The first record comes whatever its size.
fn collect(fetched: &Fetched, offset: i64, params: &ReadParams) -> Result<Read, ApiError> {
    let mut cursor =
        Cursor::new(fetched.records.clone(), offset, params.isolation, fetched.aborted.clone(), MAX_INFLATED);
    let mut room = Room::new(params.max_records, usize::try_from(params.max_bytes).unwrap_or(usize::MAX));
    let mut records = Vec::new();
    match cursor.take(&mut records, &mut room) {
        Ok((inflated_bytes, _)) => Ok(Read { records, next_offset: cursor.next_offset(), inflated_bytes }),
        Err(error) => {
            let at = cursor.next_offset();
            tracing::warn!(%error, offset = at, "a batch in the log cannot be read");
            Err(ApiError::new(500, format!("the batch at offset {at} cannot be read: {error}")))
        }
    }
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
        if self.records.len() == 0 {
            return Poll::Ready(None);
        }
        let mut piece = empty_piece();
        while piece.len() < PIECE_BYTES
            && let Some(record) = self.records.next()
        {
            write_line(&mut piece, self.partition, &record, self.format);
        }
        Poll::Ready(Some(piece.into()))
    }
}

#[cfg(test)]
mod tests;

//! `GET /v1/topics/{topic}/records?group=G`: a stream of records for as long as the connection lives.
//!
//! The connection is the member of the group: no instance id, nothing to clean up, any balancer will do. The member stays
//! in its group however slowly its client reads ([`Consumer`] sees to that), and leaves it at once when the client is gone.
//!
//! ```text
//!   brokers ─▶ Consumer ─ poll ─▶ lines ─ a piece at a time, when the one before was taken ─▶ socket
//!                 ▲                                                                             │
//!                 └────── the next poll says that what the last one brought was delivered ──────┘
//! ```
//!
//! As newline-delimited JSON, or as server-sent events (WHATWG HTML, section 9.2), whose ids say how far the stream has come in each
//! partition: `0:12,3:40`, the next offsets. A client that comes back with the last of them as `Last-Event-ID` does not get again what
//! nobody has committed.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use kafka_client::{
    Assignor, Consumer, ConsumerConfig, ConsumerError, Held, Isolation, OffsetReset, PartitionRecords, Room, Wants,
};
use kafka_records::ReadRecord;

use super::Context;
use super::caller::Caller;
use super::error::ApiError;
use super::group_memory::GroupMemory;
use super::groups::{Registered, check_group_name};
use super::params::Query;
use super::record_lines::{PIECE_BYTES, ValueFormat, empty_piece, write_line};
use super::respond::{NDJSON, Response, json_line};
use super::topics::topic_info;
use crate::config::Verb;
use crate::http1::{PieceStream, ResponseBody};

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A sign of life where no record comes, so that nobody on the way takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// What one poll may bring. The next one is fetched while this one is written.
const POLL_BYTES: usize = 1 << 20;
const POLL_RECORDS: usize = 10_000;
/// The pause after something that may pass.
const PAUSE: Duration = Duration::from_secs(1);
/// Bounds of `session_timeout_ms`, those of Kafka's brokers by default.
const SESSION_TIMEOUTS: (u64, u64) = (6_000, 300_000);

/// What a stream asks for.
#[derive(Debug)]
struct StreamParams {
    group: Arc<str>,
    reset: OffsetReset,
    isolation: Isolation,
    commit_delivered: bool,
    assignors: Vec<Assignor>,
    session_timeout: Duration,
    format: ValueFormat,
    events: bool,
    /// Next offsets, from `Last-Event-ID`.
    resume: Vec<(i32, i64)>,
}

impl StreamParams {
    fn parse(query: Option<&str>, headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut query = Query::parse(query)?;
        let group = query.take("group").ok_or_else(|| {
            ApiError::bad_request(
                "group names the consumer group to read as; without one, partitions are read one by one",
            )
        })?;
        check_group_name(&group)?;
        let defaults = ConsumerConfig::default();
        let reset = match query.take("start").as_deref() {
            None | Some("latest") => OffsetReset::Latest,
            Some("earliest") => OffsetReset::Earliest,
            Some(_) => return Err(ApiError::bad_request("start is earliest or latest")),
        };
        let commit_delivered = match query.take("commit").as_deref() {
            None | Some("none") => false,
            Some("delivered") => true,
            Some(_) => return Err(ApiError::bad_request("commit is delivered or none")),
        };
        let assignors = match query.take("assignor").as_deref() {
            None => defaults.assignors,
            Some("range") => vec![Assignor::Range],
            Some("cooperative-sticky") => vec![Assignor::CooperativeSticky],
            Some(_) => return Err(ApiError::bad_request("assignor is range or cooperative-sticky")),
        };
        let session_timeout = query.take_number("session_timeout_ms", SESSION_TIMEOUTS.0, SESSION_TIMEOUTS.1)?;
        let params = Self {
            group: group.as_ref().into(),
            reset,
            isolation: take_isolation(&mut query)?,
            commit_delivered,
            assignors,
            session_timeout: session_timeout.map_or(defaults.session_timeout, Duration::from_millis),
            format: ValueFormat::take(&mut query)?,
            events: accepts_events(headers),
            resume: last_event_id(headers)?,
        };
        query.finish()?;
        Ok(params)
    }
}

/// `isolation=read_committed|read_uncommitted`.
pub(super) fn take_isolation(query: &mut Query<'_>) -> Result<Isolation, ApiError> {
    match query.take("isolation").as_deref() {
        None | Some("read_uncommitted") => Ok(Isolation::ReadUncommitted),
        Some("read_committed") => Ok(Isolation::ReadCommitted),
        Some(_) => Err(ApiError::bad_request("isolation is read_uncommitted or read_committed")),
    }
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = accepted.flat_map(|value| value.split(',')).map(|range| range.split(';').next().unwrap_or(""));
    types.any(|media| media.trim().eq_ignore_ascii_case("text/event-stream"))
}

fn last_event_id(headers: &HeaderMap) -> Result<Vec<(i32, i64)>, ApiError> {
    let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(Vec::new()) };
    let pairs = id.to_str().unwrap_or("?").split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (partition, offset) = pair.split_once(':')?;
            let (partition, offset): (i32, i64) = (partition.parse().ok()?, offset.parse().ok()?);
            (partition >= 0 && offset >= 0).then_some((partition, offset))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| {
            ApiError::bad_request("Last-Event-ID is the id of an event of such a stream: partition:offset,…")
        })
}

/// Joins the group and begins the stream.
pub(crate) async fn stream(
    context: &Rc<Context>,
    caller: &Caller,
    topic: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    context.access.check(caller, topic, &[Verb::Consume])?;
    let params = StreamParams::parse(query, headers)?;
    context.access.check_group(caller, &params.group, &[Verb::Consume])?;
    if context.drain.is_cancelled() {
        return Err(ApiError::draining());
    }
    let topic = topic_info(context, topic).await?;
    if context.budget.refuses_new() {
        return Err(ApiError::overloaded());
    }
    let at_least = params.resume.iter().map(|(partition, offset)| ((topic.name.clone(), *partition), *offset));
    let config = ConsumerConfig {
        group: Some(params.group.clone()),
        assignors: params.assignors,
        session_timeout: params.session_timeout,
        heartbeat_interval: (params.session_timeout / 3).min(Duration::from_secs(3)),
        reset: params.reset,
        isolation: params.isolation,
        auto_commit: params.commit_delivered.then_some(Duration::ZERO),
        at_least: at_least.collect(),
        ..ConsumerConfig::default()
    };
    let memory = Arc::new(GroupMemory(context.budget.clone()));
    let consumer = Arc::new(Consumer::new(&context.cluster, config, memory));
    let registered = context.groups.register(params.group.clone(), &consumer);
    let subscribed = consumer.subscribe(Wants::Topics(vec![topic.name.clone()]));
    subscribed.map_err(|error| ApiError::new(500, error.to_string()))?;
    let drained = context.drain.clone().cancelled_owned();
    let records = RecordStream {
        lines: Lines { format: params.format, events: params.events, told: HashMap::new() },
        taken: Vec::new().into_iter(),
        current: None,
        next: Some(Box::pin(next(consumer, Box::pin(drained)))),
        _registered: registered,
    };
    let mut response = Response::new(ResponseBody::pieces(records));
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, if params.events { EVENT_STREAM } else { NDJSON });
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that gather an answer before they pass it on would hold a stream for ever.
    head.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

type Drained = Pin<Box<tokio_util::sync::WaitForCancellationFutureOwned>>;

/// What comes next in a stream.
enum Next {
    Records(Vec<PartitionRecords>),
    Silence,
    /// The last line, if there is something to say.
    End(Option<ApiError>),
}

type NextFuture = Pin<Box<dyn Future<Output = (Arc<Consumer>, Drained, Next)>>>;

async fn next(consumer: Arc<Consumer>, mut drained: Drained) -> (Arc<Consumer>, Drained, Next) {
    let polled = tokio::select! {
        biased;
        () = &mut drained => {
            // Whatever was handed out has been written, or this would not have been asked for.
            consumer.mark_delivered();
            consumer.close().await;
            return (consumer, drained, Next::End(None));
        }
        polled = consumer.poll(Room::new(POLL_RECORDS, POLL_BYTES), KEEP_ALIVE) => polled,
    };
    let next = match polled {
        Ok(records) if records.is_empty() => Next::Silence,
        Ok(records) => Next::Records(records),
        Err(error) => match last_words(&error) {
            Some(last) => Next::End(Some(last)),
            None => {
                tracing::warn!(%error, "a stream of records waits");
                tokio::time::sleep(PAUSE).await;
                Next::Silence
            }
        },
    };
    (consumer, drained, next)
}

/// What a stream ends with, if it must.
fn last_words(error: &ConsumerError) -> Option<ApiError> {
    match error {
        ConsumerError::Client(error) if error.is_retriable() => None,
        ConsumerError::Client(error) | ConsumerError::Fatal(error) => Some(ApiError::of_client("", error)),
        other => Some(ApiError::new(500, other.to_string())),
    }
}

/// Records of one partition that are being written.
struct Current {
    partition: i32,
    next_offset: i64,
    records: std::vec::IntoIter<ReadRecord>,
    /// Counted until the last of them is written.
    _held: Vec<Held>,
}

/// The lines of a stream, made when the connection takes them.
struct RecordStream {
    lines: Lines,
    taken: std::vec::IntoIter<PartitionRecords>,
    current: Option<Current>,
    /// `None`: the last line has been told.
    next: Option<NextFuture>,
    _registered: Registered,
}

impl RecordStream {
    /// A piece of what was taken; `None`: all of it has been written.
    fn piece(&mut self) -> Option<Bytes> {
        if self.current.is_none() && self.taken.len() == 0 {
            return None;
        }
        let mut piece = empty_piece();
        while piece.len() < PIECE_BYTES {
            let Some(Current { partition, next_offset, records, .. }) = &mut self.current else {
                let Some(PartitionRecords { partition, records, next_offset, held, .. }) = self.taken.next() else {
                    break;
                };
                self.current = Some(Current { partition, next_offset, records: records.into_iter(), _held: held });
                continue;
            };
            match records.next() {
                Some(record) => {
                    let is_last = records.len() == 0;
                    let told = if is_last { *next_offset } else { record.offset + 1 };
                    self.lines.told.insert(*partition, told);
                    let id = is_last && self.taken.len() == 0;
                    self.lines.write(&mut piece, *partition, &record, id);
                }
                None => self.current = None,
            }
        }
        (!piece.is_empty()).then(|| piece.into())
    }
}

impl PieceStream for RecordStream {
    fn poll_next(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(piece) = self.piece() {
                return Poll::Ready(Some(piece));
            }
            let Some(next) = &mut self.next else { return Poll::Ready(None) };
            let (consumer, drained, came) = ready!(next.as_mut().poll(cx));
            match came {
                Next::Records(records) => {
                    self.taken = records.into_iter();
                    self.next = Some(Box::pin(self::next(consumer, drained)));
                }
                Next::Silence => {
                    self.next = Some(Box::pin(self::next(consumer, drained)));
                    return Poll::Ready(Some(self.lines.silence()));
                }
                Next::End(last) => {
                    self.next = None;
                    return Poll::Ready(last.map(|error| self.lines.last(&error)));
                }
            }
        }
    }
}

/// How lines are written.
struct Lines {
    format: ValueFormat,
    events: bool,
    /// Next offsets of what was written, by partition.
    told: HashMap<i32, i64>,
}

impl Lines {
    /// `id`: with an event's id, once in each batch, for it names every partition.
    fn write(&self, out: &mut Vec<u8>, partition: i32, record: &ReadRecord, id: bool) {
        if self.events {
            if id {
                out.extend_from_slice(format!("id: {}\n", self.id()).as_bytes());
            }
            out.extend_from_slice(b"data: ");
        }
        write_line(out, partition, record, self.format);
        if self.events {
            out.push(b'\n');
        }
    }

    fn id(&self) -> String {
        let mut told: Vec<_> = self.told.iter().collect();
        told.sort_unstable();
        let mut id = String::new();
        for (partition, offset) in told {
            let comma = if id.is_empty() { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(id, "{comma}{partition}:{offset}");
        }
        id
    }

    /// An empty line, or a comment: nothing, to whoever reads lines or events.
    fn silence(&self) -> Bytes {
        Bytes::from_static(if self.events { b":\n\n" } else { b"\n" })
    }

    fn last(&self, error: &ApiError) -> Bytes {
        let body = json_line(&super::respond::ErrorBody { error_code: error.code, message: &error.message });
        if !self.events {
            return body.into();
        }
        [b"event: error\ndata: ", &body[..], b"\n"].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_records::HeaderBlock;

    fn record(offset: i64) -> ReadRecord {
        ReadRecord { offset, timestamp: 9, key: None, value: Some("1".into()), headers: HeaderBlock::default() }
    }

    #[test]
    fn events_have_ids_that_say_where_each_partition_is() {
        let lines = Lines { format: ValueFormat::Json, events: true, told: HashMap::from([(3, 40), (0, 12)]) };
        let mut out = Vec::new();
        lines.write(&mut out, 0, &record(11), true);
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            "id: 0:12,3:40\ndata: {\"partition\":0,\"offset\":11,\"timestamp\":9,\"key\":null,\"value\":1,\"headers\":[]}\n\n"
        );
        let mut headers = HeaderMap::new();
        headers.insert("last-event-id", HeaderValue::from_static("0:12,3:40"));
        assert_eq!(last_event_id(&headers).expect("an id"), [(0, 12), (3, 40)]);
        for wrong in ["x", "1", "1:", "-1:4", "1:-4", "1:2;3:4"] {
            headers.insert("last-event-id", HeaderValue::from_static(wrong));
            assert_eq!(last_event_id(&headers).expect_err(wrong).code, 400);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let parse = |query: &str| StreamParams::parse(Some(query), &HeaderMap::new());
        let params =
            parse("group=g&start=earliest&commit=delivered&session_timeout_ms=6000&assignor=range").expect("good");
        assert_eq!((&*params.group, params.reset, params.commit_delivered), ("g", OffsetReset::Earliest, true));
        assert_eq!(params.assignors, [Assignor::Range]);
        for wrong in [
            "",
            "group=",
            "group=g&start=middle",
            "group=g&commit=always",
            "group=g&assignor=sticky",
            "group=g&session_timeout_ms=1",
            "group=g&isolation=none",
            "group=g&offset=1",
        ] {
            assert_eq!(parse(wrong).expect_err(wrong).code, 400);
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/html, Text/Event-Stream;q=0.9"));
        assert!(accepts_events(&headers));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        assert!(!accepts_events(&headers));
    }
}

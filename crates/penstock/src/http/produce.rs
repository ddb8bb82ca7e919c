//! `POST /v1/topics/{topic}/records` and `DELETE …/records`: from a body to records.
//!
//! A request passes every check that needs no body before its body is asked for: access, parameters, encoding, topic,
//! partition, announced length, memory. Then
//!
//! ```text
//!   chunk ─▶ (gzip, zstd) ─▶ LineSplitter ─▶ Appender: framed into a batch
//!     ▲                                          │
//!     └── asked for when Delivery has room ◀─────┘ acknowledged
//! ```
//!
//! A chunk is dropped as soon as its lines are framed. Per record nothing happens but that its end is found, and that
//! it is framed and copied; room, time and memory are looked at once a chunk.
//!
//! What was appended is delivered whether or not the client is still there (P5). A body that breaks off leaves its
//! last, half line unwritten, and the lines before it go on.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use produce_pipeline::{Appender, Cause, Charge, Delivery, Outcome, Target, Topic};
use serde::Serialize;
use serde::de::IgnoredAny;
use tokio::sync::oneshot;

use super::Context;
use super::access::Grant;
use super::body::BodyReader;
use super::caller::Caller;
use super::content_encoding::{ContentEncoding, Decoder};
use super::error::{ApiError, code};
use super::ndjson::{LineSink, LineSplitter};
use super::params::{Key, ProduceParams};
use super::progress::ProgressStream;
use super::respond::{self, NDJSON, Response, UploadResult, json};
use super::whole_body::{Limit, WholeBody, broken_encoding, content_length};
use crate::config::Verb;
use crate::http1::{Body, ResponseBody};

/// How long a client may be silent whose upload reads on beyond the budget: others wait for it.
const RESERVE_PATIENCE: Duration = Duration::from_millis(100);

/// How long a topic that is not in the cached metadata may be asked for. A cluster that answers does so in
/// milliseconds; this is for the first request of a process whose connections are still being made.
pub(super) const TOPIC_LOOKUP: Duration = Duration::from_secs(3);

/// `POST …/records`.
pub(crate) async fn produce(context: &Rc<Context>, caller: &Caller, name: &str, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let Admitted { params, topic, encoding, grant } = match admit(context, caller, name, &head).await {
        Ok(admitted) => admitted,
        Err(error) => return respond::error(&error),
    };
    let awaits_continue = body.awaits_continue();
    let reader = context.body_reader(body, grant);
    let delivery = context.delivery(params.timeout, params.first_line);
    if !params.ndjson {
        return single_record(context, &params, encoding, topic, delivery, reader).await;
    }
    let progress = params.progress;
    let mut upload = Upload::new(context.clone(), params, encoding, topic, delivery, reader);
    if progress {
        return upload_with_progress(context, upload, awaits_continue).await;
    }
    let stopped = upload.read(None).await.err();
    upload.delivery.resolved().await;
    let summary = upload.delivery.summary();
    UploadResult { topic: upload.topic.name(), summary: &summary, stopped: stopped.as_ref() }.response()
}

/// `DELETE …/records`: a tombstone for a key.
pub(crate) async fn tombstone(context: &Rc<Context>, caller: &Caller, name: &str, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let written = async {
        let Admitted { params, topic, .. } = admit(context, caller, name, &head).await?;
        let Key::Fixed(key) = &params.key else {
            return Err(ApiError::bad_request("a tombstone needs a key: the header Kafka-Key or Kafka-Key-Base64"));
        };
        if !body.is_over() {
            return Err(ApiError::bad_request("a tombstone has no body"));
        }
        let target = target(params.partition, Some(key));
        let delivery = context.delivery(params.timeout, 1);
        delivery.room().await.map_err(|cause| ApiError::of_cause(Outcome::NotWritten, &cause))?;
        let timestamp = params.timestamp.unwrap_or_else(now_ms);
        topic.appender(&delivery, timestamp, &params.headers).append(target, None);
        Ok(single_answer(&topic, &delivery, timestamp).await)
    };
    written.await.unwrap_or_else(|error| respond::error(&error))
}

/// A request that may bring its body.
struct Admitted {
    params: ProduceParams,
    topic: Topic,
    encoding: ContentEncoding,
    grant: Grant,
}

/// Every check that needs no body, in the order in which clients learn most.
async fn admit(context: &Rc<Context>, caller: &Caller, name: &str, head: &Parts) -> Result<Admitted, ApiError> {
    let grant = context.access.check(caller, name, &[Verb::Produce])?;
    let config = &context.config;
    let delivery_timeout = config.producer.pipeline.delivery_timeout;
    let mut params = ProduceParams::parse(head.uri.query(), &head.headers, config.producer.validate, delivery_timeout)?;
    params.headers = context.telemetry.with_trace(params.headers);
    let encoding = ContentEncoding::of(&head.headers)?;
    let topic = context.topic(name, TOPIC_LOOKUP).await?;
    if let Some(partition) = params.partition
        && partition >= topic.partition_count()
    {
        return Err(ApiError::no_partition(name, partition, topic.partition_count()));
    }
    if let Some(length) = content_length(&head.headers) {
        let limit = if params.ndjson {
            config.limits.body_bytes
        } else {
            // An encoded record may be larger than what it decodes to, by a little: its decoder judges.
            (encoding == ContentEncoding::Identity).then_some(config.limits.record_bytes as u64)
        };
        if limit.is_some_and(|limit| length > limit) {
            return Err(ApiError::too_large(format!(
                "a body of {length} bytes; the limit is {}",
                limit.unwrap_or_default()
            )));
        }
        if length == 0 && head.method == Method::POST {
            return Err(ApiError::new(code::EMPTY_BODY, "the body is empty"));
        }
    }
    if context.is_draining() {
        return Err(ApiError::draining());
    }
    if context.budget.refuses_new() {
        return Err(ApiError::overloaded());
    }
    // What streams is held back by its share, and may wait.
    if !params.ndjson {
        may_wait(context, &params, &topic)?;
    }
    Ok(Admitted { params, topic, encoding, grant })
}

/// Refuses a single record that could only wait, for a leader that does not answer, when what waits has taken its part of
/// the memory.
fn may_wait(context: &Context, params: &ProduceParams, topic: &Topic) -> Result<(), ApiError> {
    if context.budget.refuses_waiting() && common_target(params).is_some_and(|target| topic.is_stalled(target)) {
        return Err(ApiError::no_memory_for_waiting());
    }
    Ok(())
}

/// Milliseconds since the epoch.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

// ---- one record ----

#[derive(Serialize)]
struct Written<'a> {
    topic: &'a str,
    partition: i32,
    /// Null when the broker knew the record for a repetition, and its place no more.
    offset: Option<i64>,
    timestamp: i64,
}

/// The whole body is one record's value.
async fn single_record(
    context: &Rc<Context>,
    params: &ProduceParams,
    encoding: ContentEncoding,
    topic: Topic,
    delivery: Delivery,
    mut reader: BodyReader,
) -> Response {
    let limit = Limit { bytes: context.config.limits.record_bytes, what: "a record's value" };
    let value = match WholeBody::read(context, &mut reader, encoding, &delivery, limit).await {
        Ok(value) => value,
        Err(error) => return respond::error(&error),
    };
    // Many may have been admitted while none of them had brought anything.
    if let Err(error) = may_wait(context, params, &topic) {
        return respond::error(&error);
    }
    let key = if let Key::Fixed(key) = &params.key { Some(key.as_slice()) } else { None };
    let target = target(params.partition, key);
    let timestamp = params.timestamp.unwrap_or_else(now_ms);
    topic.appender(&delivery, timestamp, &params.headers).append(target, Some(value.bytes()));
    drop(value);
    single_answer(&topic, &delivery, timestamp).await
}

/// Waits for a delivery of one record and tells its place.
async fn single_answer(topic: &Topic, delivery: &Delivery, timestamp: i64) -> Response {
    delivery.resolved().await;
    let summary = delivery.summary();
    match (summary.failures.first(), summary.partitions.first()) {
        (None, Some(partition)) => json(
            StatusCode::OK,
            &Written {
                topic: topic.name(),
                partition: partition.partition,
                offset: partition.first_offset,
                timestamp: summary.log_append_time.unwrap_or(timestamp),
            },
        ),
        // The interface wants the summary's members beside the error.
        _ => UploadResult { topic: topic.name(), summary: &summary, stopped: None }.response(),
    }
}

// ---- lines ----

/// An NDJSON body on its way into a topic.
struct Upload {
    context: Rc<Context>,
    params: ProduceParams,
    topic: Topic,
    delivery: Delivery,
    reader: BodyReader,
    decoder: Option<Decoder>,
    lines: Lines,
}

/// What is kept from chunk to chunk.
struct Lines {
    /// `None` once the body has ended.
    splitter: Option<LineSplitter>,
    /// For what the splitter holds: so many bytes.
    charge: Charge,
    charged: usize,
    /// Where the characters of a key with escapes are put together.
    key: Vec<u8>,
    too_long: Cause,
    decoded: u64,
}

impl Upload {
    fn new(
        context: Rc<Context>,
        params: ProduceParams,
        encoding: ContentEncoding,
        topic: Topic,
        delivery: Delivery,
        reader: BodyReader,
    ) -> Self {
        let max_line = context.config.limits.record_bytes;
        let message = format!("the line is longer than {max_line} bytes");
        let lines = Lines {
            splitter: Some(LineSplitter::new(max_line)),
            charge: delivery.charge(0),
            charged: 0,
            key: Vec::new(),
            too_long: Cause::Refused { code: code::TOO_LARGE, message: message.into() },
            decoded: 0,
        };
        Self { context, params, topic, delivery, reader, decoder: Decoder::new(encoding), lines }
    }

    /// Reads the body to its end. An error says why it was not read further; what it brought until then is appended.
    /// `began` is told when the first chunk has come.
    ///
    /// # Cancel safety
    ///
    /// What was appended stays appended. Of a line that had not ended nothing is written.
    async fn read(&mut self, mut began: Option<oneshot::Sender<()>>) -> Result<(), ApiError> {
        loop {
            let chunk = self.next_chunk().await;
            if let Some(began) = began.take() {
                // Whoever does not wait for it is not told.
                let _ = began.send(());
            }
            let Some(chunk) = chunk? else {
                break;
            };
            self.chunk(chunk).await?;
        }
        let Self { params, topic, delivery, decoder, lines, context, .. } = self;
        if let Some(decoder) = decoder {
            let rest = decoder.finish().map_err(broken_encoding)?;
            lines.append(rest, params, topic, delivery, context)?;
        }
        lines.finish(params, topic, delivery, context);
        if self.delivery.summary().lines == 0 {
            return Err(ApiError::new(code::EMPTY_BODY, "the body is empty"));
        }
        Ok(())
    }

    /// Waits for room, and for what the client sends.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        self.room().await?;
        if self.delivery.is_on_reserve() {
            if let Ok(chunk) = tokio::time::timeout(RESERVE_PATIENCE, self.reader.chunk()).await {
                return chunk;
            }
            // Others go first. What comes now waits in the read buffer until there is room to append it.
            self.delivery.give_back_reserve();
        }
        self.reader.chunk().await
    }

    /// Waits for room, mostly not at all.
    async fn room(&self) -> Result<(), ApiError> {
        if self.delivery.has_room() {
            return Ok(());
        }
        self.delivery.room().await.map_err(|cause| ApiError::of_cause(Outcome::NotWritten, &cause))
    }

    /// Appends the lines that end in `chunk`.
    async fn chunk(&mut self, chunk: Bytes) -> Result<(), ApiError> {
        self.context.metrics.body_bytes(chunk.len());
        if self.decoder.is_none() {
            self.room().await?;
            let Self { params, topic, delivery, lines, context, .. } = self;
            return lines.append(&chunk, params, topic, delivery, context);
        }
        let mut input = &chunk[..];
        loop {
            // A chunk may decode to a thousand times its size: room is asked for before every step.
            self.room().await?;
            tokio::task::coop::consume_budget().await;
            let Self { params, topic, delivery, decoder, lines, context, .. } = self;
            let decoder = decoder.as_mut().expect("seen above");
            let Some(step) = decoder.step(&mut input).map_err(broken_encoding)? else {
                return Ok(());
            };
            lines.append(step, params, topic, delivery, context)?;
        }
    }
}

impl Lines {
    fn append(
        &mut self,
        chunk: &[u8],
        params: &ProduceParams,
        topic: &Topic,
        delivery: &Delivery,
        context: &Context,
    ) -> Result<(), ApiError> {
        self.decoded += chunk.len() as u64;
        if let Some(limit) = context.config.limits.body_bytes
            && self.decoded > limit
        {
            return Err(ApiError {
                close: true,
                ..ApiError::too_large(format!("the body is longer than {limit} bytes"))
            });
        }
        let splitter = self.splitter.as_mut().expect("a body that ended has no chunks");
        let mut sink = Sink::new(params, topic, delivery, &mut self.key, &self.too_long);
        splitter.push(chunk, &mut sink);
        let refused = sink.refused;
        drop(sink);
        if refused > 0 {
            context.metrics.records_refused(refused);
        }
        let held = splitter.held();
        if held != self.charged {
            self.charged = held;
            self.charge.set(held);
        }
        Ok(())
    }

    /// The body ended where it should.
    fn finish(&mut self, params: &ProduceParams, topic: &Topic, delivery: &Delivery, context: &Context) {
        if let Some(splitter) = self.splitter.take() {
            let mut sink = Sink::new(params, topic, delivery, &mut self.key, &self.too_long);
            splitter.finish(&mut sink);
            context.metrics.records_refused(sink.refused);
        }
        self.charge.set(0);
        self.charged = 0;
    }
}

/// Frames lines into the topic's open batches.
struct Sink<'a> {
    appender: Appender<'a>,
    params: &'a ProduceParams,
    /// Where all lines go, if nothing has to be looked for in any of them.
    target: Option<Target<'a>>,
    key: &'a mut Vec<u8>,
    too_long: &'a Cause,
    refused: u64,
}

impl<'a> Sink<'a> {
    fn new(
        params: &'a ProduceParams,
        topic: &'a Topic,
        delivery: &'a Delivery,
        key: &'a mut Vec<u8>,
        too_long: &'a Cause,
    ) -> Self {
        // One clock read a chunk.
        let timestamp = params.timestamp.unwrap_or_else(now_ms);
        let target = if params.validate { None } else { common_target(params) };
        let appender = topic.appender(delivery, timestamp, &params.headers);
        Self { appender, params, target, key, too_long, refused: 0 }
    }

    fn refuse(&mut self, code: u32, message: &Arc<str>) {
        self.refused += 1;
        self.appender.refuse_line(Cause::Refused { code, message: message.clone() });
    }
}

/// Where all records of a request go, if that does not depend on what is in them.
fn common_target(params: &ProduceParams) -> Option<Target<'_>> {
    match &params.key {
        Key::None => Some(target(params.partition, None)),
        Key::Fixed(key) => Some(target(params.partition, Some(key))),
        Key::Pointer { .. } => None,
    }
}

/// Where a record goes that has this partition or key, or neither.
pub(super) fn target(partition: Option<i32>, key: Option<&[u8]>) -> Target<'_> {
    match (partition, key) {
        (None, None) => Target::Any,
        (None, Some(key)) => Target::Key(key),
        (Some(partition), key) => Target::Partition(partition, key),
    }
}

/// Why a line is not one JSON document. JSON is UTF-8 (RFC 8259 section 8.1), and `from_slice` does not look inside the
/// strings that it ignores.
fn json_problem(line: &[u8]) -> Option<String> {
    let text = match std::str::from_utf8(line) {
        Ok(text) => text,
        Err(error) => return Some(error.to_string()),
    };
    serde_json::from_str::<IgnoredAny>(text).err().map(|error| error.to_string())
}

impl LineSink for Sink<'_> {
    #[inline]
    fn line(&mut self, line: &[u8]) {
        match self.target {
            Some(target) => self.appender.append(target, Some(line)),
            None => self.looked_at(line),
        }
    }

    fn empty_line(&mut self) {
        self.appender.skip_line();
    }

    fn long_line(&mut self) {
        self.refused += 1;
        self.appender.refuse_line(self.too_long.clone());
    }
}

impl Sink<'_> {
    /// A line that has a key in it, or must be JSON.
    fn looked_at(&mut self, line: &[u8]) {
        let params = self.params;
        if params.validate
            && let Some(problem) = json_problem(line)
        {
            return self.refuse(code::BAD_REQUEST, &format!("not a JSON document: {problem}").into());
        }
        let key = match &params.key {
            Key::None => None,
            Key::Fixed(key) => Some(key.as_slice()),
            Key::Pointer { pointer, missing } => match pointer.find(line, self.key) {
                Ok(key) => Some(key),
                Err(_) => {
                    self.refused += 1;
                    let cause = Cause::Refused { code: code::BAD_REQUEST, message: missing.clone() };
                    return self.appender.refuse_line(cause);
                }
            },
        };
        self.appender.append(target(params.partition, key), Some(line));
    }
}

/// Answers at once with a stream of progress, and reads the body in a task of its own.
///
/// The task ends with the body: at its end, when the client goes away, when it is too slow, or at the end of a drain.
async fn upload_with_progress(context: &Rc<Context>, mut upload: Upload, awaits_continue: bool) -> Response {
    let delivery = upload.delivery.clone();
    let (began, begin) = oneshot::channel();
    let (finished, last) = oneshot::channel();
    context.spawn(async move {
        let stopped = upload.read(Some(began)).await.err();
        upload.delivery.resolved().await;
        let summary = upload.delivery.summary();
        let line =
            UploadResult { topic: upload.topic.name(), summary: &summary, stopped: stopped.as_ref() }.last_line();
        // The client may be gone: then nobody wants to know.
        let _ = finished.send(line);
    });
    if awaits_continue {
        // The head of the answer would take the place of the `100 Continue` that the client waits for. If the upload
        // ended before a chunk came, its last line says why.
        let _ = begin.await;
    }
    let done = async move { last.await.unwrap_or_default() };
    let mut response = Response::new(ResponseBody::pieces(ProgressStream::new(delivery, done)));
    response.headers_mut().insert(CONTENT_TYPE, NDJSON);
    response
}

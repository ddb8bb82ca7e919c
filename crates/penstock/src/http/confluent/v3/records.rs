//! `POST /v3/clusters/{cluster}/topics/{topic}/records`: a stream of records, and a stream of answers.
//!
//! ```text
//!   chunk ─▶ DocumentSplitter ─▶ Record ─▶ Appender: framed into a batch
//!                                  │ Note                  │
//!                                  ▼                       ▼ settled, in order
//!                                notes ───────────────▶ Answers ─▶ a line a record
//! ```
//!
//! The body is read in a task of its own while the connection writes the answer, so a client may read each answer before it
//! sends the next record, or all of them at the end. What waits to be answered takes a few words a record; it is charged
//! to the memory budget, and a client that has more than [`UNREAD_BYTES`] of it unread is read no further until it reads.
//!
//! A record whose schema is not known yet waits in `Stream::waiting` until the registry has told it, with what follows it in the
//! chunk; all others are read without a detour.
//!
//! A record that cannot be one gets its own error, and the stream goes on. JSON that is none, a body that breaks off and a
//! drain end it, with an error as its last line.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use kafka_records::HeaderBlock;
use produce_pipeline::{Appender, Charge, Delivery, Failure, Outcome, Place, Topic};
use tokio::sync::{Notify, oneshot};

use super::documents::{Broken, DocumentSink, DocumentSplitter};
use super::record::{
    Answered, Bounds, NoRecord, Note, Places, Record, RecordDocument, not_a_record, refused, told, too_large,
    write_error,
};
use crate::config::Verb;
use crate::http::Context;
use crate::http::access::Grant;
use crate::http::body::BodyReader;
use crate::http::caller::Caller;
use crate::http::content_encoding::{ContentEncoding, Decoder};
use crate::http::error::{ApiError, code};
use crate::http::produce::{TOPIC_LOOKUP, now_ms, target};
use crate::http::respond::{JSON, Response};
use crate::http::whole_body::{broken_encoding, content_length};
use crate::http1::{Body, PieceStream, ResponseBody};

/// So much may wait for a client that does not read its answers: about 400,000 records.
const UNREAD_BYTES: usize = 32 << 20;
/// What is remembered of a record until it is answered: here, and where it is in the delivery.
const RECORD_BYTES: usize = size_of::<Note>() + size_of::<Place>();
/// What a refusal takes beside, with its message.
const REFUSAL_BYTES: usize = 512;
/// Answers are written in pieces of about so many bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// A document may be larger than its record: base64, escapes, and what is around.
const DOCUMENT_SHARE: usize = 2;

/// A request that may bring its records.
pub(super) struct Admitted {
    pub(super) topic: Topic,
    pub(super) encoding: ContentEncoding,
    pub(super) grant: Grant,
}

/// Every check that needs no body.
pub(super) async fn admit(
    context: &Rc<Context>,
    caller: &Caller,
    name: &str,
    headers: &HeaderMap,
) -> Result<Admitted, ApiError> {
    let grant = context.access.check(caller, name, &[Verb::Produce])?;
    if let Some(value) = headers.get(CONTENT_TYPE)
        && !is_json(value.as_bytes())
    {
        return Err(ApiError::unsupported_media("application/json"));
    }
    let encoding = ContentEncoding::of(headers)?;
    let topic = context.topic(name, TOPIC_LOOKUP).await?;
    if content_length(headers) == Some(0) {
        return Err(empty());
    }
    if context.is_draining() {
        return Err(ApiError::draining());
    }
    if context.budget.refuses_new() {
        return Err(ApiError::overloaded());
    }
    Ok(Admitted { topic, encoding, grant })
}

/// JSON by any of its names; parameters do not matter.
fn is_json(media_type: &[u8]) -> bool {
    let essence = media_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let essence = essence.to_ascii_lowercase();
    essence == b"application/json" || essence.ends_with(b"+json") || essence == b"*/*"
}

pub(super) fn empty() -> ApiError {
    ApiError::new(code::EMPTY_BODY, "the body is empty")
}

/// Answers with 200 at once, and with a line a record as they are settled.
pub(super) async fn produce(
    context: &Rc<Context>,
    caller: &Caller,
    cluster: String,
    name: &str,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let Admitted { topic, encoding, grant } = admit(context, caller, name, &head.headers).await?;
    if body.is_over() {
        return Err(empty());
    }
    let awaits_continue = body.awaits_continue();
    let delivery = context.delivery(None, 1);
    delivery.keep_places();
    let pending = Rc::new(Pending::new(&delivery));
    let places = Places::new(&cluster, topic.name());
    let mut stream = Stream {
        reader: context.body_reader(body, grant),
        decoder: Decoder::new(encoding),
        splitter: DocumentSplitter::new(DOCUMENT_SHARE * context.config.limits.record_bytes + PIECE_BYTES),
        charge: delivery.charge(0),
        scratch: Vec::new(),
        waiting: Vec::new(),
        decoded_bytes: 0,
        context: context.clone(),
        topic,
        delivery: delivery.clone(),
        pending: pending.clone(),
    };
    let (began, begin) = oneshot::channel();
    context.spawn(async move {
        let end = stream.read(began).await;
        stream.pending.finish(end.err());
    });
    if awaits_continue {
        // The head of the answer would take the place of the `100 Continue` that the client waits for.
        let _ = begin.await;
    }
    let mut response = Response::new(ResponseBody::pieces(Answers::new(Answerer { delivery, pending, places })));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(response)
}

// ---- the body ----

/// The body on its way into the topic.
struct Stream {
    context: Rc<Context>,
    topic: Topic,
    delivery: Delivery,
    pending: Rc<Pending>,
    reader: BodyReader,
    decoder: Option<Decoder>,
    splitter: DocumentSplitter,
    /// For the splitter and the scratch.
    charge: Charge,
    /// Where keys and values are decoded.
    scratch: Vec<u8>,
    /// Documents, of one chunk, that wait for a schema or behind one that does. `None`: one that was too long.
    waiting: Vec<Option<Vec<u8>>>,
    decoded_bytes: u64,
}

impl Stream {
    /// Reads the body to its end. An error says why it was not read further; what it brought until then is appended.
    async fn read(&mut self, began: oneshot::Sender<()>) -> Result<(), ApiError> {
        let mut began = Some(began);
        loop {
            self.room().await?;
            let chunk = self.reader.chunk().await;
            if let Some(began) = began.take() {
                // Whoever does not wait for it is not told.
                let _ = began.send(());
            }
            let Some(chunk) = chunk? else {
                break;
            };
            self.context.metrics.body_bytes(chunk.len());
            self.chunk(&chunk).await?;
        }
        if let Some(mut decoder) = self.decoder.take() {
            self.append(decoder.finish().map_err(broken_encoding)?).await?;
        }
        self.splitter.finish().map_err(broken)?;
        if self.delivery.summary().lines == 0 {
            return Err(empty());
        }
        Ok(())
    }

    /// Waits for memory, and for a client that reads its answers.
    async fn room(&self) -> Result<(), ApiError> {
        self.pending.has_room().await;
        if self.delivery.has_room() {
            return Ok(());
        }
        self.delivery.room().await.map_err(|cause| ApiError::of_cause(Outcome::NotWritten, &cause))
    }

    async fn chunk(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        let Some(mut decoder) = self.decoder.take() else {
            self.room().await?;
            return self.append(chunk).await;
        };
        let mut input = chunk;
        loop {
            // A chunk may decode to a thousand times its size: room is asked for before every step.
            self.room().await?;
            tokio::task::coop::consume_budget().await;
            let Some(step) = decoder.step(&mut input).map_err(broken_encoding)? else {
                self.decoder = Some(decoder);
                return Ok(());
            };
            self.append(step).await?;
        }
    }

    /// Appends the records that end in `chunk`. Those that wait for a schema are appended when it is there, and with them those
    /// that come after.
    async fn append(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        self.decoded_bytes += chunk.len() as u64;
        if let Some(limit) = self.context.config.limits.body_bytes
            && self.decoded_bytes > limit
        {
            return Err(ApiError::too_large(format!("the body is longer than {limit} bytes")));
        }
        let read = self.with_sink(Vec::new(), |sink, splitter| splitter.push(chunk, sink));
        for document in std::mem::take(&mut self.waiting) {
            let Some(document) = document else {
                self.with_sink(Vec::new(), |sink, _| sink.long_document());
                continue;
            };
            let mut found = Vec::new();
            if let Ok(parsed) = serde_json::from_slice::<RecordDocument<'_>>(&document) {
                parsed.find_schemas(&Bounds::of(&self.topic, &self.context), &mut found).await;
            }
            let read = self.with_sink(found, |sink, _| {
                let is_read = sink.read(&document)?;
                if !is_read {
                    sink.refuse(&NoRecord::Waits.refusal());
                }
                Ok(())
            });
            read.map_err(broken)?;
        }
        read.map_err(broken)
    }

    /// Runs `work`, which appends records, and accounts for them; `found` are schemas that were looked for.
    fn with_sink<T>(
        &mut self,
        found: Vec<Answered>,
        work: impl FnOnce(&mut Sink<'_>, &mut DocumentSplitter) -> T,
    ) -> T {
        let mut notes = self.pending.notes.borrow_mut();
        let mut sink = Sink {
            // One clock read a chunk.
            now: now_ms(),
            bounds: Bounds::of(&self.topic, &self.context),
            appender: self.topic.appender(&self.delivery, 0, HeaderBlock::none()),
            found,
            scratch: &mut self.scratch,
            waiting: &mut self.waiting,
            notes: &mut notes.queue,
            refused: 0,
        };
        let done = work(&mut sink, &mut self.splitter);
        let refused = sink.refused;
        drop(sink);
        notes.refused += usize::try_from(refused).unwrap_or_default();
        notes.charge();
        drop(notes);
        self.context.metrics.records_refused(refused);
        let waiting: usize = self.waiting.iter().flatten().map(Vec::capacity).sum();
        self.charge.set(self.splitter.held() + self.scratch.capacity() + waiting);
        done
    }
}

/// 400, the last line: from here on the body is no JSON.
fn broken(Broken(problem): Broken) -> ApiError {
    ApiError { close: true, ..ApiError::bad_request(format!("{problem}; what follows was not read")) }
}

/// Frames records into the topic's open batches.
struct Sink<'a> {
    appender: Appender<'a>,
    bounds: Bounds<'a>,
    now: i64,
    found: Vec<Answered>,
    scratch: &'a mut Vec<u8>,
    waiting: &'a mut Vec<Option<Vec<u8>>>,
    notes: &'a mut VecDeque<Note>,
    refused: u64,
}

impl Sink<'_> {
    fn refuse(&mut self, error: &ApiError) {
        self.refused += 1;
        self.notes.push_back(Note::default());
        self.appender.refuse_line(refused(error));
    }
}

impl Sink<'_> {
    /// Takes one document. `false`: its schema has to be looked for first.
    fn read(&mut self, document: &[u8]) -> Result<bool, Broken> {
        let document: RecordDocument<'_> = match serde_json::from_slice(document) {
            Ok(document) => document,
            Err(error) => match not_a_record(&error) {
                Some(error) => {
                    self.refuse(&error);
                    return Ok(true);
                }
                None => return Err(Broken(format!("a record is no JSON: {error}"))),
            },
        };
        self.scratch.clear();
        let mut record = match Record::read(&document, &self.bounds, &mut self.found, self.scratch) {
            Ok(record) => record,
            Err(NoRecord::Waits) => return Ok(false),
            Err(NoRecord::Refused(error)) => {
                self.refuse(&error);
                return Ok(true);
            }
        };
        let timestamp = *record.timestamp.get_or_insert(self.now);
        record.note.timestamp = timestamp;
        self.notes.push_back(record.note);
        let (key, value) = (record.key.bytes(self.scratch), record.value.bytes(self.scratch));
        let headers = record.headers.as_ref().unwrap_or(HeaderBlock::none());
        self.appender.append_with(target(record.partition, key), value, timestamp, headers);
        Ok(true)
    }
}

impl DocumentSink for Sink<'_> {
    fn document(&mut self, document: &[u8]) -> Result<(), Broken> {
        if !self.waiting.is_empty() || !self.read(document)? {
            self.waiting.push(Some(document.to_vec()));
        }
        Ok(())
    }

    fn long_document(&mut self) {
        if self.waiting.is_empty() {
            self.refuse(&too_large(self.bounds.record_bytes));
        } else {
            self.waiting.push(None);
        }
    }
}

// ---- the answer ----

/// What the reader of the body and the writer of the answer share.
struct Pending {
    notes: RefCell<Notes>,
    /// The body has ended, or a piece of the answer was taken.
    changed: Notify,
}

struct Notes {
    /// One a record, in order; those before were answered.
    queue: VecDeque<Note>,
    /// How many of them were refused here.
    refused: usize,
    charge: Charge,
    /// Once the body has ended: why it was not read to its end, if it was not.
    end: Option<Option<ApiError>>,
    /// Nobody reads the answers any more.
    gone: bool,
}

impl Notes {
    fn charge(&mut self) {
        self.charge.set(self.queue.capacity() * RECORD_BYTES + self.refused * REFUSAL_BYTES);
    }

    fn unread(&self) -> usize {
        self.queue.len() * RECORD_BYTES + self.refused * REFUSAL_BYTES
    }
}

impl Pending {
    fn new(delivery: &Delivery) -> Self {
        let notes = Notes { queue: VecDeque::new(), refused: 0, charge: delivery.charge(0), end: None, gone: false };
        Self { notes: RefCell::new(notes), changed: Notify::new() }
    }

    fn finish(&self, stopped: Option<ApiError>) {
        self.notes.borrow_mut().end = Some(stopped);
        self.changed.notify_waiters();
    }

    /// Waits while too much is unread.
    async fn has_room(&self) {
        loop {
            let changed = self.changed.notified();
            {
                let notes = self.notes.borrow();
                if notes.gone || notes.unread() < UNREAD_BYTES {
                    return;
                }
            }
            changed.await;
        }
    }
}

/// Writes the answers of one request.
struct Answerer {
    delivery: Delivery,
    pending: Rc<Pending>,
    places: Places,
}

/// The client is gone, or has all it asked for: the body's reader waits for nobody.
impl Drop for Answerer {
    fn drop(&mut self) {
        self.pending.notes.borrow_mut().gone = true;
        self.pending.changed.notify_waiters();
    }
}

/// What is known of some consecutive records.
enum Fate {
    Written(Place),
    Failed(Failure),
}

/// The pieces of one answer.
struct Answers {
    next: Option<NextPiece>,
}

type NextPiece = Pin<Box<dyn Future<Output = Option<(State, Bytes)>>>>;

/// An answerer between two pieces.
struct State {
    answerer: Answerer,
    /// Settled and not written yet, in order.
    fates: VecDeque<Fate>,
    /// The record that is answered next.
    next: u64,
    /// The last line is written.
    over: bool,
}

impl Answers {
    fn new(answerer: Answerer) -> Self {
        let state = State { answerer, fates: VecDeque::new(), next: 1, over: false };
        Self { next: Some(Box::pin(state.piece())) }
    }
}

impl PieceStream for Answers {
    fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Bytes>> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        let piece = std::task::ready!(next.as_mut().poll(cx));
        let Some((state, piece)) = piece else {
            self.next = None;
            return Poll::Ready(None);
        };
        self.next = Some(Box::pin(state.piece()));
        Poll::Ready(Some(piece))
    }
}

impl State {
    /// What there is to say, as soon as there is something.
    async fn piece(mut self) -> Option<(Self, Bytes)> {
        if self.over {
            return None;
        }
        let mut piece = Vec::new();
        loop {
            let Answerer { delivery, pending, .. } = &self.answerer;
            let pending = pending.clone();
            let changed = pending.changed.notified();
            let seen = delivery.progress();
            if self.fates.is_empty() {
                let (places, failures) = delivery.take_settled();
                let mut fates: Vec<Fate> =
                    places.into_iter().map(Fate::Written).chain(failures.into_iter().map(Fate::Failed)).collect();
                fates.sort_unstable_by_key(Fate::first_line);
                self.fates = fates.into();
            }
            self.write(&mut piece);
            if !piece.is_empty() {
                pending.changed.notify_waiters();
                return Some((self, piece.into()));
            }
            {
                let mut notes = pending.notes.borrow_mut();
                if notes.queue.is_empty()
                    && let Some(stopped) = notes.end.take()
                {
                    self.over = true;
                    let error = stopped?;
                    piece.push(b'{');
                    write_error(&mut piece, &super::in_confluents_words(error));
                    piece.extend_from_slice(b"\r\n");
                    drop(notes);
                    return Some((self, piece.into()));
                }
            }
            tokio::select! {
                _ = self.answerer.delivery.progressed(seen) => {}
                () = changed => {}
            }
        }
    }

    /// A line for each record that is settled, in order, up to a piece's bytes.
    fn write(&mut self, piece: &mut Vec<u8>) {
        let mut notes = self.answerer.pending.notes.borrow_mut();
        while piece.len() < PIECE_BYTES
            && let Some(fate) = self.fates.front()
        {
            let Some(note) = notes.queue.pop_front() else {
                break;
            };
            match fate {
                Fate::Written(place) => {
                    piece.extend_from_slice(b"{\"error_code\":200,");
                    self.answerer.places.written(piece, &note, place, self.next - place.first_line);
                }
                Fate::Failed(failure) => {
                    notes.refused = notes.refused.saturating_sub(1);
                    piece.push(b'{');
                    write_error(piece, &told(failure));
                }
            }
            piece.extend_from_slice(b"\r\n");
            if fate.last_line() == self.next {
                self.fates.pop_front();
            }
            self.next += 1;
        }
        if notes.queue.is_empty() {
            notes.queue = VecDeque::new();
        }
        notes.charge();
    }
}

impl Fate {
    const fn first_line(&self) -> u64 {
        match self {
            Self::Written(place) => place.first_line,
            Self::Failed(failure) => failure.first_line,
        }
    }

    const fn last_line(&self) -> u64 {
        match self {
            Self::Written(place) => place.first_line + place.count - 1,
            Self::Failed(failure) => failure.last_line,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_many_names() {
        for media_type in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json", "*/*"] {
            assert!(is_json(media_type.as_bytes()), "{media_type}");
        }
        for media_type in ["text/plain", "application/x-ndjson", "application/jsonl", ""] {
            assert!(!is_json(media_type.as_bytes()), "{media_type}");
        }
    }
}

//! One pipelined connection to a broker.
//!
//! Callers put whole frames into a queue; one task, the *driver*, owns the socket, writes them in order and matches the
//! answers to them. Kafka answers in the order of the requests, so the driver keeps a queue of waiters and checks that
//! each answer carries the correlation id of the oldest.
//!
//! ```text
//!   produce() ──frame──▶ queue ──▶ outgoing ──write_vectored──▶ socket
//!                                      │ first byte handed over
//!                                      ▼
//!   PendingProduce ◀── decoded ◀── in flight ◀──── frames ◀──── socket
//! ```
//!
//! A frame belongs to the driver from the moment it is queued: a caller that goes away neither tears it nor disturbs
//! its neighbours, and its answer is read and thrown away. The driver decodes: an answer that is not what the schema
//! says is a doubt about the framing of everything behind it, so it ends the connection at once, and every waiter gets
//! an error that tells whether a byte of its request may have reached the broker.
//!
//! Where a broker bounds sessions, the driver also logs in again before they end: see [`login`].
//!
//! Nothing bounds the queue here: each entry has a caller that waits for it, and it is the callers who hold the memory
//! budget.

mod driver;
mod handshake;
mod login;

use crate::{
    Error,
    messages::{self, ApiVersionsResponse, ProduceRequest, ProduceResponse, Request, Response},
    wire::DecodeError,
};
use bytes::Bytes;
use driver::Driver;
pub(crate) use login::Login;
use login::Renewal;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// One pipelined connection. Cheap to clone. Poisoned as a whole on any framing doubt; a poisoned one answers every
/// call with an error.
///
/// Its driver runs on the runtime that dialled it and ends when the connection ends, or when every handle is dropped
/// and everything sent has been answered.
#[derive(Debug, Clone)]
pub struct Connection {
    channel: Channel,
    versions: Arc<ApiVersionsResponse>,
    /// The newest Produce version both sides speak.
    produce_version: Option<i16>,
}

impl Connection {
    /// Sends record batches to partitions that this broker leads.
    ///
    /// Enqueues; bytes are written by the connection's own task, so dropping what comes back never tears a frame.
    /// Resolves once the broker answered, the request timed out (then the connection is poisoned) or the connection
    /// ended. The batches' bytes are handed to the socket as they are, by reference.
    ///
    /// The limit for the answer is one and a half times the request's own timeout: the broker may rightly wait that
    /// long for its replicas, and a caller with a delivery deadline wants to know of a silent connection while there is
    /// time to try again.
    pub fn produce(&self, request: ProduceRequest) -> PendingProduce {
        let version = match self.produce_version {
            // Without an id the topic can be named only by name (event brokers that speak 13 but hand out no ids).
            Some(version)
                if version >= ProduceRequest::FIRST_BY_ID && request.topics.iter().any(|topic| topic.id.is_zero()) =>
            {
                Some(ProduceRequest::FIRST_BY_ID - 1)
            }
            version => version,
        };
        PendingProduce(self.start(&request, version, request.timeout * 3 / 2))
    }

    /// Sends a request in the newest version that both sides speak, at most `max_version`. `broker_wait`: how long the
    /// broker may take on purpose.
    pub(crate) fn call<R>(&self, request: &R, max_version: i16, broker_wait: Duration) -> Pending<R::Response>
    where
        R: Request + 'static,
        R::Response: Send + 'static,
    {
        let api = messages::Api { max: R::API.max.min(max_version), ..R::API };
        let limit = self.channel.shared.settings.request_timeout.max(broker_wait + BROKER_WAIT_MARGIN);
        self.start(request, self.versions.agree(&api), limit)
    }

    fn start<R>(&self, request: &R, version: Option<i16>, limit: Duration) -> Pending<R::Response>
    where
        R: Request + 'static,
        R::Response: Send + 'static,
    {
        match version {
            Some(version) => self.channel.send(request, version, limit),
            None => Pending::failed(Error::Unsupported { api: R::API.name }),
        }
    }

    /// Whether the connection is gone. A call on it fails without being sent.
    pub fn is_closed(&self) -> bool {
        self.channel.queue.is_closed()
    }

    /// Ends when the connection is gone.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn closed(&self) {
        self.channel.queue.closed().await;
    }

    /// Until when the broker asked us not to send (throttle_time_ms, KIP-219); `None` if that is over or never was. The
    /// connection holds back what is queued by itself; this is for callers that would rather wait with their bytes.
    pub fn throttled_until(&self) -> Option<Instant> {
        let until = self.channel.shared.throttled_until();
        until.filter(|until| *until > Instant::now())
    }

    /// The Produce version agreed on: 13 and later name topics by id. 0 if there is none.
    pub fn produce_version(&self) -> i16 {
        self.produce_version.unwrap_or(0)
    }
}

/// What a connection needs to know about the client it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) client_id: Arc<str>,
    pub(crate) request_timeout: Duration,
    pub(crate) max_frame_bytes: usize,
    /// Counts of the broker that is connected to.
    pub(crate) traffic: Arc<Traffic>,
}

/// Counts of one broker's connections, read by metrics.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) open: AtomicUsize,
    pub(crate) connects: AtomicU64,
    pub(crate) connect_failures: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    /// Logins that were repeated in place.
    pub(crate) renewals: AtomicU64,
}

/// The way to a driver: what a connection is before versions are agreed on.
#[derive(Debug, Clone)]
struct Channel {
    queue: mpsc::UnboundedSender<Queued>,
    shared: Arc<Shared>,
}

/// What driver and handles share.
struct Shared {
    settings: Settings,
    next_correlation_id: AtomicI32,
    /// The base of `throttled_ms`.
    opened: Instant,
    /// End of the throttling, in ms since `opened`, rounded up; 0: never throttled.
    throttled_ms: AtomicU64,
}

impl Shared {
    fn throttled_until(&self) -> Option<Instant> {
        match self.throttled_ms.load(Relaxed) {
            0 => None,
            ms => Some(self.opened + Duration::from_millis(ms)),
        }
    }

    fn throttle_until(&self, until: Instant) {
        let ms = until.saturating_duration_since(self.opened).as_millis() + 1;
        self.throttled_ms.fetch_max(u64::try_from(ms).unwrap_or(u64::MAX), Relaxed);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Channel {
    /// `limit`: for the answer, from when the first byte is written.
    fn send<R>(&self, request: &R, version: i16, limit: Duration) -> Pending<R::Response>
    where
        R: Request + 'static,
        R::Response: Send + 'static,
    {
        let settings = &self.shared.settings;
        let correlation_id = self.shared.next_correlation_id.fetch_add(1, Relaxed);
        let Ok(frame) = messages::encode_frame(request, version, correlation_id, &settings.client_id) else {
            return Pending::failed(Error::InvalidRequest("a field is longer than the protocol allows"));
        };
        let (answer, pending) = oneshot::channel();
        let outgoing = Outgoing {
            frame,
            waiter: Waiter {
                correlation_id,
                timeout: limit,
                max_answer_bytes: R::max_answer_bytes(settings.max_frame_bytes),
                then: Box::new(TypedAnswer::<R> { version, answer }),
            },
        };
        if let Err(mpsc::error::SendError(Queued::Request(outgoing))) = self.queue.send(Queued::Request(outgoing)) {
            outgoing
                .waiter
                .then
                .fail(Error::Disconnected { maybe_sent: false, reason: "the connection is closed".into() });
        }
        Pending(pending)
    }
}

/// How much longer than the broker's own limit to wait for its answer.
const BROKER_WAIT_MARGIN: Duration = Duration::from_secs(5);

/// What a driver is told.
enum Queued {
    Request(Outgoing),
    /// The connection is logged in, and this is how it stays so.
    Renewal(Renewal),
}

/// A frame and who waits for its answer.
struct Outgoing {
    frame: Vec<Bytes>,
    waiter: Waiter,
}

/// Who waits for an answer.
struct Waiter {
    correlation_id: i32,
    /// From when the first byte was written.
    timeout: Duration,
    max_answer_bytes: usize,
    then: Box<dyn Answer>,
}

/// The end of a call; the type of its answer is behind it.
trait Answer: Send {
    /// Decodes and hands over. Returns for how long the broker throttles, or what is wrong with the bytes.
    fn complete(self: Box<Self>, answer: Bytes) -> Result<Duration, (&'static str, DecodeError)>;
    fn fail(self: Box<Self>, error: Error);
}

struct TypedAnswer<R: Request> {
    version: i16,
    answer: oneshot::Sender<Result<R::Response, Error>>,
}

impl<R: Request> Answer for TypedAnswer<R>
where
    R::Response: Send,
{
    fn complete(self: Box<Self>, answer: Bytes) -> Result<Duration, (&'static str, DecodeError)> {
        match messages::decode_answer::<R>(self.version, answer) {
            Ok(response) => {
                let throttle = response.throttle();
                // A caller that went away does not want it.
                let _ = self.answer.send(Ok(response));
                Ok(throttle)
            }
            Err(source) => {
                let api = R::API.name;
                let _ = self.answer.send(Err(Error::Malformed { api, source }));
                Err((api, source))
            }
        }
    }

    fn fail(self: Box<Self>, error: Error) {
        let _ = self.answer.send(Err(error));
    }
}

/// An answer to come.
#[derive(Debug)]
pub(crate) struct Pending<T>(oneshot::Receiver<Result<T, Error>>);

impl<T> Pending<T> {
    fn failed(error: Error) -> Self {
        let (answer, pending) = oneshot::channel();
        let _ = answer.send(Err(error));
        Self(pending)
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| {
            // The driver fails its waiters one by one even when it is dropped, so this is a frame that it never took
            // over.
            answer.unwrap_or(Err(Error::ShutDown))
        })
    }
}

/// The answer to a Produce request, to come.
///
/// # Cancel safety
///
/// Dropping it ends the waiting, not the request: the frame is written whole and its answer is read.
#[derive(Debug)]
#[must_use = "the outcome of the batches"]
pub struct PendingProduce(Pending<ProduceResponse>);

impl Future for PendingProduce {
    type Output = Result<ProduceResponse, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

#[cfg(test)]
mod tests;

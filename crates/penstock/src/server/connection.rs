//! One client's connection, from its first byte to its last.
//!
//! hyper serves the requests; what it lacks is kept here by a watch over the connection's activity:
//!
//! ```text
//!            first byte of a head            head complete
//!   ┌──────┐ ───────────────────▶ ┌──────┐ ───────────────▶ ┌──────┐
//!   │ idle │                      │ head │                  │ busy │
//!   └──────┘ ◀─────────────────── └──────┘ ◀─ ─ ─ ─ ─ ─ ─ ─ └──────┘
//!    idle_timeout                  head_timeout              a stalled answer: idle_timeout
//!        ▲                  last of the answer handed over       │
//!        └───────────────────────────────────────────────────────┘
//! ```
//!
//! hyper's own `header_read_timeout` runs from the end of the last request, so it would close idle connections after
//! the few seconds that a head may take. Here the I/O wrapper notes the first byte of a head, so both bounds hold. A
//! head whose first bytes came together with the request before it is bounded by `idle_timeout` until more of it comes.
//!
//! While busy, the body has its own bounds (`http::body`), and the pipeline its delivery timeout. What is left is a
//! client that does not take its answer: if the socket is full and nothing moves in either direction for
//! `idle_timeout`, the connection ends. A client that is still sending may leave its answer unread for as long as it
//! likes.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use crate::http::{self, Context};

/// hyper's read buffer grows to this; larger buys nothing.
const READ_BUFFER: usize = 64 * 1024;

/// After our last word: what is read of a client's, and for how long.
const LINGER_BYTES: u64 = 256 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// The bounds on a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) idle_timeout: Duration,
    pub(crate) head_timeout: Duration,
    pub(crate) max_age: Option<Duration>,
    pub(crate) head_bytes: usize,
}

/// Serves a connection until one side ends it. `drain` closes it after the request under way.
pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    context: Rc<Context>,
    limits: Limits,
    drain: CancellationToken,
) {
    let activity = Rc::new(Activity::default());
    let stream = Watched { stream, activity: activity.clone() };
    let requests = activity.clone();
    let service = service_fn(move |request| -> Pin<Box<dyn Future<Output = _>>> {
        let busy = Busy::begin(&requests);
        let context = context.clone();
        Box::pin(async move { Ok::<_, Infallible>(http::handle(context, request, busy).await) })
    });
    let mut builder = http1::Builder::new();
    // Not `pipeline_flush`: it writes nothing while bytes that were read are not used yet. A head that is refused, or a
    // body that stands still, leaves such bytes, and then an answer, or progress, would never be sent.
    builder.max_buf_size(READ_BUFFER).max_header_size(limits.head_bytes).header_read_timeout(None);
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut watchdog = Watchdog::new(limits, activity.clone());
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
                break;
            }
            () = drain.cancelled(), if !closing => {
                closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            verdict = poll_fn(|cx| watchdog.poll(cx)) => match verdict {
                Verdict::Drop(why) => {
                    tracing::debug!(why, "a connection was closed");
                    return;
                }
                Verdict::Close => Pin::new(&mut connection).graceful_shutdown(),
            }
        }
    }
    // Whoever closed first has nothing more to say.
    if !activity.ended.get() {
        linger(connection.into_parts().io.into_inner().stream).await;
    }
}

/// Closes our side, and gives the client a moment to see that and close its own. A socket that is closed with unread
/// bytes is reset, and a reset takes with it what the client has not read yet: the answer (RFC 9112 section 9.6).
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let farewell = async {
        stream.shutdown().await?;
        let mut rest = stream.take(LINGER_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // However it ends, the connection does.
    let _ = tokio::time::timeout(LINGER, farewell).await;
}

/// Where a connection is between requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// No request under way.
    #[default]
    Idle,
    /// Some of a head has come.
    Head,
    /// A request is being answered.
    Busy,
}

/// What the watchdog looks at. Written where it happens, without a clock where that is often.
#[derive(Debug, Default)]
struct Activity {
    phase: Cell<Phase>,
    /// Counts phases, so that a phase that came back is not taken for one that stayed.
    phases: Cell<u64>,
    /// Bytes in both directions.
    moved: Cell<u64>,
    /// The socket did not take what there is to write.
    write_blocked: Cell<bool>,
    /// The client has closed, or the connection broke.
    ended: Cell<bool>,
}

impl Activity {
    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.phases.set(self.phases.get().wrapping_add(1));
    }
}

/// A request under way; dropped when the last of its answer has been handed to the connection.
struct Busy(Rc<Activity>);

impl Busy {
    fn begin(activity: &Rc<Activity>) -> Self {
        activity.enter(Phase::Busy);
        Self(activity.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// Notes what passes through a stream.
struct Watched<S> {
    stream: S,
    activity: Rc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read == 0 && polled.is_ready() && buf.remaining() > 0 {
            self.activity.ended.set(true);
        }
        if read > 0 {
            let activity = &self.activity;
            activity.moved.set(activity.moved.get().wrapping_add(read as u64));
            if activity.phase.get() == Phase::Idle {
                activity.enter(Phase::Head);
            }
        }
        polled
    }
}

impl<S> Watched<S> {
    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        self.activity.write_blocked.set(polled.is_pending());
        if let Poll::Ready(Ok(written)) = polled {
            self.activity.moved.set(self.activity.moved.get().wrapping_add(*written as u64));
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        // TLS buffers what it encrypts: for it, a full socket shows here.
        self.activity.write_blocked.set(polled.is_pending());
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What is to be done with a connection.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Close it after the request under way.
    Close,
    /// End it.
    Drop(&'static str),
}

/// Decides when a connection's time is over. Polled whenever the connection is; its timer is set only when a phase has
/// lasted through a poll, so requests that come and go at once never touch it.
struct Watchdog {
    limits: Limits,
    activity: Rc<Activity>,
    /// The phase that is timed: its count, and since when.
    timed: u64,
    since: Instant,
    /// Bytes moved until `since`, for a stalled answer.
    moved: u64,
    expires: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Watchdog {
    fn new(limits: Limits, activity: Rc<Activity>) -> Self {
        let now = Instant::now();
        Self {
            limits,
            timed: activity.phases.get(),
            since: now,
            moved: 0,
            expires: limits.max_age.map(|age| now + age),
            timer: Box::pin(tokio::time::sleep_until(now + limits.head_timeout)),
            activity,
        }
    }

    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<Verdict> {
        let phase = self.activity.phase.get();
        if self.timed != self.activity.phases.get() {
            self.timed = self.activity.phases.get();
            self.since = Instant::now();
            self.moved = self.activity.moved.get();
        }
        loop {
            let mut deadline = self.since
                + match phase {
                    Phase::Head => self.limits.head_timeout,
                    Phase::Idle | Phase::Busy => self.limits.idle_timeout,
                };
            if let Some(expires) = self.expires {
                deadline = deadline.min(expires);
            }
            // An earlier deadline needs the timer set; for a later one it may fire once in vain.
            if self.timer.deadline() > deadline || self.timer.is_elapsed() {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if self.expires.is_some_and(|expires| expires <= now) {
                self.expires = None;
                return Poll::Ready(Verdict::Close);
            }
            if now < deadline {
                continue;
            }
            match phase {
                Phase::Idle => return Poll::Ready(Verdict::Drop("idle for too long")),
                Phase::Head => return Poll::Ready(Verdict::Drop("the head of a request took too long")),
                Phase::Busy => {
                    let moved = self.activity.moved.get();
                    if self.activity.write_blocked.get() && moved == self.moved {
                        return Poll::Ready(Verdict::Drop("the answer is not taken"));
                    }
                    self.moved = moved;
                    self.since = now;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        idle_timeout: Duration::from_secs(300),
        head_timeout: Duration::from_secs(5),
        max_age: None,
        head_bytes: 16 * 1024,
    };

    fn watch(limits: Limits) -> (Watchdog, Rc<Activity>) {
        let activity = Rc::new(Activity::default());
        (Watchdog::new(limits, activity.clone()), activity)
    }

    async fn verdict(watchdog: &mut Watchdog) -> Verdict {
        poll_fn(|cx| watchdog.poll(cx)).await
    }

    /// Polls once, as a connection does whenever something happens.
    async fn glance(watchdog: &mut Watchdog) -> Poll<Verdict> {
        poll_fn(|cx| Poll::Ready(watchdog.poll(cx))).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_outlives_the_head_timeout_and_ends_at_its_own() {
        let (mut watchdog, _activity) = watch(LIMITS);
        let start = Instant::now();
        assert_eq!(verdict(&mut watchdog).await, Verdict::Drop("idle for too long"));
        assert_eq!(start.elapsed(), LIMITS.idle_timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_ends_at_the_head_timeout_however_often_a_byte_comes() {
        let (mut watchdog, activity) = watch(LIMITS);
        assert!(glance(&mut watchdog).await.is_pending());
        tokio::time::advance(Duration::from_secs(100)).await;
        activity.enter(Phase::Head);
        let start = Instant::now();
        for _ in 0..4 {
            assert!(glance(&mut watchdog).await.is_pending());
            tokio::time::advance(Duration::from_secs(1)).await;
            activity.moved.set(activity.moved.get() + 1);
        }
        assert_eq!(verdict(&mut watchdog).await, Verdict::Drop("the head of a request took too long"));
        assert_eq!(start.elapsed(), LIMITS.head_timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waits_for_kafka_is_left_alone() {
        let (mut watchdog, activity) = watch(LIMITS);
        let busy = Busy::begin(&activity);
        for _ in 0..100 {
            assert!(glance(&mut watchdog).await.is_pending());
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        drop(busy);
        let start = Instant::now();
        assert_eq!(verdict(&mut watchdog).await, Verdict::Drop("idle for too long"));
        assert_eq!(start.elapsed(), LIMITS.idle_timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_ends_the_connection_unless_the_client_is_sending() {
        let (mut watchdog, activity) = watch(LIMITS);
        let _busy = Busy::begin(&activity);
        activity.write_blocked.set(true);
        for _ in 0..100 {
            assert!(glance(&mut watchdog).await.is_pending());
            activity.moved.set(activity.moved.get() + 1);
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        assert_eq!(verdict(&mut watchdog).await, Verdict::Drop("the answer is not taken"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_connection_is_closed_once_after_the_request_under_way() {
        let (mut watchdog, activity) = watch(Limits { max_age: Some(Duration::from_secs(60)), ..LIMITS });
        let _busy = Busy::begin(&activity);
        let start = Instant::now();
        assert_eq!(verdict(&mut watchdog).await, Verdict::Close);
        assert_eq!(start.elapsed(), Duration::from_secs(60));
        assert!(glance(&mut watchdog).await.is_pending());
    }
}

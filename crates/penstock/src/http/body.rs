//! The body of a request as it comes: chunks, and every reason why no more of them will be read.
//!
//! hyper has no timeout on a body, so this has: a client may not be silent for longer than the idle timeout, nor slower
//! than the configured rate. Only time spent waiting for the client counts: while the pipeline has no room, the body is
//! not asked for, and the client is not to blame.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::error::{ApiError, code};

/// The rate of a body is looked at over this much waiting at a time.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// How slow a body may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// The longest silence.
    pub(crate) idle: Duration,
    /// Bytes a second, if there is a least.
    pub(crate) min_rate: Option<u64>,
}

/// Reads one body.
pub(crate) struct BodyReader {
    body: Incoming,
    patience: Patience,
    /// Asks readers to stop: the end of a drain is near.
    stop: CancellationToken,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Fires when patience may be over; armed lazily, so that a body that keeps coming costs no timer.
    timer: Pin<Box<Sleep>>,
    /// Since when the client is waited for.
    waiting_since: Option<Instant>,
    /// Of the present rate window: time waited, bytes that came.
    waited: Duration,
    window_bytes: u64,
    /// The body ended or broke off.
    over: bool,
}

impl BodyReader {
    pub(crate) fn new(body: Incoming, patience: Patience, stop: &CancellationToken) -> Self {
        Self {
            body,
            patience,
            stop: stop.clone(),
            stopped: Box::pin(stop.clone().cancelled_owned()),
            timer: Box::pin(tokio::time::sleep(patience.idle)),
            waiting_since: None,
            waited: Duration::ZERO,
            window_bytes: 0,
            over: false,
        }
    }

    /// Whether nothing will come any more, as far as that is known without asking.
    pub(crate) fn is_over(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    /// The next chunk; `None` at the end of a whole body.
    ///
    /// # Errors
    ///
    /// 400 for a body that breaks off or is not framed as it must be (then the client is mostly gone), 408 for one that
    /// is too slow, 503 when readers are asked to stop.
    ///
    /// # Cancel safety
    ///
    /// Safe: a chunk is either returned or still to come.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ApiError>> {
        if self.stop.is_cancelled() {
            return Poll::Ready(Err(ApiError::draining()));
        }
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(None) => {
                    self.over = true;
                    return Poll::Ready(Ok(None));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.over = true;
                    tracing::debug!(%error, "a request's body broke off");
                    return Poll::Ready(Err(ApiError {
                        close: true,
                        ..ApiError::bad_request("the body broke off, or is not framed as HTTP/1.1 wants it")
                    }));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers say nothing here.
                    let Ok(chunk) = frame.into_data() else { continue };
                    if let Some(since) = self.waiting_since.take() {
                        self.waited += since.elapsed();
                    }
                    self.window_bytes += chunk.len() as u64;
                    return Poll::Ready(Ok(Some(chunk)));
                }
                Poll::Pending => {}
            }
            if self.stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(ApiError::draining()));
            }
            return match self.poll_impatience(cx) {
                Poll::Ready(error) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            };
        }
    }

    fn poll_impatience(&mut self, cx: &mut Context<'_>) -> Poll<ApiError> {
        let now = Instant::now();
        let since = *self.waiting_since.get_or_insert(now);
        loop {
            let silent = now - since;
            if silent >= self.patience.idle {
                return Poll::Ready(ApiError {
                    close: true,
                    ..ApiError::new(code::TIMEOUT, "the body stood still for too long")
                });
            }
            let mut wait = self.patience.idle - silent;
            if let Some(rate) = self.patience.min_rate {
                let waited = self.waited + silent;
                if waited >= RATE_WINDOW {
                    if self.window_bytes < (rate as f64 * waited.as_secs_f64()) as u64 {
                        return Poll::Ready(ApiError {
                            close: true,
                            ..ApiError::new(code::TIMEOUT, format!("the body comes at less than {rate} bytes a second"))
                        });
                    }
                    self.window_bytes = 0;
                    self.waited = Duration::ZERO;
                    self.waiting_since = Some(now);
                    return self.poll_impatience(cx);
                }
                wait = wait.min(RATE_WINDOW - waited);
            }
            let deadline = now + wait;
            // A timer that was armed for an earlier wait fires early; then it is armed for what is left of this one.
            if self.timer.deadline() > deadline || self.timer.is_elapsed() {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Gives the body up after an answer that did not wait for it: reads on for a moment and throws away what comes, so
    /// that a client that is still sending sees the answer and not a reset (RFC 9112 section 9.6).
    ///
    /// Ends with the body, after `bytes` or after `time`, whatever is first.
    pub(crate) async fn discard(mut self, bytes: u64, time: Duration) {
        let drained = async {
            let mut left = bytes;
            while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                match left.checked_sub(length) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        // Out of patience is as good an end as any other.
        let _ = tokio::time::timeout(time, drained).await;
    }
}

//! The body of a request as it comes: chunks, and every reason why no more of them will be read.
//!
//! A client may not be silent for longer than the idle timeout, nor slower than the configured rate. Only time spent
//! waiting for the client counts: while the pipeline has no room, the body is not asked for, and the client is not to
//! blame.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::error::{ApiError, code};
use super::rate::Bucket;
use crate::http1::{Alarm, Body};

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
    body: Body,
    patience: Patience,
    /// Asks readers to stop: the end of a drain is near.
    stop: CancellationToken,
    /// What its bytes count against.
    rate: Option<Arc<Bucket>>,
    /// Made when the client is first waited for. Most bodies come with their heads, and cost neither a timer nor this.
    waiting: Option<Box<Waiting>>,
    /// Since when the client is waited for.
    waiting_since: Option<Instant>,
    /// Of the present rate window: time waited, bytes that came.
    waited: Duration,
    window_bytes: u64,
}

/// What else may happen while the client is waited for.
struct Waiting {
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Fires when patience may be over.
    alarm: Alarm,
}

impl BodyReader {
    pub(crate) fn new(body: Body, patience: Patience, rate: Option<Arc<Bucket>>, stop: &CancellationToken) -> Self {
        Self {
            body,
            patience,
            rate,
            stop: stop.clone(),
            waiting: None,
            waiting_since: None,
            waited: Duration::ZERO,
            window_bytes: 0,
        }
    }

    /// Whether nothing will come any more, as far as that is known without asking.
    pub(crate) fn is_over(&self) -> bool {
        self.body.is_over()
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
        let Some(rate) = self.rate.clone() else {
            return std::future::poll_fn(|cx| self.poll_chunk(cx)).await;
        };
        // Over its rate, the client is held back as it is when there is no room.
        while let Err(wait) = rate.settled(Instant::now()) {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return Err(ApiError::draining()),
            }
        }
        let chunk = std::future::poll_fn(|cx| self.poll_chunk(cx)).await?;
        if let Some(chunk) = &chunk {
            rate.charge(Instant::now(), chunk.len());
        }
        Ok(chunk)
    }

    /// The whole body, of at most `limit` bytes: for documents that are a handful of names and values.
    ///
    /// # Errors
    ///
    /// 413 for a longer one; otherwise as [`chunk`](Self::chunk).
    pub(crate) async fn whole(&mut self, limit: usize) -> Result<Vec<u8>, ApiError> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if whole.len() + chunk.len() > limit {
                return Err(ApiError { close: true, ..ApiError::too_large(format!("at most {limit} bytes")) });
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ApiError>> {
        if self.stop.is_cancelled() {
            return Poll::Ready(Err(ApiError::draining()));
        }
        match self.body.poll_next(cx) {
            Poll::Ready(Ok(chunk)) => {
                if let Some(since) = self.waiting_since.take() {
                    self.waited += since.elapsed();
                }
                self.window_bytes += chunk.as_ref().map_or(0, Bytes::len) as u64;
                return Poll::Ready(Ok(chunk));
            }
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "a request's body broke off");
                return Poll::Ready(Err(ApiError {
                    close: true,
                    ..ApiError::bad_request("the body broke off, or is not framed as HTTP/1.1 wants it")
                }));
            }
            Poll::Pending => {}
        }
        let Self { waiting, stop, patience, .. } = self;
        let waiting = waiting.get_or_insert_with(|| {
            Box::new(Waiting {
                stopped: Box::pin(stop.clone().cancelled_owned()),
                alarm: Alarm::new(Instant::now() + patience.idle),
            })
        });
        if waiting.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(ApiError::draining()));
        }
        self.poll_impatience(cx).map(Err)
    }

    fn poll_impatience(&mut self, cx: &mut Context<'_>) -> Poll<ApiError> {
        loop {
            let now = Instant::now();
            let silent = now - *self.waiting_since.get_or_insert(now);
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
                    continue;
                }
                wait = wait.min(RATE_WINDOW - waited);
            }
            let waiting = self.waiting.as_mut().expect("made before patience is asked for");
            ready!(waiting.alarm.poll(cx, now + wait));
        }
    }
}

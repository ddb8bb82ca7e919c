//! The server's side of HTTP/1.1 (RFC 9110, RFC 9112).
//!
//! One task a connection, one request after the other:
//!
//! ```text
//!        first byte           head complete          answer made            written, body over
//!  idle ────────────▶ head ─────────────────▶ busy ─────────────▶ writing ─────────────────────▶ idle
//!   │ idle_timeout     │ head_timeout          │ its own bounds     │ nothing moves for idle_timeout
//!   ▼                  ▼                       ▼                    ▼
//!  closed             closed                  (http::body)         closed
//! ```
//!
//! Why not hyper's server, whose types we use: its body channel makes a piece of every chunk (0.7–0.95 µs each, so one
//! line a chunk costs 35 times as much as a large one); its only timer cannot tell an idle connection from a slow head;
//! it has none on an answer that nobody takes; and it lets pass what a strict server refuses (see [`head`]), with no
//! place for a check in front of it that would not have to follow the framing of every body itself.
//!
//! * [`head`]: where a head ends, and what it says, strictly
//! * [`chunked`]: the framing of chunked bodies, taken off in place
//! * [`wire`]: the connection's bytes, and the [`Body`] of the request under way
//! * [`response`]: answers, and how their heads are written
//! * [`connection`]: the loop above, and how a connection ends; its deadlines share one [`Alarm`]

mod alarm;
mod chunked;
mod connection;
mod head;
mod response;
mod wire;

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::{Request, Response};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use alarm::Alarm;
pub(crate) use connection::serve;
pub(crate) use head::BadHead;
pub(crate) use response::{PieceStream, ResponseBody, close_after};
pub(crate) use wire::{Body, Meter};

/// What answers the requests of a connection.
pub(crate) trait Service {
    /// Answers one request. Dropped if the client goes away meanwhile.
    fn call(&self, request: Request<Body>) -> impl Future<Output = Response<ResponseBody>>;

    /// The answer to a head that is none, after which the connection ends.
    fn refuse(&self, head: BadHead) -> Response<ResponseBody>;
}

/// The bounds on a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Between two requests; and for an answer of which nothing is taken while nothing is sent either.
    pub(crate) idle_timeout: Duration,
    /// From the first byte of a head to its last.
    pub(crate) head_timeout: Duration,
    /// The connection ends with an answer when it is so old, or up to a fifth younger; if it is idle, up to a tenth.
    pub(crate) max_age: Option<Duration>,
    /// Bytes of a head.
    pub(crate) head_bytes: usize,
}

/// How a stop of the process reaches its connections. Clones are the same stop.
///
/// A client may send a request at the moment at which its idle connection is closed, and will never know what became of
/// it. So connections end with an answer that says so, as long as there is time, and only those that nothing came on in
/// all that time are closed without one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    leaving: Arc<OnceLock<Leaving>>,
    /// Connections end: with the answer under way, the first one of a new connection, or, if they are idle, now.
    pub(crate) drain: CancellationToken,
}

/// When connections are asked to leave: each at a moment of its own, so that they do not all come back at once.
#[derive(Debug)]
struct Leaving {
    from: Instant,
    within: Duration,
}

impl Stop {
    /// A stop that begins when `drain` is cancelled.
    pub(crate) fn new(drain: CancellationToken) -> Self {
        Self { leaving: Arc::default(), drain }
    }

    /// From now on, and at the latest after `within`, connections end with their next answer. Only the first call counts.
    pub(crate) fn leave(&self, within: Duration) {
        let _ = self.leaving.set(Leaving { from: Instant::now(), within });
    }

    /// A stop with a drain of its own, which begins with this one's at the latest.
    pub(crate) fn child(&self) -> Self {
        Self { leaving: self.leaving.clone(), drain: self.drain.child_token() }
    }
}

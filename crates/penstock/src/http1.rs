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
use std::time::Duration;

use hyper::{Request, Response};

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
    /// The connection ends with the request under way when it is so old, or up to a tenth younger.
    pub(crate) max_age: Option<Duration>,
    /// Bytes of a head.
    pub(crate) head_bytes: usize,
}

//! Serves one connection from its first byte to its last.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, Request, Response, Version};
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::head::{self, BadHead, Head, HeadEnd};
use super::response::{self, Delimiter, Kind, ResponseBody, asks_to_close};
use super::wire::{Body, Io, Wire, advance};
use super::{Alarm, Limits, PieceStream, Service, Stop};

/// What is read of a body that the answer did not wait for, so that its client sees the answer, and for how long.
const DISCARD: (u64, Duration) = (256 * 1024, Duration::from_secs(1));
/// The same in a drain: uploads that are told to stop are still sending at full speed.
const DISCARD_IN_DRAIN: (u64, Duration) = (u64::MAX, Duration::from_secs(5));
/// An answer of so much or less goes out in one piece with its head.
const SMALL_ANSWER: usize = 16 * 1024;

/// Serves a connection until one side ends it, or the process stops.
pub(crate) async fn serve(stream: impl Io + 'static, service: &impl Service, limits: Limits, stop: Stop) {
    let mut connection = Connection::new(Box::new(stream), limits, stop);
    match connection.run(service).await {
        Ok(()) => connection.farewell().await,
        Err(end) => tracing::debug!(%end, "a connection ended"),
    }
    connection.wire.borrow_mut().give_up();
}

/// Why a connection ends with nothing more to say to its client.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the client has closed it")]
    Gone,
    #[error("no request came for too long")]
    Idle,
    #[error("the head of a request took too long")]
    SlowHead,
    #[error("the answer is not taken")]
    Stalled,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What may come where a request begins.
enum Next {
    Head(Box<Head>),
    Bad(BadHead),
    /// Time to close, between two requests.
    Over,
}

struct Connection {
    wire: Rc<RefCell<Wire>>,
    limits: Limits,
    alarm: Alarm,
    stop: Stop,
    drained: Pin<Box<WaitForCancellationFutureOwned>>,
    opened: Instant,
    /// Between 0 and 1: connections that came together do not all go together.
    turn: f64,
    /// Until something was answered.
    fresh: bool,
    /// Where heads and small answers are put together.
    out: Vec<u8>,
}

impl Connection {
    fn new(stream: Box<dyn Io>, limits: Limits, stop: Stop) -> Self {
        let opened = Instant::now();
        Self {
            wire: Rc::new(RefCell::new(Wire::new(stream))),
            limits,
            alarm: Alarm::new(opened + limits.head_timeout),
            drained: Box::pin(stop.drain.clone().cancelled_owned()),
            stop,
            opened,
            turn: random(),
            fresh: true,
            out: Vec::new(),
        }
    }

    /// When it is so old that it ends though nothing comes.
    fn expires(&self) -> Option<Instant> {
        self.limits.max_age.map(|age| self.opened + age.mul_f64(0.9 + self.turn / 10.0))
    }

    /// Whether it is to end with the next answer: it is old, or the process is about to stop.
    fn is_to_leave(&self) -> bool {
        let passed = |moment| moment <= Instant::now();
        self.stop.drain.is_cancelled()
            || self.limits.max_age.is_some_and(|age| passed(self.opened + age.mul_f64(0.8 + self.turn / 10.0)))
            || self.stop.leaving.get().is_some_and(|leaving| passed(leaving.from + leaving.within.mul_f64(self.turn)))
    }

    /// Answers requests until one of them is the last. `Ok`: the client is still there and is owed a farewell.
    async fn run(&mut self, service: &impl Service) -> Result<(), End> {
        loop {
            let head = match self.next_head().await? {
                Next::Head(head) => *head,
                Next::Bad(bad) => {
                    let refused = service.refuse(bad);
                    return self.answer(&Method::GET, Version::HTTP_11, false, refused).await.map(drop);
                }
                Next::Over => return Ok(()),
            };
            let Head { parts, framing, keep_alive, expects_continue } = head;
            let (method, version) = (parts.method.clone(), parts.version);
            self.wire.borrow_mut().begin(framing, expects_continue);
            let body = Body::new(self.wire.clone());
            let response = {
                let call = pin!(service.call(Request::from_parts(parts, body)));
                self.watched(call).await?
            };
            if !self.answer(&method, version, keep_alive, response).await? {
                return Ok(());
            }
            self.fresh = false;
            self.wire.borrow_mut().finish();
        }
    }

    /// Waits for the head of a request.
    async fn next_head(&mut self) -> Result<Next, End> {
        let expires = self.expires();
        // A client that has just come is about to ask.
        let patience = self.fresh.then_some(self.opened + self.limits.head_timeout);
        let Self { wire, limits, alarm, drained, .. } = self;
        let mut end = HeadEnd::default();
        let mut deadline = Instant::now() + limits.idle_timeout;
        let mut begun = false;
        poll_fn(|cx| {
            let mut wire = wire.borrow_mut();
            loop {
                if !wire.input.is_empty() {
                    match end.find(&wire.input, limits.head_bytes) {
                        Ok(None) if begun => {}
                        Ok(None) => {
                            begun = true;
                            deadline = Instant::now() + limits.head_timeout;
                        }
                        Ok(Some(range)) => {
                            let whole = wire.input.split_to(range.end);
                            // A copy of its own, so that what is kept of a head does not keep the read buffer.
                            let head = head::parse(Bytes::copy_from_slice(&whole[range]));
                            return Poll::Ready(Ok(head.map_or_else(Next::Bad, |head| Next::Head(Box::new(head)))));
                        }
                        Err(bad) => return Poll::Ready(Ok(Next::Bad(bad))),
                    }
                }
                match wire.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(End::Gone)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => break,
                }
            }
            if begun {
                return alarm.poll(cx, deadline).map(|()| Err(End::SlowHead));
            }
            if drained.as_mut().poll(cx).is_ready() {
                if let Some(patience) = patience {
                    ready!(alarm.poll(cx, patience));
                }
                return Poll::Ready(Ok(Next::Over));
            }
            ready!(alarm.poll(cx, expires.map_or(deadline, |expires| expires.min(deadline))));
            let expired = expires.is_some_and(|expires| expires <= Instant::now());
            Poll::Ready(if expired { Ok(Next::Over) } else { Err(End::Idle) })
        })
        .await
    }

    /// Waits for something while nobody else may be reading, and looks whether the client goes away.
    ///
    /// `Unpin` keeps it small: a future that is handed over whole has room twice in a connection's memory.
    async fn watched<T>(&self, mut future: impl Future<Output = T> + Unpin) -> Result<T, End> {
        poll_fn(|cx| {
            if let Poll::Ready(value) = Pin::new(&mut future).poll(cx) {
                return Poll::Ready(Ok(value));
            }
            let mut wire = self.wire.borrow_mut();
            // Until the body is over, whoever reads it finds out.
            if wire.body_is_over() { wire.poll_gone(cx).map(|()| Err(End::Gone)) } else { Poll::Pending }
        })
        .await
    }

    /// Sends an answer. Whether the connection goes on.
    async fn answer(
        &mut self,
        method: &Method,
        version: Version,
        keep_alive: bool,
        response: Response<ResponseBody>,
    ) -> Result<bool, End> {
        let mut go_on = keep_alive && !asks_to_close(&response) && !self.is_to_leave();
        let delimiter = match &response.body().kind {
            Kind::Whole(bytes) => {
                // Progress is told while the body is read; another answer did not wait for the rest of it.
                go_on &= self.can_discard();
                Delimiter::Length(bytes.len())
            }
            Kind::Pieces(_) if version == Version::HTTP_10 => {
                go_on = false;
                Delimiter::Close
            }
            Kind::Pieces(_) => Delimiter::Chunked,
        };
        let told = match (go_on, version) {
            (false, _) => Some("close"),
            (true, Version::HTTP_10) => Some("keep-alive"),
            (true, _) => None,
        };
        self.out.clear();
        self.out.extend_from_slice(self.wire.borrow_mut().take_proceed());
        response::write_head(&mut self.out, &response, delimiter, told);
        // Its guard is dropped with it, once everything is written.
        let mut body = response.into_body();
        match &mut body.kind {
            _ if *method == Method::HEAD => self.write_out(&[]).await?,
            Kind::Whole(bytes) if bytes.len() <= SMALL_ANSWER => {
                self.out.extend_from_slice(bytes);
                self.write_out(&[]).await?;
            }
            Kind::Whole(bytes) => self.write_out(bytes).await?,
            Kind::Pieces(pieces) => {
                while let Some(piece) = self.next_piece(pieces.as_mut()).await? {
                    if delimiter == Delimiter::Chunked {
                        response::write_chunk_head(&mut self.out, piece.len());
                    }
                    if piece.len() <= SMALL_ANSWER {
                        self.out.extend_from_slice(&piece);
                        self.out.extend_from_slice(if delimiter == Delimiter::Chunked { b"\r\n" } else { b"" });
                        self.write_out(&[]).await?;
                    } else {
                        self.write_out(&piece).await?;
                        self.out.extend_from_slice(if delimiter == Delimiter::Chunked { b"\r\n" } else { b"" });
                    }
                }
                self.out.extend_from_slice(if delimiter == Delimiter::Chunked { b"0\r\n\r\n" } else { b"" });
                self.write_out(&[]).await?;
            }
        }
        drop(body);
        Ok(go_on && self.can_discard() && self.discard_body().await)
    }

    /// The next piece of an answer. What was written so far goes out before it is waited for.
    async fn next_piece(&mut self, pieces: &mut dyn PieceStream) -> Result<Option<Bytes>, End> {
        if let Poll::Ready(piece) = poll_fn(|cx| Poll::Ready(pieces.poll_next(cx))).await {
            return Ok(piece);
        }
        if !self.out.is_empty() {
            self.write_out(&[]).await?;
        }
        self.watched(poll_fn(|cx| pieces.poll_next(cx))).await
    }

    /// The body is over, or what is left of it is short and will come.
    fn can_discard(&self) -> bool {
        let wire = self.wire.borrow();
        wire.body_is_over() || (!wire.awaits_continue() && wire.body_left().is_some_and(|left| left <= DISCARD.0))
    }

    /// Reads the short rest of a body. Whether it came.
    async fn discard_body(&mut self) -> bool {
        let Self { wire, alarm, .. } = self;
        if wire.borrow().body_is_over() {
            return true;
        }
        let deadline = Instant::now() + DISCARD.1;
        poll_fn(|cx| {
            loop {
                match wire.borrow_mut().poll_body(cx) {
                    Poll::Ready(Ok(Some(_))) => {}
                    Poll::Ready(end) => return Poll::Ready(end.is_ok()),
                    Poll::Pending => break,
                }
            }
            alarm.poll(cx, deadline).map(|()| false)
        })
        .await
    }

    /// Writes what is in `out`, then `more`, and sees it on its way.
    async fn write_out(&mut self, more: &[u8]) -> Result<(), End> {
        let Self { wire, alarm, limits, out, .. } = self;
        let (mut first, mut second) = (&out[..], more);
        let mut stalled: Option<(Instant, u64)> = None;
        poll_fn(|cx| {
            let mut wire = wire.borrow_mut();
            let polled = loop {
                if first.is_empty() && second.is_empty() {
                    // TLS keeps what it encrypted until the socket takes it.
                    break wire.poll_flush(cx);
                }
                match wire.poll_write(cx, &[IoSlice::new(first), IoSlice::new(second)]) {
                    Poll::Ready(Ok(written)) => advance(&mut first, &mut second, written),
                    Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                    Poll::Pending => break Poll::Pending,
                }
            };
            if let Poll::Ready(done) = polled {
                return Poll::Ready(done.map_err(End::Io));
            }
            // A client that is still sending may leave its answer unread for as long as it likes.
            loop {
                let (since, moved) = *stalled.get_or_insert_with(|| (Instant::now(), wire.moved()));
                ready!(alarm.poll(cx, since + limits.idle_timeout));
                if moved == wire.moved() {
                    return Poll::Ready(Err(End::Stalled));
                }
                stalled = None;
            }
        })
        .await?;
        out.clear();
        // One large answer in a while is no reason to hold its memory for ever.
        out.shrink_to(2 * SMALL_ANSWER);
        Ok(())
    }

    /// Closes our side, and gives the client a moment to see that and close its own. A socket that is closed with unread
    /// bytes is reset, and a reset takes with it what the client has not read yet: the answer (RFC 9112 section 9.6).
    async fn farewell(&mut self) {
        let (mut bytes, time) = if self.stop.drain.is_cancelled() { DISCARD_IN_DRAIN } else { DISCARD };
        let Self { wire, alarm, .. } = self;
        let deadline = Instant::now() + time;
        let mut shut = false;
        poll_fn(|cx| {
            let mut wire = wire.borrow_mut();
            if !shut {
                shut = match wire.poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => false,
                };
            }
            loop {
                match wire.poll_discard(cx) {
                    Poll::Ready(Ok(read @ 1..)) => match bytes.checked_sub(read as u64) {
                        Some(left) => bytes = left,
                        None => return Poll::Ready(()),
                    },
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            alarm.poll(cx, deadline)
        })
        .await;
    }
}

/// From 0 to 1.
fn random() -> f64 {
    // A fresh hasher's keys are random.
    let random = RandomState::new().build_hasher().finish() >> 32;
    random as f64 / (1_u64 << 32) as f64
}

#[cfg(test)]
mod tests;

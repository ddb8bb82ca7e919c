//! The task that owns a connection's socket.

use super::{
    Channel, Outgoing, Queued, Shared, Waiter,
    login::{Renewal, Renewed},
};
use crate::{Error, transport::Io};
use bytes::{Buf, Bytes, BytesMut};
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    sync::mpsc,
    time::{Instant, Sleep, sleep_until},
};

/// Slices in one vectored write. Kernels take 1024; beyond a few dozen there is nothing left to save.
const MAX_SLICES: usize = 64;
/// The least room to read into.
const READ_BYTES: usize = 8 * 1024;
/// A longer throttle is not believed: a broker's quota windows are seconds long, and waiters without a deadline hang on
/// it.
const MAX_THROTTLE: Duration = Duration::from_secs(60);
/// Brokers close connections that were idle for 10 minutes; closing first avoids writing into their close.
const MAX_IDLE: Duration = Duration::from_mins(9);

/// Owns the socket, the frames to write and the waiters.
pub(super) struct Driver {
    io: Box<dyn Io>,
    requests: mpsc::UnboundedReceiver<Queued>,
    /// All handles are gone: finish what is under way, then close.
    finishing: bool,
    /// Frames to write, the first one perhaps begun.
    outgoing: VecDeque<Frame>,
    /// Bytes were written that a flush may have to push out (TLS).
    unflushed: bool,
    /// Requests of which a byte was written, in the order of their answers.
    in_flight: VecDeque<InFlight>,
    /// Bytes read, at most one incomplete frame.
    input: BytesMut,
    /// How the session is kept alive; `None`: it has no end.
    renewal: Option<Renewal>,
    /// The end of the throttling (KIP-219), also told to the handles through `shared`.
    throttled_until: Option<Instant>,
    /// The last time that a frame was queued or read.
    active: Instant,
    /// Fires at or before the next deadline; re-armed only when it fires or is too late, so that a request costs no
    /// timer operation.
    timer: Pin<Box<Sleep>>,
    shared: Arc<Shared>,
}

/// A frame to write.
struct Frame {
    pieces: VecDeque<Bytes>,
    /// Moves on to `in_flight` with the first byte.
    waiter: Option<Waiter>,
    queued: Instant,
    /// Belongs to a login: goes out while requests wait.
    login: bool,
}

impl Frame {
    fn new(Outgoing { frame, waiter }: Outgoing, queued: Instant, login: bool) -> Self {
        Self { pieces: frame.into(), waiter: Some(waiter), queued, login }
    }

    fn has_begun(&self) -> bool {
        self.waiter.is_none()
    }
}

/// A request whose answer is awaited.
struct InFlight {
    waiter: Waiter,
    written: Instant,
}

/// Why the driver ends.
enum End {
    /// Handles gone, everything answered, or idle for too long.
    Clean,
    /// The oldest request got no answer in time.
    TimedOut(Duration),
    /// Anything else.
    Broken(Arc<str>),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string().into())
    }
}

impl Driver {
    pub(super) fn new(io: Box<dyn Io>, requests: mpsc::UnboundedReceiver<Queued>, shared: Arc<Shared>) -> Self {
        shared.settings.traffic.open.fetch_add(1, Relaxed);
        let now = Instant::now();
        Self {
            io,
            requests,
            finishing: false,
            outgoing: VecDeque::new(),
            unflushed: false,
            in_flight: VecDeque::new(),
            input: BytesMut::new(),
            renewal: None,
            throttled_until: None,
            active: now,
            timer: Box::pin(sleep_until(now + MAX_IDLE)),
            shared,
        }
    }

    /// Runs until the connection ends; then every waiter has its answer or an error.
    pub(super) async fn run(mut self) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        self.end(&end);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.poll_io(cx) {
            Ok(()) if self.finishing && self.outgoing.is_empty() && self.in_flight.is_empty() => {
                Poll::Ready(End::Clean)
            }
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// Does all that can be done now, leaving `cx` to be woken for the rest.
    fn poll_io(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        // Reading first: an answer may free what is written next, and says more than a failed write about why the peer
        // left.
        self.poll_read(cx)?;
        self.poll_requests(cx);
        self.poll_renewal(cx)?;
        self.poll_write(cx)?;
        self.poll_deadline(cx)
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>) {
        while !self.finishing {
            match self.requests.poll_recv(cx) {
                Poll::Ready(Some(Queued::Request(outgoing))) => {
                    self.active = Instant::now();
                    self.outgoing.push_back(Frame::new(outgoing, self.active, false));
                }
                Poll::Ready(Some(Queued::Renewal(renewal))) => self.renewal = Some(renewal),
                Poll::Ready(None) => self.finishing = true,
                Poll::Pending => return,
            }
        }
    }

    /// Begins a new login when it is due, and takes it on.
    fn poll_renewal(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        while let Some(renewal) = &mut self.renewal {
            let shared = &self.shared;
            let channel = |queue| Channel { queue, shared: shared.clone() };
            match renewal.poll(cx, !self.outgoing.is_empty(), channel) {
                Poll::Pending => break,
                Poll::Ready(Renewed::Frame(frame)) => {
                    // Behind the frame that has begun, before those that have not.
                    let first = usize::from(self.outgoing.front().is_some_and(Frame::has_begun));
                    self.outgoing.insert(first, Frame::new(frame, Instant::now(), true));
                }
                Poll::Ready(Renewed::Again) => {
                    self.shared.settings.traffic.renewals.fetch_add(1, Relaxed);
                    tracing::debug!("logged in again");
                }
                Poll::Ready(Renewed::Unbounded) => {
                    self.shared.settings.traffic.renewals.fetch_add(1, Relaxed);
                    self.renewal = None;
                }
                Poll::Ready(Renewed::Expired(error)) => {
                    self.renewal = None;
                    self.retire(&error);
                }
                Poll::Ready(Renewed::Failed(error)) => return Err(End::Broken(error.to_string().into())),
            }
        }
        Ok(())
    }

    /// Sends nothing any more, but waits for the answers to what was sent.
    fn retire(&mut self, error: &Error) {
        tracing::warn!(%error, "the session has ended");
        let reason: Arc<str> = error.to_string().into();
        let begun = usize::from(self.outgoing.front().is_some_and(Frame::has_begun));
        let unsent: Vec<_> = self.outgoing.drain(begun..).filter_map(|frame| frame.waiter).collect();
        self.finishing = true;
        self.refuse(unsent, &reason);
    }

    /// Takes no more requests: these, and all in the queue, were never sent.
    fn refuse(&mut self, unsent: Vec<Waiter>, reason: &Arc<str>) {
        self.requests.close();
        let mut waiters = unsent;
        while let Ok(queued) = self.requests.try_recv() {
            if let Queued::Request(Outgoing { waiter, .. }) = queued {
                waiters.push(waiter);
            }
        }
        for waiter in waiters {
            waiter.then.fail(Error::Disconnected { maybe_sent: false, reason: reason.clone() });
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            self.take_frames()?;
            self.make_room();
            let read = match pin!(self.io.read_buf(&mut self.input)).poll(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(read) => read?,
            };
            if read == 0 {
                return Err(End::Broken("closed by the broker".into()));
            }
            self.shared.settings.traffic.bytes_in.fetch_add(read as u64, Relaxed);
        }
    }

    /// Room for the rest of the frame that has begun, but never for more than has been received already: a length alone
    /// makes nobody allocate.
    fn make_room(&mut self) {
        let rest = match self.input.first_chunk::<4>() {
            Some(length) => {
                let frame = 4 + usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
                frame.saturating_sub(self.input.len())
            }
            None => 0,
        };
        let room = rest.clamp(READ_BYTES / 2, self.input.len().max(READ_BYTES));
        if self.input.capacity() - self.input.len() < READ_BYTES / 2 {
            self.input.reserve(room.max(READ_BYTES));
        }
    }

    /// Answers every waiter whose frame is complete.
    fn take_frames(&mut self) -> Result<(), End> {
        while let Some(length) = self.input.first_chunk::<4>() {
            let length = i32::from_be_bytes(*length);
            let Some(oldest) = self.in_flight.front() else {
                return Err(End::Broken("an answer that nothing asked for".into()));
            };
            let length = match usize::try_from(length) {
                Ok(length) if (4..=oldest.waiter.max_answer_bytes).contains(&length) => length,
                _ => return Err(End::Broken(format!("a frame of {length} bytes").into())),
            };
            // The id tells on a stray frame before all of it is read.
            let Some(id) = self.input.get(4..8).and_then(<[u8]>::first_chunk::<4>) else {
                return Ok(());
            };
            let id = i32::from_be_bytes(*id);
            if id != oldest.waiter.correlation_id {
                let expected = oldest.waiter.correlation_id;
                return Err(End::Broken(format!("an answer to request {id} in place of {expected}").into()));
            }
            if self.input.len() < 4 + length {
                return Ok(());
            }
            let mut answer = self.input.split_to(4 + length).freeze();
            answer.advance(8);
            if let Some(InFlight { waiter, .. }) = self.in_flight.pop_front() {
                match waiter.then.complete(answer) {
                    Ok(throttle) => self.throttle(throttle),
                    Err((api, source)) => {
                        return Err(End::Broken(format!("a malformed {api} answer: {source}").into()));
                    }
                }
            }
            self.active = Instant::now();
        }
        Ok(())
    }

    fn throttle(&mut self, throttle: Duration) {
        if throttle.is_zero() {
            return;
        }
        self.shared.throttle_until(Instant::now() + throttle.min(MAX_THROTTLE));
        self.throttled_until = self.shared.throttled_until();
    }

    /// Whether the broker wants no new request now.
    fn is_throttled(&self) -> bool {
        self.throttled_until.is_some_and(|until| until > Instant::now())
    }

    /// How many frames may be offered to the socket. One that has begun is finished in any case.
    fn writable_frames(&self) -> usize {
        if self.is_throttled() {
            self.outgoing.iter().take(1).filter(|frame| frame.has_begun()).count()
        } else if self.renewal.as_ref().is_some_and(Renewal::holds_requests) {
            self.outgoing.iter().take_while(|frame| frame.has_begun() || frame.login).count()
        } else {
            usize::MAX
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        while !self.outgoing.is_empty() {
            let frames = self.writable_frames();
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            let mut offered = 0;
            for frame in self.outgoing.iter().take(frames) {
                offered += 1;
                for piece in frame.pieces.iter().take(MAX_SLICES - count) {
                    slices[count] = IoSlice::new(piece);
                    count += 1;
                }
                if count == MAX_SLICES {
                    break;
                }
            }
            if count == 0 {
                break;
            }
            match Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..count]) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => {
                    return Err(End::Broken("the socket takes no more bytes".into()));
                }
                Poll::Ready(Ok(written)) => self.advance(written),
                Poll::Ready(Err(error)) => {
                    // TLS may have put some of what it was offered onto the wire before it failed.
                    self.mark_begun(offered);
                    return Err(error.into());
                }
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(flushed) => {
                    flushed?;
                    self.unflushed = false;
                }
            }
        }
        Ok(())
    }

    /// The socket took `written` bytes off the front of `outgoing`.
    fn advance(&mut self, mut written: usize) {
        self.unflushed = true;
        self.shared.settings.traffic.bytes_out.fetch_add(written as u64, Relaxed);
        while written > 0 {
            self.mark_begun(1);
            let Some(frame) = self.outgoing.front_mut() else {
                return;
            };
            while let Some(piece) = frame.pieces.front_mut() {
                if written < piece.len() {
                    piece.advance(written);
                    return;
                }
                written -= piece.len();
                frame.pieces.pop_front();
            }
            self.outgoing.pop_front();
        }
    }

    /// The first `frames` frames may have reached the broker: their waiters are in flight from now on.
    fn mark_begun(&mut self, frames: usize) {
        for frame in self.outgoing.iter_mut().take(frames) {
            if let Some(waiter) = frame.waiter.take() {
                self.in_flight.push_back(InFlight { waiter, written: Instant::now() });
            }
        }
    }

    /// Fails when the oldest request has waited for too long, or nothing has happened for minutes.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            let now = Instant::now();
            // The broker does not read a connection that it throttles (KIP-219): that time does not count.
            let after_throttle = |from: Instant| self.throttled_until.map_or(from, |until| until.max(from));
            let deadline = if let Some(oldest) = self.in_flight.front() {
                let limit = oldest.waiter.timeout;
                let deadline = after_throttle(oldest.written) + limit;
                if now >= deadline {
                    return Err(End::TimedOut(limit));
                }
                deadline
            } else if let Some(first) = self.outgoing.front() {
                // Nothing in flight and the socket takes nothing.
                let limit = first.waiter.as_ref().map_or(self.shared.settings.request_timeout, |waiter| waiter.timeout);
                let deadline = after_throttle(first.queued) + limit;
                if now >= deadline {
                    return Err(End::TimedOut(limit));
                }
                deadline
            } else {
                let deadline = self.active + MAX_IDLE;
                if now >= deadline {
                    return Err(End::Clean);
                }
                deadline
            };
            // Also the end of a throttle wakes the writing.
            let wake = match self.throttled_until {
                Some(until) if until > now && !self.outgoing.is_empty() => deadline.min(until),
                _ => deadline,
            };
            if self.timer.deadline() > wake || self.timer.is_elapsed() {
                self.timer.as_mut().reset(wake);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            if !self.outgoing.is_empty() && !self.is_throttled() {
                self.poll_write(cx)?;
            }
        }
    }

    /// Tells every waiter why.
    fn end(&mut self, end: &End) {
        self.requests.close();
        let error = |maybe_sent| match end {
            End::Clean => Error::Disconnected { maybe_sent, reason: "closed after being idle".into() },
            End::TimedOut(after) => Error::TimedOut { maybe_sent, after: *after },
            End::Broken(reason) => Error::Disconnected { maybe_sent, reason: reason.clone() },
        };
        for InFlight { waiter, .. } in self.in_flight.drain(..) {
            waiter.then.fail(error(true));
        }
        for frame in self.outgoing.drain(..) {
            if let Some(waiter) = frame.waiter {
                waiter.then.fail(error(false));
            }
        }
        while let Ok(queued) = self.requests.try_recv() {
            if let Queued::Request(Outgoing { waiter, .. }) = queued {
                waiter.then.fail(error(false));
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // After `run` nothing is left to fail; before, the runtime is going down.
        self.end(&End::Broken("the runtime has shut down".into()));
        self.shared.settings.traffic.open.fetch_sub(1, Relaxed);
    }
}

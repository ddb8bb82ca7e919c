//! The bytes of one connection, shared by who serves it and who reads the body of the request under way.
//!
//! Both run on the worker's thread, mostly in one task: the connection waits for the answer, and the operation that
//! makes it reads the body. An upload with progress reads its body in a task of its own while the connection writes the
//! answer; a socket wakes its reader and its writer separately, so neither waits for the other.
//!
//! Read buffer: begins small, doubles while reads fill it, up to [`READ_BUFFER`]. A piece of a body is a view of it.
//! Whoever reads drops a piece before the next one, and then the same memory is read into again; a piece that is kept
//! costs a new buffer.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::chunked::Chunked;
use super::head::Framing;

/// The most that is read at once; larger buys nothing.
const READ_BUFFER: usize = 64 * 1024;
/// What an idle connection holds.
const SMALL_BUFFER: usize = 8 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a connection is made of.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Io for S {}

/// Why there will be no more of a body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the connection ended within it")]
    BrokenOff,
    #[error("its chunks are not framed as HTTP/1.1 wants them")]
    BadChunk,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is still to come of the body under way.
#[derive(Debug)]
enum Rest {
    Length(u64),
    Chunked(Chunked),
    /// It will never be whole, and nobody knows where the next request begins.
    Broken,
}

impl Rest {
    fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_over(),
            Self::Broken => false,
        }
    }
}

/// One connection's bytes.
pub(super) struct Wire {
    /// `None` once the connection is given up.
    stream: Option<Box<dyn Io>>,
    /// Read and not yet used.
    pub(super) input: BytesMut,
    /// How much the next read asks for.
    read_size: usize,
    rest: Rest,
    /// What is still to be sent of `100 Continue`, from when the client waits for it until it is on its way or the
    /// answer has taken its place.
    proceed: &'static [u8],
    /// Who waits for the body, to be told when the connection is given up.
    reader: Option<Waker>,
    /// Bytes read from the stream.
    received: u64,
    /// Bytes written to the stream.
    sent: u64,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Io>) -> Self {
        Self {
            stream: Some(stream),
            input: BytesMut::new(),
            read_size: SMALL_BUFFER,
            rest: Rest::Length(0),
            proceed: &[],
            reader: None,
            received: 0,
            sent: 0,
        }
    }

    /// Reads more. 0: the client has closed.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        // A view of the buffer that is still held makes this a new one.
        if self.input.capacity() - self.input.len() < self.read_size / 2 {
            self.input.reserve(self.read_size);
        }
        let room = self.input.capacity() - self.input.len();
        let read = ready!(poll_read_buf(Pin::new(stream), cx, &mut self.input))?;
        self.received = self.received.wrapping_add(read as u64);
        if read == room {
            self.read_size = (self.read_size * 2).min(READ_BUFFER);
        }
        Poll::Ready(Ok(read))
    }

    /// Looks whether the client goes away while nobody reads. What comes of the next request is kept, a buffer of it at
    /// the most.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.input.len() < SMALL_BUFFER {
            match self.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let written = ready!(Pin::new(stream).poll_write_vectored(cx, slices))?;
        self.sent = self.sent.wrapping_add(written as u64);
        if written == 0 { Poll::Ready(Err(io::ErrorKind::WriteZero.into())) } else { Poll::Ready(Ok(written)) }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().map_or(Poll::Ready(Ok(())), |stream| Pin::new(stream).poll_flush(cx))
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().map_or(Poll::Ready(Ok(())), |stream| Pin::new(stream).poll_shutdown(cx))
    }

    /// Bytes moved in both directions.
    pub(super) const fn moved(&self) -> u64 {
        self.received.wrapping_add(self.sent)
    }

    /// Bytes that were read and used.
    fn consumed(&self) -> u64 {
        self.received.wrapping_sub(self.input.len() as u64)
    }

    /// Throws away what comes. `Ok(0)`: the client has closed.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.clear();
        self.poll_fill(cx)
    }

    /// A request begins.
    pub(super) fn begin(&mut self, framing: Framing, expects_continue: bool) {
        self.rest = match framing {
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Chunked::new()),
        };
        if matches!(framing, Framing::Length(length) if length >= READ_BUFFER as u64) {
            self.read_size = READ_BUFFER;
        }
        // RFC 9110 section 10.1.1: not needed once some of the body is there.
        self.proceed = if expects_continue && self.input.is_empty() { CONTINUE } else { &[] };
    }

    /// A request is over. An idle connection keeps no large buffer.
    pub(super) fn finish(&mut self) {
        self.read_size = SMALL_BUFFER;
        if self.input.capacity() > SMALL_BUFFER && self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// The body has been read whole.
    pub(super) fn body_is_over(&self) -> bool {
        self.rest.is_over()
    }

    /// Bytes that are still to come of the body, where that is known.
    pub(super) const fn body_left(&self) -> Option<u64> {
        match &self.rest {
            Rest::Length(left) => Some(*left),
            Rest::Chunked(_) | Rest::Broken => None,
        }
    }

    /// The client waits for a word before it sends the body, and has not had it.
    pub(super) const fn awaits_continue(&self) -> bool {
        self.proceed.len() == CONTINUE.len()
    }

    /// What the answer must send first: the rest of a `100 Continue` that is partly on its way. One that is not is
    /// made unnecessary by the answer.
    pub(super) fn take_proceed(&mut self) -> &'static [u8] {
        let begun = !self.awaits_continue();
        let rest = std::mem::take(&mut self.proceed);
        if begun { rest } else { &[] }
    }

    fn poll_proceed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.proceed.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.proceed.is_empty() {
            let written = ready!(self.poll_write(cx, &[io::IoSlice::new(self.proceed)]))?;
            self.proceed = &self.proceed[written..];
        }
        // If it must wait, the socket's next write or flush takes it along.
        self.poll_flush(cx)
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        let piece = self.poll_piece(cx);
        match &piece {
            Poll::Pending => {
                if !self.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                    self.reader = Some(cx.waker().clone());
                }
            }
            Poll::Ready(Err(_)) => self.rest = Rest::Broken,
            Poll::Ready(Ok(_)) => {}
        }
        piece
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        loop {
            if self.rest.is_over() {
                return Poll::Ready(Ok(None));
            }
            if !self.input.is_empty() {
                let piece = match &mut self.rest {
                    Rest::Length(left) => {
                        let length = usize::try_from(*left).map_or(self.input.len(), |left| left.min(self.input.len()));
                        *left -= length as u64;
                        self.input.split_to(length).freeze()
                    }
                    Rest::Chunked(chunked) => chunked.decode(&mut self.input).map_err(|_| BodyError::BadChunk)?,
                    Rest::Broken => return Poll::Ready(Err(BodyError::BrokenOff)),
                };
                if !piece.is_empty() {
                    return Poll::Ready(Ok(Some(piece)));
                }
                continue;
            }
            ready!(self.poll_proceed(cx))?;
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(BodyError::BrokenOff));
            }
        }
    }

    /// Gives the connection up: closes the socket, and wakes who reads a body from it.
    pub(super) fn give_up(&mut self) {
        self.stream = None;
        self.input.clear();
        if !self.rest.is_over() {
            self.rest = Rest::Broken;
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The body of a request. What is not read of it is thrown away after the answer, or ends the connection.
pub(crate) struct Body {
    wire: Rc<RefCell<Wire>>,
}

impl Body {
    pub(super) const fn new(wire: Rc<RefCell<Wire>>) -> Self {
        Self { wire }
    }

    /// The next piece, never empty; `None` at the end of a whole body. Drop it before you ask for the next.
    ///
    /// The first call lets a client that waits for `100 Continue` have it.
    ///
    /// # Errors
    ///
    /// The body broke off, or is not framed as it must be. Final.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        self.wire.borrow_mut().poll_body(cx)
    }

    /// Nothing more will come.
    pub(crate) fn is_over(&self) -> bool {
        self.wire.borrow().body_is_over()
    }

    /// The client waits for `100 Continue`.
    pub(crate) fn awaits_continue(&self) -> bool {
        self.wire.borrow().awaits_continue()
    }

    /// Measures what the connection moves from here on. To be asked before anything of the body is read.
    pub(crate) fn meter(&self) -> Meter {
        let wire = self.wire.borrow();
        let (consumed, sent) = (wire.consumed(), wire.sent);
        Meter { wire: self.wire.clone(), consumed, sent }
    }
}

/// What a connection moves for one request. Costs nothing while it does: the connection counts anyway.
pub(crate) struct Meter {
    wire: Rc<RefCell<Wire>>,
    consumed: u64,
    sent: u64,
}

impl Meter {
    /// Bytes of the body that were read, its chunks' framing included; then bytes of the answer, its head included.
    pub(crate) fn read(&self) -> (u64, u64) {
        let wire = self.wire.borrow();
        (wire.consumed().wrapping_sub(self.consumed), wire.sent.wrapping_sub(self.sent))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.wire.borrow_mut().reader = None;
    }
}

/// Takes what was written from the front of two slices.
pub(super) fn advance(first: &mut &[u8], second: &mut &[u8], written: usize) {
    let of_first = written.min(first.len());
    first.advance(of_first);
    second.advance(written - of_first);
}

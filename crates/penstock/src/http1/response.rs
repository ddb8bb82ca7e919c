//! Answers: what they are made of, and how their heads are written.

use std::cell::RefCell;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Response, StatusCode};

/// Pieces that are made when the connection can take them: asked for one only when the one before has been written.
pub(crate) trait PieceStream {
    /// The next piece, not empty, or `None` at the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;
}

/// The body of an answer. Whoever wants to know that it is over leaves a guard in it.
pub(crate) struct ResponseBody {
    pub(super) kind: Kind,
    /// Dropped when the answer has been handed to the socket, or when the connection is gone.
    guard: Option<Box<dyn std::any::Any>>,
}

pub(super) enum Kind {
    Whole(Bytes),
    Pieces(Box<dyn PieceStream>),
}

impl ResponseBody {
    pub(crate) const fn empty() -> Self {
        Self { kind: Kind::Whole(Bytes::new()), guard: None }
    }

    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Whole(bytes.into()), guard: None }
    }

    pub(crate) fn pieces(pieces: impl PieceStream + 'static) -> Self {
        Self { kind: Kind::Pieces(Box::new(pieces)), guard: None }
    }

    /// Keeps `guard` until the answer is over.
    pub(crate) fn guarded(mut self, guard: impl std::any::Any) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }
}

/// Asks for the connection to end with this answer.
pub(crate) fn close_after<B>(response: &mut Response<B>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Whether an answer asks for the connection to end with it.
pub(super) fn asks_to_close<B>(response: &Response<B>) -> bool {
    response.headers().get(CONNECTION).is_some_and(|option| option.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// How a body is put on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delimiter {
    Length(usize),
    Chunked,
    /// The end of the connection: HTTP/1.0 knows no chunks.
    Close,
}

/// Writes the head of an answer. `connection` is told to the client if the answer says nothing of it.
pub(super) fn write_head<B>(
    out: &mut Vec<u8>,
    response: &Response<B>,
    delimiter: Delimiter,
    connection: Option<&'static str>,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    let status = response.status();
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in response.headers() {
        field(out, name.as_str(), value.as_bytes());
    }
    if let Some(connection) = connection.filter(|_| !response.headers().contains_key(CONNECTION)) {
        field(out, "connection", connection.as_bytes());
    }
    match delimiter {
        Delimiter::Length(_) if status == StatusCode::NO_CONTENT => {}
        Delimiter::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Delimiter::Chunked => field(out, "transfer-encoding", b"chunked"),
        Delimiter::Close => {}
    }
    out.extend_from_slice(b"date: ");
    DATE.with_borrow_mut(|date| date.write(out));
    out.extend_from_slice(b"\r\n\r\n");
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn decimal(out: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes the head of one chunk.
pub(super) fn write_chunk_head(out: &mut Vec<u8>, length: usize) {
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let nibble = (length >> (4 * digit)) & 0xf;
        out.push(b"0123456789abcdef"[nibble]);
    }
    out.extend_from_slice(b"\r\n");
}

thread_local! {
    static DATE: RefCell<Date> = const { RefCell::new(Date { second: 0, text: String::new() }) };
}

/// The `Date` of answers (RFC 9110 section 6.6.1), written anew once a second.
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn write(&mut self, out: &mut Vec<u8>) {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.second != second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(now);
        }
        out.extend_from_slice(self.text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::CONTENT_TYPE;

    fn head(response: &Response<()>, delimiter: Delimiter, connection: Option<&'static str>) -> String {
        let mut out = Vec::new();
        write_head(&mut out, response, delimiter, connection);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn a_head_has_what_its_client_needs() {
        let mut response = Response::new(());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let text = head(&response, Delimiter::Length(1070), None);
        let (fixed, date) = text.split_once("date: ").expect("a date");
        assert_eq!(fixed, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1070\r\n");
        assert!(date.ends_with(" GMT\r\n\r\n") && date.len() == 33, "{date}");
        assert!(head(&response, Delimiter::Chunked, Some("close")).contains("close\r\ntransfer-encoding: chunked\r\n"));
        assert!(head(&response, Delimiter::Length(0), Some("keep-alive")).contains("connection: keep-alive\r\n"));
        close_after(&mut response);
        assert!(asks_to_close(&response));
        let text = head(&response, Delimiter::Close, Some("keep-alive"));
        assert!(text.contains("connection: close\r\ndate"), "{text}");
        *response.status_mut() = StatusCode::NO_CONTENT;
        assert!(!head(&response, Delimiter::Length(0), None).contains("content-length"));
    }

    #[test]
    fn sizes_are_hexadecimal() {
        for size in [1, 9, 10, 15, 16, 255, 256, 4096, 65_535, 1 << 40] {
            let mut out = Vec::new();
            write_chunk_head(&mut out, size);
            assert_eq!(out, format!("{size:x}\r\n").into_bytes());
            out.clear();
            decimal(&mut out, size);
            assert_eq!(out, size.to_string().into_bytes());
        }
    }
}

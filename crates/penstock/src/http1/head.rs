//! The head of a request: where it ends, what it says, and how its body is framed.
//!
//! httparse knows the grammar. What is refused beyond it are the liberties that servers take differently from each other,
//! because a proxy in front of us that takes them the other way would see other requests than we do (request smuggling,
//! RFC 9112 section 11.2): lines that end in a bare LF, a `Content-Length` beside a `Transfer-Encoding`, either of them
//! twice, a transfer coding other than `chunked`, no `Host` or two of them, a target with a fragment.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::Bytes;
use hyper::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, StatusCode, Uri, Version};

/// Fields in a head.
pub(crate) const MAX_FIELDS: usize = 100;

/// Why a head is refused. The connection ends with the answer: where the next request begins is anybody's guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadHead {
    pub(crate) status: StatusCode,
    /// For the client.
    pub(crate) message: &'static str,
}

const fn bad(message: &'static str) -> BadHead {
    BadHead { status: StatusCode::BAD_REQUEST, message }
}

const TOO_LONG: BadHead = too_large("the head of the request is too long");
const ONE_HOST: BadHead = bad("a request has exactly one Host header");

const fn too_large(message: &'static str) -> BadHead {
    BadHead { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message }
}

/// How a body is framed (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes; a request without a body has 0.
    Length(u64),
    Chunked,
}

/// What a head says.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) parts: Parts,
    pub(crate) framing: Framing,
    /// The client would go on with this connection.
    pub(crate) keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
    pub(crate) expects_continue: bool,
}

/// Looks for the end of a head in bytes that come bit by bit; no byte is looked at twice.
#[derive(Debug, Default)]
pub(crate) struct HeadEnd {
    scanned: usize,
    /// Where the line under way begins.
    line: usize,
    /// Where the request line begins: behind an empty line that some clients send after a body (RFC 9112 section 2.2).
    begin: usize,
}

impl HeadEnd {
    /// Where the head is in `bytes`, with its empty line, once all of it is there. `bytes` begins with what the last
    /// call was given. A head of more than `limit` bytes is refused.
    pub(crate) fn find(&mut self, bytes: &[u8], limit: usize) -> Result<Option<Range<usize>>, BadHead> {
        self.check_first(bytes)?;
        while let Some(found) = memchr::memchr(b'\n', &bytes[self.scanned..]) {
            let at = self.scanned + found;
            // However the bytes were cut, what is beyond the limit is not looked at.
            if at + 1 - self.begin > limit {
                return Err(TOO_LONG);
            }
            if at == 0 || bytes[at - 1] != b'\r' {
                return Err(bad("a line of a head ends with CR and LF"));
            }
            let empty = at - 1 == self.line;
            self.scanned = at + 1;
            self.line = at + 1;
            if !empty {
                continue;
            }
            if at - 1 > self.begin {
                return Ok(Some(self.begin..at + 1));
            }
            if self.begin > 0 {
                return Err(bad("empty lines in front of a request"));
            }
            self.begin = at + 1;
            self.check_first(bytes)?;
        }
        self.scanned = bytes.len();
        if bytes.len() - self.begin > limit { Err(TOO_LONG) } else { Ok(None) }
    }

    /// A request begins with a method, and methods with a letter. Other protocols (TLS, for one) need not wait for a timeout
    /// to be told.
    fn check_first(&self, bytes: &[u8]) -> Result<(), BadHead> {
        match bytes.get(self.begin) {
            Some(first) if !first.is_ascii_alphabetic() && *first != b'\r' => {
                Err(bad("this is no request of HTTP/1.1"))
            }
            _ => Ok(()),
        }
    }
}

/// Reads a whole head.
pub(crate) fn parse(head: Bytes) -> Result<Head, BadHead> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(&head, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(bad("the head of the request is not as HTTP/1.1 wants it")),
        Err(error) => return Err(explain(error)),
    }
    let target = parsed.path.ok_or(bad("a request without a target"))?;
    let method = parsed.method.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    let method = method.ok_or(bad("a request without a method"))?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    let mut said = Said::default();
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| bad("a header's name is no token"))?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value))
            .map_err(|_| bad("a header's value has a control character"))?;
        said.hear(&name, field.value)?;
        headers.append(name, value);
    }
    let uri = request_target(&method, &head.slice_ref(target.as_bytes()))?;
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    if !said.host && version == Version::HTTP_11 {
        return Err(ONE_HOST);
    }
    let framing = said.framing(version)?;
    let (mut parts, ()) = Request::new(()).into_parts();
    (parts.method, parts.uri, parts.version, parts.headers) = (method, uri, version, headers);
    Ok(Head {
        parts,
        framing,
        keep_alive: !said.close && (said.keep_alive || version == Version::HTTP_11),
        // RFC 9110 section 10.1.1: not from a client of HTTP/1.0, and not without a body.
        expects_continue: said.expects_continue && version == Version::HTTP_11 && framing != Framing::Length(0),
    })
}

/// What the fields say that concern the connection. One look at each field is cheaper than to search them all for each
/// of these.
#[derive(Debug, Default)]
struct Said {
    host: bool,
    length: Option<u64>,
    chunked: bool,
    expects_continue: bool,
    close: bool,
    keep_alive: bool,
}

impl Said {
    fn hear(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), BadHead> {
        if *name == HOST {
            // RFC 9112 section 3.2: a request of HTTP/1.1 has one, and it is a host.
            if std::mem::replace(&mut self.host, true) {
                return Err(ONE_HOST);
            }
            if !is_host(value) {
                return Err(bad("the Host header names no host"));
            }
        } else if *name == CONTENT_LENGTH {
            let number = std::str::from_utf8(value)
                .ok()
                .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok())
                .ok_or(bad("Content-Length is no number of bytes"))?;
            if self.length.replace(number).is_some() {
                return Err(bad("a request has one Content-Length"));
            }
        } else if *name == TRANSFER_ENCODING {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(bad("the only Transfer-Encoding is chunked, once"));
            }
            self.chunked = true;
        } else if *name == EXPECT {
            if self.expects_continue || !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(BadHead {
                    status: StatusCode::EXPECTATION_FAILED,
                    message: "the only expectation that is understood is 100-continue",
                });
            }
            self.expects_continue = true;
        } else if *name == CONNECTION {
            // RFC 9112 section 9.3.
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        Ok(())
    }

    /// RFC 9112 section 6.3, without its leniences.
    fn framing(&self, version: Version) -> Result<Framing, BadHead> {
        match (self.chunked, self.length) {
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
            (true, Some(_)) => Err(bad("a request has a Content-Length or a Transfer-Encoding, not both")),
            (true, None) if version == Version::HTTP_10 => Err(bad("HTTP/1.0 knows no Transfer-Encoding")),
            (true, None) => Ok(Framing::Chunked),
        }
    }
}

const fn explain(error: httparse::Error) -> BadHead {
    match error {
        httparse::Error::TooManyHeaders => too_large("a request has at most 100 header fields"),
        httparse::Error::Version => {
            BadHead { status: StatusCode::HTTP_VERSION_NOT_SUPPORTED, message: "HTTP/1.1 is spoken here" }
        }
        httparse::Error::HeaderName => bad("a header's name is not as HTTP/1.1 wants it"),
        httparse::Error::HeaderValue => bad("a header's value is not as HTTP/1.1 wants it"),
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => {
            bad("the request line is not as HTTP/1.1 wants it")
        }
    }
}

/// The target in origin-form or absolute-form (RFC 9112 section 3.2); `*` is for OPTIONS alone.
fn request_target(method: &Method, target: &Bytes) -> Result<Uri, BadHead> {
    let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#';
    if !target.iter().all(plain) {
        return Err(bad("a request's target has no \"#\" and no character beyond ASCII"));
    }
    let origin = target.first() == Some(&b'/');
    let asterisk = &target[..] == b"*" && *method == Method::OPTIONS;
    let uri = Uri::from_maybe_shared(target.clone()).map_err(|_| bad("the request's target is no URI"))?;
    let absolute = uri.scheme().is_some() && uri.host().is_some_and(|host| !host.is_empty());
    if origin || asterisk || absolute { Ok(uri) } else { Err(bad("a request's target is a path")) }
}

/// `uri-host [":" port]` (RFC 9110 section 7.2, RFC 3986 section 3.2.2), not empty.
fn is_host(value: &[u8]) -> bool {
    let (host, port) = if value.first() == Some(&b'[') {
        let Some(end) = memchr::memchr(b']', value) else { return false };
        let inner = &value[1..end];
        let address = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
        if inner.is_empty() || !inner.iter().all(address) {
            return false;
        }
        (inner, &value[end + 1..])
    } else {
        value.split_at(memchr::memchr(b':', value).unwrap_or(value.len()))
    };
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:".contains(byte);
    let port_is_number = match port.split_first() {
        None => true,
        Some((b':', digits)) => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    };
    !host.is_empty() && host.iter().all(name) && port_is_number
}

#[cfg(test)]
mod tests;

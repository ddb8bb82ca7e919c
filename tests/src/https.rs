//! An HTTP/1.1 client over TLS that sends exactly the bytes it is given, in the pieces it is given.
//!
//! For what no well-behaved client does: a chunk that ends between `\r` and `\n`, an answer that is read while the
//! request still goes out, or only long after. Writing and reading are separate halves, so that two tasks can hold them.

use std::{io, net::Ipv4Addr, sync::Arc};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::tls::certificates;

type Tls = TlsStream<TcpStream>;

/// A connection to the bridge's data listener.
#[derive(Debug)]
pub struct Connection {
    /// What goes out.
    pub writer: Writer,
    /// What comes back.
    pub reader: Reader,
}

impl Connection {
    /// Connects to `127.0.0.1:port` and ends the handshake; panics when it fails.
    pub async fn open(port: u16) -> Self {
        Self::try_open(port).await.expect("the bridge listens, and its certificate is trusted")
    }

    /// The same where the bridge may not listen any more.
    ///
    /// # Errors
    ///
    /// When the connection is refused, or ends within the handshake.
    pub async fn try_open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::clone(&certificates().client));
        let name = ServerName::try_from("localhost").expect("a valid name");
        let stream = connector.connect(name, stream).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()), "ALPN");
        let (reader, writer) = tokio::io::split(stream);
        Ok(Self { writer: Writer(writer), reader: Reader { stream: reader, buffer: Vec::new(), body: Body::None } })
    }

    /// Sends a whole request: method and path, header lines (without line ends), and a body with its length.
    pub async fn send(&mut self, request: &str, headers: &[&str], body: &[u8]) {
        let mut bytes = head(request, headers);
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body);
        self.writer.send(&bytes).await;
    }

    /// Sends the head of a request whose body follows in chunks.
    pub async fn begin_chunked(&mut self, request: &str, headers: &[&str]) {
        let mut bytes = head(request, headers);
        bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        self.writer.send(&bytes).await;
    }

    /// Sends a whole request in chunks and reads the answer.
    pub async fn chunked(&mut self, request: &str, headers: &[&str], chunks: &[&[u8]]) -> Answer {
        self.begin_chunked(request, headers).await;
        for chunk in chunks {
            self.writer.chunk(chunk).await;
        }
        self.writer.last_chunk().await;
        self.reader.answer().await
    }
}

fn head(request: &str, headers: &[&str]) -> Vec<u8> {
    let mut head = format!("{request} HTTP/1.1\r\nHost: localhost\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.into_bytes()
}

/// The writing half.
#[derive(Debug)]
pub struct Writer(WriteHalf<Tls>);

impl Writer {
    /// Sends these bytes and nothing else, in TLS records of their own.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.expect("the bridge reads");
    }

    /// The same where the bridge may close the connection meanwhile.
    ///
    /// # Errors
    ///
    /// When the connection is closed or reset.
    pub async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    /// Sends one chunk of a chunked body. An empty one is not sent: it would end the body.
    pub async fn chunk(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
            framed.extend_from_slice(bytes);
            framed.extend_from_slice(b"\r\n");
            self.send(&framed).await;
        }
    }

    /// Ends a chunked body.
    pub async fn last_chunk(&mut self) {
        self.send(b"0\r\n\r\n").await;
    }
}

/// An answer that was read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Status line and headers, without the empty line.
    pub head: String,
    /// The body, its transfer encoding removed.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; panics when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.head, String::from_utf8_lossy(&self.body)))
    }

    /// The value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// Panics, with the whole answer, unless the status is `status`.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        self
    }
}

/// What is left of the body that is being read.
#[derive(Debug)]
enum Body {
    None,
    Length(usize),
    Chunked,
}

/// The reading half.
#[derive(Debug)]
pub struct Reader {
    stream: ReadHalf<Tls>,
    buffer: Vec<u8>,
    body: Body,
}

impl Reader {
    /// Reads the head of the next answer: the status code, and status line with headers. `100 Continue` is passed over.
    pub async fn head(&mut self) -> (u16, String) {
        loop {
            let head = self.until(b"\r\n\r\n").await.expect("an answer's head ends");
            let head = String::from_utf8(head).expect("heads are ASCII here");
            let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("HTTP/1.1 200 OK");
            if status == 100 {
                continue;
            }
            self.body = if header(&head, "transfer-encoding").is_some_and(|value| value.ends_with("chunked")) {
                Body::Chunked
            } else if status == 204 || status == 304 {
                Body::None
            } else {
                let length = header(&head, "content-length").expect("an answer is chunked or has a length");
                Body::Length(length.parse().expect("a number"))
            };
            return (status, head);
        }
    }

    /// The next piece of the body, as it comes; `None` at its end.
    pub async fn piece(&mut self) -> Option<Vec<u8>> {
        match self.body {
            Body::None | Body::Length(0) => None,
            Body::Length(left) => {
                while self.buffer.is_empty() {
                    assert!(self.fill().await, "the connection was closed {left} bytes before the body's end");
                }
                let piece: Vec<_> = self.buffer.drain(..left.min(self.buffer.len())).collect();
                self.body = Body::Length(left - piece.len());
                Some(piece)
            }
            Body::Chunked => {
                let line = self.until(b"\r\n").await.expect("a chunk begins with its length");
                let line = String::from_utf8(line).expect("a length is ASCII");
                let length = usize::from_str_radix(&line, 16).expect("a length is hexadecimal");
                while self.buffer.len() < length + 2 {
                    assert!(self.fill().await, "the connection was closed inside a chunk");
                }
                let piece: Vec<_> = self.buffer.drain(..length).collect();
                assert_eq!(self.buffer.drain(..2).as_slice(), b"\r\n", "a chunk ends with CRLF");
                if length == 0 {
                    self.body = Body::None;
                    return None;
                }
                Some(piece)
            }
        }
    }

    /// Reads the next answer to its end.
    pub async fn answer(&mut self) -> Answer {
        let (status, head) = self.head().await;
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await {
            body.extend_from_slice(&piece);
        }
        Answer { status, head, body }
    }

    /// The same; `None` where the connection ends before the first byte of an answer. One that ends within it is a panic.
    pub async fn answer_or_end(&mut self) -> Option<Answer> {
        if self.buffer.is_empty() && !self.fill().await {
            return None;
        }
        Some(self.answer().await)
    }

    /// Whether the peer has closed the connection: waits for it, and panics when bytes come instead.
    pub async fn closed(&mut self) {
        assert!(!self.fill().await && self.buffer.is_empty(), "bytes instead of the end: {:?}", self.buffer);
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                let found = self.buffer.drain(..at).collect();
                self.buffer.drain(..end.len());
                return Some(found);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Reads what has come; false at the end of the connection, be it clean or cut.
    async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..))
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

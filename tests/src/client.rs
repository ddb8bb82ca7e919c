//! An HTTP/1.1 client over TLS to whom connections may be lost: what came until then is part of the answer.

use std::{io, net::Ipv4Addr, pin::pin, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::tls::certificates;

/// A connection that is kept between requests.
#[derive(Debug)]
pub struct Client {
    writer: WriteHalf<TlsStream<TcpStream>>,
    reader: Reader,
}

#[derive(Debug)]
struct Reader {
    stream: ReadHalf<TlsStream<TcpStream>>,
    buffer: Vec<u8>,
}

/// What came back to a request.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The status, if the head came.
    pub status: Option<u16>,
    /// As much of the body as came.
    pub body: Vec<u8>,
    /// Whether that is all of it.
    pub whole: bool,
    /// Whether the connection takes another request.
    pub keeps: bool,
}

/// A body, and how it is sent.
#[derive(Debug)]
pub enum Body {
    /// At once, with its length.
    Whole(Vec<u8>),
    /// In chunks, with this much time before each.
    Chunks(Vec<Vec<u8>>, Duration),
    /// The same, but it never ends: the connection is given up after the last of them.
    Abandoned(Vec<Vec<u8>>, Duration),
}

impl Client {
    /// Connects to `127.0.0.1:port`.
    ///
    /// # Errors
    ///
    /// When nobody listens, or the connection ends within the handshake.
    pub async fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a valid name");
        let stream = TlsConnector::from(Arc::clone(&certificates().client)).connect(name, stream).await?;
        let (stream, writer) = tokio::io::split(stream);
        Ok(Self { writer, reader: Reader { stream, buffer: Vec::new() } })
    }

    /// Whether the bridge has left the connection open until now: it may end one that is idle, and a request that is
    /// then sent into it is the client's own fault.
    pub async fn is_open(&mut self) -> bool {
        // Polled once: nothing to read is the only good answer.
        tokio::time::timeout(Duration::ZERO, self.reader.fill()).await.is_err()
    }

    /// Sends a request, `head` being its lines without the one about the length, and reads what comes back meanwhile. An
    /// answer that is whole before everything is sent ends the sending.
    pub async fn exchange(&mut self, head: &str, body: &Body) -> Exchange {
        let Self { writer, reader } = self;
        let mut exchange = Exchange { status: None, body: Vec::new(), whole: false, keeps: false };
        // Where sending fails, the bridge may have answered and closed: the answer is what counts.
        if matches!(body, Body::Abandoned(..)) {
            let _ = send(writer, head, body).await;
            return exchange;
        }
        exchange.keeps = {
            let mut sent = None;
            let mut sending = pin!(send(writer, head, body));
            let mut receiving = pin!(reader.receive(&mut exchange));
            loop {
                tokio::select! {
                    biased;
                    received = &mut receiving => break sent == Some(true) && received.unwrap_or(false),
                    ended = &mut sending, if sent.is_none() => sent = Some(ended.is_ok()),
                }
            }
        };
        exchange
    }

    /// Sends a request without a body and reads the head of a chunked answer of status 200.
    pub async fn begin(&mut self, head: &str) -> io::Result<()> {
        self.writer.write_all(format!("{head}\r\n").as_bytes()).await?;
        self.writer.flush().await?;
        let head = String::from_utf8_lossy(&self.reader.until(b"\r\n\r\n").await?).to_ascii_lowercase();
        if head.split(' ').nth(1) != Some("200") || !head.contains("transfer-encoding: chunked") {
            return Err(io::Error::other(head));
        }
        Ok(())
    }

    /// The next chunk of such an answer; `None` at its end.
    pub async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let length = self.reader.until(b"\r\n").await?;
        let length = std::str::from_utf8(&length).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let length = length.ok_or_else(|| io::Error::other("no chunk length"))?;
        let mut chunk = self.reader.take(length + 2).await?;
        chunk.truncate(length);
        Ok((length > 0).then_some(chunk))
    }
}

async fn send(to: &mut (impl AsyncWriteExt + Unpin), head: &str, body: &Body) -> io::Result<()> {
    match body {
        Body::Whole(bytes) => {
            let mut request = format!("{head}Content-Length: {}\r\n\r\n", bytes.len()).into_bytes();
            request.extend_from_slice(bytes);
            to.write_all(&request).await?;
        }
        Body::Chunks(chunks, pause) | Body::Abandoned(chunks, pause) => {
            to.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await?;
            for chunk in chunks {
                to.flush().await?;
                tokio::time::sleep(*pause).await;
                let mut framed = format!("{:x}\r\n", chunk.len()).into_bytes();
                framed.extend_from_slice(chunk);
                framed.extend_from_slice(b"\r\n");
                to.write_all(&framed).await?;
            }
            if matches!(body, Body::Chunks(..)) {
                to.write_all(b"0\r\n\r\n").await?;
            }
        }
    }
    to.flush().await
}

impl Reader {
    /// Fills `exchange`, and says whether the connection may be kept.
    async fn receive(&mut self, exchange: &mut Exchange) -> io::Result<bool> {
        let head = loop {
            let head = String::from_utf8_lossy(&self.until(b"\r\n\r\n").await?).to_ascii_lowercase();
            let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
            exchange.status = Some(status.ok_or_else(|| io::Error::other(format!("no status: {head}")))?);
            if status != Some(100) {
                break head;
            }
        };
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        if field("transfer-encoding").is_some() {
            loop {
                let length = self.until(b"\r\n").await?;
                let length = std::str::from_utf8(&length).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
                let length = length.ok_or_else(|| io::Error::other("no chunk length"))?;
                let mut chunk = self.take(length + 2).await?;
                chunk.truncate(length);
                exchange.body.append(&mut chunk);
                if length == 0 {
                    break;
                }
            }
        } else {
            let length = field("content-length").and_then(|length| length.trim().parse().ok()).unwrap_or(0);
            exchange.body = self.take(length).await?;
        }
        exchange.whole = true;
        Ok(field("connection").is_none_or(|value| value.trim() != "close"))
    }

    async fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                let found = self.buffer.drain(..at).collect();
                self.buffer.drain(..end.len());
                return Ok(found);
            }
            self.fill().await?;
        }
    }

    async fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill().await?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

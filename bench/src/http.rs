//! The client's side of HTTP/1.1, no more than a load generator needs: requests are written as prepared bytes, answers
//! are read up to their end, or handed on as they come.

use std::{io, net::SocketAddr, ops::ControlFlow, path::PathBuf, rc::Rc, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Whom to talk to, and how.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<TlsConnector>,
}

impl Server {
    /// `ca`: PEM file with the authority of the server's certificate; `None`: plain HTTP. `tls_record_bytes`: the
    /// largest plaintext of one TLS record, by default 16 KiB.
    pub(crate) fn new(address: SocketAddr, ca: Option<&PathBuf>, tls_record_bytes: Option<usize>) -> Self {
        let tls = ca.map(|ca| {
            let mut roots = RootCertStore::empty();
            for authority in CertificateDer::pem_file_iter(ca).expect("the authority's file can be read") {
                roots.add(authority.expect("the file is PEM")).expect("it holds certificates");
            }
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("the provider has suites for them")
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            // rustls counts the record's header and tag in.
            config.max_fragment_size = tls_record_bytes.map(|bytes| bytes + 5);
            TlsConnector::from(Arc::new(config))
        });
        Self { address, tls }
    }
}

/// A request, prepared so that sending it costs the generator nothing but the writes.
#[derive(Clone)]
pub(crate) struct Request {
    /// The head and, where the body is small, the body.
    start: Rc<[u8]>,
    /// Then this, so many times,
    block: Rc<[u8]>,
    repeats: u64,
    /// then this.
    end: Rc<[u8]>,
}

/// A whole request up to this size goes into one buffer and so into one write.
const SMALL: u64 = 256 << 10;

impl Request {
    /// `block` `repeats` times and `end` are the body, as they stand on the wire: with chunk headers, if `head` says so.
    pub(crate) fn new(head: &str, block: &[u8], repeats: u64, end: &[u8]) -> Self {
        let mut start = head.as_bytes().to_vec();
        if block.len() as u64 * repeats + end.len() as u64 <= SMALL {
            for _ in 0..repeats {
                start.extend_from_slice(block);
            }
            start.extend_from_slice(end);
            return Self { start: start.into(), block: [].into(), repeats: 0, end: [].into() };
        }
        Self { start: start.into(), block: block.into(), repeats, end: end.into() }
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// A keep-alive connection.
pub(crate) struct Connection {
    io: Box<dyn Io>,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(server: &Server) -> io::Result<Self> {
        let socket = TcpStream::connect(server.address).await?;
        socket.set_nodelay(true)?;
        let io: Box<dyn Io> = match &server.tls {
            Some(tls) => Box::new(tls.connect(ServerName::from(server.address.ip()), socket).await?),
            None => Box::new(socket),
        };
        Ok(Self { io, received: Vec::with_capacity(16 << 10) })
    }

    /// Sends a request and waits for the end of its answer: status and body.
    pub(crate) async fn exchange(&mut self, request: &Request) -> io::Result<(u16, &[u8])> {
        self.received.clear();
        if let Err(error) = self.send(request).await {
            // A server that refuses a body may have said why before it closed.
            return self.answer().await.map_err(|_| error);
        }
        self.answer().await
    }

    async fn send(&mut self, request: &Request) -> io::Result<()> {
        self.io.write_all(&request.start).await?;
        for _ in 0..request.repeats {
            self.io.write_all(&request.block).await?;
        }
        self.io.write_all(&request.end).await?;
        self.io.flush().await
    }

    /// Sends a request and hands on the chunked body of its answer (RFC 9112, section 7.1) as it comes, until it ends or
    /// `take` has enough: then the connection is good for nothing more. An answer that is not chunked, or not 200, is an
    /// error.
    pub(crate) async fn stream(
        &mut self,
        request: &Request,
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<Head> {
        self.received.clear();
        self.send(request).await?;
        let head = self.head().await?;
        if head.status != 200 || head.field("transfer-encoding") != Some("chunked") {
            return Err(malformed(&head.text));
        }
        let mut at = head.text.len();
        loop {
            let line_end = self.find(at, b"\r\n").await?;
            let size = std::str::from_utf8(&self.received[at..line_end]).ok();
            let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.ok_or_else(|| malformed("a chunk without a size"))?;
            at = line_end + 2;
            let mut left = size;
            while left > 0 {
                if at == self.received.len() {
                    self.received.clear();
                    at = 0;
                    self.receive().await?;
                }
                let end = self.received.len().min(at + left);
                if take(&self.received[at..end]).is_break() {
                    return Ok(head);
                }
                left -= end - at;
                at = end;
            }
            at = self.find(at, b"\r\n").await? + 2;
            if size == 0 {
                return Ok(head);
            }
        }
    }

    async fn answer(&mut self) -> io::Result<(u16, &[u8])> {
        let head = self.head().await?;
        let length = match head.status {
            204 => Some(0),
            _ => head.field("content-length").and_then(|length| length.parse::<usize>().ok()),
        };
        let start = head.text.len();
        let end = start + length.ok_or_else(|| malformed("an answer without a length"))?;
        while self.received.len() < end {
            self.receive().await?;
        }
        Ok((head.status, &self.received[start..end]))
    }

    /// Reads up to the end of a head, which stays at the beginning of what was received.
    async fn head(&mut self) -> io::Result<Head> {
        let end = self.find(0, b"\r\n\r\n").await? + 4;
        let text = std::str::from_utf8(&self.received[..end]).map_err(|_| malformed("a head that is not text"))?;
        let status = text.get(9..12).and_then(|status| status.parse().ok());
        Ok(Head { status: status.ok_or_else(|| malformed("no status line"))?, text: text.to_owned() })
    }

    /// Where `what` is, from `start` on; reads until it is there.
    async fn find(&mut self, start: usize, what: &[u8]) -> io::Result<usize> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.received[start..], what) {
                return Ok(start + at);
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> io::Result<()> {
        match self.io.read_buf(&mut self.received).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    text: String,
}

impl Head {
    /// A field's value by its name, which is compared without regard to case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

//! The client's side of HTTP/1.1, no more than a load generator needs: requests are written as prepared bytes, answers
//! are read up to their end.

use std::{io, net::SocketAddr, path::PathBuf, rc::Rc, sync::Arc};

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
        Ok(Self { io, received: Vec::with_capacity(4096) })
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

    async fn answer(&mut self) -> io::Result<(u16, &[u8])> {
        let head_end = loop {
            if let Some(at) = memchr::memmem::find(&self.received, b"\r\n\r\n") {
                break at + 4;
            }
            self.receive().await?;
        };
        let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let head = std::str::from_utf8(&self.received[..head_end]).map_err(|_| malformed("a head that is not text"))?;
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let status: u16 = status.ok_or_else(|| malformed("no status line"))?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let end = head_end + length.ok_or_else(|| malformed("an answer without a length"))?;
        while self.received.len() < end {
            self.receive().await?;
        }
        Ok((status, &self.received[head_end..end]))
    }

    async fn receive(&mut self) -> io::Result<()> {
        match self.io.read_buf(&mut self.received).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

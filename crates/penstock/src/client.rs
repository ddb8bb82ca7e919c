//! An HTTP/1.1 client for our own commands: one connection at a time, over TCP or rustls, full duplex.
//!
//! Full duplex is what `penstock upload` needs: its answer tells what is settled while the body is still being sent.

use std::{
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::{Bytes, BytesMut};
use hyper::{
    Request, Response, Uri,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1,
    header::{AUTHORIZATION, HOST, HeaderValue},
    http::{request, uri::Scheme},
};
use hyper_util::rt::TokioIo;
use kafka_client::sasl::Secret;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::CertifiedKey,
};
use tokio::{net::TcpStream, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::{config::files, credentials::read_secret};

/// For the TCP connection and the TLS handshake, each.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Whose certificate is believed.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// Those that the host's authorities signed.
    System,
    /// Those that an authority of this PEM file signed.
    File(&'a Path),
    /// Anybody's: the connection is encrypted, and whoever answers may be anyone.
    Anyone,
}

/// How we prove who we are to whom we ask. The default proves nothing.
#[derive(Debug, Default)]
pub struct Proof {
    /// Shown in the TLS handshake.
    pub certificate: Option<CertifiedKey>,
    /// Sent with every request.
    pub login: Option<Login>,
}

/// What `Authorization` says.
pub enum Login {
    /// A user's name and password, or a token.
    Fixed(HeaderValue),
    /// A secret in a file, read for every request: an upload may outlive its first token.
    File {
        /// The file.
        path: PathBuf,
        /// Whose password it holds. `None`: it holds a token.
        user: Option<String>,
        /// What it held when it could be read last.
        last: Mutex<HeaderValue>,
    },
}

impl Login {
    /// A user and the password.
    ///
    /// # Errors
    ///
    /// A name with a colon cannot be sent (RFC 7617).
    pub fn user(name: &str, password: &Secret) -> Result<Self, String> {
        basic(name, password).map(Self::Fixed)
    }

    /// A user, and the file that holds the password.
    ///
    /// # Errors
    ///
    /// As [`user`](Self::user)'s, or why the file cannot be read.
    pub fn password_file(name: &str, path: &Path) -> Result<Self, String> {
        let last = Mutex::new(read_header(path, Some(name))?);
        Ok(Self::File { path: path.to_owned(), user: Some(name.to_owned()), last })
    }

    /// The token that a file holds.
    ///
    /// # Errors
    ///
    /// Why it cannot be read, or sent.
    pub fn token_file(path: &Path) -> Result<Self, String> {
        Ok(Self::File { path: path.to_owned(), user: None, last: Mutex::new(read_header(path, None)?) })
    }

    /// A token.
    ///
    /// # Errors
    ///
    /// It cannot be sent.
    pub fn token(token: &Secret) -> Result<Self, String> {
        bearer(token).map(Self::Fixed)
    }

    fn header(&self) -> HeaderValue {
        match self {
            Self::Fixed(header) => header.clone(),
            Self::File { path, user, last } => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if let Ok(header) = read_header(path, user.as_deref()) {
                    *last = header;
                }
                last.clone()
            }
        }
    }
}

/// Shows no secret.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

fn read_header(path: &Path, user: Option<&str>) -> Result<HeaderValue, String> {
    let secret = read_secret(path)?;
    match user {
        None => bearer(&secret),
        Some(name) => basic(name, &secret),
    }
}

fn basic(name: &str, password: &Secret) -> Result<HeaderValue, String> {
    if name.contains(':') {
        return Err("a user's name has no colon".to_owned());
    }
    let pair = Zeroizing::new(format!("{name}:{}", password.reveal()));
    sensitive(&Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes()))))
}

fn bearer(token: &Secret) -> Result<HeaderValue, String> {
    sensitive(&Zeroizing::new(format!("Bearer {}", token.reveal())))
}

fn sensitive(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(text).map_err(|_| "a token has no control characters".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// A bridge, as its URL names it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    host: String,
    port: u16,
    /// What the `Host` header says.
    authority: String,
    /// What paths are appended to; without a slash at its end.
    base: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    login: Option<Arc<Login>>,
}

impl Endpoint {
    /// Reads `https://host[:port][/base]` or `http://…`. No connection is made.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL, or with the file of authorities.
    pub fn new(url: &str, trust: Trust<'_>) -> Result<Self, String> {
        Self::with_proof(url, trust, Proof::default())
    }

    /// The same, for whom we prove who we are.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new)'s, and without TLS: passwords and tokens only go to loopback so, and certificates nowhere.
    pub fn with_proof(url: &str, trust: Trust<'_>, proof: Proof) -> Result<Self, String> {
        let wrong = || format!("{url} is not a URL like https://host:8443");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let encrypted = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(wrong());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if encrypted {
            let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
            Some((Arc::new(client_config(trust, proof.certificate)?), name))
        } else if proof.certificate.is_some() {
            return Err("a client certificate needs https://".to_owned());
        } else if proof.login.is_some() && !is_loopback(&host) {
            return Err("a password or a token needs https://, but on loopback".to_owned());
        } else {
            None
        };
        Ok(Self {
            port: uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            base: uri.path().trim_end_matches('/').to_owned(),
            host,
            tls,
            login: proof.login.map(Arc::new),
        })
    }

    /// Reads a URL that secrets or keys come through, so that it has to be `https://` but on loopback. Beside the endpoint:
    /// what follows its base, a slash if the URL ends in one.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL, or with the file of authorities.
    pub fn behind(url: &str, trust: Trust<'_>) -> Result<(Self, &'static str), String> {
        let wrong = "must be a URL like https://idp.example.com/path, without a query";
        let uri: Uri = url.parse().map_err(|_| wrong)?;
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if uri.scheme_str() == Some("http") && !is_loopback(host) {
            return Err("must begin with https://: what comes through it must be neither read nor changed".to_owned());
        }
        if uri.query().is_some() || uri.host().is_none() {
            return Err(wrong.to_owned());
        }
        Ok((Self::new(url, trust)?, if uri.path().ends_with('/') { "/" } else { "" }))
    }

    /// A request for `path` (which begins with a slash) with its target, `Host`, and `Authorization` if there is one.
    pub fn request(&self, path: &str) -> request::Builder {
        let request = Request::builder().uri(format!("{}{path}", self.base)).header(HOST, &self.authority);
        match &self.login {
            Some(login) => request.header(AUTHORIZATION, login.header()),
            None => request,
        }
    }

    /// Opens a connection. The runtime drives it until the [`Connection`] is dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up.
    pub async fn connect(&self) -> io::Result<Connection> {
        let late = |what: &str| io::Error::new(io::ErrorKind::TimedOut, format!("no {what} in {CONNECT_TIMEOUT:?}"));
        let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect((self.host.as_str(), self.port)))
            .await
            .map_err(|_| late("connection"))??;
        tcp.set_nodelay(true)?;
        match &self.tls {
            None => Connection::new(tcp).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(config.clone());
                let handshake = timeout(CONNECT_TIMEOUT, connector.connect(name.clone(), tcp));
                Connection::new(handshake.await.map_err(|_| late("TLS session"))??).await
            }
        }
    }
}

/// Shows the host and port.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn client_config(trust: Trust<'_>, own: Option<CertifiedKey>) -> Result<ClientConfig, String> {
    let roots = match trust {
        Trust::System => files::authorities(None).map_err(|error| error.to_string())?,
        Trust::File(path) => files::authorities(Some(path)).map_err(|error| error.to_string())?,
        Trust::Anyone => rustls::RootCertStore::empty(),
    };
    let mut config = files::client_tls(roots, own);
    if let Trust::Anyone = trust {
        let believer = Arc::new(BelieveAnyone(config.crypto_provider().clone()));
        config.dangerous().set_certificate_verifier(believer);
    }
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// `--insecure`: any certificate will do, but its owner still has to sign the handshake with its key.
#[derive(Debug)]
struct BelieveAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// One open connection. Dropping it closes it, whatever is under way.
#[derive(Debug)]
pub struct Connection {
    sender: http1::SendRequest<RequestBody>,
    driver: AbortOnDrop<()>,
}

impl Connection {
    async fn new<S>(stream: S) -> io::Result<Self>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Its error comes out of the request that it fails.
        let driver = AbortOnDrop(tokio::spawn(async move { drop(connection.await) }));
        Ok(Self { sender, driver })
    }

    /// Sends a request; resolves when the head of its answer is there, which may be before the body has been sent.
    ///
    /// # Cancel safety
    ///
    /// Not safe: the connection is of no use after the future was dropped.
    pub async fn send(&mut self, request: Request<RequestBody>) -> io::Result<Response<Incoming>> {
        self.sender.ready().await.map_err(explain)?;
        self.sender.send_request(request).await.map_err(explain)
    }

    /// Whether another request would find the connection closed.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed() || self.driver.0.is_finished()
    }
}

/// Whether a connection failed because of who answered, not because of the network: a certificate that is not believed, or
/// no TLS at all. Trying again brings the same.
pub fn is_distrust(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<rustls::Error>())
}

/// hyper's messages stop at "error reading a body"; the reason is in the source.
fn explain(error: hyper::Error) -> io::Error {
    let reason = std::error::Error::source(&error).map(ToString::to_string);
    io::Error::other(reason.unwrap_or_else(|| error.to_string()))
}

/// A task that ends with its owner.
#[derive(Debug)]
pub struct AbortOnDrop<T>(pub JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a request carries.
#[derive(Debug)]
pub enum RequestBody {
    /// Nothing.
    Empty,
    /// These bytes, their length said before.
    Whole(Bytes),
    /// What comes through the channel, chunked, until its sender is dropped.
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(chunks) => chunks.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// An answer's body, line by line.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    /// What came after the last whole line.
    rest: BytesMut,
    /// How much of `rest` is known to hold no line end.
    searched: usize,
    /// Bytes that one line may have.
    limit: usize,
}

impl Lines {
    /// Lines of at most `limit` bytes.
    pub fn new(body: Incoming, limit: usize) -> Self {
        Self { body, rest: BytesMut::new(), searched: 0, limit }
    }

    /// The next line without its line end, or `None` after the last; a last one without a line end counts.
    ///
    /// # Errors
    ///
    /// The body ended before it was complete, or a line is too long.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing that was read is lost.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.rest[self.searched..]) {
                let line = self.rest.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                return Ok(Some(line.slice(..line.len() - 1)));
            }
            self.searched = self.rest.len();
            if self.searched > self.limit {
                return Err(io::Error::other(format!("the answer has a line of more than {} bytes", self.limit)));
            }
            match std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                Some(Ok(frame)) => self.rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Some(Err(error)) => return Err(explain(error)),
                None if self.rest.is_empty() => return Ok(None),
                None => {
                    self.searched = 0;
                    return Ok(Some(self.rest.split().freeze()));
                }
            }
        }
    }

    /// All that is left, at most the limit.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(line) = self.next().await? {
            if !all.is_empty() {
                all.push(b'\n');
            }
            all.extend_from_slice(&line);
            if all.len() > self.limit {
                return Err(io::Error::other(format!("the answer has more than {} bytes", self.limit)));
            }
        }
        Ok(all)
    }
}

/// A whole body of at most `limit` bytes.
///
/// # Errors
///
/// It ended before it was complete, or is longer.
pub async fn whole(mut body: Incoming, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(explain)?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if bytes.len() > limit {
            return Err(io::Error::other(format!("the answer has more than {limit} bytes")));
        }
    }
    Ok(bytes)
}

/// `text` for a URL's query or path: everything but letters, digits and `-._~/` is escaped.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// `text` for one segment of a URL's path.
pub fn escape_segment(text: &str) -> String {
    escape(text).replace('/', "%2F")
}

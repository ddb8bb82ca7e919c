//! Byte streams to brokers: TCP, TLS over it, or what a test puts in their place.

use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::{fmt, future::Future, io, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// A byte stream to a broker.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What [`Connector::connect`] returns.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;

/// How a byte stream to `host:port` is opened (TCP, TLS, or a test's own).
pub trait Connector: Send + Sync + fmt::Debug {
    /// Resolves `host` and opens the stream. Called again for every connection, so that a name that has moved is found.
    /// Limits its own time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a>;
}

/// TLS to the brokers, which can change while the client runs. Cheap to clone; clones share what is in place.
#[derive(Debug, Clone)]
pub struct Tls(Arc<ArcSwap<rustls::ClientConfig>>);

impl Tls {
    /// Connections are made with `config`.
    pub fn new(config: rustls::ClientConfig) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// Connections to come are made with `config`; those that are open stay as they are. Sessions to resume are kept in a
    /// configuration, so none of before is resumed.
    pub fn replace(&self, config: rustls::ClientConfig) {
        self.0.store(Arc::new(config));
    }

    /// What the next connection is made with.
    pub fn current(&self) -> Arc<rustls::ClientConfig> {
        self.0.load_full()
    }
}

/// TCP, with TLS where it is configured. Every address a name resolves to is tried in turn (KIP-602), each within the
/// time limit.
pub(crate) struct TcpConnector {
    tls: Option<Tls>,
    connect_timeout: Duration,
}

impl TcpConnector {
    pub(crate) const fn new(tls: Option<Tls>, connect_timeout: Duration) -> Self {
        Self { tls, connect_timeout }
    }

    async fn open(&self, host: &str, address: std::net::SocketAddr) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect(address).await?;
        tune(&stream)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some(tls) => {
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
                Ok(Box::new(TlsConnector::from(tls.current()).connect(name, stream).await?))
            }
        }
    }
}

impl Connector for TcpConnector {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let timed_out = || io::Error::from(io::ErrorKind::TimedOut);
            let resolved =
                timeout(self.connect_timeout, lookup_host((host, port))).await.map_err(|_| timed_out())??;
            let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in resolved {
                match timeout(self.connect_timeout, self.open(host, address)).await {
                    Ok(Ok(stream)) => return Ok(stream),
                    Ok(Err(e)) => failure = e,
                    Err(_) => failure = timed_out(),
                }
            }
            Err(failure)
        })
    }
}

impl fmt::Debug for TcpConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpConnector")
            .field("tls", &self.tls.is_some())
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

/// Small frames leave at once, and a peer that is gone without a word is noticed even on an idle connection.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10)),
    )?;
    // Bytes that nobody acknowledges end the connection after this, however long the kernel would retransmit.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))?;
    Ok(())
}

/// `host:port`, also `[v6]:port`.
pub(crate) fn parse_address(server: &str) -> Option<(&str, u16)> {
    let (host, port) = server.trim().rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || (host.contains(':') && !server.trim().starts_with('[')) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn addresses_are_host_and_port() {
        assert_eq!(parse_address("b-1.kafka:9092"), Some(("b-1.kafka", 9092)));
        assert_eq!(parse_address(" [::1]:9092 "), Some(("::1", 9092)));
        for wrong in ["b-1", "b-1:", ":9092", "b-1:70000", "::1:9092", ""] {
            assert_eq!(parse_address(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_dead_address_does_not_hide_a_live_one() {
        // `localhost` may resolve to ::1 first, where nothing listens.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let connector = TcpConnector::new(None, Duration::from_secs(10));
        assert!(connector.connect("localhost", port).await.is_ok());
    }

    /// A broker that echoes, with a certificate of its own for `localhost`: its port, and who trusts it.
    async fn tls_broker() -> (u16, rustls::ClientConfig) {
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let certificate = issued.cert.der().clone();
        let key = rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).expect("a key");
        let server = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("a pair");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).expect("a root");
        let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
            loop {
                let (stream, _) = listener.accept().await.expect("a client");
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    tokio::spawn(async move {
                        while let Ok(byte) = stream.read_u8().await {
                            let echoed = async { stream.write_u8(byte).await.and(stream.flush().await) };
                            echoed.await.expect("the client waits");
                        }
                    });
                }
            }
        });
        (port, client)
    }

    async fn is_echoed(stream: &mut Box<dyn Io>) {
        stream.write_u8(7).await.expect("written");
        stream.flush().await.expect("written");
        assert_eq!(stream.read_u8().await.expect("echoed"), 7);
    }

    #[tokio::test]
    async fn tls_checks_the_broker_s_name() {
        let (port, client) = tls_broker().await;
        let connector = TcpConnector::new(Some(Tls::new(client)), Duration::from_secs(10));
        let mut stream = connector.connect("localhost", port).await.expect("its own name");
        is_echoed(&mut stream).await;
        let Err(error) = connector.connect("127.0.0.1", port).await else { panic!("another name") };
        assert!(error.to_string().contains("not valid for name"), "{error}");
    }

    #[tokio::test]
    async fn tls_that_was_replaced_is_for_connections_to_come() {
        let ((first, trusts_first), (second, trusts_second)) = (tls_broker().await, tls_broker().await);
        let tls = Tls::new(trusts_first);
        let connector = TcpConnector::new(Some(tls.clone()), Duration::from_secs(10));
        let mut open = connector.connect("localhost", first).await.expect("trusted");
        assert!(connector.connect("localhost", second).await.is_err(), "not yet");
        tls.replace(trusts_second);
        is_echoed(&mut connector.connect("localhost", second).await.expect("trusted now")).await;
        assert!(connector.connect("localhost", first).await.is_err(), "no session of before is resumed");
        is_echoed(&mut open).await;
    }
}

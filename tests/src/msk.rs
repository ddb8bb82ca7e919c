//! The door of a broker that takes AWS_MSK_IAM, as Amazon MSK has it: TLS, a signature, a session that ends.
//!
//! It stands before a plain listener and answers SaslHandshake and SaslAuthenticate itself, one request at a time as a
//! broker does. The signature is checked as AWS documents it (Signature Version 4, by query), from the fields of the
//! message alone. Whoever has not logged in, or whose session has ended, is cut off with the first other request.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    net::{Ipv4Addr, TcpListener as StdListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use aws_lc_rs::{digest, hmac};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use crate::tls::certificates;

const API_VERSIONS: i16 = 18;
const SASL_HANDSHAKE: i16 = 17;
const SASL_AUTHENTICATE: i16 = 36;
const ILLEGAL_SASL_STATE: i16 = 34;
const AUTHENTICATION_FAILED: i16 = 58;

/// Who is let in, and for how long.
#[derive(Debug, Clone)]
pub struct Account {
    /// The access key's name.
    pub access_key_id: &'static str,
    /// What must have signed.
    pub secret_access_key: &'static str,
    /// What must be signed with it.
    pub session_token: &'static str,
    /// The cluster's region.
    pub region: &'static str,
    /// For how long a login is good.
    pub session: Duration,
}

/// What came through the door.
#[derive(Debug, Default)]
pub struct Counts {
    /// Signatures that were right.
    pub logins: AtomicUsize,
    /// Of these, on connections that had logged in before.
    pub renewals: AtomicUsize,
    /// Signatures that were wrong.
    pub refused: AtomicUsize,
    /// Connections that were cut because of a request without a session.
    pub cut: AtomicUsize,
}

/// A door for the plain listener at `target`: its port. It stays for as long as the runtime.
pub fn start(runtime: &Handle, target: u16, account: Account, counts: Arc<Counts>) -> u16 {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    listener.set_nonblocking(true).expect("a socket");
    let port = listener.local_addr().expect("bound").port();
    let own = certificates();
    let pem = fs::read(&own.certificate).expect("the fixture wrote it");
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().expect("the fixture's PEM");
    let key = PrivateKeyDer::from_pem_file(&own.key).expect("the fixture's PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for them")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    runtime.spawn(async move {
        let listener = TcpListener::from_std(listener).expect("a nonblocking listener");
        loop {
            let (stream, _) = listener.accept().await.expect("loopback");
            let (acceptor, account, counts) = (acceptor.clone(), account.clone(), counts.clone());
            tokio::spawn(async move {
                let client = acceptor.accept(stream).await?;
                let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await?;
                Guard { account, counts, session_end: None }.run(client, broker).await
            });
        }
    });
    port
}

/// One connection.
struct Guard {
    account: Account,
    counts: Arc<Counts>,
    /// After the first login.
    session_end: Option<Instant>,
}

impl Guard {
    async fn run(
        mut self,
        mut client: impl AsyncRead + AsyncWrite + Unpin,
        mut broker: impl AsyncRead + AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let mut shaken = false;
        loop {
            let request = read_frame(&mut client).await?;
            let field = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
            let (key, version, correlation_id) = (field(0), field(2), &request[4..8]);
            let mut answer = correlation_id.to_vec();
            match key {
                SASL_HANDSHAKE => {
                    shaken = request.ends_with(b"\0\x0bAWS_MSK_IAM");
                    answer.extend(if shaken { 0_i16 } else { ILLEGAL_SASL_STATE }.to_be_bytes());
                    answer.extend(b"\0\0\0\x01\0\x0bAWS_MSK_IAM");
                }
                SASL_AUTHENTICATE => {
                    assert!(shaken && version == 2, "version 2 after a handshake");
                    shaken = false;
                    // The message is JSON, and nothing before it looks like it; one empty tag section follows.
                    let start = request.iter().position(|byte| *byte == b'{').expect("JSON");
                    answer.push(0);
                    match verify(&request[start..request.len() - 1], &self.account) {
                        Ok(()) => {
                            let renewed = self.session_end.replace(Instant::now() + self.account.session).is_some();
                            self.counts.renewals.fetch_add(usize::from(renewed), SeqCst);
                            self.counts.logins.fetch_add(1, SeqCst);
                            let message = br#"{"version":"2020_10_22","request-id":"1"}"#;
                            answer.extend([0, 0, 0, message.len() as u8 + 1]);
                            answer.extend(message);
                            answer.extend((self.account.session.as_millis() as i64).to_be_bytes());
                        }
                        Err(_) => {
                            self.counts.refused.fetch_add(1, SeqCst);
                            answer.extend(AUTHENTICATION_FAILED.to_be_bytes());
                            answer.extend(b"\x0eAccess denied\x01\0\0\0\0\0\0\0\0");
                        }
                    }
                    answer.push(0);
                }
                _ if key == API_VERSIONS || self.session_end.is_some_and(|end| end > Instant::now()) => {
                    write_frame(&mut broker, &request).await?;
                    answer = read_frame(&mut broker).await?;
                }
                _ => {
                    self.counts.cut.fetch_add(1, SeqCst);
                    return Ok(());
                }
            }
            write_frame(&mut client, &answer).await?;
        }
    }
}

async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; from.read_u32().await? as usize];
    from.read_exact(&mut frame).await?;
    Ok(frame)
}

async fn write_frame(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    to.write_u32(frame.len() as u32).await?;
    to.write_all(frame).await?;
    to.flush().await
}

/// Whether the account's key has signed these fields, and nothing is missing among them.
fn verify(message: &[u8], account: &Account) -> Result<(), String> {
    let fields: BTreeMap<String, String> = serde_json::from_slice(message).map_err(|error| error.to_string())?;
    let field = |name: &str| fields.get(name).map(String::as_str).ok_or_else(|| format!("no {name}"));
    let date = field("x-amz-date")?;
    let day = date.get(..8).ok_or("no date")?;
    let scope = format!("{day}/{}/kafka-cluster/aws4_request", account.region);
    let credential = format!("{}/{scope}", account.access_key_id);
    for (name, expected) in [
        ("version", "2020_10_22"),
        ("host", "127.0.0.1"),
        ("action", "kafka-cluster:Connect"),
        ("x-amz-algorithm", "AWS4-HMAC-SHA256"),
        ("x-amz-credential", &credential),
        ("x-amz-security-token", account.session_token),
        ("x-amz-signedheaders", "host"),
    ] {
        if field(name)? != expected {
            return Err(format!("{name} is {}", field(name)?));
        }
    }
    let mut query = Vec::new();
    for name in [
        "Action",
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-Security-Token",
        "X-Amz-SignedHeaders",
    ] {
        query.push(format!("{name}={}", encoded(field(&name.to_lowercase())?)));
    }
    let hash = |bytes: &[u8]| hex(digest::digest(&digest::SHA256, bytes).as_ref());
    let canonical = format!("GET\n/\n{}\nhost:{}\n\nhost\n{}", query.join("&"), field("host")?, hash(b""));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hash(canonical.as_bytes()));
    let sign =
        |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec();
    let mut key = format!("AWS4{}", account.secret_access_key).into_bytes();
    for part in scope.split('/') {
        key = sign(&key, part);
    }
    let expected = hex(&sign(&key, &to_sign));
    if field("x-amz-signature")? == expected { Ok(()) } else { Err("another signature".to_owned()) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes it");
        text
    })
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a String takes it");
        }
        out
    })
}

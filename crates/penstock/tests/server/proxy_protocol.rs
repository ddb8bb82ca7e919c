//! The data listener behind a balancer: who gets through, and as whom.

use crate::harness::{Bridge, Client, run};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// 192.0.2.7:4000 to 192.0.2.1:8443.
const TCP4: [u8; 12] = [192, 0, 2, 7, 192, 0, 2, 1, 0x0f, 0xa0, 0x20, 0xfb];

fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &length, block].concat()
}

/// A client's header.
pub(crate) fn proxied(tlvs: &[u8]) -> Vec<u8> {
    header(0x21, 0x11, &[&TCP4[..], tlvs].concat())
}

/// A TLV that names an endpoint.
pub(crate) fn endpoint(id: &str) -> Vec<u8> {
    let length = u16::try_from(id.len() + 1).expect("short").to_be_bytes();
    [&[0xea], &length[..], &[1], id.as_bytes()].concat()
}

async fn from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("loopback");
    socket.connect(to).await.expect("accepted")
}

/// A bridge that trusts 127.0.0.2, and its certificate.
async fn bridge(settings: &str) -> (Bridge, ClientConfig) {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a pair");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, pair.cert.pem()).expect("written");
    std::fs::write(&key, pair.signing_key.serialize_pem()).expect("written");
    let settings = format!(
        "[listen]\nproxy_protocol = \"required\"\nproxy_trusted = [\"127.0.0.2/32\"]\n{settings}\n\
         [tls]\ncertificate = {certificate:?}\nkey = {key:?}\n"
    );
    let mut roots = RootCertStore::empty();
    roots.add(pair.cert.der().clone()).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("supported")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Bridge::with(&settings).await, config)
}

/// A TLS client's first flight.
fn hello(config: &ClientConfig) -> (rustls::ClientConnection, Vec<u8>) {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config.clone()), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a vector takes it");
    (client, bytes)
}

/// Whether the bridge answers a TLS hello behind `front` with one of its own: a handshake record.
async fn is_greeted(bridge: &Bridge, config: &ClientConfig, source: [u8; 4], front: &[u8]) -> bool {
    let mut stream = from(source, bridge.data).await;
    let hello = hello(config).1;
    // In one segment: what comes behind the header must not be lost with it.
    if stream.write_all(&[front, &hello].concat()).await.is_err() {
        return false;
    }
    let mut first = [0];
    let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first).await;
    read.is_ok() && first == [0x16]
}

async fn refused(bridge: &Bridge, reason: &str) -> u64 {
    let metrics = bridge.manage("/metrics").await.text();
    let start = format!("penstock_proxy_headers_refused_total{{reason=\"{reason}\"}} ");
    let count = metrics.lines().find_map(|line| line.strip_prefix(&start)).expect("a series");
    count.parse().expect("a number")
}

#[test]
fn only_a_whole_header_of_a_trusted_balancer_gets_to_tls() {
    run(async {
        let (bridge, config) = bridge("").await;
        let trusted = [127, 0, 0, 2];
        let longest = proxied(&[&[4, 0x03, 0xf1][..], &[0; 1009]].concat());
        for front in
            [proxied(b""), proxied(&endpoint("vpce-1")), header(0x20, 0, b""), header(0x20, 0x11, b""), longest]
        {
            assert!(is_greeted(&bridge, &config, trusted, &front).await, "{front:x?}");
        }
        let oversize = proxied(&[&[4, 0x03, 0xf2][..], &[0; 1010]].concat());
        for front in [
            proxied(&[4, 0, 9, 1]),
            proxied(&[3, 0, 4, 0, 0, 0, 0]),
            header(0x31, 0x11, &TCP4),
            header(0x22, 0x11, &TCP4),
            header(0x21, 0x12, &TCP4),
            header(0x21, 0x11, &TCP4[..8]),
            oversize,
        ] {
            assert!(!is_greeted(&bridge, &config, trusted, &front).await, "{front:x?}");
        }
        assert_eq!(refused(&bridge, "malformed").await, 7);
        for front in [&b""[..], b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 8443\r\n"] {
            assert!(!is_greeted(&bridge, &config, trusted, front).await, "{front:x?}");
        }
        assert_eq!(refused(&bridge, "absent").await, 2);
        assert!(!is_greeted(&bridge, &config, [127, 0, 0, 3], &proxied(&endpoint("vpce-1"))).await, "forged");
        assert_eq!(refused(&bridge, "untrusted").await, 1);
    });
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for() {
    run(async {
        let (bridge, _) = bridge("").await;
        let mut stream = from([127, 0, 0, 2], bridge.data).await;
        stream.write_all(&proxied(b"")[..20]).await.expect("taken");
        assert!(Client::over(stream).is_closed().await);
        assert_eq!(refused(&bridge, "slow").await, 1);
    });
}

#[test]
fn requests_are_served_behind_a_header_and_health_checks_get_health_alone() {
    run(async {
        let (bridge, config) = bridge("").await;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let connect = async |front: Vec<u8>| {
            let mut stream = from([127, 0, 0, 2], bridge.data).await;
            stream.write_all(&front).await.expect("taken");
            let name = ServerName::try_from("localhost").expect("a name");
            Client::over(connector.connect(name, stream).await.expect("a session"))
        };
        let mut client = connect(proxied(&endpoint("vpce-1"))).await;
        assert_eq!(client.request("POST", "/v1/topics/events/records", &[], b"x").await.status, 200);
        let mut check = connect(header(0x20, 0x11, &[4, 0, 1, 0])).await;
        assert_eq!(check.request("GET", "/healthz", &[], b"").await.status, 200);
        assert_eq!(check.request("POST", "/v1/topics/events/records", &[], b"x").await.error_code(), 40301);
        assert_eq!(bridge.values(), ["x"]);
    });
}

#[test]
fn the_bound_on_one_source_is_on_the_clients_address() {
    run(async {
        let (bridge, config) = bridge("max_connections_per_source = 1").await;
        let mut other = TCP4;
        other[3] = 8;
        let greeted = async |front: &[u8]| is_greeted(&bridge, &config, [127, 0, 0, 2], front).await;
        let mut held = from([127, 0, 0, 2], bridge.data).await;
        held.write_all(&[&proxied(b"")[..], &hello(&config).1].concat()).await.expect("taken");
        let mut first = [0];
        tokio::io::AsyncReadExt::read_exact(&mut held, &mut first).await.expect("greeted");
        assert!(!greeted(&proxied(b"")).await, "a second one of the same client");
        assert!(greeted(&header(0x21, 0x11, &other)).await, "another client");
        assert!(greeted(&header(0x20, 0, b"")).await, "a health check");
        drop(held);
        while !greeted(&proxied(b"")).await {}
    });
}

#[test]
fn an_endpoint_may_do_what_its_rule_says_and_no_more_often() {
    run(async {
        let rule =
            "[[access]]\nidentity = \"vpce-1\"\ntopics = [\"events\"]\nallow = [\"produce\"]\nrate_requests = 1\n";
        let settings =
            "[listen]\nproxy_protocol = \"required\"\nproxy_trusted = [\"127.0.0.2\"]\n[tls]\nmode = \"off\"\n";
        let bridge = Bridge::with(&format!("{settings}{rule}")).await;
        let produce = async |id: &str| {
            let mut stream = from([127, 0, 0, 2], bridge.data).await;
            stream.write_all(&proxied(&endpoint(id))).await.expect("taken");
            Client::over(stream).request("POST", "/v1/topics/events/records", &[], b"x").await
        };
        assert_eq!(produce("vpce-2").await.error_code(), 40301);
        assert_eq!(produce("vpce-1").await.status, 200);
        // As many as are needed to be faster than one a second on any machine.
        let refused = loop {
            let answer = produce("vpce-1").await;
            if answer.status != 200 {
                break answer;
            }
        };
        assert_eq!(refused.error_code(), 429);
        assert_eq!(refused.header("retry-after"), Some("1"));
    });
}

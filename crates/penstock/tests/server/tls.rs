use crate::harness::{Bridge, Client, run};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CipherSuite, ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Writes a fresh pair and returns the certificate.
fn write_pair(folder: &Path) -> CertificateDer<'static> {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a pair");
    std::fs::write(folder.join("cert.pem"), pair.cert.pem()).expect("written");
    std::fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).expect("written");
    pair.cert.der().clone()
}

fn settings(folder: &Path) -> String {
    let file = |name| folder.join(name).display().to_string();
    format!("[tls]\ncertificate = {:?}\nkey = {:?}\n", file("cert.pem"), file("key.pem"))
}

async fn connect(
    bridge: &Bridge,
    trusted: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .expect("supported")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(bridge.data).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[test]
fn both_versions_are_spoken_with_the_cheap_suite() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let trusted = write_pair(folder.path());
        let bridge = Bridge::with(&settings(folder.path())).await;
        for (version, name, suite) in [
            (&rustls::version::TLS13, ProtocolVersion::TLSv1_3, CipherSuite::TLS13_AES_128_GCM_SHA256),
            (&rustls::version::TLS12, ProtocolVersion::TLSv1_2, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        ] {
            let stream = connect(&bridge, &trusted, version).await.expect("a session");
            let session = stream.get_ref().1;
            assert_eq!(session.protocol_version(), Some(name));
            assert_eq!(session.negotiated_cipher_suite().map(|suite| suite.suite()), Some(suite));
            assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
            let mut client = Client::over(stream);
            let lines = "{\"over\":\"tls\"}\n".repeat(20_000);
            let answer = client.ndjson("/v1/topics/events/records", &[], lines.as_bytes()).await;
            assert_eq!((answer.status, &answer.json()["written"]), (200, &20_000.into()));
        }
    });
}

#[test]
fn a_new_certificate_is_for_new_connections() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let first = write_pair(folder.path());
        let bridge = Bridge::with(&settings(folder.path())).await;
        let mut old = Client::over(connect(&bridge, &first, &rustls::version::TLS13).await.expect("a session"));
        let second = write_pair(folder.path());
        let mut new = loop {
            if let Ok(stream) = connect(&bridge, &second, &rustls::version::TLS13).await {
                break Client::over(stream);
            }
        };
        for client in [&mut old, &mut new] {
            assert_eq!(client.request("GET", "/healthz", &[], b"").await.status, 200);
        }
    });
}

#[test]
fn what_is_not_tls_is_closed() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        write_pair(folder.path());
        let bridge = Bridge::with(&settings(folder.path())).await;
        let mut plain = bridge.client().await;
        plain.send("GET /healthz HTTP/1.1\r\nHost: b\r\n\r\n").await;
        assert!(plain.is_cut_off().await);
        let metrics = bridge.manage("/metrics").await.text();
        assert!(metrics.contains("handshake"), "it is counted");
    });
}

//! A throw-away certificate authority and one server certificate for `localhost` and `127.0.0.1`.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{ClientConfig, RootCertStore};

use crate::temp_dir;

/// The authority's certificate and the server's, as files and as a client's trust.
#[derive(Debug)]
pub struct Certificates {
    /// The authority's certificate (PEM), for `curl --cacert`.
    pub ca: PathBuf,
    /// The server's certificate (PEM).
    pub certificate: PathBuf,
    /// The server's private key (PEM, PKCS #8).
    pub key: PathBuf,
    /// A client that trusts the authority and offers `http/1.1` by ALPN.
    pub client: Arc<ClientConfig>,
}

/// One authority for all tests of this process: its lifetime is the process's.
pub fn certificates() -> &'static Certificates {
    static CERTIFICATES: OnceLock<Certificates> = OnceLock::new();
    CERTIFICATES.get_or_init(|| {
        let mut authority = CertificateParams::new([]).expect("no names, no bad ones");
        // Named apart: to OpenSSL, a certificate whose issuer has its own name has signed itself.
        authority.distinguished_name.push(DnType::CommonName, "Penstock's tests");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority_key = KeyPair::generate().expect("a key can be made");
        let ca = authority.self_signed(&authority_key).expect("the authority signs itself");
        let issuer = Issuer::new(authority, authority_key);

        let server_key = KeyPair::generate().expect("a key can be made");
        let mut server =
            CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("both are valid names");
        server.distinguished_name.push(DnType::CommonName, "localhost");
        let server = server.signed_by(&server_key, &issuer).expect("the authority signs");

        let dir = temp_dir("tls");
        let write = |name: &str, pem: String| {
            let path = dir.join(name);
            fs::write(&path, pem).expect("the temporary folder can be written");
            path
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).expect("rcgen's certificate is valid");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        Certificates {
            ca: write("ca.pem", ca.pem()),
            certificate: write("server.pem", server.pem()),
            key: write("server.key", server_key.serialize_pem()),
            client: Arc::new(client),
        }
    })
}

/// A certificate for `localhost` that nobody else has signed and that ends at `until`, and its key, both in PEM.
pub fn self_signed(until: SystemTime) -> (String, String) {
    let key = KeyPair::generate().expect("a key can be made");
    let mut certificate = CertificateParams::new(["localhost".to_owned()]).expect("a valid name");
    certificate.not_after = until.into();
    (certificate.self_signed(&key).expect("it signs itself").pem(), key.serialize_pem())
}

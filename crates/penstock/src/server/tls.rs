//! TLS of the data listener: what is offered, and how it changes without a restart.
//!
//! TLS 1.3 and 1.2 with AEAD suites alone. AES-128-GCM comes first and the server's order counts: on this data path a
//! client that prefers ChaCha20 would cost eight times as much. No 0-RTT: what is replayed would be written twice.
//! Tickets are stateless, so resumption needs no shared memory.
//!
//! Certificate, key, clients' authorities and revocation lists are one thing: they are read together, seen to fit, and put in
//! place together, for connections to come (`reload.rs` says when). Keys of tickets and stored sessions go with them, so that
//! a session of before is not resumed: it would bring the client's certificate back unverified. Within the life of one
//! state a resumed client's certificate is verified again, for certificates and lists run out by themselves.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::UnixTime;
use rustls::server::{ServerConnection, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{HandshakeKind, ServerConfig};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::TlsFiles;
use crate::config::files::{self, ClientVerifier};
use crate::http::caller::CertificateNames;
use crate::metrics::Metrics;

/// Why the files cannot be used.
pub(crate) type TlsError = Box<dyn std::error::Error + Send + Sync>;

/// Of one certificate. What comes beyond them does not count: no rule matches it.
const MAX_NAMES: usize = 100;
/// Of one name.
const MAX_NAME_BYTES: usize = 1024;

/// What new connections are greeted with.
#[derive(Debug)]
pub(crate) struct TlsState {
    files: TlsFiles,
    metrics: Metrics,
    current: ArcSwap<Greeting>,
}

/// What one connection is greeted with: all of one reading of the files.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub(crate) config: Arc<ServerConfig>,
    clients: Option<ClientVerifier>,
    chain_until: UnixTime,
}

impl TlsState {
    /// Reads the files.
    pub(crate) fn load(files: &TlsFiles, metrics: &Metrics) -> Result<Self, TlsError> {
        let greeting = Greeting::read(files)?;
        greeting.tell(metrics);
        Ok(Self { files: files.clone(), metrics: metrics.clone(), current: ArcSwap::from_pointee(greeting) })
    }

    /// For the next connection.
    pub(crate) fn current(&self) -> Arc<Greeting> {
        self.current.load_full()
    }

    /// Every file that is read.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let TlsFiles { certificate, key, client_auth } = &self.files;
        let clients = client_auth.iter().flat_map(|auth| auth.crl.iter().chain([&auth.ca]));
        [certificate, key].into_iter().chain(clients).cloned().collect()
    }

    /// Reads the files anew and puts them in place.
    ///
    /// # Errors
    ///
    /// What is wrong with them. What was in place stays.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let greeting = Greeting::read(&self.files)?;
        greeting.tell(&self.metrics);
        self.current.store(Arc::new(greeting));
        Ok(())
    }
}

impl Greeting {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let pair = files::certified_key(&files.certificate, &files.key)?;
        let chain_until = files::chain_until(&files.certificate, &pair.cert)?;
        let clients = files.client_auth.as_ref().map(files::client_verifier).transpose()?;
        let config = Arc::new(server_config(pair, clients.as_ref())?);
        Ok(Self { config, clients, chain_until })
    }

    fn tell(&self, metrics: &Metrics) {
        let lists_until = self.clients.as_ref().and_then(|clients| clients.lists_until);
        metrics.set_tls_expiry(self.chain_until.as_secs(), lists_until.map(|until| until.as_secs()));
        let now = UnixTime::now();
        if self.chain_until <= now {
            tracing::warn!("the certificate has expired: clients that look at it will not connect");
        }
        if lists_until.is_some_and(|until| until <= now) {
            tracing::warn!("a revocation list is out of date: clients with a certificate are refused");
        }
    }

    /// The names in the certificate that the client has shown; `None` without one.
    ///
    /// # Errors
    ///
    /// The session is one of before, and the certificate that came with it holds no longer.
    pub(crate) fn client(&self, connection: &ServerConnection) -> Result<Option<CertificateNames>, rustls::Error> {
        let (Some(clients), Some([leaf, intermediates @ ..])) = (&self.clients, connection.peer_certificates()) else {
            return Ok(None);
        };
        if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
            clients.verifier.verify_client_cert(leaf, intermediates, UnixTime::now())?;
        }
        // It was verified, so it can be parsed; if our parser disagrees, it has no names.
        Ok(Some(X509Certificate::from_der(leaf).map(|(_, leaf)| names(&leaf)).unwrap_or_default()))
    }
}

fn names(certificate: &X509Certificate<'_>) -> CertificateNames {
    let mut names = CertificateNames::default();
    let mut room = MAX_NAMES;
    let mut add = |to: &mut Vec<Box<str>>, name: &str| {
        if room > 0 && !name.is_empty() && name.len() <= MAX_NAME_BYTES {
            room -= 1;
            to.push(name.into());
        }
    };
    for common_name in certificate.subject().iter_common_name() {
        if let Ok(name) = common_name.as_str() {
            add(&mut names.exact, name);
        }
    }
    let alternative = certificate.subject_alternative_name().ok().flatten();
    for name in alternative.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => add(&mut names.dns, name),
            GeneralName::URI(name) | GeneralName::RFC822Name(name) => add(&mut names.exact, name),
            GeneralName::IPAddress(bytes) => {
                if let Some(address) = ip_address(bytes) {
                    add(&mut names.exact, &address.to_string());
                }
            }
            _ => {}
        }
    }
    names
}

fn ip_address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(Into::into);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(Into::into))
}

/// The settings that do not depend on the deployment.
fn server_config(pair: CertifiedKey, clients: Option<&ClientVerifier>) -> Result<ServerConfig, rustls::Error> {
    let verifier = clients.map_or_else(WebPkiClientVerifier::no_client_auth, |clients| clients.verifier.clone());
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.max_early_data_size = 0;
    Ok(config)
}

/// aws-lc-rs with AES-128-GCM in front.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("AES_128_GCM"));
    provider
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_128_gcm_is_offered_first_in_both_versions() {
        let suites: Vec<String> = provider().cipher_suites.iter().map(|suite| format!("{:?}", suite.suite())).collect();
        let first = |version: &str| suites.iter().find(|suite| suite.starts_with(version)).cloned();
        assert_eq!(first("TLS13_").as_deref(), Some("TLS13_AES_128_GCM_SHA256"));
        assert_eq!(first("TLS_ECDHE").as_deref(), Some("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"));
        assert_eq!(suites.len(), aws_lc_rs::default_provider().cipher_suites.len());
    }

    /// A fresh folder with a self-signed pair.
    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a temporary folder"))
        }

        fn write_pair(&self) {
            let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a pair");
            std::fs::write(self.files().certificate, pair.cert.pem()).expect("written");
            std::fs::write(self.files().key, pair.signing_key.serialize_pem()).expect("written");
        }

        fn files(&self) -> TlsFiles {
            let path = |name| self.0.path().join(name);
            TlsFiles { certificate: path("cert.pem"), key: path("key.pem"), client_auth: None }
        }

        fn load(&self) -> Result<TlsState, TlsError> {
            TlsState::load(&self.files(), &Metrics::new(1))
        }
    }

    #[test]
    fn a_good_pair_replaces_the_old_one_and_a_bad_one_does_not() {
        let folder = Folder::new();
        folder.write_pair();
        let state = folder.load().expect("a good pair");
        let first = state.current();
        assert_eq!(first.config.alpn_protocols, [b"http/1.1".to_vec()]);

        std::fs::write(folder.files().key, "no key").expect("written");
        state.reload().expect_err("no key");
        assert!(Arc::ptr_eq(&first, &state.current()), "the old pair stays");

        folder.write_pair();
        state.reload().expect("a good pair");
        let second = state.current();
        assert!(!Arc::ptr_eq(&first, &second), "the new pair is in place");
        assert!(!Arc::ptr_eq(&first.config.ticketer, &second.config.ticketer), "tickets of before are not taken");
        assert!(!Arc::ptr_eq(&first.config.session_storage, &second.config.session_storage));
    }

    #[test]
    fn files_that_are_missing_or_do_not_match_are_told() {
        let folder = Folder::new();
        folder.load().expect_err("nothing is there");
        folder.write_pair();
        let certificate = std::fs::read(folder.files().certificate).expect("read");
        folder.write_pair();
        std::fs::write(folder.files().certificate, certificate).expect("written");
        folder.load().expect_err("they are not a pair");
    }

    #[test]
    fn names_are_the_subjects_cn_and_the_alternative_names() {
        use rcgen::{CertificateParams, DnType, KeyPair, SanType};
        let mut params = CertificateParams::new(vec!["Orders.Example".into(), "10.0.0.7".into()]).expect("names");
        params.distinguished_name.push(DnType::CommonName, "orders service");
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        let text = |text: &str| text.try_into().expect("ASCII");
        params.subject_alt_names.push(SanType::URI(text("spiffe://example/orders")));
        params.subject_alt_names.push(SanType::Rfc822Name(text("orders@Example")));
        params.subject_alt_names.push(SanType::DnsName(text("*.example")));
        params.subject_alt_names.push(SanType::IpAddress("2001:db8::7".parse().expect("an address")));
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        let parsed = X509Certificate::from_der(certificate.der()).expect("parsed").1;
        let names = names(&parsed);
        for name in [
            "orders service",
            "orders.example",
            "ORDERS.EXAMPLE",
            "10.0.0.7",
            "2001:db8::7",
            "spiffe://example/orders",
            "orders@Example",
            "*.example",
        ] {
            assert!(names.has(name), "{name} in {names:?}");
        }
        for name in ["Orders Service", "orders", "Example", "a.example", "orders@example", "spiffe://example", "", "7"]
        {
            assert!(!names.has(name), "{name} in {names:?}");
        }
    }
}

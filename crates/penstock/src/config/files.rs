//! Certificates and keys: read, parsed, and seen to fit together before anything listens.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer, X509Certificate};

use super::{ClientAuth, KafkaTlsFiles};

/// Why a file is of no use.
#[derive(Debug)]
pub struct FileError {
    path: PathBuf,
    problem: String,
}

impl FileError {
    fn new(path: &Path, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn pem(path: &Path, what: &str, error: pem::Error) -> Self {
        let problem = match error {
            pem::Error::Io(error) => format!("cannot be read: {error}"),
            pem::Error::NoItemsFound => format!("holds no {what} in PEM"),
            error => format!("is not PEM: {error}"),
        };
        Self::new(path, problem)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.problem)
    }
}

impl std::error::Error for FileError {}

/// Every certificate of a PEM file, at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(FileError::pem(path, "certificate", pem::Error::NoItemsFound))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(FileError::pem(path, "certificate", error)),
    }
}

/// A certificate chain and its private key, seen to belong together.
pub fn certified_key(certificate: &Path, key: &Path) -> Result<CertifiedKey, FileError> {
    let chain = certificates(certificate)?;
    chain_until(certificate, &chain)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| FileError::pem(key, "private key", error))?;
    CertifiedKey::from_der(chain, private, &rustls::crypto::aws_lc_rs::default_provider()).map_err(
        |error| match error {
            rustls::Error::InconsistentKeys(_) => {
                FileError::new(key, format!("is not the private key of {}", certificate.display()))
            }
            rustls::Error::InvalidCertificate(error) => {
                FileError::new(certificate, format!("holds no certificate: {error}"))
            }
            error => FileError::new(key, format!("cannot be used as a private key: {error}")),
        },
    )
}

/// What decides which clients' certificates hold.
#[derive(Debug)]
pub struct ClientVerifier {
    /// Authorities, lifetimes, revocation.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// When the first of the revocation lists is out of date: no certificate holds from then on.
    pub lists_until: Option<UnixTime>,
}

/// Reads the authorities that sign clients' certificates, and their revocation lists.
pub fn client_verifier(auth: &ClientAuth) -> Result<ClientVerifier, FileError> {
    let roots = Arc::new(authorities(Some(&auth.ca))?);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
    let mut lists_until = None;
    if let Some(path) = &auth.crl {
        let lists = revocation_lists(path)?;
        lists_until = lists.iter().filter_map(|list| list.until).min();
        for authority in certificates(&auth.ca)? {
            let subject = x509(&auth.ca, &authority)?.subject.as_raw().to_vec();
            if !lists.iter().any(|list| list.issuer == subject) {
                let name = x509(&auth.ca, &authority)?.subject.to_string();
                let problem = format!("has no list of {name}, whose every certificate would be refused");
                return Err(FileError::new(path, problem));
            }
        }
        builder = builder.with_crls(lists.into_iter().map(|list| list.der)).enforce_revocation_expiration();
    }
    if !auth.required {
        builder = builder.allow_unauthenticated();
    }
    match builder.build() {
        Ok(verifier) => Ok(ClientVerifier { verifier, lists_until }),
        Err(error) => {
            let path = auth.crl.as_ref().unwrap_or(&auth.ca);
            Err(FileError::new(path, format!("cannot be used: {error}")))
        }
    }
}

/// One revocation list.
struct RevocationList {
    der: CertificateRevocationListDer<'static>,
    /// The authority's name, as it is encoded.
    issuer: Vec<u8>,
    until: Option<UnixTime>,
}

/// Every list of a PEM file, at least one.
fn revocation_lists(path: &Path) -> Result<Vec<RevocationList>, FileError> {
    let ders: Result<Vec<_>, _> = CertificateRevocationListDer::pem_file_iter(path).and_then(Iterator::collect);
    let ders = ders.map_err(|error| FileError::pem(path, "revocation list", error))?;
    if ders.is_empty() {
        return Err(FileError::pem(path, "revocation list", pem::Error::NoItemsFound));
    }
    let read = |der: CertificateRevocationListDer<'static>| {
        let (_, list) = CertificateRevocationList::from_der(&der)
            .map_err(|error| FileError::new(path, format!("holds what is no revocation list: {error}")))?;
        let issuer = list.issuer().as_raw().to_vec();
        let until = list.next_update().map(unix_time);
        Ok(RevocationList { issuer, until, der })
    };
    ders.into_iter().map(read).collect()
}

/// When a chain's first certificate to end ends. Certificates that cannot be parsed are mistakes.
pub fn chain_until(path: &Path, chain: &[CertificateDer<'_>]) -> Result<UnixTime, FileError> {
    let mut until = Vec::with_capacity(chain.len());
    for certificate in chain {
        until.push(unix_time(x509(path, certificate)?.validity.not_after));
    }
    Ok(until.into_iter().min().expect("a chain has a certificate"))
}

fn x509<'a>(path: &Path, certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, FileError> {
    match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(FileError::new(path, format!("holds what is no certificate: {error}"))),
    }
}

/// What is before the epoch is long over.
fn unix_time(time: ASN1Time) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0)))
}

/// The authorities of a PEM file, or those of the host.
pub fn authorities(ca: Option<&Path>) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let path = Path::new("the host's store of authorities");
            let problem =
                found.errors.first().map_or("is empty".to_owned(), |error| format!("cannot be read: {error}"));
            return Err(FileError::new(path, problem));
        }
        return Ok(roots);
    };
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| FileError::new(path, format!("holds what is no authority: {error}")))?;
    }
    Ok(roots)
}

/// TLS to the brokers, and when the certificate that they are shown ends.
pub fn broker_tls(files: &KafkaTlsFiles) -> Result<(ClientConfig, Option<UnixTime>), FileError> {
    let roots = authorities(files.ca.as_deref())?;
    let Some((certificate, key)) = &files.own else {
        return Ok((client_tls(roots, None), None));
    };
    let own = certified_key(certificate, key)?;
    let until = chain_until(certificate, &own.cert)?;
    Ok((client_tls(roots, Some(own)), Some(until)))
}

/// TLS as a client: TLS 1.3 and 1.2, the given authorities, and a certificate of our own where there is one.
pub fn client_tls(roots: RootCertStore, own: Option<CertifiedKey>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.3 and 1.2")
        .with_root_certificates(roots);
    match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    }
}

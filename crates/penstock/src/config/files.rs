//! Certificates and keys: read, parsed, and seen to fit together before anything listens.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};

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

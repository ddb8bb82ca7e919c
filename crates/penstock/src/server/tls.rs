//! TLS of the data listener: what is offered, and how it changes without a restart.
//!
//! TLS 1.3 and 1.2 with AEAD suites alone. AES-128-GCM comes first and the server's order counts: on this data path a
//! client that prefers ChaCha20 would cost eight times as much. No 0-RTT: what is replayed would be written twice.
//! Tickets are stateless, so resumption needs no shared memory.
//!
//! The files are looked at every few seconds. A changed pair is read, checked and then put in place for connections to
//! come; a pair that cannot be used leaves the old one in place, and says so in the log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::config::{TlsFiles, files};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Why certificate and key cannot be used.
pub(crate) type TlsError = Box<dyn std::error::Error + Send + Sync>;

/// What new connections are greeted with.
#[derive(Debug)]
pub(crate) struct TlsState {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
}

impl TlsState {
    /// Reads the files.
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { files: files.clone(), current: ArcSwap::from(read(files)?) })
    }

    /// For the next connection.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Follows the files until the task is dropped.
    pub(crate) async fn watch(&self) {
        let mut seen = self.stamps();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let stamps = self.stamps();
            if stamps != seen {
                self.reload();
                seen = stamps;
            }
        }
    }

    /// Reads the files anew; keeps the old pair if the new one cannot be used.
    fn reload(&self) {
        match read(&self.files) {
            Ok(config) => {
                self.current.store(config);
                tracing::info!(certificate = %self.files.certificate.display(), "the certificate was reloaded");
            }
            // The files may have been caught between two writes: a later change is looked at again.
            Err(error) => tracing::error!(%error, "the changed certificate cannot be used; the old one stays"),
        }
    }

    /// Changes with the files.
    fn stamps(&self) -> [Option<(SystemTime, u64)>; 2] {
        [&self.files.certificate, &self.files.key].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    Ok(Arc::new(server_config(files::certified_key(&files.certificate, &files.key)?)?))
}

/// The settings that do not depend on the deployment.
fn server_config(pair: CertifiedKey) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
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
            TlsFiles { certificate: self.0.path().join("cert.pem"), key: self.0.path().join("key.pem") }
        }
    }

    #[test]
    fn a_good_pair_replaces_the_old_one_and_a_bad_one_does_not() {
        let folder = Folder::new();
        folder.write_pair();
        let state = TlsState::load(&folder.files()).expect("a good pair");
        let first = state.current();
        assert_eq!(first.alpn_protocols, [b"http/1.1".to_vec()]);

        std::fs::write(folder.files().key, "no key").expect("written");
        state.reload();
        assert!(Arc::ptr_eq(&first, &state.current()), "the old pair stays");

        folder.write_pair();
        state.reload();
        assert!(!Arc::ptr_eq(&first, &state.current()), "the new pair is in place");
    }

    #[test]
    fn files_that_are_missing_or_do_not_match_are_told() {
        let folder = Folder::new();
        TlsState::load(&folder.files()).expect_err("nothing is there");
        folder.write_pair();
        let certificate = std::fs::read(folder.files().certificate).expect("read");
        folder.write_pair();
        std::fs::write(folder.files().certificate, certificate).expect("written");
        TlsState::load(&folder.files()).expect_err("they are not a pair");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_noticed_without_being_told() {
        let folder = Folder::new();
        folder.write_pair();
        let state = TlsState::load(&folder.files()).expect("a good pair");
        let first = state.current();
        let noticed = async {
            // Written after the first look; the length alone may not differ, so the time is set apart.
            tokio::time::sleep(LOOK_EVERY / 2).await;
            folder.write_pair();
            let later = SystemTime::now() + Duration::from_secs(60);
            let file = std::fs::File::options().write(true).open(folder.files().certificate).expect("there");
            file.set_modified(later).expect("set");
            tokio::time::sleep(2 * LOOK_EVERY).await;
        };
        tokio::select! {
            () = state.watch() => unreachable!("it never ends"),
            () = noticed => {}
        }
        assert!(!Arc::ptr_eq(&first, &state.current()));
    }
}

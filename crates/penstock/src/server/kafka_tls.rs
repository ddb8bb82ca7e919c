//! TLS to the brokers, as it changes without a restart.
//!
//! Authorities, certificate and key are one thing, as they are for the data listener: read together, put in place together,
//! for connections to come. Those that are open stay: a broker looks at a certificate when a connection begins.

use std::path::PathBuf;

use crate::config::KafkaTlsFiles;
use crate::config::files::{self, FileError};
use crate::metrics::Metrics;
use rustls::pki_types::UnixTime;

/// What new connections to brokers are made with, and what it is made of.
#[derive(Debug)]
pub(crate) struct KafkaTls {
    files: KafkaTlsFiles,
    current: kafka_client::Tls,
    metrics: Metrics,
}

impl KafkaTls {
    /// Reads the files into `current`, which the client has.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub(crate) fn load(files: KafkaTlsFiles, current: kafka_client::Tls, metrics: Metrics) -> Result<Self, FileError> {
        let tls = Self { files, current, metrics };
        tls.reload()?;
        Ok(tls)
    }

    /// Every file that is read; none where the host's authorities are believed and no certificate is shown.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let KafkaTlsFiles { ca, own } = &self.files;
        let own = own.iter().flat_map(|(certificate, key)| [certificate, key]);
        ca.iter().chain(own).cloned().collect()
    }

    /// Reads the files anew, and the host's authorities where they are believed, and puts them in place.
    ///
    /// # Errors
    ///
    /// What is wrong with them. What was in place stays.
    pub(crate) fn reload(&self) -> Result<(), FileError> {
        let (config, own_until) = files::broker_tls(&self.files)?;
        self.current.replace(config);
        self.metrics.set_kafka_certificate_expiry(own_until.map(|until| until.as_secs()));
        if own_until.is_some_and(|until| until <= UnixTime::now()) {
            tracing::warn!("the certificate that brokers are shown has expired: new connections to them will fail");
        }
        Ok(())
    }
}

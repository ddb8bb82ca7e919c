//! The client's settings.

use crate::{Connector, Tls, sasl::Sasl};
use std::{sync::Arc, time::Duration};

/// The client's settings. The defaults are right for production except for `bootstrap_servers`.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port` of brokers to begin with; also the fallback when no known broker answers (KIP-899). Every address
    /// that a name resolves to is tried (KIP-602). Default: none.
    pub bootstrap_servers: Vec<String>,
    /// What brokers log and count quotas by. Default `penstock`.
    pub client_id: String,
    /// Where this client runs, for reads from the nearest replica (KIP-392). Default: unset.
    pub rack: Option<String>,
    /// TLS to the brokers; `None`: plaintext. Clones share it: what [`Tls::replace`] puts in place holds for all of them.
    /// Default: `None`.
    pub tls: Option<Tls>,
    /// How every connection logs in; `None`: not at all. Default: `None`.
    pub sasl: Option<Sasl>,
    /// Before the first login at a broker: a pause of random length, at most this long, so that a fleet that starts
    /// together does not log in together (MSK takes 100 new connections a second and broker, 4 on its smallest ones).
    /// Default 1 s.
    pub login_jitter: Duration,
    /// Pause after the first failed login at a broker; doubled by each further one, with jitter. Default 1 s.
    pub login_backoff: Duration,
    /// Bound of that pause. Default 15 s.
    pub login_backoff_max: Duration,
    /// Another transport instead of TCP with `tls`; tests put theirs here. Default: `None`.
    pub connector: Option<Arc<dyn Connector>>,
    /// Limit for opening a connection to one resolved address, TLS handshake included. Default 10 s, as Java's.
    pub connect_timeout: Duration,
    /// Limit for an answer, from the moment its request begins to be written; time in which the broker throttles this
    /// connection does not count. Default 30 s, as Java's.
    pub request_timeout: Duration,
    /// Pause after the first failure to connect to a broker; doubled by each further one, with jitter. Default 50 ms.
    pub reconnect_backoff: Duration,
    /// Bound of that pause. Default 1 s.
    pub reconnect_backoff_max: Duration,
    /// Metadata older than this is refreshed. Default 5 min.
    pub metadata_max_age: Duration,
    /// A response frame longer than this closes the connection. It bounds what one connection's answer can make the
    /// client hold, so it must be above the cluster's largest batch. Default 64 MiB.
    pub max_frame_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bootstrap_servers: Vec::new(),
            client_id: "penstock".to_owned(),
            rack: None,
            tls: None,
            sasl: None,
            login_jitter: Duration::from_secs(1),
            login_backoff: Duration::from_secs(1),
            login_backoff_max: Duration::from_secs(15),
            connector: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            metadata_max_age: Duration::from_mins(5),
            max_frame_bytes: 64 << 20,
        }
    }
}

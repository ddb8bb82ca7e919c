//! The brokers' connections: who may be dialled when, and which connections are shared.
//!
//! Five kinds of connections, because Kafka answers one request of a connection at a time:
//!
//! - one *control* connection per broker for short requests, dialled when first needed, by one caller at a time;
//! - up to [`MAX_SLOW`] per broker for requests that take a while (reads of what is there, topic changes), lent to one
//!   request each, further requests waiting in their order;
//! - up to [`MAX_ROUNDS`] per broker for reads of what comes, which all that wait share: see [`fetch`](super::fetch);
//! - one for each member that is joining a group: the broker holds a JoinGroup until every member has sent one, so they
//!   must not wait for each other. Lent like the slow ones, and closed when it was not needed for [`HELD_IDLE`];
//! - those that [`Brokers::dial`] hands to their owners (one per produce worker).
//!
//! Control and slow connections live on the runtime that the client was started on, whoever asks for them.

use super::fetch::MAX_ROUNDS;
use crate::{
    Broker, Config, Connection, Connector, Error,
    connection::{Login, Settings, Traffic},
    sasl::Sasl,
    transport::TcpConnector,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Most connections per broker for requests that take a while.
pub(super) const MAX_SLOW: usize = 4;
/// Most members that join groups of one coordinator at a time.
const MAX_HELD: usize = 1024;
/// For how long a connection is kept that a member joined with: the others of its group sync meanwhile.
const HELD_IDLE: Duration = Duration::from_secs(30);
/// For how long a broker that did not answer is asked last.
const SUSPECT: Duration = Duration::from_secs(30);

/// All brokers that were ever dialled.
#[derive(Debug)]
pub(super) struct Brokers {
    pub(super) config: Arc<Config>,
    connector: Arc<dyn Connector>,
    sasl: Option<Arc<Sasl>>,
    client_id: Arc<str>,
    runtime: Handle,
    nodes: Mutex<HashMap<i32, Arc<Node>>>,
    /// Connections to bootstrap addresses, whose broker ids are not known.
    bootstrap: Arc<Traffic>,
}

/// How many brokers that are no longer in the metadata are remembered: their counters, and how long not to dial them.
const MAX_GONE: usize = 64;

/// One broker's connections.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) traffic: Arc<Traffic>,
    health: Mutex<Health>,
    /// Locked while dialling, so that one caller dials and the others wait for it.
    control: tokio::sync::Mutex<Option<Shared>>,
    slow: Pool,
    waiting: Pool,
    held: Pool,
}

/// Connections that are lent to one request each.
#[derive(Debug)]
struct Pool {
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<(Shared, Instant)>>>,
    /// When an idle one is closed; `None`: never.
    max_idle: Option<Duration>,
}

impl Pool {
    fn new(size: usize, max_idle: Option<Duration>) -> Self {
        Self { permits: Arc::new(Semaphore::new(size)), idle: Arc::default(), max_idle }
    }
}

/// A connection and the address it was dialled at: a broker that moves is dialled again.
#[derive(Debug)]
struct Shared {
    broker: Broker,
    connection: Connection,
}

impl Shared {
    fn serves(&self, broker: &Broker) -> bool {
        !self.connection.is_closed() && self.broker.host == broker.host && self.broker.port == broker.port
    }
}

#[derive(Debug, Default)]
struct Health {
    /// Failures to connect in a row.
    failures: u32,
    /// No attempt before this.
    not_before: Option<Instant>,
    /// Asked last until then.
    suspect_until: Option<Instant>,
}

/// What metrics read of one broker. Counters count since the client's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerStats {
    /// Connections open now.
    pub open: usize,
    /// Connections that were established.
    pub connects: u64,
    /// Attempts that failed: name resolution, TCP, TLS, version negotiation, login.
    pub connect_failures: u64,
    /// Logins that were repeated in place before their session ended.
    pub renewals: u64,
    /// Bytes written to the broker, before TLS.
    pub bytes_out: u64,
    /// Bytes read from the broker, after TLS.
    pub bytes_in: u64,
}

/// A connection of a pool, lent. Goes back when dropped, unless it is closed.
pub(super) struct Lent {
    idle: Arc<Mutex<Vec<(Shared, Instant)>>>,
    max_idle: Option<Duration>,
    runtime: Handle,
    shared: Option<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Lent {
    pub(super) fn connection(&self) -> &Connection {
        match &self.shared {
            Some(shared) => &shared.connection,
            None => unreachable!("taken on drop only"),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take().filter(|shared| !shared.connection.is_closed()) else { return };
        lock(&self.idle).push((shared, Instant::now()));
        if let Some(max_idle) = self.max_idle {
            let idle = self.idle.clone();
            self.runtime.spawn(async move {
                sleep(max_idle).await;
                lock(&idle).retain(|(_, since)| since.elapsed() < max_idle);
            });
        }
    }
}

impl Brokers {
    /// On the current runtime.
    pub(super) fn new(config: Config) -> Self {
        let connector = config
            .connector
            .clone()
            .unwrap_or_else(|| Arc::new(TcpConnector::new(config.tls.clone(), config.connect_timeout)));
        Self {
            connector,
            sasl: config.sasl.clone().map(Arc::new),
            client_id: config.client_id.as_str().into(),
            config: Arc::new(config),
            runtime: Handle::current(),
            nodes: Mutex::default(),
            bootstrap: Arc::default(),
        }
    }

    fn node(&self, id: i32) -> Arc<Node> {
        let mut nodes = lock(&self.nodes);
        let node = nodes.entry(id).or_insert_with(|| {
            Arc::new(Node {
                traffic: Arc::default(),
                health: Mutex::default(),
                control: tokio::sync::Mutex::default(),
                slow: Pool::new(MAX_SLOW, None),
                waiting: Pool::new(MAX_ROUNDS, None),
                held: Pool::new(MAX_HELD, Some(HELD_IDLE)),
            })
        });
        node.clone()
    }

    /// A new connection to `broker`, on the current runtime, after the pause that earlier failures ask for.
    pub(super) async fn dial(&self, broker: &Broker) -> Result<Connection, Error> {
        let node = self.node(broker.id);
        loop {
            let not_before = lock(&node.health).not_before;
            match not_before {
                Some(at) if at > Instant::now() => sleep_until(at).await,
                _ => break,
            }
        }
        let result = self.open(&broker.host, broker.port, &node.traffic).await;
        let mut health = lock(&node.health);
        match &result {
            Ok(_) => *health = Health::default(),
            Err(error) => {
                tracing::debug!(broker = broker.id, %error, "cannot connect");
                health.failures += 1;
                let (first, max) = match error {
                    Error::Authentication { .. } => (self.config.login_backoff, self.config.login_backoff_max),
                    _ => (self.config.reconnect_backoff, self.config.reconnect_backoff_max),
                };
                let pause = backoff(first, max, health.failures - 1);
                health.not_before = Some(Instant::now() + pause);
            }
        }
        result
    }

    /// A new connection to an address whose broker is not known.
    pub(super) async fn dial_bootstrap(&self, host: &str, port: u16) -> Result<Connection, Error> {
        self.open(host, port, &self.bootstrap).await
    }

    async fn open(&self, host: &str, port: u16, traffic: &Arc<Traffic>) -> Result<Connection, Error> {
        let connect_error = |source: std::io::Error| Error::Connect {
            address: format!("{host}:{port}").into(),
            source: Arc::new(source),
        };
        let settings = Settings {
            client_id: self.client_id.clone(),
            request_timeout: self.config.request_timeout,
            max_frame_bytes: self.config.max_frame_bytes,
            traffic: traffic.clone(),
        };
        let limit = self.config.connect_timeout;
        let result = async {
            // Before the connection: a broker need not wait for a token server.
            let exchange = match &self.sasl {
                Some(sasl) => {
                    if traffic.connects.load(Relaxed) == 0 {
                        sleep(self.config.login_jitter.mul_f64(fastrand::f64())).await;
                    }
                    let login = Login { sasl: sasl.clone(), host: host.into(), limit: self.config.request_timeout };
                    Some(login.begin().await?)
                }
                None => None,
            };
            let io = self.connector.connect(host, port).await;
            let io = io.map_err(connect_error)?;
            timeout(limit, Connection::open(io, settings, exchange))
                .await
                .map_err(|_| connect_error(std::io::ErrorKind::TimedOut.into()))?
        }
        .await;
        let counter = match &result {
            Ok(_) => &traffic.connects,
            Err(_) => &traffic.connect_failures,
        };
        counter.fetch_add(1, Relaxed);
        result
    }

    /// Dials on the client's own runtime: the connection outlives the caller's. A caller that goes away ends the attempt, so
    /// that attempts at a broker that does not answer do not pile up.
    async fn dial_shared(self: &Arc<Self>, broker: &Broker) -> Result<Shared, Error> {
        let (this, broker) = (self.clone(), broker.clone());
        let mut dialling = JoinSet::new();
        let attempt = async move {
            let connection = this.dial(&broker).await?;
            Ok(Shared { broker, connection })
        };
        dialling.spawn_on(attempt, &self.runtime);
        dialling.join_next().await.and_then(Result::ok).unwrap_or(Err(Error::ShutDown))
    }

    /// The connection for short requests.
    pub(super) async fn control(self: &Arc<Self>, broker: &Broker) -> Result<Connection, Error> {
        let node = self.node(broker.id);
        let mut control = node.control.lock().await;
        if let Some(shared) = control.as_ref().filter(|shared| shared.serves(broker)) {
            return Ok(shared.connection.clone());
        }
        *control = None;
        let shared = self.dial_shared(broker).await?;
        let connection = shared.connection.clone();
        *control = Some(shared);
        Ok(connection)
    }

    /// A connection for one request that the broker may hold for a while.
    pub(super) async fn slow(self: &Arc<Self>, broker: &Broker) -> Result<Lent, Error> {
        self.lend(broker, &self.node(broker.id).slow).await
    }

    /// A connection for one request that the broker holds until something comes.
    pub(super) async fn waiting(self: &Arc<Self>, broker: &Broker) -> Result<Lent, Error> {
        self.lend(broker, &self.node(broker.id).waiting).await
    }

    /// A connection for one request that the broker may hold until other members' requests have come.
    pub(super) async fn held(self: &Arc<Self>, broker: &Broker) -> Result<Lent, Error> {
        self.lend(broker, &self.node(broker.id).held).await
    }

    async fn lend(self: &Arc<Self>, broker: &Broker, pool: &Pool) -> Result<Lent, Error> {
        let Ok(permit) = pool.permits.clone().acquire_owned().await else {
            return Err(Error::ShutDown);
        };
        let idle = {
            let mut idle = lock(&pool.idle);
            idle.retain(|(shared, _)| shared.serves(broker));
            idle.pop().map(|(shared, _)| shared)
        };
        let shared = match idle {
            Some(shared) => shared,
            None => self.dial_shared(broker).await?,
        };
        Ok(Lent {
            idle: pool.idle.clone(),
            max_idle: pool.max_idle,
            runtime: self.runtime.clone(),
            shared: Some(shared),
            _permit: permit,
        })
    }

    /// Runs `task` on the client's own runtime.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        self.runtime.spawn(task)
    }

    /// Runs `task` on the client's own runtime to its end, even if the caller goes away.
    pub(super) async fn detached<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.runtime.spawn(task).await.unwrap_or(Err(Error::ShutDown))
    }

    /// A broker that did not answer in time is asked last for a while.
    pub(super) fn suspect(&self, id: i32) {
        lock(&self.node(id).health).suspect_until = Some(Instant::now() + SUSPECT);
    }

    /// The brokers in the order in which to ask them: healthy ones first, in a new order each time; `avoid` after those, then the ones
    /// that do not answer.
    pub(super) fn in_order(&self, known: &HashMap<i32, Broker>, avoid: Option<i32>) -> Vec<Broker> {
        let now = Instant::now();
        let nodes = lock(&self.nodes);
        let mut brokers: Vec<_> = known.values().cloned().collect();
        // Not in the order of the map, so that a seeded run is repeated exactly.
        brokers.sort_unstable_by_key(|broker| broker.id);
        let mut brokers: Vec<_> = brokers
            .into_iter()
            .map(|broker| {
                let waits = |until: Option<Instant>| until.is_some_and(|until| until > now);
                let doubtful = nodes.get(&broker.id).is_some_and(|node| {
                    let health = lock(&node.health);
                    waits(health.not_before) || waits(health.suspect_until)
                });
                ((doubtful, avoid == Some(broker.id), fastrand::u64(..)), broker)
            })
            .collect();
        drop(nodes);
        brokers.sort_unstable_by_key(|(rank, _)| *rank);
        brokers.into_iter().map(|(_, broker)| broker).collect()
    }

    /// Forgets brokers that are gone, once there are many: ids come from the peer.
    pub(super) fn forget_gone(&self, known: &HashMap<i32, Broker>) {
        let mut nodes = lock(&self.nodes);
        if nodes.len() > known.len() + MAX_GONE {
            nodes.retain(|id, node| known.contains_key(id) || node.traffic.open.load(Relaxed) > 0);
        }
    }

    pub(super) fn stats(&self) -> HashMap<i32, BrokerStats> {
        let read = |traffic: &Traffic| BrokerStats {
            open: traffic.open.load(Relaxed),
            connects: traffic.connects.load(Relaxed),
            connect_failures: traffic.connect_failures.load(Relaxed),
            renewals: traffic.renewals.load(Relaxed),
            bytes_out: traffic.bytes_out.load(Relaxed),
            bytes_in: traffic.bytes_in.load(Relaxed),
        };
        let nodes = lock(&self.nodes);
        nodes.iter().map(|(id, node)| (*id, read(&node.traffic))).chain([(-1, read(&self.bootstrap))]).collect()
    }
}

/// The pause after `failures` earlier failures: doubled by each, bounded, with a fifth of jitter either way.
pub(super) fn backoff(first: Duration, max: Duration, failures: u32) -> Duration {
    let exact = first.saturating_mul(1 << failures.min(16)).min(max);
    let percent = fastrand::u32(..41);
    exact / 100 * (80 + percent)
}

/// Nothing that holds these locks panics halfway through a change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

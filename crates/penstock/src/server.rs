//! The bridge as a running process: workers, listeners, and their end.
//!
//! ```text
//!   main thread                          worker threads, one runtime each
//!   ───────────                          ────────────────────────────────
//!   cluster: metadata                    connections ─▶ requests ─▶ pipeline ─▶ brokers
//!   acceptor ── fewest connections ───▶    "
//!   management listener                    "
//!   signals, drain ── phases ─────────▶    "
//!   reloads: certificates, rules, users    "
//! ```
//!
//! # How it stops
//!
//! No answer is cut and nothing that was accepted is dropped while there is time:
//!
//! | when | what happens |
//! |---|---|
//! | the signal | `/readyz` answers 503; everything else goes on, so that a balancer can take notice. Within half of the notice, every connection is asked to leave: its next answer says `Connection: close` |
//! | `drain.notice` later, or as soon as no client came for a third of it, at the latest after two and a half times it | consumer instances leave their groups; the listener closes; each connection ends with the request under way, or its first; idle ones close |
//! | one delivery timeout before the deadline, but not before half of the time since the notice | uploads that are still being sent are read no further; when what they brought is resolved they are answered, with what was written and that the rest was not read |
//! | `drain.deadline` after the signal | what is unresolved is given up: never sent is `not_written`, else `unknown`; those answers have five more seconds to get out |
//!
//! As soon as nothing is under way the process ends, at any of these points after the notice. A second signal skips to
//! the deadline.

mod kafka_tls;
mod listener;
mod management;
mod proxy_protocol;
mod reload;
mod tls;
mod worker;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kafka_client::Cluster;
use produce_pipeline::MemoryBudget;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth::{Authenticator, Tokens};
use crate::config::{Config, Tls};
use crate::http::access::Access;
use crate::http::confluent::v2::Consumers;
use crate::http::fleet::Fleet;
use crate::http::groups::Groups;
use crate::http::routes;
use crate::http1::Stop;
use crate::metrics::{Metrics, Reloaded};
use crate::schema_registry::Registry;
use crate::telemetry::{Telemetry, spans::Spans};
use kafka_tls::KafkaTls;
use listener::{Acceptor, Arrivals, From, Room, WorkerPort};
use management::Management;
use reload::{Reloader, Source};
use tls::TlsState;
use worker::{Parts, Phase, Worker};

/// For the spans of the last requests, when everything else has ended.
const LAST_SPANS: Duration = Duration::from_secs(3);
/// Connections of other bridges at once.
const FLEET_CONNECTIONS: usize = 1024;

/// Why the bridge does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An address cannot be listened at.
    #[error("{name} {address}: {source}")]
    Bind {
        /// The setting.
        name: &'static str,
        /// Its value.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Certificate, key, or what else TLS needs cannot be used.
    #[error("{0}")]
    Tls(Box<dyn std::error::Error + Send + Sync>),
    /// Users or keys of tokens cannot be used.
    #[error("{0}")]
    Auth(String),
    /// A thread, a runtime or a signal handler cannot be had.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// A worker's thread panicked: a bug. Its connections are gone, and the process ends rather than serve without it.
    #[error("a worker died")]
    WorkerDied,
}

/// Runs the bridge on this thread until a signal has ended it: what `penstock serve` does. Prints a `listening` line
/// for each address on standard output.
///
/// # Errors
///
/// When it cannot start, or did not end by a drain.
pub fn run(config: Config) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the first connection: a signal from now on is a drain.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let server = Server::start(config).await?;
        let mut out = io::stdout().lock();
        // Whoever started us may not read what we print.
        let _ = writeln!(out, "listening data {}\nlistening management {}", server.data_url(), server.management_url());
        let _ = out.flush();
        drop(out);
        let (stop, reload) = (server.stop_handle(), server.reload_handle());
        let mut finished = std::pin::pin!(server.finished());
        loop {
            tokio::select! {
                result = finished.as_mut() => return result,
                _ = terminate.recv() => stop.stop(),
                _ = interrupt.recv() => stop.stop(),
                _ = hangup.recv() => reload.reload(),
            }
        }
    })
}

/// A running bridge.
#[derive(Debug)]
pub struct Server {
    data: SocketAddr,
    management: SocketAddr,
    fleet: Option<SocketAddr>,
    scheme: &'static str,
    stop: StopHandle,
    reload: ReloadHandle,
    /// Runs until the drain is over.
    supervisor: JoinHandle<Result<(), ServeError>>,
}

/// Asks a bridge to stop, as a signal does. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StopHandle(watch::Sender<u32>);

impl StopHandle {
    /// The first call begins the drain, the second skips to its deadline.
    pub fn stop(&self) {
        self.0.send_modify(|times| *times += 1);
    }
}

/// Has everything that can change without a restart read anew, as SIGHUP does. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReloadHandle(watch::Sender<u32>);

impl ReloadHandle {
    /// Returns at once; the log and the metrics tell what came of it.
    pub fn reload(&self) {
        self.0.send_modify(|times| *times = times.wrapping_add(1));
    }
}

impl Server {
    /// Starts everything on the current runtime and on threads of the workers' own. Returns when both listeners are
    /// bound; it does not wait for Kafka, which `/readyz` tells.
    ///
    /// # Errors
    ///
    /// When an address cannot be bound, the certificate cannot be used, or a thread cannot be had.
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        let metrics = Metrics::new(config.runtime.workers);
        let tls = match &config.tls {
            Tls::Off => None,
            Tls::Files(files) => Some(Arc::new(TlsState::load(files, &metrics).map_err(ServeError::Tls)?)),
        };
        let kafka_tls = match (&config.kafka_tls, &config.kafka.tls) {
            (Some(files), Some(tls)) => Some(
                KafkaTls::load(files.clone(), tls.clone(), metrics.clone())
                    .map_err(|error| ServeError::Tls(error.into()))?,
            ),
            _ => None,
        };
        let authenticator = Authenticator::new(&config.auth, &metrics).map_err(ServeError::Auth)?.map(Arc::new);
        let listener = bind("listen.address", config.listen.address).await?;
        let management_listener = bind("management.address", config.management.address).await?;
        let fleet_listener = match &config.fleet {
            None => None,
            Some(fleet) => Some(bind("fleet.address", fleet.address).await?),
        };
        let (data, management) = (listener.local_addr()?, management_listener.local_addr()?);
        let config = Arc::new(config);

        let budget = MemoryBudget::new(config.producer.memory_bytes);
        let cluster = Cluster::start(config.kafka.clone());
        metrics.set_budget(budget.clone());
        metrics.set_cluster(cluster.clone());

        let (spans, exporting) = match &config.telemetry {
            None => (None, None),
            Some(settings) => {
                let (spans, task) = Spans::new(settings, routes::templates()).map_err(io::Error::other)?;
                metrics.set_spans(spans.counts());
                (Some(spans), Some(tokio::spawn(task.run())))
            }
        };
        let telemetry = Arc::new(Telemetry::new(&config, spans));
        let schemas = config.schema_registry.clone();
        let schemas = schemas.map(|settings| Arc::new(Registry::new(settings, metrics.clone())));
        let access = Arc::new(Access::new(config.access.clone()));
        let consumers = Consumers::new(config.consumers.clone(), budget.clone(), metrics.clone());
        let fleet = match (&config.fleet, &fleet_listener) {
            (Some(fleet), Some(listener)) => Some(Arc::new(Fleet::new(fleet, listener.local_addr()?))),
            _ => None,
        };
        let (phase, phases) = watch::channel(Phase::Serving);
        let draining = Arc::new(AtomicBool::new(false));
        let groups = Groups::default();
        let (leave, arrivals) = (Stop::default(), Arrivals::new());
        let mut ports = Vec::new();
        let mut workers = Vec::new();
        for index in 0..config.runtime.workers {
            let (port, incoming) = WorkerPort::new();
            let parts = Parts {
                config: config.clone(),
                access: access.clone(),
                authenticator: authenticator.clone(),
                cluster: cluster.clone(),
                budget: budget.clone(),
                groups: groups.clone(),
                metrics: metrics.clone(),
                telemetry: telemetry.clone(),
                schemas: schemas.clone(),
                tls: tls.clone(),
                consumers: consumers.clone(),
                fleet: fleet.clone(),
                draining: draining.clone(),
                stop: leave.clone(),
                arrivals: arrivals.clone(),
                phase: phases.clone(),
            };
            workers.push(Worker::start(index, parts, incoming)?);
            ports.push(port);
        }
        let fleet_address = fleet_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let fleet_acceptor = fleet_listener.map(|listener| Acceptor {
            listener,
            from: From::Fleet,
            workers: ports.clone(),
            balancers: None,
            room: Room::new(FLEET_CONNECTIONS, None),
            metrics: metrics.clone(),
        });
        let acceptor = Acceptor {
            listener,
            from: From::Data,
            workers: ports,
            balancers: config.listen.proxy_trusted.clone(),
            room: Room::new(config.listen.max_connections, config.listen.max_connections_per_source),
            metrics: metrics.clone(),
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (stop, stops) = watch::channel(0);
        let (reload, reloads) = watch::channel(0);
        let rest = Rest {
            reloader: Reloader::new(
                sources(&config, &access, fleet.as_ref(), tls.as_ref(), kafka_tls, authenticator.as_deref()),
                metrics.clone(),
            ),
            reloads,
            tokens: authenticator.as_ref().and_then(|authenticator| authenticator.tokens().cloned()),
            metrics: metrics.clone(),
        };
        let supervisor = Supervisor {
            phase,
            draining,
            leave,
            arrivals,
            stops,
            workers,
            consumers,
            management: Arc::new(Management { cluster, metrics, stopping: AtomicBool::new(false) }),
            config,
            exporting,
        };
        // The workers have it: what exports spans ends after them.
        drop(telemetry);
        let supervisor = tokio::spawn(supervisor.run(acceptor, fleet_acceptor, management_listener, rest));
        Ok(Self {
            data,
            management,
            fleet: fleet_address,
            scheme,
            stop: StopHandle(stop),
            reload: ReloadHandle(reload),
            supervisor,
        })
    }

    /// Where the data listener is, with its real port.
    pub const fn data_address(&self) -> SocketAddr {
        self.data
    }

    /// Where the management listener is, with its real port.
    pub const fn management_address(&self) -> SocketAddr {
        self.management
    }

    /// Where the fleet's listener is, with its real port, if there is one.
    pub const fn fleet_address(&self) -> Option<SocketAddr> {
        self.fleet
    }

    /// The data listener as a URL without a path.
    pub fn data_url(&self) -> String {
        format!("{}://{}", self.scheme, self.data)
    }

    /// The management listener as a URL without a path.
    pub fn management_url(&self) -> String {
        format!("http://{}", self.management)
    }

    /// How to ask it to stop.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// How to have it read anew what can change.
    pub fn reload_handle(&self) -> ReloadHandle {
        self.reload.clone()
    }

    /// Waits until the bridge has stopped and drained.
    ///
    /// # Errors
    ///
    /// When it ended for another reason.
    ///
    /// # Cancel safety
    ///
    /// The bridge goes on; its stop handles still work.
    pub async fn finished(self) -> Result<(), ServeError> {
        // A panic of the supervisor would be a bug like a worker's.
        self.supervisor.await.unwrap_or(Err(ServeError::WorkerDied))
    }
}

async fn bind(name: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind { name, address, source })
}

/// Everything that is read from files and may change.
fn sources(
    config: &Arc<Config>,
    access: &Arc<Access>,
    fleet: Option<&Arc<Fleet>>,
    tls: Option<&Arc<TlsState>>,
    kafka_tls: Option<KafkaTls>,
    authenticator: Option<&Authenticator>,
) -> Vec<Source> {
    let mut sources = vec![Source::Rules(config.clone(), access.clone(), fleet.cloned())];
    sources.extend(fleet.map(|fleet| Source::FleetSecret(fleet.clone())));
    sources.extend(tls.map(|tls| Source::Tls(tls.clone())));
    sources.extend(kafka_tls.map(Source::KafkaTls));
    sources.extend(authenticator.and_then(|auth| auth.users()).map(|users| Source::Users(users.clone())));
    sources.extend(authenticator.and_then(|auth| auth.tokens()).map(|tokens| Source::Keys(tokens.clone())));
    sources
}

/// What goes on beside the listeners, until the workers have ended.
struct Rest {
    reloader: Reloader,
    reloads: watch::Receiver<u32>,
    tokens: Option<Arc<Tokens>>,
    metrics: Metrics,
}

impl Rest {
    async fn run(self) {
        let Self { reloader, reloads, tokens, metrics } = self;
        let told = |answer: Result<(), String>| {
            metrics.reloaded(Reloaded::Keys, answer.is_ok());
            if let Err(problem) = answer {
                tracing::error!(
                    what = Reloaded::Keys.name(),
                    problem,
                    "what signs tokens cannot be learned; the old stays"
                );
            }
        };
        let following = async {
            match &tokens {
                Some(tokens) => tokens.follow(told).await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(reloader.run(reloads), following);
    }
}

/// Takes the process through its phases.
struct Supervisor {
    config: Arc<Config>,
    phase: watch::Sender<Phase>,
    draining: Arc<AtomicBool>,
    /// Tells connections of the stop.
    leave: Stop,
    arrivals: Arc<Arrivals>,
    /// How often a stop was asked for.
    stops: watch::Receiver<u32>,
    workers: Vec<Worker>,
    consumers: Arc<Consumers>,
    management: Arc<Management>,
    /// Sends spans, until the workers are gone and the last is sent.
    exporting: Option<JoinHandle<()>>,
}

impl Supervisor {
    async fn run(
        mut self,
        acceptor: Acceptor,
        fleet_acceptor: Option<Acceptor>,
        management_listener: TcpListener,
        rest: Rest,
    ) -> Result<(), ServeError> {
        let stop_accepting = CancellationToken::new();
        let stop_management = CancellationToken::new();
        // Its thread ends even if this task is dropped.
        let _managed = stop_management.clone().drop_guard();
        let mut accepting = JoinSet::new();
        for acceptor in std::iter::once(acceptor).chain(fleet_acceptor) {
            accepting.spawn(acceptor.run(stop_accepting.clone()));
        }
        let sweeping = tokio::spawn(self.consumers.clone().sweep());
        let managing = self.management.clone().start(management_listener.into_std()?, stop_management.clone())?;
        let rest = tokio::spawn(rest.run());

        let result = self.serve_and_drain(&stop_accepting, accepting).await;
        // Workers that are left after a failure must not go on.
        self.phase.send_replace(Phase::Abandon);
        for worker in self.workers {
            worker.join().await;
        }
        sweeping.abort();
        rest.abort();
        if let Some(mut exporting) = self.exporting {
            // The process does not stay for a collector that is away.
            if tokio::time::timeout(LAST_SPANS, &mut exporting).await.is_err() {
                exporting.abort();
            }
        }
        stop_management.cancel();
        // A panic of it is in the log; the drain is over all the same.
        let _ = tokio::task::spawn_blocking(|| managing.join()).await;
        result
    }

    async fn serve_and_drain(
        &mut self,
        stop_accepting: &CancellationToken,
        accepting: JoinSet<()>,
    ) -> Result<(), ServeError> {
        let mut stops = self.stops.clone();
        tokio::select! {
            () = asked(&mut stops, 1) => {}
            // Before a stop was asked for, no worker ends.
            _ = any_ended(&mut self.workers) => return Err(ServeError::WorkerDied),
        }
        let timeline = Timeline::new(Instant::now(), &self.config);
        tracing::info!("stopping: unready from now on");
        self.management.stopping.store(true, Ordering::Relaxed);
        self.management.metrics.set_draining();
        self.leave.leave(timeline.leaving);
        tokio::select! {
            () = timeline.nobody_comes(&self.arrivals) => {}
            () = asked(&mut stops, 2) => {}
            _ = any_ended(&mut self.workers) => return Err(ServeError::WorkerDied),
        }
        tracing::info!("stopping: no new connections, finishing requests");
        stop_accepting.cancel();
        // Workers look for the last connections after this.
        accepting.join_all().await;
        self.draining.store(true, Ordering::Relaxed);
        // Their groups go on without them: whoever reads with them is told, and makes another one elsewhere.
        self.consumers.close_all().await;
        self.phase.send_replace(Phase::Draining);

        let phase = &self.phase;
        let forward = async {
            let wait = async {
                tokio::time::sleep_until(timeline.stop_reading).await;
                tracing::info!("stopping: uploads are read no further");
                phase.send_replace(Phase::StopReading);
                tokio::time::sleep_until(timeline.deadline).await;
            };
            tokio::select! {
                () = asked(&mut stops, 2) => {}
                () = wait => {}
            }
            tracing::warn!("stopping: the deadline has come, what is unresolved is given up");
            phase.send_replace(Phase::Abandon);
            std::future::pending::<()>().await;
        };
        let workers = &mut self.workers;
        let ended = async {
            for worker in workers {
                worker.ended().await.map_err(|_| ServeError::WorkerDied)?;
            }
            Ok(())
        };
        let result = tokio::select! {
            result = ended => result,
            () = forward => unreachable!("it waits for ever after its last step"),
        };
        if result.is_ok() {
            tracing::info!("stopped");
        }
        result
    }
}

/// Waits until a stop was asked for so many times.
async fn asked(stops: &mut watch::Receiver<u32>, least: u32) {
    if stops.wait_for(|times| *times >= least).await.is_err() {
        // All handles are gone: nobody will ask any more.
        std::future::pending::<()>().await;
    }
}

/// Waits until one of the workers has ended.
async fn any_ended(workers: &mut [Worker]) {
    let mut waiting: Vec<_> = workers.iter_mut().map(|worker| Box::pin(worker.ended())).collect();
    std::future::poll_fn(|cx| {
        let ended = waiting.iter_mut().any(|worker| worker.as_mut().poll(cx).is_ready());
        if ended { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// The points in time of a drain.
#[derive(Debug, PartialEq, Eq)]
struct Timeline {
    /// Within so long all connections are asked to leave.
    leaving: Duration,
    /// The listener is open until then,
    notice: Instant,
    /// and until no client has come for so long,
    quiet: Duration,
    /// but not after this.
    stop_accepting: Instant,
    stop_reading: Instant,
    deadline: Instant,
}

impl Timeline {
    fn new(signal: Instant, config: &Config) -> Self {
        let (notice, deadline) = (config.drain.notice, config.drain.deadline.max(config.drain.notice));
        let working: Duration = deadline - notice;
        let resolving = config.producer.pipeline.delivery_timeout.min(working / 2);
        Self {
            leaving: notice / 2,
            notice: signal + notice,
            quiet: notice / 3,
            stop_accepting: signal + (notice * 5 / 2).min(deadline - resolving).max(notice),
            stop_reading: signal + deadline - resolving,
            deadline: signal + deadline,
        }
    }

    /// Waits until the listener may close. A balancer that has not taken notice in the notice still sends, and who is
    /// sent here must be served.
    async fn nobody_comes(&self, arrivals: &Arrivals) {
        let mut until = self.notice;
        while Instant::now() < until {
            tokio::time::sleep_until(until).await;
            until = (arrivals.last() + self.quiet).clamp(self.notice, self.stop_accepting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signal now; a notice of 60 s, a deadline after 180 s.
    fn timeline() -> Timeline {
        let environment = [("PENSTOCK_LISTEN__ADDRESS", "127.0.0.1:0"), ("PENSTOCK_TLS__MODE", "off")]
            .into_iter()
            .chain([("PENSTOCK_KAFKA__BOOTSTRAP_SERVERS", "localhost:9092")])
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::load(None, environment).unwrap_or_else(|error| panic!("{error}"));
        Timeline::new(Instant::now(), &config)
    }

    /// How long the listener stays open if a client comes every `interval` until `last`.
    async fn open_for(interval: u64, last: u64) -> u64 {
        let (arrivals, timeline, start) = (Arrivals::new(), timeline(), Instant::now());
        let coming = async {
            while start.elapsed().as_secs() < last {
                tokio::time::sleep(Duration::from_secs(interval)).await;
                arrivals.note();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = timeline.nobody_comes(&arrivals) => {}
            () = coming => {}
        }
        start.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn the_listener_is_open_for_the_notice_and_as_long_as_clients_come() {
        assert_eq!(open_for(1, 0).await, 60, "nobody comes");
        assert_eq!(open_for(5, 30).await, 60, "nobody has come for long");
        assert_eq!(open_for(5, 55).await, 75);
        assert_eq!(open_for(5, 70).await, 90);
        assert_eq!(open_for(5, 500).await, 150, "a balancer that never takes notice is not waited for");
        assert_eq!(open_for(25, 500).await, 70, "20 s without one are enough");
    }
}

//! What the bridge counts about itself, and its text for Prometheus.
//!
//! Every value is a plain atomic in one place, reached through a handle that was resolved before: an update costs an
//! uncontended atomic addition (a histogram three), takes no lock and looks no label up. Updates happen per request,
//! per chunk, per batch and per broker request, never per record. That is also why the histograms are our own: those of
//! `prometheus-client` take a lock per observation, and those of `metrics-exporter-prometheus` keep every observation
//! until the next scrape, memory that nobody bounds. `prometheus-client` writes the exposition (`exposition.rs`).
//!
//! What other parts already know (budget, Kafka connections) is asked for at the scrape and stored nowhere else.
//!
//! Labels are bounded: routes and workers are fixed, statuses and error codes are small numbers, brokers are capped at
//! [`MAX_BROKERS`]. A topic is never a label.

mod exposition;
mod histogram;
mod process;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use kafka_client::{Cluster, ErrorCode};
use produce_pipeline::{MemoryBudget, Observer, Outcome};

use crate::auth::Scheme;
use crate::telemetry::spans::SpanCounts;
use histogram::{Histogram, Scale};

/// Brokers that get a series of their own; what comes after shares the series of broker -1.
pub const MAX_BROKERS: usize = 256;

/// Error codes are small; what lies outside -1..=254 is counted as -1 (UNKNOWN_SERVER_ERROR).
const ERROR_CODES: usize = 256;

/// The process's metrics. Cheap to clone; shared by all workers.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    /// Wall clock at [`Metrics::new`].
    started: SystemTime,
    draining: AtomicBool,
    /// Indexed by worker.
    workers: Box<[Worker]>,
    connections_refused: AtomicU64,
    tls_handshakes_failed: AtomicU64,
    /// When certificates and revocation lists are over, seconds since the epoch. [`NEVER`]: there are none.
    certificate_until: AtomicU64,
    lists_until: AtomicU64,
    kafka_certificate_until: AtomicU64,
    /// By [`Scheme`], then by [`LoginResult`].
    logins: [[AtomicU64; LoginResult::ALL.len()]; Scheme::ALL.len()],
    /// By [`Reloaded`].
    reloads: [Reloads; Reloaded::ALL.len()],
    restart_needed: AtomicBool,
    /// By [`ProxyRefusal`].
    proxy_headers_refused: [AtomicU64; ProxyRefusal::ALL.len()],
    consumer_instances: AtomicU64,
    fleet_answered: AtomicU64,
    fleet_unanswered: AtomicU64,
    fleet_refused: AtomicU64,
    /// By [`Told`].
    registry_requests: [AtomicU64; Told::ALL.len()],
    registry_latency: Histogram,
    /// In the order in which they were asked for.
    routes: Mutex<Vec<RouteMetrics>>,
    body_bytes: AtomicU64,
    records_written: AtomicU64,
    records_not_written: AtomicU64,
    records_unknown: AtomicU64,
    records_refused: AtomicU64,
    batches_retried: AtomicU64,
    batch_records: Histogram,
    batch_bytes: Histogram,
    ack_latency: Histogram,
    /// Read for every Produce response, written once a broker.
    round_trips: RwLock<BTreeMap<i32, Arc<Histogram>>>,
    /// Index 0 is code -1.
    broker_errors: [AtomicU64; ERROR_CODES],
    /// Set once the bridge has them.
    budget: OnceLock<MemoryBudget>,
    cluster: OnceLock<Cluster>,
    spans: OnceLock<Arc<SpanCounts>>,
}

/// Why a connection to a listener that wants a PROXY header was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyRefusal {
    /// It came from outside of `listen.proxy_trusted`; its header was not looked at.
    Untrusted,
    /// It does not begin with a header, or ends within it.
    Absent,
    /// The header is not well-formed.
    Malformed,
    /// The header did not come in time.
    Slow,
}

impl ProxyRefusal {
    /// In the order of their discriminants, with their labels.
    const ALL: [(Self, &'static str); 4] = [
        (Self::Untrusted, "untrusted"),
        (Self::Absent, "absent"),
        (Self::Malformed, "malformed"),
        (Self::Slow, "slow"),
    ];
}

/// What is no point in time.
const NEVER: u64 = u64::MAX;

/// What came of looking at credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginResult {
    /// They are right.
    Ok,
    /// They are not.
    Refused,
    /// Too many of that address were not: these were not looked at.
    TooMany,
    /// There was no time to look at them, or nothing to hold them against.
    Unavailable,
}

impl LoginResult {
    /// In the order of their discriminants, with their labels.
    const ALL: [(Self, &'static str); 4] =
        [(Self::Ok, "ok"), (Self::Refused, "refused"), (Self::TooMany, "too_many"), (Self::Unavailable, "unavailable")];
}

/// What came of a request to the Schema Registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It told what was asked for.
    Answered,
    /// There is no such thing, or it is none.
    Refused,
    /// No answer that says either, in time or at all.
    Failed,
}

impl Told {
    /// In the order of their discriminants, with their labels.
    const ALL: [(Self, &'static str); 3] =
        [(Self::Answered, "answered"), (Self::Refused, "refused"), (Self::Failed, "failed")];
}

/// What can be read anew while the bridge runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reloaded {
    Tls,
    KafkaTls,
    Rules,
    FleetSecret,
    Users,
    Keys,
}

impl Reloaded {
    /// In the order of their discriminants.
    const ALL: [Self; 6] = [Self::Tls, Self::KafkaTls, Self::Rules, Self::FleetSecret, Self::Users, Self::Keys];

    /// For logs and labels.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::KafkaTls => "kafka_tls",
            Self::Rules => "rules",
            Self::FleetSecret => "fleet_secret",
            Self::Users => "users",
            Self::Keys => "jwt_keys",
        }
    }
}

#[derive(Default)]
struct Reloads {
    ok: AtomicU64,
    failed: AtomicU64,
    /// The last one failed.
    failing: AtomicBool,
}

#[derive(Default)]
struct Worker {
    connections_opened: AtomicU64,
    connections_closed: AtomicU64,
}

impl Metrics {
    /// The `Content-Type` of [`render`](Self::render)'s text.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Metrics of a process with this many workers. The process counts as started now.
    pub fn new(workers: usize) -> Self {
        Self(Arc::new(Inner {
            started: SystemTime::now(),
            draining: AtomicBool::new(false),
            workers: (0..workers).map(|_| Worker::default()).collect(),
            connections_refused: AtomicU64::new(0),
            tls_handshakes_failed: AtomicU64::new(0),
            certificate_until: AtomicU64::new(NEVER),
            lists_until: AtomicU64::new(NEVER),
            kafka_certificate_until: AtomicU64::new(NEVER),
            logins: Default::default(),
            reloads: Default::default(),
            restart_needed: AtomicBool::new(false),
            proxy_headers_refused: Default::default(),
            consumer_instances: AtomicU64::new(0),
            fleet_answered: AtomicU64::new(0),
            fleet_unanswered: AtomicU64::new(0),
            fleet_refused: AtomicU64::new(0),
            registry_requests: Default::default(),
            registry_latency: Histogram::new(&histogram::MICROSECONDS, Scale::MICRO),
            routes: Mutex::new(Vec::new()),
            body_bytes: AtomicU64::new(0),
            records_written: AtomicU64::new(0),
            records_not_written: AtomicU64::new(0),
            records_unknown: AtomicU64::new(0),
            records_refused: AtomicU64::new(0),
            batches_retried: AtomicU64::new(0),
            batch_records: Histogram::new(&histogram::RECORDS, Scale::ONE),
            batch_bytes: Histogram::new(&histogram::BYTES, Scale::ONE),
            ack_latency: Histogram::new(&histogram::MICROSECONDS, Scale::MICRO),
            round_trips: RwLock::new(BTreeMap::new()),
            broker_errors: std::array::from_fn(|_| AtomicU64::new(0)),
            budget: OnceLock::new(),
            cluster: OnceLock::new(),
            spans: OnceLock::new(),
        }))
    }

    /// The budget whose use is told at each scrape. The first call counts.
    pub fn set_budget(&self, budget: MemoryBudget) {
        let _ = self.0.budget.set(budget);
    }

    /// The cluster whose connections are told at each scrape. The first call counts.
    pub fn set_cluster(&self, cluster: Cluster) {
        let _ = self.0.cluster.set(cluster);
    }

    /// The counts of exported spans, told at each scrape. The first call counts.
    pub(crate) fn set_spans(&self, spans: Arc<SpanCounts>) {
        let _ = self.0.spans.set(spans);
    }

    /// The handle of a route, made at the first call for its name. Takes a lock: ask once a worker, not once a request.
    pub fn route(&self, name: &'static str) -> RouteMetrics {
        let mut routes = self.0.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.iter().find(|route| route.0.name == name) {
            return route.clone();
        }
        let route = RouteMetrics(Arc::new(RouteInner {
            name,
            begun: AtomicU64::new(0),
            by_status: std::array::from_fn(|_| AtomicU64::new(0)),
            duration: Histogram::new(&histogram::MICROSECONDS, Scale::MICRO),
        }));
        routes.push(route.clone());
        route
    }

    /// A client's connection was handed to `worker`; it is open until the guard is dropped.
    ///
    /// # Panics
    ///
    /// When there is no such worker: `worker` is below what [`Metrics::new`] was given.
    pub fn connection_opened(&self, worker: usize) -> OpenConnection {
        self.0.workers[worker].connections_opened.fetch_add(1, Relaxed);
        OpenConnection { metrics: self.clone(), worker }
    }

    /// A client's connection was closed unserved because too many were open.
    pub fn connection_refused(&self) {
        self.0.connections_refused.fetch_add(1, Relaxed);
    }

    /// A TLS handshake ended without a session: a bad client, a timeout, or a plain health check's probe.
    pub fn tls_handshake_failed(&self) {
        self.0.tls_handshakes_failed.fetch_add(1, Relaxed);
    }

    /// When the first certificate of the chain ends, and when the first revocation list is out of date; seconds since the
    /// epoch.
    pub(crate) fn set_tls_expiry(&self, certificate: u64, lists: Option<u64>) {
        self.0.certificate_until.store(certificate, Relaxed);
        self.0.lists_until.store(lists.unwrap_or(NEVER), Relaxed);
    }

    /// When the first certificate of the chain that brokers are shown ends, seconds since the epoch; `None`: there is none.
    pub(crate) fn set_kafka_certificate_expiry(&self, certificate: Option<u64>) {
        self.0.kafka_certificate_until.store(certificate.unwrap_or(NEVER), Relaxed);
    }

    /// Credentials were looked at. What a connection remembers is not.
    pub(crate) fn login(&self, scheme: Scheme, result: LoginResult) {
        self.0.logins[scheme as usize][result as usize].fetch_add(1, Relaxed);
    }

    /// Something was read anew, and put in place or not.
    pub(crate) fn reloaded(&self, what: Reloaded, is_ok: bool) {
        let reloads = &self.0.reloads[what as usize];
        if is_ok { &reloads.ok } else { &reloads.failed }.fetch_add(1, Relaxed);
        reloads.failing.store(!is_ok, Relaxed);
    }

    /// Whether the configuration's file says something else than what runs.
    pub(crate) fn set_restart_needed(&self, is_needed: bool) {
        self.0.restart_needed.store(is_needed, Relaxed);
    }

    /// A connection was closed before its first byte was served, because of the PROXY header in front of it.
    pub(crate) fn proxy_header_refused(&self, why: ProxyRefusal) {
        self.0.proxy_headers_refused[why as usize].fetch_add(1, Relaxed);
    }

    /// So many consumer instances are here.
    pub(crate) fn set_consumer_instances(&self, count: usize) {
        self.0.consumer_instances.store(count as u64, Relaxed);
    }

    /// A request was handed on to another bridge, and answered there or not.
    pub(crate) fn fleet_request(&self, answered: bool) {
        let counter = if answered { &self.0.fleet_answered } else { &self.0.fleet_unanswered };
        counter.fetch_add(1, Relaxed);
    }

    /// A request on the fleet's listener was not the fleet's.
    pub(crate) fn fleet_refused(&self) {
        self.0.fleet_refused.fetch_add(1, Relaxed);
    }

    /// The Schema Registry was asked, `took` ago.
    pub(crate) fn registry_asked(&self, told: Told, took: Duration) {
        self.0.registry_requests[told as usize].fetch_add(1, Relaxed);
        self.0.registry_latency.observe_duration(took);
    }

    /// Body bytes that a client sent, decrypted, before `Content-Encoding` is undone. Called per chunk.
    pub fn body_bytes(&self, bytes: usize) {
        self.0.body_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Lines refused before they reached a batch (too long, not JSON): `not_written`, and no broker saw them.
    pub fn records_refused(&self, records: u64) {
        self.0.records_refused.fetch_add(records, Relaxed);
    }

    /// The process got its signal, and will end.
    pub fn set_draining(&self) {
        self.0.draining.store(true, Relaxed);
    }

    /// Everything, in Prometheus's text format 0.0.4.
    pub fn render(&self) -> String {
        exposition::render(self)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Observer for Metrics {
    fn batch_sent(&self, records: u32, bytes: usize) {
        self.0.batch_records.observe(u64::from(records));
        self.0.batch_bytes.observe(bytes as u64);
    }

    fn batch_retried(&self) {
        self.0.batches_retried.fetch_add(1, Relaxed);
    }

    fn batch_resolved(&self, outcome: Outcome, records: u32, since_created: Duration) {
        let counter = match outcome {
            Outcome::Written => {
                self.0.ack_latency.observe_duration(since_created);
                &self.0.records_written
            }
            Outcome::NotWritten => &self.0.records_not_written,
            Outcome::Unknown => &self.0.records_unknown,
        };
        counter.fetch_add(u64::from(records), Relaxed);
    }

    fn broker_error(&self, code: ErrorCode) {
        let index = usize::try_from(i32::from(code.0) + 1).ok().filter(|index| *index < ERROR_CODES);
        self.0.broker_errors[index.unwrap_or(0)].fetch_add(1, Relaxed);
    }

    fn produce_round_trip(&self, broker: i32, took: Duration) {
        self.0.round_trip(broker).observe_duration(took);
    }
}

impl Inner {
    fn round_trip(&self, broker: i32) -> Arc<Histogram> {
        if let Some(known) = self.round_trips.read().unwrap_or_else(PoisonError::into_inner).get(&broker) {
            return known.clone();
        }
        let mut brokers = self.round_trips.write().unwrap_or_else(PoisonError::into_inner);
        let broker = if brokers.len() < MAX_BROKERS { broker } else { -1 };
        let new = || Arc::new(Histogram::new(&histogram::MICROSECONDS, Scale::MICRO));
        brokers.entry(broker).or_insert_with(new).clone()
    }
}

/// The handle of one route: what its requests are counted in. Cheap to clone.
#[derive(Clone)]
pub struct RouteMetrics(Arc<RouteInner>);

struct RouteInner {
    name: &'static str,
    /// Requests whose head was read.
    begun: AtomicU64,
    /// Index 0 is status 100.
    by_status: [AtomicU64; 500],
    duration: Histogram,
}

impl RouteMetrics {
    /// A request's head was read; [`answered`](Self::answered) follows, whatever becomes of it.
    pub fn begun(&self) {
        self.0.begun.fetch_add(1, Relaxed);
    }

    fn in_flight(&self) -> u64 {
        // What ended first: a request that ends in between must not make the difference negative.
        let ended: u64 = self.0.by_status.iter().map(|count| count.load(Relaxed)).sum();
        self.0.begun.load(Relaxed).saturating_sub(ended)
    }

    /// A request was answered with `status`, `took` after its head was read. For a streamed answer: when it ended.
    pub fn answered(&self, status: u16, took: Duration) {
        let index = usize::from(status.clamp(100, 599) - 100);
        self.0.by_status[index].fetch_add(1, Relaxed);
        self.0.duration.observe_duration(took);
    }
}

impl fmt::Debug for RouteMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RouteMetrics").field(&self.0.name).finish()
    }
}

/// One open connection of a client; dropping it counts it as closed.
#[derive(Debug)]
pub struct OpenConnection {
    metrics: Metrics,
    worker: usize,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.metrics.0.workers[self.worker].connections_closed.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;

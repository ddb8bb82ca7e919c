//! The shared handle: metadata, control requests, reads.
//!
//! Metadata is one immutable [`Metadata`] snapshot behind an `ArcSwap`, so that workers read it without a lock. One
//! background task, the [`refresher`](refresh), replaces it; leader hints (KIP-951) replace it in between. Everything
//! else here is requests: to any broker, to the controller, to a partition's leader or to a group's coordinator, retried
//! within the request timeout where that is safe.

mod admin;
mod brokers;
mod coordinator;
mod fetch;
mod groups;
mod read;
mod refresh;

pub use brokers::BrokerStats;
pub(crate) use brokers::lock;
pub(crate) use fetch::{Part, Wanted};
pub use groups::{GroupOffset, Membership};
pub use read::{Fetched, ListedOffset, OffsetSpec};

use crate::{
    Broker, Config, Connection, Error, ErrorCode, Metadata, ProducerIdentity, TopicId, TopicInfo,
    messages::{InitProducerIdRequest, Request},
    metadata::{self, Doubts},
};
use arc_swap::ArcSwap;
use brokers::{Brokers, backoff};
use coordinator::Coordinators;
use fetch::{Nearest, Waits};
use refresh::{Asks, first_limit};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

/// Why a topic cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// Two brokers did not know it.
    #[error("no such topic")]
    Unknown,
    /// This client may not see it.
    #[error("not authorized")]
    Denied,
    /// No topic can have this name.
    #[error("invalid topic name")]
    InvalidName,
    /// The cluster could not be asked in time.
    #[error("cluster unavailable: {0}")]
    Unavailable(Arc<Error>),
}

/// The shared handle: metadata, control requests, fetches. Cheap to clone, usable from every worker's runtime.
///
/// The background task ends with the last handle.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    core: Arc<Core>,
    refresher: AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.refresher.abort();
    }
}

/// What handles and background task share.
#[derive(Debug)]
struct Core {
    brokers: Arc<Brokers>,
    snapshot: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
    /// What is wanted from the refresher, and how to wake it.
    asks: Mutex<Asks>,
    wake: Notify,
    coordinators: Mutex<Coordinators>,
    nearest: Mutex<Nearest>,
    /// By broker.
    waits: Mutex<HashMap<i32, Waits>>,
    /// Whoever holds it may replace the snapshot.
    doubts: Mutex<Doubts>,
    started: Instant,
    /// When the snapshot was replaced, in ms since the start.
    published: AtomicU64,
}

/// The snapshot, and when its topics were last used.
#[derive(Debug, Default)]
struct Snapshot {
    metadata: Arc<Metadata>,
    /// In ms since the start; shared by successive snapshots.
    last_used: HashMap<Arc<str>, Arc<AtomicU64>>,
}

impl Cluster {
    /// Starts the background metadata task on the current runtime. Does not wait for a broker and does not fail for
    /// want of one.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn start(config: Config) -> Self {
        let core = Arc::new(Core {
            brokers: Arc::new(Brokers::new(config)),
            snapshot: ArcSwap::default(),
            generation: watch::Sender::new(0),
            asks: Mutex::default(),
            wake: Notify::new(),
            coordinators: Mutex::default(),
            nearest: Mutex::default(),
            waits: Mutex::default(),
            doubts: Mutex::default(),
            started: Instant::now(),
            published: AtomicU64::new(0),
        });
        let refresher = tokio::spawn(refresh::run(core.clone())).abort_handle();
        Self(Arc::new(Handle { core, refresher }))
    }

    /// The newest snapshot.
    pub fn metadata(&self) -> Arc<Metadata> {
        self.0.core.metadata()
    }

    /// The generation of the newest snapshot; changes with every new one. `generation == 0`: no broker answered yet.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.core.generation.subscribe()
    }

    /// The topic, from the snapshot if it is there; else the cluster is asked (one request at a time, names coalesced).
    ///
    /// A name that the first broker does not know is asked for once more, from another broker where there is one, 50 ms
    /// later. If that does not know it either, the answer is [`TopicError::Unknown`], remembered for a second or until
    /// [`Cluster::create_topic`]. Waits for the cluster for as long as the request timeout.
    ///
    /// A topic that nobody asked for in 10 minutes leaves the snapshot: who goes on using one calls this or
    /// [`Cluster::touch_topic`] now and then.
    ///
    /// # Cancel safety
    ///
    /// Safe; the asking goes on.
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicInfo>, TopicError> {
        self.0.core.topic(name).await
    }

    /// Marks a topic as in use: see [`Cluster::topic`]. A hash lookup, a clock read and an atomic store.
    pub fn touch_topic(&self, name: &str) {
        let snapshot = self.0.core.snapshot.load();
        if let Some(last_used) = snapshot.last_used.get(name) {
            last_used.store(self.0.core.now_ms(), Relaxed);
        }
    }

    /// Asks for a refresh soon, at most one in 100 ms: after NOT_LEADER_OR_FOLLOWER, a disconnect, a stale id.
    pub fn request_refresh(&self) {
        self.0.core.request_refresh();
    }

    /// KIP-951: a newer leader told in a response about a topic. Accepted only for the topic of that id, for another one of the same
    /// name counts its epochs from the beginning, and only with a newer epoch; a refresh is requested anyway.
    pub fn apply_leader_hint(
        &self,
        topic: (&str, TopicId),
        partition: i32,
        leader: i32,
        leader_epoch: i32,
        endpoints: &[Broker],
    ) {
        self.0.core.apply_leader_hint(topic, partition, leader, leader_epoch, endpoints);
    }

    /// A new connection to a broker of the snapshot, versions negotiated. The caller owns it (produce workers have one
    /// per broker), and its driver runs on the current runtime. After failures to connect to this broker, waits first:
    /// 50 ms to 1 s by default.
    ///
    /// # Errors
    ///
    /// [`Error::NoBroker`] if the snapshot has no such broker.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the attempt.
    pub async fn dial(&self, broker: i32) -> Result<Connection, Error> {
        let broker = self.0.core.broker(broker)?;
        self.0.core.brokers.dial(&broker).await
    }

    /// A new producer identity, without a transactional id (KIP-98). Any broker gives one; retried within the request
    /// timeout.
    ///
    /// # Cancel safety
    ///
    /// Safe; an identity may be wasted.
    pub async fn init_producer_id(&self) -> Result<ProducerIdentity, Error> {
        let core = &self.0.core;
        let mut retry = core.retry();
        loop {
            let attempt = async {
                let response = core.ask_any(&InitProducerIdRequest, retry.limit()).await?;
                match response.error.ok() {
                    Ok(()) => Ok(response.identity),
                    Err(code) => Err(Error::broker(InitProducerIdRequest::API.name, code, None)),
                }
            };
            match attempt.await {
                Ok(identity) => return Ok(identity),
                Err(error) => retry.after(error).await?,
            }
        }
    }

    /// How long ago a broker last told anything of the cluster's shape, or since the start, for the metric.
    pub fn metadata_age(&self) -> Duration {
        let core = &self.0.core;
        Duration::from_millis(core.now_ms().saturating_sub(core.published.load(Relaxed)))
    }

    /// Open connections per broker, for the metric. Those to bootstrap addresses, a moment long, are not counted.
    pub fn connection_counts(&self) -> HashMap<i32, usize> {
        let mut stats = self.broker_stats();
        stats.remove(&-1);
        stats.into_iter().map(|(id, s)| (id, s.open)).collect()
    }

    /// For how long a call is tried.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.0.core.config().request_timeout
    }

    /// Where this client runs.
    pub(crate) fn rack(&self) -> Option<Arc<str>> {
        self.0.core.config().rack.as_deref().map(Into::into)
    }

    /// Counters per broker, for metrics. The connections to bootstrap addresses are under -1.
    pub fn broker_stats(&self) -> HashMap<i32, BrokerStats> {
        self.0.core.brokers.stats()
    }
}

impl Core {
    fn config(&self) -> &Config {
        &self.brokers.config
    }

    fn metadata(&self) -> Arc<Metadata> {
        self.snapshot.load().metadata.clone()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn broker(&self, id: i32) -> Result<Broker, Error> {
        let snapshot = self.snapshot.load();
        let broker = snapshot.metadata.brokers.get(&id).cloned();
        broker.ok_or(Error::NoBroker("the metadata has no broker of this id"))
    }

    /// Makes `next` the snapshot. The caller holds `doubts`.
    fn publish(&self, mut next: Metadata) {
        let known = self.snapshot.load();
        next.generation = known.metadata.generation + 1;
        let generation = next.generation;
        let now = self.now_ms();
        let last_used = next
            .topics
            .keys()
            .map(|name| {
                let used = known.last_used.get(name).cloned();
                let used = used.unwrap_or_else(|| Arc::new(AtomicU64::new(now)));
                (name.clone(), used)
            })
            .collect();
        self.snapshot.store(Arc::new(Snapshot { metadata: Arc::new(next), last_used }));
        self.published.store(now, Relaxed);
        self.generation.send_replace(generation);
    }

    fn apply_leader_hint(
        &self,
        topic: (&str, TopicId),
        partition: i32,
        leader: i32,
        leader_epoch: i32,
        endpoints: &[Broker],
    ) {
        {
            let _doubts = lock(&self.doubts);
            let known = self.metadata();
            let next = metadata::with_leader(&known, topic, partition, leader, leader_epoch, endpoints);
            if let Some(next) = next {
                self.publish(next);
            }
        }
        self.request_refresh();
    }

    /// A short request to any broker, those that answer first. `limit`: for one broker, connecting included, so that one
    /// that keeps silent does not take the time in which another would answer.
    async fn ask_any<R>(&self, request: &R, limit: Duration) -> Result<R::Response, Error>
    where
        R: Request + 'static,
        R::Response: Send + 'static,
    {
        self.wait_for_metadata().await?;
        let known = self.metadata();
        let order = self.brokers.in_order(&known.brokers, None);
        let broker = order.first().ok_or(Error::NoBroker("the metadata has no brokers"))?;
        self.ask(broker, request, limit).await
    }

    /// The same to the broker of this id.
    async fn ask_broker<R>(&self, id: i32, request: &R, limit: Duration) -> Result<R::Response, Error>
    where
        R: Request + 'static,
        R::Response: Send + 'static,
    {
        self.wait_for_metadata().await?;
        self.ask(&self.broker(id)?, request, limit).await
    }

    async fn ask<R>(&self, broker: &Broker, request: &R, limit: Duration) -> Result<R::Response, Error>
    where
        R: Request + 'static,
        R::Response: Send + 'static,
    {
        let attempt = async { self.brokers.control(broker).await?.call(request, i16::MAX, Duration::ZERO).await };
        let result = timeout(limit, attempt).await.unwrap_or(Err(Error::TimedOut { maybe_sent: true, after: limit }));
        if result.is_err() {
            self.brokers.suspect(broker.id);
        }
        result
    }

    /// Waits for the first snapshot, for as long as the request timeout.
    async fn wait_for_metadata(&self) -> Result<(), Error> {
        let mut generation = self.generation.subscribe();
        let limit = Instant::now() + self.config().request_timeout;
        match timeout_at(limit, generation.wait_for(|g| *g > 0)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.last_failure()),
        }
    }

    /// Retries until the request timeout has passed.
    fn retry(self: &Arc<Self>) -> Retry {
        Retry {
            core: self.clone(),
            failures: 0,
            generation: *self.generation.borrow(),
            deadline: Instant::now() + self.config().request_timeout,
        }
    }
}

/// A call's retries: waits between them, and ends them.
struct Retry {
    core: Arc<Core>,
    failures: u32,
    /// The snapshot that the last attempt went by.
    generation: u64,
    deadline: Instant,
}

impl Retry {
    /// For the next attempt, where another broker may do as well: doubled by each failure.
    fn limit(&self) -> Duration {
        let config = self.core.config();
        first_limit(config).saturating_mul(1 << self.failures.min(6)).min(config.request_timeout)
    }

    /// Waits, or gives `error` back if a retry cannot help or there is no time left.
    async fn after(&mut self, error: Error) -> Result<(), Error> {
        let pause = backoff(Duration::from_millis(50), Duration::from_secs(1), self.failures);
        if !error.is_retriable() || Instant::now() + pause >= self.deadline {
            return Err(error);
        }
        self.failures += 1;
        if error.invalidates_metadata() || error.code() == Some(ErrorCode::NOT_CONTROLLER) {
            self.core.request_refresh();
            sleep(pause).await;
            // A retry by the same metadata would end the same way; a hint may have brought newer one already.
            let mut generation = self.core.generation.subscribe();
            let limit = self.deadline.min(Instant::now() + Duration::from_secs(1));
            let _ = timeout_at(limit, generation.wait_for(|newest| *newest > self.generation)).await;
        } else {
            sleep(pause).await;
        }
        self.generation = *self.core.generation.borrow();
        Ok(())
    }
}

#[cfg(test)]
mod tests;

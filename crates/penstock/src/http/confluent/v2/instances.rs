//! Consumer instances: what of Confluent's API has a state in this process.
//!
//! An instance is a member of its group while it is subscribed, with a reader of its own. It belongs to the identity that
//! made it: to everybody else it is not there. What it holds between two calls is its partitions and their positions;
//! records are held only while a call reads them, charged to that call.
//!
//! An instance ends with its deletion, after `consumers.idle_timeout` without a call, or with the process; each time it
//! commits what it has to and leaves its group, so that the others do not wait for its session to expire.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kafka_client::{Cluster, Consumer, ConsumerConfig, ConsumerError, ErrorCode, Isolation, OffsetReset};
use produce_pipeline::MemoryBudget;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::consumers::exists;
use crate::config;
use crate::http::caller::Caller;
use crate::http::confluent::embedded::EmbeddedFormat;
use crate::http::confluent::error::{ILLEGAL_STATE, KAFKA, NO_INSTANCE, no_instance};
use crate::http::error::{ApiError, code};
use crate::http::group_memory::GroupMemory;
use crate::metrics::Metrics;

/// How often idle instances are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// How often what was read is committed, where the client leaves it to the instance.
const AUTO_COMMIT: Duration = Duration::from_secs(5);
/// For the last commit and the leaving of all instances at the end of the process.
const FAREWELL: Duration = Duration::from_secs(5);

/// What an instance is made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewInstance {
    pub(super) format: EmbeddedFormat,
    /// Where a partition without a committed offset is read from.
    pub(super) reset: OffsetReset,
    pub(super) auto_commit: bool,
    /// A read waits for so many bytes of keys and values, within its time.
    pub(super) min_bytes: usize,
    /// How long a read may wait that does not say it.
    pub(super) timeout: Option<Duration>,
    pub(super) isolation: Isolation,
}

/// One consumer instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(super) group: Arc<str>,
    pub(super) name: Box<str>,
    pub(super) settings: NewInstance,
    creator: Caller,
    pub(super) consumer: Consumer,
    /// Ends what waits in it.
    pub(super) closed: CancellationToken,
    /// Calls under way.
    calls: AtomicUsize,
    last_used: Mutex<Instant>,
}

impl Instance {
    /// The instance is not idle for as long as the guard lives.
    pub(super) fn in_use(self: &Arc<Self>) -> InUse {
        self.calls.fetch_add(1, Ordering::Relaxed);
        InUse(self.clone())
    }

    fn is_idle(&self, now: Instant, timeout: Duration) -> bool {
        let last = *self.last_used.lock().unwrap_or_else(PoisonError::into_inner);
        self.calls.load(Ordering::Relaxed) == 0 && now.saturating_duration_since(last) >= timeout
    }
}

/// See [`Instance::in_use`].
pub(super) struct InUse(Arc<Instance>);

impl Drop for InUse {
    fn drop(&mut self) {
        *self.0.last_used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why an instance does not do what it was asked for.
pub(super) fn of_consumer(error: &ConsumerError) -> ApiError {
    match error {
        ConsumerError::Client(client) => match client.code() {
            Some(
                told
                @ (ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::ILLEGAL_GENERATION | ErrorCode::REBALANCE_IN_PROGRESS),
            ) => ApiError::new(
                code::CONFLICT,
                format!(
                    "the group has gone on without this instance ({}); read on, and commit what comes",
                    told.name()
                ),
            ),
            _ => ApiError::of_client("", client),
        },
        ConsumerError::NotAssigned(topic, partition) => {
            ApiError::new(NO_INSTANCE, format!("the instance does not read partition {partition} of {topic}"))
        }
        ConsumerError::IllegalState(problem) => ApiError::new(ILLEGAL_STATE, *problem),
        ConsumerError::Closed => no_instance(),
        told => ApiError::new(KAFKA, told.to_string()),
    }
}

type Key = (Box<str>, Box<str>);

/// All instances of this process, shared by its workers.
#[derive(Debug)]
pub(crate) struct Consumers {
    settings: config::Consumers,
    budget: MemoryBudget,
    metrics: Metrics,
    /// By group and name. Locked for a look-up, never across an await.
    instances: Mutex<HashMap<Key, Arc<Instance>>>,
}

impl Consumers {
    pub(crate) fn new(settings: config::Consumers, budget: MemoryBudget, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { settings, budget, metrics, instances: Mutex::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Instance>>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an instance.
    ///
    /// # Errors
    ///
    /// 40902 if there is one of this name in the group, 50301 if there are too many.
    pub(super) fn create(
        &self,
        cluster: &Cluster,
        group: &str,
        name: &str,
        creator: &Caller,
        settings: NewInstance,
    ) -> Result<(), ApiError> {
        let mut instances = self.lock();
        let key = (Box::from(group), Box::from(name));
        if instances.contains_key(&key) {
            return Err(exists());
        }
        if instances.len() >= self.settings.max_instances {
            return Err(ApiError {
                retry_after: Some(10),
                ..ApiError::new(
                    code::OVERLOADED,
                    format!("this bridge has {} consumer instances and takes no more", instances.len()),
                )
            });
        }
        let group: Arc<str> = group.into();
        let config = ConsumerConfig {
            group: Some(group.clone()),
            reset: settings.reset,
            isolation: settings.isolation,
            auto_commit: settings.auto_commit.then_some(AUTO_COMMIT),
            ..ConsumerConfig::default()
        };
        let instance = Instance {
            consumer: Consumer::new(cluster, config, Arc::new(GroupMemory(self.budget.clone()))),
            group,
            name: name.into(),
            settings,
            creator: creator.clone(),
            closed: CancellationToken::new(),
            calls: AtomicUsize::new(0),
            last_used: Mutex::new(Instant::now()),
        };
        instances.insert(key, Arc::new(instance));
        self.metrics.set_consumer_instances(instances.len());
        Ok(())
    }

    /// The instance, if the caller is who made it.
    pub(super) fn find(&self, group: &str, name: &str, caller: &Caller) -> Option<Arc<Instance>> {
        let key = (Box::from(group), Box::from(name));
        let found = self.lock().get(&key).cloned();
        found.filter(|instance| instance.creator.is_same_identity(caller))
    }

    /// Whether there is such an instance, whoever made it.
    pub(super) fn has(&self, group: &str, name: &str) -> bool {
        self.lock().contains_key(&(Box::from(group), Box::from(name)))
    }

    /// Ends an instance because its client wants it: all that was answered counts as read.
    pub(super) async fn delete(&self, instance: &Arc<Instance>) {
        instance.consumer.mark_delivered();
        self.close(instance).await;
    }

    /// Ends an instance: what waits in it returns, what it has to commit is committed, and it leaves its group.
    async fn close(&self, instance: &Arc<Instance>) {
        {
            let mut instances = self.lock();
            let key = (Box::from(&*instance.group), instance.name.clone());
            // By that name there may be another one now.
            if instances.get(&key).is_some_and(|known| Arc::ptr_eq(known, instance)) {
                instances.remove(&key);
            }
            self.metrics.set_consumer_instances(instances.len());
        }
        instance.closed.cancel();
        instance.consumer.close().await;
    }

    /// Ends instances that nobody uses, for as long as the process serves.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SWEEP.min(self.settings.idle_timeout));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let timeout = self.settings.idle_timeout;
            let idle: Vec<_> = self.lock().values().filter(|known| known.is_idle(now, timeout)).cloned().collect();
            for instance in idle {
                tracing::info!(group = &*instance.group, instance = &*instance.name, "an idle consumer instance ends");
                let this = self.clone();
                // One that waits for its coordinator must not hold up the others.
                tokio::spawn(async move { this.close(&instance).await });
            }
        }
    }

    /// Ends all instances, within a few seconds.
    pub(crate) async fn close_all(self: &Arc<Self>) {
        let all: Vec<_> = self.lock().values().cloned().collect();
        let mut closing = tokio::task::JoinSet::new();
        for instance in all {
            let this = self.clone();
            closing.spawn(async move { this.close(&instance).await });
        }
        if tokio::time::timeout(FAREWELL, closing.join_all()).await.is_err() {
            tracing::warn!("consumer instances could not leave their groups in time");
        }
    }
}

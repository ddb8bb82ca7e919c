//! The shell around the accumulator: one worker's tasks, clocks and connections.

use crate::accumulator::{Accumulator, Effects};
use crate::appender::{Appender, Target};
use crate::budget::{Lease, MemoryBudget};
use crate::delivery::Delivery;
use crate::partitioner::partition_for_key;
use crate::sender;
use crate::{Config, Observer};
use kafka_client::{Cluster, TopicError};
use kafka_records::HeaderBlock;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

/// How often the cluster is told that topics with open uploads are still in use, well within the ten minutes after
/// which the client forgets a topic that nobody asks for.
const TOUCH_INTERVAL: Duration = Duration::from_secs(60);

/// Waiting times between attempts to get a producer id.
const IDENTITY_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// One worker's pipeline. Lives in a `LocalSet` of a current-thread runtime; cheap to clone. When the last clone and
/// the last [`Topic`] are gone its tasks end, and records that are still open are never settled: [`Pipeline::flush`]
/// or [`Pipeline::abandon`] first.
#[derive(Clone)]
pub struct Pipeline(Rc<Owner>);

/// Ends the tasks with the last handle. The tasks themselves hold the shell.
struct Owner {
    shell: Rc<Shell>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shell.tasks.borrow_mut().abort_all();
    }
}

pub(crate) struct Shell {
    pub(crate) acc: RefCell<Accumulator>,
    pub(crate) cluster: Cluster,
    /// Changed when there is metadata that the accumulator has not been told.
    untold: RefCell<watch::Receiver<u64>>,
    pub(crate) config: Config,
    pub(crate) observer: Arc<dyn Observer>,
    lease: Rc<Lease>,
    /// One task per broker that a batch ever went to.
    senders: RefCell<HashMap<i32, Rc<Notify>>>,
    tasks: RefCell<JoinSet<()>>,
    /// Batches are open again: time matters.
    woken: Notify,
    identity: Notify,
    idle: Notify,
    itself: Weak<Self>,
}

impl Shell {
    /// Does what a change of the accumulator asks for.
    pub(crate) fn apply(&self, effects: Effects) {
        for broker in effects.kick {
            self.sender(broker).notify_one();
        }
        if effects.refresh {
            self.cluster.request_refresh();
        }
        if effects.woken {
            self.woken.notify_one();
        }
        if effects.identity {
            self.identity.notify_one();
        }
        if effects.idle {
            self.idle.notify_waiters();
        }
    }

    fn sender(&self, broker: i32) -> Rc<Notify> {
        let mut senders = self.senders.borrow_mut();
        let kick = senders.entry(broker).or_insert_with(|| {
            let kick = Rc::new(Notify::new());
            let shell = self.itself.upgrade().expect("called through the shell's own Rc");
            self.tasks.borrow_mut().spawn_local(sender::run(shell, broker, kick.clone()));
            kick
        });
        kick.clone()
    }

    /// Changes the accumulator and does what follows from it.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Accumulator, Instant) -> T) -> T {
        let mut acc = self.acc.borrow_mut();
        let result = change(&mut acc, Instant::now());
        let effects = acc.effects();
        drop(acc);
        self.apply(effects);
        result
    }

    /// Runs deadlines, backoffs and lingers while batches are open, and follows the metadata.
    async fn keep_time(self: Rc<Self>) {
        let tick = self.acc.borrow().tick();
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut metadata = self.cluster.subscribe();
        loop {
            let idle = self.acc.borrow().is_idle();
            tokio::select! {
                biased;
                _ = ticks.tick(), if !idle => self.with(Accumulator::handle_tick),
                () = self.woken.notified(), if idle => {}
                changed = metadata.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.untold.borrow_mut().mark_unchanged();
                    self.with(|acc, now| acc.handle_metadata(&self.cluster.metadata(), now));
                }
            }
        }
    }

    /// Gets a producer id before the first batch, and another one when a partition's epochs run out.
    async fn keep_identity(self: Rc<Self>) {
        let (first, last) = IDENTITY_BACKOFF;
        let mut backoff = first;
        loop {
            if !self.acc.borrow().needs_identity() {
                self.identity.notified().await;
                continue;
            }
            match self.cluster.init_producer_id().await {
                Ok(identity) => {
                    tracing::debug!(producer_id = identity.id, epoch = identity.epoch, "got a producer id");
                    self.with(|acc, now| acc.handle_identity(identity, now));
                    backoff = first;
                }
                Err(error) => {
                    tracing::warn!(%error, "no producer id yet; batches wait");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(last);
                }
            }
        }
    }

    /// Keeps the topics of open uploads in the client's metadata.
    async fn keep_topics(self: Rc<Self>) {
        loop {
            tokio::time::sleep(TOUCH_INTERVAL).await;
            for name in self.acc.borrow_mut().topics_in_use() {
                self.cluster.touch_topic(&name);
            }
        }
    }
}

impl Pipeline {
    /// Starts a worker's pipeline: its tasks run on the current `LocalSet`.
    ///
    /// # Panics
    /// Outside of a `LocalSet`.
    #[must_use]
    pub fn new(config: Config, cluster: Cluster, budget: MemoryBudget, observer: Arc<dyn Observer>) -> Self {
        let lease = Rc::new(Lease::new(budget));
        let seed = fastrand::u64(..);
        let acc = Accumulator::new(config.clone(), lease.clone(), observer.clone(), seed);
        let shell = Rc::new_cyclic(|itself| Shell {
            acc: RefCell::new(acc),
            untold: RefCell::new(cluster.subscribe()),
            cluster,
            config,
            observer,
            lease,
            senders: RefCell::default(),
            tasks: RefCell::new(JoinSet::new()),
            woken: Notify::new(),
            identity: Notify::new(),
            idle: Notify::new(),
            itself: itself.clone(),
        });
        {
            let mut tasks = shell.tasks.borrow_mut();
            tasks.spawn_local(shell.clone().keep_time());
            tasks.spawn_local(shell.clone().keep_identity());
            tasks.spawn_local(shell.clone().keep_topics());
        }
        Self(Rc::new(Owner { shell }))
    }

    /// A topic by name that this worker has used before, as long as the newest metadata has it: the way of most requests,
    /// one look into one map. `None` says nothing about the topic: [`Pipeline::topic`] finds out.
    #[must_use]
    pub fn known_topic(&self, name: &str) -> Option<Topic> {
        let shell = &self.0.shell;
        if shell.untold.borrow().has_changed().unwrap_or(true) {
            return None;
        }
        let (slot, name, handle) = shell.acc.borrow_mut().known_topic(name)?;
        Some(Topic { owner: self.0.clone(), name, slot, _handle: handle })
    }

    /// A topic by name, from the cached metadata or by one question to the cluster.
    ///
    /// # Errors
    /// As [`Cluster::topic`], which also bounds the time; a caller with a deadline of its own puts it around this.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn topic(&self, name: &str) -> Result<Topic, TopicError> {
        let shell = &self.0.shell;
        let told = shell.cluster.topic(name).await?;
        // The answer may be older than the newest snapshot, which the accumulator has seen already.
        let snapshot = shell.cluster.metadata();
        let info = snapshot.topics.get(name).unwrap_or(&told);
        let (slot, handle) = shell.with(|acc, now| acc.topic(info, now));
        Ok(Topic { owner: self.0.clone(), name: info.name.clone(), slot, _handle: handle })
    }

    /// Begins a request. `timeout` shortens the configuration's delivery timeout for its records; `first_line` is what
    /// its first line is called.
    #[must_use]
    pub fn delivery(&self, timeout: Option<Duration>, first_line: u64) -> Delivery {
        let Shell { lease, config, .. } = &*self.0.shell;
        let timeout = timeout.map_or(config.delivery_timeout, |timeout| timeout.min(config.delivery_timeout));
        Delivery::new(lease.clone(), timeout, config.delivery_quota, first_line)
    }

    /// Sends what is open without waiting for its linger, from now on, and waits until every record is settled.
    ///
    /// # Cancel safety
    /// Safe; lingers stay off.
    pub async fn flush(&self) {
        let shell = &self.0.shell;
        shell.with(Accumulator::handle_flush);
        loop {
            let idle = shell.idle.notified();
            if shell.acc.borrow().is_idle() {
                return;
            }
            idle.await;
        }
    }

    /// Settles every open record at once: `unknown` if it may be on the wire, else `not_written`. The last act of a
    /// drain that has run out of time.
    pub fn abandon(&self) {
        self.0.shell.with(Accumulator::handle_abandon);
    }

    /// Records that are appended and not settled.
    #[must_use]
    pub fn unresolved_records(&self) -> u64 {
        self.0.shell.acc.borrow().open_records()
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("config", &self.0.shell.config).finish_non_exhaustive()
    }
}

/// A topic as one worker sees it, for as long as an upload runs. When the topic is deleted, or created again under
/// another id, this handle stays with the old one: its records are refused from then on, and none lands in the new one.
#[derive(Clone)]
pub struct Topic {
    owner: Rc<Owner>,
    name: Arc<str>,
    slot: usize,
    /// Keeps the slot.
    _handle: Rc<()>,
}

impl Topic {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How many partitions it has, as far as the newest metadata tells.
    #[must_use]
    pub fn partition_count(&self) -> i32 {
        self.owner.shell.acc.borrow().partition_count(self.slot) as i32
    }

    /// True if a record for `target` could only wait at present: its partition (for [`Target::Any`], every partition) has
    /// no leader, backs off after a failure, or has a leader that has not answered for a second.
    #[must_use]
    pub fn is_stalled(&self, target: Target<'_>) -> bool {
        let acc = self.owner.shell.acc.borrow();
        let partition = match target {
            Target::Any => None,
            Target::Key(key) => Some(partition_for_key(key, acc.partition_count(self.slot) as u32) as usize),
            Target::Partition(partition, _) => Some(partition as usize),
        };
        acc.is_stalled(self.slot, partition, Instant::now())
    }

    /// Appends the lines of one chunk. `timestamp_ms` (since the epoch) is every record's CreateTime: one clock read a
    /// chunk, the caller's.
    ///
    /// # Panics
    /// If another appender of the same pipeline exists.
    #[must_use]
    pub fn appender<'a>(&'a self, delivery: &'a Delivery, timestamp_ms: i64, headers: &'a HeaderBlock) -> Appender<'a> {
        Appender::new(&self.owner.shell, self.slot, delivery, timestamp_ms, headers)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("name", &self.name).finish_non_exhaustive()
    }
}

//! Reading as one of a group, or alone: positions, fetches, commits.
//!
//! ```text
//!                      ┌────────── task: membership, heartbeats, rebalances, commits ─────────┐
//!   subscribe, close ─▶│                                                                      │─▶ coordinator
//!                      └───────── partitions come and go ─────────┐                           │
//!                                                                 ▼                           │
//!   poll ──▶ [ partition: position, what was fetched ] ◀── one fetch a broker ──▶ brokers     │
//!     └────────────── records, with what they hold ─────▶ the caller ──── delivered ──────────┘
//! ```
//!
//! * [`protocol`]: what members tell each other
//! * [`assignor`]: who reads what, as pure functions
//! * [`membership`]: one member, as a state machine without I/O
//! * [`cursor`]: what a fetch brought, record by record
//! * [`partitions`]: positions, and what is fetched next
//! * [`task`]: the task that keeps a member in its group
//!
//! **Membership does not depend on polls.** The task sends heartbeats and takes part in rebalances by itself, so a reader
//! that takes a record an hour stays a member. Whoever wants a limit on that closes the consumer.
//!
//! **Memory.** A consumer asks each broker for more only when nothing of that broker's is left, and its [`Account`] says how
//! much; what came is charged until the last record of it is dropped. So it holds what it has handed out and one
//! answer a broker, however slowly it is read.
//!
//! **Connections.** A consumer has none of its own. Fetches go over the connections that all readers share (see
//! `cluster/fetch.rs`), heartbeats and commits over the coordinator's control connection; only while it joins does it have one to
//! itself, because the coordinator holds a JoinGroup until all members have sent theirs.
//!
//! **At least once.** A partition is read on from the group's committed offset; by a consumer that had it before, from where
//! it was, unless the group has gone on meanwhile. So a reader sees a partition go back only when somebody seeks.

mod assignor;
mod cursor;
mod membership;
mod partitions;
mod protocol;
mod task;

pub use assignor::Assignor;
pub use cursor::{Cursor, Room};

use crate::{Cluster, Error, ErrorCode, GroupOffset, Isolation, ListedOffset, OffsetSpec, cluster::lock};
use kafka_records::ReadRecord;
use partitions::{Arrived, Partitions};
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout_at};

/// A partition by its topic's name.
pub type TopicPartition = (Arc<str>, i32);

/// How a consumer reads. The defaults are those of Java's consumer where it has the setting.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    /// The group; `None`: offsets are nobody's, and only [`Consumer::assign`] works.
    pub group: Option<Arc<str>>,
    /// The id of a static member (KIP-345): it does not leave when it is closed, and who comes back under the same id
    /// within the session timeout has its partitions again. Default: none.
    pub instance: Option<Arc<str>>,
    /// How partitions may be shared out, in the order of preference. With [`Assignor::CooperativeSticky`] alone the member
    /// keeps what it has during a rebalance (KIP-429). Default: range, then cooperative-sticky, as Java's, so that
    /// members of either kind can be in the group.
    pub assignors: Vec<Assignor>,
    /// Without a heartbeat for so long a member is out. Default 45 s.
    pub session_timeout: Duration,
    /// Between two heartbeats. Default 3 s.
    pub heartbeat_interval: Duration,
    /// How long the coordinator waits for members to join again. Members here join at once, whatever their readers do.
    /// Default 60 s.
    pub rebalance_timeout: Duration,
    /// Where to begin without a committed offset, and where one is out of the log's range. Default: latest.
    pub reset: OffsetReset,
    /// What is seen of transactions. Default: everything.
    pub isolation: Isolation,
    /// Commit what was delivered at most this often, and before partitions are given up. What was *delivered* is what polls before
    /// the latest one have handed out. `None`: only [`Consumer::commit`] commits. Default: `None`.
    pub auto_commit: Option<Duration>,
    /// Offsets that are known to have been read: where the group's committed offset is lower, or there is none, the first
    /// assignment of the partition begins here. Default: none.
    pub at_least: HashMap<TopicPartition, i64>,
    /// What a broker is asked for at a time, in bytes. Default 1 MiB.
    pub fetch_bytes: usize,
    /// What one compressed batch may inflate to, in bytes. Default 64 MiB.
    pub max_inflated: usize,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            group: None,
            instance: None,
            assignors: vec![Assignor::Range, Assignor::CooperativeSticky],
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(60),
            reset: OffsetReset::Latest,
            isolation: Isolation::ReadUncommitted,
            auto_commit: None,
            at_least: HashMap::new(),
            fetch_bytes: 1 << 20,
            max_inflated: 64 << 20,
        }
    }
}

/// Where to begin when no offset says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetReset {
    /// At the first record.
    Earliest,
    /// At the next record to come.
    Latest,
    /// Nowhere: [`Consumer::poll`] says so until somebody seeks.
    None,
}

/// Who answers for the memory that a consumer holds.
pub trait Account: fmt::Debug + Send + Sync + 'static {
    /// How many of `wanted` bytes may be fetched now; `None`: none, the consumer asks again in a moment.
    fn share(&self, wanted: usize) -> Option<usize>;
    /// Counts `bytes` for as long as the value lives.
    fn charge(&self, bytes: usize) -> Held;
}

/// Something that is counted while it lives.
pub type Held = Arc<dyn Any + Send + Sync>;

/// No account: as much as the configuration says.
#[derive(Debug, Clone, Copy)]
pub struct Unaccounted;

impl Account for Unaccounted {
    fn share(&self, wanted: usize) -> Option<usize> {
        Some(wanted)
    }

    fn charge(&self, _bytes: usize) -> Held {
        Arc::new(())
    }
}

/// What a consumer of a group wants to read.
#[derive(Clone)]
pub enum Wants {
    /// These topics, whether they are there yet or not.
    Topics(Vec<Arc<str>>),
    /// All topics whose names this is true for, those to come included: looked for every 30 s.
    Matching(Arc<dyn Fn(&str) -> bool + Send + Sync>),
}

impl fmt::Debug for Wants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topics(topics) => f.debug_tuple("Topics").field(topics).finish(),
            Self::Matching(_) => f.write_str("Matching"),
        }
    }
}

/// Records of one partition, in their order, without gaps but for what compaction, transactions and retention took.
pub struct PartitionRecords {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The records; never empty.
    pub records: Vec<ReadRecord>,
    /// Where reading goes on, and what to commit when these are done with.
    pub next_offset: i64,
    /// The partition's end when these were fetched.
    pub high_watermark: i64,
    /// What the records hold: their bytes are counted until this is dropped.
    pub held: Vec<Held>,
}

impl fmt::Debug for PartitionRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}: {} records before {}", self.topic, self.partition, self.records.len(), self.next_offset)
    }
}

/// Why a consumer has nothing to give.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// Kafka refuses, or could not be asked in time.
    #[error(transparent)]
    Client(#[from] Error),
    /// The group does not take this member any more: FENCED_INSTANCE_ID, INCONSISTENT_GROUP_PROTOCOL and so on. For good.
    #[error("out of the group: {0}")]
    Fatal(Error),
    /// The partition is not this consumer's.
    #[error("partition {1} of {0} is not assigned to this consumer")]
    NotAssigned(Arc<str>, i32),
    /// The group has no offset there and [`OffsetReset::None`] says not to take another.
    #[error("partition {1} of {0} has no committed offset")]
    NoOffset(Arc<str>, i32),
    /// The log has no such offset and [`OffsetReset::None`] says not to take another.
    #[error("offset {2} of partition {1} of {0} is out of range")]
    OutOfRange(Arc<str>, i32, i64),
    /// A batch in the log cannot be read. Reading goes on only if somebody seeks behind it.
    #[error("the batch at offset {2} of partition {1} of {0} cannot be read: {3}")]
    Broken(Arc<str>, i32, i64, Arc<kafka_records::DecodeError>),
    /// Subscribed and assigned at once, or without a group.
    #[error("{0}")]
    IllegalState(&'static str),
    /// It was closed.
    #[error("the consumer is closed")]
    Closed,
}

/// Reads records, as a member of a group or from partitions that it is given.
///
/// Usable from any task; polls take turns. Dropping it leaves the group, in the background; [`Consumer::close`] waits for
/// that.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<Arrived>>,
}

/// What handle and tasks share.
struct Shared {
    cluster: Cluster,
    config: ConsumerConfig,
    account: Arc<dyn Account>,
    state: Mutex<Partitions>,
    /// Partitions came, went or got positions.
    changed: Notify,
    /// The task has something to do.
    wake: Notify,
    /// There may be something to commit.
    delivered: Notify,
    closing: watch::Sender<bool>,
    ended: watch::Sender<bool>,
    arrived: mpsc::UnboundedSender<Arrived>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.closing.send_replace(true);
    }
}

impl Consumer {
    /// A consumer that reads nothing yet. Its tasks run on the client's runtime, whoever calls this.
    #[must_use]
    pub fn new(cluster: &Cluster, config: ConsumerConfig, account: Arc<dyn Account>) -> Self {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            cluster: cluster.clone(),
            state: Mutex::new(Partitions::default()),
            config,
            account,
            changed: Notify::new(),
            wake: Notify::new(),
            delivered: Notify::new(),
            closing: watch::Sender::new(false),
            ended: watch::Sender::new(false),
            arrived,
        });
        cluster.spawn(task::run(shared.clone()));
        Self { shared, arrivals: tokio::sync::Mutex::new(arrivals) }
    }

    /// Joins the group and reads what it is assigned of these, instead of what it wanted before. Returns at once.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::IllegalState`] without a group, or after [`Consumer::assign`].
    pub fn subscribe(&self, wants: Wants) -> Result<(), ConsumerError> {
        if self.shared.config.group.is_none() {
            return Err(ConsumerError::IllegalState("to subscribe takes a group"));
        }
        self.state().subscribe(wants)?;
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Leaves the group, or gives up what was assigned.
    pub fn unsubscribe(&self) {
        self.state().unsubscribe();
        self.shared.wake.notify_one();
        self.shared.changed.notify_waiters();
    }

    /// Reads these partitions, and no others, without being a member: from the group's committed offsets where there is a
    /// group. Those that it has already go on where they are.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::IllegalState`] after [`Consumer::subscribe`].
    pub fn assign(&self, partitions: &[TopicPartition]) -> Result<(), ConsumerError> {
        let added = self.state().assign(partitions)?;
        self.shared.changed.notify_waiters();
        self.shared.find_positions(added);
        Ok(())
    }

    /// The topics it is subscribed to by name, or that matched.
    #[must_use]
    pub fn subscription(&self) -> Vec<Arc<str>> {
        self.state().subscription()
    }

    /// What it reads now.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.state().assignment()
    }

    /// Whether it is a member of a generation and has its assignment, which may be empty.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.state().is_joined()
    }

    /// Records that have come, waiting for up to `timeout` for the first. At most as many as `room` has place for; one
    /// record comes whatever its size. Empty: nothing came.
    ///
    /// Calling it says that what earlier polls handed out was *delivered*: see [`ConsumerConfig::auto_commit`].
    ///
    /// # Errors
    ///
    /// What stands in the way of a partition, once each time that it is met; the next poll goes on with the others.
    /// [`ConsumerError::Fatal`] every time.
    ///
    /// # Cancel safety
    ///
    /// Safe: records are taken when they are returned.
    pub async fn poll(&self, room: Room, timeout: Duration) -> Result<Vec<PartitionRecords>, ConsumerError> {
        let mut arrivals = self.arrivals.lock().await;
        let deadline = Instant::now() + timeout;
        if self.state().mark_delivered() && self.shared.config.auto_commit.is_some() {
            self.shared.delivered.notify_one();
        }
        loop {
            let changed = self.shared.changed.notified();
            while let Ok(arrived) = arrivals.try_recv() {
                self.shared.handle_arrived(arrived);
            }
            if *self.shared.closing.borrow() {
                return Err(ConsumerError::Closed);
            }
            let taken = self.state().take(room, &*self.shared.account);
            // The next fetch is under way while the caller is busy with these.
            let next = self.shared.fetch();
            match taken {
                Ok(records) if records.is_empty() => {}
                done => return done,
            }
            if Instant::now() >= deadline {
                return Ok(Vec::new());
            }
            let wake_at = next.map_or(deadline, |next| next.min(deadline));
            tokio::select! {
                biased;
                Some(arrived) = arrivals.recv() => self.shared.handle_arrived(arrived),
                () = changed => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// Says that everything that polls have handed out was delivered, before the next poll says so: for a reader that goes
    /// away having read it all.
    pub fn mark_delivered(&self) {
        self.state().mark_delivered();
    }

    /// Commits offsets: the next ones to read. Waits for a rebalance that is under way to end.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NotAssigned`] for a partition that is not, or no longer, this consumer's: another one's offset
    /// must not be moved. Kafka's refusals.
    ///
    /// # Cancel safety
    ///
    /// The commit may go on.
    pub async fn commit(&self, offsets: &[GroupOffset]) -> Result<(), ConsumerError> {
        let limit = Instant::now() + self.shared.cluster.request_timeout();
        loop {
            let changed = self.shared.changed.notified();
            let membership = self.state().may_commit(offsets)?;
            let group = self.shared.config.group.as_ref();
            let group = group.ok_or(ConsumerError::IllegalState("to commit takes a group"))?;
            if let Some(membership) = membership {
                match self.shared.cluster.commit_group_offsets(group, membership, offsets).await {
                    Ok(()) => {
                        self.state().handle_committed(offsets);
                        return Ok(());
                    }
                    Err(error) => match error.code() {
                        Some(
                            ErrorCode::REBALANCE_IN_PROGRESS
                            | ErrorCode::ILLEGAL_GENERATION
                            | ErrorCode::UNKNOWN_MEMBER_ID,
                        ) if Instant::now() < limit => self.shared.wake.notify_one(),
                        _ => return Err(error.into()),
                    },
                }
            }
            let pause = limit.min(Instant::now() + Duration::from_millis(100));
            let _ = timeout_at(pause, changed).await;
            if Instant::now() >= limit {
                let timed_out = Error::TimedOut { maybe_sent: false, after: self.shared.cluster.request_timeout() };
                return Err(timed_out.into());
            }
        }
    }

    /// Commits everything that polls have handed out.
    ///
    /// # Errors
    ///
    /// As [`Consumer::commit`].
    pub async fn commit_all(&self) -> Result<(), ConsumerError> {
        let offsets = self.state().handed_out();
        if offsets.is_empty() { Ok(()) } else { self.commit(&offsets).await }
    }

    /// The group's committed offsets of these partitions, whoever reads them; those without one are left out.
    ///
    /// # Errors
    ///
    /// As [`Cluster::group_offsets`].
    pub async fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<GroupOffset>, ConsumerError> {
        let group = self.shared.config.group.as_ref();
        let group = group.ok_or(ConsumerError::IllegalState("committed offsets are a group's"))?;
        Ok(self.shared.cluster.group_offsets(group, Some(by_topic(partitions))).await?)
    }

    /// Reads a partition on from `offset`. What was fetched and not handed out is dropped.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NotAssigned`].
    pub fn seek(&self, partition: &TopicPartition, offset: i64) -> Result<(), ConsumerError> {
        self.state().seek(partition, offset)?;
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Reads partitions on from where `at` is in each; where no record is so late, from the end.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NotAssigned`], before anything is done; what Kafka refuses.
    pub async fn seek_to(&self, at: &[(TopicPartition, OffsetSpec)]) -> Result<(), ConsumerError> {
        for (partition, _) in at {
            self.state().check(partition)?;
        }
        let listed = self.shared.list_offsets(at).await;
        let mut late = Vec::new();
        for ((partition, _), listed) in at.iter().zip(listed) {
            match listed?.offset {
                Some(offset) => self.seek(partition, offset)?,
                None => late.push((partition.clone(), OffsetSpec::Latest)),
            }
        }
        for ((partition, _), listed) in late.iter().zip(self.shared.list_offsets(&late).await) {
            if let Some(offset) = listed?.offset {
                self.seek(partition, offset)?;
            }
        }
        Ok(())
    }

    /// The next offset that a poll hands out. Waits until it is known, for as long as the request timeout.
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NotAssigned`].
    pub async fn position(&self, partition: &TopicPartition) -> Result<i64, ConsumerError> {
        let limit = Instant::now() + self.shared.cluster.request_timeout();
        loop {
            let changed = self.shared.changed.notified();
            if let Some(position) = self.state().position(partition)? {
                return Ok(position);
            }
            if timeout_at(limit, changed).await.is_err() {
                let after = self.shared.cluster.request_timeout();
                return Err(Error::TimedOut { maybe_sent: true, after }.into());
            }
        }
    }

    /// Hands out nothing of these until [`Consumer::resume`].
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NotAssigned`].
    pub fn pause(&self, partitions: &[TopicPartition]) -> Result<(), ConsumerError> {
        partitions.iter().try_for_each(|partition| self.state().set_paused(partition, true))
    }

    /// Undoes [`Consumer::pause`].
    ///
    /// # Errors
    ///
    /// [`ConsumerError::NotAssigned`].
    pub fn resume(&self, partitions: &[TopicPartition]) -> Result<(), ConsumerError> {
        let done = partitions.iter().try_for_each(|partition| self.state().set_paused(partition, false));
        self.shared.changed.notify_waiters();
        done
    }

    /// Commits what was delivered, where that is so configured, leaves the group and waits for both, at most 10 s.
    ///
    /// # Cancel safety
    ///
    /// It is closed in the background then.
    pub async fn close(&self) {
        let mut ended = self.shared.ended.subscribe();
        self.shared.closing.send_replace(true);
        self.shared.changed.notify_waiters();
        // Its end is not worth more of anybody's time.
        let _ = tokio::time::timeout(Duration::from_secs(10), ended.wait_for(|ended| *ended)).await;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Partitions> {
        lock(&self.shared.state)
    }
}

impl Shared {
    /// Offsets by time or end, of topics as they are known now.
    async fn list_offsets(&self, at: &[(TopicPartition, OffsetSpec)]) -> Vec<Result<ListedOffset, Error>> {
        let mut topics = Vec::with_capacity(at.len());
        for ((name, _), _) in at {
            topics.push(self.cluster.known_topic("ListOffsets", name).await);
        }
        let known: Vec<_> = topics
            .iter()
            .zip(at)
            .filter_map(|(topic, ((_, partition), spec))| Some((&**topic.as_ref().ok()?, *partition, *spec)))
            .collect();
        let mut listed = self.cluster.list_offsets(&known, self.config.isolation).await.into_iter();
        let results = topics.iter().map(|topic| match topic {
            Ok(_) => listed.next().unwrap_or(Err(Error::NoBroker("it was not asked"))),
            Err(error) => Err(error.clone()),
        });
        results.collect()
    }
}

fn by_topic(partitions: &[TopicPartition]) -> Vec<(Arc<str>, Vec<i32>)> {
    let mut topics: Vec<(Arc<str>, Vec<i32>)> = Vec::new();
    for (topic, partition) in partitions {
        match topics.iter_mut().find(|(known, _)| known == topic) {
            Some((_, partitions)) => partitions.push(*partition),
            None => topics.push((topic.clone(), vec![*partition])),
        }
    }
    topics
}

#[cfg(test)]
mod tests;

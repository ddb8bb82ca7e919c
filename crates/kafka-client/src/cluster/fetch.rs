//! Fetches: many partitions of one broker in one request, and many readers' waiting in a few.
//!
//! Kafka answers one request of a connection at a time, so a fetch that waits at the log's end holds its connection. The
//! readers of a bridge are as many as its HTTP clients, and its connections must not be. So there are two ways:
//!
//! - *what is there*: a request of one reader's own, not held by the broker, on one of the slow connections;
//! - *what comes*: readers that wait at the same broker share a request. At most [`MAX_ROUNDS`] such requests are under
//!   way at a broker. Who comes while there are fewer is asked for at once; else with everybody else who came meanwhile,
//!   when the shortest of them ends ([`SHORTEST_POLL`]). Readers of the same partition share a request only if they wait
//!   for the same offset, as those do who have read all there is.
//!
//! ```text
//!   reader ─▶ queue ─┐                  ┌─ round 1: up to 5 s ──▶ broker
//!   reader ─▶ queue ─┼─ all that fit ───┼─ …
//!   reader ─▶ queue ─┘                  └─ round 4: 250 ms while all are under way
//! ```
//!
//! What comes to those who wait was not accounted for before; it is bounded by the rounds, not by the readers
//! ([`ROUND_BYTES`] each and a first batch that is larger, KIP-74).
//!
//! Sessions (KIP-227) would save naming the partitions in each request; a broker keeps a thousand of them for all of its
//! clients, and requests here are put together anew each time. They do not pay.
//!
//! *Nearest replicas* (KIP-392): with a rack, a leader may name a follower to read from. That is believed for as long as
//! metadata is, or until the follower refuses or cannot be asked. Then the leader is asked without the rack, for as long
//! as metadata is believed: it would go on naming a follower that only this client cannot reach.

use super::{Cluster, Core, TopicError, admin::no_such_part, brokers::lock, read::Fetched};
use crate::{
    Broker, Error, ErrorCode, TopicId, TopicInfo,
    messages::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchedPartition, Isolation, Request},
};
use bytes::Bytes;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// The longest a broker is asked to hold a fetch; a longer wait is made of several.
const LONGEST_POLL: Duration = Duration::from_secs(5);
/// The same while others wait for their turn.
const SHORTEST_POLL: Duration = Duration::from_millis(250);
/// Requests for what comes that are under way at a broker.
pub(super) const MAX_ROUNDS: usize = 4;
/// What such a request asks for at most.
const ROUND_BYTES: i32 = 1 << 20;
/// Partitions that such a request names at most.
const ROUND_PARTITIONS: usize = 4096;
/// Replicas that are remembered.
const MAX_NEAREST: usize = 65_536;

/// A partition to be read, and where.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) topic: Arc<TopicInfo>,
    pub(crate) partition: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) offset: i64,
    pub(crate) max_bytes: i32,
}

/// What became of one of them.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Fetched(Fetched),
    /// Another replica is nearer: ask again, at the place that is known now.
    Elsewhere,
    Failed(Error),
}

impl Part {
    fn brings_something(&self) -> bool {
        !matches!(self, Self::Fetched(fetched) if fetched.records.is_empty())
    }
}

/// Where to read a partition now.
#[derive(Debug, Clone)]
pub(crate) struct ReadPlace {
    pub(crate) topic: Arc<TopicInfo>,
    pub(crate) broker: i32,
    pub(crate) leader_epoch: i32,
}

/// Replicas to read instead of leaders, and until when. `None`: the leader, for the replica that it named has refused, cannot
/// be asked or is not known.
#[derive(Debug, Default)]
pub(super) struct Nearest(HashMap<(Arc<str>, i32), (Option<i32>, Instant)>);

impl Nearest {
    fn of(&self, topic: &Arc<str>, partition: i32) -> Option<Option<i32>> {
        let (replica, until) = self.0.get(&(topic.clone(), partition))?;
        (*until > Instant::now()).then_some(*replica)
    }

    fn remember(&mut self, topic: &Arc<str>, partition: i32, replica: Option<i32>, lease: Duration) {
        if self.0.len() >= MAX_NEAREST {
            self.0.clear();
        }
        self.0.insert((topic.clone(), partition), (replica, Instant::now() + lease));
    }
}

/// Readers that wait at one broker.
#[derive(Debug, Default)]
pub(super) struct Waits {
    queue: VecDeque<Waiting>,
    rounds: usize,
}

#[derive(Debug)]
struct Waiting {
    isolation: Isolation,
    wanted: Vec<Wanted>,
    max_bytes: i32,
    until: Instant,
    reply: oneshot::Sender<Result<Vec<Part>, Error>>,
}

impl Cluster {
    /// Where to read a partition, by the snapshot; `None`: not known, ask [`Cluster::topic`].
    pub(crate) fn read_place(&self, topic: &str, partition: i32) -> Option<ReadPlace> {
        let core = &self.0.core;
        let known = core.metadata();
        core.read_place(known.topics.get(topic)?, partition).ok()
    }

    /// What is there at one broker. `max_bytes`: asked when the request is about to leave.
    pub(crate) async fn fetch_there(
        &self,
        broker: i32,
        isolation: Isolation,
        wanted: Vec<Wanted>,
        max_bytes: impl FnMut() -> i32,
    ) -> Result<Vec<Part>, Error> {
        self.0.core.fetch_there(broker, isolation, wanted, max_bytes).await
    }

    /// What comes at one broker, until then.
    pub(crate) async fn fetch_coming(
        &self,
        broker: i32,
        isolation: Isolation,
        wanted: Vec<Wanted>,
        max_bytes: i32,
        until: Instant,
    ) -> Result<Vec<Part>, Error> {
        self.0.core.fetch_coming(broker, isolation, wanted, max_bytes, until).await
    }

    /// Runs a task on the client's own runtime.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        self.0.core.brokers.spawn(task)
    }
}

impl Core {
    /// The topic's replica to read from.
    pub(super) fn read_place(&self, topic: &Arc<TopicInfo>, partition: i32) -> Result<ReadPlace, Error> {
        let api = FetchRequest::API.name;
        let info = usize::try_from(partition)
            .ok()
            .and_then(|index| topic.partitions.get(index))
            .ok_or_else(|| Error::broker(api, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, None))?;
        let leader = info.leader.ok_or_else(|| Error::broker(api, ErrorCode::LEADER_NOT_AVAILABLE, None))?;
        let nearest = self.config().rack.as_ref().and_then(|_| {
            let replica = lock(&self.nearest).of(&topic.name, partition)??;
            info.replicas.contains(&replica).then_some(replica)
        });
        Ok(ReadPlace { topic: topic.clone(), broker: nearest.unwrap_or(leader), leader_epoch: info.leader_epoch })
    }

    pub(super) async fn fetch_there(
        self: &Arc<Self>,
        broker: i32,
        isolation: Isolation,
        mut wanted: Vec<Wanted>,
        mut max_bytes: impl FnMut() -> i32,
    ) -> Result<Vec<Part>, Error> {
        let result = async {
            let lent = self.brokers.slow(&self.broker(broker)?).await?;
            let max_bytes = max_bytes();
            for one in &mut wanted {
                one.max_bytes = one.max_bytes.min(max_bytes);
            }
            let (request, max_version) = self.request(isolation, &wanted, max_bytes, Duration::ZERO);
            // The connection is busy until the answer is there, whether or not the caller waits for it; and a broker that
            // does not answer is noticed, even if no caller has the patience.
            let core = self.clone();
            let call = async move {
                let answer = lent.connection().call(&request, max_version, Duration::ZERO).await;
                answer.inspect_err(|_| core.pass_over(broker))
            };
            self.brokers.detached(call).await
        };
        match result.await {
            Ok(answer) => self.parts(broker, answer, &wanted),
            Err(error) => {
                self.pass_over(broker);
                Err(error)
            }
        }
    }

    pub(super) async fn fetch_coming(
        self: &Arc<Self>,
        broker: i32,
        isolation: Isolation,
        wanted: Vec<Wanted>,
        max_bytes: i32,
        until: Instant,
    ) -> Result<Vec<Part>, Error> {
        let (reply, answer) = oneshot::channel();
        {
            let mut waits = lock(&self.waits);
            let of_broker = waits.entry(broker).or_default();
            of_broker.queue.push_back(Waiting { isolation, wanted, max_bytes, until, reply });
            if of_broker.rounds < MAX_ROUNDS {
                of_broker.rounds += 1;
                self.brokers.spawn(self.clone().rounds(broker));
            }
        }
        answer.await.unwrap_or(Err(Error::ShutDown))
    }

    /// One request after the other, as long as somebody waits.
    async fn rounds(self: Arc<Self>, broker: i32) {
        loop {
            let (waiting, longest) = {
                let mut waits = lock(&self.waits);
                let Some(of_broker) = waits.get_mut(&broker) else { return };
                let waiting = of_broker.together();
                if waiting.is_empty() {
                    of_broker.rounds -= 1;
                    if of_broker.rounds == 0 {
                        waits.remove(&broker);
                    }
                    return;
                }
                (waiting, if of_broker.rounds < MAX_ROUNDS { LONGEST_POLL } else { SHORTEST_POLL })
            };
            self.round(broker, waiting, longest).await;
        }
    }

    async fn round(self: &Arc<Self>, broker: i32, waiting: Vec<Waiting>, longest: Duration) {
        let now = Instant::now();
        let until = waiting.iter().map(|one| one.until).min().unwrap_or(now);
        let max_wait = until.saturating_duration_since(now).min(longest);
        let isolation = waiting[0].isolation;
        let mut seen = HashSet::new();
        let mut wanted: Vec<Wanted> = Vec::new();
        for one in waiting.iter().flat_map(|one| &one.wanted) {
            if seen.insert((one.topic.name.clone(), one.partition)) {
                wanted.push(one.clone());
            }
        }
        let max_bytes = waiting.iter().fold(0, |sum: i32, one| sum.saturating_add(one.max_bytes)).min(ROUND_BYTES);
        let result = async {
            let lent = self.brokers.waiting(&self.broker(broker)?).await?;
            let (request, max_version) = self.request(isolation, &wanted, max_bytes, max_wait);
            let answer = lent.connection().call(&request, max_version, max_wait).await?;
            self.parts(broker, answer, &wanted)
        };
        let parts = match result.await {
            Ok(parts) => parts,
            Err(error) => {
                self.pass_over(broker);
                for one in waiting {
                    // Who has gone does not mind.
                    let _ = one.reply.send(Err(error.clone()));
                }
                return;
            }
        };
        let places: HashMap<(&str, i32), &Part> =
            wanted.iter().zip(&parts).map(|(one, part)| ((&*one.topic.name, one.partition), part)).collect();
        let alone = waiting.len() == 1;
        let mut again = Vec::new();
        for one in waiting {
            let parts = one.wanted.iter().filter_map(|wanted| places.get(&(&*wanted.topic.name, wanted.partition)));
            // Who shares an answer with others must not keep theirs alive.
            let own = |part: &&Part| match part {
                Part::Fetched(fetched) if !alone && !fetched.records.is_empty() => {
                    let records = Bytes::copy_from_slice(&fetched.records);
                    Part::Fetched(Fetched { records, ..fetched.clone() })
                }
                part => (*part).clone(),
            };
            let parts: Vec<Part> = parts.map(own).collect();
            if parts.iter().any(Part::brings_something) || one.until <= Instant::now() {
                let _ = one.reply.send(Ok(parts));
            } else if !one.reply.is_closed() {
                again.push(one);
            }
        }
        if let Some(of_broker) = lock(&self.waits).get_mut(&broker) {
            of_broker.queue.extend(again);
        }
    }

    /// A request and the newest version that it may be sent in.
    fn request(
        &self,
        isolation: Isolation,
        wanted: &[Wanted],
        max_bytes: i32,
        max_wait: Duration,
    ) -> (FetchRequest, i16) {
        let mut topics: Vec<FetchTopic> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for one in wanted {
            let partition = FetchPartition {
                index: one.partition,
                leader_epoch: one.leader_epoch,
                offset: one.offset,
                max_bytes: one.max_bytes,
            };
            let place = *places.entry(&one.topic.name).or_insert_with(|| {
                topics.push(FetchTopic { name: one.topic.name.clone(), id: one.topic.id, partitions: Vec::new() });
                topics.len() - 1
            });
            topics[place].partitions.push(partition);
        }
        // Without ids topics can be named only by name.
        let by_id = topics.iter().all(|topic| !topic.id.is_zero());
        let max_version = if by_id { i16::MAX } else { FetchRequest::FIRST_BY_ID - 1 };
        // Whoever tells its rack may be sent to the replica that has just refused.
        let rack = self.config().rack.as_deref().filter(|_| {
            let nearest = lock(&self.nearest);
            !wanted.iter().any(|one| nearest.of(&one.topic.name, one.partition) == Some(None))
        });
        let rack = rack.unwrap_or_default().into();
        (FetchRequest { max_wait, max_bytes, isolation, topics, rack }, max_version)
    }

    /// The parts of an answer, in the order of `wanted`.
    fn parts(&self, broker: i32, answer: FetchResponse, wanted: &[Wanted]) -> Result<Vec<Part>, Error> {
        let api = FetchRequest::API.name;
        if let Err(code) = answer.error.ok() {
            return Err(Error::broker(api, code, None));
        }
        let mut fetched: HashMap<(TopicId, Arc<str>, i32), FetchedPartition> = HashMap::new();
        for topic in answer.topics {
            for partition in topic.partitions {
                fetched.insert((topic.id, topic.name.clone(), partition.index), partition);
            }
        }
        let nameless: Arc<str> = "".into();
        let parts = wanted.iter().map(|one| {
            let by_id = fetched.remove(&(one.topic.id, nameless.clone(), one.partition));
            let part = by_id.or_else(|| fetched.remove(&(TopicId::ZERO, one.topic.name.clone(), one.partition)));
            match part {
                Some(part) => self.part(broker, one, part, &answer.endpoints),
                None => Part::Failed(no_such_part(api)),
            }
        });
        Ok(parts.collect())
    }

    fn part(&self, broker: i32, wanted: &Wanted, part: FetchedPartition, endpoints: &[Broker]) -> Part {
        let (topic, partition) = (&wanted.topic, wanted.partition);
        if let Some((leader, epoch)) = part.current_leader
            && !part.error.is_ok()
        {
            self.apply_leader_hint((&topic.name, topic.id), partition, leader, epoch, endpoints);
        }
        let lease = self.config().metadata_max_age;
        let info = usize::try_from(partition).ok().and_then(|index| topic.partitions.get(index));
        let leader = info.and_then(|info| info.leader);
        match part.error.ok() {
            Ok(()) => {
                if let Some(replica) = part.preferred_replica.filter(|replica| *replica != broker) {
                    // One that is not known to have the partition cannot be asked, until metadata says more.
                    let known = info.is_some_and(|info| info.replicas.contains(&replica));
                    if !known {
                        self.request_refresh();
                    }
                    lock(&self.nearest).remember(&topic.name, partition, known.then_some(replica), lease);
                    return Part::Elsewhere;
                }
                Part::Fetched(Fetched {
                    high_watermark: part.high_watermark,
                    last_stable_offset: part.last_stable_offset,
                    log_start_offset: part.log_start_offset,
                    aborted: part.aborted,
                    records: part.records,
                })
            }
            // A follower may not be as far as its leader, or not be one any more: the leader knows.
            Err(_) if leader != Some(broker) => {
                lock(&self.nearest).remember(&topic.name, partition, None, lease);
                Part::Elsewhere
            }
            Err(code) => Part::Failed(Error::broker(FetchRequest::API.name, code, None)),
        }
    }

    /// A broker that could not be asked is nobody's nearest for a while.
    fn pass_over(&self, broker: i32) {
        let until = Instant::now() + self.config().metadata_max_age;
        for nearest in lock(&self.nearest).0.values_mut().filter(|(replica, _)| *replica == Some(broker)) {
            *nearest = (None, until);
        }
    }

    /// The topic as it is known now, if it still has the id that the caller knows.
    pub(super) async fn same_topic(&self, api: &'static str, topic: &TopicInfo) -> Result<Arc<TopicInfo>, Error> {
        let known = self.known_topic(api, &topic.name).await?;
        if known.id != topic.id && !topic.id.is_zero() {
            return Err(Error::broker(api, ErrorCode::UNKNOWN_TOPIC_ID, None));
        }
        Ok(known)
    }

    pub(super) async fn known_topic(&self, api: &'static str, name: &str) -> Result<Arc<TopicInfo>, Error> {
        self.topic(name).await.map_err(|error| match error {
            TopicError::Unknown => Error::broker(api, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, None),
            TopicError::Denied => Error::broker(api, ErrorCode::TOPIC_AUTHORIZATION_FAILED, None),
            TopicError::InvalidName => Error::InvalidRequest("no topic can have this name"),
            TopicError::Unavailable(error) => Error::clone(&error),
        })
    }
}

impl Waits {
    /// Takes all who can share a request, oldest first; drops who has gone.
    fn together(&mut self) -> Vec<Waiting> {
        let mut taken: Vec<Waiting> = Vec::new();
        let mut offsets: HashMap<(Arc<str>, i32), i64> = HashMap::new();
        let mut left = VecDeque::new();
        for one in self.queue.drain(..).filter(|one| !one.reply.is_closed()) {
            let fits = taken.first().is_none_or(|first| first.isolation == one.isolation)
                && (taken.is_empty() || offsets.len() + one.wanted.len() <= ROUND_PARTITIONS)
                && one.wanted.iter().all(|wanted| {
                    let known = offsets.get(&(wanted.topic.name.clone(), wanted.partition));
                    known.is_none_or(|offset| *offset == wanted.offset)
                });
            if fits {
                for wanted in &one.wanted {
                    offsets.insert((wanted.topic.name.clone(), wanted.partition), wanted.offset);
                }
                taken.push(one);
            } else {
                left.push_back(one);
            }
        }
        self.queue = left;
        taken
    }
}

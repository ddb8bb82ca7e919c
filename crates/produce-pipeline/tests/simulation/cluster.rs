//! The model cluster: what is true in it, what each broker believes, and what happens to both.
//!
//! A partition's log is one for all its replicas: what is appended is committed, so nothing that a leader acknowledged is ever
//! lost, and every fault that is left is the client's to get right. Brokers answer Produce requests by the truth and Metadata
//! requests by a past that each of them lags behind by its own.

use crate::broker::Step;
use crate::log::{Incoming, Log, Rules};
use crate::scenario::Scenario;
use bytes::Bytes;
use fastrand::Rng;
use kafka_client::ErrorCode;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

/// Brokers' default `message.max.bytes`.
const MAX_MESSAGE_BYTES: usize = 1_048_588;

/// The cluster, shared by its connections and by the test.
#[derive(Debug, Clone)]
pub(crate) struct Cluster(Arc<Mutex<State>>);

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) rng: Rng,
    pub(crate) scenario: Scenario,
    pub(crate) brokers: Vec<Broker>,
    /// Every topic that ever was, in the order of creation.
    pub(crate) topics: Vec<Topic>,
    /// Those that are there now, by name.
    current: BTreeMap<String, usize>,
    /// What brokers told clients of, and from when on.
    history: VecDeque<(Instant, Arc<Image>)>,
    next_producer_id: i64,
    /// No faults any more.
    pub(crate) healed: bool,
    /// Nothing happens for a while.
    pub(crate) quiet: bool,
    /// A hash of all that happened, to compare two runs of one seed.
    digest: u64,
    /// Print it, too.
    traced: bool,
    pub(crate) requests: u64,
    /// Batches that were acknowledged as duplicates of something the broker no longer knows: (topic, partition, base offset).
    pub(crate) offset_not_told: Vec<(usize, usize, i64)>,
    started: Instant,
    /// What goes wrong is written down instead of drawn.
    pub(crate) scripted: bool,
    pub(crate) script: VecDeque<Step>,
    /// Every batch that came, by partition, if scripted.
    pub(crate) arrivals: Vec<(i32, Bytes)>,
}

#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) up: bool,
    /// Stopped: connections stay, nothing is read from them, and no new one comes about.
    pub(crate) frozen: bool,
    lag: Duration,
    pub(crate) connections: Vec<AbortHandle>,
}

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: u128,
    pub(crate) deleted: bool,
    pub(crate) max_message_bytes: usize,
    pub(crate) partitions: Vec<Partition>,
}

#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub(crate) leader: Option<usize>,
    pub(crate) epoch: i32,
    /// Fewer replicas in sync than `min.insync.replicas`.
    pub(crate) starved: bool,
    pub(crate) log: Log,
}

/// The cluster's metadata at one time.
#[derive(Debug, Default, Clone)]
pub(crate) struct Image {
    pub(crate) brokers: Vec<usize>,
    /// By name: the id, and the partitions.
    pub(crate) topics: BTreeMap<String, (u128, Vec<Leadership>)>,
}

/// A partition's leader and leader epoch.
pub(crate) type Leadership = (Option<usize>, i32);

impl Cluster {
    pub(crate) fn new(scenario: Scenario, rng: Rng) -> Self {
        let up = || Broker { up: true, frozen: false, lag: Duration::ZERO, connections: Vec::new() };
        let mut state = State {
            rng,
            brokers: (0..scenario.brokers).map(|_| up()).collect(),
            topics: Vec::new(),
            current: BTreeMap::new(),
            history: VecDeque::new(),
            next_producer_id: 4_000,
            healed: false,
            quiet: false,
            digest: 0,
            traced: std::env::var_os("SIM_TRACE").is_some(),
            requests: 0,
            offset_not_told: Vec::new(),
            started: Instant::now(),
            scripted: false,
            script: VecDeque::new(),
            arrivals: Vec::new(),
            scenario,
        };
        for name in state.scenario.topics.clone() {
            state.create_topic(&name);
        }
        Self(Arc::new(Mutex::new(state)))
    }

    /// Never held across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }

    /// Ends all faults, and leaves nothing without a leader.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.healed = true;
        for broker in 0..state.brokers.len() {
            let broker = &mut state.brokers[broker];
            (broker.up, broker.frozen, broker.lag) = (true, false, Duration::ZERO);
        }
        for name in state.scenario.topics.clone() {
            if !state.current.contains_key(&name) {
                state.create_topic(&name);
            }
        }
        for topic in &mut state.topics {
            topic.max_message_bytes = MAX_MESSAGE_BYTES;
            topic.partitions.iter_mut().for_each(|partition| partition.starved = false);
        }
        state.elect();
        state.publish();
    }

    /// Lets things happen until the cluster is healed.
    pub(crate) async fn misfortune(self) {
        loop {
            let pause = {
                let mut state = self.state();
                let (least, most) = state.scenario.event_pause;
                if state.quiet { Duration::from_secs(20) } else { state.between(least, most) }
            };
            sleep(pause).await;
            let (healed, quiet) = {
                let state = self.state();
                (state.healed, state.quiet)
            };
            if healed {
                return;
            }
            if !quiet {
                self.event();
            }
        }
    }

    fn later(&self, after: Duration, then: impl FnOnce(&mut State) + Send + 'static) {
        let cluster = self.clone();
        // Ends by itself, or with the runtime at the end of the run.
        tokio::spawn(async move {
            sleep(after).await;
            let mut state = cluster.state();
            if !state.healed {
                then(&mut state);
                state.publish();
            }
        });
    }

    fn event(&self) {
        let mut state = self.state();
        let for_a_while = state.between(Duration::from_millis(20), Duration::from_millis(4_000));
        let shortly = state.between(Duration::ZERO, Duration::from_millis(700));
        let broker = state.any_broker();
        let Some((topic, partition)) = state.any_partition() else { return };
        let leaderless = state.rng.u32(..3) == 0;
        let event = state.rng.u32(..100);
        state.note(&("event", event, broker, topic, partition));
        match event {
            0..25 => {
                let to = state.brokers.iter().position(|broker| broker.up).map(|first| {
                    // The drawn one, or the first that is up.
                    if state.brokers[broker].up { broker } else { first }
                });
                let partition = &mut state.topics[topic].partitions[partition];
                partition.epoch += 1;
                partition.leader = to;
                if leaderless {
                    // For a while there is none.
                    partition.leader = None;
                    self.later(shortly, State::elect);
                }
            }
            25..37 => {
                state.crash(broker);
                self.later(shortly, State::elect);
                self.later(for_a_while, move |state| {
                    state.brokers[broker].up = true;
                    state.elect();
                });
            }
            37..47 => {
                state.brokers[broker].frozen = true;
                self.later(for_a_while, move |state| state.brokers[broker].frozen = false);
            }
            47..57 => state.brokers[broker].lag = for_a_while,
            57..60 => state.brokers.iter_mut().for_each(|broker| broker.lag = shortly),
            60..70 => {
                state.topics[topic].partitions[partition].starved = true;
                self.later(for_a_while, move |state| state.topics[topic].partitions[partition].starved = false);
            }
            70..78 => {
                state.topics[topic].max_message_bytes = 90 + shortly.as_millis() as usize;
                self.later(for_a_while, move |state| state.topics[topic].max_message_bytes = MAX_MESSAGE_BYTES);
            }
            78..84 if state.scenario.recreates => {
                let name = state.delete_topic(topic);
                self.later(shortly, move |state| {
                    if !state.current.contains_key(&name) {
                        state.create_topic(&name);
                    }
                });
            }
            84..88 if state.topics[topic].partitions.len() < 12 => {
                state.topics[topic].partitions.push(Partition::default());
                self.later(shortly, State::elect);
            }
            88..92 => {
                // No copy of a batch is under way any more that its producer has given up on.
                let silent = state.scenario.pipeline.delivery_timeout * 3 + Duration::from_secs(30);
                if let Some(since) = Instant::now().checked_sub(silent) {
                    state.expire_producers(since);
                }
            }
            92.. => state.topics[topic].partitions[partition].log.skip_offset(),
            _ => {}
        }
        state.publish();
    }
}

impl State {
    pub(crate) fn rules(&self) -> Rules {
        self.scenario.rules
    }

    /// Goes into the digest.
    pub(crate) fn note(&mut self, what: &(impl Hash + std::fmt::Debug)) {
        let mut hasher = DefaultHasher::new();
        (self.digest, self.started.elapsed(), what).hash(&mut hasher);
        self.digest = hasher.finish();
        if self.traced {
            println!("{:?} {what:?}", self.started.elapsed());
        }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let (least, most) = (least.as_micros() as u64, most.as_micros() as u64);
        Duration::from_micros(self.rng.u64(least..=most))
    }

    /// True with this probability, until the cluster is healed.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        let drawn = self.rng.f64();
        !self.healed && drawn < probability
    }

    fn any_broker(&mut self) -> usize {
        let brokers = self.brokers.len();
        self.rng.usize(..brokers)
    }

    fn any_partition(&mut self) -> Option<(usize, usize)> {
        if self.current.is_empty() {
            return None;
        }
        let nth = self.rng.usize(..self.current.len());
        let topic = *self.current.values().nth(nth).expect("it is below their number");
        let partitions = self.topics[topic].partitions.len();
        Some((topic, self.rng.usize(..partitions)))
    }

    pub(crate) fn create_topic(&mut self, name: &str) {
        let partitions = self.rng.usize(1..=self.scenario.max_partitions);
        let id = if self.scenario.versions.has_topic_ids() { self.rng.u128(1..) } else { 0 };
        self.topics.push(Topic {
            name: name.to_owned(),
            id,
            deleted: false,
            max_message_bytes: MAX_MESSAGE_BYTES,
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
        });
        self.current.insert(name.to_owned(), self.topics.len() - 1);
        self.elect();
        self.publish();
    }

    pub(crate) fn delete_topic(&mut self, topic: usize) -> String {
        self.topics[topic].deleted = true;
        let name = self.topics[topic].name.clone();
        self.current.remove(&name);
        name
    }

    pub(crate) fn crash(&mut self, broker: usize) {
        self.brokers[broker].up = false;
        for connection in self.brokers[broker].connections.drain(..) {
            connection.abort();
        }
        for partition in self.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.leader = partition.leader.filter(|leader| *leader != broker);
        }
    }

    /// Gives a leader to every partition that has none, if a broker is up.
    pub(crate) fn elect(&mut self) {
        let up: Vec<_> = (0..self.brokers.len()).filter(|broker| self.brokers[*broker].up).collect();
        for topic in self.topics.iter_mut().filter(|topic| !topic.deleted) {
            for partition in topic.partitions.iter_mut().filter(|partition| partition.leader.is_none()) {
                partition.leader = self.rng.choice(&up).copied();
                partition.epoch += i32::from(!up.is_empty());
            }
        }
    }

    /// Brokers begin to learn of what is true now.
    pub(crate) fn publish(&mut self) {
        let leaders = |topic: &Topic| topic.partitions.iter().map(|p| (p.leader, p.epoch)).collect();
        let image = Image {
            brokers: (0..self.brokers.len()).filter(|broker| self.brokers[*broker].up).collect(),
            topics: self
                .current
                .iter()
                .map(|(name, topic)| (name.clone(), (self.topics[*topic].id, leaders(&self.topics[*topic]))))
                .collect(),
        };
        self.history.push_back((Instant::now(), Arc::new(image)));
        if self.history.len() > 100 {
            self.history.pop_front();
        }
    }

    /// What `broker` believes.
    pub(crate) fn image(&self, broker: usize) -> Arc<Image> {
        let lag = self.brokers[broker].lag;
        let known = self.history.iter().rev().find(|(at, _)| at.elapsed() >= lag);
        known.or(self.history.front()).expect("published when it was made").1.clone()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<usize> {
        self.current.get(name).copied()
    }

    pub(crate) fn by_id(&self, id: u128) -> Option<usize> {
        self.topics.iter().position(|topic| topic.id == id && !topic.deleted)
    }

    pub(crate) fn new_producer_id(&mut self) -> i64 {
        self.next_producer_id += 1;
        self.next_producer_id
    }

    pub(crate) fn expire_producers(&mut self, since: Instant) {
        for partition in self.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.log.expire_producers(since);
        }
    }

    pub(crate) fn append(&mut self, topic: usize, partition: usize, batch: &Incoming) -> Result<i64, ErrorCode> {
        let rules = self.rules();
        let result = self.topics[topic].partitions[partition].log.append(batch, rules, Instant::now());
        self.note(&(
            "append",
            topic,
            partition,
            batch.producer_id,
            batch.epoch,
            batch.sequence,
            result.map_err(|e| e.0),
        ));
        result
    }
}

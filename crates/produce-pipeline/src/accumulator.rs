//! Every partition's batches, from the first record to the broker's last word. No I/O and no clock: inputs are
//! `handle_*` and take `now`, outputs are [`Accumulator::drain`] and [`Accumulator::effects`].
//!
//! One partition, in time:
//!
//! ```text
//!  append ──▶ Open ──full──▶ Queued ─┐
//!              │                     ├─ drain: stamp ──▶ Head, on the wire ──▶ written
//!              └── idle or linger ───┘                      │       ▲
//!                                                  lost or  │       │ same bytes, after a backoff
//!                                                 retriable ▼       │ or when the leader moved
//!                                                     Head, waiting ┘
//! ```
//!
//! Only one batch of a partition is ever stamped, so batches of a partition cannot overtake each other and there is
//! never a sequence number behind one whose fate is open. When the head ends other than by being written:
//!
//! | the head | its records | its sequence numbers |
//! |---|---|---|
//! | was refused, or never reached a broker | `not_written` | given back |
//! | may be in the log | `unknown` | epoch raised: a late arrival is fenced, the next batch starts at 0 |
//! | was on the wire at its deadline | `unknown` at once | decided when the wire gives it back |

mod partition;
mod settle;

use crate::batch::{BufferPool, Open};
use crate::budget::Lease;
use crate::delivery::Range;
use crate::outcome::Cause;
use crate::partitioner::{Load, Sticky};
use crate::sequence::Sequence;
use crate::{Config, Observer};
use kafka_client::{Metadata, ProducePartition, ProduceTopic, ProducerIdentity, TopicId, TopicInfo};
use kafka_records::{Record, Stamp};
use partition::{Gate, Partition, Topic, mark_ready};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Batch bytes that one request takes at the most, if it has more than one batch.
const MAX_REQUEST_BYTES: usize = 8 << 20;

/// A partition of a topic that the accumulator knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PartitionId {
    pub(crate) topic: usize,
    pub(crate) index: usize,
}

/// A batch that [`Accumulator::drain`] gave out, to be named again with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchRef {
    pub(crate) partition: PartitionId,
    id: u64,
}

/// What one Produce request carries.
#[derive(Debug)]
pub(crate) struct Drained {
    pub(crate) topics: Vec<ProduceTopic>,
    /// By position in `topics` and partition: how an answer will name them.
    pub(crate) batches: BTreeMap<(usize, i32), BatchRef>,
    pub(crate) bytes: usize,
}

impl Drained {
    /// The position of a topic in the request.
    fn topic(&mut self, name: &Arc<str>, id: TopicId) -> usize {
        self.topics.iter().position(|topic| topic.id == id && topic.name == *name).unwrap_or_else(|| {
            self.topics.push(ProduceTopic { name: name.clone(), id, partitions: Vec::new() });
            self.topics.len() - 1
        })
    }
}

/// What the shell has to do after a `handle_*`.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Brokers with something to drain.
    pub(crate) kick: Vec<i32>,
    /// The metadata is in doubt.
    pub(crate) refresh: bool,
    /// The first batch since everything was settled: the timer must run again.
    pub(crate) woken: bool,
    /// A producer id is needed.
    pub(crate) identity: bool,
    /// The last open record was settled.
    pub(crate) idle: bool,
}

pub(crate) struct Accumulator {
    config: Config,
    lease: Rc<Lease>,
    pool: Arc<BufferPool>,
    observer: Arc<dyn Observer>,
    rng: fastrand::Rng,
    /// What partitions without a sequence start with. Its epoch is above that of every sequence that was forgotten.
    identity: Option<ProducerIdentity>,
    topics: Vec<Option<Topic>>,
    by_name: HashMap<Arc<str>, usize>,
    /// Partitions with something to send, by leader. Entries may be stale; `drain` looks again.
    ready: HashMap<i32, VecDeque<PartitionId>>,
    /// Partitions that hold batches.
    active: Vec<PartitionId>,
    /// Everything is to go out: linger counts as over.
    flushing: bool,
    next_batch: u64,
    touched: Vec<usize>,
    effects: Effects,
}

impl Accumulator {
    pub(crate) fn new(config: Config, lease: Rc<Lease>, observer: Arc<dyn Observer>, seed: u64) -> Self {
        Self {
            config,
            pool: Arc::new(BufferPool::new(lease.budget().total())),
            lease,
            observer,
            rng: fastrand::Rng::with_seed(seed),
            identity: None,
            topics: Vec::new(),
            by_name: HashMap::new(),
            ready: HashMap::new(),
            active: Vec::new(),
            flushing: false,
            next_batch: 0,
            touched: Vec::new(),
            effects: Effects::default(),
        }
    }

    /// What there is to do since the last call.
    pub(crate) fn effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// True if no record is open.
    pub(crate) fn is_idle(&self) -> bool {
        self.active.is_empty()
    }

    pub(crate) fn needs_identity(&self) -> bool {
        self.config.idempotence && self.identity.is_none()
    }

    // ---- topics ----

    /// The slot of a topic, made or renewed from `info`, and a count of its handles.
    pub(crate) fn topic(&mut self, info: &TopicInfo, now: Instant) -> (usize, Rc<()>) {
        if let Some(&slot) = self.by_name.get(&info.name) {
            self.update_topic(slot, info, now);
        }
        let slot = match self.by_name.get(&info.name) {
            Some(&slot) => slot,
            None => self.add_topic(info, now),
        };
        let topic = self.topics[slot].as_ref().expect("by_name points at topics that are there");
        (slot, topic.handles.clone())
    }

    /// The slot of a topic that is here already, its name, and a count of its handles.
    pub(crate) fn known_topic(&mut self, name: &str) -> Option<(usize, Arc<str>, Rc<()>)> {
        let &slot = self.by_name.get(name)?;
        let topic = self.topics[slot].as_mut().expect("by_name points at topics that are there");
        topic.asked_for = true;
        Some((slot, topic.name.clone(), topic.handles.clone()))
    }

    fn add_topic(&mut self, info: &TopicInfo, now: Instant) -> usize {
        let topic = Topic {
            name: info.name.clone(),
            id: info.id,
            partitions: Vec::new(),
            sticky: Sticky::starting_at(self.rng.usize(..info.partitions.len().max(1))),
            batch_bytes: self.config.batch_bytes,
            retired: false,
            asked_for: false,
            handles: Rc::new(()),
        };
        let slot = match self.topics.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.topics.push(None);
                self.topics.len() - 1
            }
        };
        self.topics[slot] = Some(topic);
        self.by_name.insert(info.name.clone(), slot);
        self.update_topic(slot, info, now);
        slot
    }

    /// Leaders, new partitions, another id.
    fn update_topic(&mut self, slot: usize, info: &TopicInfo, now: Instant) {
        let topic = self.topics[slot].as_mut().expect("by_name points at topics that are there");
        if topic.id != info.id && topic.id != TopicId::ZERO && info.id != TopicId::ZERO {
            self.retire(slot, now);
            return;
        }
        topic.id = info.id;
        if topic.partitions.len() < info.partitions.len() {
            topic.partitions.resize_with(info.partitions.len(), Partition::default);
        }
        for gone in topic.partitions.iter_mut().skip(info.partitions.len()) {
            // Before topic ids (Kafka 2.8) lagging brokers, or a topic made again smaller. There is nobody to send to.
            (gone.leader, gone.leader_epoch, gone.in_ready) = (None, -1, false);
        }
        for (index, told) in info.partitions.iter().enumerate() {
            let partition = &mut topic.partitions[index];
            if partition.leader == told.leader && partition.leader_epoch == told.leader_epoch {
                continue;
            }
            partition.leader = told.leader;
            partition.leader_epoch = told.leader_epoch;
            partition.backoff_until = None;
            partition.in_ready = false;
            mark_ready(
                PartitionId { topic: slot, index },
                partition,
                &mut self.ready,
                &mut self.effects,
                &Gate { config: &self.config, identity: self.identity, flushing: self.flushing, now },
            );
        }
    }

    /// A new snapshot of the cluster's metadata.
    pub(crate) fn handle_metadata(&mut self, metadata: &Metadata, now: Instant) {
        for slot in 0..self.topics.len() {
            let Some(topic) = &self.topics[slot] else { continue };
            if topic.retired {
                continue;
            }
            match metadata.topics.get(&topic.name) {
                Some(info) => {
                    let info = info.clone();
                    self.update_topic(slot, &info, now);
                }
                None => self.retire(slot, now),
            }
        }
        self.sweep();
    }

    /// The topic is gone: what was not sent never will be.
    fn retire(&mut self, slot: usize, now: Instant) {
        let Some(topic) = self.topics[slot].as_mut() else { return };
        topic.retired = true;
        self.by_name.remove(&topic.name);
        for index in 0..topic.partitions.len() {
            let id = PartitionId { topic: slot, index };
            self.give_up(id, &Cause::TopicGone, now);
            let sequence = self.partition(id).sequence.take();
            self.begin_above(sequence);
        }
    }

    /// A partition's sequence is forgotten. The topic may only have seemed to be gone, or have gone unused for so long
    /// that the client dropped it: whoever begins there again must not begin where this sequence began, or the broker
    /// takes its batches for those that it has seen.
    fn begin_above(&mut self, forgotten: Option<Sequence>) {
        let (Some(forgotten), Some(identity)) = (forgotten, &mut self.identity) else { return };
        if !forgotten.is_of(*identity) {
            return;
        }
        match forgotten.successor() {
            Some(next) => identity.epoch = identity.epoch.max(next.epoch),
            None => {
                self.identity = None;
                self.effects.identity = true;
            }
        }
    }

    /// Settles everything of a partition that is not on the wire.
    fn give_up(&mut self, id: PartitionId, cause: &Cause, now: Instant) {
        let partition = self.partition(id);
        let open = partition.open.take();
        let queued = std::mem::take(&mut partition.queued);
        let waiting = partition.head.as_ref().is_some_and(|head| head.sent.is_none());
        if let Some(open) = open {
            self.fail_unsent(&open.ranges, open.charged, cause, now - open.created);
        }
        for queued in queued {
            self.fail_unsent(&queued.ranges, queued.charged, cause, now - queued.created);
        }
        if waiting {
            self.conclude(id, cause, now);
        }
    }

    /// Everything that is open goes out without waiting for its linger, now and from now on.
    pub(crate) fn handle_flush(&mut self, now: Instant) {
        self.flushing = true;
        self.offer_all(now);
    }

    /// The process ends: settles every record at once, those on the wire as `unknown`.
    pub(crate) fn handle_abandon(&mut self, now: Instant) {
        for at in 0..self.active.len() {
            let id = self.active[at];
            self.give_up(id, &Cause::Stopped, now);
            self.report_head(id, &Cause::Stopped, now);
        }
        self.sweep();
    }

    /// Frees the slots of retired topics that nobody holds and nothing is left of, and tidies `active`.
    fn sweep(&mut self) {
        let topics = &mut self.topics;
        let was_idle = self.active.is_empty();
        self.active.retain(|id| {
            let Some(partition) = topics[id.topic].as_mut().map(|topic| &mut topic.partitions[id.index]) else {
                return false;
            };
            partition.in_active = !partition.is_empty();
            partition.in_active
        });
        for slot in topics {
            let done = |topic: &Topic| {
                topic.retired
                    && Rc::strong_count(&topic.handles) == 1
                    && topic.partitions.iter().all(Partition::is_empty)
            };
            if slot.as_ref().is_some_and(done) {
                *slot = None;
            }
        }
        self.effects.idle |= !was_idle && self.active.is_empty();
    }

    /// Names of the topics that somebody holds a handle of, that have open records, or that were asked for since the
    /// last call.
    pub(crate) fn topics_in_use(&mut self) -> Vec<Arc<str>> {
        let in_use = |topic: &mut Topic| {
            let asked_for = std::mem::take(&mut topic.asked_for);
            let held = Rc::strong_count(&topic.handles) > 1 || !topic.partitions.iter().all(Partition::is_empty);
            (!topic.retired && (asked_for || held)).then(|| topic.name.clone())
        };
        self.topics.iter_mut().flatten().filter_map(in_use).collect()
    }

    pub(crate) fn partition_count(&self, slot: usize) -> usize {
        self.topics[slot].as_ref().map_or(0, |topic| topic.partitions.len())
    }

    fn partition(&mut self, id: PartitionId) -> &mut Partition {
        let topic = self.topics[id.topic].as_mut().expect("a topic outlives its batches and handles");
        &mut topic.partitions[id.index]
    }

    // ---- appending ----

    /// False once the topic is gone: its records go nowhere.
    pub(crate) fn takes_records(&self, slot: usize) -> bool {
        self.topics[slot].as_ref().is_some_and(|topic| !topic.retired)
    }

    /// Where unkeyed records of the topic go now.
    pub(crate) fn sticky(&mut self, slot: usize, now: Instant) -> usize {
        let topic = self.topics[slot].as_mut().expect("a handle keeps its topic");
        if matches!(topic.partitions[topic.sticky.current()].load(now, self.config.linger), Load::Stalled(_)) {
            topic.sticky.switch(topic.partitions.len(), |i| topic.partitions[i].load(now, self.config.linger));
        }
        topic.sticky.current()
    }

    /// True if a record for the partition, or for any if it is `None`, could only wait: no leader, or one that does not
    /// answer.
    pub(crate) fn is_stalled(&self, slot: usize, partition: Option<usize>, now: Instant) -> bool {
        let Some(topic) = &self.topics[slot] else { return false };
        let stalled = |partition: &Partition| matches!(partition.load(now, self.config.linger), Load::Stalled(_));
        match partition {
            Some(index) => topic.partitions.get(index).is_some_and(stalled),
            None => topic.partitions.iter().all(stalled),
        }
    }

    /// Where unkeyed records of the topic go after the current partition's batch is full.
    pub(crate) fn switch_sticky(&mut self, slot: usize, now: Instant) -> usize {
        let topic = self.topics[slot].as_mut().expect("a handle keeps its topic");
        topic.sticky.switch(topic.partitions.len(), |i| topic.partitions[i].load(now, self.config.linger));
        topic.sticky.current()
    }

    /// Sees that the partition has an open batch for records with this delivery timeout. False, with nothing done, if
    /// the one that is open is for others.
    pub(crate) fn open(&mut self, id: PartitionId, timeout: Duration, now: Instant) -> bool {
        let topic = self.topics[id.topic].as_mut().expect("a handle keeps its topic");
        let partition = &mut topic.partitions[id.index];
        match &partition.open {
            Some(open) => open.timeout == timeout,
            None => {
                partition.open = Some(Open::new(self.pool.take(partition.last_bytes), now, timeout));
                true
            }
        }
    }

    /// Frames `record` into the open batch. False, with nothing done, if it does not fit: the caller adds its run of
    /// lines, [closes](Self::close) the batch and opens another. A batch takes its first record whatever its size.
    #[inline(always)]
    pub(crate) fn append(&mut self, id: PartitionId, record: Record<'_>) -> bool {
        let topic = self.topics[id.topic].as_mut().expect("a handle keeps its topic");
        let Some(open) = &mut topic.partitions[id.index].open else { return false };
        let limit = if open.builder.is_empty() { usize::MAX } else { topic.batch_bytes };
        open.builder.try_append(record, limit)
    }

    /// Records and bytes in the open batch.
    pub(crate) fn open_size(&self, id: PartitionId) -> (u32, usize) {
        let topic = self.topics[id.topic].as_ref().expect("a handle keeps its topic");
        topic.partitions[id.index].open.as_ref().map_or((0, 0), |open| (open.builder.count(), open.builder.len()))
    }

    /// The records appended last to the partition's open batch are these lines.
    pub(crate) fn add_range(&mut self, id: PartitionId, range: Range) {
        let open = self.partition(id).open.as_mut().expect("records were appended to it");
        open.ranges.push(range);
    }

    /// True if it is the partition's first time since [`Accumulator::finish`], which is to be told about it.
    pub(crate) fn touch(&mut self, id: PartitionId) -> bool {
        !std::mem::replace(&mut self.partition(id).in_touched, true)
    }

    /// An empty list for the partitions that a chunk touches; `finish` takes it back.
    pub(crate) fn touched_scratch(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.touched)
    }

    /// Moves the partition's open batch to its queue.
    pub(crate) fn close(&mut self, id: PartitionId) {
        let compression = self.config.compression;
        let lease = self.lease.clone();
        let partition = self.partition(id);
        if let Some(open) = partition.open.take() {
            partition.last_bytes = open.builder.len();
            let mut queued = open.close(compression);
            let footprint = queued.footprint();
            lease.recharge(queued.charged, footprint);
            queued.charged = footprint;
            partition.queued.push_back(queued);
        }
    }

    /// The chunk is consumed: charges what grew, and offers what may go out to the senders. `sticky_bytes` of unkeyed
    /// records were appended.
    pub(crate) fn finish(&mut self, slot: usize, mut touched: Vec<usize>, sticky_bytes: usize, now: Instant) {
        for index in touched.drain(..) {
            let id = PartitionId { topic: slot, index };
            let topic = self.topics[slot].as_mut().expect("a handle keeps its topic");
            let partition = &mut topic.partitions[index];
            partition.in_touched = false;
            if let Some(open) = &mut partition.open {
                let footprint = open.footprint();
                self.lease.recharge(open.charged, footprint);
                open.charged = footprint;
            }
            if !std::mem::replace(&mut partition.in_active, true) {
                self.effects.woken |= self.active.is_empty();
                self.active.push(id);
            }
            self.offer(id, now);
        }
        self.touched = touched;
        let topic = self.topics[slot].as_mut().expect("a handle keeps its topic");
        if topic.sticky.record(sticky_bytes, topic.batch_bytes) {
            self.switch_sticky(slot, now);
        }
    }

    // ---- sending ----

    /// Puts the partition into its leader's queue if it has something to send.
    fn offer(&mut self, id: PartitionId, now: Instant) {
        let topic = self.topics[id.topic].as_mut().expect("a topic outlives its batches and handles");
        mark_ready(
            id,
            &mut topic.partitions[id.index],
            &mut self.ready,
            &mut self.effects,
            &Gate { config: &self.config, identity: self.identity, flushing: self.flushing, now },
        );
    }

    /// The next request for `broker`: the head of each of its ready partitions.
    pub(crate) fn drain(&mut self, broker: i32, now: Instant) -> Option<Drained> {
        let mut drained = Drained { topics: Vec::new(), batches: BTreeMap::new(), bytes: 0 };
        while let Some(id) = self.ready.get_mut(&broker).and_then(VecDeque::pop_front) {
            let gate = Gate { config: &self.config, identity: self.identity, flushing: self.flushing, now };
            // A queue may name a slot that was freed, or taken over by another topic.
            let Some(topic) = self.topics[id.topic].as_mut() else { continue };
            let Some(partition) = topic.partitions.get_mut(id.index) else { continue };
            partition.in_ready = false;
            if partition.leader != Some(broker) || !gate.can_send(partition) || !gate.can_stamp(partition) {
                self.offer(id, now);
                continue;
            }
            if partition.head.is_none() && partition.queued.is_empty() {
                self.close(id);
            }
            let topic = self.topics[id.topic].as_mut().expect("it was there a moment ago");
            let partition = &mut topic.partitions[id.index];
            let next_bytes = match (&partition.head, partition.queued.front()) {
                (Some(head), _) => head.bytes.len(),
                (None, Some(queued)) => queued.closed.len(),
                (None, None) => continue,
            };
            if drained.bytes > 0 && drained.bytes + next_bytes > MAX_REQUEST_BYTES {
                partition.in_ready = true;
                self.ready.entry(broker).or_default().push_front(id);
                break;
            }
            if partition.head.is_none()
                && let Some(queued) = partition.queued.pop_front()
            {
                let stamp = match (self.config.idempotence, self.identity) {
                    (true, identity) => {
                        let sequence = partition
                            .sequence
                            .get_or_insert_with(|| Sequence::new(identity.expect("the gate asks for one of the two")));
                        sequence.take(queued.closed.count())
                    }
                    (false, _) => Stamp::NONE,
                };
                self.next_batch += 1;
                partition.head = Some(queued.stamp(stamp, self.next_batch, &self.pool));
            }
            let Some(head) = partition.head.as_mut() else { continue };
            head.sent = Some(now);
            head.attempts += 1;
            drained.bytes += head.bytes.len();
            self.observer.batch_sent(head.count, head.bytes.len());
            if head.attempts > 1 {
                self.observer.batch_retried();
            }
            let at = drained.topic(&topic.name, topic.id);
            let index = id.index as i32;
            drained.topics[at].partitions.push(ProducePartition { index, records: head.bytes.clone() });
            drained.batches.insert((at, index), BatchRef { partition: id, id: head.id });
        }
        (!drained.batches.is_empty()).then_some(drained)
    }

    /// True if [`Accumulator::drain`] has something for `broker`. What moved to another leader, or was settled while it
    /// waited, leaves the queue here: nobody dials a broker for its sake.
    pub(crate) fn has_ready(&mut self, broker: i32, now: Instant) -> bool {
        let Some(queue) = self.ready.get_mut(&broker) else { return false };
        let gate = Gate { config: &self.config, identity: self.identity, flushing: self.flushing, now };
        queue.retain(|id| {
            let topic = self.topics[id.topic].as_mut();
            let Some(partition) = topic.and_then(|topic| topic.partitions.get_mut(id.index)) else { return false };
            if partition.leader != Some(broker) {
                // `in_ready` speaks of another queue.
                return false;
            }
            partition.in_ready = gate.can_send(partition);
            partition.in_ready
        });
        !queue.is_empty()
    }

    /// Records that are appended and not settled.
    pub(crate) fn open_records(&self) -> u64 {
        let count = |ranges: &[Range]| ranges.iter().map(|range| u64::from(range.count)).sum::<u64>();
        let of_partition = |id: &PartitionId| {
            let partition = &self.topics[id.topic].as_ref().expect("active topics are there").partitions[id.index];
            partition.open.as_ref().map_or(0, |open| count(&open.ranges))
                + partition.queued.iter().map(|queued| count(&queued.ranges)).sum::<u64>()
                + partition.head.as_ref().map_or(0, |head| count(&head.ranges))
        };
        self.active.iter().map(of_partition).sum()
    }

    /// The identity that partitions without a sequence start with.
    pub(crate) fn handle_identity(&mut self, identity: ProducerIdentity, now: Instant) {
        self.identity = Some(identity);
        self.offer_all(now);
    }

    fn offer_all(&mut self, now: Instant) {
        for at in 0..self.active.len() {
            self.offer(self.active[at], now);
        }
    }
}

#[cfg(test)]
mod tests;

//! What the accumulator keeps of a topic and of each of its partitions.

use super::{Effects, PartitionId};
use crate::Config;
use crate::batch::{Head, Open, Queued};
use crate::outcome::Cause;
use crate::partitioner::{Load, Sticky};
use crate::sequence::Sequence;
use kafka_client::{ErrorCode, ProducerIdentity, TopicId};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A leader that has not answered for this long gets no unkeyed records while another partition has one that does.
const STALLED_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) id: TopicId,
    pub(super) partitions: Vec<Partition>,
    pub(super) sticky: Sticky,
    /// `batch_bytes`, or less where the broker refused batches as too large.
    pub(super) batch_bytes: usize,
    /// Deleted, or created again under another id: takes no records, sends no batch again.
    pub(super) retired: bool,
    /// Since [`topics_in_use`](super::Accumulator::topics_in_use) looked.
    pub(super) asked_for: bool,
    /// One count for each handle outside.
    pub(super) handles: Rc<()>,
}

#[derive(Default)]
pub(super) struct Partition {
    pub(super) leader: Option<i32>,
    pub(super) leader_epoch: i32,
    pub(super) open: Option<Open>,
    pub(super) queued: VecDeque<Queued>,
    pub(super) head: Option<Head>,
    pub(super) sequence: Option<Sequence>,
    /// Not before, unless another leader is told: the last attempt failed, or there was no leader.
    pub(super) backoff_until: Option<Instant>,
    /// Of the last attempt that failed, until one succeeds.
    pub(super) last_error: Option<ErrorCode>,
    /// The size of the last batch; the next will mostly be alike.
    pub(super) last_bytes: usize,
    pub(super) in_ready: bool,
    pub(super) in_active: bool,
    pub(super) in_touched: bool,
}

impl Partition {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.queued.is_empty() && self.head.is_none()
    }

    pub(super) fn bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.builder.len())
            + self.queued.iter().map(|queued| queued.closed.len()).sum::<usize>()
            + self.head.as_ref().map_or(0, |head| head.bytes.len())
    }

    pub(super) fn load(&self, now: Instant, linger: Duration) -> Load {
        // A batch that nobody has taken waits for a connection.
        let due = match &self.head {
            Some(head) => head.sent,
            None => match self.queued.front() {
                Some(queued) => Some(queued.created),
                None => self.open.as_ref().map(|open| open.created + linger),
            },
        };
        let unanswered = due.is_some_and(|due| now.saturating_duration_since(due) > STALLED_AFTER);
        if self.leader.is_none() || self.backoff_until.is_some() || unanswered {
            Load::Stalled(self.bytes())
        } else {
            Load::Available(self.bytes())
        }
    }

    /// Why records that never went out did not.
    pub(super) fn cause(&self) -> Cause {
        match self.last_error {
            Some(ErrorCode::NOT_ENOUGH_REPLICAS | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND) => {
                Cause::NotEnoughReplicas
            }
            _ => Cause::NoBroker,
        }
    }
}

/// What it takes for a partition to send.
pub(super) struct Gate<'a> {
    pub(super) config: &'a Config,
    pub(super) identity: Option<ProducerIdentity>,
    pub(super) flushing: bool,
    pub(super) now: Instant,
}

impl Gate<'_> {
    pub(super) fn can_send(&self, partition: &Partition) -> bool {
        let open_is_due = |open: &Open| {
            self.flushing || self.config.linger.is_zero() || open.created + self.config.linger <= self.now
        };
        let has_batch = match &partition.head {
            Some(head) => head.sent.is_none(),
            None => !partition.queued.is_empty() || partition.open.as_ref().is_some_and(open_is_due),
        };
        has_batch && partition.leader.is_some() && partition.backoff_until.is_none_or(|until| until <= self.now)
    }

    pub(super) fn can_stamp(&self, partition: &Partition) -> bool {
        !self.config.idempotence || partition.head.is_some() || partition.sequence.is_some() || self.identity.is_some()
    }
}

/// Puts the partition into its leader's queue if it has something to send and is not there yet.
pub(super) fn mark_ready(
    id: PartitionId,
    partition: &mut Partition,
    ready: &mut HashMap<i32, VecDeque<PartitionId>>,
    effects: &mut Effects,
    gate: &Gate<'_>,
) {
    if partition.in_ready || !gate.can_send(partition) {
        return;
    }
    if !gate.can_stamp(partition) {
        effects.identity = true;
        return;
    }
    let Some(leader) = partition.leader else { return };
    partition.in_ready = true;
    let queue = ready.entry(leader).or_default();
    queue.push_back(id);
    if queue.len() == 1 {
        effects.kick.push(leader);
    }
}

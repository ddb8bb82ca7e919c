//! What a consumer reads: positions, and what was fetched of each partition.
//!
//! * [`positions`]: where to begin
//! * [`fetch`]: what is to be fetched next, and what came of it

mod fetch;
mod positions;

pub(super) use fetch::Arrived;

use super::cursor::{Cursor, Room};
use super::{Account, ConsumerError, Held, PartitionRecords, TopicPartition, Wants};
use crate::{Error, GroupOffset, Membership};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The pause after a partition could not be read, or no memory was left.
const PAUSE: Duration = Duration::from_millis(100);
/// The same where nothing changes soon.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// Troubles that are remembered until a poll tells them.
const MAX_TROUBLES: usize = 64;

/// What the consumer was told to read.
#[derive(Debug, Clone, Default)]
pub(super) enum Target {
    #[default]
    Nothing,
    /// As a member.
    Group(Wants),
    /// These, and no member.
    Manual,
}

/// One partition that is read.
#[derive(Debug)]
struct PartitionState {
    /// Tells answers to earlier questions, before a seek or under another assignment, apart.
    version: u64,
    /// The next offset to hand out; `None`: not known yet.
    position: Option<i64>,
    /// Where it was when the last poll began: everything before has reached its reader.
    delivered: Option<i64>,
    /// The last offset that is known to be committed.
    committed: Option<i64>,
    paused: bool,
    /// A fetch or a search for the position is under way.
    busy: bool,
    /// Nothing of this assignment or after this seek was asked for yet.
    fresh: bool,
    /// Nothing is asked for before this.
    not_before: Option<Instant>,
    /// The last fetch found the end.
    at_end: bool,
    high_watermark: i64,
    fetched: Option<(Cursor, Held)>,
    /// When it last had records, as a count: who waits longest is asked for first.
    served: u64,
}

impl PartitionState {
    fn new(version: u64, position: Option<i64>) -> Self {
        Self {
            version,
            position,
            delivered: position,
            committed: position,
            paused: false,
            busy: false,
            fresh: true,
            not_before: None,
            at_end: false,
            high_watermark: -1,
            fetched: None,
            served: 0,
        }
    }
}

/// All that is read. Behind the consumer's lock.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    pub(super) target: Target,
    /// Rises with each change of `target`.
    pub(super) target_version: u64,
    /// What `Wants` came to.
    pub(super) topics: Vec<Arc<str>>,
    partitions: BTreeMap<TopicPartition, PartitionState>,
    /// Brokers that were asked and have not answered.
    asked: HashSet<i32>,
    /// In whose name offsets are committed.
    pub(super) membership: Option<Membership>,
    /// Assigned, and the assignment is here.
    pub(super) is_joined: bool,
    /// Where partitions were that this consumer had before: the committed offset that was known, and the position.
    left: HashMap<TopicPartition, (Option<i64>, i64)>,
    /// Partitions whose `at_least` has been used.
    begun: HashSet<TopicPartition>,
    fatal: Option<Error>,
    troubles: VecDeque<ConsumerError>,
    versions: u64,
    served: u64,
}

impl Partitions {
    fn next_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    pub(super) fn subscribe(&mut self, wants: Wants) -> Result<(), ConsumerError> {
        if matches!(self.target, Target::Manual) {
            return Err(ConsumerError::IllegalState("partitions were assigned by hand"));
        }
        self.topics = match &wants {
            Wants::Topics(topics) => topics.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect(),
            Wants::Matching(_) => Vec::new(),
        };
        self.target = Target::Group(wants);
        self.target_version += 1;
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self) {
        self.target = Target::Nothing;
        self.target_version += 1;
        self.topics.clear();
        self.partitions.clear();
        self.is_joined = false;
    }

    /// Returns those that have no position yet.
    pub(super) fn assign(&mut self, partitions: &[TopicPartition]) -> Result<Vec<TopicPartition>, ConsumerError> {
        if matches!(self.target, Target::Group(_)) {
            return Err(ConsumerError::IllegalState("it is subscribed to topics"));
        }
        self.target = Target::Manual;
        self.target_version += 1;
        self.partitions.retain(|partition, _| partitions.contains(partition));
        let added: Vec<_> =
            partitions.iter().filter(|partition| !self.partitions.contains_key(*partition)).cloned().collect();
        for partition in &added {
            let version = self.next_version();
            self.partitions.insert(partition.clone(), PartitionState::new(version, None));
        }
        Ok(added)
    }

    pub(super) fn subscription(&self) -> Vec<Arc<str>> {
        self.topics.clone()
    }

    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        self.partitions.keys().cloned().collect()
    }

    pub(super) fn is_joined(&self) -> bool {
        self.is_joined
    }

    pub(super) fn check(&self, partition: &TopicPartition) -> Result<(), ConsumerError> {
        match self.partitions.get(partition) {
            Some(_) => Ok(()),
            None => Err(ConsumerError::NotAssigned(partition.0.clone(), partition.1)),
        }
    }

    fn known(&mut self, partition: &TopicPartition) -> Result<&mut PartitionState, ConsumerError> {
        let known = self.partitions.get_mut(partition);
        known.ok_or_else(|| ConsumerError::NotAssigned(partition.0.clone(), partition.1))
    }

    pub(super) fn position(&mut self, partition: &TopicPartition) -> Result<Option<i64>, ConsumerError> {
        Ok(self.known(partition)?.position)
    }

    pub(super) fn set_paused(&mut self, partition: &TopicPartition, paused: bool) -> Result<(), ConsumerError> {
        self.known(partition)?.paused = paused;
        Ok(())
    }

    pub(super) fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), ConsumerError> {
        let version = self.next_version();
        let state = self.known(partition)?;
        let committed = state.committed;
        let paused = state.paused;
        *state = PartitionState { paused, committed, ..PartitionState::new(version, Some(offset)) };
        Ok(())
    }

    /// Whether anything was handed out since.
    pub(super) fn mark_delivered(&mut self) -> bool {
        let mut moved = false;
        for state in self.partitions.values_mut() {
            moved |= state.delivered != state.position;
            state.delivered = state.position;
        }
        moved
    }

    /// In whose name these may be committed; `None`: not now.
    pub(super) fn may_commit(&self, offsets: &[GroupOffset]) -> Result<Option<Option<Membership>>, ConsumerError> {
        if let Some(error) = &self.fatal {
            return Err(ConsumerError::Fatal(error.clone()));
        }
        match self.target {
            Target::Group(_) if !self.is_joined => Ok(None),
            Target::Group(_) => {
                for offset in offsets {
                    self.check(&(offset.topic.clone(), offset.partition))?;
                }
                Ok(self.membership.clone().map(Some))
            }
            Target::Manual | Target::Nothing => Ok(Some(None)),
        }
    }

    pub(super) fn handed_out(&self) -> Vec<GroupOffset> {
        self.offsets(|state| state.position)
    }

    /// What was delivered and is not committed, of these partitions or of all.
    pub(super) fn uncommitted(&self, of: Option<&[TopicPartition]>) -> Vec<GroupOffset> {
        let mut offsets = self.offsets(|state| state.delivered.filter(|delivered| state.committed != Some(*delivered)));
        if let Some(of) = of {
            offsets.retain(|offset| of.iter().any(|(topic, p)| *topic == offset.topic && *p == offset.partition));
        }
        offsets
    }

    fn offsets(&self, offset: impl Fn(&PartitionState) -> Option<i64>) -> Vec<GroupOffset> {
        let offsets = self.partitions.iter().filter_map(|((topic, partition), state)| {
            let offset = offset(state)?;
            Some(GroupOffset { topic: topic.clone(), partition: *partition, offset, leader_epoch: -1, metadata: None })
        });
        offsets.collect()
    }

    pub(super) fn handle_committed(&mut self, offsets: &[GroupOffset]) {
        for offset in offsets {
            if let Some(state) = self.partitions.get_mut(&(offset.topic.clone(), offset.partition)) {
                state.committed = Some(offset.offset);
            }
        }
    }

    /// Partitions come. Where to begin in them is not known yet.
    pub(super) fn add(&mut self, added: &[TopicPartition]) {
        for partition in added {
            let version = self.next_version();
            self.partitions.insert(partition.clone(), PartitionState::new(version, None));
        }
    }

    /// Partitions go.
    pub(super) fn remove(&mut self, removed: &[TopicPartition]) {
        for partition in removed {
            if let Some(state) = self.partitions.remove(partition)
                && let Some(position) = state.position
            {
                self.left.insert(partition.clone(), (state.committed, position));
            }
        }
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.is_joined = false;
        self.membership = None;
        self.partitions.clear();
        self.fatal = Some(error);
    }

    fn trouble(&mut self, trouble: ConsumerError) {
        if self.troubles.len() < MAX_TROUBLES {
            self.troubles.push_back(trouble);
        }
    }

    /// Takes what has come while there is room, from each partition in turn.
    pub(super) fn take(
        &mut self,
        mut room: Room,
        account: &dyn Account,
    ) -> Result<Vec<PartitionRecords>, ConsumerError> {
        if let Some(error) = &self.fatal {
            return Err(ConsumerError::Fatal(error.clone()));
        }
        if let Some(trouble) = self.troubles.pop_front() {
            return Err(trouble);
        }
        let mut order: Vec<(u64, TopicPartition)> = self
            .partitions
            .iter()
            .filter(|(_, state)| state.fetched.is_some() && !state.paused)
            .map(|(partition, state)| (state.served, partition.clone()))
            .collect();
        order.sort_unstable();
        let mut taken = Vec::new();
        for (_, partition) in order {
            if !room.first && (room.records == 0 || room.bytes == 0) {
                break;
            }
            self.served += 1;
            let served = self.served;
            let Some(state) = self.partitions.get_mut(&partition) else { continue };
            let Some((cursor, held)) = &mut state.fetched else { continue };
            let mut records = Vec::new();
            match cursor.take(&mut records, &mut room) {
                Ok((inflated, more)) => {
                    let mut holds = vec![held.clone()];
                    let beside = inflated + records.capacity() * size_of::<kafka_records::ReadRecord>();
                    if !records.is_empty() {
                        holds.push(account.charge(beside));
                        state.served = served;
                    }
                    let next_offset = cursor.next_offset();
                    state.position = Some(next_offset);
                    if !more {
                        state.at_end = next_offset >= state.high_watermark;
                        state.fetched = None;
                    }
                    if !records.is_empty() {
                        taken.push(PartitionRecords {
                            topic: partition.0,
                            partition: partition.1,
                            records,
                            next_offset,
                            high_watermark: state.high_watermark,
                            held: holds,
                        });
                    }
                }
                Err(error) => {
                    let trouble = ConsumerError::Broken(partition.0, partition.1, cursor.next_offset(), error);
                    if taken.is_empty() {
                        return Err(trouble);
                    }
                }
            }
        }
        Ok(taken)
    }

    fn begin_at(&mut self, partition: &TopicPartition, version: u64, offset: i64, committed: Option<i64>) {
        if let Some(one) = self.partitions.get_mut(partition).filter(|one| one.version == version) {
            one.busy = false;
            one.at_end = false;
            one.position = Some(offset);
            one.delivered = Some(offset);
            one.committed = committed;
        }
    }

    /// Goes on where this consumer was, if it had the partition before and the group's offset has not gone beyond that, nor
    /// back: everything up to there was handed out here. A reader never sees a partition go back because of a rebalance.
    fn goes_on(&mut self, partition: &TopicPartition, version: u64, committed: Option<i64>) -> bool {
        let Some((known, position)) = self.left.remove(partition) else { return false };
        if committed < known || committed.is_some_and(|committed| position < committed) {
            return false;
        }
        self.begin_at(partition, version, position, committed);
        if let Some(one) = self.partitions.get_mut(partition) {
            // The last of it may not have reached its reader.
            one.delivered = committed;
        }
        true
    }
}

//! What a consumer reads: positions, what was fetched of each partition, and what is to be fetched next.

use super::assignor::PartitionCounts;
use super::cursor::{Cursor, Room};
use super::{Account, ConsumerError, Held, OffsetReset, PartitionRecords, Shared, TopicPartition, Wants, by_topic};
use crate::cluster::{Fetched, Part, Wanted, lock};
use crate::{Error, ErrorCode, GroupOffset, Membership, OffsetSpec};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a fetch at the end of the log waits before it is begun anew.
const WAIT: Duration = Duration::from_secs(5);
/// What a fetch that waits asks for: what comes then is new.
const WAITING_BYTES: i32 = 64 * 1024;
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

/// The answer to a fetch.
#[derive(Debug)]
pub(super) struct Arrived {
    broker: i32,
    asked: Vec<(TopicPartition, u64)>,
    result: Result<Vec<Part>, Error>,
    held: Held,
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
}

/// What one broker is to be asked.
struct Ask {
    asked: Vec<(TopicPartition, u64)>,
    wanted: Vec<Wanted>,
    at_end: bool,
}

impl Shared {
    /// Begins the fetches that are due. When the next one will be, if it is known.
    pub(super) fn fetch(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        let mut due: Option<Instant> = None;
        let mut asks: HashMap<i32, Ask> = HashMap::new();
        {
            let mut state = lock(&self.state);
            let state = &mut *state;
            // A broker is asked when nothing of its own is left: a request for one partition that waits at its end would
            // hold up the others'.
            let mut full: HashSet<i32> = HashSet::new();
            let mut candidates = Vec::new();
            for (partition, one) in &state.partitions {
                if one.paused {
                    continue;
                }
                let place = self.cluster.read_place(&partition.0, partition.1);
                if one.fetched.is_some() {
                    full.extend(place.map(|place| place.broker));
                } else if !one.busy
                    && let Some(position) = one.position
                {
                    match one.not_before.filter(|at| *at > now) {
                        Some(at) => due = Some(due.map_or(at, |due| due.min(at))),
                        None => candidates.push((one.served, partition.clone(), position, place)),
                    }
                }
            }
            candidates.sort_by_key(|(served, ..)| *served);
            for (_, partition, position, place) in candidates {
                let Some(one) = state.partitions.get_mut(&partition) else { continue };
                let Some(place) = place else {
                    one.not_before = Some(now + PAUSE);
                    due = Some(due.map_or(now + PAUSE, |due| due.min(now + PAUSE)));
                    self.look_up(&partition.0);
                    continue;
                };
                if full.contains(&place.broker) || (state.asked.contains(&place.broker) && !one.fresh) {
                    continue;
                }
                one.busy = true;
                one.fresh = false;
                let ask = asks.entry(place.broker);
                let ask = ask.or_insert_with(|| Ask { asked: Vec::new(), wanted: Vec::new(), at_end: true });
                ask.at_end &= one.at_end;
                ask.asked.push((partition.clone(), one.version));
                ask.wanted.push(Wanted {
                    topic: place.topic,
                    partition: partition.1,
                    leader_epoch: place.leader_epoch,
                    offset: position,
                    max_bytes: i32::try_from(self.config.fetch_bytes).unwrap_or(i32::MAX),
                });
            }
            state.asked.extend(asks.keys());
        }
        for (broker, ask) in asks {
            self.cluster.spawn(self.clone().ask(broker, ask));
        }
        due
    }

    /// Brings a topic into the snapshot, or its new leaders.
    fn look_up(&self, topic: &Arc<str>) {
        let (cluster, topic) = (self.cluster.clone(), topic.clone());
        self.cluster.spawn(async move {
            if cluster.topic(&topic).await.is_ok() {
                cluster.request_refresh();
            }
        });
    }

    /// Asks one broker; what it answers comes to the next poll.
    async fn ask(self: Arc<Self>, broker: i32, ask: Ask) {
        let isolation = self.config.isolation;
        let mut closing = self.closing.subscribe();
        let work = async {
            if !ask.at_end {
                let share = loop {
                    match self.account.share(self.config.fetch_bytes) {
                        Some(share) => break share,
                        None => sleep(PAUSE).await,
                    }
                };
                let mut promised = None;
                let max_bytes = || {
                    promised = Some(self.account.charge(share));
                    i32::try_from(share).unwrap_or(i32::MAX)
                };
                let result = self.cluster.fetch_there(broker, isolation, ask.wanted.clone(), max_bytes).await;
                let came = match &result {
                    Ok(parts) => parts.iter().any(|part| !matches!(part, Part::Fetched(f) if f.records.is_empty())),
                    Err(_) => true,
                };
                if came {
                    // Charged for what came before what was promised is given back.
                    let held = self.account.charge(bytes_of(&result));
                    drop(promised);
                    return (result, held);
                }
            }
            let mut wanted = ask.wanted;
            for one in &mut wanted {
                one.max_bytes = one.max_bytes.min(WAITING_BYTES);
            }
            let until = Instant::now() + WAIT;
            let result = self.cluster.fetch_coming(broker, isolation, wanted, WAITING_BYTES, until).await;
            let held = self.account.charge(bytes_of(&result));
            (result, held)
        };
        let (result, held) = tokio::select! {
            done = work => done,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        // Fails when the consumer is gone.
        let _ = self.arrived.send(Arrived { broker, asked: ask.asked, result, held });
    }

    /// Takes in what a broker answered.
    pub(super) fn handle_arrived(self: &Arc<Self>, arrived: Arrived) {
        let Arrived { broker, asked, result, held } = arrived;
        let mut lost = Vec::new();
        {
            let mut state = lock(&self.state);
            let state = &mut *state;
            state.asked.remove(&broker);
            let parts = match result {
                Ok(parts) => parts,
                Err(error) => {
                    self.cluster.request_refresh();
                    asked.iter().map(|_| Part::Failed(error.clone())).collect()
                }
            };
            for ((partition, version), part) in asked.into_iter().zip(parts) {
                let Some(one) = state.partitions.get_mut(&partition).filter(|one| one.version == version) else {
                    continue;
                };
                one.busy = false;
                let position = one.position.unwrap_or(0);
                match part {
                    Part::Elsewhere => {}
                    Part::Fetched(Fetched { high_watermark, records, aborted, .. }) => {
                        one.high_watermark = high_watermark;
                        one.at_end = records.is_empty();
                        if !records.is_empty() {
                            let (isolation, max) = (self.config.isolation, self.config.max_inflated);
                            let cursor = Cursor::new(records, position, isolation, aborted, max);
                            one.fetched = Some((cursor, held.clone()));
                        }
                    }
                    Part::Failed(error) => match error.code() {
                        Some(ErrorCode::OFFSET_OUT_OF_RANGE) => {
                            if self.config.reset == OffsetReset::None {
                                one.not_before = Some(Instant::now() + LONG_PAUSE);
                                state.trouble(ConsumerError::OutOfRange(partition.0, partition.1, position));
                            } else {
                                tracing::warn!(
                                    topic = %partition.0, partition = partition.1, offset = position,
                                    "the offset is out of range; it is reset"
                                );
                                one.position = None;
                                one.busy = true;
                                lost.push((partition, version));
                            }
                        }
                        _ => {
                            let passes = error.is_retriable();
                            if error.invalidates_metadata() {
                                self.cluster.request_refresh();
                            }
                            one.not_before = Some(Instant::now() + if passes { PAUSE } else { LONG_PAUSE });
                            if !passes {
                                state.trouble(error.into());
                            }
                        }
                    },
                }
            }
        }
        if !lost.is_empty() {
            self.cluster.spawn(self.clone().reset(lost));
        }
    }

    /// Finds where to begin with these, in the background.
    pub(super) fn find_positions(self: &Arc<Self>, partitions: Vec<TopicPartition>) {
        if partitions.is_empty() {
            return;
        }
        let versions = {
            let mut state = lock(&self.state);
            let mut versions = Vec::with_capacity(partitions.len());
            for partition in partitions {
                if let Some(one) = state.partitions.get_mut(&partition) {
                    one.busy = true;
                    versions.push((partition, one.version));
                }
            }
            versions
        };
        self.cluster.spawn(self.clone().from_committed(versions));
    }

    async fn from_committed(self: Arc<Self>, mut open: Vec<(TopicPartition, u64)>) {
        let mut committed = Vec::new();
        if let Some(group) = &self.config.group {
            loop {
                self.keep_current(&mut open);
                if open.is_empty() {
                    return;
                }
                let names: Vec<TopicPartition> = open.iter().map(|(partition, _)| partition.clone()).collect();
                match self.cluster.group_offsets(group, Some(by_topic(&names))).await {
                    Ok(offsets) => {
                        committed = offsets;
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%group, %error, "no committed offsets yet");
                        if !error.is_retriable() {
                            lock(&self.state).trouble(error.into());
                        }
                        sleep(LONG_PAUSE).await;
                    }
                }
            }
        }
        let mut found: HashMap<TopicPartition, (i64, bool)> =
            committed.into_iter().map(|one| ((one.topic, one.partition), (one.offset, true))).collect();
        {
            let mut state = lock(&self.state);
            for (partition, _) in &open {
                if let Some(&at_least) = self.config.at_least.get(partition)
                    && state.begun.insert(partition.clone())
                    && found.get(partition).is_none_or(|(offset, _)| *offset < at_least)
                {
                    found.insert(partition.clone(), (at_least, false));
                }
            }
        }
        let mut new = Vec::new();
        {
            let mut state = lock(&self.state);
            for (partition, version) in open {
                let committed = found.get(&partition).map(|(offset, _)| *offset);
                if state.goes_on(&partition, version, committed) {
                    continue;
                }
                if committed.is_none() {
                    new.push((partition, version));
                    continue;
                }
                let (offset, committed) = found[&partition];
                state.begin_at(&partition, version, offset, committed.then_some(offset));
            }
        }
        self.changed.notify_waiters();
        self.reset(new).await;
    }

    /// Begins where the configuration says when no offset does.
    async fn reset(self: Arc<Self>, mut open: Vec<(TopicPartition, u64)>) {
        let at = match self.config.reset {
            OffsetReset::Earliest => OffsetSpec::Earliest,
            OffsetReset::Latest => OffsetSpec::Latest,
            OffsetReset::None => {
                let mut state = lock(&self.state);
                for ((topic, partition), _) in open {
                    state.trouble(ConsumerError::NoOffset(topic, partition));
                }
                drop(state);
                self.changed.notify_waiters();
                return;
            }
        };
        loop {
            self.keep_current(&mut open);
            if open.is_empty() {
                return;
            }
            let wanted: Vec<_> = open.iter().map(|(partition, _)| (partition.clone(), at)).collect();
            let listed = self.list_offsets(&wanted).await;
            let mut left = Vec::new();
            {
                let mut state = lock(&self.state);
                for ((partition, version), listed) in open.into_iter().zip(listed) {
                    match listed.map(|listed| listed.offset) {
                        // Not committed yet: whoever has the partition next must not begin elsewhere.
                        Ok(Some(offset)) => state.begin_at(&partition, version, offset, None),
                        Ok(None) => left.push((partition, version)),
                        Err(error) => {
                            tracing::debug!(topic = %partition.0, partition = partition.1, %error, "no offset yet");
                            if !error.is_retriable() {
                                state.trouble(error.into());
                            }
                            left.push((partition, version));
                        }
                    }
                }
            }
            self.delivered.notify_one();
            self.changed.notify_waiters();
            open = left;
            if !open.is_empty() {
                sleep(LONG_PAUSE).await;
            }
        }
    }

    /// Leaves out what is not read any more, or was sought elsewhere.
    fn keep_current(&self, open: &mut Vec<(TopicPartition, u64)>) {
        let state = lock(&self.state);
        open.retain(|(partition, version)| state.partitions.get(partition).is_some_and(|one| one.version == *version));
        if *self.closing.borrow() {
            open.clear();
        }
    }

    /// Partitions of these topics, as far as they are there.
    pub(super) async fn count(&self, topics: &[Arc<str>]) -> PartitionCounts {
        let mut counts = PartitionCounts::new();
        for topic in topics {
            match self.cluster.topic(topic).await {
                Ok(info) => {
                    let count = i32::try_from(info.partitions.len()).unwrap_or(i32::MAX);
                    counts.insert(topic.clone(), count);
                }
                Err(error) => tracing::debug!(%topic, %error, "a topic of the group"),
            }
        }
        counts
    }
}

impl Partitions {
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

/// What an answer keeps in memory.
fn bytes_of(result: &Result<Vec<Part>, Error>) -> usize {
    let parts = result.iter().flatten();
    parts.map(|part| if let Part::Fetched(fetched) = part { fetched.records.len() } else { 0 }).sum()
}

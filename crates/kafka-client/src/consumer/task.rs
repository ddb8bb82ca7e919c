//! The task that keeps a consumer in its group, whatever its reader does.
//!
//! It does what the [`Membership`] says, one step after the other, and tells it what came of it. Nothing here waits for a
//! poll. It ends when the consumer is closed or dropped: it commits, leaves the group, and is gone.

use super::assignor::PartitionCounts;
use super::membership::{Membership, Settings, Step};
use super::partitions::Target;
use super::{Shared, TopicPartition, Wants};
use crate::cluster::lock;
use crate::messages::LeaveGroupRequest;
use crate::{Error, ErrorCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

/// How often topics are looked after: kept in the snapshot, and asked for while they are not there.
const TOPICS_INTERVAL: Duration = Duration::from_secs(10);
/// How often topics that match are looked for.
const MATCH_INTERVAL: Duration = Duration::from_secs(30);
/// The pause after the coordinator could not be asked.
const PAUSE: Duration = Duration::from_millis(500);
/// For the last commit before partitions are given up; a broker that does not answer must not keep the member out of the
/// rebalance.
const LAST_COMMIT: Duration = Duration::from_secs(5);
/// For leaving.
const LEAVE: Duration = Duration::from_secs(3);

/// A consumer's whole life.
pub(super) async fn run(shared: Arc<Shared>) {
    let committer = shared.config.auto_commit.map(|every| {
        let task = shared.clone().commit_delivered(every);
        AbortOnDrop(shared.cluster.spawn(task).abort_handle())
    });
    let (found, matches) = mpsc::channel(1);
    let mut ticks = interval(TOPICS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut task = Task { member: None, target_version: 0, counts: PartitionCounts::new(), shared, matches, found };
    let mut closing = task.shared.closing.subscribe();
    let mut metadata = task.shared.cluster.subscribe();
    loop {
        let until = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => break,
            until = task.step() => until,
        };
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => break,
            () = task.shared.wake.notified() => {}
            () = sleep_until(until.unwrap_or_else(|| Instant::now() + MATCH_INTERVAL)) => {}
            Some(topics) = task.matches.recv() => task.set_topics(topics),
            changed = metadata.changed() => {
                if changed.is_err() {
                    break;
                }
                task.compare_counts();
            }
            _ = ticks.tick() => task.look_after_topics(),
        }
    }
    drop(committer);
    task.end().await;
    task.shared.ended.send_replace(true);
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Task {
    shared: Arc<Shared>,
    member: Option<Membership>,
    /// Of the target that was last acted upon.
    target_version: u64,
    /// What this leader assigned by.
    counts: PartitionCounts,
    /// Topics that matched.
    matches: mpsc::Receiver<Vec<Arc<str>>>,
    found: mpsc::Sender<Vec<Arc<str>>>,
}

impl Task {
    /// Does what is to be done now. When there will be more, if that is known.
    async fn step(&mut self) -> Option<Instant> {
        loop {
            self.follow_target().await;
            let step = self.member.as_mut()?.step(Instant::now());
            let shared = self.shared.clone();
            let Some(group) = &shared.config.group else { return None };
            let member = self.member.as_mut()?;
            match step {
                Step::Wait(until) => {
                    let mut state = lock(&shared.state);
                    state.membership = member.credentials();
                    let joined = state.membership.is_some();
                    if state.is_joined != joined {
                        state.is_joined = joined;
                        drop(state);
                        shared.changed.notify_waiters();
                    }
                    return until;
                }
                Step::Revoke(revoked) => {
                    shared.give_up(&revoked).await;
                    member.handle_revoke(&revoked);
                }
                Step::Lose(lost) => {
                    {
                        let mut state = lock(&shared.state);
                        state.is_joined = false;
                        state.membership = None;
                        state.remove(&lost);
                    }
                    shared.changed.notify_waiters();
                    member.handle_lose();
                }
                Step::Join(request) => {
                    lock(&shared.state).is_joined = false;
                    let hold = shared.config.rebalance_timeout;
                    let answer =
                        shared.cluster.ask_coordinator_patiently(group, request, hold, |answer| answer.error).await;
                    let failed = log_failure(group, "join", answer.as_ref().err());
                    member.handle_join(answer, Instant::now());
                    if failed {
                        sleep(PAUSE).await;
                    }
                }
                Step::Count(topics) => {
                    self.counts = shared.count(&topics).await;
                    member.handle_count(&self.counts);
                }
                Step::Sync(request) => {
                    let hold = shared.config.rebalance_timeout;
                    let answer =
                        shared.cluster.ask_coordinator_patiently(group, request, hold, |answer| answer.error).await;
                    let failed = log_failure(group, "sync", answer.as_ref().err());
                    member.handle_sync(answer, Instant::now());
                    if failed {
                        sleep(PAUSE).await;
                    }
                }
                Step::Assign(added) => {
                    member.handle_assign(added.clone());
                    {
                        let mut state = lock(&shared.state);
                        state.membership = member.credentials();
                        state.is_joined = true;
                        let generation = state.membership.as_ref().map_or(-1, |membership| membership.generation);
                        tracing::info!(%group, generation, partitions = added.len(), "assigned");
                        state.add(&added);
                    }
                    shared.find_positions(added);
                    shared.changed.notify_waiters();
                }
                Step::Heartbeat(request) => {
                    let limit = shared.config.session_timeout / 3;
                    let answer = shared.cluster.ask_coordinator(group, request, |answer| answer.error);
                    let answer = timeout(limit, answer).await.unwrap_or_else(|_| {
                        // It may hang while another one has taken over.
                        shared.cluster.forget_coordinator(group);
                        Err(Error::TimedOut { maybe_sent: true, after: limit })
                    });
                    log_failure(group, "heartbeat", answer.as_ref().err());
                    member.handle_heartbeat(answer.map(|answer| answer.error), Instant::now());
                }
                Step::Fail => {
                    if let Some(error) = member.failure() {
                        tracing::warn!(%group, %error, "out of the group for good");
                        lock(&shared.state).fail(error.clone());
                    }
                    self.member = None;
                    shared.changed.notify_waiters();
                    return None;
                }
            }
        }
    }

    /// Becomes a member, changes what it wants, or leaves, as the consumer was told.
    async fn follow_target(&mut self) {
        let (target, version, topics) = {
            let state = lock(&self.shared.state);
            (state.target.clone(), state.target_version, state.topics.clone())
        };
        if version == self.target_version {
            return;
        }
        self.target_version = version;
        match target {
            Target::Group(Wants::Topics(_)) => self.set_topics(topics),
            Target::Group(Wants::Matching(_)) => self.look_for_matches(),
            Target::Nothing | Target::Manual => self.leave("unsubscribed").await,
        }
    }

    fn set_topics(&mut self, topics: Vec<Arc<str>>) {
        let Some(group) = &self.shared.config.group else { return };
        {
            let mut state = lock(&self.shared.state);
            if !matches!(state.target, Target::Group(_)) {
                return;
            }
            state.topics.clone_from(&topics);
        }
        let config = &self.shared.config;
        let settings = || Settings {
            group: group.clone(),
            instance: config.instance.clone(),
            rack: self.shared.cluster.rack(),
            assignors: config.assignors.clone(),
            session_timeout: config.session_timeout,
            rebalance_timeout: config.rebalance_timeout,
            heartbeat_interval: config.heartbeat_interval,
        };
        let member = self.member.get_or_insert_with(|| Membership::new(settings(), Instant::now()));
        member.handle_topics(topics);
    }

    /// Keeps topics known, and looks for new ones.
    fn look_after_topics(&mut self) {
        let mut topics = self.member.as_ref().map(Membership::led_topics).unwrap_or_default();
        {
            let state = lock(&self.shared.state);
            topics.extend(state.assignment().into_iter().map(|(topic, _)| topic));
        }
        topics.sort_unstable();
        topics.dedup();
        let known = self.shared.cluster.metadata();
        for topic in topics {
            if known.topics.contains_key(&topic) {
                self.shared.cluster.touch_topic(&topic);
            } else {
                let cluster = self.shared.cluster.clone();
                // What comes of it is seen in the snapshot.
                self.shared.cluster.spawn(async move { drop(cluster.topic(&topic).await) });
            }
        }
        self.look_for_matches();
    }

    fn look_for_matches(&mut self) {
        let target = lock(&self.shared.state).target.clone();
        let Target::Group(Wants::Matching(matches)) = target else { return };
        let (cluster, found) = (self.shared.cluster.clone(), self.found.clone());
        self.shared.cluster.spawn(async move {
            match cluster.list_topics().await {
                Ok(topics) => {
                    let topics = topics.iter().filter(|topic| !topic.internal && matches(&topic.name));
                    let topics = topics.map(|topic| topic.name.clone()).collect();
                    // One that is there already is as good.
                    let _ = found.try_send(topics);
                }
                Err(error) => tracing::debug!(%error, "no list of topics to match"),
            }
        });
    }

    /// A leader shares out anew when topics come, grow or go.
    fn compare_counts(&mut self) {
        let Some(member) = &mut self.member else { return };
        let known = self.shared.cluster.metadata();
        let changed = member.led_topics().iter().any(|topic| {
            let count = known.topics.get(topic).map(|topic| i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX));
            count != self.counts.get(topic).copied()
        });
        if changed {
            member.handle_changed_counts();
        }
    }

    async fn leave(&mut self, reason: &'static str) {
        let Some(member) = self.member.take() else { return };
        {
            let mut state = lock(&self.shared.state);
            state.is_joined = false;
            state.membership = None;
        }
        // A static member comes back (KIP-345).
        let (Some(group), Some(id), None) = (&self.shared.config.group, member.member(), &self.shared.config.instance)
        else {
            return;
        };
        let request =
            LeaveGroupRequest { group: group.clone(), member: id.clone(), instance: None, reason: Some(reason.into()) };
        let left = timeout(LEAVE, self.shared.cluster.ask_coordinator(group, request, |answer| answer.error)).await;
        match left {
            Ok(Ok(answer)) if answer.error.is_ok() => tracing::info!(%group, member = %id, "left"),
            // The session's end does the same, later.
            other => tracing::debug!(%group, member = %id, ?other, "could not leave"),
        }
    }

    async fn end(&mut self) {
        let all = lock(&self.shared.state).assignment();
        self.shared.give_up(&all).await;
        self.leave("closed").await;
    }
}

impl Shared {
    /// Partitions of these topics, as far as they are there.
    async fn count(&self, topics: &[Arc<str>]) -> PartitionCounts {
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

    /// Commits what was delivered of these and stops reading them.
    async fn give_up(&self, partitions: &[TopicPartition]) {
        if self.config.auto_commit.is_some() {
            let offsets = lock(&self.state).uncommitted(Some(partitions));
            if timeout(LAST_COMMIT, self.commit_now(offsets)).await.is_err() {
                tracing::warn!("the last commit before a rebalance took too long");
            }
        }
        lock(&self.state).remove(partitions);
        self.changed.notify_waiters();
    }

    /// Commits again and again, one commit at a time, never more often than `every`.
    async fn commit_delivered(self: Arc<Self>, every: Duration) {
        loop {
            self.delivered.notified().await;
            let offsets = lock(&self.state).uncommitted(None);
            self.commit_now(offsets).await;
            sleep(every).await;
        }
    }

    async fn commit_now(&self, offsets: Vec<crate::GroupOffset>) {
        let Some(group) = self.config.group.as_ref().filter(|_| !offsets.is_empty()) else { return };
        let membership = {
            let state = lock(&self.state);
            match (&state.target, &state.membership) {
                (Target::Group(_), None) => return,
                (_, membership) => membership.clone(),
            }
        };
        match self.cluster.commit_group_offsets(group, membership, &offsets).await {
            Ok(()) => lock(&self.state).handle_committed(&offsets),
            Err(error) => {
                // A rebalance: the task knows soon, and what is kept is committed with the next poll.
                tracing::debug!(%group, %error, "offsets were not committed");
                if matches!(error.code(), Some(ErrorCode::REBALANCE_IN_PROGRESS)) {
                    self.wake.notify_one();
                }
            }
        }
    }
}

/// Whether there was a failure.
fn log_failure(group: &Arc<str>, what: &str, error: Option<&Error>) -> bool {
    if let Some(error) = error {
        tracing::warn!(%group, what, %error, "the group's coordinator could not be asked");
    }
    error.is_some()
}

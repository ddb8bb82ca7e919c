//! A member of a group, as a state machine without clock or socket: what happened goes in through `handle_*`, what to do
//! next comes out of [`Membership::step`].
//!
//! ```text
//!               subscribe                               assigned, nothing left to revoke
//!      Idle ──────────────▶ Preparing ◀──────────────────────────────────────────┐
//!                            │ eager: revoke all                                  │ something was revoked
//!                            ▼                                                    │
//!        ┌───────────────▶ Joining ──▶ (leader: Counting) ──▶ Syncing ──▶ Assigning ──▶ Stable ─┐
//!        │ MEMBER_ID_       │   ▲                               │                       │  ▲     │ heartbeat
//!        │ REQUIRED         ▼   │     REBALANCE_IN_PROGRESS     │  REBALANCE_IN_PROGRESS│  └─────┘
//!        └──────────────────┘   └───────────────────────────────┴── (by Preparing) ─────┘
//!                               ▲
//!        Lost ──────────────────┘   UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION, no answer for a session:
//!                                   others may read its partitions by now, so nothing is committed
//! ```
//!
//! *Eager* and *cooperative* as in Java (KIP-429): a member that offers `range` gives up everything before it joins
//! again, for whoever leads may assign it to others; one that offers cooperative-sticky alone keeps what it has and gives
//! up what it is not assigned any more, then joins once more so that others can have it.

use super::assignor::{self, Assignor, Member, PartitionCounts};
use super::protocol::{Assignment, Partitions, Subscription};
use crate::messages::{HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse};
use crate::{Error, ErrorCode, cluster};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A partition by its topic's name.
pub(crate) type Partition = (Arc<str>, i32);

/// What a member is made of.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) group: Arc<str>,
    pub(crate) instance: Option<Arc<str>>,
    pub(crate) rack: Option<Arc<str>>,
    pub(crate) assignors: Vec<Assignor>,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) heartbeat_interval: Duration,
}

/// What to do next. Each is answered by the `handle_*` of its name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Nothing before then, or before something else happens.
    Wait(Option<Instant>),
    /// Commit what was read of these, then stop reading them.
    Revoke(Vec<Partition>),
    /// Stop reading these: they may be others' already.
    Lose(Vec<Partition>),
    /// Ask the coordinator.
    Join(JoinGroupRequest),
    /// Find out how many partitions these topics have.
    Count(Vec<Arc<str>>),
    /// Ask the coordinator.
    Sync(SyncGroupRequest),
    /// Begin to read these.
    Assign(Vec<Partition>),
    /// Ask the coordinator.
    Heartbeat(HeartbeatRequest),
    /// The group does not take this member: see [`Membership::failure`].
    Fail,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Preparing,
    Joining,
    Counting,
    Syncing(Vec<(Arc<str>, Bytes)>),
    Assigning(BTreeSet<Partition>),
    Stable,
    Lost,
    Failed(Error),
}

/// One member's state.
#[derive(Debug)]
pub(crate) struct Membership {
    settings: Settings,
    topics: Vec<Arc<str>>,
    phase: Phase,
    member: Arc<str>,
    /// -1: in none.
    generation: i32,
    protocol: Assignor,
    /// Everybody, where this is the leader.
    led: Vec<Member>,
    /// The leader must not assign anew (KIP-814).
    keeps_assignment: bool,
    owned: BTreeSet<Partition>,
    /// Something happened that takes another rebalance.
    rejoin: bool,
    /// Why, for the broker's log.
    reason: &'static str,
    /// When the coordinator last said that the member is in.
    heard: Instant,
    next_heartbeat: Instant,
}

impl Membership {
    pub(crate) fn new(settings: Settings, now: Instant) -> Self {
        Self {
            protocol: settings.assignors.first().copied().unwrap_or(Assignor::Range),
            settings,
            topics: Vec::new(),
            phase: Phase::Idle,
            member: "".into(),
            generation: -1,
            led: Vec::new(),
            keeps_assignment: false,
            owned: BTreeSet::new(),
            rejoin: false,
            reason: "subscribed",
            heard: now,
            next_heartbeat: now,
        }
    }

    /// In whose name to commit; `None`: in no generation.
    pub(crate) fn credentials(&self) -> Option<cluster::Membership> {
        (self.generation >= 0).then(|| cluster::Membership {
            generation: self.generation,
            member: self.member.clone(),
            instance: self.settings.instance.clone(),
        })
    }

    /// The member's id, once the coordinator has given one.
    pub(crate) fn member(&self) -> Option<&Arc<str>> {
        Some(&self.member).filter(|member| !member.is_empty())
    }

    /// Why the group does not take this member.
    pub(crate) fn failure(&self) -> Option<&Error> {
        match &self.phase {
            Phase::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// All topics that a leader has to watch; of others, nothing.
    pub(crate) fn led_topics(&self) -> Vec<Arc<str>> {
        let topics: BTreeSet<_> = self.led.iter().flat_map(|member| member.subscription.topics.clone()).collect();
        topics.into_iter().collect()
    }

    /// Whether partitions are kept while the group rebalances.
    fn is_cooperative(&self) -> bool {
        self.settings.assignors.iter().all(|assignor| *assignor == Assignor::CooperativeSticky)
    }

    pub(crate) fn step(&mut self, now: Instant) -> Step {
        loop {
            match &self.phase {
                Phase::Idle => return Step::Wait(None),
                Phase::Failed(_) => return Step::Fail,
                Phase::Lost if self.owned.is_empty() => self.phase = Phase::Joining,
                Phase::Lost => return Step::Lose(self.owned.iter().cloned().collect()),
                Phase::Preparing if self.is_cooperative() || self.owned.is_empty() => self.phase = Phase::Joining,
                Phase::Preparing => return Step::Revoke(self.owned.iter().cloned().collect()),
                Phase::Joining => return Step::Join(self.join_request()),
                Phase::Counting => return Step::Count(self.led_topics()),
                Phase::Syncing(assignments) => {
                    return Step::Sync(SyncGroupRequest {
                        group: self.settings.group.clone(),
                        generation: self.generation,
                        member: self.member.clone(),
                        instance: self.settings.instance.clone(),
                        protocol: self.protocol.name().into(),
                        assignments: assignments.clone(),
                    });
                }
                Phase::Assigning(assigned) => {
                    let revoked: Vec<_> = self.owned.difference(assigned).cloned().collect();
                    if !revoked.is_empty() {
                        return Step::Revoke(revoked);
                    }
                    let added: Vec<_> = assigned.difference(&self.owned).cloned().collect();
                    if !added.is_empty() {
                        return Step::Assign(added);
                    }
                    self.phase = Phase::Stable;
                }
                Phase::Stable if self.rejoin => {
                    self.rejoin = false;
                    self.phase = Phase::Preparing;
                }
                Phase::Stable => {
                    let end = self.heard + self.settings.session_timeout;
                    if end <= now {
                        self.lose("the session timed out");
                        continue;
                    }
                    if self.next_heartbeat > now {
                        return Step::Wait(Some(self.next_heartbeat.min(end)));
                    }
                    return Step::Heartbeat(HeartbeatRequest {
                        group: self.settings.group.clone(),
                        generation: self.generation,
                        member: self.member.clone(),
                        instance: self.settings.instance.clone(),
                    });
                }
            }
        }
    }

    fn join_request(&self) -> JoinGroupRequest {
        let mut owned: Partitions = Vec::new();
        if self.is_cooperative() {
            for (topic, partition) in &self.owned {
                match owned.last_mut() {
                    Some((last, partitions)) if last == topic => partitions.push(*partition),
                    _ => owned.push((topic.clone(), vec![*partition])),
                }
            }
        }
        let subscription = |assignor| Subscription {
            topics: self.topics.clone(),
            // Members that read no more than version 1 find the generation there.
            user_data: (assignor == Assignor::CooperativeSticky)
                .then(|| Bytes::copy_from_slice(&self.generation.to_be_bytes())),
            owned: owned.clone(),
            generation: self.generation,
            rack: self.settings.rack.clone(),
        };
        let protocols = self.settings.assignors.iter().map(|a| (a.name(), subscription(*a).encode()));
        JoinGroupRequest {
            group: self.settings.group.clone(),
            session_timeout: self.settings.session_timeout,
            rebalance_timeout: self.settings.rebalance_timeout,
            member: self.member.clone(),
            instance: self.settings.instance.clone(),
            protocols: protocols.collect(),
            reason: Some(self.reason.into()),
        }
    }

    /// The topics to read; none: the member is to leave, which is the shell's to do.
    pub(crate) fn handle_topics(&mut self, topics: Vec<Arc<str>>) {
        if topics == self.topics && !matches!(self.phase, Phase::Idle) {
            return;
        }
        self.topics = topics;
        self.reason = "the subscription changed";
        if matches!(self.phase, Phase::Idle) {
            self.phase = Phase::Preparing;
        } else {
            self.rejoin = true;
        }
    }

    /// Topics that this leader assigns have come, gone or grown.
    pub(crate) fn handle_changed_counts(&mut self) {
        self.reason = "topics changed";
        self.rejoin = true;
    }

    pub(crate) fn handle_revoke(&mut self, revoked: &[Partition]) {
        for partition in revoked {
            self.owned.remove(partition);
        }
        // Cooperatively, others get it once this member has joined without it.
        if matches!(self.phase, Phase::Assigning(_)) {
            self.reason = "partitions were revoked";
            self.rejoin = true;
        }
    }

    pub(crate) fn handle_lose(&mut self) {
        self.owned.clear();
    }

    pub(crate) fn handle_assign(&mut self, assigned: Vec<Partition>) {
        self.owned.extend(assigned);
    }

    pub(crate) fn handle_join(&mut self, answer: Result<JoinGroupResponse, Error>, now: Instant) {
        let answer = match answer {
            Ok(answer) => answer,
            // Unless it cannot help, the shell comes again.
            Err(error) => {
                if self.heard + self.settings.session_timeout <= now && !self.owned.is_empty() {
                    self.lose("the coordinator was not reached for a session");
                }
                return self.fail_unless_retriable(error);
            }
        };
        match answer.error {
            ErrorCode::NONE => {}
            ErrorCode::MEMBER_ID_REQUIRED => {
                self.member = answer.member;
                return;
            }
            ErrorCode::UNKNOWN_MEMBER_ID => {
                self.member = "".into();
                return self.lose("the member id is not known");
            }
            ErrorCode::ILLEGAL_GENERATION => return self.lose("the generation is over"),
            ErrorCode::REBALANCE_IN_PROGRESS => return,
            code => return self.phase = Phase::Failed(Error::broker("JoinGroup", code, None)),
        }
        let Some(protocol) = answer.protocol.as_deref().and_then(Assignor::of_name) else {
            let error = Error::InvalidRequest("the group shares partitions out in a way that was not offered");
            return self.phase = Phase::Failed(error);
        };
        self.protocol = protocol;
        self.generation = answer.generation;
        self.rejoin = false;
        self.heard = now;
        self.led.clear();
        if answer.leader != answer.member {
            self.member = answer.member;
            return self.phase = Phase::Syncing(Vec::new());
        }
        self.member = answer.member;
        self.keeps_assignment = answer.skip_assignment;
        for member in answer.members {
            match Subscription::decode(member.subscription) {
                Ok(subscription) => {
                    self.led.push(Member { id: member.id, instance: member.instance, subscription });
                }
                Err(error) => {
                    // It gets nothing, and hears so; the others are not its hostages.
                    tracing::warn!(group = %self.settings.group, member = %member.id, %error, "a member's subscription");
                }
            }
        }
        self.phase = Phase::Counting;
    }

    pub(crate) fn handle_count(&mut self, counts: &PartitionCounts) {
        let assignments =
            if self.keeps_assignment { Vec::new() } else { assignor::assign(self.protocol, &self.led, counts) };
        let encoded = assignments.into_iter().map(|(member, assignment)| (member, assignment.encode()));
        self.phase = Phase::Syncing(encoded.collect());
    }

    pub(crate) fn handle_sync(&mut self, answer: Result<SyncGroupResponse, Error>, now: Instant) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return self.fail_unless_retriable(error),
        };
        match answer.error {
            ErrorCode::NONE => {}
            ErrorCode::REBALANCE_IN_PROGRESS => {
                self.reason = "the group rebalances";
                return self.phase = Phase::Preparing;
            }
            ErrorCode::UNKNOWN_MEMBER_ID => {
                self.member = "".into();
                return self.lose("the member id is not known");
            }
            ErrorCode::ILLEGAL_GENERATION => return self.lose("the generation is over"),
            code => return self.phase = Phase::Failed(Error::broker("SyncGroup", code, None)),
        }
        match Assignment::decode(answer.assignment) {
            Ok(assignment) => {
                let assigned = assignment.partitions.into_iter();
                let assigned =
                    assigned.flat_map(|(topic, partitions)| partitions.into_iter().map(move |p| (topic.clone(), p)));
                self.phase = Phase::Assigning(assigned.collect());
                self.heard = now;
                self.next_heartbeat = now + self.settings.heartbeat_interval;
            }
            Err(source) => self.phase = Phase::Failed(Error::Malformed { api: "SyncGroup", source }),
        }
    }

    pub(crate) fn handle_heartbeat(&mut self, answer: Result<ErrorCode, Error>, now: Instant) {
        self.next_heartbeat = now + self.settings.heartbeat_interval;
        let code = match answer {
            Ok(code) => code,
            // The session's end decides.
            Err(error) => return self.fail_unless_retriable(error),
        };
        match code {
            ErrorCode::NONE => self.heard = now,
            ErrorCode::REBALANCE_IN_PROGRESS => {
                self.heard = now;
                self.reason = "the group rebalances";
                self.rejoin = true;
            }
            ErrorCode::UNKNOWN_MEMBER_ID => {
                self.member = "".into();
                self.lose("the member id is not known");
            }
            ErrorCode::ILLEGAL_GENERATION => self.lose("the generation is over"),
            code => self.phase = Phase::Failed(Error::broker("Heartbeat", code, None)),
        }
    }

    /// Others may have its partitions.
    fn lose(&mut self, reason: &'static str) {
        tracing::info!(group = %self.settings.group, member = %self.member, reason, "out of the group; joining again");
        self.generation = -1;
        self.reason = reason;
        self.phase = Phase::Lost;
    }

    fn fail_unless_retriable(&mut self, error: Error) {
        if !error.is_retriable() {
            self.phase = Phase::Failed(error);
        }
    }
}

#[cfg(test)]
mod tests;

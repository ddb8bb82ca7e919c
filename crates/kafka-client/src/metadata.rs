//! What the cluster looks like: one immutable snapshot, and the pure rules by which a broker's answer becomes the next
//! one.
//!
//! Brokers learn of changes at different times, so an answer may be older than what is known. The rules:
//!
//! - A partition's leader with an older leader epoch than the known one is not believed, for the same topic id
//!   (KIP-320). The same epoch, or none, is: refusing those left clients stuck on a dead leader.
//! - Another topic id is another topic: nothing of the old one is kept (KIP-516). Without ids (before 2.8) a re-created
//!   topic looks like a lagging broker; so an older epoch is believed there once it has been told [`BELIEVED_AFTER`]
//!   times in a row.
//! - A partition without a leader is kept without one, and asked for again soon.

use crate::{
    Broker, ErrorCode, TopicId,
    messages::{MetadataResponse, PartitionMetadata, TopicMetadata},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// One immutable snapshot. Topics are those somebody asked for and used lately.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// Rises with every snapshot; 0: no broker has answered yet.
    pub generation: u64,
    /// The cluster's id.
    pub cluster_id: Option<Arc<str>>,
    /// The node that takes topic changes.
    pub controller: Option<i32>,
    /// The live brokers by id.
    pub brokers: HashMap<i32, Broker>,
    /// The topics by name.
    pub topics: HashMap<Arc<str>, Arc<TopicInfo>>,
}

/// One topic. Shared by snapshots as long as nothing about it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// The name.
    pub name: Arc<str>,
    /// The id; another id under the same name is another topic.
    pub id: TopicId,
    /// One of Kafka's own.
    pub internal: bool,
    /// By partition number, without gaps.
    pub partitions: Vec<PartitionInfo>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The leader's id; `None` while there is none.
    pub leader: Option<i32>,
    /// -1 where unknown.
    pub leader_epoch: i32,
    /// All replicas.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub in_sync: Vec<i32>,
}

impl TopicInfo {
    /// Whether some partition has no leader.
    pub(crate) fn is_leaderless(&self) -> bool {
        self.partitions.iter().any(|p| p.leader.is_none())
    }
}

/// After how many answers in a row an older leader epoch is believed where topics have no ids.
pub(crate) const BELIEVED_AFTER: u32 = 3;

/// What is remembered between answers beside the snapshot.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// Topics that some broker did not know, once.
    missing: HashSet<Arc<str>>,
    /// Topics without an id whose epochs went back, and how often in a row.
    older: HashMap<Arc<str>, u32>,
}

/// What an answer says about one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is in the new snapshot.
    Found(Arc<TopicInfo>),
    /// This broker does not know it.
    Missing,
    /// Any other error.
    Failed(ErrorCode),
}

/// Takes `answer` into `known`. The generation is left as it is; topics that are missing stay in the snapshot until
/// [`confirm_missing`].
pub(crate) fn merge(
    known: &Metadata,
    answer: MetadataResponse,
    doubts: &mut Doubts,
) -> (Metadata, Vec<(Arc<str>, Verdict)>) {
    let mut next = Metadata {
        generation: known.generation,
        cluster_id: answer.cluster_id.or_else(|| known.cluster_id.clone()),
        controller: (answer.controller >= 0).then_some(answer.controller),
        brokers: answer.brokers.into_iter().map(|b| (b.id, b)).collect(),
        topics: known.topics.clone(),
    };
    let mut verdicts = Vec::with_capacity(answer.topics.len());
    for topic in answer.topics {
        let Some(name) = topic.name.clone() else {
            continue;
        };
        let verdict = match topic.error {
            // A topic that is being created: it is there, its leaders are not.
            ErrorCode::NONE | ErrorCode::LEADER_NOT_AVAILABLE => {
                let known = next.topics.get(&name);
                match merge_topic(name.clone(), topic, known, doubts) {
                    // No partitions yet: nothing to be used.
                    Some(info) if info.partitions.is_empty() => Verdict::Failed(ErrorCode::LEADER_NOT_AVAILABLE),
                    Some(info) => {
                        doubts.missing.remove(&name);
                        next.topics.insert(info.name.clone(), info.clone());
                        Verdict::Found(info)
                    }
                    None => Verdict::Failed(ErrorCode::UNKNOWN_SERVER_ERROR),
                }
            }
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::UNKNOWN_TOPIC_ID => Verdict::Missing,
            code => Verdict::Failed(code),
        };
        verdicts.push((name, verdict));
    }
    (next, verdicts)
}

/// A broker does not know `name`. The second time in a row it is gone. True if so.
pub(crate) fn confirm_missing(next: &mut Metadata, name: &Arc<str>, doubts: &mut Doubts) -> bool {
    if next.topics.contains_key(name) && doubts.missing.insert(name.clone()) {
        return false;
    }
    doubts.missing.remove(name);
    doubts.older.remove(name);
    next.topics.remove(name);
    true
}

/// `None`: the partitions are not numbered 0, 1, 2 and so on.
fn merge_topic(
    name: Arc<str>,
    mut topic: TopicMetadata,
    known: Option<&Arc<TopicInfo>>,
    doubts: &mut Doubts,
) -> Option<Arc<TopicInfo>> {
    topic.partitions.sort_unstable_by_key(|p| p.index);
    let in_order = (0_i32..).zip(&topic.partitions).all(|(i, p)| p.index == i);
    if !in_order {
        return None;
    }
    let known = known.filter(|known| known.id == topic.id || known.id.is_zero() || topic.id.is_zero());
    let is_older =
        |(new, old): (&PartitionMetadata, &PartitionInfo)| new.leader_epoch >= 0 && new.leader_epoch < old.leader_epoch;
    // What is kept of the known topic.
    let keep = known.filter(|known| {
        let older = topic.partitions.iter().zip(&known.partitions).any(is_older)
            || topic.partitions.len() < known.partitions.len();
        if !older {
            doubts.older.remove(&name);
            return false;
        }
        let times = doubts.older.entry(name.clone()).or_default();
        *times += 1;
        if topic.id.is_zero() && *times >= BELIEVED_AFTER {
            doubts.older.remove(&name);
            return false;
        }
        true
    });
    let mut partitions: Vec<_> = topic
        .partitions
        .into_iter()
        .enumerate()
        .map(|(i, new)| match keep.and_then(|keep| keep.partitions.get(i)) {
            Some(old) if is_older((&new, old)) => old.clone(),
            _ => PartitionInfo {
                leader: (new.leader >= 0).then_some(new.leader),
                leader_epoch: new.leader_epoch,
                replicas: new.replicas,
                in_sync: new.in_sync,
            },
        })
        .collect();
    if let Some(keep) = keep {
        // Partitions are never taken away from a topic.
        let more = keep.partitions.iter().skip(partitions.len()).cloned();
        partitions.extend(more);
    }
    let info = TopicInfo {
        // The known name is the one that others hold.
        name: known.map_or(name, |known| known.name.clone()),
        id: match known {
            Some(known) if topic.id.is_zero() => known.id,
            _ => topic.id,
        },
        internal: topic.internal,
        partitions,
    };
    Some(match known {
        Some(known) if **known == info => known.clone(),
        _ => Arc::new(info),
    })
}

/// KIP-951: a broker named a partition's new leader in another answer. `None` if that is not news.
pub(crate) fn with_leader(
    known: &Metadata,
    (topic, id): (&str, TopicId),
    partition: i32,
    leader: i32,
    leader_epoch: i32,
    endpoints: &[Broker],
) -> Option<Metadata> {
    let info = known.topics.get(topic).filter(|info| info.id == id)?;
    let index = usize::try_from(partition).ok()?;
    if leader < 0 || leader_epoch <= info.partitions.get(index)?.leader_epoch {
        return None;
    }
    // A leader that nobody has an address of cannot be asked.
    let endpoint = endpoints.iter().find(|broker| broker.id == leader);
    if endpoint.is_none() && !known.brokers.contains_key(&leader) {
        return None;
    }
    let mut info = TopicInfo::clone(info);
    if let Some(partition) = info.partitions.get_mut(index) {
        partition.leader = Some(leader);
        partition.leader_epoch = leader_epoch;
    }
    let mut next = known.clone();
    if let Some(endpoint) = endpoint {
        next.brokers.insert(leader, endpoint.clone());
    }
    next.topics.insert(info.name.clone(), Arc::new(info));
    Some(next)
}

/// Whether a topic may have this name, by Kafka's rules; what is not allowed need not be asked for.
pub(crate) fn is_topic_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name.chars().all(allowed) && name != "." && name != ".."
}

#[cfg(test)]
mod tests;

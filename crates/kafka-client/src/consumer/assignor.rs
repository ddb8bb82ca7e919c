//! Who reads what: the two assignors that Java's consumers offer by default, as pure functions.
//!
//! Whoever leads a group assigns for all of its members, ours or others'; so both must give what a Java leader's members
//! expect, but need not give the same. With *range*, all members have given up everything before. With
//! *cooperative-sticky* (KIP-429) members keep what they own until they are told to give it up: a partition that is to
//! move is left out of everybody's assignment first, and given to its new owner when its old one has joined again
//! without it.

use super::protocol::{Assignment, Partitions, Subscription};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// How partitions are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Assignor {
    /// Each topic's partitions in ranges, one after the other, to the members in their order.
    Range,
    /// Evenly, and as much as possible stays where it is; nobody stops reading what it keeps.
    CooperativeSticky,
}

impl Assignor {
    /// Kafka's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        [Self::Range, Self::CooperativeSticky].into_iter().find(|assignor| assignor.name() == name)
    }
}

/// A member as an assignor sees it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    pub(crate) instance: Option<Arc<str>>,
    pub(crate) subscription: Subscription,
}

impl Member {
    /// Static members first, by instance; then the others by id: an order that rebalances do not change.
    fn rank(&self) -> (bool, &str) {
        match &self.instance {
            Some(instance) => (false, instance),
            None => (true, &self.id),
        }
    }
}

/// Partitions of each topic that is there.
pub(crate) type PartitionCounts = HashMap<Arc<str>, i32>;

/// Every member's assignment.
pub(crate) fn assign(assignor: Assignor, members: &[Member], counts: &PartitionCounts) -> Vec<(Arc<str>, Assignment)> {
    let mut members: Vec<&Member> = members.iter().collect();
    members.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let shares = match assignor {
        Assignor::Range => range(&members, counts),
        Assignor::CooperativeSticky => cooperative_sticky(&members, counts),
    };
    members
        .iter()
        .zip(shares)
        .map(|(member, share)| (member.id.clone(), Assignment { partitions: by_topic(share) }))
        .collect()
}

type Partition<'a> = (&'a Arc<str>, i32);

fn by_topic(share: BTreeSet<Partition<'_>>) -> Partitions {
    let mut topics: BTreeMap<&Arc<str>, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in share {
        topics.entry(topic).or_default().push(partition);
    }
    topics.into_iter().map(|(topic, partitions)| (topic.clone(), partitions)).collect()
}

/// For each topic, the members that want it, in order.
fn wanted<'a>(members: &[&'a Member], counts: &'a PartitionCounts) -> BTreeMap<&'a Arc<str>, (i32, Vec<usize>)> {
    let mut topics: BTreeMap<&Arc<str>, (i32, Vec<usize>)> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        let unique: BTreeSet<_> = member.subscription.topics.iter().collect();
        for topic in unique {
            if let Some((topic, count)) = counts.get_key_value(topic) {
                topics.entry(topic).or_insert((*count, Vec::new())).1.push(index);
            }
        }
    }
    topics
}

fn range<'a>(members: &[&'a Member], counts: &'a PartitionCounts) -> Vec<BTreeSet<Partition<'a>>> {
    let mut shares = vec![BTreeSet::new(); members.len()];
    for (topic, (count, readers)) in wanted(members, counts) {
        let readers_count = i32::try_from(readers.len()).unwrap_or(i32::MAX);
        let (each, more) = (count / readers_count, count % readers_count);
        let mut next = 0;
        for (place, reader) in (0..).zip(readers) {
            let end = next + each + i32::from(place < more);
            shares[reader].extend((next..end).map(|partition| (topic, partition)));
            next = end;
        }
    }
    shares
}

fn cooperative_sticky<'a>(members: &[&'a Member], counts: &'a PartitionCounts) -> Vec<BTreeSet<Partition<'a>>> {
    let topics = wanted(members, counts);
    let owners = owners(members, &topics);
    let mut shares = vec![BTreeSet::new(); members.len()];
    for (partition, owner) in &owners {
        shares[*owner].insert(*partition);
    }
    // What nobody has, scarce topics first, to whoever has least.
    let mut free: Vec<(usize, Partition<'_>)> = topics
        .iter()
        .flat_map(|(topic, (count, readers))| (0..*count).map(|partition| (readers.len(), (*topic, partition))))
        .filter(|(_, partition)| !owners.contains_key(partition))
        .collect();
    free.sort();
    let least = |shares: &[BTreeSet<Partition<'_>>], topic| {
        let (_, readers) = &topics[topic];
        readers.iter().copied().min_by_key(|reader| (shares[*reader].len(), *reader))
    };
    for (_, partition) in free {
        if let Some(reader) = least(&shares, partition.0) {
            shares[reader].insert(partition);
        }
    }
    // Then from who has most to who has least. Each move makes the sum of squares smaller, so this ends.
    loop {
        let mut moved = false;
        let mut richest: Vec<usize> = (0..members.len()).collect();
        richest.sort_by_key(|member| std::cmp::Reverse(shares[*member].len()));
        for member in richest {
            for partition in shares[member].clone() {
                let Some(reader) = least(&shares, partition.0) else { continue };
                if shares[member].len() >= shares[reader].len() + 2 {
                    shares[member].remove(&partition);
                    shares[reader].insert(partition);
                    moved = true;
                }
            }
        }
        if !moved {
            break;
        }
    }
    // KIP-429: what its owner has not given up yet is nobody else's. Where nobody's claim counts, whoever made one may
    // be reading.
    let held = held(members);
    for (index, share) in shares.iter_mut().enumerate() {
        share.retain(|partition| match owners.get(partition) {
            Some(owner) => *owner == index,
            None => held.get(partition).is_none_or(|holders| holders.contains(&index)),
        });
    }
    shares
}

/// Whose claim to a partition counts: the newest generation's. Of two claims of one generation neither does.
fn owners<'a>(
    members: &[&'a Member],
    topics: &BTreeMap<&'a Arc<str>, (i32, Vec<usize>)>,
) -> HashMap<Partition<'a>, usize> {
    let mut claims: HashMap<Partition<'_>, (i32, Option<usize>)> = HashMap::new();
    for (index, member) in members.iter().enumerate() {
        let generation = member.subscription.owned_generation();
        let owned: HashSet<_> = owned(member).collect();
        for (topic, partition) in owned {
            let Some((topic, (count, readers))) = topics.get_key_value(topic) else { continue };
            if partition >= *count || partition < 0 || !readers.contains(&index) {
                continue;
            }
            let claim = claims.entry((*topic, partition)).or_insert((i32::MIN, None));
            if generation > claim.0 {
                *claim = (generation, Some(index));
            } else if generation == claim.0 {
                claim.1 = None;
            }
        }
    }
    claims.into_iter().filter_map(|(partition, (_, owner))| Some((partition, owner?))).collect()
}

/// Who says that it has a partition, in whatever generation: it may be reading it still.
fn held<'a>(members: &[&'a Member]) -> HashMap<Partition<'a>, Vec<usize>> {
    let mut held: HashMap<Partition<'_>, Vec<usize>> = HashMap::new();
    for (index, member) in members.iter().enumerate() {
        for partition in owned(member) {
            held.entry(partition).or_default().push(index);
        }
    }
    held
}

fn owned(member: &Member) -> impl Iterator<Item = Partition<'_>> {
    let topics = member.subscription.owned.iter();
    topics.flat_map(|(topic, partitions)| partitions.iter().map(move |partition| (topic, *partition)))
}

#[cfg(test)]
mod tests;

//! What was promised, compared with what is in the logs.

use crate::broker::INVALID;
use crate::cluster::State;
use crate::workload::{Line, Request};
use produce_pipeline::{Outcome, Summary};
use std::collections::{BTreeMap, HashMap};

/// A promise that was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Broken {
    /// `written`, and not there.
    Lost,
    /// There more than once.
    Duplicate,
    /// `not_written`, and there.
    NotWrittenButThere,
    /// A writer's records are not in their order.
    Reordered,
    /// The summary names other offsets, counts or partitions than those where the records are.
    WrongPlace,
    /// A record for one topic is in another, of the same name.
    WrongTopic,
    /// Counts do not add up, or progress went back.
    Incoherent,
    /// Not settled by its deadline, or not at all.
    Unresolved,
    /// Not written though nothing has gone wrong for a while.
    Stuck,
    /// Memory that is still charged.
    Leaked,
    /// A task panicked.
    Panicked,
    /// More connections than promised.
    Connections,
}

pub(crate) type Violations = Vec<(Broken, String)>;

/// How much was checked.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) written: u64,
    pub(crate) not_written: u64,
    pub(crate) unknown: u64,
    /// Of the unknown, those that are there.
    pub(crate) unknown_there: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.written += other.written;
        self.not_written += other.not_written;
        self.unknown += other.unknown;
        self.unknown_there += other.unknown_there;
    }
}

/// Where a record is: topic, partition, offset.
type Place = (usize, usize, i64);

/// Checks every request against every log, those of deleted topics too.
pub(crate) fn check(cluster: &State, requests: &[Request]) -> (Tally, Violations) {
    let mut places: HashMap<&str, Vec<Place>> = HashMap::new();
    let mut violations = Vec::new();
    for (topic, of_topic) in cluster.topics.iter().enumerate() {
        for (partition, of_partition) in of_topic.partitions.iter().enumerate() {
            let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
            for record in &of_partition.log.records {
                let seen = places.entry(&record.value).or_default();
                let again = seen.iter().any(|(of, _, _)| *of == topic);
                seen.push((topic, partition, record.offset));
                let mut parts = record.value.trim_start_matches(INVALID).split(':');
                let (Some(writer), Some(sequence)) = (parts.next(), parts.next()) else { unreachable!("ours") };
                let sequence: u64 = sequence.parse().expect("ours");
                if again {
                    // Only first occurrences must be in order.
                    continue;
                }
                if let Some(before) = newest.insert(writer, sequence)
                    && before >= sequence
                {
                    violations.push((
                        Broken::Reordered,
                        format!(
                            "writer {writer}: {sequence} after {before} at {:?}",
                            (topic, partition, record.offset)
                        ),
                    ));
                }
            }
        }
    }
    let mut check = Check { cluster, places, tally: Tally::default(), violations };
    requests.iter().for_each(|request| check.request(request));
    (check.tally, check.violations)
}

struct Check<'a> {
    cluster: &'a State,
    places: HashMap<&'a str, Vec<Place>>,
    tally: Tally,
    violations: Violations,
}

impl Check<'_> {
    fn complain(&mut self, broken: Broken, what: impl std::fmt::Display, request: &Request) {
        self.violations.push((broken, format!("{what} (topic {:032x}, {:?})", request.topic, request.summary)));
    }

    fn request(&mut self, request: &Request) {
        self.tally.requests += 1;
        for complaint in &request.complaints {
            let broken = if complaint.starts_with("unresolved") { Broken::Unresolved } else { Broken::Incoherent };
            self.complain(broken, complaint, request);
        }
        let Some(summary) = &request.summary else { return self.left(request) };
        let mut counts = [0; 3];
        // By partition: the offsets that the summary must name, and how many records.
        let mut told: BTreeMap<i32, (u64, Vec<i64>)> = BTreeMap::new();
        let mut topics = Vec::new();
        for (line, number) in request.lines.iter().zip(request.first_line..) {
            let failure = summary.failures.iter().find(|f| (f.first_line..=f.last_line).contains(&number));
            let outcome = failure.map_or(Outcome::Written, |failure| failure.outcome);
            // Of lines behind the hundredth run of failures the summary tells no more than the counts.
            let told_of = !summary.failures_truncated || summary.failures.iter().any(|f| number <= f.last_line);
            let (value, partition) = match line {
                Line::Empty => {
                    if failure.is_some() {
                        self.complain(Broken::Incoherent, format_args!("line {number} is empty and failed"), request);
                    }
                    continue;
                }
                Line::Refused => {
                    counts[1] += 1;
                    if told_of && outcome != Outcome::NotWritten {
                        self.complain(Broken::Incoherent, format_args!("line {number} was refused"), request);
                    }
                    continue;
                }
                Line::Record { value, partition } => (value, *partition),
            };
            let places = self.places.get(value.as_str()).cloned().unwrap_or_default();
            self.placed(request, value, partition, &places);
            match outcome {
                _ if !told_of => {}
                Outcome::Written => {
                    counts[0] += 1;
                    let Some((_, partition, offset)) = places.first() else {
                        self.complain(Broken::Lost, value, request);
                        continue;
                    };
                    let (count, offsets) = told.entry(*partition as i32).or_default();
                    *count += 1;
                    offsets.push(*offset);
                    // Sent by name it may be in the old topic and in the new one, and the summary tells of either.
                    topics.extend(places.iter().map(|(topic, _, _)| *topic));
                }
                Outcome::NotWritten => {
                    counts[1] += 1;
                    if !places.is_empty() {
                        self.complain(Broken::NotWrittenButThere, format_args!("{value} at {places:?}"), request);
                    }
                }
                Outcome::Unknown => {
                    counts[2] += 1;
                    self.tally.unknown_there += u64::from(!places.is_empty());
                }
            }
        }
        self.tally.written += counts[0];
        self.tally.not_written += counts[1];
        self.tally.unknown += counts[2];
        let total = (summary.lines, [summary.written, summary.not_written, summary.unknown]);
        if summary.failures_truncated {
            return;
        }
        if total != (request.lines.len() as u64, counts) {
            self.complain(Broken::Incoherent, format_args!("counted {counts:?}"), request);
        }
        topics.dedup();
        if topics.len() <= 1 {
            self.offsets(request, summary, topics.first().copied(), &told);
        }
    }

    /// Nobody was told anything.
    fn left(&mut self, request: &Request) {
        for line in &request.lines {
            if let Line::Record { value, partition } = line {
                let places = self.places.get(value.as_str()).cloned().unwrap_or_default();
                self.placed(request, value, *partition, &places);
            }
        }
    }

    /// At most once, and nowhere else than where it belongs.
    fn placed(&mut self, request: &Request, value: &str, partition: Option<i32>, places: &[Place]) {
        let by_id = self.cluster.scenario.versions.produces_by_id();
        for (i, (topic, at, _)) in places.iter().enumerate() {
            // A request that names the topic may reach the old one and, sent again, the new one.
            if places[..i].iter().any(|(before, _, _)| by_id || before == topic) {
                self.complain(Broken::Duplicate, format_args!("{value} at {places:?}"), request);
            }
            if by_id && self.cluster.topics[*topic].id != request.topic {
                self.complain(Broken::WrongTopic, format_args!("{value} at {places:?}"), request);
            }
            if partition.is_some_and(|partition| partition != *at as i32) {
                self.complain(Broken::WrongPlace, format_args!("{value} at {places:?}"), request);
            }
        }
    }

    /// The summary's partitions are where the written records are.
    fn offsets(
        &mut self,
        request: &Request,
        summary: &Summary,
        topic: Option<usize>,
        told: &BTreeMap<i32, (u64, Vec<i64>)>,
    ) {
        let summarised: Vec<_> = summary.partitions.iter().map(|p| (p.partition, p.count)).collect();
        let there: Vec<_> = told.iter().map(|(partition, (count, _))| (*partition, *count)).collect();
        if summarised != there {
            self.complain(Broken::WrongPlace, format_args!("there are {there:?}"), request);
            return;
        }
        for (summary, (partition, (_, offsets))) in summary.partitions.iter().zip(told) {
            // Where the broker did not tell the offset of some batch, the summary may lack it.
            let untold = self.cluster.offset_not_told.iter().any(|(of, at, base)| {
                Some(*of) == topic && *at as i32 == *partition && offsets.iter().any(|offset| offset >= base)
            });
            let (first, last) = (offsets.iter().min().copied(), offsets.iter().max().copied());
            if !untold && (summary.first_offset, summary.last_offset) != (first, last) {
                let what = format_args!("partition {partition}: {first:?} to {last:?} are there");
                self.complain(Broken::WrongPlace, what, request);
            }
        }
    }
}

//! The comparison: what HTTP told of every line, and what the topic holds.
//!
//! Pure, so that histories made by hand show that every kind of finding is found (`check/tests.rs`).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::Duration,
};

use crate::history::{Line, Outcome, Request};

/// A record as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    /// Its partition.
    pub(crate) partition: i32,
    /// Its offset.
    pub(crate) offset: i64,
    /// Its key, as text.
    pub(crate) key: Option<String>,
    /// The line that its value names; `None` for a value that nobody sent.
    pub(crate) line: Option<Line>,
}

/// What can be wrong. The bar is none of any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Told written, and not there.
    Lost,
    /// One line there twice.
    Duplicate,
    /// Lines of one writer's connection in a partition in another order than they were sent in.
    Reordered,
    /// The answer's partition, count or offsets are not where the lines are.
    WrongOffset,
    /// Told `not_written`, and there.
    NotWrittenPresent,
    /// A sequence number there more often than its tries allow: those that were written or unknown.
    TooOften,
    /// In another partition than asked for, or keys of one kind in two.
    WrongPartition,
    /// A value that nobody sent.
    Foreign,
    /// No answer 30 s after everything was healed.
    Unresolved,
    /// An answer later than [`GRACE`] after it was due.
    Late,
    /// An answer that contradicts itself or the interface.
    BadAnswer,
    /// An answer that was begun and cut off though the bridge was not killed, or a drain that failed.
    CutAnswer,
    /// In the topic, and read by no member of the group.
    Gap,
    /// A partition that went back within one stream of a group.
    Regression,
    /// The bridge panicked.
    Panic,
}

impl Kind {
    /// In the order in which the table has them.
    pub(crate) const ALL: [Self; 15] = [
        Self::Lost,
        Self::Duplicate,
        Self::Reordered,
        Self::WrongOffset,
        Self::NotWrittenPresent,
        Self::TooOften,
        Self::WrongPartition,
        Self::Foreign,
        Self::Unresolved,
        Self::Late,
        Self::BadAnswer,
        Self::CutAnswer,
        Self::Gap,
        Self::Regression,
        Self::Panic,
    ];

    /// A few words for a table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicate => "duplicate",
            Self::Reordered => "reordered",
            Self::WrongOffset => "wrong offset",
            Self::NotWrittenPresent => "not written, but present",
            Self::TooOften => "more often than tried",
            Self::WrongPartition => "wrong partition",
            Self::Foreign => "never sent",
            Self::Unresolved => "unresolved",
            Self::Late => "late answer",
            Self::BadAnswer => "bad answer",
            Self::CutAnswer => "cut answer",
            Self::Gap => "gap in reading",
            Self::Regression => "read backwards",
            Self::Panic => "panic",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    /// What.
    pub(crate) kind: Kind,
    /// Where: lines as `writer:key:seq:attempt`, offsets as `partition@offset`.
    pub(crate) detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}

/// How long after the delivery timeout an answer may come: the machine is shared with three brokers.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// Where a line stands in its writer's history, and what it was told.
#[derive(Debug, Clone, Copy)]
struct Sent {
    outcome: Outcome,
    /// Requests of one writer's connection, in the order of the history, and the line's place within.
    order: (usize, usize),
    connection: u32,
}

/// Everything that is wrong with a topic's records, given all requests that were sent to it, each writer's in order.
///
/// The topic is read after the last answer. Offsets are looked at per request: of the lines that were written into a
/// partition, the summary promises count, first and last.
pub(crate) fn check(requests: &[Request], log: &[Logged]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sent = index(requests);
    let mut places: HashMap<Line, Vec<(i32, i64)>> = HashMap::new();
    for record in log {
        match record.line.filter(|line| sent.contains_key(line)) {
            Some(line) => places.entry(line).or_default().push((record.partition, record.offset)),
            None => found(&mut findings, Kind::Foreign, format!("at {}@{}", record.partition, record.offset)),
        }
    }
    check_lines(&mut findings, requests, &places);
    check_tries(&mut findings, &sent, &places);
    check_order(&mut findings, &sent, log);
    check_keys(&mut findings, requests, log);
    for request in requests {
        check_summary(&mut findings, request, &places);
        check_time(&mut findings, request);
    }
    findings
}

fn found(findings: &mut Vec<Finding>, kind: Kind, detail: String) {
    findings.push(Finding { kind, detail });
}

fn index(requests: &[Request]) -> HashMap<Line, Sent> {
    let mut sent = HashMap::new();
    for (number, request) in requests.iter().enumerate() {
        for (place, (line, outcome)) in request.lines.iter().zip(&request.told.outcomes).enumerate() {
            let here = Sent { outcome: *outcome, order: (number, place), connection: request.connection };
            assert!(sent.insert(*line, here).is_none(), "the workload sent {line} twice");
        }
    }
    sent
}

/// Lost, there though it should not be, there twice, in another partition.
fn check_lines(findings: &mut Vec<Finding>, requests: &[Request], places: &HashMap<Line, Vec<(i32, i64)>>) {
    for request in requests {
        for (line, outcome) in request.lines.iter().zip(&request.told.outcomes) {
            let there = places.get(line).map_or(&[][..], Vec::as_slice);
            match outcome {
                Outcome::Written if there.is_empty() => {
                    found(findings, Kind::Lost, format!("{line}, sent at {:.3?}", request.invoked));
                }
                Outcome::NotWritten if !there.is_empty() => {
                    let detail = format!("{line}, sent at {:.3?}, at {}", request.invoked, list(there));
                    found(findings, Kind::NotWrittenPresent, detail);
                }
                _ => {}
            }
            if there.len() > 1 {
                let detail = format!("{line}, sent at {:.3?}, at {}", request.invoked, list(there));
                found(findings, Kind::Duplicate, detail);
            }
            if let Some(asked) = request.partition
                && there.iter().any(|(partition, _)| *partition != asked)
            {
                found(findings, Kind::WrongPartition, format!("{line} asked for {asked}, at {}", list(there)));
            }
        }
    }
}

/// Each try that was written, or may have been, explains one record.
fn check_tries(findings: &mut Vec<Finding>, sent: &HashMap<Line, Sent>, places: &HashMap<Line, Vec<(i32, i64)>>) {
    let mut allowed: BTreeMap<(u32, u64), (usize, usize)> = BTreeMap::new();
    for (line, here) in sent {
        let entry = allowed.entry((line.writer, line.seq)).or_default();
        entry.0 += usize::from(here.outcome != Outcome::NotWritten);
        entry.1 += places.get(line).map_or(0, Vec::len);
    }
    for ((writer, seq), (tries, there)) in allowed {
        if there > tries {
            let detail = format!("{seq} of writer {writer}: {there} times there, {tries} tries that could be");
            found(findings, Kind::TooOften, detail);
        }
    }
}

/// The first occurrences of a connection's lines are in each partition in the order in which they were sent.
fn check_order(findings: &mut Vec<Finding>, sent: &HashMap<Line, Sent>, log: &[Logged]) {
    let mut records: Vec<_> = log.iter().filter_map(|record| Some((record, record.line?))).collect();
    records.sort_by_key(|(record, _)| (record.partition, record.offset));
    let mut seen = HashSet::new();
    let mut last: HashMap<(i32, u32, u32), (Line, Sent)> = HashMap::new();
    for (record, line) in records {
        let Some(&here) = sent.get(&line) else { continue };
        if !seen.insert(line) {
            continue;
        }
        let stream = (record.partition, line.writer, here.connection);
        if let Some((before, place)) = last.insert(stream, (line, here))
            && place.order > here.order
        {
            let detail = format!("{line} at {}@{} after {before}", record.partition, record.offset);
            found(findings, Kind::Reordered, detail);
        }
    }
}

/// A key lives in one partition.
fn check_keys(findings: &mut Vec<Finding>, requests: &[Request], log: &[Logged]) {
    let keyed: HashSet<Line> =
        requests.iter().filter(|request| request.keyed).flat_map(|request| request.lines.iter().copied()).collect();
    let mut home: HashMap<String, i32> = HashMap::new();
    for record in log {
        let Some(line) = record.line else { continue };
        let want = keyed.contains(&line).then(|| line.kafka_key());
        if record.key != want {
            let detail = format!("{line} has the key {:?}, not {want:?}", record.key);
            found(findings, Kind::WrongPartition, detail);
        } else if let Some(key) = want {
            let partition = *home.entry(key).or_insert(record.partition);
            if partition != record.partition {
                let detail = format!("{line} at {}@{}, its key at {partition}", record.partition, record.offset);
                found(findings, Kind::WrongPartition, detail);
            }
        }
    }
}

/// Count, first and last offset of each partition in a summary are those of the lines that it calls written.
fn check_summary(findings: &mut Vec<Finding>, request: &Request, places: &HashMap<Line, Vec<(i32, i64)>>) {
    let Some(ranges) = &request.told.ranges else { return };
    let mut there: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for (line, outcome) in request.lines.iter().zip(&request.told.outcomes) {
        if *outcome != Outcome::Written {
            continue;
        }
        match places.get(line).map(Vec::as_slice) {
            Some([(partition, offset)]) => there.entry(*partition).or_default().push(*offset),
            // Lost or there twice: a finding already, and which of the two is meant cannot be told.
            _ => return,
        }
    }
    let first = request.lines[0];
    if ranges.len() != there.len() {
        found(findings, Kind::WrongOffset, format!("{first}…: in {} partitions, told {}", there.len(), ranges.len()));
    }
    for range in ranges {
        let offsets = there.get(&range.partition).map_or(&[][..], Vec::as_slice);
        let (least, most) = (offsets.iter().min().copied(), offsets.iter().max().copied());
        let differs = |told: Option<i64>, is: Option<i64>| told.is_some() && told != is;
        if offsets.len() as u64 != range.count || differs(range.first, least) || differs(range.last, most) {
            let detail = format!(
                "{first}…, sent at {:.3?}: told {range:?}; there {} from {least:?} to {most:?}",
                request.invoked,
                offsets.len()
            );
            found(findings, Kind::WrongOffset, detail);
        }
    }
}

fn check_time(findings: &mut Vec<Finding>, request: &Request) {
    let first = request.lines[0];
    match request.answered {
        None => {
            let detail = format!("{} lines from {first}, sent at {:.3?}", request.lines.len(), request.invoked);
            found(findings, Kind::Unresolved, detail);
        }
        Some(answered) if answered > request.invoked + request.due + GRACE => {
            let took = answered - request.invoked;
            found(findings, Kind::Late, format!("{first}…: after {took:.3?}, due after {:.3?}", request.due));
        }
        Some(_) => {}
    }
}

fn list(places: &[(i32, i64)]) -> String {
    let places: Vec<_> = places.iter().map(|(partition, offset)| format!("{partition}@{offset}")).collect();
    places.join(" and ")
}

#[cfg(test)]
mod tests;

//! What was sent, and what HTTP said became of it.
//!
//! A [`Line`] is one try of one record, and its value in Kafka names it; a sequence number that is tried again after a
//! failure is another line, so that what a retry of the *client* wrote twice can be told from what the bridge did.

use std::{fmt, time::Duration};

/// One try of one record: what its value says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Line {
    /// Who sent it.
    pub(crate) writer: u32,
    /// Which of the writer's keys it has. Requests that pin a partition or leave the choice to the bridge send none.
    pub(crate) key: u32,
    /// Which of the writer's records it is, from 0.
    pub(crate) seq: u64,
    /// Which try of it, from 0.
    pub(crate) attempt: u32,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.writer, self.key, self.seq, self.attempt)
    }
}

impl Line {
    /// The record's key: no two writers share one.
    pub(crate) fn kafka_key(self) -> String {
        format!("w{}k{}", self.writer, self.key)
    }

    /// The record's value: a JSON document with `padding` bytes beside what is needed.
    pub(crate) fn value(self, padding: usize) -> String {
        format!(r#"{{"id":"{self}","key":"{}","pad":"{}"}}"#, self.kafka_key(), "x".repeat(padding))
    }

    /// The line that a record's value names; `None` for a value that no writer sent.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (id, rest) = text.strip_prefix(r#"{"id":""#)?.split_once('"')?;
        let mut numbers = id.split(':');
        let line = Self {
            writer: numbers.next()?.parse().ok()?,
            key: numbers.next()?.parse().ok()?,
            seq: numbers.next()?.parse().ok()?,
            attempt: numbers.next()?.parse().ok()?,
        };
        // Byte for byte: a value that was cut or glued together is not the one that was sent.
        let padding = rest.strip_suffix(r#""}"#)?.rsplit('"').next()?.len();
        (numbers.next().is_none() && line.value(padding) == text).then_some(line)
    }
}

/// What became of a line, as HTTP told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Acknowledged: it must be there.
    Written,
    /// Certainly not written: it must not be there.
    NotWritten,
    /// `unknown`, or no answer: it may be there, once.
    Unknown,
}

/// What an answer says of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// The partition.
    pub(crate) partition: i32,
    /// How many lines were written there.
    pub(crate) count: u64,
    /// The offset of the first of them, where the broker told it.
    pub(crate) first: Option<i64>,
    /// The offset of the last of them, where the broker told it.
    pub(crate) last: Option<i64>,
}

/// What an answer came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// One for each line of the request.
    pub(crate) outcomes: Vec<Outcome>,
    /// The summary's partitions; `None` where there was no summary.
    pub(crate) ranges: Option<Vec<Range>>,
}

impl Told {
    /// The same for every line.
    pub(crate) fn all(outcome: Outcome, lines: usize) -> Self {
        Self { outcomes: vec![outcome; lines], ranges: None }
    }
}

/// One request. Times count from the start of the run.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The writer's connections count from 0. Order is promised on one connection, not across two.
    pub(crate) connection: u32,
    /// The partition that it asked for.
    pub(crate) partition: Option<i32>,
    /// Whether its records were sent with their keys.
    pub(crate) keyed: bool,
    /// Whether its writer left before it had sent everything.
    pub(crate) abandoned: bool,
    /// What it brought, in order.
    pub(crate) lines: Vec<Line>,
    /// When its first byte was sent.
    pub(crate) invoked: Duration,
    /// How much of the writer's time it stands for: its lines at the writer's rate.
    pub(crate) slot: Duration,
    /// How much of that the sending takes on purpose.
    pub(crate) sending: Duration,
    /// How long after `invoked` an answer is due: the delivery timeout, and the time that sending took.
    pub(crate) due: Duration,
    /// When the answer was whole, or the connection was lost; `None` while neither is.
    pub(crate) answered: Option<Duration>,
    /// What became of the lines; all unknown before `answered`.
    pub(crate) told: Told,
}

impl Request {
    /// How many of its lines have this outcome.
    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        self.told.outcomes.iter().filter(|told| **told == outcome).count()
    }

    /// The same, none if nobody waited for the answer.
    pub(crate) fn told(&self, outcome: Outcome) -> usize {
        if self.abandoned { 0 } else { self.count(outcome) }
    }
}

/// The history of a topic that was deleted and created again, as it must look in the new topic.
///
/// A request that was sent `margin` before the deletion belongs to the old topic whatever it was told: none of its
/// lines may be in the new one. One that was sent before the new topic was known may have met either. The others met
/// the new one.
pub(crate) fn since_creation(requests: &mut [Request], deleted: Duration, created: Duration, margin: Duration) {
    for request in requests {
        if request.invoked + margin < deleted {
            request.told = Told::all(Outcome::NotWritten, request.lines.len());
        } else if request.invoked < created {
            request.told = Told::all(Outcome::Unknown, request.lines.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_line_and_nothing_else_does() {
        let line = Line { writer: 3, key: 1, seq: 42, attempt: 2 };
        let value = line.value(17);
        assert_eq!(Line::parse(value.as_bytes()), Some(line));
        assert_eq!(Line::parse(line.value(0).as_bytes()), Some(line));
        assert_eq!(Line::parse(&value.as_bytes()[..value.len() - 1]), None, "cut");
        assert_eq!(Line::parse(format!("{value}{value}").as_bytes()), None, "glued");
        assert_eq!(Line::parse(value.replace("w3k1", "w3k2").as_bytes()), None, "changed");
        assert_eq!(Line::parse(b""), None);
    }
}

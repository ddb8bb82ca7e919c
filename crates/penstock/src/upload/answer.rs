//! What the bridge answers: progress lines, then a summary.

use serde::{Deserialize, Serialize};

/// What lines came to, all told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(super) struct Counts {
    pub(super) written: u64,
    pub(super) not_written: u64,
    pub(super) unknown: u64,
}

/// Every line up to and including `through_line` is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Progress {
    pub(super) through_line: u64,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

/// The last word about one request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Summary {
    /// Lines that were read, empty ones too.
    pub(super) lines: u64,
    #[serde(flatten)]
    pub(super) counts: Counts,
    #[serde(default)]
    pub(super) failures: Vec<Failure>,
    #[serde(default)]
    pub(super) failures_truncated: bool,
    #[serde(default)]
    pub(super) error_code: Option<u32>,
    #[serde(default)]
    pub(super) message: Option<String>,
}

/// Lines `first_line..=last_line` share an outcome that is not `written`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The first line.
    pub first_line: u64,
    /// The last line.
    pub last_line: u64,
    /// `not_written` or `unknown`.
    pub outcome: String,
    /// The bridge's error code, where it told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<u32>,
    /// Why.
    #[serde(default)]
    pub message: String,
}

impl Failure {
    /// Sending the lines again later may go better: no broker, no replicas, no memory, or a bridge that stops.
    fn may_pass(&self) -> bool {
        self.outcome == "not_written" && self.error_code.is_some_and(|code| (50301..=50303).contains(&code))
    }
}

impl Summary {
    /// Takes failures off the end that are worth another try, and says which line is the last before them. Nothing after
    /// them was written, so sending them again repeats nothing. Lines up to `released` cannot be sent again.
    pub(super) fn split_off_retriable(&mut self, first_line: u64, released: u64) -> u64 {
        let mut last = first_line + self.lines - 1;
        if self.failures_truncated {
            return last;
        }
        let at_the_end = |failure: &Failure, last| {
            failure.may_pass()
                && failure.last_line == last
                && (first_line.max(released + 1)..=last).contains(&failure.first_line)
        };
        while let Some(failure) = self.failures.pop_if(|failure| at_the_end(failure, last)) {
            let lines = failure.last_line - failure.first_line + 1;
            self.counts.not_written = self.counts.not_written.saturating_sub(lines);
            last = failure.first_line - 1;
        }
        last
    }
}

/// An error without a summary.
#[derive(Debug, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) message: String,
}

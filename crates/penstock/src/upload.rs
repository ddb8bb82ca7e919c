//! `penstock upload`: one source of lines into one topic, through as many connections as it takes.
//!
//! Every attempt is one request whose answer tells, while the body is being sent, up to which line everything is
//! settled. When an attempt is cut, the next one begins with the first line that is not, and tells the bridge that
//! line's number (`Kafka-First-Line`), so that all reports speak of the file's own lines. Lines that were on their way
//! when the connection was cut may have been written and are sent again: across a cut, delivery is at least once.
//!
//! `source.rs` reads lines and finds the way back, `attempt.rs` is one request, `answer.rs` what comes back, `bar.rs`
//! what a terminal shows. This file decides what to do next.

mod answer;
mod attempt;
mod bar;
mod source;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use serde::Serialize;
use tokio::time::{Instant, sleep};

pub use answer::Failure;
pub use bar::Bar;
pub use source::Source;

use crate::client::Endpoint;
use answer::{Counts, Progress, Summary};
use attempt::{Ended, attempt};

/// The bridge's error code for a body that was silent for too long: a pipe that had nothing to say.
const TOO_SLOW: u32 = 408;

/// Failures that are listed one by one.
const MAX_FAILURES: usize = 100;

/// What to upload to, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The bridge.
    pub endpoint: Endpoint,
    /// The topic; Kafka's rule for names was checked by whoever made this.
    pub topic: String,
    /// JSON pointer to each record's key.
    pub key: Option<String>,
    /// Where every record goes.
    pub partition: Option<i32>,
    /// `name=value`, for every record.
    pub headers: Vec<String>,
    /// How the body is compressed on its way to the bridge.
    pub compress: Option<Compress>,
    /// Without a newly settled line for this long, the upload is given up.
    pub give_up_after: Duration,
    /// Without a word from the bridge for this long, a connection is given up. The bridge says something every ten
    /// seconds.
    pub silence: Duration,
    /// Before the first new attempt; doubled for each further one that settles nothing.
    pub backoff: Duration,
    /// The longest such wait.
    pub backoff_max: Duration,
}

impl Options {
    /// Into `topic` at `endpoint`, everything else as the command line has it by default.
    pub fn new(endpoint: Endpoint, topic: impl Into<String>) -> Self {
        Self {
            endpoint,
            topic: topic.into(),
            key: None,
            partition: None,
            headers: Vec::new(),
            compress: None,
            give_up_after: Duration::from_secs(600),
            silence: Duration::from_secs(60),
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
        }
    }
}

/// `Content-Encoding` of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Compress {
    /// RFC 1952.
    Gzip,
    /// RFC 8878: better and faster.
    Zstd,
}

impl Compress {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// What became of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The file, or "standard input".
    pub source: String,
    /// Lines that are settled, empty ones too.
    pub lines: u64,
    /// Acknowledged with acks=all.
    pub written: u64,
    /// Certainly not in the topic.
    pub not_written: u64,
    /// Maybe in the topic.
    pub unknown: u64,
    /// How often the upload went on after a cut.
    pub resumed: u64,
    /// What was not written, and what may not have been, at most 100 ranges.
    pub failures: Vec<Failure>,
    /// There are more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failures_truncated: bool,
    /// Why the rest of the lines were not sent, or not settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Report {
    /// Every line was written.
    pub fn is_complete(&self) -> bool {
        self.error.is_none() && self.not_written == 0 && self.unknown == 0
    }
}

/// Uploads every line of `source` that the bridge takes.
///
/// # Cancel safety
///
/// Dropping the future ends the upload where it is; what the bridge has read it still writes.
pub async fn upload(options: &Options, mut source: Source, bar: &Bar) -> Report {
    let mut settled = Settled::default();
    let mut resumed = 0;
    let mut patience = Patience::new(options);
    let error = loop {
        let first_line = settled.through_line + 1;
        if let Err(error) = source.rewind(first_line) {
            break Some(format!("cannot be read again: {error}"));
        }
        let before = settled.clone();
        let mut hold = Hold::new(settled.through_line);
        let ended = attempt(options, &mut source, first_line, |source, progress| {
            settled.progress(&before, progress);
            source.settle(if source.is_full() { progress.through_line } else { hold.releases(progress) });
            bar.settled(source.settled_bytes(), settled.counts.written);
        })
        .await;

        let (why, wait) = match ended {
            Ended::Input(error) => break Some(error.to_string()),
            // An empty source is an empty body, which the bridge refuses; there was nothing to write.
            Ended::Refused(_) if source.is_done(settled.through_line) => break None,
            Ended::Refused(why) => break Some(why),
            Ended::Cut { why, wait } => (why, wait),
            Ended::Summary(summary) => {
                let refused =
                    summary.error_code.is_some_and(|code| code != TOO_SLOW && !(50300..50400).contains(&code));
                let why = summary.message.clone().unwrap_or_else(|| "the bridge stopped reading".to_owned());
                settled = before.clone();
                settled.summary(&before, summary, source.released_line());
                source.settle(settled.through_line);
                bar.settled(source.settled_bytes(), settled.counts.written);
                if refused && settled.through_line == before.through_line && !source.is_done(settled.through_line) {
                    break Some(why);
                }
                (why, Duration::ZERO)
            }
        };
        if source.is_done(settled.through_line) {
            break None;
        }
        let progressed = settled.through_line > before.through_line || source.is_idle();
        let Some(wait) = patience.wait(progressed, wait) else {
            break Some(format!("given up after {} s without progress: {why}", options.give_up_after.as_secs()));
        };
        resumed += 1;
        bar.message(&format!("{}: cut after line {}: {why}; going on", source.name(), settled.through_line));
        sleep(wait).await;
    };
    Report {
        source: source.name().to_owned(),
        lines: settled.through_line,
        written: settled.counts.written,
        not_written: settled.counts.not_written,
        unknown: settled.counts.unknown,
        resumed,
        failures: settled.failures,
        failures_truncated: settled.failures_truncated,
        error,
    }
}

/// What is known for certain about the lines from 1 to `through_line`.
#[derive(Debug, Clone, Default)]
struct Settled {
    through_line: u64,
    counts: Counts,
    failures: Vec<Failure>,
    failures_truncated: bool,
}

impl Settled {
    /// `progress` counts from the beginning of the attempt, where `before` stood.
    fn progress(&mut self, before: &Self, progress: Progress) {
        let (last, counts) = (self.counts, before.counts.and(progress.counts));
        // The list of failures comes with the summary. Should the connection be cut before, this is what is known.
        for (outcome, count) in [
            ("not_written", counts.not_written.saturating_sub(last.not_written)),
            ("unknown", counts.unknown.saturating_sub(last.unknown)),
        ] {
            if count > 0 {
                self.fail(Failure {
                    first_line: self.through_line + 1,
                    last_line: progress.through_line,
                    outcome: outcome.to_owned(),
                    error_code: None,
                    message: format!("{count} of these lines; the connection was cut before the bridge told which"),
                });
            }
        }
        self.counts = counts;
        self.through_line = self.through_line.max(progress.through_line);
    }

    /// Takes the place of what the attempt's progress lines told; `self` is as `before`.
    fn summary(&mut self, before: &Self, mut summary: Summary, released: u64) {
        let last = summary.split_off_retriable(before.through_line + 1, released);
        self.through_line = last.max(released);
        self.counts = before.counts.and(summary.counts);
        self.failures_truncated |= summary.failures_truncated;
        for failure in summary.failures {
            self.fail(failure);
        }
    }

    fn fail(&mut self, failure: Failure) {
        if self.failures.len() < MAX_FAILURES {
            self.failures.push(failure);
        } else {
            self.failures_truncated = true;
        }
    }
}

/// Up to which line a source can let go while an attempt runs.
///
/// Lines at the end of an attempt that were not written for want of a broker are sent again, and only the summary tells
/// which those are. So lines are held from where `not_written` began to grow until something after them is written.
struct Hold {
    release: u64,
    last: Progress,
}

impl Hold {
    fn new(through_line: u64) -> Self {
        Self { release: through_line, last: Progress { through_line, counts: Counts::default() } }
    }

    fn releases(&mut self, progress: Progress) -> u64 {
        let before = std::mem::replace(&mut self.last, progress);
        let failed = progress.counts.not_written > before.counts.not_written;
        match (failed, progress.counts.written > before.counts.written) {
            // What failed may have come after what was written.
            (true, true) => self.release = before.through_line,
            (true, false) => {}
            (false, true) => self.release = progress.through_line,
            // Nothing new, empty lines, or unknown ones: the hold stays as it was, if there is one.
            (false, false) if self.release == before.through_line => self.release = progress.through_line,
            (false, false) => {}
        }
        self.release
    }
}

impl Counts {
    fn and(self, more: Self) -> Self {
        Self {
            written: self.written + more.written,
            not_written: self.not_written + more.not_written,
            unknown: self.unknown + more.unknown,
        }
    }
}

/// How long to wait before the next attempt, and when to stop waiting.
struct Patience {
    first: Duration,
    max: Duration,
    give_up_after: Duration,
    next: Duration,
    last_progress: Instant,
}

impl Patience {
    fn new(options: &Options) -> Self {
        Self {
            first: options.backoff,
            max: options.backoff_max,
            give_up_after: options.give_up_after,
            next: options.backoff,
            last_progress: Instant::now(),
        }
    }

    /// `None`: it is enough. At least as long as the bridge asked for, but not past the end of all patience.
    fn wait(&mut self, progressed: bool, asked: Duration) -> Option<Duration> {
        let now = Instant::now();
        if progressed {
            self.last_progress = now;
            self.next = self.first;
        }
        let left = (self.last_progress + self.give_up_after).checked_duration_since(now)?;
        if left.is_zero() {
            return None;
        }
        // Between half and the whole, so that many uploaders do not come back together.
        let random = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        let wait = self.next.mul_f64(0.5 + 0.5 * random);
        self.next = (self.next * 2).min(self.max);
        Some(wait.max(asked).min(left))
    }
}

#[cfg(test)]
mod tests;

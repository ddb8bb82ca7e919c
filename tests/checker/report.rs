//! What a run came to: a table for people, a row for docs/reliability.md, JSON for programs.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::json;

use crate::{
    check::{Finding, Kind},
    history::{Outcome, Request},
};

/// Goodput must be back this long after healing.
pub(crate) const RECOVERY_BAR: Duration = Duration::from_secs(10);
/// The bridge may take no more: its budget (64 MiB in these runs), connections and code.
const MEMORY_BAR: u64 = 128 << 20;
/// Findings of one kind that are printed.
const PRINTED: usize = 10;

/// One step of the schedule as it went.
#[derive(Debug, Clone)]
pub(crate) struct FaultRow {
    /// What it was.
    pub(crate) name: String,
    /// The same, with the brokers that it met.
    pub(crate) place: String,
    /// When its first fault began.
    pub(crate) begun: Duration,
    /// When its last fault was healed, processes serving.
    pub(crate) healed: Duration,
    /// For how long goodput was below 90 % of the baseline.
    pub(crate) impaired: Duration,
    /// Lines sent from its beginning to the next one's that were told `not_written`.
    pub(crate) not_written: usize,
    /// The same of those that were told `unknown`, or nothing.
    pub(crate) unknown: usize,
    /// From healing to 90 % of the baseline; `None`: not while it was looked for.
    pub(crate) recovery: Option<Duration>,
}

impl fmt::Display for FaultRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recovery = match self.recovery {
            Some(recovery) => format!("goodput back {:.1} s after healing", recovery.as_secs_f64()),
            None => "goodput NOT back".to_owned(),
        };
        write!(
            f,
            "{:>7.1} s  {}, healed after {:.1} s; below 90 % for {:.1} s, {recovery}",
            self.begun.as_secs_f64(),
            self.place,
            (self.healed - self.begun).as_secs_f64(),
            self.impaired.as_secs_f64(),
        )
    }
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Report {
    /// What it was drawn from.
    pub(crate) seed: u64,
    /// Off: a control.
    pub(crate) idempotence: bool,
    /// How long the load went on.
    pub(crate) seconds: f64,
    /// Lines a second before the first fault.
    pub(crate) baseline: f64,
    /// The steps that there was time for.
    pub(crate) faults: Vec<FaultRow>,
    /// Of all writers.
    pub(crate) requests: Vec<Request>,
    /// Connections that ended with a request on them and no answer, other than by SIGKILL to the bridge.
    pub(crate) lost_connections: usize,
    /// Of all the bridge's processes.
    pub(crate) peak_resident_bytes: u64,
    /// Everything that is wrong.
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    /// Lines with this outcome, of requests whose answer somebody waited for.
    fn lines(&self, outcome: Outcome) -> usize {
        self.requests.iter().map(|request| request.told(outcome)).sum()
    }

    /// The longest wait for an answer that called every line written, beyond the time that sending took.
    fn slowest(&self) -> Duration {
        let written = self.requests.iter().filter(|request| request.count(Outcome::Written) == request.lines.len());
        let wait = |request: &Request| Some(request.answered?.saturating_sub(request.invoked + request.sending));
        written.filter_map(wait).max().unwrap_or_default()
    }

    /// Findings by kind, none left out.
    fn counts(&self) -> BTreeMap<Kind, usize> {
        let mut counts: BTreeMap<_, _> = Kind::ALL.into_iter().map(|kind| (kind, 0)).collect();
        for finding in &self.findings {
            *counts.entry(finding.kind).or_default() += 1;
        }
        counts
    }

    /// The slowest recovery; `None` when one did not come.
    fn recovery(&self) -> Option<Duration> {
        self.faults.iter().map(|row| row.recovery).try_fold(Duration::ZERO, |most, next| Some(most.max(next?)))
    }

    /// Whether a finding is no miss: in a control, what follows from writing twice.
    fn is_expected(&self, kind: Kind) -> bool {
        !self.idempotence && matches!(kind, Kind::Duplicate | Kind::TooOften | Kind::Reordered | Kind::WrongOffset)
    }

    /// The bars that were missed, in words; none: the run is good. A control must find duplicates.
    pub(crate) fn missed(&self, recovery_counts: bool) -> Vec<String> {
        let counts = self.counts();
        let found = counts.iter().filter(|(kind, count)| **count > 0 && !self.is_expected(**kind));
        let mut missed: Vec<_> = found.map(|(kind, count)| format!("{}: {count}", kind.name())).collect();
        if !self.idempotence && counts[&Kind::Duplicate] == 0 {
            missed.push("no duplicate was found without idempotence".to_owned());
        }
        if self.lines(Outcome::Written) == 0 {
            missed.push("nothing was written".to_owned());
        }
        if self.peak_resident_bytes > MEMORY_BAR {
            missed.push(format!("memory: {} MiB", self.peak_resident_bytes >> 20));
        }
        if recovery_counts {
            let late = self.faults.iter().filter(|row| row.recovery.is_none_or(|recovery| recovery > RECOVERY_BAR));
            missed.extend(late.map(|row| format!("goodput not back in time: {}", row.place)));
        }
        missed
    }

    /// The heads of [`Report::row`]'s columns.
    pub(crate) fn row_head() -> String {
        let heads = [
            "seed",
            "idempotence",
            "faults",
            "lines written",
            "lost",
            "duplicate",
            "reordered",
            "wrong offset",
            "not written, but present",
            "unresolved",
            "panics",
            "other findings",
            "not written",
            "unknown",
            "slowest ack",
            "slowest recovery",
            "peak memory",
        ];
        format!("| {} |\n|{}", heads.join(" | "), "---|".repeat(heads.len()))
    }

    /// A row of the table of long schedules, in Markdown.
    pub(crate) fn row(&self) -> String {
        let counts = self.counts();
        let named = [
            Kind::Lost,
            Kind::Duplicate,
            Kind::Reordered,
            Kind::WrongOffset,
            Kind::NotWrittenPresent,
            Kind::Unresolved,
            Kind::Panic,
        ];
        let others: usize = counts
            .iter()
            .filter(|(kind, _)| !named.contains(kind) && !self.is_expected(**kind))
            .map(|(_, count)| count)
            .sum();
        let named: Vec<_> = named.iter().map(|kind| counts[kind].to_string()).collect();
        format!(
            "| {} | {} | {} | {} | {} | {others} | {} | {} | {:.1} s | {} | {:.0} MiB |",
            self.seed,
            if self.idempotence { "on" } else { "off" },
            self.faults.len(),
            self.lines(Outcome::Written),
            named.join(" | "),
            self.lines(Outcome::NotWritten),
            self.lines(Outcome::Unknown),
            self.slowest().as_secs_f64(),
            self.recovery().map_or("none".to_owned(), |recovery| format!("{:.1} s", recovery.as_secs_f64())),
            self.peak_resident_bytes as f64 / f64::from(1 << 20),
        )
    }

    /// Everything but the single requests.
    pub(crate) fn json(&self) -> serde_json::Value {
        let seconds = |time: Duration| time.as_secs_f64();
        let faults = self.faults.iter().map(|row| {
            json!({
                "name": row.name,
                "place": row.place,
                "begun_s": seconds(row.begun),
                "healed_s": seconds(row.healed),
                "impaired_s": seconds(row.impaired),
                "not_written": row.not_written,
                "unknown": row.unknown,
                "recovery_s": row.recovery.map(seconds),
            })
        });
        let counts: BTreeMap<_, _> = self.counts().into_iter().map(|(kind, count)| (kind.name(), count)).collect();
        json!({
            "seed": self.seed,
            "idempotence": self.idempotence,
            "seconds": self.seconds,
            "requests": self.requests.len(),
            "written": self.lines(Outcome::Written),
            "not_written": self.lines(Outcome::NotWritten),
            "unknown": self.lines(Outcome::Unknown),
            "slowest_ack_s": seconds(self.slowest()),
            "baseline_lines_per_s": self.baseline,
            "lost_connections": self.lost_connections,
            "peak_resident_bytes": self.peak_resident_bytes,
            "faults": faults.collect::<Vec<_>>(),
            "counts": counts,
            "findings": self.findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        for (kind, count) in counts.iter().filter(|(_, count)| **count > 0) {
            for finding in self.findings.iter().filter(|finding| finding.kind == *kind).take(PRINTED) {
                writeln!(f, "{finding}")?;
            }
            if *count > PRINTED {
                writeln!(f, "{}: {} more", kind.name(), count - PRINTED)?;
            }
        }
        writeln!(f)?;
        let heads = ["healed after", "below 90 % for", "back after", "not written", "unknown"];
        writeln!(
            f,
            "{:<40} {:>12} {:>14} {:>12} {:>12} {:>12}",
            "fault", heads[0], heads[1], heads[2], heads[3], heads[4]
        )?;
        for row in &self.faults {
            let healed = (row.healed - row.begun).as_secs_f64();
            let impaired = row.impaired.as_secs_f64();
            let recovery = row.recovery.map_or("not".to_owned(), |recovery| format!("{:.1} s", recovery.as_secs_f64()));
            let (name, not_written, unknown) = (&row.name, row.not_written, row.unknown);
            writeln!(
                f,
                "{name:<40} {healed:>10.1} s {impaired:>12.1} s {recovery:>12} {not_written:>12} {unknown:>12}"
            )?;
        }
        writeln!(f)?;
        let mut line = |name: &str, value: String| writeln!(f, "{name:<40} {value:>12}");
        line("seconds", format!("{:.0}", self.seconds))?;
        line("requests", self.requests.len().to_string())?;
        line("lines written", self.lines(Outcome::Written).to_string())?;
        line("lines not written", self.lines(Outcome::NotWritten).to_string())?;
        line("lines unknown", self.lines(Outcome::Unknown).to_string())?;
        line("slowest acknowledgement", format!("{:.1} s", self.slowest().as_secs_f64()))?;
        line("baseline, lines/s", format!("{:.0}", self.baseline))?;
        line("connections lost, the bridge not killed", self.lost_connections.to_string())?;
        line("peak memory of the bridge, MiB", (self.peak_resident_bytes >> 20).to_string())?;
        for (kind, count) in counts {
            line(kind.name(), count.to_string())?;
        }
        Ok(())
    }
}

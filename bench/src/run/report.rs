//! Medians, ratios, tables and files.

use std::{
    fmt::{self, Write as _},
    fs,
    path::Path,
};

use super::{
    Step,
    contender::Measured,
    kernel,
    plot::{self, Panel},
    scenario::{Contender, Scenario},
};
use crate::Latency;

/// One run of one contender.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) scenario: &'static str,
    pub(crate) contender: Contender,
    pub(crate) step: Step,
    pub(crate) round: usize,
    /// The machine's load average when it began.
    pub(crate) load_average: f64,
    pub(crate) measured: Measured,
}

impl Sample {
    fn cpu_ns(&self) -> f64 {
        self.measured.cpu.as_nanos() as f64 / self.measured.report.records as f64
    }

    fn rate(&self) -> f64 {
        self.measured.report.per_second()
    }

    /// Cores that `of` kept busy.
    fn cores(&self, of: std::time::Duration) -> f64 {
        of.as_secs_f64() / self.measured.report.seconds
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured { cpu, generator, broker, peak_mib, .. } = self.measured;
        write!(
            f,
            "{}: {:.0} ns CPU a record, {:.0} records/s, {peak_mib:.0} MiB; cores: {:.2}, generator {:.2}, broker {:.2}",
            label(self.contender, self.step),
            self.cpu_ns(),
            self.rate(),
            self.cores(cpu),
            self.cores(generator),
            self.cores(broker),
        )?;
        if let Some(Latency { p50, p99, p999, max, .. }) = self.measured.report.latency {
            write!(f, "; p50 {p50:.0} µs, p99 {p99:.0}, p99.9 {p999:.0}, max {max:.0}")?;
        }
        write!(f, " (load average {})", self.load_average)
    }
}

fn label(contender: Contender, step: Step) -> String {
    match step {
        Step::Whole(_) => contender.to_string(),
        Step::Share { share, .. } => format!("{contender} at {:.0} % of peak", share * 100.0),
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) samples: Vec<Sample>,
    /// Whether a run failed or a count was wrong.
    pub(crate) failed: bool,
}

/// One contender's medians.
struct Row {
    label: String,
    runs: usize,
    cpu_ns: f64,
    spread: (f64, f64),
    rate: f64,
    cores: [f64; 3],
    peak_mib: f64,
    latency: Option<Latency>,
}

impl Results {
    /// The rows of one table. Where it has more than one scenario, they are what its rows are called by.
    fn rows(&self, table: &[Scenario]) -> Vec<Row> {
        table.iter().flat_map(|scenario| self.rows_of(scenario, table.len() > 1)).collect()
    }

    fn rows_of(&self, scenario: &Scenario, named_by_scenario: bool) -> Vec<Row> {
        let mut rows = Vec::new();
        for &contender in &scenario.contenders {
            for step in scenario.steps() {
                let samples: Vec<_> = self
                    .samples
                    .iter()
                    .filter(|sample| (sample.scenario, sample.contender) == (scenario.name, contender))
                    .filter(|sample| sample.step == step)
                    .collect();
                if samples.is_empty() {
                    continue;
                }
                let of = |value: &dyn Fn(&Sample) -> f64| median(samples.iter().map(|sample| value(sample)).collect());
                let latency = |value: fn(&Latency) -> f64| {
                    of(&|sample: &Sample| sample.measured.report.latency.as_ref().map_or(f64::NAN, value))
                };
                let costs = || samples.iter().map(|sample| sample.cpu_ns());
                rows.push(Row {
                    label: if named_by_scenario { scenario.about.to_owned() } else { label(contender, step) },
                    runs: samples.len(),
                    cpu_ns: of(&Sample::cpu_ns),
                    spread: (costs().fold(f64::INFINITY, f64::min), costs().fold(0.0, f64::max)),
                    rate: of(&Sample::rate),
                    cores: [
                        of(&|sample| sample.cores(sample.measured.cpu)),
                        of(&|sample| sample.cores(sample.measured.generator)),
                        of(&|sample| sample.cores(sample.measured.broker)),
                    ],
                    peak_mib: of(&|sample| sample.measured.peak_mib),
                    latency: samples[0].measured.report.latency.map(|_| Latency {
                        p50: latency(|latency| latency.p50),
                        p90: latency(|latency| latency.p90),
                        p99: latency(|latency| latency.p99),
                        p999: latency(|latency| latency.p999),
                        max: latency(|latency| latency.max),
                    }),
                });
            }
        }
        rows
    }

    /// The medians of scenarios that make one table, as Markdown, with ratios to its first row.
    pub(crate) fn table(&self, table: &[Scenario]) -> String {
        let rows = self.rows(table);
        let mut out = format!("\n### {} (`{}`)\n\n", table[0].table, table[0].name);
        out.push_str(
            "| | runs | CPU per record | ratio | records/s | ratio | cores: it, generator, broker | peak MiB |",
        );
        let latencies = table[0].traffic.has_latency();
        out.push_str(if latencies { " p50 | p99 | p99.9 | max |\n" } else { "\n" });
        out.push_str("|---|---|---|---|---|---|---|---|");
        out.push_str(if latencies { "---|---|---|---|\n" } else { "\n" });
        for row in &rows {
            let [own, generator, broker] = row.cores;
            write!(
                out,
                "| {} | {} | {} ({}–{}) | {:.2} | {} | {:.2} | {own:.2}, {generator:.2}, {broker:.2} | {:.0} |",
                row.label,
                row.runs,
                time(row.cpu_ns),
                time(row.spread.0),
                time(row.spread.1),
                row.cpu_ns / rows[0].cpu_ns,
                count(row.rate),
                row.rate / rows[0].rate,
                row.peak_mib,
            )
            .expect("a String takes it");
            if latencies {
                let latency = row.latency.unwrap_or_default();
                for value in [latency.p50, latency.p99, latency.p999, latency.max] {
                    write!(out, " {} |", time(value * 1e3)).expect("a String takes it");
                }
            }
            out.push('\n');
        }
        out
    }

    /// Writes results.csv, results.md and a plot for each scenario.
    pub(crate) fn write(&self, folder: &Path, scenarios: &[Scenario]) {
        fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let write = |name: &str, content: String| {
            fs::write(folder.join(name), content).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        };
        write("results.csv", self.csv());
        let mut text = kernel::machine();
        for table in scenarios.chunk_by(|a, b| a.table == b.table) {
            text.push_str(&self.table(table));
            let scenario = &table[0];
            let rows = self.rows(table);
            let bars =
                |value: fn(&Row) -> f64| rows.iter().map(|row| (row.label.clone(), value(row))).collect::<Vec<_>>();
            let panel = |title, write, value| Panel { title, bars: bars(value), write };
            let mut panels =
                vec![panel("CPU per record", time, |row| row.cpu_ns), panel("records/s", count, |row| row.rate)];
            if scenario.traffic.has_latency() {
                panels.push(panel("latency, p50", time, |row| row.latency.unwrap_or_default().p50 * 1e3));
                panels.push(panel("latency, p99", time, |row| row.latency.unwrap_or_default().p99 * 1e3));
            }
            write(&format!("{}.svg", scenario.name), plot::bars(scenario.table, &panels));
        }
        write("results.md", text);
    }

    fn csv(&self) -> String {
        let mut out = String::from(
            "scenario,contender,round,records,requests,seconds,records_per_s,cpu_ns_per_record,cores,generator_cores,\
             broker_cores,peak_mib,p50_us,p90_us,p99_us,p999_us,max_us,load_average\n",
        );
        for sample in &self.samples {
            let Measured { report, cpu, peak_mib, generator, broker } = &sample.measured;
            let latency = report.latency.unwrap_or_default();
            writeln!(
                out,
                "{},{},{},{},{},{:.3},{:.0},{:.1},{:.3},{:.3},{:.3},{peak_mib:.1},{:.1},{:.1},{:.1},{:.1},{:.1},{}",
                sample.scenario,
                label(sample.contender, sample.step),
                sample.round,
                report.records,
                report.requests,
                report.seconds,
                sample.rate(),
                sample.cpu_ns(),
                sample.cores(*cpu),
                sample.cores(*generator),
                sample.cores(*broker),
                latency.p50,
                latency.p90,
                latency.p99,
                latency.p999,
                latency.max,
                sample.load_average,
            )
            .expect("a String takes it");
        }
        out
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// Nanoseconds, readable.
fn time(ns: f64) -> String {
    match ns {
        0.0..1e3 => format!("{ns:.0} ns"),
        1e3..1e4 => format!("{:.2} µs", ns / 1e3),
        1e4..1e6 => format!("{:.0} µs", ns / 1e3),
        _ => format!("{:.1} ms", ns / 1e6),
    }
}

/// A number with a comma every three digits.
fn count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        assert!((median(vec![4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-9);
        assert!((median(vec![9.0, 1.0, 3.0]) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn numbers_are_written_for_readers() {
        assert_eq!(count(2_345_678.4), "2,345,678");
        assert_eq!(count(12.0), "12");
        assert_eq!((time(81.4), time(7_340.0), time(14_000.0)), ("81 ns".into(), "7.34 µs".into(), "14 µs".into()));
    }
}

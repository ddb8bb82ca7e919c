//! Measures the bridge: what a record costs it, how many it takes a second, how long a caller waits.
//!
//! Every part is a program of its own, so that each one's CPU time and memory can be read from the kernel and no part
//! runs on another's thread:
//!
//! ```text
//!  load ──HTTP──▶ the process under test ──Kafka protocol──▶ Apache Kafka, or null-broker
//!                                                                    ▲
//!  native (bench/librdkafka), ProducerPerformance ───────────────────┘
//! ```
//!
//! and the other way round: `read` instead of `load`, kcat and a consumer on librdkafka natively.
//!
//! - [`payload`]: the records, a file of NDJSON that all contenders send
//! - [`load`]: uploads and lone POSTs, closed loop or paced; on [`http`] and [`pace`]
//! - [`read`]: readers of all that a topic holds, by each of the ways there are
//! - [`idle`]: what an idle connection holds
//! - [`counts`]: system calls and allocations
//! - [`null_broker`]: acknowledges and discards, to take the broker out of the measurement
//! - [`rtt`]: Kafka's own round trip, which no bridge can beat
//! - [`run`]: starts all of it, interleaves the contenders, verifies counts, prints ratios
//!
//! A program that is measured by another keeps to a small protocol: it says `ready` when it is connected, begins when it
//! reads a line, prints a [`Report`] as one line of JSON, and stays until its standard input ends.

mod counts;
mod http;
mod idle;
mod load;
mod null_broker;
mod pace;
mod payload;
mod read;
mod rtt;
mod run;

use std::{
    io::{BufRead, Read, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes a file of NDJSON records
    Payload(payload::Options),
    /// Sends requests to a bridge and reports rate and latency
    Load(load::Options),
    /// Reads all records of a topic from a bridge and reports the rate
    Read(read::Options),
    /// Measures what an idle connection holds of a bridge's memory
    Idle(idle::Options),
    /// Acknowledges Produce requests and discards the records
    NullBroker(null_broker::Options),
    /// Measures Kafka's round trip: one record, acks=all, idempotent
    Rtt(rtt::Options),
    /// Counts system calls and allocations of the bridge; bench/counts builds everything and calls this
    Counts,
    /// Measures the bridge beside its baselines; bench/run builds everything and calls this
    Run(run::Options),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Payload(options) => payload::run(&options),
        Command::Load(options) => load::run(&options),
        Command::Read(options) => read::run(&options),
        Command::Idle(options) => idle::run(&options),
        Command::NullBroker(options) => null_broker::run(&options),
        Command::Rtt(options) => rtt::run(&options),
        Command::Counts => counts::run(),
        Command::Run(options) => return run::run(&options),
    }
    ExitCode::SUCCESS
}

/// What a program that was measured says of itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Report {
    /// HTTP requests that were answered with 200.
    requests: u64,
    /// Records that were acknowledged, or read.
    records: u64,
    /// From the first byte to the last answer.
    seconds: f64,
    /// Of one request or round trip; none for programs that do not wait for single ones.
    latency: Option<Latency>,
}

impl Report {
    fn per_second(&self) -> f64 {
        self.records as f64 / self.seconds
    }
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl From<&Histogram<u64>> for Latency {
    /// From nanoseconds.
    fn from(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: histogram.max() as f64 / 1e3 }
    }
}

/// A histogram of nanoseconds up to a minute, three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("valid bounds")
}

/// Says that everything is connected and, when another program measures us, waits for its word.
fn ready(wait: bool) {
    if wait {
        println!("ready");
        std::io::stdout().flush().expect("stdout is a pipe");
        let read = std::io::stdin().lock().read_line(&mut String::new()).expect("stdin is a pipe");
        // Who measures us is gone.
        if read == 0 {
            std::process::exit(1);
        }
    }
}

/// Prints the report and, when another program measures us, stays so that it can read our CPU time.
fn done(report: &Report, wait: bool) {
    println!("{}", serde_json::to_string(report).expect("numbers"));
    std::io::stdout().flush().expect("stdout is open");
    if wait {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    }
}

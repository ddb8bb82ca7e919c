//! `penstock-checker`: does delivery keep its word? Three brokers of Apache Kafka, the real bridge, and everything that
//! can happen to them, drawn from a seed.
//!
//! ```text
//! writers ──HTTPS──▶ penstock ──▶ proxy 1 ──▶ broker 1 ─┐
//!    │                  ▲    ├──▶ proxy 2 ──▶ broker 2  ├─ each other: directly
//!    │               signals └──▶ proxy 3 ──▶ broker 3 ─┘
//!    ▼                              ▲             ▲
//! history                        faults        signals       then: kcat ──▶ topic, compared with the history
//! ```
//!
//! Writers keep for every line what HTTP told of it: written, not written, unknown. When all faults are healed and
//! every answer is there, a client that is not ours reads the topic, and the two are compared. Meanwhile a group of readers
//! reads it over HTTP: every record must come to one of them, in order within each stream. In reading order:
//!
//! * [`history`]: what was sent and told
//! * [`check`]: the comparison, pure
//! * [`answer`]: from HTTP to outcomes
//! * [`workload`]: the writers
//! * [`readers`]: members of a group, who read what is written
//! * [`schedule`]: which faults, drawn from the seed
//! * [`faults`]: how they are done
//! * [`goodput`]: how soon it is over
//! * [`mod@run`], [`report`]: one run, and what it came to
//!
//! With `--idempotence off` the run is a control: the bridge then may write twice, and the checker must see that it
//! did.

mod answer;
mod check;
mod faults;
mod goodput;
mod history;
mod random;
mod readers;
mod report;
mod run;
mod schedule;
mod workload;

use std::{fs::OpenOptions, io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};

use crate::{
    report::Report,
    run::{Plan, run},
    schedule::{Fault, Wishes},
};

/// Faults against a real bridge and a real Apache Kafka, and whether every line became what HTTP told of it. Exits
/// with 1 when a bar is missed.
#[derive(Debug, Parser)]
#[command(name = "penstock-checker")]
struct Options {
    /// How long faults are begun for, in seconds
    #[arg(long, default_value_t = 200)]
    seconds: u64,
    /// What schedule and load are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// `off`: a control run, which must find duplicates
    #[arg(long, value_enum, default_value_t = Switch::On)]
    idempotence: Switch,
    /// Short faults, one of each kind that is over soon
    #[arg(long)]
    quick: bool,
    /// These faults and no others, in this order; repeat it or separate them by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Fault>,
    /// How long each fault is held, in seconds, in place of what is drawn
    #[arg(long)]
    hold: Option<u64>,
    /// Also fill up a broker's file system. Needs root: it mounts a small tmpfs
    #[arg(long)]
    full_disk: bool,
    /// Goodput must be back to 90 % within 10 s of healing, each time
    #[arg(long)]
    recovery_bar: bool,
    /// How many writers
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    writers: u32,
    /// Lines a second of all writers
    #[arg(long, default_value_t = 800.0)]
    rate: f64,
    /// Write everything as JSON to this file
    #[arg(long)]
    out: Option<PathBuf>,
    /// Append a row to the Markdown table in this file; a new file gets the table's head
    #[arg(long)]
    row: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let plan = Plan {
        seed: options.seed,
        length: Duration::from_secs(options.seconds),
        wishes: Wishes {
            full_disk: options.full_disk || options.only.contains(&Fault::DiskFull),
            only: options.only,
            hold: options.hold.map(Duration::from_secs),
            quick: options.quick,
            control: options.idempotence == Switch::Off,
        },
        writers: options.writers,
        rate: options.rate,
    };
    let report = run(&plan);
    println!("\n{report}");
    if let Some(path) = &options.out {
        std::fs::write(path, format!("{:#}\n", report.json())).expect("the file of --out can be written");
    }
    if let Some(path) = &options.row {
        let mut table =
            OpenOptions::new().append(true).create(true).open(path).expect("the file of --row can be written");
        if table.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            writeln!(table, "{}", Report::row_head()).expect("the file of --row can be written");
        }
        writeln!(table, "{}", report.row()).expect("the file of --row can be written");
    }
    let missed = report.missed(options.recovery_bar);
    if missed.is_empty() {
        println!("every bar is met");
        return ExitCode::SUCCESS;
    }
    for bar in missed {
        println!("MISSED: {bar}");
    }
    ExitCode::FAILURE
}

//! The runner: contenders take turns on one broker, so that whatever else the machine does meets all of them alike; what
//! counts are medians and ratios within one run, not absolute figures of different days.

mod child;
mod contender;
mod kernel;
mod plot;
mod report;
mod scenario;

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use kafka_client::{Cluster as Client, Config, Isolation, OffsetSpec};
use penstock_tests::{distribution::Version, free_port, kafka::Cluster, process::Process, temp_dir, unique};
use tokio::{runtime::Runtime, time::Instant};

use self::{
    contender::Contenders,
    report::{Results, Sample},
    scenario::{Broker, Scenario, Traffic},
};
use crate::Report;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Two minutes instead of fifteen: one round, short ones, fewer contenders; for a look, not for figures
    #[arg(long)]
    quick: bool,
    /// How the cost grows with workers, connections, topics, partitions and sizes, instead of the rest
    #[arg(long)]
    scaling: bool,
    /// Scenarios whose names begin so; can be repeated
    #[arg(long)]
    only: Vec<String>,
    /// How many times each contender takes its turn [default: 3, quick: 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// Where results.csv, results.md and the plots go
    #[arg(long, default_value = "bench/results")]
    out: PathBuf,
    /// The program with the baselines on librdkafka
    #[arg(long, env = "PENSTOCK_BENCH_LIBRDKAFKA")]
    librdkafka: PathBuf,
    /// Only lists the scenarios
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    let scenarios = if options.scaling { scenario::scaling() } else { scenario::all() };
    let scenarios: Vec<_> = scenarios
        .into_iter()
        .filter(|scenario| options.only.is_empty() || options.only.iter().any(|only| scenario.name.starts_with(only)))
        .filter(|scenario| !options.quick || !options.only.is_empty() || scenario.quick())
        .collect();
    if options.list || scenarios.is_empty() {
        scenarios.iter().for_each(|scenario| println!("{:14} {}", scenario.name, scenario.about));
        return ExitCode::SUCCESS;
    }
    let begun = Instant::now();
    let mut bench = Bench::start(options);
    let mut results = Results::default();
    for table in scenarios.chunk_by(|a, b| a.table == b.table) {
        for scenario in table {
            eprintln!("== {} (at {} s)", scenario.about, begun.elapsed().as_secs());
            bench.measure(scenario, &mut results);
        }
        eprint!("{}", results.table(table));
    }
    results.write(&options.out, &scenarios);
    eprintln!("{} s; {}", begun.elapsed().as_secs(), options.out.display());
    if results.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The brokers and what talks to them.
struct Bench<'a> {
    options: &'a Options,
    runtime: Runtime,
    /// Started by the first scenario on it.
    kafka: Option<Cluster>,
    /// For scenarios with so many partitions.
    null: Option<(i32, Null)>,
    /// Whether the broker has been under load.
    warm: bool,
}

/// A null broker. Dropping it ends it.
pub(crate) struct Null {
    pub(crate) bootstrap: String,
    process: Process,
}

impl Null {
    pub(crate) fn start(partitions: i32) -> Self {
        let bootstrap = format!("127.0.0.1:{}", free_port());
        let this = std::env::current_exe().expect("a process knows its program");
        let process = Process::spawn(
            "null-broker",
            &this.display().to_string(),
            ["null-broker", "--partitions", &partitions.to_string(), "--listen", &bootstrap],
            &[],
        );
        process.wait_for_line("it listens", contender::START, |line| line == "listening");
        Self { bootstrap, process }
    }
}

fn start_kafka() -> Cluster {
    // Deleted topics give their bytes back at once: a run writes more than a disk may hold.
    let settings = [("log.segment.delete.delay.ms", "0"), ("log.cleaner.enable", "false")];
    Cluster::start_for_load(Version::V4_1_1, 1, &settings)
}

impl<'a> Bench<'a> {
    fn start(options: &'a Options) -> Self {
        // The kafka-client's tasks run on it.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { options, runtime: runtime.expect("a runtime can be made"), kafka: None, null: None, warm: false }
    }

    /// Where the scenario's broker is, and its process.
    fn broker(&mut self, scenario: &Scenario) -> (String, u32) {
        match scenario.broker {
            Broker::Kafka => {
                let kafka = self.kafka.get_or_insert_with(start_kafka);
                (kafka.bootstrap(), kafka.pids()[0])
            }
            Broker::Null => {
                let partitions = scenario.partitions;
                if self.null.as_ref().is_none_or(|(started_for, _)| *started_for != partitions) {
                    self.null = Some((partitions, Null::start(partitions)));
                }
                let (_, null) = self.null.as_ref().expect("started above");
                (null.bootstrap.clone(), null.process.pid())
            }
        }
    }

    fn measure(&mut self, scenario: &Scenario, results: &mut Results) {
        let (bootstrap, broker_pid) = self.broker(scenario);
        let client = self.runtime.block_on(async {
            Client::start(Config { bootstrap_servers: vec![bootstrap.clone()], ..Config::default() })
        });
        let file = temp_dir("records").join("records.ndjson");
        std::fs::write(&file, crate::payload::ndjson(scenario.record_bytes))
            .expect("the temporary folder can be written");
        let mut contenders = Contenders::new(scenario, &bootstrap, &file, broker_pid, self.options);
        // What is read is written once; what is written goes to a topic of its own.
        let filled = (scenario.traffic == Traffic::Read).then(|| {
            let topic = self.topic(scenario, &client);
            contenders.fill(&topic);
            topic
        });
        if scenario.broker == Broker::Kafka && !std::mem::replace(&mut self.warm, true) {
            // The JVM compiles what it runs often; nobody's first run should pay for it.
            let topic = filled.clone().unwrap_or_else(|| self.topic(scenario, &client));
            let _unmeasured = contenders.run(scenario.contenders[0], Step::Whole(scenario.traffic), &topic);
            if filled.is_none() {
                self.delete(scenario, &client, &topic);
            }
        }
        let rounds = self.options.rounds.unwrap_or(if self.options.quick { 1 } else { 3 });
        for round in 0..rounds {
            for turn in 0..scenario.contenders.len() {
                // Another one begins each round.
                let contender = scenario.contenders[(turn + round) % scenario.contenders.len()];
                for step in scenario.steps() {
                    let topic = filled.clone().unwrap_or_else(|| self.topic(scenario, &client));
                    let load_average = kernel::load_average();
                    let measured = contenders.run(contender, step, &topic);
                    let found = self.records(scenario, &client, &topic);
                    if filled.is_none() {
                        self.delete(scenario, &client, &topic);
                    }
                    match measured {
                        Some(measured) if found == measured.report.records => {
                            let sample =
                                Sample { scenario: scenario.name, contender, step, round, load_average, measured };
                            eprintln!("  {sample}");
                            results.samples.push(sample);
                        }
                        Some(measured) => {
                            let Report { records, .. } = measured.report;
                            eprintln!(
                                "  {contender}: FAILED: {records} records acknowledged or read, {found} in Kafka"
                            );
                            results.failed = true;
                        }
                        None => {
                            eprintln!("  {contender}: FAILED: it ended early");
                            results.failed = true;
                        }
                    }
                }
            }
        }
        if let Some(topic) = filled {
            self.delete(scenario, &client, &topic);
        }
    }

    fn topic(&self, scenario: &Scenario, client: &Client) -> String {
        match scenario.broker {
            Broker::Kafka => {
                let kafka = self.kafka.as_ref().expect("the scenario's broker was started");
                let topic = kafka.create_topic_with(
                    scenario.name,
                    scenario.partitions,
                    &[("segment.bytes", "268435456"), ("file.delete.delay.ms", "0")],
                );
                let known = self.runtime.block_on(client.topic(&topic));
                known.expect("the topic was created");
                topic
            }
            Broker::Null => unique(scenario.name),
        }
    }

    /// How many records the topics of a load hold, from the ends of their partitions.
    fn records(&self, scenario: &Scenario, client: &Client, topic: &str) -> u64 {
        let topics = if let Traffic::Lone { topics, .. } = scenario.traffic { topics } else { 1 };
        self.runtime.block_on(async {
            let mut records = 0;
            for index in 0..topics {
                let topic = crate::load::topic_name(topic, index);
                let info = client.topic(&topic).await.expect("the topic is there");
                for partition in 0..scenario.partitions {
                    let end = client
                        .list_offset(&info, partition, OffsetSpec::Latest, Isolation::ReadUncommitted)
                        .await
                        .expect("its leader answers");
                    records += end.offset.unwrap_or(0) as u64;
                }
            }
            records
        })
    }

    fn delete(&self, scenario: &Scenario, client: &Client, topic: &str) {
        if scenario.broker == Broker::Kafka {
            self.runtime.block_on(client.delete_topic(topic)).expect("the controller deletes the topic");
        }
    }
}

impl Scenario {
    /// Whether it is among those of a quick run.
    fn quick(&self) -> bool {
        matches!(self.name, "ndjson-100" | "ndjson-1k" | "lone-1k" | "idle-1k" | "keyed-100" | "read-100")
    }
}

/// One thing to run: the scenario's traffic, or a paced one at a share of the peak.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Whole(Traffic),
    Share { connections: usize, share: f64 },
}

impl Scenario {
    fn steps(&self) -> Vec<Step> {
        match self.traffic {
            Traffic::Paced { connections, shares } => [Step::Whole(Traffic::Lone { connections, topics: 1 })]
                .into_iter()
                .chain(shares.map(|share| Step::Share { connections, share }))
                .collect(),
            traffic => vec![Step::Whole(traffic)],
        }
    }
}

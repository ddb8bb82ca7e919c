//! Running a contender once, and what it took.

use std::{
    collections::HashMap,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use clap::ValueEnum as _;
use penstock_tests::{
    bridge::{Bridge, Settings},
    distribution::Version,
    eventually, free_port,
    process::Process,
    tls::certificates,
};
use tokio::time::Instant;

use super::{
    Options, Step,
    child::Program,
    kernel::{self, Cpu},
    scenario::{Contender, Scenario, Shape, Traffic},
};
use crate::{Report, read::Via};

/// How long a program may take to start on a busy machine.
pub(crate) const START: Duration = Duration::from_secs(60);

/// How long one run may take.
const RUN: Duration = Duration::from_secs(300);

/// What one run took.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) report: Report,
    /// CPU time of the process under test.
    pub(crate) cpu: Duration,
    /// Its peak memory so far.
    pub(crate) peak_mib: f64,
    /// CPU time of the load generator, where it is not the process under test.
    pub(crate) generator: Duration,
    /// CPU time of the broker (Apache Kafka's).
    pub(crate) broker: Duration,
}

/// One scenario's contenders. Servers are started by their first turn and end with the scenario.
pub(crate) struct Contenders<'a> {
    scenario: &'a Scenario,
    bootstrap: &'a str,
    file: &'a Path,
    options: &'a Options,
    broker_pid: u32,
    servers: HashMap<String, Server>,
    /// Requests a second, closed loop, as the last run found it.
    peak: Option<f64>,
}

struct Server {
    address: String,
    pid: u32,
    /// Kept for its drop.
    _process: Either,
}

enum Either {
    Bridge { _bridge: Bridge },
    Afternoon { _process: Process },
}

impl<'a> Contenders<'a> {
    pub(crate) fn new(
        scenario: &'a Scenario,
        bootstrap: &'a str,
        file: &'a Path,
        broker_pid: u32,
        options: &'a Options,
    ) -> Self {
        let servers = HashMap::new();
        Self { scenario, bootstrap, file, options, broker_pid, servers, peak: None }
    }

    /// Runs it once. `None`: it failed, and has said why on standard error.
    pub(crate) fn run(&mut self, contender: Contender, step: Step, topic: &str) -> Option<Measured> {
        let broker = Cpu::of(self.broker_pid);
        let mut measured = match contender {
            Contender::Penstock { tls, .. } | Contender::Afternoon { tls, .. } => {
                self.through_server(contender, tls, step, topic)
            }
            Contender::Reader { via } => self.read(contender, via, topic),
            Contender::NativeReader => self.native_read(topic),
            Contender::Kcat => self.kcat(topic),
            Contender::Native => self.native(topic),
            Contender::RoundTrip => self.round_trip(step, topic),
            Contender::Java => self.java(topic),
        }?;
        measured.broker = Cpu::of(self.broker_pid).since(&broker);
        Some(measured)
    }

    fn through_server(&mut self, contender: Contender, tls: bool, step: Step, topic: &str) -> Option<Measured> {
        let records = self.records(contender);
        let seconds = self.seconds();
        let peak = self.peak;
        let server = self.server(contender);
        let (pid, mut arguments) =
            (server.pid, strings(&["load", "--wait", "--address", &server.address, "--topic", topic]));
        let mut add = |more: &[&str]| arguments.extend(strings(more));
        add(&["--file", &self.file.display().to_string()]);
        if tls {
            add(&["--ca", &certificates().ca.display().to_string()]);
        }
        match step {
            Step::Whole(Traffic::Upload(Shape { keyed, chunk_bytes, tls_record_bytes })) => {
                add(&["--connections", "4", "--requests", "4", "--lines", &(records / 4).to_string()]);
                if keyed {
                    add(&["--keyed"]);
                }
                if let Some(bytes) = chunk_bytes {
                    add(&["--chunk-bytes", &bytes.to_string()]);
                }
                if let Some(bytes) = tls_record_bytes {
                    add(&["--tls-record-bytes", &bytes.to_string()]);
                }
            }
            Step::Whole(Traffic::Paced { connections, .. }) => {
                add(&["--connections", &connections.to_string(), "--seconds", &seconds]);
            }
            Step::Whole(Traffic::Lone { connections, topics }) => {
                add(&["--connections", &connections.to_string(), "--seconds", &seconds]);
                add(&["--topics", &topics.to_string()]);
            }
            Step::Whole(Traffic::Idle { rate }) => add(&["--rate", &rate.to_string(), "--seconds", &seconds]),
            Step::Whole(Traffic::Read) => unreachable!("nothing is sent there"),
            Step::Share { connections, share } => {
                let rate = share * peak?;
                add(&["--connections", &connections.to_string(), "--seconds", &seconds, "--rate", &rate.to_string()]);
            }
        }
        let measured = beside(pid, &arguments)?;
        if let Step::Whole(Traffic::Lone { .. }) = step {
            self.peak = Some(measured.report.per_second());
        }
        Some(measured)
    }

    /// Writes what [`Traffic::Read`] reads.
    pub(crate) fn fill(&self, topic: &str) {
        self.native(topic).expect("librdkafka writes to the topic");
    }

    fn read(&mut self, contender: Contender, via: Via, topic: &str) -> Option<Measured> {
        let (records, partitions) = (self.records(contender).to_string(), self.scenario.partitions.to_string());
        let via = via.to_possible_value().expect("no way is skipped");
        let server = self.server(contender);
        let ca = certificates().ca.display().to_string();
        let mut arguments = strings(&["read", "--wait", "--address", &server.address, "--ca", &ca, "--topic", topic]);
        arguments.extend(strings(&["--partitions", &partitions, "--records", &records, "--via", via.get_name()]));
        beside(server.pid, &arguments)
    }

    fn native_read(&self, topic: &str) -> Option<Measured> {
        let records = self.records(Contender::NativeReader).to_string();
        let partitions = self.scenario.partitions.to_string();
        let arguments = ["read", "--bootstrap", self.bootstrap, "--topic", topic, "--partitions", &partitions];
        alone(&self.options.librdkafka, &strings(&[&arguments[..], &["--records", &records]].concat()))
    }

    /// kcat begins at once and ends by itself: its start is in the figures, and what it took is read before it is waited
    /// for.
    fn kcat(&self, topic: &str) -> Option<Measured> {
        let begun = Instant::now();
        let mut child = Command::new("kcat")
            .args(["-C", "-q", "-o", "beginning", "-e", "-b", self.bootstrap, "-t", topic])
            .stdout(Stdio::piped())
            .spawn()
            .expect("kcat is installed: apt-get install kcat");
        let pid = child.id();
        let mut output = child.stdout.take().expect("stdout is piped");
        let (mut piece, mut records, mut peak_mib, mut pieces) = (vec![0; 64 << 10], 0, 0.0_f64, 0_u64);
        loop {
            let length = output.read(&mut piece).expect("a pipe can be read");
            if length == 0 {
                break;
            }
            records += memchr::memchr_iter(b'\n', &piece[..length]).count() as u64;
            if pieces.is_multiple_of(256) {
                peak_mib = kernel::peak_mib(pid).max(peak_mib);
            }
            pieces += 1;
        }
        let seconds = begun.elapsed().as_secs_f64();
        eventually("kcat ends", RUN, || kernel::has_ended(pid).then_some(()));
        let cpu = kernel::cpu_in_ticks(pid);
        let ended = child.wait().expect("it is our child");
        let report = Report { requests: 0, records, seconds, latency: None };
        ended.success().then_some(Measured { report, cpu, peak_mib, generator: Duration::ZERO, broker: Duration::ZERO })
    }

    fn server(&mut self, contender: Contender) -> &Server {
        let Self { bootstrap, options, .. } = *self;
        let contender = match contender {
            // All ways of reading meet one bridge.
            Contender::Reader { .. } => Contender::Penstock { tls: true, workers: 1 },
            contender => contender,
        };
        self.servers.entry(contender.to_string()).or_insert_with(|| match contender {
            Contender::Penstock { tls, workers } => {
                let mut settings = Settings::new(bootstrap).set("runtime.workers", &workers.to_string());
                if !tls {
                    settings = settings.set("tls.mode", "\"off\"");
                }
                let bridge = Bridge::start_with(&settings);
                let (address, pid) = (format!("127.0.0.1:{}", bridge.port), bridge.process().pid());
                Server { address, pid, _process: Either::Bridge { _bridge: bridge } }
            }
            Contender::Afternoon { tls, linger_ms } => {
                let address = format!("127.0.0.1:{}", free_port());
                let linger_ms = linger_ms.to_string();
                let mut arguments =
                    strings(&["afternoon", "--bootstrap", bootstrap, "--listen", &address, "--linger-ms", &linger_ms]);
                if tls {
                    let (certificate, key) = (&certificates().certificate, &certificates().key);
                    let files = [certificate, key].map(|path| path.display().to_string());
                    arguments.extend(strings(&["--certificate", &files[0], "--key", &files[1]]));
                }
                let process = Process::spawn("afternoon", &options.librdkafka.display().to_string(), arguments, &[]);
                process.wait_for_line("it listens", START, |line| line == "listening");
                let pid = process.pid();
                Server { address, pid, _process: Either::Afternoon { _process: process } }
            }
            _ => unreachable!("the others are no servers"),
        })
    }

    fn native(&self, topic: &str) -> Option<Measured> {
        let records = self.records(Contender::Native).to_string();
        let file = self.file.display().to_string();
        let mut arguments = strings(&[
            "native",
            "--bootstrap",
            self.bootstrap,
            "--topic",
            topic,
            "--file",
            &file,
            "--records",
            &records,
        ]);
        if let Traffic::Upload(Shape { keyed: true, .. }) = self.scenario.traffic {
            arguments.push("--keyed".to_owned());
        }
        alone(&self.options.librdkafka, &arguments)
    }

    fn round_trip(&self, step: Step, topic: &str) -> Option<Measured> {
        let seconds = self.seconds();
        let size = self.scenario.record_bytes.to_string();
        let mut arguments = strings(&[
            "rtt",
            "--wait",
            "--bootstrap",
            self.bootstrap,
            "--topic",
            topic,
            "--seconds",
            &seconds,
            "--record-bytes",
            &size,
        ]);
        if let Step::Whole(Traffic::Idle { rate }) = step {
            arguments.extend(strings(&["--rate", &rate.to_string()]));
        }
        alone(&this_program(), &arguments)
    }

    /// Kafka's own producer ends by itself, so its CPU time is what was last seen of it, less what a JVM needs to start.
    fn java(&mut self, topic: &str) -> Option<Measured> {
        let start = self.performance(topic, 1)?;
        let mut measured = self.performance(topic, self.records(Contender::Java))?;
        measured.cpu = measured.cpu.saturating_sub(start.cpu);
        // It went to the same topic, whose records are counted.
        measured.report.records += start.report.records;
        Some(measured)
    }

    fn performance(&self, topic: &str, records: u64) -> Option<Measured> {
        let (file, records) = (self.file.display().to_string(), records.to_string());
        let bootstrap = format!("bootstrap.servers={}", self.bootstrap);
        let arguments = [
            "-Xmx512m",
            "-cp",
            Version::V4_1_1.class_path(),
            "org.apache.kafka.tools.ProducerPerformance",
            "--topic",
            topic,
            "--num-records",
            &records,
            "--throughput",
            "-1",
            "--payload-file",
            &file,
            "--producer-props",
            &bootstrap,
            "acks=all",
            "enable.idempotence=true",
            "linger.ms=5",
            "batch.size=1000000",
            "buffer.memory=134217728",
        ];
        let mut process = Process::spawn("ProducerPerformance", "java", arguments, &[]);
        let (mut cpu, mut peak_mib) = (Duration::ZERO, 0.0);
        eventually("ProducerPerformance ends", RUN, || {
            cpu = cpu.max(kernel::cpu_in_ticks(process.pid()));
            peak_mib = kernel::peak_mib(process.pid()).max(peak_mib);
            (!process.is_running()).then_some(())
        });
        let said = process.output();
        // "3000000 records sent, 812345.1 records/sec (77.47 MB/sec), 102.11 ms avg latency, … 99.9th."
        let line = said.iter().rev().find(|line| line.ends_with("99.9th."))?;
        let number = |what| line.split(what).next()?.rsplit([' ', ',']).next()?.trim().parse::<f64>().ok();
        let (records, rate) = (number(" records sent")?, number(" records/sec")?);
        let report = Report { requests: 0, records: records as u64, seconds: records / rate, latency: None };
        Some(Measured { report, cpu, peak_mib, generator: Duration::ZERO, broker: Duration::ZERO })
    }

    fn seconds(&self) -> String {
        if self.options.quick || self.options.scaling { "2" } else { "5" }.to_owned()
    }

    /// So many that a run takes some seconds; a multiple of four.
    fn records(&self, contender: Contender) -> u64 {
        let (bytes, most) = match contender {
            // Whoever reads finds what was written once.
            _ if self.scenario.traffic == Traffic::Read => (400_000_000, 2_000_000),
            Contender::Penstock { .. } => (800_000_000, 6_000_000),
            Contender::Native => (400_000_000, 3_000_000),
            Contender::Java => (500_000_000, 4_000_000),
            _ => (300_000_000, 1_500_000),
        };
        let quick = if self.options.quick || self.options.scaling { 4 } else { 1 };
        (bytes / self.scenario.record_bytes as u64).min(most) / quick / 4 * 4
    }
}

/// Runs a part of this program against the server `pid`, which is what is measured.
fn beside(pid: u32, arguments: &[String]) -> Option<Measured> {
    let mut program = Program::start(&this_program(), arguments)?;
    let (before, generator) = (Cpu::of(pid), Cpu::of(program.pid()));
    let report = program.finish()?;
    let (cpu, generator) = (Cpu::of(pid).since(&before), Cpu::of(program.pid()).since(&generator));
    Some(Measured { report, cpu, peak_mib: kernel::peak_mib(pid), generator, broker: Duration::ZERO })
}

/// Runs a program that is itself what is measured.
fn alone(program: &Path, arguments: &[String]) -> Option<Measured> {
    let mut program = Program::start(program, arguments)?;
    let before = Cpu::of(program.pid());
    let report = program.finish()?;
    let cpu = Cpu::of(program.pid()).since(&before);
    let peak_mib = kernel::peak_mib(program.pid());
    Some(Measured { report, cpu, peak_mib, generator: Duration::ZERO, broker: Duration::ZERO })
}

fn this_program() -> PathBuf {
    std::env::current_exe().expect("a process knows its program")
}

fn strings(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(ToString::to_string).collect()
}

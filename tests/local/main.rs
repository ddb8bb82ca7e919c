//! `penstock-local`: the whole topology on this machine, as deploy/ puts it into a cloud. Three brokers, three bridges, the
//! load balancer with a VPC endpoint in front; `deploy/local/run` builds and starts it.
//!
//! `up` keeps it running for scripts and curl; `roll` replaces all bridges one by one under load, and says what callers
//! saw.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use penstock_tests::{
    distribution::Version,
    eventually,
    fleet::{
        Fleet, Leave,
        load::{Callers, Load},
    },
    kafka::Cluster,
    tls::certificates,
};

/// Three brokers of Apache Kafka, three bridges, and a load balancer in front of them, on loopback.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    command: Command,
    /// Where the load balancer listens; port 0 is any free one
    #[arg(long, global = true, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Divides the times of the load balancer and of the drain (a notice of 130 s, a deadline of 180 s)
    #[arg(long, global = true, value_name = "FACTOR", default_value_t = 10.0)]
    faster: f64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts everything, prints where it is as shell assignments, one a line, then an empty line; ends with its standard input
    Up,
    /// Starts everything, replaces all bridges one by one under load, and exits with 1 if a caller noticed
    Roll {
        /// Uploads at any time
        #[arg(long, default_value_t = 20)]
        uploads: u64,
        /// Lone requests a second
        #[arg(long, default_value_t = 100)]
        requests: u64,
    },
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !(options.faster.is_finite() && options.faster > 0.0) {
        eprintln!("penstock-local: --faster {}: a number above 0", options.faster);
        return ExitCode::from(2);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    eprintln!("three brokers …");
    let cluster = Cluster::start(Version::V4_1_1, 3, &[]);
    let topic = cluster.create_topic("events", 6);
    eprintln!("three bridges and the load balancer …");
    let fleet = Fleet::start(runtime.handle(), &cluster.bootstrap(), 3, options.faster, options.listen);
    let mut fleet = match fleet {
        Ok(fleet) => fleet,
        Err(error) => {
            eprintln!("penstock-local: --listen {}: {error}", options.listen);
            return ExitCode::FAILURE;
        }
    };
    match options.command {
        Command::Up => {
            println!("PENSTOCK_URL=https://{}:{}", Ipv4Addr::LOCALHOST, fleet.port());
            println!("PENSTOCK_CA={}", certificates().ca.display());
            println!("KAFKA_BOOTSTRAP_SERVERS={}", cluster.bootstrap());
            println!("KAFKA_LIBS={}", Version::V4_1_1.class_path().trim_end_matches("/*"));
            println!("TOPIC={topic}");
            for (number, bridge) in fleet.bridges().iter().enumerate() {
                println!("MANAGEMENT_{}=http://127.0.0.1:{}", number + 1, bridge.management_port);
            }
            println!();
            // An error is an end, too.
            let _ = io::stdout().flush().and_then(|()| io::stdin().read_to_end(&mut Vec::new()).map(drop));
            ExitCode::SUCCESS
        }
        Command::Roll { uploads, requests } => {
            println!("times divided by {}; {uploads} uploads, {requests} lone requests a second", options.faster);
            let load = Load { port: fleet.port(), topic: topic.clone(), uploads, requests };
            let callers = Callers::start(runtime.handle(), &load);
            eventually("the load runs", Duration::from_secs(120), || {
                let (answered, uploaded) = callers.answered();
                (answered >= 2 * requests && uploaded >= uploads).then_some(())
            });
            let mut refused = 0;
            for (index, leave) in [(0, Leave::Signalled), (1, Leave::Deregistered), (2, Leave::Signalled)] {
                let replaced = fleet.replace(index, leave);
                println!("{replaced}");
                refused += replaced.refused;
            }
            let outcome = callers.finish(runtime.handle(), &cluster.bootstrap(), &topic);
            println!("{outcome}");
            if refused == 0 && outcome.is_clean() {
                println!("no caller noticed");
                ExitCode::SUCCESS
            } else {
                println!("callers noticed");
                ExitCode::FAILURE
            }
        }
    }
}

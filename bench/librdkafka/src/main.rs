//! What the bridge is compared with, on librdkafka, the C client under most other clients:
//!
//! * `native` sends records itself: the price of producing without a bridge.
//! * `read` receives records itself: the price of consuming without a bridge.
//! * `afternoon` is the bridge that somebody writes in an afternoon: hyper, rustls, one future of librdkafka a record.
//!
//! Both producers are idempotent, wait for all in-sync replicas and make batches of up to 1 MB, as the bridge does.

mod afternoon;
mod native;
mod read;

use clap::{Parser, Subcommand};
use rdkafka::config::ClientConfig;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends records natively: says `ready`, waits for a line, sends, prints one line of JSON, waits for the end of its
    /// standard input.
    Native(native::Options),
    /// Reads records natively, by the same protocol.
    Read(read::Options),
    /// Serves `POST /v1/topics/{topic}/records` over TLS until it is killed; says `listening` first.
    Afternoon(afternoon::Options),
}

/// The producer's settings that both share.
fn producer_config(bootstrap: &str, linger_ms: u32) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", linger_ms.to_string())
        .set("batch.size", "1000000")
        .set("batch.num.messages", "100000")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "131072");
    config
}

fn main() {
    match Cli::parse().command {
        Command::Native(options) => native::run(&options),
        Command::Read(options) => read::run(&options),
        Command::Afternoon(options) => afternoon::run(options),
    }
}

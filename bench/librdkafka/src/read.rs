//! A consumer without a bridge: one thread takes the records of all partitions from librdkafka, at its defaults.

use std::{
    io::{BufRead, Read, Write},
    time::{Duration, Instant},
};

use clap::Args;
use rdkafka::{
    Offset, TopicPartitionList,
    config::ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

#[derive(Args)]
pub struct Options {
    /// `host:port` of a broker.
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    partitions: i32,
    /// How many records the topic holds.
    #[arg(long)]
    records: u64,
}

pub fn run(options: &Options) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &options.bootstrap).set("group.id", "unused").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().expect("librdkafka takes its settings");
    // Connected, and the topic known, before anything is measured.
    consumer.fetch_metadata(Some(&options.topic), Duration::from_secs(30)).expect("the broker answers");
    let mut partitions = TopicPartitionList::new();
    for partition in 0..options.partitions {
        partitions.add_partition_offset(&options.topic, partition, Offset::Beginning).expect("a partition's number");
    }

    println!("ready");
    std::io::stdout().flush().expect("stdout is a pipe");
    std::io::stdin().lock().read_line(&mut String::new()).expect("stdin is a pipe");
    let begun = Instant::now();
    consumer.assign(&partitions).expect("nothing else is assigned");
    let (mut records, mut bytes) = (0, 0);
    while records < options.records {
        let message = consumer.poll(Duration::from_secs(60)).expect("there are more records within a minute");
        bytes += message.expect("the broker sends records").payload_len();
        records += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    assert!(bytes > 0, "records have values");
    println!(r#"{{"requests":0,"records":{records},"seconds":{seconds}}}"#);
    std::io::stdout().flush().expect("stdout is a pipe");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

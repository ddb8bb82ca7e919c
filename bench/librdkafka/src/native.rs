//! A producer without a bridge: one thread hands the records of a file to librdkafka, over and over.

use std::{
    io::{BufRead, Read, Write},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use clap::Args;
use rdkafka::{
    ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};

#[derive(Args)]
pub struct Options {
    /// `host:port` of a broker.
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    /// NDJSON; each line is one record.
    #[arg(long)]
    file: PathBuf,
    /// How many records to send.
    #[arg(long)]
    records: u64,
    /// Sends each document's `id` as key, which stands first in it.
    #[arg(long)]
    keyed: bool,
    #[arg(long, default_value_t = 5)]
    linger_ms: u32,
}

/// Counts what the broker acknowledged. A failure ends the process: a rate with holes is no rate.
struct Deliveries {
    acknowledged: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            eprintln!("native: not delivered: {error}");
            std::process::exit(1);
        }
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

pub fn run(options: &Options) {
    let file = std::fs::read(&options.file).expect("the file of records can be read");
    let records: Vec<(&[u8], &[u8])> =
        file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(with_key).collect();
    let mut config = crate::producer_config(&options.bootstrap, options.linger_ms);
    config.set("partitioner", "murmur2_random");
    let producer: ThreadedProducer<Deliveries> = config
        .create_with_context(Deliveries { acknowledged: AtomicU64::new(0) })
        .expect("librdkafka takes its settings");
    // Connected, and the topic known, before anything is measured.
    producer.client().fetch_metadata(Some(&options.topic), Duration::from_secs(30)).expect("the broker answers");

    println!("ready");
    std::io::stdout().flush().expect("stdout is a pipe");
    std::io::stdin().lock().read_line(&mut String::new()).expect("stdin is a pipe");
    let begun = Instant::now();
    for index in 0..options.records {
        let (key, value) = records[index as usize % records.len()];
        let mut record = BaseRecord::to(&options.topic).payload(value);
        if options.keyed {
            record = record.key(key);
        }
        while let Err((error, refused)) = producer.send(record) {
            assert_eq!(
                error,
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull),
                "the only refusal that passes"
            );
            std::thread::sleep(Duration::from_millis(1));
            record = refused;
        }
    }
    producer.flush(Duration::from_secs(60)).expect("all is delivered within a minute");
    let seconds = begun.elapsed().as_secs_f64();
    let acknowledged = producer.context().acknowledged.load(Ordering::Relaxed);
    assert_eq!(acknowledged, options.records);
    println!(r#"{{"requests":0,"records":{acknowledged},"seconds":{seconds}}}"#);
    std::io::stdout().flush().expect("stdout is a pipe");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// `{"id":"KEY",…` and the whole.
fn with_key(line: &[u8]) -> (&[u8], &[u8]) {
    (line.splitn(5, |byte| *byte == b'"').nth(3).unwrap_or_default(), line)
}

//! Kafka's round trip as our own client sees it: one record, acks=all, idempotent, one at a time. What a lone POST on an
//! idle bridge takes beyond this is the bridge.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use clap::Args;
use kafka_client::{Cluster, Config, ErrorCode, ProducePartition, ProduceRequest, ProduceTopic};
use kafka_records::{BatchBuilder, Compression, HeaderBlock, Record, Stamp};
use tokio::{task::LocalSet, time::Instant};

use crate::{
    Latency, Report,
    pace::{Alarm, Schedule},
};

#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// `host:port` of a broker
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// Records a second; without it, one after the other
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Says `ready` and waits for a line before it begins
    #[arg(long)]
    wait: bool,
}

pub(crate) fn run(options: &Options) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    let report = LocalSet::new().block_on(&runtime, measure(options));
    crate::done(&report, options.wait);
}

async fn measure(options: &Options) -> Report {
    let cluster = Cluster::start(Config {
        bootstrap_servers: vec![options.bootstrap.clone()],
        client_id: "penstock-bench".to_owned(),
        ..Config::default()
    });
    let topic = cluster.topic(&options.topic).await.expect("the topic is there");
    let identity = cluster.init_producer_id().await.expect("the broker gives an identity");
    let leader = topic.partitions[0].leader.expect("the partition has a leader");
    let connection = cluster.dial(leader).await.expect("the broker accepts a connection");
    let value = vec![b'x'; options.record_bytes];
    let produce = |sequence| {
        let headers = HeaderBlock::none();
        let mut batch = BatchBuilder::new(Vec::new());
        batch.append(Record { timestamp: 1_700_000_000_000, key: None, value: Some(&value), headers });
        let stamp = Stamp { producer_id: identity.id, producer_epoch: identity.epoch, base_sequence: sequence };
        let records = Bytes::from(batch.close(Compression::None).stamp(stamp));
        let partitions = vec![ProducePartition { index: 0, records }];
        let topics = vec![ProduceTopic { name: Arc::clone(&topic.name), id: topic.id, partitions }];
        connection.produce(ProduceRequest { timeout: Duration::from_secs(10), topics })
    };
    // A topic made a moment ago may be unknown to its leader; a refusal gives the sequence number back.
    let limit = Instant::now() + Duration::from_secs(10);
    while produce(0).await.expect("the broker answers").topics[0].partitions[0].error != ErrorCode::NONE {
        assert!(Instant::now() < limit, "the broker does not take the first record");
    }
    crate::ready(options.wait);

    let schedule = Schedule::new(options.rate, None, Some(Duration::from_secs_f64(options.seconds)));
    let alarm = Alarm::new().expect("a timer can be made");
    let (mut latencies, mut sequence) = (crate::histogram(), 0);
    while let Some((_, due)) = schedule.next() {
        alarm.wait_until(due).await.expect("the timer works");
        sequence += 1;
        let answer = produce(sequence).await.expect("the broker answers");
        assert_eq!(answer.topics[0].partitions[0].error, ErrorCode::NONE, "the broker takes the record");
        latencies.saturating_record((Instant::now() - due).as_nanos() as u64);
    }
    // And the first one, which was not timed.
    let requests = latencies.len();
    let seconds = schedule.start().elapsed().as_secs_f64();
    Report { requests, records: requests + 1, seconds, latency: Some(Latency::from(&latencies)) }
}

//! Against an in-process Kafka.

use super::*;
use crate::{ProducePartition, ProduceRequest, ProduceTopic};
use bytes::Bytes;
use krafka::testing::{ApiKey, FakeBroker};

/// A batch of one record, `hello`, without producer id; captured from a Kafka 4.1 producer's own layout.
fn batch() -> Bytes {
    // Filled in by kafka-protocol's encoder: an opinion that is not ours.
    use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
    let mut out = bytes::BytesMut::new();
    let record = Record {
        transactional: false,
        control: false,
        delete_horizon: None,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence: -1,
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(Bytes::from_static(b"hello")),
        headers: Default::default(),
    };
    RecordBatchEncoder::encode(
        &mut out,
        [&record],
        &RecordEncodeOptions { version: 2, compression: Compression::None },
    )
    .expect("a record");
    out.freeze()
}

async fn start(brokers: usize) -> (FakeBroker, Cluster) {
    let fake = FakeBroker::start_cluster(brokers).await.expect("loopback");
    let cluster = Cluster::start(config(&fake));
    (fake, cluster)
}

fn config(fake: &FakeBroker) -> Config {
    Config {
        bootstrap_servers: fake.bootstrap_servers().split(',').map(str::to_owned).collect(),
        request_timeout: Duration::from_secs(10),
        ..Config::default()
    }
}

fn request(topic: &TopicInfo, partition: i32) -> ProduceRequest {
    ProduceRequest {
        timeout: Duration::from_secs(5),
        topics: vec![ProduceTopic {
            name: topic.name.clone(),
            id: topic.id,
            partitions: vec![ProducePartition { index: partition, records: batch() }],
        }],
    }
}

#[tokio::test]
async fn a_batch_is_written_by_its_leader_and_read_back() {
    let (fake, cluster) = start(3).await;
    fake.create_topic("t", 3);
    let topic = cluster.topic("t").await.expect("the topic");
    assert_eq!(topic.id.0, fake.topic_id("t").expect("an id"));
    let identity = cluster.init_producer_id().await.expect("an identity");
    assert!(identity.id >= 0);
    for partition in 0..3 {
        let leader = topic.partitions[partition as usize].leader.expect("a leader");
        let connection = cluster.dial(leader).await.expect("a connection");
        assert_eq!(connection.produce_version(), 12);
        let response = connection.produce(request(&topic, partition)).await;
        let response = response.expect("an answer");
        let written = &response.topics[0].partitions[0];
        assert_eq!((written.error, written.base_offset), (crate::ErrorCode::NONE, 0));
        let fetched = cluster.fetch(&topic, partition, 0, 1 << 20, Duration::ZERO).await.expect("records");
        assert_eq!(fetched.high_watermark, 1);
        assert_eq!(fetched.records.len(), batch().len());
    }
    assert!(fake.request_count(ApiKey::Produce) == 3);
}

//! Batches that Kafka's Java client and librdkafka wrote, as a broker stored them: see testdata/README.md.

use bytes::Bytes;
use kafka_records::{Batch, BatchBuilder, Compression, ReadRecord, Stamp, batches};

use crate::{Owned, owned};

const T: i64 = 1_700_000_000_000;

macro_rules! fixture {
    ($name:literal) => {
        Bytes::from_static(include_bytes!(concat!("../../testdata/", $name, ".bin")))
    };
}

fn record(timestamp: i64, key: Option<&str>, value: Option<&str>, headers: &[(&str, Option<&str>)]) -> Owned {
    let bytes = |text: &str| text.as_bytes().to_vec();
    Owned {
        timestamp,
        key: key.map(bytes),
        value: value.map(bytes),
        headers: headers.iter().map(|(key, value)| ((*key).to_owned(), value.map(bytes))).collect(),
    }
}

/// What Capture.java produces.
fn java_records() -> Vec<Owned> {
    let headers = [("a", Some("1")), ("a", Some("2")), ("b", None), ("é", Some(""))];
    let mut records = vec![
        record(T, Some("k1"), Some("v1"), &[]),
        record(T + 1, None, Some("no key, three headers"), &headers),
        record(T - 1000, Some(""), Some(""), &[]),
        record(T, Some("tombstone"), None, &[]),
        record(T + 5_000_000_000, Some("delta beyond 32 bits"), Some(&"x".repeat(300)), &[]),
    ];
    for i in 0..900 {
        let line = format!(r#"{{"level":"info","message":"line {i}"}}"#);
        records.push(record(T + i, None, Some(&line), &[]));
    }
    records
}

/// What capture-librdkafka.sh produces, but for the timestamps, which kcat takes from the clock.
fn librdkafka_records(timestamp: i64) -> Vec<Owned> {
    let headers = [("a", Some("1")), ("a", Some("2")), ("b", None)];
    let mut records = vec![
        record(timestamp, Some("k1"), Some("v1"), &headers),
        record(timestamp, None, Some("empty key"), &headers),
        record(timestamp, Some("tombstone"), None, &headers),
    ];
    for i in 0..900 {
        let line = format!(r#"{{"level":"info","message":"line {i}"}}"#);
        records.push(record(timestamp, Some(&format!("k{i}")), Some(&line), &headers));
    }
    records
}

/// The first batch of `bytes` and its records.
fn read(bytes: &Bytes) -> (Batch, Vec<ReadRecord>) {
    let batch = batches(bytes.clone()).next().unwrap().unwrap();
    let records: Vec<ReadRecord> = batch.records(1 << 20).unwrap().map(Result::unwrap).collect();
    for (i, record) in records.iter().enumerate() {
        assert_eq!(record.offset, i as i64);
    }
    assert_eq!(batch.count as usize, records.len());
    assert_eq!((batch.base_offset, batch.next_offset()), (0, records.len() as i64));
    assert_eq!((batch.base_sequence, batch.leader_epoch), (0, 0));
    (batch, records)
}

fn as_written(records: &[ReadRecord]) -> Vec<Owned> {
    records.iter().map(owned).collect()
}

#[test]
fn batches_of_the_java_client_are_read_with_every_codec() {
    for (bytes, codec) in [
        (fixture!("java-none"), Compression::None),
        (fixture!("java-gzip"), Compression::Gzip),
        (fixture!("java-snappy"), Compression::Snappy),
        (fixture!("java-lz4"), Compression::Lz4),
        (fixture!("java-zstd"), Compression::Zstd),
    ] {
        let (batch, records) = read(&bytes);
        assert_eq!(batch.compression, codec);
        assert!(!batch.is_control && !batch.is_transactional && !batch.log_append_time);
        assert_eq!((batch.base_timestamp, batch.max_timestamp), (T, T + 5_000_000_000));
        assert_eq!(as_written(&records), java_records(), "{codec}");
    }
}

#[test]
fn batches_of_librdkafka_are_read_with_every_codec() {
    for (bytes, codec) in [
        (fixture!("librdkafka-none"), Compression::None),
        (fixture!("librdkafka-gzip"), Compression::Gzip),
        (fixture!("librdkafka-snappy"), Compression::Snappy),
        (fixture!("librdkafka-lz4"), Compression::Lz4),
        (fixture!("librdkafka-zstd"), Compression::Zstd),
    ] {
        let (batch, mut records) = read(&bytes);
        assert_eq!(batch.compression, codec);
        for record in &mut records {
            let written = batch.base_timestamp..=batch.max_timestamp;
            assert!(written.contains(&record.timestamp));
            record.timestamp = T;
        }
        assert_eq!(as_written(&records), librdkafka_records(T), "{codec}");
    }
}

#[test]
fn with_log_append_time_the_brokers_time_is_that_of_every_record() {
    for (bytes, append_time, expected) in [
        (fixture!("java-log-append-time"), JAVA_APPEND_TIME, java_records()),
        (fixture!("librdkafka-log-append-time"), LIBRDKAFKA_APPEND_TIME, librdkafka_records(0)),
    ] {
        let (batch, records) = read(&bytes);
        assert!(batch.log_append_time);
        assert_eq!(batch.max_timestamp, append_time);
        assert!(records.iter().all(|record| record.timestamp == append_time));
        let expected: Vec<Owned> =
            expected.into_iter().map(|record| Owned { timestamp: append_time, ..record }).collect();
        assert_eq!(as_written(&records), expected);
    }
}

// As DumpLogSegments shows them.
const JAVA_APPEND_TIME: i64 = 1_795_445_236_151;
const LIBRDKAFKA_APPEND_TIME: i64 = 1_795_445_248_524;

#[test]
fn a_transaction_and_its_marker_say_what_they_are() {
    let bytes = fixture!("java-transaction");
    let read: Vec<Batch> = batches(bytes).map(Result::unwrap).collect();
    let [data, marker] = &read[..] else { panic!("{} batches", read.len()) };
    assert!(data.is_transactional && !data.is_control);
    assert!(marker.is_transactional && marker.is_control);
    assert_eq!((marker.base_offset, marker.count), (data.next_offset(), 1));
    assert_eq!((marker.producer_id, marker.base_sequence), (data.producer_id, -1));
    // KIP-98: the key of a marker is its version and type, 1 for a commit.
    let record = marker.records(0).unwrap().next().unwrap().unwrap();
    assert_eq!(record.key.as_deref(), Some(&[0, 0, 0, 1][..]));
}

#[test]
fn our_batch_of_the_same_records_is_byte_for_byte_theirs() {
    for theirs in [fixture!("java-none"), fixture!("librdkafka-none")] {
        let (batch, records) = read(&theirs);
        let mut builder = BatchBuilder::new(Vec::new());
        for record in &records {
            builder.append(record.as_record());
        }
        let mut ours = builder.close(Compression::None).stamp(Stamp {
            producer_id: batch.producer_id,
            producer_epoch: batch.producer_epoch,
            base_sequence: batch.base_sequence,
        });
        // The leader epoch is the broker's to write; the CRC does not cover it.
        ours[12..16].copy_from_slice(&theirs[12..16]);
        assert_eq!(ours, theirs);
    }
}

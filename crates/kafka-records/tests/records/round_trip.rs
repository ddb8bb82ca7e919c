//! Records go through a batch unchanged, whatever they are, and an independent decoder agrees.

use bytes::Bytes;
use kafka_protocol::records::{RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions};
use kafka_records::{BATCH_HEADER_BYTES, Batch, BatchBuilder, Compression, HeaderBlock, Record, Stamp, batches};
use proptest::{collection::vec, option, prelude::*};

use crate::{CODECS, Owned, batch_of, owned};

const STAMP: Stamp = Stamp { producer_id: 4711, producer_epoch: 3, base_sequence: 77 };

/// Text that compresses, so that the codecs have something to do, and bytes that do not; sizes around every varint step.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..150),
        2 => (0..20_000_usize).prop_map(|len| b"the quick brown fox ".iter().copied().cycle().take(len).collect()),
        1 => (prop_oneof![Just(63_usize), Just(64), Just(8191), Just(8192), 0..200_000_usize], any::<u8>())
            .prop_map(|(len, byte)| vec![byte; len]),
    ]
}

fn record() -> impl Strategy<Value = Owned> {
    let timestamp = prop_oneof![
        4 => 1_700_000_000_000..1_700_000_001_000_i64,
        1 => any::<i64>(),
    ];
    let header = (".{0,8}|dup", option::of(vec(any::<u8>(), 0..20)));
    (timestamp, option::of(payload()), option::of(payload()), vec(header, 0..4))
        .prop_map(|(timestamp, key, value, headers)| Owned { timestamp, key, value, headers })
}

fn read_one(bytes: Vec<u8>) -> Batch {
    let mut read = batches(bytes.into());
    let batch = read.next().expect("there is a batch").expect("it is valid");
    assert!(read.next().is_none());
    batch
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn records_come_back_as_they_were_appended(records in vec(record(), 1..20)) {
        let mut inflated_bytes = 0;
        for codec in CODECS {
            let closed = batch_of(&records, codec);
            prop_assert_eq!(closed.count() as usize, records.len());
            let again: Vec<Owned> = closed.records()?.map(|read| read.map(|read| owned(&read))).collect::<Result<_, _>>()?;
            prop_assert_eq!(&again, &records);

            let (written_as, len) = (closed.compression(), closed.len());
            let bytes = closed.stamp(STAMP);
            prop_assert_eq!(bytes.len(), len);
            if codec == Compression::None {
                inflated_bytes = len - BATCH_HEADER_BYTES;
            }
            let batch = read_one(bytes);
            prop_assert_eq!(batch.compression, written_as);
            prop_assert_eq!((batch.producer_id, batch.producer_epoch, batch.base_sequence), (4711, 3, 77));
            prop_assert_eq!((batch.base_offset, batch.leader_epoch), (0, -1));
            prop_assert_eq!(batch.next_offset(), records.len() as i64);
            prop_assert_eq!(batch.base_timestamp, records[0].timestamp);
            prop_assert_eq!(Some(batch.max_timestamp), records.iter().map(|record| record.timestamp).max());
            for (i, read) in batch.records(inflated_bytes)?.enumerate() {
                let read = read?;
                prop_assert_eq!(read.offset, i as i64);
                prop_assert_eq!(owned(&read), records[i].clone());
            }
        }
    }

    #[test]
    fn the_bound_of_a_record_is_never_below_nor_far_above_its_size(records in vec(record(), 1..10)) {
        let mut builder = BatchBuilder::new(Vec::new());
        for record in &records {
            let before = builder.len();
            let headers = record.header_block();
            let record = Record {
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            };
            builder.append(record);
            let taken = builder.len() - before;
            prop_assert!((taken..=taken + 31).contains(&record.framed_bound()));
        }
    }

    #[test]
    fn kafka_protocol_decodes_our_batches(records in vec(record(), 1..10)) {
        // Its layer keeps headers in a map and its timestamps overflow: the part of the records that it can hold.
        let mut records = records;
        for (i, record) in records.iter_mut().enumerate() {
            record.timestamp = 1_700_000_000_000 - i as i64 * 5_000_000_000;
            record.headers.dedup_by(|_, _| true);
        }
        let mut bytes = Bytes::from(batch_of(&records, Compression::None).stamp(STAMP));
        let theirs = RecordBatchDecoder::decode(&mut bytes).expect("they read our batch").records;
        prop_assert_eq!(theirs.len(), records.len());
        for (i, (theirs, ours)) in theirs.iter().zip(&records).enumerate() {
            prop_assert_eq!(theirs.offset, i as i64);
            prop_assert_eq!(theirs.sequence, 77 + i as i32);
            prop_assert_eq!((theirs.producer_id, theirs.producer_epoch), (4711, 3));
            prop_assert_eq!(theirs.timestamp, ours.timestamp);
            prop_assert_eq!(theirs.key.as_deref(), ours.key.as_deref());
            prop_assert_eq!(theirs.value.as_deref(), ours.value.as_deref());
            let headers: Vec<_> = theirs.headers.iter().map(|(key, value)| (key.to_string(), value.as_ref().map(|value| value.to_vec()))).collect();
            prop_assert_eq!(&headers, &ours.headers);
        }

        // And theirs, of the same records, are ours byte for byte but for what the encoder may choose.
        let mut encoded = bytes::BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: kafka_protocol::records::Compression::None };
        RecordBatchEncoder::encode(&mut encoded, &theirs, &options).expect("they write it");
        let read: Vec<Owned> = batches(encoded.freeze())
            .flat_map(|batch| batch.expect("we read their batch").records(0).expect("and its records"))
            .map(|read| owned(&read.expect("each of them")))
            .collect();
        prop_assert_eq!(read, records);
    }
}

fn plain(timestamp: i64, value: &[u8]) -> Owned {
    Owned { timestamp, key: None, value: Some(value.to_vec()), headers: Vec::new() }
}

#[test]
fn null_and_empty_stay_apart_and_duplicate_headers_stay_in_order() {
    let header = |key: &str, value: Option<&[u8]>| (key.to_owned(), value.map(<[u8]>::to_vec));
    let records = [
        Owned { timestamp: 5, key: None, value: None, headers: Vec::new() },
        Owned { timestamp: 5, key: Some(Vec::new()), value: Some(Vec::new()), headers: Vec::new() },
        Owned {
            timestamp: 5,
            key: None,
            value: None,
            headers: vec![header("b", Some(b"2")), header("a", None), header("b", Some(b"1")), header("", Some(b""))],
        },
    ];
    let read: Vec<Owned> =
        batch_of(&records, Compression::None).records().unwrap().map(|record| owned(&record.unwrap())).collect();
    assert_eq!(read, records);
    assert_eq!(records[2].header_block().len(), 4);
    assert!(HeaderBlock::new([]).is_empty());
}

#[test]
fn any_two_timestamps_have_a_difference() {
    for timestamps in [[i64::MAX, i64::MIN], [i64::MIN, i64::MAX], [0, i64::MIN], [-1, 1]] {
        let records = timestamps.map(|timestamp| plain(timestamp, b"v"));
        let read: Vec<Owned> =
            batch_of(&records, Compression::None).records().unwrap().map(|record| owned(&record.unwrap())).collect();
        assert_eq!(read, records);
    }
}

#[test]
fn a_recycled_buffer_keeps_its_allocation_and_leaves_no_trace_of_its_content() {
    let first = batch_of(&[plain(1, &[0xaa; 100_000])], Compression::None).stamp(STAMP);
    let (address, capacity) = (first.as_ptr(), first.capacity());
    let records = [plain(7, b"small"), plain(8, &[b'x'; 9_000])];
    let mut builder = BatchBuilder::new(first);
    assert!(builder.is_empty());
    assert_eq!(builder.capacity(), capacity);
    records.iter().for_each(|record| record.append_to(&mut builder));
    let again = builder.close(Compression::None).stamp(STAMP);
    assert_eq!((again.as_ptr(), again.capacity()), (address, capacity));
    assert_eq!(again, batch_of(&records, Compression::None).stamp(STAMP));
}

#[test]
fn a_builder_allocates_nothing_before_its_first_record_and_little_for_it() {
    let mut builder = BatchBuilder::new(Vec::new());
    assert_eq!((builder.capacity(), builder.len()), (0, BATCH_HEADER_BYTES));
    plain(1, b"lone").append_to(&mut builder);
    assert_eq!(builder.capacity(), 4096);
    // Growth doubles within the capacity of the buffer that it was given, and does not leave it.
    let mut builder = BatchBuilder::new(Vec::with_capacity(10_000));
    for _ in 0..90 {
        plain(1, &[b'v'; 100]).append_to(&mut builder);
    }
    assert_eq!(builder.capacity(), 10_000);
}

#[test]
fn what_does_not_shrink_stays_uncompressed() {
    // Bytes without a pattern: the low bits of a multiplicative sequence.
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..5_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    for codec in CODECS {
        let closed = batch_of(&[plain(1, &noise)], codec);
        assert_eq!(closed.compression(), Compression::None, "{codec}");
        assert_eq!(owned(&closed.records().unwrap().next().unwrap().unwrap()), plain(1, &noise));

        let closed = batch_of(&[plain(1, &[b'x'; 5_000])], codec);
        assert_eq!(closed.compression(), codec);
        assert!(codec == Compression::None || closed.len() < 1_000, "{codec}: {}", closed.len());
    }
}

#[test]
fn a_batch_that_is_taken_apart_can_be_framed_anew() {
    let records: Vec<Owned> = (0..10)
        .map(|i| Owned {
            timestamp: 1_000 - i,
            key: Some(vec![i as u8]),
            value: Some(vec![b'v'; 500]),
            headers: vec![("h".to_owned(), None); i as usize],
        })
        .collect();
    let whole = batch_of(&records, Compression::Lz4);
    let mut halves = [BatchBuilder::new(Vec::new()), BatchBuilder::new(Vec::new())];
    for (i, record) in whole.records().unwrap().enumerate() {
        halves[i / 5].append(record.unwrap().as_record());
    }
    for (half, records) in halves.into_iter().zip(records.chunks(5)) {
        let half = half.close(Compression::Lz4).stamp(STAMP);
        assert_eq!(half, batch_of(records, Compression::Lz4).stamp(STAMP));
    }
}

#[test]
fn batches_follow_one_another_and_a_truncated_last_one_ends_them_quietly() {
    let one = batch_of(&[plain(1, b"one")], Compression::None).stamp(Stamp::NONE);
    let two = batch_of(&[plain(2, b"two")], Compression::Lz4).stamp(STAMP);
    let both = Bytes::from([&one[..], &two[..]].concat());
    assert_eq!(batches(both.clone()).map(Result::unwrap).count(), 2);
    for end in 0..both.len() {
        let whole = usize::from(end >= one.len());
        assert_eq!(batches(both.slice(..end)).map(Result::unwrap).count(), whole, "cut at {end}");
    }
}

#[test]
fn uncompressed_records_are_slices_of_the_input() {
    let bytes = Bytes::from(batch_of(&[plain(1, b"payload")], Compression::None).stamp(STAMP));
    let batch = batches(bytes.clone()).next().unwrap().unwrap();
    let value = batch.records(0).unwrap().next().unwrap().unwrap().value.unwrap();
    assert!(bytes.as_ptr_range().contains(&value.as_ptr()));
}

//! No bytes make the reader panic, and none make it hold more than it was allowed.

use bytes::Bytes;
use kafka_records::{Compression, DecodeError, FieldProblem, Stamp, batches};
use proptest::{collection::vec, prelude::*, sample};

use crate::{CODECS, Owned, batch_of};

const MAX_INFLATED: usize = 1 << 16;

/// Where the header's fields lie, and where the records begin.
const LENGTH: usize = 8;
const MAGIC: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const COUNT: usize = 57;
const RECORDS: usize = 61;

/// Reads everything; returns the bytes of keys, values and headers.
fn read_all(bytes: Bytes) -> Result<usize, DecodeError> {
    let mut total = 0;
    for batch in batches(bytes) {
        let batch = batch?;
        let (mut in_batch, limit) = (
            0,
            match batch.compression {
                Compression::None => usize::MAX,
                _ => MAX_INFLATED,
            },
        );
        assert!(batch.next_offset() > batch.base_offset);
        for record in batch.records(MAX_INFLATED)? {
            let record = record?;
            assert!((batch.base_offset..batch.next_offset()).contains(&record.offset));
            in_batch += record.key.map_or(0, |key| key.len()) + record.value.map_or(0, |value| value.len());
            in_batch +=
                record.headers.iter().map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len)).sum::<usize>();
        }
        assert!(in_batch <= limit, "{in_batch} bytes out of a batch that may hold {limit}");
        total += in_batch;
    }
    Ok(total)
}

/// A valid batch with a bit of everything.
fn sample(codec: Compression) -> Vec<u8> {
    let records: Vec<Owned> = (0..40)
        .map(|i| Owned {
            timestamp: 1_700_000_000_000 + i,
            key: (i % 2 == 0).then(|| b"key".to_vec()),
            value: Some(b"a value that repeats itself ".repeat(i as usize)),
            headers: vec![("name".to_owned(), Some(b"value".to_vec())), ("null".to_owned(), None)],
        })
        .collect();
    batch_of(&records, codec).stamp(Stamp::NONE)
}

/// Makes a batch's length and CRC right again, so that a change gets past them.
fn seal(batch: &mut [u8]) {
    let length = (batch.len() - 12) as i32;
    batch[LENGTH..LENGTH + 4].copy_from_slice(&length.to_be_bytes());
    let crc = crc_fast::crc32_iscsi(&batch[ATTRIBUTES..]);
    batch[CRC..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
}

/// A sealed batch of `count` records whose payload is `payload`.
fn batch_with(codec: Compression, count: i32, payload: &[u8]) -> Bytes {
    let mut batch = sample(Compression::None);
    batch.truncate(RECORDS);
    batch.extend_from_slice(payload);
    batch[ATTRIBUTES..ATTRIBUTES + 2].copy_from_slice(&i16::from(codec.id()).to_be_bytes());
    batch[COUNT..COUNT + 4].copy_from_slice(&count.to_be_bytes());
    seal(&mut batch);
    batch.into()
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_survived(bytes in vec(any::<u8>(), 0..500)) {
        let _ = read_all(bytes.into());
    }

    #[test]
    fn arbitrary_payloads_behind_a_valid_header_are_survived(
        codec in sample::select(&CODECS[..]), count in 0..50_i32, payload in vec(any::<u8>(), 0..500)
    ) {
        let _ = read_all(batch_with(codec, count, &payload));
    }

    #[test]
    fn a_flipped_bit_is_noticed(codec in sample::select(&CODECS[..]), at in any::<sample::Index>(), bit in 0..8_u32) {
        let mut batch = sample(codec);
        // In front of the magic lie the fields that the CRC leaves to the broker; the length among them is checked.
        let at = MAGIC + at.index(batch.len() - MAGIC);
        batch[at] ^= 1 << bit;
        prop_assert!(read_all(batch.into()).is_err());
    }

    #[test]
    fn changes_behind_a_right_crc_are_survived(
        codec in sample::select(&CODECS[..]),
        changes in vec((any::<sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<sample::Index>()),
    ) {
        let mut batch = sample(codec);
        for (at, byte) in changes {
            let at = ATTRIBUTES + at.index(batch.len() - ATTRIBUTES);
            batch[at] = byte;
        }
        if let Some(cut) = cut {
            batch.truncate(RECORDS + cut.index(batch.len() - RECORDS));
        }
        seal(&mut batch);
        let _ = read_all(batch.into());
    }
}

#[test]
fn a_bomb_stops_at_the_bound_with_every_codec() {
    let bomb = [Owned { timestamp: 0, key: None, value: Some(vec![0; 8 << 20]), headers: Vec::new() }];
    for codec in &CODECS[1..] {
        let bytes = Bytes::from(batch_of(&bomb, *codec).stamp(Stamp::NONE));
        assert!(bytes.len() < 1 << 20, "{codec}: {}", bytes.len());
        let batch = batches(bytes).next().unwrap().unwrap();
        for limit in [0, 1, MAX_INFLATED, 8 << 20] {
            let error = batch.records(limit).unwrap_err();
            assert!(
                matches!(error, DecodeError::InflatedTooLarge { codec: of, limit: at } if (of, at) == (*codec, limit)),
                "{codec}, {limit}: {error}"
            );
        }
        assert!(batch.records((8 << 20) + 100).is_ok(), "{codec}");
    }
}

#[test]
fn the_bound_is_exact() {
    for codec in &CODECS[1..] {
        let plain = sample(Compression::None).len() - RECORDS;
        let batch = batches(sample(*codec).into()).next().unwrap().unwrap();
        assert_eq!(batch.compression, *codec);
        assert_eq!(batch.records(plain).unwrap().map(Result::unwrap).count(), 40);
        assert!(matches!(batch.records(plain - 1), Err(DecodeError::InflatedTooLarge { .. })), "{codec}");
    }
}

#[test]
fn sizes_that_a_frame_claims_are_not_allocated() {
    // A bare snappy block that claims 4 GiB − 1, and a zstd frame that claims 2^62 bytes. The bound would let both through.
    for (codec, frame) in [
        (Compression::Snappy, &b"\xff\xff\xff\xff\x0f\x00a"[..]),
        (Compression::Zstd, &b"\x28\xb5\x2f\xfd\xe0\0\0\0\0\0\0\0\x40\x01\0\0"[..]),
    ] {
        let batch = batches(batch_with(codec, 1, frame)).next().unwrap().unwrap();
        let error = batch.records(usize::MAX).unwrap_err();
        assert!(matches!(error, DecodeError::Inflate { .. }), "{codec}: {error}");
    }
}

#[test]
fn changes_in_front_of_what_the_crc_covers_are_survived() {
    let good = sample(Compression::Lz4);
    for bit in 0..8 * CRC {
        let mut batch = good.clone();
        batch[bit / 8] ^= 1 << (bit % 8);
        let _ = read_all(batch.into());
    }
}

#[test]
fn one_snappy_block_without_the_stream_around_it_is_read() {
    let plain = sample(Compression::None);
    let block = snap::raw::Encoder::new().compress_vec(&plain[RECORDS..]).unwrap();
    let batch = batches(batch_with(Compression::Snappy, 40, &block)).next().unwrap().unwrap();
    // The template's last offset delta is that of the same 40 records.
    assert_eq!(batch.records(1 << 20).unwrap().map(Result::unwrap).count(), 40);
}

#[test]
fn old_message_formats_are_named() {
    for magic in [0, 1, 3, -1] {
        let mut batch = sample(Compression::None);
        batch[MAGIC] = magic as u8;
        let mut read = batches(batch.into());
        let error = read.next().unwrap().unwrap_err();
        assert!(matches!(error, DecodeError::UnsupportedMagic { at: 0, magic: found } if found == magic), "{error}");
        assert!(read.next().is_none(), "an error ends the iteration");
    }
}

#[test]
fn header_fields_that_contradict_are_refused() {
    // The error after `bytes` are put at `at` of a valid batch; only a changed length stays as it is.
    let change = |at: usize, bytes: &[u8]| {
        let mut batch = sample(Compression::None);
        batch[at..at + bytes.len()].copy_from_slice(bytes);
        if !(LENGTH..LENGTH + 4).contains(&at) {
            seal(&mut batch);
        }
        read_all(batch.into()).unwrap_err().to_string()
    };
    assert_eq!(change(0, &(-1_i64).to_be_bytes()), "record batch at byte 0 has base offset -1");
    assert_eq!(change(0, &i64::MAX.to_be_bytes()), "record batch at byte 0 has base offset 9223372036854775807");
    for length in [-1, i32::MIN, 0, 48] {
        assert!(change(LENGTH, &length.to_be_bytes()).contains(&format!("a length of {length} bytes")));
    }
    assert_eq!(change(ATTRIBUTES, &[0, 5]), "record batch at byte 0 has unknown compression 5");
    assert_eq!(change(LAST_OFFSET_DELTA, &(-1_i32).to_be_bytes()), "record batch at byte 0 has last offset delta -1");
    assert_eq!(change(COUNT, &(-1_i32).to_be_bytes()), "record batch at byte 0 has record count -1");
    assert!(change(COUNT, &i32::MAX.to_be_bytes()).starts_with("record batch claims 2147483647 records in"));
}

#[test]
fn the_position_of_an_error_counts_from_the_start_of_the_field() {
    let good = sample(Compression::None);
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    let mut read = batches([&good[..], &bad[..], &good[..]].concat().into());
    assert!(read.next().unwrap().is_ok());
    let error = read.next().unwrap().unwrap_err();
    assert!(matches!(error, DecodeError::Crc { at, .. } if at == good.len()), "{error}");
    assert!(read.next().is_none());
}

#[test]
fn record_fields_that_do_not_fit_are_named() {
    use FieldProblem::{CutOff, OutOfRange, Overlong, Slack};
    // length, attributes, timestamp delta, offset delta, key length, value length, header count …
    let cases: [(&[u8], &str, FieldProblem); 13] = [
        (&[0x80; 7], "length", CutOff),
        (&[1, 0, 0, 0, 1, 1, 0], "length", OutOfRange(-1)),
        (&[14, 0, 0, 0, 1, 1, 0], "length", CutOff),
        (&[0, 0, 0, 0, 1, 1, 0], "attributes", CutOff),
        (&[12, 0, 0x80, 0x80, 0x80, 0x80, 0x80], "timestamp delta", CutOff),
        (&[12, 0, 0, 1, 1, 1, 0], "offset delta", OutOfRange(-1)),
        (&[12, 0, 0, 80, 1, 1, 0], "offset delta", OutOfRange(40)),
        (&[12, 0, 0, 0, 3, 1, 0], "key", OutOfRange(-2)),
        (&[12, 0, 0, 0, 1, 4, 0], "value", CutOff),
        (&[12, 0, 0, 0, 1, 1, 1], "header count", OutOfRange(-1)),
        (&[12, 0, 0, 0, 1, 1, 2], "header key", CutOff),
        (&[14, 0, 0, 0, 1, 1, 0, 0], "length", Slack(1)),
        (&[24, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0], "offset delta", Overlong),
    ];
    for (bytes, name, reason) in cases {
        let batch = batches(batch_with(Compression::None, 1, bytes)).next().unwrap().unwrap();
        let mut records = batch.records(0).unwrap();
        let error = records.next().unwrap().unwrap_err();
        assert!(
            matches!(error, DecodeError::Record { index: 0, field, problem, .. } if (field, problem) == (name, reason)),
            "{bytes:?}: {error}"
        );
        assert!(records.next().is_none(), "an error ends the iteration");
    }
}

#[test]
fn bytes_behind_the_last_record_are_refused() {
    let bytes = batch_with(Compression::None, 1, &[12, 0, 0, 0, 1, 1, 0, 9, 9]);
    let batch = batches(bytes).next().unwrap().unwrap();
    let mut records = batch.records(0).unwrap();
    assert!(records.next().unwrap().is_ok());
    assert!(matches!(records.next(), Some(Err(DecodeError::TrailingBytes { bytes: 2 }))));
    assert!(records.next().is_none());
}

#[test]
fn a_count_of_headers_takes_no_memory() {
    let bytes = batch_with(Compression::None, 1, &[20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f]);
    let batch = batches(bytes).next().unwrap().unwrap();
    let error = batch.records(0).unwrap().next().unwrap().unwrap_err();
    assert!(matches!(error, DecodeError::Record { field: "header key", problem: FieldProblem::CutOff, .. }), "{error}");
}

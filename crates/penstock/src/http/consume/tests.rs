use super::*;
use kafka_records::{BatchBuilder, Compression, HeaderBlock, Record, Stamp};

fn parse(query: &str) -> Result<ReadParams, String> {
    ReadParams::parse(Some(query)).map_err(|error| error.message.into_owned())
}

fn params() -> ReadParams {
    parse("").expect("the defaults")
}

/// A stamped batch of these values, as a log would hold it from `base_offset` on.
fn batch(base_offset: i64, values: &[&str]) -> Vec<u8> {
    let mut batch = BatchBuilder::new(Vec::new());
    for value in values {
        batch.append(Record { timestamp: 7, key: None, value: Some(value.as_bytes()), headers: HeaderBlock::none() });
    }
    let mut bytes = batch.close(Compression::None).stamp(Stamp::NONE);
    // The checksum begins behind the base offset, which is the broker's to set.
    bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes
}

fn fetched(records: Vec<u8>) -> Fetched {
    Fetched {
        high_watermark: 100,
        last_stable_offset: 100,
        log_start_offset: 0,
        aborted: Vec::new(),
        records: records.into(),
    }
}

fn values(read: &Read) -> Vec<&str> {
    read.records
        .iter()
        .map(|record| std::str::from_utf8(record.value.as_deref().expect("a value")).expect("text"))
        .collect()
}

#[test]
fn a_read_may_begin_anywhere() {
    assert_eq!(params().from, From::Earliest);
    assert_eq!(parse("offset=12").expect("ok").from, From::Offset(12));
    assert_eq!(parse("offset=latest").expect("ok").from, From::Latest);
    assert_eq!(parse("offset=timestamp:1700000000000").expect("ok").from, From::Timestamp(1_700_000_000_000));
    for bad in ["-1", "x", "", "timestamp:", "timestamp:-5", "+3", "9223372036854775808"] {
        assert!(parse(&format!("offset={bad}")).expect_err(bad).starts_with("offset is"));
    }
}

#[test]
fn limits_have_bounds() {
    let read = parse("max_records=5&max_bytes=100&wait_ms=60000&value=text").expect("ok");
    assert_eq!(
        (read.max_records, read.max_bytes, read.wait, read.format),
        (5, 100, Duration::from_secs(60), ValueFormat::Text)
    );
    for bad in ["max_records=0", "max_bytes=0", "max_bytes=999999999", "wait_ms=60001", "value=avro", "offsets=1"] {
        parse(bad).expect_err(bad);
    }
}

#[test]
fn what_lies_before_the_offset_is_skipped() {
    let log = [batch(10, &["a", "b", "c"]), batch(13, &["d"])].concat();
    let read = collect(&fetched(log), 11, &params()).expect("intact");
    assert_eq!(values(&read), ["b", "c", "d"]);
    assert_eq!(read.next_offset, 14);
}

#[test]
fn limits_cut_between_records_and_the_first_comes_whatever_its_size() {
    let log = [batch(0, &["aaaa", "bbbb", "cccc"])].concat();
    let limited = |query: &str, from| {
        let read = collect(&fetched(log.clone()), from, &parse(query).expect("ok")).expect("intact");
        (values(&read).join(","), read.next_offset)
    };
    assert_eq!(limited("max_records=2", 0), ("aaaa,bbbb".to_owned(), 2));
    assert_eq!(limited("max_bytes=9", 0), ("aaaa,bbbb".to_owned(), 2));
    assert_eq!(limited("max_bytes=1", 1), ("bbbb".to_owned(), 2));
    assert_eq!(limited("", 3), (String::new(), 3));
}

#[test]
fn a_cut_off_last_batch_is_left_for_the_next_read() {
    let mut log = [batch(0, &["a"]), batch(1, &["b"])].concat();
    log.truncate(log.len() - 1);
    let read = collect(&fetched(log), 0, &params()).expect("intact");
    assert_eq!((values(&read), read.next_offset), (vec!["a"], 1));
}

#[test]
fn a_broken_batch_does_not_hide_what_lies_before_it() {
    let mut broken = batch(1, &["b"]);
    let last = broken.len() - 1;
    broken[last] ^= 1;
    let read =
        collect(&fetched([batch(0, &["a"]), broken.clone()].concat()), 0, &params()).expect("intact records first");
    assert_eq!((values(&read), read.next_offset), (vec!["a"], 1));
    assert_eq!(collect(&fetched(broken), 1, &params()).expect_err("nothing else").code, 500);
}

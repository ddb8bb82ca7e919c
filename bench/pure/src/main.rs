//! Runs one pure part of the hot path so many times, for a tool that counts instructions (`bench/instructions`).
//!
//! What a part takes is the difference between two runs, so what it takes to start and to prepare is not in it.
//!
//! | part | unit | is |
//! |---|---|---|
//! | `find` | line of 100 B | its end in a chunk of 64 KiB, handed to a sink that does nothing |
//! | `key` | line of 100 B | the string at `/id` in it |
//! | `partition` | key of 12 B | its partition |
//! | `frame` | record of 100 B | value into an open batch |
//! | `frame-keyed` | record of 100 B | key, value and a header into an open batch |
//! | `batch` | batch of 1 MB | 100 B records framed into a buffer that was used before, closed, stamped: with its CRC32C |
//! | `sequence` | batch | its numbers taken |

// The modules that it includes are tested where they live; here their tests would not be found.
#![cfg(not(test))]

#[rustfmt::skip]
#[path = "../../../crates/penstock/src/http/json_pointer.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, missing_debug_implementations, reason = "one function of it is used")]
mod json_pointer;
#[rustfmt::skip]
#[path = "../../../crates/penstock/src/http/ndjson.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "one function of it is used")]
mod ndjson;
#[rustfmt::skip]
#[path = "../../../crates/produce-pipeline/src/partitioner.rs"]
#[allow(dead_code, unreachable_pub, reason = "one function of it is used")]
mod partitioner;
#[rustfmt::skip]
#[path = "../../../crates/produce-pipeline/src/sequence.rs"]
#[allow(dead_code, unreachable_pub, reason = "one function of it is used")]
mod sequence;

use std::hint::black_box;

use json_pointer::JsonPointer;
use kafka_client::ProducerIdentity;
use kafka_records::{BatchBuilder, Compression, HeaderBlock, Record, Stamp};
use ndjson::{LineSink, LineSplitter};
use sequence::Sequence;

const BATCH_BYTES: usize = 1_000_000;
const STAMP: Stamp = Stamp { producer_id: 7, producer_epoch: 0, base_sequence: 0 };

fn main() {
    let mut arguments = std::env::args().skip(1);
    let part = arguments.next().expect("which part");
    let times: usize = arguments.next().and_then(|times| times.parse().ok()).expect("how many times");
    match &part[..] {
        "find" => find(times),
        "key" => key(times),
        "partition" => partition(times),
        "frame" => frame(times, &HeaderBlock::default(), None),
        "frame-keyed" => {
            frame(times, &HeaderBlock::new([("source", Some(&b"here"[..]))]), Some(b"order-000017"));
        }
        "batch" => batch(times),
        "sequence" => sequence(times),
        other => panic!("{other}: no such part"),
    }
}

/// A line of 100 bytes.
fn line() -> Vec<u8> {
    let mut line = br#"{"id":"order-000017","amount":1017,"note":""#.to_vec();
    line.resize(98, b'x');
    line.extend_from_slice(b"\"}");
    line
}

struct Nothing;

impl LineSink for Nothing {
    fn line(&mut self, line: &[u8]) {
        black_box(line);
    }

    fn empty_line(&mut self) {}

    fn long_line(&mut self) {}
}

fn find(times: usize) {
    let mut chunk = Vec::new();
    while chunk.len() + 101 <= 64 * 1024 {
        chunk.extend_from_slice(&line());
        chunk.push(b'\n');
    }
    let lines = chunk.len() / 101;
    let mut splitter = LineSplitter::new(1 << 20);
    for _ in 0..times.div_ceil(lines) {
        splitter.push(black_box(&chunk), &mut Nothing);
    }
}

fn key(times: usize) {
    let (line, mut scratch) = (line(), Vec::new());
    let pointer = JsonPointer::parse("/id").expect("a pointer");
    for _ in 0..times {
        black_box(pointer.find(black_box(&line), &mut scratch)).expect("it is there");
    }
}

fn partition(times: usize) {
    for _ in 0..times {
        black_box(partitioner::partition_for_key(black_box(b"order-000017"), 12));
    }
}

fn frame(times: usize, headers: &HeaderBlock, key: Option<&[u8]>) {
    let line = line();
    let mut builder = BatchBuilder::new(Vec::new());
    for _ in 0..times {
        let record = Record { timestamp: 1_700_000_000_000, key, value: Some(black_box(&line)), headers };
        if !builder.try_append(record, BATCH_BYTES) {
            let full = std::mem::replace(&mut builder, BatchBuilder::new(Vec::new()));
            builder = BatchBuilder::new(full.close(Compression::None).stamp(STAMP));
        }
    }
    black_box(builder);
}

fn batch(times: usize) {
    let line = line();
    let headers = HeaderBlock::default();
    let record = Record { timestamp: 1_700_000_000_000, key: None, value: Some(&line), headers: &headers };
    let mut buffer = Vec::new();
    for _ in 0..times {
        let mut builder = BatchBuilder::new(buffer);
        while builder.try_append(record, BATCH_BYTES) {}
        buffer = black_box(builder.close(Compression::None).stamp(STAMP));
    }
}

fn sequence(times: usize) {
    let mut sequence = Sequence::new(ProducerIdentity { id: 7, epoch: 0 });
    for _ in 0..times {
        black_box(sequence.take(black_box(9_000)));
    }
}

//! The line splitter, with a body cut into chunks anyhow, against a model that has the whole body.

#[rustfmt::skip]
#[path = "../../crates/penstock/src/http/ndjson.rs"]
#[allow(dead_code, missing_debug_implementations, reason = "a target uses what it needs")]
mod splitter;

use splitter::{LineSink, LineSplitter};

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Line(Vec<u8>),
    Empty,
    Long,
}

#[derive(Default)]
struct Sink(Vec<Told>);

impl LineSink for Sink {
    fn line(&mut self, line: &[u8]) {
        self.0.push(Told::Line(line.to_vec()));
    }

    fn empty_line(&mut self) {
        self.0.push(Told::Empty);
    }

    fn long_line(&mut self) {
        self.0.push(Told::Long);
    }
}

/// The first byte is the longest line, the second the length of chunks; the rest is the body. Every way to cut a body gives the
/// same lines, and no more is held than the longest of them and one byte.
pub fn run(data: &[u8]) {
    let [max_line, chunk, body @ ..] = data else { return };
    let (max_line, chunk) = (usize::from(*max_line).max(1), usize::from(*chunk) + 1);
    let mut splitter = LineSplitter::new(max_line);
    let mut sink = Sink::default();
    // Chunks of two lengths, one after the other.
    let (mut rest, mut even) = (body, true);
    while !rest.is_empty() {
        let length = if even { chunk } else { chunk % 7 + 1 };
        let (head, tail) = rest.split_at(length.min(rest.len()));
        splitter.push(head, &mut sink);
        assert!(splitter.held() <= max_line + 1);
        (rest, even) = (tail, !even);
    }
    splitter.finish(&mut sink);
    assert_eq!(sink.0, model(body, max_line));
}

fn model(body: &[u8], max_line: usize) -> Vec<Told> {
    let mut lines: Vec<_> = body.split(|byte| *byte == b'\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        // What follows the last line end is not a line.
        lines.pop();
    }
    let told = |line: &[u8]| match line.strip_suffix(b"\r").unwrap_or(line) {
        b"" => Told::Empty,
        line if line.len() > max_line => Told::Long,
        line => Told::Line(line.to_vec()),
    };
    lines.into_iter().map(told).collect()
}

//! Lines out of a body that arrives in chunks.
//!
//! A body's chunks end wherever the network cut them, so most lines lie whole in a chunk and one, at its end, does not:
//!
//! ```text
//!   chunk 1                            chunk 2
//!   {"a":1}\n{"a":2}\n{"a":            3}\n{"a":4}\n
//!   ───────  ───────  ─────            ──  ───────
//!   slices of the chunk  └── carry ────┘   slice of the chunk
//! ```
//!
//! A whole line is handed on as a slice of the chunk: nothing is copied here. The start of a line that spans chunks
//! waits in `carry`, the only memory a splitter has. It never grows past the line limit plus one byte (for the `\r` of
//! a `\r\n` whose `\n` has not come yet). A longer line is refused alone: its bytes are skipped until its `\n`,
//! unbuffered.
//!
//! The splitter is pure: no I/O, no clock. So its tests can try every way to cut a body into chunks.

use memchr::{memchr, memchr_iter};

/// A carry buffer larger than this is given back once its line is done: a single long line must not tie up its size for
/// the rest of an upload.
const CARRY_KEPT: usize = 64 * 1024;

/// Takes the lines of a body in their order. Every line is told by exactly one call.
pub(crate) trait LineSink {
    /// A line without its end (`\n` or `\r\n`); at least one byte, at most the splitter's limit.
    fn line(&mut self, line: &[u8]);
    /// An empty line.
    fn empty_line(&mut self);
    /// A line that is longer than the limit.
    fn long_line(&mut self);
}

/// Splits one body. See the module's documentation.
#[derive(Debug)]
pub(crate) struct LineSplitter {
    /// The line that has not ended yet, as far as it came; empty while `skipping`.
    carry: Vec<u8>,
    /// The line under way is too long: drop what comes until its end.
    skipping: bool,
    /// The longest line that is handed on, in bytes.
    max_line: usize,
}

impl LineSplitter {
    /// A splitter for one body; lines over `max_line` bytes are refused.
    pub(crate) const fn new(max_line: usize) -> Self {
        Self { carry: Vec::new(), skipping: false, max_line }
    }

    /// Bytes of memory that are held between chunks.
    pub(crate) fn held(&self) -> usize {
        self.carry.capacity()
    }

    /// Hands on every line that ends in `chunk` and keeps the start of the one that does not.
    pub(crate) fn push(&mut self, chunk: &[u8], sink: &mut impl LineSink) {
        let mut rest = chunk;
        if self.skipping || !self.carry.is_empty() {
            let Some(end) = memchr(b'\n', chunk) else {
                self.carry_over(chunk);
                return;
            };
            self.end_carried_line(&chunk[..end], sink);
            rest = &chunk[end + 1..];
        }
        let mut start = 0;
        for end in memchr_iter(b'\n', rest) {
            self.whole_line(&rest[start..end], sink);
            start = end + 1;
        }
        if start < rest.len() {
            self.carry_over(&rest[start..]);
        }
    }

    /// The body ended: hands on a last line that had no line end.
    ///
    /// Not for a body that broke off: what it left is half a line, and half a line is nobody's record.
    pub(crate) fn finish(mut self, sink: &mut impl LineSink) {
        if self.skipping || !self.carry.is_empty() {
            self.end_carried_line(&[], sink);
        }
    }

    /// `line` is a slice of a chunk, without `\n`.
    #[inline]
    fn whole_line(&self, line: &[u8], sink: &mut impl LineSink) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            sink.empty_line();
        } else if line.len() <= self.max_line {
            sink.line(line);
        } else {
            sink.long_line();
        }
    }

    /// The line under way goes on with `tail` and ends there.
    fn end_carried_line(&mut self, tail: &[u8], sink: &mut impl LineSink) {
        self.carry_over(tail);
        if self.skipping {
            self.skipping = false;
            sink.long_line();
            return;
        }
        let carry = std::mem::take(&mut self.carry);
        self.whole_line(&carry, sink);
        if carry.capacity() <= CARRY_KEPT {
            self.carry = carry;
            self.carry.clear();
        }
    }

    /// The line under way goes on with `part`, which holds no `\n`.
    fn carry_over(&mut self, part: &[u8]) {
        if self.skipping || part.is_empty() {
            return;
        }
        let len = self.carry.len() + part.len();
        // One byte over the limit can still be the `\r` of a line end.
        let fits = len <= self.max_line || (len == self.max_line + 1 && part.last() == Some(&b'\r'));
        if !fits {
            self.skipping = true;
            self.carry = Vec::new();
            return;
        }
        if len > self.carry.capacity() {
            // Doubling, but never past the most that a line can need: the bound is on memory, not on length alone.
            let capacity = len.max(self.carry.capacity() * 2).max(256).min(self.max_line + 1);
            self.carry.reserve_exact(capacity - self.carry.len());
        }
        self.carry.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests;

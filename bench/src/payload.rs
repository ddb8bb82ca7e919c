//! The records that every contender sends: a file of NDJSON, about 1 MiB, sent over and over.
//!
//! Each line is a document `{"id":"…","text":"…"}` of exactly the size asked for; ids are distinct within the file, so
//! keyed records spread over all partitions. The text is not compressible to nothing, and the same in every run.

use std::{fs, path::PathBuf};

use clap::Args;

/// How large a file becomes, about: small enough to stay in a core's cache, so that reading it costs the generator
/// little.
const FILE_BYTES: usize = 1 << 20;

#[derive(Args)]
pub(crate) struct Options {
    /// Bytes of one record, without its line end
    #[arg(long)]
    record_bytes: usize,
    #[arg(long)]
    file: PathBuf,
}

pub(crate) fn run(options: &Options) {
    fs::write(&options.file, ndjson(options.record_bytes)).expect("the file can be written");
}

/// The content of such a file; `record_bytes` is at least 32, or each record is only letters.
pub(crate) fn ndjson(record_bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut letter = || {
        // xorshift: any spread will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'a' + (state >> 33) as u8 % 26
    };
    let lines = (FILE_BYTES / (record_bytes + 1)).max(1);
    let mut file = Vec::with_capacity(lines * (record_bytes + 1));
    for line in 0..lines {
        let start = file.len();
        if record_bytes >= 32 {
            file.extend_from_slice(format!("{{\"id\":\"{line:08x}\",\"text\":\"").as_bytes());
            file.resize_with(start + record_bytes - 2, &mut letter);
            file.extend_from_slice(b"\"}");
        } else {
            file.resize_with(start + record_bytes, &mut letter);
        }
        file.push(b'\n');
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_the_size_asked_for() {
        for record_bytes in [1, 31, 32, 100, 10_240] {
            let file = ndjson(record_bytes);
            let lines: Vec<_> = file.split_inclusive(|byte| *byte == b'\n').collect();
            assert!(lines.iter().all(|line| line.len() == record_bytes + 1), "{record_bytes}");
        }
    }

    #[test]
    fn lines_are_documents_with_distinct_ids() {
        let file = ndjson(100);
        let ids: std::collections::HashSet<_> = file
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice::<serde_json::Value>(line).expect("JSON")["id"].to_string())
            .collect();
        assert_eq!(ids.len(), file.len() / 101);
    }
}

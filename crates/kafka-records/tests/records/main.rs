//! The crate from outside: what is written is read back, by us and by others; what others wrote is read; what nobody should
//! write is refused.

mod golden;
mod hostile;
mod round_trip;

use kafka_records::{BatchBuilder, ClosedBatch, Compression, HeaderBlock, Record};

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// A record that owns its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Owned {
    fn header_block(&self) -> HeaderBlock {
        HeaderBlock::new(self.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())))
    }

    fn append_to(&self, builder: &mut BatchBuilder) {
        let headers = self.header_block();
        builder.append(Record {
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &headers,
        });
    }
}

/// A closed batch of `records`.
fn batch_of<'a>(records: impl IntoIterator<Item = &'a Owned>, codec: Compression) -> ClosedBatch {
    let mut builder = BatchBuilder::new(Vec::new());
    for record in records {
        record.append_to(&mut builder);
    }
    builder.close(codec)
}

/// What was read, in the shape of what was written.
fn owned(record: &kafka_records::ReadRecord) -> Owned {
    Owned {
        timestamp: record.timestamp,
        key: record.key.as_deref().map(<[u8]>::to_vec),
        value: record.value.as_deref().map(<[u8]>::to_vec),
        headers: record
            .headers
            .iter()
            .map(|(key, value)| {
                let key = std::str::from_utf8(key).expect("the tests write UTF-8").to_owned();
                (key, value.map(<[u8]>::to_vec))
            })
            .collect(),
    }
}

//! The four codecs of Kafka: which frame format each one writes, and the bound on what is inflated.
//!
//! | codec | written | level |
//! |---|---|---|
//! | gzip | one member (RFC 1952) | 1 |
//! | snappy | xerial blocks of 32 KiB, as snappy-java's stream writes them | – |
//! | lz4 | one frame, independent blocks of 64 KiB, no checksums beside that of the frame header (KIP-57) | fast |
//! | zstd | one frame that says its size (KIP-110) | 1 |
//!
//! Levels are the fastest: a bridge compresses on the thread that serves the connections.

use std::io::{self, Write};

use crate::header::BATCH_HEADER_BYTES;

/// The codec of a batch. Brokers take zstd from Produce v7 on (Kafka 2.1, KIP-110), the others always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Records as they are.
    #[default]
    None,
    /// DEFLATE: small, slow.
    Gzip,
    /// Snappy: fast.
    Snappy,
    /// LZ4: the fastest.
    Lz4,
    /// Zstandard: small and fast.
    Zstd,
}

impl Compression {
    /// The id in a batch's attributes.
    pub const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The codec with that id, if there is one.
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// First bytes of a snappy-java stream, its version and the oldest version that reads it.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// What snappy-java puts into a block.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;

/// Compresses the records of `batch` (all behind the header) into a buffer that has the header's room in front as well.
/// `None` if the result is no smaller: compression stops as soon as that is known.
pub(crate) fn compress(codec: Compression, batch: &[u8]) -> Option<Vec<u8>> {
    let records = &batch[BATCH_HEADER_BYTES..];
    let mut out = Shrunk::new(batch.len());
    // The only error that writing to memory can give is `Shrunk`'s own, and a codec's is no reason to lose the batch.
    match codec {
        Compression::None => return None,
        Compression::Gzip => gzip(records, &mut out),
        Compression::Snappy => xerial(records, &mut out),
        Compression::Lz4 => lz4(records, &mut out),
        Compression::Zstd => zstd(records, &mut out),
    }
    .ok()?;
    Some(out.buf)
}

fn gzip(records: &[u8], out: &mut Shrunk) -> io::Result<()> {
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
    encoder.write_all(records)?;
    encoder.finish().map(drop)
}

fn xerial(records: &[u8], out: &mut Shrunk) -> io::Result<()> {
    out.write_all(&XERIAL_HEADER)?;
    let mut encoder = snap::raw::Encoder::new();
    let mut block = vec![0; snap::raw::max_compress_len(XERIAL_BLOCK_BYTES)];
    for chunk in records.chunks(XERIAL_BLOCK_BYTES) {
        let len = encoder.compress(chunk, &mut block)?;
        let prefix =
            u32::try_from(len).expect("a block of 32 KiB compresses to about as much at the most");
        out.write_all(&prefix.to_be_bytes())?;
        out.write_all(&block[..len])?;
    }
    Ok(())
}

fn lz4(records: &[u8], out: &mut Shrunk) -> io::Result<()> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let info = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(records)?;
    encoder.finish()?;
    Ok(())
}

fn zstd(records: &[u8], out: &mut Shrunk) -> io::Result<()> {
    let mut encoder = zstd::Encoder::new(out, 1)?;
    encoder.set_pledged_src_size(Some(records.len() as u64))?;
    encoder.write_all(records)?;
    encoder.finish().map(drop)
}

/// A growing buffer that refuses the byte that would make it as long as the original.
struct Shrunk {
    buf: Vec<u8>,
    /// One more than it may hold.
    original: usize,
}

impl Shrunk {
    fn new(original: usize) -> Self {
        let mut buf = Vec::with_capacity((original / 4).max(BATCH_HEADER_BYTES));
        buf.resize(BATCH_HEADER_BYTES, 0);
        Self { buf, original }
    }
}

impl Write for Shrunk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buf.len() + bytes.len() >= self.original {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.buf.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

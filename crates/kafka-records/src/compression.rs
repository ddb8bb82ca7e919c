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

use std::{
    fmt,
    io::{self, Read, Write},
};

use crate::{DecodeError, header::BATCH_HEADER_BYTES};

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

impl fmt::Display for Compression {
    /// The name in Kafka's `compression.type`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
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
        let prefix = u32::try_from(len).expect("a block of 32 KiB compresses to about as much at the most");
        out.write_all(&prefix.to_be_bytes())?;
        out.write_all(&block[..len])?;
    }
    Ok(())
}

fn lz4(records: &[u8], out: &mut Shrunk) -> io::Result<()> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
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

/// Inflates what [`compress`] or another client's codec made of a batch's records, to at most `limit` bytes.
///
/// Memory follows the bytes that come out: no size in a frame is allocated before it is compared with what is left of
/// `limit`.
pub(crate) fn inflate(codec: Compression, compressed: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
    match codec {
        Compression::None => Ok(compressed.to_vec()),
        // As java.util.zip does, several members are read as one.
        Compression::Gzip => read_bounded(flate2::bufread::MultiGzDecoder::new(compressed), compressed.len(), limit),
        Compression::Snappy => unsnap(compressed, limit),
        Compression::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(compressed), compressed.len(), limit),
        Compression::Zstd => unzstd(compressed, limit),
    }
    .map_err(|error| match error {
        Inflate::TooLarge => DecodeError::InflatedTooLarge { codec, limit },
        Inflate::Corrupt(source) => DecodeError::Inflate { codec, source },
    })
}

/// Why inflating ended early.
enum Inflate {
    TooLarge,
    Corrupt(io::Error),
}

impl From<io::Error> for Inflate {
    fn from(error: io::Error) -> Self {
        Self::Corrupt(error)
    }
}

impl From<snap::Error> for Inflate {
    fn from(error: snap::Error) -> Self {
        Self::Corrupt(error.into())
    }
}

/// What records of that many compressed bytes may well inflate to: where the buffer begins.
fn first_guess(compressed: usize, limit: usize) -> usize {
    compressed.saturating_mul(4).max(4 << 10).min(limit)
}

/// Reads `decoder` to its end, in a buffer that doubles up to `limit`.
fn read_bounded(mut decoder: impl Read, compressed: usize, limit: usize) -> Result<Vec<u8>, Inflate> {
    let mut out = vec![0; first_guess(compressed, limit)];
    let mut len = 0;
    loop {
        if len == limit {
            return match decoder.read(&mut [0])? {
                0 => Ok(out),
                _ => Err(Inflate::TooLarge),
            };
        }
        if len == out.len() {
            let target = out.len().saturating_mul(2).min(limit);
            out.reserve_exact(target - len);
            out.resize(target, 0);
        }
        match decoder.read(&mut out[len..])? {
            0 => {
                out.truncate(len);
                return Ok(out);
            }
            read => len += read,
        }
    }
}

/// Snappy as Kafka has it: snappy-java's stream of blocks, or one bare block as librdkafka and others write.
fn unsnap(compressed: &[u8], limit: usize) -> Result<Vec<u8>, Inflate> {
    let mut decoder = snap::raw::Decoder::new();
    let mut out = Vec::new();
    // The versions behind the magic have never changed.
    if !compressed.starts_with(&XERIAL_HEADER[..8]) {
        unsnap_block(&mut decoder, compressed, &mut out, limit)?;
        return Ok(out);
    }
    let cut_off = || io::Error::new(io::ErrorKind::UnexpectedEof, "the last snappy block is cut off");
    let mut rest = compressed.get(XERIAL_HEADER.len()..).ok_or_else(cut_off)?;
    while !rest.is_empty() {
        let (prefix, behind) = rest.split_first_chunk().ok_or_else(cut_off)?;
        let (block, behind) = behind.split_at_checked(u32::from_be_bytes(*prefix) as usize).ok_or_else(cut_off)?;
        unsnap_block(&mut decoder, block, &mut out, limit)?;
        rest = behind;
    }
    Ok(out)
}

/// Appends what `block` inflates to.
fn unsnap_block(
    decoder: &mut snap::raw::Decoder,
    block: &[u8],
    out: &mut Vec<u8>,
    limit: usize,
) -> Result<(), Inflate> {
    // A block begins with the length that it inflates to. Three bytes give 64 at the best, so what claims more lies.
    let claimed = snap::raw::decompress_len(block)?;
    if claimed / 64 > block.len() / 3 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a snappy block claims more than it can hold").into());
    }
    if claimed > limit - out.len() {
        return Err(Inflate::TooLarge);
    }
    let start = out.len();
    out.resize(start + claimed, 0);
    decoder.decompress(block, &mut out[start..])?;
    Ok(())
}

/// One-shot, so that no window is allocated: a frame may ask for one of 128 MiB whatever it holds.
fn unzstd(compressed: &[u8], limit: usize) -> Result<Vec<u8>, Inflate> {
    use zstd::zstd_safe::{DCtx, get_error_name};
    /// `ZSTD_error_dstSize_tooSmall`; zstd_errors.h promises that its numbers stay.
    const TOO_SMALL: usize = 70_usize.wrapping_neg();

    // A block of 128 KiB takes four bytes at the least (RFC 8878, section 3.1.1.2), so what claims more lies.
    let ceiling = compressed.len().saturating_mul(32 << 10).min(limit);
    let mut context = DCtx::create();
    let mut capacity = first_guess(compressed.len(), ceiling);
    loop {
        let mut out = Vec::with_capacity(capacity);
        match context.decompress(&mut out, compressed) {
            Ok(_) => return Ok(out),
            // Begun anew with four times the room, which repeats a third of the work at the most.
            Err(TOO_SMALL) if capacity < ceiling => {
                capacity = capacity.saturating_mul(4).min(ceiling);
            }
            Err(TOO_SMALL) if ceiling == limit => return Err(Inflate::TooLarge),
            Err(code) => {
                let name = get_error_name(code);
                return Err(io::Error::new(io::ErrorKind::InvalidData, name).into());
            }
        }
    }
}

//! `Content-Encoding` of a request, undone as the body comes in.
//!
//! A decoder is fed a chunk and asked for its output step by step, at most [`STEP_BYTES`] at a time, so a small chunk
//! that inflates to gigabytes costs time but no memory, and between two steps the caller can wait for room. A broken
//! stream is an error where it breaks; what came before it has been handed out already.

use std::io::Write;

use flate2::write::MultiGzDecoder;
use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;
use zstd::stream::raw::{self, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::DParameter;

use super::error::ApiError;

/// The most that one step hands out. The gzip decoder's own step is 32 KiB.
pub(crate) const STEP_BYTES: usize = 64 * 1024;

/// The largest window that a zstd frame may ask for: 8 MiB, what RFC 8878 section 3.1.1.1.2 wants every decoder to
/// accept.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentEncoding {
    Identity,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
}

impl ContentEncoding {
    /// Reads the header. One encoding at most: nobody compresses twice.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut values = headers.get_all(CONTENT_ENCODING).into_iter();
        let encoding = match (values.next(), values.next()) {
            (None, _) => return Ok(Self::Identity),
            (Some(value), None) => value.as_bytes().trim_ascii(),
            (Some(_), Some(_)) => b"",
        };
        if encoding.eq_ignore_ascii_case(b"identity") {
            Ok(Self::Identity)
        } else if encoding.eq_ignore_ascii_case(b"gzip") || encoding.eq_ignore_ascii_case(b"x-gzip") {
            Ok(Self::Gzip)
        } else if encoding.eq_ignore_ascii_case(b"zstd") {
            Ok(Self::Zstd)
        } else {
            Err(ApiError::unsupported_media("Content-Encoding: gzip, zstd or none"))
        }
    }
}

/// The stream is not what its `Content-Encoding` says, or ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BrokenEncoding;

/// Decodes one body.
pub(crate) enum Decoder {
    Gzip(Box<Gzip>),
    Zstd(Box<Zstd>),
}

impl Decoder {
    /// `None` for a body that is not encoded.
    pub(crate) fn new(encoding: ContentEncoding) -> Option<Self> {
        match encoding {
            ContentEncoding::Identity => None,
            ContentEncoding::Gzip => Some(Self::Gzip(Box::new(Gzip::new()))),
            ContentEncoding::Zstd => Some(Self::Zstd(Box::new(Zstd::new()))),
        }
    }

    /// Takes from the front of `input` and gives what it decodes to. `None` when `input` is used up and has given all
    /// it can; an empty step is no end.
    pub(crate) fn step(&mut self, input: &mut &[u8]) -> Result<Option<&[u8]>, BrokenEncoding> {
        match self {
            Self::Gzip(gzip) => gzip.step(input),
            Self::Zstd(zstd) => zstd.step(input),
        }
    }

    /// The body ended. What is still inside comes out; an error if the stream is not at an end of its own.
    pub(crate) fn finish(&mut self) -> Result<&[u8], BrokenEncoding> {
        match self {
            Self::Gzip(gzip) => gzip.finish(),
            Self::Zstd(zstd) => zstd.finish(),
        }
    }
}

/// gzip by flate2's push decoder, whose output goes to a buffer that is handed out after every write. It fills its own
/// 32 KiB at most between two writes to it.
pub(crate) struct Gzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    started: bool,
}

impl Gzip {
    fn new() -> Self {
        Self { decoder: MultiGzDecoder::new(Vec::new()), started: false }
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<&[u8]>, BrokenEncoding> {
        self.decoder.get_mut().clear();
        if input.is_empty() {
            // Everything that this chunk gives, so that a line does not wait in here for the next chunk.
            self.decoder.flush().map_err(|_| BrokenEncoding)?;
            let out = self.decoder.get_ref().as_slice();
            return Ok((!out.is_empty()).then_some(out));
        }
        self.started = true;
        let taken = self.decoder.write(input).map_err(|_| BrokenEncoding)?;
        *input = input.get(taken..).ok_or(BrokenEncoding)?;
        Ok(Some(self.decoder.get_ref()))
    }

    fn finish(&mut self) -> Result<&[u8], BrokenEncoding> {
        self.decoder.get_mut().clear();
        if self.started {
            self.decoder.try_finish().map_err(|_| BrokenEncoding)?;
        }
        Ok(self.decoder.get_ref())
    }
}

/// zstd by its own streaming decoder.
pub(crate) struct Zstd {
    /// `None` when its memory could not be had.
    decoder: Option<raw::Decoder<'static>>,
    out: Vec<u8>,
    /// A frame has begun and not ended.
    inside_frame: bool,
    /// The last step filled its buffer: there may be more.
    more: bool,
}

impl Zstd {
    fn new() -> Self {
        let decoder = raw::Decoder::new().and_then(|mut decoder| {
            decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
            Ok(decoder)
        });
        Self { decoder: decoder.ok(), out: Vec::with_capacity(STEP_BYTES), inside_frame: false, more: false }
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<&[u8]>, BrokenEncoding> {
        if input.is_empty() && !self.more {
            return Ok(None);
        }
        self.out.clear();
        let mut source = InBuffer::around(input);
        let mut target = OutBuffer::around(&mut self.out);
        let decoder = self.decoder.as_mut().ok_or(BrokenEncoding)?;
        // The hint is 0 exactly when a frame is complete and its output handed out.
        let hint = decoder.run(&mut source, &mut target).map_err(|_| BrokenEncoding)?;
        let taken = source.pos();
        let given = target.pos();
        if taken == 0 && given == 0 && !input.is_empty() {
            return Err(BrokenEncoding);
        }
        *input = input.get(taken..).ok_or(BrokenEncoding)?;
        self.inside_frame = hint != 0;
        self.more = self.inside_frame && given == STEP_BYTES;
        Ok(Some(&self.out))
    }

    fn finish(&mut self) -> Result<&[u8], BrokenEncoding> {
        if self.inside_frame {
            return Err(BrokenEncoding);
        }
        Ok(&[])
    }
}

#[cfg(test)]
mod tests;

//! Compressed bodies, decoded step by step.

#[rustfmt::skip]
#[path = "../../crates/penstock/src/http/content_encoding.rs"]
#[allow(dead_code, missing_debug_implementations, unreachable_pub, reason = "a target uses what it needs")]
mod decoder;

/// What the decoder's module wants of its neighbours.
mod error {
    pub(crate) struct ApiError;

    impl ApiError {
        pub(crate) fn unsupported_media(_: &str) -> Self {
            Self
        }
    }
}

use decoder::{ContentEncoding, Decoder, STEP_BYTES};

/// More than this is not decoded: a bomb may go on for gigabytes.
const ENOUGH: usize = 16 << 20;
/// What a decoder may hand out at once beyond a step: what it had inside when its input ended.
const SLACK: usize = 64 * 1024;

/// A body in chunks of `chunk` bytes: `None` when there is more of it than enough, else what it is, if it is whole.
fn decode(encoding: ContentEncoding, body: &[u8], chunk: usize) -> Option<Result<Vec<u8>, ()>> {
    let mut decoder = Decoder::new(encoding).expect("an encoding");
    let mut out = Vec::new();
    for mut chunk in body.chunks(chunk) {
        loop {
            match decoder.step(&mut chunk) {
                Ok(Some(step)) => {
                    assert!(step.len() <= STEP_BYTES + SLACK, "a step of {} bytes", step.len());
                    out.extend_from_slice(step);
                }
                Ok(None) => break,
                Err(_) => return Some(Err(())),
            }
            if out.len() > ENOUGH {
                return None;
            }
        }
        assert!(chunk.is_empty(), "a chunk is used up");
    }
    let end = decoder.finish().map(<[u8]>::to_vec);
    Some(end.map(|end| [out, end].concat()).map_err(|_| ()))
}

/// The first byte says how the rest is encoded and into which chunks it is cut. Nothing panics, no step is larger than it may be, and
/// every way to cut the body gives the same.
pub fn run(data: &[u8]) {
    let [how, body @ ..] = data else { return };
    let encoding = if how & 1 == 0 { ContentEncoding::Gzip } else { ContentEncoding::Zstd };
    let whole = decode(encoding, body, body.len().max(1));
    let pieces = decode(encoding, body, usize::from(how >> 1) + 1);
    if let (Some(whole), Some(pieces)) = (whole, pieces) {
        assert_eq!(whole, pieces);
    }
}

//! The head of a request and the framing of its body, with the bytes of a connection cut anyhow.

#[rustfmt::skip]
#[path = "../../crates/penstock/src/http1/chunked.rs"]
#[allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "a target uses what it needs")]
mod chunked;
#[rustfmt::skip]
#[path = "../../crates/penstock/src/http1/head.rs"]
#[allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "a target uses what it needs")]
mod head;

use bytes::{Bytes, BytesMut};
use chunked::Chunked;
use head::{Framing, Head, HeadEnd};
use hyper::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};

const LIMIT: usize = 512;

/// What a server makes of a connection's bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    /// Requests: method, target, and as much of the body as came.
    requests: Vec<(String, String, Vec<u8>)>,
    /// The status of what ended it, or 0 if more would have been read.
    ended: u16,
}

/// The first byte is how the rest is cut. However it is: the same requests come out, with the same bodies, and what is no
/// request ends them at the same place.
pub fn run(data: &[u8]) {
    let [cut, wire @ ..] = data else { return };
    let whole = read(wire, wire.len().max(1));
    assert_eq!(read(wire, usize::from(*cut) % 40 + 1), whole);
    assert_eq!(read(wire, 1), whole);
}

fn read(wire: &[u8], cut: usize) -> Read {
    let mut told = Read::default();
    let mut input = BytesMut::new();
    let mut end = HeadEnd::default();
    // The body under way.
    let mut length = 0_u64;
    let mut chunks: Option<Chunked> = None;
    for piece in wire.chunks(cut) {
        input.extend_from_slice(piece);
        loop {
            if input.is_empty() {
                break;
            }
            if length > 0 {
                let taken = input.split_to(usize::try_from(length).map_or(input.len(), |length| length.min(input.len())));
                length -= taken.len() as u64;
                body(&mut told).extend_from_slice(&taken);
            } else if let Some(chunked) = &mut chunks {
                let Ok(payload) = chunked.decode(&mut input) else {
                    told.ended = 400;
                    return told;
                };
                body(&mut told).extend_from_slice(&payload);
                if chunked.is_over() {
                    chunks = None;
                }
            } else {
                let range = match end.find(&input, LIMIT) {
                    Ok(None) => break,
                    Ok(Some(range)) => range,
                    Err(bad) => {
                        told.ended = bad.status.as_u16();
                        return told;
                    }
                };
                let bytes = Bytes::copy_from_slice(&input.split_to(range.end)[range]);
                end = HeadEnd::default();
                let head = match head::parse(bytes.clone()) {
                    Ok(head) => head,
                    Err(bad) => {
                        told.ended = bad.status.as_u16();
                        return told;
                    }
                };
                check(&head, &bytes);
                match head.framing {
                    Framing::Length(announced) => length = announced,
                    Framing::Chunked => chunks = Some(Chunked::new()),
                }
                told.requests.push((head.parts.method.to_string(), head.parts.uri.to_string(), Vec::new()));
            }
        }
    }
    told
}

fn body(told: &mut Read) -> &mut Vec<u8> {
    &mut told.requests.last_mut().expect("a body has a head").2
}

/// What holds for every head that passes.
fn check(head: &Head, bytes: &[u8]) {
    let headers = &head.parts.headers;
    let count = |name| headers.get_all(name).iter().count();
    assert!(count(CONTENT_LENGTH) + count(TRANSFER_ENCODING) <= 1);
    assert!(count(HOST) == 1 || head.parts.version == hyper::Version::HTTP_10 && count(HOST) == 0);
    assert_eq!(head.framing == Framing::Chunked, count(TRANSFER_ENCODING) == 1);
    assert!(bytes.len() <= LIMIT && bytes.ends_with(b"\r\n\r\n"));
    let lone = |pair: &[u8]| pair[1] == b'\n' && pair[0] != b'\r';
    assert!(!bytes.windows(2).any(lone));
    let target = bytes.split(|byte| *byte == b' ').nth(1).expect("a target");
    assert!(!target.contains(&b'#'));
}

//! Takes the framing of `Transfer-Encoding: chunked` off a body (RFC 9112 section 7.1), in place.
//!
//! A client that sends one line a chunk makes a chunk of a hundred bytes; what is between two of them is about six.
//! Their payloads are moved together in the read buffer, so that whoever reads the body gets one piece a read and not
//! one a chunk. A large chunk stays where it is and is a piece of its own: to move it would cost more than a piece.

use bytes::{Buf, Bytes, BytesMut};

/// Payloads of less are moved to those before them.
const MOVE_AT_MOST: usize = 4 * 1024;
/// Digits of a chunk's size: more would not fit 64 bits.
const MAX_DIGITS: u32 = 16;
/// Extensions and trailers of a whole body. Both are read and thrown away.
const MAX_IGNORED: usize = 8 * 1024;

/// The body is not framed as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadChunk;

/// Where in the framing the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The size: digits seen, and their value.
    Size(u32, u64),
    /// An extension, from its semicolon or space to the CR. Of a chunk of this size.
    Extension(u64),
    /// The LF behind the size. Of a chunk of this size.
    SizeLf(u64),
    /// Payload: so many bytes are left.
    Data(u64),
    /// CR and LF behind a payload.
    DataCr,
    DataLf,
    /// A trailer line: whether anything is in it.
    Trailer(bool),
    TrailerLf(bool),
    End,
    /// Framed as it must not be, in front of the next byte.
    Bad,
}

/// The decoder of one body.
#[derive(Debug)]
pub(crate) struct Chunked {
    at: At,
    ignored: usize,
}

impl Chunked {
    pub(crate) const fn new() -> Self {
        Self { at: At::Size(0, 0), ignored: 0 }
    }

    /// The body has ended; what is behind it is not its.
    pub(crate) fn is_over(&self) -> bool {
        self.at == At::End
    }

    /// Takes from `input` what there is of the body and returns the payload of it; empty if only framing was there.
    /// Leaves in `input` what is behind the body, and possibly a large payload for the next call.
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Bytes, BadChunk> {
        // Framing in front of the first payload need not be moved over.
        let (framing, _) = self.framing(input)?;
        input.advance(framing);
        let At::Data(left) = self.at else {
            return Ok(Bytes::new());
        };
        let mut filled = available(input.len(), left);
        let mut read = filled;
        self.take(filled);
        while read < input.len() && self.at != At::End {
            let before = (self.at, self.ignored);
            let Ok((framing, payload)) = self.framing(&input[read..]) else {
                // What came before it is still good; the next call finds this.
                self.at = At::Bad;
                break;
            };
            if payload > MOVE_AT_MOST {
                // It is looked at again by the next call.
                (self.at, self.ignored) = before;
                break;
            }
            read += framing;
            input.copy_within(read..read + payload, filled);
            self.take(payload);
            read += payload;
            filled += payload;
        }
        let mut piece = input.split_to(read);
        piece.truncate(filled);
        Ok(piece.freeze())
    }

    fn take(&mut self, payload: usize) {
        if let At::Data(left) = &mut self.at {
            *left -= payload as u64;
            if *left == 0 {
                self.at = At::DataCr;
            }
        }
    }

    /// Steps over framing up to the next payload or the end: how long the framing is, and how much of the payload
    /// behind it is there.
    fn framing(&mut self, bytes: &[u8]) -> Result<(usize, usize), BadChunk> {
        for (index, &byte) in bytes.iter().enumerate() {
            match self.at {
                At::Data(left) => return Ok((index, available(bytes.len() - index, left))),
                At::End => return Ok((index, 0)),
                _ => self.at = self.step(byte)?,
            }
        }
        Ok((bytes.len(), 0))
    }

    fn step(&mut self, byte: u8) -> Result<At, BadChunk> {
        Ok(match (self.at, byte) {
            (At::Size(digits, size), _) if byte.is_ascii_hexdigit() && digits < MAX_DIGITS => {
                let digit = char::from(byte).to_digit(16).ok_or(BadChunk)?;
                At::Size(digits + 1, size << 4 | u64::from(digit))
            }
            (At::Size(1.., size), b'\r') => At::SizeLf(size),
            (At::Size(1.., size), b';' | b' ' | b'\t') => At::Extension(size),
            (At::Extension(size), b'\r') => At::SizeLf(size),
            (At::Extension(size), 0x20.. | b'\t') => {
                self.ignore()?;
                At::Extension(size)
            }
            (At::SizeLf(0), b'\n') => At::Trailer(false),
            (At::SizeLf(size), b'\n') => At::Data(size),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size(0, 0),
            (At::Trailer(some), b'\r') => At::TrailerLf(some),
            (At::Trailer(_), 0x20.. | b'\t') => {
                self.ignore()?;
                At::Trailer(true)
            }
            (At::TrailerLf(true), b'\n') => At::Trailer(false),
            (At::TrailerLf(false), b'\n') => At::End,
            _ => return Err(BadChunk),
        })
    }

    fn ignore(&mut self) -> Result<(), BadChunk> {
        self.ignored += 1;
        if self.ignored > MAX_IGNORED { Err(BadChunk) } else { Ok(()) }
    }
}

/// How much of `left` bytes is among `bytes`.
fn available(bytes: usize, left: u64) -> usize {
    usize::try_from(left).map_or(bytes, |left| left.min(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes `wire` that comes in pieces of these lengths, over and over. The payload and what is left behind it.
    fn decode(wire: &[u8], steps: &[usize]) -> Result<(Vec<u8>, Vec<u8>), BadChunk> {
        let mut chunked = Chunked::new();
        let mut input = BytesMut::new();
        let mut payload = Vec::new();
        let mut rest = wire;
        let mut steps = steps.iter().cycle();
        while !chunked.is_over() && !rest.is_empty() {
            let (next, later) = rest.split_at((*steps.next().expect("a cycle")).min(rest.len()));
            rest = later;
            input.extend_from_slice(next);
            while !chunked.is_over() && !input.is_empty() {
                payload.extend_from_slice(&chunked.decode(&mut input)?);
            }
        }
        assert!(chunked.is_over(), "it has an end");
        input.extend_from_slice(rest);
        Ok((payload, input.to_vec()))
    }

    fn is_bad(wire: &str) -> bool {
        let mut chunked = Chunked::new();
        let mut input = BytesMut::from(wire);
        loop {
            match chunked.decode(&mut input) {
                Err(BadChunk) => return true,
                Ok(_) if input.is_empty() || chunked.is_over() => return false,
                Ok(_) => {}
            }
        }
    }

    #[test]
    fn small_chunks_become_one_piece() {
        let mut input = BytesMut::from("3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n2 \r\nde\r\n0\r\nT: x\r\n\r\nGET");
        let mut chunked = Chunked::new();
        assert_eq!(&chunked.decode(&mut input).expect("good")[..], b"abc0123456789de");
        assert!(chunked.is_over());
        assert_eq!(&input[..], b"GET");
    }

    #[test]
    fn a_large_chunk_is_a_piece_of_its_own_and_is_not_moved() {
        let large = vec![b'x'; MOVE_AT_MOST + 1];
        let wire = [b"1\r\na\r\n1001\r\n", &large[..], b"\r\n0\r\n\r\n"].concat();
        let mut input = BytesMut::from(&wire[..]);
        let mut chunked = Chunked::new();
        assert_eq!(&chunked.decode(&mut input).expect("good")[..], b"a");
        let place = input.as_ptr();
        let piece = chunked.decode(&mut input).expect("good");
        assert_eq!(piece, large);
        assert_eq!(piece.as_ptr().addr() - place.addr(), b"\r\n1001\r\n".len());
        assert!(chunked.is_over() && input.is_empty());
    }

    #[test]
    fn what_came_before_bad_framing_is_not_lost() {
        let mut input = BytesMut::from("3\r\nabc\r\n2\r\nde\r\nzz\r\n");
        let mut chunked = Chunked::new();
        assert_eq!(&chunked.decode(&mut input).expect("good")[..], b"abcde");
        assert_eq!(chunked.decode(&mut input), Err(BadChunk));
    }

    #[test]
    fn other_framing_is_refused() {
        for wire in [
            "x",
            "\r\n",
            ";a\r\n",
            "-1\r\n",
            "+1\r\na\r\n",
            "0x1\r\na\r\n",
            "1\na\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na\r\r",
            "1;a\nb\r\n",
            "1;\0\r\n",
            "1 ;\x0b\r\n",
            "00000000000000001\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\n\n",
            "0\r\n\r\r",
            "1\rXa\r\n",
        ] {
            assert!(is_bad(wire), "{wire:?}");
        }
        assert!(is_bad(&format!("1;{}\r\n", "e".repeat(MAX_IGNORED + 1))));
        assert!(is_bad(&format!("0\r\n{}\r\n", "T: x\r\n".repeat(MAX_IGNORED))));
        assert!(!is_bad("ffffffffffffffff\r\nabc"));
    }

    proptest! {
        #[test]
        fn any_chunks_in_any_steps_are_the_payload(
            chunks in prop::collection::vec((1_usize..9000, 0_usize..3), 0..20),
            steps in prop::collection::vec(1_usize..5000, 1..8),
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut wire = Vec::new();
            let mut payload = Vec::new();
            for (index, (size, style)) in chunks.iter().enumerate() {
                let data = vec![b'a' + (index % 26) as u8; *size];
                let line = match style {
                    0 => format!("{size:x}\r\n"),
                    1 => format!("{size:08X}\r\n"),
                    _ => format!("{size:x} ; name=value\r\n"),
                };
                wire.extend_from_slice(line.as_bytes());
                wire.extend_from_slice(&data);
                wire.extend_from_slice(b"\r\n");
                payload.extend_from_slice(&data);
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            wire.extend_from_slice(&rest);
            let decoded = decode(&wire, &steps);
            prop_assert_eq!(decoded, Ok((payload, rest)));
        }
    }
}

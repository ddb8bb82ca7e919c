//! A PROXY protocol header in front of a connection, where there may be one.
//!
//! A load balancer that sends such headers sends them with its health checks too, so the management listener must
//! understand a connection that begins with one; and since people and scrapers connect to it as well, one that does
//! not. The first bytes tell: no HTTP request begins as a header does. What the header says is of no interest here.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Version 2: the signature, then version and command, family, and length.
const SIGNATURE_V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature and the four bytes behind it.
const HEADER_V2: usize = 16;
/// Addresses and what else a version 2 header brings.
const MAX_V2: usize = 1024;
/// Version 1: a line that begins so.
const SIGNATURE_V1: &[u8; 6] = b"PROXY ";
/// The longest line of version 1, its `\r\n` included.
const MAX_V1: usize = 107;

/// What the bytes at the front of a connection are.
#[derive(Debug, PartialEq, Eq)]
enum Front {
    /// No header.
    None,
    /// A header of so many bytes.
    Header(usize),
    /// Not enough to tell.
    Incomplete,
    /// Begins as a header and is none.
    Malformed,
}

/// Looks at the bytes at the front of a connection.
fn front(bytes: &[u8]) -> Front {
    let begins_as = |signature: &[u8]| bytes.iter().zip(signature).all(|(byte, wanted)| byte == wanted);
    if begins_as(SIGNATURE_V2) {
        let Some(header) = bytes.first_chunk::<HEADER_V2>() else {
            return Front::Incomplete;
        };
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if header[12] >> 4 != 2 || header[12] & 0x0f > 1 || length > MAX_V2 {
            return Front::Malformed;
        }
        if bytes.len() < HEADER_V2 + length {
            return Front::Incomplete;
        }
        return Front::Header(HEADER_V2 + length);
    }
    if begins_as(SIGNATURE_V1) {
        return match memchr::memchr(b'\n', &bytes[..bytes.len().min(MAX_V1)]) {
            Some(end) if bytes[end - 1] == b'\r' => Front::Header(end + 1),
            None if bytes.len() < MAX_V1 => Front::Incomplete,
            _ => Front::Malformed,
        };
    }
    Front::None
}

/// Reads past a header, if there is one, and returns the bytes that were read and do not belong to it. They come before
/// whatever `stream` gives next.
///
/// # Errors
///
/// When the connection ends before it says anything whole, or begins as a header and is none.
pub(crate) async fn skip_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match front(&bytes) {
            Front::None => return Ok(bytes),
            Front::Header(length) => return Ok(bytes.split_off(length)),
            Front::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            Front::Incomplete => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, length: u16) -> Vec<u8> {
        let mut header = SIGNATURE_V2.to_vec();
        header.extend_from_slice(&[command, 0x11]);
        header.extend_from_slice(&length.to_be_bytes());
        header.resize(HEADER_V2 + usize::from(length), 7);
        header
    }

    /// What is left of `bytes` when they come in pieces of `piece` bytes.
    async fn skip(bytes: &[u8], piece: usize) -> io::Result<Vec<u8>> {
        let (mut near, mut far) = tokio::io::duplex(piece);
        let bytes = bytes.to_vec();
        let writer = async move {
            // The reader may stop before it has read everything.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut far, &bytes).await;
        };
        let reader = async move {
            let mut rest = skip_header(&mut near).await?;
            near.read_to_end(&mut rest).await?;
            Ok(rest)
        };
        tokio::join!(writer, reader).1
    }

    #[tokio::test]
    async fn a_header_is_skipped_however_it_is_cut() {
        let request = b"GET /livez HTTP/1.1\r\n\r\n";
        let v1 = b"PROXY TCP4 10.0.0.1 10.0.0.2 4000 8081\r\n".to_vec();
        for header in [v2(0x21, 12), v2(0x20, 0), v2(0x21, 1024), v1, b"PROXY UNKNOWN\r\n".to_vec(), Vec::new()] {
            for piece in [1, 5, 16, 4096] {
                let bytes = [&header[..], request].concat();
                assert_eq!(skip(&bytes, piece).await.expect("well-formed"), request);
            }
        }
    }

    #[tokio::test]
    async fn what_begins_as_a_header_and_is_none_is_refused() {
        let long_v1 = [&b"PROXY "[..], &[b'x'; 200]].concat();
        for bytes in [
            v2(0x11, 0),
            v2(0x22, 0),
            v2(0x21, 1025),
            long_v1,
            b"PROXY TCP4\n".to_vec(),
            v2(0x21, 12)[..20].to_vec(),
            b"PRO".to_vec(),
            Vec::new(),
        ] {
            skip(&bytes, 64).await.expect_err("refused");
        }
    }

    #[test]
    fn no_request_looks_like_a_header() {
        for bytes in [&b"GET / HTTP/1.1"[..], b"P", b"POST / ", b"PUT /"] {
            assert!(matches!(front(bytes), Front::None | Front::Incomplete), "{bytes:?}");
        }
        assert_eq!(front(b"POST"), Front::None);
    }
}

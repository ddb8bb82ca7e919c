//! The PROXY header in front of a connection: skipped where it may stand, read where it must.

#[rustfmt::skip]
#[path = "../../crates/penstock/src/server/proxy_protocol.rs"]
#[allow(dead_code, reason = "a target uses what it needs")]
mod header;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

/// What `bytes` leave behind the header when they come in pieces of `piece` bytes; `None` when the header is refused.
async fn behind(bytes: &[u8], piece: usize) -> Option<Vec<u8>> {
    let (mut near, mut far) = duplex(piece);
    let writer = async move {
        // The reader may have heard enough.
        let _ = far.write_all(bytes).await;
    };
    let reader = async move {
        let mut rest = header::skip_header(&mut near).await.ok()?;
        near.read_to_end(&mut rest).await.ok()?;
        Some(rest)
    };
    tokio::join!(writer, reader).1
}

/// The same for the strict reader, with what it says of its connection.
async fn read(bytes: &[u8], piece: usize) -> Option<(header::Origin, Vec<u8>)> {
    let (mut near, mut far) = duplex(piece);
    let writer = async move {
        let _ = far.write_all(bytes).await;
    };
    let reader = async move {
        let origin = header::read_header(&mut near).await.ok()?;
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.ok()?;
        Some((origin, rest))
    };
    tokio::join!(writer, reader).1
}

/// The first byte is the length of pieces, the rest the connection. Nothing panics; however the bytes are cut, the same is left, and
/// that is their end, behind a header of at most 1,040 bytes or behind none. What the strict reader takes, the other skips.
pub fn run(data: &[u8]) {
    let [piece, bytes @ ..] = data else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O");
    let (all, piece) = (bytes.len().max(1), usize::from(*piece) + 1);
    let (whole, pieces) = runtime.block_on(async { (behind(bytes, all).await, behind(bytes, piece).await) });
    assert_eq!(whole, pieces);
    let (strict, pieces) = runtime.block_on(async { (read(bytes, all).await, read(bytes, piece).await) });
    assert_eq!(strict, pieces);
    if let Some((origin, rest)) = strict {
        // A header with nothing behind it leaves the other waiting for a first byte that never comes.
        assert!(rest.is_empty() || whole.as_ref() == Some(&rest));
        if let header::Origin::Client { endpoint: Some(endpoint), .. } = origin {
            assert!(endpoint.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
    if let Some(rest) = whole {
        assert!(bytes.ends_with(&rest));
        assert!(bytes.len() - rest.len() <= 1_040);
    }
}

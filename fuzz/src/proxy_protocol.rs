//! The PROXY header that may stand in front of a connection to the management listener.

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

/// The first byte is the length of pieces, the rest the connection. Nothing panics; however the bytes are cut, the same is left, and
/// that is their end, behind a header of at most 1,040 bytes or behind none.
pub fn run(data: &[u8]) {
    let [piece, bytes @ ..] = data else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O");
    let (whole, pieces) = runtime.block_on(async {
        (behind(bytes, bytes.len().max(1)).await, behind(bytes, usize::from(*piece) + 1).await)
    });
    assert_eq!(whole, pieces);
    if let Some(rest) = whole {
        assert!(bytes.ends_with(&rest));
        assert!(bytes.len() - rest.len() <= 1_040);
    }
}

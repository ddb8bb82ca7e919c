//! A client whose every broker says what the input says.

use kafka_client::{Cluster, Config, Connecting, Connector, Io};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// The input in pieces: a byte of flags, a byte of length, and so many bytes. Each request is answered with the next piece: as a
/// frame with the right correlation id, or raw. No bytes make the client panic, hang or allocate more than a small multiple
/// of their length.
pub fn run(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O").block_on(async {
        let cluster = Cluster::start(Config {
            bootstrap_servers: vec!["broker:9092".to_owned()],
            connector: Some(Arc::new(Script(data.into()))),
            request_timeout: Duration::from_secs(2),
            max_frame_bytes: 1 << 20,
            ..Config::default()
        });
        let _ = cluster.topic("t").await;
        let _ = cluster.init_producer_id().await;
        let brokers: Vec<_> = cluster.metadata().brokers.keys().copied().take(2).collect();
        for broker in brokers {
            let _ = cluster.dial(broker).await;
        }
    });
}

#[derive(Debug)]
struct Script(Arc<[u8]>);

impl Connector for Script {
    fn connect<'a>(&'a self, _host: &'a str, _port: u16) -> Connecting<'a> {
        Box::pin(async {
            let (ours, theirs) = duplex(4096);
            tokio::spawn(play(self.0.clone(), theirs));
            Ok(Box::new(ours) as Box<dyn Io>)
        })
    }
}

async fn play(script: Arc<[u8]>, mut stream: DuplexStream) -> Option<()> {
    let mut rest = &script[..];
    loop {
        let length = stream.read_i32().await.ok()?;
        let mut request = vec![0; usize::try_from(length).ok()?];
        stream.read_exact(&mut request).await.ok()?;
        let [flags, length, tail @ ..] = rest else { return None };
        let (piece, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        if flags & 1 == 0 {
            let frame_length = i32::try_from(piece.len() + 4).ok()?;
            stream.write_i32(frame_length).await.ok()?;
            stream.write_all(&request[4..8]).await.ok()?;
        }
        stream.write_all(piece).await.ok()?;
    }
}

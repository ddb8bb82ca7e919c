//! One flow: a client's connection, and the one to the target that it was given.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{Shared, group::Route};

/// A flow that was accepted and routed.
pub(super) struct Flow {
    pub(super) client: TcpStream,
    pub(super) route: Route,
    /// What the target gets first.
    pub(super) header: Vec<u8>,
    pub(super) node: usize,
}

/// How a flow ends.
enum End {
    /// Both sides have said all that they had to say.
    Closed,
    /// One side has reset its connection, or time is up for the target's flows.
    Reset,
    /// One side spoke after the flow was forgotten.
    Forgotten { by_client: bool },
}

impl Flow {
    /// Carries bytes until the end.
    pub(super) async fn carry(self, shared: Arc<Shared>) {
        let Self { mut client, mut route, header, node } = self;
        let connected = async {
            client.set_nodelay(true)?;
            let mut target = shared.connect(node, route.address).await?;
            target.write_all(&header).await?;
            io::Result::Ok(target)
        };
        let Ok(mut target) = connected.await else {
            route.refused();
            reset(&client);
            return;
        };
        let _open = route.opened();
        let activity =
            Activity { start: Instant::now(), last: AtomicU64::new(0), timeout: shared.settings.idle_timeout };
        let end = {
            let (from_client, to_client) = client.split();
            let (from_target, to_target) = target.split();
            let up = relay(from_client, to_target, true, &activity);
            let down = relay(from_target, to_client, false, &activity);
            tokio::select! {
                ended = async { tokio::try_join!(up, down) } => ended.map_or_else(|end| end, |_| End::Closed),
                () = time_is_up(&mut route.cut) => End::Reset,
            }
        };
        match end {
            End::Closed => {}
            End::Reset => {
                reset(&client);
                reset(&target);
            }
            End::Forgotten { by_client } => {
                let (spoke, mut silent) = if by_client { (client, target) } else { (target, client) };
                reset(&spoke);
                drop(spoke);
                // The other one does not know until it speaks, too.
                let _ = silent.read(&mut [0]).await;
                reset(&silent);
            }
        }
    }
}

/// Makes the coming drop send RST instead of FIN.
fn reset(stream: &TcpStream) {
    // It fails on sockets that are gone already.
    let _ = stream.set_zero_linger();
}

async fn time_is_up(cut: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let at = *cut.borrow_and_update();
        let wait = async {
            match at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wait => return,
            changed = cut.changed() => if changed.is_err() {
                // The target is forgotten: the last word counts.
                match at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
                return;
            },
        }
    }
}

/// When anything last moved, in either direction.
struct Activity {
    start: Instant,
    /// Milliseconds since the start.
    last: AtomicU64,
    timeout: Duration,
}

impl Activity {
    /// Notes that something moved. False: it is too late for this flow.
    fn note(&self) -> bool {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let silent = now.saturating_sub(self.last.swap(now, Ordering::Relaxed));
        Duration::from_millis(silent) < self.timeout
    }
}

/// Carries bytes in one direction until its end.
async fn relay(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    by_client: bool,
    activity: &Activity,
) -> Result<(), End> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let count = from.read(&mut buffer).await.map_err(|_| End::Reset)?;
        if !activity.note() {
            return Err(End::Forgotten { by_client });
        }
        let passed = if count == 0 { to.shutdown().await } else { to.write_all(&buffer[..count]).await };
        passed.map_err(|_| End::Reset)?;
        if count == 0 {
            return Ok(());
        }
    }
}

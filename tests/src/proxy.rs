//! A TCP proxy between the bridge and one broker: what a network does to connections, without root.
//!
//! ```text
//! bridge ──▶ Proxy::port ──requests──▶ broker's client listener
//!                        ◀──replies───
//! ```
//!
//! [`Proxy::set`] says what happens to the bytes from now on, on connections that are open as well as on new ones;
//! [`Proxy::cut`] ends all that are open. Together they make the faults that matter to a producer: replies that are
//! lost after the broker has acted (lose, then cut), a host that vanished (stall), one whose process is gone
//! (refuse).

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::watch,
};

use crate::free_port;

/// What happens to bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// They pass.
    Open,
    /// Requests pass, replies vanish.
    LoseReplies,
    /// They stand still in both directions, as behind a dead link: nothing is lost, for TCP would send it again.
    Stalled,
    /// Each piece that was read takes this much longer.
    Slow(Duration),
    /// Open connections are reset, new ones refused.
    Refused,
}

/// How [`Proxy::cut`] ends connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// By FIN, as a process that ends in order does.
    Close,
    /// By RST, as a host does that has lost its state.
    Reset,
}

/// A running proxy. Dropping it ends its connections.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    way: watch::Sender<Way>,
    cuts: watch::Sender<Cut>,
    replied: Arc<AtomicU64>,
}

impl Proxy {
    /// Listens on a free loopback port for connections to `127.0.0.1:target`, served by tasks on `runtime`.
    pub fn start(runtime: &Handle, target: u16) -> Self {
        let port = free_port();
        let way = watch::Sender::new(Way::Open);
        let cuts = watch::Sender::new(Cut::Close);
        let replied = Arc::default();
        let acceptor =
            Acceptor { port, target, way: way.subscribe(), cuts: cuts.subscribe(), replied: Arc::clone(&replied) };
        let listener = runtime.block_on(acceptor.listen());
        // Ends when this `Proxy` is dropped and with it the sender of its commands.
        runtime.spawn(acceptor.run(listener));
        Self { port, way, cuts, replied }
    }

    /// Bytes of replies that were passed on, since it was started.
    pub fn replied(&self) -> u64 {
        self.replied.load(Ordering::Relaxed)
    }

    /// Says what happens to bytes from now on.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Ends every connection that is open.
    pub fn cut(&self, how: Cut) {
        self.cuts.send_replace(how);
    }
}

struct Acceptor {
    port: u16,
    target: u16,
    way: watch::Receiver<Way>,
    cuts: watch::Receiver<Cut>,
    replied: Arc<AtomicU64>,
}

impl Acceptor {
    async fn listen(&self) -> TcpListener {
        // Tokio sets SO_REUSEADDR, so connections that are still in TIME_WAIT are no hindrance.
        TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.expect("the port was free")
    }

    async fn run(mut self, first: TcpListener) {
        let mut listener = Some(first);
        loop {
            let refused = *self.way.borrow_and_update() == Way::Refused;
            if refused {
                listener = None;
            } else if listener.is_none() {
                listener = Some(self.listen().await);
            }
            tokio::select! {
                changed = self.way.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                Some(accepted) = accept(listener.as_ref()) => {
                    let Ok((client, _)) = accepted else { continue };
                    let (way, mut cuts) = (self.way.clone(), self.cuts.clone());
                    cuts.mark_unchanged();
                    tokio::spawn(connection(client, self.target, way, cuts, Arc::clone(&self.replied)));
                }
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> Option<io::Result<(TcpStream, std::net::SocketAddr)>> {
    match listener {
        Some(listener) => Some(listener.accept().await),
        None => None,
    }
}

/// One connection, to its end or its cut.
async fn connection(
    mut client: TcpStream,
    target: u16,
    way: watch::Receiver<Way>,
    mut cuts: watch::Receiver<Cut>,
    replied: Arc<AtomicU64>,
) {
    let Ok(mut broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else {
        // Nobody there: the closest to a refusal that is left after an accept.
        reset(&client);
        return;
    };
    let _ = client.set_nodelay(true).and_then(|()| broker.set_nodelay(true));
    let mut refusal = way.clone();
    let how = {
        let (from_client, to_client) = client.split();
        let (from_broker, to_broker) = broker.split();
        let requests = relay(from_client, to_broker, None, way.clone());
        let replies = relay(from_broker, to_client, Some(&replied), way);
        tokio::select! {
            ended = async { tokio::try_join!(requests, replies) } => ended.map_or(Cut::Reset, |_| Cut::Close),
            refused = refusal.wait_for(|way| *way == Way::Refused) => refused.map_or(Cut::Close, |_| Cut::Reset),
            cut = cuts.changed() => cut.map_or(Cut::Close, |()| *cuts.borrow()),
        }
    };
    if how == Cut::Reset {
        reset(&client);
        reset(&broker);
    }
}

/// Makes the coming drop send RST instead of FIN.
fn reset(stream: &TcpStream) {
    // It fails on sockets that are gone already.
    let _ = stream.set_zero_linger();
}

/// Carries bytes in one direction until its end, as the way allows. Replies are counted.
async fn relay(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    replies: Option<&AtomicU64>,
    mut way: watch::Receiver<Way>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        let passes = loop {
            let now = *way.borrow_and_update();
            match now {
                Way::Open => break true,
                Way::LoseReplies => break replies.is_none(),
                Way::Slow(by) => {
                    tokio::time::sleep(by).await;
                    break true;
                }
                Way::Stalled | Way::Refused => {
                    if way.changed().await.is_err() {
                        return Ok(());
                    }
                }
            }
        };
        if count == 0 {
            return to.shutdown().await;
        }
        if passes {
            if let Some(replied) = replies {
                // Before the reader can have them.
                replied.fetch_add(count as u64, Ordering::Relaxed);
            }
            to.write_all(&buffer[..count]).await?;
        }
    }
}

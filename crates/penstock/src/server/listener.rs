//! Accepts connections and hands each to the worker that has the fewest.
//!
//! One acceptor for all workers: a load balancer brings few and heavy connections, and sockets of their own per worker
//! would spread those by a hash that knows nothing of load. Nothing is awaited for a connection here but its
//! acceptance; handshakes are the worker's.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::http::caller::network;
use crate::metrics::{Metrics, OpenConnection, ProxyRefusal};

/// After an error that will not pass by itself at once (no more file descriptors), from the first to the longest pause.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A connection on its way to a worker, with everything that ends with it.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Non-blocking.
    pub(crate) stream: std::net::TcpStream,
    /// The socket's other end: a client, or a load balancer.
    pub(crate) peer: SocketAddr,
    pub(crate) open: Open,
    pub(crate) from: From,
}

/// Which listener a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// A client's.
    Data,
    /// Another bridge's.
    Fleet,
}

/// Counts one open connection, everywhere where it is counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Open {
    load: Arc<AtomicUsize>,
    place: Place,
    _metric: OpenConnection,
}

impl Open {
    /// Counts the connection as one of `source`, which a header named after it was accepted. Whether there is room for
    /// it.
    pub(crate) fn count_as(&mut self, source: IpAddr) -> bool {
        self.place.count_as(source)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many connections may be open, in all and of one source. One more is closed at once: its client can try another
/// instance, where a place in our backlog would only look like a slow one.
#[derive(Debug)]
pub(crate) struct Room {
    most: usize,
    most_of_one: Option<usize>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Only where one source is bounded.
    by_source: HashMap<IpAddr, usize>,
}

impl Room {
    pub(crate) fn new(most: usize, most_of_one: Option<usize>) -> Arc<Self> {
        Arc::new(Self { most, most_of_one, taken: Mutex::default() })
    }

    fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all == self.most {
            return None;
        }
        taken.all += 1;
        drop(taken);
        Some(Place { room: self.clone(), source: None })
    }
}

/// One connection's place in the [`Room`], until it is dropped.
#[derive(Debug)]
struct Place {
    room: Arc<Room>,
    /// Where one source is bounded and this connection's is known.
    source: Option<IpAddr>,
}

impl Place {
    fn count_as(&mut self, source: IpAddr) -> bool {
        let (Some(most), None) = (self.room.most_of_one, self.source) else {
            return true;
        };
        let source = network(source);
        let mut taken = self.room.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = taken.by_source.entry(source).or_default();
        if *of_source == most {
            return false;
        }
        *of_source += 1;
        self.source = Some(source);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(source) = &self.source
            && let Some(of_source) = taken.by_source.get_mut(source)
        {
            *of_source -= 1;
            if *of_source == 0 {
                taken.by_source.remove(source);
            }
        }
    }
}

/// When the last client came: no health check, and nobody who only connects.
#[derive(Debug)]
pub(crate) struct Arrivals {
    start: Instant,
    /// Milliseconds since the start.
    last: AtomicU64,
}

impl Arrivals {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), last: AtomicU64::new(0) })
    }

    pub(crate) fn note(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}

/// Where a worker takes its connections.
#[derive(Debug, Clone)]
pub(crate) struct WorkerPort {
    connections: mpsc::UnboundedSender<Accepted>,
    /// Open connections of this worker.
    load: Arc<AtomicUsize>,
}

impl WorkerPort {
    /// The port, and what comes through it. Unbounded, because the listener's own bound on open connections holds.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Accepted>) {
        let (connections, incoming) = mpsc::unbounded_channel();
        (Self { connections, load: Arc::default() }, incoming)
    }
}

/// The acceptor of the data listener, or of the fleet's.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) listener: TcpListener,
    pub(crate) from: From,
    pub(crate) workers: Vec<WorkerPort>,
    pub(crate) room: Arc<Room>,
    /// Where connections may come from, each with a PROXY header in front. `None`: from anywhere, without one.
    pub(crate) balancers: Option<Arc<[IpNet]>>,
    pub(crate) metrics: Metrics,
}

impl Acceptor {
    /// Accepts until `stop`. Then takes what the kernel has accepted already, and closes the listener.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = BACKOFF.0;
        let mut first = 0;
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, client)) => {
                    backoff = BACKOFF.0;
                    self.hand_over(stream, client, &mut first);
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(backoff) => {}
                    }
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
        // To those in the backlog the connection is open: closing the listener would reset them.
        loop {
            tokio::select! {
                biased;
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, client)) => self.hand_over(stream, client, &mut first),
                    Err(error) if concerns_one_connection(&error) => {}
                    Err(_) => break,
                },
                () = std::future::ready(()) => break,
            }
        }
    }

    /// `first` goes round, so that equally loaded workers take turns.
    fn hand_over(&self, stream: TcpStream, peer: SocketAddr, first: &mut usize) {
        if let Some(balancers) = &self.balancers
            && !balancers.iter().any(|network| network.contains(&peer.ip().to_canonical()))
        {
            self.metrics.proxy_header_refused(ProxyRefusal::Untrusted);
            tracing::debug!(%peer, "a connection is not from a trusted balancer");
            return;
        }
        // Behind a balancer the header tells the source: the worker counts it.
        let place = self.room.enter().and_then(|mut place| {
            let fits = self.balancers.is_some() || place.count_as(peer.ip());
            fits.then_some(place)
        });
        let Some(place) = place else {
            self.metrics.connection_refused();
            return;
        };
        let count = self.workers.len();
        *first = (*first + 1) % count;
        let turn = |at: usize| (at + *first) % count;
        let load = |at: usize| self.workers[at].load.load(Ordering::Relaxed);
        let index = (0..count).map(turn).min_by_key(|&at| load(at)).expect("there is a worker");
        let worker = &self.workers[index];
        let Ok(stream) = stream.into_std() else {
            return;
        };
        worker.load.fetch_add(1, Ordering::Relaxed);
        let open = Open { load: worker.load.clone(), place, _metric: self.metrics.connection_opened(index) };
        if worker.connections.send(Accepted { stream, peer, open, from: self.from }).is_err() {
            tracing::error!(worker = index, "a worker is gone");
        }
    }
}

/// Errors of accept(2) that say something of the connection at the front of the queue, and nothing of the next one.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    struct Bench {
        address: std::net::SocketAddr,
        incoming: Vec<mpsc::UnboundedReceiver<Accepted>>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    async fn bench(workers: usize, room: usize, of_one: Option<usize>) -> Bench {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (ports, incoming) = (0..workers).map(|_| WorkerPort::new()).unzip();
        let room = Room::new(room, of_one);
        let metrics = Metrics::new(workers);
        let acceptor = Acceptor { listener, from: From::Data, workers: ports, room, balancers: None, metrics };
        let stop = CancellationToken::new();
        let task = tokio::spawn(acceptor.run(stop.clone()));
        Bench { address, incoming, stop, task }
    }

    #[tokio::test]
    async fn each_connection_goes_to_the_worker_with_the_fewest() {
        let mut bench = bench(3, 100, None).await;
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(TcpStream::connect(bench.address).await.expect("accepted"));
        }
        let mut held = Vec::new();
        for incoming in &mut bench.incoming {
            for _ in 0..2 {
                held.push(incoming.recv().await.expect("two for each"));
            }
        }
        // Worker 1 loses its two, so the next two are its.
        held.drain(2..4);
        for _ in 0..2 {
            clients.push(TcpStream::connect(bench.address).await.expect("accepted"));
            held.push(bench.incoming[1].recv().await.expect("the least loaded"));
        }
    }

    #[tokio::test]
    async fn a_connection_that_there_is_no_room_for_is_closed() {
        let mut bench = bench(1, 1, None).await;
        let _first = TcpStream::connect(bench.address).await.expect("accepted");
        let held = bench.incoming[0].recv().await.expect("handed over");
        let mut second = TcpStream::connect(bench.address).await.expect("accepted");
        assert!(matches!(second.read(&mut [0]).await, Ok(0) | Err(_)), "closed unserved");
        drop(held);
        let _third = TcpStream::connect(bench.address).await.expect("accepted");
        bench.incoming[0].recv().await.expect("now there is room");
    }

    #[tokio::test]
    async fn one_source_leaves_room_for_others() {
        let mut bench = bench(1, 100, Some(2)).await;
        let from = |source: [u8; 4]| {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            socket.bind((source, 0).into()).expect("loopback");
            socket.connect(bench.address)
        };
        let _first = from([127, 0, 0, 2]).await.expect("accepted");
        let _second = from([127, 0, 0, 2]).await.expect("accepted");
        let held = bench.incoming[0].recv().await.expect("handed over");
        bench.incoming[0].recv().await.map(std::mem::forget).expect("handed over");
        let mut third = from([127, 0, 0, 2]).await.expect("accepted");
        assert!(matches!(third.read(&mut [0]).await, Ok(0) | Err(_)), "closed unserved");
        let _other = from([127, 0, 0, 3]).await.expect("accepted");
        bench.incoming[0].recv().await.expect("another source");
        drop(held);
        let _fourth = from([127, 0, 0, 2]).await.expect("accepted");
        bench.incoming[0].recv().await.expect("now there is room");
    }

    #[tokio::test]
    async fn a_stop_takes_what_is_in_the_backlog_and_closes_the_listener() {
        let mut bench = bench(1, 100, None).await;
        let _client = TcpStream::connect(bench.address).await.expect("in the backlog");
        bench.stop.cancel();
        bench.task.await.expect("no panic");
        bench.incoming[0].try_recv().expect("it was taken");
        TcpStream::connect(bench.address).await.expect_err("nobody listens any more");
    }
}

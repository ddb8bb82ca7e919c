//! A worker: one OS thread with a runtime of its own, which owns its connections and its pipeline and shares nothing
//! per record with any other.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use kafka_client::Cluster;
use produce_pipeline::{MemoryBudget, Pipeline};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::listener::{Accepted, Arrivals, From, Open};
use super::proxy_protocol::{HeaderError, Origin, read_header};
use super::tls::TlsState;
use crate::auth::Authenticator;
use crate::config::Config;
use crate::http::access::Access;
use crate::http::caller::Caller;
use crate::http::confluent::v2::Consumers;
use crate::http::fleet::{self, Fleet, FleetSession, Peers};
use crate::http::groups::Groups;
use crate::http::routes::Operation;
use crate::http::{Context, Session};
use crate::http1::{self, Limits, Stop};
use crate::metrics::{Metrics, ProxyRefusal};
use crate::schema_registry::Registry;
use crate::telemetry::Telemetry;

/// For the PROXY header in front of a connection: a balancer sends it in one segment with its first.
const PROXY_TIMEOUT: Duration = Duration::from_secs(2);
/// TLS handshakes under way at once. Each costs about 0.1 ms of the worker's time; more at once only take longer each.
const HANDSHAKES: usize = 256;
/// For answers to be written after everything unresolved was given up.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How far the process is with its end. Only ever goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Everything is served; during the notice of a drain too.
    Serving,
    /// No new connections; each ends with the request under way.
    Draining,
    /// Uploads are read no further, and answered when what they brought is resolved.
    StopReading,
    /// What is unresolved is given up.
    Abandon,
}

/// What a worker is made of; everything here is shared by all.
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) access: Arc<Access>,
    pub(crate) authenticator: Option<Arc<Authenticator>>,
    pub(crate) cluster: Cluster,
    pub(crate) budget: MemoryBudget,
    pub(crate) groups: Groups,
    pub(crate) metrics: Metrics,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) schemas: Option<Arc<Registry>>,
    pub(crate) tls: Option<Arc<TlsState>>,
    pub(crate) consumers: Arc<Consumers>,
    pub(crate) fleet: Option<Arc<Fleet>>,
    pub(crate) draining: Arc<AtomicBool>,
    pub(crate) stop: Stop,
    pub(crate) arrivals: Arc<Arrivals>,
    pub(crate) phase: watch::Receiver<Phase>,
}

/// A running worker.
#[derive(Debug)]
pub(crate) struct Worker {
    thread: JoinHandle<()>,
    /// Resolves when the worker has ended, by itself or by a panic.
    ended: oneshot::Receiver<()>,
}

impl Worker {
    /// Starts the thread.
    pub(crate) fn start(index: usize, parts: Parts, incoming: mpsc::UnboundedReceiver<Accepted>) -> io::Result<Self> {
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            LocalSet::new().block_on(&runtime, run(parts, incoming));
            // Nobody may be waiting for a server that was dropped.
            let _ = end.send(());
        })?;
        Ok(Self { thread, ended })
    }

    /// Waits for the end of the worker. An error if it did not end by itself.
    ///
    /// # Cancel safety
    ///
    /// Safe; but not to be called again after it returned.
    pub(crate) async fn ended(&mut self) -> Result<(), WorkerDied> {
        (&mut self.ended).await.map_err(|_| WorkerDied)
    }

    /// Waits for the thread, after [`ended`](Self::ended).
    pub(crate) async fn join(self) {
        // A panic was told by `ended` already.
        let _ = tokio::task::spawn_blocking(|| self.thread.join()).await;
    }
}

/// A worker's thread panicked outside of any task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkerDied;

/// The worker's life: serve, drain, end.
async fn run(parts: Parts, mut incoming: mpsc::UnboundedReceiver<Accepted>) {
    let Parts {
        config,
        access,
        authenticator,
        cluster,
        budget,
        groups,
        metrics,
        telemetry,
        schemas,
        tls,
        consumers,
        fleet,
        draining,
        stop,
        arrivals,
        mut phase,
    } = parts;
    let observer = Arc::new(metrics.clone());
    let pipeline = Pipeline::new(config.producer.pipeline.clone(), cluster.clone(), budget.clone(), observer);
    let stop = stop.child();
    let context = Rc::new(Context {
        access,
        authenticator,
        routes: Operation::NAMES.map(|name| metrics.route(name)),
        consumers,
        fleet,
        peers: Peers::default(),
        stop_reading: CancellationToken::new(),
        drain: stop.drain.clone(),
        tasks: TaskTracker::new(),
        config,
        cluster,
        pipeline,
        budget,
        groups,
        metrics,
        telemetry,
        schemas,
        draining,
    });
    let shell =
        Rc::new(Shell { context: context.clone(), tls, handshakes: Semaphore::new(HANDSHAKES), stop, arrivals });
    let connections = TaskTracker::new();
    let serve = |accepted: Accepted| {
        connections.spawn_local(shell.clone().connection(accepted));
    };

    let mut over = async |least: Phase| {
        // The sender is gone only if the whole server is.
        phase.wait_for(|phase| *phase >= least).await.map_or(Phase::Abandon, |phase| *phase)
    };
    loop {
        tokio::select! {
            biased;
            _ = over(Phase::Draining) => break,
            Some(accepted) = incoming.recv() => serve(accepted),
        }
    }
    // The acceptor ended before the phase changed: what it accepted is in the channel.
    while let Ok(accepted) = incoming.try_recv() {
        serve(accepted);
    }
    shell.stop.drain.cancel();
    connections.close();
    context.tasks.close();
    let mut finished = std::pin::pin!(async {
        connections.wait().await;
        context.tasks.wait().await;
        context.pipeline.flush().await;
    });
    let mut next = Phase::StopReading;
    loop {
        tokio::select! {
            biased;
            () = finished.as_mut() => return,
            now = over(next) => {
                context.stop_reading.cancel();
                next = Phase::Abandon;
                if now == Phase::Abandon {
                    break;
                }
            }
        }
    }
    context.pipeline.abandon();
    if tokio::time::timeout(LAST_WORDS, finished).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections were cut at the end of the drain");
    }
}

/// What a worker's connections share before there are requests.
struct Shell {
    context: Rc<Context>,
    tls: Option<Arc<TlsState>>,
    handshakes: Semaphore,
    stop: Stop,
    arrivals: Arc<Arrivals>,
}

impl Shell {
    /// One connection's task. Ends with the connection.
    ///
    /// What serves requests is on the heap, once there are any: a handshake is small, and pays for nothing but itself.
    async fn connection(self: Rc<Self>, accepted: Accepted) {
        let Accepted { stream, peer, mut open, from } = accepted;
        let mut stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be served");
                return;
            }
        };
        // Answers are small and whole: nothing is gained by waiting for more. Fails only if the client is gone.
        let _ = stream.set_nodelay(true);
        let listen = &self.context.config.listen;
        let limits = Limits {
            idle_timeout: listen.idle_timeout,
            head_timeout: listen.head_timeout,
            max_age: listen.max_connection_age,
            head_bytes: self.context.config.limits.head_bytes,
        };
        if let (From::Fleet, Some(us)) = (from, &self.context.fleet) {
            let session = FleetSession { context: self.context.clone(), fleet: us.clone() };
            // An envelope is larger than what clients may send; a bridge keeps a connection for less than a minute.
            let limits = Limits { head_bytes: fleet::HEAD_BYTES.max(limits.head_bytes), max_age: None, ..limits };
            Box::pin(http1::serve(stream, &session, limits, self.stop.clone())).await;
            return;
        }
        let mut caller = Caller::of_socket(peer);
        if listen.proxy_trusted.is_some() && !self.read_origin(&mut stream, &mut caller, &mut open).await {
            return;
        }
        let Some(tls) = &self.tls else {
            self.note_arrival(&caller);
            let session = Session::new(self.context.clone(), caller);
            Box::pin(http1::serve(stream, &session, limits, self.stop.clone())).await;
            return;
        };
        let greeting = tls.current();
        let handshake = async {
            let _turn = self.handshakes.acquire().await.expect("the semaphore is never closed");
            let stream = TlsAcceptor::from(greeting.config.clone()).accept(stream).await?;
            let names = greeting.client(stream.get_ref().1).map_err(io::Error::other)?;
            Ok::<_, io::Error>((stream, names))
        };
        match tokio::time::timeout(limits.head_timeout, handshake).await {
            Ok(Ok((stream, names))) => {
                self.note_arrival(&caller);
                caller.certificate = names.map(Arc::new);
                let session = Session::new(self.context.clone(), caller);
                drop(greeting);
                Box::pin(http1::serve(stream, &session, limits, self.stop.clone())).await;
            }
            Ok(Err(error)) => {
                self.context.metrics.tls_handshake_failed();
                tracing::debug!(%error, "a TLS handshake failed");
            }
            Err(_) => {
                self.context.metrics.tls_handshake_failed();
                tracing::debug!("a TLS handshake took too long");
            }
        }
    }

    /// A client has come, who counts for how long the listener stays open in a drain.
    fn note_arrival(&self, caller: &Caller) {
        if !caller.is_balancer {
            self.arrivals.note();
        }
    }

    /// Learns from the PROXY header who the client is. Whether the connection is to be served.
    async fn read_origin(&self, stream: &mut TcpStream, caller: &mut Caller, open: &mut Open) -> bool {
        let metrics = &self.context.metrics;
        let refusal = match tokio::time::timeout(PROXY_TIMEOUT, read_header(stream)).await {
            Ok(Ok(Origin::Balancer)) => {
                caller.is_balancer = true;
                return true;
            }
            Ok(Ok(Origin::Client { source, endpoint })) => {
                caller.source = source;
                caller.endpoint = endpoint;
                let fits = source.is_none_or(|source| open.count_as(source.ip()));
                if !fits {
                    metrics.connection_refused();
                }
                return fits;
            }
            Ok(Err(HeaderError::Absent)) => ProxyRefusal::Absent,
            Ok(Err(HeaderError::Malformed(problem))) => {
                tracing::debug!(%caller, problem, "a PROXY header is not well-formed");
                ProxyRefusal::Malformed
            }
            Err(_) => ProxyRefusal::Slow,
        };
        metrics.proxy_header_refused(refusal);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size_of_future<A, F>(_: &impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// Every connection has room for the largest of what may be asked on it, so one large operation is paid for by all.
    #[test]
    fn a_connection_takes_little_memory() {
        let connection = size_of_future(&|(shell, accepted): (Rc<Shell>, Accepted)| shell.connection(accepted));
        assert!(connection <= 4 * 1024, "until it is greeted: {connection} bytes");
        let serving =
            size_of_future(&|(stream, session, limits, stop): (TcpStream, &'static Session, Limits, Stop)| {
                http1::serve(stream, session, limits, stop)
            });
        assert!(serving <= 8 * 1024, "while it is served: {serving} bytes");
    }
}

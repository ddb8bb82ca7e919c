//! A network load balancer behind a VPC endpoint, as clients and targets of AWS's see it, on loopback.
//!
//! ```text
//! client ──▶ listener, one a VPC endpoint ──▶ node ──PROXY header, then the flow's bytes──▶ target
//!                                              │
//!                                              └──health checks, each node its own──▶ target's health port
//! ```
//!
//! A flow is one TCP connection and goes to one target, which a hash of its addresses picks: nothing else ties a client
//! to a target. Targets see the node's address, the client's stands in the header: [`header`]. Which targets get flows,
//! and for how long after they should not: [`group`]. A flow that is silent for too long is forgotten without a word, and
//! whoever speaks next is reset.
//!
//! What a proxy cannot imitate: it accepts a client before it knows whether the target does (the client is then reset),
//! and does not see probes of TCP's own keepalive, which at AWS keep a flow from being idle.
//!
//! [`Nlb`] is for tests; the program `fake-nlb` is the same with a command line and [`control`].

pub mod control;
mod flow;
pub mod group;
pub mod header;
mod health;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Handle,
    sync::watch,
    time::Instant,
};

use flow::Flow;
use group::{Attributes, Group, Target, TargetStatus};

/// What a balancer is like. Times are AWS's; [`Settings::faster`] makes tests quick.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where clients connect, and the VPC endpoint that they then came through. Port 0 is any free one.
    pub listeners: Vec<(SocketAddr, Option<String>)>,
    /// Endpoints by the client's address, which go before the listener's.
    pub endpoints: HashMap<IpAddr, String>,
    /// The nodes' addresses: where targets see flows and checks come from.
    pub nodes: Vec<Ipv4Addr>,
    /// Whether flows and checks begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether those have a checksum.
    pub checksum: bool,
    /// How targets are checked.
    pub check: Check,
    /// From one check of a node to its next.
    pub check_interval: Duration,
    /// For a check to be answered.
    pub check_timeout: Duration,
    /// A flow that is silent for so long is forgotten.
    pub idle_timeout: Duration,
    /// The target group's attributes.
    pub attributes: Attributes,
}

/// How targets are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// `GET` of this path; 200 passes.
    Http(String),
    /// A connection is enough.
    Tcp,
}

impl Settings {
    /// One listener on a free port for an endpoint, three nodes, and what a target group in front of a bridge is set to.
    pub fn new(endpoint: &str) -> Self {
        Self {
            listeners: vec![((Ipv4Addr::LOCALHOST, 0).into(), Some(endpoint.to_owned()))],
            endpoints: HashMap::new(),
            nodes: (1..=3).map(|node| Ipv4Addr::new(127, 0, 1, node)).collect(),
            proxy_protocol: true,
            checksum: true,
            check: Check::Http("/readyz".to_owned()),
            check_interval: Duration::from_secs(5),
            check_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(350),
            attributes: Attributes::default(),
        }
    }

    /// Divides every time by `factor`.
    pub fn faster(mut self, factor: f64) -> Self {
        let attributes = &mut self.attributes;
        for time in [
            &mut self.check_interval,
            &mut self.check_timeout,
            &mut self.idle_timeout,
            &mut attributes.unhealthy_lag.0,
            &mut attributes.unhealthy_lag.1,
            &mut attributes.deregistered_lag.0,
            &mut attributes.deregistered_lag.1,
            &mut attributes.deregistration_delay,
            &mut attributes.unhealthy_draining,
        ] {
            *time = time.div_f64(factor);
        }
        self
    }
}

/// A running balancer. Dropping it ends its flows and its checks.
#[derive(Debug)]
pub struct Nlb {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    runtime: Handle,
    /// Its tasks end when this is dropped.
    stop: watch::Sender<()>,
}

/// What listeners, flows and checks share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    group: Mutex<Group>,
    /// Counts up: flows come to the nodes in turn.
    next_node: AtomicUsize,
}

impl Shared {
    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to a target from a node's own address.
    async fn connect(&self, node: usize, target: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.settings.nodes[node], 0).into())?;
        let stream = socket.connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Nlb {
    /// Listens, with no target yet; `runtime` runs what it does.
    ///
    /// # Errors
    ///
    /// When an address cannot be listened at.
    pub fn start(runtime: &Handle, settings: Settings) -> io::Result<Self> {
        let group = Mutex::new(Group::new(settings.attributes.clone(), settings.nodes.len()));
        let shared = Arc::new(Shared { settings, group, next_node: AtomicUsize::new(0) });
        let stop = watch::Sender::new(());
        let _entered = runtime.enter();
        let mut addresses = Vec::new();
        for (address, endpoint) in &shared.settings.listeners {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            addresses.push(listener.local_addr()?);
            runtime.spawn(accept(Arc::clone(&shared), listener, endpoint.clone(), stop.subscribe()));
        }
        Ok(Self { addresses, shared, runtime: runtime.clone(), stop })
    }

    /// Where its first listener is.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where its listeners are, in the order of the settings.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Adds a target, which gets flows as soon as it is healthy. False when it is there already.
    pub fn register(&self, target: Target) -> bool {
        let Some(id) = self.shared.group().register(target, Instant::now()) else {
            return false;
        };
        for node in 0..self.shared.settings.nodes.len() {
            let checks = health::checks(Arc::clone(&self.shared), id, target, node);
            self.runtime.spawn(until(self.stop.subscribe(), checks));
        }
        true
    }

    /// Begins to drain a target. False when there is none of this address.
    pub fn deregister(&self, address: SocketAddr) -> bool {
        self.shared.group().deregister(address, Instant::now())
    }

    /// Every target, in the order of registration, those that drain included.
    pub fn status(&self) -> Vec<TargetStatus> {
        self.shared.group().status(Instant::now())
    }
}

/// Runs something until the balancer is dropped.
async fn until(mut stop: watch::Receiver<()>, task: impl Future<Output = ()>) {
    tokio::select! {
        // Nothing is ever sent: it ends with its sender.
        _ = stop.changed() => {}
        () = task => {}
    }
}

/// One listener.
async fn accept(shared: Arc<Shared>, listener: TcpListener, endpoint: Option<String>, mut stop: watch::Receiver<()>) {
    let Ok(destination) = listener.local_addr() else {
        return;
    };
    loop {
        let accepted = tokio::select! {
            _ = stop.changed() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((client, source)) = accepted else {
            // Of one connection, or no more file descriptors: then the next moment may be better.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let node = shared.next_node.fetch_add(1, Ordering::Relaxed) % shared.settings.nodes.len();
        let mut hasher = DefaultHasher::new();
        (source, destination).hash(&mut hasher);
        let route = shared.group().route(node, hasher.finish(), Instant::now());
        let Some(route) = route else {
            let _ = client.set_zero_linger();
            continue;
        };
        let header = shared.settings.proxy_protocol.then(|| {
            let endpoint = shared.settings.endpoints.get(&source.ip()).or(endpoint.as_ref());
            header::of_client(source, destination, endpoint.map(String::as_str), shared.settings.checksum)
        });
        let flow = Flow { client, route, header: header.unwrap_or_default(), node };
        let carried = flow.carry(Arc::clone(&shared));
        tokio::spawn(until(stop.clone(), carried));
    }
}

#[cfg(test)]
mod tests;

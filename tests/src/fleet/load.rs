//! Callers of a fleet: uploads that take seconds, and lone requests; and what became of everything they sent.
//!
//! A caller keeps its connection for as long as it may. Every value is sent once and names its sender and number, but for
//! those lines of an upload that its answer says were not read: they are sent again.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::{
    client::{Body, Client, Exchange},
    tools::kcat_read_lines,
};

/// Lone callers; each has a connection, and one request on it at a time.
const MOST_CALLERS: u64 = 200;
/// Lines in a chunk of an upload.
const CHUNK: u64 = 20;
/// Between two chunks.
const PAUSE: Duration = Duration::from_millis(200);
/// Chunks of the shortest and of the longest upload: 2 to 12 seconds.
const CHUNKS: (u64, u64) = (10, 60);

/// How much.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where the balancer listens.
    pub port: u16,
    /// Where everything goes.
    pub topic: String,
    /// Uploads at any time.
    pub uploads: u64,
    /// Lone requests a second.
    pub requests: u64,
}

/// Running callers.
#[derive(Debug)]
pub struct Callers {
    senders: Vec<Arc<Sender>>,
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    totals: Arc<Totals>,
    started: Instant,
}

/// One caller's values: by number, whether each was told to be written.
#[derive(Debug, Default)]
struct Sender {
    acknowledged: Mutex<Vec<bool>>,
}

impl Sender {
    fn lock(&self) -> MutexGuard<'_, Vec<bool>> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Totals {
    requests: AtomicU64,
    uploads: AtomicU64,
    connections: AtomicU64,
    failed_connections: AtomicU64,
    cut: AtomicU64,
    unanswered: AtomicU64,
    interrupted: AtomicU64,
    refusals: Mutex<BTreeMap<u16, u64>>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How long the callers ran.
    pub time: Duration,
    /// Lone requests that were answered.
    pub requests: u64,
    /// Uploads that were answered.
    pub uploads: u64,
    /// Those that were answered before they were at their end, because a bridge was about to stop, and went on elsewhere.
    pub interrupted: u64,
    /// Connections that were made.
    pub connections: u64,
    /// Those that could not be.
    pub failed_connections: u64,
    /// Answers that began and did not end.
    pub cut: u64,
    /// Requests that no byte of an answer came to.
    pub unanswered: u64,
    /// Lone requests that were answered otherwise than by 200, by status.
    pub refusals: BTreeMap<u16, u64>,
    /// Records that were told to be written.
    pub acknowledged: u64,
    /// Those of them that are not there.
    pub lost: u64,
    /// Records that are there more often than once.
    pub duplicates: u64,
}

impl Outcome {
    /// Nothing that a caller could notice went wrong.
    pub fn is_clean(&self) -> bool {
        let troubles = [self.failed_connections, self.cut, self.unanswered, self.lost, self.duplicates];
        troubles.iter().all(|count| *count == 0) && self.acknowledged > 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = self.requests as f64 / self.time.as_secs_f64();
        writeln!(f, "{:.0} s; {} lone requests ({per_second:.0}/s)", self.time.as_secs_f64(), self.requests)?;
        writeln!(f, "uploads: {}, of which {} went on at another bridge", self.uploads, self.interrupted)?;
        writeln!(f, "connections: {}; {} failed", self.connections, self.failed_connections)?;
        writeln!(f, "answers cut: {}; requests unanswered: {}", self.cut, self.unanswered)?;
        writeln!(f, "lone requests refused, by status: {:?}", self.refusals)?;
        write!(f, "records acknowledged: {}; lost: {}; duplicates: {}", self.acknowledged, self.lost, self.duplicates)
    }
}

impl Callers {
    /// Starts them on `runtime`.
    pub fn start(runtime: &Handle, load: &Load) -> Self {
        let (stop, stops) = watch::channel(false);
        let totals = Arc::<Totals>::default();
        let callers = load.requests.min(MOST_CALLERS);
        let senders: Vec<_> = (0..load.uploads + callers).map(|_| Arc::<Sender>::default()).collect();
        let tasks = senders.iter().zip(0..).map(|(sender, number)| {
            let caller = Caller {
                number,
                load: load.clone(),
                sender: Arc::clone(sender),
                totals: Arc::clone(&totals),
                stop: stops.clone(),
                client: None,
            };
            if number < load.uploads {
                runtime.spawn(caller.upload())
            } else {
                let period = Duration::from_secs_f64(callers as f64 / load.requests as f64);
                runtime.spawn(caller.post(period))
            }
        });
        let tasks = tasks.collect();
        Self { senders, tasks, stop, totals, started: Instant::now() }
    }

    /// How many lone requests and uploads have been answered.
    pub fn answered(&self) -> (u64, u64) {
        (self.totals.requests.load(Ordering::Relaxed), self.totals.uploads.load(Ordering::Relaxed))
    }

    /// Lets all of them end with the answer under way, and compares what they were told with what is there.
    pub fn finish(self, runtime: &Handle, bootstrap: &str, topic: &str) -> Outcome {
        self.stop.send_replace(true);
        for task in self.tasks {
            runtime.block_on(task).expect("a caller does not panic");
        }
        let time = self.started.elapsed();
        let acknowledged: Vec<_> = self.senders.iter().map(|sender| std::mem::take(&mut *sender.lock())).collect();
        let mut there: Vec<Vec<u8>> = acknowledged.iter().map(|values| vec![0; values.len()]).collect();
        kcat_read_lines(bootstrap, topic, |_, value| {
            let text = std::str::from_utf8(value).expect("ASCII");
            let (sender, number) = text.split(' ').next().and_then(|name| name.split_once(':')).expect("a name");
            let (sender, number): (usize, usize) = (sender.parse().expect("ours"), number.parse().expect("ours"));
            let values = &mut there[sender];
            // One that was sent and never answered may be there, too.
            values.resize(values.len().max(number + 1), 0);
            values[number] = values[number].saturating_add(1);
        });
        let pairs = || acknowledged.iter().zip(&there).flat_map(|(told, there)| told.iter().zip(there));
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Outcome {
            time,
            requests: count(&self.totals.requests),
            uploads: count(&self.totals.uploads),
            interrupted: count(&self.totals.interrupted),
            connections: count(&self.totals.connections),
            failed_connections: count(&self.totals.failed_connections),
            cut: count(&self.totals.cut),
            unanswered: count(&self.totals.unanswered),
            refusals: self.totals.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            acknowledged: pairs().filter(|(told, _)| **told).count() as u64,
            lost: pairs().filter(|(told, there)| **told && **there == 0).count() as u64,
            duplicates: there.iter().flatten().filter(|times| **times > 1).count() as u64,
        }
    }
}

struct Caller {
    number: u64,
    load: Load,
    sender: Arc<Sender>,
    totals: Arc<Totals>,
    stop: watch::Receiver<bool>,
    client: Option<Client>,
}

impl Caller {
    fn value(&self, number: u64) -> String {
        format!("{}:{number} {}", self.number, "x".repeat(100))
    }

    fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    async fn pause_until(&mut self, until: Instant) {
        tokio::select! {
            () = sleep_until(until) => {}
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Sends a request on the connection that there is, or on a new one. `None`: there is none.
    async fn exchange(&mut self, head: &str, body: &Body) -> Option<Exchange> {
        if let Some(client) = &mut self.client
            && !client.is_open().await
        {
            self.client = None;
        }
        let client = match &mut self.client {
            Some(client) => client,
            none => match Client::connect(self.load.port).await {
                Ok(client) => {
                    self.totals.connections.fetch_add(1, Ordering::Relaxed);
                    none.insert(client)
                }
                Err(_) => {
                    self.totals.failed_connections.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
            },
        };
        let exchange = client.exchange(head, body).await;
        if !exchange.keeps {
            self.client = None;
        }
        if !exchange.whole {
            let counter = if exchange.status.is_some() { &self.totals.cut } else { &self.totals.unanswered };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Some(exchange)
    }

    /// Posts one record a period.
    async fn post(mut self, period: Duration) {
        let head = format!("POST /v1/topics/{}/records HTTP/1.1\r\nHost: localhost\r\n", self.load.topic);
        let mut next = Instant::now() + period.mul_f64((self.number % 100) as f64 / 100.0);
        for number in 0.. {
            self.pause_until(next).await;
            if self.is_over() {
                return;
            }
            // Who is held up does not catch up.
            next = (next + period).max(Instant::now());
            let body = Body::Whole(self.value(number).into_bytes());
            let written = match self.exchange(&head, &body).await {
                Some(Exchange { status: Some(status), whole: true, .. }) => {
                    self.totals.requests.fetch_add(1, Ordering::Relaxed);
                    if status != 200 {
                        let mut refusals = self.totals.refusals.lock().unwrap_or_else(PoisonError::into_inner);
                        *refusals.entry(status).or_default() += 1;
                    }
                    status == 200
                }
                _ => false,
            };
            self.sender.lock().push(written);
        }
    }

    /// Uploads one after the other, each from the first line that is not known to be settled.
    async fn upload(mut self) {
        let head = format!(
            "POST /v1/topics/{}/records HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
             Accept: application/x-ndjson\r\n",
            self.load.topic
        );
        let mut first = 0;
        for round in self.number.. {
            if self.is_over() {
                return;
            }
            let chunks = CHUNKS.0 + round * 7 % (CHUNKS.1 - CHUNKS.0);
            let chunk = |at: u64| {
                let lines = (first + at * CHUNK..first + (at + 1) * CHUNK).map(|number| self.value(number) + "\n");
                lines.collect::<String>().into_bytes()
            };
            let body = Body::Chunks((0..chunks).map(chunk).collect(), PAUSE);
            match self.exchange(&head, &body).await {
                Some(exchange) if exchange.whole => {
                    self.totals.uploads.fetch_add(1, Ordering::Relaxed);
                    let read = self.settle(&exchange);
                    self.totals.interrupted.fetch_add(u64::from(read < chunks * CHUNK), Ordering::Relaxed);
                    first += read;
                    if read == 0 {
                        self.pause_until(Instant::now() + PAUSE).await;
                    }
                }
                // Nobody knows of these lines.
                Some(_) => {
                    first += chunks * CHUNK;
                    let length = usize::try_from(first).expect("not so many");
                    self.sender.lock().resize(length, false);
                }
                None => self.pause_until(Instant::now() + PAUSE).await,
            }
        }
    }

    /// Keeps what an upload's answer says of its lines, and returns how many were read.
    fn settle(&self, exchange: &Exchange) -> u64 {
        let last = exchange.body.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap_or_default();
        let summary: Value = serde_json::from_slice(last).unwrap_or_default();
        let read = summary["lines"].as_u64().unwrap_or_default();
        let mut written = vec![true; usize::try_from(read).expect("not so many")];
        for failure in summary["failures"].as_array().into_iter().flatten() {
            let line = |name: &str| failure[name].as_u64().and_then(|line| usize::try_from(line).ok());
            let (Some(from), Some(to)) = (line("first_line"), line("last_line")) else {
                continue;
            };
            let to = to.min(written.len());
            written[from - 1..to].fill(false);
        }
        self.sender.lock().extend(written);
        read
    }
}

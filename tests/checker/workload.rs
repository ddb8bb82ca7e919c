//! The writers: HTTP clients that send at a steady pace, retry what was not written, and keep their history.
//!
//! Each has one connection at a time and one request on it, so that the order it sends in is the order it is promised.
//! Requests differ in every way that the interface offers: one record or many lines, a summary or progress while the
//! upload runs, a partition, keys, or neither. A writer that is held up does not catch up afterwards: goodput says how
//! much of the writers' time was not held up.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use penstock_tests::client::{Body, Client, Exchange};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    answer::{Form, told},
    check::{Finding, Kind},
    history::{Line, Outcome, Request, Told},
    random::Random,
};

/// Keys of each writer.
const KEYS: u64 = 3;
/// Lines of the largest request.
const MOST_LINES: f64 = 500.0;
/// `producer.delivery_timeout` of the bridge under test.
pub(crate) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);
/// What some requests ask for instead: shorter than a leader's failover, so that some lines become unknown.
const SHORT_TIMEOUT: Duration = Duration::from_secs(6);

/// What a writer waits for after a request of which nothing was written.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The share of uploads with progress whose writer leaves in the middle.
const ABANDONED: f64 = 0.1;

/// What a group of writers does.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// The bridge's port.
    pub(crate) port: u16,
    /// Where to.
    pub(crate) topic: String,
    /// How many partitions that topic has.
    pub(crate) partitions: i32,
    /// The number of the first writer; each writer of a run has another.
    pub(crate) first_writer: u32,
    /// How many there are.
    pub(crate) writers: u32,
    /// Lines a second of each.
    pub(crate) rate: f64,
    /// What the writers draw their requests from.
    pub(crate) seed: u64,
}

/// What a writer leaves: shared, so that what it did is known even when it never comes to an end.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Its requests, in order.
    pub(crate) requests: Vec<Request>,
    /// Answers that cannot be right.
    pub(crate) findings: Vec<Finding>,
    /// Answers that were cut off after they had begun: when the request was sent, and when the end was seen.
    pub(crate) cuts: Vec<(Duration, Duration)>,
    /// The same of connections that were lost with a request on them and no byte of an answer.
    pub(crate) losses: Vec<(Duration, Duration)>,
}

/// Running writers.
#[derive(Debug)]
pub(crate) struct Workload {
    journals: Vec<Arc<Mutex<Journal>>>,
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Workload {
    /// Starts the writers on `runtime`. Times in their journals count from `start`.
    pub(crate) fn start(runtime: &Handle, load: &Load, start: Instant) -> Self {
        let stop = watch::Sender::new(false);
        let journals: Vec<_> = (0..load.writers).map(|_| Arc::<Mutex<Journal>>::default()).collect();
        let tasks = journals.iter().zip(load.first_writer..).map(|(journal, number)| {
            let writer = Writer {
                number,
                connection: 0,
                next_seq: 0,
                retries: VecDeque::new(),
                random: Random::new(load.seed, u64::from(number) + 1),
                load: load.clone(),
                journal: Arc::clone(journal),
                start,
                stop: stop.subscribe(),
            };
            runtime.spawn(writer.run())
        });
        let tasks = tasks.collect();
        Self { journals, tasks, stop }
    }

    /// Lets every writer end after the answer that it is waiting for, for at most `within`; then their waiting is cut.
    pub(crate) async fn stop(&mut self, within: Duration) {
        self.stop.send_replace(true);
        let deadline = Instant::now() + within;
        for task in &mut self.tasks {
            match timeout_at(deadline, &mut *task).await {
                Ok(ended) => ended.expect("a writer does not panic"),
                Err(_) => task.abort(),
            }
        }
    }

    /// The journals, each locked while it is looked at.
    pub(crate) fn journals(&self) -> impl Iterator<Item = MutexGuard<'_, Journal>> {
        self.journals.iter().map(|journal| journal.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All requests until now, each writer's in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.journals().flat_map(|journal| journal.requests.clone()).collect()
    }
}

/// Where a request's records go.
#[derive(Debug, Clone, Copy)]
enum Route {
    Partition(i32),
    Keyed,
    Spread,
}

struct Writer {
    number: u32,
    connection: u32,
    next_seq: u64,
    /// What was not told written, to be tried again.
    retries: VecDeque<Line>,
    random: Random,
    load: Load,
    journal: Arc<Mutex<Journal>>,
    start: Instant,
    stop: watch::Receiver<bool>,
}

impl Writer {
    async fn run(mut self) {
        while !*self.stop.borrow() {
            let Ok(mut client) = Client::connect(self.load.port).await else {
                self.pause_until(Instant::now() + Duration::from_millis(50)).await;
                continue;
            };
            self.connection += 1;
            while !*self.stop.borrow() && client.is_open().await {
                let keeps = self.request(&mut client).await;
                if !keeps {
                    break;
                }
            }
        }
    }

    /// Sends one request, keeps what became of it, and waits for the next one's turn. False: the connection is over.
    async fn request(&mut self, client: &mut Client) -> bool {
        let form = match self.random.below(100) {
            0..15 => Form::Record,
            15..25 => Form::Progress,
            _ => Form::Lines,
        };
        let route = match self.random.below(100) {
            0..40 => Route::Partition(self.random.below(self.load.partitions as u64) as i32),
            40..75 => Route::Keyed,
            _ => Route::Spread,
        };
        let lines = self.lines(form);
        let timeout = if self.random.chance(0.15) { SHORT_TIMEOUT } else { DELIVERY_TIMEOUT };
        let slot = Duration::from_secs_f64(lines.len() as f64 / self.load.rate);
        let head = self.head(form, route, lines[0], timeout);
        let (body, whole_lines) = self.body(form, &lines, slot);
        let sending = if form == Form::Progress { slot } else { Duration::ZERO };

        let invoked = Instant::now();
        self.lock().requests.push(Request {
            connection: self.connection,
            partition: if let Route::Partition(partition) = route { Some(partition) } else { None },
            keyed: matches!(route, Route::Keyed),
            abandoned: matches!(body, Body::Abandoned(..)),
            told: Told::all(Outcome::Unknown, lines.len()),
            lines,
            invoked: invoked - self.start,
            slot,
            sending,
            due: timeout + sending,
            answered: None,
        });
        let exchange = client.exchange(&head, &body).await;
        let turn = match body {
            Body::Abandoned(..) => self.settle_abandoned(whole_lines),
            _ => self.settle(form, &exchange),
        };
        self.pause_until(invoked + turn).await;
        exchange.keeps
    }

    /// What is to be retried first, then new ones.
    fn lines(&mut self, form: Form) -> Vec<Line> {
        // As many requests of 1 to 5 lines as of 100 to 500.
        let count = if form == Form::Record { 1 } else { MOST_LINES.powf(self.random.unit()) as usize };
        let mut lines = Vec::with_capacity(count);
        while lines.len() < count {
            lines.push(self.retries.pop_front().unwrap_or_else(|| {
                let seq = self.next_seq;
                self.next_seq += 1;
                Line { writer: self.number, key: (seq % KEYS) as u32, seq, attempt: 0 }
            }));
        }
        lines
    }

    fn head(&self, form: Form, route: Route, first: Line, timeout: Duration) -> String {
        let query = match route {
            Route::Partition(partition) => format!("?partition={partition}"),
            Route::Keyed if form != Form::Record => "?key=/key".to_owned(),
            _ => String::new(),
        };
        let mut head = format!("POST /v1/topics/{}/records{query} HTTP/1.1\r\nHost: localhost\r\n", self.load.topic);
        match (form, route) {
            (Form::Record, Route::Keyed) => head.push_str(&format!("Kafka-Key: {}\r\n", first.kafka_key())),
            (Form::Record, _) => {}
            _ => head.push_str("Content-Type: application/x-ndjson\r\n"),
        }
        if form == Form::Progress {
            head.push_str("Accept: application/x-ndjson\r\n");
        }
        if timeout != DELIVERY_TIMEOUT {
            head.push_str(&format!("Kafka-Timeout-Ms: {}\r\n", timeout.as_millis()));
        }
        head
    }

    /// The body, and how many of its lines are whole.
    ///
    /// An upload with progress is sent over its whole slot, so that faults meet it half-way, and some are given up in
    /// the middle of a line.
    fn body(&mut self, form: Form, lines: &[Line], slot: Duration) -> (Body, usize) {
        let values = lines.iter().map(|line| {
            let padding = if self.random.chance(0.003) { 20_000 } else { 150 };
            let mut value = line.value(self.random.below(padding) as usize).into_bytes();
            if form != Form::Record {
                value.push(b'\n');
            }
            value
        });
        let mut values: Vec<_> = values.collect();
        if form != Form::Progress {
            return (Body::Whole(values.concat()), values.len());
        }
        let abandoned = self.random.chance(ABANDONED);
        if abandoned {
            values.truncate(1 + self.random.below(values.len() as u64) as usize);
            let last = values.last_mut().expect("at least one is left");
            last.truncate(self.random.below(last.len() as u64) as usize);
        }
        // A chunk of no bytes would end the body.
        let chunks: Vec<_> = values.chunks(40).map(<[_]>::concat).filter(|chunk| !chunk.is_empty()).collect();
        let pause = slot / chunks.len().max(1) as u32;
        if abandoned {
            (Body::Abandoned(chunks, pause), values.len() - 1)
        } else {
            (Body::Chunks(chunks, pause), values.len())
        }
    }

    /// Whoever leaves does not learn what became of the lines that were whole; the half one, and those behind it, are
    /// nobody's.
    fn settle_abandoned(&mut self, whole_lines: usize) -> Duration {
        let answered = self.start.elapsed();
        let journal = Arc::clone(&self.journal);
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        let request = journal.requests.last_mut().expect("it was pushed when it was sent");
        request.told.outcomes[whole_lines..].fill(Outcome::NotWritten);
        self.close(request, answered)
    }

    /// Keeps what became of the last request, and returns how long after its sending the next one's turn is.
    fn settle(&mut self, form: Form, exchange: &Exchange) -> Duration {
        let answered = self.start.elapsed();
        let journal = Arc::clone(&self.journal);
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        let Journal { requests, findings, cuts, losses } = &mut *journal;
        let request = requests.last_mut().expect("it was pushed when it was sent");
        match told(form, request.lines.len(), exchange) {
            Ok(told) => request.told = told,
            // Every line stays unknown.
            Err(problem) => findings.push(Finding {
                kind: Kind::BadAnswer,
                detail: format!("{}…, sent at {:.3?}: {problem}", request.lines[0], request.invoked),
            }),
        }
        if !exchange.whole {
            let times = if exchange.status.is_some() { cuts } else { losses };
            times.push((request.invoked, answered));
        }
        self.close(request, answered)
    }

    /// What was not written is to be tried again. Returns how long after the request the next one's turn is.
    fn close(&mut self, request: &mut Request, answered: Duration) -> Duration {
        request.answered = Some(answered);
        for (line, outcome) in request.lines.iter().zip(&request.told.outcomes) {
            if *outcome != Outcome::Written {
                self.retries.push_back(Line { attempt: line.attempt + 1, ..*line });
            }
        }
        if request.count(Outcome::Written) == 0 {
            // It is tried again soon, and stands for no more time than it took.
            request.slot = answered - request.invoked + RETRY_PAUSE;
        }
        request.slot
    }

    /// Waits, or until the run ends.
    async fn pause_until(&mut self, until: Instant) {
        tokio::select! {
            () = sleep_until(until) => {}
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

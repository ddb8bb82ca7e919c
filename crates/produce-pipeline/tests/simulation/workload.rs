//! Who uploads what, and what each of them was told.

use crate::broker::INVALID;
use crate::cluster::Cluster;
use crate::scenario::Scenario;
use fastrand::Rng;
use kafka_records::HeaderBlock;
use produce_pipeline::{Cause, Delivery, Pipeline, Progress, Summary, Target, partition_for_key};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How much later than its deadline a record may be settled: a look at the clock every 25 ms.
const SLACK: Duration = Duration::from_millis(60);

/// A request, as its client remembers it.
#[derive(Debug)]
pub(crate) struct Request {
    /// The id of the topic that it went to, if it has one.
    pub(crate) topic: u128,
    pub(crate) first_line: u64,
    pub(crate) lines: Vec<Line>,
    /// Empty if the client left without waiting.
    pub(crate) summary: Option<Summary>,
    /// What the protocol promises and this request saw broken.
    pub(crate) complaints: Vec<String>,
}

impl Request {
    pub(crate) fn new(topic: u128, first_line: u64) -> Self {
        Self { topic, first_line, lines: Vec::new(), summary: None, complaints: Vec::new() }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Line {
    Empty,
    /// The bridge refused it before it became a record.
    Refused,
    Record {
        value: String,
        /// Where it must be, if its key or its request says so.
        partition: Option<i32>,
    },
}

/// A client: one request after the other, on one connection.
pub(crate) struct Writer {
    pub(crate) number: usize,
    pub(crate) rng: Rng,
    /// Values carry it: `writer:sequence`.
    pub(crate) sequence: u64,
    pub(crate) pipeline: Pipeline,
    pub(crate) client: kafka_client::Cluster,
    pub(crate) cluster: Cluster,
}

impl Writer {
    pub(crate) async fn run(&mut self, scenario: &Scenario) -> Vec<Request> {
        let mut done: Vec<Request> = Vec::new();
        // Requests that were sent before the one before them was answered: their client pipelines.
        let mut open: Vec<(Request, Delivery, Instant)> = Vec::new();
        for _ in 0..scenario.requests_per_writer {
            match self.request(scenario).await {
                // The client goes away; its records go on.
                Some((request, _, _)) if self.rng.u32(..15) == 0 => done.push(request),
                Some(request) => open.push(request),
                None => {}
            }
            if self.rng.u32(..3) > 0 {
                for (request, delivery, deadline) in open.drain(..) {
                    done.push(self.settled(request, &delivery, deadline).await);
                }
            }
            if self.rng.u32(..3) == 0 {
                sleep(Duration::from_millis(self.rng.u64(..2_000))).await;
            }
        }
        for (request, delivery, deadline) in open {
            done.push(self.settled(request, &delivery, deadline).await);
        }
        done
    }

    async fn request(&mut self, scenario: &Scenario) -> Option<(Request, Delivery, Instant)> {
        let name = self.rng.choice(&scenario.topics).expect("a topic");
        let Ok(topic) = self.pipeline.topic(name).await else {
            sleep(Duration::from_millis(50)).await;
            return None;
        };
        let id = self.client.metadata().topics.get(topic.name()).map_or(0, |info| u128::from_be_bytes(info.id.0));
        let longest = scenario.pipeline.delivery_timeout;
        let shorter = (self.rng.u32(..4) == 0).then(|| Duration::from_millis(self.rng.u64(50..3_000)));
        let first_line = self.rng.u64(1..50);
        let delivery = self.pipeline.delivery(shorter, first_line);
        let mut request = Request::new(id, first_line);
        let style = self.rng.u32(..4);
        let chunks = *self.rng.choice(&[1, 1, 1, 3, 10]).expect("not empty");
        let largest = *self.rng.choice(&[1, 1, 8, 30]).expect("not empty");
        for _ in 0..chunks {
            if delivery.room().await.is_err() {
                break;
            }
            let partitions = topic.partition_count();
            let records = self.rng.usize(1..=largest);
            let fixed = self.rng.i32(0..partitions);
            let mut appender = topic.appender(&delivery, 1_700_000_000_000, HeaderBlock::none());
            for _ in 0..records {
                let line = self.line(style, fixed, partitions);
                match &line {
                    (Line::Empty, _) => appender.skip_line(),
                    (Line::Refused, _) => {
                        appender.refuse_line(Cause::Refused { code: 400, message: "bad".into() });
                    }
                    (Line::Record { value, partition }, key) => {
                        let target = match (key, partition) {
                            (Some(key), _) => Target::Key(key.as_bytes()),
                            (None, Some(partition)) => Target::Partition(*partition, None),
                            (None, None) => Target::Any,
                        };
                        appender.append(target, Some(value.as_bytes()));
                    }
                }
                request.lines.push(line.0);
            }
            drop(appender);
            match self.rng.u32(..4) {
                0 => sleep(Duration::from_millis(self.rng.u64(..300))).await,
                1 => tokio::task::yield_now().await,
                _ => {}
            }
        }
        let deadline = Instant::now() + shorter.map_or(longest, |shorter| shorter.min(longest)) + SLACK;
        Some((request, delivery, deadline))
    }

    /// A line and its key.
    fn line(&mut self, style: u32, fixed: i32, partitions: i32) -> (Line, Option<String>) {
        match self.rng.u32(..60) {
            0 => return (Line::Empty, None),
            1 => return (Line::Refused, None),
            _ => {}
        }
        let invalid = if self.rng.u32(..80) == 0 { INVALID.to_string() } else { String::new() };
        let padding = ".".repeat(self.rng.usize(..60));
        let value = format!("{invalid}{}:{:06}:{padding}", self.number, self.sequence);
        self.sequence += 1;
        let (key, partition) = match style {
            0 => (None, Some(fixed)),
            1 => {
                let key = format!("key-{}", self.rng.u32(..7));
                let partition = partition_for_key(key.as_bytes(), partitions as u32);
                (Some(key), Some(partition as i32))
            }
            _ => (None, None),
        };
        (Line::Record { value, partition }, key)
    }

    /// Waits for the last word on a request.
    async fn settled(&self, mut request: Request, delivery: &Delivery, deadline: Instant) -> Request {
        let mut seen = delivery.progress();
        let watch = async {
            while !delivery.is_resolved() {
                let next = delivery.progressed(seen).await;
                if let Some(complaint) = goes_back(seen, next, &request) {
                    request.complaints.push(complaint);
                }
                seen = next;
            }
        };
        // A pipelined request is looked at late, and then it must be settled already.
        let left = deadline.saturating_duration_since(Instant::now());
        if timeout(left, watch).await.is_err() {
            request.complaints.push(format!("unresolved at its deadline: {:?}", delivery.progress()));
            delivery.resolved().await;
        }
        let summary = delivery.summary();
        let last = delivery.progress();
        let expected = Progress {
            through_line: request.first_line + request.lines.len() as u64 - 1,
            written: summary.written,
            not_written: summary.not_written,
            unknown: summary.unknown,
        };
        if !request.lines.is_empty() && last != expected {
            request.complaints.push(format!("last progress {last:?}, expected {expected:?}"));
        }
        self.cluster.state().note(&("settled", self.number, last.written, last.not_written, last.unknown));
        request.summary = Some(summary);
        request
    }
}

/// Progress only ever grows, and never names a line that is not settled.
fn goes_back(seen: Progress, next: Progress, request: &Request) -> Option<String> {
    let grows = next.through_line >= seen.through_line
        && next.written >= seen.written
        && next.not_written >= seen.not_written
        && next.unknown >= seen.unknown;
    let through = (next.through_line + 1).saturating_sub(request.first_line) as usize;
    let lines = &request.lines[..through.min(request.lines.len())];
    let settled = lines.iter().filter(|line| !matches!(line, Line::Empty)).count() as u64;
    let counted = next.written + next.not_written + next.unknown;
    (!grows || settled > counted).then(|| format!("progress went from {seen:?} to {next:?}"))
}

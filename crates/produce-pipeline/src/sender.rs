//! One broker's sender: a task that owns this worker's connection to it.
//!
//! ```text
//!   ready partitions ──drain──▶ Produce request ──▶ connection (at most 5 requests)
//!          ▲                                             │
//!          └────────────── handle_response ◀─────────────┘ in order
//! ```
//!
//! It dials when there is something to send and nothing unanswered, so the answers of a connection that ended are dealt
//! with before the next one begins. It never gives up: what cannot be sent is settled by the accumulator's deadlines,
//! and what moves to another leader leaves its queue.

use crate::accumulator::{Accumulator, BatchRef};
use crate::pipeline::Shell;
use kafka_client::{Connection, PendingProduce, ProducePartitionResponse, ProduceRequest, ProduceResponse, TopicId};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Requests on the wire at once: what brokers keep of an idempotent producer's past (KIP-98), though no partition
/// is in two of them.
const MAX_IN_FLIGHT: usize = 5;

/// Pause after a failed dial, on top of the client's own backoff.
const DIAL_PAUSE: Duration = Duration::from_millis(50);

struct InFlight {
    pending: PendingProduce,
    /// Topics in the request's order: how the answer names them.
    topics: Vec<(Arc<str>, TopicId)>,
    /// By position in `topics` and partition.
    batches: BTreeMap<(usize, i32), BatchRef>,
    sent: Instant,
}

/// Runs until the pipeline goes.
pub(crate) async fn run(shell: Rc<Shell>, broker: i32, kick: Rc<Notify>) {
    let mut connection: Option<Connection> = None;
    let mut in_flight: VecDeque<InFlight> = VecDeque::new();
    loop {
        if in_flight.is_empty() && connection.as_ref().is_none_or(Connection::is_closed) {
            connection = None;
            if shell.acc.borrow_mut().has_ready(broker, Instant::now()) {
                connection = dial(&shell, broker).await;
                if connection.is_none() {
                    continue;
                }
            }
        }
        let mut throttled = None;
        if let Some(connection) = connection.as_ref().filter(|connection| !connection.is_closed()) {
            throttled = connection.throttled_until().filter(|until| *until > Instant::now());
            if throttled.is_none() {
                send_ready(&shell, broker, connection, &mut in_flight);
            }
        }
        let front = in_flight.front_mut();
        tokio::select! {
            biased;
            () = kick.notified() => {}
            answer = async { (&mut front.expect("see the guard").pending).await }, if front.is_some() => {
                let request = in_flight.pop_front().expect("its answer came");
                settle(&shell, broker, request, answer);
            }
            () = async { tokio::time::sleep_until(throttled.expect("see the guard")).await }, if throttled.is_some() => {}
        }
    }
}

/// A connection that is open when the caller sees it. One that the broker closes as soon as it is made counts as none: nothing
/// would be sent on it, and so no answer would ever end the caller's waiting.
async fn dial(shell: &Shell, broker: i32) -> Option<Connection> {
    match shell.cluster.dial(broker).await {
        Ok(connection) if !connection.is_closed() => return Some(connection),
        Ok(_) => tracing::warn!(broker, "a leader closed a new connection"),
        Err(error) => tracing::warn!(broker, %error, "cannot connect to a leader"),
    }
    shell.cluster.request_refresh();
    tokio::time::sleep(DIAL_PAUSE).await;
    None
}

fn send_ready(shell: &Shell, broker: i32, connection: &Connection, in_flight: &mut VecDeque<InFlight>) {
    while in_flight.len() < MAX_IN_FLIGHT {
        let Some(drained) = shell.with(|acc, now| acc.drain(broker, now)) else { return };
        let topics: Vec<_> = drained.topics.iter().map(|topic| (topic.name.clone(), topic.id)).collect();
        let request = ProduceRequest { timeout: shell.config.replication_timeout(), topics: drained.topics };
        let pending = connection.produce(request);
        in_flight.push_back(InFlight { pending, topics, batches: drained.batches, sent: Instant::now() });
    }
}

fn settle(shell: &Shell, broker: i32, mut request: InFlight, answer: Result<ProduceResponse, kafka_client::Error>) {
    let now = Instant::now();
    let response = match answer {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(broker, %error, "no answer to a Produce request");
            lose(shell, request.batches.into_values(), error.maybe_sent());
            return;
        }
    };
    shell.observer.produce_round_trip(broker, now - request.sent);
    for topic in &response.topics {
        let same = |(name, id): &(Arc<str>, TopicId)| {
            if topic.name.is_empty() { *id == topic.id } else { *name == topic.name }
        };
        let Some(at) = request.topics.iter().position(same) else { continue };
        for partition in &topic.partitions {
            if let Some((leader, epoch)) = partition.current_leader {
                let (name, id) = &request.topics[at];
                shell.cluster.apply_leader_hint((name, *id), partition.index, leader, epoch, &response.endpoints);
            }
            if let Some(batch) = request.batches.remove(&(at, partition.index)) {
                log_failure(broker, &request.topics[at].0, partition);
                shell.with(|acc: &mut Accumulator, now| acc.handle_response(batch, partition, now));
            }
        }
    }
    // A broker that leaves out a partition has not said that it did not append.
    lose(shell, request.batches.into_values(), true);
}

fn lose(shell: &Shell, batches: impl Iterator<Item = BatchRef>, maybe_sent: bool) {
    for batch in batches {
        shell.with(|acc, now| acc.handle_lost(batch, maybe_sent, now));
    }
}

fn log_failure(broker: i32, topic: &str, partition: &ProducePartitionResponse) {
    if !partition.error.is_ok() {
        tracing::debug!(broker, topic, partition = partition.index, error = partition.error.name(), "batch refused");
    }
}

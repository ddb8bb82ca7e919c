//! What is fetched next: one request a broker, of which nothing else is left.

use super::super::cursor::Cursor;
use super::super::{ConsumerError, Held, OffsetReset, Shared, TopicPartition};
use super::{LONG_PAUSE, PAUSE};
use crate::cluster::{Fetched, Part, Wanted, lock};
use crate::{Error, ErrorCode};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a fetch at the end of the log waits before it is begun anew.
const WAIT: Duration = Duration::from_secs(5);
/// What a fetch that waits asks for: what comes then is new.
const WAITING_BYTES: i32 = 64 * 1024;

/// The answer to a fetch.
#[derive(Debug)]
pub(crate) struct Arrived {
    broker: i32,
    asked: Vec<(TopicPartition, u64)>,
    result: Result<Vec<Part>, Error>,
    held: Held,
}

/// What one broker is to be asked.
struct Ask {
    asked: Vec<(TopicPartition, u64)>,
    wanted: Vec<Wanted>,
    at_end: bool,
}

impl Shared {
    /// Begins the fetches that are due. When the next one will be, if it is known.
    pub(crate) fn fetch(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        let mut due: Option<Instant> = None;
        let mut asks: HashMap<i32, Ask> = HashMap::new();
        {
            let mut state = lock(&self.state);
            let state = &mut *state;
            // A broker is asked when nothing of its own is left: a request for one partition that waits at its end would
            // hold up the others'.
            let mut full: HashSet<i32> = HashSet::new();
            let mut candidates = Vec::new();
            for (partition, one) in &state.partitions {
                if one.paused {
                    continue;
                }
                let place = self.cluster.read_place(&partition.0, partition.1);
                if one.fetched.is_some() {
                    full.extend(place.map(|place| place.broker));
                } else if !one.busy
                    && let Some(position) = one.position
                {
                    match one.not_before.filter(|at| *at > now) {
                        Some(at) => due = Some(due.map_or(at, |due| due.min(at))),
                        None => candidates.push((one.served, partition.clone(), position, place)),
                    }
                }
            }
            candidates.sort_by_key(|(served, ..)| *served);
            for (_, partition, position, place) in candidates {
                let Some(one) = state.partitions.get_mut(&partition) else { continue };
                let Some(place) = place else {
                    one.not_before = Some(now + PAUSE);
                    due = Some(due.map_or(now + PAUSE, |due| due.min(now + PAUSE)));
                    self.look_up(&partition.0);
                    continue;
                };
                if full.contains(&place.broker) || (state.asked.contains(&place.broker) && !one.fresh) {
                    continue;
                }
                one.busy = true;
                one.fresh = false;
                let ask = asks.entry(place.broker);
                let ask = ask.or_insert_with(|| Ask { asked: Vec::new(), wanted: Vec::new(), at_end: true });
                ask.at_end &= one.at_end;
                ask.asked.push((partition.clone(), one.version));
                ask.wanted.push(Wanted {
                    topic: place.topic,
                    partition: partition.1,
                    leader_epoch: place.leader_epoch,
                    offset: position,
                    max_bytes: i32::try_from(self.config.fetch_bytes).unwrap_or(i32::MAX),
                });
            }
            state.asked.extend(asks.keys());
        }
        for (broker, ask) in asks {
            self.cluster.spawn(self.clone().ask(broker, ask));
        }
        due
    }

    /// Brings a topic into the snapshot, or its new leaders.
    fn look_up(&self, topic: &Arc<str>) {
        let (cluster, topic) = (self.cluster.clone(), topic.clone());
        self.cluster.spawn(async move {
            if cluster.topic(&topic).await.is_ok() {
                cluster.request_refresh();
            }
        });
    }

    /// Asks one broker; what it answers comes to the next poll.
    async fn ask(self: Arc<Self>, broker: i32, ask: Ask) {
        let isolation = self.config.isolation;
        let mut closing = self.closing.subscribe();
        let work = async {
            if !ask.at_end {
                let share = loop {
                    match self.account.share(self.config.fetch_bytes) {
                        Some(share) => break share,
                        None => sleep(PAUSE).await,
                    }
                };
                let mut promised = None;
                let max_bytes = || {
                    promised = Some(self.account.charge(share));
                    i32::try_from(share).unwrap_or(i32::MAX)
                };
                let result = self.cluster.fetch_there(broker, isolation, ask.wanted.clone(), max_bytes).await;
                let came = match &result {
                    Ok(parts) => parts.iter().any(|part| !matches!(part, Part::Fetched(f) if f.records.is_empty())),
                    Err(_) => true,
                };
                if came {
                    // Charged for what came before what was promised is given back.
                    let held = self.account.charge(bytes_of(&result));
                    drop(promised);
                    return (result, held);
                }
            }
            let mut wanted = ask.wanted;
            for one in &mut wanted {
                one.max_bytes = one.max_bytes.min(WAITING_BYTES);
            }
            let until = Instant::now() + WAIT;
            let result = self.cluster.fetch_coming(broker, isolation, wanted, WAITING_BYTES, until).await;
            let held = self.account.charge(bytes_of(&result));
            (result, held)
        };
        let (result, held) = tokio::select! {
            done = work => done,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        // Fails when the consumer is gone.
        let _ = self.arrived.send(Arrived { broker, asked: ask.asked, result, held });
    }

    /// Takes in what a broker answered.
    pub(crate) fn handle_arrived(self: &Arc<Self>, arrived: Arrived) {
        let Arrived { broker, asked, result, held } = arrived;
        let mut lost = Vec::new();
        {
            let mut state = lock(&self.state);
            let state = &mut *state;
            state.asked.remove(&broker);
            let parts = match result {
                Ok(parts) => parts,
                Err(error) => {
                    self.cluster.request_refresh();
                    asked.iter().map(|_| Part::Failed(error.clone())).collect()
                }
            };
            for ((partition, version), part) in asked.into_iter().zip(parts) {
                let Some(one) = state.partitions.get_mut(&partition).filter(|one| one.version == version) else {
                    continue;
                };
                one.busy = false;
                let position = one.position.unwrap_or(0);
                match part {
                    Part::Elsewhere => {}
                    Part::Fetched(Fetched { high_watermark, records, aborted, .. }) => {
                        one.high_watermark = high_watermark;
                        one.at_end = records.is_empty();
                        if !records.is_empty() {
                            let (isolation, max) = (self.config.isolation, self.config.max_inflated);
                            let cursor = Cursor::new(records, position, isolation, aborted, max);
                            one.fetched = Some((cursor, held.clone()));
                        }
                    }
                    Part::Failed(error) => match error.code() {
                        Some(ErrorCode::OFFSET_OUT_OF_RANGE) => {
                            if self.config.reset == OffsetReset::None {
                                one.not_before = Some(Instant::now() + LONG_PAUSE);
                                state.trouble(ConsumerError::OutOfRange(partition.0, partition.1, position));
                            } else {
                                tracing::warn!(
                                    topic = %partition.0, partition = partition.1, offset = position,
                                    "the offset is out of range; it is reset"
                                );
                                one.position = None;
                                one.busy = true;
                                lost.push((partition, version));
                            }
                        }
                        _ => {
                            let passes = error.is_retriable();
                            if error.invalidates_metadata() {
                                self.cluster.request_refresh();
                            }
                            one.not_before = Some(Instant::now() + if passes { PAUSE } else { LONG_PAUSE });
                            if !passes {
                                state.trouble(error.into());
                            }
                        }
                    },
                }
            }
        }
        if !lost.is_empty() {
            self.cluster.spawn(self.clone().reset(lost));
        }
    }
}

/// What an answer keeps in memory.
fn bytes_of(result: &Result<Vec<Part>, Error>) -> usize {
    let parts = result.iter().flatten();
    parts.map(|part| if let Part::Fetched(fetched) = part { fetched.records.len() } else { 0 }).sum()
}

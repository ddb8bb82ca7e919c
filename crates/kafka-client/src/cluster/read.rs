//! Reads from a partition's leader: records and offsets.

use super::{Cluster, Core, Retry, TopicError, admin::no_such_part};
use crate::{
    Broker, Error, ErrorCode, TopicInfo,
    messages::{
        FetchPartition, FetchRequest, FetchResponse, FetchTopic, Isolation, ListOffsetsRequest, ListedPartition,
        Request, WantedOffset,
    },
};
use bytes::Bytes;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The longest a broker is asked to hold a fetch; a longer wait is made of several. A caller that goes away blocks a
/// connection for no longer than this.
const LONGEST_POLL: Duration = Duration::from_secs(5);
/// The same while other readers wait for a connection to the same broker.
const SHORTEST_POLL: Duration = Duration::from_millis(250);

/// Which offset is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first one of the log.
    Earliest,
    /// The one that the next record will get.
    Latest,
    /// Of the first record at or after this time, in ms since the epoch.
    Timestamp(i64),
}

/// Where an offset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// `None`: no record at or after that time.
    pub offset: Option<i64>,
    /// Of the record found, in ms since the epoch; -1 where none was looked for or found.
    pub timestamp: i64,
    /// Of the record found; -1: unknown.
    pub leader_epoch: i32,
}

/// What was read of a partition.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The first offset not yet replicated to all in sync.
    pub high_watermark: i64,
    /// The first offset of an open transaction, or the high watermark.
    pub last_stable_offset: i64,
    /// The first offset of the log.
    pub log_start_offset: i64,
    /// Whole batches from the one that holds the offset asked for, so records before it may come too; the last batch
    /// may be cut. A slice of the response frame, which lives as long as this does.
    pub records: Bytes,
}

impl Cluster {
    /// An offset of one partition: see [`Cluster::list_offsets`].
    pub async fn list_offset(&self, topic: &TopicInfo, partition: i32, at: OffsetSpec) -> Result<ListedOffset, Error> {
        let wanted = [(topic, partition, at)];
        let mut listed = self.list_offsets(&wanted, Isolation::ReadUncommitted).await;
        listed.pop().unwrap_or(Err(Error::NoBroker("nothing was asked for")))
    }

    /// Offsets of many partitions, in their order, with one request to each leader. Leader moves are followed within the
    /// request timeout.
    ///
    /// # Errors
    ///
    /// Of each partition: `UNKNOWN_TOPIC_ID` as [`Error::Broker`] if the topic was created anew under another id.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn list_offsets(
        &self,
        wanted: &[(&TopicInfo, i32, OffsetSpec)],
        isolation: Isolation,
    ) -> Vec<Result<ListedOffset, Error>> {
        let core = &self.0.core;
        let mut results: Vec<_> = wanted.iter().map(|_| Err(Error::NoBroker("it was not asked"))).collect();
        let mut open: Vec<usize> = (0..wanted.len()).collect();
        let mut retry = core.retry();
        while !open.is_empty() {
            let round = core.list_offsets(wanted, &open, isolation).await;
            let mut failure = None;
            for (index, result) in round {
                match result {
                    Err(error) if retry.may_pass(&error) => {
                        failure = Some(error.clone());
                        results[index] = Err(error);
                    }
                    done => {
                        open.retain(|at| *at != index);
                        results[index] = done.map(|listed| ListedOffset {
                            offset: (listed.offset >= 0).then_some(listed.offset),
                            timestamp: listed.timestamp,
                            leader_epoch: listed.leader_epoch,
                        });
                    }
                }
            }
            if let Some(error) = failure
                && retry.after(error).await.is_err()
            {
                break;
            }
        }
        results
    }

    /// One partition read from its leader, read_uncommitted: at once if there is anything at `offset`, else after up to
    /// `max_wait`. Empty `records`: nothing came. `max_bytes` is exceeded by a single batch that is larger (KIP-74).
    /// Leader moves are followed inside, within the request timeout. At most eight reads at a time go to one broker;
    /// the others wait their turn.
    ///
    /// `max_bytes` is asked each time that a request is about to leave: a reader that has to account for what it may get
    /// need not hold anything while it waits for its turn.
    ///
    /// # Errors
    ///
    /// `OFFSET_OUT_OF_RANGE` as [`Error::Broker`] where the log has no such offset; `UNKNOWN_TOPIC_ID` if the topic was
    /// created anew under another id.
    ///
    /// # Cancel safety
    ///
    /// Safe. The broker may hold the read on for 5 s at most.
    pub async fn fetch(
        &self,
        topic: &TopicInfo,
        partition: i32,
        offset: i64,
        mut max_bytes: impl FnMut() -> i32,
        max_wait: Duration,
    ) -> Result<Fetched, Error> {
        let core = &self.0.core;
        let until = Instant::now() + max_wait;
        let mut retry = core.retry();
        loop {
            let result = core.fetch(topic, partition, offset, &mut max_bytes, until).await;
            let now = Instant::now();
            match result {
                Ok(fetched) if !fetched.records.is_empty() || now >= until => return Ok(fetched),
                // Nothing yet: poll on, with all the time for later retries.
                Ok(_) => retry = core.retry(),
                Err(error) => retry.elsewhere(error).await?,
            }
        }
    }
}

impl Retry {
    /// For reads: whether another leader or a later moment may not give this error.
    fn may_pass(&self, error: &Error) -> bool {
        match error.code() {
            // Another topic has its name by now.
            Some(ErrorCode::UNKNOWN_TOPIC_ID | ErrorCode::INCONSISTENT_TOPIC_ID) => self.failures == 0,
            // A new leader may not know yet that it is one; what nobody knows after some refreshes is not there.
            Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => self.failures <= 2,
            _ => error.is_retriable(),
        }
    }

    async fn elsewhere(&mut self, error: Error) -> Result<(), Error> {
        if !self.may_pass(&error) {
            return Err(error);
        }
        self.after(error).await
    }
}

/// Where to read a partition.
struct Place {
    topic: Arc<TopicInfo>,
    leader: Broker,
    leader_epoch: i32,
}

impl Core {
    /// The leader of a partition of this very topic, not of another one under its name.
    async fn place(&self, api: &'static str, topic: &TopicInfo, partition: i32) -> Result<Place, Error> {
        let known = self.topic(&topic.name).await.map_err(|error| match error {
            TopicError::Unknown => Error::broker(api, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, None),
            TopicError::Denied => Error::broker(api, ErrorCode::TOPIC_AUTHORIZATION_FAILED, None),
            TopicError::InvalidName => Error::InvalidRequest("no topic can have this name"),
            TopicError::Unavailable(error) => Error::clone(&error),
        })?;
        if known.id != topic.id && !topic.id.is_zero() {
            return Err(Error::broker(api, ErrorCode::UNKNOWN_TOPIC_ID, None));
        }
        let info = usize::try_from(partition)
            .ok()
            .and_then(|index| known.partitions.get(index))
            .ok_or_else(|| Error::broker(api, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, None))?;
        let leader_epoch = info.leader_epoch;
        let leader = info.leader.ok_or_else(|| Error::broker(api, ErrorCode::LEADER_NOT_AVAILABLE, None))?;
        Ok(Place { leader: self.broker(leader)?, leader_epoch, topic: known })
    }

    /// One request to each leader of the `open` ones of `wanted`: by their places in it, what came.
    async fn list_offsets(
        &self,
        wanted: &[(&TopicInfo, i32, OffsetSpec)],
        open: &[usize],
        isolation: Isolation,
    ) -> Vec<(usize, Result<ListedPartition, Error>)> {
        let api = ListOffsetsRequest::API.name;
        let mut results = Vec::with_capacity(open.len());
        let mut by_leader: HashMap<i32, (Broker, Vec<(usize, Place)>)> = HashMap::new();
        for &index in open {
            let (topic, partition, _) = wanted[index];
            match self.place(api, topic, partition).await {
                Ok(place) => {
                    let of_leader = by_leader.entry(place.leader.id).or_insert((place.leader.clone(), Vec::new()));
                    of_leader.1.push((index, place));
                }
                Err(error) => results.push((index, Err(error))),
            }
        }
        for (leader, places) in by_leader.into_values() {
            let mut topics: Vec<(Arc<str>, Vec<WantedOffset>)> = Vec::new();
            for (index, place) in &places {
                let (_, partition, at) = wanted[*index];
                let timestamp = match at {
                    OffsetSpec::Latest => -1,
                    OffsetSpec::Earliest => -2,
                    OffsetSpec::Timestamp(ms) => ms.max(0),
                };
                let wanted = WantedOffset { partition, leader_epoch: place.leader_epoch, timestamp };
                match topics.iter_mut().find(|(name, _)| *name == place.topic.name) {
                    Some((_, partitions)) => partitions.push(wanted),
                    None => topics.push((place.topic.name.clone(), vec![wanted])),
                }
            }
            let request = ListOffsetsRequest { isolation, topics, timeout: self.config().request_timeout };
            let answer = async { self.brokers.control(&leader).await?.call(&request, i16::MAX, Duration::ZERO).await };
            let answer = answer.await;
            for (index, place) in places {
                let (_, partition, _) = wanted[index];
                let result = answer.as_ref().map_err(Error::clone).and_then(|answer| {
                    let listed = answer
                        .topics
                        .iter()
                        .filter(|(name, _)| *name == place.topic.name)
                        .flat_map(|(_, partitions)| partitions)
                        .find(|listed| listed.index == partition)
                        .ok_or_else(|| no_such_part(api))?;
                    match listed.error.ok() {
                        Ok(()) => Ok(*listed),
                        Err(code) => Err(Error::broker(api, code, None)),
                    }
                });
                results.push((index, result));
            }
        }
        results
    }

    async fn fetch(
        &self,
        topic: &TopicInfo,
        partition: i32,
        offset: i64,
        max_bytes: &mut impl FnMut() -> i32,
        until: Instant,
    ) -> Result<Fetched, Error> {
        let api = FetchRequest::API.name;
        let place = self.place(api, topic, partition).await?;
        let lent = self.brokers.slow(&place.leader).await?;
        let longest = if self.brokers.slow_is_contended(place.leader.id) { SHORTEST_POLL } else { LONGEST_POLL };
        let max_wait = until.saturating_duration_since(Instant::now()).min(longest);
        let max_bytes = max_bytes();
        let request = FetchRequest {
            max_wait,
            max_bytes,
            isolation: Isolation::ReadUncommitted,
            topics: vec![FetchTopic {
                name: place.topic.name.clone(),
                id: place.topic.id,
                partitions: vec![FetchPartition {
                    index: partition,
                    leader_epoch: place.leader_epoch,
                    offset,
                    max_bytes,
                }],
            }],
            rack: self.config().rack.as_deref().unwrap_or_default().into(),
        };
        let by_id = !place.topic.id.is_zero();
        let max_version = if by_id { i16::MAX } else { FetchRequest::FIRST_BY_ID - 1 };
        // The connection is busy until the answer is there, whether or not the caller waits for it.
        let answer =
            self.brokers.detached(async move { lent.connection().call(&request, max_version, max_wait).await }).await?;
        if let Err(code) = answer.error.ok() {
            return Err(Error::broker(api, code, None));
        }
        self.fetched(&place.topic, partition, answer)
    }

    /// The partition's part of an answer.
    fn fetched(&self, topic: &TopicInfo, partition: i32, answer: FetchResponse) -> Result<Fetched, Error> {
        let api = FetchRequest::API.name;
        let endpoints = answer.endpoints;
        let fetched = answer
            .topics
            .into_iter()
            .filter(|t| t.name == topic.name || (!t.id.is_zero() && t.id == topic.id))
            .flat_map(|t| t.partitions)
            .find(|fetched| fetched.index == partition)
            .ok_or_else(|| no_such_part(api))?;
        if let Some((leader, epoch)) = fetched.current_leader
            && !fetched.error.is_ok()
        {
            self.apply_leader_hint((&topic.name, topic.id), partition, leader, epoch, &endpoints);
        }
        match fetched.error.ok() {
            Ok(()) => Ok(Fetched {
                high_watermark: fetched.high_watermark,
                last_stable_offset: fetched.last_stable_offset,
                log_start_offset: fetched.log_start_offset,
                records: fetched.records,
            }),
            Err(code) => Err(Error::broker(api, code, None)),
        }
    }
}

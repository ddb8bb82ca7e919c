//! Reads of single partitions: records and offsets.

use super::{
    Cluster, Core, Retry,
    admin::no_such_part,
    fetch::{Part, Wanted},
};
use crate::{
    Broker, Error, ErrorCode, TopicInfo,
    messages::{FetchRequest, Isolation, ListOffsetsRequest, ListedPartition, Request, WantedOffset},
};
use bytes::Bytes;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Which offset is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first one of the log.
    Earliest,
    /// The one that the next record will get; for readers of committed records, the first that is not stable.
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
    /// For readers of committed records: transactions that were aborted, by producer id and first offset.
    pub aborted: Vec<(i64, i64)>,
    /// Whole batches from the one that holds the offset asked for, so records before it may come too; the last batch
    /// may be cut. A slice of the response frame, which lives as long as this does.
    pub records: Bytes,
}

impl Cluster {
    /// An offset of one partition: see [`Cluster::list_offsets`].
    pub async fn list_offset(
        &self,
        topic: &TopicInfo,
        partition: i32,
        at: OffsetSpec,
        isolation: Isolation,
    ) -> Result<ListedOffset, Error> {
        let wanted = [(topic, partition, at)];
        let mut listed = self.list_offsets(&wanted, isolation).await;
        listed.pop().unwrap_or(Err(Error::NoBroker("nothing was asked for")))
    }

    /// Offsets of many partitions, in their order, with one request to each leader. Leader moves are followed within the
    /// request timeout. For readers of committed records a partition ends before its first open transaction (KIP-98).
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

    /// One partition read: at once if there is anything at `offset`, else after up to `max_wait`. Empty
    /// `records`: nothing came. `max_bytes` is exceeded by a single batch that is larger (KIP-74). Leader moves are followed
    /// inside, within the request timeout, and so is a leader that names a nearer replica (KIP-392). At most four reads of what is
    /// there go to one broker at a time; those that wait share requests.
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
        isolation: Isolation,
        mut max_bytes: impl FnMut() -> i32,
        max_wait: Duration,
    ) -> Result<Fetched, Error> {
        let core = &self.0.core;
        let until = Instant::now() + max_wait;
        let mut retry = core.retry();
        loop {
            let attempt = async {
                let topic = core.same_topic(FetchRequest::API.name, topic).await?;
                let place = core.read_place(&topic, partition)?;
                let (broker, leader_epoch) = (place.broker, place.leader_epoch);
                let wanted =
                    |max_bytes| vec![Wanted { topic: place.topic, partition, leader_epoch, offset, max_bytes }];
                if until <= Instant::now() {
                    core.fetch_there(broker, isolation, wanted(i32::MAX), &mut max_bytes).await
                } else {
                    let max_bytes = max_bytes();
                    core.fetch_coming(broker, isolation, wanted(max_bytes), max_bytes, until).await
                }
            };
            match attempt.await.map(|parts| parts.into_iter().next()) {
                Ok(Some(Part::Fetched(fetched))) => {
                    if !fetched.records.is_empty() || Instant::now() >= until {
                        return Ok(fetched);
                    }
                    // Nothing yet: poll on, with all the time for later retries.
                    retry = core.retry();
                }
                Ok(Some(Part::Elsewhere)) => {}
                Ok(Some(Part::Failed(error))) | Err(error) => retry.elsewhere(error).await?,
                Ok(None) => return Err(no_such_part(FetchRequest::API.name)),
            }
        }
    }

    /// A topic as it is known now, or why it cannot be had.
    pub(crate) async fn known_topic(&self, api: &'static str, name: &str) -> Result<Arc<TopicInfo>, Error> {
        self.0.core.known_topic(api, name).await
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
        let known = self.same_topic(api, topic).await?;
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
}

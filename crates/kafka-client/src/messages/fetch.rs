//! Fetch (key 1): record batches from a partition's leader.

use super::{Api, Request, Response, as_millis, millis, read_broker, read_leader, write_topic};
use crate::wire::{Decoded, Reader, SharedStr, Writer};
use crate::{Broker, ErrorCode, TopicId};
use bytes::Bytes;
use std::time::Duration;

/// What a reader sees of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Isolation {
    /// Every record.
    #[default]
    ReadUncommitted,
    /// Up to the last stable offset; the answer names the aborted transactions, whose records the reader leaves out.
    ReadCommitted,
}

impl Isolation {
    /// As the wire has it.
    pub(super) fn code(self) -> i8 {
        i8::from(self == Self::ReadCommitted)
    }
}

/// Reads partitions that one broker has, outside any fetch session (KIP-227: session id 0, epoch -1 opens none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// How long the broker may wait for the first byte.
    pub max_wait: Duration,
    /// Most bytes wanted of all partitions together. One batch comes whole even if it is larger (KIP-74).
    pub max_bytes: i32,
    /// What is seen of transactions.
    pub isolation: Isolation,
    /// What to read. No partition twice.
    pub topics: Vec<FetchTopic>,
    /// Where the client runs (KIP-392); empty: unknown.
    pub rack: SharedStr,
}

/// One topic's part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTopic {
    /// The topic's name, written before version 13.
    pub name: SharedStr,
    /// The topic's id, written from version 13 on.
    pub id: TopicId,
    /// What to read of it.
    pub partitions: Vec<FetchPartition>,
}

/// One partition's part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPartition {
    /// The partition.
    pub index: i32,
    /// The leader epoch this client knows; -1: any (KIP-320).
    pub leader_epoch: i32,
    /// The first offset wanted. The batch that holds it comes whole.
    pub offset: i64,
    /// Most bytes wanted of this partition.
    pub max_bytes: i32,
}

impl FetchRequest {
    /// The first version that names topics by id.
    pub const FIRST_BY_ID: i16 = 13;
}

impl Request for FetchRequest {
    // 10 reads zstd, 11 knows racks, 16 tells the new leader's address (KIP-951).
    const API: Api = Api { key: 1, name: "Fetch", min: 10, max: 16, first_flexible: 12 };
    type Response = FetchResponse;

    fn max_answer_bytes(configured: usize) -> usize {
        configured
    }

    fn encode(&self, version: i16, out: &mut Writer) {
        if version <= 14 {
            out.i32(-1); // replica_id: a consumer
        }
        out.i32(as_millis(self.max_wait));
        out.i32(1); // min_bytes: answer as soon as there is anything
        out.i32(self.max_bytes);
        out.i8(self.isolation.code());
        out.i32(0); // session_id
        out.i32(-1); // session_epoch
        out.array(self.topics.len());
        for topic in &self.topics {
            write_topic(out, version >= Self::FIRST_BY_ID, &topic.name, topic.id);
            out.array(topic.partitions.len());
            for partition in &topic.partitions {
                out.i32(partition.index);
                out.i32(partition.leader_epoch);
                out.i64(partition.offset);
                if version >= 12 {
                    out.i32(-1); // last_fetched_epoch: for followers
                }
                out.i64(-1); // log_start_offset: for followers
                out.i32(partition.max_bytes);
                out.no_tags();
            }
            out.no_tags();
        }
        out.array(0); // forgotten_topics_data
        if version >= 11 {
            out.string(&self.rack);
        }
        out.no_tags();
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// An error of the whole request.
    pub error: ErrorCode,
    /// The topics of the request.
    pub topics: Vec<FetchedTopic>,
    /// Addresses of the new leaders that `current_leader` names (KIP-951).
    pub endpoints: Vec<Broker>,
}

/// One topic's part of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedTopic {
    /// Empty where the version names topics by id.
    pub name: SharedStr,
    /// Zero where the version names topics by name.
    pub id: TopicId,
    /// The partitions of the request.
    pub partitions: Vec<FetchedPartition>,
}

/// One partition's part of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedPartition {
    /// The partition's number.
    pub index: i32,
    /// Why there are no records.
    pub error: ErrorCode,
    /// The first offset not yet replicated to all in sync.
    pub high_watermark: i64,
    /// The first offset of an open transaction, or the high watermark.
    pub last_stable_offset: i64,
    /// The first offset of the log.
    pub log_start_offset: i64,
    /// Transactions that were aborted: producer id and first offset, in no particular order. Told to readers of committed
    /// records.
    pub aborted: Vec<(i64, i64)>,
    /// A replica nearer to this client's rack, to be read instead (KIP-392); then there are no records.
    pub preferred_replica: Option<i32>,
    /// Leader and leader epoch where they have moved.
    pub current_leader: Option<(i32, i32)>,
    /// Whole batches, the last one perhaps cut; a slice of the frame.
    pub records: Bytes,
}

impl Response for FetchResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let error = ErrorCode(from.i16()?);
        let _session_id = from.i32()?;
        let topics = from.array(3, |from| read_topic(version, from))?;
        let mut endpoints = Vec::new();
        from.tagged(|tag, field| {
            if tag == 0 && version >= 16 {
                endpoints = field.array(11, read_broker)?;
                field.finish()?;
            }
            Ok(())
        })?;
        Ok(Self { throttle, error, topics, endpoints })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

fn read_topic(version: i16, from: &mut Reader) -> Decoded<FetchedTopic> {
    let by_id = version >= FetchRequest::FIRST_BY_ID;
    let topic = FetchedTopic {
        name: if by_id { "".into() } else { from.string()? },
        id: if by_id { TopicId(from.uuid()?) } else { TopicId::ZERO },
        partitions: from.array(32, |from| read_partition(version, from))?,
    };
    from.skip_tagged()?;
    Ok(topic)
}

fn read_partition(version: i16, from: &mut Reader) -> Decoded<FetchedPartition> {
    let index = from.i32()?;
    let error = ErrorCode(from.i16()?);
    let high_watermark = from.i64()?;
    let last_stable_offset = from.i64()?;
    let log_start_offset = from.i64()?;
    let aborted = from.nullable_array(16, |from| {
        let aborted = (from.i64()?, from.i64()?);
        from.skip_tagged()?;
        Ok(aborted)
    })?;
    let preferred_replica = if version >= 11 { from.i32()? } else { -1 };
    let records = from.nullable_bytes()?.unwrap_or_default();
    let mut current_leader = None;
    from.tagged(|tag, field| {
        if tag == 1 {
            let leader = read_leader(field)?;
            field.finish()?;
            current_leader = (leader.0 >= 0).then_some(leader);
        }
        Ok(())
    })?;
    Ok(FetchedPartition {
        index,
        error,
        high_watermark,
        last_stable_offset,
        log_start_offset,
        aborted: aborted.unwrap_or_default(),
        preferred_replica: (preferred_replica >= 0).then_some(preferred_replica),
        current_leader,
        records,
    })
}

//! Produce (key 0): record batches to their partitions' leader.

use super::{Api, Request, Response, as_millis, millis, read_broker, read_leader, write_topic};
use crate::wire::{Decoded, Reader, SharedStr, Writer};
use crate::{Broker, ErrorCode, TopicId};
use bytes::Bytes;
use std::time::Duration;

/// Record batches for partitions that one broker leads. acks=all always, no transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRequest {
    /// How long the broker may wait for its replicas.
    pub timeout: Duration,
    /// The topics; each at most once.
    pub topics: Vec<ProduceTopic>,
}

/// One topic's part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTopic {
    /// The name, written before version 13.
    pub name: SharedStr,
    /// The id, written from version 13 on. With [`TopicId::ZERO`] the whole request goes out at version 12 at most.
    pub id: TopicId,
    /// The partitions; each at most once.
    pub partitions: Vec<ProducePartition>,
}

/// One partition's part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducePartition {
    /// The partition's number.
    pub index: i32,
    /// One stamped batch, written as it is by a vectored write.
    pub records: Bytes,
}

impl ProduceRequest {
    /// The first version that names topics by id.
    pub const FIRST_BY_ID: i16 = 13;
}

impl Request for ProduceRequest {
    // 7 takes zstd, 8 names the records that failed, 10 tells the new leader (KIP-951).
    const API: Api = Api { key: 0, name: "Produce", min: 7, max: 13, first_flexible: 9 };
    type Response = ProduceResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        out.nullable_string(None); // transactional_id
        out.i16(-1); // acks: all in-sync replicas
        out.i32(as_millis(self.timeout));
        out.array(self.topics.len());
        for topic in &self.topics {
            write_topic(out, version >= Self::FIRST_BY_ID, &topic.name, topic.id);
            out.array(topic.partitions.len());
            for partition in &topic.partitions {
                out.i32(partition.index);
                out.bytes_by_reference(&partition.records);
                out.no_tags();
            }
            out.no_tags();
        }
        out.no_tags();
    }
}

/// What became of each batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceResponse {
    /// For how long the broker asks not to be sent anything (KIP-219). The connection sees to it.
    pub throttle: Duration,
    /// The topics of the request.
    pub topics: Vec<ProduceTopicResponse>,
    /// Addresses of the new leaders that `current_leader` names (KIP-951).
    pub endpoints: Vec<Broker>,
}

/// One topic's part of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTopicResponse {
    /// Empty where the version names topics by id.
    pub name: SharedStr,
    /// Zero where the version names topics by name.
    pub id: TopicId,
    /// The partitions of the request.
    pub partitions: Vec<ProducePartitionResponse>,
}

/// One partition's part of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducePartitionResponse {
    /// The partition's number.
    pub index: i32,
    /// What became of the batch.
    pub error: ErrorCode,
    /// The offset of the batch's first record; -1 with an error, and for a duplicate too old to be remembered.
    pub base_offset: i64,
    /// When the broker appended it, in ms since the epoch; -1: the topic keeps the producer's time.
    pub log_append_time: i64,
    /// The first offset of the log; -1 where unknown.
    pub log_start_offset: i64,
    /// Records that failed validation, by index in the batch, each with the broker's words (KIP-467).
    pub record_errors: Vec<(i32, Option<String>)>,
    /// The broker's words on the error.
    pub message: Option<String>,
    /// Leader and leader epoch where they have moved (KIP-951).
    pub current_leader: Option<(i32, i32)>,
}

impl Response for ProduceResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let topics = from.array(3, |from| read_topic(version, from))?;
        let throttle = millis(from.i32()?);
        let mut endpoints = Vec::new();
        from.tagged(|tag, field| {
            if tag == 0 {
                endpoints = field.array(11, read_broker)?;
                field.finish()?;
            }
            Ok(())
        })?;
        Ok(Self { throttle, topics, endpoints })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

fn read_topic(version: i16, from: &mut Reader) -> Decoded<ProduceTopicResponse> {
    let by_id = version >= ProduceRequest::FIRST_BY_ID;
    let topic = ProduceTopicResponse {
        name: if by_id { "".into() } else { from.string()? },
        id: if by_id { TopicId(from.uuid()?) } else { TopicId::ZERO },
        partitions: from.array(30, |from| read_partition(version, from))?,
    };
    from.skip_tagged()?;
    Ok(topic)
}

fn read_partition(version: i16, from: &mut Reader) -> Decoded<ProducePartitionResponse> {
    let mut partition = ProducePartitionResponse {
        index: from.i32()?,
        error: ErrorCode(from.i16()?),
        base_offset: from.i64()?,
        log_append_time: from.i64()?,
        log_start_offset: from.i64()?,
        record_errors: Vec::new(),
        message: None,
        current_leader: None,
    };
    if version >= 8 {
        partition.record_errors = from.array(5, |from| {
            let error = (from.i32()?, from.nullable_string()?);
            from.skip_tagged()?;
            Ok(error)
        })?;
        partition.message = from.nullable_string()?;
    }
    from.tagged(|tag, field| {
        if tag == 0 {
            let leader = read_leader(field)?;
            field.finish()?;
            partition.current_leader = (leader.0 >= 0).then_some(leader);
        }
        Ok(())
    })?;
    Ok(partition)
}

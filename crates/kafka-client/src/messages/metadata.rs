//! Metadata (key 3): brokers, controller, topics and their leaders.

use super::{Api, Request, Response, millis, read_broker};
use crate::wire::{Decoded, Reader, SharedStr, Writer};
use crate::{Broker, ErrorCode, TopicId};
use std::time::Duration;

/// Asks for topics by name. Never creates one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataRequest {
    /// `None`: all topics. Empty: brokers only.
    pub topics: Option<Vec<SharedStr>>,
}

impl Request for MetadataRequest {
    // 7 brings leader epochs, 10 topic ids.
    const API: Api = Api { key: 3, name: "Metadata", min: 7, max: 13, first_flexible: 9 };
    type Response = MetadataResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        match &self.topics {
            None => out.null_array(),
            Some(topics) => {
                out.array(topics.len());
                for name in topics {
                    if version >= 10 {
                        out.uuid(&TopicId::ZERO.0);
                    }
                    out.nullable_string(Some(name));
                    out.no_tags();
                }
            }
        }
        out.bool(false); // allow_auto_topic_creation
        if (8..=10).contains(&version) {
            out.bool(false); // include_cluster_authorized_operations
        }
        if version >= 8 {
            out.bool(false); // include_topic_authorized_operations
        }
        out.no_tags();
    }
}

/// The cluster as one broker sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// The live brokers.
    pub brokers: Vec<Broker>,
    /// The cluster's id.
    pub cluster_id: Option<SharedStr>,
    /// The controller, or any broker that passes requests on to it (KRaft); -1: none known.
    pub controller: i32,
    /// The topics asked for.
    pub topics: Vec<TopicMetadata>,
    /// Version 13 and later: `REBOOTSTRAP_REQUIRED` (KIP-1102).
    pub error: ErrorCode,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Why the rest is missing.
    pub error: ErrorCode,
    /// Null only where a topic was asked for by id.
    pub name: Option<SharedStr>,
    /// Zero before version 10.
    pub id: TopicId,
    /// One of Kafka's own.
    pub internal: bool,
    /// In the broker's order, not by index.
    pub partitions: Vec<PartitionMetadata>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// `LEADER_NOT_AVAILABLE` while there is none.
    pub error: ErrorCode,
    /// The partition's number.
    pub index: i32,
    /// -1: none.
    pub leader: i32,
    /// -1: unknown.
    pub leader_epoch: i32,
    /// All replicas.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub in_sync: Vec<i32>,
}

impl Response for MetadataResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let brokers = from.array(10, read_broker)?;
        let cluster_id = from.nullable_string()?;
        let controller = from.i32()?;
        let topics = from.array(9, |from| read_topic(version, from))?;
        if (8..=10).contains(&version) {
            let _authorized_operations = from.i32()?;
        }
        let error = ErrorCode(if version >= 13 { from.i16()? } else { 0 });
        from.skip_tagged()?;
        Ok(Self { throttle, brokers, cluster_id, controller, topics, error })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

fn read_topic(version: i16, from: &mut Reader) -> Decoded<TopicMetadata> {
    let error = ErrorCode(from.i16()?);
    let name = from.nullable_string()?;
    let id = if version >= 10 { TopicId(from.uuid()?) } else { TopicId::ZERO };
    let internal = from.bool()?;
    let partitions = from.array(17, |from| {
        let partition = PartitionMetadata {
            error: ErrorCode(from.i16()?),
            index: from.i32()?,
            leader: from.i32()?,
            leader_epoch: from.i32()?,
            replicas: from.array(4, Reader::i32)?,
            in_sync: from.array(4, Reader::i32)?,
        };
        from.skip_array(4, |from| from.i32().map(drop))?; // offline_replicas
        from.skip_tagged()?;
        Ok(partition)
    })?;
    if version >= 8 {
        let _authorized_operations = from.i32()?;
    }
    from.skip_tagged()?;
    Ok(TopicMetadata { error, name, id, internal, partitions })
}

//! ListOffsets (key 2): the offsets at a time, at the beginning or at the end.

use super::{Api, Isolation, Request, Response, millis};
use crate::ErrorCode;
use crate::wire::{Decoded, Reader, SharedStr, Writer};
use std::time::Duration;

/// Asks the leader of some partitions for an offset of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOffsetsRequest {
    /// Where the end is: the high watermark, or the last stable offset.
    pub isolation: Isolation,
    /// What is wanted, by topic.
    pub topics: Vec<(SharedStr, Vec<WantedOffset>)>,
    /// How long the broker may take to look into tiered storage (version 10).
    pub timeout: Duration,
}

/// One partition's part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedOffset {
    /// The partition.
    pub partition: i32,
    /// The leader epoch this client knows; -1: any (KIP-320).
    pub leader_epoch: i32,
    /// Milliseconds since the epoch; -1: the end; -2: the beginning.
    pub timestamp: i64,
}

impl Request for ListOffsetsRequest {
    const API: Api = Api { key: 2, name: "ListOffsets", min: 5, max: 10, first_flexible: 6 };
    type Response = ListOffsetsResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        out.i32(-1); // replica_id: a consumer
        out.i8(self.isolation.code());
        out.array(self.topics.len());
        for (topic, partitions) in &self.topics {
            out.string(topic);
            out.array(partitions.len());
            for wanted in partitions {
                out.i32(wanted.partition);
                out.i32(wanted.leader_epoch);
                out.i64(wanted.timestamp);
                out.no_tags();
            }
            out.no_tags();
        }
        if version >= 10 {
            out.i32(super::as_millis(self.timeout));
        }
        out.no_tags();
    }
}

/// The offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOffsetsResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// By topic name.
    pub topics: Vec<(SharedStr, Vec<ListedPartition>)>,
}

/// One partition's part of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedPartition {
    /// The partition's number.
    pub index: i32,
    /// Why there is no offset.
    pub error: ErrorCode,
    /// The time of the record found; -1 where none was looked for or found.
    pub timestamp: i64,
    /// The offset; -1: no record at or after that time.
    pub offset: i64,
    /// The epoch of the record found; -1: unknown.
    pub leader_epoch: i32,
}

impl Response for ListOffsetsResponse {
    fn decode(_version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let topics = from.array(3, |from| {
            let name = from.string()?;
            let partitions = from.array(26, |from| {
                let partition = ListedPartition {
                    index: from.i32()?,
                    error: ErrorCode(from.i16()?),
                    timestamp: from.i64()?,
                    offset: from.i64()?,
                    leader_epoch: from.i32()?,
                };
                from.skip_tagged()?;
                Ok(partition)
            })?;
            from.skip_tagged()?;
            Ok((name, partitions))
        })?;
        from.skip_tagged()?;
        Ok(Self { throttle, topics })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

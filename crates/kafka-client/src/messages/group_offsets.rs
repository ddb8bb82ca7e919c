//! OffsetCommit (key 8) and OffsetFetch (key 9): how far a group has read.

use super::{Api, Request, Response, millis};
use crate::ErrorCode;
use crate::wire::{Decoded, Reader, SharedStr, Writer};
use std::time::Duration;

/// Commits a group's offsets, as a member of a generation or as nobody in particular.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommitRequest {
    /// The group.
    pub group: SharedStr,
    /// The member's generation; -1: no member, which only a group without members takes.
    pub generation: i32,
    /// The member; empty: none.
    pub member: SharedStr,
    /// The id of a static member, written from version 7 on.
    pub instance: Option<SharedStr>,
    /// By topic.
    pub topics: Vec<(SharedStr, Vec<CommittedOffset>)>,
}

/// One partition's committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The partition.
    pub partition: i32,
    /// The next offset to read; -1: none is committed.
    pub offset: i64,
    /// The leader epoch of the last record read; -1: unknown.
    pub leader_epoch: i32,
    /// The committer's note.
    pub metadata: Option<SharedStr>,
}

impl Request for OffsetCommitRequest {
    const API: Api = Api { key: 8, name: "OffsetCommit", min: 6, max: 9, first_flexible: 8 };
    type Response = OffsetCommitResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        out.string(&self.group);
        out.i32(self.generation);
        out.string(&self.member);
        if version >= 7 {
            out.nullable_string(self.instance.as_deref());
        }
        out.array(self.topics.len());
        for (topic, partitions) in &self.topics {
            out.string(topic);
            out.array(partitions.len());
            for committed in partitions {
                out.i32(committed.partition);
                out.i64(committed.offset);
                out.i32(committed.leader_epoch);
                out.nullable_string(committed.metadata.as_deref());
                out.no_tags();
            }
            out.no_tags();
        }
        out.no_tags();
    }
}

/// Which partitions' offsets were taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommitResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// By topic: partitions and what became of each.
    pub topics: Vec<(SharedStr, Vec<(i32, ErrorCode)>)>,
}

impl Response for OffsetCommitResponse {
    fn decode(_version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let topics = from.array(3, |from| {
            let name = from.string()?;
            let partitions = from.array(6, |from| {
                let partition = (from.i32()?, ErrorCode(from.i16()?));
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

/// Asks for one group's committed offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetFetchRequest {
    /// The group.
    pub group: SharedStr,
    /// Which partitions, by topic; `None`: all that have an offset.
    pub topics: Option<Vec<(SharedStr, Vec<i32>)>>,
    /// Refuse, retriably, what an open transaction may still change; written from version 7 on (KIP-447).
    pub require_stable: bool,
}

impl OffsetFetchRequest {
    /// The first version that asks for several groups (KIP-709).
    const FIRST_OF_MANY: i16 = 8;
}

impl Request for OffsetFetchRequest {
    const API: Api = Api { key: 9, name: "OffsetFetch", min: 5, max: 9, first_flexible: 6 };
    type Response = OffsetFetchResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        let of_many = version >= Self::FIRST_OF_MANY;
        if of_many {
            out.array(1);
        }
        out.string(&self.group);
        if version >= 9 {
            out.nullable_string(None); // member_id and member_epoch: of the new protocol (KIP-848)
            out.i32(-1);
        }
        match &self.topics {
            None => out.null_array(),
            Some(topics) => {
                out.array(topics.len());
                for (topic, partitions) in topics {
                    out.string(topic);
                    out.array(partitions.len());
                    for partition in partitions {
                        out.i32(*partition);
                    }
                    out.no_tags();
                }
            }
        }
        if of_many {
            out.no_tags();
        }
        if version >= 7 {
            out.bool(self.require_stable);
        }
        out.no_tags();
    }
}

/// A topic's partitions: each one's offset, or why there is none.
pub type TopicOffsets = (SharedStr, Vec<(CommittedOffset, ErrorCode)>);

/// The committed offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetFetchResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// An error of the whole group.
    pub error: ErrorCode,
    /// By topic.
    pub topics: Vec<TopicOffsets>,
}

impl Response for OffsetFetchResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let mut response = Self { throttle, error: ErrorCode::NONE, topics: Vec::new() };
        if version < OffsetFetchRequest::FIRST_OF_MANY {
            response.topics = read_topics(from)?;
            response.error = ErrorCode(from.i16()?);
        } else {
            // One was asked for.
            from.skip_array(5, |from| {
                from.skip_string()?;
                response.topics = read_topics(from)?;
                response.error = ErrorCode(from.i16()?);
                from.skip_tagged()
            })?;
        }
        from.skip_tagged()?;
        Ok(response)
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

fn read_topics(from: &mut Reader) -> Decoded<Vec<TopicOffsets>> {
    from.array(3, |from| {
        let name = from.string()?;
        let partitions = from.array(19, |from| {
            let committed = CommittedOffset {
                partition: from.i32()?,
                offset: from.i64()?,
                leader_epoch: from.i32()?,
                metadata: from.nullable_string()?,
            };
            let error = ErrorCode(from.i16()?);
            from.skip_tagged()?;
            Ok((committed, error))
        })?;
        from.skip_tagged()?;
        Ok((name, partitions))
    })
}

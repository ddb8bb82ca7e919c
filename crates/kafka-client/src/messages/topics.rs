//! CreateTopics (key 19), DeleteTopics (key 20) and CreatePartitions (key 37), one topic at a time;
//! ListPartitionReassignments (key 46).

use super::{Api, Request, Response, as_millis, millis};
use crate::wire::{Decoded, Reader, SharedStr, Writer};
use crate::{ErrorCode, TopicId};
use std::time::Duration;

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// The name.
    pub name: String,
    /// -1: the broker's default (2.4 and later).
    pub partitions: i32,
    /// -1: the broker's default (2.4 and later).
    pub replication_factor: i16,
    /// The replicas of each partition, the leader first. Where there are any, both numbers are -1.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// Settings that differ from the broker's defaults.
    pub configs: Vec<(String, Option<String>)>,
    /// Nothing is created, only looked at.
    pub validate_only: bool,
}

impl NewTopic {
    /// A topic with the brokers' choice of replicas and no settings of its own.
    pub fn new(name: impl Into<String>, partitions: i32, replication_factor: i16) -> Self {
        Self {
            name: name.into(),
            partitions,
            replication_factor,
            assignments: Vec::new(),
            configs: Vec::new(),
            validate_only: false,
        }
    }
}

/// Creates one topic; goes to the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopicsRequest {
    /// The topic.
    pub topic: NewTopic,
    /// How long the controller may wait until the topic is there.
    pub timeout: Duration,
}

impl Request for CreateTopicsRequest {
    const API: Api = Api { key: 19, name: "CreateTopics", min: 3, max: 7, first_flexible: 5 };
    type Response = CreateTopicsResponse;

    fn encode(&self, _version: i16, out: &mut Writer) {
        let topic = &self.topic;
        out.array(1);
        out.string(&topic.name);
        out.i32(topic.partitions);
        out.i16(topic.replication_factor);
        out.array(topic.assignments.len()); // none: the broker's choice
        for (partition, brokers) in &topic.assignments {
            out.i32(*partition);
            write_ids(out, brokers);
            out.no_tags();
        }
        out.array(topic.configs.len());
        for (name, value) in &topic.configs {
            out.string(name);
            out.nullable_string(value.as_deref());
            out.no_tags();
        }
        out.no_tags();
        out.i32(as_millis(self.timeout));
        out.bool(topic.validate_only);
        out.no_tags();
    }
}

/// What became of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicResult {
    /// The topic.
    pub name: Option<SharedStr>,
    /// Its id; zero where the version has none.
    pub id: TopicId,
    /// What became of it.
    pub error: ErrorCode,
    /// The broker's words on it.
    pub message: Option<SharedStr>,
}

/// The answer to [`CreateTopicsRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopicsResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// The topics of the request.
    pub topics: Vec<TopicResult>,
}

impl Response for CreateTopicsResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let topics = from.array(5, |from| {
            let name = Some(from.string()?);
            let id = if version >= 7 { TopicId(from.uuid()?) } else { TopicId::ZERO };
            let error = ErrorCode(from.i16()?);
            let message = from.nullable_string()?;
            if version >= 5 {
                // What the broker made of the request: nobody asks.
                let _partitions = from.i32()?;
                let _replication_factor = from.i16()?;
                from.skip_array(6, |from| {
                    from.skip_string()?; // name
                    from.skip_string()?; // value
                    from.bool()?; // read_only
                    from.i8()?; // config_source
                    from.bool()?; // is_sensitive
                    from.skip_tagged()
                })?;
            }
            from.skip_tagged()?;
            Ok(TopicResult { name, id, error, message })
        })?;
        from.skip_tagged()?;
        Ok(Self { throttle, topics })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

/// Deletes one topic by name; goes to the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteTopicsRequest {
    /// The name.
    pub name: String,
    /// How long the controller may wait until the topic is gone.
    pub timeout: Duration,
}

impl Request for DeleteTopicsRequest {
    const API: Api = Api { key: 20, name: "DeleteTopics", min: 3, max: 6, first_flexible: 4 };
    type Response = DeleteTopicsResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        out.array(1);
        out.string(&self.name);
        if version >= 6 {
            out.uuid(&TopicId::ZERO.0);
            out.no_tags();
        }
        out.i32(as_millis(self.timeout));
        out.no_tags();
    }
}

/// The answer to [`DeleteTopicsRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteTopicsResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// The topics of the request.
    pub topics: Vec<TopicResult>,
}

impl Response for DeleteTopicsResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let topics = from.array(4, |from| {
            let result = TopicResult {
                name: from.nullable_string()?,
                id: if version >= 6 { TopicId(from.uuid()?) } else { TopicId::ZERO },
                error: ErrorCode(from.i16()?),
                message: if version >= 5 { from.nullable_string()? } else { None },
            };
            from.skip_tagged()?;
            Ok(result)
        })?;
        from.skip_tagged()?;
        Ok(Self { throttle, topics })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

/// Adds partitions to one topic; goes to the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatePartitionsRequest {
    /// The topic.
    pub name: String,
    /// How many it shall have.
    pub count: i32,
    /// How long the controller may wait until they are there.
    pub timeout: Duration,
}

impl Request for CreatePartitionsRequest {
    const API: Api = Api { key: 37, name: "CreatePartitions", min: 1, max: 3, first_flexible: 2 };
    type Response = CreatePartitionsResponse;

    fn encode(&self, _version: i16, out: &mut Writer) {
        out.array(1);
        out.string(&self.name);
        out.i32(self.count);
        out.null_array(); // assignments: the broker's choice
        out.no_tags();
        out.i32(as_millis(self.timeout));
        out.bool(false); // validate_only
        out.no_tags();
    }
}

/// The answer to [`CreatePartitionsRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatePartitionsResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// The topics of the request.
    pub topics: Vec<TopicResult>,
}

impl Response for CreatePartitionsResponse {
    fn decode(_version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let topics = from.array(4, |from| {
            let name = Some(from.string()?);
            let error = ErrorCode(from.i16()?);
            let message = from.nullable_string()?;
            from.skip_tagged()?;
            Ok(TopicResult { name, id: TopicId::ZERO, error, message })
        })?;
        from.skip_tagged()?;
        Ok(Self { throttle, topics })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

/// Asks the controller which partitions are being moved (KIP-455).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPartitionReassignmentsRequest {
    /// Of this topic: these partitions. `None`: all there are.
    pub of: Option<(String, Vec<i32>)>,
    /// How long the controller may take.
    pub timeout: Duration,
}

impl Request for ListPartitionReassignmentsRequest {
    const API: Api = Api { key: 46, name: "ListPartitionReassignments", min: 0, max: 0, first_flexible: 0 };
    type Response = ListPartitionReassignmentsResponse;

    fn encode(&self, _version: i16, out: &mut Writer) {
        out.i32(as_millis(self.timeout));
        match &self.of {
            None => out.null_array(),
            Some((topic, partitions)) => {
                out.array(1);
                out.string(topic);
                write_ids(out, partitions);
                out.no_tags();
            }
        }
        out.no_tags();
    }
}

/// The answer to [`ListPartitionReassignmentsRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPartitionReassignmentsResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// Why there is no list.
    pub error: ErrorCode,
    /// The broker's words on it.
    pub message: Option<SharedStr>,
    /// Topics with partitions that are being moved.
    pub topics: Vec<(SharedStr, Vec<Reassignment>)>,
}

/// A partition that is being moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassignment {
    /// The partition.
    pub partition: i32,
    /// All its replicas, also those that come and go.
    pub replicas: Vec<i32>,
    /// Those that come.
    pub adding: Vec<i32>,
    /// Those that go.
    pub removing: Vec<i32>,
}

impl Response for ListPartitionReassignmentsResponse {
    fn decode(_version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let error = ErrorCode(from.i16()?);
        let message = from.nullable_string()?;
        let topics = from.array(3, |from| {
            let name = from.string()?;
            let partitions = from.array(8, |from| {
                let reassignment = Reassignment {
                    partition: from.i32()?,
                    replicas: from.array(4, Reader::i32)?,
                    adding: from.array(4, Reader::i32)?,
                    removing: from.array(4, Reader::i32)?,
                };
                from.skip_tagged()?;
                Ok(reassignment)
            })?;
            from.skip_tagged()?;
            Ok((name, partitions))
        })?;
        from.skip_tagged()?;
        Ok(Self { throttle, error, message, topics })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

fn write_ids(out: &mut Writer, ids: &[i32]) {
    out.array(ids.len());
    for id in ids {
        out.i32(*id);
    }
}

//! CreateTopics (key 19) and DeleteTopics (key 20), one topic at a time.

use super::{Api, Request, Response, as_millis, millis};
use crate::wire::{Decoded, Reader, SharedStr, Writer};
use crate::{ErrorCode, TopicId};
use std::time::Duration;

/// Creates one topic; goes to the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopicsRequest {
    /// The name.
    pub name: String,
    /// -1: the broker's default (2.4 and later).
    pub partitions: i32,
    /// -1: the broker's default (2.4 and later).
    pub replication_factor: i16,
    /// Settings that differ from the broker's defaults.
    pub configs: Vec<(String, Option<String>)>,
    /// How long the controller may wait until the topic is there.
    pub timeout: Duration,
}

impl Request for CreateTopicsRequest {
    const API: Api = Api { key: 19, name: "CreateTopics", min: 3, max: 7, first_flexible: 5 };
    type Response = CreateTopicsResponse;

    fn encode(&self, _version: i16, out: &mut Writer) {
        out.array(1);
        out.string(&self.name);
        out.i32(self.partitions);
        out.i16(self.replication_factor);
        out.array(0); // assignments: the broker's choice
        out.array(self.configs.len());
        for (name, value) in &self.configs {
            out.string(name);
            out.nullable_string(value.as_deref());
            out.no_tags();
        }
        out.no_tags();
        out.i32(as_millis(self.timeout));
        out.bool(false); // validate_only
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

//! The messages this client speaks: requests that encode themselves, responses that decode themselves.
//!
//! One file per API or pair of APIs, in the words of Kafka's published schemas. Only the versions worth speaking are
//! here: the oldest is what Kafka 2.2.1 speaks best, the newest what 4.1 does. Fields that nobody reads are skipped,
//! not kept.
//!
//! A response decoder takes any bytes and returns a message or a [`DecodeError`]; it does not panic, and what it
//! allocates is bounded by the length of its input times a small constant (see [`wire`](crate::wire)). The module is
//! public so that a fuzzer can reach it.

mod acls;
mod api_versions;
mod configs;
mod describe_groups;
mod fetch;
mod find_coordinator;
mod group_membership;
mod group_offsets;
mod init_producer_id;
mod list_offsets;
mod metadata;
mod produce;
mod sasl;
mod topics;

pub use acls::{
    Acl, AclFilter, AclOperation, AclPatternType, AclPermission, AclResourceType, CreateAclsRequest,
    CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DeletedAcls, DescribeAclsRequest, DescribeAclsResponse,
};
pub use api_versions::{ApiRange, ApiVersionsRequest, ApiVersionsResponse};
pub use configs::{
    ConfigChange, ConfigEntry, ConfigResource, ConfigSource, ConfigSynonym, DescribeConfigsRequest,
    DescribeConfigsResponse, DescribedConfigs, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
pub use describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedMember, ListGroupsRequest,
    ListGroupsResponse, ListedGroup,
};
pub use fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchedPartition, FetchedTopic, Isolation};
pub use find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
pub use group_membership::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, JoinedMember, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
pub use group_offsets::{
    CommittedOffset, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicOffsets,
};
pub use init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
pub use list_offsets::{ListOffsetsRequest, ListOffsetsResponse, ListedPartition, WantedOffset};
pub use metadata::{MetadataRequest, MetadataResponse, PartitionMetadata, TopicMetadata};
pub use produce::{
    ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopic, ProduceTopicResponse,
};
pub use sasl::{SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse};
pub use topics::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, NewTopic,
    Reassignment, TopicResult,
};

use crate::wire::{DecodeError, Decoded, Reader, TooLong, Writer};
use crate::{Broker, TopicId};
use bytes::Bytes;
use std::time::Duration;

/// An API and the versions of it that this client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    /// The number in the request header.
    pub key: i16,
    /// Kafka's name for it.
    pub name: &'static str,
    /// The oldest version spoken here.
    pub min: i16,
    /// The newest version spoken here.
    pub max: i16,
    /// The first version in the compact encoding (KIP-482).
    pub first_flexible: i16,
}

/// What can be asked of a broker.
pub trait Request {
    /// The API and its versions.
    const API: Api;
    /// What the broker answers.
    type Response: Response;
    /// The longest answer worth reading, of at most `configured` bytes. Only fetches bring the cluster's data; anything
    /// else is small, and a small bound keeps a stray length from being believed.
    fn max_answer_bytes(configured: usize) -> usize {
        configured.min(16 << 20)
    }
    /// Writes the body. `version` is within [`Api::min`] and [`Api::max`].
    fn encode(&self, version: i16, out: &mut Writer);
}

/// What a broker answers.
pub trait Response: Sized {
    /// Reads the body, up to its end. `version` is the one the request was written in.
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self>;
    /// For how long the broker asks not to be sent anything on this connection (KIP-219).
    fn throttle(&self) -> Duration {
        Duration::ZERO
    }
}

/// The whole frame of a request, its length first, in the pieces to write one after the other.
pub fn encode_frame<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<Vec<Bytes>, TooLong> {
    let mut out = Writer::new(false);
    out.frame_length_here();
    out.i16(R::API.key);
    out.i16(version);
    out.i32(correlation_id);
    // Never compact, so that a broker can read a header of a version it does not know (KIP-511).
    out.string(client_id);
    out.set_flexible(version >= R::API.first_flexible);
    out.no_tags();
    request.encode(version, &mut out);
    out.finish_frame()
}

/// The answer to a request of type `R` at `version`, out of what follows the correlation id in its frame.
pub fn decode_answer<R: Request>(version: i16, answer: Bytes) -> Decoded<R::Response> {
    let flexible = version >= R::API.first_flexible;
    let mut from = Reader::new(answer, flexible);
    // The header of an ApiVersions answer is the oldest one at every version (KIP-511).
    if R::API.key != ApiVersionsRequest::API.key {
        from.skip_tagged()?;
    }
    let response = R::Response::decode(version, &mut from)?;
    from.finish()?;
    Ok(response)
}

/// Milliseconds of a wire field, negative ones as none.
pub(crate) fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// A duration as a wire field.
pub(crate) fn as_millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// A broker's address: id, host, port, rack.
fn read_broker(from: &mut Reader) -> Decoded<Broker> {
    let id = from.i32()?;
    let host = from.string()?;
    let port = u16::try_from(from.i32()?).map_err(|_| DecodeError::Inconsistent("a port that is no port"))?;
    let rack = from.nullable_string()?;
    from.skip_tagged()?;
    Ok(Broker { id, host, port, rack })
}

/// KIP-951: a partition's new leader and its epoch, in a tagged field.
fn read_leader(from: &mut Reader) -> Decoded<(i32, i32)> {
    let leader = (from.i32()?, from.i32()?);
    from.skip_tagged()?;
    Ok(leader)
}

/// A topic as requests name it: by name up to a version, by id from then on.
fn write_topic(out: &mut Writer, by_id: bool, name: &str, id: TopicId) {
    if by_id {
        out.uuid(&id.0);
    } else {
        out.string(name);
    }
}

#[cfg(test)]
mod tests;

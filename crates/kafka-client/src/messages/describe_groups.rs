//! ListGroups (key 16) and DescribeGroups (key 15): the consumer groups that there are.

use super::{Api, Request, Response, millis};
use crate::ErrorCode;
use crate::wire::{Decoded, Reader, SharedStr, Writer};
use bytes::Bytes;
use std::time::Duration;

/// Asks a broker for the groups that it coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListGroupsRequest;

impl Request for ListGroupsRequest {
    const API: Api = Api { key: 16, name: "ListGroups", min: 1, max: 5, first_flexible: 3 };
    type Response = ListGroupsResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        if version >= 4 {
            out.array(0); // states_filter: all
        }
        if version >= 5 {
            out.array(0); // types_filter: all
        }
        out.no_tags();
    }
}

/// The groups of one broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListGroupsResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// Why there is no list.
    pub error: ErrorCode,
    /// The groups.
    pub groups: Vec<ListedGroup>,
}

/// One group of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its id.
    pub id: SharedStr,
    /// `consumer`; empty for one that has only committed offsets; others for what is no consumer.
    pub protocol_type: SharedStr,
    /// `classic`, `consumer` (KIP-848) and so on; from version 5 on.
    pub kind: Option<SharedStr>,
}

impl Response for ListGroupsResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let error = ErrorCode(from.i16()?);
        let groups = from.array(2, |from| {
            let (id, protocol_type) = (from.string()?, from.string()?);
            if version >= 4 {
                from.skip_string()?; // group_state
            }
            let kind = if version >= 5 { Some(from.string()?) } else { None };
            from.skip_tagged()?;
            Ok(ListedGroup { id, protocol_type, kind })
        })?;
        from.skip_tagged()?;
        Ok(Self { throttle, error, groups })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

/// Asks a group's coordinator for its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeGroupsRequest {
    /// The groups, all of the same coordinator.
    pub groups: Vec<String>,
}

impl Request for DescribeGroupsRequest {
    const API: Api = Api { key: 15, name: "DescribeGroups", min: 1, max: 6, first_flexible: 5 };
    type Response = DescribeGroupsResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        out.array(self.groups.len());
        for group in &self.groups {
            out.string(group);
        }
        if version >= 3 {
            out.bool(false); // include_authorized_operations
        }
        out.no_tags();
    }
}

/// The groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeGroupsResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// The groups of the request.
    pub groups: Vec<DescribedGroup>,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedGroup {
    /// Why the rest is empty.
    pub error: ErrorCode,
    /// The broker's words on it.
    pub message: Option<SharedStr>,
    /// Its id.
    pub id: SharedStr,
    /// `Stable`, `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Dead`.
    pub state: SharedStr,
    /// `consumer`; empty for one that has only committed offsets.
    pub protocol_type: SharedStr,
    /// The assignor.
    pub protocol: SharedStr,
    /// Who is in it.
    pub members: Vec<DescribedMember>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    /// The id that the coordinator gave it.
    pub id: SharedStr,
    /// The id that it gave itself (KIP-345).
    pub instance_id: Option<SharedStr>,
    /// What it calls itself.
    pub client_id: SharedStr,
    /// Where it is, as the coordinator sees it.
    pub host: SharedStr,
    /// What it is to read, in the consumer protocol's encoding.
    pub assignment: Bytes,
}

impl DescribedMember {
    /// What it is to read: partitions by topic. Nothing between two generations.
    ///
    /// # Errors
    ///
    /// An assignment that is none of the consumer protocol's: it comes from the group's leader, not from a broker.
    pub fn assigned(&self) -> Decoded<Vec<(SharedStr, Vec<i32>)>> {
        if self.assignment.is_empty() {
            return Ok(Vec::new());
        }
        // Whatever a later version adds, it adds at the end.
        let mut from = Reader::new(self.assignment.clone(), false);
        let _version = from.i16()?;
        from.array(6, |from| Ok((from.string()?, from.array(4, Reader::i32)?)))
    }
}

impl Response for DescribeGroupsResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let groups = from.array(7, |from| {
            let error = ErrorCode(from.i16()?);
            let message = if version >= 6 { from.nullable_string()? } else { None };
            let (id, state) = (from.string()?, from.string()?);
            let (protocol_type, protocol) = (from.string()?, from.string()?);
            let members = from.array(5, |from| {
                let id = from.string()?;
                let instance_id = if version >= 4 { from.nullable_string()? } else { None };
                let (client_id, host) = (from.string()?, from.string()?);
                from.nullable_bytes()?; // member_metadata
                let assignment = from.nullable_bytes()?.unwrap_or_default();
                from.skip_tagged()?;
                Ok(DescribedMember { id, instance_id, client_id, host, assignment })
            })?;
            if version >= 3 {
                let _authorized_operations = from.i32()?;
            }
            from.skip_tagged()?;
            Ok(DescribedGroup { error, message, id, state, protocol_type, protocol, members })
        })?;
        from.skip_tagged()?;
        Ok(Self { throttle, groups })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

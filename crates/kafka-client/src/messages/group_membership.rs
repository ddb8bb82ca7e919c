//! JoinGroup (key 11), SyncGroup (14), Heartbeat (12), LeaveGroup (13): the classic group protocol.

use super::{Api, Request, Response, as_millis, millis};
use crate::ErrorCode;
use crate::wire::{Decoded, Reader, SharedStr, Writer};
use bytes::Bytes;
use std::time::Duration;

/// What kind of group consumers are.
const PROTOCOL_TYPE: &str = "consumer";

/// Joins a group, or joins it again. The broker answers when every member has, or the rebalance timeout is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroupRequest {
    /// The group.
    pub group: SharedStr,
    /// A member that the coordinator does not hear of for so long is out.
    pub session_timeout: Duration,
    /// How long the coordinator waits for members to join again.
    pub rebalance_timeout: Duration,
    /// The id that the coordinator gave; empty at first (KIP-394).
    pub member: SharedStr,
    /// The id of a static member (KIP-345), written from version 5 on.
    pub instance: Option<SharedStr>,
    /// Assignors in the order of preference, and the subscription in each one's format.
    pub protocols: Vec<(&'static str, Bytes)>,
    /// For the broker's log, written from version 8 on (KIP-800).
    pub reason: Option<SharedStr>,
}

impl Request for JoinGroupRequest {
    // 4 demands a member id first (KIP-394).
    const API: Api = Api { key: 11, name: "JoinGroup", min: 4, max: 9, first_flexible: 6 };
    type Response = JoinGroupResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        out.string(&self.group);
        out.i32(as_millis(self.session_timeout));
        out.i32(as_millis(self.rebalance_timeout));
        out.string(&self.member);
        if version >= 5 {
            out.nullable_string(self.instance.as_deref());
        }
        out.string(PROTOCOL_TYPE);
        out.array(self.protocols.len());
        for (name, subscription) in &self.protocols {
            out.string(name);
            out.bytes_by_reference(subscription);
            out.no_tags();
        }
        if version >= 8 {
            out.nullable_string(self.reason.as_deref());
        }
        out.no_tags();
    }
}

/// The group's new generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroupResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// Why the member is not in.
    pub error: ErrorCode,
    /// The generation.
    pub generation: i32,
    /// The assignor that the coordinator chose.
    pub protocol: Option<SharedStr>,
    /// The member that assigns.
    pub leader: SharedStr,
    /// The leader need not assign: the assignment stands (KIP-814).
    pub skip_assignment: bool,
    /// The id of the member that asked; also with MEMBER_ID_REQUIRED.
    pub member: SharedStr,
    /// All members, told to the leader alone.
    pub members: Vec<JoinedMember>,
}

/// A member as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// The id.
    pub id: SharedStr,
    /// The id of a static member.
    pub instance: Option<SharedStr>,
    /// What it wants, in the assignor's format.
    pub subscription: Bytes,
}

impl Response for JoinGroupResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let error = ErrorCode(from.i16()?);
        let generation = from.i32()?;
        if version >= 7 {
            let _protocol_type: Option<SharedStr> = from.nullable_string()?;
        }
        let protocol = from.nullable_string()?;
        let leader = from.string()?;
        let skip_assignment = version >= 9 && from.bool()?;
        let member = from.string()?;
        let members = from.array(3, |from| {
            let id = from.string()?;
            let instance = if version >= 5 { from.nullable_string()? } else { None };
            let subscription = from.nullable_bytes()?.unwrap_or_default();
            from.skip_tagged()?;
            Ok(JoinedMember { id, instance, subscription })
        })?;
        from.skip_tagged()?;
        Ok(Self { throttle, error, generation, protocol, leader, skip_assignment, member, members })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

/// Asks for the member's assignment; the leader brings everybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncGroupRequest {
    /// The group.
    pub group: SharedStr,
    /// The generation that was joined.
    pub generation: i32,
    /// The member.
    pub member: SharedStr,
    /// The id of a static member, written from version 3 on.
    pub instance: Option<SharedStr>,
    /// The assignor, written from version 5 on.
    pub protocol: SharedStr,
    /// By member, from the leader; empty from the others.
    pub assignments: Vec<(SharedStr, Bytes)>,
}

impl Request for SyncGroupRequest {
    const API: Api = Api { key: 14, name: "SyncGroup", min: 2, max: 5, first_flexible: 4 };
    type Response = SyncGroupResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        out.string(&self.group);
        out.i32(self.generation);
        out.string(&self.member);
        if version >= 3 {
            out.nullable_string(self.instance.as_deref());
        }
        if version >= 5 {
            out.nullable_string(Some(PROTOCOL_TYPE));
            out.nullable_string(Some(&self.protocol));
        }
        out.array(self.assignments.len());
        for (member, assignment) in &self.assignments {
            out.string(member);
            out.bytes_by_reference(assignment);
            out.no_tags();
        }
        out.no_tags();
    }
}

/// What the member is to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncGroupResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// Why there is no assignment.
    pub error: ErrorCode,
    /// The assignment, in the assignor's format; empty: nothing.
    pub assignment: Bytes,
}

impl Response for SyncGroupResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let error = ErrorCode(from.i16()?);
        if version >= 5 {
            let _protocol_type: Option<SharedStr> = from.nullable_string()?;
            let _protocol_name: Option<SharedStr> = from.nullable_string()?;
        }
        let assignment = from.nullable_bytes()?.unwrap_or_default();
        from.skip_tagged()?;
        Ok(Self { throttle, error, assignment })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

/// Says that the member is alive; the answer says whether a rebalance is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatRequest {
    /// The group.
    pub group: SharedStr,
    /// The generation that was joined.
    pub generation: i32,
    /// The member.
    pub member: SharedStr,
    /// The id of a static member, written from version 3 on.
    pub instance: Option<SharedStr>,
}

impl Request for HeartbeatRequest {
    const API: Api = Api { key: 12, name: "Heartbeat", min: 2, max: 4, first_flexible: 4 };
    type Response = HeartbeatResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        out.string(&self.group);
        out.i32(self.generation);
        out.string(&self.member);
        if version >= 3 {
            out.nullable_string(self.instance.as_deref());
        }
        out.no_tags();
    }
}

/// Whether the member is still in its generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// REBALANCE_IN_PROGRESS: join again. Others: not in.
    pub error: ErrorCode,
}

impl Response for HeartbeatResponse {
    fn decode(_version: i16, from: &mut Reader) -> Decoded<Self> {
        let (throttle, error) = (millis(from.i32()?), ErrorCode(from.i16()?));
        from.skip_tagged()?;
        Ok(Self { throttle, error })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

/// Leaves a group at once, so that the others need not wait for the session's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveGroupRequest {
    /// The group.
    pub group: SharedStr,
    /// The member.
    pub member: SharedStr,
    /// The id of a static member, written from version 3 on.
    pub instance: Option<SharedStr>,
    /// For the broker's log, written from version 5 on (KIP-800).
    pub reason: Option<SharedStr>,
}

impl LeaveGroupRequest {
    /// The first version that names several members (KIP-345).
    const FIRST_OF_MANY: i16 = 3;
}

impl Request for LeaveGroupRequest {
    const API: Api = Api { key: 13, name: "LeaveGroup", min: 2, max: 5, first_flexible: 4 };
    type Response = LeaveGroupResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        out.string(&self.group);
        if version < Self::FIRST_OF_MANY {
            out.string(&self.member);
        } else {
            out.array(1);
            out.string(&self.member);
            out.nullable_string(self.instance.as_deref());
            if version >= 5 {
                out.nullable_string(self.reason.as_deref());
            }
            out.no_tags();
        }
        out.no_tags();
    }
}

/// Whether the member is out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveGroupResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// The first error of the request or its member.
    pub error: ErrorCode,
}

impl Response for LeaveGroupResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let (throttle, mut error) = (millis(from.i32()?), ErrorCode(from.i16()?));
        if version >= LeaveGroupRequest::FIRST_OF_MANY {
            from.skip_array(4, |from| {
                from.skip_string()?;
                from.skip_string()?;
                let of_member = ErrorCode(from.i16()?);
                if error.is_ok() {
                    error = of_member;
                }
                from.skip_tagged()
            })?;
        }
        from.skip_tagged()?;
        Ok(Self { throttle, error })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

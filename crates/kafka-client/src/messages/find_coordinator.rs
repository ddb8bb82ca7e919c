//! FindCoordinator (key 10): the broker that keeps a group.

use super::{Api, Request, Response, millis};
use crate::wire::{DecodeError, Decoded, Reader, SharedStr, Writer};
use crate::{Broker, ErrorCode};
use std::time::Duration;

/// Asks for the coordinator of one consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindCoordinatorRequest {
    /// The group.
    pub group: SharedStr,
}

impl FindCoordinatorRequest {
    /// The first version that asks for several keys at once (KIP-699).
    const FIRST_OF_MANY: i16 = 4;
    /// Key type: a group, not a transaction.
    const GROUP: i8 = 0;
}

impl Request for FindCoordinatorRequest {
    const API: Api = Api { key: 10, name: "FindCoordinator", min: 1, max: 4, first_flexible: 3 };
    type Response = FindCoordinatorResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        if version < Self::FIRST_OF_MANY {
            out.string(&self.group);
            out.i8(Self::GROUP);
        } else {
            out.i8(Self::GROUP);
            out.array(1);
            out.string(&self.group);
        }
        out.no_tags();
    }
}

/// The coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindCoordinatorResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// Why there is none.
    pub error: ErrorCode,
    /// The same in words.
    pub message: Option<SharedStr>,
    /// Where it is; `None` with an error.
    pub coordinator: Option<Broker>,
}

impl Response for FindCoordinatorResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let mut response = Self { throttle, error: ErrorCode::NONE, message: None, coordinator: None };
        if version < FindCoordinatorRequest::FIRST_OF_MANY {
            response.error = ErrorCode(from.i16()?);
            response.message = from.nullable_string()?;
            let (id, host, port) = (from.i32()?, from.string()?, from.i32()?);
            response.coordinator = broker(response.error, id, host, port)?;
        } else {
            let mut found = from.array(14, |from| {
                from.skip_string()?;
                let (id, host, port) = (from.i32()?, from.string()?, from.i32()?);
                let error = ErrorCode(from.i16()?);
                let message = from.nullable_string()?;
                from.skip_tagged()?;
                Ok((error, message, broker(error, id, host, port)?))
            })?;
            if found.len() != 1 {
                return Err(DecodeError::Inconsistent("one coordinator was asked for"));
            }
            if let Some((error, message, coordinator)) = found.pop() {
                response = Self { throttle, error, message, coordinator };
            }
        }
        from.skip_tagged()?;
        Ok(response)
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

/// With an error the address is filled with what is none.
fn broker(error: ErrorCode, id: i32, host: SharedStr, port: i32) -> Decoded<Option<Broker>> {
    if !error.is_ok() {
        return Ok(None);
    }
    let port = u16::try_from(port).map_err(|_| DecodeError::Inconsistent("a port that is no port"))?;
    Ok(Some(Broker { id, host, port, rack: None }))
}

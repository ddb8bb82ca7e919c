//! InitProducerId (key 22): an identity for idempotent producing (KIP-98).

use super::{Api, Request, Response, millis};
use crate::wire::{Decoded, Reader, Writer};
use crate::{ErrorCode, ProducerIdentity};
use std::time::Duration;

/// Asks for a new identity, without a transactional id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitProducerIdRequest;

impl Request for InitProducerIdRequest {
    const API: Api = Api { key: 22, name: "InitProducerId", min: 1, max: 5, first_flexible: 2 };
    type Response = InitProducerIdResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        out.nullable_string(None); // transactional_id: none; an empty one is refused
        out.i32(i32::MAX); // transaction_timeout_ms: no meaning without one
        if version >= 3 {
            out.i64(-1); // producer_id: a new one
            out.i16(-1);
        }
        out.no_tags();
    }
}

/// The identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitProducerIdResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// Whether there is one.
    pub error: ErrorCode,
    /// The identity, if there was no error.
    pub identity: ProducerIdentity,
}

impl Response for InitProducerIdResponse {
    fn decode(_version: i16, from: &mut Reader) -> Decoded<Self> {
        let response = Self {
            throttle: millis(from.i32()?),
            error: ErrorCode(from.i16()?),
            identity: ProducerIdentity { id: from.i64()?, epoch: from.i16()? },
        };
        from.skip_tagged()?;
        Ok(response)
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

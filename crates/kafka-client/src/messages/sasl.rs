//! SaslHandshake (key 17) and SaslAuthenticate (key 36): a login, and its repetition (KIP-43, KIP-152, KIP-368).

use super::{Api, Request, Response};
use crate::ErrorCode;
use crate::wire::{Decoded, Reader, SharedStr, Writer};
use bytes::Bytes;
use std::{fmt, time::Duration};

/// The longest answer worth reading: a mechanism's messages are a few hundred bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Which mechanism follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaslHandshakeRequest {
    /// As IANA registered it, or as Kafka's users call it.
    pub mechanism: &'static str,
}

impl Request for SaslHandshakeRequest {
    // Version 0 announces messages without Kafka's framing: neither errors nor session lifetimes.
    const API: Api = Api { key: 17, name: "SaslHandshake", min: 1, max: 1, first_flexible: i16::MAX };
    type Response = SaslHandshakeResponse;

    fn max_answer_bytes(configured: usize) -> usize {
        configured.min(MAX_ANSWER_BYTES)
    }

    fn encode(&self, _version: i16, out: &mut Writer) {
        out.string(self.mechanism);
    }
}

/// Whether the broker knows the mechanism.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaslHandshakeResponse {
    /// `UNSUPPORTED_SASL_MECHANISM`, or `ILLEGAL_SASL_STATE` where no login is expected.
    pub error: ErrorCode,
    /// What the listener has enabled.
    pub mechanisms: Vec<SharedStr>,
}

impl Response for SaslHandshakeResponse {
    fn decode(_version: i16, from: &mut Reader) -> Decoded<Self> {
        Ok(Self { error: ErrorCode(from.i16()?), mechanisms: from.array(2, Reader::string)? })
    }
}

/// One message of the mechanism. Never shown: it may hold the password.
#[derive(Clone, PartialEq, Eq)]
pub struct SaslAuthenticateRequest {
    /// The mechanism's own bytes.
    pub message: Bytes,
}

impl fmt::Debug for SaslAuthenticateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslAuthenticateRequest").finish_non_exhaustive()
    }
}

impl Request for SaslAuthenticateRequest {
    const API: Api = Api { key: 36, name: "SaslAuthenticate", min: 0, max: 2, first_flexible: 2 };
    type Response = SaslAuthenticateResponse;

    fn max_answer_bytes(configured: usize) -> usize {
        configured.min(MAX_ANSWER_BYTES)
    }

    fn encode(&self, _version: i16, out: &mut Writer) {
        // By reference: the owner of the bytes wipes them, and there is no copy to forget.
        out.bytes_by_reference(&self.message);
        out.no_tags();
    }
}

/// The mechanism's answer.
#[derive(Clone, PartialEq, Eq)]
pub struct SaslAuthenticateResponse {
    /// `SASL_AUTHENTICATION_FAILED` for wrong credentials.
    pub error: ErrorCode,
    /// The broker's words, where it sent any.
    pub message: Option<SharedStr>,
    /// The mechanism's own bytes.
    pub challenge: Bytes,
    /// How long this login is good for, once the exchange is over; `None`: for as long as the connection (KIP-368).
    pub session_lifetime: Option<Duration>,
}

impl fmt::Debug for SaslAuthenticateResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaslAuthenticateResponse")
            .field("error", &self.error)
            .field("message", &self.message)
            .field("session_lifetime", &self.session_lifetime)
            .finish_non_exhaustive()
    }
}

impl Response for SaslAuthenticateResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let error = ErrorCode(from.i16()?);
        let message = from.nullable_string()?;
        let challenge = from.nullable_bytes()?.unwrap_or_default();
        let lifetime_ms = if version >= 1 { from.i64()? } else { 0 };
        from.skip_tagged()?;
        let session_lifetime = u64::try_from(lifetime_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        Ok(Self { error, message, challenge, session_lifetime })
    }
}

//! Why a call did not bring an answer.

use crate::{ErrorCode, wire::DecodeError};
use std::{io, sync::Arc, time::Duration};

/// Why a call did not bring an answer. Retry, refresh, reject or give up: see the predicates.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be opened: name resolution, TCP, TLS or the time limit. Nothing was sent.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// `host:port` as it was asked for.
        address: Arc<str>,
        /// The cause of the last address tried.
        source: Arc<io::Error>,
    },
    /// The broker does not let us in, or there are no credentials to show to it. No request was sent. May pass: passwords
    /// and tokens are asked for anew at each try.
    #[error("cannot log in by {mechanism}: {reason}")]
    Authentication {
        /// The SASL mechanism.
        mechanism: &'static str,
        /// The cause, without secrets.
        reason: Arc<str>,
    },
    /// The connection ended before the answer: closed by the peer, reset, or closed here because of another call's
    /// fault.
    #[error("disconnected: {reason}")]
    Disconnected {
        /// Whether any byte of this request may have reached the broker.
        maybe_sent: bool,
        /// What ended the connection.
        reason: Arc<str>,
    },
    /// No answer in time. On a connection's oldest request this also closes the connection.
    #[error("no answer within {after:?}")]
    TimedOut {
        /// Whether any byte of this request may have reached the broker.
        maybe_sent: bool,
        /// The limit that passed.
        after: Duration,
    },
    /// The broker's bytes are not an answer to this request. The connection is closed.
    #[error("malformed {api} answer: {source}")]
    Malformed {
        /// The name of the API.
        api: &'static str,
        /// What is wrong with the bytes.
        source: DecodeError,
    },
    /// Broker and client have no version of this API in common. Nothing was sent.
    #[error("the broker does not speak {api} in a version this client speaks")]
    Unsupported {
        /// The name of the API.
        api: &'static str,
    },
    /// A field of the request does not fit the protocol, or names what this cluster cannot have. Nothing was sent.
    #[error("invalid request: {0}")]
    InvalidRequest(&'static str),
    /// The broker answered with an error code.
    #[error("{api}: {code}{}", .message.as_deref().map(|m| format!(": {m}")).unwrap_or_default())]
    Broker {
        /// The name of the API.
        api: &'static str,
        /// The code.
        code: ErrorCode,
        /// The broker's words, where it sent any.
        message: Option<Arc<str>>,
    },
    /// No broker could be asked: none is known, or the one that is needed is not in the metadata. Nothing was sent.
    #[error("no broker available: {0}")]
    NoBroker(&'static str),
    /// The runtime that the client lives on has ended.
    #[error("the client has shut down")]
    ShutDown,
}

impl Error {
    /// False only if no byte of the request can have reached the broker.
    pub fn maybe_sent(&self) -> bool {
        match self {
            Self::Disconnected { maybe_sent, .. } | Self::TimedOut { maybe_sent, .. } => *maybe_sent,
            Self::Malformed { .. } | Self::Broker { .. } | Self::ShutDown => true,
            Self::Connect { .. }
            | Self::Authentication { .. }
            | Self::Unsupported { .. }
            | Self::InvalidRequest(_)
            | Self::NoBroker(_) => false,
        }
    }

    /// The broker's answer, where it was one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Authentication { .. }
            | Self::Disconnected { .. }
            | Self::TimedOut { .. }
            | Self::NoBroker(_) => true,
            Self::Broker { code, .. } => code.is_retriable(),
            Self::Malformed { .. } | Self::Unsupported { .. } | Self::InvalidRequest(_) | Self::ShutDown => false,
        }
    }

    /// Whether metadata should be refreshed before a retry: the broker is gone or is not the right one.
    pub fn invalidates_metadata(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::TimedOut { .. }
            | Self::Malformed { .. }
            | Self::NoBroker(_) => true,
            Self::Broker { code, .. } => code.invalidates_metadata(),
            Self::Authentication { .. } | Self::Unsupported { .. } | Self::InvalidRequest(_) | Self::ShutDown => false,
        }
    }

    pub(crate) fn broker(api: &'static str, code: ErrorCode, message: Option<Arc<str>>) -> Self {
        Self::Broker { api, code, message }
    }
}

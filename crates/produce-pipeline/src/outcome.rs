//! What became of records, in the words that a caller can pass on.

use kafka_client::ErrorCode;
use std::sync::Arc;

/// The three things that can be true of a record once nobody works on it any more (promise P2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The broker acknowledged it with acks=all.
    Written,
    /// It is certain that no broker holds it on behalf of this request, and none ever will.
    NotWritten,
    /// It was on the wire and nobody answered for it: it may be in the log, once.
    Unknown,
}

/// Why records are not [`Outcome::Written`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The caller refused the line before it became a record; `code` is in the caller's own numbering.
    Refused {
        /// The caller's code, passed through.
        code: u32,
        /// The caller's words.
        message: Arc<str>,
    },
    /// No leader was known or reachable until the deadline.
    NoBroker,
    /// NOT_ENOUGH_REPLICAS until the deadline.
    NotEnoughReplicas,
    /// The deadline passed while the record was on the wire or possibly written.
    Deadline,
    /// The topic was deleted, or deleted and created again under another id.
    TopicGone,
    /// The broker refuses a batch of this record alone as too large.
    TooLarge,
    /// The broker refused the record (KIP-467) or its whole batch.
    Rejected {
        /// The broker's code.
        code: ErrorCode,
        /// The broker's words, if it gave any.
        message: Option<Arc<str>>,
    },
    /// The broker denied access.
    Denied {
        /// TOPIC_AUTHORIZATION_FAILED or its kin.
        code: ErrorCode,
    },
    /// The process stopped before the record was resolved.
    Stopped,
    /// No memory became free for the record until the deadline.
    NoMemory,
}

/// Consecutive lines with the same fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// First line, in the request's own counting.
    pub first_line: u64,
    /// Last line, included.
    pub last_line: u64,
    /// [`Outcome::NotWritten`] or [`Outcome::Unknown`].
    pub outcome: Outcome,
    /// Why.
    pub cause: Cause,
}

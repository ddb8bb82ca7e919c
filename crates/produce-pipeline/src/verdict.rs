//! What a broker's answer to one batch means for that batch.
//!
//! | answer | verdict |
//! |---|---|
//! | none, DUPLICATE_SEQUENCE_NUMBER | written |
//! | retriable; moves of the leader | again, with the same bytes |
//! | REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS_AFTER_APPEND, KAFKA_STORAGE_ERROR, NETWORK_EXCEPTION, UNKNOWN_SERVER_ERROR | again, and it may be in the log already |
//! | OUT_OF_ORDER_SEQUENCE_NUMBER, UNKNOWN_PRODUCER_ID, INVALID_PRODUCER_EPOCH, PRODUCER_FENCED | this sequence has no future |
//! | MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE | split |
//! | record errors (KIP-467) | without the named records |
//! | anything else | refused |
//!
//! Any error may come after the append: a leader that has appended waits for its replicas, and if it loses the leadership
//! meanwhile it answers NOT_LEADER_OR_FOLLOWER, or UNKNOWN_TOPIC_OR_PARTITION where it loses the replica, though its
//! successor may hold the batch. Kafka's answer tells the two apart: it carries the batch's offset if and only if the
//! batch was appended. See [`appended`].

use crate::outcome::Cause;
use kafka_client::{ErrorCode, ProducePartitionResponse};
use std::sync::Arc;

/// See the module's table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Written {
        /// `None` where the broker knows the batch, but no longer its place.
        base_offset: Option<i64>,
        log_append_time: Option<i64>,
    },
    Again {
        /// The broker may have appended it all the same.
        maybe_written: bool,
        /// The metadata that led there is in doubt.
        refresh: bool,
    },
    SequenceLost,
    TooLarge,
    /// Indices within the batch, in their order, with the broker's words.
    WithoutRecords(Vec<(u32, Cause)>),
    Refused(Cause),
}

/// Whether the broker says that it appended the batch, whatever it says about what came of it.
pub(crate) fn appended(response: &ProducePartitionResponse) -> bool {
    response.base_offset >= 0
}

impl Verdict {
    pub(crate) fn of(response: &ProducePartitionResponse) -> Self {
        let code = response.error;
        let rejected = |message: &Option<String>| Cause::Rejected {
            code,
            message: message.as_deref().or(response.message.as_deref()).map(Arc::from),
        };
        match code {
            ErrorCode::NONE => Self::Written {
                base_offset: Some(response.base_offset).filter(|&offset| offset >= 0),
                log_append_time: Some(response.log_append_time).filter(|&time| time >= 0),
            },
            ErrorCode::DUPLICATE_SEQUENCE_NUMBER => Self::Written { base_offset: None, log_append_time: None },
            ErrorCode::REQUEST_TIMED_OUT
            | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
            | ErrorCode::KAFKA_STORAGE_ERROR
            | ErrorCode::NETWORK_EXCEPTION
            | ErrorCode::UNKNOWN_SERVER_ERROR => {
                Self::Again { maybe_written: true, refresh: code.invalidates_metadata() }
            }
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
            | ErrorCode::UNKNOWN_PRODUCER_ID
            | ErrorCode::INVALID_PRODUCER_EPOCH
            | ErrorCode::PRODUCER_FENCED => Self::SequenceLost,
            ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => Self::TooLarge,
            ErrorCode::TOPIC_AUTHORIZATION_FAILED
            | ErrorCode::CLUSTER_AUTHORIZATION_FAILED
            | ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED => Self::Refused(Cause::Denied { code }),
            code if code.is_retriable() => {
                Self::Again { maybe_written: appended(response), refresh: code.invalidates_metadata() }
            }
            _ if !response.record_errors.is_empty() => {
                let named = response.record_errors.iter();
                let mut causes: Vec<_> = named
                    .filter_map(|(index, message)| Some((u32::try_from(*index).ok()?, rejected(message))))
                    .collect();
                causes.sort_by_key(|(index, _)| *index);
                Self::WithoutRecords(causes)
            }
            _ => Self::Refused(rejected(&None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(error: ErrorCode) -> ProducePartitionResponse {
        ProducePartitionResponse {
            index: 0,
            error,
            base_offset: if error.is_ok() { 7 } else { -1 },
            log_append_time: -1,
            log_start_offset: 0,
            record_errors: Vec::new(),
            message: None,
            current_leader: None,
        }
    }

    #[test]
    fn every_row_of_the_table() {
        let again = |maybe_written, refresh| Verdict::Again { maybe_written, refresh };
        for (code, verdict) in [
            (ErrorCode::NONE, Verdict::Written { base_offset: Some(7), log_append_time: None }),
            (ErrorCode::DUPLICATE_SEQUENCE_NUMBER, Verdict::Written { base_offset: None, log_append_time: None }),
            (ErrorCode::NOT_LEADER_OR_FOLLOWER, again(false, true)),
            (ErrorCode::LEADER_NOT_AVAILABLE, again(false, true)),
            (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, again(false, true)),
            (ErrorCode::UNKNOWN_TOPIC_ID, again(false, true)),
            (ErrorCode::INCONSISTENT_TOPIC_ID, again(false, true)),
            (ErrorCode::FENCED_LEADER_EPOCH, again(false, true)),
            (ErrorCode::KAFKA_STORAGE_ERROR, again(true, true)),
            (ErrorCode::NOT_ENOUGH_REPLICAS, again(false, false)),
            (ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND, again(true, false)),
            (ErrorCode::REQUEST_TIMED_OUT, again(true, false)),
            (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, Verdict::SequenceLost),
            (ErrorCode::UNKNOWN_PRODUCER_ID, Verdict::SequenceLost),
            (ErrorCode::INVALID_PRODUCER_EPOCH, Verdict::SequenceLost),
            (ErrorCode::MESSAGE_TOO_LARGE, Verdict::TooLarge),
            (ErrorCode::RECORD_LIST_TOO_LARGE, Verdict::TooLarge),
            (
                ErrorCode::TOPIC_AUTHORIZATION_FAILED,
                Verdict::Refused(Cause::Denied { code: ErrorCode::TOPIC_AUTHORIZATION_FAILED }),
            ),
            (
                ErrorCode::INVALID_REQUIRED_ACKS,
                Verdict::Refused(Cause::Rejected { code: ErrorCode::INVALID_REQUIRED_ACKS, message: None }),
            ),
        ] {
            assert_eq!(Verdict::of(&response(code)), verdict, "{code:?}");
        }
    }

    #[test]
    fn an_error_with_an_offset_comes_after_the_append() {
        let mut r = response(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        r.base_offset = 7;
        assert_eq!(Verdict::of(&r), Verdict::Again { maybe_written: true, refresh: true });
    }

    #[test]
    fn record_errors_name_the_records_that_failed() {
        let mut r = response(ErrorCode::INVALID_RECORD);
        r.record_errors = vec![(3, Some("no key".to_owned())), (-1, None)];
        r.message = Some("one or more".to_owned());
        let cause = Cause::Rejected { code: ErrorCode::INVALID_RECORD, message: Some("no key".into()) };
        assert_eq!(Verdict::of(&r), Verdict::WithoutRecords(vec![(3, cause)]));
    }
}

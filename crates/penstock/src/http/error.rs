//! Errors as clients see them: a status, a number and a sentence.
//!
//! The numbers begin with the status they belong to (40402 is a 404), so one number says both; a number of three digits
//! is its own status. They are those of docs/http-api.md. A message is for the caller; causes that are for the operator
//! go to the log where they are known.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use hyper::StatusCode;
use kafka_client::{ErrorCode, TopicError};
use produce_pipeline::{Cause, Outcome};

use crate::auth::LoginError;

/// Error numbers of the native API.
pub(crate) mod code {
    pub(crate) const BAD_REQUEST: u32 = 400;
    pub(crate) const RECORD_REJECTED: u32 = 40002;
    pub(crate) const UNAUTHORIZED: u32 = 40101;
    pub(crate) const DENIED: u32 = 40301;
    pub(crate) const NOT_FOUND: u32 = 404;
    pub(crate) const NO_TOPIC: u32 = 40401;
    pub(crate) const NO_PARTITION: u32 = 40402;
    pub(crate) const BAD_METHOD: u32 = 405;
    pub(crate) const TIMEOUT: u32 = 408;
    pub(crate) const CONFLICT: u32 = 409;
    pub(crate) const TOO_LARGE: u32 = 413;
    pub(crate) const UNSUPPORTED_MEDIA: u32 = 415;
    pub(crate) const EMPTY_BODY: u32 = 42206;
    pub(crate) const OVER_RATE: u32 = 429;
    pub(crate) const OVERLOADED: u32 = 50301;
    pub(crate) const NO_BROKER: u32 = 50302;
    pub(crate) const NOT_ENOUGH_REPLICAS: u32 = 50303;
    pub(crate) const DEADLINE: u32 = 50401;
}

/// What is answered instead of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// One of [`code`].
    pub(crate) code: u32,
    /// For the caller.
    pub(crate) message: Cow<'static, str>,
    /// `Retry-After`, seconds.
    pub(crate) retry_after: Option<u64>,
    /// `Allow`, with a 405.
    pub(crate) allow: Option<&'static str>,
    /// The connection ends with this answer.
    pub(crate) close: bool,
}

impl ApiError {
    pub(crate) fn new(code: u32, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retry_after: None, allow: None, close: false }
    }

    /// 400: a parameter, a header or a body is not what it must be.
    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code::BAD_REQUEST, message)
    }

    /// 401: the caller has to prove who it is. The challenges come with every answer of this status.
    pub(crate) fn unauthorized(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code::UNAUTHORIZED, message)
    }

    /// A login that failed.
    pub(crate) fn of_login(error: &LoginError) -> Self {
        match error {
            LoginError::Refused(why) => Self::unauthorized(*why),
            LoginError::TooMany(wait) => {
                Self { message: "too many logins from this address failed".into(), ..Self::over_rate(*wait) }
            }
            LoginError::Unavailable => Self {
                retry_after: Some(jittered_seconds(1, 3)),
                ..Self::new(code::OVERLOADED, "the login cannot be verified now; nothing was written")
            },
        }
    }

    pub(crate) fn denied(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code::DENIED, message)
    }

    /// 429: the access rule's rate is used up for so long.
    pub(crate) fn over_rate(wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        Self {
            retry_after: Some(u64::try_from(seconds).unwrap_or(u64::MAX)),
            ..Self::new(code::OVER_RATE, "over the rate that the access rule allows; nothing was written")
        }
    }

    pub(crate) fn no_topic(topic: &str) -> Self {
        Self::new(code::NO_TOPIC, format!("there is no topic {topic}"))
    }

    pub(crate) fn no_partition(topic: &str, partition: i32, count: i32) -> Self {
        let message = format!("topic {topic} has no partition {partition}; it has {count}, from 0 on");
        Self::new(code::NO_PARTITION, message)
    }

    pub(crate) fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code::TOO_LARGE, message)
    }

    pub(crate) fn unsupported_media(wanted: &'static str) -> Self {
        Self::new(code::UNSUPPORTED_MEDIA, format!("not understood; understood is {wanted}"))
    }

    pub(crate) fn bad_method(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(code::BAD_METHOD, format!("understood here: {allow}")) }
    }

    /// 503: no memory for another request, which has not been read.
    pub(crate) fn overloaded() -> Self {
        Self {
            retry_after: Some(jittered_seconds(1, 3)),
            ..Self::new(code::OVERLOADED, "the bridge has no memory for another request now; nothing was written")
        }
    }

    /// 503: the leader does not answer, and what waits for it and its like has taken the memory that it may.
    pub(crate) fn no_memory_for_waiting() -> Self {
        Self {
            retry_after: Some(jittered_seconds(1, 3)),
            ..Self::new(
                code::OVERLOADED,
                "the partition's leader does not answer, and no more records can wait for it; nothing was written",
            )
        }
    }

    /// 503: this instance is going; another one will do.
    pub(crate) fn draining() -> Self {
        Self {
            retry_after: Some(jittered_seconds(1, 5)),
            close: true,
            ..Self::new(
                code::OVERLOADED,
                "this instance is stopping; what it has not read is not written: send it again",
            )
        }
    }

    /// A failure of the pipeline as an answer.
    pub(crate) fn of_cause(outcome: Outcome, cause: &Cause) -> Self {
        // Unknown is unknown, whatever stood in the way: only 504 says that a record may have been written.
        if outcome == Outcome::Unknown {
            return Self::new(
                code::DEADLINE,
                match cause {
                    Cause::Stopped => "the bridge stopped before the broker answered: the record may have been written",
                    Cause::TopicGone => {
                        "the topic went away before the broker answered: the record may have been written"
                    }
                    _ => "the broker did not answer in time: the record may have been written",
                },
            );
        }
        match cause {
            Cause::Refused { code, message } => Self::new(*code, message.to_string()),
            Cause::NoBroker => {
                Self::new(code::NO_BROKER, "no broker could be reached in time; the record was not written")
            }
            Cause::NotEnoughReplicas => {
                Self::new(code::NOT_ENOUGH_REPLICAS, "too few replicas are in sync; the record was not written")
            }
            Cause::Deadline => Self::new(code::DEADLINE, "the delivery timeout passed"),
            Cause::TopicGone => Self::new(code::NO_TOPIC, "the topic was deleted meanwhile"),
            Cause::TooLarge => Self::too_large("the record is larger than the topic allows"),
            Cause::Rejected { code, message } => {
                let name = code.name();
                Self::new(
                    code::RECORD_REJECTED,
                    match message {
                        Some(message) => format!("Kafka refused the record: {name}: {message}"),
                        None => format!("Kafka refused the record: {name}"),
                    },
                )
            }
            Cause::Denied { code } => Self::denied(format!("Kafka refused the bridge: {}", code.name())),
            Cause::Stopped => Self {
                retry_after: Some(jittered_seconds(1, 5)),
                ..Self::new(code::OVERLOADED, "the bridge stopped; the record was not written")
            },
            Cause::NoMemory => Self {
                retry_after: Some(jittered_seconds(1, 3)),
                ..Self::new(code::OVERLOADED, "no memory became free in time; the record was not written")
            },
        }
    }

    /// A topic that could not be had.
    pub(crate) fn of_topic(topic: &str, error: &TopicError) -> Self {
        match error {
            TopicError::Unknown => Self::no_topic(topic),
            TopicError::Denied => Self::denied(format!("Kafka refuses the bridge topic {topic}")),
            TopicError::InvalidName => Self::bad_request(format!("{topic:?} is no topic name")),
            // Unavailable, and whatever else may stand in the way one day.
            _ => Self::no_broker(),
        }
    }

    pub(crate) fn no_broker() -> Self {
        Self {
            retry_after: Some(jittered_seconds(1, 3)),
            ..Self::new(code::NO_BROKER, "Kafka could not be asked in time")
        }
    }

    /// A call to the cluster that failed. `topic` is what it was about.
    pub(crate) fn of_client(topic: &str, error: &kafka_client::Error) -> Self {
        if let kafka_client::Error::InvalidRequest(what) = error {
            return Self::bad_request(*what);
        }
        let Some(kafka) = error.code() else {
            return Self::no_broker();
        };
        let told = format!("Kafka answered {}: {error}", kafka.name());
        match kafka {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::UNKNOWN_TOPIC_ID => Self::no_topic(topic),
            ErrorCode::TOPIC_AUTHORIZATION_FAILED
            | ErrorCode::CLUSTER_AUTHORIZATION_FAILED
            | ErrorCode::GROUP_AUTHORIZATION_FAILED => Self::denied(told),
            ErrorCode::TOPIC_ALREADY_EXISTS => Self::new(code::CONFLICT, told),
            retriable if retriable.is_retriable() => Self { message: told.into(), ..Self::no_broker() },
            _ => Self::new(code::RECORD_REJECTED, told),
        }
    }

    /// The status that the number stands for.
    pub(crate) fn status(&self) -> StatusCode {
        let status = if self.code < 1000 { self.code } else { self.code / 100 };
        u16::try_from(status)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// A number of seconds between both bounds, so that those who were refused together do not come back together.
fn jittered_seconds(least: u64, most: u64) -> u64 {
    // A fresh hasher's keys are random: no generator is needed for three values.
    let random = RandomState::new().build_hasher().finish();
    least + random % (most - least + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_tells_its_status() {
        for (code, status) in [(400, 400), (40402, 404), (42206, 422), (50301, 503), (50401, 504), (413, 413)] {
            assert_eq!(ApiError::new(code, "").status().as_u16(), status);
        }
        assert_eq!(ApiError::new(7, "").status().as_u16(), 500);
        assert_eq!(ApiError::new(u32::MAX, "").status().as_u16(), 500);
    }

    #[test]
    fn what_may_have_been_written_is_always_a_504() {
        for cause in [Cause::NoBroker, Cause::Deadline, Cause::Stopped, Cause::TopicGone] {
            assert_eq!(ApiError::of_cause(Outcome::Unknown, &cause).code, code::DEADLINE);
        }
    }

    #[test]
    fn causes_have_the_numbers_of_the_interface() {
        let refused = Cause::Refused { code: 413, message: "long".into() };
        for (cause, code) in [
            (refused, 413),
            (Cause::NoBroker, 50302),
            (Cause::NotEnoughReplicas, 50303),
            (Cause::TopicGone, 40401),
            (Cause::TooLarge, 413),
            (Cause::Rejected { code: ErrorCode(87), message: None }, 40002),
            (Cause::Denied { code: ErrorCode(29) }, 40301),
            (Cause::Stopped, 50301),
            (Cause::NoMemory, 50301),
        ] {
            assert_eq!(ApiError::of_cause(Outcome::NotWritten, &cause).code, code, "{cause:?}");
        }
    }

    #[test]
    fn retries_are_spread() {
        let seconds: std::collections::BTreeSet<u64> = (0..200).map(|_| jittered_seconds(1, 3)).collect();
        assert_eq!(seconds.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }
}

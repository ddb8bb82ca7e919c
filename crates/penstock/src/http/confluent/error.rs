//! Confluent's error numbers, beside those that it shares with the native API ([`code`](crate::http::error::code)).
//!
//! A number begins with its status in both, and the body has the same shape, `{"error_code":int,"message":"…"}`.

use produce_pipeline::{Cause, Outcome};

use crate::http::error::{ApiError, code};

/// The document is JSON, and not what it must be.
pub(crate) const INVALID: u32 = 422;
/// Kafka, and another try will not help.
pub(crate) const KAFKA: u32 = 50002;
/// Kafka, and another try may help.
pub(crate) const KAFKA_RETRIABLE: u32 = 50003;

/// 422: the document says something that it cannot.
pub(crate) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(INVALID, message)
}

/// One record's failure, in the numbers that Confluent has for it: 40301, or 50003 where the same record sent again may
/// be written, or 50002. Of a record that may have been written the message says so.
pub(crate) fn of_record(outcome: Outcome, cause: &Cause) -> ApiError {
    let told = ApiError::of_cause(outcome, cause);
    let retriable = outcome == Outcome::Unknown
        || matches!(
            cause,
            Cause::NoBroker | Cause::NotEnoughReplicas | Cause::Deadline | Cause::Stopped | Cause::NoMemory
        );
    let number = match cause {
        Cause::Denied { .. } if outcome == Outcome::NotWritten => code::DENIED,
        _ if retriable => KAFKA_RETRIABLE,
        _ => KAFKA,
    };
    ApiError::new(number, told.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_client::ErrorCode;

    #[test]
    fn a_record_is_worth_another_try_or_not() {
        let refused = Cause::Refused { code: 413, message: "long".into() };
        for (outcome, cause, number) in [
            (Outcome::NotWritten, Cause::NoBroker, KAFKA_RETRIABLE),
            (Outcome::NotWritten, Cause::NoMemory, KAFKA_RETRIABLE),
            (Outcome::Unknown, Cause::Deadline, KAFKA_RETRIABLE),
            (Outcome::NotWritten, Cause::TooLarge, KAFKA),
            (Outcome::NotWritten, refused, KAFKA),
            (Outcome::NotWritten, Cause::TopicGone, KAFKA),
            (Outcome::NotWritten, Cause::Denied { code: ErrorCode(29) }, code::DENIED),
        ] {
            assert_eq!(of_record(outcome, &cause).code, number, "{cause:?}");
        }
        let unknown = of_record(Outcome::Unknown, &Cause::Deadline);
        assert!(unknown.message.contains("may have been written"), "{unknown:?}");
    }
}

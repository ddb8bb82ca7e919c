//! Confluent's error numbers, beside those that it shares with the native API ([`code`](crate::http::error::code)).
//!
//! A number begins with its status in both, and the body has the same shape, `{"error_code":int,"message":"…"}`.

use produce_pipeline::{Cause, Outcome};

use crate::http::error::{ApiError, code};

/// Another consumer instance, or a partition that the instance does not read.
pub(crate) const NO_INSTANCE: u32 = 40403;
/// The format asked for is not the one that the instance was made with.
pub(crate) const OTHER_FORMAT: u32 = 40601;
/// The instance is there already.
pub(crate) const INSTANCE_EXISTS: u32 = 40902;
/// What was asked for does not go with the instance's state: a subscription excludes an assignment.
pub(crate) const ILLEGAL_STATE: u32 = 40903;
/// The document is JSON, and not what it must be.
pub(crate) const INVALID: u32 = 422;
/// A key or a value cannot be told in the format asked for.
pub(crate) const CONVERSION: u32 = 42203;
/// A setting of a consumer.
pub(crate) const BAD_CONSUMER: u32 = 42204;
/// A request with a schema format and without a schema of its keys.
pub(crate) const KEY_SCHEMA_MISSING: u32 = 42201;
/// The same of its values.
pub(crate) const VALUE_SCHEMA_MISSING: u32 = 42202;
/// The schema is none, or not there, or the registry does not take it.
pub(crate) const INVALID_SCHEMA: u32 = 42205;
/// The Schema Registry cannot be asked: another try may help, as with every 408.
pub(crate) const NO_REGISTRY: u32 = 40801;
/// Kafka, and another try will not help.
pub(crate) const KAFKA: u32 = 50002;
/// Kafka, and another try may help.
pub(crate) const KAFKA_RETRIABLE: u32 = 50003;

/// 422: the document says something that it cannot.
pub(crate) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(INVALID, message)
}

/// 404: no such consumer instance.
pub(crate) fn no_instance() -> ApiError {
    ApiError::new(NO_INSTANCE, "Consumer instance not found.")
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

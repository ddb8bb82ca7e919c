//! Kafka's error codes, with the names and the retriability that its Java client gives them.

use std::fmt;

/// An error code as a broker sends it. Codes that this table does not know are kept: newer brokers have more of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub i16);

/// What a client can do about a code.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The same request will not succeed later.
    Final,
    /// The same request may succeed later.
    Retry,
    /// The same, and the metadata that led to this broker is in doubt.
    Refresh,
}

macro_rules! codes {
    ($($name:ident = $code:literal, $class:ident;)*) => {
        impl ErrorCode {
            $(
                #[doc = concat!("Code ", $code, ".")]
                pub const $name: Self = Self($code);
            )*

            /// The name in Kafka's documentation; `UNKNOWN` for a code that this table lacks.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($code => stringify!($name),)*
                    _ => "UNKNOWN",
                }
            }

            const fn class(self) -> Class {
                match self.0 {
                    $($code => Class::$class,)*
                    _ => Class::Final,
                }
            }
        }

        #[cfg(test)]
        const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];
    };
}

codes! {
    UNKNOWN_SERVER_ERROR = -1, Final;
    NONE = 0, Final;
    OFFSET_OUT_OF_RANGE = 1, Final;
    CORRUPT_MESSAGE = 2, Retry;
    UNKNOWN_TOPIC_OR_PARTITION = 3, Refresh;
    INVALID_FETCH_SIZE = 4, Final;
    LEADER_NOT_AVAILABLE = 5, Refresh;
    NOT_LEADER_OR_FOLLOWER = 6, Refresh;
    REQUEST_TIMED_OUT = 7, Retry;
    BROKER_NOT_AVAILABLE = 8, Final;
    REPLICA_NOT_AVAILABLE = 9, Refresh;
    MESSAGE_TOO_LARGE = 10, Final;
    STALE_CONTROLLER_EPOCH = 11, Final;
    OFFSET_METADATA_TOO_LARGE = 12, Final;
    NETWORK_EXCEPTION = 13, Refresh;
    COORDINATOR_LOAD_IN_PROGRESS = 14, Retry;
    COORDINATOR_NOT_AVAILABLE = 15, Retry;
    NOT_COORDINATOR = 16, Retry;
    INVALID_TOPIC_EXCEPTION = 17, Final;
    RECORD_LIST_TOO_LARGE = 18, Final;
    NOT_ENOUGH_REPLICAS = 19, Retry;
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20, Retry;
    INVALID_REQUIRED_ACKS = 21, Final;
    ILLEGAL_GENERATION = 22, Final;
    INCONSISTENT_GROUP_PROTOCOL = 23, Final;
    INVALID_GROUP_ID = 24, Final;
    UNKNOWN_MEMBER_ID = 25, Final;
    INVALID_SESSION_TIMEOUT = 26, Final;
    REBALANCE_IN_PROGRESS = 27, Final;
    INVALID_COMMIT_OFFSET_SIZE = 28, Final;
    TOPIC_AUTHORIZATION_FAILED = 29, Final;
    GROUP_AUTHORIZATION_FAILED = 30, Final;
    CLUSTER_AUTHORIZATION_FAILED = 31, Final;
    INVALID_TIMESTAMP = 32, Final;
    UNSUPPORTED_SASL_MECHANISM = 33, Final;
    ILLEGAL_SASL_STATE = 34, Final;
    UNSUPPORTED_VERSION = 35, Final;
    TOPIC_ALREADY_EXISTS = 36, Final;
    INVALID_PARTITIONS = 37, Final;
    INVALID_REPLICATION_FACTOR = 38, Final;
    INVALID_REPLICA_ASSIGNMENT = 39, Final;
    INVALID_CONFIG = 40, Final;
    NOT_CONTROLLER = 41, Retry;
    INVALID_REQUEST = 42, Final;
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43, Final;
    POLICY_VIOLATION = 44, Final;
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45, Final;
    DUPLICATE_SEQUENCE_NUMBER = 46, Final;
    INVALID_PRODUCER_EPOCH = 47, Final;
    INVALID_TXN_STATE = 48, Final;
    INVALID_PRODUCER_ID_MAPPING = 49, Final;
    INVALID_TRANSACTION_TIMEOUT = 50, Final;
    CONCURRENT_TRANSACTIONS = 51, Retry;
    TRANSACTION_COORDINATOR_FENCED = 52, Final;
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53, Final;
    SECURITY_DISABLED = 54, Final;
    OPERATION_NOT_ATTEMPTED = 55, Final;
    KAFKA_STORAGE_ERROR = 56, Refresh;
    LOG_DIR_NOT_FOUND = 57, Final;
    SASL_AUTHENTICATION_FAILED = 58, Final;
    UNKNOWN_PRODUCER_ID = 59, Final;
    REASSIGNMENT_IN_PROGRESS = 60, Final;
    DELEGATION_TOKEN_AUTH_DISABLED = 61, Final;
    DELEGATION_TOKEN_NOT_FOUND = 62, Final;
    DELEGATION_TOKEN_OWNER_MISMATCH = 63, Final;
    DELEGATION_TOKEN_REQUEST_NOT_ALLOWED = 64, Final;
    DELEGATION_TOKEN_AUTHORIZATION_FAILED = 65, Final;
    DELEGATION_TOKEN_EXPIRED = 66, Final;
    INVALID_PRINCIPAL_TYPE = 67, Final;
    NON_EMPTY_GROUP = 68, Final;
    GROUP_ID_NOT_FOUND = 69, Final;
    FETCH_SESSION_ID_NOT_FOUND = 70, Retry;
    INVALID_FETCH_SESSION_EPOCH = 71, Retry;
    LISTENER_NOT_FOUND = 72, Refresh;
    TOPIC_DELETION_DISABLED = 73, Final;
    FENCED_LEADER_EPOCH = 74, Refresh;
    UNKNOWN_LEADER_EPOCH = 75, Retry;
    UNSUPPORTED_COMPRESSION_TYPE = 76, Final;
    STALE_BROKER_EPOCH = 77, Final;
    OFFSET_NOT_AVAILABLE = 78, Retry;
    MEMBER_ID_REQUIRED = 79, Final;
    PREFERRED_LEADER_NOT_AVAILABLE = 80, Refresh;
    GROUP_MAX_SIZE_REACHED = 81, Final;
    FENCED_INSTANCE_ID = 82, Final;
    ELIGIBLE_LEADERS_NOT_AVAILABLE = 83, Refresh;
    ELECTION_NOT_NEEDED = 84, Refresh;
    NO_REASSIGNMENT_IN_PROGRESS = 85, Final;
    GROUP_SUBSCRIBED_TO_TOPIC = 86, Final;
    INVALID_RECORD = 87, Final;
    UNSTABLE_OFFSET_COMMIT = 88, Retry;
    THROTTLING_QUOTA_EXCEEDED = 89, Retry;
    PRODUCER_FENCED = 90, Final;
    RESOURCE_NOT_FOUND = 91, Final;
    DUPLICATE_RESOURCE = 92, Final;
    UNACCEPTABLE_CREDENTIAL = 93, Final;
    INCONSISTENT_VOTER_SET = 94, Final;
    INVALID_UPDATE_VERSION = 95, Final;
    FEATURE_UPDATE_FAILED = 96, Final;
    PRINCIPAL_DESERIALIZATION_FAILURE = 97, Final;
    SNAPSHOT_NOT_FOUND = 98, Final;
    POSITION_OUT_OF_RANGE = 99, Final;
    UNKNOWN_TOPIC_ID = 100, Refresh;
    DUPLICATE_BROKER_REGISTRATION = 101, Final;
    BROKER_ID_NOT_REGISTERED = 102, Final;
    INCONSISTENT_TOPIC_ID = 103, Refresh;
    INCONSISTENT_CLUSTER_ID = 104, Final;
    TRANSACTIONAL_ID_NOT_FOUND = 105, Final;
    FETCH_SESSION_TOPIC_ID_ERROR = 106, Retry;
    INELIGIBLE_REPLICA = 107, Final;
    NEW_LEADER_ELECTED = 108, Final;
    OFFSET_MOVED_TO_TIERED_STORAGE = 109, Final;
    FENCED_MEMBER_EPOCH = 110, Final;
    UNRELEASED_INSTANCE_ID = 111, Final;
    UNSUPPORTED_ASSIGNOR = 112, Final;
    STALE_MEMBER_EPOCH = 113, Final;
    MISMATCHED_ENDPOINT_TYPE = 114, Final;
    UNSUPPORTED_ENDPOINT_TYPE = 115, Final;
    UNKNOWN_CONTROLLER_ID = 116, Final;
    UNKNOWN_SUBSCRIPTION_ID = 117, Final;
    TELEMETRY_TOO_LARGE = 118, Final;
    INVALID_REGISTRATION = 119, Final;
    TRANSACTION_ABORTABLE = 120, Final;
    INVALID_RECORD_STATE = 121, Final;
    SHARE_SESSION_NOT_FOUND = 122, Retry;
    INVALID_SHARE_SESSION_EPOCH = 123, Retry;
    FENCED_STATE_EPOCH = 124, Final;
    INVALID_VOTER_KEY = 125, Final;
    DUPLICATE_VOTER = 126, Final;
    VOTER_NOT_FOUND = 127, Final;
    INVALID_REGULAR_EXPRESSION = 128, Final;
    REBOOTSTRAP_REQUIRED = 129, Final;
    STREAMS_INVALID_TOPOLOGY = 130, Final;
    STREAMS_INVALID_TOPOLOGY_EPOCH = 131, Final;
    STREAMS_TOPOLOGY_FENCED = 132, Final;
    SHARE_SESSION_LIMIT_REACHED = 133, Retry;
}

impl ErrorCode {
    /// No error.
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// Whether the same request may succeed later, as Java's `RetriableException` says. Unknown codes are not
    /// retriable.
    pub const fn is_retriable(self) -> bool {
        matches!(self.class(), Class::Retry | Class::Refresh)
    }

    /// Whether the metadata that led here is in doubt, as Java's `InvalidMetadataException` says: refresh, then retry.
    pub const fn invalidates_metadata(self) -> bool {
        matches!(self.class(), Class::Refresh)
    }

    /// `Ok` for no error.
    pub(crate) fn ok(self) -> Result<(), Self> {
        if self.is_ok() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_retriability_agree_with_an_independent_table() {
        for code in ALL.iter().filter(|code| !code.is_ok()) {
            let theirs = kafka_protocol::error::ResponseError::try_from_code(code.0).expect("a code of an error");
            let name: String = code.name().split('_').collect();
            assert_eq!(theirs.to_string().to_uppercase(), name, "{code}");
            // Java retries CONCURRENT_TRANSACTIONS; their table says that it does not.
            if *code != ErrorCode::CONCURRENT_TRANSACTIONS {
                assert_eq!(theirs.is_retriable(), code.is_retriable(), "{code}");
            }
        }
        assert!(ErrorCode::CONCURRENT_TRANSACTIONS.is_retriable());
    }

    #[test]
    fn an_unknown_code_is_kept_and_final() {
        let code = ErrorCode(3000);
        assert_eq!(code.to_string(), "UNKNOWN (3000)");
        assert!(!code.is_ok() && !code.is_retriable() && !code.invalidates_metadata());
    }
}

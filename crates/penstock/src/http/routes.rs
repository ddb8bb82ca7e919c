//! From method and path to an operation.
//!
//! Few routes, so a match on the path's segments is the whole router. Segments are percent-decoded one by one after the
//! path was cut at its slashes: an encoded slash never makes a segment of its own.

use std::borrow::Cow;
use std::collections::BTreeMap;

use hyper::Method;

use super::confluent::{v2, v3};
use super::error::{ApiError, code};
use super::groups::check_group_name;
use super::openapi::{self, Page};

/// Kafka's own bound on a topic's name.
const TOPIC_NAME_BYTES: usize = 249;

/// The names of what is not Confluent's version 3.
const OWN_NAMES: [&str; 39] = [
    "health",
    "openapi",
    "docs",
    "produce",
    "tombstone",
    "list_topics",
    "describe_topic",
    "create_topic",
    "delete_topic",
    "read_partition",
    "read_group",
    "group_offsets",
    "commit_offsets",
    "group_lag",
    "v2_root",
    "v2_list_brokers",
    "v2_list_topics",
    "v2_describe_topic",
    "v2_produce",
    "v2_produce_to_partition",
    "v2_list_partitions",
    "v2_describe_partition",
    "v2_partition_offsets",
    "v2_create_consumer",
    "v2_delete_consumer",
    "v2_subscribe",
    "v2_subscription",
    "v2_unsubscribe",
    "v2_assign",
    "v2_assignments",
    "v2_seek",
    "v2_seek_to_beginning",
    "v2_seek_to_end",
    "v2_records",
    "v2_topic_records",
    "v2_commit",
    "v2_committed",
    "v2_create_topic",
    "v2_health",
];

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `GET /healthz`
    Health,
    /// `GET /openapi.json`
    OpenApi,
    /// `GET /docs`, and what it loads
    Docs(Page),
    /// `POST /v1/topics/{topic}/records`
    Produce(String),
    /// `DELETE /v1/topics/{topic}/records`
    Tombstone(String),
    /// `GET /v1/topics`
    ListTopics,
    /// `GET /v1/topics/{topic}`
    DescribeTopic(String),
    /// `PUT /v1/topics/{topic}`
    CreateTopic(String),
    /// `DELETE /v1/topics/{topic}`
    DeleteTopic(String),
    /// `GET /v1/topics/{topic}/partitions/{partition}/records`
    ReadPartition(String, i32),
    /// `GET /v1/topics/{topic}/records`
    ReadGroup(String),
    /// `GET /v1/groups/{group}/offsets`
    GroupOffsets(String),
    /// `POST /v1/groups/{group}/offsets`
    CommitOffsets(String),
    /// `GET /v1/groups/{group}/lag`
    GroupLag(String),
    /// Confluent's API, version 2.
    ConfluentV2(v2::Operation),
    /// Confluent's API, version 3.
    ConfluentV3(v3::Operation),
}

impl Operation {
    /// All names that [`name`](Self::name) gives, and one more for what is no operation.
    pub(crate) const NAMES: [&'static str; OWN_NAMES.len() + v3::Operation::NAMES.len() + 1] = {
        let mut names = ["none"; OWN_NAMES.len() + v3::Operation::NAMES.len() + 1];
        names.split_at_mut(OWN_NAMES.len()).0.copy_from_slice(&OWN_NAMES);
        names
            .split_at_mut(OWN_NAMES.len())
            .1
            .split_at_mut(v3::Operation::NAMES.len())
            .0
            .copy_from_slice(&v3::Operation::NAMES);
        names
    };

    /// What metrics and logs call it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::OpenApi => "openapi",
            Self::Docs(_) => "docs",
            Self::Produce(_) => "produce",
            Self::Tombstone(_) => "tombstone",
            Self::ListTopics => "list_topics",
            Self::DescribeTopic(_) => "describe_topic",
            Self::CreateTopic(_) => "create_topic",
            Self::DeleteTopic(_) => "delete_topic",
            Self::ReadPartition(..) => "read_partition",
            Self::ReadGroup(_) => "read_group",
            Self::GroupOffsets(_) => "group_offsets",
            Self::CommitOffsets(_) => "commit_offsets",
            Self::GroupLag(_) => "group_lag",
            Self::ConfluentV2(operation) => operation.name(),
            Self::ConfluentV3(operation) => operation.name(),
        }
    }

    /// Finds the operation, or says why there is none: 404, 405 with what is allowed, 400 for a name that cannot be
    /// one.
    pub(crate) fn find(method: &Method, path: &str) -> Result<Self, ApiError> {
        if let Some(path) = path.strip_prefix("/v3/") {
            return v3::Operation::find(method, path).map(Self::ConfluentV3);
        }
        let mut segments = [""; 7];
        let mut count = 0;
        for segment in path.strip_prefix('/').ok_or_else(no_route)?.split('/') {
            *segments.get_mut(count).ok_or_else(no_route)? = segment;
            count += 1;
        }
        // HEAD is GET without the body, which the connection leaves out.
        let get = method == Method::GET || method == Method::HEAD;
        match &segments[..count] {
            ["healthz"] if get => Ok(Self::Health),
            ["openapi.json"] if get => Ok(Self::OpenApi),
            ["docs"] if get => Ok(Self::Docs(Page::Html)),
            ["docs.js"] if get => Ok(Self::Docs(Page::Script)),
            ["docs.css"] if get => Ok(Self::Docs(Page::Style)),
            ["v1", "topics"] if get => Ok(Self::ListTopics),
            ["healthz" | "openapi.json" | "docs" | "docs.js" | "docs.css"] | ["v1", "topics"] => {
                Err(ApiError::bad_method("GET, HEAD"))
            }
            ["v1", "topics", topic] => {
                let topic = topic_name(topic)?;
                match *method {
                    Method::GET | Method::HEAD => Ok(Self::DescribeTopic(topic)),
                    Method::PUT => Ok(Self::CreateTopic(topic)),
                    Method::DELETE => Ok(Self::DeleteTopic(topic)),
                    _ => Err(ApiError::bad_method("GET, HEAD, PUT, DELETE")),
                }
            }
            ["v1", "topics", topic, "records"] => {
                let topic = topic_name(topic)?;
                match *method {
                    Method::POST => Ok(Self::Produce(topic)),
                    Method::DELETE => Ok(Self::Tombstone(topic)),
                    Method::GET | Method::HEAD => Ok(Self::ReadGroup(topic)),
                    _ => Err(ApiError::bad_method("GET, HEAD, POST, DELETE")),
                }
            }
            ["v1", "groups", group, "offsets"] => {
                let group = group_name(group)?;
                match *method {
                    Method::GET | Method::HEAD => Ok(Self::GroupOffsets(group)),
                    Method::POST => Ok(Self::CommitOffsets(group)),
                    _ => Err(ApiError::bad_method("GET, HEAD, POST")),
                }
            }
            ["v1", "groups", group, "lag"] if get => group_name(group).map(Self::GroupLag),
            ["v1", "groups", _, "lag"] => Err(ApiError::bad_method("GET, HEAD")),
            ["v1", "topics", topic, "partitions", partition, "records"] => {
                let topic = topic_name(topic)?;
                if !get {
                    return Err(ApiError::bad_method("GET, HEAD"));
                }
                partition_number(partition).map(|partition| Self::ReadPartition(topic, partition))
            }
            segments => v2::Operation::find(method, segments).map(Self::ConfluentV2),
        }
    }
}

/// The path of each operation as the description has it, with its parameters' names.
pub(crate) fn templates() -> BTreeMap<&'static str, String> {
    let description: serde_json::Value = serde_json::from_slice(&openapi::document()).expect("a test reads it");
    let mut templates = BTreeMap::new();
    for (path, methods) in description["paths"].as_object().into_iter().flatten() {
        // A number is a value of any parameter.
        let example: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { "0" } else { part }).collect();
        let example = example.join("/");
        for method in methods.as_object().into_iter().flat_map(|methods| methods.keys()) {
            let method = Method::from_bytes(method.to_uppercase().as_bytes());
            if let Some(operation) = method.ok().and_then(|method| Operation::find(&method, &example).ok()) {
                templates.entry(operation.name()).or_insert_with(|| path.clone());
            }
        }
    }
    templates
}

pub(super) fn no_route() -> ApiError {
    ApiError::new(code::NOT_FOUND, "nothing is served at this path; GET /openapi.json says what is")
}

pub(super) fn partition_number(segment: &str) -> Result<i32, ApiError> {
    match segment.parse() {
        Ok(partition) if partition >= 0 => Ok(partition),
        _ => Err(ApiError::bad_request(format!("a partition is a number from 0 to {}", i32::MAX))),
    }
}

/// Decodes a group's name.
fn group_name(segment: &str) -> Result<String, ApiError> {
    let name = percent_decode(segment, false)
        .ok_or_else(|| ApiError::bad_request("the group's name is not percent-encoded UTF-8"))?;
    check_group_name(&name)?;
    Ok(name.into_owned())
}

/// Decodes a topic's name and holds it against Kafka's rules.
pub(super) fn topic_name(segment: &str) -> Result<String, ApiError> {
    let name = percent_decode(segment, false)
        .ok_or_else(|| ApiError::bad_request("the topic's name is not percent-encoded UTF-8"))?;
    checked_topic_name(&name)
}

/// Holds a topic's name against Kafka's rules.
pub(super) fn checked_topic_name(name: &str) -> Result<String, ApiError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > TOPIC_NAME_BYTES || matches!(name, "." | "..") || !name.bytes().all(legal) {
        return Err(ApiError::bad_request(format!(
            "a topic's name is 1 to {TOPIC_NAME_BYTES} of a-z, A-Z, 0-9, \".\", \"_\" and \"-\", and not \".\" or \"..\""
        )));
    }
    Ok(name.to_owned())
}

/// Undoes percent-encoding (RFC 3986 section 2.1); `plus_is_space` as in the queries that HTTP libraries write. `None`
/// if a `%` is not followed by two hex digits or the result is not UTF-8.
pub(crate) fn percent_decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || (plus_is_space && byte == b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let hex = |digit: Option<u8>| char::from(digit?).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let (high, low) = (hex(bytes.next())?, hex(bytes.next())?);
                u8::try_from(high << 4 | low).ok()?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: &str, path: &str) -> Result<Operation, u16> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        Operation::find(&method, path).map_err(|error| error.status().as_u16())
    }

    #[test]
    fn every_operation_is_found() {
        let t = || "a.b_c-1".to_owned();
        for (method, path, operation) in [
            ("GET", "/healthz", Operation::Health),
            ("HEAD", "/healthz", Operation::Health),
            ("GET", "/openapi.json", Operation::OpenApi),
            ("GET", "/docs", Operation::Docs(Page::Html)),
            ("GET", "/v3/clusters", Operation::ConfluentV3(v3::Operation::ListClusters)),
            ("GET", "/v1/topics", Operation::ListTopics),
            ("GET", "/v1/topics/a.b_c-1", Operation::DescribeTopic(t())),
            ("PUT", "/v1/topics/a.b_c-1", Operation::CreateTopic(t())),
            ("DELETE", "/v1/topics/a.b_c-1", Operation::DeleteTopic(t())),
            ("POST", "/v1/topics/a.b_c-1/records", Operation::Produce(t())),
            ("POST", "/v1/topics/a%2Eb%5fc-1/records", Operation::Produce(t())),
            ("DELETE", "/v1/topics/a.b_c-1/records", Operation::Tombstone(t())),
            ("GET", "/v1/topics/a.b_c-1/partitions/7/records", Operation::ReadPartition(t(), 7)),
            ("GET", "/v1/topics/a.b_c-1/records", Operation::ReadGroup(t())),
            ("GET", "/v1/groups/a%20b%2Fc/offsets", Operation::GroupOffsets("a b/c".into())),
            ("POST", "/v1/groups/g/offsets", Operation::CommitOffsets("g".into())),
            ("HEAD", "/v1/groups/g/lag", Operation::GroupLag("g".into())),
        ] {
            assert!(Operation::NAMES.contains(&operation.name()));
            assert_eq!(find(method, path), Ok(operation), "{method} {path}");
        }
    }

    #[test]
    fn other_paths_are_not_found() {
        for path in [
            "",
            "*",
            "/v1",
            "/v1/",
            "/v1/topics/",
            "/v1/topics/t/",
            "/v2/topics",
            "/v1/topics/t/records/",
            "/v1/topics/t/partitions/0",
            "/a/b/c/d/e/f/g/h/i/j",
            "//v1/topics",
            "http:",
        ] {
            let status = find("GET", path).expect_err(path);
            assert!(status == 404 || (status == 400 && path == "/v1/topics/"), "{path}: {status}");
        }
    }

    #[test]
    fn another_method_is_told_what_is_allowed() {
        for (method, path, allow) in [
            ("POST", "/healthz", "GET, HEAD"),
            ("POST", "/v1/topics", "GET, HEAD"),
            ("POST", "/v1/topics/t", "GET, HEAD, PUT, DELETE"),
            ("PUT", "/v1/topics/t/records", "GET, HEAD, POST, DELETE"),
            ("PUT", "/v1/groups/g/offsets", "GET, HEAD, POST"),
            ("POST", "/v1/groups/g/lag", "GET, HEAD"),
            ("POST", "/v1/topics/t/partitions/0/records", "GET, HEAD"),
        ] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let error = Operation::find(&method, path).expect_err(path);
            assert_eq!((error.code, error.allow), (405, Some(allow)));
        }
    }

    #[test]
    fn names_that_kafka_does_not_take_are_bad_requests() {
        let long = "x".repeat(250);
        for name in ["", ".", "..", "a%2Fb", "a%20b", "%", "%4", "%zz", "%ff", "a*", "ä", "%C3%A4", &long] {
            assert_eq!(find("POST", &format!("/v1/topics/{name}/records")), Err(400), "{name}");
        }
        assert!(find("POST", &format!("/v1/topics/{}/records", &long[1..])).is_ok());
    }

    #[test]
    fn a_partition_is_a_number_in_kafkas_range() {
        for partition in ["-1", "x", "", "2147483648", "1.0", "0x1"] {
            assert_eq!(find("GET", &format!("/v1/topics/t/partitions/{partition}/records")), Err(400), "{partition}");
        }
        assert!(find("GET", "/v1/topics/t/partitions/2147483647/records").is_ok());
    }

    #[test]
    fn plus_is_a_space_only_in_queries() {
        assert_eq!(percent_decode("a+b%2B", true).as_deref(), Some("a b+"));
        assert_eq!(percent_decode("a+b%2B", false).as_deref(), Some("a+b+"));
    }
}

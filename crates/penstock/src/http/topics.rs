//! `/v1/topics`: list, describe, create, delete.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use hyper::{Request, StatusCode};
use kafka_client::{ConfigEntry, ConfigResource, ConfigSource, ErrorCode, NewTopic, TopicInfo};
use serde::{Deserialize, Serialize};

use super::Context;
use super::caller::Caller;
use super::error::{ApiError, code};
use super::params::Query;
use super::respond::{Response, json};
use crate::config::Verb;
use crate::http1::{Body, ResponseBody};

/// How long Kafka may take for an answer about topics.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// How long the settings of a topic are waited for: without them its description is still one.
const CONFIGS_PATIENCE: Duration = Duration::from_secs(3);
/// The description of a topic to create is a handful of numbers and settings.
const CREATE_BODY_BYTES: usize = 64 * 1024;

#[derive(Serialize)]
struct TopicList {
    topics: Vec<TopicSummary>,
}

#[derive(Serialize)]
struct TopicSummary {
    topic: String,
    partitions: usize,
    replication_factor: usize,
    internal: bool,
}

impl TopicSummary {
    fn of(info: &TopicInfo) -> Self {
        Self {
            topic: info.name.to_string(),
            partitions: info.partitions.len(),
            replication_factor: info.partitions.iter().map(|partition| partition.replicas.len()).max().unwrap_or(0),
            internal: info.internal,
        }
    }
}

/// `GET /v1/topics`: those that the caller may do something with, by name.
pub(crate) async fn list(context: &Context, caller: &Caller, query: Option<&str>) -> Result<Response, ApiError> {
    Query::parse(query)?.finish()?;
    let mut topics: Vec<TopicSummary> = ask("", context.cluster.list_topics())
        .await?
        .iter()
        .filter(|info| context.access.sees(caller, &info.name))
        .map(|info| TopicSummary::of(info))
        .collect();
    topics.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
    Ok(json(StatusCode::OK, &TopicList { topics }))
}

#[derive(Serialize)]
struct TopicDescription {
    topic: String,
    topic_id: Option<String>,
    internal: bool,
    replication_factor: usize,
    partitions: Vec<PartitionDescription>,
    /// Null where Kafka does not tell: the bridge may not be allowed to ask.
    configs: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Serialize)]
struct PartitionDescription {
    partition: usize,
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
}

/// `GET /v1/topics/{topic}`, for whoever may read from it or administer it. `configs` are those that differ from the
/// cluster's defaults, secrets as null.
pub(crate) async fn describe(
    context: &Context,
    caller: &Caller,
    name: &str,
    query: Option<&str>,
) -> Result<Response, ApiError> {
    context.access.check(caller, name, &[Verb::Consume, Verb::Admin])?;
    Query::parse(query)?.finish()?;
    let info = topic_info(context, name).await?;
    let configs = described_configs(context, name).await;
    let summary = TopicSummary::of(&info);
    Ok(json(
        StatusCode::OK,
        &TopicDescription {
            topic: summary.topic,
            topic_id: (info.id.0 != [0; 16]).then(|| uuid(info.id.0)),
            internal: info.internal,
            replication_factor: summary.replication_factor,
            partitions: info
                .partitions
                .iter()
                .enumerate()
                .map(|(partition, info)| PartitionDescription {
                    partition,
                    leader: info.leader,
                    leader_epoch: info.leader_epoch,
                    replicas: info.replicas.clone(),
                    in_sync: info.in_sync.clone(),
                })
                .collect(),
            configs: configs.map(|configs| {
                let own = configs.into_iter().filter(|config| config.source == ConfigSource::TOPIC);
                own.map(|config| (config.name, config.value.filter(|_| !config.sensitive))).collect()
            }),
        },
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateTopic {
    /// -1: the cluster's default.
    #[serde(default = "cluster_default")]
    partitions: i32,
    #[serde(default = "cluster_default")]
    replication_factor: i16,
    #[serde(default)]
    configs: BTreeMap<String, Option<serde_json::Value>>,
}

fn cluster_default<N: From<i8>>() -> N {
    N::from(-1)
}

/// `PUT /v1/topics/{topic}`: 201 when it was created, 200 when it is there with the same numbers, 409 with others.
pub(crate) async fn create(
    context: &Rc<Context>,
    caller: &Caller,
    name: &str,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let grant = context.access.check(caller, name, &[Verb::Admin])?;
    Query::parse(head.uri.query())?.finish()?;
    let document = context.body_reader(body, grant).whole(CREATE_BODY_BYTES).await?;
    create_as(context, name, &document).await
}

async fn create_as(context: &Context, name: &str, document: &[u8]) -> Result<Response, ApiError> {
    let document = if document.trim_ascii().is_empty() { b"{}" } else { document };
    // serde takes an array for a structure, too.
    if !document.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::bad_request("the body is a JSON object"));
    }
    let wanted: CreateTopic = serde_json::from_slice(document).map_err(|error| {
        ApiError::bad_request(format!(
            "the body is {{\"partitions\":n,\"replication_factor\":n,\"configs\":{{}}}}: {error}"
        ))
    })?;
    let counts = (i64::from(wanted.partitions), i64::from(wanted.replication_factor));
    if counts.0 == 0 || counts.0 < -1 || counts.1 == 0 || counts.1 < -1 {
        return Err(ApiError::bad_request(
            "partitions and replication_factor are at least 1, or -1 for the cluster's default",
        ));
    }
    let configs: Vec<(String, Option<String>)> = wanted
        .configs
        .into_iter()
        .map(|(name, value)| {
            (
                name,
                value.map(|value| match value {
                    serde_json::Value::String(text) => text,
                    other => other.to_string(),
                }),
            )
        })
        .collect();
    let topic = NewTopic { configs, ..NewTopic::new(name, wanted.partitions, wanted.replication_factor) };
    let status = match tokio::time::timeout(PATIENCE, context.cluster.create_topic(&topic)).await {
        Err(_) => return Err(ApiError::no_broker()),
        Ok(Ok(())) => StatusCode::CREATED,
        Ok(Err(error)) if error.code() == Some(ErrorCode::TOPIC_ALREADY_EXISTS) => StatusCode::OK,
        Ok(Err(error)) => return Err(refused_creation(name, &error)),
    };
    let summary = TopicSummary::of(&*topic_info(context, name).await?);
    let differs = |wanted: i64, there: usize| wanted != -1 && usize::try_from(wanted) != Ok(there);
    if status == StatusCode::OK
        && (differs(counts.0, summary.partitions) || differs(counts.1, summary.replication_factor))
    {
        return Err(ApiError::new(
            code::CONFLICT,
            format!(
                "topic {name} is there with {} partitions and replication factor {}",
                summary.partitions, summary.replication_factor
            ),
        ));
    }
    Ok(json(status, &summary))
}

/// What Kafka says to numbers and settings that it does not take is the caller's business.
pub(super) fn refused_creation(name: &str, error: &kafka_client::Error) -> ApiError {
    match error.code() {
        Some(
            ErrorCode::INVALID_PARTITIONS
            | ErrorCode::INVALID_REPLICATION_FACTOR
            | ErrorCode::INVALID_CONFIG
            | ErrorCode::INVALID_REPLICA_ASSIGNMENT
            | ErrorCode::INVALID_TOPIC_EXCEPTION
            | ErrorCode::INVALID_REQUEST
            | ErrorCode::POLICY_VIOLATION,
        ) => ApiError::bad_request(format!("Kafka does not create topic {name}: {error}")),
        _ => ApiError::of_client(name, error),
    }
}

/// `DELETE /v1/topics/{topic}`: 204.
pub(crate) async fn delete(
    context: &Context,
    caller: &Caller,
    name: &str,
    query: Option<&str>,
) -> Result<Response, ApiError> {
    context.access.check(caller, name, &[Verb::Admin])?;
    Query::parse(query)?.finish()?;
    ask(name, context.cluster.delete_topic(name)).await?;
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// A topic's settings, or nothing where Kafka does not tell.
pub(super) async fn described_configs(context: &Context, name: &str) -> Option<Vec<ConfigEntry>> {
    let of = ConfigResource::Topic(name.to_owned());
    let asked = ask(name, context.cluster.describe_configs(&of, false));
    match tokio::time::timeout(CONFIGS_PATIENCE, asked).await {
        Ok(Ok(configs)) => Some(configs),
        Ok(Err(error)) => {
            tracing::debug!(topic = name, error = %error.message, "a topic's settings are not told");
            None
        }
        Err(_) => None,
    }
}

/// A topic from the cached metadata, or from Kafka.
pub(crate) async fn topic_info(context: &Context, name: &str) -> Result<std::sync::Arc<TopicInfo>, ApiError> {
    match tokio::time::timeout(PATIENCE, context.cluster.topic(name)).await {
        Ok(Ok(info)) => Ok(info),
        Ok(Err(error)) => Err(ApiError::of_topic(name, &error)),
        Err(_) => Err(ApiError::no_broker()),
    }
}

/// One question to the cluster, within our patience.
pub(super) async fn ask<T>(
    topic: &str,
    question: impl Future<Output = Result<T, kafka_client::Error>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ApiError::of_client(topic, &error)),
        Err(_) => Err(ApiError::no_broker()),
    }
}

/// As RFC 9562 writes it.
pub(super) fn uuid(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        write!(text, "{byte:02x}").expect("a string takes what is written");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_is_written_as_a_uuid() {
        let id: [u8; 16] = std::array::from_fn(|at| u8::try_from(at * 17).expect("below 256"));
        assert_eq!(uuid(id), "00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn a_topic_to_create_may_leave_everything_to_the_cluster() {
        let wanted: CreateTopic = serde_json::from_str("{}").expect("accepted");
        assert_eq!((wanted.partitions, wanted.replication_factor), (-1, -1));
        assert!(serde_json::from_str::<CreateTopic>("{\"partition\":3}").is_err());
        assert!(serde_json::from_str::<CreateTopic>("{\"replication_factor\":40000}").is_err());
    }
}

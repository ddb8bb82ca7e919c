//! Topics, partitions, offsets and brokers.

use std::collections::BTreeMap;
use std::rc::Rc;

use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Request, StatusCode};
use kafka_client::{Isolation, OffsetSpec, PartitionInfo, TopicInfo};
use serde::{Deserialize, Serialize};

use crate::config::Verb;
use crate::http::Context;
use crate::http::access::Grant;
use crate::http::caller::Caller;
use crate::http::confluent::media::answer_type;
use crate::http::consume::list_offset;
use crate::http::content_encoding::ContentEncoding;
use crate::http::error::{ApiError, code};
use crate::http::respond::{Response, json};
use crate::http::routes::checked_topic_name;
use crate::http::topics::{PATIENCE, ask, described_configs, refused_creation, topic_info};
use crate::http::whole_body::{Limit, WholeBody};
use crate::http1::{Body, ResponseBody};

/// `GET /`: nothing, as an object.
pub(super) fn root(headers: &HeaderMap) -> Response {
    answer(headers, &serde_json::Map::new())
}

/// A document as this version answers it.
pub(super) fn answer(headers: &HeaderMap, document: &impl Serialize) -> Response {
    let mut response = json(StatusCode::OK, document);
    response.headers_mut().insert(CONTENT_TYPE, answer_type(headers));
    response
}

#[derive(Serialize)]
struct Brokers {
    brokers: Vec<i32>,
}

/// `GET /brokers`: their ids, for whoever may do something with some topic: each description of a topic names brokers.
pub(super) async fn brokers(context: &Context, caller: &Caller, headers: &HeaderMap) -> Result<Response, ApiError> {
    // The empty name stands for all topics: it is in the rules that are about every one, also of a cluster that has none.
    if !context.access.sees(caller, "") && visible_topics(context, caller).await?.is_empty() {
        return Err(ApiError::denied("no access rule allows anything with any topic"));
    }
    let brokers = context.cluster.metadata().brokers.keys().copied().collect::<std::collections::BTreeSet<_>>();
    Ok(answer(headers, &Brokers { brokers: brokers.into_iter().collect() }))
}

/// `GET /topics`: the names of those that the caller may do something with.
pub(super) async fn topics(context: &Context, caller: &Caller, headers: &HeaderMap) -> Result<Response, ApiError> {
    Ok(answer(headers, &visible_topics(context, caller).await?))
}

async fn visible_topics(context: &Context, caller: &Caller) -> Result<Vec<String>, ApiError> {
    let topics = ask("", context.cluster.list_topics()).await?;
    let seen = topics.iter().filter(|info| context.access.sees(caller, &info.name));
    Ok(seen.map(|info| info.name.to_string()).collect())
}

#[derive(Serialize)]
struct Topic {
    name: String,
    configs: BTreeMap<String, Option<String>>,
    partitions: Vec<Partition>,
}

#[derive(Serialize)]
struct Partition {
    partition: usize,
    /// -1 without one.
    leader: i32,
    replicas: Vec<Replica>,
}

#[derive(Serialize)]
struct Replica {
    broker: i32,
    leader: bool,
    in_sync: bool,
}

impl Partition {
    fn of(partition: usize, info: &PartitionInfo) -> Self {
        let replicas = info.replicas.iter().map(|&broker| Replica {
            broker,
            leader: info.leader == Some(broker),
            in_sync: info.in_sync.contains(&broker),
        });
        Self { partition, leader: info.leader.unwrap_or(-1), replicas: replicas.collect() }
    }

    fn all(info: &TopicInfo) -> Vec<Self> {
        info.partitions.iter().enumerate().map(|(partition, info)| Self::of(partition, info)).collect()
    }
}

/// `GET /topics/{topic}`, with all of its settings, where Kafka tells them; secrets are null.
pub(super) async fn topic(
    context: &Context,
    caller: &Caller,
    name: &str,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    context.access.check(caller, name, &[Verb::Consume, Verb::Admin])?;
    let info = topic_info(context, name).await?;
    let configs = described_configs(context, name).await.unwrap_or_default().into_iter();
    let configs = configs.map(|config| (config.name, config.value.filter(|_| !config.sensitive))).collect();
    Ok(answer(headers, &Topic { name: info.name.to_string(), configs, partitions: Partition::all(&info) }))
}

/// `GET /topics/{topic}/partitions`
pub(super) async fn partitions(
    context: &Context,
    caller: &Caller,
    name: &str,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    context.access.check(caller, name, &[Verb::Consume, Verb::Admin])?;
    Ok(answer(headers, &Partition::all(&*topic_info(context, name).await?)))
}

/// `GET /topics/{topic}/partitions/{partition}`
pub(super) async fn partition(
    context: &Context,
    caller: &Caller,
    name: &str,
    partition: i32,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    context.access.check(caller, name, &[Verb::Consume, Verb::Admin])?;
    let info = topic_info(context, name).await?;
    let (index, info) = existing(&info, partition)?;
    Ok(answer(headers, &Partition::of(index, info)))
}

#[derive(Serialize)]
struct Offsets {
    beginning_offset: i64,
    end_offset: i64,
}

/// `GET /topics/{topic}/partitions/{partition}/offsets`
pub(super) async fn offsets(
    context: &Context,
    caller: &Caller,
    name: &str,
    partition: i32,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    context.access.check(caller, name, &[Verb::Consume, Verb::Admin])?;
    let info = topic_info(context, name).await?;
    existing(&info, partition)?;
    let (beginning, end) = tokio::try_join!(
        list_offset(context, &info, partition, OffsetSpec::Earliest, Isolation::ReadUncommitted),
        list_offset(context, &info, partition, OffsetSpec::Latest, Isolation::ReadUncommitted)
    )?;
    let (Some(beginning_offset), Some(end_offset)) = (beginning, end) else {
        return Err(ApiError::no_broker());
    };
    Ok(answer(headers, &Offsets { beginning_offset, end_offset }))
}

/// Strimzi's `POST /admin/topics`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicToCreate {
    topic_name: String,
    #[serde(default = "cluster_default")]
    partitions_count: i32,
    #[serde(default = "cluster_default")]
    replication_factor: i16,
    #[serde(default)]
    config: BTreeMap<String, String>,
}

fn cluster_default<N: From<i8>>() -> N {
    N::from(-1)
}

/// `POST /admin/topics`: 201.
pub(super) async fn create_topic(
    context: &Rc<Context>,
    caller: &Caller,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    // Who may create which topic is known when its name is: the body is small, and is bounded.
    let mut reader = context.body_reader(body, Grant::default());
    let delivery = context.pipeline.delivery(None, 1);
    let encoding = ContentEncoding::of(&head.headers)?;
    let limit = Limit { bytes: 64 * 1024, what: "the description of a topic" };
    limit.check_length(&head.headers, encoding)?;
    let body = WholeBody::read(context, &mut reader, encoding, &delivery, limit).await?;
    let wanted: TopicToCreate = body.parse(code::BAD_REQUEST)?;
    let name = checked_topic_name(&wanted.topic_name)?;
    context.access.check(caller, &name, &[Verb::Admin])?;
    let configs: Vec<(String, Option<String>)> =
        wanted.config.into_iter().map(|(name, value)| (name, Some(value))).collect();
    let topic = kafka_client::NewTopic {
        configs,
        ..kafka_client::NewTopic::new(name.clone(), wanted.partitions_count, wanted.replication_factor)
    };
    match tokio::time::timeout(PATIENCE, context.cluster.create_topic(&topic)).await {
        Err(_) => Err(ApiError::no_broker()),
        Ok(Err(error)) => Err(refused_creation(&name, &error)),
        Ok(Ok(())) => {
            let mut response = Response::new(ResponseBody::empty());
            *response.status_mut() = StatusCode::CREATED;
            Ok(response)
        }
    }
}

/// `GET /healthy`, `GET /ready`: 204 while the process serves and is not about to stop.
pub(super) fn health(context: &Context) -> Response {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() =
        if context.is_draining() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT };
    response
}

/// A partition that is there.
pub(super) fn existing(info: &TopicInfo, partition: i32) -> Result<(usize, &PartitionInfo), ApiError> {
    let index = usize::try_from(partition).ok();
    index.and_then(|index| Some((index, info.partitions.get(index)?))).ok_or_else(|| {
        let count = i32::try_from(info.partitions.len()).unwrap_or(i32::MAX);
        ApiError::no_partition(&info.name, partition, count)
    })
}

//! Topics, partitions, offsets and brokers.

use std::collections::BTreeMap;

use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, StatusCode};
use kafka_client::{OffsetSpec, PartitionInfo, TopicInfo};
use serde::Serialize;

use crate::config::Verb;
use crate::http::Context;
use crate::http::caller::Caller;
use crate::http::confluent::media::answer_type;
use crate::http::consume::list_offset;
use crate::http::error::ApiError;
use crate::http::respond::{Response, json};
use crate::http::topics::{ask, described_configs, topic_info};

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

/// `GET /brokers`: their ids. Whoever may see any topic may know them: each description of a topic names some.
pub(super) async fn brokers(context: &Context, caller: &Caller, headers: &HeaderMap) -> Result<Response, ApiError> {
    visible_topics(context, caller).await?;
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
        list_offset(context, &info, partition, OffsetSpec::Earliest),
        list_offset(context, &info, partition, OffsetSpec::Latest)
    )?;
    let (Some(beginning_offset), Some(end_offset)) = (beginning, end) else {
        return Err(ApiError::no_broker());
    };
    Ok(answer(headers, &Offsets { beginning_offset, end_offset }))
}

/// A partition that is there.
pub(super) fn existing(info: &TopicInfo, partition: i32) -> Result<(usize, &PartitionInfo), ApiError> {
    let index = usize::try_from(partition).ok();
    index.and_then(|index| Some((index, info.partitions.get(index)?))).ok_or_else(|| {
        let count = i32::try_from(info.partitions.len()).unwrap_or(i32::MAX);
        ApiError::no_partition(&info.name, partition, count)
    })
}

//! Topics, their partitions and replicas, and what is being moved.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};
use kafka_client::{NewTopic, PartitionInfo, Reassignment, TopicInfo};
use serde::{Deserialize, Serialize};

use super::clusters::check_broker;
use super::resource::{Links, Related, Resource, collection};
use super::{Asked, missing, no_content};
use crate::config::Verb;
use crate::http::error::{ApiError, code};
use crate::http::respond::{Response, json};
use crate::http::routes::topic_name;
use crate::http::topics::topic_info;

// ---- topics ----

#[derive(Serialize)]
struct TopicData {
    cluster_id: String,
    topic_name: String,
    is_internal: bool,
    replication_factor: usize,
    partitions_count: usize,
    partitions: Related,
    configs: Related,
    partition_reassignments: Related,
}

fn resource(links: &Links, name: &str, partitions: usize, replication: usize, internal: bool) -> Resource<TopicData> {
    let data = TopicData {
        cluster_id: links.cluster.clone(),
        topic_name: name.to_owned(),
        is_internal: internal,
        replication_factor: replication,
        partitions_count: partitions,
        partitions: links.related(&["topics", name, "partitions"]),
        configs: links.related(&["topics", name, "configs"]),
        partition_reassignments: links.related(&["topics", name, "partitions", "-", "reassignment"]),
    };
    Resource::new("KafkaTopic", links.url(&["topics", name]), links.name(&[("topic", name)]), data)
}

fn of_info(links: &Links, topic: &TopicInfo) -> Resource<TopicData> {
    let replication = topic.partitions.iter().map(|partition| partition.replicas.len()).max().unwrap_or(0);
    resource(links, &topic.name, topic.partitions.len(), replication, topic.internal)
}

/// All topics that the caller may see, as Kafka knows them now.
async fn visible(asked: &Asked<'_>) -> Result<Vec<Arc<TopicInfo>>, ApiError> {
    let mut topics = asked.ask("", asked.context.cluster.list_topics()).await?;
    topics.retain(|topic| asked.context.access.sees(asked.caller, &topic.name));
    Ok(topics)
}

pub(super) async fn list(asked: &Asked<'_>) -> Result<Response, ApiError> {
    let topics: Vec<_> = visible(asked).await?.iter().map(|topic| of_info(&asked.links, topic)).collect();
    Ok(collection("KafkaTopicList", asked.links.url(&["topics"]), &topics))
}

pub(super) async fn get(asked: &Asked<'_>, topic: &str) -> Result<Response, ApiError> {
    Ok(of_info(&asked.links, &*topic_info(asked.context, topic).await?).response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateTopic {
    topic_name: String,
    partitions_count: Option<i32>,
    replication_factor: Option<i16>,
    #[serde(default)]
    replicas_assignments: Vec<Assignment>,
    #[serde(default)]
    configs: Vec<Config>,
    #[serde(default)]
    validate_only: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Assignment {
    partition_id: i32,
    broker_ids: Vec<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    name: String,
    value: Option<String>,
}

/// 201 with the topic, and where it is; 200 where it was only looked at.
pub(super) async fn create(mut asked: Asked<'_>) -> Result<Response, ApiError> {
    let wanted: CreateTopic = asked.document().await?;
    let name = topic_name(&wanted.topic_name)?;
    asked.context.access.check(asked.caller, &name, &[Verb::Admin])?;
    if !wanted.replicas_assignments.is_empty() && (wanted.partitions_count, wanted.replication_factor) != (None, None) {
        return Err(ApiError::bad_request(
            "replicas_assignments goes without partitions_count and replication_factor: it says both",
        ));
    }
    let topic = NewTopic {
        assignments: wanted.replicas_assignments.into_iter().map(|of| (of.partition_id, of.broker_ids)).collect(),
        configs: wanted.configs.into_iter().map(|config| (config.name, config.value)).collect(),
        validate_only: wanted.validate_only,
        ..NewTopic::new(name, wanted.partitions_count.unwrap_or(-1), wanted.replication_factor.unwrap_or(-1))
    };
    asked.ask(&topic.name, asked.context.cluster.create_topic(&topic)).await?;
    let there = if topic.validate_only { None } else { topic_info(asked.context, &topic.name).await.ok() };
    let resource = match there {
        Some(info) => of_info(&asked.links, &info),
        // Looked at only, or not known to all brokers yet: what was asked for.
        None => {
            let assigned = topic.assignments.first().map_or(0, |(_, brokers)| brokers.len());
            let partitions = usize::try_from(topic.partitions).unwrap_or(topic.assignments.len());
            let replication = usize::try_from(topic.replication_factor).unwrap_or(assigned);
            resource(&asked.links, &topic.name, partitions, replication, false)
        }
    };
    let mut response = json(if topic.validate_only { StatusCode::OK } else { StatusCode::CREATED }, &resource);
    if let Ok(address) = HeaderValue::from_str(resource.address())
        && !topic.validate_only
    {
        response.headers_mut().insert(LOCATION, address);
    }
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrowTopic {
    partitions_count: i32,
}

/// Adds partitions.
pub(super) async fn grow(mut asked: Asked<'_>, topic: &str) -> Result<Response, ApiError> {
    let wanted: GrowTopic = asked.document().await?;
    asked.ask(topic, asked.context.cluster.create_partitions(topic, wanted.partitions_count)).await?;
    let info = topic_info(asked.context, topic).await?;
    let mut resource = of_info(&asked.links, &info);
    // The metadata may be a moment behind.
    resource.data.partitions_count = usize::try_from(wanted.partitions_count).unwrap_or(info.partitions.len());
    Ok(resource.response())
}

pub(super) async fn delete(asked: &Asked<'_>, topic: &str) -> Result<Response, ApiError> {
    asked.ask(topic, asked.context.cluster.delete_topic(topic)).await?;
    Ok(no_content())
}

// ---- partitions ----

#[derive(Serialize)]
struct PartitionData {
    cluster_id: String,
    topic_name: String,
    partition_id: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<Related>,
    replicas: Related,
    reassignment: Related,
}

fn partition_resource(links: &Links, topic: &str, partition: i32, info: &PartitionInfo) -> Resource<PartitionData> {
    let id = partition.to_string();
    let base = ["topics", topic, "partitions", &id];
    let leader = info.leader.map(|leader| leader.to_string());
    let data = PartitionData {
        cluster_id: links.cluster.clone(),
        topic_name: topic.to_owned(),
        partition_id: partition,
        leader: leader.map(|leader| links.related(&[&base[..], &["replicas", &leader]].concat())),
        replicas: links.related(&[&base[..], &["replicas"]].concat()),
        reassignment: links.related(&[&base[..], &["reassignment"]].concat()),
    };
    Resource::new("KafkaPartition", links.url(&base), links.name(&[("topic", topic), ("partition", &id)]), data)
}

fn numbered(topic: &TopicInfo) -> impl Iterator<Item = (i32, &PartitionInfo)> {
    (0..).zip(&topic.partitions)
}

pub(super) async fn partitions(asked: &Asked<'_>, topic: &str) -> Result<Response, ApiError> {
    let info = topic_info(asked.context, topic).await?;
    let data: Vec<_> = numbered(&info).map(|(id, info)| partition_resource(&asked.links, topic, id, info)).collect();
    Ok(collection("KafkaPartitionList", asked.links.url(&["topics", topic, "partitions"]), &data))
}

/// The partition of a topic that is there.
fn find(topic: &TopicInfo, partition: i32) -> Result<&PartitionInfo, ApiError> {
    let found = usize::try_from(partition).ok().and_then(|at| topic.partitions.get(at));
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    found.ok_or_else(|| ApiError::no_partition(&topic.name, partition, count))
}

pub(super) async fn partition(asked: &Asked<'_>, topic: &str, partition: i32) -> Result<Response, ApiError> {
    let info = topic_info(asked.context, topic).await?;
    Ok(partition_resource(&asked.links, topic, partition, find(&info, partition)?).response())
}

// ---- replicas ----

#[derive(Serialize)]
struct ReplicaData {
    cluster_id: String,
    topic_name: String,
    partition_id: i32,
    broker_id: i32,
    is_leader: bool,
    is_in_sync: bool,
    broker: Related,
}

fn replica_resource(
    links: &Links,
    topic: &str,
    partition: i32,
    info: &PartitionInfo,
    broker: i32,
) -> Resource<ReplicaData> {
    let (id, on) = (partition.to_string(), broker.to_string());
    let data = ReplicaData {
        cluster_id: links.cluster.clone(),
        topic_name: topic.to_owned(),
        partition_id: partition,
        broker_id: broker,
        is_leader: info.leader == Some(broker),
        is_in_sync: info.in_sync.contains(&broker),
        broker: links.related(&["brokers", &on]),
    };
    let address = links.url(&["topics", topic, "partitions", &id, "replicas", &on]);
    Resource::new("KafkaReplica", address, links.name(&[("topic", topic), ("partition", &id), ("replica", &on)]), data)
}

pub(super) async fn replicas(asked: &Asked<'_>, topic: &str, partition: i32) -> Result<Response, ApiError> {
    let info = topic_info(asked.context, topic).await?;
    let info = find(&info, partition)?;
    let of = |broker: &i32| replica_resource(&asked.links, topic, partition, info, *broker);
    let data: Vec<_> = info.replicas.iter().map(of).collect();
    let address = asked.links.url(&["topics", topic, "partitions", &partition.to_string(), "replicas"]);
    Ok(collection("KafkaReplicaList", address, &data))
}

pub(super) async fn replica(asked: &Asked<'_>, topic: &str, partition: i32, broker: i32) -> Result<Response, ApiError> {
    let info = topic_info(asked.context, topic).await?;
    let info = find(&info, partition)?;
    if !info.replicas.contains(&broker) {
        return Err(missing("Replica", &broker.to_string()));
    }
    Ok(replica_resource(&asked.links, topic, partition, info, broker).response())
}

/// Everything that a broker has a replica of.
pub(super) async fn replicas_of_broker(asked: &Asked<'_>, broker: i32) -> Result<Response, ApiError> {
    check_broker(asked, broker)?;
    let topics = visible(asked).await?;
    let partitions = topics.iter().flat_map(|topic| numbered(topic).map(move |(id, info)| (topic, id, info)));
    let data: Vec<_> = partitions
        .filter(|(_, _, info)| info.replicas.contains(&broker))
        .map(|(topic, id, info)| replica_resource(&asked.links, &topic.name, id, info, broker))
        .collect();
    let address = asked.links.url(&["brokers", &broker.to_string(), "partition-replicas"]);
    Ok(collection("KafkaReplicaList", address, &data))
}

// ---- reassignments ----

#[derive(Serialize)]
struct ReassignmentData {
    cluster_id: String,
    topic_name: String,
    partition_id: i32,
    adding_replicas: Vec<i32>,
    removing_replicas: Vec<i32>,
    replicas: Related,
}

fn reassignment_resource(links: &Links, topic: &str, moved: Reassignment) -> Resource<ReassignmentData> {
    let id = moved.partition.to_string();
    let data = ReassignmentData {
        cluster_id: links.cluster.clone(),
        topic_name: topic.to_owned(),
        partition_id: moved.partition,
        adding_replicas: moved.adding,
        removing_replicas: moved.removing,
        replicas: links.related(&["topics", topic, "partitions", &id, "replicas"]),
    };
    let name = links.name(&[("topic", topic), ("partition", &id), ("reassignment", "")]);
    Resource::new("KafkaReassignment", links.url(&["topics", topic, "partitions", &id, "reassignment"]), name, data)
}

pub(super) async fn all_reassignments(asked: &Asked<'_>) -> Result<Response, ApiError> {
    let topics = asked.ask("", asked.context.cluster.list_reassignments(None)).await?;
    let data: Vec<_> = topics
        .into_iter()
        .filter(|(topic, _)| asked.context.access.sees(asked.caller, topic))
        .flat_map(|(topic, moved)| moved.into_iter().map(move |moved| (topic.clone(), moved)))
        .map(|(topic, moved)| reassignment_resource(&asked.links, &topic, moved))
        .collect();
    let address = asked.links.url(&["topics", "-", "partitions", "-", "reassignment"]);
    Ok(collection("KafkaReassignmentList", address, &data))
}

/// What of these partitions is being moved.
async fn moved(asked: &Asked<'_>, topic: &str, partitions: &[i32]) -> Result<Vec<Reassignment>, ApiError> {
    let topics = asked.ask(topic, asked.context.cluster.list_reassignments(Some((topic, partitions)))).await?;
    Ok(topics.into_iter().filter(|(name, _)| **name == *topic).flat_map(|(_, moved)| moved).collect())
}

pub(super) async fn reassignments(asked: &Asked<'_>, topic: &str) -> Result<Response, ApiError> {
    let info = topic_info(asked.context, topic).await?;
    let partitions: Vec<i32> = numbered(&info).map(|(id, _)| id).collect();
    let moved = moved(asked, topic, &partitions).await?;
    let data: Vec<_> = moved.into_iter().map(|moved| reassignment_resource(&asked.links, topic, moved)).collect();
    let address = asked.links.url(&["topics", topic, "partitions", "-", "reassignment"]);
    Ok(collection("KafkaReassignmentList", address, &data))
}

pub(super) async fn reassignment(asked: &Asked<'_>, topic: &str, partition: i32) -> Result<Response, ApiError> {
    let info = topic_info(asked.context, topic).await?;
    find(&info, partition)?;
    let moved = moved(asked, topic, &[partition]).await?.into_iter().next();
    let moved = moved.ok_or_else(|| {
        ApiError::new(code::NOT_FOUND, format!("Partition {partition} of {topic} is not being reassigned."))
    })?;
    Ok(reassignment_resource(&asked.links, topic, moved).response())
}

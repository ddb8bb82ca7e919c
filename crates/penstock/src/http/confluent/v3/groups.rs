//! Consumer groups, their members, what these read, and how far they are behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kafka_client::{DescribedGroup, DescribedMember, ErrorCode, Isolation, OffsetSpec};
use serde::Serialize;

use super::resource::{Links, Related, Resource, collection};
use super::{Asked, GroupCall, in_confluents_words, missing};
use crate::http::error::{ApiError, code};
use crate::http::respond::Response;
use crate::http::topics::topic_info;

/// Confluent's number for a group that is not there.
const NO_GROUP: u32 = 40405;

// ---- groups ----

#[derive(Serialize)]
struct GroupData {
    cluster_id: String,
    consumer_group_id: String,
    is_simple: bool,
    partition_assignor: String,
    state: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    is_mixed_consumer_group: bool,
    coordinator: Related,
    consumers: Related,
    lag_summary: Related,
}

fn resource(links: &Links, coordinator: i32, group: &DescribedGroup) -> Resource<GroupData> {
    let id = &*group.id;
    let data = GroupData {
        cluster_id: links.cluster.clone(),
        consumer_group_id: id.to_owned(),
        is_simple: group.protocol_type.is_empty(),
        partition_assignor: group.protocol.to_string(),
        state: state(&group.state),
        kind: "CLASSIC",
        is_mixed_consumer_group: false,
        coordinator: links.related(&["brokers", &coordinator.to_string()]),
        consumers: links.related(&["consumer-groups", id, "consumers"]),
        lag_summary: links.related(&["consumer-groups", id, "lag-summary"]),
    };
    let name = links.name(&[("consumer-group", id)]);
    Resource::new("KafkaConsumerGroup", links.url(&["consumer-groups", id]), name, data)
}

/// Kafka's name of a state in Confluent's spelling.
fn state(kafka: &str) -> &'static str {
    match kafka {
        "PreparingRebalance" => "PREPARING_REBALANCE",
        "CompletingRebalance" => "COMPLETING_REBALANCE",
        "Stable" => "STABLE",
        "Dead" => "DEAD",
        "Empty" => "EMPTY",
        _ => "UNKNOWN",
    }
}

/// Those of consumers that the caller may see.
pub(super) async fn list(asked: &Asked<'_>) -> Result<Response, ApiError> {
    let cluster = &asked.context.cluster;
    let mut by_coordinator: BTreeMap<i32, Vec<Arc<str>>> = BTreeMap::new();
    for (coordinator, group) in asked.ask("", cluster.list_groups()).await? {
        let of_consumers = matches!(&*group.protocol_type, "" | "consumer");
        // Groups of KIP-848's protocol are described by another request, which brokers before 4.0 do not have.
        let is_classic = group.kind.as_deref().is_none_or(|kind| kind == "classic");
        if of_consumers && is_classic && asked.context.access.sees_group(asked.caller, &group.id) {
            by_coordinator.entry(coordinator).or_default().push(group.id);
        }
    }
    let mut data = Vec::new();
    for (coordinator, ids) in by_coordinator {
        let groups = asked.ask("", cluster.describe_groups(coordinator, &ids)).await?;
        data.extend(groups.iter().map(|group| resource(&asked.links, coordinator, group)));
    }
    data.sort_unstable_by(|a, b| a.data.consumer_group_id.cmp(&b.data.consumer_group_id));
    Ok(collection("KafkaConsumerGroupList", asked.links.url(&["consumer-groups"]), &data))
}

/// Whatever is asked of one group.
pub(super) async fn run(asked: &Asked<'_>, group: &str, call: GroupCall) -> Result<Response, ApiError> {
    let (coordinator, described) = describe(asked, group).await?;
    let links = &asked.links;
    match call {
        GroupCall::Get => Ok(resource(links, coordinator, &described).response()),
        GroupCall::ListConsumers => {
            let data: Vec<_> = described.members.iter().map(|member| consumer(links, group, member)).collect();
            Ok(collection("KafkaConsumerList", links.url(&["consumer-groups", group, "consumers"]), &data))
        }
        GroupCall::GetConsumer(id) => Ok(consumer(links, group, find(&described, &id)?).response()),
        GroupCall::ListAssignments(id) => {
            let assigned = assigned(find(&described, &id)?)?;
            let data: Vec<_> =
                assigned.iter().map(|(topic, partition)| assignment(links, group, &id, topic, *partition)).collect();
            let address = links.url(&["consumer-groups", group, "consumers", &id, "assignments"]);
            Ok(collection("KafkaConsumerAssignmentList", address, &data))
        }
        GroupCall::GetAssignment(id, topic, partition) => {
            let assigned = assigned(find(&described, &id)?)?;
            if !assigned.iter().any(|(name, number)| **name == *topic && *number == partition) {
                return Err(missing("Assignment", &format!("{topic}-{partition}")));
            }
            Ok(assignment(links, group, &id, &topic, partition).response())
        }
        GroupCall::ListLags => {
            let data: Vec<_> =
                lags(asked, &described).await?.into_iter().map(|lag| lag_resource(links, group, lag)).collect();
            Ok(collection("KafkaConsumerLagList", links.url(&["consumer-groups", group, "lags"]), &data))
        }
        GroupCall::GetLag(topic, partition) => {
            let lags = lags(asked, &described).await?;
            let lag = lags.into_iter().find(|lag| lag.topic_name == topic && lag.partition_id == partition);
            let lag = lag.ok_or_else(|| missing("Lag", &format!("{topic}-{partition}")))?;
            Ok(lag_resource(links, group, lag).response())
        }
        GroupCall::LagSummary => summary(links, group, lags(asked, &described).await?),
    }
}

async fn describe(asked: &Asked<'_>, group: &str) -> Result<(i32, DescribedGroup), ApiError> {
    let no_group = || ApiError::new(NO_GROUP, format!("Consumer group {} cannot be found.", group.escape_debug()));
    let question = async {
        match asked.context.cluster.describe_group(group).await {
            Err(error) if error.code() == Some(ErrorCode::GROUP_ID_NOT_FOUND) => Ok(None),
            other => other.map(Some),
        }
    };
    match asked.ask("", question).await? {
        Some((_, described)) if &*described.state == "Dead" => Err(no_group()),
        Some(found) => Ok(found),
        None => Err(no_group()),
    }
}

// ---- members ----

#[derive(Serialize)]
struct ConsumerData {
    cluster_id: String,
    consumer_group_id: String,
    consumer_id: String,
    instance_id: Option<String>,
    client_id: String,
    assignments: Related,
}

fn consumer(links: &Links, group: &str, member: &DescribedMember) -> Resource<ConsumerData> {
    let id = &*member.id;
    let data = ConsumerData {
        cluster_id: links.cluster.clone(),
        consumer_group_id: group.to_owned(),
        consumer_id: id.to_owned(),
        instance_id: member.instance_id.as_deref().map(ToOwned::to_owned),
        client_id: member.client_id.to_string(),
        assignments: links.related(&["consumer-groups", group, "consumers", id, "assignments"]),
    };
    let name = links.name(&[("consumer-group", group), ("consumer", id)]);
    Resource::new("KafkaConsumer", links.url(&["consumer-groups", group, "consumers", id]), name, data)
}

fn find<'a>(group: &'a DescribedGroup, id: &str) -> Result<&'a DescribedMember, ApiError> {
    group.members.iter().find(|member| &*member.id == id).ok_or_else(|| missing("Consumer", id))
}

/// What a member reads, in order.
fn assigned(member: &DescribedMember) -> Result<Vec<(Arc<str>, i32)>, ApiError> {
    let assigned = member.assigned().map_err(|error| {
        ApiError::new(code::RECORD_REJECTED, format!("the assignment of {} cannot be read: {error}", member.id))
    })?;
    let mut partitions: Vec<_> = assigned
        .into_iter()
        .flat_map(|(topic, partitions)| partitions.into_iter().map(move |partition| (topic.clone(), partition)))
        .collect();
    partitions.sort_unstable();
    Ok(partitions)
}

#[derive(Serialize)]
struct AssignmentData {
    cluster_id: String,
    consumer_group_id: String,
    consumer_id: String,
    topic_name: String,
    partition_id: i32,
    partition: Related,
    lag: Related,
}

fn assignment(links: &Links, group: &str, consumer: &str, topic: &str, partition: i32) -> Resource<AssignmentData> {
    let number = partition.to_string();
    let data = AssignmentData {
        cluster_id: links.cluster.clone(),
        consumer_group_id: group.to_owned(),
        consumer_id: consumer.to_owned(),
        topic_name: topic.to_owned(),
        partition_id: partition,
        partition: links.related(&["topics", topic, "partitions", &number]),
        lag: links.related(&["consumer-groups", group, "lags", topic, "partitions", &number]),
    };
    let address =
        links.url(&["consumer-groups", group, "consumers", consumer, "assignments", topic, "partitions", &number]);
    let parts =
        [("consumer-group", group), ("consumer", consumer), ("assignment", topic), ("partition", number.as_str())];
    Resource::new("KafkaConsumerAssignment", address, links.name(&parts), data)
}

// ---- lags ----

#[derive(Serialize)]
struct LagData {
    cluster_id: String,
    consumer_group_id: String,
    topic_name: String,
    partition_id: i32,
    /// Empty where nobody reads the partition now.
    consumer_id: String,
    instance_id: Option<String>,
    client_id: String,
    current_offset: i64,
    log_end_offset: i64,
    lag: i64,
}

/// Of every partition that the group has committed an offset of, by topic and partition. A topic that is gone has none.
async fn lags(asked: &Asked<'_>, group: &DescribedGroup) -> Result<Vec<LagData>, ApiError> {
    let cluster = &asked.context.cluster;
    let mut members = HashMap::new();
    for member in &group.members {
        // A member that cannot be read is still behind in what it has committed.
        for partition in assigned(member).unwrap_or_default() {
            members.insert(partition, member);
        }
    }
    let mut offsets = asked.ask("", cluster.group_offsets(&group.id, None)).await?;
    offsets.sort_unstable_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    let mut topics = HashMap::new();
    for offset in &offsets {
        if !topics.contains_key(&offset.topic) {
            let found = match topic_info(asked.context, &offset.topic).await {
                Ok(topic) => Some(topic),
                Err(error) if error.code == code::NO_TOPIC => None,
                Err(error) => return Err(in_confluents_words(error)),
            };
            topics.insert(offset.topic.clone(), found);
        }
    }
    let there: Vec<_> = offsets
        .iter()
        .filter_map(|offset| {
            let topic = topics.get(&offset.topic)?.as_ref()?;
            usize::try_from(offset.partition).is_ok_and(|at| at < topic.partitions.len()).then_some((offset, topic))
        })
        .collect();
    let wanted: Vec<_> =
        there.iter().map(|(offset, topic)| (&***topic, offset.partition, OffsetSpec::Latest)).collect();
    let ends = asked.ask("", async { Ok(cluster.list_offsets(&wanted, Isolation::ReadUncommitted).await) }).await?;
    let mut lags = Vec::with_capacity(there.len());
    for ((offset, _), end) in there.into_iter().zip(ends) {
        let end = asked.ask(&offset.topic, async { end }).await?.offset.unwrap_or_default();
        let member = members.get(&(offset.topic.clone(), offset.partition));
        lags.push(LagData {
            cluster_id: asked.links.cluster.clone(),
            consumer_group_id: group.id.to_string(),
            topic_name: offset.topic.to_string(),
            partition_id: offset.partition,
            consumer_id: member.map(|member| member.id.to_string()).unwrap_or_default(),
            instance_id: member.and_then(|member| member.instance_id.as_deref()).map(ToOwned::to_owned),
            client_id: member.map(|member| member.client_id.to_string()).unwrap_or_default(),
            current_offset: offset.offset,
            log_end_offset: end,
            lag: end - offset.offset,
        });
    }
    Ok(lags)
}

fn lag_resource(links: &Links, group: &str, lag: LagData) -> Resource<LagData> {
    let (topic, number) = (&*lag.topic_name, lag.partition_id.to_string());
    let name = links.name(&[("consumer-group", group), ("lag", topic), ("partition", &number)]);
    let address = links.url(&["consumer-groups", group, "lags", topic, "partitions", &number]);
    Resource::new("KafkaConsumerLag", address, name, lag)
}

#[derive(Serialize)]
struct LagSummary {
    cluster_id: String,
    consumer_group_id: String,
    max_lag_consumer_id: String,
    max_lag_instance_id: Option<String>,
    max_lag_client_id: String,
    max_lag_topic_name: String,
    max_lag_partition_id: i32,
    max_lag: i64,
    total_lag: i64,
    max_lag_consumer: Related,
    max_lag_partition: Related,
}

/// 404 for a group that has committed nothing: nothing of it is the largest.
fn summary(links: &Links, group: &str, lags: Vec<LagData>) -> Result<Response, ApiError> {
    let total = lags.iter().map(|lag| lag.lag).sum();
    // The first of the largest, so that the answer is the same every time.
    let max = lags.into_iter().reduce(|max, lag| if lag.lag > max.lag { lag } else { max });
    let max = max.ok_or_else(|| missing("Lag summary", group))?;
    let data = LagSummary {
        cluster_id: links.cluster.clone(),
        consumer_group_id: group.to_owned(),
        max_lag_consumer: links.related(&["consumer-groups", group, "consumers", &max.consumer_id]),
        max_lag_partition: links.related(&["topics", &max.topic_name, "partitions", &max.partition_id.to_string()]),
        max_lag_consumer_id: max.consumer_id,
        max_lag_instance_id: max.instance_id,
        max_lag_client_id: max.client_id,
        max_lag_topic_name: max.topic_name,
        max_lag_partition_id: max.partition_id,
        max_lag: max.lag,
        total_lag: total,
    };
    let name = links.name(&[("consumer-group", group), ("lag-summary", "")]);
    Ok(Resource::new("KafkaConsumerGroupLagSummary", links.url(&["consumer-groups", group, "lag-summary"]), name, data)
        .response())
}

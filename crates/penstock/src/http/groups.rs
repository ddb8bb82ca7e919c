//! `/v1/groups/{group}/offsets` and `/v1/groups/{group}/lag`: how far a group has read.
//!
//! Brokers take offsets of a group that has members from these alone. So an offset goes in the name of the member that
//! reads the partition, here or in another bridge of the fleet; without one, in nobody's, which works while the group has no
//! members at all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hyper::{Request, StatusCode};
use kafka_client::{Consumer, ConsumerError, Error, ErrorCode, GroupOffset, Isolation, OffsetSpec, TopicInfo};
use serde::{Deserialize, Serialize};

use super::Context;
use super::access::Resource;
use super::caller::Caller;
use super::content_encoding::ContentEncoding;
use super::error::{ApiError, code};
use super::fleet;
use super::params::Query;
use super::respond::{self, Response};
use super::whole_body::{self, Limit, WholeBody};
use crate::config::Verb;
use crate::http1::Body;

/// A list of offsets.
const BODY: Limit = Limit { bytes: 1 << 20, what: "a list of offsets" };
/// Kafka keeps a group's name in a string of 16 bits; nobody needs nearly as much.
const GROUP_NAME_BYTES: usize = 1024;

/// Members of groups in this process, by group: shared by all workers, touched when a stream begins, ends or commits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Groups(Arc<Mutex<Members>>);

type Members = HashMap<Arc<str>, Vec<Weak<Consumer>>>;

/// A member's entry, taken out when this is dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    groups: Groups,
    group: Arc<str>,
    consumer: Weak<Consumer>,
}

impl Groups {
    /// Has a member found by its group's name while the result lives.
    pub(crate) fn register(&self, group: Arc<str>, consumer: &Arc<Consumer>) -> Registered {
        let consumer = Arc::downgrade(consumer);
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        groups.entry(group.clone()).or_default().push(consumer.clone());
        drop(groups);
        Registered { groups: self.clone(), group, consumer }
    }

    fn members(&self, group: &str) -> Vec<Arc<Consumer>> {
        let groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        groups.get(group).into_iter().flatten().filter_map(Weak::upgrade).collect()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut groups = self.groups.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(members) = groups.get_mut(&self.group) {
            members.retain(|member| !member.ptr_eq(&self.consumer));
            if members.is_empty() {
                groups.remove(&self.group);
            }
        }
    }
}

/// Refuses what Kafka cannot take for a group's name.
pub(crate) fn check_group_name(name: &str) -> Result<(), ApiError> {
    if name.is_empty() || name.len() > GROUP_NAME_BYTES || name.chars().any(char::is_control) {
        let message = format!("a group's name is 1 to {GROUP_NAME_BYTES} bytes without control characters");
        return Err(ApiError::bad_request(message));
    }
    Ok(())
}

#[derive(Serialize)]
struct OffsetsBody<'a> {
    group: &'a str,
    offsets: Vec<OffsetBody<'a>>,
}

#[derive(Serialize)]
struct OffsetBody<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
}

#[derive(Serialize)]
struct LagBody<'a> {
    group: &'a str,
    total_lag: i64,
    partitions: Vec<PartitionLag<'a>>,
}

#[derive(Serialize)]
struct PartitionLag<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    end_offset: i64,
    lag: i64,
}

/// What is committed, of the topics that the caller may know of.
async fn committed(
    context: &Context,
    caller: &Caller,
    group: &Arc<str>,
    query: Option<&str>,
) -> Result<Vec<GroupOffset>, ApiError> {
    context.access.check_group(caller, group, &[Verb::Consume])?;
    Query::parse(query)?.finish()?;
    let offsets = context.cluster.group_offsets(group, None).await;
    let mut offsets = offsets.map_err(|error| ApiError::of_client("", &error))?;
    offsets.retain(|offset| context.access.sees(caller, &offset.topic));
    offsets.sort_unstable_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok(offsets)
}

/// `GET /v1/groups/{group}/offsets`
pub(crate) async fn offsets(
    context: &Context,
    caller: &Caller,
    group: &str,
    query: Option<&str>,
) -> Result<Response, ApiError> {
    let group: Arc<str> = group.into();
    let committed = committed(context, caller, &group, query).await?;
    let offsets = committed.iter().map(|offset| OffsetBody {
        topic: &offset.topic,
        partition: offset.partition,
        offset: offset.offset,
        metadata: offset.metadata.as_deref(),
    });
    Ok(respond::json(StatusCode::OK, &OffsetsBody { group: &group, offsets: offsets.collect() }))
}

/// `GET /v1/groups/{group}/lag`: how many records lie between the committed offsets and the ends. Partitions that are not
/// there any more are left out.
pub(crate) async fn lag(
    context: &Context,
    caller: &Caller,
    group: &str,
    query: Option<&str>,
) -> Result<Response, ApiError> {
    let group: Arc<str> = group.into();
    let committed = committed(context, caller, &group, query).await?;
    let mut topics: BTreeMap<&str, Option<Arc<TopicInfo>>> = BTreeMap::new();
    for offset in &committed {
        if !topics.contains_key(&*offset.topic) {
            topics.insert(&offset.topic, context.cluster.topic(&offset.topic).await.ok());
        }
    }
    let known: Vec<_> = committed
        .iter()
        .filter_map(|offset| {
            let topic = topics.get(&*offset.topic)?.as_ref()?;
            let exists = usize::try_from(offset.partition).is_ok_and(|index| index < topic.partitions.len());
            exists.then_some((offset, &**topic))
        })
        .collect();
    let wanted: Vec<_> = known.iter().map(|(o, topic)| (*topic, o.partition, OffsetSpec::Latest)).collect();
    let ends = context.cluster.list_offsets(&wanted, Isolation::ReadUncommitted).await;
    let mut body = LagBody { group: &group, total_lag: 0, partitions: Vec::with_capacity(known.len()) };
    for ((offset, _), end) in known.into_iter().zip(ends) {
        let end = match end {
            Ok(end) => end.offset.unwrap_or(offset.offset),
            Err(error) if error.code() == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => continue,
            Err(error) => return Err(ApiError::of_client(&offset.topic, &error)),
        };
        let lag = (end - offset.offset).max(0);
        body.total_lag += lag;
        body.partitions.push(PartitionLag {
            topic: &offset.topic,
            partition: offset.partition,
            offset: offset.offset,
            end_offset: end,
            lag,
        });
    }
    Ok(respond::json(StatusCode::OK, &body))
}

/// What a client asks for, and one bridge of another.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitBody {
    offsets: Vec<CommitOffset>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitOffset {
    topic: String,
    partition: i32,
    /// The next offset to read.
    offset: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
}

/// What a bridge answers another: by their places in the list, what its members have committed.
#[derive(Default, Serialize, Deserialize)]
struct CommittedBody {
    committed: Vec<usize>,
}

/// `POST /v1/groups/{group}/offsets`
pub(crate) async fn commit(
    context: &Rc<Context>,
    caller: &Caller,
    group: &str,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let grant = context.access.check_group(caller, group, &[Verb::Consume])?;
    Query::parse(request.uri().query())?.finish()?;
    let encoding = ContentEncoding::of(request.headers())?;
    BODY.check_length(request.headers(), encoding)?;
    let delivery = context.pipeline.delivery(None, 1);
    let mut reader = context.body_reader(request.into_body(), grant);
    let body = WholeBody::read(context, &mut reader, encoding, &delivery, BODY).await?;
    let offsets = permitted(context, caller, body.parse(code::BAD_REQUEST)?)?;
    let group: Arc<str> = group.into();
    // By the member that reads the partition; what is left, in nobody's name.
    let mut left = commit_here(context, &group, offsets).await?;
    if let Some(fleet) = &context.fleet
        && !left.is_empty()
    {
        left = match fleet::commit(context, fleet, caller, &group, left).await {
            Ok(left) => left,
            Err(refusal) => return Ok(refusal),
        };
    }
    if !left.is_empty() {
        let committed = context.cluster.commit_group_offsets(&group, None, &left).await;
        committed.map_err(|error| refused(&group, &error.into()))?;
    }
    let mut response = Response::new(crate::http1::ResponseBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Offsets that another bridge has no member for. What members here have committed of them is the answer.
pub(super) async fn handed_on(
    context: &Context,
    caller: &Caller,
    group: &str,
    body: &[u8],
) -> Result<Response, ApiError> {
    // The other bridge counted it already.
    context.access.permit(caller, Resource::Group(group), &[Verb::Consume])?;
    let offsets = permitted(context, caller, whole_body::parse_object(body, code::BAD_REQUEST)?)?;
    let left = commit_here(context, &group.into(), offsets.clone()).await?;
    let left: HashSet<(&str, i32)> = left.iter().map(|offset| (&*offset.topic, offset.partition)).collect();
    let is_committed = |offset: &GroupOffset| !left.contains(&(&*offset.topic, offset.partition));
    let committed = (0..).zip(&offsets).filter(|(_, offset)| is_committed(offset)).map(|(index, _)| index);
    Ok(respond::json(StatusCode::OK, &CommittedBody { committed: committed.collect() }))
}

/// What [`handed_on`] takes.
pub(super) fn encode(offsets: &[GroupOffset]) -> Vec<u8> {
    let offsets = offsets.iter().map(|offset| CommitOffset {
        topic: offset.topic.to_string(),
        partition: offset.partition,
        offset: offset.offset,
        metadata: offset.metadata.as_deref().map(str::to_owned),
    });
    respond::json_line(&CommitBody { offsets: offsets.collect() })
}

/// What [`handed_on`] answered; nothing, if that is not understood.
pub(super) fn committed_of(answer: &[u8]) -> Vec<usize> {
    serde_json::from_slice::<CommittedBody>(answer).unwrap_or_default().committed
}

/// The offsets of a body whose topics the caller may read.
fn permitted(context: &Context, caller: &Caller, asked: CommitBody) -> Result<Vec<GroupOffset>, ApiError> {
    let mut offsets: Vec<GroupOffset> = Vec::with_capacity(asked.offsets.len());
    for one in asked.offsets {
        context.access.permit(caller, Resource::Topic(&one.topic), &[Verb::Consume])?;
        if one.partition < 0 || one.offset < 0 {
            return Err(ApiError::bad_request("partitions and offsets are numbers from 0 on"));
        }
        offsets.push(GroupOffset {
            topic: one.topic.into(),
            partition: one.partition,
            offset: one.offset,
            leader_epoch: -1,
            metadata: one.metadata.map(Into::into),
        });
    }
    Ok(offsets)
}

/// Commits what members here read; returns the others.
async fn commit_here(
    context: &Context,
    group: &Arc<str>,
    mut offsets: Vec<GroupOffset>,
) -> Result<Vec<GroupOffset>, ApiError> {
    for member in context.groups.members(group) {
        let assigned = member.assignment();
        let of_member = |offset: &GroupOffset| {
            assigned.iter().any(|(topic, partition)| *topic == offset.topic && *partition == offset.partition)
        };
        let (its, others): (Vec<_>, Vec<_>) = offsets.into_iter().partition(of_member);
        offsets = others;
        if !its.is_empty() {
            match member.commit(&its).await {
                Ok(()) => {}
                // It went to another member meanwhile.
                Err(ConsumerError::NotAssigned(..)) => offsets.extend(its),
                Err(error) => return Err(refused(group, &error)),
            }
        }
    }
    Ok(offsets)
}

fn refused(group: &str, error: &ConsumerError) -> ApiError {
    let client: &Error = match error {
        ConsumerError::Client(error) | ConsumerError::Fatal(error) => error,
        other => return ApiError::new(code::CONFLICT, other.to_string()),
    };
    match client.code() {
        Some(ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::ILLEGAL_GENERATION | ErrorCode::REBALANCE_IN_PROGRESS) => {
            ApiError::new(
                code::CONFLICT,
                format!(
                    "group {group} has members, and those that read these partitions are none of this instance's, nor of \
                     its peers' (fleet.peers), or the group rebalances: Kafka takes their offsets from them alone. Try \
                     again, or let the stream commit by itself (commit=delivered)"
                ),
            )
        }
        Some(ErrorCode::INVALID_GROUP_ID) => ApiError::bad_request(format!("Kafka refuses the group's name {group:?}")),
        _ => ApiError::of_client("", client),
    }
}

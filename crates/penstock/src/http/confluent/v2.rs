//! Version 2: `/topics`, `/brokers`, `/consumers`.
//!
//! * [`produce`]: records of a JSON document into a topic
//! * [`metadata`]: topics, partitions, offsets, brokers
//! * [`consumers`]: instances, and every call for one; [`instances`] has their lives, [`records`] their answers

mod consumers;
mod instances;
mod metadata;
mod pattern;
mod produce;
mod records;

use std::future::Future;
use std::rc::Rc;

use hyper::{Method, Request};

pub(crate) use consumers::{Asked, COMMAND, Call, handed_on};
pub(crate) use instances::Consumers;

use crate::config::Dialect;
use crate::http::Context;
use crate::http::caller::Caller;
use crate::http::error::ApiError;
use crate::http::respond::{self, Response};
use crate::http::routes::{no_route, partition_number, percent_decode, topic_name};
use crate::http1::Body;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `GET /`, `POST /`
    Root,
    /// `GET /brokers`
    ListBrokers,
    /// `GET /topics`
    ListTopics,
    /// `GET /topics/{topic}`
    DescribeTopic(String),
    /// `POST /topics/{topic}`, `POST /topics/{topic}/partitions/{partition}`
    Produce(String, Option<i32>),
    /// `GET /topics/{topic}/partitions`
    ListPartitions(String),
    /// `GET /topics/{topic}/partitions/{partition}`
    DescribePartition(String, i32),
    /// `GET /topics/{topic}/partitions/{partition}/offsets`
    PartitionOffsets(String, i32),
    /// `POST /consumers/{group}`
    CreateConsumer(String),
    /// `/consumers/{group}/instances/{instance}` and what is below it.
    Consumer { group: String, instance: String, call: Call },
    /// `POST /admin/topics`, Strimzi's.
    CreateTopic,
    /// `GET /healthy`, `GET /ready`, Strimzi's.
    Health,
}

impl Operation {
    /// What metrics and logs call it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Root => "v2_root",
            Self::ListBrokers => "v2_list_brokers",
            Self::ListTopics => "v2_list_topics",
            Self::DescribeTopic(_) => "v2_describe_topic",
            Self::Produce(_, None) => "v2_produce",
            Self::Produce(_, Some(_)) => "v2_produce_to_partition",
            Self::ListPartitions(_) => "v2_list_partitions",
            Self::DescribePartition(..) => "v2_describe_partition",
            Self::PartitionOffsets(..) => "v2_partition_offsets",
            Self::CreateConsumer(_) => "v2_create_consumer",
            Self::Consumer { call, .. } => call.name(),
            Self::CreateTopic => "v2_create_topic",
            Self::Health => "v2_health",
        }
    }

    /// Finds the operation of a path that was cut at its slashes. The paths of this version have none in common with
    /// others.
    pub(crate) fn find(method: &Method, segments: &[&str]) -> Result<Self, ApiError> {
        let get = method == Method::GET || method == Method::HEAD;
        let post = method == Method::POST;
        let delete = method == Method::DELETE;
        // The original takes a slash at the end, and some clients write one.
        let segments = match segments {
            [rest @ .., ""] if !rest.is_empty() => rest,
            all => all,
        };
        match segments {
            ["consumers", group] if post => Ok(Self::CreateConsumer(text(group)?)),
            ["consumers", _] => Err(ApiError::bad_method("POST")),
            ["consumers", group, "instances", instance, rest @ ..] => {
                let call = match rest {
                    [] if delete => Call::Delete,
                    [] => return Err(ApiError::bad_method("DELETE")),
                    ["subscription"] if post => Call::Subscribe,
                    ["subscription"] if get => Call::Subscription,
                    ["subscription"] if delete => Call::Unsubscribe,
                    ["subscription"] => return Err(ApiError::bad_method("GET, HEAD, POST, DELETE")),
                    ["assignments"] if post => Call::Assign,
                    ["assignments"] if get => Call::Assignments,
                    ["offsets"] if post => Call::Commit,
                    ["offsets"] if get => Call::Committed,
                    ["assignments" | "offsets"] => return Err(ApiError::bad_method("GET, HEAD, POST")),
                    ["positions"] if post => Call::Seek,
                    ["positions", "beginning"] if post => Call::SeekToBeginning,
                    ["positions", "end"] if post => Call::SeekToEnd,
                    ["positions"] | ["positions", "beginning" | "end"] => return Err(ApiError::bad_method("POST")),
                    // A record is handed out by the read that is answered with it: HEAD is none.
                    ["records"] if method == Method::GET => Call::Records,
                    ["topics", topic] if method == Method::GET => Call::TopicRecords(topic_name(topic)?),
                    ["records"] | ["topics", _] => return Err(ApiError::bad_method("GET")),
                    _ => return Err(no_route()),
                };
                Ok(Self::Consumer { group: text(group)?, instance: text(instance)?, call })
            }
            ["admin", "topics"] if post => Ok(Self::CreateTopic),
            ["admin", "topics"] => Err(ApiError::bad_method("POST")),
            ["healthy" | "ready"] if get => Ok(Self::Health),
            ["healthy" | "ready"] => Err(ApiError::bad_method("GET, HEAD")),
            [""] if get || post => Ok(Self::Root),
            [""] => Err(ApiError::bad_method("GET, HEAD, POST")),
            ["brokers"] if get => Ok(Self::ListBrokers),
            ["topics"] if get => Ok(Self::ListTopics),
            ["topics", topic] if get => Ok(Self::DescribeTopic(topic_name(topic)?)),
            ["topics", topic] if post => Ok(Self::Produce(topic_name(topic)?, None)),
            ["topics", topic, "partitions"] if get => Ok(Self::ListPartitions(topic_name(topic)?)),
            ["topics", topic, "partitions", partition] if get => {
                Ok(Self::DescribePartition(topic_name(topic)?, partition_number(partition)?))
            }
            ["topics", topic, "partitions", partition] if post => {
                Ok(Self::Produce(topic_name(topic)?, Some(partition_number(partition)?)))
            }
            ["topics", topic, "partitions", partition, "offsets"] if get => {
                Ok(Self::PartitionOffsets(topic_name(topic)?, partition_number(partition)?))
            }
            ["topics", _] | ["topics", _, "partitions", _] => Err(ApiError::bad_method("GET, HEAD, POST")),
            ["brokers" | "topics"] | ["topics", _, "partitions"] | ["topics", _, "partitions", _, "offsets"] => {
                Err(ApiError::bad_method("GET, HEAD"))
            }
            _ => Err(no_route()),
        }
    }
}

/// A group's or an instance's name.
fn text(segment: &str) -> Result<String, ApiError> {
    match percent_decode(segment, false) {
        Some(name) if (1..=NAME_BYTES).contains(&name.len()) => Ok(name.into_owned()),
        _ => Err(ApiError::bad_request(format!("a name is 1 to {NAME_BYTES} bytes of percent-encoded UTF-8"))),
    }
}

/// Bytes of a name in a path: an instance's with its owner's mark.
const NAME_BYTES: usize = 512;

/// Answers a request of this version.
pub(crate) async fn run(
    context: &Rc<Context>,
    caller: &Caller,
    operation: Operation,
    request: Request<Body>,
) -> Response {
    let answer = match operation {
        Operation::Root => Ok(metadata::root(request.headers())),
        Operation::ListBrokers => metadata::brokers(context, caller, request.headers()).await,
        Operation::ListTopics => metadata::topics(context, caller, request.headers()).await,
        Operation::DescribeTopic(topic) => metadata::topic(context, caller, &topic, request.headers()).await,
        Operation::Produce(topic, partition) => produce::produce(context, caller, &topic, partition, request).await,
        Operation::ListPartitions(topic) => metadata::partitions(context, caller, &topic, request.headers()).await,
        Operation::DescribePartition(topic, partition) => {
            metadata::partition(context, caller, &topic, partition, request.headers()).await
        }
        Operation::PartitionOffsets(topic, partition) => {
            metadata::offsets(context, caller, &topic, partition, request.headers()).await
        }
        Operation::CreateConsumer(group) => consumers::create(context, caller, &group, request).await,
        Operation::Consumer { group, instance, call } => {
            consumers::call(context, caller, &group, &instance, call, request).await
        }
        Operation::CreateTopic => strimzi(context, metadata::create_topic(context, caller, request)).await,
        Operation::Health => strimzi(context, async { Ok(metadata::health(context)) }).await,
    };
    answer.unwrap_or_else(|error| respond::error(&error))
}

/// What Strimzi's bridge has and Confluent's proxy has not.
async fn strimzi(
    context: &Context,
    answer: impl Future<Output = Result<Response, ApiError>>,
) -> Result<Response, ApiError> {
    if context.config.listen.dialect == Dialect::Strimzi { answer.await } else { Err(no_route()) }
}

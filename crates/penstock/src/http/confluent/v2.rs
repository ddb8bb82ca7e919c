//! Version 2: `/topics`, `/brokers`, `/consumers`.
//!
//! * [`produce`]: records of a JSON document into a topic
//! * [`metadata`]: topics, partitions, offsets, brokers

mod metadata;
mod produce;

use std::rc::Rc;

use hyper::{Method, Request};

use crate::http::Context;
use crate::http::caller::Caller;
use crate::http::error::ApiError;
use crate::http::respond::{self, Response};
use crate::http::routes::{no_route, partition_number, topic_name};
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
        }
    }

    /// Finds the operation of a path that was cut at its slashes. The paths of this version have none in common with
    /// others.
    pub(crate) fn find(method: &Method, segments: &[&str]) -> Result<Self, ApiError> {
        let get = method == Method::GET || method == Method::HEAD;
        let post = method == Method::POST;
        match segments {
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
    };
    answer.unwrap_or_else(|error| respond::error(&error))
}

//! `/consumers/{group}`: instances, and every call for one.
//!
//! A call is first brought to the bridge that has the instance: this one, or another of the fleet. There it is answered
//! from what it says alone ([`Asked`] and a body of at most [`COMMAND_BYTES`]), so that both ways lead through the
//! same code.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ACCEPT, HOST};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, StatusCode};
use kafka_client::{GroupOffset, Isolation, OffsetReset, OffsetSpec, TopicPartition, Wants};
use serde::{Deserialize, Serialize};

use super::instances::{Instance, NewInstance, of_consumer};
use super::metadata::answer;
use super::pattern::Pattern;
use super::records;
use crate::client::escape_segment;
use crate::config::{Dialect, Verb};
use crate::http::Context;
use crate::http::access::Resource;
use crate::http::caller::Caller;
use crate::http::confluent::embedded::EmbeddedFormat;
use crate::http::confluent::error::{self, invalid, no_instance};
use crate::http::content_encoding::ContentEncoding;
use crate::http::error::{ApiError, code};
use crate::http::fleet::{self, InstanceCall};
use crate::http::params::Query;
use crate::http::respond::Response;
use crate::http::topics::topic_info;
use crate::http::whole_body::{Limit, WholeBody};
use crate::http1::{Body, ResponseBody};

/// What a call's body may have: lists of partitions and offsets.
pub(crate) const COMMAND: Limit = Limit { bytes: 1024 * 1024, what: "a call's body" };
/// A group's or an instance's name.
const NAME_BYTES: usize = 255;
/// Stands between an instance's name and its owner's mark.
const MARK: char = '~';

/// What is asked of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Between bridges alone: whether it is here.
    Exists,
    /// `DELETE I`
    Delete,
    /// `POST I/subscription`
    Subscribe,
    /// `GET I/subscription`
    Subscription,
    /// `DELETE I/subscription`
    Unsubscribe,
    /// `POST I/assignments`
    Assign,
    /// `GET I/assignments`
    Assignments,
    /// `POST I/positions`
    Seek,
    /// `POST I/positions/beginning`
    SeekToBeginning,
    /// `POST I/positions/end`
    SeekToEnd,
    /// `GET I/records`
    Records,
    /// `GET I/topics/{topic}`, of version 1: subscribes at its first call.
    TopicRecords(String),
    /// `POST I/offsets`
    Commit,
    /// `GET I/offsets`
    Committed,
}

impl Call {
    /// What metrics and logs call it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Exists => "v2_exists",
            Self::Delete => "v2_delete_consumer",
            Self::Subscribe => "v2_subscribe",
            Self::Subscription => "v2_subscription",
            Self::Unsubscribe => "v2_unsubscribe",
            Self::Assign => "v2_assign",
            Self::Assignments => "v2_assignments",
            Self::Seek => "v2_seek",
            Self::SeekToBeginning => "v2_seek_to_beginning",
            Self::SeekToEnd => "v2_seek_to_end",
            Self::Records => "v2_records",
            Self::TopicRecords(_) => "v2_topic_records",
            Self::Commit => "v2_commit",
            Self::Committed => "v2_committed",
        }
    }
}

/// What a call says beside its body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    query: Option<String>,
    /// The `Accept` fields, joined.
    accept: String,
}

impl Asked {
    fn of(head: &Parts) -> Self {
        let values = head.headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        Self { query: head.uri.query().map(str::to_owned), accept: values.collect::<Vec<_>>().join(", ") }
    }

    fn headers(&self) -> HeaderMap {
        HeaderMap::from_iter(self.accept.parse().ok().map(|accept| (ACCEPT, accept)))
    }

    /// How long the call may wait for what it asks for.
    pub(crate) fn patience(&self) -> Duration {
        let timeout = Query::parse(self.query.as_deref()).ok().and_then(|mut query| query.take("timeout"));
        let ms = timeout.and_then(|text| text.parse().ok()).unwrap_or(0);
        Duration::from_millis(ms).min(records::MAX_WAIT)
    }
}

// ---- creation ----

/// What a new instance is to be. Numbers and truth values may be written as strings: some clients do.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    name: Option<String>,
    /// Confluent: goes before the name.
    id: Option<String>,
    format: Option<String>,
    #[serde(rename = "auto.offset.reset")]
    reset: Option<String>,
    #[serde(rename = "auto.commit.enable", alias = "enable.auto.commit")]
    auto_commit: Option<Loose>,
    #[serde(rename = "fetch.min.bytes")]
    min_bytes: Option<Loose>,
    #[serde(rename = "consumer.request.timeout.ms")]
    timeout_ms: Option<Loose>,
    #[serde(rename = "isolation.level")]
    isolation: Option<String>,
}

/// A value, or the string of one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Loose {
    Truth(bool),
    Number(i64),
    Text(String),
}

impl Loose {
    fn truth(&self) -> Option<bool> {
        match self {
            Self::Truth(truth) => Some(*truth),
            Self::Number(_) => None,
            Self::Text(text) => text.trim().to_ascii_lowercase().parse().ok(),
        }
    }

    fn number(&self) -> Option<i64> {
        match self {
            Self::Truth(_) => None,
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }
}

#[derive(Serialize)]
struct Created {
    instance_id: String,
    base_uri: String,
}

/// `POST /consumers/{group}`
pub(super) async fn create(
    context: &Rc<Context>,
    caller: &Caller,
    group: &str,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let grant = context.access.check_group(caller, group, &[Verb::Consume])?;
    if context.is_draining() {
        return Err(ApiError::draining());
    }
    if context.budget.refuses_new() {
        return Err(ApiError::overloaded());
    }
    let encoding = ContentEncoding::of(&head.headers)?;
    COMMAND.check_length(&head.headers, encoding)?;
    let mut reader = context.body_reader(body, grant);
    let delivery = context.pipeline.delivery(None, 1);
    let body = WholeBody::read_optional(context, &mut reader, encoding, &delivery, COMMAND).await?;
    let wanted: CreateBody = body.as_ref().map(|body| body.parse(error::BAD_CONSUMER)).transpose()?.unwrap_or_default();
    let (name, new) = wanted.checked(context)?;
    let name = match name {
        None => {
            let prefix = match context.config.listen.dialect {
                Dialect::Confluent => "rest-consumer",
                Dialect::Strimzi => "kafka-bridge-consumer",
            };
            format!("{prefix}-{}", random_name())
        }
        Some(name) => {
            if let Some(fleet) = &context.fleet
                && !context.consumers.has(group, &name)
                && fleet::find(context, fleet, caller, group, &name).await.is_some()
            {
                return Err(exists());
            }
            name
        }
    };
    context.consumers.create(&context.cluster, group, &name, caller, new)?;
    let path = match &context.fleet {
        None => name.clone(),
        Some(fleet) => format!("{name}{MARK}{}", fleet.mark(group, &name)),
    };
    let base = base_of(context, &head);
    let base_uri = format!("{base}/consumers/{}/instances/{}", escape_segment(group), escape_segment(&path));
    // Clients that build their own addresses do so from the name that they gave, and clients that were given a name
    // by us from what this says.
    Ok(answer(&head.headers, &Created { instance_id: name, base_uri }))
}

impl CreateBody {
    /// Every setting within its bounds.
    fn checked(self, context: &Context) -> Result<(Option<String>, NewInstance), ApiError> {
        let bad = |message: &'static str| ApiError::new(error::BAD_CONSUMER, message);
        let name = self.id.or(self.name).filter(|name| !name.is_empty());
        if name.as_ref().is_some_and(|name| name.len() > NAME_BYTES || name.contains('/')) {
            return Err(bad("name is at most 255 bytes, without a slash"));
        }
        let format = match self.format.as_deref() {
            None => EmbeddedFormat::Binary,
            Some(format) => EmbeddedFormat::parse(format)
                .ok_or_else(|| bad("format is one of binary, json, text, avro, jsonschema and protobuf"))?,
        };
        let reset = match self.reset.as_deref() {
            None | Some("latest" | "largest") => OffsetReset::Latest,
            Some("earliest" | "smallest") => OffsetReset::Earliest,
            Some("none") => OffsetReset::None,
            Some(_) => return Err(bad("auto.offset.reset is earliest, latest or none")),
        };
        let auto_commit = match &self.auto_commit {
            None => true,
            Some(value) => value.truth().ok_or_else(|| bad("auto.commit.enable is true or false"))?,
        };
        let bounded = |value: Option<Loose>, least: i64, most: i64| match value {
            None => Some(None),
            Some(value) => value.number().filter(|number| (least..=most).contains(number)).map(Some),
        };
        let min_bytes = bounded(self.min_bytes, -1, 10_000_000)
            .ok_or_else(|| bad("fetch.min.bytes is a number from -1 to 10000000"))?;
        let timeout = bounded(self.timeout_ms, 1, 60_000)
            .ok_or_else(|| bad("consumer.request.timeout.ms is a number from 1 to 60000"))?;
        match self.isolation.as_deref() {
            None | Some("read_uncommitted" | "read_committed") => {}
            Some(_) => return Err(bad("isolation.level is read_uncommitted or read_committed")),
        }
        if format.needs_schema() {
            crate::http::confluent::schema::registry(context, format)?;
        }
        let new = NewInstance {
            format,
            reset,
            auto_commit,
            min_bytes: usize::try_from(min_bytes.unwrap_or(-1)).unwrap_or(1).max(1),
            timeout: timeout.map(|ms| Duration::from_millis(ms.unsigned_abs())),
            isolation: match self.isolation.as_deref() {
                Some("read_committed") => Isolation::ReadCommitted,
                _ => Isolation::ReadUncommitted,
            },
        };
        Ok((name, new))
    }
}

pub(super) fn exists() -> ApiError {
    ApiError::new(error::INSTANCE_EXISTS, "Consumer instance with the specified ID already exists.")
}

/// 128 random bits.
fn random_name() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random numbers");
    crate::http::topics::uuid(bytes)
}

/// How clients reach this bridge: as the setting says, else as this request did.
fn base_of(context: &Context, head: &Parts) -> String {
    if let Some(url) = &context.config.listen.public_url {
        return url.to_string();
    }
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let scheme = if matches!(context.config.tls, crate::config::Tls::Off) { "http" } else { "https" };
    format!("{scheme}://{host}")
}

// ---- calls ----

/// A call for an instance, wherever that is.
pub(super) async fn call(
    context: &Rc<Context>,
    caller: &Caller,
    group: &str,
    id: &str,
    call: Call,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let grant = context.access.check_group(caller, group, &[Verb::Consume])?;
    let asked = Asked::of(&head);
    let encoding = ContentEncoding::of(&head.headers)?;
    COMMAND.check_length(&head.headers, encoding)?;
    let mut reader = context.body_reader(body, grant);
    let delivery = context.pipeline.delivery(None, 1);
    let body = WholeBody::read_optional(context, &mut reader, encoding, &delivery, COMMAND).await?;
    let body = body.as_ref().map_or(&b""[..], WholeBody::bytes);
    let (name, owner) = named(context, group, id);
    if let Some(instance) = context.consumers.find(group, name, caller) {
        return local(context, caller, &instance, &call, &asked, body).await;
    }
    match &context.fleet {
        Some(fleet) => {
            let call = InstanceCall::new(caller, (group, name), &call, &asked);
            fleet::hand_on(context, fleet, call, owner, body).await
        }
        None => Err(no_instance()),
    }
}

/// The name in an instance's id, and its owner if the id says it.
fn named<'a>(context: &Context, group: &str, id: &'a str) -> (&'a str, Option<String>) {
    if let (Some(fleet), Some((name, mark))) = (&context.fleet, id.rsplit_once(MARK))
        && let Some(owner) = fleet.owner(mark, group, name)
    {
        return (name, Some(owner));
    }
    (id, None)
}

/// A call that another bridge hands on.
pub(crate) async fn handed_on(
    context: &Rc<Context>,
    caller: &Caller,
    (group, name): (&str, &str),
    call: &Call,
    asked: &Asked,
    body: &[u8],
) -> Result<Response, ApiError> {
    // The other bridge counted it already.
    context.access.permit(caller, Resource::Group(group), &[Verb::Consume])?;
    let instance = context.consumers.find(group, name, caller).ok_or_else(no_instance)?;
    local(context, caller, &instance, call, asked, body).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscriptionBody {
    topics: Option<Vec<String>>,
    topic_pattern: Option<String>,
}

#[derive(Serialize)]
struct Topics {
    topics: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Partitions {
    partitions: Vec<Partition>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Partition {
    topic: String,
    partition: i32,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Offsets {
    #[serde(default)]
    offsets: Vec<Offset>,
    #[serde(default)]
    timestamps: Vec<Timestamp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Offset {
    topic: String,
    partition: i32,
    offset: i64,
    #[serde(default)]
    metadata: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Timestamp {
    topic: String,
    partition: i32,
    timestamp: String,
    #[serde(default, rename = "metadata")]
    _metadata: Option<String>,
}

#[derive(Serialize)]
struct CommittedOffsets {
    offsets: Vec<CommittedOffset>,
}

#[derive(Serialize)]
struct CommittedOffset {
    topic: String,
    partition: i32,
    offset: i64,
    metadata: String,
}

/// A call for an instance that is here.
async fn local(
    context: &Rc<Context>,
    caller: &Caller,
    instance: &Arc<Instance>,
    call: &Call,
    asked: &Asked,
    body: &[u8],
) -> Result<Response, ApiError> {
    let _in_use = instance.in_use();
    let headers = asked.headers();
    let consumer = &instance.consumer;
    match call {
        Call::Exists => Ok(no_content()),
        Call::Delete => {
            context.consumers.delete(instance).await;
            Ok(no_content())
        }
        Call::Subscribe => {
            subscribe(context, caller, instance, parse(body)?).await?;
            Ok(no_content())
        }
        Call::Subscription => {
            let topics = consumer.subscription().iter().map(ToString::to_string).collect();
            Ok(answer(&headers, &Topics { topics }))
        }
        Call::Unsubscribe => {
            consumer.unsubscribe();
            Ok(no_content())
        }
        Call::Assign => {
            let partitions = allowed(context, caller, parse(body)?).await?;
            consumer.assign(&partitions).map_err(|error| of_consumer(&error))?;
            Ok(no_content())
        }
        Call::Assignments => {
            let assigned = consumer.assignment().into_iter();
            let partitions =
                assigned.map(|(topic, partition)| Partition { topic: topic.to_string(), partition }).collect();
            Ok(answer(&headers, &Partitions { partitions }))
        }
        Call::Seek => {
            seek(instance, parse(body)?).await?;
            Ok(no_content())
        }
        Call::SeekToBeginning | Call::SeekToEnd => {
            let spec = if *call == Call::SeekToBeginning { OffsetSpec::Earliest } else { OffsetSpec::Latest };
            let wanted: Partitions = parse(body)?;
            let at: Vec<_> = wanted.keys().map(|partition| (partition, spec)).collect();
            consumer.seek_to(&at).await.map_err(|error| of_consumer(&error))?;
            Ok(no_content())
        }
        Call::Records => records::read(context, caller, instance, &headers, asked.query.as_deref()).await,
        Call::TopicRecords(topic) => {
            let subscribed = consumer.subscription();
            if subscribed.is_empty() {
                let wanted = SubscriptionBody { topics: Some(vec![topic.clone()]), topic_pattern: None };
                subscribe(context, caller, instance, wanted).await?;
            } else if !subscribed.iter().any(|known| **known == **topic) {
                return Err(ApiError::new(error::ILLEGAL_STATE, "the instance reads another topic"));
            }
            records::read(context, caller, instance, &headers, asked.query.as_deref()).await
        }
        Call::Commit => {
            if body.is_empty() {
                consumer.commit_all().await.map_err(|error| of_consumer(&error))?;
            } else {
                commit(context, instance, parse(body)?).await?;
            }
            Ok(match context.config.listen.dialect {
                Dialect::Confluent => answer(&headers, &[(); 0]),
                Dialect::Strimzi => no_content(),
            })
        }
        Call::Committed => {
            let wanted: Partitions = parse(body)?;
            let partitions: Vec<TopicPartition> = wanted.keys().collect();
            let offsets = consumer.committed(&partitions).await.map_err(|error| of_consumer(&error))?;
            let offsets = offsets.into_iter().map(|committed| CommittedOffset {
                topic: committed.topic.to_string(),
                partition: committed.partition,
                offset: committed.offset,
                metadata: committed.metadata.as_deref().unwrap_or_default().to_owned(),
            });
            Ok(answer(&headers, &CommittedOffsets { offsets: offsets.collect() }))
        }
    }
}

impl Partitions {
    fn keys(&self) -> impl Iterator<Item = TopicPartition> {
        self.partitions.iter().map(|wanted| (Arc::from(&*wanted.topic), wanted.partition))
    }
}

fn no_content() -> Response {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    if body.is_empty() {
        return Err(ApiError::new(code::EMPTY_BODY, "the body is empty"));
    }
    crate::http::whole_body::parse_object(body, error::INVALID)
}

/// The topics must be there, and the caller's to read.
async fn subscribe(
    context: &Context,
    caller: &Caller,
    instance: &Instance,
    wanted: SubscriptionBody,
) -> Result<(), ApiError> {
    let wants = match (wanted.topics, wanted.topic_pattern) {
        (Some(_), Some(_)) | (None, None) => return Err(invalid("either topics or topic_pattern says what to read")),
        (Some(topics), None) if topics.is_empty() => {
            return Err(invalid("topics is empty; there must be one at least"));
        }
        (Some(topics), None) => {
            let mut names = Vec::with_capacity(topics.len());
            for topic in topics {
                context.access.permit(caller, Resource::Topic(&topic), &[Verb::Consume])?;
                names.push(topic_info(context, &topic).await?.name.clone());
            }
            Wants::Topics(names)
        }
        (None, Some(text)) => {
            let pattern =
                Pattern::new(&text).map_err(|problem| invalid(format!("topic_pattern {text:?}: {problem}")))?;
            let (access, caller) = (context.access.clone(), caller.clone());
            Wants::Matching(Arc::new(move |topic| {
                pattern.matches(topic) && access.may(&caller, Resource::Topic(topic), &[Verb::Consume])
            }))
        }
    };
    instance.consumer.subscribe(wants).map_err(|error| of_consumer(&error))
}

/// Partitions that are there, and the caller's to read.
async fn allowed(context: &Context, caller: &Caller, wanted: Partitions) -> Result<Vec<TopicPartition>, ApiError> {
    let mut partitions = Vec::with_capacity(wanted.partitions.len());
    for wanted in wanted.partitions {
        context.access.permit(caller, Resource::Topic(&wanted.topic), &[Verb::Consume])?;
        let info = topic_info(context, &wanted.topic).await?;
        super::metadata::existing(&info, wanted.partition)?;
        partitions.push((info.name.clone(), wanted.partition));
    }
    Ok(partitions)
}

/// Moves partitions that the instance reads: all of them, or none.
async fn seek(instance: &Instance, wanted: Offsets) -> Result<(), ApiError> {
    let of = |error| of_consumer(&error);
    let assigned = instance.consumer.assignment();
    let mut offsets = Vec::with_capacity(wanted.offsets.len());
    for offset in wanted.offsets {
        if offset.offset < 0 {
            return Err(invalid("an offset is a number from 0 on"));
        }
        let partition: TopicPartition = (offset.topic.into(), offset.partition);
        if !assigned.contains(&partition) {
            return Err(of_consumer(&kafka_client::ConsumerError::NotAssigned(partition.0, partition.1)));
        }
        offsets.push((partition, offset.offset));
    }
    let mut times = Vec::with_capacity(wanted.timestamps.len());
    for time in wanted.timestamps {
        let spec = OffsetSpec::Timestamp(milliseconds(&time.timestamp)?);
        times.push(((time.topic.into(), time.partition), spec));
    }
    instance.consumer.seek_to(&times).await.map_err(of)?;
    offsets.iter().try_for_each(|(partition, offset)| instance.consumer.seek(partition, *offset)).map_err(of)
}

/// Commits these offsets.
async fn commit(context: &Context, instance: &Instance, wanted: Offsets) -> Result<(), ApiError> {
    // Confluent's clients send the offset of the last record that they have done with, Strimzi's the next to read.
    let next = i64::from(context.config.listen.dialect == Dialect::Confluent);
    let mut offsets = Vec::with_capacity(wanted.offsets.len());
    for offset in wanted.offsets {
        if offset.offset < 0 || offset.partition < 0 {
            return Err(invalid("an offset and a partition are numbers from 0 on"));
        }
        offsets.push(GroupOffset {
            topic: offset.topic.into(),
            partition: offset.partition,
            offset: offset.offset.saturating_add(next),
            leader_epoch: -1,
            metadata: offset.metadata.map(Arc::from),
        });
    }
    if offsets.is_empty() {
        return Ok(());
    }
    instance.consumer.commit(&offsets).await.map_err(|error| of_consumer(&error))
}

/// A time as ISO 8601 has it, with a zone, in ms since the epoch.
fn milliseconds(text: &str) -> Result<i64, ApiError> {
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
        .map_err(|_| invalid(format!("timestamp {text:?} is not like 2026-01-31T12:00:00Z")))?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).map_err(|_| invalid("timestamp is out of range"))
}

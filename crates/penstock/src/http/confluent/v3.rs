//! Confluent's API, version 3: `/v3/clusters/…`.
//!
//! | module | resources |
//! |---|---|
//! | [`clusters`] | the cluster, its brokers |
//! | [`topics`] | topics, partitions, replicas, reassignments |
//! | [`configs`] | settings of topics, of brokers, of all brokers |
//! | [`acls`] | Kafka's own access rules |
//! | [`groups`] | consumer groups, their members, assignments and lags |
//! | [`records`] | records as a stream of documents, and in batches |
//!
//! Every resource says its kind, its address and its name, and where its relatives are ([`resource`]). What may be done is
//! decided in one place, [`Operation::admit`], before anything else.

mod acls;
mod batch;
mod clusters;
mod configs;
mod documents;
mod groups;
mod record;
mod records;
mod resource;
mod time;
mod topics;

use std::borrow::Cow;
use std::future::Future;
use std::rc::Rc;

use hyper::{Method, Request, StatusCode};
use kafka_client::{ConfigResource, ErrorCode};
use serde::de::DeserializeOwned;

use crate::config::Verb;
use crate::http::Context;
use crate::http::access::Grant;
use crate::http::caller::Caller;
use crate::http::error::{ApiError, code};
use crate::http::respond::{self, Response};
use crate::http::routes::{no_route, partition_number, percent_decode, topic_name};
use crate::http::topics::PATIENCE;
use crate::http1::{Body, ResponseBody};
use resource::Links;

/// The longest path has so many segments behind `/v3/`.
const SEGMENTS: usize = 10;
/// A request of an administrator is a handful of names and values.
const DOCUMENT_BYTES: usize = 64 * 1024;

/// Confluent's number for a topic or a partition that is not there.
const NO_TOPIC_PARTITION: u32 = 40403;
/// 501: the brokers are too old.
const NOT_IMPLEMENTED: u32 = 501;

/// What a request under `/v3` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `GET /v3/clusters`
    ListClusters,
    /// Everything else: the cluster's id, and what is asked of it.
    Of(String, Call),
}

/// What is asked of a cluster: methods and paths are in [`Call::find`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    GetCluster,
    ListBrokers,
    GetBroker(i32),
    SearchReplicas(i32),
    Configs(ConfigResource, ConfigCall),
    ListAllBrokerConfigs,
    ListAllTopicConfigs,
    ListDefaultTopicConfigs(String),
    ListTopics,
    CreateTopic,
    GetTopic(String),
    GrowTopic(String),
    DeleteTopic(String),
    ListPartitions(String),
    GetPartition(String, i32),
    ListReplicas(String, i32),
    GetReplica(String, i32, i32),
    ListAllReassignments,
    ListReassignments(String),
    GetReassignment(String, i32),
    SearchAcls,
    CreateAcl,
    CreateAcls,
    DeleteAcls,
    ListGroups,
    Group(String, GroupCall),
    Produce(String),
    ProduceBatch(String),
}

/// What is asked of the settings of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConfigCall {
    List,
    Alter,
    Get(String),
    Update(String),
    Reset(String),
}

/// What is asked of a consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupCall {
    Get,
    ListConsumers,
    GetConsumer(String),
    ListAssignments(String),
    GetAssignment(String, String, i32),
    LagSummary,
    ListLags,
    GetLag(String, i32),
}

impl Operation {
    /// All names that [`name`](Self::name) gives.
    pub(crate) const NAMES: [&'static str; 50] = [
        "v3_list_clusters",
        "v3_get_cluster",
        "v3_list_brokers",
        "v3_get_broker",
        "v3_search_replicas",
        "v3_list_broker_configs",
        "v3_alter_broker_configs",
        "v3_get_broker_config",
        "v3_update_broker_config",
        "v3_reset_broker_config",
        "v3_list_cluster_configs",
        "v3_alter_cluster_configs",
        "v3_get_cluster_config",
        "v3_update_cluster_config",
        "v3_reset_cluster_config",
        "v3_list_topic_configs",
        "v3_alter_topic_configs",
        "v3_get_topic_config",
        "v3_update_topic_config",
        "v3_reset_topic_config",
        "v3_list_all_broker_configs",
        "v3_list_all_topic_configs",
        "v3_list_default_topic_configs",
        "v3_list_topics",
        "v3_create_topic",
        "v3_get_topic",
        "v3_grow_topic",
        "v3_delete_topic",
        "v3_list_partitions",
        "v3_get_partition",
        "v3_list_replicas",
        "v3_get_replica",
        "v3_list_all_reassignments",
        "v3_list_reassignments",
        "v3_get_reassignment",
        "v3_search_acls",
        "v3_create_acl",
        "v3_create_acls",
        "v3_delete_acls",
        "v3_list_groups",
        "v3_get_group",
        "v3_list_consumers",
        "v3_get_consumer",
        "v3_list_assignments",
        "v3_get_assignment",
        "v3_get_lag_summary",
        "v3_list_lags",
        "v3_get_lag",
        "v3_produce",
        "v3_produce_batch",
    ];

    /// What metrics and logs call it.
    pub(crate) const fn name(&self) -> &'static str {
        use ConfigResource::{Broker, BrokerDefaults, Topic};
        match self {
            Self::ListClusters => "v3_list_clusters",
            Self::Of(_, call) => match call {
                Call::GetCluster => "v3_get_cluster",
                Call::ListBrokers => "v3_list_brokers",
                Call::GetBroker(_) => "v3_get_broker",
                Call::SearchReplicas(_) => "v3_search_replicas",
                Call::Configs(Broker(_), ConfigCall::List) => "v3_list_broker_configs",
                Call::Configs(Broker(_), ConfigCall::Alter) => "v3_alter_broker_configs",
                Call::Configs(Broker(_), ConfigCall::Get(_)) => "v3_get_broker_config",
                Call::Configs(Broker(_), ConfigCall::Update(_)) => "v3_update_broker_config",
                Call::Configs(Broker(_), ConfigCall::Reset(_)) => "v3_reset_broker_config",
                Call::Configs(BrokerDefaults, ConfigCall::List) => "v3_list_cluster_configs",
                Call::Configs(BrokerDefaults, ConfigCall::Alter) => "v3_alter_cluster_configs",
                Call::Configs(BrokerDefaults, ConfigCall::Get(_)) => "v3_get_cluster_config",
                Call::Configs(BrokerDefaults, ConfigCall::Update(_)) => "v3_update_cluster_config",
                Call::Configs(BrokerDefaults, ConfigCall::Reset(_)) => "v3_reset_cluster_config",
                Call::Configs(Topic(_), ConfigCall::List) => "v3_list_topic_configs",
                Call::Configs(Topic(_), ConfigCall::Alter) => "v3_alter_topic_configs",
                Call::Configs(Topic(_), ConfigCall::Get(_)) => "v3_get_topic_config",
                Call::Configs(Topic(_), ConfigCall::Update(_)) => "v3_update_topic_config",
                Call::Configs(Topic(_), ConfigCall::Reset(_)) => "v3_reset_topic_config",
                Call::ListAllBrokerConfigs => "v3_list_all_broker_configs",
                Call::ListAllTopicConfigs => "v3_list_all_topic_configs",
                Call::ListDefaultTopicConfigs(_) => "v3_list_default_topic_configs",
                Call::ListTopics => "v3_list_topics",
                Call::CreateTopic => "v3_create_topic",
                Call::GetTopic(_) => "v3_get_topic",
                Call::GrowTopic(_) => "v3_grow_topic",
                Call::DeleteTopic(_) => "v3_delete_topic",
                Call::ListPartitions(_) => "v3_list_partitions",
                Call::GetPartition(..) => "v3_get_partition",
                Call::ListReplicas(..) => "v3_list_replicas",
                Call::GetReplica(..) => "v3_get_replica",
                Call::ListAllReassignments => "v3_list_all_reassignments",
                Call::ListReassignments(_) => "v3_list_reassignments",
                Call::GetReassignment(..) => "v3_get_reassignment",
                Call::SearchAcls => "v3_search_acls",
                Call::CreateAcl => "v3_create_acl",
                Call::CreateAcls => "v3_create_acls",
                Call::DeleteAcls => "v3_delete_acls",
                Call::ListGroups => "v3_list_groups",
                Call::Group(_, GroupCall::Get) => "v3_get_group",
                Call::Group(_, GroupCall::ListConsumers) => "v3_list_consumers",
                Call::Group(_, GroupCall::GetConsumer(_)) => "v3_get_consumer",
                Call::Group(_, GroupCall::ListAssignments(_)) => "v3_list_assignments",
                Call::Group(_, GroupCall::GetAssignment(..)) => "v3_get_assignment",
                Call::Group(_, GroupCall::LagSummary) => "v3_get_lag_summary",
                Call::Group(_, GroupCall::ListLags) => "v3_list_lags",
                Call::Group(_, GroupCall::GetLag(..)) => "v3_get_lag",
                Call::Produce(_) => "v3_produce",
                Call::ProduceBatch(_) => "v3_produce_batch",
            },
        }
    }

    /// Finds the operation of what follows `/v3/`, or says why there is none.
    pub(crate) fn find(method: &Method, path: &str) -> Result<Self, ApiError> {
        let mut segments: [Cow<'_, str>; SEGMENTS] = std::array::from_fn(|_| Cow::Borrowed(""));
        let mut count = 0;
        for segment in path.split('/') {
            // Before they are compared: some clients encode the colon of an action.
            let decoded = percent_decode(segment, false)
                .ok_or_else(|| ApiError::bad_request("the path is not percent-encoded UTF-8"))?;
            *segments.get_mut(count).ok_or_else(no_route)? = decoded;
            count += 1;
        }
        let segments: [&str; SEGMENTS] = std::array::from_fn(|at| &*segments[at]);
        match &segments[..count] {
            ["clusters"] => Methods::new(method).get(|| Ok(Self::ListClusters)).find(),
            ["clusters", cluster, rest @ ..] if !cluster.is_empty() => {
                Call::find(method, rest).map(|call| Self::Of((*cluster).to_owned(), call))
            }
            _ => Err(no_route()),
        }
    }
}

/// Picks by method, and remembers what was there to pick.
struct Methods<'a, T> {
    method: &'a Method,
    found: Option<Result<T, ApiError>>,
    allow: &'static str,
}

impl<'a, T> Methods<'a, T> {
    const fn new(method: &'a Method) -> Self {
        Self { method, found: None, allow: "" }
    }

    fn on(mut self, method: &Method, allow: &'static str, then: impl FnOnce() -> Result<T, ApiError>) -> Self {
        if self.method == method {
            self.found = Some(then());
        }
        self.allow = allow;
        self
    }

    /// HEAD is GET without the body, which the connection leaves out.
    fn get(mut self, then: impl FnOnce() -> Result<T, ApiError>) -> Self {
        if self.method == Method::GET || self.method == Method::HEAD {
            self.found = Some(then());
        }
        self.allow = "GET, HEAD";
        self
    }

    /// `allow` is what is allowed in all.
    fn post(self, allow: &'static str, then: impl FnOnce() -> Result<T, ApiError>) -> Self {
        self.on(&Method::POST, allow, then)
    }

    fn put(self, allow: &'static str, then: impl FnOnce() -> Result<T, ApiError>) -> Self {
        self.on(&Method::PUT, allow, then)
    }

    fn patch(self, allow: &'static str, then: impl FnOnce() -> Result<T, ApiError>) -> Self {
        self.on(&Method::PATCH, allow, then)
    }

    fn delete(self, allow: &'static str, then: impl FnOnce() -> Result<T, ApiError>) -> Self {
        self.on(&Method::DELETE, allow, then)
    }

    fn find(self) -> Result<T, ApiError> {
        self.found.unwrap_or_else(|| Err(ApiError::bad_method(self.allow)))
    }
}

impl Call {
    fn find(method: &Method, segments: &[&str]) -> Result<Self, ApiError> {
        let on = Methods::new(method);
        match segments {
            [] => on.get(|| Ok(Self::GetCluster)).find(),
            ["acls"] => on
                .get(|| Ok(Self::SearchAcls))
                .post("", || Ok(Self::CreateAcl))
                .delete("GET, HEAD, POST, DELETE", || Ok(Self::DeleteAcls))
                .find(),
            ["acls:batch"] => on.post("POST", || Ok(Self::CreateAcls)).find(),
            ["brokers"] => on.get(|| Ok(Self::ListBrokers)).find(),
            ["brokers", "-", "configs"] => on.get(|| Ok(Self::ListAllBrokerConfigs)).find(),
            ["brokers", broker] => on.get(|| Ok(Self::GetBroker(broker_id(broker)?))).find(),
            ["brokers", broker, "partition-replicas"] => on.get(|| Ok(Self::SearchReplicas(broker_id(broker)?))).find(),
            ["brokers", broker, configs @ ..] if configs.first().is_some_and(|first| first.starts_with("configs")) => {
                ConfigCall::find(method, configs, || Ok(ConfigResource::Broker(broker_id(broker)?)))
            }
            ["broker-configs", ..] => ConfigCall::find(method, segments, || Ok(ConfigResource::BrokerDefaults)),
            ["broker-configs:alter"] => ConfigCall::find(method, segments, || Ok(ConfigResource::BrokerDefaults)),
            ["consumer-groups"] => on.get(|| Ok(Self::ListGroups)).find(),
            ["consumer-groups", group, rest @ ..] if !group.is_empty() => {
                let call = GroupCall::find(rest)?;
                on.get(|| Ok(Self::Group((*group).to_owned(), call))).find()
            }
            ["topics"] => on.get(|| Ok(Self::ListTopics)).post("GET, HEAD, POST", || Ok(Self::CreateTopic)).find(),
            ["topics", "-", "configs"] => on.get(|| Ok(Self::ListAllTopicConfigs)).find(),
            ["topics", "-", "partitions", "-", "reassignment"] => on.get(|| Ok(Self::ListAllReassignments)).find(),
            ["topics", topic] => on
                .get(|| Ok(Self::GetTopic(topic_name(topic)?)))
                .patch("", || Ok(Self::GrowTopic(topic_name(topic)?)))
                .delete("GET, HEAD, PATCH, DELETE", || Ok(Self::DeleteTopic(topic_name(topic)?)))
                .find(),
            ["topics", topic, "records"] => on.post("POST", || Ok(Self::Produce(topic_name(topic)?))).find(),
            ["topics", topic, "records:batch"] => on.post("POST", || Ok(Self::ProduceBatch(topic_name(topic)?))).find(),
            ["topics", topic, "default-configs"] => {
                on.get(|| Ok(Self::ListDefaultTopicConfigs(topic_name(topic)?))).find()
            }
            ["topics", topic, configs @ ..] if configs.first().is_some_and(|first| first.starts_with("configs")) => {
                ConfigCall::find(method, configs, || Ok(ConfigResource::Topic(topic_name(topic)?)))
            }
            ["topics", topic, "partitions"] => on.get(|| Ok(Self::ListPartitions(topic_name(topic)?))).find(),
            ["topics", topic, "partitions", "-", "reassignment"] => {
                on.get(|| Ok(Self::ListReassignments(topic_name(topic)?))).find()
            }
            ["topics", topic, "partitions", partition] => {
                on.get(|| Ok(Self::GetPartition(topic_name(topic)?, partition_number(partition)?))).find()
            }
            ["topics", topic, "partitions", partition, "replicas"] => {
                on.get(|| Ok(Self::ListReplicas(topic_name(topic)?, partition_number(partition)?))).find()
            }
            ["topics", topic, "partitions", partition, "replicas", broker] => on
                .get(|| Ok(Self::GetReplica(topic_name(topic)?, partition_number(partition)?, broker_id(broker)?)))
                .find(),
            ["topics", topic, "partitions", partition, "reassignment"] => {
                on.get(|| Ok(Self::GetReassignment(topic_name(topic)?, partition_number(partition)?))).find()
            }
            _ => Err(no_route()),
        }
    }

    /// Whether the caller may do it. Lists need no leave: they show what the caller may see. Who creates a topic says its
    /// name in the body, and is asked then; who writes records is asked where they are written.
    fn admit(&self, context: &Context, caller: &Caller) -> Result<Grant, ApiError> {
        let access = &context.access;
        let read = [Verb::Consume, Verb::Admin];
        match self {
            Self::GetCluster => access.check_known(caller).map(|()| Grant::default()),
            Self::ListTopics
            | Self::ListGroups
            | Self::ListAllTopicConfigs
            | Self::CreateTopic
            | Self::Produce(_)
            | Self::ProduceBatch(_) => Ok(Grant::default()),
            Self::ListBrokers
            | Self::GetBroker(_)
            | Self::SearchReplicas(_)
            | Self::ListAllBrokerConfigs
            | Self::ListAllReassignments
            | Self::SearchAcls
            | Self::CreateAcl
            | Self::CreateAcls
            | Self::DeleteAcls
            | Self::Configs(ConfigResource::Broker(_) | ConfigResource::BrokerDefaults, _) => {
                access.check_cluster(caller)
            }
            Self::GrowTopic(topic)
            | Self::DeleteTopic(topic)
            | Self::Configs(
                ConfigResource::Topic(topic),
                ConfigCall::Alter | ConfigCall::Update(_) | ConfigCall::Reset(_),
            ) => access.check(caller, topic, &[Verb::Admin]),
            Self::GetTopic(topic)
            | Self::ListPartitions(topic)
            | Self::GetPartition(topic, _)
            | Self::ListReplicas(topic, _)
            | Self::GetReplica(topic, ..)
            | Self::ListReassignments(topic)
            | Self::GetReassignment(topic, _)
            | Self::ListDefaultTopicConfigs(topic)
            | Self::Configs(ConfigResource::Topic(topic), ConfigCall::List | ConfigCall::Get(_)) => {
                access.check(caller, topic, &read)
            }
            Self::Group(group, _) => access.check_group(caller, group, &read),
        }
    }
}

impl ConfigCall {
    /// `configs`, `configs:alter`, `configs/{name}`, or the same with `broker-configs`.
    fn find(
        method: &Method,
        segments: &[&str],
        of: impl Fn() -> Result<ConfigResource, ApiError>,
    ) -> Result<Call, ApiError> {
        let on = Methods::new(method);
        let call = |call| of().map(|of| Call::Configs(of, call));
        match segments {
            ["configs" | "broker-configs"] => on.get(|| call(Self::List)).find(),
            ["configs:alter" | "broker-configs:alter"] => on.post("POST", || call(Self::Alter)).find(),
            ["configs" | "broker-configs", name] if !name.is_empty() => {
                let name = || (*name).to_owned();
                on.get(|| call(Self::Get(name())))
                    .put("", || call(Self::Update(name())))
                    .delete("GET, HEAD, PUT, DELETE", || call(Self::Reset(name())))
                    .find()
            }
            _ => Err(no_route()),
        }
    }
}

impl GroupCall {
    fn find(segments: &[&str]) -> Result<Self, ApiError> {
        let text = |text: &str| text.to_owned();
        Ok(match segments {
            [] => Self::Get,
            ["lag-summary"] => Self::LagSummary,
            ["lags"] => Self::ListLags,
            ["lags", topic, "partitions", partition] => Self::GetLag(topic_name(topic)?, partition_number(partition)?),
            ["consumers"] => Self::ListConsumers,
            ["consumers", consumer] => Self::GetConsumer(text(consumer)),
            ["consumers", consumer, "assignments"] => Self::ListAssignments(text(consumer)),
            ["consumers", consumer, "assignments", topic, "partitions", partition] => {
                Self::GetAssignment(text(consumer), topic_name(topic)?, partition_number(partition)?)
            }
            _ => return Err(no_route()),
        })
    }
}

fn broker_id(segment: &str) -> Result<i32, ApiError> {
    segment
        .parse()
        .ok()
        .filter(|id| *id >= 0)
        .ok_or_else(|| ApiError::bad_request(format!("a broker's id is a number from 0 to {}", i32::MAX)))
}

/// Answers one request.
pub(crate) async fn run(
    context: &Rc<Context>,
    caller: &Caller,
    operation: Operation,
    request: Request<Body>,
) -> Response {
    let answer = answer(context, caller, operation, request).await;
    answer.unwrap_or_else(|error| respond::error(&in_confluents_words(error)))
}

/// What the API is asked with, beside the operation.
struct Asked<'a> {
    context: &'a Rc<Context>,
    caller: &'a Caller,
    links: Links,
    grant: Grant,
    body: Option<Body>,
    query: Option<String>,
}

async fn answer(
    context: &Rc<Context>,
    caller: &Caller,
    operation: Operation,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let Operation::Of(cluster, call) = operation else {
        context.access.check_known(caller)?;
        let links = Links::of(context, request.headers(), known_cluster(context)?);
        return Ok(clusters::list(context, &links));
    };
    let grant = call.admit(context, caller)?;
    match call {
        // Confluent's does not look at the id either, and records wait for nothing.
        Call::Produce(topic) => return records::produce(context, caller, cluster, &topic, request).await,
        Call::ProduceBatch(topic) => return batch::produce(context, caller, cluster, &topic, request).await,
        _ if known_cluster(context)? != cluster => return Err(missing("Cluster", &cluster)),
        _ => {}
    }
    let links = Links::of(context, request.headers(), cluster);
    let query = request.uri().query().map(ToOwned::to_owned);
    let asked = Asked { context, caller, links, grant, body: Some(request.into_body()), query };
    match call {
        Call::GetCluster => Ok(clusters::get(&asked)),
        Call::ListBrokers => Ok(clusters::brokers(&asked)),
        Call::GetBroker(id) => clusters::broker(&asked, id),
        Call::SearchReplicas(id) => topics::replicas_of_broker(&asked, id).await,
        Call::Configs(of, call) => configs::run(asked, of, call).await,
        Call::ListAllBrokerConfigs => configs::of_all_brokers(&asked).await,
        Call::ListAllTopicConfigs => configs::of_all_topics(&asked).await,
        Call::ListDefaultTopicConfigs(topic) => configs::defaults(&asked, &topic).await,
        Call::ListTopics => topics::list(&asked).await,
        Call::CreateTopic => topics::create(asked).await,
        Call::GetTopic(topic) => topics::get(&asked, &topic).await,
        Call::GrowTopic(topic) => topics::grow(asked, &topic).await,
        Call::DeleteTopic(topic) => topics::delete(&asked, &topic).await,
        Call::ListPartitions(topic) => topics::partitions(&asked, &topic).await,
        Call::GetPartition(topic, partition) => topics::partition(&asked, &topic, partition).await,
        Call::ListReplicas(topic, partition) => topics::replicas(&asked, &topic, partition).await,
        Call::GetReplica(topic, partition, broker) => topics::replica(&asked, &topic, partition, broker).await,
        Call::ListAllReassignments => topics::all_reassignments(&asked).await,
        Call::ListReassignments(topic) => topics::reassignments(&asked, &topic).await,
        Call::GetReassignment(topic, partition) => topics::reassignment(&asked, &topic, partition).await,
        Call::SearchAcls => acls::search(&asked).await,
        Call::CreateAcl => acls::create(asked).await,
        Call::CreateAcls => acls::create_many(asked).await,
        Call::DeleteAcls => acls::delete(&asked).await,
        Call::ListGroups => groups::list(&asked).await,
        Call::Group(group, call) => groups::run(&asked, &group, call).await,
        Call::Produce(_) | Call::ProduceBatch(_) => unreachable!("answered above"),
    }
}

impl Asked<'_> {
    /// The body as a document of an administrator.
    async fn document<T: DeserializeOwned>(&mut self) -> Result<T, ApiError> {
        let body = self.body.take().expect("an operation reads its body once");
        let mut reader = self.context.body_reader(body, std::mem::take(&mut self.grant));
        let document = reader.whole(DOCUMENT_BYTES).await?;
        if document.trim_ascii().is_empty() {
            return Err(ApiError::new(code::EMPTY_BODY, "the body is empty"));
        }
        // serde takes an array for a structure, too.
        if !document.trim_ascii_start().starts_with(b"{") {
            return Err(ApiError::bad_request("the body must be a JSON object"));
        }
        serde_json::from_slice(&document)
            .map_err(|error| ApiError::bad_request(format!("the body is not as it must be: {error}")))
    }

    /// One question to Kafka, within our patience; `about` is the topic, if it is one.
    async fn ask<T>(
        &self,
        about: &str,
        question: impl Future<Output = Result<T, kafka_client::Error>>,
    ) -> Result<T, ApiError> {
        match tokio::time::timeout(PATIENCE, question).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(of_kafka(about, &error)),
            Err(_) => Err(ApiError::no_broker()),
        }
    }
}

/// The id of the cluster behind this bridge.
fn known_cluster(context: &Context) -> Result<String, ApiError> {
    context.cluster.metadata().cluster_id.as_deref().map(ToOwned::to_owned).ok_or_else(ApiError::no_broker)
}

/// 204.
fn no_content() -> Response {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// 404: there is no such thing.
fn missing(what: &str, which: &str) -> ApiError {
    ApiError::new(code::NOT_FOUND, format!("{what} {which} cannot be found."))
}

/// Kafka's refusals in Confluent's numbers.
fn of_kafka(topic: &str, error: &kafka_client::Error) -> ApiError {
    match error {
        kafka_client::Error::Unsupported { api } => {
            ApiError::new(NOT_IMPLEMENTED, format!("the brokers are too old for this: they do not know {api}"))
        }
        _ if error.code() == Some(ErrorCode::TOPIC_ALREADY_EXISTS) => {
            ApiError::new(code::RECORD_REJECTED, format!("Topic '{topic}' already exists."))
        }
        kafka_client::Error::Broker { code, message: Some(message), .. } if !code.is_retriable() => {
            let told = ApiError::of_client(topic, error);
            // Kafka's own words, where it has some, as Confluent's proxy passes them on.
            ApiError { message: message.to_string().into(), ..told }
        }
        _ => ApiError::of_client(topic, error),
    }
}

/// The native numbers, where Confluent's differ.
fn in_confluents_words(error: ApiError) -> ApiError {
    match error.code {
        code::NO_TOPIC => ApiError {
            code: NO_TOPIC_PARTITION,
            message: "This server does not host this topic-partition.".into(),
            ..error
        },
        _ => error,
    }
}

#[cfg(test)]
mod tests;

//! From a request to an answer.
//!
//! [`Context`] is what a worker's requests share, and the service that takes each to its operation.

pub(crate) mod access;
pub(crate) mod body;
pub(crate) mod caller;
pub(crate) mod confluent;
mod consume;
mod content_encoding;
mod cors;
pub(crate) mod error;
pub(crate) mod fleet;
mod group_memory;
mod group_stream;
pub(crate) mod groups;
mod json_pointer;
mod ndjson;
pub(crate) mod openapi;
mod params;
mod produce;
mod progress;
pub(crate) mod rate;
mod record;
mod record_lines;
pub(crate) mod respond;
pub(crate) mod routes;
mod topics;
mod whole_body;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::{Request, StatusCode};
use kafka_client::Cluster;
use produce_pipeline::{Delivery, MemoryBudget, Pipeline, Topic};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Authenticator, Remembered};
use crate::config::Config;
use crate::http1::{BadHead, Body, ResponseBody, Service};
use crate::metrics::{Metrics, RouteMetrics};
use crate::schema_registry::Registry;
use crate::telemetry::{Telemetry, scope};
use access::{Access, Grant};
use body::{BodyReader, Patience};
use caller::Caller;
use confluent::v2::Consumers;
use error::ApiError;
use fleet::{Fleet, Peers};
use groups::Groups;
use record::RequestRecord;
use respond::Response;
use routes::Operation;

/// What a worker's requests share.
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) access: Arc<Access>,
    /// Where `Authorization` means something.
    pub(crate) authenticator: Option<Arc<Authenticator>>,
    pub(crate) cluster: Cluster,
    pub(crate) pipeline: Pipeline,
    pub(crate) budget: MemoryBudget,
    pub(crate) metrics: Metrics,
    pub(crate) telemetry: Arc<Telemetry>,
    /// `[schema_registry]`
    pub(crate) schemas: Option<Arc<Registry>>,
    /// By [`Operation::NAMES`].
    pub(crate) routes: [RouteMetrics; Operation::NAMES.len()],
    /// Members of groups, of all workers.
    pub(crate) groups: Groups,
    /// Connections end with the request under way, and so do streams.
    pub(crate) drain: CancellationToken,
    /// The notice of a drain is over: no new work.
    pub(crate) draining: Arc<AtomicBool>,
    /// Consumer instances, of all workers.
    pub(crate) consumers: Arc<Consumers>,
    /// The other bridges, if there are any.
    pub(crate) fleet: Option<Arc<Fleet>>,
    /// This worker's connections to them.
    pub(crate) peers: Peers,
    /// Asks bodies to be read no further.
    pub(crate) stop_reading: CancellationToken,
    /// Uploads that answer with progress. The worker waits for them at its end.
    pub(crate) tasks: TaskTracker,
}

impl Context {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// A topic, from the cached metadata or within `patience`.
    async fn topic(&self, name: &str, patience: Duration) -> Result<Topic, ApiError> {
        scope::current(|scope| scope.is_about(name));
        if let Some(topic) = self.pipeline.known_topic(name) {
            return Ok(topic);
        }
        match tokio::time::timeout(patience, self.pipeline.topic(name)).await {
            Ok(Ok(topic)) => Ok(topic),
            Ok(Err(error)) => Err(ApiError::of_topic(name, &error)),
            Err(_) => Err(ApiError::no_broker()),
        }
    }

    fn body_reader(&self, body: Body, grant: Grant) -> BodyReader {
        let patience = Patience { idle: self.config.listen.idle_timeout, min_rate: self.config.listen.min_body_rate };
        BodyReader::new(body, patience, grant.bytes, &self.stop_reading)
    }

    /// Follows records of the request under way to their end.
    fn delivery(&self, timeout: Option<Duration>, first_line: u64) -> Delivery {
        let delivery = self.pipeline.delivery(timeout, first_line);
        scope::current(|scope| scope.waits_for(&delivery));
        delivery
    }

    /// What a request of this operation is counted in.
    fn route(&self, operation: &'static str) -> RouteMetrics {
        let route = Operation::NAMES.iter().position(|known| *known == operation).unwrap_or(Operation::NAMES.len() - 1);
        self.routes[route].clone()
    }

    /// Runs a task of this worker until it ends of itself, on behalf of the request under way.
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.spawn_local(scope::within(scope::current(Rc::clone), task));
    }
}

/// What answers the requests of one connection.
pub(crate) struct Session {
    pub(crate) context: Rc<Context>,
    pub(crate) caller: Rc<Caller>,
    pub(crate) remembered: Remembered,
}

impl Session {
    pub(crate) fn new(context: Rc<Context>, caller: Caller) -> Self {
        Self { context, caller: Rc::new(caller), remembered: Remembered::default() }
    }

    /// Who asks this, by the connection and by `Authorization`.
    async fn identify(&self, authenticator: &Authenticator, headers: &HeaderMap) -> Result<Rc<Caller>, ApiError> {
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let header = match (fields.next(), fields.next()) {
            (None, _) => return Ok(self.caller.clone()),
            (Some(header), None) => header,
            (Some(_), Some(_)) => return Err(ApiError::bad_request("Authorization is there more than once")),
        };
        authenticator.identify(header, &self.caller, &self.remembered).await.map_err(|error| {
            let error = ApiError::of_login(&error);
            self.context.access.login_failed(&self.caller, &error.message);
            error
        })
    }

    /// Answers a request that has an operation, by whoever asks it.
    async fn answer(&self, operation: Operation, request: Request<Body>) -> Response {
        if matches!(operation, Operation::Health) {
            return run(&self.context, &self.caller, operation, request).await;
        }
        if self.caller.is_balancer {
            return respond::error(&ApiError::denied("a health check may ask for /healthz alone"));
        }
        let Some(authenticator) = &self.context.authenticator else {
            return run(&self.context, &self.caller, operation, request).await;
        };
        let header = request.headers().get(AUTHORIZATION).cloned();
        let mut response = match self.identify(authenticator, request.headers()).await {
            Ok(caller) => {
                scope::current(|scope| scope.is_by(&caller));
                run(&self.context, &caller, operation, request).await
            }
            Err(error) => respond::error(&error),
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            for challenge in authenticator.challenges(header.as_ref()) {
                response.headers_mut().append(WWW_AUTHENTICATE, challenge);
            }
        }
        response
    }
}

impl Service for Session {
    async fn call(&self, request: Request<Body>) -> Response {
        let cors = self.context.config.listen.cors.as_ref();
        let origin = cors.and_then(|_| request.headers().get(ORIGIN).cloned());
        if let Some(cors) = cors.filter(|_| origin.is_some())
            && let Some(answer) = cors::preflight(cors, request.method(), request.headers())
        {
            return RequestRecord::begin(self.context.route("none")).answered(answer);
        }
        let found = Operation::find(request.method(), request.uri().path());
        let operation = found.as_ref().map_or("none", Operation::name);
        let mut record = RequestRecord::begin(self.context.route(operation));
        let scope = self.context.telemetry.scope(request.headers());
        if let Some(scope) = &scope {
            record = record.with_details(&self.context.telemetry, operation, &request, &self.caller, scope);
        }
        let answer = async {
            match found {
                Ok(operation) => self.answer(operation, request).await,
                Err(error) => respond::error(&error),
            }
        };
        let mut response = scope::within(scope, answer).await;
        if let (Some(cors), Some(origin)) = (cors, &origin) {
            cors::share(cors, origin, &mut response);
        }
        record.answered(response)
    }

    fn refuse(&self, head: BadHead) -> Response {
        let error = ApiError { close: true, ..ApiError::new(head.status.as_u16().into(), head.message) };
        RequestRecord::begin(self.context.route("none")).answered(respond::error(&error))
    }
}

async fn run(context: &Rc<Context>, caller: &Caller, operation: Operation, request: Request<Body>) -> Response {
    let query = request.uri().query();
    let answer = match operation {
        Operation::Produce(topic) => return produce::produce(context, caller, &topic, request).await,
        Operation::Tombstone(topic) => return produce::tombstone(context, caller, &topic, request).await,
        Operation::ReadPartition(topic, partition) => consume::read(context, caller, &topic, partition, query).await,
        Operation::ReadGroup(topic) => {
            let headers = request.headers();
            group_stream::stream(context, caller, &topic, query, headers).await
        }
        Operation::GroupOffsets(group) => groups::offsets(context, caller, &group, query).await,
        Operation::CommitOffsets(group) => groups::commit(context, caller, &group, request).await,
        Operation::GroupLag(group) => groups::lag(context, caller, &group, query).await,
        Operation::ListTopics => topics::list(context, caller, query).await,
        Operation::DescribeTopic(topic) => topics::describe(context, caller, &topic, query).await,
        Operation::CreateTopic(topic) => topics::create(context, caller, &topic, request).await,
        Operation::DeleteTopic(topic) => topics::delete(context, caller, &topic, query).await,
        // On the heap: every connection has room for the largest of the others.
        Operation::ConfluentV3(operation) => {
            return Box::pin(confluent::v3::run(context, caller, operation, request)).await;
        }
        Operation::ConfluentV2(operation) => {
            return Box::pin(confluent::v2::run(context, caller, operation, request)).await;
        }
        Operation::Health => Ok(plain("ok\n")),
        Operation::OpenApi => Ok(openapi::answer()),
        Operation::Docs(page) => Ok(page.answer()),
    };
    answer.unwrap_or_else(|error| respond::error(&error))
}

/// A short text as an answer.
pub(crate) fn plain(text: impl Into<bytes::Bytes>) -> Response {
    let mut response = Response::new(ResponseBody::whole(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

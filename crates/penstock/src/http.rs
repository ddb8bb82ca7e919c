//! From a request to an answer.
//!
//! [`Context`] is what a worker's requests share, and the service that takes each to its operation.

pub(crate) mod access;
pub(crate) mod body;
pub(crate) mod caller;
pub(crate) mod confluent;
mod consume;
mod content_encoding;
pub(crate) mod error;
mod group_memory;
mod group_stream;
pub(crate) mod groups;
mod json_pointer;
mod ndjson;
mod params;
mod produce;
mod progress;
pub(crate) mod rate;
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

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use kafka_client::Cluster;
use produce_pipeline::{MemoryBudget, Pipeline, Topic};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::http1::{BadHead, Body, ResponseBody, Service};
use crate::metrics::{Metrics, RouteMetrics};
use access::{Access, Grant};
use body::{BodyReader, Patience};
use caller::Caller;
use error::ApiError;
use groups::Groups;
use respond::{JSON, Response};
use routes::Operation;

/// What a worker's requests share.
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) access: Arc<Access>,
    pub(crate) cluster: Cluster,
    pub(crate) pipeline: Pipeline,
    pub(crate) budget: MemoryBudget,
    pub(crate) metrics: Metrics,
    /// By [`Operation::NAMES`].
    pub(crate) routes: [RouteMetrics; Operation::NAMES.len()],
    /// Members of groups, of all workers.
    pub(crate) groups: Groups,
    /// Connections end with the request under way, and so do streams.
    pub(crate) drain: CancellationToken,
    /// The notice of a drain is over: no new work.
    pub(crate) draining: Arc<AtomicBool>,
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

    /// Has a request counted and logged when its answer is over.
    fn recorded(
        &self,
        operation: &'static str,
        started: Instant,
        log: Option<(Method, String, Rc<Caller>)>,
        response: Response,
    ) -> Response {
        let route = Operation::NAMES.iter().position(|known| *known == operation).unwrap_or(Operation::NAMES.len() - 1);
        let record = RequestRecord { route: self.routes[route].clone(), status: response.status(), started, log };
        response.map(|body| body.guarded(record))
    }

    /// Runs a task of this worker until it ends of itself.
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.spawn_local(task);
    }
}

/// Counts and logs a request when the last of its answer has been handed to the socket, or the client is gone.
struct RequestRecord {
    route: RouteMetrics,
    status: StatusCode,
    started: Instant,
    /// Only when somebody reads the log at this level.
    log: Option<(Method, String, Rc<Caller>)>,
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.route.answered(self.status.as_u16(), took);
        if let Some((method, path, caller)) = &self.log {
            let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            tracing::debug!(%method, path, status = self.status.as_u16(), took_us, %caller, "request");
        }
    }
}

/// What answers the requests of one connection.
pub(crate) struct Session {
    pub(crate) context: Rc<Context>,
    pub(crate) caller: Rc<Caller>,
}

impl Service for Session {
    async fn call(&self, request: Request<Body>) -> Response {
        let started = Instant::now();
        let log = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| (request.method().clone(), request.uri().path().to_owned(), self.caller.clone()));
        let found = Operation::find(request.method(), request.uri().path());
        let name = found.as_ref().map_or("none", Operation::name);
        let response = match found {
            Ok(operation) if self.caller.is_balancer && !matches!(operation, Operation::Health) => {
                respond::error(&ApiError::denied("a health check may ask for /healthz alone"))
            }
            Ok(operation) => run(&self.context, &self.caller, operation, request).await,
            Err(error) => respond::error(&error),
        };
        self.context.recorded(name, started, log, response)
    }

    fn refuse(&self, head: BadHead) -> Response {
        let started = Instant::now();
        let error = ApiError { close: true, ..ApiError::new(head.status.as_u16().into(), head.message) };
        self.context.recorded("none", started, None, respond::error(&error))
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
        Operation::ConfluentV2(operation) => return confluent::v2::run(context, caller, operation, request).await,
        Operation::Health => Ok(plain("ok\n")),
        Operation::OpenApi => {
            let mut response = Response::new(ResponseBody::whole(&include_bytes!("http/openapi.json")[..]));
            response.headers_mut().insert(CONTENT_TYPE, JSON);
            Ok(response)
        }
    };
    answer.unwrap_or_else(|error| respond::error(&error))
}

/// A short text as an answer.
pub(crate) fn plain(text: impl Into<bytes::Bytes>) -> Response {
    let mut response = Response::new(ResponseBody::whole(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_has_every_operation_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(include_str!("http/openapi.json")).expect("JSON");
        let mut described = Vec::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            let path = path.replace("{topic}", "t").replace("{partition}", "0").replace("{group}", "g");
            for method in methods.as_object().expect("methods").keys().filter(|name| *name != "parameters") {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
                let operation = Operation::find(&method, &path).unwrap_or_else(|error| panic!("{path}: {error:?}"));
                described.push(operation.name());
            }
        }
        let mut served = Operation::NAMES.to_vec();
        served.retain(|name| *name != "none");
        described.sort_unstable();
        served.sort_unstable();
        assert_eq!(described, served);
    }

    #[test]
    fn every_reference_of_the_description_leads_somewhere() {
        let text = include_str!("http/openapi.json");
        let document: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let references: Vec<&str> =
            text.split("\"$ref\": \"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(references.len() > 20);
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}

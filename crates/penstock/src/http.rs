//! From a request to an answer.
//!
//! [`Context`] is what a worker's requests share; [`handle`] takes one request to its operation. In reading order:

pub(crate) mod access;
pub(crate) mod body;
mod consume;
mod content_encoding;
pub(crate) mod error;
mod json_pointer;
mod ndjson;
mod params;
mod produce;
mod progress;
pub(crate) mod respond;
pub(crate) mod routes;
mod topics;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode, Version};
use kafka_client::Cluster;
use produce_pipeline::{MemoryBudget, Pipeline, Topic};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::metrics::{Metrics, RouteMetrics};
use access::Access;
use body::{BodyReader, Patience};
use error::ApiError;
use respond::{JSON, Response, ResponseBody};
use routes::Operation;

/// What is read of a body that an early answer did not wait for.
const DISCARD_BYTES: u64 = 256 * 1024;
/// And for how long.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// What a worker's requests share.
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) access: Access,
    pub(crate) cluster: Cluster,
    pub(crate) pipeline: Pipeline,
    pub(crate) budget: MemoryBudget,
    pub(crate) metrics: Metrics,
    /// By [`Operation::NAMES`].
    pub(crate) routes: [RouteMetrics; Operation::NAMES.len()],
    /// The notice of a drain is over: no new work.
    pub(crate) draining: Arc<AtomicBool>,
    /// Asks bodies to be read no further.
    pub(crate) stop_reading: CancellationToken,
    /// Uploads that answer with progress, and bodies that are thrown away. The worker waits for them at its end.
    pub(crate) tasks: TaskTracker,
}

impl Context {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// A topic, from the cached metadata or within `patience`.
    async fn topic(&self, name: &str, patience: Duration) -> Result<Topic, ApiError> {
        match tokio::time::timeout(patience, self.pipeline.topic(name)).await {
            Ok(Ok(topic)) => Ok(topic),
            Ok(Err(error)) => Err(ApiError::of_topic(name, &error)),
            Err(_) => Err(ApiError::no_broker()),
        }
    }

    fn body_reader(&self, body: Incoming) -> BodyReader {
        let patience = Patience { idle: self.config.listen.idle_timeout, min_rate: self.config.listen.min_body_rate };
        BodyReader::new(body, patience, &self.stop_reading)
    }

    /// Runs a task of this worker until it ends of itself.
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.spawn_local(task);
    }

    /// Lets go of a body after an answer that did not wait for its end.
    fn abandon_body(&self, reader: BodyReader) {
        if !reader.is_over() {
            self.spawn(reader.discard(DISCARD_BYTES, DISCARD_TIME));
        }
    }
}

/// Answers a request before its body was asked for.
///
/// A client that waits for `100 Continue` gets this answer in its place and keeps its body. Another one is sending
/// already: some of that is read, so that it sees the answer and not a reset. A body that is announced as short is read
/// whole, and the connection goes on.
fn refuse(context: &Context, headers: &HeaderMap, body: Incoming, error: &ApiError) -> Response {
    let mut response = respond::error(error);
    if body.is_end_stream() {
        return response;
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let short = length.is_some_and(|length| length <= DISCARD_BYTES);
    let waits = produce::expects_continue(headers);
    if !short || waits {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if !waits {
        context.abandon_body(context.body_reader(body));
    }
    response
}

/// Counts and logs a request when the last of its answer has been handed to the connection, or the client is gone.
struct RequestRecord {
    route: RouteMetrics,
    status: StatusCode,
    started: Instant,
    /// Only when somebody reads the log at this level.
    log: Option<(Method, String)>,
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.route.answered(self.status.as_u16(), took);
        if let Some((method, path)) = &self.log {
            let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            tracing::debug!(%method, path, status = self.status.as_u16(), took_us, "request");
        }
    }
}

/// Answers one request. `guard` is kept until the last of the answer has been handed to the connection.
pub(crate) async fn handle(context: Rc<Context>, request: Request<Incoming>, guard: impl std::any::Any) -> Response {
    let started = Instant::now();
    let log =
        tracing::enabled!(tracing::Level::DEBUG).then(|| (request.method().clone(), request.uri().path().to_owned()));
    let found = check_host(&request).and_then(|()| Operation::find(request.method(), request.uri().path()));
    let name = found.as_ref().map_or("none", Operation::name);
    let mut response = match found {
        Ok(operation) => run(&context, operation, request).await,
        Err(error) => {
            let (head, body) = request.into_parts();
            refuse(&context, &head.headers, body, &error)
        }
    };
    if context.is_draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let route = Operation::NAMES.iter().position(|known| *known == name).unwrap_or(Operation::NAMES.len() - 1);
    let record = RequestRecord { route: context.routes[route].clone(), status: response.status(), started, log };
    response.map(|body| body.guarded((record, guard)))
}

async fn run(context: &Rc<Context>, operation: Operation, request: Request<Incoming>) -> Response {
    let answer = match operation {
        Operation::Produce(topic) => return produce::produce(context, &topic, request).await,
        Operation::Tombstone(topic) => return produce::tombstone(context, &topic, request).await,
        Operation::CreateTopic(topic) => return topics::create(context, &topic, request).await,
        Operation::ReadPartition(topic, partition) => {
            consume::read(context, &topic, partition, request.uri().query()).await
        }
        Operation::ListTopics => topics::list(context, request.uri().query()).await,
        Operation::DescribeTopic(topic) => topics::describe(context, &topic, request.uri().query()).await,
        Operation::DeleteTopic(topic) => topics::delete(context, &topic, request.uri().query()).await,
        Operation::Health => Ok(plain("ok\n")),
        Operation::OpenApi => {
            let mut response = Response::new(ResponseBody::whole(&include_bytes!("http/openapi.json")[..]));
            response.headers_mut().insert(CONTENT_TYPE, JSON);
            Ok(response)
        }
    };
    // None of these has a use for a body; one that is there is read a little and dropped.
    let (head, body) = request.into_parts();
    match answer {
        Err(error) => refuse(context, &head.headers, body, &error),
        Ok(response) => {
            if !body.is_end_stream() {
                context.spawn(context.body_reader(body).discard(DISCARD_BYTES, DISCARD_TIME));
            }
            response
        }
    }
}

/// A short text as an answer.
pub(crate) fn plain(text: impl Into<bytes::Bytes>) -> Response {
    let mut response = Response::new(ResponseBody::whole(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// RFC 9112 section 3.2: a request of HTTP/1.1 has one `Host`; anything else is answered with 400. Ends the connection,
/// since whoever frames requests differently from us may be on the way.
fn check_host(request: &Request<Incoming>) -> Result<(), ApiError> {
    let mut hosts = request.headers().get_all(HOST).into_iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => Ok(()),
        (None, _) if request.version() < Version::HTTP_11 => Ok(()),
        _ => Err(ApiError { close: true, ..ApiError::bad_request("a request has exactly one Host header") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_has_every_operation_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(include_str!("http/openapi.json")).expect("JSON");
        let mut described = Vec::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            let path = path.replace("{topic}", "t").replace("{partition}", "0");
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

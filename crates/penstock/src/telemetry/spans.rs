//! Spans of requests, sent to a collector of OpenTelemetry by OTLP over HTTP.
//!
//! ```text
//!  worker: a request is over ─▶ bounded queue ─▶ task on the main thread: batches ─▶ exporter ─▶ collector
//!               full: dropped, counted                      fails: dropped, counted
//! ```
//!
//! Whatever becomes of spans, no request knows of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use super::trace_context::TraceContext;
use crate::client::{self, Connection, Endpoint, RequestBody};
use crate::config;

/// Spans that wait, of about a kilobyte each.
const QUEUED: usize = 4096;
/// Spans that go out together, and how long the first of them waits for others.
const BATCH: usize = 512;
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// For a batch to be taken by the collector.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a collector's answer.
const ANSWER_BYTES: usize = 64 * 1024;
/// A collector that fails is told of once in so long.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

/// What became of spans.
#[derive(Debug, Default)]
pub(crate) struct SpanCounts {
    pub(crate) exported: AtomicU64,
    /// There was no room in the queue.
    pub(crate) dropped: AtomicU64,
    /// The collector did not take them.
    pub(crate) failed: AtomicU64,
}

/// Where finished spans go. Shared by all workers.
#[derive(Debug)]
pub(crate) struct Spans {
    queue: mpsc::Sender<SpanData>,
    counts: Arc<SpanCounts>,
    /// Of 2^63: traces that begin here are recorded where the lower half of their id is below this.
    sampled_below: u64,
    /// The path of each operation, as the description has it.
    routes: BTreeMap<&'static str, String>,
}

impl Spans {
    /// Also what sends the spans, to be run until it ends: when all handles are gone and the rest is sent.
    pub(crate) fn new(
        config: &config::Telemetry,
        routes: BTreeMap<&'static str, String>,
    ) -> Result<(Self, ExportTask), opentelemetry_otlp::ExporterBuildError> {
        let (queue, spans) = mpsc::channel(QUEUED);
        let counts = Arc::new(SpanCounts::default());
        let client = Client { collector: config.collector.clone(), connection: Mutex::default() };
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(format!("http://{}/v1/traces", config.collector))
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name(config.service_name.to_string()).with_attribute(version);
        exporter.set_resource(&resource.build());
        let sampled_below = (config.sample_ratio * (1_u64 << 63) as f64) as u64;
        let task = ExportTask { exporter, spans, counts: counts.clone() };
        Ok((Self { queue, counts, sampled_below, routes }, task))
    }

    pub(crate) fn counts(&self) -> Arc<SpanCounts> {
        self.counts.clone()
    }

    /// Whether a request's span is recorded: as whoever began the trace decided, and by the ratio if nobody did.
    pub(super) fn records(&self, received: Option<&TraceContext>, own: &TraceContext) -> bool {
        match received {
            Some(received) => received.sampled,
            None => (own.trace_id as u64 >> 1) < self.sampled_below,
        }
    }

    /// The path of an operation with its parameters' names in it.
    pub(crate) fn route(&self, operation: &str) -> Option<&str> {
        self.routes.get(operation).map(String::as_str)
    }

    /// Sends a span on its way, if there is room.
    pub(crate) fn finished(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Sends spans in batches.
pub(crate) struct ExportTask {
    exporter: SpanExporter,
    spans: mpsc::Receiver<SpanData>,
    counts: Arc<SpanCounts>,
}

impl ExportTask {
    /// Ends when all handles of the queue are gone and what was in it is sent, or could not be.
    pub(crate) async fn run(mut self) {
        let mut complained: Option<Instant> = None;
        let mut batch = Vec::with_capacity(BATCH);
        while self.spans.recv_many(&mut batch, BATCH).await > 0 {
            let deadline = Instant::now() + BATCH_WAIT;
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                let more = self.spans.recv_many(&mut batch, room);
                if !matches!(timeout_at(deadline, more).await, Ok(1..)) {
                    break;
                }
            }
            let count = batch.len() as u64;
            let sent = self.exporter.export(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)));
            let problem = match timeout(EXPORT_TIMEOUT, sent).await {
                Ok(Ok(())) => {
                    self.counts.exported.fetch_add(count, Relaxed);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("not taken in {EXPORT_TIMEOUT:?}"),
            };
            self.counts.failed.fetch_add(count, Relaxed);
            if complained.is_none_or(|last| last.elapsed() >= COMPLAINT_EVERY) {
                complained = Some(Instant::now());
                tracing::warn!(problem, spans = count, "spans could not be exported");
            }
        }
    }
}

/// The exporter's way to its collector: one connection, kept while it lasts.
#[derive(Debug)]
struct Client {
    collector: Endpoint,
    connection: Mutex<Option<Connection>>,
}

impl Client {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let mut builder = self.collector.request(head.uri.path()).method(head.method);
        for (name, value) in &head.headers {
            builder = builder.header(name, value);
        }
        let request = builder.body(RequestBody::Whole(body))?;
        let mut held = self.connection.lock().await;
        // Whoever gives up on an answer leaves no connection behind that waits for it.
        let mut connection = match held.take() {
            Some(open) if !open.is_closed() => open,
            _ => self.collector.connect().await?,
        };
        let (head, body) = connection.send(request).await?.into_parts();
        let body = client::whole(body, ANSWER_BYTES).await?;
        *held = Some(connection);
        Ok(Response::from_parts(head, body.into()))
    }
}

impl HttpClient for Client {
    fn send_bytes<'client, 'future>(
        &'client self,
        request: Request<Bytes>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'future>>
    where
        'client: 'future,
        Self: 'future,
    {
        Box::pin(self.send(request))
    }
}

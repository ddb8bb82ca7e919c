//! What is told of each request once it is over: a count, and where the settings ask for it a line and a span.
//!
//! It is over when the last of its answer has been handed to the socket, or when the client is gone. A client that went
//! away before there was an answer is told of as status 499, as nginx does.

use std::fmt::{self, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::{Method, Request, StatusCode};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tokio::time::Instant;

use super::caller::Caller;
use super::respond::Response;
use crate::http1::{Body, Meter};
use crate::metrics::RouteMetrics;
use crate::telemetry::Telemetry;
use crate::telemetry::scope::{Outcomes, Scope, Trace};
use crate::telemetry::spans::Spans;

/// The client was gone before there was an answer.
const CLIENT_GONE: u16 = 499;
/// A longer text of a client's is cut in a line of the log.
const TEXT_CHARS: usize = 1024;

/// Counts a request, and writes its line and its span, when it is dropped.
pub(super) struct RequestRecord {
    route: RouteMetrics,
    started: Instant,
    status: Option<StatusCode>,
    details: Option<Box<Details>>,
}

/// What there is to tell beside that.
struct Details {
    telemetry: Arc<Telemetry>,
    began: SystemTime,
    operation: &'static str,
    method: Method,
    path: String,
    /// By its connection.
    caller: Rc<Caller>,
    meter: Meter,
    scope: Rc<Scope>,
}

impl RequestRecord {
    /// A request begins.
    pub(super) fn begin(route: RouteMetrics) -> Self {
        route.begun();
        Self { route, started: Instant::now(), status: None, details: None }
    }

    /// There is more to tell of this one than its count.
    pub(super) fn with_details(
        mut self,
        telemetry: &Arc<Telemetry>,
        operation: &'static str,
        request: &Request<Body>,
        caller: &Rc<Caller>,
        scope: &Rc<Scope>,
    ) -> Self {
        if telemetry.log_requests || scope.trace.recorded {
            self.details = Some(Box::new(Details {
                telemetry: telemetry.clone(),
                began: SystemTime::now(),
                operation,
                method: request.method().clone(),
                path: request.uri().path().to_owned(),
                caller: caller.clone(),
                meter: request.body().meter(),
                scope: scope.clone(),
            }));
        }
        self
    }

    /// The answer, which takes the record along to its end.
    pub(super) fn answered(mut self, response: Response) -> Response {
        self.status = Some(response.status());
        response.map(|body| body.guarded(self))
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let status = self.status.map_or(CLIENT_GONE, |status| status.as_u16());
        self.route.answered(status, took);
        let Some(details) = &self.details else { return };
        if details.telemetry.log_requests {
            details.log(status, took);
        }
        if let Some(spans) = details.telemetry.spans.as_ref().filter(|_| details.scope.trace.recorded) {
            spans.finished(details.span(spans, status, took));
        }
    }
}

impl Details {
    fn log(&self, status: u16, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let (bytes_in, bytes_out) = self.meter.read();
        let outcomes = self.scope.outcomes();
        let caller = self.scope.caller().unwrap_or_else(|| self.caller.clone());
        tracing::info!(
            target: crate::log::REQUESTS,
            method = %Printable(self.method.as_str()),
            path = %Printable(&self.path),
            operation = self.operation,
            topic = self.scope.topic().as_deref(),
            status,
            bytes_in,
            bytes_out,
            took_us,
            caller = %Printable(&caller.to_string()),
            trace_id = %format_args!("{:032x}", self.scope.trace.context.trace_id),
            records_written = outcomes.map(|outcomes| outcomes.written),
            records_not_written = outcomes.map(|outcomes| outcomes.not_written),
            records_unknown = outcomes.map(|outcomes| outcomes.unknown),
        );
    }
}

impl Details {
    /// Names by OpenTelemetry's semantic conventions for HTTP servers and for messaging; what those do not know begins
    /// with our name.
    fn span(&self, spans: &Spans, status: u16, took: Duration) -> SpanData {
        let Trace { context, parent, .. } = &self.scope.trace;
        let (bytes_in, bytes_out) = self.meter.read();
        let method = Printable(self.method.as_str()).to_string();
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let mut attributes = vec![
            KeyValue::new("http.request.method", method.clone()),
            KeyValue::new("url.path", Printable(&self.path).to_string()),
            KeyValue::new("http.request.body.size", number(bytes_in)),
            KeyValue::new("client.address", self.caller.source.unwrap_or(self.caller.peer).ip().to_string()),
            KeyValue::new("network.peer.address", self.caller.peer.ip().to_string()),
            KeyValue::new("penstock.operation", self.operation),
        ];
        let mut add = |name: &'static str, value: opentelemetry::Value| attributes.push(KeyValue::new(name, value));
        if status == CLIENT_GONE {
            add("error.type", "client_gone".into());
        } else {
            add("http.response.status_code", i64::from(status).into());
            add("penstock.response.size", number(bytes_out).into());
        }
        let failed = (500..=599).contains(&status);
        if failed {
            add("error.type", status.to_string().into());
        }
        let route = spans.route(self.operation);
        if let Some(route) = route {
            add("http.route", route.to_owned().into());
        }
        if let Some(topic) = self.scope.topic() {
            add("messaging.system", "kafka".into());
            add("messaging.destination.name", String::from(topic).into());
        }
        if let Some(outcomes) = self.scope.outcomes() {
            let Outcomes { written, not_written, unknown } = outcomes;
            add("messaging.operation.type", "send".into());
            add("messaging.operation.name", self.operation.into());
            add("messaging.batch.message_count", number(written + not_written + unknown).into());
            add("penstock.records.written", number(written).into());
            add("penstock.records.not_written", number(not_written).into());
            add("penstock.records.unknown", number(unknown).into());
        }
        SpanData {
            span_context: SpanContext::new(
                TraceId::from(context.trace_id),
                SpanId::from(context.span_id),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: parent.is_some(),
            span_kind: SpanKind::Server,
            name: route.map_or_else(|| method.clone(), |route| format!("{method} {route}")).into(),
            start_time: self.began,
            end_time: self.began + took,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if failed { Status::error("") } else { Status::Unset },
            instrumentation_scope: InstrumentationScope::builder("penstock").build(),
        }
    }
}

/// A client's text for a log: control characters escaped, and not too long.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, char) in self.0.chars().enumerate() {
            if index == TEXT_CHARS {
                return f.write_str("…");
            }
            if char.is_control() {
                write!(f, "{}", char.escape_default())?;
            } else {
                f.write_char(char)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_text_cannot_break_a_line_or_fill_a_disk() {
        assert_eq!(Printable("/v1/a\r\n\u{1b}[2J\u{85}ä").to_string(), "/v1/a\\r\\n\\u{1b}[2J\\u{85}ä");
        let long = Printable(&"x".repeat(TEXT_CHARS + 1)).to_string();
        assert_eq!(long, "x".repeat(TEXT_CHARS) + "…");
        assert_eq!(Printable(&"x".repeat(TEXT_CHARS)).to_string(), "x".repeat(TEXT_CHARS));
    }
}

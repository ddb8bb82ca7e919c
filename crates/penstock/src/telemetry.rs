//! What the bridge tells of single requests: a line in the log, and its place in a trace.
//!
//! ```text
//!  head ─▶ Telemetry::scope ─▶ Scope ─▶ (task-local while the request runs) ─▶ RequestRecord ─▶ line
//!           nothing to tell: None        trace id, topic, deliveries
//! ```
//!
//! A request of which nothing is to be told costs one look at its headers, for a `traceparent`, and no more: there is no
//! scope, and what would note something in it finds none. Nothing here happens per record.
//!
//! * [`trace_context`]: `traceparent` and `tracestate`
//! * [`scope`]: what is known of the request under way, for whoever runs on its behalf
//! * [`spans`]: spans of requests on their way to a collector

pub(crate) mod scope;
pub(crate) mod spans;
pub(crate) mod trace_context;

use std::rc::Rc;

use hyper::HeaderMap;

use crate::config::Config;
use scope::{Scope, Trace};
use spans::Spans;
use trace_context::{TraceContext, tracestate};

/// What is to be told, by the settings. Shared by all workers.
#[derive(Debug)]
pub(crate) struct Telemetry {
    /// `log.requests`
    pub(crate) log_requests: bool,
    /// `producer.trace_header`: what carries the trace in records.
    trace_header: Option<Box<str>>,
    /// `telemetry.otlp_endpoint`
    pub(crate) spans: Option<Spans>,
}

impl Telemetry {
    pub(crate) fn new(config: &Config, spans: Option<Spans>) -> Self {
        Self { log_requests: config.log.requests, trace_header: config.producer.trace_header.clone(), spans }
    }

    /// What is known of a request that begins. `None`: nothing is told of it, and it is in no trace.
    pub(crate) fn scope(&self, headers: &HeaderMap) -> Option<Rc<Scope>> {
        let received = TraceContext::of(headers);
        if received.is_none() && !self.log_requests && self.spans.is_none() {
            return None;
        }
        let mut context = received.unwrap_or_else(|| TraceContext::new(false));
        let recorded = self.spans.as_ref().is_some_and(|spans| spans.records(received.as_ref(), &context));
        if received.is_none() && !recorded && !self.log_requests {
            return None;
        }
        let parent = received.filter(|_| recorded).map(|received| received.span_id);
        if recorded {
            // Where no span of ours is recorded, the sender's is the one to go on from.
            context = TraceContext { sampled: true, ..context.child() };
        }
        let goes_on = self.trace_header.is_some() && (recorded || received.is_some());
        let state = received.filter(|_| goes_on).and_then(|_| tracestate(headers));
        Some(Rc::new(Scope::new(Trace { context, recorded, parent, goes_on, state })))
    }

    /// Headers of the request's records, with the trace added if that is wished, there is one, and the client did not add
    /// it.
    pub(crate) fn with_trace(&self, headers: kafka_records::HeaderBlock) -> kafka_records::HeaderBlock {
        let Some(name) = self.trace_header.as_deref() else { return headers };
        scope::current(|scope| scope.trace.in_records(name, &headers)).flatten().unwrap_or(headers)
    }
}

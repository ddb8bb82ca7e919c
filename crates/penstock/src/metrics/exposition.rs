//! The list of series: name, help and value of each, in the order in which they are read.
//!
//! The text is Prometheus's 0.0.4, which every scraper reads. `prometheus-client` writes OpenMetrics, where a counter's
//! family has a name without `_total`; so counters carry their full name here and are written as it writes gauges,
//! which adds nothing to the name. The `# TYPE` line says counter all the same.

use std::{
    fmt,
    sync::{PoisonError, atomic::Ordering::Relaxed},
    time::SystemTime,
};

use kafka_client::ErrorCode;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{Inner, Metrics, ProxyRefusal, histogram::Histogram};

/// Everything as text.
pub(super) fn render(metrics: &Metrics) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics.clone()));
    let mut out = String::with_capacity(16 * 1024);
    text::encode_registry(&mut out, &registry).expect("a String takes any text");
    out
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(encoder);
        self.0.process(&mut out)?;
        self.0.clients(&mut out)?;
        self.0.records(&mut out)?;
        self.0.brokers(&mut out)
    }
}

impl Inner {
    fn process(&self, out: &mut Writer<'_>) -> fmt::Result {
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        out.gauge("penstock_build_info", "What runs.")?.labelled(&labels, &1_u64)?;
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        out.gauge("process_start_time_seconds", "When the process started, since the epoch.")?.value(&started)?;
        let draining = u64::from(self.draining.load(Relaxed));
        out.gauge("penstock_draining", "1 from the signal to stop until the end.")?.value(&draining)?;
        out.counter("penstock_log_lines_dropped_total", "Lines of the log that standard error did not take in time.")?
            .value(&crate::log::dropped_lines())?;
        if let Some(spans) = self.spans.get() {
            let mut family = out.counter(
                "penstock_spans_total",
                "Spans of requests by outcome: exported, dropped for want of room in the queue, failed at the collector.",
            )?;
            for (outcome, count) in
                [("exported", &spans.exported), ("dropped", &spans.dropped), ("failed", &spans.failed)]
            {
                family.labelled(&[("outcome", outcome)], &count.load(Relaxed))?;
            }
        }
        if let Some(budget) = self.budget.get() {
            out.gauge("penstock_memory_used_bytes", "What records on their way take of the memory budget.")?
                .value(&(budget.used() as u64))?;
            out.gauge("penstock_memory_limit_bytes", "The memory budget: producer.memory_bytes.")?
                .value(&(budget.total() as u64))?;
        }
        Ok(())
    }

    fn clients(&self, out: &mut Writer<'_>) -> fmt::Result {
        let mut open = out.gauge("penstock_http_connections", "Client connections open, by worker.")?;
        for (index, worker) in self.workers.iter().enumerate() {
            // Closed first: a connection that closes in between must not make the difference negative.
            let closed = worker.connections_closed.load(Relaxed);
            let opened = worker.connections_opened.load(Relaxed);
            open.labelled(&[("worker", index)], &opened.saturating_sub(closed))?;
        }
        let mut opened = out.counter("penstock_http_connections_opened_total", "Client connections, by worker.")?;
        for (index, worker) in self.workers.iter().enumerate() {
            opened.labelled(&[("worker", index)], &worker.connections_opened.load(Relaxed))?;
        }
        out.counter(
            "penstock_http_connections_refused_total",
            "Client connections closed unserved because listen.max_connections were open, or as many as one source may have.",
        )?
        .value(&self.connections_refused.load(Relaxed))?;
        out.counter("penstock_tls_handshakes_failed_total", "TLS handshakes that ended without a session.")?
            .value(&self.tls_handshakes_failed.load(Relaxed))?;
        let mut refused = out.counter(
            "penstock_proxy_headers_refused_total",
            "Connections closed for want of a PROXY header from a trusted balancer, by reason.",
        )?;
        for (reason, label) in ProxyRefusal::ALL {
            let count = self.proxy_headers_refused[reason as usize].load(Relaxed);
            refused.labelled(&[("reason", label)], &count)?;
        }

        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut requests = out.counter("penstock_http_requests_total", "Requests answered, by route and status.")?;
        for route in &routes {
            for (index, count) in route.0.by_status.iter().enumerate() {
                let count = count.load(Relaxed);
                if count > 0 {
                    requests.labelled(&([("route", route.0.name)], [("status", index + 100)]), &count)?;
                }
            }
        }
        let mut durations = out.histogram(
            "penstock_http_request_duration_seconds",
            "From a request's head read to its answer written, by route.",
        )?;
        for route in &routes {
            durations.labelled_distribution(&[("route", route.0.name)], &route.0.duration)?;
        }
        out.counter("penstock_http_body_bytes_total", "Bytes of request bodies, decrypted, as they were sent.")?
            .value(&self.body_bytes.load(Relaxed))
    }

    fn records(&self, out: &mut Writer<'_>) -> fmt::Result {
        let mut records = out.counter(
            "penstock_records_total",
            "Records by outcome: written (acknowledged with acks=all), not_written, unknown; refused is what was \
             not_written because the bridge refused the line.",
        )?;
        for (outcome, count) in [
            ("written", &self.records_written),
            ("not_written", &self.records_not_written),
            ("unknown", &self.records_unknown),
            ("refused", &self.records_refused),
        ] {
            records.labelled(&[("outcome", outcome)], &count.load(Relaxed))?;
        }
        out.histogram("penstock_batch_records", "Records in a batch when it is sent.")?
            .distribution(&self.batch_records)?;
        out.histogram("penstock_batch_bytes", "Bytes of a batch when it is sent, header included.")?
            .distribution(&self.batch_bytes)?;
        out.histogram(
            "penstock_produce_ack_seconds",
            "From a batch's first record to its acknowledgement, retries included.",
        )?
        .distribution(&self.ack_latency)
    }

    fn brokers(&self, out: &mut Writer<'_>) -> fmt::Result {
        let mut round_trips = out.histogram(
            "penstock_kafka_produce_round_trip_seconds",
            "From a Produce request written to its response read, by broker.",
        )?;
        let brokers = self.round_trips.read().unwrap_or_else(PoisonError::into_inner).clone();
        for (broker, round_trip) in brokers {
            round_trips.labelled_distribution(&[("broker", broker)], &round_trip)?;
        }
        let mut errors = out.counter("penstock_kafka_errors_total", "Error codes in brokers' answers.")?;
        for (index, count) in self.broker_errors.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                let code = ErrorCode(i16::try_from(index).expect("fewer codes than an i16 counts") - 1);
                errors.labelled(&([("code", code.0)], [("name", code.name())]), &count)?;
            }
        }
        if let Some(cluster) = self.cluster.get() {
            let mut counts: Vec<(i32, usize)> = cluster.connection_counts().into_iter().collect();
            counts.sort_unstable();
            let mut open = out.gauge("penstock_kafka_connections", "Connections to Kafka open, by broker.")?;
            for (broker, count) in counts.into_iter().take(super::MAX_BROKERS) {
                open.labelled(&[("broker", broker)], &(count as u64))?;
            }
        }
        Ok(())
    }
}

/// Begins a family: one `# HELP`, one `# TYPE`.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn gauge(&mut self, name: &'static str, help: &str) -> Result<Family<'_>, fmt::Error> {
        Ok(Family(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?))
    }

    fn counter(&mut self, name: &'static str, help: &str) -> Result<Family<'_>, fmt::Error> {
        debug_assert!(name.ends_with("_total"), "{name}");
        Ok(Family(self.0.encode_descriptor(name, help, None, MetricType::Counter)?))
    }

    fn histogram(&mut self, name: &'static str, help: &str) -> Result<Family<'_>, fmt::Error> {
        Ok(Family(self.0.encode_descriptor(name, help, None, MetricType::Histogram)?))
    }
}

/// A family's series.
struct Family<'a>(MetricEncoder<'a>);

impl Family<'_> {
    fn value(&mut self, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_gauge(value)
    }

    fn labelled(&mut self, labels: &impl EncodeLabelSet, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.0.encode_family(labels)?.encode_gauge(value)
    }

    fn distribution(&mut self, histogram: &Histogram) -> fmt::Result {
        let (sum, count, buckets) = histogram.snapshot();
        self.0.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn labelled_distribution(&mut self, labels: &impl EncodeLabelSet, histogram: &Histogram) -> fmt::Result {
        let (sum, count, buckets) = histogram.snapshot();
        self.0.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

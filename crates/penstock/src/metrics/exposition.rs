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

use kafka_client::{BrokerStats, ErrorCode};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{
    Inner, LoginResult, Metrics, NEVER, ProxyRefusal, Reloaded, RouteMetrics, Told, histogram::Histogram,
    process::Process,
};
use crate::auth::Scheme;

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
        self.0.trust(&mut out)?;
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
        let Process { cpu_seconds, resident_bytes, open_fds, max_fds } = Process::now();
        if let Some(seconds) = cpu_seconds {
            out.counter("process_cpu_seconds_total", "CPU time of the process, user and system.")?.value(&seconds)?;
        }
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory of the process that is in RAM.", resident_bytes),
            ("process_open_fds", "File descriptors open.", open_fds),
            ("process_max_fds", "File descriptors that may be open.", max_fds),
        ] {
            if let Some(value) = value {
                out.gauge(name, help)?.value(&value)?;
            }
        }
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

        out.gauge("penstock_consumer_instances", "Consumer instances of Confluent's API that are here.")?
            .value(&self.consumer_instances.load(Relaxed))?;
        let mut handed_on = out.counter(
            "penstock_fleet_requests_total",
            "Requests handed on to the bridge that has the consumer instance, by whether it answered.",
        )?;
        handed_on.labelled(&[("outcome", "answered")], &self.fleet_answered.load(Relaxed))?;
        handed_on.labelled(&[("outcome", "unanswered")], &self.fleet_unanswered.load(Relaxed))?;
        out.counter(
            "penstock_fleet_requests_refused_total",
            "Requests on the fleet's listener that no bridge of the fleet signed, or not now.",
        )?
        .value(&self.fleet_refused.load(Relaxed))?;
        let mut asked = out.counter(
            "penstock_schema_registry_requests_total",
            "Requests to the Schema Registry by outcome: answered, refused (it knows no such schema, or it is none), failed.",
        )?;
        for (told, label) in Told::ALL {
            asked.labelled(&[("outcome", label)], &self.registry_requests[told as usize].load(Relaxed))?;
        }
        out.histogram(
            "penstock_schema_registry_request_duration_seconds",
            "From a request to the Schema Registry begun to its answer read, connecting included.",
        )?
        .distribution(&self.registry_latency)?;

        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        out.gauge("penstock_http_requests_in_flight", "Requests whose answer is not over.")?
            .value(&routes.iter().map(RouteMetrics::in_flight).sum::<u64>())?;
        let mut requests = out.counter(
            "penstock_http_requests_total",
            "Requests by route and status; 499 is a client that went away before its answer.",
        )?;
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

    /// Certificates, logins, and what is read anew.
    fn trust(&self, out: &mut Writer<'_>) -> fmt::Result {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        for (until, name, help) in [
            (
                &self.certificate_until,
                "penstock_tls_certificate_expiry_seconds",
                "Until the first certificate of tls.certificate ends; below zero, since then.",
            ),
            (
                &self.lists_until,
                "penstock_tls_crl_expiry_seconds",
                "Until the first list of tls.crl is out of date, and clients with a certificate are refused.",
            ),
            (
                &self.kafka_certificate_until,
                "penstock_kafka_certificate_expiry_seconds",
                "Until the first certificate of kafka.certificate ends; below zero, since then.",
            ),
        ] {
            let until = until.load(Relaxed);
            if until != NEVER {
                let left = i64::try_from(until).unwrap_or(i64::MAX).saturating_sub_unsigned(now);
                out.gauge(name, help)?.value(&left)?;
            }
        }
        let mut logins = out.counter("penstock_logins_total", "Credentials looked at, by scheme and result.")?;
        for (scheme, scheme_label) in Scheme::ALL {
            for (result, label) in LoginResult::ALL {
                let count = self.logins[scheme as usize][result as usize].load(Relaxed);
                logins.labelled(&([("scheme", scheme_label)], [("result", label)]), &count)?;
            }
        }
        let mut reloads = out.counter("penstock_reloads_total", "Files read anew, by what they hold and result.")?;
        for what in Reloaded::ALL {
            let counts = &self.reloads[what as usize];
            for (count, label) in [(&counts.ok, "ok"), (&counts.failed, "failed")] {
                reloads.labelled(&([("what", what.name())], [("result", label)]), &count.load(Relaxed))?;
            }
        }
        let mut failing =
            out.gauge("penstock_reload_failing", "1 while what was changed cannot be used and the old is in place.")?;
        for what in Reloaded::ALL {
            let is_failing = u64::from(self.reloads[what as usize].failing.load(Relaxed));
            failing.labelled(&[("what", what.name())], &is_failing)?;
        }
        let needed = u64::from(self.restart_needed.load(Relaxed));
        out.gauge("penstock_restart_needed", "1 while the configuration's file has settings that need a restart.")?
            .value(&needed)
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
        out.counter("penstock_batches_retried_total", "Times that a batch was sent again.")?
            .value(&self.batches_retried.load(Relaxed))?;
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
            out.gauge(
                "penstock_kafka_metadata_age_seconds",
                "Since a broker last told what the cluster looks like, or since the start; a little above 300 at the most \
                 while one can be asked.",
            )?
            .value(&cluster.metadata_age().as_secs_f64())?;
            let mut stats: Vec<(i32, BrokerStats)> = cluster.broker_stats().into_iter().collect();
            stats.sort_unstable_by_key(|(broker, _)| *broker);
            stats.truncate(super::MAX_BROKERS);
            let mut open = out.gauge("penstock_kafka_connections", "Connections to Kafka open, by broker.")?;
            for (broker, stats) in stats.iter().filter(|(broker, _)| *broker >= 0) {
                open.labelled(&[("broker", *broker)], &(stats.open as u64))?;
            }
            type Count = fn(&BrokerStats) -> u64;
            let families: [(_, _, Count); 5] = [
                (
                    "penstock_kafka_connects_total",
                    "Connections to Kafka that were established, by broker; -1 is the bootstrap servers.",
                    |stats| stats.connects,
                ),
                (
                    "penstock_kafka_connect_failures_total",
                    "Connections to Kafka that were not: name, TCP, TLS, version or login, by broker.",
                    |stats| stats.connect_failures,
                ),
                ("penstock_kafka_session_renewals_total", "Logins repeated in place, by broker.", |stats| {
                    stats.renewals
                }),
                ("penstock_kafka_sent_bytes_total", "Bytes written to brokers, before TLS.", |stats| stats.bytes_out),
                ("penstock_kafka_received_bytes_total", "Bytes read from brokers, after TLS.", |stats| stats.bytes_in),
            ];
            for (name, help, value) in families {
                let mut family = out.counter(name, help)?;
                for (broker, stats) in &stats {
                    family.labelled(&[("broker", *broker)], &value(stats))?;
                }
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

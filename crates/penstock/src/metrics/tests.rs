use super::*;

fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start} in\n{text}"))
}

#[test]
fn requests_are_counted_by_route_and_status() {
    let metrics = Metrics::new(1);
    let produce = metrics.route("produce");
    produce.answered(200, Duration::from_millis(4));
    metrics.route("produce").answered(200, Duration::from_millis(4));
    produce.answered(503, Duration::from_millis(1));
    let text = metrics.render();
    assert_eq!(
        line(&text, "penstock_http_requests_total{route=\"produce\",status=\"200\"}"),
        "penstock_http_requests_total{route=\"produce\",status=\"200\"} 2"
    );
    assert!(text.contains("penstock_http_requests_total{route=\"produce\",status=\"503\"} 1\n"));
    assert!(text.contains("penstock_http_request_duration_seconds_count{route=\"produce\"} 3\n"));
    assert!(!text.contains("status=\"404\""), "a status that was never sent has no series");
}

#[test]
fn histogram_buckets_are_cumulative_and_bounds_are_inclusive() {
    let metrics = Metrics::new(1);
    for took in [250, 251, 40_000_000] {
        metrics.batch_resolved(Outcome::Written, 10, Duration::from_micros(took));
    }
    let text = metrics.render();
    assert!(text.contains("penstock_produce_ack_seconds_bucket{le=\"0.00025\"} 1\n"), "{text}");
    assert!(text.contains("penstock_produce_ack_seconds_bucket{le=\"0.0005\"} 2\n"), "{text}");
    assert!(text.contains("penstock_produce_ack_seconds_bucket{le=\"30.0\"} 2\n"), "{text}");
    assert!(text.contains("penstock_produce_ack_seconds_bucket{le=\"+Inf\"} 3\n"), "{text}");
    assert!(text.contains("penstock_records_total{outcome=\"written\"} 30\n"), "{text}");
}

#[test]
fn only_written_batches_have_an_ack_latency() {
    let metrics = Metrics::new(1);
    metrics.batch_resolved(Outcome::Unknown, 7, Duration::from_secs(30));
    metrics.batch_resolved(Outcome::NotWritten, 3, Duration::from_secs(30));
    metrics.records_refused(2);
    let text = metrics.render();
    assert!(text.contains("penstock_produce_ack_seconds_count 0\n"));
    assert!(text.contains("penstock_records_total{outcome=\"unknown\"} 7\n"));
    assert!(text.contains("penstock_records_total{outcome=\"not_written\"} 3\n"));
    assert!(text.contains("penstock_records_total{outcome=\"refused\"} 2\n"));
}

#[test]
fn open_connections_are_those_whose_guard_lives() {
    let metrics = Metrics::new(2);
    let first = metrics.connection_opened(1);
    let second = metrics.connection_opened(1);
    drop(first);
    let text = metrics.render();
    assert!(text.contains("penstock_http_connections{worker=\"0\"} 0\n"));
    assert!(text.contains("penstock_http_connections{worker=\"1\"} 1\n"));
    assert!(text.contains("penstock_http_connections_opened_total{worker=\"1\"} 2\n"));
    drop(second);
}

#[test]
fn brokers_beyond_the_cap_share_a_series() {
    let metrics = Metrics::new(1);
    for broker in 0..i32::try_from(MAX_BROKERS).expect("small") + 10 {
        metrics.produce_round_trip(broker, Duration::from_millis(1));
    }
    let text = metrics.render();
    assert!(text.contains("penstock_kafka_produce_round_trip_seconds_count{broker=\"255\"} 1\n"));
    assert!(!text.contains("{broker=\"256\"}"));
    assert!(text.contains("penstock_kafka_produce_round_trip_seconds_count{broker=\"-1\"} 10\n"), "{text}");
}

#[test]
fn every_family_is_described_once_and_every_sample_belongs_to_one() {
    let metrics = Metrics::new(1);
    metrics.route("produce").answered(200, Duration::from_millis(1));
    metrics.produce_round_trip(1, Duration::from_millis(1));
    let text = metrics.render();
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').expect("a name and a type");
            assert!(!families.iter().any(|(known, _)| *known == name), "{name} twice");
            families.push((name, kind));
        } else if !line.starts_with('#') {
            let (family, kind) = families.last().expect("a sample follows its family");
            let name = &line[..line.find(['{', ' ']).expect("a value")];
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} in {family}"));
            assert!(
                suffix.is_empty() || *kind == "histogram" && ["_sum", "_count", "_bucket"].contains(&suffix),
                "{line}"
            );
        }
    }
    assert!(families.len() > 15, "{families:?}");
}

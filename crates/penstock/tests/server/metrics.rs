//! Metrics, and what names them: the documentation, the dashboard, the rules.

use std::collections::BTreeMap;
use std::path::Path;

use crate::harness::{Bridge, run};

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every family that a bridge exposes: type and help by name.
async fn families() -> BTreeMap<String, (String, String)> {
    let bridge = Bridge::with("[telemetry]\notlp_endpoint = \"http://127.0.0.1:9\"\n").await;
    let text = bridge.manage("/metrics").await.text();
    let of = |kind: &str| -> BTreeMap<String, String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(kind)?.split_once(' '));
        lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
    };
    let (helps, types) = (of("# HELP "), of("# TYPE "));
    types.into_iter().map(|(name, kind)| (name.clone(), (kind, helps[&name].clone()))).collect()
}

/// What there is only with such a file. Those who have one look at them: `identity.rs`, the end-to-end tests of logins.
const EXPIRIES: [&str; 3] = [
    "penstock_tls_certificate_expiry_seconds",
    "penstock_tls_crl_expiry_seconds",
    "penstock_kafka_certificate_expiry_seconds",
];

/// The metrics that a text names.
fn named(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let ours = |word: &&str| {
        let rest = word.strip_prefix("penstock_").or_else(|| word.strip_prefix("process_"));
        rest.is_some_and(|rest| !rest.is_empty()) && !word.contains(':')
    };
    words.filter(ours).collect()
}

#[test]
fn the_dashboard_and_the_rules_name_no_metric_that_is_not_there() {
    run(async {
        let families = families().await;
        for path in [
            "deploy/grafana/penstock.json",
            "deploy/prometheus/penstock.rules.yml",
            "deploy/prometheus/penstock.test.yml",
        ] {
            let text = read(path);
            let names = named(&text);
            assert!(names.len() > 5, "{path} names metrics");
            for name in names {
                let part = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
                let histogram =
                    part.and_then(|family| families.get(family)).is_some_and(|(kind, _)| kind == "histogram");
                let plain = EXPIRIES.contains(&name) || families.get(name).is_some_and(|(kind, _)| kind != "histogram");
                assert!(plain || histogram, "{path} names {name}, which the bridge does not expose");
            }
        }
        let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/penstock.json")).expect("JSON");
        assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 20));
    });
}

#[test]
fn names_are_as_prometheus_wants_them() {
    run(async {
        for (name, (kind, help)) in families().await {
            assert!(named(&name) == [&name], "{name} has our prefix");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
            let unit = ["_seconds", "_bytes", "_total", "_info", "_fds"].iter().any(|unit| name.ends_with(unit));
            let counts = ["_connections", "_in_flight", "_records", "_instances", "_draining", "_failing", "_needed"]
                .iter()
                .any(|what| name.ends_with(what));
            assert!(unit || counts, "{name} says no unit");
            assert!(help.ends_with('.') && help.len() > 5, "{name}: {help}");
        }
    });
}

#[test]
fn the_documentation_lists_every_metric() {
    run(async {
        let mut expected = String::from("| metric | type | meaning |\n|---|---|---|\n");
        for (name, (kind, help)) in families().await {
            expected += &format!("| `{name}` | {kind} | {} |\n", help.trim_end_matches('.'));
        }
        let text = read("docs/observability.md");
        let table = text.split("<!-- metrics -->\n").nth(1).expect("the table's place");
        assert!(table == expected, "docs/observability.md must have this between its marks:\n{expected}");
    });
}

#[test]
fn a_request_under_way_is_in_flight() {
    run(async {
        let bridge = Bridge::start().await;
        let in_flight = async || {
            let text = bridge.manage("/metrics").await.text();
            let line = text.lines().find_map(|line| line.strip_prefix("penstock_http_requests_in_flight "));
            line.map(str::to_owned).expect("a value")
        };
        assert_eq!(in_flight().await, "0");
        let mut client = bridge.client().await;
        client.send("POST /v1/topics/events/records HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\n1").await;
        while in_flight().await != "1" {
            tokio::task::yield_now().await;
        }
        client.send("2").await;
        assert_eq!(client.answer().await.status, 200);
        while in_flight().await != "0" {
            tokio::task::yield_now().await;
        }
    });
}

//! What several modules say often: lines that tell who they are, and what must hold when they are read back.

use std::collections::{BTreeMap, HashMap};

use penstock_tests::{
    bridge::{Bridge, Settings},
    free_port,
    shared::three_brokers,
    tools::{Record, kcat_read},
};
use serde_json::Value;

/// Line `number` of a service log that looks real: JSON, without its line end, of varying length, ASCII and not.
pub(crate) fn log_line(number: u64) -> String {
    const LEVELS: [&str; 4] = ["debug", "info", "warn", "error"];
    const MESSAGES: [&str; 5] = [
        "request served",
        "cache miss, asking the origin",
        "Straße gesperrt – Umleitung über Köln",
        "支払いが完了しました",
        "retry scheduled \\u2713 \\\"quoted\\\" \\\\ back",
    ];
    // A linear congruence: the same line for the same number, on every machine.
    let mixed = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 33;
    format!(
        r#"{{"n":{number},"level":"{}","latency_ms":{}.{:02},"path":"/v1/orders/{mixed}","message":"{}","pad":"{}"}}"#,
        LEVELS[mixed as usize % LEVELS.len()],
        mixed % 900,
        mixed % 97,
        MESSAGES[mixed as usize % MESSAGES.len()],
        "x".repeat(mixed as usize % 120),
    )
}

/// Lines `first..first + count` of that log as NDJSON.
pub(crate) fn log_lines(first: u64, count: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for number in first..first + count {
        body.extend_from_slice(log_line(number).as_bytes());
        body.push(b'\n');
    }
    body
}

/// The number in a [`log_line`]; panics when the line is another than that log has under its number.
pub(crate) fn log_number(line: &[u8]) -> u64 {
    let text = std::str::from_utf8(line).expect("the log is UTF-8");
    let number = text.strip_prefix(r#"{"n":"#).and_then(|rest| rest.split(',').next()?.parse().ok());
    let number = number.unwrap_or_else(|| panic!("not a line of the log: {text}"));
    assert_eq!(text, log_line(number), "line {number} is not byte for byte what was sent");
    number
}

/// The topic holds lines `first..first + count` of the log: each once, byte for byte, in order per partition.
pub(crate) fn assert_topic_is_log(bootstrap: &str, topic: &str, first: u64, count: u64) -> Vec<Record> {
    let records = kcat_read(bootstrap, topic);
    let mut last: HashMap<i32, u64> = HashMap::new();
    let mut seen = vec![false; count as usize];
    for record in &records {
        let number = log_number(record.value.as_deref().expect("a value"));
        let slot = number.checked_sub(first).and_then(|index| seen.get_mut(index as usize));
        let slot = slot.unwrap_or_else(|| panic!("line {number} was never sent"));
        assert!(!std::mem::replace(slot, true), "line {number} is there twice");
        if let Some(before) = last.insert(record.partition, number) {
            assert!(before < number, "line {number} after {before} in partition {}", record.partition);
        }
    }
    let missing = seen.iter().filter(|seen| !**seen).count();
    assert_eq!(missing, 0, "lines are missing in {topic}");
    records
}

/// The counts of a summary: lines, written, not written, unknown.
#[track_caller]
pub(crate) fn assert_counts(summary: &Value, lines: u64, written: u64, not_written: u64, unknown: u64) {
    let counts = ["lines", "written", "not_written", "unknown"].map(|name| summary[name].as_u64());
    assert_eq!(counts, [lines, written, not_written, unknown].map(Some), "{summary}");
}

/// The partitions of a summary agree with what is in the topic, where nobody else has written to it.
pub(crate) fn assert_partitions(summary: &Value, records: &[Record]) {
    let mut there: BTreeMap<i64, (u64, i64, i64)> = BTreeMap::new();
    for record in records {
        let entry = there.entry(record.partition.into()).or_insert((0, record.offset, record.offset));
        *entry = (entry.0 + 1, entry.1, record.offset);
    }
    let told = summary["partitions"].as_array().expect("a list").iter().map(|partition| {
        let number = |name: &str| partition[name].as_i64().unwrap_or_else(|| panic!("{name} in {summary}"));
        (number("partition"), (number("count") as u64, number("first_offset"), number("last_offset")))
    });
    assert_eq!(told.collect::<BTreeMap<_, _>>(), there, "{summary}");
}

/// Two bridges of one fleet in front of [`three_brokers`], each of which knows the other.
pub(crate) fn fleet_of_two() -> [Bridge; 2] {
    let ports = [free_port(), free_port()];
    ports.map(|port| Bridge::start_with(&Settings::new(&three_brokers().bootstrap()).in_fleet(port, &ports)))
}

/// The values of a topic, in order per partition.
pub(crate) fn values(bootstrap: &str, topic: &str) -> Vec<Vec<u8>> {
    kcat_read(bootstrap, topic).into_iter().map(|record| record.value.expect("no tombstone")).collect()
}

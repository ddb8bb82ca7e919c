//! What a record takes in system calls and allocations: counted, so the same whatever else the machine does.
//!
//! The bridge runs in front of the null broker under `strace -c`, then under valgrind's `dhat`; each twice, with some
//! requests and with three times as many. What the difference took, the records took: starting, handshakes and ending are
//! in both. Under these tools everything is slow, so batches of lone records are as large as they get.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use penstock_tests::{
    bridge::{Bridge, Settings},
    temp_dir,
    tls::certificates,
};

use crate::{Report, run::Null};

/// For the bridge to end under a tool that makes it fifty times slower.
const END: Duration = Duration::from_secs(60);

/// System calls that are not worth a column of their own are those below this share of all.
const LEAST_SHARE: f64 = 0.01;

struct Traffic {
    about: &'static str,
    record_bytes: usize,
    /// Records of one request; `None`: the body is one record.
    lines: Option<u64>,
    keyed: bool,
    connections: usize,
    requests: u64,
}

const ALL: [Traffic; 5] = [
    Traffic {
        about: "NDJSON, 100 B",
        record_bytes: 100,
        lines: Some(100_000),
        keyed: false,
        connections: 4,
        requests: 4,
    },
    Traffic {
        about: "NDJSON, 1 KiB",
        record_bytes: 1_024,
        lines: Some(20_000),
        keyed: false,
        connections: 4,
        requests: 4,
    },
    Traffic {
        about: "NDJSON, 10 KiB",
        record_bytes: 10_240,
        lines: Some(2_000),
        keyed: false,
        connections: 4,
        requests: 4,
    },
    Traffic {
        about: "keyed, 100 B",
        record_bytes: 100,
        lines: Some(100_000),
        keyed: true,
        connections: 4,
        requests: 4,
    },
    Traffic {
        about: "lone records, 1 KiB",
        record_bytes: 1_024,
        lines: None,
        keyed: false,
        connections: 64,
        requests: 3_000,
    },
];

/// Counts by name.
type Counts = BTreeMap<String, f64>;

pub(crate) fn run() {
    let null = Null::start(4);
    println!(
        "| TLS | system calls a record | a MiB | of them | allocations a record | a MiB |\n|---|---|---|---|---|---|"
    );
    for traffic in &ALL {
        let file = temp_dir("records").join("records.ndjson");
        fs::write(&file, crate::payload::ndjson(traffic.record_bytes)).expect("the temporary folder can be written");
        let of = |count: fn(&Null, &Traffic, &Path, u64) -> (Counts, u64)| {
            let (few, few_records) = count(&null, traffic, &file, traffic.requests);
            let (many, many_records) = count(&null, traffic, &file, 3 * traffic.requests);
            let records = (many_records - few_records) as f64;
            let each = many.into_iter().map(|(name, count)| {
                let before = few.get(&name).copied().unwrap_or(0.0);
                (name, (count - before) / records)
            });
            each.collect::<Counts>()
        };
        let calls = of(system_calls);
        let allocations = of(allocations);
        let sum = |counts: &Counts| counts.values().sum::<f64>();
        let in_a_mib = f64::from(1 << 20) / traffic.record_bytes as f64;
        let mut names: Vec<_> = calls.iter().filter(|(_, each)| **each >= LEAST_SHARE * sum(&calls)).collect();
        names.sort_by(|a, b| b.1.total_cmp(a.1));
        let names: Vec<_> =
            names.iter().map(|(name, each)| format!("{name} {:.0} %", 100.0 * **each / sum(&calls))).collect();
        println!(
            "| {} | {:.4} | {:.1} | {} | {:.4} | {:.1} |",
            traffic.about,
            sum(&calls),
            sum(&calls) * in_a_mib,
            names.join(", "),
            sum(&allocations),
            sum(&allocations) * in_a_mib,
        );
    }
}

/// Runs a bridge under a tool and sends it some requests; the records that it acknowledged.
fn under(tool: &[String], null: &Null, traffic: &Traffic, file: &Path, requests: u64) -> u64 {
    let settings = Settings::new(&null.bootstrap).set("runtime.workers", "1");
    let mut bridge = Bridge::start_under(tool, &settings);
    let mut load = Command::new(std::env::current_exe().expect("a process knows its program"));
    load.args(["load", "--topic", "counts", "--address", &format!("127.0.0.1:{}", bridge.port)]);
    load.args(["--connections", &traffic.connections.to_string(), "--requests", &requests.to_string()]);
    load.arg("--ca").arg(&certificates().ca).arg("--file").arg(file);
    if let Some(lines) = traffic.lines {
        load.args(["--lines", &lines.to_string()]);
    }
    if traffic.keyed {
        load.arg("--keyed");
    }
    let said = load.output().expect("the load generator starts");
    let report: Report = serde_json::from_slice(&said.stdout)
        .unwrap_or_else(|_| panic!("no report: {}", String::from_utf8_lossy(&said.stderr)));
    bridge.signal("TERM");
    bridge.wait_for_exit(END);
    report.records
}

fn system_calls(null: &Null, traffic: &Traffic, file: &Path, requests: u64) -> (Counts, u64) {
    let out = out_file();
    // -D: the tracer is the bridge's grandchild, not its parent.
    let tool = ["strace", "-D", "-f", "-c", "-o", &out.display().to_string()].map(str::to_owned);
    let records = under(&tool, null, traffic, file, requests);
    let table = penstock_tests::eventually("strace has written its table", END, || {
        fs::read_to_string(&out).ok().filter(|table| table.contains(" total"))
    });
    (parse_strace(&table), records)
}

/// The rows of `strace -c`: "% time, seconds, usecs/call, calls, errors (or nothing), syscall".
fn parse_strace(table: &str) -> Counts {
    let rows = table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (name, calls) = (fields.last()?, fields.get(3)?);
        (*name != "total").then_some(())?;
        Some(((*name).to_owned(), calls.parse().ok()?))
    });
    rows.collect()
}

fn allocations(null: &Null, traffic: &Traffic, file: &Path, requests: u64) -> (Counts, u64) {
    let (out, log) = (out_file(), out_file());
    let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let tool =
        ["valgrind".to_owned(), "--tool=dhat".to_owned(), option("dhat-out-file", &out), option("log-file", &log)];
    let records = under(&tool, null, traffic, file, requests);
    let log = fs::read_to_string(&log).expect("valgrind writes its log");
    let blocks = parse_dhat(&log).unwrap_or_else(|| panic!("no total in valgrind's log:\n{log}"));
    (Counts::from([("allocations".to_owned(), blocks)]), records)
}

/// "==123== Total:     1,234,567 bytes in 8,901 blocks"
fn parse_dhat(log: &str) -> Option<f64> {
    let total = log.lines().find(|line| line.contains("Total:"))?;
    total.split(" bytes in ").nth(1)?.split(' ').next()?.replace(',', "").parse().ok()
}

fn out_file() -> PathBuf {
    temp_dir("counts").join("out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_tools_are_read() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ------------------\n 50.00    0.2\
                     00000          10     20000        17 recvfrom\n 25.00    0.100000          10     10000           \
                     writev\n------ ----------- ----------- --------- --------- ------------------\n\
                     100.00    0.300000          10     30000        17 total\n";
        let counts = parse_strace(table);
        assert_eq!(counts, Counts::from([("recvfrom".into(), 20_000.0), ("writev".into(), 10_000.0)]));
        assert_eq!(
            parse_dhat("==7== Total:     1,234 bytes in 56,789 blocks\n==7== At t-gmax: 1 bytes"),
            Some(56_789.0)
        );
    }
}

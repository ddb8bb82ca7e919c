//! Faults of the network between the bridge and a broker: packets that vanish, sockets that die.

use std::{
    collections::HashMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use penstock_tests::{
    bridge::{Bridge, Settings},
    eventually,
    https::Connection,
    shared::one_broker,
};
use tokio::sync::watch;

use crate::support::{assert_counts, assert_topic_is_log, log_lines, values};

const NDJSON: &str = "Content-Type: application/x-ndjson";
const END: Duration = Duration::from_secs(60);
const CLIENTS: usize = 8;
/// What each request asks for.
const DEADLINE: Duration = Duration::from_secs(2);
/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_secs(8);

/// Runs a command to its end and returns what it printed; panics when it fails.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Panics unless the network is one that a test may break: a namespace with nothing but a loopback interface.
fn assert_alone() {
    let links = run("ip", &["-brief", "link"]);
    let others: Vec<_> = links.lines().filter(|line| !line.starts_with("lo ")).collect();
    let harmless = ["sit0", "tunl0", "gre0", "gretap0", "erspan0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0"];
    let real = others.iter().find(|link| !harmless.iter().any(|name| link.starts_with(name)));
    assert!(real.is_none(), "run by tests/root, in a network namespace of its own; here there is {real:?}");
}

/// No packet of TCP to or from a port arrives, as long as it lives. Neither side hears of it.
struct BlackHole {
    rules: [[String; 6]; 2],
}

impl BlackHole {
    fn new(port: u16) -> Self {
        assert_alone();
        let rule = |side: &str| ["-p", "tcp", side, &port.to_string(), "-j", "DROP"].map(ToOwned::to_owned);
        let hole = Self { rules: [rule("--dport"), rule("--sport")] };
        hole.each("-I");
        hole
    }

    fn each(&self, action: &str) {
        for rule in &self.rules {
            let mut arguments = vec!["-w", action, "INPUT"];
            arguments.extend(rule.iter().map(String::as_str));
            run("iptables", &arguments);
        }
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        self.each("-D");
    }
}

/// What clients have been told, and which of their answers came last.
#[derive(Debug, Default)]
struct Told {
    /// Requests answered with everything written, and with anything else.
    written: AtomicU64,
    failed: AtomicU64,
}

/// Posts one record after the other until told to stop; returns what each was told: `written`, `not_written` or `unknown`.
async fn post(
    port: u16,
    topic: String,
    client: usize,
    told: Arc<Told>,
    stop: watch::Receiver<bool>,
) -> Vec<(String, &'static str)> {
    let mut connection = Connection::open(port).await;
    let request = format!("POST /v1/topics/{topic}/records");
    let timeout = format!("Kafka-Timeout-Ms: {}", DEADLINE.as_millis());
    let mut outcomes = Vec::new();
    while !*stop.borrow() {
        let value = format!("{client}:{}", outcomes.len());
        let exchange = async {
            connection.send(&request, &[NDJSON, &timeout], value.as_bytes()).await;
            connection.reader.answer().await
        };
        let answer = tokio::time::timeout(DEADLINE + SLACK, exchange).await;
        let answer = answer.unwrap_or_else(|_| panic!("{value} outlived its deadline"));
        let summary = answer.json();
        let outcome = ["written", "not_written", "unknown"].into_iter().find(|name| summary[*name] == 1);
        let outcome = outcome.unwrap_or_else(|| panic!("{value} has no outcome: {summary}"));
        if outcome == "written" { &told.written } else { &told.failed }.fetch_add(1, Ordering::Relaxed);
        outcomes.push((value, outcome));
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_black_hole_every_request_ends_at_its_deadline_and_healing_brings_it_back() {
    let cluster = one_broker();
    let bridge = Bridge::start(&cluster.bootstrap());
    let topic = cluster.create_topic("blackhole", 2);
    let (stop, stopped) = watch::channel(false);
    let told: Vec<_> = (0..CLIENTS).map(|_| Arc::new(Told::default())).collect();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(post(bridge.port, topic.clone(), client, told[client].clone(), stopped.clone())))
        .collect();
    let each = |what: &str, count: &dyn Fn(&Told) -> u64, more: u64| {
        let before: Vec<_> = told.iter().map(|told| count(told)).collect();
        eventually(what, END, || {
            told.iter().zip(&before).all(|(told, before)| count(told) >= before + more).then_some(())
        });
    };
    let written = |told: &Told| told.written.load(Ordering::Relaxed);
    let failed = |told: &Told| told.failed.load(Ordering::Relaxed);
    each("records are written", &written, 10);
    let hole = BlackHole::new(cluster.ports()[0]);
    // The second is one that was sent when the connection was known to be lost.
    each("requests end at their deadline", &failed, 2);
    drop(hole);
    each("records are written again", &written, 10);
    stop.send_replace(true);
    let mut outcomes = Vec::new();
    for client in clients {
        outcomes.extend(client.await.expect("no panic"));
    }

    let mut present: HashMap<String, usize> = HashMap::new();
    for value in values(&cluster.bootstrap(), &topic) {
        *present.entry(String::from_utf8(value).expect("text")).or_default() += 1;
    }
    let mut unknown = 0;
    for (value, outcome) in outcomes {
        let times = present.remove(&value).unwrap_or(0);
        match outcome {
            "written" => assert_eq!(times, 1, "{value} was told to be written"),
            "not_written" => assert_eq!(times, 0, "{value} was told not to be written"),
            _ => {
                assert!(times <= 1, "{value} is there {times} times");
                unknown += 1;
            }
        }
    }
    assert!(present.is_empty(), "nobody sent {present:?}");
    assert!(unknown > 0, "what was on its way into the hole is unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_killed_under_load_lose_and_repeat_nothing() {
    assert_alone();
    let cluster = one_broker();
    let bridge = Bridge::start_with(&Settings::new(&cluster.bootstrap()).set("producer.delivery_timeout", "\"60s\""));
    let topic = cluster.create_topic("killed", 3);
    let port = format!(":{}", cluster.ports()[0]);
    let mut upload = Connection::open(bridge.port).await;
    upload.begin_chunked(&format!("POST /v1/topics/{topic}/records"), &[NDJSON]).await;
    let (mut sent, mut killed) = (0, 0);
    for part in 0..60 {
        upload.writer.chunk(&log_lines(sent, 2_000)).await;
        sent += 2_000;
        if part % 6 == 5 {
            // Prints what it kills, a line each.
            let kill = ["--tcp", "--kill", "--no-header", "dst", "127.0.0.1", "dport", "=", &port];
            killed += run("ss", &kill).lines().filter(|line| !line.trim().is_empty()).count();
        }
    }
    assert!(killed >= 5, "only {killed} sockets were killed");
    upload.writer.last_chunk().await;
    let answer = upload.reader.answer().await.expect(200);
    assert_counts(&answer.json(), sent, sent, 0, 0);
    assert_topic_is_log(&cluster.bootstrap(), &topic, 0, sent);
}

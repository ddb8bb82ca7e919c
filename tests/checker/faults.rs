//! The field that the faults play on: three brokers, a proxy in front of each, the bridge. Faults are begun and ended
//! here.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use penstock_tests::{
    bridge::{Bridge, Settings},
    distribution::Version,
    eventually,
    kafka::Cluster,
    proxy::{Cut, Proxy, Way},
    temp_dir, wire,
};
use tokio::{runtime::Runtime, time::Instant};

use crate::{
    check::{Finding, Kind},
    random::Random,
    schedule::Fault,
    workload::DELIVERY_TIMEOUT,
};

/// How long a process may take to end by itself.
const END: Duration = Duration::from_secs(60);
/// Bytes a second of the quota: about three quarters of what each broker gets otherwise. What writers that wait may
/// bring at once then makes brokers hold a connection back for about 6 s, which is below the recovery bar.
const QUOTA: f64 = 30_000.0;
/// The small file system of `--full-disk`: the indexes of a few partitions and some records.
const SMALL_DISK: &str = "size=160M";
/// The node that has it.
const SMALL_DISK_NODE: usize = 2;

/// What runs, and what was seen of it.
pub(crate) struct Field {
    /// The brokers.
    pub(crate) cluster: Cluster,
    /// In front of each broker.
    proxies: Vec<Proxy>,
    /// The bridge under test.
    pub(crate) bridge: Bridge,
    /// The topic whose leaders the faults meet.
    pub(crate) topic: String,
    /// Its partitions.
    pub(crate) partitions: i32,
    /// The topic that is deleted and created again.
    pub(crate) recreated: String,
    /// Its partitions.
    pub(crate) recreated_partitions: i32,
    /// Before its last deletion, and after its last creation was known to every broker.
    pub(crate) recreation: Option<(Duration, Duration)>,
    /// Spans in which the bridge was killed, so that answers may be cut.
    pub(crate) kills: Vec<(Duration, Duration)>,
    /// Drains that did not end well.
    pub(crate) findings: Vec<Finding>,
    panics: BTreeSet<String>,
    peak_resident_bytes: u64,
    small_disk: Option<SmallDisk>,
    random: Random,
    runtime: Runtime,
    start: Instant,
}

/// A fault that was begun.
#[derive(Debug)]
pub(crate) enum Running {
    /// Nothing is left to end.
    Over,
    /// The way to this node is not open.
    Way(usize),
    /// This node is down.
    Down(usize),
    /// This node hangs.
    Hanging(usize),
    /// The bridge is down; since when, if it was killed.
    BridgeDown(Option<Duration>),
    /// There is a quota.
    Quota,
    /// The small file system is full, and its node is down.
    Full,
}

impl Field {
    /// Starts the cluster as the fault matrix wants it, topics, and the bridge.
    pub(crate) fn start(runtime: Runtime, seed: u64, idempotence: bool, full_disk: bool) -> Self {
        const PARTITIONS: i32 = 6;
        const RECREATED_PARTITIONS: i32 = 2;
        let settings = [
            ("broker.session.timeout.ms", "6000"),
            ("unclean.leader.election.enable", "false"),
            // Leaders come back to where they were, so that every broker leads something when a fault looks for a
            // leader.
            ("leader.imbalance.check.interval.seconds", "10"),
            // Rates of quotas are measured over 3 s, not 11: a quota is felt soon, and brokers hold connections back for
            // less than the recovery bar after it is gone.
            ("quota.window.num", "3"),
        ];
        let mut proxies = Vec::new();
        let cluster = Cluster::start_behind(Version::V4_1_1, 3, &settings, |port| {
            let proxy = Proxy::start(runtime.handle(), port);
            let advertised = proxy.port;
            proxies.push(proxy);
            advertised
        });
        let small_disk = full_disk.then(|| SmallDisk::below(&cluster, SMALL_DISK_NODE));
        let bootstrap: Vec<_> = proxies.iter().map(|proxy| format!("127.0.0.1:{}", proxy.port)).collect();
        let settings = Settings::new(&bootstrap.join(","))
            .set("producer.delivery_timeout", &format!("\"{}s\"", DELIVERY_TIMEOUT.as_secs()))
            .set("producer.idempotence", &idempotence.to_string())
            .set("producer.memory_bytes", "\"64MiB\"")
            .set("drain.notice", "\"1s\"")
            .set("drain.deadline", "\"30s\"");
        let bridge = Bridge::start_with(&settings);
        let topic = cluster.create_topic("checked", PARTITIONS);
        let recreated = cluster.create_topic("recreated", RECREATED_PARTITIONS);
        Self {
            cluster,
            proxies,
            bridge,
            topic,
            partitions: PARTITIONS,
            recreated,
            recreated_partitions: RECREATED_PARTITIONS,
            recreation: None,
            kills: Vec::new(),
            findings: Vec::new(),
            panics: BTreeSet::new(),
            peak_resident_bytes: 0,
            small_disk,
            random: Random::new(seed, u64::MAX),
            runtime,
            start: Instant::now(),
        }
    }

    /// When the run began.
    pub(crate) fn start_time(&self) -> Instant {
        self.start
    }

    /// The time of the run.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Where the tasks run.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Lets time pass.
    pub(crate) fn wait(&self, time: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(time).await });
    }

    /// The node that leads a partition now. All brokers must be there to be asked.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> usize {
        eventually("a leader", END, || {
            (0..self.proxies.len()).find_map(|asked| self.cluster.leader(asked, topic, partition))
        })
    }

    /// Waits until every replica is in sync again.
    pub(crate) fn wait_until_whole(&self) {
        self.cluster.wait_until_whole(&self.topic, self.partitions);
        self.cluster.wait_until_whole(&self.recreated, self.recreated_partitions);
    }

    /// Begins a fault at a node. What is over by itself is over when this returns.
    pub(crate) fn begin(&mut self, fault: Fault, node: usize) -> Running {
        match fault {
            Fault::AckLost => self.lose_acks(node, Way::LoseReplies),
            Fault::Reset => self.lose_acks(node, Way::Open),
            Fault::BlackHole => self.obstruct(node, Way::Stalled),
            Fault::Slow => {
                let by = self.random.millis(100..=800);
                self.obstruct(node, Way::Slow(by))
            }
            Fault::Refused => self.obstruct(node, Way::Refused),
            Fault::Kill => {
                self.cluster.kill(node);
                Running::Down(node)
            }
            Fault::Term => {
                self.stop_in_order(node);
                Running::Down(node)
            }
            Fault::Stop => {
                self.cluster.signal(node, "STOP");
                Running::Hanging(node)
            }
            Fault::RollingRestart => {
                for node in 0..self.proxies.len() {
                    self.stop_in_order(node);
                    self.cluster.restart(node);
                    self.wait_until_whole();
                }
                Running::Over
            }
            Fault::Throttle => {
                self.set_quota(Some(QUOTA));
                Running::Quota
            }
            Fault::DiskRefuses => {
                let pid = self.cluster.pids()[node].to_string();
                // The soft limit alone: this user may lower it. A JVM ignores SIGXFSZ, so that its write fails with
                // EFBIG.
                run("prlimit", &["--pid", &pid, "--fsize=1:"]);
                self.cluster.wait_for_exit(node, END);
                Running::Down(node)
            }
            Fault::DiskFull => {
                self.small_disk.as_ref().expect("it is drawn only with --full-disk").fill();
                self.cluster.wait_for_exit(SMALL_DISK_NODE, END);
                Running::Full
            }
            Fault::BridgeTerm => {
                self.look_at_bridge();
                self.bridge.signal("TERM");
                let status = self.bridge.wait_for_exit(END);
                if status != 0 {
                    let detail = format!("the drain at {:.3?} ended with status {status}", self.now());
                    self.findings.push(Finding { kind: Kind::CutAnswer, detail });
                }
                self.look_at_bridge();
                Running::BridgeDown(None)
            }
            Fault::BridgeKill => {
                self.look_at_bridge();
                let killed = self.now();
                self.bridge.kill();
                Running::BridgeDown(Some(killed))
            }
            Fault::Recreation => {
                self.recreate();
                Running::Over
            }
        }
    }

    /// Ends what was begun, and waits until the process in question serves again.
    pub(crate) fn end(&mut self, running: Running) {
        match running {
            Running::Over => {}
            Running::Way(node) => self.proxies[node].set(Way::Open),
            Running::Down(node) => self.cluster.restart(node),
            Running::Hanging(node) => self.cluster.signal(node, "CONT"),
            Running::Quota => self.set_quota(None),
            Running::Full => {
                self.small_disk.as_ref().expect("it was filled").make_room();
                self.cluster.restart(SMALL_DISK_NODE);
            }
            Running::BridgeDown(killed) => {
                self.bridge.start_again();
                if let Some(killed) = killed {
                    let now = self.now();
                    self.kills.push((killed, now));
                }
            }
        }
    }

    /// Notes the bridge's memory, while it runs, and its panics.
    pub(crate) fn look_at_bridge(&mut self) {
        let process = self.bridge.process();
        if Path::new(&format!("/proc/{}/status", process.pid())).exists() {
            self.peak_resident_bytes = self.peak_resident_bytes.max(self.bridge.peak_resident_bytes());
        }
        self.panics.extend(process.output().into_iter().filter(|line| line.contains("panicked at")));
    }

    /// Lines of the bridge's log that tell of a panic.
    pub(crate) fn panics(&self) -> impl Iterator<Item = &str> {
        self.panics.iter().map(String::as_str)
    }

    /// The most memory that any of the bridge's processes had when it was looked at.
    pub(crate) fn peak_resident_bytes(&self) -> u64 {
        self.peak_resident_bytes
    }

    /// Lets requests through to a broker and cuts its connections before, or after, it has answered.
    fn lose_acks(&mut self, node: usize, way: Way) -> Running {
        for _ in 0..6 {
            self.proxies[node].set(way);
            let time = self.random.millis(200..=700);
            self.wait(time);
            self.proxies[node].cut(Cut::Reset);
            self.proxies[node].set(Way::Open);
            // The next round meets new requests, not only the same ones again.
            let time = self.random.millis(100..=400);
            self.wait(time);
        }
        Running::Over
    }

    fn obstruct(&self, node: usize, way: Way) -> Running {
        self.proxies[node].set(way);
        Running::Way(node)
    }

    fn stop_in_order(&self, node: usize) {
        self.cluster.signal(node, "TERM");
        self.cluster.wait_for_exit(node, END);
    }

    fn set_quota(&self, quota: Option<f64>) {
        wire::set_producer_quota(self.cluster.ports()[0], "penstock", quota);
    }

    fn recreate(&mut self) {
        let (topic, ports) = (self.recreated.clone(), self.cluster.ports());
        let leader = self.leader(&topic, 0);
        // Records for the old topic are on their way to a leader that does not answer while the topic goes.
        self.proxies[leader].set(Way::Stalled);
        self.wait(Duration::from_millis(1_500));
        let deleted = self.now();
        wire::delete_topic(ports[0], &topic);
        for port in &ports {
            eventually("the topic is gone", END, || wire::partitions(*port, &topic).is_none().then_some(()));
        }
        let absent = self.random.millis(0..=1_000);
        self.wait(absent);
        wire::create_topic(ports[0], &topic, self.recreated_partitions, 3, &[]);
        self.cluster.wait_until_whole(&topic, self.recreated_partitions);
        self.recreation = Some((deleted, self.now()));
        self.proxies[leader].set(Way::Open);
    }
}

/// A file system in memory of a bounded size, with a node's data on it. Needs root (mount).
struct SmallDisk {
    mount: PathBuf,
    cluster_data: PathBuf,
}

impl SmallDisk {
    /// Moves a node's data to a small file system; the node is restarted for it.
    fn below(cluster: &Cluster, node: usize) -> Self {
        let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
        let root = status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
        assert!(root, "a full disk needs root: a tmpfs is mounted for it");
        let (mount, data) = (temp_dir("small-disk"), cluster.data_dir(node));
        run("mount", &["-t", "tmpfs", "-o", SMALL_DISK, "tmpfs", &mount.display().to_string()]);
        let disk = Self { mount, cluster_data: data };
        cluster.signal(node, "TERM");
        cluster.wait_for_exit(node, END);
        let (from, to) = (disk.cluster_data.display().to_string(), disk.mount.join("data").display().to_string());
        run("cp", &["-a", &from, &to]);
        fs::remove_dir_all(&disk.cluster_data).expect("the node is down");
        std::os::unix::fs::symlink(&to, &disk.cluster_data).expect("its place is free");
        cluster.restart(node);
        disk
    }

    fn balloon(&self) -> PathBuf {
        self.mount.join("balloon")
    }

    fn fill(&self) {
        // Ends with "no space left", which is the point.
        let _ = Command::new("dd")
            .arg("if=/dev/zero")
            .arg(format!("of={}", self.balloon().display()))
            .arg("bs=4k")
            .output();
    }

    fn make_room(&self) {
        fs::remove_file(self.balloon()).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node may still be on it.
        let _ = Command::new("umount").arg("-l").arg(&self.mount).output();
    }
}

/// Runs a program; panics, with what it said, when it fails.
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
}

//! Apache Kafka clusters on free loopback ports, each node a JVM of its own.
//!
//! A node is a combined KRaft broker and controller (4.1.1, 3.9.2), or a broker with a ZooKeeper beside it (2.2.1). A
//! node counts as started when it says so in its log, which a KRaft broker does after the controller has unfenced it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    distribution::Version,
    eventually, free_port,
    process::Process,
    temp_dir, unique,
    wire::{self, Partition},
};

/// How long a JVM may take to serve on a busy machine.
const START: Duration = Duration::from_secs(120);

/// Quick to start and small, not fast for long: the serial collector, no second compiler tier.
const JVM: [&str; 3] = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// As `kafka-server-start.sh` runs a broker, for measurements: its heap and its collector's settings.
const LOAD_JVM: [&str; 4] =
    ["-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"];

/// slf4j-simple's settings (3.9.2 and 2.2.1).
const SIMPLE_LOGGER: [&str; 5] = [
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaServer=info",
    "-Dorg.slf4j.simpleLogger.log.org.apache.zookeeper.server.NIOServerCnxnFactory=info",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
];

/// log4j2's settings (4.1.1).
const LOG4J2: &str = "status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.started.name = kafka.server.KafkaRaftServer
logger.started.level = info
";

/// A running cluster. Dropping it kills its nodes and removes their data.
#[derive(Debug)]
pub struct Cluster {
    version: Version,
    jvm: &'static [&'static str],
    dir: PathBuf,
    nodes: Vec<Node>,
    /// The watched ZooKeeper of 2.2.1, kept for its drop.
    zookeeper: Option<Process>,
}

#[derive(Debug)]
struct Node {
    id: usize,
    /// The listener of clients.
    port: u16,
    /// A listener for whom must not go through what stands before `port`; the same where nothing does.
    direct_port: u16,
    dir: PathBuf,
    process: Mutex<Option<Process>>,
}

impl Cluster {
    /// Starts `count` nodes with these broker settings on top of the fixture's, and waits until all of them serve.
    ///
    /// The fixture's: topics are not created by being mentioned, nothing is removed by age, and with three nodes a topic
    /// needs two in-sync replicas.
    pub fn start(version: Version, count: usize, settings: &[(&str, &str)]) -> Self {
        Self::start_on(&JVM, version, count, settings, &[], None)
    }

    /// One node of Kafka 4.1.1 with more listeners beside the fixture's own: name, security protocol and port. Clients of
    /// the fixture go on using the plain one.
    pub fn start_with_listeners(listeners: &[(&str, &str, u16)], settings: &[(&str, &str)]) -> Self {
        Self::start_on(&JVM, Version::V4_1_1, 1, settings, listeners, None)
    }

    /// The same with something in front of every node, as a [`Proxy`](crate::proxy::Proxy): `advertise` gets the port of a
    /// node's client listener and returns the port at which clients shall look for it. Brokers and controllers talk to
    /// each other on listeners of their own, and so does who asks [`Cluster::direct_bootstrap`].
    pub fn start_behind(
        version: Version,
        count: usize,
        settings: &[(&str, &str)],
        mut advertise: impl FnMut(u16) -> u16,
    ) -> Self {
        assert!(version != Version::V2_2_1, "the listeners are written for KRaft");
        Self::start_on(&JVM, version, count, settings, &[], Some(&mut advertise))
    }

    /// The same with nodes that are run for speed, not for a quick start.
    pub fn start_for_load(version: Version, count: usize, settings: &[(&str, &str)]) -> Self {
        Self::start_on(&LOAD_JVM, version, count, settings, &[], None)
    }

    fn start_on(
        jvm: &'static [&'static str],
        version: Version,
        count: usize,
        settings: &[(&str, &str)],
        listeners: &[(&str, &str, u16)],
        mut advertise: Option<&mut dyn FnMut(u16) -> u16>,
    ) -> Self {
        let dir = temp_dir(&format!("kafka-{version}"));
        let ports: Vec<_> = (0..count).map(|_| (free_port(), free_port())).collect();
        let zookeeper = (version == Version::V2_2_1).then(|| start_zookeeper(&dir));
        let voters: Vec<_> =
            ports.iter().enumerate().map(|(index, (_, port))| format!("{}@127.0.0.1:{port}", index + 1)).collect();
        let (mut more, mut protocols) = (String::new(), String::new());
        for (name, protocol, port) in listeners {
            write!(more, ",{name}://127.0.0.1:{port}").expect("a String takes it");
            write!(protocols, ",{name}:{protocol}").expect("a String takes it");
        }
        let nodes: Vec<_> = ports
            .iter()
            .enumerate()
            .map(|(index, &(port, controller_port))| {
                let direct_port = if advertise.is_some() { free_port() } else { port };
                let node = Node {
                    id: index + 1,
                    port,
                    direct_port,
                    dir: dir.join(format!("node-{}", index + 1)),
                    process: Mutex::new(None),
                };
                fs::create_dir_all(&node.dir).expect("the temporary folder can be written");
                fs::write(node.dir.join("log4j2.properties"), LOG4J2).expect("the temporary folder can be written");
                let quorum = match &zookeeper {
                    Some((_, zookeeper_port)) => {
                        format!(
                            "broker.id={}\nlisteners=PLAINTEXT://127.0.0.1:{port}\n\
                             zookeeper.connect=127.0.0.1:{zookeeper_port}\n",
                            node.id
                        )
                    }
                    None => {
                        let brokers = match &mut advertise {
                            Some(advertise) => format!(
                                "PLAINTEXT://127.0.0.1:{port},INTERNAL://127.0.0.1:{direct_port},\
                                 CONTROLLER://127.0.0.1:{controller_port}\n\
                                 advertised.listeners=PLAINTEXT://127.0.0.1:{},INTERNAL://127.0.0.1:{direct_port}\n\
                                 inter.broker.listener.name=INTERNAL\n",
                                advertise(port)
                            ),
                            None => {
                                format!("PLAINTEXT://127.0.0.1:{port}{more},CONTROLLER://127.0.0.1:{controller_port}\n")
                            }
                        };
                        format!(
                            "process.roles=broker,controller\nnode.id={}\n\
                             controller.quorum.voters={}\ncontroller.listener.names=CONTROLLER\n\
                             listeners={brokers}listener.security.protocol.map=\
                             PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}\n",
                            node.id,
                            voters.join(",")
                        )
                    }
                };
                fs::write(node.dir.join("server.properties"), properties(&node, count, &quorum, settings))
                    .expect("the temporary folder can be written");
                node
            })
            .collect();
        let cluster = Self { version, jvm, dir, nodes, zookeeper: zookeeper.map(|(process, _)| process) };
        if version != Version::V2_2_1 {
            cluster.format();
        }
        for index in 0..count {
            cluster.spawn(index);
        }
        for index in 0..count {
            cluster.wait_until_started(index);
        }
        // All serve; each must also have heard of the others (2.2.1: of itself), or a topic could not be placed.
        for port in cluster.ports() {
            let whole = || (wire::broker_count(port)? == count).then_some(());
            eventually(&format!("{count} brokers known on port {port}"), START, whole);
        }
        cluster
    }

    /// `host:port` of every node, as `bootstrap.servers` wants them.
    pub fn bootstrap(&self) -> String {
        let servers: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        servers.join(",")
    }

    /// The same for who must not go through what stands before the nodes.
    pub fn direct_bootstrap(&self) -> String {
        let servers: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.direct_port)).collect();
        servers.join(",")
    }

    /// The rack of a node (`broker.rack`), by index: each has its own.
    pub fn rack(node: usize) -> String {
        format!("az{}", node + 1)
    }

    /// The port of each node's client listener, by index. Node ids are index + 1.
    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    /// The process id of each node's JVM, by index.
    ///
    /// Panics when a node is down.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.lock().as_ref().expect("the node runs").pid()).collect()
    }

    /// Creates a topic of the test's own, replicated to every node, and returns its name.
    pub fn create_topic(&self, prefix: &str, partitions: i32) -> String {
        self.create_topic_with(prefix, partitions, &[])
    }

    /// The same with topic settings.
    pub fn create_topic_with(&self, prefix: &str, partitions: i32, configs: &[(&str, &str)]) -> String {
        let topic = unique(prefix);
        let replicas = self.nodes.len();
        let port = self.nodes[0].port;
        wire::create_topic(port, &topic, partitions, i16::try_from(replicas).expect("a few nodes"), configs);
        // The controller has it; every broker must have heard of it, or a test would sometimes see a topic that is not there yet.
        self.wait_until_whole(&topic, partitions);
        topic
    }

    /// Waits until every node knows all partitions of a topic, each with a leader and every replica in sync.
    pub fn wait_until_whole(&self, topic: &str, partitions: i32) {
        let replicas = self.nodes.len();
        for port in self.ports() {
            eventually(&format!("{topic} whole on port {port}"), START, || {
                let known = wire::partitions(port, topic)?;
                let whole = |partition: &Partition| partition.leader > 0 && partition.in_sync == replicas;
                (known.len() == partitions as usize && known.iter().all(whole)).then_some(())
            });
        }
    }

    /// The index of the node that leads a partition, as node `asked` knows it.
    pub fn leader(&self, asked: usize, topic: &str, partition: i32) -> Option<usize> {
        let known = wire::partitions(self.nodes[asked].port, topic)?;
        let leader = known.iter().find(|known| known.index == partition)?.leader;
        usize::try_from(leader).ok()?.checked_sub(1)
    }

    /// The size of a partition's log on the first node's disk.
    pub fn log_bytes(&self, topic: &str, partition: i32) -> u64 {
        let dir = self.nodes[0].dir.join("data").join(format!("{topic}-{partition}"));
        let segments = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        segments
            .map(|entry| entry.expect("the folder can be read"))
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"))
            .map(|entry| entry.metadata().expect("the segment is there").len())
            .sum()
    }

    /// Sends a signal to a node: `"STOP"` and `"CONT"` make it hang and go on, `"TERM"` asks it to leave in order.
    pub fn signal(&self, node: usize, signal: &str) {
        self.nodes[node].lock().as_ref().expect("the node runs").signal(signal);
    }

    /// Ends a node as a power cut does: SIGKILL.
    pub fn kill(&self, node: usize) {
        *self.nodes[node].lock() = None;
    }

    /// Waits until a node has left by itself, after SIGTERM or a failure of its own, and returns its exit status.
    pub fn wait_for_exit(&self, node: usize, within: Duration) -> i32 {
        self.nodes[node].lock().as_mut().expect("the node runs").wait_for_exit(within)
    }

    /// The folder that holds a node's logs.
    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.nodes[node].dir.join("data")
    }

    /// Kills a node, if it still runs, and starts it again on its data and its port. Waits until it serves.
    pub fn restart(&self, node: usize) {
        self.kill(node);
        self.spawn(node);
        self.wait_until_started(node);
    }

    fn format(&self) {
        let formats: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                let mut format = Command::new("java");
                format
                    .args(JVM)
                    .args(["-cp", self.version.class_path(), "kafka.tools.StorageTool", "format"])
                    .args(["-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c"])
                    .arg(node.dir.join("server.properties"));
                std::thread::spawn(move || format.output().expect("java starts"))
            })
            .collect();
        for format in formats {
            let done = format.join().expect("no panic in the thread");
            assert!(
                done.status.success(),
                "the storage of Kafka {} could not be formatted:\n{}{}",
                self.version,
                String::from_utf8_lossy(&done.stdout),
                String::from_utf8_lossy(&done.stderr)
            );
        }
    }

    fn spawn(&self, index: usize) {
        let node = &self.nodes[index];
        let mut arguments: Vec<_> = self.jvm.iter().chain(&SIMPLE_LOGGER).map(ToString::to_string).collect();
        arguments.push(format!("-Dlog4j2.configurationFile={}", node.dir.join("log4j2.properties").display()));
        arguments.extend(["-cp", self.version.class_path(), "kafka.Kafka"].map(ToOwned::to_owned));
        arguments.push(node.dir.join("server.properties").display().to_string());
        let name = format!("kafka {} node {}", self.version, node.id);
        *node.lock() = Some(Process::spawn(&name, "java", arguments, &[]));
    }

    fn wait_until_started(&self, index: usize) {
        let node = self.nodes[index].lock();
        let process = node.as_ref().expect("it was spawned");
        // "[KafkaRaftServer nodeId=1] Kafka Server started", "[KafkaServer id=1] started"
        process.wait_for_line("started", START, |line| {
            line.ends_with("Kafka Server started") || (line.contains("[KafkaServer id=") && line.ends_with("] started"))
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            *node.lock() = None;
        }
        self.zookeeper = None;
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Node {
    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        // A test that panicked while it held a node has failed already; the next one may still use the cluster.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn properties(node: &Node, count: usize, quorum: &str, settings: &[(&str, &str)]) -> String {
    let (replicas, in_sync) = if count >= 3 { (3, 2) } else { (1, 1) };
    let mut text = format!(
        "{quorum}log.dirs={}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.num.partitions=4
transaction.state.log.min.isr={in_sync}
min.insync.replicas={in_sync}
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=4194304
broker.rack={}
",
        node.dir.join("data").display(),
        Cluster::rack(node.id - 1)
    );
    for (name, value) in settings {
        writeln!(text, "{name}={value}").expect("a String takes it");
    }
    text
}

fn start_zookeeper(dir: &Path) -> (Process, u16) {
    let port = free_port();
    let data = dir.join("zookeeper");
    fs::create_dir_all(&data).expect("the temporary folder can be written");
    let config = dir.join("zookeeper.properties");
    let text = format!(
        "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\nmaxClientCnxns=0\n",
        data.display()
    );
    fs::write(&config, text).expect("the temporary folder can be written");
    let mut arguments: Vec<_> = JVM.iter().chain(&SIMPLE_LOGGER).map(ToString::to_string).collect();
    arguments.extend(["-cp", Version::V2_2_1.class_path()].map(ToOwned::to_owned));
    arguments.push("org.apache.zookeeper.server.quorum.QuorumPeerMain".to_owned());
    arguments.push(config.display().to_string());
    let process = Process::spawn("zookeeper", "java", arguments, &[]);
    process.wait_for_line("listening", START, |line| line.contains("binding to port"));
    (process, port)
}

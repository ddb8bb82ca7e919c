//! Reads come from the replica in the bridge's rack (KIP-392), and from the leader when that is gone.
//!
//! Who served a read is not asked of the bridge: the way to each broker leads through a proxy that counts.

use penstock_tests::{
    bridge::{Bridge, Settings},
    distribution::Version,
    kafka::Cluster,
    proxy::{Cut, Proxy, Way},
    tools::{curl, kcat_write},
};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::{log_lines, log_number};

/// The node in the bridge's rack.
const NEAR: usize = 2;
/// Of a partition, each time that it is written to: some mebibytes.
const LINES: u64 = 10_000;
/// More than what a leader answers that sends its readers elsewhere, and than metadata; less than the records by far.
const WORDS: u64 = 256 * 1024;

/// Three brokers in three racks, and a bridge in the third.
struct Racks {
    /// For the proxies' tasks.
    _runtime: Runtime,
    proxies: Vec<Proxy>,
    cluster: Cluster,
    bridge: Bridge,
}

impl Racks {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let mut proxies = Vec::new();
        let selector = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
        let settings = [("replica.selector.class", selector), ("broker.session.timeout.ms", "6000")];
        let cluster = Cluster::start_behind(Version::V4_1_1, 3, &settings, |port| {
            let proxy = Proxy::start(runtime.handle(), port);
            let advertised = proxy.port;
            proxies.push(proxy);
            advertised
        });
        let bootstrap: Vec<_> = proxies.iter().map(|proxy| format!("127.0.0.1:{}", proxy.port)).collect();
        let settings = Settings::new(&bootstrap.join(",")).set("kafka.rack", &format!("{:?}", Cluster::rack(NEAR)));
        let bridge = Bridge::start_with(&settings);
        Self { _runtime: runtime, proxies, cluster, bridge }
    }

    /// A topic of one partition that another node leads than the one in the bridge's rack, and that node.
    fn topic_led_from_afar(&self) -> (String, usize) {
        loop {
            let topic = self.cluster.create_topic("racks", 1);
            let leader = self.cluster.leader(0, &topic, 0).expect("it is whole");
            if leader != NEAR {
                return (topic, leader);
            }
        }
    }

    /// Writes the next lines of the log, past the proxies.
    fn write(&self, topic: &str, first: u64) {
        let lines = String::from_utf8(log_lines(first, LINES)).expect("UTF-8");
        kcat_write(&self.cluster.direct_bootstrap(), topic, &[], &lines);
    }

    /// Reads a partition on from line `first`, which has that offset, to line `end`. Returns the bytes of the lines.
    /// `may_fail`: what is answered with 503 is read again.
    fn read(&self, topic: &str, first: u64, end: u64, may_fail: bool) -> u64 {
        let (mut next, mut bytes) = (first, 0);
        while next < end {
            let path = format!("/v1/topics/{topic}/partitions/0/records?value=text&wait_ms=30000&offset={next}");
            let answer = curl(&self.bridge, &path, &[]);
            if may_fail && answer.status == 503 {
                continue;
            }
            let answer = answer.expect(200);
            for line in answer.text().lines() {
                let record: Value = serde_json::from_str(line).expect("a record a line");
                let value = record["value"].as_str().expect("a text");
                assert_eq!((record["offset"].as_u64(), log_number(value.as_bytes())), (Some(next), next));
                (next, bytes) = (next + 1, bytes + value.len() as u64);
            }
        }
        bytes
    }

    /// What each broker has answered.
    fn answered(&self) -> [u64; 3] {
        std::array::from_fn(|node| self.proxies[node].replied())
    }

    /// Does something, and returns what each broker answered meanwhile.
    fn counting<T>(&self, action: impl FnOnce() -> T) -> (T, [u64; 3]) {
        let before = self.answered();
        let done = action();
        let after = self.answered();
        (done, std::array::from_fn(|node| after[node] - before[node]))
    }
}

#[test]
fn records_come_from_the_replica_in_the_bridges_rack_and_from_the_leader_when_it_is_gone() {
    let racks = Racks::start();
    for way in ["refused", "stalled", "killed"] {
        let (topic, leader) = racks.topic_led_from_afar();
        racks.write(&topic, 0);
        let (bytes, answered) = racks.counting(|| racks.read(&topic, 0, LINES, false));
        assert!(answered[NEAR] >= bytes, "{bytes} bytes of records, and {answered:?} from each broker");
        assert!(answered[leader] < WORDS, "{bytes} bytes of records, and {answered:?} from each broker");

        match way {
            // Out of the bridge's reach alone: the leader goes on naming it.
            "refused" => racks.proxies[NEAR].set(Way::Refused),
            // A read that has asked it is given up before the request to it is.
            "stalled" => racks.proxies[NEAR].set(Way::Stalled),
            _ => {
                racks.cluster.kill(NEAR);
                racks.proxies[NEAR].cut(Cut::Reset);
            }
        }
        racks.write(&topic, LINES);
        let (bytes, answered) = racks.counting(|| racks.read(&topic, LINES, 2 * LINES, way == "stalled"));
        assert!(answered[leader] >= bytes, "{way}: {bytes} bytes of records, and {answered:?} from each broker");
        racks.proxies[NEAR].set(Way::Open);
    }
}

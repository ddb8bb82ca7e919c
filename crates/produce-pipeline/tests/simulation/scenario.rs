//! What a seed stands for: a cluster's size and version, how often things go wrong, and who uploads what.

use crate::log::Rules;
use fastrand::Rng;
use produce_pipeline::Config;
use std::time::Duration;

#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) brokers: usize,
    pub(crate) max_partitions: usize,
    pub(crate) topics: Vec<String>,
    pub(crate) versions: Versions,
    pub(crate) rules: Rules,
    /// The probability that a request meets a fault.
    pub(crate) fault_rate: f64,
    /// The pause between events that befall the cluster.
    pub(crate) event_pause: (Duration, Duration),
    /// Topics are deleted and made again.
    pub(crate) recreates: bool,
    /// Bytes between client and broker that nobody has read yet.
    pub(crate) stream_bytes: usize,
    pub(crate) pipeline: Config,
    pub(crate) writers: usize,
    pub(crate) requests_per_writer: usize,
    /// When everything that is open is given up, if it ever is.
    pub(crate) abandoned_after: Option<Duration>,
    /// Between the two halves of the traffic.
    pub(crate) pause: Duration,
}

/// The newest versions that the brokers speak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Versions {
    pub(crate) produce: i16,
    pub(crate) metadata: i16,
    /// Refuses ApiVersions 3, as Kafka 2.2 does (KIP-511).
    pub(crate) refuses_api_versions: bool,
}

impl Versions {
    pub(crate) fn has_topic_ids(self) -> bool {
        self.metadata >= 10
    }

    /// Produce requests name topics by id.
    pub(crate) fn produces_by_id(self) -> bool {
        self.produce >= 13
    }
}

impl Scenario {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let versions = match rng.u32(..10) {
            0..6 => Versions { produce: 13, metadata: 12, refuses_api_versions: false },
            6 => Versions { produce: 12, metadata: 12, refuses_api_versions: false },
            7 => Versions { produce: 9, metadata: 12, refuses_api_versions: false },
            8 => Versions { produce: 8, metadata: 9, refuses_api_versions: false },
            _ => Versions { produce: 7, metadata: 7, refuses_api_versions: true },
        };
        let ms = Duration::from_millis;
        let delivery_timeout = ms(*rng.choice(&[1_000, 3_000, 10_000, 30_000]).expect("not empty"));
        Self {
            brokers: rng.usize(1..=4),
            max_partitions: rng.usize(1..=5),
            topics: ["orders", "logs"][..rng.usize(1..=2)].iter().map(|&name| name.to_owned()).collect(),
            // Before topic ids, a topic made again cannot be told from the old one.
            recreates: versions.has_topic_ids() && rng.bool(),
            rules: Rules { begins_at_zero: versions.produce <= 8, old_is_duplicate: rng.bool() },
            versions,
            fault_rate: *rng.choice(&[0.0, 0.02, 0.1, 0.3, 0.6]).expect("not empty"),
            event_pause: (ms(10), ms(*rng.choice(&[200, 1_000, 5_000]).expect("not empty"))),
            stream_bytes: *rng.choice(&[13, 512, 65_536]).expect("not empty"),
            pipeline: Config {
                linger: ms(*rng.choice(&[0, 0, 5, 40]).expect("not empty")),
                batch_bytes: *rng.choice(&[150, 400, 1_000_000]).expect("not empty"),
                delivery_timeout,
                delivery_quota: *rng.choice(&[300, 4 << 20]).expect("not empty"),
                ..Config::default()
            },
            writers: rng.usize(1..=5),
            requests_per_writer: rng.usize(1..=8),
            abandoned_after: (rng.u32(..6) == 0).then(|| ms(rng.u64(..5_000))),
            // Past the ten minutes after which the client forgets an unused topic.
            pause: if rng.u32(..4) == 0 { Duration::from_secs(rng.u64(601..1_800)) } else { ms(rng.u64(..500)) },
        }
    }

    /// Nothing goes wrong but what a script says.
    pub(crate) fn calm(brokers: usize, pipeline: Config) -> Self {
        Self {
            brokers,
            max_partitions: 1,
            topics: vec!["orders".to_owned()],
            versions: Versions { produce: 13, metadata: 12, refuses_api_versions: false },
            rules: Rules::default(),
            fault_rate: 0.0,
            event_pause: (Duration::ZERO, Duration::ZERO),
            recreates: true,
            stream_bytes: 65_536,
            pipeline,
            writers: 0,
            requests_per_writer: 0,
            abandoned_after: None,
            pause: Duration::ZERO,
        }
    }
}

//! The clusters and the bridge that tests share: each is started by the first test that asks and ends with the process.
//!
//! Tests keep apart by topics of their own. A test that stops a broker or counts the bridge's connections starts its own.

use std::sync::OnceLock;

use crate::{bridge::Bridge, distribution::Version, kafka::Cluster};

/// What a test got from another test's attempt: the thing, or word that it could not be started.
fn get_or_start<T: Send + Sync>(cell: &'static OnceLock<Option<T>>, what: &str, start: fn() -> T) -> &'static T {
    cell.get_or_init(|| std::panic::catch_unwind(start).ok())
        .as_ref()
        .unwrap_or_else(|| panic!("{what} could not be started: the first test that asked for it says why"))
}

/// One broker of Apache Kafka 4.1.1.
pub fn one_broker() -> &'static Cluster {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    get_or_start(&CLUSTER, "the one-broker cluster", || Cluster::start(Version::V4_1_1, 1, &[]))
}

/// Three brokers of Apache Kafka 4.1.1; topics have three replicas and need two in sync.
pub fn three_brokers() -> &'static Cluster {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    get_or_start(&CLUSTER, "the three-broker cluster", || Cluster::start(Version::V4_1_1, 3, &[]))
}

/// A bridge with default settings in front of [`three_brokers`].
pub fn bridge() -> &'static Bridge {
    static BRIDGE: OnceLock<Option<Bridge>> = OnceLock::new();
    get_or_start(&BRIDGE, "the shared bridge", || Bridge::start(&three_brokers().bootstrap()))
}

//! The fixture of the end-to-end tests: a real Apache Kafka, the real bridge as a process of its own, and clients that
//! this project did not write.
//!
//! A test reads like this: take a cluster ([`shared`], or one of its own from [`kafka`]), start a [`bridge`] in front of
//! it, talk to it with `curl` ([`tools`]) or, where single bytes on the wire matter, with [`https`], and look at the
//! topic with `kcat` or Kafka's own console consumer.
//!
//! * [`distribution`]: Apache Kafka's jars and Apicurio Registry, fetched once into a cache folder
//! * [`process`]: child processes that cannot outlive the test
//! * [`kafka`]: clusters of one or three brokers on free loopback ports
//! * [`registry`]: a Schema Registry that others wrote
//! * [`proxy`]: a TCP proxy for the way to a broker, which loses, delays and breaks
//! * [`msk`]: the door of a broker that takes signatures of AWS, and bounds sessions
//! * [`nlb`]: a load balancer that behaves as AWS's do, and VPC endpoints in front of it
//! * [`wire`]: the few requests the fixture itself sends to Kafka: create a topic, delete it, describe it, set a quota
//! * [`tls`]: a throw-away certificate authority
//! * [`bridge`]: `penstock serve` in front of a cluster
//! * [`tools`]: `curl`, `kcat`, Kafka's command line tools
//! * [`https`]: an HTTP/1.1 client that sends exactly the bytes it is given
//! * [`client`]: another, to whom connections may be lost
//! * [`fleet`]: bridges behind the load balancer that are replaced one by one under load
//! * [`shared`]: the clusters and the bridge that tests share
//!
//! Nothing here skips. A missing program or a failed download is a failed test that says what to install.

pub mod bridge;
pub mod client;
pub mod distribution;
pub mod fleet;
pub mod https;
pub mod kafka;
pub mod msk;
pub mod nlb;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod shared;
pub mod tls;
pub mod tools;
pub mod wire;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Asks `probe` until it answers, with a short pause between, and panics when `within` has passed.
///
/// For what cannot be waited for as an event: another process's HTTP answer, a broker's view of a topic.
pub fn eventually<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        pause();
    }
}

/// Waits until `reading` has been the same for fifty probes in a row, at least half a second, and returns it; panics when
/// `within` has passed. A busy machine stops everything for a few probes; what is at rest stays so.
pub fn at_rest(what: &str, within: Duration, mut reading: impl FnMut() -> f64) -> f64 {
    let (mut last, mut times) = (f64::NAN, 0);
    eventually(what, within, || {
        let now = reading();
        times = if now == last { times + 1 } else { 0 };
        last = now;
        (times == 50).then_some(now)
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pause between two probes of another process; it blocks a test's thread, never a worker"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// A loopback port that nobody listens on.
///
/// It lies below the range from which the kernel picks ports of outgoing connections, so that none of those takes it
/// while a stopped broker or bridge is about to come back to it. No port is given twice in one process.
pub fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Two test processes at the same time begin at different places.
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let candidate = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + candidate % COUNT).expect("the range ends below 65,536");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free loopback port between {FIRST} and {}", FIRST + COUNT);
}

/// A new folder for one user of the fixture: `name` and a number, beneath a folder of this process.
///
/// The folder of the process is removed when the process ends, however it ends: a shell that reads the other end of a
/// pipe sees it close.
pub fn temp_dir(name: &str) -> PathBuf {
    static ROOT: OnceLock<(PathBuf, Child)> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Children that die at the same moment may still be writing, so removal is tried again for some seconds.
    const JANITOR: &str = r#"cat >/dev/null; n=0
        until rm -rf -- "$1" 2>/dev/null || [ "$n" -ge 50 ]; do n=$((n + 1)); sleep 0.2; done"#;
    let (root, _) = ROOT.get_or_init(|| {
        let root = std::env::temp_dir().join(format!("penstock-tests-{}", std::process::id()));
        fs::create_dir_all(&root).expect("the temporary folder can be written");
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "sh"])
            .arg(&root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        (root, janitor)
    });
    let dir = root.join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir_all(&dir).expect("the temporary folder can be written");
    dir
}

/// `prefix`, a dash and a number that no other call in this process gets: a topic of the test's own.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

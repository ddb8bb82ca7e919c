//! A fleet of bridges behind the load balancer, and its bridges replaced one by one.
//!
//! ```text
//! callers ──▶ fake-nlb ──PROXY header──▶ penstock 1 … n ──▶ brokers
//! ```
//!
//! What callers see of it is counted by [`load`]. Times are those of a deployment, divided by a factor: the balancer's as
//! AWS's are, the bridges' drain with a notice that covers a deregistration.

pub mod load;

use std::{fmt, io, net::SocketAddr, time::Duration};

use tokio::{runtime::Handle, time::Instant};

use crate::{
    bridge::{Bridge, Settings},
    eventually, free_port,
    nlb::{
        self, Nlb,
        group::{Health, Target, TargetStatus},
    },
};

const NOTICE: Duration = Duration::from_secs(130);
const DEADLINE: Duration = Duration::from_secs(180);

/// For anything that a step of a replacement waits for, before it is divided by the factor.
const STEP: Duration = Duration::from_secs(600);

/// A running fleet. Dropping it kills its bridges.
#[derive(Debug)]
pub struct Fleet {
    /// The balancer.
    pub nlb: Nlb,
    bridges: Vec<Bridge>,
    faster: f64,
}

/// How a bridge takes its leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It is signalled; the balancer finds out by its checks.
    Signalled,
    /// It is deregistered and signalled at once, as an instance that its group terminates.
    Deregistered,
}

/// What came of one replacement: how long after the signal, and what was refused.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// The bridge's number.
    pub bridge: usize,
    /// How it took its leave.
    pub leave: Leave,
    /// The balancer knew that it leaves.
    pub known: Duration,
    /// No node sent it new flows any more.
    pub quiet: Duration,
    /// The process had ended.
    pub ended: Duration,
    /// The next one was healthy to the balancer.
    pub healthy: Duration,
    /// New flows that the balancer sent it and that it did not take.
    pub refused: u64,
}

impl fmt::Display for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bridge, leave, known, quiet, ended, healthy, refused } = self;
        let leave = match leave {
            Leave::Signalled => "signalled",
            Leave::Deregistered => "deregistered and signalled",
        };
        let seconds = [known, quiet, ended, healthy].map(|time| format!("{:.1} s", time.as_secs_f64()));
        write!(
            f,
            "bridge {}: {leave}; after {} the balancer knew, after {} no new flows, after {} the process had ended, after \
             {} its successor was healthy; {refused} new flows refused",
            bridge + 1,
            seconds[0],
            seconds[1],
            seconds[2],
            seconds[3]
        )
    }
}

impl Fleet {
    /// Starts `count` bridges in front of a cluster and a balancer in front of them, and waits until all are healthy.
    /// `listen` is where the balancer listens, with port 0 for any free one.
    ///
    /// # Errors
    ///
    /// When that address cannot be listened at.
    pub fn start(runtime: &Handle, bootstrap: &str, count: usize, faster: f64, listen: SocketAddr) -> io::Result<Self> {
        let mut settings = nlb::Settings::new("vpce-0a1b2c3d4e5f60718").faster(faster);
        settings.listeners[0].0 = listen;
        // A machine that is busy is not a bridge that is ill.
        settings.check_timeout = Duration::from_secs(10);
        let nlb = Nlb::start(runtime, settings)?;
        let scaled = |time: Duration| format!("\"{}ms\"", time.div_f64(faster).as_millis());
        let ports: Vec<_> = (0..count).map(|_| free_port()).collect();
        let settings = |port| {
            Settings::new(bootstrap)
                .in_fleet(port, &ports)
                .set("listen.proxy_protocol", "\"required\"")
                .set("listen.proxy_trusted", "[\"127.0.1.0/24\"]")
                .set("drain.notice", &scaled(NOTICE))
                .set("drain.deadline", &scaled(DEADLINE))
                .set("runtime.workers", "1")
        };
        let bridges: Vec<_> = ports.iter().map(|port| Bridge::start_with(&settings(*port))).collect();
        let fleet = Self { nlb, bridges, faster };
        for bridge in &fleet.bridges {
            fleet.nlb.register(target(bridge));
        }
        for index in 0..count {
            fleet.wait_until_healthy(index);
        }
        Ok(fleet)
    }

    /// Where callers connect.
    pub fn port(&self) -> u16 {
        self.nlb.address().port()
    }

    /// The bridges.
    pub fn bridges(&self) -> &[Bridge] {
        &self.bridges
    }

    /// Ends a bridge as an operator or the cloud does, and starts its successor at the same place.
    ///
    /// Panics when it does not end by itself with status 0.
    pub fn replace(&mut self, index: usize, leave: Leave) -> Replacement {
        let limit = STEP.div_f64(self.faster).max(Duration::from_secs(60));
        let target = target(&self.bridges[index]);
        let before = self.refused(target);
        let signalled = Instant::now();
        if leave == Leave::Deregistered {
            assert!(self.nlb.deregister(target.address), "it is registered");
        }
        self.bridges[index].signal("TERM");
        eventually("the balancer knows", limit, || {
            matches!(self.status(target)?.health, Health::Unhealthy | Health::Draining).then_some(())
        });
        let known = signalled.elapsed();
        // A process that ends before this is refused flows; a target that is forgotten gets none.
        eventually("new flows go elsewhere", limit, || {
            self.status(target).is_none_or(|status| !status.takes_new_flows).then_some(())
        });
        let quiet = signalled.elapsed();
        assert_eq!(self.bridges[index].wait_for_exit(limit), 0, "{}", self.bridges[index].process().tail(40));
        let ended = signalled.elapsed();
        let refused = self.refused(target) - before;
        self.bridges[index].start_again();
        self.nlb.register(target);
        self.wait_until_healthy(index);
        Replacement { bridge: index, leave, known, quiet, ended, healthy: signalled.elapsed(), refused }
    }

    fn wait_until_healthy(&self, index: usize) {
        let target = target(&self.bridges[index]);
        eventually("the bridge is healthy", STEP, || (self.status(target)?.health == Health::Healthy).then_some(()));
    }

    /// How the last registration of a target is.
    fn status(&self, target: Target) -> Option<TargetStatus> {
        self.nlb.status().into_iter().rfind(|status| status.target == target)
    }

    fn refused(&self, target: Target) -> u64 {
        self.status(target).map_or(0, |status| status.refused)
    }
}

fn target(bridge: &Bridge) -> Target {
    let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    Target { address: loopback(bridge.port), health: loopback(bridge.management_port) }
}

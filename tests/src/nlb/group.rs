//! A target group: which targets there are, how they are, and which of them gets the next flow.
//!
//! ```text
//!            enough nodes saw enough checks pass
//!  Initial ────────────────────────────────────▶ Healthy ◀──────────┐ enough pass
//!     │                                             │ enough fail   │
//!     └───────── enough fail ──────────────────▶ Unhealthy ─────────┘
//!                                                   │
//!  any ──deregister──▶ Draining ──delay──▶ gone     │ new flows until each node has heard of it,
//!                        ╰──────────────────────────╯ and for ever when nobody is healthy
//! ```
//!
//! Pure: `now` comes from the caller.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

/// A target group's settings: AWS's attributes, and what was seen of its balancers beside what they promise.
#[derive(Debug, Clone)]
pub struct Attributes {
    /// Checks in a row that must pass.
    pub healthy_threshold: u32,
    /// Checks in a row that must fail.
    pub unhealthy_threshold: u32,
    /// From a target's turning unhealthy until the first, and until the last node sends it no new flow.
    pub unhealthy_lag: (Duration, Duration),
    /// The same from its deregistration.
    pub deregistered_lag: (Duration, Duration),
    /// From its deregistration until it is forgotten.
    pub deregistration_delay: Duration,
    /// Whether the flows that are left then are reset.
    pub deregistration_termination: bool,
    /// Whether a target that turns unhealthy loses its flows at once.
    pub unhealthy_termination: bool,
    /// Otherwise: when it loses them, if it is not well again until then.
    pub unhealthy_draining: Duration,
}

impl Default for Attributes {
    /// As a target group for HTTP should be: unhealthy targets keep their flows for 180 s.
    fn default() -> Self {
        Self {
            healthy_threshold: 2,
            unhealthy_threshold: 2,
            unhealthy_lag: (Duration::from_secs(30), Duration::from_secs(40)),
            deregistered_lag: (Duration::from_secs(30), Duration::from_secs(120)),
            deregistration_delay: Duration::from_secs(180),
            deregistration_termination: true,
            unhealthy_termination: false,
            unhealthy_draining: Duration::from_secs(180),
        }
    }
}

/// How a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Registered, and not yet known.
    Initial,
    /// It gets new flows.
    Healthy,
    /// It gets none, once every node has heard of it.
    Unhealthy,
    /// Deregistered.
    Draining,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initial => "initial",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        })
    }
}

/// Who serves flows, and where it is asked for its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Where flows go.
    pub address: SocketAddr,
    /// Where checks go.
    pub health: SocketAddr,
}

/// A target as the group tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetStatus {
    /// The target.
    pub target: Target,
    /// How it is.
    pub health: Health,
    /// Whether any node may send it a new flow.
    pub takes_new_flows: bool,
    /// Flows that are open.
    pub open_flows: usize,
    /// All flows that it got.
    pub flows: u64,
    /// Flows that it did not take: to their clients, connections that were reset.
    pub refused: u64,
}

/// What is counted of one target.
#[derive(Debug, Default)]
pub(super) struct Counts {
    open: AtomicUsize,
    all: AtomicU64,
    refused: AtomicU64,
}

/// Where a flow goes.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) address: SocketAddr,
    /// When the flow is to be reset, should it still be there.
    pub(super) cut: watch::Receiver<Option<Instant>>,
    counts: Arc<Counts>,
}

impl Route {
    /// Counts the flow as open until the returned value is dropped.
    pub(super) fn opened(&self) -> OpenFlow {
        self.counts.all.fetch_add(1, Ordering::Relaxed);
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        OpenFlow(Arc::clone(&self.counts))
    }

    /// Counts a flow that the target did not take.
    pub(super) fn refused(&self) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// One open flow.
#[derive(Debug)]
pub(super) struct OpenFlow(Arc<Counts>);

impl Drop for OpenFlow {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The group.
#[derive(Debug)]
pub(super) struct Group {
    attributes: Attributes,
    nodes: usize,
    next_id: u64,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    /// One registration's number.
    id: u64,
    target: Target,
    health: Health,
    /// Since when.
    since: Instant,
    new_flows: NewFlows,
    views: Vec<View>,
    cut: watch::Sender<Option<Instant>>,
    counts: Arc<Counts>,
}

/// Whether new flows go to a target of its own right.
#[derive(Debug)]
enum NewFlows {
    Yes,
    No,
    /// Until these times, by node.
    Until(Vec<Instant>),
}

/// What one node's checks of one target say.
#[derive(Debug, Clone, Default)]
struct View {
    last: bool,
    in_a_row: u32,
    verdict: Option<bool>,
}

impl Group {
    pub(super) fn new(attributes: Attributes, nodes: usize) -> Self {
        Self { attributes, nodes, next_id: 0, members: Vec::new() }
    }

    /// Adds a target and returns its registration's number; `None` when it is registered already.
    pub(super) fn register(&mut self, target: Target, now: Instant) -> Option<u64> {
        let known = |member: &Member| member.target.address == target.address && member.health != Health::Draining;
        if self.members.iter().any(known) {
            return None;
        }
        self.next_id += 1;
        self.members.push(Member {
            id: self.next_id,
            target,
            health: Health::Initial,
            since: now,
            new_flows: NewFlows::No,
            views: vec![View::default(); self.nodes],
            cut: watch::Sender::new(None),
            counts: Arc::default(),
        });
        Some(self.next_id)
    }

    /// Begins to drain a target. False when there is none of this address.
    pub(super) fn deregister(&mut self, address: SocketAddr, now: Instant) -> bool {
        let found = self.members.iter_mut().find(|member| {
            let registered = member.health != Health::Draining;
            registered && member.target.address == address
        });
        let Some(member) = found else {
            return false;
        };
        member.leave(Health::Draining, now, self.attributes.deregistered_lag, self.nodes);
        if self.attributes.deregistration_termination {
            member.cut.send_replace(Some(now + self.attributes.deregistration_delay));
        }
        true
    }

    /// Whether a registration is still to be checked.
    pub(super) fn is_checked(&self, id: u64) -> bool {
        self.members.iter().any(|member| member.id == id && member.health != Health::Draining)
    }

    /// Takes the result of one node's check. Nodes decide together: more than half of them must see the same.
    pub(super) fn handle_check(&mut self, id: u64, node: usize, passed: bool, now: Instant) {
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else {
            return;
        };
        let view = &mut member.views[node];
        view.in_a_row = if view.in_a_row > 0 && view.last == passed { view.in_a_row + 1 } else { 1 };
        view.last = passed;
        let attributes = &self.attributes;
        if view.in_a_row >= if passed { attributes.healthy_threshold } else { attributes.unhealthy_threshold } {
            view.verdict = Some(passed);
        }
        let agree = |verdict| 2 * member.views.iter().filter(|view| view.verdict == Some(verdict)).count() > self.nodes;
        if agree(true) && matches!(member.health, Health::Initial | Health::Unhealthy) {
            (member.health, member.since, member.new_flows) = (Health::Healthy, now, NewFlows::Yes);
            member.cut.send_replace(None);
        } else if agree(false) && matches!(member.health, Health::Initial | Health::Healthy) {
            member.leave(Health::Unhealthy, now, attributes.unhealthy_lag, self.nodes);
            let wait = if attributes.unhealthy_termination { Duration::ZERO } else { attributes.unhealthy_draining };
            member.cut.send_replace(Some(now + wait));
        }
    }

    /// Where a flow with this hash goes that came to `node`. `None`: nobody is registered.
    pub(super) fn route(&mut self, node: usize, hash: u64, now: Instant) -> Option<Route> {
        self.forget(now);
        let fails_open = !self.members.iter().any(|member| member.health == Health::Healthy);
        let candidates: Vec<_> = self
            .members
            .iter()
            .filter(|member| member.takes_new_flows(node, now) || (fails_open && member.health != Health::Draining))
            .collect();
        let index = hash.checked_rem(candidates.len() as u64)?;
        let member = candidates[usize::try_from(index).expect("less than their number")];
        Some(Route { address: member.target.address, cut: member.cut.subscribe(), counts: Arc::clone(&member.counts) })
    }

    /// Every target, in the order of registration.
    pub(super) fn status(&mut self, now: Instant) -> Vec<TargetStatus> {
        self.forget(now);
        let status = |member: &Member| TargetStatus {
            target: member.target,
            health: member.health,
            takes_new_flows: (0..self.nodes).any(|node| member.takes_new_flows(node, now)),
            open_flows: member.counts.open.load(Ordering::Relaxed),
            flows: member.counts.all.load(Ordering::Relaxed),
            refused: member.counts.refused.load(Ordering::Relaxed),
        };
        self.members.iter().map(status).collect()
    }

    fn forget(&mut self, now: Instant) {
        let delay = self.attributes.deregistration_delay;
        self.members.retain(|member| member.health != Health::Draining || now < member.since + delay);
    }
}

impl Member {
    fn takes_new_flows(&self, node: usize, now: Instant) -> bool {
        match &self.new_flows {
            NewFlows::Yes => true,
            NewFlows::No => false,
            NewFlows::Until(times) => now < times[node],
        }
    }

    /// New flows go on coming until each node has heard of it: the first after the shorter lag, the last after the longer.
    fn leave(&mut self, health: Health, now: Instant, (first, last): (Duration, Duration), nodes: usize) {
        if matches!(self.new_flows, NewFlows::Yes) {
            let between = last.saturating_sub(first);
            let steps = u32::try_from(nodes.max(2) - 1).expect("a few nodes");
            let lag = |node: usize| first + between * u32::try_from(node).expect("a few nodes") / steps;
            self.new_flows = NewFlows::Until((0..nodes).map(|node| now + lag(node)).collect());
        }
        (self.health, self.since) = (health, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: usize = 3;

    struct Bench {
        group: Group,
        now: Instant,
        ids: Vec<u64>,
    }

    fn target(port: u16) -> Target {
        Target { address: ([127, 0, 0, 1], port).into(), health: ([127, 0, 0, 1], port + 1000).into() }
    }

    /// Targets 1 to `count`, all healthy.
    fn bench(attributes: Attributes, count: u16) -> Bench {
        let mut bench = Bench { group: Group::new(attributes, NODES), now: Instant::now(), ids: Vec::new() };
        for port in 1..=count {
            bench.ids.push(bench.group.register(target(port), bench.now).expect("new"));
            bench.check(usize::from(port - 1), true, 2);
        }
        bench
    }

    impl Bench {
        /// So many checks of every node.
        fn check(&mut self, index: usize, passed: bool, times: usize) {
            for _ in 0..times {
                for node in 0..NODES {
                    self.group.handle_check(self.ids[index], node, passed, self.now);
                }
            }
        }

        fn health(&mut self) -> Vec<Health> {
            self.group.status(self.now).into_iter().map(|status| status.health).collect()
        }

        /// The ports that a node's next flows go to.
        fn ports(&mut self, node: usize) -> Vec<u16> {
            let mut ports: Vec<_> =
                (0..60).filter_map(|hash| Some(self.group.route(node, hash, self.now)?.address.port())).collect();
            ports.sort_unstable();
            ports.dedup();
            ports
        }
    }

    #[test]
    fn flows_go_to_healthy_targets_and_the_same_flow_always_to_the_same() {
        let mut bench = bench(Attributes::default(), 3);
        assert_eq!(bench.ports(0), [1, 2, 3]);
        let of = |bench: &mut Bench| bench.group.route(1, 7, bench.now).expect("healthy ones").address;
        assert_eq!(of(&mut bench), of(&mut bench));
        let late = bench.group.register(target(4), bench.now).expect("new");
        bench.ids.push(late);
        assert_eq!(bench.ports(0), [1, 2, 3], "it is not known yet");
        bench.check(3, true, 2);
        assert_eq!(bench.ports(0), [1, 2, 3, 4]);
        assert!(bench.group.register(target(4), bench.now).is_none(), "it is there");
    }

    #[test]
    fn more_than_half_of_the_nodes_decide_after_enough_checks_in_a_row() {
        let mut bench = bench(Attributes::default(), 1);
        let id = bench.ids[0];
        for passed in [false, true, false, true, false] {
            bench.check(0, passed, 1);
        }
        assert_eq!(bench.health(), [Health::Healthy], "never two in a row");
        bench.check(0, true, 2);
        for _ in 0..5 {
            bench.group.handle_check(id, 0, false, bench.now);
        }
        assert_eq!(bench.health(), [Health::Healthy], "one node of three");
        bench.group.handle_check(id, 2, false, bench.now);
        bench.group.handle_check(id, 2, false, bench.now);
        assert_eq!(bench.health(), [Health::Unhealthy]);
        bench.check(0, true, 2);
        assert_eq!(bench.health(), [Health::Healthy]);
    }

    #[test]
    fn an_unhealthy_target_gets_new_flows_until_each_node_has_heard_of_it() {
        let mut bench = bench(Attributes::default(), 2);
        bench.check(0, false, 2);
        assert_eq!(bench.health(), [Health::Unhealthy, Health::Healthy]);
        bench.now += Duration::from_secs(29);
        assert_eq!((bench.ports(0), bench.ports(2)), (vec![1, 2], vec![1, 2]));
        bench.now += Duration::from_secs(2);
        assert_eq!((bench.ports(0), bench.ports(2)), (vec![2], vec![1, 2]));
        assert!(bench.group.status(bench.now)[0].takes_new_flows);
        bench.now += Duration::from_secs(10);
        assert_eq!((bench.ports(0), bench.ports(2)), (vec![2], vec![2]));
        assert!(!bench.group.status(bench.now)[0].takes_new_flows);
    }

    #[test]
    fn when_nobody_is_healthy_everybody_gets_flows() {
        let mut bench = bench(Attributes::default(), 2);
        bench.check(0, false, 2);
        bench.check(1, false, 2);
        bench.now += Duration::from_secs(600);
        assert_eq!(bench.ports(0), [1, 2]);
        bench.group.deregister(target(1).address, bench.now);
        bench.now += Duration::from_secs(600);
        assert_eq!(bench.ports(0), [2]);
        bench.group.deregister(target(2).address, bench.now);
        bench.now += Duration::from_secs(600);
        assert_eq!(bench.ports(0), [0; 0], "nobody is registered");
    }

    #[test]
    fn unhealthy_targets_keep_their_flows_for_a_while_or_lose_them_at_once() {
        for (unhealthy_termination, wait) in [(false, 180), (true, 0)] {
            let mut bench = bench(Attributes { unhealthy_termination, ..Attributes::default() }, 1);
            let flow = bench.group.route(0, 0, bench.now).expect("healthy");
            assert_eq!(*flow.cut.borrow(), None);
            bench.check(0, false, 2);
            assert_eq!(*flow.cut.borrow(), Some(bench.now + Duration::from_secs(wait)));
            bench.check(0, true, 2);
            assert_eq!(*flow.cut.borrow(), None, "it is well again");
        }
    }

    #[test]
    fn a_deregistered_target_drains_and_is_forgotten() {
        for deregistration_termination in [true, false] {
            let mut bench = bench(Attributes { deregistration_termination, ..Attributes::default() }, 2);
            let (start, address) = (bench.now, target(1).address);
            let of = |group: &mut Group, now| {
                (0..9).find_map(|hash| group.route(0, hash, now).filter(|route| route.address == address))
            };
            let flow = of(&mut bench.group, bench.now).expect("one of nine");
            let open = flow.opened();
            assert!(bench.group.deregister(address, bench.now));
            assert!(!bench.group.deregister(address, bench.now) && !bench.group.is_checked(bench.ids[0]));
            bench.check(0, true, 3);
            assert_eq!(bench.health(), [Health::Draining, Health::Healthy], "it is asked no longer");
            let cut = deregistration_termination.then_some(start + Duration::from_secs(180));
            assert_eq!(*flow.cut.borrow(), cut);
            bench.now += Duration::from_secs(119);
            assert_eq!((bench.ports(0), bench.ports(2)), (vec![2], vec![1, 2]));
            let status = bench.group.status(bench.now)[0];
            assert_eq!((status.open_flows, status.flows, status.refused), (1, 1, 0));
            drop(open);
            assert_eq!(bench.group.status(bench.now)[0].open_flows, 0);
            bench.now += Duration::from_secs(61);
            assert_eq!(bench.health(), [Health::Healthy]);
            let again = bench.group.register(target(1), bench.now).expect("forgotten");
            assert_ne!(again, bench.ids[0]);
        }
    }
}

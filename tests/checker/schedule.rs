//! Which faults come, in which order, where, and for how long: drawn from the seed and nothing else.

use std::{fmt, time::Duration};

use crate::random::Random;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// Replies of a leader vanish, then its connections are reset; several times.
    #[value(name = "acks-lost")]
    AckLost,
    /// A leader's connections are reset; several times.
    Reset,
    /// Nothing passes to or from a leader, nothing is closed.
    BlackHole,
    /// Whatever passes to or from a leader takes longer.
    #[value(name = "slow-link")]
    Slow,
    /// A leader's connections are reset and new ones refused, while the cluster finds it well.
    Refused,
    /// SIGKILL to a leader; it comes back.
    Kill,
    /// SIGTERM to a leader; it comes back.
    #[value(name = "stop-in-order")]
    Term,
    /// SIGSTOP to a leader, then SIGCONT.
    #[value(name = "hang")]
    Stop,
    /// SIGTERM to each broker in turn; the next when all is in sync.
    RollingRestart,
    /// Kafka's quota for the bridge.
    #[value(name = "throttling")]
    Throttle,
    /// A leader's disk takes no more writes (by a limit on file sizes), so that it ends itself; it comes back.
    DiskRefuses,
    /// A broker's file system is filled up; it ends itself, is given room, and comes back. Needs root.
    DiskFull,
    /// SIGTERM to the bridge, which drains; it comes back.
    #[value(name = "bridge-drained")]
    BridgeTerm,
    /// SIGKILL to the bridge; it comes back.
    #[value(name = "bridge-killed")]
    BridgeKill,
    /// A topic is deleted and created again while records for it wait for a leader that does not answer.
    #[value(name = "topic-re-created")]
    Recreation,
}

impl Fault {
    /// Whether it meets the leader of the step's partition, and not the bridge, every broker, or one that is fixed.
    pub(crate) const fn is_at_a_leader(self) -> bool {
        use Fault::{AckLost, BlackHole, DiskRefuses, Kill, Refused, Reset, Slow, Stop, Term};
        matches!(self, AckLost | Reset | BlackHole | Slow | Refused | Kill | Term | Stop | DiskRefuses)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AckLost => "acks lost",
            Self::Reset => "reset",
            Self::BlackHole => "black hole",
            Self::Slow => "slow link",
            Self::Refused => "refused",
            Self::Kill => "kill",
            Self::Term => "stop in order",
            Self::Stop => "hang",
            Self::RollingRestart => "rolling restart",
            Self::Throttle => "throttling",
            Self::DiskRefuses => "disk refuses",
            Self::DiskFull => "disk full",
            Self::BridgeTerm => "bridge drained",
            Self::BridgeKill => "bridge killed",
            Self::Recreation => "topic re-created",
        })
    }
}

/// One fault, or two that overlap, and the time that it is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Each with the partition whose leader at that time it meets.
    pub(crate) faults: Vec<(Fault, i32)>,
    /// From the last fault's beginning to the first one's end.
    pub(crate) hold: Duration,
}

/// What the caller wants in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    /// These and no others, in this order, not two at once. None: as drawn.
    pub(crate) only: Vec<Fault>,
    /// How long each is held; none: as drawn.
    pub(crate) hold: Option<Duration>,
    /// One of each fault that is over soon, held shortly.
    pub(crate) quick: bool,
    /// Only what makes a producer without idempotence write twice.
    pub(crate) control: bool,
    /// Also a full disk.
    pub(crate) full_disk: bool,
}

/// Draws the steps of a run: single faults in any order, then overlapping pairs for as long as the run goes on.
pub(crate) fn draw(seed: u64, wishes: &Wishes, partitions: i32) -> Vec<Step> {
    use Fault::{
        AckLost, BlackHole, BridgeKill, BridgeTerm, DiskFull, DiskRefuses, Kill, Recreation, Refused, Reset,
        RollingRestart, Slow, Stop, Term, Throttle,
    };
    /// On the way to a broker that is well.
    const OUTER: [Fault; 6] = [AckLost, Reset, BlackHole, Slow, Refused, Throttle];
    /// To a process.
    const INNER: [Fault; 6] = [Kill, Term, Stop, BridgeKill, BridgeTerm, Recreation];
    const PAIRS: usize = 20;

    let mut random = Random::new(seed, 0);
    let mut singles = match (wishes.control, wishes.quick) {
        (true, true) => vec![AckLost, Reset, AckLost],
        (true, false) => vec![AckLost, Kill, BlackHole, Reset, Stop, Term, AckLost],
        (false, true) => vec![Reset, BlackHole, Refused, Throttle, BridgeTerm, BridgeKill, Recreation],
        (false, false) => {
            let mut rest = [RollingRestart, DiskRefuses, Slow, Refused];
            random.shuffle(&mut rest);
            let mut singles =
                vec![AckLost, Reset, BlackHole, Kill, Term, Stop, Throttle, BridgeTerm, BridgeKill, Recreation];
            singles.extend_from_slice(&rest[..2]);
            singles
        }
    };
    if wishes.full_disk {
        singles.push(DiskFull);
    }
    random.shuffle(&mut singles);
    let mut pairs: Vec<_> = match (wishes.control, wishes.quick) {
        (true, true) => Vec::new(),
        (false, true) => vec![vec![AckLost, Kill]],
        (_, false) => (0..PAIRS).map(|_| vec![random.pick(&OUTER), random.pick(&INNER)]).collect(),
    };
    if !wishes.only.is_empty() {
        singles.clone_from(&wishes.only);
        pairs.clear();
    }
    let steps = singles.into_iter().map(|single| vec![single]).chain(pairs);
    steps
        .map(|faults| {
            let hold = match faults[faults.len() - 1] {
                Stop => Duration::from_secs(12),
                BridgeTerm | BridgeKill | AckLost | Reset => random.millis(200..=1_500),
                _ if wishes.quick => random.millis(1_000..=2_500),
                Throttle => random.millis(4_000..=7_000),
                _ => random.millis(1_000..=9_000),
            };
            let place = |fault| (fault, random.below(partitions as u64) as i32);
            Step { faults: faults.into_iter().map(place).collect(), hold: wishes.hold.unwrap_or(hold) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(seed: u64) -> Vec<Step> {
        draw(seed, &Wishes::default(), 6)
    }

    #[test]
    fn a_seed_gives_the_same_schedule_every_time_and_another_one_another() {
        assert_eq!(long(7), long(7));
        assert_ne!(long(7), long(8));
    }

    #[test]
    fn the_faults_that_every_client_is_measured_by_are_in_every_long_schedule() {
        for seed in 0..50 {
            let steps = long(seed);
            let singles: Vec<_> =
                steps.iter().filter(|step| step.faults.len() == 1).map(|step| step.faults[0].0).collect();
            for fault in [Fault::AckLost, Fault::Kill, Fault::BlackHole, Fault::Stop, Fault::BridgeKill] {
                assert!(singles.contains(&fault), "{fault} with seed {seed}");
            }
            assert_eq!(steps[singles.len()].faults.len(), 2, "pairs come after the singles");
        }
    }

    #[test]
    fn a_full_disk_comes_only_when_it_is_asked_for() {
        let has = |full_disk| {
            let wishes = Wishes { full_disk, ..Wishes::default() };
            draw(1, &wishes, 6).iter().any(|step| step.faults[0].0 == Fault::DiskFull)
        };
        assert!(!has(false) && has(true));
    }

    #[test]
    fn faults_that_are_named_come_alone_and_in_their_order() {
        let only = vec![Fault::Kill, Fault::Reset, Fault::Kill];
        let steps = draw(1, &Wishes { only: only.clone(), ..Wishes::default() }, 6);
        assert!(steps.iter().all(|step| step.faults.len() == 1));
        assert_eq!(steps.iter().map(|step| step.faults[0].0).collect::<Vec<_>>(), only);
    }
}

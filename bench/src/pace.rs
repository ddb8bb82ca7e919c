//! When each request is meant to go out.
//!
//! Open loop: request `i` is due at start + i / rate, whatever became of the ones before. Latency counts from that
//! moment, so a stall of the bridge is charged with every request that should have gone out in it (no coordinated
//! omission). Closed loop: a request is due when a connection is free.

use std::{cell::Cell, io, os::fd::OwnedFd, time::Duration};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::{io::unix::AsyncFd, time::Instant};

/// Shared by the connections of one run; each takes the next request when it is free.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    interval: Option<f64>,
    end: Option<Instant>,
    limit: u64,
    issued: Cell<u64>,
}

impl Schedule {
    /// `rate`: requests a second, over all connections; `None`: closed loop. It ends after `limit` requests or `time`,
    /// whichever is first.
    pub(crate) fn new(rate: Option<f64>, limit: Option<u64>, time: Option<Duration>) -> Self {
        let start = Instant::now();
        Self {
            start,
            interval: rate.map(|rate| 1.0 / rate),
            end: time.map(|time| start + time),
            limit: limit.unwrap_or(u64::MAX),
            issued: Cell::new(0),
        }
    }

    /// When the whole began.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// The next request's number, from 0, and when it is due; `None` at the end.
    pub(crate) fn next(&self) -> Option<(u64, Instant)> {
        let index = self.issued.get();
        if index == self.limit {
            return None;
        }
        let due = match self.interval {
            Some(interval) => self.start + Duration::from_secs_f64(interval * index as f64),
            None => Instant::now(),
        };
        if self.end.is_some_and(|end| due >= end) {
            return None;
        }
        self.issued.set(index + 1);
        Some((index, due))
    }
}

/// Sleeps to the microsecond. Tokio's own timer counts milliseconds, which is longer than most answers take.
#[derive(Debug)]
pub(crate) struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    #[expect(deprecated, reason = "its successor is unsafe to call; an OwnedFd stays the same file, as that one asks")]
    pub(crate) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self(AsyncFd::new(timer)?))
    }

    /// Waits until `due`; not at all when that is past.
    pub(crate) async fn wait_until(&self, due: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut guard = self.0.readable().await?;
            let expired = guard.try_io(|timer| {
                let mut expirations = [0; 8];
                Ok(rustix::io::read(timer.get_ref(), &mut expirations)?)
            });
            if let Ok(expired) = expired {
                return expired.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_paced_schedule_does_not_wait_for_late_callers() {
        let schedule = Schedule::new(Some(100.0), Some(3), None);
        tokio::time::advance(Duration::from_secs(5)).await;
        let due: Vec<_> = std::iter::from_fn(|| schedule.next()).map(|(_, due)| due - schedule.start()).collect();
        assert_eq!(due, [0, 10, 20].map(Duration::from_millis));
    }

    #[tokio::test(start_paused = true)]
    async fn a_paced_schedule_ends_with_the_last_request_due_in_its_time() {
        let schedule = Schedule::new(Some(10.0), None, Some(Duration::from_millis(250)));
        assert_eq!(std::iter::from_fn(|| schedule.next()).count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_is_due_at_once_until_its_time_is_over() {
        let schedule = Schedule::new(None, None, Some(Duration::from_secs(1)));
        assert_eq!(schedule.next(), Some((0, schedule.start())));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(schedule.next(), None);
    }
}

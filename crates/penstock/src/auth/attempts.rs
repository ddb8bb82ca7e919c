//! How often one address may fail.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One more failure is forgiven after this long.
pub(super) const FORGIVEN_AFTER: Duration = Duration::from_secs(2);
/// Failures in a row.
pub(super) const BURST: u32 = 10;
/// Addresses that are kept apart. What comes beyond them counts as one address.
const SOURCES: usize = 4096;
/// The address of all that are too many to be kept apart.
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// For each address with failures: when they are all forgiven. One instant is enough to count them (the generic cell rate
/// algorithm): an attempt moves it on, and is refused where it would be too far ahead.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<HashMap<IpAddr, Instant>>);

impl Attempts {
    /// Counts an attempt that may fail. The address to give it back to, should it not.
    ///
    /// # Errors
    ///
    /// When too many failed: how long until one more may be made.
    pub(super) fn take(&self, source: IpAddr, now: Instant) -> Result<IpAddr, Duration> {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= SOURCES && !sources.contains_key(&source) {
            sources.retain(|_, forgiven| *forgiven > now);
        }
        let source = if sources.len() < SOURCES || sources.contains_key(&source) { source } else { OTHERS };
        let forgiven = sources.entry(source).or_insert(now);
        let next = (*forgiven).max(now) + FORGIVEN_AFTER;
        let ahead = next - now;
        if ahead > FORGIVEN_AFTER * BURST {
            return Err(ahead - FORGIVEN_AFTER * BURST);
        }
        *forgiven = next;
        Ok(source)
    }

    /// It did not fail.
    pub(super) fn give_back(&self, source: IpAddr) {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(forgiven) = sources.get_mut(&source) {
            *forgiven = forgiven.checked_sub(FORGIVEN_AFTER).unwrap_or(*forgiven);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_then_one_in_two_seconds() {
        let attempts = Attempts::default();
        let (source, now) = (IpAddr::from([192, 0, 2, 7]), Instant::now());
        for _ in 0..BURST {
            attempts.take(source, now).expect("within the burst");
        }
        assert_eq!(attempts.take(source, now), Err(FORGIVEN_AFTER));
        attempts.take(IpAddr::from([192, 0, 2, 8]), now).expect("another address");
        let later = now + FORGIVEN_AFTER;
        attempts.take(source, later).expect("one is forgiven");
        attempts.take(source, later).expect_err("but one");
        attempts.give_back(source);
        attempts.take(source, later).expect("it was given back");
        let much_later = now + FORGIVEN_AFTER * 1000;
        for _ in 0..BURST {
            attempts.take(source, much_later).expect("all are forgiven");
        }
        attempts.take(source, much_later).expect_err("and no more than that");
    }

    #[test]
    fn addresses_beyond_the_bound_count_as_one_and_make_room_in_time() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let source = |index: usize| IpAddr::from((index as u128).to_be_bytes());
        for index in 1..=SOURCES {
            attempts.take(source(index), now).expect("kept apart");
        }
        for index in 0..BURST as usize {
            // OTHERS itself is one more.
            assert_eq!(attempts.take(source(10_000 + index), now), Ok(OTHERS));
        }
        attempts.take(source(20_000), now).expect_err("they are one");
        attempts.take(source(1), now).expect("the others are not");
        let later = now + FORGIVEN_AFTER * (BURST + 1);
        assert_eq!(attempts.take(source(20_000), later), Ok(source(20_000)));
        assert!(attempts.0.lock().expect("not poisoned").len() < SOURCES);
    }
}

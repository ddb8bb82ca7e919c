//! Token buckets: how much of something may be done in a second.
//!
//! A bucket holds one second's worth, so that is the largest burst. It belongs to one rule in one process: all callers of
//! the rule share it, and a fleet of N lets through N times its rate.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One bucket, shared by all workers.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Tokens a second, and the most that it holds; at least 1.
    rate: f64,
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    /// Below zero: so many tokens were taken before they were there.
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn new(rate: u64, now: Instant) -> Self {
        let rate = rate.max(1) as f64;
        Self { rate, level: Mutex::new(Level { tokens: rate, at: now }) }
    }

    /// Takes one token.
    ///
    /// # Errors
    ///
    /// When there is none: how long until there is.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Duration> {
        self.with(now, |tokens| {
            if *tokens < 1.0 {
                return Err(1.0 - *tokens);
            }
            *tokens -= 1.0;
            Ok(())
        })
    }

    /// Takes tokens that were used already, whether they are there or not.
    pub(crate) fn charge(&self, now: Instant, amount: usize) {
        // Cannot fail: what is missing is owed.
        let _ = self.with(now, |tokens| {
            *tokens -= amount as f64;
            Ok(())
        });
    }

    /// Whether nothing is owed.
    ///
    /// # Errors
    ///
    /// When something is: how long until it is not.
    pub(crate) fn settled(&self, now: Instant) -> Result<(), Duration> {
        self.with(now, |tokens| if *tokens < 0.0 { Err(-*tokens) } else { Ok(()) })
    }

    /// Fills the bucket up to `now`, then looks. An error is a number of missing tokens and becomes the time they take.
    fn with(&self, now: Instant, look: impl FnOnce(&mut f64) -> Result<(), f64>) -> Result<(), Duration> {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        // Workers read their clocks before they come here: `now` may be a little before `at`.
        let passed = now.saturating_duration_since(level.at);
        level.at += passed;
        level.tokens = (level.tokens + passed.as_secs_f64() * self.rate).min(self.rate);
        // A nanosecond more than needed, so that rounding does not bring the caller back too early.
        look(&mut level.tokens).map_err(|missing| {
            let seconds = (missing / self.rate).min(86_400.0);
            Duration::from_secs_f64(seconds) + Duration::from_nanos(1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_through_its_rate_after_a_burst_of_one_second() {
        let start = Instant::now();
        let bucket = Bucket::new(10, start);
        let through = |now| std::iter::repeat_with(|| bucket.take(now)).take_while(Result::is_ok).count();
        assert_eq!(through(start), 10);
        let wait = bucket.take(start).expect_err("empty");
        assert_eq!(wait.as_millis(), 100);
        assert_eq!(through(start + wait), 1, "what it said is enough");
        assert_eq!(through(start + Duration::from_secs(100)), 10, "it holds one second's worth");
        assert_eq!(through(start), 0, "a clock that is behind fills nothing");
    }

    #[test]
    fn what_was_used_before_it_was_there_is_owed() {
        let start = Instant::now();
        let bucket = Bucket::new(1000, start);
        bucket.charge(start, 1000);
        assert!(bucket.settled(start).is_ok());
        bucket.charge(start, 500);
        let wait = bucket.settled(start).expect_err("500 are owed");
        assert_eq!(wait.as_millis(), 500);
        assert!(bucket.settled(start + wait).is_ok());
    }
}

//! Where the credentials for brokers come from: a password's file, a token server, AWS.
//!
//! Each is a [`Credentials`](kafka_client::sasl::Credentials) of the client, which asks at every login: for each new
//! connection, and before each session ends. A file is read every time, so a password is changed by writing the file; what
//! costs a request to somebody else is kept until shortly before it expires, and thrown away when a broker refuses
//! it.

mod aws;
mod password;
mod token;

pub use aws::AwsChain;
pub use password::{PasswordFile, read_secret};
pub use token::TokenServer;

use std::{
    fmt,
    future::Future,
    time::{Duration, SystemTime},
};

use kafka_client::sasl::CredentialsError;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

/// How long anybody may take to hand out credentials.
const LIMIT: Duration = Duration::from_secs(20);
/// Credentials are handed out until this part of their lifetime is left. More than the part of its session at which a
/// connection logs in again (15 %), so that it does so with new ones.
const SPARE: u32 = 5;

/// The newest credentials. One caller fetches, the others wait for it.
struct Kept<T>(Mutex<Option<(T, Instant)>>);

/// Shows nothing of what is kept.
impl<T> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

impl<T: Clone> Kept<T> {
    fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// What is kept, or what `fetch` brings and how long that lives.
    ///
    /// # Cancel safety
    ///
    /// Safe; the next caller fetches.
    async fn get(
        &self,
        fetch: impl Future<Output = Result<(T, Duration), CredentialsError>>,
    ) -> Result<T, CredentialsError> {
        let mut kept = self.0.lock().await;
        if let Some((credentials, until)) = &*kept
            && *until > Instant::now()
        {
            return Ok(credentials.clone());
        }
        *kept = None;
        let asked = Instant::now();
        let late = |_| CredentialsError::from(format!("no credentials within {LIMIT:?}"));
        let (credentials, lifetime) = timeout(LIMIT, fetch).await.map_err(late)??;
        if let Some(until) = asked.checked_add(lifetime - lifetime / SPARE) {
            *kept = Some((credentials.clone(), until));
        }
        Ok(credentials)
    }

    /// Throws away what is kept.
    fn forget(&self) {
        // Locked: somebody is fetching already.
        if let Ok(mut kept) = self.0.try_lock() {
            *kept = None;
        }
    }
}

/// From now to then; nothing for what is over.
fn until(then: SystemTime) -> Duration {
    then.duration_since(SystemTime::now()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn credentials_are_fetched_anew_before_they_expire_and_after_a_refusal() {
        let kept = Kept::new();
        let fetched = Cell::new(0);
        let get = || {
            kept.get(async {
                fetched.set(fetched.get() + 1);
                Ok((fetched.get(), Duration::from_secs(100)))
            })
        };
        assert_eq!(get().await.expect("fetched"), 1);
        advance(Duration::from_secs(79)).await;
        assert_eq!(get().await.expect("kept"), 1);
        advance(Duration::from_secs(2)).await;
        assert_eq!(get().await.expect("fetched"), 2);
        kept.forget();
        assert_eq!(get().await.expect("fetched"), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_not_kept_and_silence_is_one() {
        let kept = Kept::<u8>::new();
        assert!(kept.get(async { Err("no".into()) }).await.is_err());
        let silence = kept.get(std::future::pending()).await;
        assert!(silence.expect_err("late").to_string().contains("within 20s"));
        assert_eq!(kept.get(async { Ok((7, Duration::ZERO)) }).await.expect("fetched"), 7);
        assert_eq!(kept.get(async { Ok((8, Duration::MAX)) }).await.expect("a lifetime of zero is over"), 8);
    }
}

//! Who a request's `Authorization` says it is: users with passwords, and JSON Web Tokens.
//!
//! ```text
//! Authorization ─▶ the same as before on this connection? ─▶ the caller it was then
//!                        │ no
//!                        ├─ Basic  ─▶ users.rs: a keyed hash of what was right before, else Argon2 or bcrypt
//!                        └─ Bearer ─▶ tokens.rs: signature by a key of the issuer's set, then the claims
//! ```
//!
//! What a connection and the table of users remember is a keyed hash (HMAC-SHA256 under a key of this process): neither
//! passwords nor tokens stay in memory. A reload of users or keys raises the generation, and everything that was
//! remembered under an older one is verified again.

mod attempts;
mod passwords;
mod tokens;
mod users;

pub(crate) use passwords::hash_password;
pub(crate) use tokens::{KeySet, Tokens};
pub(crate) use users::{UserFile, Users};

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hyper::header::HeaderValue;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::config::Auth;
use crate::http::caller::Caller;
use crate::metrics::{LoginResult, Metrics};

/// What protection space the challenges name (RFC 9110, section 11.5).
const REALM: &str = "penstock";

/// Why somebody is not whom `Authorization` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoginError {
    /// For the caller: what is wrong. Never what would have been right.
    Refused(&'static str),
    /// Too many failures came from the same address: it may try again after this long.
    TooMany(Duration),
    /// It cannot be found out now: more passwords wait to be hashed than there is time for, or the issuer of tokens has
    /// not told its keys yet.
    Unavailable,
}

impl LoginError {
    const fn result(&self) -> LoginResult {
        match self {
            Self::Refused(_) => LoginResult::Refused,
            Self::TooMany(_) => LoginResult::TooMany,
            Self::Unavailable => LoginResult::Unavailable,
        }
    }
}

/// The schemes that are served (RFC 7617, RFC 6750).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Basic,
    Bearer,
}

impl Scheme {
    pub(crate) const ALL: [(Self, &'static str); 2] = [(Self::Basic, "basic"), (Self::Bearer, "bearer")];
}

/// Says who callers are; shared by all workers.
#[derive(Debug)]
pub(crate) struct Authenticator {
    users: Option<Arc<Users>>,
    tokens: Option<Arc<Tokens>>,
    digester: Digester,
    generation: Arc<Generation>,
    metrics: Metrics,
}

/// Raised whenever somebody who was let in may no longer be.
#[derive(Debug, Default)]
pub(crate) struct Generation(AtomicU64);

impl Generation {
    fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn raise(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl Authenticator {
    /// Reads the users' file and the keys' file. Keys at a URL are fetched by [`Tokens::follow`].
    ///
    /// # Errors
    ///
    /// What is wrong with a file.
    pub(crate) fn new(auth: &Auth, metrics: &Metrics) -> Result<Option<Self>, String> {
        if !auth.is_on() {
            return Ok(None);
        }
        let generation = Arc::new(Generation::default());
        let digester = Digester::new();
        let users = match &auth.users_file {
            Some(path) => Some(Arc::new(Users::load(path, digester.clone(), generation.clone())?)),
            None => None,
        };
        let tokens = match &auth.jwt {
            Some(jwt) => Some(Arc::new(Tokens::load(jwt, generation.clone())?)),
            None => None,
        };
        Ok(Some(Self { users, tokens, digester, generation, metrics: metrics.clone() }))
    }

    pub(crate) fn users(&self) -> Option<&Arc<Users>> {
        self.users.as_ref()
    }

    pub(crate) fn tokens(&self) -> Option<&Arc<Tokens>> {
        self.tokens.as_ref()
    }

    /// What a 401 has to say: one challenge for each scheme that is served.
    pub(crate) fn challenges(&self, header: Option<&HeaderValue>) -> Vec<HeaderValue> {
        let mut challenges = Vec::new();
        if self.users.is_some() {
            challenges.push(format!("Basic realm=\"{REALM}\", charset=\"UTF-8\""));
        }
        if self.tokens.is_some() {
            let had_token = header.is_some_and(|header| matches!(split(header), Some((Scheme::Bearer, _))));
            let error = if had_token { ", error=\"invalid_token\"" } else { "" };
            challenges.push(format!("Bearer realm=\"{REALM}\"{error}"));
        }
        challenges.iter().map(|text| HeaderValue::from_str(text).expect("ASCII")).collect()
    }

    /// The caller with the user that `header` proves it to be. `remembered` belongs to the caller's connection.
    ///
    /// # Cancel safety
    ///
    /// Safe. A password that is being hashed is hashed to its end, and the result kept.
    pub(crate) async fn identify(
        &self,
        header: &HeaderValue,
        caller: &Rc<Caller>,
        remembered: &Remembered,
    ) -> Result<Rc<Caller>, LoginError> {
        let digest = self.digester.digest(header.as_bytes());
        // Before anything is looked up: what changes meanwhile makes the result old.
        let generation = self.generation.current();
        if let Some(caller) = remembered.get(&digest, generation) {
            return Ok(caller);
        }
        let Some((scheme, credentials)) = split(header) else {
            return Err(LoginError::Refused("the Authorization header has no scheme that is served here"));
        };
        let verified = match (scheme, &self.users, &self.tokens) {
            (Scheme::Basic, Some(users), _) => basic(users, credentials, caller).await,
            (Scheme::Bearer, _, Some(tokens)) => tokens.verify(credentials).await,
            _ => Err(LoginError::Refused("the Authorization header has no scheme that is served here")),
        };
        let result = verified.as_ref().map_or_else(LoginError::result, |_| LoginResult::Ok);
        self.metrics.login(scheme, result);
        let Verified { user, until } = verified?;
        let caller = Rc::new(Caller { user: Some(user), ..Caller::clone(caller) });
        remembered.set(Entry { digest, generation, until, caller: caller.clone() });
        Ok(caller)
    }
}

/// Whom a header proved somebody to be, and until when that holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    user: Arc<str>,
    until: Option<Instant>,
}

/// Scheme and credentials. Schemes are read in any case (RFC 9110, section 11.1).
fn split(header: &HeaderValue) -> Option<(Scheme, &str)> {
    let (scheme, credentials) = header.to_str().ok()?.split_once(' ')?;
    let credentials = credentials.trim_matches(' ');
    let (scheme, _) = Scheme::ALL.iter().find(|(_, name)| scheme.eq_ignore_ascii_case(name))?;
    Some((*scheme, credentials))
}

async fn basic(users: &Arc<Users>, credentials: &str, caller: &Caller) -> Result<Verified, LoginError> {
    let malformed = LoginError::Refused("the Authorization header is not Basic's: Base64 of user:password in UTF-8");
    let Ok(pair) = BASE64.decode(credentials).map(Zeroizing::new) else {
        return Err(malformed);
    };
    let user = users.verify(pair, caller.network()).await.map_err(|error| error.unwrap_or(malformed))?;
    Ok(Verified { user, until: None })
}

/// Makes keyed hashes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Digester(hmac::Key);

type Digest = [u8; 32];

impl Digester {
    fn new() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new());
        Self(key.expect("the system has randomness"))
    }

    fn digest(&self, bytes: &[u8]) -> Digest {
        hmac::sign(&self.0, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// What one connection remembers of its last login.
#[derive(Debug, Default)]
pub(crate) struct Remembered(RefCell<Option<Entry>>);

#[derive(Debug)]
struct Entry {
    digest: Digest,
    generation: u64,
    until: Option<Instant>,
    caller: Rc<Caller>,
}

impl Remembered {
    fn get(&self, digest: &Digest, generation: u64) -> Option<Rc<Caller>> {
        let entry = self.0.borrow();
        let entry = entry.as_ref()?;
        // Keyed hashes: how long a comparison takes tells nothing that could be used.
        let holds = entry.digest == *digest
            && entry.generation == generation
            && entry.until.is_none_or(|until| until > Instant::now());
        holds.then(|| entry.caller.clone())
    }

    fn set(&self, entry: Entry) {
        *self.0.borrow_mut() = Some(entry);
    }
}

#[cfg(test)]
mod tests;

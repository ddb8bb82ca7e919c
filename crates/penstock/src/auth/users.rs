//! Users and their passwords: a file of `name:hash` lines, as `htpasswd` writes it.
//!
//! A hash takes tens of milliseconds on purpose, which whoever can knock could turn against the bridge. So:
//!
//! - what was right before is known by a keyed hash, and so are the last [`WRONG`] that were wrong, until the file changes;
//! - hashing happens on threads that serve nobody, at most [`turns`] at once, with at most [`WAITING`] waiting;
//! - one address may fail ten times, then once in two seconds (`attempts.rs`); what is right costs none of that;
//! - a user that is not there costs the same: the password is compared with somebody else's, and the result dropped.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::attempts::Attempts;
use super::passwords::Hash;
use super::{Digest, Digester, Generation, LoginError};

/// Passwords that wait for their turn to be hashed.
const WAITING: usize = 256;
/// Wrong pairs of name and password that are known to be wrong.
const WRONG: usize = 4096;
/// A file with more holds something else than users.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Passwords hashed at once: a quarter of the cores.
fn turns() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 4).max(1))
}

/// The users of a file. Names are not empty and have no colon.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UserFile(HashMap<Arc<str>, Hash>);

impl UserFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and in which line.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let wrong = |problem: &dyn std::fmt::Display| format!("{} {problem}", path.display());
        let size = std::fs::metadata(path).map_err(|error| wrong(&format_args!("cannot be read: {error}")))?.len();
        if size > MAX_FILE_BYTES {
            return Err(wrong(&format_args!("has {size} bytes; at most {MAX_FILE_BYTES} are read")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&format_args!("cannot be read: {error}")))?;
        Self::parse(&text).map_err(|problem| wrong(&problem))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = index + 1;
            // Never the line itself: it may hold a password.
            let (name, hash) = line.split_once(':').ok_or(format!("line {number}: must be name:hash"))?;
            if name.is_empty() {
                return Err(format!("line {number}: has no name"));
            }
            let hash = Hash::parse(hash).map_err(|problem| format!("line {number}: {problem}"))?;
            if users.insert(name.into(), hash).is_some() {
                return Err(format!("line {number}: {name:?} is there already"));
            }
        }
        if users.is_empty() { Err("has no users".to_owned()) } else { Ok(Self(users)) }
    }
}

/// The users as they are now, and what is known of passwords. Shared by all workers.
#[derive(Debug)]
pub(crate) struct Users {
    path: PathBuf,
    table: ArcSwap<Table>,
    digester: Digester,
    generation: Arc<Generation>,
    attempts: Attempts,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Goes with its file: what was known to be wrong may be right in the next.
#[derive(Debug)]
struct Table {
    users: HashMap<Arc<str>, Arc<User>>,
    /// The same users, for those that are not there.
    decoys: Vec<Arc<User>>,
    wrong: Mutex<Wrong>,
}

#[derive(Debug)]
struct User {
    hash: Hash,
    /// The keyed hash of name and password that was right last.
    right: Mutex<Option<Digest>>,
}

#[derive(Debug, Default)]
struct Wrong {
    known: HashSet<Digest>,
    /// The oldest first.
    order: VecDeque<Digest>,
}

impl Users {
    pub(super) fn load(path: &Path, digester: Digester, generation: Arc<Generation>) -> Result<Self, String> {
        Ok(Self {
            path: path.to_owned(),
            table: ArcSwap::from_pointee(Table::new(UserFile::read(path)?, None)),
            digester,
            generation,
            attempts: Attempts::default(),
            turns: Arc::new(Semaphore::new(turns())),
            waiting: AtomicUsize::new(0),
        })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts what the file holds now in place. Who has the same hash as before is not hashed again.
    ///
    /// # Errors
    ///
    /// What is wrong with the file. The users stay as they were.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let file = UserFile::read(&self.path)?;
        let before = self.table.load();
        self.table.store(Arc::new(Table::new(file, Some(&before))));
        self.generation.raise();
        Ok(())
    }

    /// The user that `pair` (name, colon, password) is of. `Err(None)`: it is no such pair.
    ///
    /// # Cancel safety
    ///
    /// Safe: a password that is being hashed is hashed to its end, and the result kept.
    pub(super) async fn verify(
        self: &Arc<Self>,
        pair: Zeroizing<Vec<u8>>,
        source: IpAddr,
    ) -> Result<Arc<str>, Option<LoginError>> {
        let colon = pair.iter().position(|byte| *byte == b':').ok_or(None)?;
        let name = std::str::from_utf8(&pair[..colon]).map_err(|_| None)?;
        let digest = self.digester.digest(&pair);
        let table = self.table.load_full();
        let known = table.users.get_key_value(name);
        if let Some((name, user)) = known
            && user.was_right(&digest)
        {
            return Ok(name.clone());
        }
        let refused = LoginError::Refused("no such user, or a wrong password");
        if table.is_known_wrong(&digest) {
            return Err(Some(refused));
        }
        let (name, user) = match known {
            Some((name, user)) => (Some(name.clone()), user.clone()),
            None => (None, table.decoy(&self.digester.digest(name.as_bytes()))),
        };
        let attempt = self.attempts.take(source, Instant::now()).map_err(|wait| Some(LoginError::TooMany(wait)))?;
        let Some(_place) = Place::take(&self.waiting) else {
            self.attempts.give_back(attempt);
            return Err(Some(LoginError::Unavailable));
        };
        let turn = self.turns.clone().acquire_owned().await.expect("the semaphore is never closed");
        let users = self.clone();
        let hashed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            // Another connection of the user may have come first.
            let is_right = user.was_right(&digest) || user.hash.is_of(&pair[colon + 1..]);
            match name {
                Some(name) if is_right => {
                    user.remember(digest);
                    users.attempts.give_back(attempt);
                    Some(name)
                }
                _ => {
                    table.remember_wrong(digest);
                    None
                }
            }
        });
        // A panic would be a bug, and no reason to let anybody in.
        hashed.await.ok().flatten().ok_or(Some(refused))
    }
}

#[cfg(test)]
impl Users {
    /// All turns: nobody hashes anything until they are dropped.
    pub(super) async fn take_all_turns(&self) -> tokio::sync::OwnedSemaphorePermit {
        let all = u32::try_from(self.turns.available_permits()).expect("few");
        self.turns.clone().acquire_many_owned(all).await.expect("the semaphore is never closed")
    }
}

impl Table {
    fn new(file: UserFile, before: Option<&Self>) -> Self {
        let user = |(name, hash): (Arc<str>, Hash)| {
            let same = before.and_then(|before| before.users.get(&name)).filter(|user| user.hash == hash);
            let user = same.cloned().unwrap_or_else(|| Arc::new(User { hash, right: Mutex::default() }));
            (name, user)
        };
        let users: HashMap<_, _> = file.0.into_iter().map(user).collect();
        Self { decoys: users.values().cloned().collect(), users, wrong: Mutex::default() }
    }

    /// Always the same for one name, so that the time it takes is as good as a user's.
    fn decoy(&self, digest: &Digest) -> Arc<User> {
        let random = u64::from_le_bytes(digest[..8].try_into().expect("eight bytes"));
        let index = random % self.decoys.len() as u64;
        self.decoys[usize::try_from(index).expect("below the number of users")].clone()
    }

    fn is_known_wrong(&self, digest: &Digest) -> bool {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).known.contains(digest)
    }

    fn remember_wrong(&self, digest: Digest) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.known.insert(digest) {
            wrong.order.push_back(digest);
            if wrong.order.len() > WRONG
                && let Some(oldest) = wrong.order.pop_front()
            {
                wrong.known.remove(&oldest);
            }
        }
    }
}

impl User {
    fn was_right(&self, digest: &Digest) -> bool {
        *self.right.lock().unwrap_or_else(PoisonError::into_inner) == Some(*digest)
    }

    fn remember(&self, digest: Digest) {
        *self.right.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
    }
}

/// A place among those that wait, until it is dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        // Dropped, and so given back, where there was none.
        (before < WAITING).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

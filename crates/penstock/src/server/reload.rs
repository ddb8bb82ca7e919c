//! What changes while the bridge runs: certificates, rules, users, keys of tokens, the other bridges and their secret.
//!
//! Their files are looked at [every quarter of a second](LOOK_EVERY). What has changed, and then stayed as it is until the
//! next look, is read, checked whole and put in place; so nobody has to tell the bridge, and a file that is being written is
//! not read in the middle. What cannot be used leaves the old in place, and says so in the log and in
//! `penstock_reload_failing` until it can. A change is a change of the file that a path leads to in the end: of its device, inode,
//! length, or times. So renames, symbolic links that are swapped (as Kubernetes does) and plain writes all count.
//!
//! SIGHUP has everything read at once, changed or not.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::kafka_tls::KafkaTls;
use super::tls::TlsState;
use crate::auth::{Tokens, Users};
use crate::config::Config;
use crate::http::access::Access;
use crate::http::fleet::Fleet;
use crate::metrics::{Metrics, Reloaded};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// One thing that is read from files.
pub(crate) enum Source {
    /// Certificate, key, clients' authorities, revocation lists.
    Tls(Arc<TlsState>),
    /// Authorities that sign brokers' certificates, the certificate that brokers are shown, its key.
    KafkaTls(KafkaTls),
    /// What of the configuration itself can change: the `[[access]]` rules, and the fleet's peers if there is one.
    Rules(Arc<Config>, Arc<Access>, Option<Arc<Fleet>>),
    FleetSecret(Arc<Fleet>),
    Users(Arc<Users>),
    Keys(Arc<Tokens>),
}

impl Source {
    const fn what(&self) -> Reloaded {
        match self {
            Self::Tls(_) => Reloaded::Tls,
            Self::KafkaTls(_) => Reloaded::KafkaTls,
            Self::Rules(..) => Reloaded::Rules,
            Self::FleetSecret(_) => Reloaded::FleetSecret,
            Self::Users(_) => Reloaded::Users,
            Self::Keys(_) => Reloaded::Keys,
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Tls(tls) => tls.paths(),
            Self::KafkaTls(tls) => tls.paths(),
            Self::Rules(config, ..) => config.file().map(Into::into).into_iter().collect(),
            Self::FleetSecret(fleet) => vec![fleet.secret_file().to_owned()],
            Self::Users(users) => vec![users.path().to_owned()],
            Self::Keys(tokens) => tokens.path().map(Into::into).into_iter().collect(),
        }
    }

    fn reload(&self, metrics: &Metrics) -> Result<(), String> {
        match self {
            Self::Tls(tls) => tls.reload().map_err(|error| error.to_string()),
            Self::KafkaTls(tls) => tls.reload().map_err(|error| error.to_string()),
            Self::Rules(config, access, fleet) => {
                let reread = config.reread().map_err(|error| error.to_string())?;
                access.replace(reread.access);
                if let Some(fleet) = fleet {
                    fleet.replace_peers(reread.peers);
                }
                metrics.set_restart_needed(!reread.needs_restart.is_empty());
                if !reread.needs_restart.is_empty() {
                    let keys = reread.needs_restart.join(", ");
                    tracing::warn!(keys, "settings have changed that need a restart");
                }
                Ok(())
            }
            Self::FleetSecret(fleet) => fleet.reload_secret(),
            Self::Users(users) => users.reload(),
            Self::Keys(tokens) => tokens.reload(),
        }
    }
}

/// Follows the files of all sources.
pub(crate) struct Reloader {
    watched: Vec<Watched>,
    metrics: Metrics,
}

struct Watched {
    source: Source,
    paths: Vec<PathBuf>,
    /// As the files were when they were read last.
    read: Stamps,
    /// As they were at the last look.
    seen: Stamps,
}

impl Reloader {
    /// The sources have been read just now.
    pub(crate) fn new(sources: Vec<Source>, metrics: Metrics) -> Self {
        let watched = sources.into_iter().map(|source| {
            let paths = source.paths();
            let stamps = stamps(&paths);
            Watched { source, paths, read: stamps.clone(), seen: stamps }
        });
        Self { watched: watched.collect(), metrics }
    }

    /// Follows the files until it is dropped. Everything is read anew whenever `asked` changes.
    pub(crate) async fn run(mut self, mut asked: watch::Receiver<u32>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let all = tokio::select! {
                Ok(()) = asked.changed() => true,
                _ = look.tick() => false,
            };
            // A disk may take its time; where it is a network's, a long one.
            let looked = tokio::task::spawn_blocking(move || {
                self.look(all);
                self
            });
            self = match looked.await {
                Ok(reloader) => reloader,
                // The runtime ends, or a bug, which the log has: what is in place stays.
                Err(_) => return,
            };
        }
    }

    fn look(&mut self, all: bool) {
        for watched in &mut self.watched {
            let now = stamps(&watched.paths);
            let has_settled = now == watched.seen;
            watched.seen.clone_from(&now);
            if !all && (now == watched.read || !has_settled) {
                continue;
            }
            watched.read = now;
            let what = watched.source.what();
            let result = watched.source.reload(&self.metrics);
            if matches!(watched.source, Source::Keys(_)) && watched.paths.is_empty() {
                // Keys at a URL are only asked for now: whoever asks tells what came of it.
                continue;
            }
            self.metrics.reloaded(what, result.is_ok());
            match result {
                Ok(()) => tracing::info!(what = what.name(), "reloaded"),
                Err(problem) => {
                    tracing::error!(what = what.name(), problem, "what has changed cannot be used; the old stays");
                }
            }
        }
    }
}

/// One for each path; `None` where there is nothing.
type Stamps = Vec<Option<Stamp>>;

/// Differs when a file does: no write, rename or change of owner leaves ctime as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

fn stamps(paths: &[PathBuf]) -> Stamps {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    };
    paths.iter().map(stamp).collect()
}

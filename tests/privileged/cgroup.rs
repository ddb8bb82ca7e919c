//! A control group with a memory limit, of version 1 or 2, whichever this machine's memory controller is in.

use std::{
    fs,
    path::{Path, PathBuf},
};

use penstock_tests::unique;

const MOUNT: &str = "/sys/fs/cgroup";

/// Where a version keeps what.
#[derive(Debug)]
struct Files {
    limit: &'static str,
    /// The most that was ever charged; version 2 has it since Linux 5.19.
    peak: &'static str,
    /// Holds a line `oom_kill N`.
    events: &'static str,
}

const V1: Files =
    Files { limit: "memory.limit_in_bytes", peak: "memory.max_usage_in_bytes", events: "memory.oom_control" };
const V2: Files = Files { limit: "memory.max", peak: "memory.peak", events: "memory.events" };

/// A new, empty group. Dropping it removes it, for which its processes must have ended: declare it before them.
#[derive(Debug)]
pub(crate) struct MemoryGroup {
    dir: PathBuf,
    files: Files,
}

impl MemoryGroup {
    /// A group that may use `bytes`.
    pub(crate) fn new(bytes: u64) -> Self {
        let (parent, files) = match Path::new(MOUNT).join("memory") {
            v1 if v1.join(V1.limit).exists() => (v1, V1),
            _ => (PathBuf::from(MOUNT), V2),
        };
        let dir = parent.join(format!("penstock-{}-{}", std::process::id(), unique("group")));
        fs::create_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let group = Self { dir, files };
        let limit = group.dir.join(group.files.limit);
        fs::write(&limit, bytes.to_string()).unwrap_or_else(|error| {
            panic!("{}: {error}: is the memory controller delegated to {MOUNT}?", limit.display())
        });
        group
    }

    /// What makes a command a member of the group: see `Bridge::start_under`.
    pub(crate) fn prefix(&self) -> Vec<String> {
        let procs = self.dir.join("cgroup.procs").display().to_string();
        ["sh", "-c", r#"echo $$ > "$0" && exec "$@""#, &procs].map(ToOwned::to_owned).to_vec()
    }

    /// How many of its processes the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let events = self.read(self.files.events);
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.unwrap_or_else(|| panic!("no oom_kill in {events:?}"))
    }

    /// The most that was ever charged to it, file pages that could have been dropped included.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.read(self.files.peak).trim().parse().expect("a number")
    }

    fn read(&self, file: &str) -> String {
        let path = self.dir.join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A group whose process has just ended may be busy for a moment; one that is left over is empty and harmless.
        let _ = fs::remove_dir(&self.dir);
    }
}

//! How much memory there is, for the default of `producer.memory_bytes`.
//!
//! A container's or a systemd unit's limit lives in its control group or in one above it; the smallest counts. Version 2
//! has one tree (`memory.max`), version 1 one for memory alone (`memory.limit_in_bytes`, huge when there is none).

use std::{fs, path::Path};

const MIB: u64 = 1024 * 1024;

/// The default budget on this host.
pub(super) fn default_budget() -> u64 {
    let limit = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|groups| limit(&groups, Path::new("/sys/fs/cgroup"), |path| fs::read_to_string(path).ok()));
    let physical = fs::read_to_string("/proc/meminfo").ok().and_then(|meminfo| physical(&meminfo));
    budget(limit, physical)
}

/// Half of the limit, else a quarter of what there is; at most 1 GiB, at least 64 MiB.
fn budget(limit: Option<u64>, physical: Option<u64>) -> u64 {
    let limit = limit.filter(|limit| physical.is_none_or(|physical| *limit < physical));
    let share = limit.map(|limit| limit / 2).or(physical.map(|physical| physical / 4));
    share.unwrap_or(0).clamp(64 * MIB, 1024 * MIB)
}

/// The smallest limit on the way from this process's group to the root. `groups` is /proc/self/cgroup.
fn limit(groups: &str, mount: &Path, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        // hierarchy-id:controllers:path, with id 0 and no controllers for version 2
        let mut fields = line.splitn(3, ':');
        let (root, file) = match (fields.next(), fields.next()) {
            (Some("0"), Some("")) => (mount.to_owned(), "memory.max"),
            (Some(_), Some(controllers)) if controllers.split(',').any(|name| name == "memory") => {
                (mount.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let path = fields.next().unwrap_or_default().trim_start_matches('/');
        // Inside a container the path may be the host's and not exist here: what lies above it still does.
        let folder = root.join(path);
        let up_to_root = folder.ancestors().take_while(|folder| folder.starts_with(&root));
        up_to_root.filter_map(|folder| read(&folder.join(file))?.trim().parse().ok()).collect::<Vec<u64>>()
    });
    limits.min()
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn physical(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit_with(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        limit(groups, Path::new("/c"), |path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, content)| (*content).to_owned())
        })
    }

    #[test]
    fn the_smallest_limit_above_a_version_2_group_counts() {
        let files =
            [("/c/a/b/memory.max", "max\n"), ("/c/a/memory.max", "536870912\n"), ("/c/memory.max", "1073741824\n")];
        assert_eq!(limit_with("0::/a/b\n", &files), Some(536_870_912));
    }

    #[test]
    fn a_version_1_group_is_read_at_the_root_when_its_path_is_the_hosts() {
        let groups = "12:cpu,cpuacct:/docker/1\n5:memory:/docker/1\n";
        assert_eq!(limit_with(groups, &[("/c/memory/memory.limit_in_bytes", "268435456\n")]), Some(268_435_456));
    }

    #[test]
    fn without_a_limit_there_is_none() {
        assert_eq!(limit_with("0::/\n", &[("/c/memory.max", "max\n")]), None);
        assert_eq!(limit_with("", &[]), None);
    }

    #[test]
    fn physical_memory_is_told_in_kib() {
        assert_eq!(physical("MemTotal:        2048 kB\nMemFree:  1 kB\n"), Some(2048 * 1024));
        assert_eq!(physical("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn the_budget_is_a_share_between_its_bounds() {
        assert_eq!(budget(Some(512 * MIB), Some(4096 * MIB)), 256 * MIB);
        assert_eq!(budget(None, Some(2048 * MIB)), 512 * MIB);
        // Version 1 says "no limit" by a number beyond all memory.
        assert_eq!(budget(Some(1 << 62), Some(2048 * MIB)), 512 * MIB);
        assert_eq!(budget(Some(32 * MIB), Some(2048 * MIB)), 64 * MIB);
        assert_eq!(budget(None, Some(64 * 1024 * MIB)), 1024 * MIB);
        assert_eq!(budget(None, None), 64 * MIB);
    }
}

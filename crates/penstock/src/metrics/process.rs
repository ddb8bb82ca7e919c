//! What the kernel knows of this process, under the names that Prometheus's own clients use. Only Linux tells.

use std::fs;

/// Units of `utime` and `stime`: USER_HZ, which is 100 wherever Linux runs in user space (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Asked for at each scrape; what cannot be read is not told.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
}

impl Process {
    pub(super) fn now() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).ok();
        Self {
            cpu_seconds: read("stat").as_deref().and_then(cpu_seconds),
            resident_bytes: read("status").as_deref().and_then(resident_bytes),
            // The folder that is being read is open, too.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|open| (open.count() as u64).saturating_sub(1)),
            max_fds: read("limits").as_deref().and_then(max_fds),
        }
    }
}

/// Behind the program's name, which is in parentheses and may hold anything, field 3 is first: utime is 14, stime 15.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) as f64 / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_understood() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 150 25 0 0 20 0 3 0 100 1 2";
        assert_eq!(cpu_seconds(stat), Some(1.75));
        assert_eq!(resident_bytes("VmPeak:\t  9 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(max_fds("Limit  Soft  Hard  Units\nMax open files            1024  4096  files\n"), Some(1024));
        assert_eq!(max_fds("Max open files            unlimited  unlimited  files\n"), None);
        assert_eq!((cpu_seconds(""), resident_bytes("")), (None, None));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_known() {
        let Process { cpu_seconds, resident_bytes, open_fds, .. } = Process::now();
        assert!(cpu_seconds.is_some() && resident_bytes > Some(1 << 20) && open_fds > Some(2));
    }
}

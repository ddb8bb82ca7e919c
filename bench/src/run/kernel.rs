//! What the kernel knows of a process: CPU time by thread, in nanoseconds, and peak memory.

use std::{collections::HashMap, fs, time::Duration};

/// A process's CPU time, user and system, at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cpu(HashMap<u32, u64>);

impl Cpu {
    /// Reads it; what a thread spent that has ended is missing, so the programs measured keep theirs.
    pub(crate) fn of(pid: u32) -> Self {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let spent = threads.filter_map(|thread| {
            let id = thread.file_name().to_str()?.parse().ok()?;
            // "run_time_ns wait_time_ns timeslices"; finer than the ticks of /proc/PID/stat.
            let schedule = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((id, schedule.split_whitespace().next()?.parse().ok()?))
        });
        Self(spent.collect())
    }

    /// What was spent after `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let spent = self.0.iter().map(|(thread, now)| now - earlier.0.get(thread).copied().unwrap_or(0));
        Duration::from_nanos(spent.sum())
    }
}

/// All CPU time of a process, ended threads included, in ticks of 10 ms; zero when it is gone.
pub(crate) fn cpu_in_ticks(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name in parentheses: state is field 3, utime and stime are 14 and 15.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Whether a child has ended that nobody has waited for yet.
pub(crate) fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
}

/// The most memory that a process ever had resident, in MiB; 0 when it is gone.
pub(crate) fn peak_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// Processes that wanted to run, averaged over a minute: whether somebody else used the machine.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// `name: value` lines for the head of a result: CPU, cores, memory, kernel.
pub(crate) fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(':').nth(1)).unwrap_or("?").trim().to_owned()
    };
    let cpu = read("/proc/cpuinfo");
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let model = format!(
        "{}, family {}, model {}",
        value(&cpu, "model name"),
        value(&cpu, "cpu family"),
        value(&cpu, "model\t")
    );
    let memory = value(&read("/proc/meminfo"), "MemTotal");
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel.trim().split('-').next().unwrap_or("?").to_owned();
    format!("CPU: {model}\ncores: {cores}\nmemory: {memory}\nkernel: Linux {kernel}\n")
}

//! Child processes that cannot outlive the test, with their output at hand.
//!
//! A test may end by a panic, by Ctrl-C or by `kill -9`, and a JVM left behind would hold its port and half a gigabyte.
//! So every child runs beneath a small shell that reads its own standard input, a pipe whose other end only this
//! process holds:
//!
//! ```text
//! test ──pipe──▶ sh (watcher: at end of file, kill -9)
//!                └─ the program ──stdout, stderr──▶ reader thread of the test
//! ```
//!
//! However the test process ends, the kernel closes the pipe, and the watcher kills the program.

use std::{
    collections::VecDeque,
    fmt,
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Lines of output kept per process. Older ones are forgotten: more than a test ever looks for, on a slow machine too.
const KEPT_LINES: usize = 50_000;

/// Runs `"$@"`, says its pid first, exits with its status (128 + n for signal n).
const WATCHED: &str = r#"
exec 3<&0 </dev/null
sh -c 'echo "$$"; exec "$@"' sh "$@" 3<&- 2>&1 &
child=$!
{ cat <&3; kill -9 "$child"; } >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$child" 2>/dev/null
status=$?
kill -9 "$watcher" 2>/dev/null
exit "$status"
"#;

/// A running program. Dropping it kills it (SIGKILL) and waits for its end.
pub struct Process {
    name: String,
    pid: u32,
    shell: Child,
    output: Arc<Output>,
}

impl Process {
    /// Starts `program` with `arguments` and environment `variables`. `name` stands in messages.
    pub fn spawn<A: AsRef<std::ffi::OsStr>>(
        name: &str,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
        variables: &[(&str, &str)],
    ) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", WATCHED, "sh", program])
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let mut stdout = BufReader::new(shell.stdout.take().expect("stdout is piped"));
        let mut pid = String::new();
        stdout.read_line(&mut pid).expect("the shell's output is UTF-8");
        let pid = pid.trim().parse().unwrap_or_else(|_| panic!("{name}: no process was started: {pid:?}"));
        let output = Arc::new(Output::default());
        let sink = Arc::clone(&output);
        // Ends when the program and its shell have ended and so closed the pipe.
        std::thread::spawn(move || sink.collect(stdout));
        Self { name: name.to_owned(), pid, shell, output }
    }

    /// The program's own process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for a line of output (stdout or stderr) and returns it. Lines that came earlier count.
    ///
    /// Panics with the end of the output when the program ends first or `within` passes.
    pub fn wait_for_line(&self, what: &str, within: Duration, matches: impl Fn(&str) -> bool) -> String {
        self.wait_for_lines(what, 1, within, matches).remove(0)
    }

    /// The first `count` lines of output that match. See [`Process::wait_for_line`].
    pub fn wait_for_lines(
        &self,
        what: &str,
        count: usize,
        within: Duration,
        matches: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let found = self.output.wait(within, |lines| {
            let found: Vec<_> = lines.iter().filter(|line| matches(line)).take(count).cloned().collect();
            (found.len() == count).then_some(found)
        });
        found.unwrap_or_else(|end| panic!("{}: {what}: {end}\n{}", self.name, self.tail(60)))
    }

    /// Waits for the program's end and returns its exit status, 128 + n if signal n ended it.
    ///
    /// Panics with the end of the output when it still runs after `within`.
    pub fn wait_for_exit(&mut self, within: Duration) -> i32 {
        match self.output.wait(within, |_| None::<()>) {
            Err(WaitEnd::Closed) => {
                let status = self.shell.wait().expect("the shell is our child");
                status.code().expect("the shell exits, nobody signals it")
            }
            _ => panic!("{}: still running after {within:?}\n{}", self.name, self.tail(60)),
        }
    }

    /// Whether the program still runs (a stopped one does).
    pub fn is_running(&mut self) -> bool {
        matches!(self.shell.try_wait(), Ok(None))
    }

    /// Sends a signal by its name: `"TERM"`, `"STOP"`, `"CONT"`, `"KILL"`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "sh", signal, &self.pid.to_string()])
            .status()
            .expect("sh starts");
        assert!(status.success(), "{}: SIG{signal} could not be sent to {}", self.name, self.pid);
    }

    /// Ends the program by SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        // Closing the pipe makes the watcher kill it. The shell's end means that the program was waited for.
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }

    /// The last `lines` lines of output.
    pub fn tail(&self, lines: usize) -> String {
        let state = self.output.lock();
        let skip = state.lines.len().saturating_sub(lines);
        state.lines.iter().skip(skip).map(|line| format!("  | {line}\n")).collect()
    }

    /// All output that is kept, line by line.
    pub fn output(&self) -> Vec<String> {
        self.output.lock().lines.iter().cloned().collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() && self.is_running() {
            eprintln!("--- {} (pid {}) said last:\n{}", self.name, self.pid, self.tail(40));
        }
        self.kill();
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("name", &self.name).field("pid", &self.pid).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Output {
    state: Mutex<OutputState>,
    changed: Condvar,
}

#[derive(Default)]
struct OutputState {
    lines: VecDeque<String>,
    closed: bool,
}

enum WaitEnd {
    Closed,
    TimedOut(Duration),
}

impl fmt::Display for WaitEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => write!(f, "it ended before that"),
            Self::TimedOut(after) => write!(f, "not within {after:?}"),
        }
    }
}

impl Output {
    fn lock(&self) -> std::sync::MutexGuard<'_, OutputState> {
        // A panicking test may have poisoned it; the lines are whole all the same.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(&self, mut stdout: BufReader<ChildStdout>) {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            match stdout.read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                    let mut state = self.lock();
                    if state.lines.len() == KEPT_LINES {
                        state.lines.pop_front();
                    }
                    state.lines.push_back(line);
                    self.changed.notify_all();
                }
            }
        }
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn wait<T>(&self, within: Duration, mut probe: impl FnMut(&VecDeque<String>) -> Option<T>) -> Result<T, WaitEnd> {
        let deadline = Instant::now() + within;
        let mut state = self.lock();
        loop {
            if let Some(found) = probe(&state.lines) {
                return Ok(found);
            }
            if state.closed {
                return Err(WaitEnd::Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(WaitEnd::TimedOut(within));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

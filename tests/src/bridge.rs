//! The bridge itself: the `penstock` binary as a process in front of a cluster.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use crate::{eventually, free_port, process::Process, temp_dir, tls::certificates, tools::file};

const START: Duration = Duration::from_secs(30);

/// The `penstock` binary: `$PENSTOCK_BIN`, else the release build in this program's target folder.
///
/// Panics, with the command that builds it, when it is not there.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PENSTOCK_BIN") {
        return path.into();
    }
    // We are <target>/<profile>/deps/e2e-<hash>, or <target>/<profile>/penstock-tests.
    let this = std::env::current_exe().expect("a process knows its program");
    let found = this.ancestors().map(|folder| folder.join("release/penstock")).find(|binary| binary.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "no release/penstock in a folder above {}. Build it: cargo build --release --locked -p penstock --no-default-features \
             (tests/run does)",
            this.display()
        )
    })
}

/// Runs the binary with `arguments` to its end.
pub fn penstock<A: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    Command::new(binary()).args(arguments).output().expect("the binary starts")
}

/// A configuration file in the making: the fixture's defaults, and what the test sets.
#[derive(Debug, Clone)]
pub struct Settings {
    tables: BTreeMap<String, BTreeMap<String, String>>,
    access: Option<&'static str>,
}

impl Settings {
    /// TLS with the throw-away certificate on two free loopback ports, two workers, every access rule, debug log off.
    pub fn new(bootstrap: &str) -> Self {
        let servers: Vec<_> = bootstrap.split(',').map(|server| format!("{server:?}")).collect();
        let path = |path: &Path| format!("{:?}", path.display().to_string());
        Self {
            tables: BTreeMap::new(),
            access: Some("identity = \"anyone\"\ntopics = [\"*\"]\nallow = [\"produce\", \"consume\", \"admin\"]\n"),
        }
        .set("listen.address", &format!("\"127.0.0.1:{}\"", free_port()))
        .set("management.address", &format!("\"127.0.0.1:{}\"", free_port()))
        .set("tls.certificate", &path(&certificates().certificate))
        .set("tls.key", &path(&certificates().key))
        .set("kafka.bootstrap_servers", &format!("[{}]", servers.join(", ")))
        .set("drain.notice", "\"0s\"")
        .set("runtime.workers", "2")
    }

    /// Sets `table.key` to a value written in TOML.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        let (table, key) = name.rsplit_once('.').expect("table.key");
        self.tables.entry(table.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        self
    }

    /// Makes it a bridge of a fleet that shares one secret: reached by the others at `port`, one of `ports`.
    pub fn in_fleet(self, port: u16, ports: &[u16]) -> Self {
        let secret = file("secret", b"an example of a secret that a fleet shares");
        let peers: Vec<_> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        self.set("fleet.address", &format!("\"127.0.0.1:{port}\""))
            .set("fleet.secret_file", &format!("{secret:?}"))
            .set("fleet.peers", &format!("[{}]", peers.join(", ")))
    }

    /// Leaves out the `[[access]]` rule.
    pub fn without_access(mut self) -> Self {
        self.access = None;
        self
    }

    /// Another `[[access]]` table than the one that allows everything.
    pub fn with_access(mut self, rule: &'static str) -> Self {
        self.access = Some(rule);
        self
    }

    /// Writes the file into a folder of its own and returns its path.
    pub fn write(&self) -> PathBuf {
        let mut text = String::new();
        for (table, keys) in &self.tables {
            writeln!(text, "[{table}]").expect("a String takes it");
            for (key, value) in keys {
                writeln!(text, "{key} = {value}").expect("a String takes it");
            }
        }
        if let Some(rule) = self.access {
            write!(text, "[[access]]\n{rule}").expect("a String takes it");
        }
        let path = temp_dir("bridge").join("penstock.toml");
        fs::write(&path, text).expect("the temporary folder can be written");
        path
    }

    fn port(&self, table: &str) -> u16 {
        let address = &self.tables[table]["address"];
        let port = address.trim_matches('"').rsplit(':').next().and_then(|port| port.parse().ok());
        port.unwrap_or_else(|| panic!("{table}.address = {address} has no port"))
    }
}

/// A running bridge. Dropping it kills it.
#[derive(Debug)]
pub struct Bridge {
    /// The port of the data listener (TLS).
    pub port: u16,
    /// The port of the management listener (plain).
    pub management_port: u16,
    /// Its configuration file.
    pub config: PathBuf,
    /// What runs it: see [`Bridge::start_under`].
    prefix: Vec<String>,
    process: Process,
}

impl Bridge {
    /// Starts a bridge with the fixture's defaults and waits until it is ready.
    pub fn start(bootstrap: &str) -> Self {
        Self::start_with(&Settings::new(bootstrap))
    }

    /// Starts a bridge with these settings and waits until it is ready.
    pub fn start_with(settings: &Settings) -> Self {
        Self::start_under(&[], settings)
    }

    /// The same by way of another program, which is given the bridge's command line after its own arguments and must
    /// replace itself by it (`exec`): for what a process has to be before it begins, as a member of a control group.
    pub fn start_under(prefix: &[String], settings: &Settings) -> Self {
        let bridge = Self::start_listening(prefix, settings);
        bridge.wait_until_ready();
        bridge
    }

    /// Starts a bridge with these settings and waits until it listens, ready or not.
    pub fn start_unready(settings: &Settings) -> Self {
        Self::start_listening(&[], settings)
    }

    /// The same by way of another program: see [`Bridge::start_under`].
    pub fn start_unready_under(prefix: &[String], settings: &Settings) -> Self {
        Self::start_listening(prefix, settings)
    }

    fn start_listening(prefix: &[String], settings: &Settings) -> Self {
        let config = settings.write();
        let prefix = prefix.to_vec();
        let process = spawn(&prefix, &config);
        let (port, management_port) = (settings.port("listen"), settings.port("management"));
        let bridge = Self { port, management_port, config, prefix, process };
        bridge.wait_until_listening();
        bridge
    }

    /// Starts the same bridge again, on its ports, after [`Bridge::kill`] or an exit.
    pub fn start_again(&mut self) {
        self.process = spawn(&self.prefix, &self.config);
        self.wait_until_listening();
        self.wait_until_ready();
    }

    fn wait_until_listening(&self) {
        self.process.wait_for_lines("two listening lines", 2, START, |line| line.contains("listening"));
    }

    fn wait_until_ready(&self) {
        eventually("the bridge is ready", START, || {
            self.management("/readyz").filter(|answer| answer.status == 200).map(|_| ())
        });
    }

    /// `https://127.0.0.1:port` and `path`.
    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    /// Ends it as a power cut does: SIGKILL. Waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends a signal: `"TERM"` begins a drain.
    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Waits for its end and returns the exit status.
    pub fn wait_for_exit(&mut self, within: Duration) -> i32 {
        self.process.wait_for_exit(within)
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The most memory it ever had resident, in bytes: `VmHWM` of `/proc/PID/status`.
    pub fn peak_resident_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// The memory it has resident now, in bytes: `VmRSS` of `/proc/PID/status`.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid())).expect("the bridge runs");
        let line = status.lines().find(|line| line.starts_with(name)).expect("Linux says it");
        let kibibytes: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("VmRSS:  123 kB");
        kibibytes * 1024
    }

    /// How many file descriptors it has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.pid())).expect("the bridge runs as this user").count()
    }

    /// `GET path` from the management listener; `None` while nobody listens there.
    pub fn management(&self, path: &str) -> Option<ManagementAnswer> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.management_port)).ok()?;
        stream.set_read_timeout(Some(START)).expect("not zero");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: management\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(ManagementAnswer { status, head: head.to_owned(), body: body.to_owned() })
    }

    /// The value of a metric, summed over its label sets that contain every one of `labels` (`broker="1"`).
    ///
    /// Panics when the bridge has no such metric.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.management("/metrics").expect("the management listener answers").body;
        let values: Vec<f64> = text
            .lines()
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (found, set) = series.split_once('{').unwrap_or((series, ""));
                (found == name && labels.iter().all(|label| set.contains(label))).then(|| value.parse().ok())?
            })
            .collect();
        assert!(!values.is_empty(), "no metric {name} with {labels:?} in\n{text}");
        values.iter().sum()
    }
}

fn spawn(prefix: &[String], config: &Path) -> Process {
    let mut command = prefix.to_vec();
    command.extend([binary().display().to_string(), "serve".to_owned(), "--config".to_owned()]);
    command.push(config.display().to_string());
    Process::spawn("penstock", &command[0], &command[1..], &[])
}

/// What the management listener answered.
#[derive(Debug, Clone)]
pub struct ManagementAnswer {
    /// The status code.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The body, as it came (chunked framing included, if any).
    pub body: String,
}

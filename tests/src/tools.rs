//! Clients that this project did not write: `curl`, `kcat`, Kafka's own command line tools.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use crate::{bridge::Bridge, distribution::Version, temp_dir, tls::certificates};

/// What `curl` saw.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code of the last answer (after a `100 Continue`, the one that counts).
    pub status: u16,
    /// The headers of every answer, as they came.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; panics when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.head, String::from_utf8_lossy(&self.body)))
    }

    /// The body as text; panics when it is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Panics, with the whole answer, unless the status is `status`.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        self
    }
}

/// A `curl` to the bridge: trusts the throw-away authority, writes head and body apart. Arguments are added by the caller.
pub fn curl_command(bridge: &Bridge, path: &str) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--http1.1", "--max-time", "300", "--dump-header", "/dev/stderr"])
        .arg("--cacert")
        .arg(&certificates().ca)
        .arg(bridge.url(path));
    command
}

/// Runs `curl` to the bridge with more arguments, as `["-X", "PUT"]`.
pub fn curl(bridge: &Bridge, path: &str, arguments: &[&str]) -> Answer {
    curl_answer(curl_command(bridge, path).args(arguments).output().expect("curl is installed: apt-get install curl"))
}

/// The same with a body from standard input: for `--data-binary @-` (with its length) and `-T -` (chunked).
pub fn curl_with_input(bridge: &Bridge, path: &str, arguments: &[&str], body: &[u8]) -> Answer {
    let mut command = curl_command(bridge, path);
    command.args(arguments);
    curl_answer(with_input(&mut command, body))
}

/// Posts `body` as NDJSON by `curl --data-binary` and returns the answer.
pub fn curl_ndjson(bridge: &Bridge, path: &str, body: &[u8]) -> Answer {
    let arguments = ["-H", "Content-Type: application/x-ndjson", "--data-binary", "@-"];
    curl_with_input(bridge, path, &arguments, body)
}

/// Reads what a finished `curl` of [`curl_command`] printed.
pub fn curl_answer(output: Output) -> Answer {
    let head = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "curl: {}\n{head}", output.status);
    let status_line = head.lines().rev().find(|line| line.starts_with("HTTP/")).expect("an answer has a status line");
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("HTTP/1.1 200 OK");
    Answer { status, head, body: output.stdout }
}

/// Runs `command` to its end with `input` on its standard input.
pub fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} cannot be run: {error}", command.get_program().display()));
    let mut stdin = child.stdin.take().expect("it is piped");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The program may have heard enough, or have died: then what it says is the better message.
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().expect("it is our child")
    })
}

/// A record as `kcat` read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, in milliseconds since the epoch.
    pub timestamp: i64,
    /// Its key, `None` for null.
    pub key: Option<Vec<u8>>,
    /// Its value, `None` for null (a tombstone).
    pub value: Option<Vec<u8>>,
    /// Its headers as `name=value,name=value`, in order; empty for none.
    pub headers: String,
}

impl Record {
    /// The value as text; panics when it is null or not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.value.as_deref().expect("a value")).expect("UTF-8")
    }
}

/// A `kcat` that cannot be started is a failed test.
fn kcat() -> Command {
    Command::new("kcat")
}

const NO_KCAT: &str = "kcat is installed: apt-get install kcat";

/// Every record of `topic` that is there now, in order per partition, read by `kcat`.
pub fn kcat_read(bootstrap: &str, topic: &str) -> Vec<Record> {
    let format = "%p %o %T %K %S\n%k%s%h\\x1e\n";
    let output = kcat()
        .args([
            "-C",
            "-q",
            "-e",
            "-o",
            "beginning",
            "-b",
            bootstrap,
            "-t",
            topic,
            "-X",
            "check.crcs=true",
            "-f",
            format,
        ])
        .output()
        .expect(NO_KCAT);
    assert!(output.status.success(), "kcat: {}", String::from_utf8_lossy(&output.stderr));
    let mut records = Vec::new();
    let mut rest = output.stdout.as_slice();
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'\n').expect("the line of numbers ends");
        let line = std::str::from_utf8(&rest[..end]).expect("numbers");
        let [partition, offset, timestamp, key, value]: [i64; 5] = line
            .split(' ')
            .map(|number| number.parse().unwrap_or_else(|_| panic!("{line:?} is not five numbers")))
            .collect::<Vec<_>>()
            .try_into()
            .expect("five numbers");
        rest = &rest[end + 1..];
        let mut take = |length: i64| {
            let (taken, left) = rest.split_at(usize::try_from(length).ok()?);
            rest = left;
            Some(taken.to_vec())
        };
        let (key, value) = (take(key), take(value));
        let end = rest.windows(2).position(|pair| pair == b"\x1e\n").expect("the headers end");
        let headers = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 2..];
        let partition = i32::try_from(partition).expect("a partition");
        records.push(Record { partition, offset, timestamp, key, value, headers });
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// Streams the values of a topic, each followed by `\n`, in order per partition, to `line(partition, value)` without
/// holding them. For topics whose values have no line ends and do not fit in memory.
pub fn kcat_read_lines(bootstrap: &str, topic: &str, mut line: impl FnMut(i32, &[u8])) {
    let mut child = kcat()
        .args(["-C", "-q", "-e", "-o", "beginning", "-b", bootstrap, "-t", topic, "-X", "check.crcs=true"])
        .args(["-X", "queued.max.messages.kbytes=65536", "-f", "%p %s\n"])
        .stdout(Stdio::piped())
        .spawn()
        .expect(NO_KCAT);
    let mut output = BufReader::with_capacity(1 << 20, child.stdout.take().expect("it is piped"));
    let mut bytes = Vec::new();
    while output.read_until(b'\n', &mut bytes).expect("a pipe can be read") > 0 {
        let space = bytes.iter().position(|&byte| byte == b' ').expect("a number and a space");
        let partition = std::str::from_utf8(&bytes[..space]).ok().and_then(|text| text.parse().ok());
        line(partition.expect("a partition"), bytes[space + 1..].strip_suffix(b"\n").expect("a whole line"));
        bytes.clear();
    }
    assert!(child.wait().expect("it is our child").success(), "kcat failed");
}

/// Produces `lines` by `kcat` with more arguments (`["-K", "\t"]`).
pub fn kcat_write(bootstrap: &str, topic: &str, arguments: &[&str], lines: &str) {
    let mut command = kcat();
    command.args(["-P", "-b", bootstrap, "-t", topic]).args(arguments);
    let output = with_input(&mut command, lines.as_bytes());
    assert!(output.status.success(), "kcat: {} ({NO_KCAT})", String::from_utf8_lossy(&output.stderr));
}

/// `kcat -L -J`: brokers and topics as librdkafka sees them.
pub fn kcat_metadata(bootstrap: &str) -> serde_json::Value {
    let output = kcat().args(["-L", "-J", "-b", bootstrap]).output().expect(NO_KCAT);
    assert!(output.status.success(), "kcat: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("kcat prints JSON")
}

/// The first `count` values of a topic as Kafka's own console consumer prints them, one a line.
pub fn console_consumer(bootstrap: &str, topic: &str, count: usize) -> Vec<u8> {
    let count = count.to_string();
    let arguments = [
        "--bootstrap-server",
        bootstrap,
        "--topic",
        topic,
        "--from-beginning",
        "--max-messages",
        &count,
        "--timeout-ms",
        "30000",
    ];
    let output = java_tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &arguments, &[]);
    assert!(output.status.success(), "console consumer: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Produces lines of `key<TAB>value` by Kafka's own console producer.
pub fn console_producer(bootstrap: &str, topic: &str, properties: &[&str], lines: &str) {
    let mut arguments = vec!["--bootstrap-server", bootstrap, "--topic", topic];
    for property in properties {
        arguments.extend(["--property", property]);
    }
    let output = java_tool("org.apache.kafka.tools.ConsoleProducer", &arguments, lines.as_bytes());
    assert!(output.status.success(), "console producer: {}", String::from_utf8_lossy(&output.stderr));
}

/// Transactions of Java's producer in one partition, each under a name, which are open for as long as the test wants.
/// Dropping this leaves them so, as a producer does that has died: the brokers abort them after 15 minutes.
#[derive(Debug)]
pub struct Transactions {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Transactions {
    /// Starts the producers' process.
    pub fn new(bootstrap: &str, topic: &str, partition: i32) -> Self {
        // Java compiles it first: a class of one file.
        let program = file("Transactions.java", include_bytes!("Transactions.java"));
        let mut child = java()
            .args([&program, bootstrap, topic, &partition.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("java starts");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, answers }
    }

    /// Writes records in the transaction `name`, which this begins if it is not open. They are acknowledged when it
    /// returns. Values have no white space.
    pub fn write(&mut self, name: &str, values: &[&str]) {
        self.command(&format!("write {name} {}", values.join(" ")));
    }

    /// Commits. The coordinator has decided when it returns; the marker may still be on its way to the partition.
    pub fn commit(&mut self, name: &str) {
        self.command(&format!("commit {name}"));
    }

    /// The same, aborted.
    pub fn abort(&mut self, name: &str) {
        self.command(&format!("abort {name}"));
    }

    fn command(&mut self, command: &str) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{command}").expect("the producers' process reads");
        loop {
            let mut line = String::new();
            let length = self.answers.read_line(&mut line).expect("UTF-8");
            assert!(length > 0, "the producers' process has ended, and said why, instead of: {command}");
            // Its log comes the same way.
            if line == "done\n" {
                return;
            }
        }
    }
}

impl Drop for Transactions {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Java that is quick to start and small, with Kafka's classes (4.1.1). Arguments are added by the caller.
fn java() -> Command {
    let mut command = Command::new("java");
    command
        .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args(["-cp", Version::V4_1_1.class_path()]);
    command
}

/// Runs one of Kafka's command line tools (4.1.1) to its end.
pub fn java_tool(class: &str, arguments: &[&str], input: &[u8]) -> Output {
    with_input(java().arg(class).args(arguments), input)
}

/// `bytes` run through a compressor of the system, as `gzip` or `zstd`.
pub fn compressed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let output = with_input(Command::new(program).arg("-c"), bytes);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Writes `bytes` into a file of its own and returns its path as text.
pub fn file(name: &str, bytes: &[u8]) -> String {
    let path = temp_dir("file").join(name);
    fs::write(&path, bytes).expect("the temporary folder can be written");
    path.display().to_string()
}

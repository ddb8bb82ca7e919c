//! A program of the measurement, by the protocol of the crate's root: `ready`, a line to begin, a report, the end of its
//! input to leave.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::Report;

/// A program that is connected and waits for its word. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts it and waits until it is ready. `None`: it ended before, and has said why on standard error.
    pub(crate) fn start(program: &Path, arguments: &[String]) -> Option<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}. bench/run builds it", program.display()));
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut program = Self { child, input, output };
        (program.line()? == "ready").then_some(program)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it begin and waits for its report. It stays until it is dropped.
    pub(crate) fn finish(&mut self) -> Option<Report> {
        self.input.as_mut().expect("taken by drop only").write_all(b"\n").ok()?;
        serde_json::from_str(&self.line()?).ok()
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).ok().filter(|length| *length > 0)?;
        line.truncate(line.trim_end().len());
        Some(line)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

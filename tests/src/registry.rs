//! Apicurio Registry, a Schema Registry that others wrote, which speaks Confluent's API too.

use std::time::Duration;

use crate::{distribution::apicurio_registry, free_port, process::Process};

/// How long its JVM may take to serve on a busy machine.
const START: Duration = Duration::from_secs(120);

/// A running registry without schemas, on a free loopback port. Dropping it kills it; its schemas are kept in memory only.
#[derive(Debug)]
pub struct Registry {
    port: u16,
    process: Process,
}

impl Registry {
    /// Starts a registry and waits until it serves.
    pub fn start() -> Self {
        let port = free_port();
        let process = Process::spawn(
            "registry",
            "java",
            [
                "-Xmx384m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Dquarkus.http.host=127.0.0.1",
                &format!("-Dquarkus.http.port={port}"),
                "-jar",
                apicurio_registry().to_str().expect("the cache's path is UTF-8"),
            ],
            &[],
        );
        process.wait_for_line("serves", START, |line| line.contains("Listening on: http"));
        Self { port, process }
    }

    /// Where Confluent's API begins.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/apis/ccompat/v7", self.port)
    }

    /// Ends it by SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

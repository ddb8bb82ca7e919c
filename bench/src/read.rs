//! Readers of a topic: one thread that reads all there is through the bridge, and counts it.

use std::{net::SocketAddr, ops::ControlFlow, path::PathBuf};

use clap::{Args, ValueEnum};
use serde_json::Value;
use tokio::{task::LocalSet, time::Instant};

use crate::{
    Report,
    http::{Connection, Request, Server},
};

#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// Where the bridge listens
    #[arg(long)]
    address: SocketAddr,
    /// PEM file with the authority of its certificate; without it, plain HTTP
    #[arg(long)]
    ca: Option<PathBuf>,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    partitions: i32,
    /// How many records the topic holds
    #[arg(long)]
    records: u64,
    #[arg(long)]
    via: Via,
    /// Says `ready` and waits for a line before it begins
    #[arg(long)]
    wait: bool,
}

/// The ways that records are read through the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    /// A connection for each partition, one read after the other, as large as they are by default
    Partitions,
    /// One connection: the stream of a group's only member
    Group,
    /// A connection for each partition, to which a consumer instance of its own is assigned, in the format json
    V2,
}

pub(crate) fn run(options: &Options) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    let report = LocalSet::new().block_on(&runtime, read(options.clone()));
    crate::done(&report, options.wait);
}

async fn read(options: Options) -> Report {
    let server = Server::new(options.address, options.ca.as_ref(), None);
    let count = if options.via == Via::Group { 1 } else { options.partitions };
    let mut readers = Vec::new();
    for partition in 0..count {
        let connection = Connection::open(&server).await.expect("the bridge accepts a connection");
        let mut reader = Reader { options: options.clone(), connection, partition, requests: 0, records: 0 };
        if options.via == Via::V2 {
            reader.assign().await;
        }
        readers.push(reader);
    }
    crate::ready(options.wait);

    let begun = Instant::now();
    let tasks: Vec<_> = readers.into_iter().map(|reader| tokio::task::spawn_local(reader.read())).collect();
    let mut report = Report::default();
    for task in tasks {
        let reader = task.await.expect("no read failed");
        report.requests += reader.requests;
        report.records += reader.records;
    }
    report.seconds = begun.elapsed().as_secs_f64();
    report
}

struct Reader {
    options: Options,
    connection: Connection,
    partition: i32,
    requests: u64,
    records: u64,
}

impl Reader {
    async fn read(mut self) -> Self {
        match self.options.via {
            Via::Partitions => self.read_partition().await,
            Via::Group => self.read_group().await,
            Via::V2 => self.read_instance().await,
        }
        self
    }

    async fn read_partition(&mut self) {
        let (topic, partition) = (self.options.topic.clone(), self.partition);
        let mut offset = "earliest".to_owned();
        loop {
            let path = format!("/v1/topics/{topic}/partitions/{partition}/records?offset={offset}");
            let request = self.request("GET", &path, "application/x-ndjson", "");
            let mut lines = 0;
            let answer = self.connection.stream(&request, |piece| {
                lines += newlines(piece);
                ControlFlow::Continue(())
            });
            let head = answer.await.expect("the bridge answers");
            self.records += lines;
            self.requests += 1;
            head.field("kafka-next-offset").expect("an answer says where to go on").clone_into(&mut offset);
            if head.field("kafka-high-watermark") == Some(&offset) {
                return;
            }
        }
    }

    async fn read_group(&mut self) {
        let path = format!("/v1/topics/{0}/records?group={0}&start=earliest", self.options.topic);
        let request = self.request("GET", &path, "application/x-ndjson", "");
        let (mut lines, mut at_line_start) = (0, false);
        let answer = self.connection.stream(&request, |piece| {
            lines += newlines(piece);
            // An empty line: nothing came for a while.
            lines -= u64::from(at_line_start && piece.starts_with(b"\n"));
            at_line_start = piece.ends_with(b"\n");
            if lines < self.options.records { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        answer.await.expect("the bridge answers");
        self.records = lines;
        self.requests = 1;
    }

    /// The path of this reader's consumer instance.
    fn instance(&self) -> String {
        format!("/consumers/{}/instances/reader-{}", self.options.topic, self.partition)
    }

    async fn assign(&mut self) {
        let (topic, partition) = (&self.options.topic, self.partition);
        let instance = self.instance();
        let partitions = format!(r#"{{"partitions":[{{"topic":"{topic}","partition":{partition}}}]}}"#);
        let settings = format!(
            r#"{{"name":"reader-{partition}","format":"json","auto.offset.reset":"earliest","auto.commit.enable":"false"}}"#
        );
        let setup = [
            (format!("/consumers/{topic}"), settings),
            (format!("{instance}/assignments"), partitions.clone()),
            (format!("{instance}/positions/beginning"), partitions),
        ];
        for (path, body) in setup {
            let request = self.request("POST", &path, "application/vnd.kafka.v2+json", &body);
            let (status, body) = self.connection.exchange(&request).await.expect("the bridge answers");
            assert!((200..300).contains(&status), "{path}: {status} {}", String::from_utf8_lossy(body));
        }
    }

    async fn read_instance(&mut self) {
        let instance = self.instance();
        let records = format!("{instance}/records?timeout=10000");
        let read = self.request("GET", &records, "application/vnd.kafka.json.v2+json", "");
        let end = {
            let path = format!("/topics/{}/partitions/{}/offsets", self.options.topic, self.partition);
            let request = self.request("GET", &path, "application/vnd.kafka.v2+json", "");
            let (_, body) = self.connection.exchange(&request).await.expect("the bridge answers");
            let offsets: Value = serde_json::from_slice(body).expect("JSON");
            offsets["end_offset"].as_u64().expect("the partition has an end")
        };
        // No record of ours has such a member.
        let offset = memchr::memmem::Finder::new(b"\"offset\":");
        while self.records < end {
            let (status, body) = self.connection.exchange(&read).await.expect("the bridge answers");
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
            let found = offset.find_iter(body).count();
            assert!(found > 0, "there are more records");
            self.records += found as u64;
            self.requests += 1;
        }
        let request = self.request("DELETE", &instance, "application/vnd.kafka.v2+json", "");
        self.connection.exchange(&request).await.expect("the bridge answers");
    }

    fn request(&self, method: &str, path: &str, media: &str, body: &str) -> Request {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: {media}\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\r\n",
            self.options.address,
            body.len(),
        );
        Request::new(&head, body.as_bytes(), 1, &[])
    }
}

fn newlines(piece: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', piece).count() as u64
}

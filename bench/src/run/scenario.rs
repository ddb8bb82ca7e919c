//! What is measured: traffic of one kind, and who carries it.

use std::fmt;

use crate::read::Via;

/// One row of docs/benchmarks.md per contender.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// One line for the reader.
    pub(crate) about: &'static str,
    /// Neighbours with the same title are rows of one table.
    pub(crate) table: &'static str,
    pub(crate) record_bytes: usize,
    pub(crate) partitions: i32,
    pub(crate) broker: Broker,
    pub(crate) traffic: Traffic,
    /// The others are compared with the first.
    pub(crate) contenders: Vec<Contender>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broker {
    Kafka,
    Null,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Traffic {
    /// Four connections, one long upload each, as fast as they go.
    Upload(Shape),
    /// One record a request on so many keep-alive connections, as fast as they go, to so many topics in turn.
    Lone { connections: usize, topics: usize },
    /// One record a request, so many a second, on one connection: an idle bridge.
    Idle { rate: f64 },
    /// All records of a topic, as fast as they come.
    Read,
    /// Lone records, open loop, at these shares of the peak that a `Lone` round finds first.
    Paced { connections: usize, shares: [f64; 3] },
}

impl Traffic {
    /// Whether a single request's latency says something: an upload is one request, a read is as long as one likes.
    pub(crate) fn has_latency(&self) -> bool {
        !matches!(self, Self::Upload(_) | Self::Read)
    }
}

/// How an upload is cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) keyed: bool,
    /// Chunked, instead of a Content-Length.
    pub(crate) chunk_bytes: Option<usize>,
    pub(crate) tls_record_bytes: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The bridge.
    Penstock { tls: bool, workers: u8 },
    /// librdkafka without a bridge.
    Native,
    /// Kafka's own producer, Java's, without a bridge.
    Java,
    /// hyper and librdkafka.
    Afternoon { tls: bool, linger_ms: u32 },
    /// Our own client, one record at a time.
    RoundTrip,
    /// The bridge, read from over TLS.
    Reader { via: Via },
    /// librdkafka's consumer without a bridge.
    NativeReader,
    /// The command line client on librdkafka, which writes records to a pipe.
    Kcat,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = |tls| if tls { "TLS" } else { "plain" };
        match *self {
            Self::Penstock { tls, workers: 1 } => write!(f, "penstock {}", transport(tls)),
            Self::Penstock { tls, workers } => write!(f, "penstock {} {workers} workers", transport(tls)),
            Self::Native => f.write_str("librdkafka native"),
            Self::Java => f.write_str("ProducerPerformance native"),
            Self::Afternoon { tls, linger_ms } => write!(f, "afternoon {} linger {linger_ms} ms", transport(tls)),
            Self::RoundTrip => f.write_str("Kafka round trip"),
            Self::Reader { via: Via::Partitions } => f.write_str("penstock TLS partition reads"),
            Self::Reader { via: Via::Group } => f.write_str("penstock TLS group stream"),
            Self::Reader { via: Via::V2 } => f.write_str("penstock TLS v2 JSON"),
            Self::NativeReader => f.write_str("librdkafka native"),
            Self::Kcat => f.write_str("kcat"),
        }
    }
}

const LONE: Traffic = Traffic::Lone { connections: 64, topics: 1 };

const TLS: Contender = Contender::Penstock { tls: true, workers: 1 };
const PLAIN: Contender = Contender::Penstock { tls: false, workers: 1 };
const AFTERNOON: Contender = Contender::Afternoon { tls: true, linger_ms: 5 };
const AFTERNOON_0: Contender = Contender::Afternoon { tls: true, linger_ms: 0 };

/// All of them, in the order in which they run.
pub(crate) fn all() -> Vec<Scenario> {
    let upload = |name, about, record_bytes, contenders: &[Contender]| Scenario {
        name,
        about,
        table: about,
        record_bytes,
        partitions: 4,
        broker: Broker::Kafka,
        traffic: Traffic::Upload(Shape::default()),
        contenders: contenders.to_vec(),
    };
    let shaped = |name, about, shape| Scenario {
        traffic: Traffic::Upload(shape),
        table: "how an upload is cut: NDJSON, 100 B a record, TLS",
        ..upload(name, about, 100, &[TLS])
    };
    let lone =
        |name, about, traffic, contenders: &[Contender]| Scenario { traffic, ..upload(name, about, 1024, contenders) };
    let everyone = [Contender::Native, TLS, PLAIN, AFTERNOON, Contender::Java];
    let keyed = Shape { keyed: true, ..Shape::default() };
    let reader = |via| Contender::Reader { via };
    let readers =
        [Contender::Kcat, Contender::NativeReader, reader(Via::Partitions), reader(Via::Group), reader(Via::V2)];
    let read =
        |name, about, record_bytes| Scenario { traffic: Traffic::Read, ..upload(name, about, record_bytes, &readers) };
    vec![
        upload("ndjson-100", "NDJSON, 100 B a record", 100, &everyone),
        upload("ndjson-1k", "NDJSON, 1 KiB a record", 1024, &everyone),
        upload("ndjson-10k", "NDJSON, 10 KiB a record", 10_240, &everyone),
        Scenario {
            partitions: 12,
            traffic: Traffic::Upload(keyed),
            ..upload("keyed-100", "NDJSON with ?key=/id, 100 B a record, 12 partitions", 100, &[Contender::Native, TLS])
        },
        lone(
            "lone-1k",
            "one 1 KiB record a request, 64 keep-alive connections",
            LONE,
            &[AFTERNOON_0, TLS, PLAIN, AFTERNOON],
        ),
        lone(
            "idle-1k",
            "one 1 KiB record every 5 ms on one connection",
            Traffic::Idle { rate: 200.0 },
            &[Contender::RoundTrip, TLS, PLAIN, AFTERNOON_0],
        ),
        lone(
            "paced-1k",
            "lone 1 KiB records, open loop, at shares of the peak",
            Traffic::Paced { connections: 64, shares: [0.5, 0.7, 0.9] },
            &[TLS],
        ),
        read("read-100", "reading, 100 B a record", 100),
        read("read-1k", "reading, 1 KiB a record", 1024),
        shaped("length-100", "Content-Length, TLS records of 16 KiB", Shape::default()),
        shaped("chunk64k-100", "chunks of 64 KiB", Shape { chunk_bytes: Some(64 << 10), ..Shape::default() }),
        shaped("chunkline-100", "one line a chunk", Shape { chunk_bytes: Some(101), ..Shape::default() }),
        shaped("tls1400-100", "TLS records of 1.4 KiB", Shape { tls_record_bytes: Some(1400), ..Shape::default() }),
        Scenario {
            broker: Broker::Null,
            ..upload("null-100", "null broker, 100 B a record", 100, &[Contender::Native, TLS, PLAIN])
        },
        Scenario {
            broker: Broker::Null,
            ..upload("null-1k", "null broker, 1 KiB a record", 1024, &[Contender::Native, TLS, PLAIN])
        },
        Scenario {
            broker: Broker::Null,
            ..lone("null-lone-1k", "null broker, lone 1 KiB records", LONE, &[TLS, PLAIN])
        },
    ]
}

/// How the bridge's cost grows, one thing at a time, on the null broker.
pub(crate) fn scaling() -> Vec<Scenario> {
    let base = |name, about, table| Scenario {
        name,
        about,
        table,
        record_bytes: 1024,
        partitions: 4,
        broker: Broker::Null,
        traffic: LONE,
        contenders: vec![TLS],
    };
    let mut all = Vec::new();
    for (name, about, workers) in [("scale-worker-1", "1 worker", 1), ("scale-worker-2", "2 workers", 2)] {
        let contenders = vec![Contender::Penstock { tls: true, workers }];
        all.push(Scenario { contenders, ..base(name, about, "workers: lone 1 KiB records, 64 connections, TLS") });
    }
    for (name, about, connections) in [
        ("scale-connections-1", "1 connection", 1),
        ("scale-connections-8", "8 connections", 8),
        ("scale-connections-64", "64 connections", 64),
        ("scale-connections-500", "500 connections", 500),
        ("scale-connections-2000", "2,000 connections", 2_000),
    ] {
        let traffic = Traffic::Lone { connections, topics: 1 };
        all.push(Scenario { traffic, ..base(name, about, "connections: lone 1 KiB records, TLS") });
    }
    for (name, about, topics) in [
        ("scale-topics-1", "1 topic", 1),
        ("scale-topics-10", "10 topics", 10),
        ("scale-topics-100", "100 topics", 100),
        ("scale-topics-1000", "1,000 topics", 1_000),
    ] {
        let traffic = Traffic::Lone { connections: 64, topics };
        all.push(Scenario { traffic, ..base(name, about, "topics: lone 1 KiB records in turn, 64 connections, TLS") });
    }
    for (name, about, partitions) in [
        ("scale-partitions-1", "1 partition", 1),
        ("scale-partitions-12", "12 partitions", 12),
        ("scale-partitions-100", "100 partitions", 100),
        ("scale-partitions-1000", "1,000 partitions", 1_000),
    ] {
        let traffic = Traffic::Upload(Shape { keyed: true, ..Shape::default() });
        let table = "partitions: NDJSON with ?key=/id, 100 B a record, TLS";
        all.push(Scenario { record_bytes: 100, partitions, traffic, ..base(name, about, table) });
    }
    for (name, about, record_bytes) in [
        ("scale-bytes-16", "16 B", 16),
        ("scale-bytes-100", "100 B", 100),
        ("scale-bytes-1k", "1 KiB", 1_024),
        ("scale-bytes-10k", "10 KiB", 10_240),
        ("scale-bytes-100k", "100 KiB", 102_400),
        ("scale-bytes-1m", "1 MiB", 1_048_576),
    ] {
        let traffic = Traffic::Upload(Shape::default());
        all.push(Scenario { record_bytes, traffic, ..base(name, about, "records: NDJSON of so many bytes each, TLS") });
    }
    all
}

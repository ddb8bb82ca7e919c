//! Reading as a group: streams whose connections are the members, beside Java's consumers.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use penstock_tests::{
    bridge::{Bridge, Settings},
    distribution::Version,
    eventually,
    https::Connection,
    process::Process,
    shared::{bridge, three_brokers},
    tools::{curl, curl_ndjson},
    unique,
};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::log_lines;

const END: Duration = Duration::from_secs(120);
const PARTITIONS: i64 = 6;
const MIB: usize = 1 << 20;

/// Partition and offset of every record that somebody has read.
type Seen = Arc<Mutex<BTreeSet<(i64, i64)>>>;

fn place(record: &Value) -> (i64, i64) {
    (record["partition"].as_i64().expect("a partition"), record["offset"].as_i64().expect("an offset"))
}

/// Opens a stream; the head of its answer has been read.
async fn open(port: u16, topic: &str, query: &str) -> Connection {
    let mut connection = Connection::open(port).await;
    connection.send(&format!("GET /v1/topics/{topic}/records?{query}"), &[], b"").await;
    assert_eq!(connection.reader.head().await.0, 200);
    connection
}

/// Reads a stream until it ends or the task is aborted, which ends its connection.
fn read(mut connection: Connection, seen: Seen) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut rest = Vec::new();
        while let Some(piece) = connection.reader.piece().await {
            rest.extend_from_slice(&piece);
            while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if line.len() > 1 {
                    let record: Value = serde_json::from_slice(&line).expect("a record a line");
                    seen.lock().expect("no panic").insert(place(&record));
                }
            }
        }
    })
}

/// A member of the group that is Kafka's own consumer, and says what it does in JSON lines.
fn java_member(topic: &str, group: &str, strategy: &str) -> Process {
    let bootstrap = three_brokers().bootstrap();
    let strategy = format!("org.apache.kafka.clients.consumer.{strategy}");
    let java = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", Version::V4_1_1.class_path()];
    let tool = ["org.apache.kafka.tools.VerifiableConsumer", "--bootstrap-server", &bootstrap, "--verbose"];
    let reads = ["--topic", topic, "--group-id", group, "--reset-policy", "earliest"];
    let assigns = ["--assignment-strategy", &strategy];
    Process::spawn("VerifiableConsumer", "java", [&java[..], &tool, &reads, &assigns].concat(), &[])
}

/// What Java has read.
fn java_seen(java: &Process) -> BTreeSet<(i64, i64)> {
    let lines = java.output();
    let records = lines.iter().filter(|line| line.contains("\"name\":\"record_data\""));
    records.filter_map(|line| serde_json::from_str(line).ok()).map(|record: Value| place(&record)).collect()
}

fn write(topic: &str, count: u64) {
    for partition in 0..PARTITIONS {
        let path = format!("/v1/topics/{topic}/records?partition={partition}");
        curl_ndjson(bridge(), &path, &log_lines(0, count)).expect(200);
    }
}

/// Whether every record of the six partitions has come to a stream or to Java, and is committed.
fn all_read(group: &str, seen: &Seen, read_by_java: &BTreeSet<(i64, i64)>) -> bool {
    let lag = curl(bridge(), &format!("/v1/groups/{group}/lag"), &[]).expect(200).json();
    let seen = seen.lock().expect("no panic");
    let partitions = lag["partitions"].as_array().expect("a list");
    let is_read = |partition: &Value| {
        let end = partition["end_offset"].as_i64().expect("a number");
        let of_one = partition["partition"].as_i64().expect("a number");
        let came = |offset| seen.contains(&(of_one, offset)) || read_by_java.contains(&(of_one, offset));
        (0..end).all(came)
    };
    lag["total_lag"] == 0 && partitions.len() == 6 && partitions.iter().all(is_read)
}

/// A group of Java's consumer and streams, in which members come and go while records are written: every record is read.
async fn every_record_is_read_beside_java(strategy: &str, assignor: &str) {
    let topic = three_brokers().create_topic("mixed", i32::try_from(PARTITIONS).expect("small"));
    let group = unique("mixed");
    let query = format!("group={group}&start=earliest&commit=delivered&assignor={assignor}&value=base64");
    let seen = Seen::default();
    let count = |seen: &Seen| seen.lock().expect("no panic").len();
    let mut java = java_member(&topic, &group, strategy);
    java.wait_for_line("Java is in", END, |line| line.contains("\"name\":\"partitions_assigned\""));
    write(&topic, 100);
    let first = read(open(bridge().port, &topic, &query).await, seen.clone());
    write(&topic, 100);
    eventually("the first stream reads, and so does Java", END, || {
        write(&topic, 1);
        (count(&seen) > 0 && !java_seen(&java).is_empty()).then_some(())
    });
    let second = read(open(bridge().port, &topic, &query).await, seen.clone());
    let before = count(&seen);
    eventually("reading goes on while the second joins", END, || {
        write(&topic, 1);
        (count(&seen) > before + 20).then_some(())
    });
    // What lies in sockets when a client goes has been delivered: it has read everything before it does.
    eventually("all of it has been read", END, || all_read(&group, &seen, &java_seen(&java)).then_some(()));
    first.abort();
    write(&topic, 100);
    java.signal("TERM");
    let read_by_java = {
        java.wait_for_exit(END);
        java_seen(&java)
    };
    write(&topic, 100);
    // The second stream has all of the partitions now.
    eventually("every record has been read", END, || all_read(&group, &seen, &read_by_java).then_some(()));
    second.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_read_beside_java_by_range() {
    every_record_is_read_beside_java("RangeAssignor", "range").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_read_beside_java_cooperatively() {
    every_record_is_read_beside_java("CooperativeStickyAssignor", "cooperative-sticky").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_stays_a_member_and_holds_little() {
    let cluster = three_brokers();
    let settings = Settings::new(&cluster.bootstrap()).set("producer.memory_bytes", "\"64MiB\"");
    let bridge = Bridge::start_with(&settings);
    let topic = cluster.create_topic("slowly", i32::try_from(PARTITIONS).expect("small"));
    let group = unique("slowly");
    for partition in 0..PARTITIONS {
        let path = format!("/v1/topics/{topic}/records?partition={partition}");
        curl_ndjson(&bridge, &path, &log_lines(0, 25_000)).expect(200);
    }
    let used = || bridge.metric("penstock_memory_used_bytes", &[]);
    let before = used();
    let query = format!("group={group}&start=earliest&session_timeout_ms=6000&commit=delivered");
    let mut slow = open(bridge.port, &topic, &query).await;
    let first = slow.reader.piece().await.expect("records");
    // Thirty mebibytes are there, and nobody reads them. Others come to the group and go, which takes the slow one's
    // consent each time: who does not join again within a session's time is out.
    for _ in 0..3 {
        let seen = Seen::default();
        let other = read(open(bridge.port, &topic, &query).await, seen.clone());
        eventually("the other has its part", END, || {
            // Who left had in its socket, delivered and committed, what it did not read: that may have been all.
            write(&topic, 1);
            let partitions: BTreeSet<i64> =
                seen.lock().expect("no panic").iter().map(|(partition, _)| *partition).collect();
            assert!(used() < before + 16.0 * MIB as f64, "{} MiB more", (used() - before) / MIB as f64);
            (partitions.len() == 3).then_some(())
        });
        other.abort();
        // An aborted task has dropped its connection when it is awaited.
        let _ = other.await;
    }
    // It reads on, and each partition that it still reads goes on without a gap.
    let seen = Seen::default();
    seen.lock().expect("no panic").extend(
        first
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .filter_map(|line| serde_json::from_slice::<Value>(line).ok().map(|record| place(&record))),
    );
    let reading = read(slow, seen.clone());
    eventually("all that the group has not read comes", END, || {
        let lag = curl(&bridge, &format!("/v1/groups/{group}/lag"), &[]).expect(200).json();
        (lag["total_lag"] == 0 && lag["partitions"].as_array().is_some_and(|all| all.len() == 6)).then_some(())
    });
    reading.abort();
}

//! Reading as a group: streams whose connections are the members, beside Java's consumers.

use std::{
    collections::BTreeSet,
    fs,
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
    tools::{Answer, curl, curl_ndjson},
    unique,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{fleet_of_two, log_lines};

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

/// Commits offsets of partitions 0 and 1.
fn commit(bridge: &Bridge, topic: &str, group: &str, offsets: [u64; 2]) -> Answer {
    let offset = |partition: usize| json!({"topic": topic, "partition": partition, "offset": offsets[partition]});
    let body = json!({"offsets": [offset(0), offset(1)]}).to_string();
    curl(bridge, &format!("/v1/groups/{group}/offsets"), &["-d", &body])
}

fn committed(bridge: &Bridge, group: &str) -> Value {
    let told = curl(bridge, &format!("/v1/groups/{group}/offsets"), &[]).expect(200).json();
    told["offsets"].as_array().expect("a list").iter().map(|one| one["offset"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_committed_through_any_bridge_of_a_fleet() {
    let bridges = fleet_of_two();
    let topic = three_brokers().create_topic("anywhere", 2);
    let write = || {
        for partition in 0..2 {
            let path = format!("/v1/topics/{topic}/records?partition={partition}");
            curl_ndjson(&bridges[0], &path, &log_lines(0, 10)).expect(200);
        }
    };
    write();
    let group = unique("anywhere");
    let query = format!("group={group}&start=earliest");
    let seen = [Seen::default(), Seen::default()];
    let count = |seen: &Seen| seen.lock().expect("no panic").len();
    let first = read(open(bridges[0].port, &topic, &query).await, seen[0].clone());
    eventually("the first stream reads both partitions", END, || (count(&seen[0]) == 20).then_some(()));
    // The member is in the first bridge.
    commit(&bridges[1], &topic, &group, [1, 2]).expect(204);
    assert_eq!(committed(&bridges[0], &group), json!([1, 2]));

    // Its rules hold for what it is handed, too.
    let rules = fs::read_to_string(&bridges[0].config).expect("it was written");
    let until = |status: u16| {
        let answered = || (commit(&bridges[0], &topic, &group, [1, 2]).status == status).then_some(());
        eventually(&format!("the first bridge answers {status}"), END, answered);
    };
    fs::write(&bridges[0].config, rules.replace("topics = [\"*\"]", "topics = [\"none\"]")).expect("writable");
    until(403);
    commit(&bridges[1], &topic, &group, [9, 9]).expect(409);
    assert_eq!(committed(&bridges[1], &group), json!([1, 2]));
    fs::write(&bridges[0].config, rules).expect("writable");
    until(204);

    let second = read(open(bridges[1].port, &topic, &query).await, seen[1].clone());
    eventually("the second stream has a part", END, || (count(&seen[1]) > 0).then_some(()));
    // A member in each, of which no bridge has both.
    for (bridge, offsets) in [(&bridges[0], [3, 4]), (&bridges[1], [5, 6])] {
        eventually("both offsets are committed", END, || {
            let answer = commit(bridge, &topic, &group, offsets);
            // While the group rebalances, nobody has a partition.
            assert!([204, 409].contains(&answer.status), "{} {}", answer.head, answer.text());
            (answer.status == 204).then_some(())
        });
        assert_eq!(committed(bridge, &group), json!(offsets));
    }
    for bridge in &bridges {
        assert!(bridge.metric("penstock_fleet_requests_total", &["outcome=\"answered\""]) > 0.0);
        assert_eq!(bridge.metric("penstock_fleet_requests_total", &["outcome=\"unanswered\""]), 0.0);
    }
    // Both are members still.
    let before = seen.each_ref().map(count);
    write();
    eventually("both read on", END, || (count(&seen[0]) > before[0] && count(&seen[1]) > before[1]).then_some(()));
    first.abort();
    second.abort();

    // Where the members are others', nobody here can.
    let group = unique("elsewhere");
    let java = java_member(&topic, &group, "RangeAssignor");
    java.wait_for_line("Java is in", END, |line| line.contains("\"name\":\"partitions_assigned\""));
    for bridge in &bridges {
        assert_eq!(commit(bridge, &topic, &group, [1, 1]).expect(409).json()["error_code"], 409);
    }
}

//! Reading beside transactions of other clients: with `read_committed`, only what was committed, and nothing behind the first
//! record of a transaction that is open.

use std::time::Duration;

use penstock_tests::{
    eventually,
    https::{Connection, Reader},
    shared::{bridge, three_brokers},
    tools::{Answer, Transactions, curl, kcat_read, kcat_write},
    unique,
};
use serde_json::{Value, json};

const END: Duration = Duration::from_secs(120);

/// Records that were aborted, enough for many fetches of a small size.
const LOST: usize = 2_000;

/// A partition with every kind of record, and two transactions, `open` and `doomed`, that are open:
///
/// ```text
/// plain-0 │ kept-0 kept-1 commit │ lost × 2000 abort │ open-0 │ doomed-0 │ plain-1 │ open-1 doomed-1
///                                                    ▲ the last stable offset
/// ```
struct Scene {
    topic: String,
    transactions: Transactions,
    /// The last stable offset.
    stable: i64,
}

/// What a reader of committed records gets before and after the end of the open transactions.
const BEFORE: [&str; 3] = ["plain-0", "kept-0", "kept-1"];
const AFTER: [&str; 3] = ["open-0", "plain-1", "open-1"];

impl Scene {
    fn new() -> Self {
        let bootstrap = three_brokers().bootstrap();
        let topic = three_brokers().create_topic("transactions", 1);
        let mut transactions = Transactions::new(&bootstrap, &topic, 0);
        kcat_write(&bootstrap, &topic, &[], "plain-0\n");
        transactions.write("kept", &["kept-0", "kept-1"]);
        transactions.commit("kept");
        wait_for_end(&topic, 4);
        let lost: Vec<String> = (0..LOST).map(|number| format!("lost-{number}-{}", "x".repeat(100))).collect();
        transactions.write("lost", &lost.iter().map(String::as_str).collect::<Vec<_>>());
        transactions.abort("lost");
        let stable = 4 + i64::try_from(LOST).expect("small") + 1;
        wait_for_end(&topic, stable);
        transactions.write("open", &["open-0"]);
        transactions.write("doomed", &["doomed-0"]);
        kcat_write(&bootstrap, &topic, &[], "plain-1\n");
        transactions.write("open", &["open-1"]);
        transactions.write("doomed", &["doomed-1"]);
        wait_for_end(&topic, stable + 5);
        Self { topic, transactions, stable }
    }

    /// Ends both transactions, and returns where the partition ends then. The abort is whole before the commit moves the
    /// last stable offset.
    fn end(mut self) -> i64 {
        self.transactions.abort("doomed");
        wait_for_end(&self.topic, self.stable + 6);
        self.transactions.commit("open");
        wait_for_end(&self.topic, self.stable + 7);
        self.stable + 7
    }
}

/// Waits until the next record would get the offset `end`: everything before, markers included, is replicated.
fn wait_for_end(topic: &str, end: i64) {
    eventually(&format!("{topic} ends at {end}"), END, || {
        let found = next_offset(&read(topic, "offset=latest"));
        assert!(found <= end, "{topic} has more records than were written: {found}, not {end}");
        (found == end).then_some(())
    });
}

fn read(topic: &str, query: &str) -> Answer {
    curl(bridge(), &format!("/v1/topics/{topic}/partitions/0/records?value=text&{query}"), &[]).expect(200)
}

fn next_offset(answer: &Answer) -> i64 {
    answer.header("kafka-next-offset").and_then(|offset| offset.parse().ok()).expect("Kafka-Next-Offset")
}

fn text_of(record: &Value) -> String {
    record["value"].as_str().expect("a text").to_owned()
}

fn values(answer: &Answer) -> Vec<String> {
    answer.text().lines().map(|line| text_of(&serde_json::from_str(line).expect("each line is JSON"))).collect()
}

#[test]
fn a_partition_is_read_up_to_its_first_open_transaction_and_without_aborted_ones() {
    let scene = Scene::new();
    let (topic, stable) = (scene.topic.clone(), scene.stable);
    let committed = |query: &str| read(&topic, &format!("isolation=read_committed&{query}"));

    // The bytes are there, for whoever reads what is not committed.
    let all = values(&read(&topic, "offset=earliest&max_bytes=16777216"));
    assert_eq!(all.len(), 3 + LOST + 5);
    for value in ["open-0", "doomed-0", "plain-1", "open-1", "doomed-1"] {
        assert!(all.iter().any(|one| one == value), "{value} is missing");
    }

    let whole = committed("offset=earliest");
    assert_eq!((values(&whole), next_offset(&whole)), (BEFORE.map(String::from).to_vec(), stable));
    assert_eq!(whole.header("kafka-high-watermark"), Some((stable + 5).to_string().as_str()));
    assert_eq!(next_offset(&committed("offset=latest")), stable, "the end of what is stable");
    assert_eq!(next_offset(&committed("offset=timestamp:4000000000000")), stable, "the same");
    // From within the aborted transaction: its first record is not part of the answer.
    let within = committed("offset=1000&max_bytes=2000");
    assert_eq!((values(&within), next_offset(&within)), (vec![], stable));
    let at_stable = committed(&format!("offset={stable}"));
    assert_eq!((values(&at_stable), next_offset(&at_stable)), (vec![], stable));

    let end = std::thread::scope(|scope| {
        let waits = scope.spawn(|| committed(&format!("offset={stable}&wait_ms=60000")));
        let end = scene.end();
        let came = waits.join().expect("no panic");
        assert_eq!((values(&came), next_offset(&came)), (AFTER.map(String::from).to_vec(), end));
        end
    });

    // Record by record, and in fetches smaller than the aborted transaction.
    let expected: Vec<String> = [BEFORE, AFTER].concat().into_iter().map(String::from).collect();
    for limit in ["max_records=1", "max_bytes=2000", "max_records=100000&max_bytes=16777216"] {
        let (mut found, mut offset) = (Vec::new(), 0);
        while offset < end {
            let page = committed(&format!("offset={offset}&{limit}"));
            assert!(next_offset(&page) > offset, "{limit}: no step from {offset}");
            found.extend(values(&page));
            offset = next_offset(&page);
        }
        assert_eq!((&found, offset), (&expected, end), "{limit}");
    }
    // librdkafka reads what is committed by default, and is of the same opinion.
    let theirs: Vec<_> = kcat_read(&three_brokers().bootstrap(), &topic).iter().map(|r| r.text().to_owned()).collect();
    assert_eq!(theirs, expected);
}

/// Values of a stream as they come, and whether silence came after the last of them.
struct Stream {
    reader: Reader,
    rest: Vec<u8>,
    values: Vec<String>,
    silent: bool,
    _connection: penstock_tests::https::Writer,
}

impl Stream {
    async fn open(topic: &str, query: &str) -> Self {
        let mut connection = Connection::open(bridge().port).await;
        let path = format!("/v1/topics/{topic}/records?value=text&isolation=read_committed&commit=delivered&{query}");
        connection.send(&format!("GET {path}"), &[], b"").await;
        assert_eq!(connection.reader.head().await.0, 200);
        let Connection { reader, writer } = connection;
        Self { reader, rest: Vec::new(), values: Vec::new(), silent: false, _connection: writer }
    }

    /// Reads until that holds.
    async fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            let piece = self.reader.piece().await.expect("the stream goes on");
            self.rest.extend_from_slice(&piece);
            while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                self.silent = line.len() == 1;
                if !self.silent {
                    self.values.push(text_of(&serde_json::from_slice(&line).expect("a record a line")));
                }
            }
        }
    }
}

fn lag(group: &str) -> Value {
    curl(bridge(), &format!("/v1/groups/{group}/lag"), &[]).expect(200).json()
}

/// The offset that a group has committed, once it has.
fn wait_for_committed(group: &str, offset: i64) {
    eventually(&format!("{group} has committed {offset}"), END, || {
        let committed = lag(group)["partitions"][0]["offset"].as_i64()?;
        assert!(committed <= offset, "{group} has committed {committed}, beyond {offset}");
        (committed == offset).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_waits_at_an_open_transaction_and_goes_on_when_it_is_committed() {
    let scene = Scene::new();
    let (topic, stable) = (scene.topic.clone(), scene.stable);
    let (early, late) = (unique("early"), unique("late"));
    let mut from_start = Stream::open(&topic, &format!("group={early}&start=earliest")).await;
    let mut from_end = Stream::open(&topic, &format!("group={late}&start=latest")).await;
    // An empty line comes when nothing else has come for a while: it has been looked for behind what came before.
    from_start.until(|stream| stream.values.len() >= BEFORE.len() && stream.silent).await;
    assert_eq!(from_start.values, BEFORE);
    from_end.until(|stream| stream.silent).await;
    assert!(from_end.values.is_empty(), "{:?}", from_end.values);
    wait_for_committed(&early, stable);
    wait_for_committed(&late, stable);

    let end = scene.end();
    from_start.until(|stream| stream.values.len() >= BEFORE.len() + AFTER.len() && stream.silent).await;
    assert_eq!(from_start.values, [BEFORE, AFTER].concat());
    from_end.until(|stream| stream.values.len() >= AFTER.len() && stream.silent).await;
    assert_eq!(from_end.values, AFTER);
    // Behind the last record lies the marker of its commit. It is nobody's to read, and no lag.
    for group in [&early, &late] {
        wait_for_committed(group, end);
        assert_eq!(lag(group)["total_lag"], 0);
    }
}

#[test]
fn a_consumer_instance_has_confluents_isolation_level() {
    let scene = Scene::new();
    let topic = scene.topic.clone();
    let send = |method: &str, path: &str, body: &Value| {
        let body = body.to_string();
        curl(bridge(), path, &["-X", method, "-H", "Content-Type: application/vnd.kafka.v2+json", "-d", &body])
    };
    let partitions = json!({"partitions": [{"topic": topic, "partition": 0}]});
    let instance = |name: &str, isolation: &str, at: &str| {
        let group = unique("isolated");
        let settings = json!({"name": name, "format": "text", "isolation.level": isolation});
        send("POST", &format!("/consumers/{group}"), &settings).expect(200);
        let base = format!("/consumers/{group}/instances/{name}");
        send("POST", &format!("{base}/assignments"), &partitions).expect(204);
        send("POST", &format!("{base}/positions/{at}"), &partitions).expect(204);
        base
    };
    let poll = |base: &str| -> Vec<String> {
        let accepts = ["-H", "Accept: application/vnd.kafka.text.v2+json"];
        let answer = curl(bridge(), &format!("{base}/records?timeout=1000"), &accepts).expect(200).json();
        answer.as_array().expect("a list").iter().map(text_of).collect()
    };
    let committed = instance("committed", "read_committed", "beginning");
    let from_end = instance("from-end", "read_committed", "end");
    let uncommitted = instance("uncommitted", "read_uncommitted", "beginning");
    let until = |base: &str, count: usize| {
        let mut found = Vec::new();
        eventually(&format!("{count} records of {base}"), END, || {
            found.extend(poll(base));
            (found.len() >= count).then_some(())
        });
        // And nothing behind them.
        found.extend(poll(base));
        found
    };
    assert_eq!(until(&uncommitted, 3 + LOST + 5).len(), 3 + LOST + 5);
    assert_eq!(until(&committed, BEFORE.len()), BEFORE);
    assert!(poll(&from_end).is_empty());
    scene.end();
    assert_eq!(until(&committed, AFTER.len()), AFTER);
    assert_eq!(until(&from_end, AFTER.len()), AFTER);
}

//! The few requests that the fixture itself sends to Kafka: CreateTopics, DeleteTopics, Metadata, AlterClientQuotas.
//!
//! Written here by hand, in versions that every broker from 2.2 to 4.1 speaks, because a topic must exist before the
//! code under test is trusted to create one, and because a JVM per topic would take longer than most tests.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

const METADATA: i16 = 3;
const CREATE_TOPICS: i16 = 19;
const DELETE_TOPICS: i16 = 20;
const ALTER_CLIENT_QUOTAS: i16 = 49;

/// Creates a topic; panics when the broker says anything but "created".
pub fn create_topic(port: u16, topic: &str, partitions: i32, replicas: i16, configs: &[(&str, &str)]) {
    // Version 2: [topic partitions replicas [assignment] [name value]] timeout_ms validate_only
    let mut body = Vec::new();
    put_i32(&mut body, 1);
    put_string(&mut body, topic);
    put_i32(&mut body, partitions);
    put_i16(&mut body, replicas);
    put_i32(&mut body, 0);
    put_i32(&mut body, i32::try_from(configs.len()).expect("a few configs"));
    for (name, value) in configs {
        put_string(&mut body, name);
        put_string(&mut body, value);
    }
    put_i32(&mut body, 30_000);
    body.push(0);
    // throttle_time_ms [topic error_code error_message]
    let answer = ask(port, CREATE_TOPICS, 2, &body).expect("the broker answers");
    let mut answer = Reader(&answer);
    answer.i32();
    assert_eq!(answer.i32(), 1, "one topic was asked for");
    answer.string();
    let (code, message) = (answer.i16(), answer.string());
    assert_eq!(code, 0, "{topic} could not be created: {message:?}");
}

/// Deletes a topic; panics when the broker says anything but "deleted". Other brokers hear of it later.
pub fn delete_topic(port: u16, topic: &str) {
    // Version 1: [topic] timeout_ms
    let mut body = Vec::new();
    put_i32(&mut body, 1);
    put_string(&mut body, topic);
    put_i32(&mut body, 30_000);
    // throttle_time_ms [topic error_code]
    let answer = ask(port, DELETE_TOPICS, 1, &body).expect("the broker answers");
    let mut answer = Reader(&answer);
    answer.i32();
    assert_eq!(answer.i32(), 1, "one topic was named");
    answer.string();
    assert_eq!(answer.i16(), 0, "{topic} could not be deleted");
}

/// Sets how many bytes a second clients of this id may produce to each broker; `None` takes the bound away (KIP-546,
/// Kafka 2.6 and newer). Panics when the broker refuses.
pub fn set_producer_quota(port: u16, client_id: &str, bytes_per_second: Option<f64>) {
    // Version 0: [[entity_type entity_name] [key value remove]] validate_only
    let mut body = Vec::new();
    put_i32(&mut body, 1);
    put_i32(&mut body, 1);
    put_string(&mut body, "client-id");
    put_string(&mut body, client_id);
    put_i32(&mut body, 1);
    put_string(&mut body, "producer_byte_rate");
    body.extend_from_slice(&bytes_per_second.unwrap_or(0.0).to_be_bytes());
    body.push(u8::from(bytes_per_second.is_none()));
    body.push(0);
    // throttle_time_ms [error_code error_message [entity_type entity_name]]
    let answer = ask(port, ALTER_CLIENT_QUOTAS, 0, &body).expect("the broker answers");
    let mut answer = Reader(&answer);
    answer.i32();
    assert_eq!(answer.i32(), 1, "one entity was named");
    let (code, message) = (answer.i16(), answer.string());
    assert_eq!(code, 0, "the quota could not be set: {message:?}");
}

/// What one broker knows of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The partition's number.
    pub index: i32,
    /// The node id of its leader, -1 where there is none.
    pub leader: i32,
    /// How many of its replicas are in sync.
    pub in_sync: usize,
}

/// How many brokers the broker on `port` knows; `None` when it does not answer.
pub fn broker_count(port: u16) -> Option<usize> {
    // An empty list of topics asks for none.
    let answer = ask(port, METADATA, 1, &0_i32.to_be_bytes()).ok()?;
    usize::try_from(Reader(&answer).i32()).ok()
}

/// The partitions of `topic` as the broker on `port` knows them, by number; `None` when it does not know the topic or
/// does not answer.
pub fn partitions(port: u16, topic: &str) -> Option<Vec<Partition>> {
    let mut body = Vec::new();
    put_i32(&mut body, 1);
    put_string(&mut body, topic);
    // Version 1: [node_id host port rack] controller_id [error_code name is_internal [partition]]
    let answer = ask(port, METADATA, 1, &body).ok()?;
    let mut answer = Reader(&answer);
    for _ in 0..answer.i32() {
        answer.i32();
        answer.string();
        answer.i32();
        answer.string();
    }
    answer.i32();
    assert_eq!(answer.i32(), 1, "one topic was asked for");
    let code = answer.i16();
    answer.string();
    answer.take(1);
    let mut partitions: Vec<_> = (0..answer.i32())
        .map(|_| {
            // error_code index leader [replica] [in-sync replica]
            answer.i16();
            let (index, leader) = (answer.i32(), answer.i32());
            let replicas = answer.i32();
            answer.take(4 * usize::try_from(replicas).expect("a count"));
            let in_sync = usize::try_from(answer.i32()).expect("a count");
            answer.take(4 * in_sync);
            Partition { index, leader, in_sync }
        })
        .collect();
    partitions.sort_by_key(|partition| partition.index);
    (code == 0).then_some(partitions)
}

fn ask(port: u16, api: i16, version: i16, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    // Header version 1: api_key api_version correlation_id client_id
    let mut request = vec![0; 4];
    put_i16(&mut request, api);
    put_i16(&mut request, version);
    put_i32(&mut request, 1);
    put_string(&mut request, "fixture");
    request.extend_from_slice(body);
    let length = u32::try_from(request.len() - 4).expect("a small request");
    request[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    answer.drain(..4);
    Ok(answer)
}

fn put_i16(out: &mut Vec<u8>, value: i16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_string(out: &mut Vec<u8>, value: &str) {
    put_i16(out, i16::try_from(value.len()).expect("a short string"));
    out.extend_from_slice(value.as_bytes());
}

/// Reads a broker's answer; panics where it is shorter than it says, as a test may.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take(2).try_into().expect("two bytes"))
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn string(&mut self) -> Option<String> {
        let length = usize::try_from(self.i16()).ok()?;
        Some(String::from_utf8_lossy(self.take(length)).into_owned())
    }
}

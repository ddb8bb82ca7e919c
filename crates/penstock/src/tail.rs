//! `penstock tail`: the records of a topic as they come, on standard output.
//!
//! Every partition is read by a task of its own that asks for records from one offset on and waits for them (a long
//! poll), with a connection of its own. Reads are stateless, so after a cut the next request goes on at the same offset,
//! to whichever bridge answers. Records of one partition come in order; partitions are printed as they come.
//!
//! With a group there is one stream instead, whose connection is the group's member; others that name the group share the
//! partitions with it.

use std::{
    io::{self, Write},
    time::Duration,
};

use bytes::Bytes;
use hyper::{StatusCode, header::HeaderName};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use crate::client::{Connection, Endpoint, Lines, RequestBody, escape, is_distrust};

/// One answer's line: a record of the largest kind, as base64, and what is around it.
const MAX_LINE: usize = 160 * 1024 * 1024;

/// How long the bridge waits for a record before it answers without one.
const LONG_POLL: Duration = Duration::from_secs(30);

/// Between two attempts after a failure.
const BACKOFF: Duration = Duration::from_secs(1);

/// Answers that are printed later than they are read, over all partitions.
const READ_AHEAD: usize = 64;

const NEXT_OFFSET: HeaderName = HeaderName::from_static("kafka-next-offset");

/// What to read.
#[derive(Debug, Clone)]
pub struct Options {
    /// The bridge.
    pub endpoint: Endpoint,
    /// The topic.
    pub topic: String,
    /// The consumer group to read as. What was printed is committed.
    pub group: Option<String>,
    /// One partition, or all of them.
    pub partition: Option<i32>,
    /// `earliest`, `latest` or an offset; with a group not an offset, and only where the group has none.
    pub from: String,
    /// What is printed of a record.
    pub format: Format,
}

/// What is printed of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// The bridge's line: partition, offset, timestamp, key, value and headers.
    #[default]
    Json,
    /// The value alone, byte for byte, and a line end.
    Value,
}

/// Prints records until whoever reads `out` is gone or the bridge refuses. It does not end by itself.
///
/// # Errors
///
/// The bridge's refusal, or a failure of `out`. Anything that may pass is tried again.
///
/// # Cancel safety
///
/// Dropping the future ends all reading.
pub async fn tail(options: Options, mut out: impl Write) -> Result<(), String> {
    let (lines, mut read) = mpsc::channel(READ_AHEAD);
    let mut readers = JoinSet::new();
    if let Some(group) = &options.group {
        readers.spawn(follow_group(options.clone(), group.clone(), lines.clone()));
    } else {
        let partitions = match options.partition {
            Some(partition) => vec![partition],
            None => partitions(&options).await?,
        };
        for partition in partitions {
            readers.spawn(follow(options.clone(), partition, lines.clone()));
        }
    }
    drop(lines);
    while let Some(line) = read.recv().await {
        let printed = print(&mut out, options.format, &line);
        match printed.and_then(|()| if read.is_empty() { out.flush() } else { Ok(()) }) {
            // `| head` has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(format!("standard output: {error}")),
            Ok(()) => {}
        }
    }
    // The channel is closed: every reader ended, each with a refusal.
    match readers.join_next().await {
        Some(Ok(refused)) => Err(refused),
        Some(Err(panic)) => Err(panic.to_string()),
        None => Err("the topic has no partitions".to_owned()),
    }
}

fn print(out: &mut impl Write, format: Format, line: &[u8]) -> io::Result<()> {
    match format {
        Format::Json => out.write_all(line)?,
        Format::Value => match value(line) {
            Ok(value) => out.write_all(&value)?,
            Err(error) => return Err(io::Error::other(format!("not a record: {error}"))),
        },
    }
    out.write_all(b"\n")
}

/// The value's own bytes: the exact text where it is JSON, decoded where it came as base64; nothing for a tombstone.
pub(crate) fn value(line: &[u8]) -> Result<Vec<u8>, String> {
    #[derive(Deserialize)]
    struct Record<'a> {
        #[serde(borrow, default)]
        value: Option<&'a RawValue>,
        #[serde(default)]
        value_encoding: Option<String>,
    }
    use base64::{Engine, engine::general_purpose::STANDARD};

    let record: Record<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let Some(value) = record.value else { return Ok(Vec::new()) };
    match record.value_encoding.as_deref() {
        Some("base64") => {
            let text: String = serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
            STANDARD.decode(text).map_err(|error| error.to_string())
        }
        _ => Ok(value.get().as_bytes().to_vec()),
    }
}

/// Why a request brought nothing.
enum Failure {
    /// Asking again may help.
    Passing(String),
    Refused(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if is_distrust(&error) { Self::Refused(error.to_string()) } else { Self::Passing(error.to_string()) }
    }
}

async fn partitions(options: &Options) -> Result<Vec<i32>, String> {
    #[derive(Deserialize)]
    struct Topic {
        partitions: Vec<Partition>,
    }
    #[derive(Deserialize)]
    struct Partition {
        partition: i32,
    }
    let mut told = false;
    loop {
        let asked = async {
            let mut connection = options.endpoint.connect().await?;
            let path = format!("/v1/topics/{}", escape(&options.topic));
            let mut lines = get(options, &mut connection, &path).await?.1;
            let body = lines.rest().await?;
            serde_json::from_slice::<Topic>(&body).map_err(|error| Failure::Refused(format!("not a topic: {error}")))
        };
        match asked.await {
            Ok(topic) => return Ok(topic.partitions.into_iter().map(|partition| partition.partition).collect()),
            Err(Failure::Refused(why)) => return Err(why),
            Err(Failure::Passing(why)) => {
                if !told {
                    eprintln!("{}: {why}; trying again", options.endpoint);
                }
                told = true;
                sleep(BACKOFF).await;
            }
        }
    }
}

/// Hands on one partition's lines until nobody takes them or the bridge refuses; says why.
async fn follow(options: Options, partition: i32, lines: mpsc::Sender<Bytes>) -> String {
    let mut offset = options.from.clone();
    let mut connection = None;
    let mut told = false;
    loop {
        match read(&options, partition, &mut offset, &mut connection, &lines).await {
            Ok(true) => told = false,
            Ok(false) => return "standard output is closed".to_owned(),
            Err(Failure::Refused(why)) => return format!("partition {partition}: {why}"),
            Err(Failure::Passing(why)) => {
                if !told {
                    eprintln!("partition {partition}: {why}; trying again at {offset}");
                }
                told = true;
                connection = None;
                sleep(BACKOFF).await;
            }
        }
    }
}

/// Hands on a group's lines until nobody takes them or the bridge refuses; says why.
async fn follow_group(options: Options, group: String, lines: mpsc::Sender<Bytes>) -> String {
    let mut told = false;
    loop {
        match read_group(&options, &group, &lines, &mut told).await {
            Ok(()) => return "standard output is closed".to_owned(),
            Err(Failure::Refused(why)) => return format!("group {group}: {why}"),
            Err(Failure::Passing(why)) => {
                if !told {
                    eprintln!("group {group}: {why}; trying again");
                }
                told = true;
                sleep(BACKOFF).await;
            }
        }
    }
}

/// One stream, to its end. `Ok`: nobody takes its lines.
async fn read_group(
    options: &Options,
    group: &str,
    lines: &mpsc::Sender<Bytes>,
    told: &mut bool,
) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct End {
        error_code: u32,
        message: String,
    }
    let mut connection = options.endpoint.connect().await?;
    let (topic, group, from) = (escape(&options.topic), escape(group), &options.from);
    let path = format!("/v1/topics/{topic}/records?group={group}&start={from}&commit=delivered");
    let (_, mut answer) = get(options, &mut connection, &path).await?;
    while let Some(line) = answer.next().await? {
        if line.is_empty() {
            continue;
        }
        if line.starts_with(b"{\"error_code\"")
            && let Ok(End { error_code, message }) = serde_json::from_slice(&line)
        {
            let passes = error_code >= 50_000 || error_code == 500;
            return Err(if passes { Failure::Passing(message) } else { Failure::Refused(message) });
        }
        *told = false;
        if lines.send(line).await.is_err() {
            return Ok(());
        }
    }
    Err(Failure::Passing("the bridge ended the stream".to_owned()))
}

/// One long poll. `offset` goes on with every whole line that was handed on; `Ok(false)`: nobody takes them.
async fn read(
    options: &Options,
    partition: i32,
    offset: &mut String,
    connection: &mut Option<Connection>,
    lines: &mpsc::Sender<Bytes>,
) -> Result<bool, Failure> {
    #[derive(Deserialize)]
    struct Place {
        offset: i64,
    }
    let open = match connection {
        Some(open) if !open.is_closed() => open,
        _ => connection.insert(options.endpoint.connect().await?),
    };
    let topic = escape(&options.topic);
    let wait = LONG_POLL.as_millis();
    let path = format!("/v1/topics/{topic}/partitions/{partition}/records?offset={}&wait_ms={wait}", escape(offset));
    let (next, mut answer) = get(options, open, &path).await?;
    while let Some(line) = answer.next().await? {
        if line.is_empty() {
            continue;
        }
        let place: Place = serde_json::from_slice(&line)
            .map_err(|error| Failure::Refused(format!("what answered is no bridge: {error}")))?;
        if lines.send(line).await.is_err() {
            return Ok(false);
        }
        *offset = (place.offset + 1).to_string();
    }
    // Records may end below it: control records have offsets, too.
    if let Some(next) = next {
        *offset = next;
    }
    Ok(true)
}

/// Asks for `path`: the next offset where the answer tells it, and the body.
async fn get(options: &Options, connection: &mut Connection, path: &str) -> Result<(Option<String>, Lines), Failure> {
    #[derive(Deserialize)]
    struct Error {
        message: String,
    }
    let request = options.endpoint.request(path).body(RequestBody::Empty);
    let request = request.map_err(|error| Failure::Refused(error.to_string()))?;
    let response = connection.send(request).await?;
    let status = response.status();
    let next = response.headers().get(NEXT_OFFSET).and_then(|offset| Some(offset.to_str().ok()?.to_owned()));
    let mut lines = Lines::new(response.into_body(), MAX_LINE);
    if status.is_success() {
        return Ok((next, lines));
    }
    let body = lines.rest().await.unwrap_or_default();
    let message = serde_json::from_slice::<Error>(&body).map_or(String::new(), |error| format!(": {}", error.message));
    let why = format!("{status}{message}");
    let passes = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    Err(if passes { Failure::Passing(why) } else { Failure::Refused(why) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_out_byte_for_byte() {
        let line = r#"{"partition":0,"offset":7,"key":null,"value":{"b" : 1.0,"a":"\u00e9"},"headers":[]}"#;
        assert_eq!(value(line.as_bytes()).expect("a record"), br#"{"b" : 1.0,"a":"\u00e9"}"#);
        let line = r#"{"offset":7,"value":"aGVsbG8=","value_encoding":"base64"}"#;
        assert_eq!(value(line.as_bytes()).expect("a record"), b"hello");
        assert_eq!(value(br#"{"offset":7,"value":null}"#).expect("a tombstone"), b"");
        assert!(value(b"<html>").is_err());
    }
}

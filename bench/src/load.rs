//! The load generator: one thread, prepared requests, so that what is measured is not itself.

use std::{cell::RefCell, fmt::Write as _, net::SocketAddr, path::PathBuf, rc::Rc, time::Duration};

use clap::Args;
use tokio::{task::LocalSet, time::Instant};

use crate::{
    Latency, Report,
    http::{Connection, Request, Server},
    pace::{Alarm, Schedule},
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
    /// Spreads requests over so many topics: `topic`, then `topic-1`, `topic-2` …
    #[arg(long, default_value_t = 1)]
    topics: usize,
    /// NDJSON; its lines are the records
    #[arg(long)]
    file: PathBuf,
    /// Lines of one upload; without it, each request is one record, the file's first line
    #[arg(long)]
    lines: Option<u64>,
    /// Sends `?key=/id`
    #[arg(long)]
    keyed: bool,
    /// Sends the body in chunks of this many bytes, instead of a Content-Length
    #[arg(long)]
    chunk_bytes: Option<usize>,
    /// The largest plaintext of a TLS record [default: 16384]
    #[arg(long)]
    tls_record_bytes: Option<usize>,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Requests a second over all connections: open loop, latency from the intended send; without it, closed loop
    #[arg(long)]
    rate: Option<f64>,
    /// Ends after this many requests
    #[arg(long, required_unless_present = "seconds")]
    requests: Option<u64>,
    /// Ends after this time; requests under way are finished
    #[arg(long)]
    seconds: Option<f64>,
    /// Says `ready` and waits for a line before it begins
    #[arg(long)]
    wait: bool,
}

pub(crate) fn run(options: &Options) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    let report = LocalSet::new().block_on(&runtime, load(options));
    crate::done(&report, options.wait);
}

async fn load(options: &Options) -> Report {
    let file = std::fs::read(&options.file).expect("the file of records can be read");
    let requests: Rc<[Request]> =
        (0..options.topics).map(|index| request(options, &topic_name(&options.topic, index), &file)).collect();
    let server = Server::new(options.address, options.ca.as_ref(), options.tls_record_bytes);
    let mut connections = Vec::new();
    for _ in 0..options.connections {
        connections.push(Connection::open(&server).await.expect("the bridge accepts a connection"));
    }
    crate::ready(options.wait);

    let schedule = Rc::new(Schedule::new(options.rate, options.requests, options.seconds.map(Duration::from_secs_f64)));
    let latencies = Rc::new(RefCell::new(crate::histogram()));
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let (schedule, requests, latencies) = (schedule.clone(), requests.clone(), latencies.clone());
            tokio::task::spawn_local(async move {
                let alarm = Alarm::new().expect("a timer can be made");
                while let Some((number, due)) = schedule.next() {
                    alarm.wait_until(due).await.expect("the timer works");
                    let request = &requests[number as usize % requests.len()];
                    let (status, body) = connection.exchange(request).await.expect("the bridge answers");
                    assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
                    let took = Instant::now() - due;
                    latencies.borrow_mut().saturating_record(took.as_nanos() as u64);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no request failed");
    }
    let seconds = schedule.start().elapsed().as_secs_f64();
    let latencies = latencies.borrow();
    let requests = latencies.len();
    let records = requests * options.lines.unwrap_or(1);
    Report { requests, records, seconds, latency: Some(Latency::from(&*latencies)) }
}

/// The name of the `index`th of a load's topics.
pub(crate) fn topic_name(first: &str, index: usize) -> String {
    if index == 0 { first.to_owned() } else { format!("{first}-{index}") }
}

/// The request that is sent to a topic, over and over.
fn request(options: &Options, topic: &str, file: &[u8]) -> Request {
    let lines: Vec<_> = file.split_inclusive(|byte| *byte == b'\n').collect();
    let query = if options.keyed { "?key=/id" } else { "" };
    let mut head = format!("POST /v1/topics/{topic}/records{query} HTTP/1.1\r\nHost: {}\r\n", options.address);
    let (block, repeats, end) = match options.lines {
        Some(count) => {
            head.push_str("Content-Type: application/x-ndjson\r\n");
            let rest = (count % lines.len() as u64) as usize;
            (file.to_vec(), count / lines.len() as u64, lines[..rest].concat())
        }
        None => {
            head.push_str("Content-Type: application/octet-stream\r\n");
            (Vec::new(), 0, lines[0].strip_suffix(b"\n").unwrap_or(lines[0]).to_vec())
        }
    };
    match options.chunk_bytes {
        Some(chunk_bytes) => {
            head.push_str("Transfer-Encoding: chunked\r\n\r\n");
            let mut end = chunked(&end, chunk_bytes);
            end.extend_from_slice(b"0\r\n\r\n");
            Request::new(&head, &chunked(&block, chunk_bytes), repeats, &end)
        }
        None => {
            let length = block.len() as u64 * repeats + end.len() as u64;
            write!(head, "Content-Length: {length}\r\n\r\n").expect("a String takes it");
            Request::new(&head, &block, repeats, &end)
        }
    }
}

/// `data` in chunks (RFC 9112, section 7.1), without the last one.
fn chunked(data: &[u8], chunk_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + data.len() / chunk_bytes.max(1) * 8 + 8);
    for chunk in data.chunks(chunk_bytes) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_is_cut_at_the_size_asked_for() {
        assert_eq!(chunked(b"hello world, again", 16), b"10\r\nhello world, aga\r\n2\r\nin\r\n");
        assert_eq!(chunked(b"", 16), b"");
    }
}

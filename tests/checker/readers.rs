//! The readers: members of one group, each a stream over HTTP, who come back when they are cut off.
//!
//! What the group has read is every line at least once; and within one stream, the offsets of a partition only rise.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use penstock_tests::client::Client;
use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::check::{Finding, Kind};

/// Between two attempts at a stream.
const PAUSE: Duration = Duration::from_millis(200);
/// A bridge that was killed cannot say so: its members are out after this. The least that brokers take.
const SESSION_TIMEOUT_MS: u32 = 6_000;

/// One record as a reader got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Got {
    /// The partition.
    pub(crate) partition: i32,
    /// The offset.
    pub(crate) offset: i64,
}

/// What the readers leave: the records of each stream, in order.
#[derive(Debug, Default)]
struct Journal {
    streams: Vec<Vec<Got>>,
}

/// Running readers.
#[derive(Debug)]
pub(crate) struct Readers {
    journal: Arc<Mutex<Journal>>,
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Readers {
    /// Starts `count` members of a group that reads `topic` from its beginning, at the bridge on `port`.
    pub(crate) fn start(runtime: &Handle, port: u16, topic: &str, count: usize) -> Self {
        let journal = Arc::<Mutex<Journal>>::default();
        let stop = watch::Sender::new(false);
        let request = format!(
            "GET /v1/topics/{topic}/records?group=checker&start=earliest&commit=delivered&value=base64\
             &session_timeout_ms={SESSION_TIMEOUT_MS} HTTP/1.1\r\nHost: localhost\r\n"
        );
        let tasks = (0..count).map(|_| {
            let (journal, request, mut stop) = (Arc::clone(&journal), request.clone(), stop.subscribe());
            runtime.spawn(async move {
                tokio::select! {
                    () = read(port, &request, &journal) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            })
        });
        let tasks = tasks.collect();
        Self { journal, tasks, stop }
    }

    /// Waits until every record of `logged` has been read, for at most `within`, and ends the readers.
    pub(crate) async fn stop(&mut self, logged: &BTreeSet<(i32, i64)>, within: Duration) {
        let deadline = Instant::now() + within;
        while !self.missing(logged).is_empty() && Instant::now() < deadline {
            sleep(PAUSE).await;
        }
        self.stop.send_replace(true);
        for task in &mut self.tasks {
            task.await.expect("a reader does not panic");
        }
    }

    /// How many records were read, and in how many streams.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        (journal.streams.iter().map(Vec::len).sum(), journal.streams.len())
    }

    fn missing(&self, logged: &BTreeSet<(i32, i64)>) -> Vec<(i32, i64)> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        missing(&journal.streams, logged)
    }

    /// What is wrong with what was read of `logged`.
    pub(crate) fn check(&self, logged: &BTreeSet<(i32, i64)>) -> Vec<Finding> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        check(&journal.streams, logged)
    }
}

fn missing(streams: &[Vec<Got>], logged: &BTreeSet<(i32, i64)>) -> Vec<(i32, i64)> {
    let read: BTreeSet<_> = streams.iter().flatten().map(|got| (got.partition, got.offset)).collect();
    logged.difference(&read).copied().collect()
}

/// Gaps, and offsets that fall within a stream.
fn check(streams: &[Vec<Got>], logged: &BTreeSet<(i32, i64)>) -> Vec<Finding> {
    let gap = |(partition, offset)| Finding { kind: Kind::Gap, detail: format!("{partition}@{offset} was not read") };
    let mut findings: Vec<_> = missing(streams, logged).into_iter().map(gap).collect();
    for (number, stream) in streams.iter().enumerate() {
        let mut last: BTreeMap<i32, i64> = BTreeMap::new();
        for got in stream {
            if let Some(before) = last.insert(got.partition, got.offset).filter(|before| *before >= got.offset) {
                let detail = format!("stream {number}: {}@{} after {before}", got.partition, got.offset);
                findings.push(Finding { kind: Kind::Regression, detail });
            }
        }
    }
    findings
}

/// One stream after the other, for ever.
async fn read(port: u16, request: &str, journal: &Mutex<Journal>) {
    loop {
        // However it ends, it is begun again.
        let _ = stream(port, request, journal).await;
        sleep(PAUSE).await;
    }
}

async fn stream(port: u16, request: &str, journal: &Mutex<Journal>) -> io::Result<()> {
    let mut client = Client::connect(port).await?;
    client.begin(request).await?;
    let number = {
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.streams.push(Vec::new());
        journal.streams.len() - 1
    };
    let mut rest = Vec::new();
    while let Some(mut chunk) = client.chunk().await? {
        rest.append(&mut chunk);
        let Some(end) = rest.iter().rposition(|&byte| byte == b'\n') else { continue };
        let whole: Vec<u8> = rest.drain(..=end).collect();
        let lines = whole.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let mut got = Vec::new();
        for line in lines {
            let record: Value = serde_json::from_slice(line).map_err(io::Error::other)?;
            let number = |name: &str| record[name].as_i64().ok_or_else(|| io::Error::other(record.to_string()));
            let partition = i32::try_from(number("partition")?).map_err(io::Error::other)?;
            got.push(Got { partition, offset: number("offset")? });
        }
        journal.lock().unwrap_or_else(PoisonError::into_inner).streams[number].append(&mut got);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn got(partition: i32, offset: i64) -> Got {
        Got { partition, offset }
    }

    #[test]
    fn gaps_and_regressions_are_found() {
        let logged = BTreeSet::from([(0, 0), (0, 1), (0, 3), (1, 0)]);
        let whole = [vec![got(0, 0), got(1, 0), got(0, 1)], vec![got(0, 1), got(0, 3)]];
        assert!(check(&whole, &logged).is_empty(), "what is read twice, by two streams, is in order");
        let kinds = |streams: &[Vec<Got>]| check(streams, &logged).iter().map(|f| f.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&whole[..1]), [Kind::Gap]);
        let back = [vec![got(0, 0), got(0, 1), got(0, 1), got(0, 3), got(1, 0)]];
        assert_eq!(kinds(&back), [Kind::Regression]);
    }
}

//! A broker that acknowledges and discards: what is left of a measurement when the broker costs next to nothing.
//!
//! One blocking thread a connection, one buffer a thread. Of a Produce request only the headers of its batches are
//! looked at, for the number of records, so ListOffsets tells the truth and counts can be verified as on a real
//! broker. Every topic exists with the same number of partitions, led by this broker. Messages are in the old encoding
//! (before KIP-482), which every client speaks; ApiVersions, where clients begin with the new one, is answered in both.

use std::{
    collections::HashMap,
    io::{self, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
};

use clap::Args;

#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    #[arg(long)]
    listen: SocketAddr,
    /// Partitions of every topic
    #[arg(long, default_value_t = 4)]
    partitions: i32,
}

pub(crate) fn run(options: &Options) {
    let listener = TcpListener::bind(options.listen).expect("the address is free");
    let broker =
        Arc::new(Broker { address: options.listen, partitions: options.partitions, ends: Mutex::new(HashMap::new()) });
    println!("listening");
    for socket in listener.incoming().flatten() {
        let broker = broker.clone();
        // Ends with its connection.
        std::thread::spawn(move || {
            if let Err(error) = broker.serve(&socket)
                && error.kind() != io::ErrorKind::UnexpectedEof
            {
                eprintln!("null-broker: {error}");
            }
        });
    }
}

/// Key, oldest and newest version of what is spoken here. librdkafka takes Produce 3 and Fetch 4 as the sign of record
/// batches; consumers are not served, so Fetch is only named.
const APIS: [(i16, i16, i16); 6] = [
    (PRODUCE, 3, 8),
    (FETCH, 4, 4),
    (LIST_OFFSETS, 5, 5),
    (METADATA, 4, 8),
    (API_VERSIONS, 0, 3),
    (INIT_PRODUCER_ID, 0, 1),
];
const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
const INIT_PRODUCER_ID: i16 = 22;

#[derive(Debug)]
struct Broker {
    address: SocketAddr,
    partitions: i32,
    /// The next offset of each partition, by topic.
    ends: Mutex<HashMap<Vec<u8>, Vec<i64>>>,
}

impl Broker {
    fn serve(&self, mut socket: &TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let mut input = BufReader::with_capacity(64 << 10, socket);
        let (mut frame, mut answer) = (Vec::new(), Vec::new());
        loop {
            let mut length = [0; 4];
            input.read_exact(&mut length)?;
            frame.resize(u32::from_be_bytes(length) as usize, 0);
            input.read_exact(&mut frame)?;
            answer.clear();
            answer.extend_from_slice(&[0; 4]);
            self.answer(&mut Reader(&frame), &mut answer)?;
            let length = answer.len() as u32 - 4;
            answer[..4].copy_from_slice(&length.to_be_bytes());
            socket.write_all(&answer)?;
        }
    }

    fn answer(&self, from: &mut Reader<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        let (key, version, correlation_id) = (from.i16()?, from.i16()?, from.i32()?);
        let _client_id = from.string()?;
        put(out, correlation_id.to_be_bytes());
        match key {
            API_VERSIONS => api_versions(version, out),
            METADATA => self.metadata(version, from, out)?,
            INIT_PRODUCER_ID => {
                put(out, 0_i32.to_be_bytes()); // throttle_time_ms
                put(out, 0_i16.to_be_bytes());
                put(out, 1_000_i64.to_be_bytes());
                put(out, 0_i16.to_be_bytes());
            }
            PRODUCE => self.produce(version, from, out)?,
            LIST_OFFSETS => self.list_offsets(from, out)?,
            _ => return Err(invalid("an API that is not spoken here")),
        }
        Ok(())
    }

    /// Versions 4 to 8.
    fn metadata(&self, version: i16, from: &mut Reader<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        let asked = from.i32()?;
        put(out, 0_i32.to_be_bytes()); // throttle_time_ms
        put(out, 1_i32.to_be_bytes());
        put(out, 1_i32.to_be_bytes()); // node_id
        put_string(out, self.address.ip().to_string().as_bytes());
        put(out, i32::from(self.address.port()).to_be_bytes());
        put(out, (-1_i16).to_be_bytes()); // rack
        put_string(out, b"null-broker");
        put(out, 1_i32.to_be_bytes()); // controller_id
        put(out, asked.max(0).to_be_bytes());
        for _ in 0..asked {
            put(out, 0_i16.to_be_bytes());
            put_string(out, from.string()?);
            out.push(0); // is_internal
            put(out, self.partitions.to_be_bytes());
            for index in 0..self.partitions {
                put(out, 0_i16.to_be_bytes());
                put(out, index.to_be_bytes());
                put(out, 1_i32.to_be_bytes()); // leader
                if version >= 7 {
                    put(out, 0_i32.to_be_bytes()); // leader_epoch
                }
                for _replicas_then_isr in 0..2 {
                    put(out, 1_i32.to_be_bytes());
                    put(out, 1_i32.to_be_bytes());
                }
                if version >= 5 {
                    put(out, 0_i32.to_be_bytes()); // offline_replicas
                }
            }
            if version >= 8 {
                put(out, i32::MIN.to_be_bytes()); // authorized operations: not asked for
            }
        }
        if version >= 8 {
            put(out, i32::MIN.to_be_bytes());
        }
        Ok(())
    }

    /// Versions 3 to 8.
    fn produce(&self, version: i16, from: &mut Reader<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        let _transactional_id = from.string()?;
        let (_acks, _timeout) = (from.i16()?, from.i32()?);
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let topics = from.i32()?;
        put(out, topics.to_be_bytes());
        for _ in 0..topics {
            let name = from.string()?;
            put_string(out, name);
            if !ends.contains_key(name) {
                ends.insert(name.to_vec(), vec![0; self.partitions as usize]);
            }
            let ends = ends.get_mut(name).expect("inserted");
            let partitions = from.i32()?;
            put(out, partitions.to_be_bytes());
            for _ in 0..partitions {
                let index = from.i32()?;
                let end = ends.get_mut(index as usize).ok_or_else(|| invalid("a partition that is not there"))?;
                let length = from.i32()?;
                let count = record_count(from.take(length as usize)?)?;
                put(out, index.to_be_bytes());
                put(out, 0_i16.to_be_bytes());
                put(out, end.to_be_bytes()); // base_offset
                put(out, (-1_i64).to_be_bytes()); // log_append_time_ms
                if version >= 5 {
                    put(out, 0_i64.to_be_bytes()); // log_start_offset
                }
                if version >= 8 {
                    put(out, 0_i32.to_be_bytes()); // record_errors
                    put(out, (-1_i16).to_be_bytes()); // error_message
                }
                *end += count;
            }
        }
        put(out, 0_i32.to_be_bytes()); // throttle_time_ms
        Ok(())
    }

    /// Version 5; every question is taken for the end of the log.
    fn list_offsets(&self, from: &mut Reader<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        let _replica_id = from.i32()?;
        let _isolation_level = from.take(1)?;
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        put(out, 0_i32.to_be_bytes()); // throttle_time_ms
        let topics = from.i32()?;
        put(out, topics.to_be_bytes());
        for _ in 0..topics {
            let name = from.string()?;
            put_string(out, name);
            let partitions = from.i32()?;
            put(out, partitions.to_be_bytes());
            for _ in 0..partitions {
                let (index, _leader_epoch, _timestamp) = (from.i32()?, from.i32()?, from.take(8)?);
                let end = ends.get(name).and_then(|ends| ends.get(index as usize)).copied().unwrap_or(0);
                put(out, index.to_be_bytes());
                put(out, 0_i16.to_be_bytes());
                put(out, (-1_i64).to_be_bytes()); // timestamp
                put(out, end.to_be_bytes());
                put(out, (-1_i32).to_be_bytes()); // leader_epoch
            }
        }
        Ok(())
    }
}

/// Versions 0 to 3; the last is in the compact encoding behind an old header (KIP-511).
fn api_versions(version: i16, out: &mut Vec<u8>) {
    let (error, version) = if version > 3 { (35_i16, 0) } else { (0, version) };
    put(out, error.to_be_bytes());
    if version == 3 {
        out.push(APIS.len() as u8 + 1);
    } else {
        put(out, (APIS.len() as i32).to_be_bytes());
    }
    for (key, min, max) in APIS {
        for number in [key, min, max] {
            put(out, number.to_be_bytes());
        }
        if version == 3 {
            out.push(0); // no tagged fields
        }
    }
    if version >= 1 {
        put(out, 0_i32.to_be_bytes()); // throttle_time_ms
    }
    if version == 3 {
        out.push(0);
    }
}

/// The records of the batches in one partition's part of a request, from their headers.
fn record_count(mut batches: &[u8]) -> io::Result<i64> {
    let mut count = 0;
    while !batches.is_empty() {
        let header = batches.get(..61).ok_or_else(|| invalid("a batch without its header"))?;
        let number = |at: usize| i32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
        count += i64::from(number(57));
        let length = usize::try_from(number(8)).map_err(|_| invalid("a batch of negative length"))?;
        batches = batches.get(12 + length..).ok_or_else(|| invalid("a batch longer than its request"))?;
    }
    Ok(count)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn put<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    out.extend_from_slice(&bytes);
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    put(out, (text.len() as i16).to_be_bytes());
    out.extend_from_slice(text);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| invalid("a request that ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn i16(&mut self) -> io::Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into().expect("two bytes")))
    }

    fn i32(&mut self) -> io::Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    /// Null is empty.
    fn string(&mut self) -> io::Result<&'a [u8]> {
        let length = self.i16()?.max(0);
        self.take(length as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_records::{BatchBuilder, Compression, HeaderBlock, Record, Stamp};

    #[test]
    fn records_are_counted_from_the_headers_of_all_batches() {
        let batch = |count| {
            let mut batch = BatchBuilder::new(Vec::new());
            for _ in 0..count {
                batch.append(Record { timestamp: 0, key: None, value: Some(b"value"), headers: HeaderBlock::none() });
            }
            batch.close(Compression::None).stamp(Stamp::NONE)
        };
        assert_eq!(record_count(&[batch(3), batch(1)].concat()).expect("whole batches"), 4);
        let whole = batch(2);
        assert!(record_count(&whole[..whole.len() - 1]).is_err());
        assert!(record_count(&whole[..60]).is_err());
    }
}

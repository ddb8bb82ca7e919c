//! Connections to Kafka do not grow with connections from clients.

use std::{collections::HashSet, fs, net::Ipv4Addr, os::unix::fs::MetadataExt};

use penstock_tests::{
    bridge::{Bridge, Settings},
    https::Connection,
    shared::three_brokers,
};

use crate::support::assert_counts;

const WORKERS: usize = 2;
/// Beside the workers' connections: metadata, reads, administration.
const FIXED: usize = 2;

/// Established loopback connections in the process's tables: local port, remote port, inode.
///
/// A JVM's sockets are IPv6 ones, with IPv4 addresses mapped, so both tables count.
fn established(pid: u32) -> Vec<(u16, u16, u64)> {
    let table = |name| fs::read_to_string(format!("/proc/{pid}/net/{name}")).expect("the process runs");
    let loopback = format!("{:08X}", u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets()));
    [table("tcp"), table("tcp6")]
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|row| {
            let columns: Vec<_> = row.split_whitespace().collect();
            let port = |address: &str| {
                let (host, port) = address.split_once(':')?;
                host.ends_with(&loopback).then(|| u16::from_str_radix(port, 16).ok())?
            };
            (columns[3] == "01").then_some(())?;
            Some((port(columns[1])?, port(columns[2])?, columns[9].parse().ok()?))
        })
        .collect()
}

/// How many connections the broker on `port` has accepted from the process `client`, as the broker's side of them says.
fn connections_from(client: u32, broker: u32, port: u16) -> usize {
    let sockets: HashSet<u64> = fs::read_dir(format!("/proc/{client}/fd"))
        .expect("the bridge runs as this user")
        .filter_map(|fd| Some(fs::metadata(fd.ok()?.path()).ok()?.ino()))
        .collect();
    let local: HashSet<u16> = established(client)
        .into_iter()
        .filter(|(_, remote, inode)| *remote == port && sockets.contains(inode))
        .map(|(local, ..)| local)
        .collect();
    established(broker).iter().filter(|(at, from, _)| *at == port && local.contains(from)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_clients_share_a_few_connections_to_each_broker() {
    let cluster = three_brokers();
    let bridge = Bridge::start_with(&Settings::new(&cluster.bootstrap()).set("runtime.workers", &WORKERS.to_string()));
    let topic = cluster.create_topic("clients", 12);
    let count = || {
        let (pids, ports) = (cluster.pids(), cluster.ports());
        let pairs = pids.into_iter().zip(ports);
        pairs.map(|(pid, port)| connections_from(bridge.process().pid(), pid, port)).collect::<Vec<_>>()
    };

    let mut clients = Vec::new();
    for _ in 0..500 {
        clients.push(Connection::open(bridge.port).await);
    }
    assert_eq!(bridge.metric("penstock_http_connections", &[]), 500.0);
    let mut most = [0; 3];
    for round in 0..3 {
        // All of them have a request under way at once: heads and first lines first, the ends only then.
        for (number, client) in clients.iter_mut().enumerate() {
            let partition = (number + round) % 12;
            let request = format!("POST /v1/topics/{topic}/records?partition={partition}");
            client.begin_chunked(&request, &["Content-Type: application/x-ndjson"]).await;
            client.writer.chunk(b"first\n").await;
        }
        for (most, now) in most.iter_mut().zip(count()) {
            *most = now.max(*most);
        }
        for client in &mut clients {
            client.writer.chunk(b"second\n").await;
            client.writer.last_chunk().await;
        }
        for client in &mut clients {
            assert_counts(&client.reader.answer().await.expect(200).json(), 2, 2, 0, 0);
        }
        for (most, now) in most.iter_mut().zip(count()) {
            *most = now.max(*most);
        }
    }
    for (index, most) in most.into_iter().enumerate() {
        assert!((1..=WORKERS + FIXED).contains(&most), "{most} connections to broker {}", index + 1);
        // The metric tells what the broker sees.
        let told = bridge.metric("penstock_kafka_connections", &[&format!("broker=\"{}\"", index + 1)]);
        assert!(told >= 1.0 && told <= (WORKERS + FIXED) as f64, "{told} told for broker {}", index + 1);
    }
}

//! What an open connection holds of a bridge's memory while nothing happens on it.

use std::{fs, net::SocketAddr, path::PathBuf};

use clap::Args;

use crate::http::{Connection, Request, Server};

/// Opened before the first look: what the first connections take of a process is not theirs alone.
const WARM: usize = 200;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Where the bridge listens
    #[arg(long)]
    address: SocketAddr,
    /// Its process id
    #[arg(long)]
    pid: u32,
    /// PEM file with the authority of its certificate; without it, plain HTTP
    #[arg(long)]
    ca: Option<PathBuf>,
    #[arg(long, default_value_t = 1000)]
    connections: usize,
}

pub(crate) fn run(options: &Options) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(async {
        let server = Server::new(options.address, options.ca.as_ref(), None);
        let request = Request::new("GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n", &[], 0, &[]);
        let mut open = Vec::new();
        let mut before = 0;
        for number in 0..WARM + options.connections {
            if number == WARM {
                before = resident_bytes(options.pid);
            }
            let mut connection = Connection::open(&server).await.expect("the bridge accepts");
            connection.exchange(&request).await.expect("the bridge answers");
            open.push(connection);
        }
        let each = (resident_bytes(options.pid) - before) as f64 / options.connections as f64;
        println!("{:.1} KiB a connection, of {} after one request each", each / 1024.0, options.connections);
    });
}

fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let kib: Option<u64> =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.expect("the kernel says so") * 1024
}

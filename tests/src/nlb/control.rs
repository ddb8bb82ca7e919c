//! The balancer's own interface, for scripts: HTTP, one request a connection.
//!
//! | request | does |
//! |---|---|
//! | `GET /status` | every target: its health, whether it takes new flows, its flows |
//! | `POST /register?target=IP:PORT&health=IP:PORT` | adds a target; without `health` it is checked where flows go |
//! | `POST /deregister?target=IP:PORT` | begins to drain it |
//!
//! Every answer is JSON; a 200 has the targets as they are then, anything else an `error`.

use std::{io, net::SocketAddr, sync::Arc};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{Nlb, group::Target};

/// Bytes of a request's head.
const LONGEST_HEAD: usize = 8 * 1024;

/// Answers until it is dropped.
pub async fn serve(nlb: Arc<Nlb>, listener: TcpListener) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let nlb = Arc::clone(&nlb);
            // Ends with its client. An error is that client's.
            tokio::spawn(async move { answer(&nlb, stream).await });
        }
    }
}

async fn answer(nlb: &Nlb, mut stream: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if head.len() > LONGEST_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let (status, body) = match respond(nlb, head.lines().next().unwrap_or_default()) {
        Ok(()) => ("200 OK", status(nlb)),
        Err(error) => ("400 Bad Request", json!({ "error": error })),
    };
    let body = format!("{body:#}\n");
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close");
    stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
    stream.shutdown().await
}

/// Does what a request's first line asks for.
fn respond(nlb: &Nlb, line: &str) -> Result<(), String> {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parameter = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let value = value.ok_or_else(|| format!("{name}=IP:PORT is missing"))?;
        value.replace("%3A", ":").parse::<SocketAddr>().map_err(|_| format!("{name}={value} is no IP:PORT"))
    };
    match (method, path) {
        ("GET", "/status") => Ok(()),
        ("POST", "/register") => {
            let address = parameter("target")?;
            let health = if query.contains("health=") { parameter("health")? } else { address };
            let new = nlb.register(Target { address, health });
            new.then_some(()).ok_or_else(|| format!("{address} is registered already"))
        }
        ("POST", "/deregister") => {
            let address = parameter("target")?;
            nlb.deregister(address).then_some(()).ok_or_else(|| format!("{address} is not registered"))
        }
        _ => Err(format!("{method} {path}: GET /status, POST /register or POST /deregister")),
    }
}

/// What `GET /status` answers.
pub fn status(nlb: &Nlb) -> Value {
    let targets = nlb.status().into_iter().map(|status| {
        json!({
            "target": status.target.address.to_string(),
            "health_address": status.target.health.to_string(),
            "health": status.health.to_string(),
            "takes_new_flows": status.takes_new_flows,
            "open_flows": status.open_flows,
            "flows": status.flows,
            "refused": status.refused,
        })
    });
    let listeners: Vec<_> = nlb.addresses().iter().map(ToString::to_string).collect();
    json!({ "listeners": listeners, "targets": targets.collect::<Vec<_>>() })
}

//! Health checks: each node asks each target on its own.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use super::{Check, Shared, group::Target, header};

/// Longer answers are read no further: the status line is all that counts.
const LONGEST_ANSWER: usize = 4096;

/// One node's checks of one registration, as long as it lasts.
pub(super) async fn checks(shared: Arc<Shared>, id: u64, target: Target, node: usize) {
    let settings = &shared.settings;
    let nodes = u32::try_from(settings.nodes.len()).expect("a few nodes");
    // Not all at once.
    let first = Instant::now() + settings.check_interval * u32::try_from(node).expect("a few nodes") / nodes;
    let mut turns = interval_at(first, settings.check_interval);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        if !shared.group().is_checked(id) {
            return;
        }
        let passed = timeout(settings.check_timeout, check(&shared, target, node)).await;
        let passed = matches!(passed, Ok(Ok(true)));
        shared.group().handle_check(id, node, passed, Instant::now());
    }
}

async fn check(shared: &Shared, target: Target, node: usize) -> io::Result<bool> {
    let settings = &shared.settings;
    let mut stream = shared.connect(node, target.health).await?;
    if settings.proxy_protocol {
        stream.write_all(&header::of_health_check(settings.checksum)).await?;
    }
    let Check::Http(path) = &settings.check else {
        return Ok(true);
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}:{}\r\nConnection: close\r\nUser-Agent: ELB-HealthChecker/2.0\r\n\
         Accept-Encoding: gzip, compressed\r\n\r\n",
        settings.nodes[node],
        target.health.port()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while answer.len() < LONGEST_ANSWER && stream.read_buf(&mut answer).await? > 0 {}
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}

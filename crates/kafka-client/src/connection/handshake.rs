//! From a byte stream to a connection: who are you, what do you speak, who are we.

use super::{
    Channel, Connection, Driver, Queued, Settings, Shared,
    login::{Exchange, Renewal},
};
use crate::{
    Error, ErrorCode,
    messages::{ApiVersionsRequest, ApiVersionsResponse, ProduceRequest, Request},
    transport::Io,
};
use std::sync::{
    Arc,
    atomic::{AtomicI32, AtomicU64},
};
use tokio::{sync::mpsc, task::AbortHandle, time::Instant};

impl Connection {
    /// Starts the driver of `io` on the current runtime, agrees on versions and logs in, if there is something to log in
    /// with.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(crate) async fn open(io: Box<dyn Io>, settings: Settings, exchange: Option<Exchange>) -> Result<Self, Error> {
        let (queue, requests) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            settings,
            next_correlation_id: AtomicI32::new(0),
            opened: Instant::now(),
            throttled_ms: AtomicU64::new(0),
        });
        // Ends with the connection or after its last handle; nobody needs its result.
        let driver = tokio::spawn(Driver::new(io, requests, shared.clone()).run());
        let unless_open = AbortOnDrop(Some(driver.abort_handle()));
        let channel = Channel { queue, shared };
        let versions = Arc::new(negotiate(&channel).await?);
        // After the versions, before anything else (KIP-43).
        if let Some(exchange) = exchange {
            let login = exchange.login().clone();
            if let Some(lifetime) = exchange.run(channel.clone(), &versions).await? {
                // Fails only if the connection is gone, which the first request will see.
                let _ = channel.queue.send(Queued::Renewal(Renewal::new(login, versions.clone(), lifetime)));
            }
        }
        unless_open.disarm();
        Ok(Self { produce_version: versions.agree(&ProduceRequest::API), versions, channel })
    }
}

/// Ends the driver of a connection that did not come about.
struct AbortOnDrop(Option<AbortHandle>);

impl AbortOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// ApiVersions in the newest version, and again in an older one if the broker says so (KIP-511). Kafka 2.2 and 2.3
/// refuse version 3 with an empty list: what they speak then is version 0 at least.
async fn negotiate(channel: &Channel) -> Result<ApiVersionsResponse, Error> {
    let request = ApiVersionsRequest { software_name: "penstock", software_version: env!("CARGO_PKG_VERSION") };
    let api = ApiVersionsRequest::API;
    let limit = channel.shared.settings.request_timeout;
    let mut response = channel.send(&request, api.max, limit).await?;
    if response.error == ErrorCode::UNSUPPORTED_VERSION {
        let version = response.agree(&api).unwrap_or(0).min(api.max - 1);
        response = channel.send(&request, version, limit).await?;
    }
    match response.error.ok() {
        Ok(()) => Ok(response),
        Err(code) => Err(Error::broker(api.name, code, None)),
    }
}

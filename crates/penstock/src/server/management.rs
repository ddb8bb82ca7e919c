//! The management listener: `/livez`, `/readyz`, `/metrics`, in plain HTTP for load balancers and scrapers.
//!
//! Readiness is about this process, not about Kafka: ready once a broker has answered, unready again only when a stop
//! is under way. Were it unready whenever Kafka is, a broker outage would take the whole fleet out of the balancer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use kafka_client::Cluster;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::proxy_protocol::skip_header;
use crate::http1::{self, BadHead, Body, Limits, ResponseBody, Service, Stop};
use crate::metrics::Metrics;

/// Connections served at once: health checks and scrapers are few.
const MAX_CONNECTIONS: usize = 256;
/// For a PROXY header and the first byte behind it.
const FRONT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections live longer than any scraper's interval.
const LIMITS: Limits = Limits {
    idle_timeout: Duration::from_secs(120),
    head_timeout: Duration::from_secs(5),
    max_age: None,
    head_bytes: 16 * 1024,
};
/// A pause after an error of accept(2).
const BACKOFF: Duration = Duration::from_millis(100);
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What the management listener tells.
#[derive(Debug)]
pub(crate) struct Management {
    pub(crate) cluster: Cluster,
    pub(crate) metrics: Metrics,
    /// A stop is under way.
    pub(crate) stopping: AtomicBool,
}

impl Management {
    /// Starts a thread that serves until `stop`; what is being answered then is finished. A thread of its own, so that
    /// health is told however busy the workers are.
    pub(crate) fn start(
        self: Arc<Self>,
        listener: std::net::TcpListener,
        stop: CancellationToken,
    ) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        std::thread::Builder::new()
            .name("management".into())
            .spawn(move || LocalSet::new().block_on(&runtime, self.serve(listener, stop)))
    }

    async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accept = async || -> io::Result<_> {
            let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
            Ok((listener.accept().await?.0, permit))
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept() => match accepted {
                    Ok((stream, permit)) => {
                        let (management, stop) = (self.clone(), stop.clone());
                        connections.spawn_local(async move {
                            // Health checks come and go; what goes wrong with one is no news.
                            if let Err(error) = management.connection(stream, stop).await {
                                tracing::trace!(%error, "a management connection ended");
                            }
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no management connection can be accepted");
                        tokio::time::sleep(BACKOFF).await;
                    }
                }
            }
        }
        connections.close();
        connections.wait().await;
    }

    async fn connection(self: Arc<Self>, mut stream: TcpStream, stop: CancellationToken) -> io::Result<()> {
        let front = tokio::select! {
            front = tokio::time::timeout(FRONT_TIMEOUT, skip_header(&mut stream)) => front??,
            () = stop.cancelled() => return Ok(()),
        };
        let (read, write) = stream.into_split();
        let stream = tokio::io::join(io::Cursor::new(front).chain(read), write);
        http1::serve(stream, &*self, LIMITS, Stop::new(stop)).await;
        Ok(())
    }

    fn readiness(&self) -> (StatusCode, String) {
        if self.stopping.load(Ordering::Relaxed) {
            return (StatusCode::SERVICE_UNAVAILABLE, "draining: this instance is stopping\n".to_owned());
        }
        if self.cluster.metadata().generation == 0 {
            return (StatusCode::SERVICE_UNAVAILABLE, "starting: no broker has answered yet\n".to_owned());
        }
        let connections: usize = self.cluster.connection_counts().values().sum();
        let kafka = match connections {
            0 => "kafka: no connection to any broker\n".to_owned(),
            count => format!("kafka: {count} connections\n"),
        };
        (StatusCode::OK, format!("ready\n{kafka}"))
    }
}

impl Service for Management {
    async fn call(&self, request: Request<Body>) -> Response<ResponseBody> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" => answer(StatusCode::OK, TEXT, "alive\n".to_owned()),
            "/readyz" => {
                let (status, body) = self.readiness();
                answer(status, TEXT, body)
            }
            "/metrics" => {
                answer(StatusCode::OK, HeaderValue::from_static(Metrics::CONTENT_TYPE), self.metrics.render())
            }
            _ => answer(StatusCode::NOT_FOUND, TEXT, "/livez, /readyz or /metrics\n".to_owned()),
        }
    }

    fn refuse(&self, head: BadHead) -> Response<ResponseBody> {
        answer(head.status, TEXT, format!("{}\n", head.message))
    }
}

fn answer(status: StatusCode, media: HeaderValue, body: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

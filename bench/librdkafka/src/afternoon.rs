//! The bridge of one afternoon, as fair as an afternoon allows: bounded, no record is answered for before Kafka has it,
//! the body is read as it comes. What it does not do: order across retries, per-line outcomes, limits, a drain.

use std::{collections::VecDeque, convert::Infallible, net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord, future_producer::DeliveryFuture},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Records of one request that librdkafka may hold at a time.
const IN_FLIGHT: usize = 100_000;

#[derive(Args)]
pub struct Options {
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    listen: SocketAddr,
    /// PEM files. Without them: plain HTTP.
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    #[arg(long)]
    key: Option<PathBuf>,
    #[arg(long, default_value_t = 5)]
    linger_ms: u32,
}

type Refusal = (StatusCode, String);

pub fn run(options: Options) {
    // One thread for HTTP, as the bridge has in the same measurement; librdkafka brings its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(serve(options));
}

async fn serve(options: Options) {
    let producer: FutureProducer =
        crate::producer_config(&options.bootstrap, options.linger_ms).create().expect("librdkafka takes its settings");
    let tls = options.certificate.zip(options.key).map(|(certificate, key)| {
        let chain = CertificateDer::pem_file_iter(certificate).expect("the certificate can be read");
        let chain = chain.collect::<Result<_, _>>().expect("the certificate is PEM");
        let key = PrivateKeyDer::from_pem_file(key).expect("the key can be read");
        let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        TlsAcceptor::from(Arc::new(config.expect("certificate and key belong together")))
    });
    let listener = TcpListener::bind(options.listen).await.expect("the address is free");
    println!("listening");
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let _ = socket.set_nodelay(true);
        let (producer, tls) = (producer.clone(), tls.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, producer.clone()));
            match tls {
                Some(tls) => {
                    if let Ok(stream) = tls.accept(socket).await {
                        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                    }
                }
                None => {
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                }
            }
        });
    }
}

async fn answer(request: Request<Incoming>, producer: FutureProducer) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match produce(request, producer).await {
        Ok(written) => (StatusCode::OK, format!(r#"{{"written":{written}}}"#)),
        Err(refusal) => refusal,
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    Ok(response)
}

async fn produce(request: Request<Incoming>, producer: FutureProducer) -> Result<u64, Refusal> {
    let topic = request.uri().path().strip_prefix("/v1/topics/").and_then(|rest| rest.strip_suffix("/records"));
    let topic = topic.ok_or((StatusCode::NOT_FOUND, String::new()))?.to_owned();
    let lines = request.headers().get("content-type").is_some_and(|value| value == "application/x-ndjson");
    let mut body = request.into_body();
    let mut sends = Sends { producer, topic, waiting: VecDeque::new(), written: 0 };
    if !lines {
        let whole = body.collect().await.map_err(bad_body)?.to_bytes();
        sends.send(&whole).await?;
        return sends.finish().await;
    }
    let mut carry = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.map_err(bad_body)?.into_data() else { continue };
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &chunk) {
            if carry.is_empty() {
                sends.send(&chunk[start..end]).await?;
            } else {
                carry.extend_from_slice(&chunk[start..end]);
                sends.send(&carry).await?;
                carry.clear();
            }
            start = end + 1;
        }
        carry.extend_from_slice(&chunk[start..]);
    }
    if !carry.is_empty() {
        sends.send(&carry).await?;
    }
    sends.finish().await
}

fn bad_body(error: hyper::Error) -> Refusal {
    (StatusCode::BAD_REQUEST, error.to_string())
}

/// One request's records on their way.
struct Sends {
    producer: FutureProducer,
    topic: String,
    waiting: VecDeque<DeliveryFuture>,
    written: u64,
}

impl Sends {
    async fn send(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.waiting.len() == IN_FLIGHT {
            self.wait_for_oldest().await?;
        }
        loop {
            let record = FutureRecord::<(), [u8]>::to(&self.topic).payload(value);
            let error = match self.producer.send_result(record) {
                Ok(delivery) => {
                    self.waiting.push_back(delivery);
                    return Ok(());
                }
                Err((error, _)) => error,
            };
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(unavailable(error));
            }
            if self.waiting.is_empty() {
                // Full of other requests' records.
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            } else {
                self.wait_for_oldest().await?;
            }
        }
    }

    async fn wait_for_oldest(&mut self) -> Result<(), Refusal> {
        if let Some(delivery) = self.waiting.pop_front() {
            match delivery.await {
                Ok(Ok(_)) => self.written += 1,
                Ok(Err((error, _))) => return Err(unavailable(error)),
                Err(_) => return Err((StatusCode::INTERNAL_SERVER_ERROR, "the producer has ended".to_owned())),
            }
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<u64, Refusal> {
        while !self.waiting.is_empty() {
            self.wait_for_oldest().await?;
        }
        Ok(self.written)
    }
}

fn unavailable(error: KafkaError) -> Refusal {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

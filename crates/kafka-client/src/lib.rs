//! A client of Kafka's wire protocol. Contract sketch: bodies come next.
#![allow(missing_docs, clippy::todo, unused_variables, dead_code, reason = "contract sketch")]
use bytes::Bytes;
use std::{collections::HashMap, future::Future, io, pin::Pin, sync::Arc, time::Duration};
use tokio::{io::{AsyncRead, AsyncWrite}, sync::watch};

// ---- names ----
/// A topic's id (KIP-516); all zero where the cluster has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TopicId(pub [u8; 16]);
impl TopicId { pub const ZERO: Self = Self([0; 16]); }
/// Kafka's error code, with its name, `is_retriable` as Java's, and `invalidates_metadata`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub i16);
impl ErrorCode { pub const NONE: Self = Self(0); /* … all 126, as consts */ pub fn is_ok(self) -> bool { self.0 == 0 } pub fn name(self) -> &'static str { todo!() } pub fn is_retriable(self) -> bool { todo!() } }

// ---- transport ----
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
/// How a byte stream to `host:port` is opened (TCP, TLS, or a test's own).
pub trait Connector: Send + Sync + std::fmt::Debug {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;
}

// ---- configuration ----
#[derive(Debug, Clone)]
pub struct Config {
    pub bootstrap_servers: Vec<String>,
    pub client_id: String,
    pub rack: Option<String>,
    /// None: plaintext.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Tests put their own transport here.
    pub connector: Option<Arc<dyn Connector>>,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
    pub reconnect_backoff: Duration,
    pub reconnect_backoff_max: Duration,
    pub metadata_max_age: Duration,
    pub max_frame_bytes: usize,
}
impl Default for Config { fn default() -> Self { todo!() } }

// ---- errors ----
/// Why a call did not bring an answer. Retry, refresh, reject or give up: see the predicates.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("sketch")] Sketch,
}
impl Error {
    /// False only if no byte of the request can have reached the broker.
    pub fn maybe_sent(&self) -> bool { todo!() }
    /// The broker's answer, where it was one.
    pub fn code(&self) -> Option<ErrorCode> { todo!() }
}

// ---- metadata ----
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker { pub id: i32, pub host: Arc<str>, pub port: u16, pub rack: Option<Arc<str>> }
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo { pub leader: Option<i32>, /// -1 where unknown
    pub leader_epoch: i32, pub replicas: Vec<i32>, pub in_sync: Vec<i32> }
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo { pub name: Arc<str>, pub id: TopicId, pub internal: bool, pub partitions: Vec<PartitionInfo> }
/// One immutable snapshot. Topics are those somebody asked for and used lately.
#[derive(Debug, Default)]
pub struct Metadata { pub generation: u64, pub cluster_id: Option<Arc<str>>, pub controller: Option<i32>, pub brokers: HashMap<i32, Broker>, pub topics: HashMap<Arc<str>, Arc<TopicInfo>> }

#[derive(Debug, Clone, thiserror::Error)]
pub enum TopicError {
    #[error("no such topic")] Unknown,
    #[error("not authorized")] Denied,
    #[error("invalid topic name")] InvalidName,
    /// The cluster could not be asked in time.
    #[error("cluster unavailable: {0}")] Unavailable(Arc<Error>),
}

// ---- the cluster ----
/// The shared handle: metadata, control requests, fetches. Cheap to clone, usable from every worker's runtime.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<()>);
impl Cluster {
    /// Starts the background metadata task on the current runtime. Does not wait for a broker and does not fail for want of one.
    pub fn start(config: Config) -> Self { todo!() }
    pub fn metadata(&self) -> Arc<Metadata> { todo!() }
    /// The generation of the newest snapshot; changes with every new one. `generation == 0`: no broker answered yet.
    pub fn subscribe(&self) -> watch::Receiver<u64> { todo!() }
    /// From the snapshot if it is there; else asks (one refresh at a time, names coalesced). An unknown name is remembered for a second.
    /// # Cancel safety: safe.
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicInfo>, TopicError> { todo!() }
    /// Asks for a refresh soon (coalesced, rate-limited by backoff): after NOT_LEADER, a disconnect, a stale id.
    pub fn request_refresh(&self) { todo!() }
    /// KIP-951: a newer leader told in a response. Accepted only with a newer epoch; a refresh is requested anyway.
    pub fn apply_leader_hint(&self, topic: &str, partition: i32, leader: i32, leader_epoch: i32, endpoints: &[Broker]) { todo!() }
    /// A new connection to a broker, versions negotiated. The caller owns it (produce workers have one per broker).
    pub async fn dial(&self, broker: i32) -> Result<Connection, Error> { todo!() }
    /// InitProducerId without a transactional id (KIP-98).
    pub async fn init_producer_id(&self) -> Result<ProducerIdentity, Error> { todo!() }
    pub async fn list_topics(&self) -> Result<Vec<Arc<TopicInfo>>, Error> { todo!() }
    /// Waits until every partition's leader is known here (bounded).
    pub async fn create_topic(&self, name: &str, partitions: i32, replication_factor: i16, configs: &[(String, Option<String>)]) -> Result<(), Error> { todo!() }
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> { todo!() }
    pub async fn describe_topic_configs(&self, name: &str) -> Result<Vec<TopicConfig>, Error> { todo!() }
    pub async fn list_offset(&self, topic: &TopicInfo, partition: i32, at: OffsetSpec) -> Result<ListedOffset, Error> { todo!() }
    /// One partition read from its leader; up to `max_wait` for the first byte. Leader moves are followed inside.
    pub async fn fetch(&self, topic: &TopicInfo, partition: i32, offset: i64, max_bytes: i32, max_wait: Duration) -> Result<Fetched, Error> { todo!() }
    /// Open connections per broker, for the metric.
    pub fn connection_counts(&self) -> HashMap<i32, usize> { todo!() }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerIdentity { pub id: i64, pub epoch: i16 }
#[derive(Debug, Clone)]
pub struct TopicConfig { pub name: String, pub value: Option<String>, pub is_default: bool, pub is_sensitive: bool, pub read_only: bool }
#[derive(Debug, Clone, Copy)]
pub enum OffsetSpec { Earliest, Latest, Timestamp(i64) }
#[derive(Debug, Clone, Copy)]
pub struct ListedOffset { /// None: no record at or after that time.
    pub offset: Option<i64>, pub timestamp: i64, pub leader_epoch: i32 }
#[derive(Debug, Clone)]
pub struct Fetched { pub high_watermark: i64, pub last_stable_offset: i64, pub log_start_offset: i64, pub records: Bytes }

// ---- one connection ----
/// One pipelined connection. Cheap to clone. Poisoned as a whole on any framing doubt; a poisoned one answers every call with an error.
#[derive(Debug, Clone)]
pub struct Connection(Arc<()>);
impl Connection {
    /// Enqueues; bytes are written by the connection's own task, so dropping what comes back never tears a frame.
    /// Resolves once the broker answered, the request timed out (then the connection is poisoned) or the connection ended.
    pub fn produce(&self, request: ProduceRequest) -> PendingProduce { todo!() }
    pub fn is_closed(&self) -> bool { todo!() }
    /// Ends when the connection is gone.
    pub async fn closed(&self) { todo!() }
    /// Until when the broker asked us not to send (throttle_time_ms, KIP-219).
    pub fn throttled_until(&self) -> Option<tokio::time::Instant> { todo!() }
    /// The Produce version agreed on: 13 and later name topics by id.
    pub fn produce_version(&self) -> i16 { todo!() }
}
/// acks=all always.
#[derive(Debug)]
pub struct ProduceRequest { /// How long the broker may wait for its replicas.
    pub timeout: Duration, pub topics: Vec<ProduceTopic> }
#[derive(Debug)]
pub struct ProduceTopic { pub name: Arc<str>, pub id: TopicId, pub partitions: Vec<ProducePartition> }
/// `records`: one stamped batch, written as it is by a vectored write.
#[derive(Debug)]
pub struct ProducePartition { pub index: i32, pub records: Bytes }
#[derive(Debug)]
pub struct PendingProduce(());
impl Future for PendingProduce { type Output = Result<ProduceResponse, Error>; fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> { todo!() } }
#[derive(Debug)]
pub struct ProduceResponse { pub throttle: Duration, pub topics: Vec<ProduceTopicResponse>, /// KIP-951
    pub endpoints: Vec<Broker> }
/// `name` is empty where the version names topics by id; `id` is zero where it names them by name.
#[derive(Debug)]
pub struct ProduceTopicResponse { pub name: Arc<str>, pub id: TopicId, pub partitions: Vec<ProducePartitionResponse> }
#[derive(Debug)]
pub struct ProducePartitionResponse { pub index: i32, pub error: ErrorCode, pub base_offset: i64, /// -1: CreateTime
    pub log_append_time: i64, pub log_start_offset: i64, /// batch index, message (KIP-467)
    pub record_errors: Vec<(i32, Option<String>)>, pub message: Option<String>, /// KIP-951: id, epoch
    pub current_leader: Option<(i32, i32)> }

//! A client of Kafka's wire protocol: connections, versions, metadata, produce, fetch, topics.
//!
//! In reading order:
//!
//! - [`wire`]: the primitive types, bounds-checked;
//! - [`messages`]: one API a file, each message a plain struct;
//! - [`sasl`]: logging in, each mechanism a pure state machine;
//! - `transport`: TCP and TLS, or a test's own byte streams;
//! - `connection`: one pipelined connection, its driver task and its handshake;
//! - `metadata`: the snapshot of the cluster, and the pure rules by which an answer changes it;
//! - `cluster`: the shared handle, its refresher task, and the requests that follow leaders, controllers and coordinators;
//! - `consumer`: reading, as one of a group or alone.
//!
//! Nothing here happens per record but in [`Cursor`], which walks what a fetch brought: a Produce request carries finished
//! batches, a fetch brings them as they are.
//!
//! No bytes from a broker panic, abort, or make the client hold more than a small multiple of their own size: decoders
//! are ours, check every length and count against what is there, and a connection that says anything doubtful is
//! closed.

mod cluster;
mod config;
mod connection;
mod consumer;
mod error;
mod error_code;
pub mod messages;
mod metadata;
mod names;
pub mod sasl;
mod transport;
pub mod wire;

pub use cluster::{BrokerStats, Cluster, Fetched, GroupOffset, ListedOffset, Membership, OffsetSpec, TopicError};
pub use config::Config;
pub use connection::{Connection, PendingProduce};
pub use consumer::{
    Account, Assignor, Consumer, ConsumerConfig, ConsumerError, Cursor, Held, OffsetReset, PartitionRecords, Room,
    TopicPartition, Unaccounted, Wants,
};
pub use error::Error;
pub use error_code::ErrorCode;
pub use messages::{
    Acl, AclFilter, AclOperation, AclPatternType, AclPermission, AclResourceType, ConfigChange, ConfigEntry,
    ConfigResource, ConfigSource, ConfigSynonym, DescribedGroup, DescribedMember, ListedGroup, NewTopic, Reassignment,
};
pub use messages::{
    Isolation, ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopic,
    ProduceTopicResponse,
};
pub use metadata::{Metadata, PartitionInfo, TopicInfo};
pub use names::{Broker, ProducerIdentity, TopicId};
pub use transport::{Connecting, Connector, Io, Tls};

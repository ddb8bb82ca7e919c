//! The bridge as a client meets it: real sockets on loopback, an in-process Kafka behind it.

mod confluent_consumers;
mod confluent_v2;
mod confluent_v3;
mod consume;
mod cors;
mod drain;
mod groups;
mod harness;
mod identity;
mod metrics;
mod produce;
mod progress;
mod proxy_protocol;
mod refusals;
mod schema_registry;
mod telemetry;
mod tls;
mod tokens;
mod topics;

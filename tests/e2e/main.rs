//! End-to-end tests: real clients, the real bridge, a real Apache Kafka. One binary, so that clusters are shared.

mod fixture;

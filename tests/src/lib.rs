//! End-to-end tests on a real Apache Kafka.

//! End-to-end tests: real clients, the real bridge, a real Apache Kafka. One binary, so that clusters are shared.
//!
//! In reading order: the main job ([`uploads`], [`lines`], [`records`], [`keys`], [`progress`], [`encodings`],
//! [`codecs`]), what is around it ([`topics`], [`reads`], [`groups`], [`transactions`], [`confluent`], [`confluent_v3`], [`schemas`], [`openapi`], [`management`], [`configuration`], [`drain`],
//! [`fleet`], [`front_door`], [`authentication`], [`identities`]), then size and failure ([`connections`], [`large`], [`overload`], [`brokers`], [`racks`]), the command line
//! ([`upload_command`], [`tail_command`]), and the [`fixture`] itself.

mod authentication;
mod brokers;
mod codecs;
mod configuration;
mod confluent;
mod confluent_v3;
mod connections;
mod drain;
mod encodings;
mod fixture;
mod fleet;
mod front_door;
mod groups;
mod identities;
mod keys;
mod large;
mod lines;
mod management;
mod openapi;
mod overload;
mod progress;
mod racks;
mod reads;
mod records;
mod schemas;
mod support;
mod tail_command;
mod topics;
mod transactions;
mod upload_command;
mod uploads;

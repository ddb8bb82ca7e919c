//! Confluent's REST API, so that clients of its REST Proxy, and of bridges that answer like it, work unchanged.
//!
//! What both versions share is here; [`v2`] is the API of `/topics`, `/consumers` and `/brokers`, [`v3`] that of `/v3`.
//!
//! * [`media`]: what a body is, and what an answer should be, by their media types
//! * [`embedded`]: keys and values inside of JSON documents: from bytes, and to bytes
//! * [`schema`]: the formats that need a Schema Registry
//! * [`error`]: Confluent's numbers
//!
//! Where the original is strict for no use, this is not: media types may have parameters or be missing. Where it loses
//! something, this does not: a JSON value passes byte for byte, so `1.10` stays `1.10` (P9).

pub(crate) mod embedded;
pub(crate) mod error;
pub(crate) mod media;
pub(crate) mod schema;
pub(crate) mod v2;
pub(crate) mod v3;

//! What the fuzz targets do with an input, as plain functions: the fuzzer calls them with what it makes up, `cargo test` with
//! what is in `seeds/`.

pub mod connection;
pub mod content_encoding;
pub mod documents;
pub mod http1;
pub mod json_pointer;
pub mod ndjson;
pub mod proxy_protocol;
pub mod record_batch;
pub mod responses;
pub mod schema_registry;

// What the modules of the bridge that are included above name by `crate::`.
#[rustfmt::skip]
#[path = "../../crates/penstock/src/json.rs"]
#[allow(dead_code, reason = "a target uses what it needs")]
mod json;

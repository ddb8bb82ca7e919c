//! The bridge.

mod auth;
pub mod cli;
pub mod client;
pub mod config;
pub mod credentials;
#[cfg(feature = "demo")]
pub mod demo;
mod http;
mod http1;
mod json;
pub mod log;
pub mod metrics;
mod schema_registry;
pub mod server;
pub mod tail;
mod telemetry;
pub mod upload;

//! The bridge.

pub mod cli;
pub mod config;
mod http;
pub mod log;
pub mod metrics;
pub mod server;

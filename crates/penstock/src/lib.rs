//! The bridge.

pub mod cli;
pub mod config;
pub mod log;
pub mod metrics;

//! The bridge.

pub mod config;
pub mod metrics;

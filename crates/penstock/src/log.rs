//! Logs: `tracing` events to standard error, as JSON or as text.
//!
//! Never a record's key or value, never a header's; at most one line a request, at debug, and none a record.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::config::{Log, LogFormat};

/// Sends this process's events to standard error from now on. The first call counts.
///
/// # Panics
///
/// When `log.level` is not a level: a resolved configuration has been through [`parse_level`].
pub fn init(log: &Log) {
    let filter = parse_level(&log.level).expect("checked when the configuration was read");
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(io::stderr);
    let result = match log.format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_current_span(false)).try_init(),
        LogFormat::Text => registry.with(layer.with_ansi(io::stderr().is_terminal())).try_init(),
    };
    // Somebody else's subscriber, a test's for one, stays.
    drop(result);
}

/// A level, then `target=level` pairs.
///
/// # Errors
///
/// What the text must be.
pub fn parse_level(text: &str) -> Result<EnvFilter, String> {
    let well_formed = text.split(',').all(|part| {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        ["off", "error", "warn", "info", "debug", "trace"].contains(&level)
    });
    let problem = "must be off, error, warn, info, debug or trace, then target=level pairs, comma separated";
    if well_formed { EnvFilter::try_new(text).map_err(|_| problem.to_owned()) } else { Err(problem.to_owned()) }
}

//! Logs: `tracing` events to standard error, as JSON or as text.
//!
//! Never a record's key or value, never a header's or a query's; at most one line a request, where `log.requests` asks
//! for it, and none a record. A line that is written on behalf of a request that is part of a trace says so.
//!
//! Workers do not wait for whoever reads standard error: lines go through a bounded queue to a thread that writes them,
//! and one for which there is no room is dropped and counted.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal};
use std::sync::OnceLock;

use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::{Format, Full, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, fmt as layer, prelude::*};

use crate::config::{Log, LogFormat};
use crate::telemetry::scope;

/// The target of the lines of `log.requests`, whatever `log.level` says.
pub(crate) const REQUESTS: &str = "requests";

/// Lines that wait to be written. Most have a few hundred bytes, none more than a few thousand.
const QUEUED_LINES: usize = 8192;

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Sends this process's events to standard error from now on, until the guard is dropped, which waits a second at the most
/// for what is queued. The first call counts.
///
/// # Panics
///
/// When `log.level` is not a level: a resolved configuration has been through [`parse_level`].
pub fn init(log: &Log) -> Guard {
    let filter = parse_level(&log.level).expect("checked when the configuration was read");
    let requests = if log.requests { "requests=info" } else { "requests=off" };
    let filter = filter.add_directive(requests.parse().expect("a directive"));
    // Standard error has no buffer of its own; this one is flushed whenever the queue is empty.
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUED_LINES)
        .thread_name("log")
        .finish(BufWriter::with_capacity(64 * 1024, io::stderr()));
    let dropped = writer.error_counter();
    let registry = tracing_subscriber::registry().with(filter);
    let result = match log.format {
        LogFormat::Json => {
            let json = layer::format().json().flatten_event(true).with_current_span(false);
            let layer = layer::layer().with_writer(writer).fmt_fields(JsonFields::new());
            registry.with(layer.event_format(Traced(json))).try_init()
        }
        LogFormat::Text => {
            let text = layer::format().with_ansi(io::stderr().is_terminal());
            registry.with(layer::layer().with_writer(writer).event_format(Traced(text))).try_init()
        }
    };
    // Somebody else's subscriber, a test's for one, stays.
    if result.is_ok() {
        let _ = DROPPED.set(dropped);
    }
    Guard { _worker: guard }
}

/// Keeps the log being written.
#[must_use = "the log ends with it"]
#[derive(Debug)]
pub struct Guard {
    _worker: WorkerGuard,
}

/// Lines that were dropped because standard error took them too slowly.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |counter| counter.dropped_lines() as u64)
}

/// Adds the trace of the request under way to a line, if there is one.
struct Traced<F>(F);

impl<S, N, T> FormatEvent<S, N> for Traced<Format<Json, T>>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
    Format<Json, T>: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(trace_id) = trace_id(event) else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::with_capacity(512);
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let object = line.trim_end().strip_suffix('}').ok_or(fmt::Error)?;
        writeln!(writer, "{object},\"trace_id\":\"{trace_id:032x}\"}}")
    }
}

/// Likewise as text; and one event is one line, whatever is in it.
impl<S, N, T> FormatEvent<S, N> for Traced<Format<Full, T>>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
    Format<Full, T>: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::with_capacity(512);
        self.0.format_event(context, Writer::new(&mut line), event)?;
        for piece in line.trim_end().split_inclusive(['\n', '\r']) {
            match piece.strip_suffix(['\n', '\r']) {
                None => writer.write_str(piece)?,
                Some(text) => write!(writer, "{text}{}", piece[text.len()..].escape_default())?,
            }
        }
        match trace_id(event) {
            Some(trace_id) => writeln!(writer, " trace_id={trace_id:032x}"),
            None => writeln!(writer),
        }
    }
}

/// The request's own line, written when the request is over, says it itself.
fn trace_id(event: &Event<'_>) -> Option<u128> {
    if event.metadata().target() == REQUESTS { None } else { scope::current(|scope| scope.trace.context.trace_id) }
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

//! `GET I/records`: what there is, as soon as there is something.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::CONTENT_TYPE;
use kafka_client::{Consumer, PartitionRecords, Room};
use kafka_records::ReadRecord;
use tokio::time::Instant;

use super::instances::{Instance, of_consumer};
use crate::config::{Dialect, Verb};
use crate::http::Context;
use crate::http::access::Resource;
use crate::http::caller::Caller;
use crate::http::confluent::embedded::{EmbeddedFormat, encode};
use crate::http::confluent::error::{self, no_instance};
use crate::http::confluent::media;
use crate::http::confluent::schema::{self, Deserializer};
use crate::http::error::ApiError;
use crate::http::params::Query;
use crate::http::respond::Response;
use crate::http1::ResponseBody;
use crate::json::{write_number, write_string};

/// The longest that a read waits.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(60);
/// How long one waits that does not say it.
const WAIT: Duration = Duration::from_secs(1);
/// Bytes of keys and values in an answer.
const MAX_BYTES: usize = 16 * 1024 * 1024;
const DEFAULT_BYTES: usize = 4 * 1024 * 1024;
/// Records in an answer.
const MAX_RECORDS: usize = 100_000;

/// Reads with an instance and answers.
pub(super) async fn read(
    context: &Context,
    caller: &Caller,
    instance: &Arc<Instance>,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Response, ApiError> {
    let format = instance.settings.format;
    let accepted = media::accepted_formats(headers);
    if !accepted.is_empty() && !accepted.contains(&format) {
        return Err(ApiError::new(
            error::OTHER_FORMAT,
            format!(
                "The requested embedded data format does not match the deserializer for this consumer instance: it is {}",
                format.name()
            ),
        ));
    }
    let mut query = Query::parse(query)?;
    let wait = match query.take("timeout") {
        None => instance.settings.timeout.unwrap_or(WAIT),
        Some(text) => text
            .parse()
            .map(Duration::from_millis)
            .map_err(|_| ApiError::bad_request("timeout is a number of milliseconds"))?,
    };
    let most = match query.take("max_bytes") {
        None => DEFAULT_BYTES,
        // Some clients say -1 for no bound.
        Some(text) => match text.parse::<i64>() {
            Ok(bytes) => usize::try_from(bytes).map_or(DEFAULT_BYTES, |bytes| bytes.clamp(1, MAX_BYTES)),
            Err(_) => return Err(ApiError::bad_request("max_bytes is a number of bytes")),
        },
    };
    // Rules may have changed since these were subscribed to or assigned.
    let assigned = instance.consumer.assignment().into_iter().map(|(topic, _)| topic);
    let topics: BTreeSet<Arc<str>> = instance.consumer.subscription().into_iter().chain(assigned).collect();
    for topic in topics {
        context.access.permit(caller, Resource::Topic(&topic), &[Verb::Consume])?;
    }
    if context.budget.refuses_new() {
        return Err(ApiError::overloaded());
    }
    let deadline = Instant::now() + wait.min(MAX_WAIT);
    let delivery = context.pipeline.delivery(None, 1);
    let share = delivery.share(most);
    // A read that waits holds nothing.
    let mut charge = delivery.charge(0);
    let schemas = match format.needs_schema() {
        true => {
            Some(schema::registry(context, format).map(|(registry, kind)| Deserializer::new(registry.clone(), kind))?)
        }
        false => None,
    };
    let mut out = Answer::new(format, schemas, context.config.listen.dialect == Dialect::Strimzi);
    let mut room = Room::new(MAX_RECORDS, share);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let polled = tokio::select! {
            biased;
            () = instance.closed.cancelled() => return Err(no_instance()),
            // The end of a drain does not wait for a record that may never come.
            () = context.stop_reading.cancelled() => break,
            polled = instance.consumer.poll(room, left) => polled,
        };
        let batches = match polled {
            Ok(batches) => batches,
            // What was read before it is answered; it is met again, or was a passing trouble.
            Err(_) if !out.is_empty() => break,
            Err(error) => return Err(of_consumer(&error)),
        };
        let nothing = batches.is_empty();
        out.find_schemas(&batches).await;
        out.push_all(&instance.consumer, batches)?;
        charge.set(out.out.capacity());
        room.first = out.is_empty();
        room.bytes = share.saturating_sub(out.bytes);
        room.records = MAX_RECORDS.saturating_sub(out.records);
        let enough = out.bytes >= instance.settings.min_bytes.min(share) || room.records == 0;
        if out.stopped || enough || (nothing && Instant::now() >= deadline) {
            break;
        }
    }
    let body = out.finish();
    charge.set(body.len());
    let mut response = Response::new(ResponseBody::whole(Bytes::from(body)).guarded(charge));
    response.headers_mut().insert(CONTENT_TYPE, media::records_type(format));
    Ok(response)
}

/// The array of records under way.
struct Answer {
    format: EmbeddedFormat,
    /// For a format that needs them.
    schemas: Option<Deserializer>,
    /// Headers and timestamps, which Confluent's readers do not know.
    extended: bool,
    /// Of keys and values.
    bytes: usize,
    records: usize,
    /// A record came that cannot be told.
    stopped: bool,
    out: Vec<u8>,
}

impl Answer {
    fn new(format: EmbeddedFormat, schemas: Option<Deserializer>, extended: bool) -> Self {
        Self { format, schemas, extended, bytes: 0, records: 0, stopped: false, out: vec![b'['] }
    }

    fn is_empty(&self) -> bool {
        self.records == 0
    }

    async fn find_schemas(&mut self, batches: &[PartitionRecords]) {
        if let Some(schemas) = &mut self.schemas {
            let records = batches.iter().flat_map(|batch| &batch.records);
            schemas
                .find(records.flat_map(|record| record.key.as_deref().into_iter().chain(record.value.as_deref())))
                .await;
        }
    }

    /// Takes records up to the first that cannot be told in the instance's format; that one and what came with it are
    /// given back.
    ///
    /// # Errors
    ///
    /// 42203 if that is the answer's first; 40801 if it is because its schema cannot be asked for.
    fn push_all(&mut self, consumer: &Consumer, batches: Vec<PartitionRecords>) -> Result<(), ApiError> {
        let mut problem = None;
        for batch in batches {
            let partition = (batch.topic.clone(), batch.partition);
            for record in &batch.records {
                if !self.stopped {
                    match self.push(&batch.topic, batch.partition, record) {
                        Ok(()) => continue,
                        Err(told) => {
                            self.stopped = true;
                            let way_out = match told.code {
                                error::CONVERSION => "; seek past it, or read it in the format binary",
                                _ => "",
                            };
                            let message = format!(
                                "the record at offset {} of partition {} of {} {}{way_out}",
                                record.offset, batch.partition, batch.topic, told.message
                            );
                            problem = Some(ApiError { message: message.into(), ..told });
                        }
                    }
                }
                // A partition that is somebody else's by now is theirs to read.
                let _ = consumer.seek(&partition, record.offset);
                break;
            }
        }
        match problem {
            Some(problem) if self.is_empty() => Err(problem),
            _ => Ok(()),
        }
    }

    fn push(&mut self, topic: &str, partition: i32, record: &ReadRecord) -> Result<(), ApiError> {
        let start = self.out.len();
        let written = self.write(topic, partition, record);
        if written.is_err() {
            self.out.truncate(start);
        } else {
            self.records += 1;
            self.bytes += record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
        }
        written
    }

    fn write(&mut self, topic: &str, partition: i32, record: &ReadRecord) -> Result<(), ApiError> {
        let Self { format, schemas, out, .. } = self;
        let tell = |what, bytes: Option<&[u8]>, out: &mut Vec<u8>| {
            let told = match (schemas.as_ref(), bytes) {
                (Some(schemas), Some(bytes)) => schemas.decode(bytes, out),
                _ => encode(*format, bytes, out).map_err(|problem| ApiError::new(error::CONVERSION, problem)),
            };
            told.map_err(|error| ApiError { message: format!("has a {what} that {}", error.message).into(), ..error })
        };
        if self.records > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"topic\":");
        write_string(topic, out);
        out.extend_from_slice(b",\"key\":");
        tell("key", record.key.as_deref(), out)?;
        out.extend_from_slice(b",\"value\":");
        tell("value", record.value.as_deref(), out)?;
        out.extend_from_slice(b",\"partition\":");
        write_number(partition.into(), out);
        out.extend_from_slice(b",\"offset\":");
        write_number(record.offset, out);
        if self.extended {
            out.extend_from_slice(b",\"timestamp\":");
            write_number(record.timestamp, out);
            out.extend_from_slice(b",\"headers\":[");
            for (at, (name, value)) in record.headers.iter().enumerate() {
                out.extend_from_slice(if at > 0 { b",{\"key\":" } else { b"{\"key\":" });
                write_string(&String::from_utf8_lossy(name), out);
                out.extend_from_slice(b",\"value\":");
                let encoded = encode(EmbeddedFormat::Binary, value, out);
                debug_assert!(encoded.is_ok(), "any bytes are base64");
                out.push(b'}');
            }
            out.push(b']');
        }
        out.push(b'}');
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        self.out.push(b']');
        self.out
    }
}

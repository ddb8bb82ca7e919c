//! One record as a document, and what is answered for it.

use std::borrow::Cow;
use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kafka_records::HeaderBlock;
use produce_pipeline::{Cause, Failure, Place, Topic};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{in_confluents_words, time};
use crate::http::confluent::embedded::{EmbeddedFormat, Payload, decode};
use crate::http::confluent::schema::no_registry;
use crate::http::error::{ApiError, code};

/// The document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordDocument<'a> {
    /// What an entry of a batch is called, for whoever reads batches.
    #[serde(default, rename = "id")]
    _id: IgnoredAny,
    partition_id: Option<i32>,
    #[serde(borrow)]
    headers: Option<Vec<Header<'a>>>,
    #[serde(borrow)]
    key: Option<Data<'a>>,
    #[serde(borrow)]
    value: Option<Data<'a>>,
    timestamp: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
}

/// A key or a value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data<'a> {
    #[serde(rename = "type")]
    format: Option<Format>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    subject: Option<String>,
    subject_name_strategy: Option<String>,
    schema_id: Option<i32>,
    schema_version: Option<i32>,
    schema: Option<String>,
}

/// Formats as this version of the API calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Format {
    Binary,
    Json,
    String,
    Avro,
    JsonSchema,
    Protobuf,
}

impl Format {
    const fn embedded(self) -> EmbeddedFormat {
        match self {
            Self::Binary => EmbeddedFormat::Binary,
            Self::Json => EmbeddedFormat::Json,
            Self::String => EmbeddedFormat::Text,
            Self::Avro => EmbeddedFormat::Avro,
            Self::JsonSchema => EmbeddedFormat::JsonSchema,
            Self::Protobuf => EmbeddedFormat::Protobuf,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Binary => "BINARY",
            Self::Json => "JSON",
            Self::String => "STRING",
            Self::Avro => "AVRO",
            Self::JsonSchema => "JSONSCHEMA",
            Self::Protobuf => "PROTOBUF",
        }
    }
}

impl<'a> Data<'a> {
    fn read(&self, side: &str, decoded: &mut Vec<u8>) -> Result<(Payload<'a>, Option<Part>), ApiError> {
        let by_schema = self.subject.is_some()
            || self.subject_name_strategy.is_some()
            || self.schema_id.is_some()
            || self.schema_version.is_some()
            || self.schema.is_some();
        let Some(format) = self.format else {
            if !by_schema && self.data.is_none() {
                return Ok((Payload::Null, None));
            }
            return Err(ApiError::bad_request(format!(
                "{side}.type is missing: it is BINARY, JSON or STRING; without one a schema is looked up, and this bridge \
                 has no Schema Registry"
            )));
        };
        if format.embedded().needs_schema() {
            return Err(no_registry(format.embedded()));
        }
        if by_schema {
            return Err(ApiError::bad_request(format!("{side}: type={} has no schema and no subject", format.name())));
        }
        let payload = decode(format.embedded(), self.data, decoded)
            .map_err(|problem| ApiError::bad_request(format!("{side}.data {problem}")))?;
        let size = payload.bytes(decoded).map_or(0, <[u8]>::len);
        Ok((payload, Some(Part { format, size: u32::try_from(size).unwrap_or(u32::MAX) })))
    }
}

/// What a record is held against. Asked for before there is an appender, which nobody may ask anything of its topic beside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<'a> {
    topic: &'a str,
    partitions: i32,
    /// Key and value together.
    pub(super) record_bytes: usize,
}

impl<'a> Bounds<'a> {
    pub(super) fn of(topic: &'a Topic, record_bytes: usize) -> Self {
        Self { topic: topic.name(), partitions: topic.partition_count(), record_bytes }
    }
}

/// A record that may be written.
pub(super) struct Record<'a> {
    pub(super) key: Payload<'a>,
    pub(super) value: Payload<'a>,
    pub(super) partition: Option<i32>,
    pub(super) headers: Option<HeaderBlock>,
    pub(super) timestamp: Option<i64>,
    pub(super) note: Note,
}

impl<'a> Record<'a> {
    /// Checks a document. What is not in it as it is goes into `decoded`.
    pub(super) fn read(
        document: &RecordDocument<'a>,
        bounds: &Bounds<'_>,
        decoded: &mut Vec<u8>,
    ) -> Result<Self, ApiError> {
        if let Some(partition) = document.partition_id
            && !(0..bounds.partitions).contains(&partition)
        {
            return Err(ApiError::no_partition(bounds.topic, partition, bounds.partitions));
        }
        let timestamp = match document.timestamp.as_deref() {
            None => None,
            Some(text) => Some(time::parse(text).ok_or_else(|| {
                ApiError::bad_request(format!("timestamp {text:?} is no time as 2021-02-05T19:14:42Z is one"))
            })?),
        };
        let headers = document.headers.as_deref().filter(|headers| !headers.is_empty()).map(block).transpose()?;
        let part = |data: &Option<Data<'a>>, side, decoded: &mut Vec<u8>| match data {
            None => Ok((Payload::Null, None)),
            Some(data) => data.read(side, decoded),
        };
        let (key, key_part) = part(&document.key, "key", decoded)?;
        let (value, value_part) = part(&document.value, "value", decoded)?;
        let size = key.bytes(decoded).map_or(0, <[u8]>::len) + value.bytes(decoded).map_or(0, <[u8]>::len);
        if size > bounds.record_bytes {
            return Err(too_large(bounds.record_bytes));
        }
        let note = Note { key: key_part, value: value_part, timestamp: timestamp.unwrap_or_default() };
        Ok(Self { key, value, partition: document.partition_id, headers, timestamp, note })
    }
}

/// 413: one record, of which the others do not suffer.
pub(super) fn too_large(max_record: usize) -> ApiError {
    ApiError::too_large(format!("a record is at most {max_record} bytes, key and value together"))
}

fn block(headers: &[Header<'_>]) -> Result<HeaderBlock, ApiError> {
    let mut values = Vec::with_capacity(headers.len());
    for header in headers {
        let value = header.value.as_deref().map(|value| BASE64_STANDARD.decode(value)).transpose();
        values.push(value.map_err(|error| {
            ApiError::bad_request(format!("the header {:?} has a value that is not base64: {error}", header.name))
        })?);
    }
    Ok(HeaderBlock::new(headers.iter().zip(&values).map(|(header, value)| (&*header.name, value.as_deref()))))
}

/// A refusal's message, which may have the client's own words in it, has at most so many bytes: it is kept until it is read.
const MESSAGE_BYTES: usize = 240;

/// The cause of a record that this bridge refuses.
pub(super) fn refused(error: &ApiError) -> Cause {
    let message = &*error.message;
    let message = if message.len() <= MESSAGE_BYTES {
        message.into()
    } else {
        format!("{}…", &message[..message.floor_char_boundary(MESSAGE_BYTES)]).into()
    };
    Cause::Refused { code: error.code, message }
}

// ---- the answer ----

/// What is remembered of a record until it is answered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Note {
    key: Option<Part>,
    value: Option<Part>,
    /// CreateTime, ms since the epoch.
    pub(super) timestamp: i64,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    format: Format,
    size: u32,
}

/// What all answers of a request say.
#[derive(Debug)]
pub(super) struct Places {
    /// `"cluster_id":…,"topic_name":…,"partition_id":`
    prefix: Vec<u8>,
}

impl Places {
    pub(super) fn new(cluster: &str, topic: &str) -> Self {
        #[derive(Serialize)]
        struct Prefix<'a> {
            cluster_id: &'a str,
            topic_name: &'a str,
        }
        let mut prefix = serde_json::to_vec(&Prefix { cluster_id: cluster, topic_name: topic }).expect("two strings");
        prefix.remove(0);
        prefix.pop();
        prefix.extend_from_slice(b",\"partition_id\":");
        Self { prefix }
    }

    /// The members of a record that was written, from `cluster_id` to the closing brace.
    pub(super) fn written(&self, out: &mut Vec<u8>, note: &Note, place: &Place, at: u64) {
        out.extend_from_slice(&self.prefix);
        // Kafka's own way to say that it does not know: it took the record for a repetition.
        let offset = place.first_offset.map_or(-1, |first| first + i64::try_from(at).unwrap_or_default());
        let _ = write!(out, "{},\"offset\":{offset}", place.partition);
        if let Some(text) = time::format(place.log_append_time.unwrap_or(note.timestamp)) {
            let _ = write!(out, ",\"timestamp\":\"{text}\"");
        }
        for (name, part) in [("key", note.key), ("value", note.value)] {
            if let Some(part) = part {
                let _ = write!(out, ",\"{name}\":{{\"type\":\"{}\",\"size\":{}}}", part.format.name(), part.size);
            }
        }
        out.push(b'}');
    }
}

/// A failure in the API's words.
pub(super) fn told(failure: &Failure) -> ApiError {
    let error = match &failure.cause {
        // Whoever refused it knew the number.
        Cause::Refused { code, message } => ApiError::new(*code, message.to_string()),
        cause => ApiError::of_cause(failure.outcome, cause),
    };
    in_confluents_words(error)
}

/// `"error_code":…,"message":…}`: the rest of an object about a record that was not written.
pub(super) fn write_error(out: &mut Vec<u8>, error: &ApiError) {
    let _ = write!(out, "\"error_code\":{},\"message\":", error.code);
    serde_json::to_writer(&mut *out, &*error.message).expect("a vector takes a string");
    out.push(b'}');
}

/// 400 for a document that is JSON and no record; `None` if it is no JSON at all.
pub(super) fn not_a_record(error: &serde_json::Error) -> Option<ApiError> {
    error.is_data().then(|| ApiError::new(code::BAD_REQUEST, format!("the record is not as it must be: {error}")))
}

//! One record as a document, and what is answered for it.

use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kafka_records::HeaderBlock;
use produce_pipeline::{Cause, Failure, Place, Topic};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{in_confluents_words, time};
use crate::config::SubjectNames;
use crate::http::Context;
use crate::http::confluent::embedded::{EmbeddedFormat, Payload, decode};
use crate::http::confluent::error::{CONVERSION, NO_REGISTRY};
use crate::http::confluent::schema::{Side, TEXT_SHARE, check_kind, no_registry, of_registry};
use crate::http::error::{ApiError, code};
use crate::json::write_string;
use crate::schema_registry::{Found, Lookup, Registry, SchemaType, Subject, within};

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
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
}

/// A string of the document, copied only if it has escapes. (serde copies an `Option<Cow>` always.)
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
}

/// A key or a value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data<'a> {
    #[serde(rename = "type")]
    format: Option<Format>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    subject: Option<Text<'a>>,
    #[serde(borrow)]
    subject_name_strategy: Option<Text<'a>>,
    schema_id: Option<i32>,
    schema_version: Option<i32>,
    #[serde(borrow)]
    schema: Option<Text<'a>>,
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

    /// The format of values by such a schema.
    const fn of(kind: SchemaType) -> Self {
        match kind {
            SchemaType::Avro => Self::Avro,
            SchemaType::Json => Self::JsonSchema,
            SchemaType::Protobuf => Self::Protobuf,
        }
    }

    const fn schema_type(self) -> Option<SchemaType> {
        match self {
            Self::Binary | Self::Json | Self::String => None,
            Self::Avro => Some(SchemaType::Avro),
            Self::JsonSchema => Some(SchemaType::Json),
            Self::Protobuf => Some(SchemaType::Protobuf),
        }
    }
}

impl<'a> Data<'a> {
    fn is_null(&self) -> bool {
        self.data.is_none_or(|data| data.get() == "null")
    }

    /// What the value's schema is looked for by, if it has one.
    fn lookup<'s>(&'s self, side: Side, bounds: &Bounds<'s>) -> Result<Option<Lookup<'s>>, ApiError> {
        let side_name = side.name();
        let bad = |problem: &str| ApiError::bad_request(format!("{side_name}: {problem}"));
        let by_schema = self.subject.is_some()
            || self.subject_name_strategy.is_some()
            || self.schema_id.is_some()
            || self.schema_version.is_some()
            || self.schema.is_some();
        let kind = match self.format {
            None if !by_schema && self.data.is_none() => return Ok(None),
            None => None,
            Some(format) => match format.schema_type() {
                Some(kind) => Some(kind),
                None if by_schema => {
                    return Err(bad(&format!("type={} has no schema and no subject", format.name())));
                }
                None => return Ok(None),
            },
        };
        let Some(registry) = bounds.registry else {
            return Err(match self.format {
                Some(format) => no_registry(format.embedded()),
                None => ApiError::bad_request(format!(
                    "{side_name}.type is missing: it is BINARY, JSON or STRING; without one a schema is looked up, and this \
                     bridge has no Schema Registry"
                )),
            });
        };
        let subject = match (&self.subject, &self.subject_name_strategy) {
            (Some(_), Some(_)) => return Err(bad("subject and subject_name_strategy exclude each other")),
            (Some(Text(subject)), None) => Subject::Named(Cow::Borrowed(subject)),
            (None, strategy) => {
                let names = match strategy.as_ref().map(|Text(strategy)| &**strategy) {
                    None => registry.subject_names(),
                    Some("TOPIC_NAME") => SubjectNames::Topic,
                    Some("RECORD_NAME") => SubjectNames::Record,
                    Some("TOPIC_RECORD_NAME") => SubjectNames::TopicRecord,
                    Some(_) => {
                        return Err(bad("subject_name_strategy is TOPIC_NAME, RECORD_NAME or TOPIC_RECORD_NAME"));
                    }
                };
                Subject::Made { names, topic: Cow::Borrowed(bounds.topic), is_key: side == Side::Key }
            }
        };
        let named = |subject: Subject<'s>| match subject {
            Subject::Made { names: SubjectNames::Record | SubjectNames::TopicRecord, .. } => {
                Err(bad("this strategy needs the schema's text; else name the subject"))
            }
            subject => Ok(subject),
        };
        let lookup = match (self.schema_id, self.schema_version, &self.schema) {
            (Some(id), None, None) => Lookup::Id(id),
            (None, Some(version), None) => Lookup::Version { subject: named(subject)?, version },
            (None, None, Some(Text(text))) => {
                let kind = kind.ok_or_else(|| bad("schema needs a type: AVRO, JSONSCHEMA or PROTOBUF"))?;
                Lookup::Text { kind, subject, text: Cow::Borrowed(text) }
            }
            (None, None, None) => Lookup::Latest { subject: named(subject)? },
            _ => return Err(bad("schema_id, schema_version and schema exclude one another")),
        };
        Ok(Some(lookup))
    }

    fn read(
        &self,
        side: Side,
        bounds: &Bounds<'_>,
        found: &mut Vec<Answered>,
        decoded: &mut Vec<u8>,
    ) -> Result<(Payload<'a>, Option<Part>), NoRecord> {
        let about = |code, problem: String| {
            NoRecord::Refused(ApiError::new(code, within(&format!("{}.data", side.name()), &problem)))
        };
        let start = decoded.len();
        let (payload, format, schema) = match (self.lookup(side, bounds)?, self.format) {
            (None, None) => return Ok((Payload::Null, None)),
            (None, Some(format)) => {
                let payload = decode(format.embedded(), self.data, decoded)
                    .map_err(|problem| about(code::BAD_REQUEST, problem))?;
                (payload, format, None)
            }
            // A tombstone is what it is by any schema.
            (Some(_), format) if self.is_null() => match format {
                None => return Ok((Payload::Null, None)),
                Some(format) => (Payload::Null, format, None),
            },
            (Some(lookup), format) => {
                let told = found.iter().find(|(asked, _)| *asked == lookup).map(|(_, told)| told.clone());
                let found = match told {
                    Some(told) => told?,
                    None => {
                        let known = bounds.registry.and_then(|registry| registry.known(&lookup));
                        let known = known.ok_or(NoRecord::Waits)?;
                        if found.len() < KEPT {
                            found.push((lookup.into_owned(), Ok(known.clone())));
                        }
                        known
                    }
                };
                if let Some(kind) = format.and_then(Format::schema_type) {
                    check_kind(&found.schema, kind)?;
                }
                let value = self.data.map_or("null", RawValue::get);
                if value.len() > TEXT_SHARE * bounds.record_bytes {
                    return Err(too_large(bounds.record_bytes).into());
                }
                let value = self.data.ok_or_else(|| about(code::BAD_REQUEST, "is missing".to_owned()))?;
                let encoded = found.schema.encode(value, bounds.record_bytes, decoded);
                encoded.map_err(|problem| about(CONVERSION, problem))?;
                (Payload::Decoded { start, end: decoded.len() }, Format::of(found.schema.kind()), Some(found))
            }
        };
        let size = payload.bytes(decoded).map_or(0, <[u8]>::len);
        Ok((payload, Some(Part { format, size: u32::try_from(size).unwrap_or(u32::MAX), schema })))
    }
}

/// A schema that was looked for, and what came of it. The records of a chunk have one list of them, so that those of one
/// schema copy what names it once and ask the registry's table once.
pub(super) type Answered = (Lookup<'static>, Result<Arc<Found>, ApiError>);
/// More schemas are not remembered from one record to the next: each is compared with all of them.
const KEPT: usize = 8;

impl RecordDocument<'_> {
    /// Looks for the schemas of a record that are not in `found` yet.
    pub(super) async fn find_schemas(&self, bounds: &Bounds<'_>, found: &mut Vec<Answered>) {
        let Some(registry) = bounds.registry else { return };
        for (side, data) in [(Side::Key, &self.key), (Side::Value, &self.value)] {
            // What is wrong with it is told when it is read.
            let Some(Ok(Some(lookup))) = data.as_ref().map(|data| data.lookup(side, bounds)) else { continue };
            if !found.iter().any(|(known, _)| *known == lookup) {
                let told = registry.find(&lookup).await.map_err(|error| of_registry(&error));
                found.push((lookup.into_owned(), told));
            }
        }
    }
}

/// Why a document is no record, yet or at all.
#[derive(Debug)]
pub(super) enum NoRecord {
    Refused(ApiError),
    /// Its schema has to be looked for first.
    Waits,
}

impl NoRecord {
    /// Why it is not written, once its schemas were looked for.
    pub(super) fn refusal(self) -> ApiError {
        match self {
            Self::Refused(error) => error,
            Self::Waits => ApiError::new(NO_REGISTRY, "the record's schema was not looked for; send it again"),
        }
    }
}

impl From<ApiError> for NoRecord {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

/// What a record is held against. Asked for before there is an appender, which nobody may ask anything of its topic beside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<'a> {
    topic: &'a str,
    partitions: i32,
    registry: Option<&'a Arc<Registry>>,
    /// Key and value together.
    pub(super) record_bytes: usize,
}

impl<'a> Bounds<'a> {
    pub(super) fn of(topic: &'a Topic, context: &'a Context) -> Self {
        Self {
            topic: topic.name(),
            partitions: topic.partition_count(),
            registry: context.schemas.as_ref(),
            record_bytes: context.config.limits.record_bytes,
        }
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
    /// Checks a document. What is not in it as it is goes into `decoded`; `found` are schemas that were looked for, and those
    /// that are known come to them.
    pub(super) fn read(
        document: &RecordDocument<'a>,
        bounds: &Bounds<'_>,
        found: &mut Vec<Answered>,
        decoded: &mut Vec<u8>,
    ) -> Result<Self, NoRecord> {
        if let Some(partition) = document.partition_id
            && !(0..bounds.partitions).contains(&partition)
        {
            return Err(ApiError::no_partition(bounds.topic, partition, bounds.partitions).into());
        }
        let timestamp = match &document.timestamp {
            None => None,
            Some(Text(text)) => Some(time::parse(text).ok_or_else(|| {
                ApiError::bad_request(format!("timestamp {text:?} is no time as 2021-02-05T19:14:42Z is one"))
            })?),
        };
        let headers = document.headers.as_deref().filter(|headers| !headers.is_empty()).map(block).transpose()?;
        let mut part = |data: &Option<Data<'a>>, side, decoded: &mut Vec<u8>| match data {
            None => Ok((Payload::Null, None)),
            Some(data) => data.read(side, bounds, found, decoded),
        };
        let (key, key_part) = part(&document.key, Side::Key, decoded)?;
        let (value, value_part) = part(&document.value, Side::Value, decoded)?;
        let size = key.bytes(decoded).map_or(0, <[u8]>::len) + value.bytes(decoded).map_or(0, <[u8]>::len);
        if size > bounds.record_bytes {
            return Err(too_large(bounds.record_bytes).into());
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
        let value = header.value.as_ref().map(|Text(value)| BASE64_STANDARD.decode(&**value)).transpose();
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
#[derive(Debug, Default)]
pub(super) struct Note {
    key: Option<Part>,
    value: Option<Part>,
    /// CreateTime, ms since the epoch.
    pub(super) timestamp: i64,
}

#[derive(Debug)]
struct Part {
    format: Format,
    size: u32,
    schema: Option<Arc<Found>>,
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
        for (name, part) in [("key", &note.key), ("value", &note.value)] {
            let Some(part) = part else { continue };
            let _ = write!(out, ",\"{name}\":{{\"type\":\"{}\"", part.format.name());
            if let Some(found) = &part.schema {
                if let Some(subject) = &found.subject {
                    out.extend_from_slice(b",\"subject\":");
                    write_string(subject, out);
                }
                let _ = write!(out, ",\"schema_id\":{}", found.schema.id);
                if let Some(version) = found.version {
                    let _ = write!(out, ",\"schema_version\":{version}");
                }
            }
            let _ = write!(out, ",\"size\":{}}}", part.size);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_schema_is_copied_only_if_it_has_escapes() {
        let document = r#"{"value":{"subject":"orders","schema":"{\"type\":\"int\"}"},"timestamp":"now",
            "headers":[{"name":"a","value":"eA=="}]}"#;
        let document: RecordDocument<'_> = serde_json::from_str(document).expect("a record");
        let value = document.value.expect("a value");
        let headers = document.headers.expect("headers");
        for text in [value.subject, document.timestamp, headers.into_iter().next().expect("one").value] {
            assert!(matches!(text, Some(Text(Cow::Borrowed(_)))));
        }
        assert!(matches!(value.schema, Some(Text(Cow::Owned(text))) if text == r#"{"type":"int"}"#));
    }
}

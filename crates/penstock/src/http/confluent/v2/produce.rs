//! `POST /topics/{topic}` and `POST /topics/{topic}/partitions/{partition}`.
//!
//! The whole document is read and understood before a record of it is written: a key that is no base64 refuses all of
//! them, as Confluent's proxy does. From then on records have their fates one by one, and the answer tells each, in the
//! order of the request.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use kafka_records::HeaderBlock;
use produce_pipeline::{Cause, Delivery, Outcome, Place, Topic};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::config::{Dialect, Verb};
use crate::http::Context;
use crate::http::caller::Caller;
use crate::http::confluent::embedded::{EmbeddedFormat, Payload, decode};
use crate::http::confluent::error::{self, invalid};
use crate::http::confluent::media;
use crate::http::confluent::schema::{self, SchemaFields, Side};
use crate::http::content_encoding::ContentEncoding;
use crate::http::error::{ApiError, code};
use crate::http::params::Query;
use crate::http::produce::{TOPIC_LOOKUP, now_ms, target};
use crate::http::respond::{Response, json};
use crate::http::whole_body::{Limit, WholeBody};
use crate::http1::{Body, ResponseBody};
use crate::schema_registry::{Schema, within};

/// Records are appended in portions of about so many bytes; between them others have their turn.
const PORTION_BYTES: usize = 64 * 1024;

/// What is made of one document may take this part of the memory for records.
const DOCUMENT_SHARE: usize = 4;

/// Writes the records of one document.
pub(super) async fn produce(
    context: &Rc<Context>,
    caller: &Caller,
    name: &str,
    partition: Option<i32>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let grant = context.access.check(caller, name, &[Verb::Produce])?;
    let dialect = context.config.listen.dialect;
    // What Confluent's proxy does not know in a query, it does not look at.
    let is_async = Query::parse(head.uri.query())?.take("async").is_some_and(|value| value == "true");
    let format = media::produce_format(&head.headers)?;
    let encoding = ContentEncoding::of(&head.headers)?;
    let topic = context.topic(name, TOPIC_LOOKUP).await?;
    if let Some(partition) = partition {
        check_partition(&topic, partition)?;
    }
    let limit = Limit { bytes: context.config.limits.document_bytes, what: "a document of records" };
    limit.check_length(&head.headers, encoding)?;
    if context.is_draining() {
        return Err(ApiError::draining());
    }
    if context.budget.refuses_new() {
        return Err(ApiError::overloaded());
    }
    let mut reader = context.body_reader(body, grant);
    let delivery = context.delivery(None, 1);
    let document = WholeBody::read(context, &mut reader, encoding, &delivery, limit).await?;
    // Every record is an object, so there are not more of them than opening braces. A vector doubles as it grows.
    let most = memchr::memchr_iter(b'{', document.bytes()).count();
    let per_record = 2 * size_of::<Record<'_>>()
        + size_of::<Ready<'_>>()
        + 2 * size_of::<Place>()
        + 3 * size_of::<Option<RecordAnswer>>();
    let decoded = if format.needs_schema() { most_encoded(context, &document) } else { document.bytes().len() };
    let needed = most.saturating_mul(per_record) + document.bytes().len() + decoded;
    let most_bytes = context.budget.total() / DOCUMENT_SHARE;
    if needed > most_bytes {
        return Err(ApiError::too_large(format!(
            "{most} records in a document of {} bytes need more than {most_bytes} bytes of memory; send fewer at once",
            document.bytes().len()
        )));
    }
    delivery.room().await.map_err(|cause| ApiError::of_cause(Outcome::NotWritten, &cause))?;
    let _charge = delivery.charge(needed);
    let batch = Batch::read(context, &topic, format, partition, &document).await?;
    delivery.keep_places();
    append(context, &topic, &delivery, &batch).await;
    if dialect == Dialect::Strimzi && is_async {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    delivery.resolved().await;
    Ok(answer(dialect, &head, &batch, &delivery))
}

/// What values may take that are written by a schema: it may have defaults for what the document does not say, and a number
/// before each.
fn most_encoded(context: &Context, document: &WholeBody) -> usize {
    2 * document.bytes().len() + context.config.limits.record_bytes
}

fn check_partition(topic: &Topic, partition: i32) -> Result<(), ApiError> {
    if (0..topic.partition_count()).contains(&partition) {
        return Ok(());
    }
    Err(ApiError::no_partition(topic.name(), partition, topic.partition_count()))
}

// ---- what a document says ----

/// The document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProduceDocument<'a> {
    #[serde(borrow)]
    records: Vec<Record<'a>>,
    key_schema: Option<String>,
    key_schema_id: Option<i32>,
    value_schema: Option<String>,
    value_schema_id: Option<i32>,
}

/// One record of it. Headers and timestamp are Strimzi's.
#[derive(Debug, Default)]
struct Record<'a> {
    key: Option<&'a RawValue>,
    value: Option<&'a RawValue>,
    partition: Option<i32>,
    headers: Option<&'a RawValue>,
    timestamp: Option<i64>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Record<'a> {
    /// By hand, because a derived one takes an array for an object.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Members<'a> {
            type Value = Record<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record: an object with key, value and partition")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record<'a>, A::Error> {
                let mut record = Record::default();
                let mut seen = 0_u8;
                while let Some(name) = map.next_key::<Member>()? {
                    let this = 1 << name as u8;
                    if seen & this != 0 {
                        return Err(A::Error::custom(format!("a record has two members {name:?}").to_lowercase()));
                    }
                    seen |= this;
                    match name {
                        Member::Key => record.key = map.next_value()?,
                        Member::Value => record.value = map.next_value()?,
                        Member::Partition => record.partition = map.next_value()?,
                        Member::Headers => record.headers = map.next_value()?,
                        Member::Timestamp => record.timestamp = map.next_value()?,
                    }
                }
                Ok(record)
            }
        }
        deserializer.deserialize_map(Members(std::marker::PhantomData))
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Member {
    Key,
    Value,
    Partition,
    Headers,
    Timestamp,
}

/// `{"key":name,"value":base64}`, as Strimzi has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    #[serde(borrow)]
    key: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    value: Option<std::borrow::Cow<'a, str>>,
}

/// Records that are ready to be appended.
struct Batch<'a> {
    records: Vec<Ready<'a>>,
    /// Where decoded keys and values are.
    decoded: Vec<u8>,
    key_schema_id: Option<i32>,
    value_schema_id: Option<i32>,
}

struct Ready<'a> {
    key: Payload<'a>,
    value: Payload<'a>,
    partition: Option<i32>,
    /// Few records have them.
    extras: Option<Box<Extras>>,
}

struct Extras {
    headers: HeaderBlock,
    timestamp: Option<i64>,
}

/// How the keys, or the values, of a request are read.
enum Reading {
    Plain(EmbeddedFormat),
    Schema(Arc<Schema>),
}

impl Reading {
    fn schema_id(&self) -> Option<i32> {
        match self {
            Self::Plain(_) => None,
            Self::Schema(schema) => Some(schema.id),
        }
    }

    /// A value that is written by a schema has at most `room` bytes.
    fn read<'a>(
        &self,
        value: Option<&'a RawValue>,
        room: Room,
        decoded: &mut Vec<u8>,
    ) -> Result<Payload<'a>, (u32, String)> {
        match (self, value.filter(|value| value.get() != "null")) {
            (Self::Plain(format), value) => {
                decode(*format, value, decoded).map_err(|problem| (code::BAD_REQUEST, problem))
            }
            (Self::Schema(_), None) => Ok(Payload::Null),
            (Self::Schema(schema), Some(value)) => {
                let start = decoded.len();
                let most = room.record.min(room.total.saturating_sub(start));
                if value.get().len() > schema::TEXT_SHARE * room.record {
                    return Err((code::TOO_LARGE, "is longer than a record may be".to_owned()));
                }
                schema.encode(value, most, decoded).map_err(|problem| (error::CONVERSION, problem))?;
                if decoded.len() > room.total {
                    return Err((
                        code::TOO_LARGE,
                        "is too long with all values before it; send fewer at once".to_owned(),
                    ));
                }
                Ok(Payload::Decoded { start, end: decoded.len() })
            }
        }
    }
}

/// Bytes for what is decoded.
#[derive(Debug, Clone, Copy)]
struct Room {
    record: usize,
    /// Of all records.
    total: usize,
}

impl<'a> Batch<'a> {
    async fn read(
        context: &Context,
        topic: &Topic,
        format: EmbeddedFormat,
        partition: Option<i32>,
        document: &'a WholeBody,
    ) -> Result<Self, ApiError> {
        let room = Room { record: context.config.limits.record_bytes, total: most_encoded(context, document) };
        let document: ProduceDocument<'a> = document.parse(code::BAD_REQUEST)?;
        if document.records.is_empty() {
            return Err(invalid("records is empty; there must be one at least"));
        }
        let reading = async |side, records: &[Record<'_>], fields: SchemaFields| {
            let present = |record: &Record<'_>| match side {
                Side::Key => record.key.is_some(),
                Side::Value => record.value.is_some(),
            };
            // Keys are often all null, and then have no schema.
            let named = fields.schema.is_some() || fields.id.is_some();
            if format.needs_schema() && (side == Side::Value || named || records.iter().any(present)) {
                schema::serializer(context, topic.name(), side, format, fields).await.map(Reading::Schema)
            } else {
                Ok(Reading::Plain(format))
            }
        };
        let records = &document.records;
        let keys = SchemaFields { schema: document.key_schema, id: document.key_schema_id };
        let values = SchemaFields { schema: document.value_schema, id: document.value_schema_id };
        let keys = reading(Side::Key, records, keys).await?;
        let values = reading(Side::Value, records, values).await?;
        let mut batch = Self {
            records: Vec::with_capacity(records.len()),
            decoded: Vec::new(),
            key_schema_id: keys.schema_id(),
            value_schema_id: values.schema_id(),
        };
        for (at, record) in records.iter().enumerate() {
            let about = |what: &str, (code, problem): (u32, String)| {
                ApiError::new(code, within(&format!("records[{at}].{what}"), &problem))
            };
            if let Some(own) = record.partition {
                check_partition(topic, own)?;
            }
            let ready = Ready {
                key: keys.read(record.key, room, &mut batch.decoded).map_err(|problem| about("key", problem))?,
                value: values
                    .read(record.value, room, &mut batch.decoded)
                    .map_err(|problem| about("value", problem))?,
                // A record's own goes before the path's.
                partition: record.partition.or(partition),
                extras: Extras::of(record).map_err(|problem| about("headers", (code::BAD_REQUEST, problem)))?,
            };
            batch.records.push(ready);
        }
        Ok(batch)
    }
}

impl Extras {
    fn of(record: &Record<'_>) -> Result<Option<Box<Self>>, String> {
        if record.headers.is_none() && record.timestamp.is_none() {
            return Ok(None);
        }
        let headers: Vec<Header<'_>> = match record.headers {
            None => Vec::new(),
            Some(headers) => serde_json::from_str(headers.get())
                .map_err(|error| format!("must be [{{\"key\":name,\"value\":base64}}]: {error}"))?,
        };
        let mut decoded = Vec::with_capacity(headers.len());
        for header in &headers {
            let value = header.value.as_deref().map(|value| BASE64_STANDARD.decode(value)).transpose();
            decoded.push(value.map_err(|error| format!("has a value that is not base64: {error}"))?);
        }
        let block = headers.iter().zip(&decoded).map(|(header, value)| (&*header.key, value.as_deref()));
        Ok(Some(Box::new(Self { headers: HeaderBlock::new(block), timestamp: record.timestamp })))
    }
}

// ---- into the topic ----

/// Appends all records, in their order. What finds no memory in time is settled as not written.
async fn append(context: &Context, topic: &Topic, delivery: &Delivery, batch: &Batch<'_>) {
    let max_record = context.config.limits.record_bytes;
    let mut rest = &batch.records[..];
    while let Some(first) = rest.first() {
        let room = delivery.room().await;
        let (headers, timestamp) =
            first.extras.as_ref().map_or((HeaderBlock::none(), None), |extras| (&extras.headers, extras.timestamp));
        let mut appender = topic.appender(delivery, timestamp.unwrap_or_else(now_ms), headers);
        let mut bytes = 0;
        let mut taken = 0;
        for record in rest {
            // An appender has one timestamp and one set of headers.
            if bytes >= PORTION_BYTES || (taken > 0 && (first.extras.is_some() || record.extras.is_some())) {
                break;
            }
            taken += 1;
            let (key, value) = (record.key.bytes(&batch.decoded), record.value.bytes(&batch.decoded));
            let size = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
            bytes += size;
            if let Err(cause) = &room {
                appender.refuse_line(cause.clone());
            } else if size > max_record {
                let message = format!("a record is at most {max_record} bytes, key and value together");
                appender.refuse_line(Cause::Refused { code: code::TOO_LARGE, message: message.into() });
                context.metrics.records_refused(1);
            } else {
                appender.append(target(record.partition, key), value);
            }
        }
        drop(appender);
        rest = &rest[taken..];
        tokio::task::coop::consume_budget().await;
    }
}

// ---- the answer ----

#[derive(Serialize)]
struct Answer {
    offsets: Vec<RecordAnswer>,
    #[serde(flatten)]
    schemas: Option<SchemaIds>,
}

#[derive(Serialize)]
struct SchemaIds {
    key_schema_id: Option<i32>,
    value_schema_id: Option<i32>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RecordAnswer {
    /// Every member, whether or not it says anything.
    Confluent {
        partition: Option<i32>,
        offset: Option<i64>,
        error_code: Option<u32>,
        error: Option<String>,
    },
    StrimziWritten {
        partition: i32,
        offset: Option<i64>,
    },
    StrimziFailed {
        error_code: u32,
        message: String,
    },
}

impl RecordAnswer {
    fn written(dialect: Dialect, partition: i32, offset: Option<i64>) -> Self {
        match dialect {
            Dialect::Confluent => Self::Confluent { partition: Some(partition), offset, error_code: None, error: None },
            Dialect::Strimzi => Self::StrimziWritten { partition, offset },
        }
    }

    fn failed(dialect: Dialect, failure: &ApiError) -> Self {
        let message = failure.message.to_string();
        match dialect {
            Dialect::Confluent => {
                Self::Confluent { partition: None, offset: None, error_code: Some(failure.code), error: Some(message) }
            }
            Dialect::Strimzi => Self::StrimziFailed { error_code: failure.status().as_u16().into(), message },
        }
    }
}

/// What became of each record. The status is 200 but where Kafka denies one.
fn answer(dialect: Dialect, head: &Parts, batch: &Batch<'_>, delivery: &Delivery) -> Response {
    let mut offsets: Vec<Option<RecordAnswer>> = batch.records.iter().map(|_| None).collect();
    let mut tell = |first_line: u64, at: u64, told: RecordAnswer| {
        let index = usize::try_from(first_line + at - 1).expect("lines of a document in memory");
        offsets[index] = Some(told);
    };
    for place in delivery.places() {
        for at in 0..place.count {
            let offset = place.first_offset.map(|offset| offset + i64::try_from(at).unwrap_or(0));
            tell(place.first_line, at, RecordAnswer::written(dialect, place.partition, offset));
        }
    }
    let mut status = StatusCode::OK;
    for failure in delivery.summary().failures {
        let told = error::of_record(failure.outcome, &failure.cause);
        if told.code == code::DENIED {
            status = told.status();
        }
        for at in 0..=failure.last_line - failure.first_line {
            tell(failure.first_line, at, RecordAnswer::failed(dialect, &told));
        }
    }
    let unsettled = || error::of_record(Outcome::Unknown, &Cause::Deadline);
    let offsets = offsets.into_iter().map(|told| told.unwrap_or_else(|| RecordAnswer::failed(dialect, &unsettled())));
    let schemas = (dialect == Dialect::Confluent)
        .then_some(SchemaIds { key_schema_id: batch.key_schema_id, value_schema_id: batch.value_schema_id });
    let mut response = json(status, &Answer { offsets: offsets.collect(), schemas });
    response.headers_mut().insert(CONTENT_TYPE, media::answer_type(&head.headers));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<ProduceDocument<'_>, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_record_is_an_object_of_known_members() {
        let document =
            parsed("{\"records\":[{\"value\":1.10,\"key\":null,\"partition\":2},{}],\"value_schema_id\":null}")
                .expect("a document");
        let values: Vec<_> = document.records.iter().map(|record| record.value.map(RawValue::get)).collect();
        assert_eq!(values, [Some("1.10"), None]);
        assert!(document.records[0].key.is_none());
        assert_eq!(document.records[0].partition, Some(2));
        for wrong in [
            "{\"records\":[[1,2]]}",
            "{\"records\":[{\"vlaue\":1}]}",
            "{\"records\":[{\"value\":1,\"value\":2}]}",
            "{\"records\":{}}",
            "{\"records\":[{\"partition\":\"1\"}]}",
            "{\"recrods\":[]}",
            "{}",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_headers_value_is_base64() {
        let record =
            |headers| Record { headers: Some(serde_json::from_str(headers).expect("JSON")), ..Record::default() };
        let extras = Extras::of(&record("[{\"key\":\"a\",\"value\":\"eA==\"},{\"key\":\"b\",\"value\":null}]"));
        assert_eq!(extras.expect("well-formed").expect("some").headers.len(), 2);
        for wrong in ["{}", "[{\"key\":\"a\",\"value\":\"?\"}]", "[{\"name\":\"a\"}]"] {
            assert!(Extras::of(&record(wrong)).is_err(), "{wrong}");
        }
        assert!(Extras::of(&Record::default()).expect("well-formed").is_none());
    }
}

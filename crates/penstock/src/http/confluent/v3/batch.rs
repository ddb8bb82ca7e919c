//! `POST /v3/clusters/{cluster}/topics/{topic}/records:batch`: a few records with names of their own.
//!
//! The answer is 207: which were written and which were not, each in the order of the request.

use std::collections::HashSet;
use std::rc::Rc;

use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use kafka_records::HeaderBlock;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::record::{Bounds, Note, Places, Record, RecordDocument, not_a_record, refused, told, write_error};
use super::records::{Admitted, admit};
use crate::http::Context;
use crate::http::caller::Caller;
use crate::http::error::{ApiError, code};
use crate::http::produce::{now_ms, target};
use crate::http::respond::{JSON, Response};
use crate::http::whole_body::{Limit, WholeBody};
use crate::http1::{Body, ResponseBody};

/// Entries of a batch, as many as Confluent's proxy takes.
const MOST_ENTRIES: usize = 10;
/// The longest id of an entry, in characters.
const ID_CHARS: usize = 80;

/// 422: no batch, or too large a one, or two entries of one name.
const BAD_BATCH: u32 = 42208;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchDocument<'a> {
    #[serde(borrow)]
    entries: Vec<&'a RawValue>,
}

/// Just the name of an entry.
#[derive(Deserialize)]
struct Named {
    id: String,
}

fn bad_batch(message: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(BAD_BATCH, message)
}

/// The entries' names, checked before anything is written.
fn names(entries: &[&RawValue]) -> Result<Vec<String>, ApiError> {
    if entries.is_empty() {
        return Err(bad_batch("the batch is empty"));
    }
    if entries.len() > MOST_ENTRIES {
        return Err(bad_batch(format!("a batch has at most {MOST_ENTRIES} entries; this one has {}", entries.len())));
    }
    let mut seen = HashSet::new();
    let mut names = Vec::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        let named: Named = serde_json::from_str(entry.get())
            .map_err(|error| ApiError::new(422, format!("entries[{at}] has no id that is a string: {error}")))?;
        if named.id.is_empty() || named.id.chars().count() > ID_CHARS {
            return Err(ApiError::new(422, format!("entries[{at}].id has 1 to {ID_CHARS} characters")));
        }
        if !seen.insert(named.id.clone()) {
            return Err(bad_batch(format!("two entries have the id {:?}", named.id)));
        }
        names.push(named.id);
    }
    Ok(names)
}

pub(super) async fn produce(
    context: &Rc<Context>,
    caller: &Caller,
    cluster: String,
    name: &str,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let Admitted { topic, encoding, grant } = admit(context, caller, name, &head.headers).await?;
    let limit = Limit { bytes: context.config.limits.document_bytes, what: "a batch" };
    limit.check_length(&head.headers, encoding)?;
    let delivery = context.delivery(None, 1);
    delivery.keep_places();
    let mut reader = context.body_reader(body, grant);
    let document = WholeBody::read(context, &mut reader, encoding, &delivery, limit).await?;
    // What is decoded is no longer than the document.
    let _charge = delivery.charge(document.bytes().len());
    let batch: BatchDocument<'_> = document.parse(code::BAD_REQUEST)?;
    let names = names(&batch.entries)?;
    let mut notes = Vec::with_capacity(names.len());
    let bounds = Bounds::of(&topic, context);
    let mut found = Vec::new();
    for entry in &batch.entries {
        if let Ok(entry) = serde_json::from_str::<RecordDocument<'_>>(entry.get()) {
            entry.find_schemas(&bounds, &mut found).await;
        }
    }
    {
        let mut scratch = Vec::new();
        let now = now_ms();
        let mut appender = topic.appender(&delivery, now, HeaderBlock::none());
        for entry in &batch.entries {
            scratch.clear();
            let read = serde_json::from_str::<RecordDocument<'_>>(entry.get()).map_err(|error| {
                not_a_record(&error).unwrap_or_else(|| ApiError::bad_request(error.to_string())).into()
            });
            match read.and_then(|entry| Record::read(&entry, &bounds, &mut found, &mut scratch)) {
                Err(told) => {
                    let error = told.refusal();
                    context.metrics.records_refused(1);
                    notes.push(Note::default());
                    appender.refuse_line(refused(&error));
                }
                Ok(record) => {
                    let timestamp = record.timestamp.unwrap_or(now);
                    let mut note = record.note;
                    note.timestamp = timestamp;
                    notes.push(note);
                    let (key, value) = (record.key.bytes(&scratch), record.value.bytes(&scratch));
                    let headers = record.headers.as_ref().unwrap_or(HeaderBlock::none());
                    appender.append_with(target(record.partition, key), value, timestamp, headers);
                }
            }
        }
    }
    delivery.resolved().await;
    let (written, failures) = delivery.take_settled();
    let places = Places::new(&cluster, topic.name());
    let mut answer = b"{\"successes\":[".to_vec();
    let record = |line: u64| usize::try_from(line - 1).ok().and_then(|at| names.get(at).zip(notes.get(at)));
    let begin = |answer: &mut Vec<u8>, id: &str| {
        if !answer.ends_with(b"[") {
            answer.push(b',');
        }
        answer.extend_from_slice(b"{\"id\":");
        serde_json::to_writer(&mut *answer, id).expect("a vector takes a string");
        answer.push(b',');
    };
    for place in &written {
        for at in 0..place.count {
            let Some((id, note)) = record(place.first_line + at) else { continue };
            begin(&mut answer, id);
            places.written(&mut answer, note, place, at);
        }
    }
    answer.extend_from_slice(b"],\"failures\":[");
    for failure in &failures {
        let error = told(failure);
        for line in failure.first_line..=failure.last_line {
            let Some((id, _)) = record(line) else { continue };
            begin(&mut answer, id);
            write_error(&mut answer, &error);
        }
    }
    answer.extend_from_slice(b"]}\n");
    let mut response = Response::new(ResponseBody::whole(answer));
    *response.status_mut() = StatusCode::MULTI_STATUS;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(response)
}

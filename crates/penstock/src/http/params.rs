//! What a request says beside its body: query parameters and `Kafka-…` headers, read once into values that need no
//! further checks.
//!
//! An unknown or doubled query parameter is refused: `?partion=3` would otherwise write records to partitions that
//! nobody meant, and a record cannot be taken back.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use kafka_records::HeaderBlock;

use super::error::ApiError;
use super::json_pointer::JsonPointer;
use super::routes::percent_decode;
use crate::config::Validate;

/// The parameters of a query, decoded. They are taken out one by one; what is left at the end is unknown.
#[derive(Debug)]
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(crate) fn parse(query: Option<&'a str>) -> Result<Self, ApiError> {
        let mut parameters: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (percent_decode(name, true), percent_decode(value, true)) else {
                return Err(ApiError::bad_request("the query is not percent-encoded UTF-8"));
            };
            if parameters.iter().any(|(seen, _)| *seen == name) {
                return Err(ApiError::bad_request(format!("the parameter {name:?} is given twice")));
            }
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// A whole number between the bounds.
    pub(crate) fn take_number<N>(&mut self, name: &str, least: N, most: N) -> Result<Option<N>, ApiError>
    where
        N: FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        number(&text, &least, &most)
            .map(Some)
            .ok_or_else(|| ApiError::bad_request(format!("{name} is a whole number from {least} to {most}")))
    }

    /// Every parameter must have been taken.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(ApiError::bad_request(format!("unknown parameter {name:?}"))),
        }
    }
}

fn number<N: FromStr + PartialOrd>(text: &str, least: &N, most: &N) -> Option<N> {
    // `from_str` takes a sign in front; a number here is digits, with a minus where it may be negative.
    let number: N = text.parse().ok().filter(|_| !text.starts_with('+'))?;
    (*least <= number && number <= *most).then_some(number)
}

/// Where the records of a request get their key from.
#[derive(Debug)]
pub(crate) enum Key {
    /// Null: any partition.
    None,
    /// The same for all.
    Fixed(Vec<u8>),
    /// A member of each document.
    Pointer {
        pointer: JsonPointer,
        /// What a line is told that has no such member.
        missing: Arc<str>,
    },
}

/// Everything that a produce request says in its head, checked.
#[derive(Debug)]
pub(crate) struct ProduceParams {
    /// The body is lines, each a record.
    pub(crate) ndjson: bool,
    /// The answer is a stream of progress lines.
    pub(crate) progress: bool,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Key,
    pub(crate) headers: HeaderBlock,
    /// CreateTime of all records, ms since the epoch; `None`: the time at which their chunk came.
    pub(crate) timestamp: Option<i64>,
    /// A shorter delivery timeout.
    pub(crate) timeout: Option<Duration>,
    /// What the first line is called.
    pub(crate) first_line: u64,
    pub(crate) validate: bool,
}

impl ProduceParams {
    /// Reads the head of `POST …/records`. `delivery_timeout` bounds `Kafka-Timeout-Ms`.
    pub(crate) fn parse(
        query: Option<&str>,
        headers: &HeaderMap,
        validate: Validate,
        delivery_timeout: Duration,
    ) -> Result<Self, ApiError> {
        let ndjson = headers.get(CONTENT_TYPE).is_some_and(is_ndjson);
        // Most requests have none of ours: one look at the names is cheaper than a search for each.
        let ours = headers.keys().any(|name| name.as_str().starts_with("kafka-")).then_some(headers);
        let mut query = Query::parse(query)?;
        let partition = query.take_number("partition", 0, i32::MAX)?;
        let pointer = query.take("key");
        let validate = match query.take("validate").as_deref() {
            None => ndjson && validate == Validate::Json,
            Some("none") => false,
            Some("json") if ndjson => true,
            Some("json") => {
                return Err(ApiError::bad_request("validate=json is for NDJSON (Content-Type: application/x-ndjson)"));
            }
            Some(_) => return Err(ApiError::bad_request("validate is json or none")),
        };
        query.finish()?;
        let key = match (pointer, fixed_key(ours)?) {
            (None, None) => Key::None,
            (None, Some(key)) => Key::Fixed(key),
            (Some(_), Some(_)) => {
                return Err(ApiError::bad_request("the key is given twice: by the parameter key and by a header"));
            }
            (Some(_), None) if !ndjson => {
                return Err(ApiError::bad_request(
                    "the parameter key is for NDJSON (Content-Type: application/x-ndjson); for one record there is the header Kafka-Key",
                ));
            }
            (Some(text), None) => Key::Pointer {
                pointer: JsonPointer::parse(&text)
                    .map_err(|error| ApiError::bad_request(format!("key {text:?}: {error}")))?,
                missing: format!("the document has no member {text}").into(),
            },
        };
        let first_line = header_number(ours, "kafka-first-line", 1, i64::MAX)?;
        if first_line.is_some() && !ndjson {
            return Err(ApiError::bad_request("Kafka-First-Line is for NDJSON (Content-Type: application/x-ndjson)"));
        }
        Ok(Self {
            ndjson,
            progress: ndjson && headers.get_all(ACCEPT).into_iter().any(names_ndjson),
            partition,
            key,
            headers: ours.map_or_else(|| Ok(HeaderBlock::default()), record_headers)?,
            timestamp: header_number(ours, "kafka-timestamp", 0, i64::MAX)?,
            timeout: header_number(ours, "kafka-timeout-ms", 1, i64::MAX)?
                .map(|ms| Duration::from_millis(ms.unsigned_abs()).min(delivery_timeout)),
            first_line: first_line.map_or(1, i64::unsigned_abs),
            validate,
        })
    }
}

/// Whether a media type, its parameters aside, is one of NDJSON's names.
fn is_ndjson(value: &HeaderValue) -> bool {
    let value = value.as_bytes();
    let essence = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    [&b"application/x-ndjson"[..], b"application/ndjson", b"application/jsonl"]
        .iter()
        .any(|name| essence.eq_ignore_ascii_case(name))
}

/// Whether a list of media types names NDJSON.
fn names_ndjson(value: &HeaderValue) -> bool {
    let mut types = value.as_bytes().split(|&byte| byte == b',');
    types.any(|media| HeaderValue::from_bytes(media).is_ok_and(|media| is_ndjson(&media)))
}

/// `Kafka-Key` or `Kafka-Key-Base64`.
fn fixed_key(headers: Option<&HeaderMap>) -> Result<Option<Vec<u8>>, ApiError> {
    let text = single(headers, "kafka-key")?;
    let base64 = single(headers, "kafka-key-base64")?;
    match (text, base64) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(text.as_bytes().to_vec())),
        (None, Some(encoded)) => BASE64_STANDARD
            .decode(encoded)
            .map(Some)
            .map_err(|error| ApiError::bad_request(format!("Kafka-Key-Base64: {error}"))),
        (Some(_), Some(_)) => Err(ApiError::bad_request("the key is given twice: Kafka-Key and Kafka-Key-Base64")),
    }
}

/// `Kafka-Header`s, then `Kafka-Header-Base64`s, each in their order.
fn record_headers(headers: &HeaderMap) -> Result<HeaderBlock, ApiError> {
    let mut list: Vec<(&str, Cow<'_, [u8]>)> = Vec::new();
    for (field, is_base64) in [("kafka-header", false), ("kafka-header-base64", true)] {
        for line in headers.get_all(field) {
            let name = if is_base64 { "Kafka-Header-Base64" } else { "Kafka-Header" };
            let line = line.as_bytes();
            let equals =
                memchr::memchr(b'=', line).ok_or_else(|| ApiError::bad_request(format!("{name} is name=value")))?;
            let key = std::str::from_utf8(&line[..equals]).ok().filter(|key| !key.is_empty()).ok_or_else(|| {
                ApiError::bad_request(format!("{name}: the name before = is UTF-8, at least one character"))
            })?;
            let value = &line[equals + 1..];
            list.push((
                key,
                if is_base64 {
                    Cow::Owned(
                        BASE64_STANDARD
                            .decode(value)
                            .map_err(|error| ApiError::bad_request(format!("{name} {key}: {error}")))?,
                    )
                } else {
                    Cow::Borrowed(value)
                },
            ));
        }
    }
    Ok(HeaderBlock::new(list.iter().map(|(key, value)| (*key, Some(&**value)))))
}

/// The value of a header that may be there once.
fn single<'a>(headers: Option<&'a HeaderMap>, name: &'static str) -> Result<Option<&'a HeaderValue>, ApiError> {
    let Some(headers) = headers else {
        return Ok(None);
    };
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(ApiError::bad_request(format!("the header {name} is given twice"))),
        (value, None) => Ok(value),
    }
}

fn header_number(
    headers: Option<&HeaderMap>,
    name: &'static str,
    least: i64,
    most: i64,
) -> Result<Option<i64>, ApiError> {
    let Some(value) = single(headers, name)? else {
        return Ok(None);
    };
    let number = value.to_str().ok().and_then(|text| number(text.trim(), &least, &most));
    number
        .map(Some)
        .ok_or_else(|| ApiError::bad_request(format!("the header {name} is a whole number from {least} to {most}")))
}

#[cfg(test)]
mod tests;

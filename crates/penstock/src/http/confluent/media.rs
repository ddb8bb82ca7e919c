//! Media types: `application/vnd.kafka[.format][.version]+json`.
//!
//! Confluent's proxy answers 415 and 406 to everything that is not spelled as it spells it; its clients write what it
//! takes, and others send `application/json` or nothing. Both are understood here.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};

use super::embedded::EmbeddedFormat;
use crate::http::error::ApiError;
use crate::http::respond::JSON;

/// What one media type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Media {
    /// `application/vnd.kafka.json.v2+json` and its like.
    Embedded(EmbeddedFormat),
    /// `application/vnd.kafka.v2+json`: a document without keys or values in it.
    Plain(Version),
    /// `application/json`.
    Json,
    /// `*/*`, `application/*`.
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// `application/vnd.kafka+json`
    None,
    V1,
    V2,
}

impl Media {
    /// Reads one media type; its parameters do not matter.
    fn parse(text: &[u8]) -> Option<Self> {
        let essence = text.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        let essence = std::str::from_utf8(essence).ok()?.to_ascii_lowercase();
        match &*essence {
            "application/json" => return Some(Self::Json),
            "*/*" | "application/*" => return Some(Self::Any),
            _ => {}
        }
        let words = essence.strip_prefix("application/vnd.kafka")?.strip_suffix("+json")?;
        let mut format = None;
        let mut version = Version::None;
        for word in words.split('.').filter(|word| !word.is_empty()) {
            match word {
                "v1" => version = Version::V1,
                "v2" => version = Version::V2,
                _ => format = Some(EmbeddedFormat::parse(word)?),
            }
        }
        Some(format.map_or(Self::Plain(version), Self::Embedded))
    }
}

/// The format of the records in a request's body. JSON where nothing says more; the vendor's type without a format is
/// binary, as it always was.
///
/// # Errors
///
/// 415 for a media type that is something else.
pub(crate) fn produce_format(headers: &HeaderMap) -> Result<EmbeddedFormat, ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(EmbeddedFormat::Json);
    };
    match Media::parse(value.as_bytes()) {
        Some(Media::Embedded(format)) => Ok(format),
        Some(Media::Plain(_)) => Ok(EmbeddedFormat::Binary),
        Some(Media::Json | Media::Any) => Ok(EmbeddedFormat::Json),
        None => Err(ApiError::unsupported_media(
            "application/vnd.kafka.FORMAT.v2+json, FORMAT one of binary, json, text, avro, jsonschema and protobuf",
        )),
    }
}

/// The formats that a reader of records takes; none: any.
pub(crate) fn accepted_formats(headers: &HeaderMap) -> Vec<EmbeddedFormat> {
    let mut formats = Vec::new();
    for media in accepted(headers) {
        match media {
            Media::Embedded(format) => formats.push(format),
            // Confluent takes this for the binary format; its clients send it with every call, whatever their format is.
            Media::Plain(_) | Media::Json | Media::Any => return Vec::new(),
        }
    }
    formats
}

/// The media type of an answer without keys or values in it: what the client says it takes, else Confluent's.
pub(crate) fn answer_type(headers: &HeaderMap) -> HeaderValue {
    let known = accepted(headers).find_map(|media| match media {
        Media::Json => Some(JSON),
        Media::Plain(Version::V1) => Some(HeaderValue::from_static("application/vnd.kafka.v1+json")),
        Media::Plain(Version::None) => Some(HeaderValue::from_static("application/vnd.kafka+json")),
        Media::Plain(Version::V2) | Media::Any => Some(V2),
        Media::Embedded(_) => None,
    });
    known.unwrap_or(V2)
}

const V2: HeaderValue = HeaderValue::from_static("application/vnd.kafka.v2+json");

/// The media type of records in this format.
pub(crate) const fn records_type(format: EmbeddedFormat) -> HeaderValue {
    HeaderValue::from_static(match format {
        EmbeddedFormat::Binary => "application/vnd.kafka.binary.v2+json",
        EmbeddedFormat::Json => "application/vnd.kafka.json.v2+json",
        EmbeddedFormat::Text => "application/vnd.kafka.text.v2+json",
        EmbeddedFormat::Avro => "application/vnd.kafka.avro.v2+json",
        EmbeddedFormat::JsonSchema => "application/vnd.kafka.jsonschema.v2+json",
        EmbeddedFormat::Protobuf => "application/vnd.kafka.protobuf.v2+json",
    })
}

fn accepted(headers: &HeaderMap) -> impl Iterator<Item = Media> {
    let values = headers.get_all(ACCEPT).into_iter();
    values.flat_map(|value| value.as_bytes().split(|&byte| byte == b',')).filter_map(Media::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: hyper::header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_body_is_what_its_media_type_says() {
        use EmbeddedFormat::{Avro, Binary, Json, JsonSchema, Protobuf, Text};
        for (value, format) in [
            ("application/vnd.kafka.json.v2+json", Json),
            ("application/vnd.kafka.json.v2+json; charset=utf-8", Json),
            ("Application/Vnd.Kafka.Binary.V2+JSON", Binary),
            ("application/vnd.kafka.binary.v1+json", Binary),
            ("application/vnd.kafka.avro+json", Avro),
            ("application/vnd.kafka.jsonschema.v2+json", JsonSchema),
            ("application/vnd.kafka.protobuf.v2+json", Protobuf),
            ("application/vnd.kafka.text.v2+json", Text),
            ("application/vnd.kafka.v2+json", Binary),
            ("application/json", Json),
        ] {
            assert_eq!(produce_format(&headers(CONTENT_TYPE, value)), Ok(format), "{value}");
        }
        assert_eq!(produce_format(&HeaderMap::new()), Ok(Json));
        for value in ["text/plain", "application/vnd.kafka.xml.v2+json", "application/vnd.kafka.json.v2"] {
            let error = produce_format(&headers(CONTENT_TYPE, value)).expect_err(value);
            assert_eq!(error.code, 415);
        }
    }

    #[test]
    fn an_answer_is_what_its_client_takes() {
        for (value, told) in [
            (
                "application/vnd.kafka.v2+json, application/vnd.kafka+json, application/json",
                "application/vnd.kafka.v2+json",
            ),
            ("application/json", "application/json"),
            ("*/*", "application/vnd.kafka.v2+json"),
            ("text/html, application/vnd.kafka.v1+json;q=0.9", "application/vnd.kafka.v1+json"),
            ("text/html", "application/vnd.kafka.v2+json"),
        ] {
            assert_eq!(answer_type(&headers(ACCEPT, value)), told, "{value}");
        }
        assert_eq!(answer_type(&HeaderMap::new()), "application/vnd.kafka.v2+json");
        assert_eq!(accepted_formats(&headers(ACCEPT, "application/vnd.kafka.json.v2+json")), [EmbeddedFormat::Json]);
        assert!(accepted_formats(&headers(ACCEPT, "application/json")).is_empty());
        assert!(accepted_formats(&HeaderMap::new()).is_empty());
    }
}

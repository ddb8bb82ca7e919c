//! Keys and values inside of JSON documents.
//!
//! | format | in the document | in Kafka |
//! |---|---|---|
//! | binary | a string of base64 | the bytes |
//! | json | any JSON value | its text, byte for byte: `1.10` stays `1.10`, the order of members stays, a string keeps its quotes |
//! | text | a string | its characters in UTF-8 |
//!
//! `null`, or nothing, is Kafka's null in all of them: a tombstone, where it is the value.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::json::write_string;

/// How keys and values are written in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EmbeddedFormat {
    Binary,
    Json,
    /// Strimzi's.
    Text,
    Avro,
    JsonSchema,
    Protobuf,
}

impl EmbeddedFormat {
    /// As clients and media types name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Json => "json",
            Self::Text => "text",
            Self::Avro => "avro",
            Self::JsonSchema => "jsonschema",
            Self::Protobuf => "protobuf",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Binary, Self::Json, Self::Text, Self::Avro, Self::JsonSchema, Self::Protobuf]
            .into_iter()
            .find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Whether a schema is needed to read or write it.
    pub(crate) const fn needs_schema(self) -> bool {
        matches!(self, Self::Avro | Self::JsonSchema | Self::Protobuf)
    }
}

/// One key or value on its way to Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    Null,
    /// As it stands in the document.
    Verbatim(&'a [u8]),
    /// These bytes of the buffer that it was decoded into.
    Decoded {
        start: usize,
        end: usize,
    },
}

impl<'a> Payload<'a> {
    /// Its bytes, or `None` for Kafka's null. `decoded` is the buffer of [`decode`].
    pub(crate) fn bytes<'b>(&self, decoded: &'b [u8]) -> Option<&'b [u8]>
    where
        'a: 'b,
    {
        match *self {
            Self::Null => None,
            Self::Verbatim(bytes) => Some(bytes),
            Self::Decoded { start, end } => Some(&decoded[start..end]),
        }
    }
}

/// From a document to bytes. What is not in the document as it is goes to the end of `decoded`, which takes at most as
/// many bytes as the value has in the document.
///
/// # Errors
///
/// What is wrong with the value, for its sender. Formats that need a schema are not for here.
pub(crate) fn decode<'a>(
    format: EmbeddedFormat,
    value: Option<&'a RawValue>,
    decoded: &mut Vec<u8>,
) -> Result<Payload<'a>, String> {
    let Some(value) = value.filter(|value| value.get() != "null") else {
        return Ok(Payload::Null);
    };
    let start = decoded.len();
    match format {
        EmbeddedFormat::Json => return Ok(Payload::Verbatim(value.get().as_bytes())),
        EmbeddedFormat::Text => decoded.extend_from_slice(string(value, "text")?.as_bytes()),
        EmbeddedFormat::Binary => {
            let text = string(value, "base64")?;
            BASE64_STANDARD.decode_vec(&*text, decoded).map_err(|error| format!("is not base64: {error}"))?;
        }
        EmbeddedFormat::Avro | EmbeddedFormat::JsonSchema | EmbeddedFormat::Protobuf => {
            return Err(format!("is {}, which needs a schema", format.name()));
        }
    }
    Ok(Payload::Decoded { start, end: decoded.len() })
}

/// A JSON string's characters. Some clients escape what they need not (`\/` in base64).
fn string<'a>(value: &'a RawValue, what: &str) -> Result<Cow<'a, str>, String> {
    let text = value.get();
    // Without an escape the characters are those between the quotes.
    if let Some(inside) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'))
        && !inside.contains('\\')
    {
        return Ok(Cow::Borrowed(inside));
    }
    serde_json::from_str::<String>(text).map(Cow::Owned).map_err(|_| format!("must be a string of {what}, or null"))
}

/// From bytes to a document: appends the value to `out`.
///
/// # Errors
///
/// The bytes cannot be told in this format; `out` is as it was.
pub(crate) fn encode(format: EmbeddedFormat, bytes: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let Some(bytes) = bytes else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    match format {
        EmbeddedFormat::Binary => {
            out.push(b'"');
            let start = out.len();
            out.resize(start + bytes.len().div_ceil(3) * 4, 0);
            let written = BASE64_STANDARD.encode_slice(bytes, &mut out[start..]);
            debug_assert_eq!(written, Ok(out.len() - start), "the room is exact");
            out.push(b'"');
        }
        // As Confluent's reader takes it.
        EmbeddedFormat::Json if bytes.is_empty() => out.extend_from_slice(b"null"),
        EmbeddedFormat::Json => {
            let text = std::str::from_utf8(bytes).map_err(|_| "is not JSON")?;
            serde_json::from_str::<IgnoredAny>(text).map_err(|_| "is not JSON")?;
            out.extend_from_slice(bytes);
        }
        EmbeddedFormat::Text => {
            let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
            write_string(text, out);
        }
        EmbeddedFormat::Avro | EmbeddedFormat::JsonSchema | EmbeddedFormat::Protobuf => {
            return Err("needs a schema");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(format: EmbeddedFormat, text: &str) -> Result<Option<Vec<u8>>, String> {
        let value: Option<&RawValue> = serde_json::from_str(text).expect("JSON");
        let mut buffer = b"what was there".to_vec();
        let payload = decode(format, value, &mut buffer)?;
        Ok(payload.bytes(&buffer).map(<[u8]>::to_vec))
    }

    fn encoded(format: EmbeddedFormat, bytes: &[u8]) -> Result<String, &'static str> {
        let mut out = Vec::new();
        encode(format, Some(bytes), &mut out)?;
        Ok(String::from_utf8(out).expect("JSON is UTF-8"))
    }

    #[test]
    fn json_passes_byte_for_byte_in_both_directions() {
        for text in
            ["1.10", "0", "false", "\"\"", "{}", "[]", "1e400", "{\"b\":1, \"a\":2,\"b\":3}", "\"\\u00e9\\/\"", "-0.0"]
        {
            assert_eq!(decoded(EmbeddedFormat::Json, text), Ok(Some(text.as_bytes().to_vec())));
            assert_eq!(encoded(EmbeddedFormat::Json, text.as_bytes()), Ok(text.to_owned()));
        }
        assert_eq!(decoded(EmbeddedFormat::Json, " null "), Ok(None));
        assert_eq!(encoded(EmbeddedFormat::Json, b""), Ok("null".to_owned()));
        assert_eq!(encoded(EmbeddedFormat::Json, b"{\"a\":1} x"), Err("is not JSON"));
        assert_eq!(encoded(EmbeddedFormat::Json, b"\"\xff\""), Err("is not JSON"));
    }

    #[test]
    fn binary_is_base64_however_its_string_is_written() {
        let bytes: Vec<u8> = (0..=255).rev().collect();
        let text = encoded(EmbeddedFormat::Binary, &bytes).expect("anything goes");
        assert_eq!(decoded(EmbeddedFormat::Binary, &text), Ok(Some(bytes.clone())));
        assert!(text.contains('/'), "or the next line shows nothing");
        assert_eq!(decoded(EmbeddedFormat::Binary, &text.replace('/', "\\/")), Ok(Some(bytes)));
        assert_eq!(decoded(EmbeddedFormat::Binary, "\"\""), Ok(Some(Vec::new())));
        assert_eq!(decoded(EmbeddedFormat::Binary, "null"), Ok(None));
        for wrong in ["1", "{}", "\"???\"", "\"abc\"", "true"] {
            assert!(decoded(EmbeddedFormat::Binary, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn text_is_the_characters_of_a_string() {
        assert_eq!(decoded(EmbeddedFormat::Text, "\"a\\n\\u20ac\""), Ok(Some("a\n€".as_bytes().to_vec())));
        assert_eq!(encoded(EmbeddedFormat::Text, "a\n€\"".as_bytes()), Ok("\"a\\n€\\\"\"".to_owned()));
        assert!(decoded(EmbeddedFormat::Text, "7").is_err());
        assert!(encoded(EmbeddedFormat::Text, b"\xff").is_err());
    }

    #[test]
    fn what_cannot_be_told_leaves_nothing_behind() {
        let mut out = b"[".to_vec();
        assert!(encode(EmbeddedFormat::Json, Some(b"{"), &mut out).is_err());
        assert_eq!(out, b"[");
    }
}

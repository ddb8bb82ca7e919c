//! Records as JSON lines.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kafka_records::ReadRecord;
use serde::de::IgnoredAny;

use super::error::ApiError;
use super::params::Query;
use crate::json::{write_number, write_string};

/// Lines are handed to the connection in pieces of about this size.
pub(super) const PIECE_BYTES: usize = 32 * 1024;

/// An empty piece, which has room for lines up to [`PIECE_BYTES`] and for the end of the one that passes it.
pub(super) fn empty_piece() -> Vec<u8> {
    Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8)
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueFormat {
    Json,
    Text,
    Base64,
}

impl ValueFormat {
    /// `value=json|text|base64`.
    pub(super) fn take(query: &mut Query<'_>) -> Result<Self, ApiError> {
        match query.take("value").as_deref() {
            None | Some("json") => Ok(Self::Json),
            Some("text") => Ok(Self::Text),
            Some("base64") => Ok(Self::Base64),
            Some(_) => Err(ApiError::bad_request("value is json, text or base64")),
        }
    }
}

/// Writes one record as a JSON line.
pub(super) fn write_line(out: &mut Vec<u8>, partition: i32, record: &ReadRecord, format: ValueFormat) {
    out.extend_from_slice(b"{\"partition\":");
    write_number(partition.into(), out);
    out.extend_from_slice(b",\"offset\":");
    write_number(record.offset, out);
    out.extend_from_slice(b",\"timestamp\":");
    write_number(record.timestamp, out);
    // Keys are names much more often than documents: text wherever they are text.
    let key_format = if format == ValueFormat::Base64 { ValueFormat::Base64 } else { ValueFormat::Text };
    write_member(out, "key", record.key.as_deref(), key_format);
    write_member(out, "value", record.value.as_deref(), format);
    out.extend_from_slice(b",\"headers\":[");
    for (at, (name, value)) in record.headers.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.push(b'[');
        write_string(&String::from_utf8_lossy(name), out);
        out.push(b',');
        match value.map(|value| (value, std::str::from_utf8(value))) {
            None => out.extend_from_slice(b"null"),
            Some((_, Ok(text))) => write_string(text, out),
            Some((bytes, Err(_))) => {
                write_string(&BASE64_STANDARD.encode(bytes), out);
                out.extend_from_slice(b",\"base64\"");
            }
        }
        out.push(b']');
    }
    out.extend_from_slice(b"]}\n");
}

/// Writes `,"name":…`, and `,"name_encoding":"base64"` where the bytes are not what the format asks for.
fn write_member(out: &mut Vec<u8>, name: &str, bytes: Option<&[u8]>, format: ValueFormat) {
    for part in [",\"", name, "\":"] {
        out.extend_from_slice(part.as_bytes());
    }
    let Some(bytes) = bytes else {
        out.extend_from_slice(b"null");
        return;
    };
    match format {
        ValueFormat::Json
            if serde_json::from_slice::<IgnoredAny>(bytes).is_ok() && std::str::from_utf8(bytes).is_ok() =>
        {
            out.extend_from_slice(&one_line(bytes));
        }
        ValueFormat::Text if let Ok(text) = std::str::from_utf8(bytes) => write_string(text, out),
        _ => {
            write_string(&BASE64_STANDARD.encode(bytes), out);
            out.extend_from_slice(format!(",\"{name}_encoding\":\"base64\"").as_bytes());
        }
    }
}

/// A JSON document as it is. Line ends can stand only between its tokens, and would end our line: they become spaces,
/// and the document stays the same.
fn one_line(document: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\n', b'\r', document).is_none() {
        return Cow::Borrowed(document);
    }
    let space = |&byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte };
    Cow::Owned(document.iter().map(space).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kafka_records::HeaderBlock;

    fn line(key: Option<&[u8]>, value: Option<&[u8]>, format: ValueFormat) -> String {
        let record = ReadRecord {
            offset: 7,
            timestamp: 9,
            key: key.map(Bytes::copy_from_slice),
            value: value.map(Bytes::copy_from_slice),
            headers: HeaderBlock::none().clone(),
        };
        let mut out = Vec::new();
        write_line(&mut out, 0, &record, format);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn a_json_document_is_spliced_byte_for_byte() {
        assert_eq!(
            line(Some(b"k"), Some(b"{\"b\": 1.50,\"a\":[ ]}"), ValueFormat::Json),
            "{\"partition\":0,\"offset\":7,\"timestamp\":9,\"key\":\"k\",\"value\":{\"b\": 1.50,\"a\":[ ]},\"headers\":[]}\n"
        );
        let pretty = line(None, Some(b"{\r\n  \"a\": 1\n}"), ValueFormat::Json);
        assert_eq!(pretty.matches('\n').count(), 1, "one line");
        let pretty: serde_json::Value = serde_json::from_str(&pretty).expect("JSON");
        assert_eq!(pretty["value"]["a"], 1);
    }

    #[test]
    fn what_is_not_what_was_asked_for_comes_as_base64_and_says_so() {
        for (format, value) in [
            (ValueFormat::Json, &b"plain"[..]),
            (ValueFormat::Text, b"\xff"),
            (ValueFormat::Base64, b"plain"),
            (ValueFormat::Json, b"\"\xff\""),
            (ValueFormat::Json, b""),
        ] {
            let line: serde_json::Value =
                serde_json::from_str(&line(Some(b"\xff"), Some(value), format)).expect("JSON");
            assert_eq!(line["value"], BASE64_STANDARD.encode(value));
            assert_eq!(line["value_encoding"], "base64");
            assert_eq!(line["key_encoding"], "base64");
        }
        let text: serde_json::Value =
            serde_json::from_str(&line(Some(b"1"), Some(b"a\"\n"), ValueFormat::Text)).expect("JSON");
        assert_eq!((text["key"].as_str(), text["value"].as_str()), (Some("1"), Some("a\"\n")));
        assert!(line(None, None, ValueFormat::Json).contains("\"key\":null,\"value\":null"));
    }

    #[test]
    fn headers_keep_order_and_duplicates() {
        let record = ReadRecord {
            offset: 0,
            timestamp: 0,
            key: None,
            value: None,
            headers: HeaderBlock::new([("a", Some(&b"1"[..])), ("a", None), ("b", Some(&[0xff]))]),
        };
        let mut out = Vec::new();
        write_line(&mut out, 0, &record, ValueFormat::Json);
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.ends_with("\"headers\":[[\"a\",\"1\"],[\"a\",null],[\"b\",\"/w==\",\"base64\"]]}\n"), "{text}");
    }
}

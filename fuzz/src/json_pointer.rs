//! The JSON pointer, against a parser that builds the document.

#[rustfmt::skip]
#[path = "../../crates/penstock/src/http/json_pointer.rs"]
#[allow(dead_code, reason = "a target uses what it needs")]
mod pointer;

use pointer::JsonPointer;
use serde_json::Value;

/// The first line is the pointer, the rest the document. Nothing panics; and in a document that is JSON and has no member twice,
/// the pointer finds what a parser finds.
pub fn run(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (text, document) = (&data[..end], &data[end + 1..]);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(pointer) = JsonPointer::parse(text) else { return };
    let mut scratch = Vec::new();
    let found = pointer.find(document, &mut scratch).map(<[u8]>::to_vec);
    let Ok(parsed) = serde_json::from_slice::<Value>(document) else { return };
    let Ok(found) = found else {
        // A parser keeps the last of members with the same name, the pointer goes by the first: it may miss there.
        assert!(parsed.pointer(text).is_none() || has_repeated_member(document, &parsed), "missed");
        return;
    };
    if has_repeated_member(document, &parsed) {
        return;
    }
    match parsed.pointer(text).expect("found, so it is there") {
        Value::String(expected) => assert_eq!(found, expected.as_bytes()),
        expected => assert_eq!(serde_json::from_slice::<Value>(&found).ok().as_ref(), Some(expected)),
    }
}

/// Whether the document has more members than its parsed form: counted by the colons outside of strings.
fn has_repeated_member(document: &[u8], parsed: &Value) -> bool {
    let (mut colons, mut in_string, mut escaped) = (0, false, false);
    for byte in document {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b':' if !in_string => colons += 1,
            _ => {}
        }
    }
    colons != members(parsed)
}

fn members(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.iter().map(members).sum(),
        Value::Object(map) => map.values().map(|value| 1 + members(value)).sum(),
        _ => 0,
    }
}

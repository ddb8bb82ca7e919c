//! Pieces of JSON, appended to a buffer.

/// Appends a string, quoted and escaped.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a vector takes what is written, and a string is JSON");
}

/// Appends a number, without the text between that `format!` makes.
pub(crate) fn write_number(number: i64, out: &mut Vec<u8>) {
    serde_json::to_writer(out, &number).expect("a vector takes what is written, and a number is JSON");
}

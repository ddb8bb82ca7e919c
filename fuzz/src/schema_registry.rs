//! Values with a schema: between JSON and Avro's and Protobuf's binary forms.
//!
//! An input's first byte says by which schema and which way, the rest is the value.

use std::sync::LazyLock;

use serde_json::Value;
use serde_json::value::RawValue;

use formats::avro::Avro;
use formats::problem;
use formats::protobuf::Protobuf;

// The folder is named, not the files: a module that has a file's path looks for its own modules beside that file.
#[rustfmt::skip]
#[path = "../../crates/penstock/src/schema_registry"]
#[allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "a target uses what it needs")]
mod formats {
    pub(super) mod avro;
    pub(super) mod problem;
    pub(super) mod protobuf;
}

/// Bytes that a value may become.
const MOST: usize = 64 * 1024;
/// What a piece of JSON may be longer than what it is made of: a control character is six.
const ESCAPED: usize = 6;
/// The longest name in a schema, and what stands around it.
const NAME: usize = 64;

static AVRO: LazyLock<Vec<Avro>> = LazyLock::new(|| {
    let texts = [
        r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
            {"name": "id", "type": "long"},
            {"name": "count", "type": "int", "default": 1},
            {"name": "paid", "type": "boolean", "default": false},
            {"name": "weight", "type": "float", "default": 0.5},
            {"name": "price", "type": "double", "default": 0},
            {"name": "note", "type": ["null", "string", "bytes", "long"], "default": null},
            {"name": "tags", "type": {"type": "array", "items": "string"}, "default": ["a"]},
            {"name": "prices", "type": {"type": "map", "values": ["double", "Order"]}, "default": {"eur": 1}},
            {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID"]}, "default": "NEW"},
            {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 2}, "default": "\u0000\u00ff"},
            {"name": "next", "type": ["null", "Order"], "default": null}]}"#,
        r#"{"type": "record", "name": "Logical", "fields": [
            {"name": "a", "type": {"type": "int", "logicalType": "date"}},
            {"name": "b", "type": {"type": "int", "logicalType": "time-millis"}},
            {"name": "c", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "d", "type": {"type": "long", "logicalType": "local-timestamp-nanos"}},
            {"name": "e", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
            {"name": "f", "type": {"type": "fixed", "name": "F", "size": 3, "logicalType": "decimal", "precision": 5}},
            {"name": "g", "type": {"type": "fixed", "name": "G", "size": 12, "logicalType": "duration"}},
            {"name": "h", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "i", "type": {"type": "bytes", "logicalType": "big-decimal"}}]}"#,
        r#"{"type": "array", "items": {"type": "map", "values": {"type": "array", "items": ["null", "float"]}}}"#,
        // What takes no bytes at all, any number of times.
        r#"{"type": "array", "items": {"type": "record", "name": "E", "fields": [
            {"name": "nothing", "type": "null", "default": null},
            {"name": "empty", "type": {"type": "record", "name": "F", "fields": []}, "default": {}},
            {"name": "fixed", "type": {"type": "fixed", "name": "Z", "size": 0}, "default": ""}]}}"#,
        // Twice as much at each level.
        r#"{"type": "record", "name": "Tree", "fields": [
            {"name": "left", "type": ["null", "Tree"]}, {"name": "right", "type": ["null", "Tree"]}]}"#,
    ];
    texts.iter().map(|text| Avro::parse(text, &[]).expect("a schema")).collect()
});

/// Which of the schemas has the types that Protobuf's JSON mapping treats apart.
const KNOWN: usize = 1;

static PROTOBUF: LazyLock<Vec<Protobuf>> = LazyLock::new(|| {
    let texts = [
        r#"syntax = "proto3"; package shop;
        message Order {
            int32 a = 1; int64 b = 2; uint32 c = 3; uint64 d = 4; sint32 e = 5; sint64 f = 6;
            fixed32 g = 7; fixed64 h = 8; sfixed32 i = 9; sfixed64 j = 10;
            float k = 11; double l = 12; bool m = 13; string n = 14; bytes o = 15;
            optional int32 p = 16; State q = 17; Order r = 18;
            oneof one { string s = 19; Order t = 20; State u = 21; }
            repeated int32 v = 22; repeated string w = 23; repeated Order x = 24; repeated State y = 25;
            map<string, Order> z = 26; map<int32, bytes> aa = 27; map<bool, double> ab = 28;
            message Line { sint64 sku = 1; }
        }
        enum State { NEW = 0; PAID = 1; }"#,
        r#"syntax = "proto3"; package shop;
        import "google/protobuf/any.proto"; import "google/protobuf/duration.proto"; import "google/protobuf/empty.proto";
        import "google/protobuf/field_mask.proto"; import "google/protobuf/struct.proto";
        import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";
        message Known {
            google.protobuf.Any a = 1; google.protobuf.Duration b = 2; google.protobuf.Empty c = 3;
            google.protobuf.FieldMask d = 4; google.protobuf.Struct e = 5; google.protobuf.Value f = 6;
            google.protobuf.ListValue g = 7; google.protobuf.NullValue h = 8; google.protobuf.Timestamp i = 9;
            google.protobuf.DoubleValue j = 10; google.protobuf.FloatValue k = 11; google.protobuf.Int64Value l = 12;
            google.protobuf.UInt64Value m = 13; google.protobuf.BoolValue n = 14; google.protobuf.StringValue o = 15;
            google.protobuf.BytesValue p = 16; repeated google.protobuf.Any q = 17;
            map<string, google.protobuf.Value> r = 18; oneof one { google.protobuf.Value s = 19; google.protobuf.Any t = 20; }
        }"#,
        r#"syntax = "proto2"; package shop;
        message Old {
            required int32 a = 1; optional string b = 2 [default = "x"]; repeated int32 c = 3 [packed = true];
            optional group D = 4 { optional Old e = 5; }
            repeated group F = 6 { optional bytes g = 7; }
            optional double h = 8 [default = inf]; optional State i = 9 [default = PAID];
            extensions 100 to 199;
        }
        enum State { NEW = 1; PAID = 2; }
        extend Old { optional Old within = 100; repeated float weights = 101 [packed = true]; }"#,
        // Much of little: two bytes are a message of which each field is told.
        r#"syntax = "proto3"; message Wide { repeated Wide a = 1; int64 b = 2; int64 c = 3; int64 d = 4; int64 e = 5;
            int64 f = 6; int64 g = 7; int64 h = 8; int64 i = 9; int64 j = 10; int64 k = 11; int64 l = 12; int64 m = 13; }"#,
    ];
    texts.iter().map(|text| Protobuf::parse(text, []).expect("a schema")).collect()
});

/// Bytes as JSON: they may be no value, and they do not become more than they may. What is told of one is JSON, and as JSON
/// it is the same value.
pub fn avro(data: &[u8]) {
    let [how, value @ ..] = data else { return };
    let schema = &AVRO[usize::from(how >> 1) % AVRO.len()];
    let encode = |json: &RawValue| appended(|out| schema.encode(json, MOST, out), MOST + json.get().len() + NAME);
    let decode = |bytes: &[u8]| appended(|out| schema.decode(bytes, MOST, out), MOST + ESCAPED * bytes.len() + NAME);
    if how & 1 == 0 {
        let Ok(json) = decode(value) else { return };
        let json: Box<RawValue> = serde_json::from_slice(&json).expect("JSON");
        let again = decode(&encode(&json).expect("it was read by this schema")).expect("it was written by this schema");
        assert_eq!(parsed(&again), parsed(json.get().as_bytes()));
    } else if let Ok(json) = serde_json::from_slice::<&RawValue>(value)
        && let Ok(bytes) = encode(json)
        && let Ok(json) = decode(&bytes)
    {
        let json: Box<RawValue> = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(encode(&json), Ok(bytes));
    }
}

/// The same for Protobuf, as far as prost-reflect goes: it refuses the largest float that it tells itself, and of the types that the
/// JSON mapping treats apart not all is told; a FieldMask's empty paths are lost, for one.
pub fn protobuf(data: &[u8]) {
    let [how, value @ ..] = data else { return };
    let at = usize::from(how >> 1) % PROTOBUF.len();
    let schema = &PROTOBUF[at];
    let encode = |json: &RawValue| appended(|out| schema.encode(json, out), usize::MAX);
    let decode = |bytes: &[u8]| appended(|out| schema.decode(bytes, MOST, out), MOST);
    // Of the schema's messages only the first is written.
    let (bytes, is_first) = if how & 1 == 0 {
        (value.to_vec(), value.first() == Some(&0))
    } else {
        let Ok(json) = serde_json::from_slice::<&RawValue>(value) else { return };
        let Ok(bytes) = encode(json) else { return };
        (bytes, true)
    };
    let Ok(json) = decode(&bytes) else { return };
    let told: Box<RawValue> = serde_json::from_slice(&json).expect("JSON");
    if let Ok(again) = encode(&told)
        && is_first
        && at != KNOWN
    {
        assert_eq!(encode(&told).as_ref(), Ok(&again), "the same JSON, a map's entries included, is always the same bytes");
        let again = decode(&again).expect("it was written by this schema");
        assert_eq!(parsed(&again), parsed(&json));
    }
}

/// What is appended to a buffer, behind what was there: at most so many bytes.
fn appended(append: impl FnOnce(&mut Vec<u8>) -> Result<(), String>, most: usize) -> Result<Vec<u8>, String> {
    let mut out = b"before".to_vec();
    let appended = append(&mut out);
    assert!(out.len() - 6 <= most, "{} bytes", out.len());
    assert!(out.starts_with(b"before"));
    appended.map(|()| out.split_off(6))
}

fn parsed(json: &[u8]) -> Value {
    serde_json::from_slice(json).expect("JSON")
}

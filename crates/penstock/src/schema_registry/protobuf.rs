//! Between Protobuf's JSON mapping and its wire format.
//!
//! In front of the message Confluent's serializers write which message of the schema it is: a path of indexes, from the
//! schema's own messages to those within, as zigzag varints with their number before them. The commonest path, of the first
//! message, is a single zero byte. Values are written as the first message; any is read.
//!
//! A map's entries have no order of their own, and prost-reflect's get another each time. A key's bytes choose its partition and
//! what compaction keeps, so what is written is written by a *twin* of the schema, in which a map is the list of entries that it
//! is on the wire, and they are sorted.

use std::collections::BTreeMap;
use std::io;

use prost_reflect::prost::Message;
use prost_reflect::prost_types::{Any, DescriptorProto, FileDescriptorSet};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FileDescriptor, MessageDescriptor, ReflectMessage, SerializeOptions, Value,
};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use serde_json::value::RawValue;

use super::problem::{too_deep, too_long};

/// What the schema's own text is called while it is compiled.
const OWN: &str = "schema.proto";
const FIRST_MESSAGE: u8 = 0;
/// Messages within messages, in a schema.
const PATH: i64 = 32;
/// Messages within messages, in a value. prost bounds those that it decodes, to 100.
const DEPTH: usize = 128;
/// Of these, what a message of any type is worth: it is decoded when JSON is made of it, with bounds of its own, from a copy.
const ANY_DEPTH: usize = 16;

/// The messages of a schema.
#[derive(Debug)]
pub(crate) struct Protobuf {
    file: FileDescriptor,
    /// The first message of the twin, if there are maps anywhere.
    twin: Option<MessageDescriptor>,
}

/// Texts by the names under which they are imported.
struct Texts(BTreeMap<String, String>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let text = self.0.get(name).ok_or_else(|| protox::Error::file_not_found(name))?;
        File::from_source(name, text)
    }
}

impl Protobuf {
    /// Compiles a schema; `imports` are texts by the names under which they are imported.
    pub(crate) fn parse(text: &str, imports: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let texts: BTreeMap<_, _> = imports.into_iter().chain([(OWN.to_owned(), text.to_owned())]).collect();
        if texts.values().any(|text| is_too_deep(text)) {
            return Err(too_deep());
        }
        let mut resolver = ChainFileResolver::new();
        resolver.add(Texts(texts));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        compiler.include_imports(true).open_file(OWN).map_err(|error| error.to_string())?;
        let file = compiler.descriptor_pool().get_file_by_name(OWN).ok_or("has no file")?;
        if file.messages().len() == 0 {
            return Err("has no message".to_owned());
        }
        let twin = twin(compiler.file_descriptor_set())?;
        Ok(Self { file, twin })
    }

    fn first(&self) -> Option<MessageDescriptor> {
        self.file.messages().next()
    }

    /// The full name of the first message.
    pub(crate) fn name(&self) -> Option<String> {
        self.first().map(|message| message.full_name().to_owned())
    }

    /// Appends the indexes and the message.
    pub(crate) fn encode(&self, value: &RawValue, out: &mut Vec<u8>) -> Result<(), String> {
        let descriptor = self.first().ok_or("has no message")?;
        let mut json = serde_json::Deserializer::from_str(value.get());
        let message = DynamicMessage::deserialize(descriptor.clone(), &mut json);
        let message = message.map_err(|error| format!("is no {}: {error}", descriptor.full_name()))?;
        let message = match &self.twin {
            None => message,
            Some(twin) => {
                let mut listed = DynamicMessage::new(twin.clone());
                listed.transcode_from(&message).map_err(|error| error.to_string())?;
                sort_entries(&mut listed, self.file.parent_pool());
                listed
            }
        };
        out.push(FIRST_MESSAGE);
        message.encode(out).map_err(|error| error.to_string())
    }

    /// Appends the JSON form of what [`encode`](Self::encode) and its like write, with the fields that have their default, as
    /// Confluent's proxy writes it; gives up when that is longer than `most` bytes.
    pub(crate) fn decode(&self, bytes: &[u8], most: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let mut rest = bytes;
        let descriptor = self.by_path(&mut rest)?;
        let message = DynamicMessage::decode(descriptor.clone(), rest)
            .map_err(|error| format!("is no {}: {error}", descriptor.full_name()))?;
        check_depth(&message, DEPTH)?;
        let options = SerializeOptions::new().skip_default_fields(false);
        let mut json = serde_json::Serializer::new(AtMost { end: out.len() + most, out });
        message.serialize_with_options(&mut json, &options).map_err(|error| {
            if error.is_io() {
                too_long(most)
            } else {
                format!("is a {} that JSON cannot tell: {error}", descriptor.full_name())
            }
        })
    }

    /// The message that the indexes in front of `rest` name; `rest` is what follows them.
    fn by_path(&self, rest: &mut &[u8]) -> Result<MessageDescriptor, String> {
        let count = zigzag(rest)?;
        if count == 0 {
            return self.first().ok_or_else(|| "has no message".to_owned());
        }
        if !(1..=PATH).contains(&count) {
            return Err(format!("has a path of {count} messages in its schema"));
        }
        let mut found: Option<MessageDescriptor> = None;
        for _ in 0..count {
            let at = zigzag(rest)?;
            let index = usize::try_from(at).unwrap_or(usize::MAX);
            let next = match &found {
                None => self.file.messages().nth(index),
                Some(outer) => outer.child_messages().nth(index),
            };
            found = Some(next.ok_or_else(|| format!("names message {at} where its schema has none"))?);
        }
        found.ok_or_else(|| "names no message".to_owned())
    }
}

/// The first message of a schema whose maps are lists of their entries. `None` without maps.
fn twin(mut files: FileDescriptorSet) -> Result<Option<MessageDescriptor>, String> {
    /// Returns how many there are.
    fn make_lists(messages: &mut [DescriptorProto]) -> usize {
        let of_one = |message: &mut DescriptorProto| {
            let is_entry = message.options.as_mut().and_then(|options| options.map_entry.take()).unwrap_or(false);
            usize::from(is_entry) + make_lists(&mut message.nested_type)
        };
        messages.iter_mut().map(of_one).sum()
    }
    let maps: usize = files.file.iter_mut().map(|file| make_lists(&mut file.message_type)).sum();
    if maps == 0 {
        return Ok(None);
    }
    let pool = DescriptorPool::from_file_descriptor_set(files).map_err(|error| error.to_string())?;
    Ok(pool.get_file_by_name(OWN).and_then(|file| file.messages().next()))
}

/// Sorts the entries of all maps in a twin's message; `pool` has the schema itself.
fn sort_entries(message: &mut DynamicMessage, pool: &DescriptorPool) {
    message.fields_mut().for_each(|(_, value)| sort_entries_of(value, pool));
    message.extensions_mut().for_each(|(_, value)| sort_entries_of(value, pool));
}

fn sort_entries_of(value: &mut Value, pool: &DescriptorPool) {
    match value {
        Value::Message(message) => sort_entries(message, pool),
        Value::List(values) => {
            values.iter_mut().filter_map(Value::as_message_mut).for_each(|message| sort_entries(message, pool));
            let first = values.first().and_then(Value::as_message).map(ReflectMessage::descriptor);
            let itself = first.and_then(|of_twin| pool.get_message_by_name(of_twin.full_name()));
            if itself.is_some_and(|message| message.is_map_entry()) {
                values.sort_by_cached_key(|entry| entry.as_message().map(Message::encode_to_vec));
            }
        }
        _ => {}
    }
}

/// Whatever a message of any type holds is looked at, too: such messages may hold one another as often as their bytes suffice.
fn check_depth(message: &DynamicMessage, left: usize) -> Result<(), String> {
    let descriptor = message.descriptor();
    let is_any = descriptor.full_name() == "google.protobuf.Any";
    let left = left.checked_sub(if is_any { ANY_DEPTH } else { 1 }).ok_or_else(too_deep)?;
    if is_any {
        // One that cannot be decoded is refused by who writes the JSON.
        return any(message).map_or(Ok(()), |held| check_depth(&held, left));
    }
    let mut values = message.fields().map(|(_, value)| value).chain(message.extensions().map(|(_, value)| value));
    values.try_for_each(|value| match value {
        Value::Message(message) => check_depth(message, left),
        Value::List(values) => values.iter().filter_map(Value::as_message).try_for_each(|held| check_depth(held, left)),
        Value::Map(values) => {
            values.values().filter_map(Value::as_message).try_for_each(|held| check_depth(held, left))
        }
        _ => Ok(()),
    })
}

/// The message that one of any type holds, found as it is when JSON is made of it.
fn any(message: &DynamicMessage) -> Option<DynamicMessage> {
    let any: Any = message.transcode_to().ok()?;
    let (_, name) = any.type_url.rsplit_once('/')?;
    let descriptor = message.descriptor().parent_pool().get_message_by_name(name)?;
    DynamicMessage::decode(descriptor, any.value.as_slice()).ok()
}

/// Appends, and fails before `out` is longer than `end`.
struct AtMost<'a> {
    out: &'a mut Vec<u8>,
    end: usize,
}

impl io::Write for AtMost<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.end - self.out.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn zigzag(rest: &mut &[u8]) -> Result<i64, String> {
    let mut number = 0_u64;
    for shift in (0..35).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or("ends too early")?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
        }
    }
    Err("names its message by a number of more than 32 bits".to_owned())
}

/// The compiler's parser is recursive, and bounds messages only. Braces of comments and strings count as well: a schema is
/// not refused for those that have a partner.
fn is_too_deep(text: &str) -> bool {
    const DEPTH: usize = 200;
    let mut depth = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'{' | b'[' | b'<' | b'(' => depth += 1,
            b'}' | b']' | b'>' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > DEPTH
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::{prost, prost_types};

    fn encoded(schema: &Protobuf, json: &str) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        schema.encode(serde_json::from_str(json).expect("JSON"), &mut out).map(|()| out)
    }

    #[test]
    fn the_first_message_is_written_behind_its_index() {
        let text = "syntax = \"proto3\"; package shop; import \"money.proto\"; import \"google/protobuf/timestamp.proto\";\n\
                    message Order { int64 id = 1; string note = 2; Money sum = 3; google.protobuf.Timestamp at = 4; }\n\
                    message Other {}";
        let money = "syntax = \"proto3\"; package shop; message Money { int32 cents = 1; }";
        let schema = Protobuf::parse(text, [("money.proto".to_owned(), money.to_owned())]).expect("a schema");
        assert_eq!(schema.name().as_deref(), Some("shop.Order"));
        let json = "{\"id\":\"150\",\"note\":\"a\",\"sum\":{\"cents\":1},\"at\":\"1970-01-01T00:00:01Z\"}";
        let bytes = [0, 8, 0x96, 1, 0x12, 1, b'a', 0x1a, 2, 8, 1, 0x22, 2, 8, 1];
        assert_eq!(encoded(&schema, json), Ok(bytes.to_vec()));
        assert_eq!(encoded(&schema, "{}"), Ok(vec![0]));
        for wrong in ["{\"unknown\":1}", "{\"id\":\"x\"}", "[]", "1"] {
            assert!(encoded(&schema, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn entries_of_maps_are_always_written_in_the_same_order() {
        let text = "syntax = \"proto3\"; message A { map<string, B> of = 1; repeated B in = 2; oneof o { B one = 3; } }\n\
                    message B { map<int32, int32> of = 1; repeated int32 in = 2; }";
        let schema = Protobuf::parse(text, []).expect("a schema");
        let numbers: Vec<_> = (0..30).rev().map(|n| format!("\"{n}\":{}", 30 - n)).collect();
        let b = format!("{{\"of\":{{{}}},\"in\":[3,1,2]}}", numbers.join(","));
        let json = format!("{{\"of\":{{\"y\":{b},\"\":{b},\"x\":{b}}},\"in\":[{b},{{}},{b}],\"one\":{b}}}");
        let first = encoded(&schema, &json).expect("an A");
        for _ in 0..20 {
            assert_eq!(encoded(&schema, &json).expect("an A"), first);
        }
        let two = encoded(&schema, "{\"one\":{\"of\":{\"2\":28,\"1\":29}}}").expect("an A");
        assert_eq!(two, [0, 0x1a, 12, 0x0a, 4, 8, 1, 0x10, 29, 0x0a, 4, 8, 2, 0x10, 28]);

        let mut told = Vec::new();
        schema.decode(&first, 1 << 20, &mut told).expect("an A");
        let mut again: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
        let written: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        again["in"][1] = serde_json::json!({});
        assert_eq!(again, written);
    }

    #[test]
    fn any_message_of_the_schema_is_read() {
        let text = "syntax = \"proto3\"; message A { int64 id = 1; string note = 2; message B {} message C { bool ok = 1; } }\n\
                    message D { bytes raw = 1; }";
        let schema = Protobuf::parse(text, []).expect("a schema");
        let read = |bytes: &[u8]| {
            let mut out = Vec::new();
            schema.decode(bytes, 4096, &mut out).map(|()| String::from_utf8(out).expect("JSON"))
        };
        for (bytes, json) in [
            (&[0, 8, 0x96, 1][..], "{\"id\":\"150\",\"note\":\"\"}"),
            // The long form of the same path.
            (&[2, 0, 8, 0x96, 1], "{\"id\":\"150\",\"note\":\"\"}"),
            (&[2, 2, 0x0a, 1, 0xff], "{\"raw\":\"/w==\"}"),
            (&[4, 0, 2, 8, 1], "{\"ok\":true}"),
        ] {
            assert_eq!(read(bytes).as_deref(), Ok(json), "{bytes:?}");
        }
        for wrong in [
            &[][..],
            &[2],
            &[2, 4],
            &[1, 0],
            &[4, 2, 0],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0],
            &[0, 8],
            &[0, 0x12, 1, 0xff],
            &[0xfe, 0xff, 0xff, 0xff, 0x0f, 0],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_schema_that_is_deeper_than_any_does_not_end_the_process() {
        for (open, close) in [("message A { ", "} "), ("option (x) = { a: [ ", "] } ")] {
            let text = format!("syntax = \"proto3\"; {}{}", open.repeat(100_000), close.repeat(100_000));
            assert!(Protobuf::parse(&text, []).is_err());
        }
    }

    #[test]
    fn bytes_that_are_much_more_as_json_are_told_and_cost_little() {
        let fields: String = (1..200).map(|at| format!("int64 a_field_{at} = {at};")).collect();
        let text = format!("syntax = \"proto3\"; message A {{ repeated B b = 1; }} message B {{ {fields} }}");
        let schema = Protobuf::parse(&text, []).expect("a schema");
        // A thousand messages in two bytes each, of which every field has its default.
        let bytes = [&[0][..], &[0x0a, 0].repeat(1000)].concat();
        let mut out = Vec::new();
        let told = schema.decode(&bytes, 4096, &mut out).expect_err("three megabytes of two thousand bytes");
        assert!(told.contains("longer than 4096 bytes"), "{told}");
        assert!(out.capacity() <= 2 * 4096, "{}", out.capacity());
    }

    #[test]
    fn any_within_any_does_not_end_the_process() {
        let text =
            "syntax = \"proto3\"; import \"google/protobuf/any.proto\"; message A { google.protobuf.Any any = 1; }";
        let schema = Protobuf::parse(text, []).expect("a schema");
        let any = |name: &str, held: &[u8]| {
            let held = prost_types::Any { type_url: format!("x/{name}"), value: held.to_vec() };
            held.encode_to_vec()
        };
        let read = |anys: usize| {
            let held = (1..anys).fold(any("A", &[]), |held, _| any("google.protobuf.Any", &held));
            let mut bytes = vec![0];
            prost::encoding::bytes::encode(1, &held, &mut bytes);
            schema.decode(&bytes, 1 << 20, &mut Vec::new())
        };
        assert_eq!(read(7), Ok(()));
        assert_eq!(read(8), Err(too_deep()));
        // Without the bound, the stack's end.
        assert_eq!(read(20_000), Err(too_deep()));
    }

    #[test]
    fn what_is_no_schema_is_told() {
        for wrong in ["", "message", "syntax = \"proto3\"; import \"gone.proto\"; message A {}", "syntax = \"proto3\";"]
        {
            assert!(Protobuf::parse(wrong, []).is_err(), "{wrong}");
        }
    }
}

//! From JSON to binary.

use apache_avro::Schema;
use apache_avro::schema::{DecimalSchema, InnerDecimalSchema, Names, RecordSchema, UuidSchema};
use serde_json::Value;

use super::{DEPTH, label};
use crate::schema_registry::problem::{too_deep, too_long, within};

/// Values that the defaults of a schema make for one that is written.
const DEFAULTS: usize = 64 * 1024;

pub(super) fn encode(
    schema: &Schema,
    names: &Names,
    value: &Value,
    most: usize,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let end = out.len() + most;
    Encoder { names, out, end, most, defaults: DEFAULTS, is_default: false }.value(schema, value, DEPTH)
}

struct Encoder<'a> {
    names: &'a Names,
    out: &'a mut Vec<u8>,
    /// Bytes that `out` may have.
    end: usize,
    most: usize,
    /// Values that defaults may still make: a schema can make very many of very little.
    defaults: usize,
    /// A field's default: of a union it is the first member, and not wrapped.
    is_default: bool,
}

impl Encoder<'_> {
    fn value(&mut self, schema: &Schema, value: &Value, depth: usize) -> Result<(), String> {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        if self.is_default {
            self.defaults = self.defaults.checked_sub(1).ok_or("has too many values by default")?;
        }
        if self.out.len() > self.end {
            return Err(too_long(self.most));
        }
        match schema {
            Schema::Null if value.is_null() => {}
            Schema::Null => return Err(wrong("null", value)),
            Schema::Boolean => self.out.push(u8::from(value.as_bool().ok_or_else(|| wrong("a boolean", value))?)),
            Schema::Int | Schema::Date | Schema::TimeMillis => {
                let number = integer(value).and_then(|number| i32::try_from(number).ok());
                self.long(number.ok_or_else(|| wrong("an int", value))?.into());
            }
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => self.long(integer(value).ok_or_else(|| wrong("a long", value))?),
            Schema::Float => {
                let number = float(value).ok_or_else(|| wrong("a float", value))?;
                self.out.extend_from_slice(&(number as f32).to_le_bytes());
            }
            Schema::Double => {
                let number = float(value).ok_or_else(|| wrong("a double", value))?;
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            Schema::String | Schema::Uuid(UuidSchema::String) => {
                self.bytes(value.as_str().ok_or_else(|| wrong("a string", value))?.as_bytes());
            }
            Schema::Bytes
            | Schema::BigDecimal
            | Schema::Uuid(UuidSchema::Bytes)
            | Schema::Decimal(DecimalSchema { inner: InnerDecimalSchema::Bytes, .. }) => {
                let bytes = latin1(value).ok_or_else(|| wrong("bytes: a string of characters up to U+00FF", value))?;
                self.bytes(&bytes);
            }
            Schema::Fixed(fixed)
            | Schema::Duration(fixed)
            | Schema::Uuid(UuidSchema::Fixed(fixed))
            | Schema::Decimal(DecimalSchema { inner: InnerDecimalSchema::Fixed(fixed), .. }) => {
                let bytes = latin1(value).filter(|bytes| bytes.len() == fixed.size);
                let bytes = bytes
                    .ok_or_else(|| wrong(&format!("a string of {} characters up to U+00FF", fixed.size), value))?;
                self.out.extend_from_slice(&bytes);
            }
            Schema::Enum(schema) => {
                let symbol = value.as_str().and_then(|text| schema.symbols.iter().position(|known| known == text));
                let symbol = symbol.ok_or_else(|| wrong(&format!("a symbol of the enum {}", schema.name), value))?;
                self.long(symbol as i64);
            }
            Schema::Array(array) => {
                let items = value.as_array().ok_or_else(|| wrong("an array", value))?;
                if !items.is_empty() {
                    self.long(items.len() as i64);
                }
                for (at, item) in items.iter().enumerate() {
                    self.value(&array.items, item, depth).map_err(|problem| within(&format!("[{at}]"), &problem))?;
                }
                self.long(0);
            }
            Schema::Map(map) => {
                let entries = value.as_object().ok_or_else(|| wrong("an object", value))?;
                if !entries.is_empty() {
                    self.long(entries.len() as i64);
                }
                for (key, item) in entries {
                    self.bytes(key.as_bytes());
                    self.value(&map.types, item, depth).map_err(|problem| within(&format!(".{key}"), &problem))?;
                }
                self.long(0);
            }
            Schema::Record(record) => self.record(record, value, depth)?,
            Schema::Union(union) => {
                let (at, member, value) = self.member(union.variants(), value)?;
                self.long(at as i64);
                self.value(member, value, depth)?;
            }
            Schema::Ref { name } => {
                let schema = self.names.get(name).ok_or_else(|| format!("has a type without a schema: {name}"))?;
                self.value(schema, value, depth)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &RecordSchema, value: &Value, depth: usize) -> Result<(), String> {
        let name = &record.name;
        let members = value.as_object().ok_or_else(|| wrong(&format!("an object, the record {name}"), value))?;
        if let Some(unknown) = members.keys().find(|key| !record.lookup.contains_key(*key)) {
            return Err(format!("has a member {unknown:?}, which the record {name} does not have"));
        }
        for field in &record.fields {
            let inside = |problem: String| within(&format!(".{}", field.name), &problem);
            match (members.get(&field.name), &field.default) {
                (Some(value), _) => self.value(&field.schema, value, depth).map_err(inside)?,
                (None, Some(default)) => {
                    let outside = std::mem::replace(&mut self.is_default, true);
                    self.value(&field.schema, default, depth).map_err(inside)?;
                    self.is_default = outside;
                }
                (None, None) => {
                    return Err(format!("lacks the member {:?} of the record {name}", field.name));
                }
            }
        }
        Ok(())
    }

    /// Which member of a union a value is.
    fn member<'s, 'v>(
        &self,
        members: &'s [Schema],
        value: &'v Value,
    ) -> Result<(usize, &'s Schema, &'v Value), String> {
        if self.is_default
            && let Some(first) = members.first()
        {
            return Ok((0, first, value));
        }
        let (wanted, inner) = match value {
            Value::Null => ("null", value),
            Value::Object(object) if object.len() == 1 => {
                let (name, inner) = object.iter().next().expect("it has one");
                (name.as_str(), inner)
            }
            _ => ("", value),
        };
        let found = members.iter().position(|member| label(member) == wanted);
        found.map(|at| (at, &members[at], inner)).ok_or_else(|| {
            format!(
                "must be null or an object with one member that names its type, one of {}; found {}",
                members.iter().map(label).collect::<Vec<_>>().join(", "),
                shown(value)
            )
        })
    }

    /// A zigzag varint, of int and long alike.
    fn long(&mut self, number: i64) {
        let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
        while rest >= 0x80 {
            self.out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.out.push(rest as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.long(bytes.len() as i64);
        self.out.extend_from_slice(bytes);
    }
}

/// A whole number, also where it is written as `3.0`.
fn integer(value: &Value) -> Option<i64> {
    let whole = |number: &f64| number.fract() == 0.0 && number.abs() < 9.0e15;
    value.as_i64().or_else(|| value.as_f64().filter(whole).map(|number| number as i64))
}

/// A number, or the name that Avro's own encoder gives to what JSON has no number for.
fn float(value: &Value) -> Option<f64> {
    match value.as_str() {
        None => value.as_f64(),
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        Some(_) => None,
    }
}

/// Bytes as the characters of ISO 8859-1.
fn latin1(value: &Value) -> Option<Vec<u8>> {
    value.as_str()?.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect()
}

fn wrong(wanted: &str, value: &Value) -> String {
    format!("must be {wanted}; found {}", shown(value))
}

/// What kind of value it is: never the value itself.
const fn shown(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

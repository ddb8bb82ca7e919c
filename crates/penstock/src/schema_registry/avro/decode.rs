//! From binary to JSON. The bytes are a producer's: nothing in them is believed.

use apache_avro::Schema;
use apache_avro::schema::{DecimalSchema, InnerDecimalSchema, Names, RecordSchema, UuidSchema};

use super::{DEPTH, label};
use crate::json::{write_number, write_string};
use crate::schema_registry::problem::{too_deep, too_long};

pub(super) fn decode(
    schema: &Schema,
    names: &Names,
    bytes: &[u8],
    most: usize,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let end = out.len() + most;
    Decoder { names, rest: bytes, out, end, most }.value(schema, DEPTH)
}

struct Decoder<'a> {
    names: &'a Names,
    rest: &'a [u8],
    out: &'a mut Vec<u8>,
    /// Bytes that `out` may have.
    end: usize,
    most: usize,
}

impl<'a> Decoder<'a> {
    fn value(&mut self, schema: &Schema, depth: usize) -> Result<(), String> {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        // An array of nulls has no bytes for its items; each of them is some of JSON.
        if self.out.len() > self.end {
            return Err(too_long(self.most));
        }
        match schema {
            Schema::Null => self.out.extend_from_slice(b"null"),
            Schema::Boolean => {
                let text = match self.take(1)?[0] {
                    0 => "false",
                    1 => "true",
                    other => return Err(format!("has a boolean of {other}")),
                };
                self.out.extend_from_slice(text.as_bytes());
            }
            Schema::Int | Schema::Date | Schema::TimeMillis => {
                let number = i32::try_from(self.long()?).map_err(|_| "has an int of more than 32 bits")?;
                write_number(number.into(), self.out);
            }
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => {
                let number = self.long()?;
                write_number(number, self.out);
            }
            Schema::Float => {
                let number = f32::from_le_bytes(self.array()?);
                self.float(number.is_finite(), number, number.is_nan(), number > 0.0);
            }
            Schema::Double => {
                let number = f64::from_le_bytes(self.array()?);
                self.float(number.is_finite(), number, number.is_nan(), number > 0.0);
            }
            Schema::String | Schema::Uuid(UuidSchema::String) => self.string()?,
            Schema::Bytes
            | Schema::BigDecimal
            | Schema::Uuid(UuidSchema::Bytes)
            | Schema::Decimal(DecimalSchema { inner: InnerDecimalSchema::Bytes, .. }) => {
                let bytes = self.sized()?;
                self.latin1(bytes);
            }
            Schema::Fixed(fixed)
            | Schema::Duration(fixed)
            | Schema::Uuid(UuidSchema::Fixed(fixed))
            | Schema::Decimal(DecimalSchema { inner: InnerDecimalSchema::Fixed(fixed), .. }) => {
                let bytes = self.take(fixed.size)?;
                self.latin1(bytes);
            }
            Schema::Enum(schema) => {
                let at = self.long()?;
                let symbol = usize::try_from(at).ok().and_then(|at| schema.symbols.get(at));
                let symbol = symbol.ok_or_else(|| format!("has symbol {at} of {}", schema.name))?;
                write_string(symbol, self.out);
            }
            Schema::Array(array) => {
                self.out.push(b'[');
                self.blocks(|decoder| decoder.value(&array.items, depth))?;
                self.out.push(b']');
            }
            Schema::Map(map) => {
                self.out.push(b'{');
                self.blocks(|decoder| {
                    decoder.string()?;
                    decoder.out.push(b':');
                    decoder.value(&map.types, depth)
                })?;
                self.out.push(b'}');
            }
            Schema::Record(record) => self.record(record, depth)?,
            Schema::Union(union) => {
                let at = self.long()?;
                let member = usize::try_from(at).ok().and_then(|at| union.variants().get(at));
                let member =
                    member.ok_or_else(|| format!("has member {at} of a union of {}", union.variants().len()))?;
                if matches!(member, Schema::Null) {
                    self.value(member, depth)?;
                } else {
                    self.out.push(b'{');
                    write_string(label(member), self.out);
                    self.out.push(b':');
                    self.value(member, depth)?;
                    self.out.push(b'}');
                }
            }
            Schema::Ref { name } => {
                let schema = self.names.get(name).ok_or_else(|| format!("has a type without a schema: {name}"))?;
                self.value(schema, depth)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &RecordSchema, depth: usize) -> Result<(), String> {
        for (at, field) in record.fields.iter().enumerate() {
            self.out.push(if at == 0 { b'{' } else { b',' });
            write_string(&field.name, self.out);
            self.out.push(b':');
            self.value(&field.schema, depth)?;
        }
        if record.fields.is_empty() {
            self.out.push(b'{');
        }
        self.out.push(b'}');
        Ok(())
    }

    /// The items of an array or a map, which come in blocks; the last one is empty.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        let mut is_first = true;
        loop {
            let mut count = self.long()?;
            if count < 0 {
                // Its bytes come next, for who wants to skip it.
                count = count.checked_neg().ok_or("has a block of too many items")?;
                self.long()?;
            }
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                if !std::mem::replace(&mut is_first, false) {
                    self.out.push(b',');
                }
                item(self)?;
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or("ends too early")?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N).map(|bytes| bytes.try_into().expect("as many as were asked for"))
    }

    /// A zigzag varint, of int and long alike.
    fn long(&mut self) -> Result<i64, String> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        Err("has a long of more than 64 bits".to_owned())
    }

    fn sized(&mut self) -> Result<&'a [u8], String> {
        let count = self.long()?;
        self.take(usize::try_from(count).map_err(|_| format!("has {count} bytes somewhere"))?)
    }

    fn string(&mut self) -> Result<(), String> {
        let text = std::str::from_utf8(self.sized()?).map_err(|_| "has a string that is not UTF-8")?;
        write_string(text, self.out);
        Ok(())
    }

    /// What JSON has no number for is a string, as Avro's own writer has it.
    fn float(&mut self, is_finite: bool, number: impl serde::Serialize, is_nan: bool, is_positive: bool) {
        if is_finite {
            serde_json::to_writer(&mut *self.out, &number).expect("a vector takes a number");
        } else {
            let text = match (is_nan, is_positive) {
                (true, _) => "\"NaN\"",
                (_, true) => "\"Infinity\"",
                _ => "\"-Infinity\"",
            };
            self.out.extend_from_slice(text.as_bytes());
        }
    }

    /// Bytes as the characters of ISO 8859-1.
    fn latin1(&mut self, bytes: &[u8]) {
        let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
        write_string(&text, self.out);
    }
}

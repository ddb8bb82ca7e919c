//! Between Avro's JSON encoding and its binary one (Avro 1.11 specification, "Data Serialization and Deserialization").
//!
//! The schema is apache-avro's; the walks are ours, because that crate has no reader and no writer of the JSON encoding, and
//! because a logical type (a date, a decimal) is in both encodings what its underlying type is. A member of a union other
//! than null is wrapped in an object that names its type, `{"string":"x"}`, as Confluent's proxy has it.

mod decode;
mod encode;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Names, ResolvedSchema, UuidSchema};
use serde_json::value::RawValue;

/// Values within values. Deeper JSON is refused by its parser.
const DEPTH: usize = 128;

/// A schema, and what its names mean. The parser has put its namespace in front of every name, also of those that refer to a
/// schema.
#[derive(Debug)]
pub(crate) struct Avro {
    schema: Schema,
    names: Names,
}

impl Avro {
    /// Reads a schema that may name those of `references`.
    pub(crate) fn parse(text: &str, references: &[String]) -> Result<Self, String> {
        let (schema, referenced) = Schema::parse_str_with_list(text, references).map_err(|error| error.to_string())?;
        let names = {
            let schemata = referenced.iter().chain([&schema]).collect();
            let resolved = ResolvedSchema::new_with_schemata(schemata).map_err(|error| error.to_string())?;
            // By its own name: the keys have the namespace around also in front of one that is in none.
            let named =
                resolved.get_names().values().filter_map(|schema| Some((schema.name()?.clone(), (*schema).clone())));
            named.collect()
        };
        Ok(Self { schema, names })
    }

    /// The full name of a record, an enum or a fixed.
    pub(crate) fn name(&self) -> Option<String> {
        match &self.schema {
            named @ (Schema::Record(_) | Schema::Enum(_) | Schema::Fixed(_)) => Some(label(named).to_owned()),
            _ => None,
        }
    }

    /// Appends the binary form of `value`; gives up when that is longer than `most` bytes.
    pub(crate) fn encode(&self, value: &RawValue, most: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let value = serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
        encode::encode(&self.schema, &self.names, &value, most, out)
    }

    /// Appends the JSON form of `bytes`; gives up when that is longer than `most` bytes. What follows the value is not looked
    /// at, as Java's reader does not.
    pub(crate) fn decode(&self, bytes: &[u8], most: usize, out: &mut Vec<u8>) -> Result<(), String> {
        decode::decode(&self.schema, &self.names, bytes, most, out)
    }
}

/// What a union's member is called in JSON: a type's name, and of a logical type the name of what it is made of.
fn label(schema: &Schema) -> &str {
    match schema {
        Schema::Null => "null",
        Schema::Boolean => "boolean",
        Schema::Int | Schema::Date | Schema::TimeMillis => "int",
        Schema::Float => "float",
        Schema::Double => "double",
        Schema::String | Schema::Uuid(UuidSchema::String) => "string",
        Schema::Array(_) => "array",
        Schema::Map(_) => "map",
        Schema::Record(record) => record.name.as_ref(),
        Schema::Enum(schema) => schema.name.as_ref(),
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => fixed.name.as_ref(),
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Bytes => "bytes",
            InnerDecimalSchema::Fixed(fixed) => fixed.name.as_ref(),
        },
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => "bytes",
        Schema::Ref { name } => name.as_ref(),
        Schema::Union(_) => "union",
        _ => "long",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::types::Value as Datum;
    use serde_json::{Value, json};

    const ORDER: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
        {"name":"id","type":"long"},
        {"name":"note","type":["null","string"],"default":null},
        {"name":"tags","type":{"type":"array","items":"string"},"default":[]},
        {"name":"prices","type":{"type":"map","values":"double"},"default":{}},
        {"name":"state","type":{"type":"enum","name":"State","symbols":["NEW","PAID"]},"default":"NEW"},
        {"name":"hash","type":{"type":"fixed","name":"Hash","size":2},"default":"\u0000\u00ff"},
        {"name":"raw","type":"bytes","default":"\u00ff"},
        {"name":"when","type":{"type":"long","logicalType":"timestamp-millis"},"default":0},
        {"name":"next","type":["null","Order"],"default":null}]}"#;

    const MOST: usize = 4096;

    fn encoded(schema: &str, value: &Value) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        let value = serde_json::value::to_raw_value(value).expect("JSON");
        Avro::parse(schema, &[])?.encode(&value, MOST, &mut out).map(|()| out)
    }

    fn decoded(schema: &str, bytes: &[u8]) -> Result<String, String> {
        let mut out = Vec::new();
        Avro::parse(schema, &[])?.decode(bytes, MOST, &mut out)?;
        Ok(String::from_utf8(out).expect("JSON is UTF-8"))
    }

    /// What apache-avro reads of it.
    fn read_back(schema: &str, bytes: &[u8]) -> Datum {
        let schema = Schema::parse_str(schema).expect("a schema");
        let mut rest = bytes;
        let datum = GenericDatumReader::builder(&schema).build().and_then(|reader| reader.read_value(&mut rest));
        assert!(rest.is_empty(), "all of it");
        datum.expect("a datum")
    }

    #[test]
    fn another_reader_reads_what_was_written() {
        let order = json!({
            "id": -7, "note": {"string": "x"}, "tags": ["a", "b"], "prices": {"eur": 1.5}, "state": "PAID",
            "hash": "\u{1}\u{fe}", "raw": "\u{0}\u{80}", "when": 1_700_000_000_000_i64,
            "next": {"shop.Order": {"id": 8}},
        });
        let Datum::Record(fields) = read_back(ORDER, &encoded(ORDER, &order).expect("it fits")) else { panic!() };
        let field = |name: &str| fields.iter().find(|(known, _)| known == name).expect(name).1.clone();
        assert_eq!(field("id"), Datum::Long(-7));
        assert_eq!(field("note"), Datum::Union(1, Box::new(Datum::String("x".to_owned()))));
        assert_eq!(field("tags"), Datum::Array(vec![Datum::String("a".to_owned()), Datum::String("b".to_owned())]));
        assert_eq!(field("state"), Datum::Enum(1, "PAID".to_owned()));
        assert_eq!(field("hash"), Datum::Fixed(2, vec![1, 0xfe]));
        assert_eq!(field("raw"), Datum::Bytes(vec![0, 0x80]));
        assert_eq!(field("when"), Datum::TimestampMillis(1_700_000_000_000));
        let Datum::Union(1, next) = field("next") else { panic!() };
        let Datum::Record(next) = *next else { panic!() };
        assert_eq!(next[5].1, Datum::Fixed(2, vec![0, 0xff]), "a default");
    }

    #[test]
    fn primitives_are_as_the_specification_has_them() {
        for (schema, value, bytes) in [
            ("\"int\"", json!(-1), &[1][..]),
            ("\"long\"", json!(64), &[0x80, 1]),
            ("\"long\"", json!(3.0), &[6]),
            ("\"string\"", json!("foo"), &[6, b'f', b'o', b'o']),
            ("\"boolean\"", json!(true), &[1]),
            ("\"null\"", json!(null), &[]),
            ("\"float\"", json!(1), &[0, 0, 0x80, 0x3f]),
            ("[\"null\",\"string\"]", json!(null), &[0]),
            ("[\"null\",\"string\"]", json!({"string": "a"}), &[2, 2, b'a']),
            ("{\"type\":\"array\",\"items\":\"long\"}", json!([3, 27]), &[4, 6, 54, 0]),
            ("{\"type\":\"int\",\"logicalType\":\"date\"}", json!(1), &[2]),
            ("{\"type\":\"bytes\",\"logicalType\":\"decimal\",\"precision\":4,\"scale\":2}", json!("\u{1}"), &[2, 1]),
        ] {
            assert_eq!(encoded(schema, &value).as_deref(), Ok(bytes), "{schema} {value}");
            let read = decoded(schema, bytes).expect("it was written");
            assert_eq!(serde_json::from_str::<Value>(&read).expect("JSON").as_f64(), value.as_f64(), "{schema} {read}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place_and_without_its_value() {
        for (value, problem) in [
            (json!({}), "lacks the member \"id\" of the record shop.Order"),
            (json!({"id": 1, "secret": 2}), "has a member \"secret\", which the record shop.Order does not have"),
            (json!({"id": "secret"}), ".id must be a long; found a string"),
            (json!({"id": 1.5}), ".id must be a long; found a number"),
            (json!({"id": 1, "tags": ["a", 1]}), ".tags[1] must be a string; found a number"),
            (json!({"id": 1, "state": "GONE"}), ".state must be a symbol of the enum shop.State; found a string"),
            (json!({"id": 1, "raw": "€"}), ".raw must be bytes: a string of characters up to U+00FF; found a string"),
            (
                json!({"id": 1, "note": "unwrapped"}),
                ".note must be null or an object with one member that names its type, one of null, string; found a string",
            ),
        ] {
            assert_eq!(encoded(ORDER, &value), Err(problem.to_owned()));
        }
    }

    #[test]
    fn names_are_those_of_the_namespace_around_unless_they_say_otherwise() {
        let schema = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
            {"name":"near","type":["null",{"type":"record","name":"Near","fields":[
                {"name":"far","type":["null",{"type":"enum","name":"Far","namespace":"away","symbols":["A"]}]}]}]},
            {"name":"again","type":["null","Near","away.Far"]},
            {"name":"bare","type":["null",{"type":"fixed","name":"Bare","namespace":"","size":1}]}]}"#;
        let order = json!({
            "near": {"shop.Near": {"far": {"away.Far": "A"}}},
            "again": {"shop.Near": {"far": null}},
            "bare": {"Bare": "x"},
        });
        let bytes = encoded(schema, &order).expect("it fits");
        assert_eq!(bytes, [2, 2, 0, 2, 0, 2, b'x']);
        let read = decoded(schema, &bytes).expect("it was written");
        assert_eq!(serde_json::from_str::<Value>(&read).expect("JSON"), order);
        for (member, wanted) in [("Near", "null, shop.Near, away.Far"), ("Far", "null, shop.Near, away.Far")] {
            let told = encoded(schema, &json!({"near": null, "again": {member: {"far": null}}})).expect_err(member);
            assert!(told.contains(wanted), "{told}");
        }
    }

    #[test]
    fn a_schema_may_name_others() {
        let money = r#"{"type":"record","name":"Money","namespace":"shop","fields":[{"name":"cents","type":"long"}]}"#;
        let bill =
            r#"{"type":"record","name":"Bill","namespace":"shop","fields":[{"name":"sum","type":"shop.Money"}]}"#;
        assert!(Avro::parse(bill, &[]).is_err());
        let mut out = Vec::new();
        let avro = Avro::parse(bill, &[money.to_owned()]).expect("known");
        let value = serde_json::value::to_raw_value(&json!({"sum": {"cents": 3}})).expect("JSON");
        avro.encode(&value, MOST, &mut out).expect("it fits");
        assert_eq!((out, avro.name().as_deref()), (vec![6], Some("shop.Bill")));
    }

    #[test]
    fn what_was_written_is_read_as_it_was() {
        let order = json!({
            "id": -7, "note": {"string": "x\n€"}, "tags": ["a", "b"], "prices": {"eur": 1.5}, "state": "PAID",
            "hash": "\u{1}\u{fe}", "raw": "\u{0}\u{80}", "when": i64::MIN,
            "next": {"shop.Order": {
                "id": 8, "note": null, "tags": [], "prices": {}, "state": "NEW", "hash": "\u{0}\u{ff}", "raw": "\u{ff}",
                "when": i64::MAX, "next": null,
            }},
        });
        let read = decoded(ORDER, &encoded(ORDER, &order).expect("it fits")).expect("it was written");
        assert_eq!(serde_json::from_str::<Value>(&read).expect("JSON"), order);
        assert!(read.starts_with("{\"id\":-7,\"note\":{\"string\":"), "in the schema's order: {read}");
    }

    #[test]
    fn what_is_read_is_not_too_deep_to_be_written() {
        let tree = r#"{"type":"record","name":"A","fields":[{"name":"a","type":["null","A"]}]}"#;
        let avro = Avro::parse(tree, &[]).expect("a schema");
        let deepest = (0..DEPTH).rev().find_map(|levels| {
            let mut json = Vec::new();
            avro.decode(&[&[2].repeat(levels)[..], &[0]].concat(), MOST, &mut json).ok().map(|()| json)
        });
        let deepest: Value = serde_json::from_slice(&deepest.expect("some depth is read")).expect("JSON");
        assert_eq!(encoded(tree, &deepest).map(|_| ()), Ok(()));
    }

    #[test]
    fn a_double_is_the_same_in_both_encodings() {
        for number in [5.996_366_710_525_267_5e202, f64::MIN_POSITIVE, f64::MAX, 0.1 + 0.2] {
            let bytes = number.to_le_bytes();
            let json: Value = serde_json::from_str(&decoded("\"double\"", &bytes).expect("a double")).expect("JSON");
            assert_eq!(encoded("\"double\"", &json).as_deref(), Ok(&bytes[..]), "{number:e}");
        }
    }

    #[test]
    fn other_writers_blocks_and_numbers_are_read() {
        let array = "{\"type\":\"array\",\"items\":\"long\"}";
        // A block with its size in bytes (a negative count), then another.
        assert_eq!(decoded(array, &[3, 4, 6, 54, 2, 2, 0]).as_deref(), Ok("[3,27,1]"));
        assert_eq!(decoded("\"float\"", &f32::NAN.to_le_bytes()).as_deref(), Ok("\"NaN\""));
        assert_eq!(decoded("\"double\"", &f64::NEG_INFINITY.to_le_bytes()).as_deref(), Ok("\"-Infinity\""));
        assert_eq!(decoded("\"float\"", &0.1_f32.to_le_bytes()).as_deref(), Ok("0.1"));
    }

    #[test]
    fn bytes_that_are_no_value_are_told_and_cost_little() {
        let nulls = "{\"type\":\"array\",\"items\":\"null\"}";
        let deep = r#"{"type":"record","name":"A","fields":[{"name":"a","type":["null","A"]}]}"#;
        for (schema, bytes, problem) in [
            ("\"long\"", &[0x80][..], "ends too early"),
            ("\"long\"", &[0xff; 10], "more than 64 bits"),
            ("\"int\"", &[0xff, 0xff, 0xff, 0xff, 0x7f], "more than 32 bits"),
            ("\"string\"", &[4, b'a'], "ends too early"),
            ("\"string\"", &[1], "has -1 bytes"),
            ("\"string\"", &[2, 0xff], "not UTF-8"),
            ("\"boolean\"", &[2], "a boolean of 2"),
            ("[\"null\"]", &[2], "member 1 of a union of 1"),
            // 2^62 items without a byte.
            (nulls, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "longer than 4096 bytes"),
            (nulls, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "too many items"),
            (deep, &[2; 1000], "nested too deeply"),
        ] {
            let told = decoded(schema, bytes).expect_err(schema);
            assert!(told.contains(problem), "{schema}: {told}");
        }
    }

    #[test]
    fn a_schema_cannot_make_much_of_little() {
        let twice = r#"{"type":"record","name":"A","fields":[
            {"name":"a","type":"B"},{"name":"b","type":["null","string"],"default":null}]}"#;
        assert!(Avro::parse(twice, &[]).is_err(), "an unknown name");
        let long = format!(
            r#"{{"type":"array","items":{{"type":"record","name":"A","fields":[{{"name":"a","type":"string","default":"{}"}}]}}}}"#,
            "x".repeat(1000)
        );
        let told = encoded(&long, &json!(vec![json!({}); 1000])).expect_err("a million bytes of three thousand");
        assert!(told.contains("longer than 4096 bytes"), "{told}");
        // Two of it in each of it, down to the depth of all values.
        let many = r#"{"type":"record","name":"A","fields":[{"name":"a","type":"A","default":{}},{"name":"b","type":"A","default":{}}]}"#;
        if let Ok(avro) = Avro::parse(many, &[]) {
            let value = serde_json::value::to_raw_value(&json!({})).expect("JSON");
            assert!(avro.encode(&value, MOST, &mut Vec::new()).is_err());
        }
    }
}

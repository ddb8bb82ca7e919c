//! JSON Schema: a value is held against it, and written as it came.

use std::collections::HashMap;
use std::fmt;

use jsonschema::{Retrieve, Uri, Validator};
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

/// A schema that values are held against.
pub(super) struct JsonSchema {
    validator: Validator,
    title: Option<String>,
}

/// Schemas by the names under which they are referred to. Nothing is fetched from anywhere else.
struct Known(HashMap<String, Value>);

impl Retrieve for Known {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let name = uri.as_str();
        let found = self.0.iter().find(|(known, _)| name == known.as_str() || name.ends_with(&format!("/{known}")));
        found
            .map(|(_, schema)| schema.clone())
            .ok_or_else(|| format!("refers to {name}, which is not registered").into())
    }
}

impl JsonSchema {
    /// Reads a schema; `references` are texts by the names under which it refers to them.
    pub(super) fn parse(text: &str, references: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let read = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
        let schema = read(text)?;
        let mut known = HashMap::new();
        for (name, text) in references {
            known.insert(name, read(&text)?);
        }
        let validator = jsonschema::options()
            .with_retriever(Known(known))
            // Linear in the text, unlike its other engine: patterns come from whoever may register schemas.
            .with_pattern_options(jsonschema::PatternOptions::regex())
            .build(&schema)
            .map_err(|error| error.to_string())?;
        let title = schema.get("title").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { validator, title })
    }

    /// The schema's title, which stands for a record's name.
    pub(super) fn name(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// Appends the value as it stands, if the schema allows it.
    pub(super) fn encode(&self, value: &RawValue, out: &mut Vec<u8>) -> Result<(), String> {
        let parsed: Value = serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
        if let Err(error) = self.validator.validate(&parsed) {
            let place = error.instance_path().to_string();
            return Err(format!("{place} does not fit its schema: {}", error.masked()));
        }
        out.extend_from_slice(value.get().as_bytes());
        Ok(())
    }
}

/// Appends the value as it stands, if it is JSON. It is not held against its schema again: whoever wrote it answered for that.
pub(crate) fn decode(value: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let text = std::str::from_utf8(value).map_err(|_| "is not JSON")?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| "is not JSON")?;
    out.extend_from_slice(value);
    Ok(())
}

impl fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonSchema").field("title", &self.title).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(schema: &JsonSchema, json: &str) -> Result<String, String> {
        let mut out = Vec::new();
        schema.encode(serde_json::from_str(json).expect("JSON"), &mut out)?;
        Ok(String::from_utf8(out).expect("JSON"))
    }

    #[test]
    fn a_value_that_fits_is_written_as_it_came() {
        let text = r#"{"title":"Order","type":"object","required":["id"],"properties":{"id":{"type":"number"},"sum":{"$ref":"money.json"}}}"#;
        let money = r#"{"type":"object","properties":{"cents":{"type":"integer"}}}"#;
        let schema = JsonSchema::parse(text, [("money.json".to_owned(), money.to_owned())]).expect("a schema");
        assert_eq!(schema.name(), Some("Order"));
        let json = "{\"sum\": {\"cents\":1}, \"id\":1.10}";
        assert_eq!(encoded(&schema, json).as_deref(), Ok(json));
        let problem = encoded(&schema, "{\"id\":1,\"sum\":{\"cents\":\"secret\"}}").expect_err("no integer");
        assert!(problem.contains("/sum/cents") && !problem.contains("secret"), "{problem}");
        assert!(encoded(&schema, "{}").is_err());
    }

    #[test]
    fn what_is_no_schema_is_told_and_nothing_is_fetched() {
        for wrong in ["", "{\"type\":\"nonsense\"}", "{\"$ref\":\"http://127.0.0.1:1/x.json\"}"] {
            assert!(JsonSchema::parse(wrong, []).is_err(), "{wrong}");
        }
    }
}

//! The formats whose values are written by a schema: avro, jsonschema, protobuf.
//!
//! The schema comes from a Schema Registry ([`schema_registry`](crate::schema_registry)). Without one these formats are
//! refused; so they are, and no others, when it is away.

use std::collections::HashMap;
use std::sync::Arc;

use super::embedded::EmbeddedFormat;
use super::error;
use crate::http::Context;
use crate::http::error::{ApiError, code};
use crate::schema_registry::{Lookup, Registry, RegistryError, Schema, SchemaType, Subject, json_schema, split};

/// A value's JSON has at most so many times the bytes of a record: all of it is parsed at once.
pub(crate) const TEXT_SHARE: usize = 2;
/// Bytes of JSON that one key or value is told in.
const TOLD_BYTES: usize = 16 << 20;

/// Which half of a record a schema is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Key,
    Value,
}

impl Side {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Value => "value",
        }
    }
}

/// What a request says about the schema of its keys, or of its values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SchemaFields {
    /// The schema's text: `key_schema`, `value_schema`.
    pub(crate) schema: Option<String>,
    /// The registry's number of it: `key_schema_id`, `value_schema_id`.
    pub(crate) id: Option<i32>,
}

/// The schema of one side of a request.
///
/// # Errors
///
/// 422 for fields that name no schema, and whatever stands between the bridge and its registry.
pub(crate) async fn serializer(
    context: &Context,
    topic: &str,
    side: Side,
    format: EmbeddedFormat,
    fields: SchemaFields,
) -> Result<Arc<Schema>, ApiError> {
    let (registry, kind) = registry(context, format)?;
    let lookup = match (fields.id, fields.schema) {
        // As Confluent's proxy does: the number goes before the text.
        (Some(id), _) => Lookup::Id(id),
        (None, Some(text)) => {
            let is_key = side == Side::Key;
            let subject = Subject::Made { names: registry.subject_names(), topic: topic.into(), is_key };
            Lookup::Text { kind, subject, text: text.into() }
        }
        (None, None) => {
            let (number, name) = match side {
                Side::Key => (error::KEY_SCHEMA_MISSING, "key_schema or key_schema_id"),
                Side::Value => (error::VALUE_SCHEMA_MISSING, "value_schema or value_schema_id"),
            };
            return Err(ApiError::new(number, format!("the request has {} and no {name}", format.name())));
        }
    };
    let schema = registry.find(&lookup).await.map_err(|error| of_registry(&error))?.schema.clone();
    check_kind(&schema, kind)?;
    Ok(schema)
}

/// 42205: a schema that is in another language than its values are said to be.
pub(crate) fn check_kind(schema: &Schema, wanted: SchemaType) -> Result<(), ApiError> {
    if schema.kind() == wanted {
        return Ok(());
    }
    let message = format!("schema {} is {}, not {}", schema.id, schema.kind().name(), wanted.name());
    Err(ApiError::new(error::INVALID_SCHEMA, message))
}

/// The registry, and what it calls the format.
///
/// # Errors
///
/// 415 if none is configured, or the format needs none.
pub(crate) fn registry(context: &Context, format: EmbeddedFormat) -> Result<(&Arc<Registry>, SchemaType), ApiError> {
    let kind = match format {
        EmbeddedFormat::Avro => Some(SchemaType::Avro),
        EmbeddedFormat::JsonSchema => Some(SchemaType::Json),
        EmbeddedFormat::Protobuf => Some(SchemaType::Protobuf),
        EmbeddedFormat::Binary | EmbeddedFormat::Json | EmbeddedFormat::Text => None,
    };
    context.schemas.as_ref().zip(kind).ok_or_else(|| no_registry(format))
}

/// 415: nothing is configured that knows schemas.
pub(crate) fn no_registry(format: EmbeddedFormat) -> ApiError {
    ApiError::new(
        code::UNSUPPORTED_MEDIA,
        format!("the format {} needs a Schema Registry, and this bridge has none", format.name()),
    )
}

/// Why there is no schema, in Confluent's numbers: 42205 for what is none, 40801 while the registry cannot be asked.
pub(crate) fn of_registry(error: &RegistryError) -> ApiError {
    match error {
        RegistryError::Refused(problem) => ApiError::new(error::INVALID_SCHEMA, problem.clone()),
        RegistryError::Unavailable(_) => {
            ApiError { retry_after: Some(1), ..ApiError::new(error::NO_REGISTRY, error.to_string()) }
        }
    }
}

/// Reads keys and values in one format, with the schemas that those of one answer have.
#[derive(Debug)]
pub(crate) struct Deserializer {
    registry: Arc<Registry>,
    kind: SchemaType,
    found: HashMap<i32, Result<Arc<Schema>, RegistryError>>,
}

impl Deserializer {
    pub(crate) fn new(registry: Arc<Registry>, kind: SchemaType) -> Self {
        Self { registry, kind, found: HashMap::new() }
    }

    /// Finds the schemas of these keys and values, those that are not known yet. Up to the first that cannot be asked for:
    /// what comes after is not read either.
    pub(crate) async fn find<'a>(&mut self, values: impl IntoIterator<Item = &'a [u8]>) {
        // A JSON value says all of itself.
        if self.kind == SchemaType::Json {
            return;
        }
        for (id, _) in values.into_iter().filter_map(split) {
            if !self.found.contains_key(&id) {
                let found = self.registry.find(&Lookup::Id(id)).await.map(|found| found.schema.clone());
                let is_away = matches!(found, Err(RegistryError::Unavailable(_)));
                self.found.insert(id, found);
                if is_away {
                    return;
                }
            }
        }
    }

    /// Appends the JSON form of one key or value, whose schema was looked for.
    ///
    /// # Errors
    ///
    /// What is wrong with it: 42203, or 40801 while the registry cannot be asked. What was appended then does not count.
    pub(crate) fn decode(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ApiError> {
        let conversion = |problem: String| ApiError::new(error::CONVERSION, problem);
        let Some((id, value)) = split(bytes) else {
            return Err(conversion("does not begin with a schema's number".to_owned()));
        };
        if self.kind == SchemaType::Json {
            return json_schema::decode(value, out).map_err(conversion);
        }
        match self.found.get(&id) {
            Some(Ok(schema)) if schema.kind() == self.kind => {
                schema.decode(value, TOLD_BYTES, out).map_err(|problem| conversion(format!("{problem} (schema {id})")))
            }
            Some(Ok(schema)) => Err(conversion(format!("is {}, not {}", schema.kind().name(), self.kind.name()))),
            Some(Err(RegistryError::Refused(problem))) => Err(conversion(format!("has schema {id}: {problem}"))),
            Some(Err(error @ RegistryError::Unavailable(_))) => {
                Err(ApiError { message: format!("has schema {id}, and {error}").into(), ..of_registry(error) })
            }
            None => Err(conversion(format!("has schema {id}, which was not looked for"))),
        }
    }
}

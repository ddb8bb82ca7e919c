//! The formats whose values are written by a schema: avro, jsonschema, protobuf.
//!
//! The schema comes from a Schema Registry. This version has none to ask, so these formats are refused; everything else
//! of a request with them is understood.

use serde_json::value::RawValue;

use super::embedded::EmbeddedFormat;
use crate::http::Context;
use crate::http::error::{ApiError, code};

/// Which half of a record a schema is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Key,
    Value,
}

/// What a request says about the schema of its keys, or of its values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SchemaFields {
    /// The schema's text: `key_schema`, `value_schema`.
    pub(crate) schema: Option<String>,
    /// The registry's number of it: `key_schema_id`, `value_schema_id`.
    pub(crate) id: Option<i32>,
}

/// Writes values by one schema.
pub(crate) trait Serializer {
    /// The registry's number of the schema.
    fn schema_id(&self) -> i32;

    /// Appends the bytes of one value, which is not `null`.
    ///
    /// # Errors
    ///
    /// How the value differs from the schema, for its sender; what was appended then does not count.
    fn serialize(&self, value: &RawValue, out: &mut Vec<u8>) -> Result<(), String>;
}

/// The serializer of one side of a request.
///
/// # Errors
///
/// 422 for fields that name no schema, and whatever stands between the bridge and its registry.
pub(crate) async fn serializer(
    _context: &Context,
    _topic: &str,
    _side: Side,
    format: EmbeddedFormat,
    _fields: &SchemaFields,
) -> Result<Box<dyn Serializer>, ApiError> {
    Err(no_registry(format))
}

/// Whether instances with this format can be made.
///
/// # Errors
///
/// As [`serializer`]'s.
pub(crate) fn check_configured(_context: &Context, format: EmbeddedFormat) -> Result<(), ApiError> {
    Err(no_registry(format))
}

/// 415: nothing is configured that knows schemas.
pub(crate) fn no_registry(format: EmbeddedFormat) -> ApiError {
    ApiError::new(
        code::UNSUPPORTED_MEDIA,
        format!("the format {} needs a Schema Registry, and this bridge has none", format.name()),
    )
}

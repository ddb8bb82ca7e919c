//! DescribeConfigs (key 32): a topic's settings.

use super::{Api, Request, Response, millis};
use crate::ErrorCode;
use crate::wire::{Decoded, Reader, SharedStr, Writer};
use std::time::Duration;

/// The resource type of topics.
const TOPIC: i8 = 2;
/// The source of a setting made on the topic itself.
const TOPIC_CONFIG: i8 = 1;

/// Asks for all settings of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeConfigsRequest {
    /// The topic.
    pub topic: String,
}

impl Request for DescribeConfigsRequest {
    const API: Api = Api { key: 32, name: "DescribeConfigs", min: 2, max: 4, first_flexible: 4 };
    type Response = DescribeConfigsResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        out.array(1);
        out.i8(TOPIC);
        out.string(&self.topic);
        out.null_array(); // configuration_keys: all
        out.no_tags();
        out.bool(false); // include_synonyms
        if version >= 3 {
            out.bool(false); // include_documentation
        }
        out.no_tags();
    }
}

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeConfigsResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// The resources of the request.
    pub resources: Vec<ConfigResource>,
}

/// One resource's part of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigResource {
    /// Why there are no settings.
    pub error: ErrorCode,
    /// The broker's words on it.
    pub message: Option<SharedStr>,
    /// The resource's name.
    pub name: SharedStr,
    /// Its settings.
    pub entries: Vec<ConfigEntry>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The name.
    pub name: String,
    /// The value; `None` where it is sensitive.
    pub value: Option<String>,
    /// Whether it cannot be changed.
    pub read_only: bool,
    /// Where the value comes from, in Kafka's numbers.
    pub source: i8,
    /// Whether it is a secret.
    pub sensitive: bool,
}

impl ConfigEntry {
    /// Whether the value is not the topic's own: it comes from Kafka's or the brokers' defaults.
    pub fn is_default(&self) -> bool {
        self.source != TOPIC_CONFIG
    }
}

impl Response for DescribeConfigsResponse {
    fn decode(version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let resources = from.array(7, |from| {
            let error = ErrorCode(from.i16()?);
            let message = from.nullable_string()?;
            let _resource_type = from.i8()?;
            let name = from.string()?;
            let entries = from.array(6, |from| read_entry(version, from))?;
            from.skip_tagged()?;
            Ok(ConfigResource { error, message, name, entries })
        })?;
        from.skip_tagged()?;
        Ok(Self { throttle, resources })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

fn read_entry(version: i16, from: &mut Reader) -> Decoded<ConfigEntry> {
    let entry = ConfigEntry {
        name: from.string()?,
        value: from.nullable_string()?,
        read_only: from.bool()?,
        source: from.i8()?,
        sensitive: from.bool()?,
    };
    from.skip_array(3, |from| {
        from.skip_string()?; // name
        from.skip_string()?; // value
        from.i8()?; // source
        from.skip_tagged()
    })?;
    if version >= 3 {
        let _type = from.i8()?;
        from.skip_string()?; // documentation
    }
    from.skip_tagged()?;
    Ok(entry)
}

//! DescribeConfigs (key 32) and IncrementalAlterConfigs (key 44): settings of topics and brokers.

use super::{Api, Request, Response, millis};
use crate::ErrorCode;
use crate::wire::{Decoded, Reader, SharedStr, Writer};
use std::time::Duration;

/// Whose settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigResource {
    /// A topic's.
    Topic(String),
    /// One broker's; only that broker answers for them.
    Broker(i32),
    /// The dynamic defaults of all brokers (KIP-226).
    BrokerDefaults,
}

impl ConfigResource {
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Topic(name) => {
                out.i8(2);
                out.string(name);
            }
            Self::Broker(id) => {
                out.i8(4);
                out.string(&id.to_string());
            }
            Self::BrokerDefaults => {
                out.i8(4);
                out.string("");
            }
        }
    }
}

/// Asks for all settings of some resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeConfigsRequest {
    /// Whose.
    pub resources: Vec<ConfigResource>,
    /// Whether each setting shall come with what its value is taken from.
    pub synonyms: bool,
}

impl Request for DescribeConfigsRequest {
    const API: Api = Api { key: 32, name: "DescribeConfigs", min: 2, max: 4, first_flexible: 4 };
    type Response = DescribeConfigsResponse;

    fn encode(&self, version: i16, out: &mut Writer) {
        out.array(self.resources.len());
        for resource in &self.resources {
            resource.encode(out);
            out.null_array(); // configuration_keys: all
            out.no_tags();
        }
        out.bool(self.synonyms);
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
    pub resources: Vec<DescribedConfigs>,
}

/// One resource's part of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedConfigs {
    /// Why there are no settings.
    pub error: ErrorCode,
    /// The broker's words on it.
    pub message: Option<SharedStr>,
    /// The resource's name; a broker's is its id, that of the brokers' defaults is empty.
    pub name: SharedStr,
    /// Its settings.
    pub entries: Vec<ConfigEntry>,
}

/// Where a setting's value comes from: a number of Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigSource(pub i8);

impl ConfigSource {
    /// Made on the topic itself.
    pub const TOPIC: Self = Self(1);
    /// Kafka's own default.
    pub const DEFAULT: Self = Self(5);

    /// The name in Kafka's documentation, `UNKNOWN` for a number from the future.
    pub const fn name(self) -> &'static str {
        match self.0 {
            1 => "DYNAMIC_TOPIC_CONFIG",
            2 => "DYNAMIC_BROKER_CONFIG",
            3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            4 => "STATIC_BROKER_CONFIG",
            5 => "DEFAULT_CONFIG",
            6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
            7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
            8 => "DYNAMIC_GROUP_CONFIG",
            _ => "UNKNOWN",
        }
    }
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
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it is a secret.
    pub sensitive: bool,
    /// What the value is taken from, the first that there is; empty unless asked for.
    pub synonyms: Vec<ConfigSynonym>,
}

/// One place where a setting may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// What it is called there.
    pub name: String,
    /// Its value there; `None` where it is sensitive.
    pub value: Option<String>,
    /// The place.
    pub source: ConfigSource,
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
            Ok(DescribedConfigs { error, message, name, entries })
        })?;
        from.skip_tagged()?;
        Ok(Self { throttle, resources })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

fn read_entry(version: i16, from: &mut Reader) -> Decoded<ConfigEntry> {
    let mut entry = ConfigEntry {
        name: from.string()?,
        value: from.nullable_string()?,
        read_only: from.bool()?,
        source: ConfigSource(from.i8()?),
        sensitive: from.bool()?,
        synonyms: Vec::new(),
    };
    entry.synonyms = from.array(3, |from| {
        let (name, value) = (from.string()?, from.nullable_string()?);
        let source = ConfigSource(from.i8()?);
        from.skip_tagged()?;
        Ok(ConfigSynonym { name, value, source })
    })?;
    if version >= 3 {
        let _type = from.i8()?;
        from.skip_string()?; // documentation
    }
    from.skip_tagged()?;
    Ok(entry)
}

/// One change of a setting: `None` takes it away, so that what is below it counts again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// The setting.
    pub name: String,
    /// Its new value.
    pub value: Option<String>,
}

/// Changes some settings of one resource and leaves the others as they are (KIP-339). A topic's or all brokers' go to any
/// broker, one broker's to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncrementalAlterConfigsRequest {
    /// Whose.
    pub resource: ConfigResource,
    /// What.
    pub changes: Vec<ConfigChange>,
    /// Whether nothing shall be changed, only looked at.
    pub validate_only: bool,
}

impl Request for IncrementalAlterConfigsRequest {
    const API: Api = Api { key: 44, name: "IncrementalAlterConfigs", min: 0, max: 1, first_flexible: 1 };
    type Response = IncrementalAlterConfigsResponse;

    fn encode(&self, _version: i16, out: &mut Writer) {
        out.array(1);
        self.resource.encode(out);
        out.array(self.changes.len());
        for ConfigChange { name, value } in &self.changes {
            out.string(name);
            out.i8(i8::from(value.is_none())); // SET is 0, DELETE 1
            out.nullable_string(value.as_deref());
            out.no_tags();
        }
        out.no_tags();
        out.bool(self.validate_only);
        out.no_tags();
    }
}

/// The answer to [`IncrementalAlterConfigsRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncrementalAlterConfigsResponse {
    /// KIP-219.
    pub throttle: Duration,
    /// What became of each resource of the request, and the broker's words on it.
    pub results: Vec<(ErrorCode, Option<SharedStr>)>,
}

impl Response for IncrementalAlterConfigsResponse {
    fn decode(_version: i16, from: &mut Reader) -> Decoded<Self> {
        let throttle = millis(from.i32()?);
        let results = from.array(5, |from| {
            let result = (ErrorCode(from.i16()?), from.nullable_string()?);
            let _resource_type = from.i8()?;
            from.skip_string()?; // resource_name
            from.skip_tagged()?;
            Ok(result)
        })?;
        from.skip_tagged()?;
        Ok(Self { throttle, results })
    }

    fn throttle(&self) -> Duration {
        self.throttle
    }
}

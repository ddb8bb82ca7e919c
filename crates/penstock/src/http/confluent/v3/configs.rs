//! Settings of topics, of brokers, and of all brokers at once.

use std::sync::Arc;

use kafka_client::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource};
use serde::{Deserialize, Serialize};

use super::clusters::check_broker;
use super::resource::{Links, Resource, collection};
use super::{Asked, ConfigCall, missing, no_content};
use crate::config::Verb;
use crate::http::access;
use crate::http::error::ApiError;
use crate::http::respond::Response;

#[derive(Serialize)]
struct ConfigData {
    cluster_id: String,
    #[serde(flatten)]
    of: Owner,
    name: String,
    value: Option<String>,
    is_default: bool,
    is_read_only: bool,
    is_sensitive: bool,
    source: &'static str,
    synonyms: Vec<Synonym>,
}

/// Whose setting it is.
#[derive(Serialize)]
#[serde(untagged)]
enum Owner {
    Topic { topic_name: String },
    Broker { broker_id: i32 },
    Cluster { config_type: &'static str },
}

#[derive(Serialize)]
struct Synonym {
    name: String,
    value: Option<String>,
    source: &'static str,
}

/// Where a resource's settings are.
fn path(of: &ConfigResource) -> Vec<String> {
    match of {
        ConfigResource::Topic(topic) => vec!["topics".to_owned(), topic.clone(), "configs".to_owned()],
        ConfigResource::Broker(id) => vec!["brokers".to_owned(), id.to_string(), "configs".to_owned()],
        ConfigResource::BrokerDefaults => vec!["broker-configs".to_owned()],
    }
}

fn address(links: &Links, of: &ConfigResource, name: Option<&str>) -> String {
    let path = path(of);
    let segments: Vec<&str> = path.iter().map(String::as_str).chain(name).collect();
    links.url(&segments)
}

const fn kinds(of: &ConfigResource) -> (&'static str, &'static str) {
    match of {
        ConfigResource::Topic(_) => ("KafkaTopicConfig", "KafkaTopicConfigList"),
        ConfigResource::Broker(_) => ("KafkaBrokerConfig", "KafkaBrokerConfigList"),
        ConfigResource::BrokerDefaults => ("KafkaClusterConfig", "KafkaClusterConfigList"),
    }
}

fn resource(links: &Links, of: &ConfigResource, entry: ConfigEntry) -> Resource<ConfigData> {
    let secret = entry.sensitive;
    let shown = |value: Option<String>| value.filter(|_| !secret);
    let (owner, name) = match of {
        ConfigResource::Topic(topic) => {
            (Owner::Topic { topic_name: topic.clone() }, links.name(&[("topic", topic), ("config", &entry.name)]))
        }
        ConfigResource::Broker(id) => {
            (Owner::Broker { broker_id: *id }, links.name(&[("broker", &id.to_string()), ("config", &entry.name)]))
        }
        ConfigResource::BrokerDefaults => {
            (Owner::Cluster { config_type: "BROKER" }, links.name(&[("broker-config", &entry.name)]))
        }
    };
    let address = address(links, of, Some(&entry.name));
    let synonyms = entry.synonyms.into_iter().map(|synonym| Synonym {
        name: synonym.name,
        value: shown(synonym.value),
        source: synonym.source.name(),
    });
    let data = ConfigData {
        cluster_id: links.cluster.clone(),
        of: owner,
        name: entry.name,
        value: shown(entry.value),
        is_default: entry.source == ConfigSource::DEFAULT,
        is_read_only: entry.read_only,
        is_sensitive: entry.sensitive,
        source: entry.source.name(),
        synonyms: synonyms.collect(),
    };
    Resource::new(kinds(of).0, address, name, data)
}

/// What a resource's name is in errors about it.
fn about(of: &ConfigResource) -> &str {
    if let ConfigResource::Topic(topic) = of { topic } else { "" }
}

async fn described(asked: &Asked<'_>, of: &ConfigResource) -> Result<Vec<ConfigEntry>, ApiError> {
    let mut entries = asked.ask(about(of), asked.context.cluster.describe_configs(of, true)).await?;
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateConfig {
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlterConfigs {
    data: Vec<AlterConfig>,
    #[serde(default)]
    validate_only: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlterConfig {
    name: String,
    value: Option<String>,
    operation: Option<AlterOperation>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
enum AlterOperation {
    Set,
    Delete,
}

/// Whatever is asked of the settings of one resource.
pub(super) async fn run(mut asked: Asked<'_>, of: ConfigResource, call: ConfigCall) -> Result<Response, ApiError> {
    if let ConfigResource::Broker(id) = of {
        check_broker(&asked, id)?;
    }
    let (changes, validate_only) = match call {
        ConfigCall::List => {
            let entries = described(&asked, &of).await?;
            let data: Vec<_> = entries.into_iter().map(|entry| resource(&asked.links, &of, entry)).collect();
            return Ok(collection(kinds(&of).1, address(&asked.links, &of, None), &data));
        }
        ConfigCall::Get(name) => {
            let entry = described(&asked, &of).await?.into_iter().find(|entry| entry.name == name);
            let entry = entry.ok_or_else(|| missing("Config", &name))?;
            return Ok(resource(&asked.links, &of, entry).response());
        }
        ConfigCall::Reset(name) => (vec![ConfigChange { name, value: None }], false),
        ConfigCall::Update(name) => {
            let UpdateConfig { value } = asked.document().await?;
            (vec![ConfigChange { name, value }], false)
        }
        ConfigCall::Alter => {
            let wanted: AlterConfigs = asked.document().await?;
            (wanted.data.into_iter().map(change).collect::<Result<_, _>>()?, wanted.validate_only)
        }
    };
    let changed = asked.context.cluster.alter_configs(&of, changes, validate_only);
    asked.ask(about(&of), changed).await?;
    Ok(no_content())
}

fn change(wanted: AlterConfig) -> Result<ConfigChange, ApiError> {
    let AlterConfig { name, value, operation } = wanted;
    match (operation.unwrap_or(AlterOperation::Set), value) {
        (AlterOperation::Set, Some(value)) => Ok(ConfigChange { name, value: Some(value) }),
        (AlterOperation::Delete, None) => Ok(ConfigChange { name, value: None }),
        (AlterOperation::Set, None) => Err(ApiError::bad_request(format!("{name} is to be set, and has no value"))),
        (AlterOperation::Delete, Some(_)) => {
            Err(ApiError::bad_request(format!("{name} is to be deleted, and has a value")))
        }
    }
}

pub(super) async fn of_all_brokers(asked: &Asked<'_>) -> Result<Response, ApiError> {
    let mut brokers: Vec<i32> = asked.context.cluster.metadata().brokers.keys().copied().collect();
    brokers.sort_unstable();
    let mut data = Vec::new();
    for id in brokers {
        let of = ConfigResource::Broker(id);
        let entries = described(asked, &of).await?;
        data.extend(entries.into_iter().map(|entry| resource(&asked.links, &of, entry)));
    }
    Ok(collection("KafkaBrokerConfigList", asked.links.url(&["brokers", "-", "configs"]), &data))
}

/// Of all topics whose settings the caller may read.
pub(super) async fn of_all_topics(asked: &Asked<'_>) -> Result<Response, ApiError> {
    let cluster = &asked.context.cluster;
    let may_read = |topic: &str| {
        let topic = access::Resource::Topic(topic);
        asked.context.access.may(asked.caller, topic, &[Verb::Consume, Verb::Admin])
    };
    let topics = asked.ask("", cluster.list_topics()).await?;
    let names: Vec<Arc<str>> = topics.iter().map(|topic| topic.name.clone()).filter(|topic| may_read(topic)).collect();
    let mut data = Vec::new();
    for (topic, mut entries) in asked.ask("", cluster.describe_topics_configs(&names, true)).await? {
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let of = ConfigResource::Topic(topic.to_string());
        data.extend(entries.into_iter().map(|entry| resource(&asked.links, &of, entry)));
    }
    Ok(collection("KafkaTopicConfigList", asked.links.url(&["topics", "-", "configs"]), &data))
}

/// What a topic's settings would be without its own.
pub(super) async fn defaults(asked: &Asked<'_>, topic: &str) -> Result<Response, ApiError> {
    let of = ConfigResource::Topic(topic.to_owned());
    let entries = described(asked, &of).await?.into_iter().map(|mut entry| {
        entry.synonyms.retain(|synonym| synonym.source != ConfigSource::TOPIC);
        if let Some(first) = entry.synonyms.first() {
            (entry.value, entry.source) = (first.value.clone(), first.source);
        }
        entry
    });
    let data: Vec<_> = entries.map(|entry| resource(&asked.links, &of, entry)).collect();
    Ok(collection("KafkaTopicConfigList", asked.links.url(&["topics", topic, "default-configs"]), &data))
}

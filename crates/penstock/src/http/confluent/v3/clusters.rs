//! The cluster and its brokers.

use kafka_client::Broker;
use serde::Serialize;

use super::resource::{Links, Related, Resource, collection};
use super::{Asked, missing};
use crate::http::Context;
use crate::http::error::ApiError;
use crate::http::respond::Response;

#[derive(Serialize)]
struct ClusterData {
    cluster_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    controller: Option<Related>,
    acls: Related,
    brokers: Related,
    broker_configs: Related,
    consumer_groups: Related,
    topics: Related,
    partition_reassignments: Related,
}

fn cluster(context: &Context, links: &Links) -> Resource<ClusterData> {
    let controller = context.cluster.metadata().controller;
    let data = ClusterData {
        cluster_id: links.cluster.clone(),
        controller: controller.map(|id| links.related(&["brokers", &id.to_string()])),
        acls: links.related(&["acls"]),
        brokers: links.related(&["brokers"]),
        broker_configs: links.related(&["broker-configs"]),
        consumer_groups: links.related(&["consumer-groups"]),
        topics: links.related(&["topics"]),
        partition_reassignments: links.related(&["topics", "-", "partitions", "-", "reassignment"]),
    };
    Resource::new("KafkaCluster", links.url(&[]), links.name(&[]), data)
}

/// The one there is.
pub(super) fn list(context: &Context, links: &Links) -> Response {
    collection("KafkaClusterList", links.clusters(), &[cluster(context, links)])
}

pub(super) fn get(asked: &Asked<'_>) -> Response {
    cluster(asked.context, &asked.links).response()
}

#[derive(Serialize)]
struct BrokerData {
    cluster_id: String,
    broker_id: i32,
    host: String,
    port: u16,
    rack: Option<String>,
    configs: Related,
    partition_replicas: Related,
}

fn resource(links: &Links, broker: &Broker) -> Resource<BrokerData> {
    let id = broker.id.to_string();
    let data = BrokerData {
        cluster_id: links.cluster.clone(),
        broker_id: broker.id,
        host: broker.host.to_string(),
        port: broker.port,
        rack: broker.rack.as_deref().map(ToOwned::to_owned),
        configs: links.related(&["brokers", &id, "configs"]),
        partition_replicas: links.related(&["brokers", &id, "partition-replicas"]),
    };
    Resource::new("KafkaBroker", links.url(&["brokers", &id]), links.name(&[("broker", &id)]), data)
}

/// Those that are alive, by id.
pub(super) fn brokers(asked: &Asked<'_>) -> Response {
    let metadata = asked.context.cluster.metadata();
    let mut brokers: Vec<_> = metadata.brokers.values().map(|broker| resource(&asked.links, broker)).collect();
    brokers.sort_unstable_by_key(|broker| broker.data.broker_id);
    collection("KafkaBrokerList", asked.links.url(&["brokers"]), &brokers)
}

pub(super) fn broker(asked: &Asked<'_>, id: i32) -> Result<Response, ApiError> {
    check_broker(asked, id)?;
    let metadata = asked.context.cluster.metadata();
    let broker = metadata.brokers.get(&id).ok_or_else(|| missing("Broker", &id.to_string()))?;
    Ok(resource(&asked.links, broker).response())
}

/// 404 where the cluster has no such broker.
pub(super) fn check_broker(asked: &Asked<'_>, id: i32) -> Result<(), ApiError> {
    let known = asked.context.cluster.metadata().brokers.contains_key(&id);
    if known { Ok(()) } else { Err(missing("Broker", &id.to_string())) }
}

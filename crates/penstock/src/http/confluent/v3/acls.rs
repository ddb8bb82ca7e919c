//! Kafka's own access rules.

use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};
use kafka_client::{Acl, AclFilter, AclOperation, AclPatternType, AclPermission, AclResourceType};
use serde::{Deserialize, Serialize};

use super::Asked;
use super::resource::{Links, Resource, collection, encode};
use crate::http::error::ApiError;
use crate::http::params::Query;
use crate::http::respond::{Response, json};
use crate::http1::ResponseBody;

#[derive(Serialize)]
struct AclData {
    cluster_id: String,
    resource_type: &'static str,
    resource_name: String,
    pattern_type: &'static str,
    principal: String,
    host: String,
    operation: &'static str,
    permission: &'static str,
}

/// Where the rules with these values are.
fn address(links: &Links, values: [(&str, &str); 7]) -> String {
    let mut address = links.url(&["acls"]);
    let mut separator = '?';
    for (name, value) in values {
        address.push(separator);
        address.push_str(name);
        address.push('=');
        encode(&mut address, value);
        separator = '&';
    }
    address
}

fn address_of(links: &Links, acl: &Acl) -> String {
    let values = [
        ("resource_type", acl.resource_type.name()),
        ("resource_name", &acl.resource_name),
        ("pattern_type", acl.pattern_type.name()),
        ("principal", &acl.principal),
        ("host", &acl.host),
        ("operation", acl.operation.name()),
        ("permission", acl.permission.name()),
    ];
    address(links, values)
}

fn resource(links: &Links, acl: Acl) -> Resource<AclData> {
    let address = address_of(links, &acl);
    let data = AclData {
        cluster_id: links.cluster.clone(),
        resource_type: acl.resource_type.name(),
        resource_name: acl.resource_name.to_string(),
        pattern_type: acl.pattern_type.name(),
        principal: acl.principal,
        host: acl.host,
        operation: acl.operation.name(),
        permission: acl.permission.name(),
    };
    Resource::new("KafkaAcl", address, None, data)
}

/// What a value is called that no table has.
fn unknown(name: &str, value: &str) -> ApiError {
    ApiError::bad_request(format!("{name} cannot be {value}"))
}

/// The filter in a query. A misspelt parameter is refused: without it, the filter would match more.
fn filter(query: Option<&str>, whole: bool) -> Result<AclFilter, ApiError> {
    let mut query = Query::parse(query)?;
    let mut named = |name: &str| match query.take(name) {
        Some(value) => Ok(value.into_owned()),
        None if whole => Err(ApiError::bad_request(format!("{name} is missing; ANY is a value, too"))),
        None => Ok("ANY".to_owned()),
    };
    let (kind, pattern) = (named("resource_type")?, named("pattern_type")?);
    let (operation, permission) = (named("operation")?, named("permission")?);
    let mut text = |name| query.take(name).filter(|value| !value.is_empty()).map(std::borrow::Cow::into_owned);
    let filter = AclFilter {
        resource_type: AclResourceType::named(&kind).ok_or_else(|| unknown("resource_type", &kind))?,
        resource_name: text("resource_name"),
        pattern_type: AclPatternType::named(&pattern).ok_or_else(|| unknown("pattern_type", &pattern))?,
        principal: text("principal"),
        host: text("host"),
        operation: AclOperation::named(&operation).ok_or_else(|| unknown("operation", &operation))?,
        permission: AclPermission::named(&permission).ok_or_else(|| unknown("permission", &permission))?,
    };
    query.finish()?;
    Ok(filter)
}

pub(super) async fn search(asked: &Asked<'_>) -> Result<Response, ApiError> {
    let filter = filter(asked.query.as_deref(), false)?;
    let acls = asked.ask("", asked.context.cluster.describe_acls(&filter)).await?;
    let data: Vec<_> = acls.into_iter().map(|acl| resource(&asked.links, acl)).collect();
    let values = [
        ("resource_type", filter.resource_type.name()),
        ("resource_name", filter.resource_name.as_deref().unwrap_or_default()),
        ("pattern_type", filter.pattern_type.name()),
        ("principal", filter.principal.as_deref().unwrap_or_default()),
        ("host", filter.host.as_deref().unwrap_or_default()),
        ("operation", filter.operation.name()),
        ("permission", filter.permission.name()),
    ];
    Ok(collection("KafkaAclList", address(&asked.links, values), &data))
}

#[derive(Serialize)]
struct Deleted {
    data: Vec<Resource<AclData>>,
}

/// Deletes what the filter matches, and says what that was. The filter must say all four of its kinds.
pub(super) async fn delete(asked: &Asked<'_>) -> Result<Response, ApiError> {
    let filter = filter(asked.query.as_deref(), true)?;
    let acls = asked.ask("", asked.context.cluster.delete_acls(&filter)).await?;
    let data = acls.into_iter().map(|acl| resource(&asked.links, acl)).collect();
    Ok(json(StatusCode::OK, &Deleted { data }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateAcl {
    resource_type: String,
    resource_name: String,
    pattern_type: String,
    principal: String,
    host: String,
    operation: String,
    permission: String,
}

impl CreateAcl {
    fn read(self) -> Result<Acl, ApiError> {
        let kind = AclResourceType::named(&self.resource_type).filter(|kind| *kind != AclResourceType::ANY);
        let pattern = AclPatternType::named(&self.pattern_type)
            .filter(|pattern| ![AclPatternType::ANY, AclPatternType::MATCH].contains(pattern));
        let operation = AclOperation::named(&self.operation).filter(|operation| *operation != AclOperation::ANY);
        let permission = AclPermission::named(&self.permission).filter(|permission| *permission != AclPermission::ANY);
        Ok(Acl {
            resource_type: kind.ok_or_else(|| unknown("resource_type", &self.resource_type))?,
            resource_name: self.resource_name.into(),
            pattern_type: pattern.ok_or_else(|| unknown("pattern_type", &self.pattern_type))?,
            principal: self.principal,
            host: self.host,
            operation: operation.ok_or_else(|| unknown("operation", &self.operation))?,
            permission: permission.ok_or_else(|| unknown("permission", &self.permission))?,
        })
    }
}

/// 201, and where it is.
pub(super) async fn create(mut asked: Asked<'_>) -> Result<Response, ApiError> {
    let acl = asked.document::<CreateAcl>().await?.read()?;
    let address = address_of(&asked.links, &acl);
    asked.ask("", asked.context.cluster.create_acls(vec![acl])).await?;
    let mut response = created();
    if let Ok(address) = HeaderValue::from_str(&address) {
        response.headers_mut().insert(LOCATION, address);
    }
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateAcls {
    data: Vec<CreateAcl>,
}

/// 201 when all are there.
pub(super) async fn create_many(mut asked: Asked<'_>) -> Result<Response, ApiError> {
    let wanted: CreateAcls = asked.document().await?;
    if wanted.data.is_empty() {
        return Err(ApiError::bad_request("data is empty; there must be one rule at least"));
    }
    let acls = wanted.data.into_iter().map(CreateAcl::read).collect::<Result<_, _>>()?;
    asked.ask("", asked.context.cluster.create_acls(acls)).await?;
    Ok(created())
}

fn created() -> Response {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::CREATED;
    response
}

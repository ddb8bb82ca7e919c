//! What all resources have: a kind, an address, a name, and addresses of their relatives.

use std::fmt::Write;

use hyper::StatusCode;
use hyper::header::{HOST, HeaderMap};
use serde::Serialize;

use crate::config::Tls;
use crate::http::Context;
use crate::http::respond::{Response, json};

/// Makes addresses and names within one cluster.
#[derive(Debug, Clone)]
pub(super) struct Links {
    /// `https://host:port/v3/clusters`, the host as the client called it.
    clusters: String,
    pub(super) cluster: String,
}

impl Links {
    pub(super) fn of(context: &Context, headers: &HeaderMap, cluster: String) -> Self {
        let scheme = if matches!(context.config.tls, Tls::Off) { "http" } else { "https" };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        Self { clusters: format!("{scheme}://{host}/v3/clusters"), cluster }
    }

    pub(super) fn clusters(&self) -> String {
        self.clusters.clone()
    }

    /// The address of something in the cluster.
    pub(super) fn url(&self, segments: &[&str]) -> String {
        let mut url = self.clusters.clone();
        for segment in [&*self.cluster].iter().chain(segments) {
            url.push('/');
            encode(&mut url, segment);
        }
        url
    }

    pub(super) fn related(&self, segments: &[&str]) -> Related {
        Related { related: self.url(segments) }
    }

    /// The name of something in the cluster: `crn:///kafka=…/topic=…`.
    pub(super) fn name(&self, parts: &[(&str, &str)]) -> Option<String> {
        let mut name = String::from("crn:///kafka=");
        encode(&mut name, &self.cluster);
        for (kind, value) in parts {
            let _ = write!(name, "/{kind}");
            if !value.is_empty() {
                name.push('=');
                encode(&mut name, value);
            }
        }
        Some(name)
    }
}

/// Percent-encodes what is not unreserved (RFC 3986 section 2.3), so that it stays one segment or one value.
pub(super) fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Where something else is.
#[derive(Debug, Serialize)]
pub(super) struct Related {
    related: String,
}

/// One resource.
#[derive(Debug, Serialize)]
pub(super) struct Resource<T> {
    kind: &'static str,
    metadata: Metadata,
    #[serde(flatten)]
    pub(super) data: T,
}

#[derive(Debug, Serialize)]
struct Metadata {
    #[serde(rename = "self")]
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_name: Option<String>,
}

impl<T: Serialize> Resource<T> {
    pub(super) const fn new(kind: &'static str, address: String, resource_name: Option<String>, data: T) -> Self {
        Self { kind, metadata: Metadata { address, resource_name }, data }
    }

    /// Its address.
    pub(super) fn address(&self) -> &str {
        &self.metadata.address
    }

    /// As an answer.
    pub(super) fn response(&self) -> Response {
        json(StatusCode::OK, self)
    }
}

#[derive(Serialize)]
struct Collection<'a, T> {
    kind: &'static str,
    metadata: CollectionMetadata,
    data: &'a [Resource<T>],
}

#[derive(Serialize)]
struct CollectionMetadata {
    #[serde(rename = "self")]
    address: String,
    /// There is one page.
    next: Option<String>,
}

/// All resources of a kind as an answer.
pub(super) fn collection<T: Serialize>(kind: &'static str, address: String, data: &[Resource<T>]) -> Response {
    json(StatusCode::OK, &Collection { kind, metadata: CollectionMetadata { address, next: None }, data })
}

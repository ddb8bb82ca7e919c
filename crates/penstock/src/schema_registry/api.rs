//! Confluent's Schema Registry API, as much of it as the bridge asks. Karapace and Apicurio Registry speak it, too, the
//! latter under `/apis/ccompat/v7`.

use std::fmt;

use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{RegistryError, SchemaType};
use crate::client::{self, Endpoint, RequestBody};
use crate::metrics::{Metrics, Told};

/// Bytes of an answer: a schema's text with its quotes escaped.
const ANSWER_BYTES: usize = 2 << 20;
/// Characters of a registry's own message that are handed on.
const MESSAGE_CHARS: usize = 300;

const MEDIA: HeaderValue = HeaderValue::from_static("application/vnd.schemaregistry.v1+json");

/// Where the registry is. Each question has a connection of its own: they are rare.
#[derive(Debug)]
pub(super) struct Api {
    endpoint: Endpoint,
    metrics: Metrics,
}

/// What the registry tells of a schema.
#[derive(Debug, Deserialize)]
pub(super) struct Described {
    pub(super) schema: String,
    /// Where it says nothing, the text does.
    #[serde(rename = "schemaType")]
    pub(super) schema_type: Option<String>,
    #[serde(default)]
    pub(super) references: Vec<Reference>,
}

/// Another schema that one refers to.
#[derive(Debug, Deserialize)]
pub(super) struct Reference {
    /// What it is called there.
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) version: i32,
}

/// A version of a subject.
#[derive(Debug, Deserialize)]
pub(super) struct Version {
    pub(super) id: i32,
    pub(super) version: i32,
    #[serde(flatten)]
    pub(super) described: Described,
}

/// What a text is registered as. Older registries do not tell the version.
#[derive(Debug, Deserialize)]
pub(super) struct Registered {
    pub(super) id: i32,
    pub(super) version: Option<i32>,
}

impl Api {
    pub(super) const fn new(endpoint: Endpoint, metrics: Metrics) -> Self {
        Self { endpoint, metrics }
    }

    pub(super) async fn by_id(&self, id: i32) -> Result<Described, RegistryError> {
        self.call(Method::GET, &format!("/schemas/ids/{id}"), None).await
    }

    /// `None` is the latest.
    pub(super) async fn version(&self, subject: &str, version: Option<i32>) -> Result<Version, RegistryError> {
        let version = version.map_or_else(|| "latest".to_owned(), |version| version.to_string());
        let path = format!("/subjects/{}/versions/{version}", client::escape_segment(subject));
        self.call(Method::GET, &path, None).await
    }

    /// Looks a text up in its subject, and registers it there if it is new and that is wanted.
    pub(super) async fn register(
        &self,
        subject: &str,
        kind: SchemaType,
        text: &str,
        register: bool,
    ) -> Result<Registered, RegistryError> {
        #[derive(Serialize)]
        struct Registration<'a> {
            schema: &'a str,
            #[serde(rename = "schemaType")]
            schema_type: &'static str,
        }
        let path = format!("/subjects/{}", client::escape_segment(subject));
        let path = if register { path + "/versions" } else { path };
        let body = serde_json::to_vec(&Registration { schema: text, schema_type: kind.name() }).expect("two strings");
        self.call(Method::POST, &path, Some(body)).await
    }

    async fn call<T: for<'de> Deserialize<'de>>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, RegistryError> {
        let mut counted = Counted { metrics: &self.metrics, begun: Instant::now(), told: Told::Failed };
        let answer = self.exchange(method, path, body).await;
        counted.told = match &answer {
            Ok(_) => Told::Answered,
            Err(RegistryError::Refused(_)) => Told::Refused,
            Err(RegistryError::Unavailable(_)) => Told::Failed,
        };
        answer
    }

    async fn exchange<T: for<'de> Deserialize<'de>>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, RegistryError> {
        let endpoint = &self.endpoint;
        let unavailable = |error: &dyn fmt::Display| RegistryError::Unavailable(format!("{endpoint}: {error}"));
        let mut request = endpoint.request(path).method(method).header(ACCEPT, MEDIA);
        let body = match body {
            None => RequestBody::Empty,
            Some(body) => {
                request = request.header(CONTENT_TYPE, MEDIA);
                RequestBody::Whole(body.into())
            }
        };
        let request = request.body(body).map_err(|error| unavailable(&error))?;
        let mut connection = endpoint.connect().await.map_err(|error| unavailable(&error))?;
        let answer = connection.send(request).await.map_err(|error| unavailable(&error))?;
        let status = answer.status();
        let body = client::whole(answer.into_body(), ANSWER_BYTES).await.map_err(|error| unavailable(&error))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|_| unavailable(&"its answer is not as the API has it"));
        }
        Err(refusal(status, &body, unavailable))
    }
}

/// A request under way. It is counted when it is dropped: also if nobody waits for its answer any longer.
struct Counted<'a> {
    metrics: &'a Metrics,
    begun: Instant,
    told: Told,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.registry_asked(self.told, self.begun.elapsed());
    }
}

/// Who it is: host and port.
impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

/// What an error says: about what was asked for, or about the registry and the bridge.
fn refusal(status: StatusCode, body: &[u8], unavailable: impl Fn(&dyn fmt::Display) -> RegistryError) -> RegistryError {
    #[derive(Deserialize)]
    struct Told {
        message: String,
    }
    let told: String = serde_json::from_slice(body)
        .map_or_else(|_| String::new(), |told: Told| format!(": {}", told.message))
        .chars()
        .filter(|char| !char.is_control())
        .take(MESSAGE_CHARS)
        .collect();
    match status {
        StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST => {
            RegistryError::Refused(format!("the Schema Registry answers {}{told}", status.as_u16()))
        }
        _ => unavailable(&format_args!("status {}{told}", status.as_u16())),
    }
}

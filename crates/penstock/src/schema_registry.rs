//! Schemas from a registry that speaks Confluent's Schema Registry API, and values written and read by them.
//!
//! ```text
//!  Lookup ──▶ cache ─(miss)─▶ Api: GET /schemas/ids/{id}
//!    │                             GET /subjects/{subject}/versions/{version}
//!    │                             POST /subjects/{subject}[/versions] ─▶ id
//!    │                                        └─▶ references ─▶ compiled ─▶ cache
//!    └──▶ Schema ──▶ a zero byte, the id in four bytes, the value
//! ```
//!
//! Only records that have a schema come here. A schema never changes under its id, so what was asked for once is kept; a
//! registry that is away costs only the requests that need something new of it.
//!
//! * [`api`]: questions to the registry
//! * [`avro`], [`json_schema`], [`protobuf`]: between JSON and what Kafka holds

mod api;
mod avro;
pub(crate) mod json_schema;
mod problem;
mod protobuf;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use crate::config::{self, SubjectNames};
use crate::metrics::Metrics;
use api::{Api, Described, Reference};
use avro::Avro;
use json_schema::JsonSchema;
use protobuf::Protobuf;

pub(crate) use problem::within;

/// Schemas that are looked for at once.
const SEARCHES: usize = 8;
/// For all questions about one schema.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);
/// A registry that could not be asked is not asked again before that: requests for something else are not to wait behind
/// those that wait for it.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a subject's latest version is taken for the latest.
const LATEST: Duration = Duration::from_secs(10);
/// Look-ups that are kept, and bytes of texts in them. Few are in use at a time; when there are more, all are forgotten.
const CACHED: usize = 1000;
const CACHED_BYTES: usize = 16 << 20;
/// Bytes of a schema's text.
const TEXT_BYTES: usize = 1 << 20;
/// Schemas that one may refer to, directly or not.
const REFERENCES: usize = 64;
/// What stands in front of a value: this byte, then the schema's number in four, the highest first.
const MAGIC: u8 = 0;
const PREFIX_BYTES: usize = 5;

/// Which language a schema is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SchemaType {
    Avro,
    Json,
    Protobuf,
}

impl SchemaType {
    /// As the registry calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::Json => "JSON",
            Self::Protobuf => "PROTOBUF",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Avro, Self::Json, Self::Protobuf].into_iter().find(|kind| kind.name() == name)
    }

    /// Of a text whose type the registry does not tell. The API leaves it out for Avro; Apicurio Registry 2.6 leaves it out
    /// always, and wants `$schema` in JSON schemas.
    fn of_text(text: &str) -> Self {
        match serde_json::from_str::<serde_json::Value>(text) {
            Err(_) => Self::Protobuf,
            Ok(schema) if schema.get("$schema").is_some() => Self::Json,
            Ok(_) => Self::Avro,
        }
    }
}

/// Why there is no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegistryError {
    /// What was asked for is not there, or is no schema.
    #[error("{0}")]
    Refused(String),
    /// The registry could not be asked.
    #[error("the Schema Registry could not be asked: {0}")]
    Unavailable(String),
}

/// A schema that values can be written and read by.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) id: i32,
    compiled: Compiled,
}

#[derive(Debug)]
enum Compiled {
    Avro(Box<Avro>),
    Json(Box<JsonSchema>),
    Protobuf(Protobuf),
}

impl Schema {
    pub(crate) const fn kind(&self) -> SchemaType {
        match self.compiled {
            Compiled::Avro(_) => SchemaType::Avro,
            Compiled::Json(_) => SchemaType::Json,
            Compiled::Protobuf(_) => SchemaType::Protobuf,
        }
    }

    /// Appends a value, which is not null, as Kafka holds it; at most `most` bytes and what the last piece of it takes.
    ///
    /// # Errors
    ///
    /// Where and how it differs from the schema, without the value itself; what was appended then does not count.
    pub(crate) fn encode(&self, value: &RawValue, most: usize, out: &mut Vec<u8>) -> Result<(), String> {
        out.push(MAGIC);
        out.extend_from_slice(&self.id.to_be_bytes());
        match &self.compiled {
            Compiled::Avro(avro) => avro.encode(value, most, out),
            Compiled::Json(schema) => schema.encode(value, out),
            Compiled::Protobuf(schema) => schema.encode(value, out),
        }
    }

    /// Appends the JSON form of a value that [`split`] has taken apart; at most about `most` bytes.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes; what was appended then does not count.
    pub(crate) fn decode(&self, value: &[u8], most: usize, out: &mut Vec<u8>) -> Result<(), String> {
        match &self.compiled {
            Compiled::Avro(avro) => avro.decode(value, most, out),
            Compiled::Json(_) => json_schema::decode(value, out),
            Compiled::Protobuf(schema) => schema.decode(value, most, out),
        }
    }
}

/// The number of a value's schema, and the value, of what Kafka holds. `None`: nobody wrote that by a schema.
pub(crate) fn split(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (prefix, value) = bytes.split_first_chunk::<PREFIX_BYTES>()?;
    let [MAGIC, a, b, c, d] = *prefix else { return None };
    Some((i32::from_be_bytes([a, b, c, d]), value))
}

impl Compiled {
    /// `references` are texts by the names under which `text` refers to them.
    fn new(kind: SchemaType, text: &str, references: Vec<(String, String)>) -> Result<Self, String> {
        match kind {
            SchemaType::Avro => {
                let texts: Vec<String> = references.into_iter().map(|(_, text)| text).collect();
                Avro::parse(text, &texts).map(Box::new).map(Self::Avro)
            }
            SchemaType::Json => JsonSchema::parse(text, references).map(Box::new).map(Self::Json),
            SchemaType::Protobuf => Protobuf::parse(text, references).map(Self::Protobuf),
        }
    }

    /// A record's, an enum's or a message's full name, or a JSON schema's title.
    fn name(&self) -> Option<String> {
        match self {
            Self::Avro(avro) => avro.name(),
            Self::Json(schema) => schema.name().map(str::to_owned),
            Self::Protobuf(schema) => schema.name(),
        }
    }
}

/// What a schema is looked for by. It borrows what a record says: most are asked for what is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Lookup<'a> {
    /// The registry's number.
    Id(i32),
    /// A version of a subject.
    Version { subject: Subject<'a>, version: i32 },
    /// The latest version of a subject.
    Latest { subject: Subject<'a> },
    /// Its text; it is registered if it is new to its subject and the settings say so.
    Text { kind: SchemaType, subject: Subject<'a>, text: Cow<'a, str> },
}

impl Lookup<'_> {
    /// The same, to be kept.
    pub(crate) fn into_owned(self) -> Lookup<'static> {
        match self {
            Self::Id(id) => Lookup::Id(id),
            Self::Version { subject, version } => Lookup::Version { subject: subject.into_owned(), version },
            Self::Latest { subject } => Lookup::Latest { subject: subject.into_owned() },
            Self::Text { kind, subject, text } => {
                Lookup::Text { kind, subject: subject.into_owned(), text: Cow::Owned(text.into_owned()) }
            }
        }
    }
}

/// What a schema is registered under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject<'a> {
    Named(Cow<'a, str>),
    /// By one of Confluent's strategies.
    Made {
        names: SubjectNames,
        topic: Cow<'a, str>,
        is_key: bool,
    },
}

impl Subject<'_> {
    fn into_owned(self) -> Subject<'static> {
        match self {
            Self::Named(name) => Subject::Named(Cow::Owned(name.into_owned())),
            Self::Made { names, topic, is_key } => {
                Subject::Made { names, topic: Cow::Owned(topic.into_owned()), is_key }
            }
        }
    }

    /// `record` is the schema's name.
    ///
    /// # Errors
    ///
    /// The strategy needs a name, and there is none.
    pub(crate) fn name(&self, record: Option<String>) -> Result<String, RegistryError> {
        let nameless =
            || RegistryError::Refused("the subject is made of the schema's name, and there is none".to_owned());
        match self {
            Self::Named(name) => Ok(name.to_string()),
            Self::Made { names: SubjectNames::Topic, topic, is_key } => {
                Ok(format!("{topic}-{}", if *is_key { "key" } else { "value" }))
            }
            Self::Made { names: SubjectNames::Record, .. } => record.ok_or_else(nameless),
            Self::Made { names: SubjectNames::TopicRecord, topic, .. } => {
                record.map(|record| format!("{topic}-{record}")).ok_or_else(nameless)
            }
        }
    }
}

/// A schema, and where it was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) schema: Arc<Schema>,
    pub(crate) subject: Option<String>,
    pub(crate) version: Option<i32>,
}

/// A registry, and what is known of it. Shared by all workers.
pub(crate) struct Registry {
    settings: config::SchemaRegistry,
    api: Api,
    searches: Semaphore,
    /// Locked for a look-up, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    found: HashMap<Lookup<'static>, (Arc<Found>, Instant)>,
    /// By number, however they were found.
    schemas: HashMap<i32, Arc<Schema>>,
    /// Of texts.
    bytes: usize,
    /// Since when, and why, the registry cannot be asked.
    away: Option<(Instant, String)>,
}

impl State {
    fn known(&self, lookup: &Lookup<'_>) -> Option<Arc<Found>> {
        let (found, since) = self.found.get(lookup)?;
        let is_old = matches!(lookup, Lookup::Latest { .. }) && since.elapsed() > LATEST;
        (!is_old).then(|| found.clone())
    }

    /// Makes room for one more, with so many bytes of text.
    fn make_room(&mut self, bytes: usize) {
        if self.found.len() + self.schemas.len() >= CACHED || self.bytes + bytes > CACHED_BYTES {
            self.found.clear();
            self.schemas.clear();
            self.bytes = 0;
        }
        self.bytes += bytes;
    }
}

impl Registry {
    /// Asks nothing yet.
    pub(crate) fn new(settings: config::SchemaRegistry, metrics: Metrics) -> Self {
        let api = Api::new(settings.endpoint.clone(), metrics);
        Self { settings, api, searches: Semaphore::new(SEARCHES), state: Mutex::default() }
    }

    /// How subjects are named where a request does not say it.
    pub(crate) const fn subject_names(&self) -> SubjectNames {
        self.settings.subject_names
    }

    /// What is known already.
    pub(crate) fn known(&self, lookup: &Lookup<'_>) -> Option<Arc<Found>> {
        self.state().known(lookup)
    }

    /// Finds a schema, asking the registry if it has to.
    ///
    /// # Cancel safety
    ///
    /// A search that is given up leaves nothing behind, but that a schema may have been registered.
    pub(crate) async fn find(&self, lookup: &Lookup<'_>) -> Result<Arc<Found>, RegistryError> {
        if let Some(found) = self.known_or_away(lookup)? {
            return Ok(found);
        }
        let _turn = self.searches.acquire().await.expect("the semaphore is never closed");
        // Others may have found it meanwhile, or that nobody answers.
        if let Some(found) = self.known_or_away(lookup)? {
            return Ok(found);
        }
        let late = || RegistryError::Unavailable(format!("{} gave no answer in {SEARCH_TIMEOUT:?}", self.api));
        let searched = timeout(SEARCH_TIMEOUT, self.search(lookup)).await.unwrap_or_else(|_| Err(late()));
        let mut state = self.state();
        match &searched {
            Ok(found) => {
                let bytes = if let Lookup::Text { text, .. } = lookup { text.len() } else { 0 };
                state.make_room(bytes);
                state.found.insert(lookup.clone().into_owned(), (found.clone(), Instant::now()));
                state.away = None;
            }
            Err(RegistryError::Unavailable(why)) => {
                tracing::warn!(registry = %self.api, error = %why, "the Schema Registry cannot be asked");
                state.away = Some((Instant::now(), why.clone()));
            }
            Err(RegistryError::Refused(_)) => state.away = None,
        }
        searched
    }

    fn known_or_away(&self, lookup: &Lookup<'_>) -> Result<Option<Arc<Found>>, RegistryError> {
        let state = self.state();
        if let Some(found) = state.known(lookup) {
            return Ok(Some(found));
        }
        match &state.away {
            Some((since, why)) if since.elapsed() < PAUSE => Err(RegistryError::Unavailable(why.clone())),
            _ => Ok(None),
        }
    }

    async fn search(&self, lookup: &Lookup<'_>) -> Result<Arc<Found>, RegistryError> {
        let found = match lookup {
            Lookup::Id(id) => {
                let known = self.state().schemas.get(id).cloned();
                let schema = match known {
                    Some(schema) => schema,
                    None => self.described(*id, self.api.by_id(*id).await?).await?,
                };
                Found { schema, subject: None, version: None }
            }
            Lookup::Version { subject, version } => self.version(subject.name(None)?, Some(*version)).await?,
            Lookup::Latest { subject } => self.version(subject.name(None)?, None).await?,
            Lookup::Text { kind, subject, text } => {
                // Before the registry sees it: what cannot be used here is not to stay there.
                let compiled = compile(*kind, text.to_string(), Vec::new()).await?;
                let subject = subject.name(compiled.name())?;
                let registered = self.api.register(&subject, *kind, text, self.settings.register).await?;
                let schema = Arc::new(Schema { id: registered.id, compiled });
                Found { schema, subject: Some(subject), version: registered.version }
            }
        };
        Ok(Arc::new(found))
    }

    async fn version(&self, subject: String, version: Option<i32>) -> Result<Found, RegistryError> {
        let told = self.api.version(&subject, version).await?;
        let known = self.state().schemas.get(&told.id).cloned();
        let schema = match known {
            Some(schema) => schema,
            None => self.described(told.id, told.described).await?,
        };
        Ok(Found { schema, subject: Some(subject), version: Some(told.version) })
    }

    /// Compiles what the registry tells, with all that it refers to.
    async fn described(&self, id: i32, described: Described) -> Result<Arc<Schema>, RegistryError> {
        let kind = match described.schema_type.as_deref() {
            None => SchemaType::of_text(&described.schema),
            Some(told) => SchemaType::parse(told).ok_or_else(|| {
                RegistryError::Refused(format!("schema {id} is {told}, which this bridge does not know"))
            })?,
        };
        let references = self.references(described.references).await?;
        let bytes = described.schema.len() + references.iter().map(|(_, text)| text.len()).sum::<usize>();
        let compiled = compile(kind, described.schema, references).await?;
        let schema = Arc::new(Schema { id, compiled });
        let mut state = self.state();
        state.make_room(bytes);
        state.schemas.insert(id, schema.clone());
        Ok(schema)
    }

    /// The texts that a schema refers to, and what they refer to, each once.
    async fn references(&self, mut open: Vec<Reference>) -> Result<Vec<(String, String)>, RegistryError> {
        let mut texts: Vec<(String, String)> = Vec::new();
        while let Some(Reference { name, subject, version }) = open.pop() {
            if texts.iter().any(|(known, _)| *known == name) {
                continue;
            }
            if texts.len() == REFERENCES {
                return Err(RegistryError::Refused(format!("the schema refers to more than {REFERENCES} others")));
            }
            let told = self.api.version(&subject, Some(version)).await?;
            open.extend(told.described.references);
            texts.push((name, told.described.schema));
        }
        Ok(texts)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// On a thread of its own: a large schema takes a while, and connections of the worker do not wait for it.
async fn compile(kind: SchemaType, text: String, references: Vec<(String, String)>) -> Result<Compiled, RegistryError> {
    let refused = |problem: &str| RegistryError::Refused(format!("the schema cannot be used: {problem}"));
    if text.len() + references.iter().map(|(_, text)| text.len()).sum::<usize>() > TEXT_BYTES {
        return Err(refused(&format!("with what it refers to it is longer than {TEXT_BYTES} bytes")));
    }
    let compiled = spawn_blocking(move || Compiled::new(kind, &text, references)).await;
    compiled.unwrap_or_else(|_| Err("its compiler failed".to_owned())).map_err(|problem| refused(&problem))
}

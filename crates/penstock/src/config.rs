//! The configuration: read once, checked whole, then immutable.
//!
//! ```text
//! penstock.toml ─▶ raw values ─┐
//!                              ├─▶ typed by the table of keys ─▶ resolved: `Config`
//! PENSTOCK_…    ─▶ overrides ──┘            (keys.rs)
//! ```
//!
//! `keys.rs` is the one list of what can be set: path, type, bounds, default and text. Parsing, environment
//! overrides, the error for an unknown key and docs/configuration.md all come from it. Every mistake is collected, so
//! one run of `penstock check` shows all of them. What comes out holds no strings to interpret: whoever is handed a
//! part of [`Config`] can use it as it is.

pub mod expiry;
pub mod files;
mod keys;
mod memory;
mod reference;
mod resolve;
mod source;
pub(crate) mod values;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use kafka_client::sasl::Secret;
use source::{Origin, Source};

use crate::client::Endpoint;
use crate::credentials::read_secret;

/// The fleet's secret signs for callers: 32 random characters are beyond guessing.
const MIN_SECRET_CHARACTERS: usize = 32;

/// Everything `penstock serve` needs, resolved and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data listener.
    pub listen: Listen,
    /// What the data listener decrypts with.
    pub tls: Tls,
    /// How brokers are reached, TLS included.
    pub kafka: kafka_client::Config,
    /// What [`kafka.tls`](kafka_client::Config::tls) was made of. `None`: plaintext.
    pub kafka_tls: Option<KafkaTlsFiles>,
    /// How batches are made and delivered.
    pub producer: Producer,
    /// What one request may bring.
    pub limits: Limits,
    /// How callers prove who they are.
    pub auth: Auth,
    /// Who may do what. Empty only on a loopback listener, which then serves everyone.
    pub access: Vec<AccessRule>,
    /// Consumer instances.
    pub consumers: Consumers,
    /// The other bridges. `None`: this one stands alone.
    pub fleet: Option<Fleet>,
    /// The management listener.
    pub management: Management,
    /// What is logged, and how.
    pub log: Log,
    /// Where spans of requests go. `None`: there are none.
    pub telemetry: Option<Telemetry>,
    /// Where schemas come from. `None`: the formats that need one are refused.
    pub schema_registry: Option<SchemaRegistry>,
    /// How a stop goes.
    pub drain: Drain,
    /// Threads.
    pub runtime: Runtime,
    /// Where all this is from, to be read again.
    origins: Origins,
}

/// What a configuration was read from, and what was there.
#[derive(Debug, Clone, Default)]
struct Origins {
    file: Option<PathBuf>,
    /// Our own variables alone.
    environment: Vec<(String, String)>,
    /// Every value but the rules', by its key's path.
    values: BTreeMap<&'static str, values::Value>,
}

/// What a configuration that is read again while the bridge runs has to say.
#[derive(Debug)]
pub struct Reread {
    /// The rules, which can be put in place.
    pub access: Vec<AccessRule>,
    /// The fleet's other bridges, which can be put in place where there is a fleet.
    pub peers: Vec<String>,
    /// Keys whose values are others than at the start: they need a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Config {
    /// Reads `file`, if there is one, and the environment over it. Certificates and keys are read and parsed, too.
    ///
    /// # Errors
    ///
    /// Every mistake at once, or why the file cannot be read.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let environment: Vec<_> = environment.into_iter().filter(|(name, _)| source::is_ours(name)).collect();
        let source = read(file, &environment)?;
        let mut config = resolve::resolve(source, folder_of(file))?;
        (config.origins.file, config.origins.environment) = (file.map(Path::to_owned), environment);
        Ok(config)
    }

    /// Reads the file anew, with the environment of the start over it. Files that it names are not looked at.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load)'s.
    pub fn reread(&self) -> Result<Reread, ConfigError> {
        let Origins { file, environment, values } = &self.origins;
        let source = read(file.as_deref(), environment)?;
        resolve::reread(source, folder_of(file.as_deref()), values)
    }

    /// The file that it was read from.
    pub fn file(&self) -> Option<&Path> {
        self.origins.file.as_deref()
    }

    /// The text of docs/configuration.md.
    pub fn reference() -> String {
        reference::write()
    }
}

fn read(file: Option<&Path>, environment: &[(String, String)]) -> Result<Source, ConfigError> {
    let mut source = Source::default();
    if let Some(path) = file {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        source.read_file(&text);
    }
    source.read_environment(environment.iter().cloned());
    Ok(source)
}

/// Where relative paths begin.
fn folder_of(file: Option<&Path>) -> &Path {
    file.and_then(Path::parent).unwrap_or(Path::new(""))
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file itself.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why it could not be read.
        source: io::Error,
    },
    /// What is in it: never empty.
    #[error("{}", show(.0))]
    Mistakes(Vec<Mistake>),
}

fn show(mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// One thing that is wrong: its key, the value, where that was written, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    key: String,
    value: Option<String>,
    origin: Origin,
    problem: String,
}

impl Mistake {
    fn new(key: impl Into<String>, value: Option<String>, origin: Origin, problem: impl Into<String>) -> Self {
        Self { key: key.into(), value, origin, problem: problem.into() }
    }

    /// The path of the key, `section.name`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// `access.topics` becomes `access[2].topics`.
    fn in_rule(mut self, index: usize) -> Self {
        if let Some(name) = self.key.strip_prefix("access.") {
            self.key = format!("access[{index}].{name}");
        }
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        if self.origin != Origin::Default {
            write!(f, " ({})", self.origin)?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// The data listener: `[listen]`.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Where it binds.
    pub address: SocketAddr,
    /// `proxy_protocol = "required"`: every connection comes from one of these networks and begins with a PROXY header.
    pub proxy_trusted: Option<Arc<[IpNet]>>,
    /// Connections open at once; one more is closed unserved.
    pub max_connections: usize,
    /// Of these, from one address. `None`: no such bound.
    pub max_connections_per_source: Option<usize>,
    /// A connection this old is closed after the answer under way. `None`: never.
    pub max_connection_age: Option<Duration>,
    /// A connection without a request for this long is closed.
    pub idle_timeout: Duration,
    /// From the first byte of a request's head to its last, and for a TLS handshake.
    pub head_timeout: Duration,
    /// Bytes a second below which a body that is being sent is given up. `None`: a body may be as slow as it likes.
    pub min_body_rate: Option<u64>,
    /// Web pages of other origins. `None`: nothing is said of them.
    pub cors: Option<Cors>,
    /// How clients reach the fleet, without a slash at its end, if that is not what their requests say.
    pub public_url: Option<Arc<str>>,
    /// Whose answers the compatible part of the interface gives.
    pub dialect: Dialect,
}

/// Whose answers are given where REST proxies differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Confluent's REST Proxy.
    #[default]
    Confluent,
    /// Strimzi's bridge.
    Strimzi,
}

/// Web pages of which origins may call: `listen.cors_origins`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cors {
    /// Of any.
    pub any: bool,
    /// Of these, as browsers write them.
    pub origins: Box<[Box<str>]>,
    /// Browsers may send along what they hold for the bridge: a client certificate, a login.
    pub credentials: bool,
}

impl Cors {
    /// Whether pages of `origin` may call.
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.any || self.origins.iter().any(|known| known.as_bytes() == origin)
    }
}

/// TLS of the data listener: `[tls]`.
#[derive(Debug, Clone)]
pub enum Tls {
    /// `tls.mode = "off"`: plain HTTP.
    Off,
    /// PEM files, seen to hold a matching pair when the configuration was read. They may change later: whoever reloads
    /// them reads them again.
    Files(TlsFiles),
}

/// Where the data listener's certificate is, and whose certificates it asks for.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// PEM, the leaf first, then the intermediates.
    pub certificate: PathBuf,
    /// PEM: PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
    /// `tls.client_auth`, unless it is off.
    pub client_auth: Option<ClientAuth>,
}

/// Whose certificates clients show.
#[derive(Debug, Clone)]
pub struct ClientAuth {
    /// PEM: the authorities that sign them.
    pub ca: PathBuf,
    /// PEM: the authorities' revocation lists.
    pub crl: Option<PathBuf>,
    /// A client without a certificate is turned away in the handshake.
    pub required: bool,
}

/// Which brokers are believed, and what they are shown: `kafka.ca`, `kafka.certificate`, `kafka.key`. They may change later,
/// as those of [`TlsFiles`].
#[derive(Debug, Clone)]
pub struct KafkaTlsFiles {
    /// PEM: the authorities that sign brokers' certificates. `None`: those of the host.
    pub ca: Option<PathBuf>,
    /// PEM: the certificate that is shown to brokers, and its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// How callers prove who they are, beside their certificates: `[auth]`.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// `name:hash` lines, for HTTP's Basic scheme.
    pub users_file: Option<PathBuf>,
    /// JSON Web Tokens, for the Bearer scheme.
    pub jwt: Option<Jwt>,
}

impl Auth {
    /// Whether `Authorization` means anything.
    pub const fn is_on(&self) -> bool {
        self.users_file.is_some() || self.jwt.is_some()
    }
}

/// Which tokens are believed: `[auth.jwt]`.
#[derive(Debug, Clone)]
pub struct Jwt {
    /// Whose keys sign them.
    pub keys: JwtKeys,
    /// `iss`, exactly.
    pub issuer: String,
    /// One of `aud`, exactly.
    pub audience: String,
    /// Of the signature; never symmetric ones.
    pub algorithms: Vec<Algorithm>,
    /// How far clocks may be apart when `exp` and `nbf` are looked at.
    pub clock_skew: Duration,
    /// The claim that names the user.
    pub user_claim: String,
}

/// Where a JWK set is (RFC 7517).
#[derive(Debug, Clone)]
pub enum JwtKeys {
    /// In a file, which may change.
    File(PathBuf),
    /// At a URL, asked from time to time.
    Url {
        /// Where, without the path's last slash.
        endpoint: Endpoint,
        /// What follows: nothing, or that slash.
        path: &'static str,
    },
}

/// How records become batches: `[producer]`.
#[derive(Debug, Clone)]
pub struct Producer {
    /// Linger, batch size, codec, delivery timeout, idempotence.
    pub pipeline: produce_pipeline::Config,
    /// Bytes that all records on their way may take, shared by all workers.
    pub memory_bytes: usize,
    /// What a line must be, unless the request says otherwise.
    pub validate: Validate,
    /// The record header that carries the trace of a request that is part of one.
    pub trace_header: Option<Box<str>>,
}

/// Whether lines are looked at before they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validate {
    /// A line is any bytes.
    #[default]
    None,
    /// A line that is not one JSON document is refused.
    Json,
}

/// What one request may bring: `[limits]`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of an NDJSON body, decoded. `None`: uploads may go on for hours. A body that is one record is bounded by
    /// `record_bytes`.
    pub body_bytes: Option<u64>,
    /// Bytes of one record's value: a line without its line end, or a whole body.
    pub record_bytes: usize,
    /// Bytes of a JSON document of records, decoded.
    pub document_bytes: usize,
    /// Bytes of a request's head: request line and header fields.
    pub head_bytes: usize,
}

/// One `[[access]]` rule. What no rule allows is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRule {
    /// Who the rule is for.
    pub identity: Identity,
    /// The topics it is about.
    pub topics: Vec<NamePattern>,
    /// The consumer groups it is about.
    pub groups: Vec<NamePattern>,
    /// What may be done with them.
    pub allow: Allow,
    /// Body bytes a second, in this process. `None`: no bound.
    pub rate_bytes: Option<u64>,
    /// Requests a second, in this process. `None`: no bound.
    pub rate_requests: Option<u64>,
}

impl AccessRule {
    /// Whether both are for the same callers at the same rates.
    pub fn has_rates_of(&self, other: &Self) -> bool {
        (&self.identity, self.rate_bytes, self.rate_requests)
            == (&other.identity, other.rate_bytes, other.rate_requests)
    }

    /// Whether this rule lets `verb` be done with `topic`.
    pub fn allows(&self, topic: &str, verb: Verb) -> bool {
        self.allow.contains(verb) && self.topics.iter().any(|pattern| pattern.matches(topic))
    }

    /// Whether this rule lets `verb` be done with the consumer group `group`.
    pub fn allows_group(&self, group: &str, verb: Verb) -> bool {
        self.allow.contains(verb) && self.groups.iter().any(|pattern| pattern.matches(group))
    }

    /// Whether this rule lets `verb` be done with the whole cluster: it is about every topic.
    pub fn allows_cluster(&self, verb: Verb) -> bool {
        self.allow.contains(verb) && self.topics.iter().any(NamePattern::is_all)
    }
}

/// Who a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Every caller, known or not.
    Anyone,
    /// Whoever comes through this VPC endpoint, by the PROXY header's word.
    Endpoint(Box<str>),
    /// Whoever shows a certificate with this name.
    Certificate(Box<str>),
    /// Whoever proves to be this user, by a password or a token.
    User(Box<str>),
}

impl Identity {
    /// As a rule names it.
    fn parse(text: &str) -> Option<Self> {
        let named = |prefix| text.strip_prefix(prefix).filter(|name| !name.is_empty()).map(Box::from);
        if text == "anyone" {
            Some(Self::Anyone)
        } else if let Some(name) = named("cert:") {
            Some(Self::Certificate(name))
        } else if let Some(name) = named("user:") {
            Some(Self::User(name))
        } else {
            named("vpce-").map(|_| Self::Endpoint(text.into()))
        }
    }
}

/// A name, of a topic or a consumer group, or the beginning of one before a `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePattern {
    /// `orders`
    Name(Arc<str>),
    /// `logs-*`; empty for `*`.
    Prefix(Arc<str>),
}

impl NamePattern {
    /// As it is written in a rule.
    pub fn parse(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.into()),
            None => Self::Name(text.into()),
        }
    }

    /// Whether `name` is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => **own == *name,
            Self::Prefix(prefix) => name.starts_with(&**prefix),
        }
    }

    /// Whether every name is meant.
    pub fn is_all(&self) -> bool {
        matches!(self, Self::Prefix(prefix) if prefix.is_empty())
    }
}

/// What a caller may do with a topic or a consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Write records and tombstones.
    Produce,
    /// Read records, describe the topic; join the group, commit and read its offsets.
    Consume,
    /// Create, change and delete the topic; delete the group.
    Admin,
}

impl Verb {
    /// As rules name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Consume => "consume",
            Self::Admin => "admin",
        }
    }
}

/// A set of [`Verb`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allow {
    /// `"produce"`
    pub produce: bool,
    /// `"consume"`
    pub consume: bool,
    /// `"admin"`
    pub admin: bool,
}

impl Allow {
    /// Whether `verb` is in the set.
    pub fn contains(self, verb: Verb) -> bool {
        match verb {
            Verb::Produce => self.produce,
            Verb::Consume => self.consume,
            Verb::Admin => self.admin,
        }
    }
}

/// Consumer instances of Confluent's API: `[consumers]`.
#[derive(Debug, Clone)]
pub struct Consumers {
    /// Instances in this process.
    pub max_instances: usize,
    /// One without a call for this long ends.
    pub idle_timeout: Duration,
}

/// How the bridges of a fleet reach one another: `[fleet]`.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// Where its listener binds.
    pub address: SocketAddr,
    /// How others reach it, `host:port`. `None`: by the address that it is bound to.
    pub advertised: Option<String>,
    /// Where the secrets are.
    pub secret_file: PathBuf,
    /// What requests are signed with, the first, and by what they are believed, each. Never empty.
    pub secrets: Vec<Secret>,
    /// `host:port` of others.
    pub peers: Vec<String>,
}

impl Fleet {
    /// The secrets in a file, one a line.
    ///
    /// # Errors
    ///
    /// Why it has none that can be used.
    pub fn read_secrets(file: &Path) -> Result<Vec<Secret>, String> {
        let text = read_secret(file)?;
        let secrets: Vec<_> = text.reveal().lines().map(Secret::new).collect();
        if secrets.iter().any(|secret| secret.reveal().len() < MIN_SECRET_CHARACTERS) {
            return Err(format!("{}: has a line of less than {MIN_SECRET_CHARACTERS} characters", file.display()));
        }
        Ok(secrets)
    }
}

/// The management listener: `[management]`.
#[derive(Debug, Clone)]
pub struct Management {
    /// Where it binds.
    pub address: SocketAddr,
}

/// Logs: `[log]`.
#[derive(Debug, Clone)]
pub struct Log {
    /// One JSON object or one line of text an event.
    pub format: LogFormat,
    /// What is written: a level, or `target=level` pairs after it.
    pub level: Arc<str>,
    /// A line a request, whatever the level is.
    pub requests: bool,
}

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Spans of requests: `[telemetry]`.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// The collector, which speaks OTLP over HTTP.
    pub collector: Endpoint,
    /// `service.name` of the spans' resource.
    pub service_name: Box<str>,
    /// Of the traces that begin here, how many are recorded: 0 to 1.
    pub sample_ratio: f64,
}

/// Where schemas come from: `[schema_registry]`.
#[derive(Debug, Clone)]
pub struct SchemaRegistry {
    /// What speaks Confluent's Schema Registry API, with what proves who the bridge is.
    pub endpoint: Endpoint,
    /// Schemas whose text comes with a request are registered; else only looked up.
    pub register: bool,
    /// What they are registered under.
    pub subject_names: SubjectNames,
}

/// Confluent's strategies for subjects' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SubjectNames {
    /// `orders-value`
    #[default]
    Topic,
    /// `shop.Order`
    Record,
    /// `orders-shop.Order`
    TopicRecord,
}

/// How a stop goes: `[drain]`.
#[derive(Debug, Clone)]
pub struct Drain {
    /// From the signal until new connections are refused: readiness fails, everything else goes on.
    pub notice: Duration,
    /// From the signal until what is unfinished is given up.
    pub deadline: Duration,
}

/// Threads: `[runtime]`.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Workers, one OS thread each; never 0 here.
    pub workers: usize,
}

#[cfg(test)]
mod tests;

//! From written values to the resolved configuration: types first, then what must hold between keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

mod auth;
mod sasl;
mod schema_registry;

use kafka_records::Compression;

use super::{
    AccessRule, Allow, ClientAuth, Config, ConfigError, Consumers, Cors, Dialect, Drain, Fleet, Identity,
    KafkaTlsFiles, Limits, Listen, Log, LogFormat, Management, Mistake, NamePattern, Origins, Producer, Reread,
    Runtime, Telemetry, Tls, TlsFiles, Validate, files,
    keys::{ACCESS_KEYS, Default, KEYS, Key, Kind},
    memory,
    source::{Origin, Source, Values, Written},
    values::{Raw, Value, parse_network},
};
use crate::client::{Endpoint, Proof, Trust};

/// Unacknowledged bytes that one upload may hold: enough to keep every partition's batch in flight and the next one
/// filling, and a fraction of the smallest budget.
const DELIVERY_QUOTA: usize = 4 * 1024 * 1024;

/// What can be changed without a restart, beside the rules.
const PEERS: &str = "fleet.peers";

/// `folder` is where relative paths begin.
pub(super) fn resolve(source: Source, folder: &Path) -> Result<Config, ConfigError> {
    let mut mistakes = source.mistakes;
    let rules = typed_rules(source.rules, folder);
    let mut settings = Settings::typed(KEYS, source.values, folder);

    let tls = tls(&mut settings);
    let (kafka, kafka_tls) = kafka(&mut settings);
    let config = Config {
        listen: listen(&mut settings),
        tls,
        kafka,
        kafka_tls,
        producer: producer(&mut settings),
        limits: limits(&settings),
        auth: auth::auth(&mut settings),
        access: Vec::new(),
        consumers: Consumers {
            max_instances: settings.size("consumers.max_instances"),
            idle_timeout: settings.duration("consumers.idle_timeout"),
        },
        fleet: fleet(&mut settings),
        management: Management { address: settings.address("management.address") },
        log: log(&mut settings),
        telemetry: telemetry(&mut settings),
        schema_registry: schema_registry::schema_registry(&mut settings),
        drain: drain(&mut settings),
        runtime: runtime(&settings),
        origins: Origins { values: settings.values.clone(), ..Origins::default() },
    };
    let (access, wrong_rules) = access(rules, &mut settings);
    let (data, management) = (config.listen.address, config.management.address);
    let overlap = data.ip() == management.ip() || data.ip().is_unspecified() || management.ip().is_unspecified();
    if data.port() == management.port() && data.port() != 0 && overlap {
        settings.mistake("management.address", "must not be the data listener's address, listen.address");
    }

    if let Some(fleet) = &config.fleet {
        let same = |other: SocketAddr| {
            let overlap =
                fleet.address.ip() == other.ip() || fleet.address.ip().is_unspecified() || other.ip().is_unspecified();
            fleet.address.port() == other.port() && other.port() != 0 && overlap
        };
        if same(data) || same(management) {
            settings.mistake("fleet.address", "must not be the address of another listener");
        }
    }

    mistakes.append(&mut settings.mistakes);
    mistakes.extend(wrong_rules);
    if mistakes.is_empty() { Ok(Config { access, ..config }) } else { Err(ConfigError::Mistakes(mistakes)) }
}

/// The rules and the fleet's peers, and what else is no longer as it was at the start.
pub(super) fn reread(
    source: Source,
    folder: &Path,
    before: &BTreeMap<&'static str, Value>,
) -> Result<Reread, ConfigError> {
    let mut mistakes = source.mistakes;
    let rules = typed_rules(source.rules, folder);
    let mut settings = Settings::typed(KEYS, source.values, folder);
    let (access, wrong_rules) = access(rules, &mut settings);
    mistakes.append(&mut settings.mistakes);
    mistakes.extend(wrong_rules);
    if !mistakes.is_empty() {
        return Err(ConfigError::Mistakes(mistakes));
    }
    let needs_restart = |key: &&Key| key.path != PEERS && settings.values.get(key.path) != before.get(key.path);
    Ok(Reread {
        access,
        peers: settings.list(PEERS),
        needs_restart: KEYS.iter().filter(needs_restart).map(|key| key.path).collect(),
    })
}

fn typed_rules(rules: BTreeMap<usize, Values>, folder: &Path) -> Vec<Settings<'_>> {
    rules.into_values().map(|rule| Settings::typed(ACCESS_KEYS, rule, folder)).collect()
}

const WITHOUT_RULES: &str = "is reachable from other hosts, and no [[access]] rule says who may do what. Listen on \
    127.0.0.1, or add rules; these lines let everyone do everything:

        [[access]]
        identity = \"anyone\"
        topics = [\"*\"]
        allow = [\"produce\", \"consume\", \"admin\"]
";

fn listen(settings: &mut Settings<'_>) -> Listen {
    let networks = settings.list("listen.proxy_trusted");
    let networks: Arc<[_]> = networks.iter().filter_map(|text| parse_network(text)).collect();
    let proxied = settings.word("listen.proxy_protocol") == "required";
    if proxied && networks.is_empty() {
        settings.mistake("listen.proxy_trusted", "is required with listen.proxy_protocol = \"required\"");
    } else if !proxied && !networks.is_empty() {
        settings.mistake("listen.proxy_trusted", "is of no use without listen.proxy_protocol = \"required\"");
    }
    Listen {
        address: settings.address("listen.address"),
        proxy_trusted: proxied.then_some(networks),
        max_connections: settings.size("listen.max_connections"),
        max_connections_per_source: Some(settings.size("listen.max_connections_per_source")).filter(|most| *most > 0),
        max_connection_age: settings.nonzero_duration("listen.max_connection_age"),
        idle_timeout: settings.duration("listen.idle_timeout"),
        head_timeout: settings.duration("listen.head_timeout"),
        min_body_rate: settings.nonzero_number("listen.min_body_rate"),
        cors: cors(settings),
        public_url: public_url(settings),
        dialect: if settings.word("listen.dialect") == "strimzi" { Dialect::Strimzi } else { Dialect::Confluent },
    }
}

fn cors(settings: &mut Settings<'_>) -> Option<Cors> {
    let origins = settings.list("listen.cors_origins");
    let credentials = settings.boolean("listen.cors_credentials");
    let any = origins.iter().any(|origin| origin == "*");
    if credentials && (any || origins.is_empty()) {
        settings.mistake("listen.cors_credentials", "needs listen.cors_origins with origins by name, not \"*\"");
    }
    let named: Vec<Box<str>> = origins.iter().map(|origin| origin.to_ascii_lowercase().into()).collect();
    (!origins.is_empty()).then(|| Cors { any, origins: named.into(), credentials })
}

fn public_url(settings: &mut Settings<'_>) -> Option<Arc<str>> {
    let url = settings.text("listen.public_url")?;
    let url = url.trim_end_matches('/');
    let fits = url.parse::<hyper::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some() && uri.query().is_none()
    });
    if !fits {
        return settings.missing("listen.public_url", "must be like https://host:8443");
    }
    Some(url.into())
}

fn tls(settings: &mut Settings<'_>) -> Tls {
    if settings.word("tls.mode") == "off" {
        settings.unused(&["tls.client_auth", "tls.client_ca", "tls.crl"], "needs tls.mode = \"on\"");
        return Tls::Off;
    }
    let why = "is required unless tls.mode = \"off\"";
    let (certificate, key) = (settings.required("tls.certificate", why), settings.required("tls.key", why));
    if let (Some(certificate), Some(key)) = (&certificate, &key)
        && let Err(error) = files::certified_key(certificate, key)
    {
        settings.mistake(if error.path() == key { "tls.key" } else { "tls.certificate" }, error.to_string());
    }
    let client_auth = client_auth(settings);
    Tls::Files(TlsFiles { certificate: certificate.unwrap_or_default(), key: key.unwrap_or_default(), client_auth })
}

fn client_auth(settings: &mut Settings<'_>) -> Option<ClientAuth> {
    let word = settings.word("tls.client_auth");
    if word == "off" {
        settings.unused(&["tls.client_ca", "tls.crl"], "needs tls.client_auth = \"optional\" or \"required\"");
        return None;
    }
    let ca = settings.required("tls.client_ca", "is required with tls.client_auth")?;
    let auth = ClientAuth { ca, crl: settings.file("tls.crl"), required: word == "required" };
    match files::client_verifier(&auth) {
        Ok(_) => Some(auth),
        Err(error) if error.path() == auth.ca => settings.missing("tls.client_ca", &error.to_string()),
        Err(error) => settings.missing("tls.crl", &error.to_string()),
    }
}

fn kafka(settings: &mut Settings<'_>) -> (kafka_client::Config, Option<KafkaTlsFiles>) {
    let security = settings.word("kafka.security");
    let tls = if security.ends_with("tls") {
        kafka_tls(settings)
    } else {
        settings
            .unused(&["kafka.ca", "kafka.certificate", "kafka.key"], "needs kafka.security = \"tls\" or \"sasl_tls\"");
        None
    };
    let sasl = if security.starts_with("sasl") {
        sasl::sasl(settings)
    } else {
        let needs = "needs kafka.security = \"sasl_tls\" or \"sasl_plaintext\"";
        settings.unused(&["kafka.sasl.mechanism"], needs);
        settings.unused(sasl::KEYS_OF_MECHANISMS, needs);
        None
    };
    let (tls, files) = tls.unzip();
    let config = kafka_client::Config {
        bootstrap_servers: settings.list("kafka.bootstrap_servers"),
        client_id: settings.text("kafka.client_id").unwrap_or_default(),
        rack: settings.text("kafka.rack"),
        tls,
        sasl,
        ..kafka_client::Config::default()
    };
    (config, files)
}

fn kafka_tls(settings: &mut Settings<'_>) -> Option<(kafka_client::Tls, KafkaTlsFiles)> {
    let ca = settings.text("kafka.ca").filter(|ca| ca != "system").map(|ca| settings.folder.join(ca));
    let authorities = files::authorities(ca.as_deref());
    let own = match (settings.file("kafka.certificate"), settings.file("kafka.key")) {
        (Some(certificate), Some(key)) => match files::certified_key(&certificate, &key) {
            Ok(own) => Some((own, (certificate, key))),
            Err(error) => {
                let culprit = if error.path() == key { "kafka.key" } else { "kafka.certificate" };
                settings.mistake(culprit, error.to_string());
                None
            }
        },
        (Some(_), None) => settings.missing("kafka.key", "is required with kafka.certificate"),
        (None, Some(_)) => settings.missing("kafka.certificate", "is required with kafka.key"),
        (None, None) => None,
    };
    let (own, own_files) = own.unzip();
    match authorities {
        Ok(roots) => {
            let tls = kafka_client::Tls::new(files::client_tls(roots, own));
            Some((tls, KafkaTlsFiles { ca, own: own_files }))
        }
        Err(error) => settings.missing("kafka.ca", &error.to_string()),
    }
}

fn producer(settings: &mut Settings<'_>) -> Producer {
    let compression = match settings.word("producer.compression") {
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => Compression::None,
    };
    let memory_bytes = settings
        .optional_size("producer.memory_bytes")
        .unwrap_or_else(|| usize::try_from(memory::default_budget()).expect("at most 1 GiB"));
    let batch_bytes = settings.size("producer.batch_bytes");
    // One record of the largest size and one batch, held twice (sealed and filling), must fit below the 80 % at which
    // new requests are refused.
    let needed = 4 * batch_bytes.max(settings.size("limits.record_bytes"));
    if memory_bytes < needed {
        let problem =
            format!("must be at least {needed}: four times the larger of producer.batch_bytes and limits.record_bytes");
        settings.mistake("producer.memory_bytes", problem);
    }
    Producer {
        pipeline: produce_pipeline::Config {
            linger: settings.duration("producer.linger"),
            batch_bytes,
            delivery_timeout: settings.duration("producer.delivery_timeout"),
            compression,
            idempotence: settings.boolean("producer.idempotence"),
            delivery_quota: DELIVERY_QUOTA,
        },
        memory_bytes,
        validate: if settings.word("producer.validate") == "json" { Validate::Json } else { Validate::None },
        trace_header: settings.text("producer.trace_header").map(Into::into),
    }
}

fn limits(settings: &Settings<'_>) -> Limits {
    Limits {
        body_bytes: settings.nonzero_number("limits.body_bytes"),
        record_bytes: settings.size("limits.record_bytes"),
        document_bytes: settings.size("limits.document_bytes"),
        head_bytes: settings.size("limits.head_bytes"),
    }
}

fn log(settings: &mut Settings<'_>) -> Log {
    let format = if settings.word("log.format") == "text" { LogFormat::Text } else { LogFormat::Json };
    let level = settings.text("log.level").unwrap_or_default();
    if let Err(problem) = crate::log::parse_level(&level) {
        settings.mistake("log.level", problem);
    }
    Log { format, level: level.into(), requests: settings.boolean("log.requests") }
}

fn telemetry(settings: &mut Settings<'_>) -> Option<Telemetry> {
    let Some(url) = settings.text("telemetry.otlp_endpoint") else {
        settings.unused(
            &["telemetry.ca", "telemetry.service_name", "telemetry.sample_ratio"],
            "needs telemetry.otlp_endpoint",
        );
        return None;
    };
    let collector = settings.endpoint("telemetry.otlp_endpoint", &url, "telemetry.ca")?;
    Some(Telemetry {
        collector,
        service_name: settings.text("telemetry.service_name").unwrap_or_default().into(),
        sample_ratio: settings.ratio("telemetry.sample_ratio"),
    })
}

fn drain(settings: &mut Settings<'_>) -> Drain {
    let drain = Drain { notice: settings.duration("drain.notice"), deadline: settings.duration("drain.deadline") };
    if drain.deadline < drain.notice {
        settings.mistake("drain.deadline", "must not be shorter than drain.notice: both begin at the signal");
    }
    drain
}

fn runtime(settings: &Settings<'_>) -> Runtime {
    let workers = match settings.size("runtime.workers") {
        0 => thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    Runtime { workers }
}

fn fleet(settings: &mut Settings<'_>) -> Option<Fleet> {
    let Some(address) = settings.optional_address("fleet.address") else {
        settings.unused(&["fleet.advertised", "fleet.secret_file", PEERS], "needs fleet.address");
        return None;
    };
    let advertised = settings.text("fleet.advertised");
    if advertised.is_none() && address.ip().is_unspecified() {
        settings.mistake("fleet.advertised", "is required where fleet.address is no address of one host");
    }
    if advertised.as_deref().is_some_and(|advertised| advertised.parse::<hyper::http::uri::Authority>().is_err()) {
        settings.mistake("fleet.advertised", "must be host:port");
    }
    let secret_file = settings.required("fleet.secret_file", "is required with fleet.address")?;
    let secrets = match Fleet::read_secrets(&secret_file) {
        Ok(secrets) => secrets,
        Err(problem) => settings.missing("fleet.secret_file", &problem).unwrap_or_default(),
    };
    Some(Fleet { address, advertised, secret_file, secrets, peers: settings.list(PEERS) })
}

/// The rules, and what is wrong with any of them.
fn access(rules: Vec<Settings<'_>>, settings: &mut Settings<'_>) -> (Vec<AccessRule>, Vec<Mistake>) {
    let (mut resolved, mut wrong) = (Vec::new(), Vec::new());
    for (index, mut rule) in rules.into_iter().enumerate() {
        let identity = identity(&mut rule, settings);
        let patterns = |names: Vec<String>| names.iter().map(|name| NamePattern::parse(name)).collect::<Vec<_>>();
        let (topics, mut groups) = (patterns(rule.list("access.topics")), patterns(rule.list("access.groups")));
        if rule.get("access.groups").is_none() && topics.iter().any(NamePattern::is_all) {
            groups.push(NamePattern::parse("*"));
        }
        if topics.is_empty() && groups.is_empty() && !rule.broken.contains("access.groups") {
            rule.mistake("access.topics", "is required, unless access.groups is set: a list of topic names");
        }
        let words = rule.words("access.allow");
        let has = |word| words.contains(&word);
        let allow = Allow { produce: has("produce"), consume: has("consume"), admin: has("admin") };
        let (rate_bytes, rate_requests) =
            (rule.optional_number("access.rate_bytes"), rule.optional_number("access.rate_requests"));
        resolved.push(AccessRule { identity, topics, groups, allow, rate_bytes, rate_requests });
        wrong.extend(rule.mistakes.into_iter().map(|mistake| mistake.in_rule(index)));
    }
    if resolved.is_empty() && !is_loopback(settings.address("listen.address").ip()) {
        settings.mistake("listen.address", WITHOUT_RULES);
    }
    (resolved, wrong)
}

/// Who a rule is for, if the settings let anybody prove to be that.
fn identity(rule: &mut Settings<'_>, settings: &Settings<'_>) -> Identity {
    let Some(text) = rule.text("access.identity") else {
        return Identity::Anyone;
    };
    let Some(identity) = Identity::parse(&text) else {
        let must = "must be \"anyone\", a VPC endpoint's id \"vpce-…\", \"cert:NAME\" or \"user:NAME\"";
        rule.mistake("access.identity", must);
        return Identity::Anyone;
    };
    let needs = match &identity {
        Identity::Endpoint(_) if settings.word("listen.proxy_protocol") != "required" => {
            "needs listen.proxy_protocol = \"required\""
        }
        Identity::Certificate(_) if settings.word("tls.mode") == "off" || settings.word("tls.client_auth") == "off" => {
            "needs TLS, and tls.client_auth = \"optional\" or \"required\""
        }
        Identity::User(_) if !["auth.users_file", "auth.jwt.keys"].iter().any(|key| settings.get(key).is_some()) => {
            "needs auth.users_file or auth.jwt.keys"
        }
        _ => return identity,
    };
    rule.mistake("access.identity", needs);
    identity
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Typed values under the keys of one table, and what was wrong on the way to them.
///
/// The getters take a key's path. Which kind a path has is fixed in keys.rs; the tests read every one.
struct Settings<'a> {
    /// Where relative paths begin.
    folder: &'a Path,
    written: Values,
    values: BTreeMap<&'static str, Value>,
    mistakes: Vec<Mistake>,
    /// Keys with a mistake: nothing more is said about them.
    broken: BTreeSet<&'static str>,
}

impl<'a> Settings<'a> {
    fn typed(keys: &'static [Key], written: Values, folder: &'a Path) -> Self {
        let mut settings =
            Self { folder, written, values: BTreeMap::new(), mistakes: Vec::new(), broken: BTreeSet::new() };
        for key in keys {
            if let Err(problem) = settings.read(key) {
                settings.mistake(key.path, problem);
            }
        }
        settings
    }

    fn read(&mut self, key: &'static Key) -> Result<(), String> {
        if let Default::Value(default) = key.default {
            let value = key.kind.parse(&Raw::Untyped(default.to_owned()));
            self.values.insert(key.path, value.expect("a default is inside its own bounds"));
        }
        match self.written.get(key.path) {
            Some(written) => drop(self.values.insert(key.path, key.kind.parse(&written.raw)?)),
            None if matches!(key.default, Default::Required) => return Err(format!("is required: {}", key.kind)),
            None => {}
        }
        Ok(())
    }

    fn mistake(&mut self, path: &'static str, problem: impl Into<String>) {
        if self.broken.insert(path) {
            let written = self.written.get(path);
            let value = written.map(|written| written.raw.to_string());
            let origin = written.map_or(Origin::Default, |Written { origin, .. }| origin.clone());
            self.mistakes.push(Mistake::new(path, value.or_else(|| default_of(path)), origin, problem));
        }
    }

    fn missing<T>(&mut self, path: &'static str, problem: &str) -> Option<T> {
        self.mistake(path, problem);
        None
    }

    /// What was written and is of no use is a mistake, unless it says what holds anyway.
    fn unused(&mut self, paths: &[&'static str], problem: &str) {
        for path in paths {
            let default = default_of(path);
            let written = self.written.get(path).map(|written| written.raw.to_string());
            // Only the environment quotes a number.
            let same = |a: &str, b: &str| a.trim_matches('"') == b.trim_matches('"');
            if written.is_some_and(|written| default.is_none_or(|default| !same(&written, &default))) {
                self.mistake(path, problem);
            }
        }
    }

    fn get(&self, path: &str) -> Option<&Value> {
        debug_assert!(KEYS.iter().chain(ACCESS_KEYS).any(|key| key.path == path), "{path}");
        self.values.get(path)
    }

    fn text(&self, path: &str) -> Option<String> {
        let Some(Value::Text(text)) = self.get(path) else { return None };
        Some(text.clone())
    }

    fn word(&self, path: &str) -> &'static str {
        let Some(Value::Word(word)) = self.get(path) else { unreachable!("{path} has a word by default") };
        word
    }

    fn choice(&self, path: &str) -> Option<&'static str> {
        let Some(Value::Word(word)) = self.get(path) else { return None };
        Some(word)
    }

    fn words(&self, path: &str) -> Vec<&'static str> {
        let Some(Value::Words(words)) = self.get(path) else { return Vec::new() };
        words.clone()
    }

    fn list(&self, path: &str) -> Vec<String> {
        let Some(Value::List(items)) = self.get(path) else { return Vec::new() };
        items.clone()
    }

    fn boolean(&self, path: &str) -> bool {
        let Some(Value::Boolean(value)) = self.get(path) else { unreachable!("{path} is a boolean by default") };
        *value
    }

    fn number(&self, path: &str) -> u64 {
        let Some(Value::Number(number)) = self.get(path) else { unreachable!("{path} is a number by default") };
        *number
    }

    fn nonzero_number(&self, path: &str) -> Option<u64> {
        Some(self.number(path)).filter(|number| *number > 0)
    }

    fn size(&self, path: &str) -> usize {
        usize::try_from(self.number(path)).unwrap_or(usize::MAX)
    }

    fn optional_number(&self, path: &str) -> Option<u64> {
        let Some(Value::Number(number)) = self.get(path) else { return None };
        Some(*number)
    }

    fn optional_size(&self, path: &str) -> Option<usize> {
        self.optional_number(path).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
    }

    fn duration(&self, path: &str) -> Duration {
        let Some(Value::Duration(duration)) = self.get(path) else { unreachable!("{path} is a duration by default") };
        *duration
    }

    fn nonzero_duration(&self, path: &str) -> Option<Duration> {
        Some(self.duration(path)).filter(|duration| !duration.is_zero())
    }

    fn address(&self, path: &str) -> std::net::SocketAddr {
        let Some(Value::Address(address)) = self.get(path) else { unreachable!("{path} is an address by default") };
        *address
    }

    fn ratio(&self, path: &str) -> f64 {
        let Some(Value::Ratio(ratio)) = self.get(path) else { unreachable!("{path} is a ratio by default") };
        *ratio
    }

    /// An HTTP server whose URL is the value of `path`, and whose certificate those sign that `ca` names.
    fn endpoint(&mut self, path: &'static str, url: &str, ca: &'static str) -> Option<Endpoint> {
        self.endpoint_with(path, url, ca, Proof::default())
    }

    /// The same, to which the bridge proves who it is.
    fn endpoint_with(&mut self, path: &'static str, url: &str, ca: &'static str, proof: Proof) -> Option<Endpoint> {
        let authorities = self.text(ca).filter(|ca| ca != "system").map(|ca| self.folder.join(ca));
        if let Err(error) = files::authorities(authorities.as_deref()) {
            return self.missing(ca, &error.to_string());
        }
        let trust = authorities.as_deref().map_or(Trust::System, Trust::File);
        match Endpoint::with_proof(url, trust, proof) {
            Ok(endpoint) => Some(endpoint),
            Err(problem) => self.missing(path, &problem),
        }
    }

    fn optional_address(&self, path: &str) -> Option<SocketAddr> {
        let Some(Value::Address(address)) = self.get(path) else { return None };
        Some(*address)
    }

    fn file(&self, path: &str) -> Option<PathBuf> {
        let Some(Value::File(file)) = self.get(path) else { return None };
        Some(self.folder.join(file))
    }

    fn required(&mut self, path: &'static str, why: &str) -> Option<PathBuf> {
        match self.file(path) {
            Some(file) => Some(file),
            None => self.missing(path, why),
        }
    }
}

/// What a mistake about a key that nobody wrote shows as its value.
fn default_of(path: &str) -> Option<String> {
    let key = KEYS.iter().find(|key| key.path == path)?;
    let Default::Value(default) = key.default else { return None };
    Some(match key.kind {
        Kind::Boolean | Kind::Count { .. } | Kind::Bytes { .. } | Kind::Ratio => default.to_owned(),
        _ => format!("{default:?}"),
    })
}

//! The one list of what can be set.
//!
//! A key's default is written as an environment variable would carry it, so that defaults, overrides and the file's
//! strings go through the same parser and a default that breaks its own bounds fails the first test.

use std::time::Duration;

/// One setting.
#[derive(Debug)]
pub(super) struct Key {
    /// `section.name`, as in the file.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Default,
    /// One paragraph of Markdown: what it is, its unit, what changing it costs.
    pub(super) doc: &'static str,
}

/// What a setting's value is, with its bounds (inclusive).
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Any text but the empty one.
    Text,
    /// One of these words.
    Choice(&'static [Choice]),
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Count { min: u64, max: u64 },
    /// Bytes: a whole number, or text like "64MiB".
    Bytes { min: u64, max: u64 },
    /// Text like "300s", "5ms", "2m".
    Duration { min: Duration, max: Duration },
    /// A number from 0 to 1.
    Ratio,
    /// An IP address and a port.
    Address,
    /// A file; a relative path begins at the configuration file's folder.
    File,
    /// A list of `host:port`.
    Servers,
    /// A list of IP networks, `10.0.0.0/16`, or addresses.
    Networks,
    /// A list of web origins, or `*`.
    Origins,
    /// A list of topic names; one that ends in `*` is a prefix.
    Topics,
    /// A list of consumer groups' names; one that ends in `*` is a prefix.
    Groups,
    /// A list of words, each one of these.
    Choices(&'static [Choice]),
}

/// One of the words that a setting may have.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) word: &'static str,
}

/// What a setting is when nobody sets it.
#[derive(Debug)]
pub(super) enum Default {
    /// This, written as an environment variable would carry it.
    Value(&'static str),
    /// Nothing; the text says what that means.
    Unset(&'static str),
    /// It has to be set.
    Required,
}

const fn word(word: &'static str) -> Choice {
    Choice { word }
}

const fn key(path: &'static str, kind: Kind, default: Default, doc: &'static str) -> Key {
    Key { path, kind, default, doc }
}

const fn seconds(min: u64, max: u64) -> Kind {
    Kind::Duration { min: Duration::from_secs(min), max: Duration::from_secs(max) }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const DAY: u64 = 24 * 60 * 60;

/// Names a section in docs/configuration.md.
pub(super) const SECTIONS: &[(&str, &str)] = &[
    ("listen", "The data listener: everything but health and metrics."),
    (
        "tls",
        "TLS of the data listener: 1.3 and 1.2, ALPN `http/1.1`. The files are watched: when one has changed and they fit \
         together, connections to come get them, and no session of before is resumed; else the old ones stay, which \
         `penstock_reload_failing` and the log tell.",
    ),
    (
        "auth",
        "How callers prove to be the `user:…` of a rule. Without any of these keys `Authorization` is ignored. \
         Files are watched, and read anew on SIGHUP, too. Without TLS, passwords and tokens can be read on their way.",
    ),
    (
        "auth.jwt",
        "JSON Web Tokens, `Authorization: Bearer …` (RFC 6750, RFC 7519). A token needs a signature by a key of the set, \
         `iss`, `aud` and `exp`; `nbf` counts where it is there.",
    ),
    ("kafka", "How the brokers are reached."),
    ("kafka.sasl", "Authentication to the brokers by SASL."),
    ("producer", "How records become batches, and how long they may take."),
    ("limits", "What one request may bring."),
    (
        "management",
        "The listener of `/livez`, `/readyz` and `/metrics`. It has neither TLS nor access rules: keep it inside.",
    ),
    ("consumers", "Consumer instances of Confluent's API: the one thing that has a state here between two requests."),
    (
        "fleet",
        "How the bridges of a fleet reach one another, so that a consumer instance can be reached, and a stream's offsets \
         committed, through any of them. Unset, each stands alone. docs/http-api.md says what this listener trusts.",
    ),
    ("log", "Logs go to standard error, never a record's key or value."),
    (
        "telemetry",
        "Spans of requests for OpenTelemetry, one a request, by OTLP over HTTP. OpenTelemetry's own environment variables \
         `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_RESOURCE_ATTRIBUTES` add headers (a collector's credentials, for one) and \
         attributes.",
    ),
    (
        "schema_registry",
        "A registry that speaks Confluent's Schema Registry API, for records in the formats avro, jsonschema and protobuf of \
         Confluent's API. Nothing else asks it anything.",
    ),
    ("drain", "How a stop (SIGTERM or SIGINT) goes."),
    ("runtime", "Threads."),
];

/// Every key but those of `[[access]]`.
pub(super) const KEYS: &[Key] = &[
    key(
        "listen.address",
        Kind::Address,
        Default::Value("0.0.0.0:8443"),
        "Where the data listener binds. On an address that is not loopback, at least one `[[access]]` rule must say who \
         may do what.",
    ),
    key(
        "listen.proxy_protocol",
        Kind::Choice(&[word("off"), word("required")]),
        Default::Value("off"),
        "Whether every connection begins with a PROXY protocol header (version 2) that a load balancer puts there, before \
         TLS. With `required` a connection without a whole and well-formed header, of at most 1 KiB and within 2 s, is \
         closed, and the header says who the client is: its address and the VPC endpoint that it came through. A header \
         without a client (`LOCAL`, a health check) is served nothing that needs an access rule.",
    ),
    key(
        "listen.proxy_trusted",
        Kind::Networks,
        Default::Unset("required with `proxy_protocol = \"required\"`"),
        "The networks of the load balancer, like `10.0.0.0/16`. A connection from elsewhere is closed whatever it says. \
         Everybody who can connect from these networks can claim to be any client: let security groups leave the \
         balancer alone in them.",
    ),
    key(
        "listen.max_connections",
        Kind::Count { min: 1, max: 1_000_000 },
        Default::Value("10000"),
        "Client connections open at once; further ones are closed unserved. An idle TLS connection takes about 30 KiB, \
         one that uploads about 100 KiB more, beside `producer.memory_bytes`.",
    ),
    key(
        "listen.max_connections_per_source",
        Kind::Count { min: 0, max: 1_000_000 },
        Default::Value("0"),
        "Of these, connections from one address (of IPv6: one /64); further ones are closed unserved. `0`: no such \
         bound, which it must be behind a load balancer that hides its clients' addresses. With \
         `listen.proxy_protocol` the address of the header counts; health checks do not count.",
    ),
    key(
        "listen.max_connection_age",
        seconds(0, 7 * DAY),
        Default::Value("0s"),
        "A connection this old, or up to a fifth younger, so that those that came together do not go together, is \
         closed after an answer that says so, and an idle one in the last tenth of the time without; `0s`: never. A bound lets new instances behind a \
         load balancer get their share of long-lived clients, and costs each of them a handshake a time.",
    ),
    key(
        "listen.idle_timeout",
        seconds(1, DAY),
        Default::Value("300s"),
        "A connection without a request for this long is closed, and so is one whose body or whose reader is silent for \
         this long within a request. Keep it above the idle time of the clients' connection \
         pools and below that of a load balancer in between (350 s on AWS), or clients will meet closed connections.",
    ),
    key(
        "listen.head_timeout",
        seconds(1, 300),
        Default::Value("5s"),
        "The time that a TLS handshake may take, and the head of a request from its first byte to its last. Slower \
         clients are cut off; a higher value lets them hold connections open for nothing.",
    ),
    key(
        "listen.min_body_rate",
        Kind::Bytes { min: 0, max: GIB },
        Default::Value("0"),
        "Bytes a second below which a body being sent is given up; `0`: no such bound, which uploads from a pipe need. \
         A bound frees connections that a vanished client left behind earlier than `listen.idle_timeout`.",
    ),
    key(
        "listen.cors_origins",
        Kind::Origins,
        Default::Unset("no page of another origin may read an answer"),
        "Web pages of these origins (`https://app.example`, as browsers write it: no path, no port that is the scheme's \
         own) may call the bridge and read its answers (CORS). `*` is any origin. It adds to the `[[access]]` rules and \
         replaces none.",
    ),
    key(
        "listen.cors_credentials",
        Kind::Boolean,
        Default::Value("false"),
        "Browsers may send along what they hold for the bridge: a client certificate, a Basic login. Needs origins by name: \
         with it, those pages act as whoever sits in front of them. A page that sets `Authorization` itself does not need it.",
    ),
    key(
        "listen.dialect",
        Kind::Choice(&[word("confluent"), word("strimzi")]),
        Default::Value("confluent"),
        "Whose answers the compatible part of the interface gives where REST proxies differ: Confluent's REST Proxy or \
         Strimzi's bridge. docs/http-api.md says where they do.",
    ),
    key(
        "listen.public_url",
        Kind::Text,
        Default::Unset("the scheme of this listener and the `Host` of the request"),
        "How clients reach the fleet, `https://host[:port][/base]`, for the addresses that answers name (`base_uri` of a \
         consumer instance). Set it where something in front changes `Host` or ends TLS.",
    ),
    key(
        "tls.mode",
        Kind::Choice(&[word("on"), word("off")]),
        Default::Value("on"),
        "`off` serves plain HTTP: for tests, or behind something that decrypts on the same host.",
    ),
    key(
        "tls.certificate",
        Kind::File,
        Default::Unset("required unless `tls.mode = \"off\"`"),
        "PEM file with the server's certificate, then its intermediates. An ECDSA P-256 key makes handshakes about four \
         times cheaper than RSA 2048.",
    ),
    key(
        "tls.key",
        Kind::File,
        Default::Unset("required unless `tls.mode = \"off\"`"),
        "PEM file with the certificate's private key (PKCS#8, SEC1 or PKCS#1, not encrypted).",
    ),
    key(
        "tls.client_ca",
        Kind::File,
        Default::Unset("required with `client_auth`"),
        "PEM file with the authorities that sign clients' certificates. Only they are believed; take one that signs \
         nothing else.",
    ),
    key(
        "tls.client_auth",
        Kind::Choice(&[word("off"), word("optional"), word("required")]),
        Default::Value("off"),
        "Whether clients are asked for a certificate, which makes them the `cert:…` of a rule. `optional` serves those \
         without one, too, as far as a rule allows; `required` turns them away in the handshake, a load balancer's TLS \
         health checks among them. A certificate that does not hold (unknown authority, expired, revoked) is turned away \
         under both.",
    ),
    key(
        "tls.crl",
        Kind::File,
        Default::Unset("nothing is revoked"),
        "PEM file with the revocation lists of `tls.client_ca`: one of each authority there, and of each intermediate. A \
         certificate whose authority has no list, or one that is out of date, is refused. A connection that is open when \
         its certificate is revoked goes on: `listen.max_connection_age` bounds that.",
    ),
    key(
        "auth.users_file",
        Kind::File,
        Default::Unset("no users"),
        "Users for `Authorization: Basic …`, a line `name:hash` each; `#` begins a comment. A hash is Argon2 (`$argon2id$…`) or \
         bcrypt (`$2b$…`, at most 72 bytes of password); `penstock hash-password NAME` prints a line. Hashes that cost more than 256 MiB \
         or about a second are refused. A password that was right is not hashed again until the file changes.",
    ),
    key(
        "auth.jwt.keys",
        Kind::Text,
        Default::Unset("no tokens"),
        "The JWK set with the issuer's public keys: a file, or `https://…` (`http://` on loopback), asked every five minutes and \
         when a token names a key that is not there. Symmetric keys are skipped.",
    ),
    key(
        "auth.jwt.ca",
        Kind::Text,
        Default::Value("system"),
        "Who may sign the certificate behind `keys`: `system` for the host's authorities, or a PEM file, whose authorities are \
         then the only ones.",
    ),
    key("auth.jwt.issuer", Kind::Text, Default::Unset("required with `keys`"), "What `iss` must be, to the letter."),
    key(
        "auth.jwt.audience",
        Kind::Text,
        Default::Unset("required with `keys`"),
        "What must be in `aud`: the name that the issuer has for this bridge. Tokens for others do not count.",
    ),
    key(
        "auth.jwt.algorithms",
        Kind::Choices(&[
            word("RS256"),
            word("RS384"),
            word("RS512"),
            word("PS256"),
            word("PS384"),
            word("PS512"),
            word("ES256"),
            word("ES384"),
            word("EdDSA"),
        ]),
        Default::Unset("`RS256`, `PS256`, `ES256`, `ES384` and `EdDSA`"),
        "The signatures that are believed. `none` and HMAC never are.",
    ),
    key(
        "auth.jwt.clock_skew",
        seconds(0, 600),
        Default::Value("60s"),
        "How far the issuer's clock may be from this host's when `exp` and `nbf` are looked at.",
    ),
    key(
        "auth.jwt.user_claim",
        Kind::Text,
        Default::Value("sub"),
        "The claim whose text is the user's name. A user of `users_file` and a token of the same name are the same `user:…`.",
    ),
    key(
        "kafka.bootstrap_servers",
        Kind::Servers,
        Default::Required,
        "Brokers to ask first, `host:port`. Every address that a name resolves to is tried; the other brokers are \
         learned from the first that answers, so two or three are enough.",
    ),
    key(
        "kafka.security",
        Kind::Choice(&[word("plaintext"), word("tls"), word("sasl_plaintext"), word("sasl_tls")]),
        Default::Value("plaintext"),
        "How connections to brokers are protected: not at all, or by TLS; with `sasl_` in front, the bridge logs in as \
         `[kafka.sasl]` says. `sasl_plaintext` is for networks that nobody else can listen to.",
    ),
    key(
        "kafka.client_id",
        Kind::Text,
        Default::Value("penstock"),
        "The name that brokers see in their logs, metrics and quotas.",
    ),
    key(
        "kafka.rack",
        Kind::Text,
        Default::Unset("none"),
        "Where this instance runs, in the brokers' own words (on MSK: the availability zone's id), told to brokers when \
         records are read: where they choose replicas by rack (KIP-392), a partition is read from the one in this rack. When that \
         cannot be reached, from the leader, for five minutes.",
    ),
    key(
        "kafka.ca",
        Kind::Text,
        Default::Value("system"),
        "Who may sign the brokers' certificates under `security = \"tls\"`: `system` for the host's authorities, or a PEM \
         file, whose authorities are then the only ones. This file, `kafka.certificate` and `kafka.key` are watched: when one \
         has changed and they fit together, connections to come are made with them; open ones stay.",
    ),
    key(
        "kafka.certificate",
        Kind::File,
        Default::Unset("no client certificate"),
        "PEM file with the certificate that is shown to brokers, then its intermediates; needs `kafka.key`.",
    ),
    key(
        "kafka.key",
        Kind::File,
        Default::Unset("no client certificate"),
        "PEM file with the private key of `kafka.certificate`.",
    ),
    key(
        "kafka.sasl.mechanism",
        Kind::Choice(&[
            word("PLAIN"),
            word("SCRAM-SHA-256"),
            word("SCRAM-SHA-512"),
            word("OAUTHBEARER"),
            word("AWS_MSK_IAM"),
        ]),
        Default::Unset("required under `sasl_plaintext` and `sasl_tls`"),
        "How the bridge proves who it is. MSK has `SCRAM-SHA-512` (port 9096) and `AWS_MSK_IAM` (port 9098, `sasl_tls` \
         only). Where brokers bound sessions (`connections.max.reauth.ms`), connections log in again in place between 85 \
         and 95 % of one.",
    ),
    key(
        "kafka.sasl.username",
        Kind::Text,
        Default::Unset("required by PLAIN and SCRAM"),
        "The user of PLAIN and SCRAM. Name and password are used as they are, without SASLprep, as Kafka does.",
    ),
    key(
        "kafka.sasl.password_file",
        Kind::File,
        Default::Unset("required by PLAIN and SCRAM"),
        "The file that holds that user's password; one line end at its end does not count. It is read at every login, so \
         a password is changed by replacing the file.",
    ),
    key(
        "kafka.sasl.region",
        Kind::Text,
        Default::Unset("required by AWS_MSK_IAM"),
        "The AWS region of the cluster, for AWS_MSK_IAM. The credentials come by the AWS SDK's chain: environment, \
         profile, web identity, ECS, EC2 (IMDSv2).",
    ),
    key(
        "kafka.sasl.token_url",
        Kind::Text,
        Default::Unset("required by OAUTHBEARER"),
        "Where OAUTHBEARER gets its tokens, by the client credentials grant of OAuth 2.0: `https://…`, or `http://` on \
         loopback. A token is used until a fifth of its lifetime is left or a broker refuses it.",
    ),
    key(
        "kafka.sasl.token_ca",
        Kind::Text,
        Default::Value("system"),
        "Who may sign the certificate behind `token_url`: `system` for the host's authorities, or a PEM file, whose \
         authorities are then the only ones.",
    ),
    key(
        "kafka.sasl.client_id",
        Kind::Text,
        Default::Unset("required by OAUTHBEARER"),
        "The client that asks for OAUTHBEARER's tokens.",
    ),
    key(
        "kafka.sasl.client_secret_file",
        Kind::File,
        Default::Unset("required by OAUTHBEARER"),
        "The file that holds that client's secret, read each time that a token is asked for.",
    ),
    key(
        "kafka.sasl.scope",
        Kind::Text,
        Default::Unset("none"),
        "The scope that OAUTHBEARER's tokens are asked for; several are separated by spaces.",
    ),
    key(
        "producer.linger",
        Kind::Duration { min: Duration::ZERO, max: Duration::from_secs(10) },
        Default::Value("0ms"),
        "How long a batch that is not full waits for more records while its partition is idle. `0ms` sends a lone record \
         at once; batches still fill by themselves while earlier ones are on their way. A higher value makes fewer and \
         fuller batches out of many small requests, and each of those requests that much slower.",
    ),
    key(
        "producer.batch_bytes",
        Kind::Bytes { min: 16 * KIB, max: 16 * MIB },
        Default::Value("1000000"),
        "Size at which a batch is full, before compression. It has to stay below the brokers' `message.max.bytes` \
         (1,048,588 by default). Smaller batches cost the brokers more work a record; a record larger than this gets a \
         batch of its own.",
    ),
    key(
        "producer.memory_bytes",
        Kind::Bytes { min: 16 * MIB, max: 1024 * GIB },
        Default::Unset(
            "half of the control group's memory limit, or a quarter of the host's memory without one; at most \
                        1 GiB, at least 64 MiB",
        ),
        "Memory for records on their way, over all workers. When 80 % are in use, new requests get 503 with \
         `Retry-After` and running ones go on; at 100 % no body is read until brokers acknowledge. The process takes \
         this much and its connections' buffers at most.",
    ),
    key(
        "producer.compression",
        Kind::Choice(&[word("none"), word("lz4"), word("zstd"), word("snappy"), word("gzip")]),
        Default::Value("none"),
        "Codec of the batches. Any of them costs the bridge more CPU than all the rest of a record's way, and saves \
         network and brokers' disk in return; `lz4` is the cheapest.",
    ),
    key(
        "producer.delivery_timeout",
        seconds(1, 3600),
        Default::Value("30s"),
        "From a record's arrival in a batch to the end of all tries. Then it is reported: `not_written` if it never was \
         on the wire, else `unknown`. A request may shorten it for itself (`Kafka-Timeout-Ms`).",
    ),
    key(
        "producer.idempotence",
        Kind::Boolean,
        Default::Value("true"),
        "Whether brokers drop what a retry repeats (KIP-98). Without it a retry can write records twice and out of order; \
         turn it off only for clusters that refuse it.",
    ),
    key(
        "producer.validate",
        Kind::Choice(&[word("none"), word("json")]),
        Default::Value("none"),
        "Whether a line that is not one JSON document is refused, unless a request says otherwise (`?validate=`). \
         Checking costs more CPU than the rest of a record's way.",
    ),
    key(
        "producer.trace_header",
        Kind::Text,
        Default::Unset("records carry no trace"),
        "The record header, usually `traceparent`, that carries the trace of the request (W3C Trace Context) that wrote the \
         record: its `traceparent`, or the bridge's own span where that is exported; `tracestate` goes along. A request \
         without one writes none, and a header of this name that the client gave (`Kafka-Header`) stays as it is. It \
         adds about 70 bytes to a record.",
    ),
    key(
        "limits.body_bytes",
        Kind::Bytes { min: 0, max: u64::MAX },
        Default::Value("0"),
        "Bytes of an NDJSON body, after `Content-Encoding` is undone; `0`: no bound, so that uploads can go on for hours. \
         Memory does not depend on it. A body that is one record is bounded by `limits.record_bytes` instead.",
    ),
    key(
        "limits.record_bytes",
        Kind::Bytes { min: KIB, max: 64 * MIB },
        Default::Value("1048576"),
        "Bytes of one record's value: a line without its line end, or a whole body. A line over it is refused and the \
         others go on; a body over it gets 413. Raise the topic's `max.message.bytes` with it. A line that spans \
         chunks is held in memory up to this size, once a connection.",
    ),
    key(
        "limits.document_bytes",
        Kind::Bytes { min: KIB, max: 256 * MIB },
        Default::Value("8MiB"),
        "Bytes of a body that is one JSON document of records, as Confluent's API has them, after `Content-Encoding` is \
         undone. It is held in memory whole, and with what it says may take a quarter of `producer.memory_bytes`.",
    ),
    key(
        "limits.head_bytes",
        Kind::Bytes { min: 8 * KIB, max: MIB },
        Default::Value("16384"),
        "Bytes of a request's head. Larger heads get 431.",
    ),
    key(
        "consumers.max_instances",
        Kind::Count { min: 0, max: 100_000 },
        Default::Value("1000"),
        "Consumer instances in this process; a request for one more gets 503. Each is a member of its group, with a \
         heartbeat, and takes some KiB; what its reads hold counts against `producer.memory_bytes`.",
    ),
    key(
        "consumers.idle_timeout",
        seconds(1, DAY),
        Default::Value("300s"),
        "A consumer instance without a request for this long ends: it commits what it has to and leaves its group, so that \
         others get its partitions.",
    ),
    key(
        "fleet.address",
        Kind::Address,
        Default::Unset("no fleet"),
        "Where other bridges reach this one: plain HTTP, each request signed with the fleet's secret. Let nobody but the \
         fleet connect to it.",
    ),
    key(
        "fleet.advertised",
        Kind::Text,
        Default::Unset("`fleet.address`; required where that is no address of one host, like `0.0.0.0`"),
        "The `host:port` by which the others reach `fleet.address`; on AWS the instance's private address.",
    ),
    key(
        "fleet.secret_file",
        Kind::File,
        Default::Unset("required with `fleet.address`"),
        "The file with the secret that all bridges of the fleet share: 32 characters or more, random. With several lines \
         the first signs and all are believed, so that a secret is replaced in three steps: add the new one as the last \
         line everywhere, move it to the first, take the old one away. The file is watched.",
    ),
    key(
        "fleet.peers",
        Kind::Servers,
        Default::Unset("none"),
        "`host:port` of the other bridges, for clients that name an instance themselves and go by that name alone: whoever \
         gets their requests asks all peers who has it. Every address that a name resolves to is one, so one name for \
         the whole fleet is enough. Clients that go by the `base_uri` that they were given need no peers. Clients that read \
         as a group and commit by themselves do: whoever gets their offsets has the peer commit them that has the stream. \
         Changes are taken without a restart; this bridge itself may be among them.",
    ),
    key("management.address", Kind::Address, Default::Value("0.0.0.0:8081"), "Where the management listener binds."),
    key(
        "log.format",
        Kind::Choice(&[word("json"), word("text")]),
        Default::Value("json"),
        "One JSON object a line, or text for people.",
    ),
    key(
        "log.level",
        Kind::Text,
        Default::Value("info"),
        "`error`, `warn`, `info`, `debug` or `trace`, and after it `target=level` pairs, comma separated: \
         `info,kafka_client=debug`. A line for which standard error has no room in time is dropped and counted \
         (`penstock_log_lines_dropped_total`).",
    ),
    key(
        "log.requests",
        Kind::Boolean,
        Default::Value("false"),
        "A line for each request, under the target `requests`, whatever `log.level` says: method, path (without its \
         query), operation, topic, status, bytes, time, caller (its user too, if the request proved one), trace id, and \
         what became of its records. It costs about as much as a small request itself; nothing when it is off.",
    ),
    key(
        "telemetry.otlp_endpoint",
        Kind::Text,
        Default::Unset("no spans"),
        "The collector, `http://localhost:4318` or `https://…`; `/v1/traces` is appended. A collector that is slow or away \
         costs spans, never requests: `penstock_spans_total` counts them.",
    ),
    key(
        "telemetry.ca",
        Kind::Text,
        Default::Value("system"),
        "Who may sign the collector's certificate: `system` for the host's authorities, or a PEM file, whose authorities are \
         then the only ones.",
    ),
    key("telemetry.service_name", Kind::Text, Default::Value("penstock"), "`service.name` of the spans."),
    key(
        "telemetry.sample_ratio",
        Kind::Ratio,
        Default::Value("1"),
        "How many of the requests that bring no `traceparent` begin a trace that is recorded, `0` to `1`. Those that bring \
         one are recorded if its sender records them. A recorded request costs some microseconds more.",
    ),
    key(
        "schema_registry.url",
        Kind::Text,
        Default::Unset("formats that need a schema are refused"),
        "The registry, `https://registry:8081`, with a path where it has one.",
    ),
    key(
        "schema_registry.ca",
        Kind::Text,
        Default::Value("system"),
        "Who may sign the registry's certificate: `system` for the host's authorities, or a PEM file, whose authorities are \
         then the only ones.",
    ),
    key(
        "schema_registry.username",
        Kind::Text,
        Default::Unset("no login"),
        "The user of a Basic login at the registry; needs `schema_registry.password_file`.",
    ),
    key(
        "schema_registry.password_file",
        Kind::File,
        Default::Unset("no login"),
        "The file that holds that user's password, read with each question. Needs `https://`, but on loopback.",
    ),
    key(
        "schema_registry.token_file",
        Kind::File,
        Default::Unset("no login"),
        "The file that holds a bearer token for the registry, read with each question. Needs `https://`, but on loopback.",
    ),
    key(
        "schema_registry.register",
        Kind::Boolean,
        Default::Value("true"),
        "Whether a schema whose text comes with a request is registered, as Confluent's proxy does. `false`: it must be \
         registered for its subject already.",
    ),
    key(
        "schema_registry.subject_names",
        Kind::Choice(&[word("topic"), word("record"), word("topic_record")]),
        Default::Value("topic"),
        "What schemas are registered under, Confluent's strategies: `topic` (`orders-value`), `record` (`shop.Order`), \
         `topic_record` (`orders-shop.Order`).",
    ),
    key(
        "drain.notice",
        seconds(0, 3600),
        Default::Value("60s"),
        "After the signal: how long `/readyz` says 503 while everything else goes on, new connections included. It should \
         cover the time in which the load balancer notices and stops sending: while clients still come, once in a third of \
         it at the least, the listener stays open, up to two and a half times the notice. In its first half every connection is asked to \
         leave: its next answer says `Connection: close`. AWS's network load balancers were seen to send new connections \
         for 40 s after a target has turned unhealthy, and for 120 s after it was deregistered: where instances are \
         deregistered, take `130s`.",
    ),
    key(
        "drain.deadline",
        seconds(1, DAY),
        Default::Value("180s"),
        "After the signal: when requests that are still running are given up and their records reported as they stand.",
    ),
    key(
        "runtime.workers",
        Kind::Count { min: 0, max: 1024 },
        Default::Value("0"),
        "Threads that serve; `0`: one a core. Each holds one connection to every broker that leads a partition it \
         writes to, so the brokers see workers × instances.",
    ),
];

/// The keys of one `[[access]]` rule.
pub(super) const ACCESS_KEYS: &[Key] = &[
    key(
        "access.identity",
        Kind::Text,
        Default::Required,
        "Who the rule is for. `anyone`: every caller, known or not. `vpce-…`: who comes through this VPC endpoint; needs \
         `listen.proxy_protocol`. `cert:NAME`: who shows a certificate whose subject's CN or one of whose alternative \
         names (DNS, URI, e-mail, IP address) is NAME, as a whole and to the letter, but for the case of DNS names; a \
         wildcard in a certificate is no more than its text; needs `tls.client_auth`. `user:NAME`: who logs in with that \
         user's password, or with a token for it; needs `[auth]`. A caller is all that it proves to be at once.",
    ),
    key(
        "access.topics",
        Kind::Topics,
        Default::Unset("required, unless `groups` is set"),
        "Topics by name; one that ends in `*` is a prefix, `*` alone is every topic. What concerns the whole cluster \
         (brokers, its settings, ACLs) needs `admin` on `*`.",
    ),
    key(
        "access.groups",
        Kind::Groups,
        Default::Unset("every group if `topics` has `*`, else none"),
        "Consumer groups, likewise. A group reads topics: those need a rule, too.",
    ),
    key(
        "access.allow",
        Kind::Choices(&[word("produce"), word("consume"), word("admin")]),
        Default::Required,
        "What may be done with them: `produce` writes records and tombstones; `consume` reads records, describes topics, \
         joins groups, commits and reads their offsets; `admin` creates, changes and deletes topics, and deletes groups.",
    ),
    key(
        "access.rate_bytes",
        Kind::Bytes { min: KIB, max: u64::MAX },
        Default::Unset("no bound"),
        "Body bytes a second under this rule, in each instance, all its callers together; a burst is one second's worth. \
         A body that is over it is read more slowly; a request that comes meanwhile gets 429 with `Retry-After`.",
    ),
    key(
        "access.rate_requests",
        Kind::Count { min: 1, max: u64::MAX },
        Default::Unset("no bound"),
        "Requests a second under this rule, likewise; one more gets 429 with `Retry-After`. The first rule that allows a \
         request is the one that it counts under.",
    ),
];

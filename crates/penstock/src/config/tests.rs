use std::{fs, net::Ipv4Addr};

use super::{
    keys::{Default, KEYS},
    *,
};

mod trust;

/// Enough for a bridge on loopback, without TLS.
const MINIMAL: &str = "\
[listen]
address = \"127.0.0.1:0\"
[tls]
mode = \"off\"
[kafka]
bootstrap_servers = [\"127.0.0.1:9092\"]
";

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    load_in(folder.path(), text, environment)
}

fn load_in(folder: &Path, text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let file = folder.join("penstock.toml");
    fs::write(&file, text).expect("a file in it");
    Config::load(Some(&file), environment.iter().map(|(name, value)| ((*name).into(), (*value).into())))
}

/// `MINIMAL` and one more line in a section.
fn with(section: &str, line: &str) -> String {
    let header = format!("[{section}]\n");
    match MINIMAL.find(&header) {
        Some(at) => {
            let mut text = MINIMAL.to_owned();
            let key = line.split('=').next().expect("a key");
            text.insert_str(at + header.len(), &format!("{line}\n"));
            // The line replaces the minimal one of the same key.
            let first = text.find(line).expect("just put there") + line.len();
            if let Some(second) = text[first..].find(&format!("\n{key}=")) {
                let end = text[first + second + 1..].find('\n').expect("a line's end");
                text.replace_range(first + second..first + second + 1 + end, "");
            }
            text
        }
        None => format!("{MINIMAL}{header}{line}\n"),
    }
}

fn mistakes(result: Result<Config, ConfigError>) -> Vec<String> {
    match result {
        Err(ConfigError::Mistakes(mistakes)) => mistakes.iter().map(ToString::to_string).collect(),
        other => panic!("no mistakes but {other:?}"),
    }
}

fn pair(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    fs::write(&certificate, made.cert.pem()).expect("written");
    fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    (certificate, key)
}

#[test]
fn a_minimal_file_gets_every_default() {
    let config = load(MINIMAL, &[]).expect("valid");
    assert!(matches!(config.tls, Tls::Off));
    assert_eq!(config.listen.max_connections, 10_000);
    assert_eq!(config.listen.idle_timeout, Duration::from_secs(300));
    assert_eq!(config.listen.max_connection_age, None);
    assert_eq!(config.listen.min_body_rate, None);
    assert_eq!(config.limits.body_bytes, None);
    assert_eq!(config.limits.record_bytes, 1 << 20);
    assert_eq!(config.producer.pipeline.batch_bytes, 1_000_000);
    assert_eq!(config.producer.pipeline.linger, Duration::ZERO);
    assert!(config.producer.pipeline.idempotence);
    assert!((64 << 20..=1 << 30).contains(&config.producer.memory_bytes));
    assert_eq!(config.management.address, (Ipv4Addr::UNSPECIFIED, 8081).into());
    assert_eq!(config.kafka.client_id, "penstock");
    assert!(config.kafka.tls.is_none());
    assert_eq!(config.log.format, LogFormat::Json);
    assert!(config.runtime.workers > 0);
    assert!(config.access.is_empty());
}

#[test]
fn every_key_can_be_set_in_the_file_and_by_the_environment() {
    for key in KEYS {
        let (section, name) = key.path.rsplit_once('.').expect("a section");
        let Default::Value(default) = key.default else { continue };
        let variable = format!("PENSTOCK_{}", key.path.to_uppercase().replace('.', "__"));
        // Text is quoted in the file, numbers and booleans are not; a size may be either.
        let bare = default.parse::<u64>().is_ok() || default == "true" || default == "false";
        let line = if bare { format!("{name} = {default}") } else { format!("{name} = \"{default}\"") };
        if ["listen.address", "tls.mode"].contains(&key.path) {
            continue;
        }
        load(&with(section, &line), &[]).unwrap_or_else(|error| panic!("{line}: {error}"));
        load(MINIMAL, &[(&variable, default)]).unwrap_or_else(|error| panic!("{variable}={default}: {error}"));
    }
}

#[test]
fn a_wrong_value_is_named_with_its_key_line_and_bounds() {
    for (section, line, expected) in [
        ("listen", "idle_timeout = \"5 apples\"", "listen.idle_timeout = \"5 apples\" (line 2): must be a duration"),
        ("listen", "idle_timeout = 300", "listen.idle_timeout = 300 (line 2): must be a duration"),
        ("listen", "head_timeout = \"301s\"", "from 1s to 5m"),
        ("listen", "max_connections = 0", "must be a whole number from 1 to 1000000"),
        ("listen", "max_connections = 1.5", "listen.max_connections = 1.5"),
        ("listen", "address = \"localhost\"", "must be an IP address and a port"),
        ("producer", "batch_bytes = \"1 elephant\"", "must be bytes (a whole number, or text like \"64MiB\")"),
        ("producer", "batch_bytes = \"17MiB\"", "from 16KiB to 16MiB"),
        ("producer", "batch_bytes = -1", "producer.batch_bytes = -1"),
        ("producer", "compression = \"brotli\"", "must be \"none\", \"lz4\", \"zstd\", \"snappy\" or \"gzip\""),
        ("producer", "idempotence = \"yes\"", "must be true or false"),
        ("producer", "memory_bytes = \"16MiB\"\nbatch_bytes = \"8MiB\"", "must be at least 33554432"),
        ("limits", "record_bytes = 0", "limits.record_bytes = 0"),
        ("kafka", "bootstrap_servers = []", "at least one \"host:port\""),
        ("kafka", "bootstrap_servers = [\"broker\"]", "at least one \"host:port\""),
        ("kafka", "bootstrap_servers = \"broker:9092\"", "must be a list"),
        ("log", "level = \"loud\"", "must be off, error, warn, info, debug or trace"),
        ("drain", "deadline = \"1s\"", "must not be shorter than drain.notice"),
        ("runtime", "workers = 2000", "must be a whole number from 0 to 1024"),
        ("management", "address = 8081", "must be an IP address and a port"),
    ] {
        let found = mistakes(load(&with(section, line), &[]));
        assert_eq!(found.len(), 1, "{line}: {found:?}");
        assert!(found[0].contains(expected), "{line}: {}", found[0]);
    }
}

#[test]
fn sizes_and_durations_take_units() {
    let text = with("producer", "batch_bytes = \"512KiB\"\nmemory_bytes = \"64 MB\"\nlinger = \"5ms\"");
    let config = load(&text, &[("PENSTOCK_LISTEN__IDLE_TIMEOUT", "2m")]).expect("valid");
    assert_eq!(config.producer.pipeline.batch_bytes, 512 * 1024);
    assert_eq!(config.producer.memory_bytes, 64_000_000);
    assert_eq!(config.producer.pipeline.linger, Duration::from_millis(5));
    assert_eq!(config.listen.idle_timeout, Duration::from_secs(120));
}

#[test]
fn the_environment_wins_and_splits_lists_at_commas() {
    let environment = [
        ("PENSTOCK_KAFKA__BOOTSTRAP_SERVERS", "b-1:9092, b-2:9092"),
        ("PENSTOCK_RUNTIME__WORKERS", "3"),
        ("PENSTOCK_PRODUCER__IDEMPOTENCE", "false"),
        ("PENSTOCK_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    let config = load(MINIMAL, &environment).expect("valid");
    assert_eq!(config.kafka.bootstrap_servers, ["b-1:9092", "b-2:9092"]);
    assert_eq!(config.runtime.workers, 3);
    assert!(!config.producer.pipeline.idempotence);
}

#[test]
fn the_environment_alone_is_a_configuration() {
    let environment = [
        ("PENSTOCK_TLS__MODE", "off"),
        ("PENSTOCK_KAFKA__BOOTSTRAP_SERVERS", "[::1]:9092"),
        ("PENSTOCK_ACCESS__0__IDENTITY", "anyone"),
        ("PENSTOCK_ACCESS__0__TOPICS", "orders,logs-*"),
        ("PENSTOCK_ACCESS__0__ALLOW", "produce"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::load(None, environment).expect("valid");
    assert_eq!(config.access.len(), 1);
    assert!(config.access[0].allows("logs-7", Verb::Produce));
}

#[test]
fn a_wrong_variable_is_named() {
    let found = mistakes(load(MINIMAL, &[("PENSTOCK_RUNTIME__WORKERS", "many"), ("PENSTOCK_LISTEN__ADRESS", "x")]));
    assert_eq!(
        found,
        [
            "listen.adress (PENSTOCK_LISTEN__ADRESS): no such key; did you mean listen.address?",
            "runtime.workers = \"many\" (PENSTOCK_RUNTIME__WORKERS): must be a whole number from 0 to 1024",
        ]
    );
}

#[test]
fn an_unknown_key_is_a_mistake_that_suggests_the_nearest_or_the_same_name_elsewhere() {
    let text = format!("{MINIMAL}[producer]\nlingerr = \"1ms\"\nrecord_bytes = 5\n[brokers]\nx = 1\n");
    let found = mistakes(load(&text, &[]));
    assert_eq!(
        found,
        [
            "brokers (line 10): no such key",
            "producer.lingerr (line 8): no such key; did you mean producer.linger?",
            "producer.record_bytes (line 9): no such key; did you mean limits.record_bytes?",
        ]
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "[listen]\naddress = \"0.0.0.0:8443\"\nspeed = 1\n[producer]\nlinger = 5\n[kafka]\nca = \"system\"\n";
    let found = mistakes(load(text, &[]));
    let keys =
        ["listen.speed", "kafka.bootstrap_servers", "producer.linger", "tls.certificate", "tls.key", "listen.address"];
    for key in keys {
        assert!(found.iter().any(|mistake| mistake.starts_with(key)), "{key} in {found:#?}");
    }
    assert_eq!(found.len(), keys.len(), "{found:#?}");
}

#[test]
fn a_section_that_is_no_table_and_text_that_is_no_toml_are_mistakes() {
    assert_eq!(mistakes(load("listen = 5\n", &[]))[0], "listen = 5 (line 1): must be a section, [listen]");
    let found = mistakes(load("[listen]\naddress = \n", &[]));
    assert!(found[0].starts_with("file (line 2): is not TOML"), "{}", found[0]);
    assert!(matches!(Config::load(Some(Path::new("/nowhere/penstock.toml")), []), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn without_rules_only_loopback_is_served_and_the_mistake_shows_the_lines() {
    for address in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        load(&with("listen", &format!("address = \"{address}\"")), &[]).expect(address);
    }
    let text = with("listen", "address = \"[::]:8443\"");
    let found = mistakes(load(&text, &[]));
    assert_eq!(found.len(), 1);
    let lines = "[[access]]\n        identity = \"anyone\"\n        topics = [\"*\"]\n        allow = [\"produce\", \"consume\", \"admin\"]";
    assert!(found[0].contains(lines), "{}", found[0]);
    // The lines are what they promise.
    let config = load(&format!("{text}\n{lines}\n"), &[]).expect("valid");
    assert!(config.access[0].allows("anything", Verb::Admin));
}

#[test]
fn rules_match_names_and_prefixes_and_grant_only_their_verbs() {
    let rule =
        "[[access]]\nidentity = \"anyone\"\ntopics = [\"orders\", \"logs-*\"]\nallow = [\"produce\", \"consume\"]\n";
    let config = load(&format!("{MINIMAL}{rule}"), &[]).expect("valid");
    let rule = &config.access[0];
    assert!(rule.allows("orders", Verb::Produce) && rule.allows("logs-eu", Verb::Consume));
    assert!(!rule.allows("orders2", Verb::Produce) && !rule.allows("logs", Verb::Produce));
    assert!(!rule.allows("orders", Verb::Admin));
}

#[test]
fn groups_are_named_or_come_with_every_topic() {
    let rule = |keys: &str| {
        let rule = format!("{MINIMAL}[[access]]\nidentity = \"anyone\"\nallow = [\"consume\"]\n{keys}\n");
        load(&rule, &[]).map(|config| config.access[0].clone())
    };
    let named = rule("topics = [\"*\"]\ngroups = [\"team-*\", \"billing\"]").expect("valid");
    assert!(named.allows_group("team-1", Verb::Consume) && named.allows_group("billing", Verb::Consume));
    assert!(!named.allows_group("other", Verb::Consume) && !named.allows_group("billing", Verb::Admin));
    assert!(rule("topics = [\"a\", \"*\"]").expect("valid").allows_group("other", Verb::Consume));
    assert!(!rule("topics = [\"a*\"]").expect("valid").allows_group("a1", Verb::Consume));
    let alone = rule("groups = [\"*\"]").expect("valid");
    assert!(alone.allows_group("any", Verb::Consume) && !alone.allows("any", Verb::Consume));
    let found = mistakes(rule("groups = [\"\"]").map(|_| unreachable!("refused")));
    assert!(found[0].starts_with("access[0].groups = [\"\"] (line 10): must be a list of at least one"), "{found:?}");
}

#[test]
fn a_wrong_rule_is_named_by_its_index_and_missing_keys_are_required() {
    let rules = "[[access]]\nidentity = \"user:eve\"\ntopics = [\"a\"]\nallow = [\"produce\"]\n\
                 [[access]]\nidentity = \"anyone\"\ntopics = [\"no spaces\"]\nallow = [\"write\"]\nrate_bytes = 5\n\
                 [[access]]\nidentity = \"anyone\"\ntopic = [\"a\"]\n";
    let found = mistakes(load(&format!("{MINIMAL}{rules}"), &[]));
    for expected in [
        "access.topic (line 18): no such key; did you mean access.topics?",
        "access[0].identity = \"user:eve\" (line 8): needs auth.users_file or auth.jwt.keys",
        "access[1].topics = [\"no spaces\"] (line 13): must be a list of at least one topic name",
        "access[1].allow = [\"write\"] (line 14): must be a list of \"produce\", \"consume\" or \"admin\"",
        "access[1].rate_bytes = 5 (line 15): must be bytes",
        "access[2].topics: is required",
        "access[2].allow: is required",
    ] {
        assert!(found.iter().any(|mistake| mistake.starts_with(expected)), "{expected} in {found:#?}");
    }
    assert_eq!(found.len(), 7, "{found:#?}");
}

#[test]
fn certificates_are_read_from_the_configurations_folder_and_must_fit_their_keys() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (certificate, _) = pair(folder.path(), "server");
    pair(folder.path(), "other");
    fs::write(folder.path().join("empty.pem"), "").expect("written");
    let text = |certificate: &str, key: &str| {
        MINIMAL.replace("mode = \"off\"", &format!("certificate = \"{certificate}\"\nkey = \"{key}\""))
    };
    let config = load_in(folder.path(), &text("server.pem", "server.key"), &[]).expect("valid");
    let Tls::Files(files) = config.tls else { panic!("TLS is on by default") };
    assert_eq!(files.certificate, certificate);

    for (certificate, key, expected) in [
        ("absent.pem", "server.key", ["tls.certificate", "cannot be read"]),
        ("server.pem", "absent.key", ["tls.key", "cannot be read"]),
        ("empty.pem", "server.key", ["tls.certificate", "holds no certificate in PEM"]),
        ("server.pem", "server.pem", ["tls.key", "holds no private key in PEM"]),
        ("server.pem", "other.key", ["tls.key", "is not the private key of"]),
    ] {
        let found = mistakes(load_in(folder.path(), &text(certificate, key), &[]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(expected.iter().all(|part| found[0].contains(part)), "{expected:?}: {}", found[0]);
    }
}

#[test]
fn brokers_tls_takes_a_file_of_authorities_and_a_certificate_with_its_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    pair(folder.path(), "ca");
    pair(folder.path(), "own");
    let kafka = |lines: &str| format!("{MINIMAL}security = \"tls\"\nca = \"ca.pem\"\n{lines}");
    let config = load_in(folder.path(), &kafka(""), &[]).expect("valid");
    assert!(config.kafka.tls.is_some());
    let both = "certificate = \"own.pem\"\nkey = \"own.key\"\n";
    let config = load_in(folder.path(), &kafka(both), &[]).expect("valid");
    assert!(config.kafka.tls.expect("TLS").current().client_auth_cert_resolver.has_certs());

    for (lines, expected) in [
        ("certificate = \"own.pem\"\n", "kafka.key: is required with kafka.certificate"),
        ("key = \"own.key\"\n", "kafka.certificate: is required with kafka.key"),
        ("certificate = \"own.pem\"\nkey = \"ca.key\"\n", "kafka.key = \"ca.key\""),
    ] {
        let found = mistakes(load_in(folder.path(), &kafka(lines), &[]));
        assert!(found[0].starts_with(expected), "{found:?}");
    }
    let absent = kafka("").replace("ca.pem", "absent.pem");
    assert!(mistakes(load_in(folder.path(), &absent, &[]))[0].starts_with("kafka.ca = \"absent.pem\""));
}

#[test]
fn the_listeners_must_not_share_an_address() {
    let text =
        format!("{MINIMAL}[management]\naddress = \"127.0.0.1:8443\"\n").replace("127.0.0.1:0", "127.0.0.1:8443");
    assert!(mistakes(load(&text, &[]))[0].starts_with("management.address"));
}

#[test]
fn the_reference_in_docs_is_what_the_table_of_keys_says() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let written = fs::read_to_string(file).unwrap_or_default();
    assert!(
        written == Config::reference(),
        "docs/configuration.md is behind crates/penstock/src/config/keys.rs: write it again with\n\n    \
         cargo run -p penstock -- check --reference > docs/configuration.md\n"
    );
}

/// Loads `MINIMAL` with brokers that want a login; `password` and `secret` are files in its folder.
fn load_sasl(security: &str, sasl: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in ["password", "secret"] {
        fs::write(folder.path().join(file), "hunter2\n").expect("written");
    }
    fs::write(folder.path().join("empty"), "\n").expect("written");
    let text = format!("{MINIMAL}security = \"{security}\"\n[kafka.sasl]\n{sasl}");
    load_in(folder.path(), &text, &[])
}

const USER: &str = "username = \"u\"\npassword_file = \"password\"\n";
const CLIENT: &str = "token_url = \"https://idp/token\"\nclient_id = \"c\"\nclient_secret_file = \"secret\"\n";

#[test]
fn every_mechanism_can_be_configured() {
    for (security, mechanism, keys) in [
        ("sasl_tls", "PLAIN", USER),
        ("sasl_plaintext", "SCRAM-SHA-256", USER),
        ("sasl_tls", "SCRAM-SHA-512", USER),
        ("sasl_plaintext", "OAUTHBEARER", CLIENT),
        ("sasl_tls", "OAUTHBEARER", &format!("{CLIENT}scope = \"a b\"\n")),
        ("sasl_tls", "AWS_MSK_IAM", "region = \"eu-west-1\"\n"),
    ] {
        let config = load_sasl(security, &format!("mechanism = \"{mechanism}\"\n{keys}"));
        let config = config.unwrap_or_else(|error| panic!("{mechanism}: {error}"));
        assert_eq!(config.kafka.sasl.as_ref().expect("a mechanism").mechanism(), mechanism);
        assert_eq!(config.kafka.tls.is_some(), security == "sasl_tls");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}

#[test]
fn wrong_combinations_of_login_keys_are_named() {
    let needs_security = "needs kafka.security = \"sasl_tls\" or \"sasl_plaintext\"";
    for (security, keys, expected) in [
        ("sasl_tls", USER, "kafka.sasl.mechanism: is required"),
        ("plaintext", "mechanism = \"PLAIN\"\n", needs_security),
        ("tls", USER, needs_security),
        ("sasl_tls", "mechanism = \"GSSAPI\"\n", "must be \"PLAIN\", \"SCRAM-SHA-256\""),
        ("sasl_tls", "mechanism = \"PLAIN\"\n", "kafka.sasl.username: is required by kafka.sasl.mechanism = \"PLAIN\""),
        ("sasl_tls", "mechanism = \"PLAIN\"\n", "kafka.sasl.password_file: is required by"),
        (
            "sasl_tls",
            &format!("mechanism = \"PLAIN\"\n{USER}region = \"eu-west-1\"\n"),
            "kafka.sasl.region = \"eu-west-1\" (line 12): is not used by kafka.sasl.mechanism = \"PLAIN\"",
        ),
        ("sasl_tls", "mechanism = \"PLAIN\"\nusername = \"u\"\npassword_file = \"gone\"\n", "gone: No such file"),
        ("sasl_tls", "mechanism = \"PLAIN\"\nusername = \"u\"\npassword_file = \"empty\"\n", "empty: is empty"),
        ("sasl_tls", &format!("mechanism = \"OAUTHBEARER\"\n{USER}{CLIENT}"), "kafka.sasl.username = \"u\""),
        ("sasl_tls", "mechanism = \"OAUTHBEARER\"\n", "kafka.sasl.token_url: is required"),
        (
            "sasl_tls",
            &format!("mechanism = \"OAUTHBEARER\"\n{}", CLIENT.replace("https", "http")),
            "must begin with https://",
        ),
        ("sasl_tls", &format!("mechanism = \"OAUTHBEARER\"\n{CLIENT}token_ca = \"gone\"\n"), "kafka.sasl.token_ca"),
        ("sasl_tls", "mechanism = \"AWS_MSK_IAM\"\n", "kafka.sasl.region: is required"),
        ("sasl_tls", "mechanism = \"AWS_MSK_IAM\"\nregion = \"EU/1\"\n", "must be a region's name"),
        (
            "sasl_plaintext",
            "mechanism = \"AWS_MSK_IAM\"\nregion = \"eu-west-1\"\n",
            "must be \"sasl_tls\" with AWS_MSK_IAM",
        ),
    ] {
        let found = mistakes(load_sasl(security, keys));
        assert!(found.iter().any(|mistake| mistake.contains(expected)), "{expected} in {found:#?}");
    }
}

#[test]
fn tls_keys_without_tls_to_the_brokers_are_a_mistake() {
    for key in ["ca", "certificate", "key"] {
        let found = mistakes(load(&format!("{MINIMAL}{key} = \"a.pem\"\n"), &[]));
        assert!(found[0].starts_with(&format!("kafka.{key} = \"a.pem\"")), "{found:?}");
        assert!(found[0].ends_with("needs kafka.security = \"tls\" or \"sasl_tls\""), "{found:?}");
    }
}

#[test]
fn a_proxy_header_is_believed_of_named_networks_only() {
    let required = with("listen", "proxy_protocol = \"required\"");
    let found = mistakes(load(&required, &[]));
    assert!(found[0].starts_with("listen.proxy_trusted: is required"), "{found:?}");
    let found = mistakes(load(&with("listen", "proxy_trusted = [\"10.0.0.0/16\"]"), &[]));
    assert!(found[0].contains("is of no use"), "{found:?}");
    let trusted = |networks| load(&required, &[("PENSTOCK_LISTEN__PROXY_TRUSTED", networks)]);
    let listen = trusted("10.0.0.0/16, fd00::/8, 192.0.2.1").expect("valid").listen;
    let networks: Vec<String> = listen.proxy_trusted.expect("required").iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/16", "fd00::/8", "192.0.2.1/32"]);
    for wrong in ["10.0.0.0/33", "balancer", ""] {
        assert!(mistakes(trusted(wrong))[0].contains("at least one IP network"), "{wrong}");
    }
}

#[test]
fn a_rule_for_an_endpoint_needs_headers_that_tell_it() {
    let rule = "[[access]]\nidentity = \"vpce-1\"\ntopics = [\"*\"]\nallow = [\"produce\"]\nrate_requests = 5\n";
    let found = mistakes(load(&format!("{MINIMAL}{rule}"), &[]));
    assert!(found[0].starts_with("access[0].identity = \"vpce-1\" (line 8): needs listen.proxy_protocol"), "{found:?}");
    let proxied = with("listen", "proxy_protocol = \"required\"\nproxy_trusted = [\"10.0.0.0/16\"]");
    let config = load(&format!("{proxied}{rule}"), &[]).expect("valid");
    assert_eq!(config.access[0].identity, Identity::Endpoint("vpce-1".into()));
    assert_eq!((config.access[0].rate_requests, config.access[0].rate_bytes), (Some(5), None));
}

#[test]
fn a_registry_has_one_login_that_is_whole_and_goes_over_tls() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("secret"), "s3cret\n").expect("a file in it");
    let load = |lines: &str| load_in(folder.path(), &format!("{MINIMAL}[schema_registry]\n{lines}\n"), &[]);
    for lines in [
        "url = \"http://127.0.0.1:8081\"\nusername = \"bridge\"\npassword_file = \"secret\"",
        "url = \"https://registry:8081/apis/ccompat/v7\"\ntoken_file = \"secret\"\nregister = false",
        "url = \"http://registry:8081\"\nsubject_names = \"record\"",
    ] {
        let config = load(lines).expect(lines);
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(config.schema_registry.is_some_and(|settings| settings.register != lines.contains("register = false")));
    }
    let url = "url = \"https://registry\"";
    for (lines, told) in [
        ("register = false".to_owned(), "needs schema_registry.url"),
        ("url = \"registry\"".to_owned(), "schema_registry.url"),
        (format!("{url}\nusername = \"a\""), "is required with schema_registry.username"),
        (format!("{url}\npassword_file = \"secret\""), "is required with schema_registry.password_file"),
        (
            format!("{url}\nusername = \"a\"\npassword_file = \"secret\"\ntoken_file = \"secret\""),
            "excludes a login by name and password",
        ),
        (format!("{url}\nusername = \"a:b\"\npassword_file = \"secret\""), "no colon"),
        (format!("{url}\ntoken_file = \"gone\""), "gone"),
        ("url = \"http://registry\"\ntoken_file = \"secret\"".to_owned(), "needs https://"),
    ] {
        let mistakes = mistakes(load(&lines));
        assert!(mistakes.len() == 1 && mistakes[0].contains(told), "{lines}: {mistakes:?}");
    }
}

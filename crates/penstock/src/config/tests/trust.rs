//! `[tls]` with clients' certificates, `[auth]`, identities, and what is read again.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, SerialNumber,
};

use rustls::pki_types::UnixTime;

use super::*;
use crate::config::expiry::Left;
use crate::config::{AccessRule, Identity, JwtKeys, Reread};

const RULE: &str = "[[access]]\nidentity = \"IDENTITY\"\ntopics = [\"*\"]\nallow = [\"produce\"]\n";

/// An authority's certificate and its list, which is good until the year `until`.
fn authority(folder: &Path, name: &str, until: i32) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&Issuer::from_params(&params, &key)).expect("a list");
    fs::write(folder.join(format!("{name}.pem")), certificate.pem()).expect("written");
    fs::write(folder.join(format!("{name}.crl")), list.pem().expect("encoded")).expect("written");
}

/// `MINIMAL` with TLS, and these keys of `[tls]`.
fn with_tls(folder: &Path, keys: &str) -> String {
    pair(folder, "server");
    with("tls", &format!("mode = \"on\"\ncertificate = \"server.pem\"\nkey = \"server.key\"\n{keys}"))
        .replace("\nmode = \"off\"", "")
        .replace("mode = \"off\"\n", "")
}

#[test]
fn clients_certificates_need_an_authority_and_lists_that_fit() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    authority(folder, "ca", 2099);
    authority(folder, "other", 2099);
    let load = |keys: &str| load_in(folder, &with_tls(folder, keys), &[]);
    let config = load("client_auth = \"optional\"\nclient_ca = \"ca.pem\"\ncrl = \"ca.crl\"").expect("valid");
    let Tls::Files(files) = &config.tls else { panic!("{:?}", config.tls) };
    let auth = files.client_auth.as_ref().expect("clients are asked");
    assert!(!auth.required && auth.ca == folder.join("ca.pem"));

    let both = [fs::read(folder.join("ca.pem")), fs::read(folder.join("other.pem"))].map(|read| read.expect("there"));
    fs::write(folder.join("both.pem"), both.concat()).expect("written");
    for (keys, expected) in [
        ("client_auth = \"required\"", "tls.client_ca: is required with tls.client_auth"),
        ("client_ca = \"ca.pem\"", "tls.client_ca = \"ca.pem\" (line "),
        ("crl = \"ca.crl\"", "tls.crl = \"ca.crl\" (line "),
        ("client_auth = \"required\"\nclient_ca = \"none.pem\"", "tls.client_ca = \"none.pem\" (line "),
        ("client_auth = \"required\"\nclient_ca = \"ca.crl\"", "tls.client_ca = \"ca.crl\" (line "),
        ("client_auth = \"required\"\nclient_ca = \"ca.pem\"\ncrl = \"server.pem\"", "tls.crl = \"server.pem\" (line "),
        ("client_auth = \"required\"\nclient_ca = \"ca.pem\"\ncrl = \"other.crl\"", "tls.crl = \"other.crl\" (line "),
        ("client_auth = \"required\"\nclient_ca = \"both.pem\"\ncrl = \"ca.crl\"", "tls.crl = \"ca.crl\" (line "),
    ] {
        let found = mistakes(load(keys));
        assert_eq!(found.len(), 1, "{keys}: {found:?}");
        assert!(found[0].starts_with(expected), "{expected}\n{}", found[0]);
    }
    let found = mistakes(load("client_auth = \"required\"\nclient_ca = \"both.pem\"\ncrl = \"ca.crl\""));
    assert!(found[0].contains("has no list of CN=other"), "{}", found[0]);
}

#[test]
fn what_runs_out_is_known_by_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    authority(folder, "ca", 2021);
    pair(folder, "own");
    let text = with_tls(folder, "client_auth = \"required\"\nclient_ca = \"ca.pem\"\ncrl = \"ca.crl\"");
    let text = text.replace("[kafka]", "[kafka]\nsecurity = \"tls\"\ncertificate = \"own.pem\"\nkey = \"own.key\"");
    let expiries = load_in(folder, &text, &[]).expect("valid").expiries().expect("the files are there");
    // 1 January 2026.
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600));
    let found: Vec<_> = expiries.iter().map(|expiry| (expiry.key, expiry.left(now))).collect();
    let since = Duration::from_hours(5 * 365 * 24 + 24);
    let expected =
        [("tls.certificate", Left::Enough), ("tls.crl", Left::None(since)), ("kafka.certificate", Left::Enough)];
    assert_eq!(found, expected);
}

#[test]
fn an_identity_needs_what_proves_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    authority(folder, "ca", 2099);
    fs::write(folder.join("users"), "a:$2y$05$opQtzp70cnBMmcLC1ty9MejvKkFxbAceJZxXcTPKsU2ThiQsIH9ka\n")
        .expect("written");
    let rule = |identity: &str| RULE.replace("IDENTITY", identity);
    let load = |text: &str| load_in(folder, text, &[]);
    let known = |text: String| load(&text).map(|config| config.access[0].identity.clone());

    let asked = with_tls(folder, "client_auth = \"optional\"\nclient_ca = \"ca.pem\"");
    let user = |identity| format!("{}{}", with("auth", "users_file = \"users\""), rule(identity));
    assert_eq!(known(asked + &rule("cert:a b")).expect("valid"), Identity::Certificate("a b".into()));
    assert_eq!(known(user("user:cert:a")).expect("valid"), Identity::User("cert:a".into()));
    for (text, problem) in [
        (format!("{MINIMAL}{}", rule("cert:a")), "needs TLS, and tls.client_auth"),
        (with_tls(folder, "") + &rule("cert:a"), "needs TLS, and tls.client_auth"),
        (format!("{MINIMAL}{}", rule("user:a")), "needs auth.users_file or auth.jwt.keys"),
        (user("user:"), "must be \"anyone\""),
        (user("cert:"), "must be \"anyone\""),
        (user("vpce-"), "must be \"anyone\""),
        (user("*"), "must be \"anyone\""),
        (user("Anyone"), "must be \"anyone\""),
    ] {
        let found = mistakes(load(&text));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(problem) && found[0].starts_with("access[0].identity"), "{}", found[0]);
    }
}

#[test]
fn users_and_tokens_are_checked_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("users"), "alice:secret\n").expect("written");
    fs::write(folder.join("jwks"), "{\"keys\":[]}").expect("written");
    let load = |section: &str, keys: &str| load_in(folder, &with(section, keys), &[]);
    let all = "issuer = \"i\"\naudience = \"a\"\n";
    for (section, keys, expected) in [
        ("auth", "users_file = \"users\"".to_owned(), "line 1: must be a hash"),
        ("auth", "users_file = \"none\"".to_owned(), "cannot be read"),
        ("auth.jwt", "issuer = \"i\"".to_owned(), "needs auth.jwt.keys"),
        ("auth.jwt", format!("{all}keys = \"jwks\""), "has no public key for signatures"),
        ("auth.jwt", format!("{all}keys = \"http://idp.example/keys\""), "must begin with https://"),
        ("auth.jwt", format!("{all}keys = \"https://idp.example/keys?a=b\""), "without a query"),
        ("auth.jwt", format!("{all}keys = \"https://idp/keys\"\nca = \"none\""), "auth.jwt.ca = \"none\" (line "),
        ("auth.jwt", format!("{all}keys = \"https://idp/keys\"\nalgorithms = [\"HS256\"]"), "auth.jwt.algorithms"),
        ("auth.jwt", format!("{all}keys = \"https://idp/keys\"\nalgorithms = [\"none\"]"), "auth.jwt.algorithms"),
        ("auth.jwt", "keys = \"https://idp/keys\"\nissuer = \"i\"".to_owned(), "auth.jwt.audience: is required"),
    ] {
        let found = mistakes(load(section, &keys));
        assert_eq!(found.len(), 1, "{keys}: {found:?}");
        assert!(found[0].contains(expected) && !found[0].contains("secret"), "{expected}\n{}", found[0]);
    }
    let config = load("auth.jwt", &format!("{all}keys = \"http://127.0.0.1:9/k/\"\nalgorithms = [\"EdDSA\"]"));
    let jwt = config.expect("valid").auth.jwt.expect("tokens");
    assert!(matches!(jwt.keys, JwtKeys::Url { path: "/", .. }) && jwt.user_claim == "sub");
    assert_eq!((jwt.clock_skew, jwt.algorithms), (Duration::from_secs(60), vec![jsonwebtoken::Algorithm::EdDSA]));
}

#[test]
fn rules_and_peers_can_be_read_again_and_other_changes_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let rule = RULE.replace("IDENTITY", "anyone");
    let environment = [("PENSTOCK_RUNTIME__WORKERS", "3"), ("HOME", "/")];
    let config = load_in(folder, &format!("{MINIMAL}{rule}"), &environment).expect("valid");
    let reread = |text: String| {
        fs::write(config.file().expect("a file"), text).expect("written");
        config.reread()
    };
    let rules = |reread: Reread| -> Vec<AccessRule> {
        assert_eq!(reread.needs_restart, Vec::<&str>::new());
        reread.access
    };
    assert_eq!(rules(reread(format!("{MINIMAL}{rule}")).expect("the same")), config.access);
    assert_eq!(rules(reread(format!("{MINIMAL}{rule}{rule}")).expect("two")).len(), 2);
    assert!(rules(reread(MINIMAL.to_owned()).expect("loopback")).is_empty());

    let text = with("limits", "record_bytes = 4096") + &rule.replace("produce", "consume");
    let changed = reread(format!("{text}[log]\nlevel = \"info\"\n")).expect("valid");
    assert_eq!(changed.needs_restart, ["limits.record_bytes"], "a default that is written is no change");
    assert!(changed.access[0].allow.consume);

    let peers = reread(with("fleet", "peers = [\"a:1\", \"b:2\"]")).expect("valid");
    assert_eq!(peers.peers, ["a:1", "b:2"]);
    assert_eq!(peers.needs_restart, Vec::<&str>::new());

    for wrong in
        [format!("{MINIMAL}{}", rule.replace("anyone", "nobody")), format!("{MINIMAL}x = "), with("limits", "a = 1")]
    {
        assert!(matches!(reread(wrong), Err(ConfigError::Mistakes(_))));
    }
    fs::remove_file(config.file().expect("a file")).expect("removed");
    assert!(matches!(config.reread(), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn a_fleet_needs_a_secret_that_nobody_guesses_and_an_address_that_others_reach() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let secret = "0123456789abcdef0123456789abcdef";
    fs::write(folder.join("secret"), format!("{secret}\n{secret}0\r\n")).expect("written");
    fs::write(folder.join("short"), format!("{secret}\n{}\n", &secret[1..])).expect("written");
    let load = |keys: &str| load_in(folder, &with("fleet", keys), &[]);
    let all = "address = \"0.0.0.0:8444\"\nadvertised = \"10.0.0.1:8444\"\nsecret_file = \"secret\"\npeers = [\"fleet:8444\"]";
    let fleet = load(all).expect("valid").fleet.expect("a fleet");
    assert_eq!(fleet.secret_file, folder.join("secret"));
    assert_eq!(fleet.secrets.iter().map(Secret::reveal).collect::<Vec<_>>(), [secret, &format!("{secret}0")]);
    assert_eq!((fleet.advertised.as_deref(), fleet.peers), (Some("10.0.0.1:8444"), vec!["fleet:8444".to_owned()]));

    let with_secret = |address: &str| format!("address = \"{address}\"\nsecret_file = \"secret\"");
    for (keys, expected) in [
        ("address = \"127.0.0.1:1\"".to_owned(), "fleet.secret_file: is required with fleet.address"),
        ("address = \"127.0.0.1:1\"\nsecret_file = \"none\"".to_owned(), "fleet.secret_file = \"none\" (line "),
        ("address = \"127.0.0.1:1\"\nsecret_file = \"short\"".to_owned(), "fleet.secret_file = \"short\" (line "),
        (with_secret("0.0.0.0:1"), "fleet.advertised: is required where fleet.address is no address of one host"),
        (with_secret("127.0.0.1:1") + "\nadvertised = \"a b\"", "fleet.advertised = \"a b\" (line "),
        (with_secret("127.0.0.1:8081"), "fleet.address = \"127.0.0.1:8081\" (line "),
        ("peers = [\"fleet:8444\"]".to_owned(), "fleet.peers = [\"fleet:8444\"] (line "),
    ] {
        let found = mistakes(load(&keys));
        assert_eq!(found.len(), 1, "{keys}: {found:?}");
        assert!(found[0].starts_with(expected), "{expected}\n{}", found[0]);
    }
    let found = mistakes(load("address = \"127.0.0.1:1\"\nsecret_file = \"short\""));
    assert!(found[0].contains("has a line of less than 32 characters") && !found[0].contains("0123"), "{}", found[0]);
}

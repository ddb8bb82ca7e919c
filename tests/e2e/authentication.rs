//! Logins at a real Kafka: every mechanism, sessions of a few seconds under load, a password that is put right.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    sync::{Arc, OnceLock, atomic::Ordering::SeqCst},
    thread,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use penstock_tests::{
    bridge::{Bridge, Settings},
    distribution::Version,
    eventually, free_port,
    https::Connection,
    kafka::Cluster,
    msk::{self, Account, Counts},
    temp_dir,
    tls::{certificates, self_signed},
    tools::{java_tool, kcat_read},
};

const LIMIT: Duration = Duration::from_secs(120);
const PASSWORD: &str = "pass=word,with everything";

/// A broker whose listeners want a login, a session of 3 seconds at a time, or a client certificate.
struct Secured {
    cluster: Cluster,
    sasl: u16,
    sasl_tls: u16,
    mutual_tls: u16,
}

fn secured() -> &'static Secured {
    static SECURED: OnceLock<Secured> = OnceLock::new();
    SECURED.get_or_init(|| {
        let [sasl, sasl_tls, mutual_tls] = [(); 3].map(|()| free_port());
        let listeners =
            [("SASL", "SASL_PLAINTEXT", sasl), ("SASLTLS", "SASL_SSL", sasl_tls), ("MUTUAL", "SSL", mutual_tls)];
        let own = certificates();
        let read = |path| fs::read_to_string(path).expect("the fixture wrote it");
        let identity = temp_dir("kafka-tls").join("identity.pem");
        fs::write(&identity, read(&own.key) + &read(&own.certificate)).expect("the temporary folder can be written");
        let module = "org.apache.kafka.common.security";
        let mut settings = vec![
            ("connections.max.reauth.ms".to_owned(), "3000".to_owned()),
            ("ssl.keystore.type".to_owned(), "PEM".to_owned()),
            ("ssl.keystore.location".to_owned(), identity.display().to_string()),
            ("ssl.truststore.type".to_owned(), "PEM".to_owned()),
            ("ssl.truststore.location".to_owned(), own.ca.display().to_string()),
            ("listener.name.mutual.ssl.client.auth".to_owned(), "required".to_owned()),
        ];
        for listener in ["sasl", "sasltls"] {
            let prefix = format!("listener.name.{listener}");
            let mut set = |name: &str, value: String| settings.push((format!("{prefix}.{name}"), value));
            set("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER".to_owned());
            let plain = format!("{module}.plain.PlainLoginModule required user_penstock=\"{PASSWORD}\";");
            set("plain.sasl.jaas.config", plain);
            for scram in ["scram-sha-256", "scram-sha-512"] {
                set(&format!("{scram}.sasl.jaas.config"), format!("{module}.scram.ScramLoginModule required;"));
            }
            let unsecured = "unsecuredLoginStringClaim_sub=\"broker\"";
            let bearer = format!("{module}.oauthbearer.OAuthBearerLoginModule required {unsecured};");
            set("oauthbearer.sasl.jaas.config", bearer);
        }
        let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let cluster = Cluster::start_with_listeners(&listeners, &settings);
        // The brackets let a value hold a comma, which separates settings.
        for mechanism in ["SCRAM-SHA-256=[iterations=4096", "SCRAM-SHA-512=[iterations=8192"] {
            let password = scram_password();
            let config = format!("{mechanism},password={password}]");
            let bootstrap = cluster.bootstrap();
            let arguments = ["--bootstrap-server", &bootstrap, "--alter", "--add-config", &config];
            let entity = ["--entity-type", "users", "--entity-name", "penstock"];
            let done = java_tool("kafka.admin.ConfigCommand", &[&arguments[..], &entity].concat(), b"");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        Secured { cluster, sasl, sasl_tls, mutual_tls }
    })
}

/// What the tool can carry.
fn scram_password() -> &'static str {
    "secret-of-scram"
}

fn secret_file(text: &str) -> PathBuf {
    let path = temp_dir("secret").join("secret");
    fs::write(&path, format!("{text}\n")).expect("the temporary folder can be written");
    path
}

fn quoted(text: impl ToString) -> String {
    format!("{:?}", text.to_string())
}

/// A bridge at a listener, by a mechanism of a user with a password.
fn settings(port: u16, security: &str) -> Settings {
    let settings = Settings::new(&format!("127.0.0.1:{port}"))
        .set("kafka.security", &quoted(security))
        .set("log.level", "\"info,kafka_client=debug\"");
    if security.ends_with("tls") { settings.set("kafka.ca", &quoted(certificates().ca.display())) } else { settings }
}

fn user(settings: Settings, mechanism: &str, password: &str) -> Settings {
    settings
        .set("kafka.sasl.mechanism", &quoted(mechanism))
        .set("kafka.sasl.username", "\"penstock\"")
        .set("kafka.sasl.password_file", &quoted(secret_file(password).display()))
}

/// An authorization server that gives everybody who knows the secret a token that nobody has signed.
fn token_server() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let url = format!("http://{}/token", listener.local_addr().expect("bound"));
    // Ends with the process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let mut request = Vec::new();
            while !request.ends_with(b"grant_type=client_credentials") {
                let mut bytes = [0; 1024];
                let read = stream.read(&mut bytes).expect("a request");
                assert_ne!(read, 0, "{}", String::from_utf8_lossy(&request));
                request.extend_from_slice(&bytes[..read]);
            }
            // bridge:secret
            assert!(String::from_utf8_lossy(&request).contains("Basic YnJpZGdlOnNlY3JldA=="));
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
            let claims = format!(r#"{{"sub":"penstock","iat":{now},"exp":{}}}"#, now + 10);
            let token = format!("{}.{}.", BASE64URL.encode(r#"{"alg":"none"}"#), BASE64URL.encode(claims));
            let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":10}}"#);
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("it reads");
        }
    });
    url
}

fn renewals(bridge: &Bridge) -> usize {
    bridge.process().output().iter().filter(|line| line.contains("logged in again")).count()
}

/// Writes records over four connections until connections have logged in again `rounds` times; every request must succeed.
async fn load(bridge: &Bridge, topic: &str, rounds: usize) -> usize {
    let upload = async || {
        let mut connection = Connection::open(bridge.port).await;
        let mut written = 0;
        loop {
            for _ in 0..20 {
                let request = format!("POST /v1/topics/{topic}/records");
                connection.send(&request, &["Content-Type: application/octet-stream"], b"a record").await;
                connection.reader.answer().await.expect(200);
                written += 1;
            }
            if renewals(bridge) >= rounds {
                return written;
            }
        }
    };
    let (one, two, three, four) = tokio::join!(upload(), upload(), upload(), upload());
    one + two + three + four
}

#[test]
fn every_mechanism_logs_in_and_again_without_a_failed_request() {
    let Secured { cluster, sasl, sasl_tls, .. } = secured();
    let bearer = settings(*sasl_tls, "sasl_tls")
        .set("kafka.sasl.mechanism", "\"OAUTHBEARER\"")
        .set("kafka.sasl.token_url", &quoted(token_server()))
        .set("kafka.sasl.client_id", "\"bridge\"")
        .set("kafka.sasl.client_secret_file", &quoted(secret_file("secret").display()));
    let cases = [
        ("plain", user(settings(*sasl, "sasl_plaintext"), "PLAIN", PASSWORD)),
        ("plain-tls", user(settings(*sasl_tls, "sasl_tls"), "PLAIN", PASSWORD)),
        ("scram-256-tls", user(settings(*sasl_tls, "sasl_tls"), "SCRAM-SHA-256", scram_password())),
        ("scram-512-tls", user(settings(*sasl_tls, "sasl_tls"), "SCRAM-SHA-512", scram_password())),
        ("bearer-tls", bearer),
    ];
    // At the same time: most of it is waiting for sessions to end.
    thread::scope(|scope| {
        for (name, settings) in &cases {
            let topic = cluster.create_topic(name, 2);
            scope.spawn(move || {
                let bridge = Bridge::start_with(settings);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                let load = async { tokio::time::timeout(LIMIT, load(&bridge, &topic, 6)).await };
                let written = runtime.block_on(load).unwrap_or_else(|_| {
                    panic!("{name}: {} renewals within {LIMIT:?}:\n{}", renewals(&bridge), bridge.process().tail(40))
                });
                assert_eq!(kcat_read(&cluster.bootstrap(), &topic).len(), written, "{name}");
                let output = bridge.process().output().join("\n");
                assert!(!output.contains("disconnected"), "{name}: a connection was lost:\n{output}");
                for secret in [PASSWORD, scram_password()] {
                    assert!(!output.contains(secret), "{name}: a secret in the log");
                }
            });
        }
    });
}

#[test]
fn a_client_certificate_opens_a_listener_that_wants_one() {
    let Secured { cluster, mutual_tls, .. } = secured();
    let topic = cluster.create_topic("mutual", 1);
    let own = certificates();
    let with = settings(*mutual_tls, "tls")
        .set("kafka.certificate", &quoted(own.certificate.display()))
        .set("kafka.key", &quoted(own.key.display()));
    let bridge = Bridge::start_with(&with);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut connection = Connection::open(bridge.port).await;
        let request = format!("POST /v1/topics/{topic}/records");
        connection.send(&request, &["Content-Type: application/octet-stream"], b"a record").await;
        connection.reader.answer().await.expect(200);
    });
    let without = Bridge::start_unready(&settings(*mutual_tls, "tls"));
    without.process().wait_for_line("no broker", LIMIT, |line| line.contains("no broker answers"));
    assert_ne!(without.management("/readyz").expect("it listens").status, 200);
}

#[test]
fn a_certificate_that_is_put_right_opens_the_connections_to_come() {
    let Secured { cluster, mutual_tls, .. } = secured();
    let topic = cluster.create_topic("renewed", 1);
    let folder = temp_dir("own");
    let (certificate, key) = (folder.join("own.pem"), folder.join("own.key"));
    let write = |pair: (String, String)| {
        for (path, pem) in [(&key, pair.1), (&certificate, pair.0)] {
            // At one stroke: half a file is no certificate.
            fs::write(folder.join("new"), pem).expect("the temporary folder can be written");
            fs::rename(folder.join("new"), path).expect("the same folder");
        }
    };
    // Expired, and nobody's that the broker knows.
    write(self_signed(SystemTime::now() - Duration::from_hours(1)));
    let settings = settings(*mutual_tls, "tls")
        .set("kafka.certificate", &quoted(certificate.display()))
        .set("kafka.key", &quoted(key.display()));
    let bridge = Bridge::start_unready(&settings);
    bridge.process().wait_for_line("the refusal", LIMIT, |line| line.contains("no broker answers"));
    assert!(bridge.metric("penstock_kafka_certificate_expiry_seconds", &[]) < 0.0);
    let own = certificates();
    write([&own.certificate, &own.key].map(|path| fs::read_to_string(path).expect("the fixture wrote it")).into());
    eventually("the bridge is ready", LIMIT, || {
        bridge.management("/readyz").filter(|answer| answer.status == 200).map(|_| ())
    });
    assert!(bridge.metric("penstock_kafka_certificate_expiry_seconds", &[]) > 0.0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let deliver = async || {
        let mut connection = Connection::open(bridge.port).await;
        let request = format!("POST /v1/topics/{topic}/records");
        connection.send(&request, &["Content-Type: application/octet-stream"], b"a record").await;
        connection.reader.answer().await.expect(200);
    };
    runtime.block_on(deliver());

    // What cannot be used leaves the old in place, and connections that are open are not touched.
    let failed = bridge.metric("penstock_reloads_total", &["what=\"kafka_tls\"", "result=\"failed\""]);
    fs::write(&key, "no key").expect("the temporary folder can be written");
    eventually("the refusal of the files", LIMIT, || {
        let now = bridge.metric("penstock_reloads_total", &["what=\"kafka_tls\"", "result=\"failed\""]);
        (now > failed).then_some(())
    });
    assert!(bridge.metric("penstock_reload_failing", &["what=\"kafka_tls\""]) > 0.0);
    runtime.block_on(deliver());
}

#[test]
fn a_wrong_password_is_said_and_one_that_is_put_right_is_read() {
    let Secured { sasl, .. } = secured();
    let file = secret_file("wrong");
    let settings = user(settings(*sasl, "sasl_plaintext"), "SCRAM-SHA-512", "")
        .set("kafka.sasl.password_file", &quoted(file.display()));
    let bridge = Bridge::start_unready(&settings);
    bridge.process().wait_for_line("the refusal", LIMIT, |line| {
        line.contains("no broker answers") && line.contains("SASL_AUTHENTICATION_FAILED")
    });
    assert_ne!(bridge.management("/readyz").expect("it listens").status, 200);
    fs::write(&file, scram_password()).expect("the temporary folder can be written");
    eventually("the bridge is ready", LIMIT, || {
        bridge.management("/readyz").filter(|answer| answer.status == 200).map(|_| ())
    });
}

/// A container's credentials service, as ECS and EKS have it; their end is far away.
fn container_credentials(account: &Account) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let url = format!("http://{}/credentials", listener.local_addr().expect("bound"));
    let account = account.clone();
    // Ends with the process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                request.push(byte[0]);
            }
            let body = serde_json::json!({
                "AccessKeyId": account.access_key_id,
                "SecretAccessKey": account.secret_access_key,
                "Token": account.session_token,
                "Expiration": "2999-01-01T00:00:00Z",
            })
            .to_string();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("it reads");
        }
    });
    url
}

/// A command that runs the bridge with these variables and no other of AWS's.
fn with_environment(variables: &[(&str, &str)]) -> Vec<String> {
    let mut command: Vec<_> = ["env", "AWS_EC2_METADATA_DISABLED=true"].map(ToOwned::to_owned).into();
    command.extend(variables.iter().map(|(name, value)| format!("{name}={value}")));
    command
}

#[test]
fn msk_s_signatures_are_right_and_sessions_are_renewed_without_a_failed_request() {
    let account = Account {
        access_key_id: "ASIAEXAMPLE",
        secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        session_token: "IQoJb3JpZ2luX2VjE+/a=b==",
        region: "eu-west-1",
        session: Duration::from_secs(3),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (counts, mut door) = (Arc::new(Counts::default()), 0);
    let cluster = Cluster::start_behind(Version::V4_1_1, 1, &[], |port| {
        door = msk::start(runtime.handle(), port, account.clone(), counts.clone());
        door
    });
    let topic = cluster.create_topic("msk", 2);
    let settings = settings(door, "sasl_tls")
        .set("kafka.sasl.mechanism", "\"AWS_MSK_IAM\"")
        .set("kafka.sasl.region", &quoted(account.region));

    let wrong = [
        ("AWS_ACCESS_KEY_ID", account.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", "another"),
        ("AWS_SESSION_TOKEN", account.session_token),
    ];
    let stranger = Bridge::start_unready_under(&with_environment(&wrong), &settings);
    stranger.process().wait_for_line("the refusal", LIMIT, |line| line.contains("Access denied"));
    drop(stranger);
    assert!(counts.refused.load(SeqCst) > 0 && counts.logins.load(SeqCst) == 0);

    let url = container_credentials(&account);
    let bridge = Bridge::start_under(&with_environment(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)]), &settings);
    let written = runtime.block_on(async { tokio::time::timeout(LIMIT, load(&bridge, &topic, 8)).await });
    let written = written.unwrap_or_else(|_| panic!("{counts:?} within {LIMIT:?}:\n{}", bridge.process().tail(40)));
    assert_eq!(kcat_read(&cluster.direct_bootstrap(), &topic).len(), written);
    assert!(counts.renewals.load(SeqCst) >= 8, "{counts:?}");
    assert_eq!(counts.cut.load(SeqCst), 0, "a request without a session: {counts:?}");
    let output = bridge.process().output().join("\n");
    assert!(!output.contains(account.secret_access_key) && !output.contains(account.session_token));
}

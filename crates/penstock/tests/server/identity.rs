//! Who a caller is by its certificate and by `Authorization`, and what changes of that without a restart.

use crate::harness::{Answer, Bridge, Client, run};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const RECORDS: &str = "/v1/topics/events/records";
/// "open sesame", as cheap as Argon2 gets.
const SESAME: &str = "$argon2id$v=19$m=64,t=1,p=2$c2FsdHNhbHRzYWx0$gBy48zpBVhe6990hHX7cw7qhuHkeE+hR";
/// alice and bob with that password.
const ALICE: &str = "Basic YWxpY2U6b3BlbiBzZXNhbWU=";
const BOB: &str = "Basic Ym9iOm9wZW4gc2VzYW1l";

fn rule(identity: &str, verb: &str) -> String {
    format!("[[access]]\nidentity = \"{identity}\"\ntopics = [\"events\"]\nallow = [\"{verb}\"]\n")
}

/// An authority, and the files that it fills.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    folder: tempfile::TempDir,
    serial: Cell<u64>,
}

/// What a client shows.
type Shown = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("written");
        let certificate = certificate.der().clone();
        Self { issuer: Issuer::new(params, key), certificate, folder, serial: Cell::new(1) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate with this CN, for localhost.
    fn issue(&self, name: &str) -> (u64, rcgen::Certificate, KeyPair) {
        let serial = self.serial.get();
        self.serial.set(serial + 1);
        let mut params = CertificateParams::new(vec!["localhost".into()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().expect("a key");
        (serial, params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    fn client(&self, name: &str) -> (u64, Shown) {
        let (serial, certificate, key) = self.issue(name);
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        (serial, (certificate.der().clone(), key))
    }

    /// Renames a fresh server's pair over the one that is there.
    fn write_server(&self) -> CertificateDer<'static> {
        let (_, certificate, key) = self.issue("server");
        for (name, pem) in [("key.pem", key.serialize_pem()), ("cert.pem", certificate.pem())] {
            std::fs::write(self.path("new"), pem).expect("written");
            std::fs::rename(self.path("new"), self.path(name)).expect("renamed");
        }
        certificate.der().clone()
    }

    fn write_list(&self, revoked: &[u64], until: i32) {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        std::fs::write(self.path("crl.pem"), list.pem().expect("encoded")).expect("written");
    }

    /// `[tls]` with a fresh server's pair.
    fn settings(&self, clients: &str) -> String {
        self.write_server();
        let file = |name: &str| format!("{:?}", self.path(name).display().to_string());
        format!(
            "[tls]\ncertificate = {}\nkey = {}\n{}",
            file("cert.pem"),
            file("key.pem"),
            clients.replace("CA", &file("ca.pem")).replace("CRL", &file("crl.pem"))
        )
    }

    fn trusting(&self, version: &'static SupportedProtocolVersion, shown: Option<Shown>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .expect("supported")
            .with_root_certificates(roots);
        Arc::new(match shown {
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).expect("a pair"),
            None => builder.with_no_client_auth(),
        })
    }
}

const TLS13: &SupportedProtocolVersion = &rustls::version::TLS13;
const TLS12: &SupportedProtocolVersion = &rustls::version::TLS12;

async fn connect(bridge: &Bridge, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(bridge.data).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(config.clone()).connect(name, stream).await
}

/// One request on a connection of its own; `None` if it is turned away. In TLS 1.3 a client learns only then that its
/// certificate was refused.
async fn ask(bridge: &Bridge, config: &Arc<ClientConfig>) -> Option<(HandshakeKind, Answer)> {
    let stream = connect(bridge, config).await.ok()?;
    let kind = stream.get_ref().1.handshake_kind().expect("it is over");
    let mut client = Client::over(stream);
    client.try_send(format!("{}x", Client::<TcpStream>::head("POST", RECORDS, &[("Content-Length", "1")]))).await;
    Some((kind, client.try_answer().await?))
}

#[test]
fn a_certificate_is_who_a_caller_is() {
    run(async {
        let authority = Authority::new("authority");
        let clients = "client_auth = \"optional\"\nclient_ca = CA\n";
        let bridge = Bridge::with(&(authority.settings(clients) + &rule("cert:orders", "produce"))).await;
        for version in [TLS13, TLS12] {
            let orders = authority.trusting(version, Some(authority.client("orders").1));
            assert_eq!(ask(&bridge, &orders).await.expect("served").1.status, 200);
            let other = authority.trusting(version, Some(authority.client("Orders").1));
            assert_eq!(ask(&bridge, &other).await.expect("served").1.error_code(), 40301);
            let nobody = authority.trusting(version, None);
            assert_eq!(ask(&bridge, &nobody).await.expect("served").1.error_code(), 40301);
            // Who claims the name by another authority's word does not get as far as that.
            let forged = authority.trusting(version, Some(Authority::new("authority").client("orders").1));
            assert!(ask(&bridge, &forged).await.is_none());
        }
        assert_eq!(bridge.values(), ["x", "x"]);
    });
}

#[test]
fn a_certificate_is_required_where_the_configuration_says_so() {
    run(async {
        let authority = Authority::new("authority");
        let clients = "client_auth = \"required\"\nclient_ca = CA\n";
        let bridge = Bridge::with(&(authority.settings(clients) + &rule("anyone", "produce"))).await;
        assert!(ask(&bridge, &authority.trusting(TLS13, None)).await.is_none());
        let some = authority.trusting(TLS13, Some(authority.client("some").1));
        assert_eq!(ask(&bridge, &some).await.expect("served").1.status, 200);
    });
}

#[test]
fn who_was_revoked_is_refused_on_its_next_connection_resumed_or_not() {
    run(async {
        for version in [TLS13, TLS12] {
            let authority = Authority::new("authority");
            authority.write_list(&[], 2099);
            let clients = "client_auth = \"required\"\nclient_ca = CA\ncrl = CRL\n";
            let bridge = Bridge::with(&(authority.settings(clients) + &rule("cert:orders", "produce"))).await;
            let (serial, shown) = authority.client("orders");
            let orders = authority.trusting(version, Some(shown));
            let others = authority.trusting(version, Some(authority.client("orders").1));
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let (how, answer) = ask(&bridge, &orders).await.expect("served");
                assert_eq!((how, answer.status), (kind, 200));
            }
            authority.write_list(&[serial], 2099);
            bridge.reload("tls", "ok").await;
            assert!(ask(&bridge, &orders).await.is_none(), "{version:?}");
            assert_eq!(ask(&bridge, &others).await.expect("served").1.status, 200);
            assert!(bridge.metric("penstock_tls_crl_expiry_seconds").await > 0);

            // A list that is out of date tells nothing of anybody.
            authority.write_list(&[], 2021);
            bridge.reload("tls", "ok").await;
            assert!(ask(&bridge, &others).await.is_none());
            assert!(bridge.metric("penstock_tls_crl_expiry_seconds").await < 0);
        }
    });
}

#[test]
fn certificates_rotate_under_load_and_no_request_fails() {
    run(async {
        let authority = Authority::new("authority");
        let bridge = Bridge::with(&authority.settings("")).await;
        let done = Cell::new(false);
        let load = async |version| {
            let config = authority.trusting(version, None);
            let mut requests = 0;
            while !done.get() || requests == 0 {
                let stream = connect(&bridge, &config).await.expect("greeted");
                let mut client = Client::over(stream);
                for _ in 0..3 {
                    assert_eq!(client.request("POST", RECORDS, &[], b"x").await.status, 200);
                    requests += 1;
                }
            }
            requests
        };
        // `ROTATIONS=60`: so many, one a second, and what they came to.
        let paced = std::env::var("ROTATIONS").ok().map(|count| count.parse().expect("a number"));
        let rotate = async {
            for _ in 0..paced.unwrap_or(20) {
                if paced.is_some() {
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
                let fresh = authority.write_server();
                bridge.reload("tls", "ok").await;
                let stream = connect(&bridge, &authority.trusting(TLS13, None)).await.expect("greeted");
                assert_eq!(stream.get_ref().1.peer_certificates(), Some(&[fresh][..]));
            }
            done.set(true);
        };
        let (a, b, c, d, ()) = tokio::join!(load(TLS13), load(TLS12), load(TLS13), load(TLS12), rotate);
        assert_eq!(bridge.values().len(), a + b + c + d);
        println!("{} requests on {} connections, none failed", a + b + c + d, (a + b + c + d) / 3);
        assert!(bridge.metric("penstock_tls_certificate_expiry_seconds").await > 0);
        let failed = bridge.metric("penstock_tls_handshakes_failed_total").await;
        assert_eq!(failed, 0);
    });
}

#[test]
fn changed_files_are_noticed_once_they_are_whole() {
    run(async {
        // As Kubernetes does: files are links into a folder that is a link itself, and that link is renamed over.
        let authority = Authority::new("authority");
        let store = tempfile::tempdir().expect("a folder");
        let publish = |version: &str| {
            authority.write_server();
            let folder = store.path().join(version);
            std::fs::create_dir(&folder).expect("a folder");
            for name in ["cert.pem", "key.pem"] {
                std::fs::copy(authority.path(name), folder.join(name)).expect("copied");
            }
            std::os::unix::fs::symlink(version, store.path().join("next")).expect("linked");
            std::fs::rename(store.path().join("next"), store.path().join("data")).expect("renamed");
        };
        publish("1");
        let file = |name: &str| store.path().join("data").join(name).display().to_string();
        let bridge =
            Bridge::with(&format!("[tls]\ncertificate = {:?}\nkey = {:?}\n", file("cert.pem"), file("key.pem"))).await;
        let config = authority.trusting(TLS13, None);
        let served = async || {
            let stream = connect(&bridge, &config).await.expect("greeted");
            stream.get_ref().1.peer_certificates().expect("one")[0].clone()
        };
        let first = served().await;
        publish("2");
        while served().await == first {}
        let second = served().await;
        // Half a file is refused, and the old stays; the rest of it makes it good.
        let whole = std::fs::read(authority.path("cert.pem")).expect("there");
        std::fs::write(store.path().join("2/cert.pem"), &whole[..whole.len() / 2]).expect("written");
        while bridge.metric("penstock_reload_failing{what=\"tls\"}").await == 0 {}
        assert_eq!(served().await, second);
        authority.write_server();
        for name in ["cert.pem", "key.pem"] {
            std::fs::copy(authority.path(name), store.path().join("2").join(name)).expect("copied");
        }
        while served().await == second {}
        while bridge.metric("penstock_reload_failing{what=\"tls\"}").await == 1 {}
    });
}

fn write_users(folder: &Path, names: &[&str]) -> PathBuf {
    let path = folder.join("users");
    let lines: String = names.iter().map(|name| format!("{name}:{SESAME}\n")).collect();
    std::fs::write(&path, lines).expect("written");
    path
}

async fn post(client: &mut Client, headers: &[(&str, &str)]) -> Answer {
    client.request("POST", RECORDS, headers, b"x").await
}

#[test]
fn a_user_proves_it_by_a_password_and_nothing_else_counts() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let users = write_users(folder.path(), &["alice", "bob"]);
        let settings =
            format!("[auth]\nusers_file = {:?}\n{}", users.display().to_string(), rule("user:alice", "produce"));
        let bridge = Bridge::with(&settings).await;
        let mut client = bridge.client().await;
        let answer = post(&mut client, &[]).await;
        assert_eq!(answer.error_code(), 40101);
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"penstock\", charset=\"UTF-8\""));
        assert_eq!(post(&mut client, &[("Authorization", ALICE)]).await.status, 200);
        assert_eq!(post(&mut client, &[("Authorization", BOB)]).await.error_code(), 40301, "known, and not allowed");
        let wrong = post(&mut client, &[("Authorization", "Basic YWxpY2U6d3Jvbmc=")]).await;
        assert_eq!(wrong.error_code(), 40101);
        assert!(wrong.header("www-authenticate").is_some());
        let twice = post(&mut client, &[("Authorization", ALICE), ("Authorization", ALICE)]).await;
        assert_eq!(twice.error_code(), 400);
        // A request is nobody's but for its own header, whoever came before it on the connection.
        assert_eq!(post(&mut client, &[]).await.error_code(), 40101);
        for forged in [
            ("X-Forwarded-User", "alice"),
            ("X-Remote-User", "alice"),
            ("Remote-User", "alice"),
            ("X-SSL-Client-CN", "alice"),
            ("X-Amzn-Mtls-Clientcert-Subject", "CN=alice"),
            ("X-Amzn-Vpce-Id", "vpce-1"),
            ("Proxy-Authorization", ALICE),
            ("Forwarded", "for=127.0.0.1"),
        ] {
            assert_eq!(post(&mut client, &[forged]).await.error_code(), 40101, "{forged:?}");
        }
        assert_eq!(client.request("GET", "/healthz", &[("Authorization", "nonsense")], b"").await.status, 200);
        assert_eq!(bridge.values(), ["x"]);
    });
}

#[test]
fn rules_and_users_change_on_open_connections_without_a_restart() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let users = write_users(folder.path(), &["alice"]);
        let settings = format!("[auth]\nusers_file = {:?}\n", users.display().to_string());
        let bridge = Bridge::with(&(settings.clone() + &rule("user:alice", "produce"))).await;
        let mut client = bridge.client().await;
        assert_eq!(post(&mut client, &[("Authorization", ALICE)]).await.status, 200);
        assert_eq!(post(&mut client, &[("Authorization", BOB)]).await.error_code(), 40101);

        write_users(folder.path(), &["alice", "bob"]);
        while post(&mut client, &[("Authorization", BOB)]).await.error_code() == 40101 {}
        bridge.write_settings(&(settings.clone() + &rule("user:bob", "produce")));
        while post(&mut client, &[("Authorization", BOB)]).await.status != 200 {}
        assert_eq!(post(&mut client, &[("Authorization", ALICE)]).await.error_code(), 40301);

        bridge.write_settings(&(settings.clone() + &rule("nobody", "produce")));
        while bridge.metric("penstock_reload_failing{what=\"rules\"}").await == 0 {}
        assert_eq!(post(&mut client, &[("Authorization", BOB)]).await.status, 200, "as before");
        std::fs::write(&users, "bob:plain\n").expect("written");
        bridge.reload("users", "failed").await;
        assert_eq!(post(&mut client, &[("Authorization", BOB)]).await.status, 200, "as before");

        assert_eq!(bridge.metric("penstock_restart_needed").await, 0);
        let other = settings + "[limits]\nrecord_bytes = 4096\n" + &rule("user:alice", "produce");
        bridge.write_settings(&other);
        bridge.reload("rules", "ok").await;
        assert_eq!(bridge.metric("penstock_restart_needed").await, 1);
        assert_eq!(post(&mut client, &[("Authorization", BOB)]).await.error_code(), 40301);
    });
}

#[test]
fn a_reload_gives_nobody_a_second_burst() {
    run(async {
        let limited = rule("anyone", "produce") + "rate_bytes = 1024\n";
        let bridge = Bridge::with(&limited).await;
        let mut client = bridge.client().await;
        // Far more than what one second and this test bring in.
        let body = vec![b'x'; 1024 * 1024 - 1];
        let mut headers = vec![("Content-Length", "1048575")];
        headers.push(("Kafka-Timeout-Ms", "30000"));
        client.send([Client::<TcpStream>::head("POST", RECORDS, &headers).as_bytes(), &body[..8192]].concat()).await;
        // A record that is let in before these bytes are counted waits until they are paid back.
        while bridge.metric("penstock_http_body_bytes_total").await == 0 {}
        let mut other = bridge.client().await;
        assert_eq!(post(&mut other, &[]).await.error_code(), 429);
        bridge.reload("rules", "ok").await;
        assert_eq!(post(&mut other, &[]).await.error_code(), 429);
    });
}

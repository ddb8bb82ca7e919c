//! Balancers in front of the bridge, HAProxy's and one like AWS's: who is seen behind them, what is forged, and TLS as
//! OpenSSL sees it.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use penstock_tests::{
    bridge::{Bridge, Settings},
    client::{Body, Client},
    eventually, free_port,
    nlb::{
        self, Nlb,
        group::{Health, Target},
        header,
    },
    process::Process,
    shared::one_broker,
    temp_dir,
    tls::certificates,
    tools::{curl_answer, kcat_read, with_input},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
};

const LIMIT: Duration = Duration::from_secs(60);
const ENDPOINT: &str = "vpce-0a1b2c3d4e5f60718";
const RULE: &str = "identity = \"vpce-0a1b2c3d4e5f60718\"\ntopics = [\"*\"]\nallow = [\"produce\"]\n";

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// A bridge that believes these sources.
fn behind(bootstrap: &str, trusted: &str) -> Settings {
    Settings::new(bootstrap)
        .set("listen.proxy_protocol", "\"required\"")
        .set("listen.proxy_trusted", &format!("[\"{trusted}\"]"))
        .set("log.level", "\"info,penstock=debug\"")
        .set("log.requests", "true")
}

/// HAProxy in front of a bridge, from 127.0.2.1, with health checks at its management listener.
struct Haproxy {
    port: u16,
    socket: PathBuf,
    _process: Process,
}

impl Haproxy {
    /// `checks` is what the checks send before their request: `check-send-proxy`, or nothing.
    fn start(bridge: &Bridge, checks: &str) -> Self {
        let (dir, port) = (temp_dir("haproxy"), free_port());
        let (config, socket) = (dir.join("haproxy.cfg"), dir.join("admin"));
        let text = format!(
            "global
  stats socket {} level admin
defaults
  mode tcp
  timeout connect 10s
  timeout client 60s
  timeout server 60s
listen bridges
  bind 127.0.0.1:{port}
  source 127.0.2.1
  option httpchk GET /readyz
  http-check expect status 200
  server bridge 127.0.0.1:{} send-proxy-v2 proxy-v2-options crc32c,unique-id check port {} inter 200ms {checks}
",
            socket.display(),
            bridge.port,
            bridge.management_port
        );
        fs::write(&config, text).expect("the temporary folder can be written");
        // Debian keeps it where only root's search path leads.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let arguments = ["-db", "-f", config.to_str().expect("ASCII")];
        let process = Process::spawn("haproxy (apt-get install haproxy)", "haproxy", arguments, &[("PATH", &path)]);
        Self { port, socket, _process: process }
    }

    /// The result of its last check: `L7OK`.
    fn check(&self) -> Option<String> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.write_all(b"show stat\n").ok()?;
        let mut table = String::new();
        stream.read_to_string(&mut table).ok()?;
        let mut rows = table.lines().map(|line| line.trim_start_matches("# ").split(',').collect::<Vec<_>>());
        let column = rows.next()?.iter().position(|name| *name == "check_status")?;
        let server = rows.find(|row| row.get(1) == Some(&"bridge"))?;
        // "* L7OK" while the next one is under way.
        Some(server.get(column)?.trim_start_matches("* ").to_owned())
    }
}

/// `curl` to a balancer's port, from an address.
fn curl_from(source: &str, port: u16, path: &str, body: &str) -> penstock_tests::tools::Answer {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "60", "--dump-header", "/dev/stderr", "--data-binary", "@-"])
        .args(["--interface", source, "--cacert"])
        .arg(&certificates().ca)
        .arg(format!("https://127.0.0.1:{port}{path}"));
    curl_answer(with_input(&mut command, body.as_bytes()))
}

#[test]
fn behind_haproxy_the_client_is_seen_and_checks_are_answered() {
    let cluster = one_broker();
    let topic = cluster.create_topic("haproxy", 1);
    let bridge = Bridge::start_with(&behind(&cluster.bootstrap(), "127.0.2.1"));
    for checks in ["check-send-proxy", ""] {
        let haproxy = Haproxy::start(&bridge, checks);
        eventually("the check passes", LIMIT, || (haproxy.check()? == "L7OK").then_some(()));
        curl_from("127.0.0.77", haproxy.port, &format!("/v1/topics/{topic}/records"), "seen").expect(200);
    }
    bridge.process().wait_for_lines("the client's own address", 2, LIMIT, |line| {
        line.contains("/records") && line.contains("127.0.0.77:")
    });
    assert_eq!(kcat_read(&cluster.bootstrap(), &topic).len(), 2);
    let output = bridge.process().output().join("\n");
    assert!(!output.contains("127.0.2.1"), "the balancer is nobody's address:\n{output}");
}

/// A load balancer like AWS's in front of a bridge, which believes it alone.
fn nlb(runtime: &Runtime, bridge: &Bridge) -> Nlb {
    let mut settings = nlb::Settings::new(ENDPOINT).faster(50.0);
    settings.check_timeout = LIMIT;
    settings.endpoints.insert(Ipv4Addr::new(127, 0, 0, 66).into(), "vpce-0another".to_owned());
    let nlb = Nlb::start(runtime.handle(), settings).expect("loopback");
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    nlb.register(Target { address: loopback(bridge.port), health: loopback(bridge.management_port) });
    eventually("the bridge is healthy", LIMIT, || (nlb.status()[0].health == Health::Healthy).then_some(()));
    nlb
}

#[test]
fn an_endpoint_is_known_by_the_balancer_s_word_alone() {
    let runtime = runtime();
    let cluster = one_broker();
    let topic = cluster.create_topic("endpoint", 1);
    let path = format!("/v1/topics/{topic}/records");
    let bridge = Bridge::start_with(&behind(&cluster.bootstrap(), "127.0.1.0/24").with_access(RULE));
    let nlb = nlb(&runtime, &bridge);
    let port = nlb.address().port();

    curl_from("127.0.0.1", port, &path, "by the endpoint").expect(200);
    let denied = curl_from("127.0.0.66", port, &path, "by another").expect(403);
    assert_eq!(denied.json()["error_code"], 40301);
    bridge.process().wait_for_line("the audit log", LIMIT, |line| {
        line.contains("127.0.0.66:") && line.contains("vpce-0another") && line.contains("denied")
    });

    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let forged = header::of_client(nowhere, nowhere, Some(ENDPOINT), true);
    // Past the balancer: whoever can reach the bridge's port can write such a header.
    assert!(!is_greeted(bridge.port, &forged), "an untrusted source");
    // Through it: the bridge reads one header, and what is behind it is TLS or nothing.
    assert!(!is_greeted(port, &forged), "a second header");
    assert!(is_greeted(port, b""), "a hello without one is greeted");
    // Within TLS: it is a bad request.
    let mut client = runtime.block_on(Client::connect(port)).expect("greeted");
    let inside = format!("{}GET {path} HTTP/1.1\r\nHost: localhost\r\n", String::from_utf8_lossy(&forged));
    let exchange = runtime.block_on(client.exchange(&inside, &Body::Whole(Vec::new())));
    assert!(exchange.status == Some(400) && !exchange.keeps, "{exchange:?}");
    let refused =
        |reason: &str| bridge.metric("penstock_proxy_headers_refused_total", &[&format!("reason=\"{reason}\"")]);
    assert_eq!(refused("untrusted"), 1.0);
    assert_eq!(kcat_read(&cluster.bootstrap(), &topic).len(), 1);
}

/// Whether a TLS hello behind these bytes is answered by one.
fn is_greeted(port: u16, front: &[u8]) -> bool {
    // A whole hello, by the library that the fixture's clients use.
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let mut client = rustls::ClientConnection::new(certificates().client.clone(), name).expect("a client");
    let mut hello = front.to_vec();
    client.write_tls(&mut hello).expect("a vector takes it");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    let mut first = [0];
    // A handshake record; an alert or the end of the connection is none.
    stream.write_all(&hello).and_then(|()| stream.read_exact(&mut first)).is_ok() && first == [0x16]
}

#[test]
fn tls_health_checks_of_the_balancer_get_health_and_nothing_else() {
    let runtime = runtime();
    let cluster = one_broker();
    let bridge = Bridge::start_with(&behind(&cluster.bootstrap(), "127.0.0.1"));
    let ask = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, bridge.port)).await?;
        stream.write_all(&header::of_health_check(true)).await?;
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(certificates().client.clone());
        let mut stream = connector.connect(name, stream).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.1.1\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let ask = |path: &str| runtime.block_on(ask(path)).expect("an answer");
    assert!(ask("/healthz").starts_with("HTTP/1.1 200 "));
    assert!(ask("/v1/topics").starts_with("HTTP/1.1 403 "));
}

/// What `openssl s_client` says of a handshake with these options, having asked for `/healthz`.
fn s_client(port: u16, options: &[&str]) -> (bool, String) {
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", "localhost", "-alpn", "http/1.1"])
        .args(["-verify_return_error", "-ign_eof", "-CAfile"])
        .arg(&certificates().ca)
        .args(options);
    let output = with_input(&mut command, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (said.contains("HTTP/1.1 200 OK"), said)
}

#[test]
fn openssl_agrees_on_strong_sessions_and_on_no_others() {
    let runtime = runtime();
    let cluster = one_broker();
    let bridge = Bridge::start_with(&behind(&cluster.bootstrap(), "127.0.1.0/24"));
    let nlb = nlb(&runtime, &bridge);
    let port = nlb.address().port();
    for (options, cipher) in [
        (&["-tls1_3"][..], "TLS_AES_128_GCM_SHA256"),
        (&["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], "TLS_CHACHA20_POLY1305_SHA256"),
        (&["-tls1_2"], "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ] {
        let (served, said) = s_client(port, options);
        assert!(served, "{options:?}: {said}");
        for expected in [cipher, "Verify return code: 0 (ok)", "ALPN protocol: http/1.1"] {
            assert!(said.contains(expected), "{options:?}: no {expected}: {said}");
        }
        assert!(!said.contains("Early data was accepted") && !said.contains("Max Early Data: 1"), "{said}");
    }
    // The client would; the server does not.
    let weak = "@SECLEVEL=0";
    for options in [
        &["-tls1", "-cipher", &format!("ALL:{weak}")][..],
        &["-tls1_1", "-cipher", &format!("ALL:{weak}")],
        &["-tls1_2", "-cipher", &format!("AES128-GCM-SHA256:AES128-SHA:{weak}")],
        &["-tls1_2", "-cipher", &format!("ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384:{weak}")],
        &["-tls1_2", "-cipher", &format!("ADH:AECDH:eNULL:{weak}")],
    ] {
        let (served, said) = s_client(port, options);
        assert!(!served && said.contains("alert"), "{options:?}: {said}");
    }
}

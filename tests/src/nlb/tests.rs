//! On real sockets: tests wait for what is to happen, however long it takes.

use std::io::{Read, Write};

use super::*;
use crate::{eventually, nlb::group::Health};

const LIMIT: Duration = Duration::from_secs(30);

/// Its tasks run beside the test's thread, which may block.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// First bytes and source of flows and checks.
type Seen = Arc<Mutex<Vec<(Vec<u8>, SocketAddr)>>>;

/// A target that says hello with its own name, then says back what it hears; and its health, which can be set.
struct Served {
    target: Target,
    healthy: watch::Sender<bool>,
    seen: Seen,
}

impl Served {
    fn start(runtime: &Handle, name: &'static str) -> Self {
        let (healthy, health) = watch::channel(true);
        let seen = Seen::default();
        let listen = || runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("loopback");
        let (data, management) = (listen(), listen());
        let address = |listener: &TcpListener| listener.local_addr().expect("bound");
        let target = Target { address: address(&data), health: address(&management) };
        let keep = Arc::clone(&seen);
        runtime.spawn(async move {
            loop {
                let (mut stream, source) = data.accept().await.expect("loopback");
                let keep = Arc::clone(&keep);
                tokio::spawn(async move {
                    let mut header = vec![0; 100];
                    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut header).await?;
                    keep.lock().expect("no panic").push((header, source));
                    tokio::io::AsyncWriteExt::write_all(&mut stream, name.as_bytes()).await?;
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        let keep = Arc::clone(&seen);
        runtime.spawn(async move {
            loop {
                let (mut stream, source) = management.accept().await.expect("loopback");
                let mut request = vec![0; 1024];
                let mut length = 0;
                while !request[..length].ends_with(b"\r\n\r\n") || length <= 100 {
                    match tokio::io::AsyncReadExt::read(&mut stream, &mut request[length..]).await {
                        Ok(read @ 1..) => length += read,
                        _ => break,
                    }
                }
                request.truncate(length);
                keep.lock().expect("no panic").push((request, source));
                let status = if *health.borrow() { "200 OK" } else { "503 Service Unavailable" };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
            }
        });
        Self { target, healthy, seen }
    }
}

/// So much faster than AWS's; but a machine that is busy is not a target that is ill.
fn settings(faster: f64) -> Settings {
    Settings { check_timeout: LIMIT, ..Settings::new("vpce-1").faster(faster) }
}

fn health(nlb: &Nlb) -> Vec<Health> {
    nlb.status().into_iter().map(|status| status.health).collect()
}

fn wait_for_health(nlb: &Nlb, wanted: &[Health]) {
    eventually(&format!("{wanted:?}"), LIMIT, || (health(nlb) == wanted).then_some(()));
}

/// A flow, and the name of the target that it got to.
fn flow(nlb: &Nlb) -> io::Result<(std::net::TcpStream, String)> {
    let mut stream = std::net::TcpStream::connect(nlb.address())?;
    let mut name = [0; 1];
    stream.read_exact(&mut name)?;
    Ok((stream, String::from_utf8_lossy(&name).into_owned()))
}

#[test]
fn flows_carry_their_endpoint_and_checks_speak_for_the_balancer() {
    let runtime = runtime();
    let served = Served::start(runtime.handle(), "a");
    let mut settings = settings(50.0);
    settings.endpoints.insert(Ipv4Addr::new(127, 0, 0, 9).into(), "vpce-9".to_owned());
    let nodes = settings.nodes.clone();
    let nlb = Nlb::start(runtime.handle(), settings).expect("loopback");
    assert!(nlb.register(served.target) && !nlb.register(served.target));
    wait_for_health(&nlb, &[Health::Healthy]);
    let (mut stream, name) = flow(&nlb).expect("served");
    assert_eq!(name, "a");
    stream.write_all(b"and back").expect("carried");
    stream.shutdown(std::net::Shutdown::Write).expect("open");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("a whole answer");
    assert_eq!(back, b"and back");

    runtime.block_on(async {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 9], 0).into()).expect("loopback");
        let mut other = socket.connect(nlb.address()).await.expect("accepted");
        tokio::io::AsyncReadExt::read_exact(&mut other, &mut [0]).await.expect("served");
    });

    let seen = served.seen.lock().expect("no panic");
    let has = |endpoint: &str| seen.iter().any(|(first, _)| first.windows(6).any(|bytes| bytes == endpoint.as_bytes()));
    assert!(has("vpce-1") && has("vpce-9"));
    let header = header::of_client(stream.local_addr().expect("bound"), nlb.address(), Some("vpce-1"), true);
    assert!(seen.iter().any(|(first, _)| *first == header), "the client's own address");
    let checks: Vec<_> = seen.iter().filter(|(first, _)| first.starts_with(&header::of_health_check(true))).collect();
    assert!(checks.iter().all(|(first, _)| first[100..].starts_with(b"GET /readyz HTTP/1.1\r\n")));
    for node in nodes {
        assert!(checks.iter().any(|(_, source)| source.ip() == node), "{node} checks too");
    }
    assert!(seen.iter().all(|(_, source)| source.ip() != Ipv4Addr::LOCALHOST), "targets see nodes alone");
}

#[test]
fn an_unhealthy_target_keeps_its_flows_and_gets_no_new_ones_in_the_end() {
    let runtime = runtime();
    let (a, b) = (Served::start(runtime.handle(), "a"), Served::start(runtime.handle(), "b"));
    let nlb = Nlb::start(runtime.handle(), settings(40.0)).expect("loopback");
    for served in [&a, &b] {
        nlb.register(served.target);
    }
    wait_for_health(&nlb, &[Health::Healthy; 2]);
    let mut kept = eventually("a flow to the first", LIMIT, || {
        flow(&nlb).ok().and_then(|(stream, name)| (name == "a").then_some(stream))
    });
    a.healthy.send_replace(false);
    wait_for_health(&nlb, &[Health::Unhealthy, Health::Healthy]);
    assert!(nlb.status()[0].takes_new_flows, "the nodes have not heard of it yet");
    eventually("they have", LIMIT, || (!nlb.status()[0].takes_new_flows).then_some(()));
    for _ in 0..20 {
        assert_eq!(flow(&nlb).expect("served").1, "b");
    }
    kept.write_all(b"x").expect("it is open");
    kept.read_exact(&mut [0]).expect("and carries");
    eventually("those of the second are over", LIMIT, || (nlb.status()[1].open_flows == 0).then_some(()));
    assert_eq!(nlb.status()[0].open_flows, 1);
    a.healthy.send_replace(true);
    wait_for_health(&nlb, &[Health::Healthy; 2]);
}

#[test]
fn flows_that_are_left_at_the_end_of_a_deregistration_are_reset() {
    let runtime = runtime();
    let served = Served::start(runtime.handle(), "a");
    let nlb = Nlb::start(runtime.handle(), settings(100.0)).expect("loopback");
    nlb.register(served.target);
    wait_for_health(&nlb, &[Health::Healthy]);
    let (mut stream, _) = flow(&nlb).expect("served");
    assert!(nlb.deregister(served.target.address) && !nlb.deregister(served.target.address));
    let end = stream.read(&mut [0]).expect_err("no end in order");
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    eventually("it is forgotten", LIMIT, || nlb.status().is_empty().then_some(()));
    assert!(flow(&nlb).is_err(), "nobody is there");
}

#[test]
fn a_flow_that_was_silent_for_too_long_is_reset_when_it_speaks() {
    let runtime = runtime();
    let served = Served::start(runtime.handle(), "a");
    let idle_timeout = Duration::from_secs(2);
    let settings = Settings { idle_timeout, ..settings(100.0) };
    let nlb = Nlb::start(runtime.handle(), settings).expect("loopback");
    nlb.register(served.target);
    wait_for_health(&nlb, &[Health::Healthy]);
    let (mut stream, _) = flow(&nlb).expect("served");
    let heard = Instant::now();
    eventually("silence", LIMIT, || (heard.elapsed() > idle_timeout).then_some(()));
    let _ = stream.write_all(b"late");
    let end = stream.read(&mut [0]).expect_err("no end in order");
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(nlb.status()[0].open_flows, 1, "the target does not know");
}

#[test]
fn a_target_that_is_not_there_is_a_reset_and_counted() {
    let runtime = runtime();
    let nobody = crate::free_port();
    let nlb = Nlb::start(runtime.handle(), settings(100.0)).expect("loopback");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, nobody));
    nlb.register(Target { address, health: address });
    wait_for_health(&nlb, &[Health::Unhealthy]);
    assert!(flow(&nlb).is_err(), "everybody gets flows when nobody is healthy");
    eventually("it is counted", LIMIT, || (nlb.status()[0].refused == 1).then_some(()));
}

#[test]
fn scripts_register_and_deregister_and_see_the_targets() {
    let runtime = runtime();
    let served = Served::start(runtime.handle(), "a");
    let nlb = Arc::new(Nlb::start(runtime.handle(), settings(50.0)).expect("loopback"));
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("loopback");
    let control = listener.local_addr().expect("bound");
    runtime.spawn(control::serve(Arc::clone(&nlb), listener));
    let ask = |request: String| {
        let mut stream = std::net::TcpStream::connect(control).expect("it listens");
        write!(stream, "{request} HTTP/1.1\r\nHost: control\r\n\r\n").expect("taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status: u16 = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str::<serde_json::Value>(body).expect("JSON"))
    };
    let Target { address, health } = served.target;
    assert_eq!(ask(format!("POST /register?target={address}&health={health}")).0, 200);
    wait_for_health(&nlb, &[Health::Healthy]);
    let (status, body) = ask("GET /status".to_owned());
    assert_eq!((status, &body["targets"][0]["health"]), (200, &"healthy".into()), "{body}");
    assert_eq!(body["listeners"][0], nlb.address().to_string());
    for bad in [
        format!("POST /register?target={address}"),
        "POST /register".to_owned(),
        "POST /register?target=nowhere".to_owned(),
        "POST /deregister?target=127.0.0.1:1".to_owned(),
        "GET /nothing".to_owned(),
    ] {
        let (status, body) = ask(bad.clone());
        assert!(status == 400 && body["error"].is_string(), "{bad}: {body}");
    }
    assert_eq!(ask(format!("POST /deregister?target={address}")).1["targets"][0]["health"], "draining");
}

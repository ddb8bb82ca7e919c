//! What is told of requests: lines of the log, headers of records, spans.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use krafka::testing::{ApiKey, Control, FakeBroker};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Bridge, Client, TOPIC, run};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const SENDER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const PATH: &str = "/v1/topics/events/records";
/// "open sesame", as cheap as Argon2 gets.
const SESAME: &str = "$argon2id$v=19$m=64,t=1,p=2$c2FsdHNhbHRzYWx0$gBy48zpBVhe6990hHX7cw7qhuHkeE+hR";
/// alice with that password, and with another.
const ALICE: &str = "Basic YWxpY2U6b3BlbiBzZXNhbWU=";
const WRONG: &str = "Basic YWxpY2U6d3Jvbmc=";

/// `penstock serve`, whose standard error is the log.
struct Process {
    child: Child,
    data: SocketAddr,
    kafka: FakeBroker,
    _folder: tempfile::TempDir,
}

impl Process {
    async fn start(settings: &str) -> Self {
        let kafka = FakeBroker::start_cluster(1).await.expect("loopback");
        kafka.create_topic(TOPIC, 1);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("penstock.toml");
        let brokers = kafka.bootstrap_servers();
        let fixed = format!(
            "[listen]\naddress = \"127.0.0.1:0\"\n[management]\naddress = \"127.0.0.1:0\"\n[tls]\nmode = \"off\"\n\
             [kafka]\nbootstrap_servers = [\"{brokers}\"]\n[drain]\nnotice = \"0s\"\n[runtime]\nworkers = 1\n"
        );
        std::fs::write(&path, fixed + settings).expect("written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_penstock"))
            .args(["serve".as_ref(), "--config".as_ref(), path.as_os_str()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut first = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut first).expect("text");
        let data = first.trim().strip_prefix("listening data http://").expect("its address").parse().expect("one");
        Self { child, data, kafka, _folder: folder }
    }

    async fn client(&self) -> Client {
        Client::connect(self.data).await
    }

    /// Stops it as an operator does. What it logged.
    async fn stopped(self) -> String {
        // Its Kafka goes on in this thread.
        tokio::task::spawn_blocking(|| self.stop()).await.expect("a clean end")
    }

    fn stop(mut self) -> String {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(killed.success());
        let mut log = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut log).expect("UTF-8");
        assert!(self.child.wait().expect("its end").success());
        log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Long gone, if all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of the request log.
fn requests(log: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    lines.filter(|line: &Value| line["target"] == "requests").collect()
}

#[test]
fn a_request_leaves_one_line_that_tells_all_but_its_data() {
    run(async {
        let process = Process::start("[log]\nrequests = true\nlevel = \"error\"\n").await;
        let mut client = process.client().await;
        let headers = [("traceparent", SENDER), ("Kafka-Key", "confidential-key"), ("Kafka-Header", "h=confidential")];
        let body = b"{\"confidential\":1}\n{\"confidential\":2}\n";
        let path = format!("{PATH}?validate=none");
        assert_eq!(client.ndjson(&path, &headers, body).await.status, 200);
        assert_eq!(client.request("GET", "/v1/topics/%0anope/x", &[], b"").await.status, 404);
        drop(client);
        let log = process.stopped().await;
        assert!(!log.contains("confidential"), "{log}");
        let lines = requests(&log);
        assert_eq!(lines.len(), 2, "{log}");
        let [produced, unknown] = [&lines[0], &lines[1]];
        for (field, value) in [
            ("method", "POST".into()),
            ("path", PATH.into()),
            ("operation", "produce".into()),
            ("topic", TOPIC.into()),
            ("status", 200.into()),
            ("bytes_in", body.len().into()),
            ("trace_id", TRACE_ID.into()),
            ("records_written", 2.into()),
            ("records_not_written", 0.into()),
            ("records_unknown", Value::from(0)),
        ] {
            assert_eq!(produced[field], value, "{field}: {produced}");
        }
        assert!(produced["bytes_out"].as_u64() > Some(100) && produced["took_us"].as_u64() > Some(0), "{produced}");
        assert!(produced["caller"].as_str().is_some_and(|caller| caller.starts_with("127.0.0.1:")), "{produced}");
        assert_eq!((&unknown["operation"], &unknown["status"]), (&"none".into(), &404.into()), "{unknown}");
        assert_eq!(unknown["trace_id"].as_str().map(str::len), Some(32), "a trace of its own: {unknown}");
        assert_eq!(unknown.get("records_written"), None, "{unknown}");
    });
}

#[test]
fn a_request_is_logged_as_its_own_user() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let users = folder.path().join("users");
        std::fs::write(&users, format!("alice:{SESAME}\n")).expect("written");
        let process = Process::start(&format!(
            "[log]\nrequests = true\nlevel = \"error\"\n[auth]\nusers_file = {:?}\n\
             [[access]]\nidentity = \"user:alice\"\ntopics = [\"{TOPIC}\"]\nallow = [\"produce\"]\n",
            users.display().to_string()
        ))
        .await;
        let mut client = process.client().await;
        assert_eq!(client.request("POST", PATH, &[("Authorization", ALICE)], b"x").await.status, 200);
        assert_eq!(client.request("POST", PATH, &[("Authorization", WRONG)], b"x").await.status, 401);
        assert_eq!(client.request("POST", PATH, &[], b"x").await.status, 401);
        drop(client);
        let lines = requests(&process.stopped().await);
        let callers: Vec<_> = lines.iter().filter_map(|line| line["caller"].as_str()).collect();
        assert_eq!(callers.len(), 3, "{lines:?}");
        assert!(callers[0].ends_with(" as user:alice"), "{callers:?}");
        // Nobody's word but a proof counts, and one on a connection is for its own request alone.
        assert!(callers[1..].iter().all(|caller| !caller.contains("user:")), "{callers:?}");
    });
}

#[test]
fn a_client_that_does_not_wait_is_in_the_log_as_499() {
    run(async {
        let process = Process::start("[log]\nrequests = true\n").await;
        process.kafka.on(ApiKey::Produce, |_| Control::Delay(Duration::from_millis(300)));
        let mut client = process.client().await;
        client.send(format!("{}x", <Client>::head("POST", PATH, &[("Content-Length", "1")]))).await;
        assert!(process.kafka.wait_for_requests(ApiKey::Produce, 1, Duration::from_secs(30)).await);
        drop(client);
        let log = process.stopped().await;
        let lines = requests(&log);
        assert_eq!((lines.len(), &lines[0]["status"]), (1, &499.into()), "{log}");
        assert_eq!(lines[0]["records_written"], 0, "nobody knew yet: {log}");
    });
}

#[test]
fn nothing_is_said_of_requests_unless_it_is_asked_for_and_other_lines_say_their_trace() {
    run(async {
        let rule = "[[access]]\nidentity = \"anyone\"\ntopics = [\"other\"]\nallow = [\"produce\"]\n";
        for format in ["json", "text"] {
            let process = Process::start(&format!("[log]\nlevel = \"debug\"\nformat = \"{format}\"\n{rule}")).await;
            let mut client = process.client().await;
            assert_eq!(client.request("POST", PATH, &[("traceparent", SENDER)], b"x").await.status, 403);
            drop(client);
            let log = process.stopped().await;
            assert!(!log.contains("\"requests\"") && !log.contains(" requests:"), "{log}");
            let audit = log.lines().find(|line| line.contains("audit")).unwrap_or_else(|| panic!("{log}"));
            let expected = match format {
                "json" => format!(",\"trace_id\":\"{TRACE_ID}\"}}"),
                _ => format!(" trace_id={TRACE_ID}"),
            };
            assert!(audit.ends_with(&expected), "{audit}");
            assert!(format == "text" || serde_json::from_str::<Value>(audit).is_ok(), "{audit}");
        }
    });
}

#[test]
fn records_carry_the_trace_of_their_request_where_that_is_set() {
    run(async {
        let bridge = Bridge::with("[producer]\ntrace_header = \"traceparent\"\n").await;
        let mut client = bridge.client().await;
        let state = ("tracestate", "vendor=1");
        for headers in [
            &[("traceparent", SENDER), state, ("Kafka-Header", "mine=1")][..],
            &[("traceparent", SENDER), ("Kafka-Header", "traceparent=the client's own")],
            &[("traceparent", "00-nonsense"), state],
            &[],
        ] {
            assert_eq!(client.ndjson(PATH, headers, b"1\n").await.status, 200);
        }
        let told: Vec<Vec<(String, String)>> = bridge
            .log(TOPIC, 0)
            .into_iter()
            .map(|record| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let headers = record.headers.iter();
                headers.map(|(name, value)| (name.clone(), text(value.as_deref().unwrap_or_default()))).collect()
            })
            .collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(told[0], [pair("mine", "1"), pair("traceparent", SENDER), pair("tracestate", "vendor=1")]);
        assert_eq!(told[1], [pair("traceparent", "the client's own")]);
        assert_eq!((&told[2], &told[3]), (&Vec::new(), &Vec::new()));

        let quiet = Bridge::start().await;
        quiet.client().await.ndjson(PATH, &[("traceparent", SENDER)], b"1\n").await;
        assert!(quiet.log(TOPIC, 0)[0].headers.is_empty());
    });
}

/// A collector of OpenTelemetry: what was posted to it. The first `refusals` posts get a 500.
async fn collector(refusals: usize) -> (String, Arc<Mutex<Vec<ExportTraceServiceRequest>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let posted = seen.clone();
    tokio::spawn(async move {
        let mut left = refusals;
        loop {
            let (mut stream, _) = listener.accept().await.expect("loopback");
            let mut buffer = Vec::new();
            while let Some((head, body)) = read_request(&mut stream, &mut buffer).await {
                assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
                assert!(head.to_lowercase().contains("content-type: application/x-protobuf"), "{head}");
                let status = if left > 0 { "500 Oops" } else { "200 OK" };
                left = left.saturating_sub(1);
                posted.lock().expect("alive").push(ExportTraceServiceRequest::decode(&*body).expect("OTLP"));
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.expect("taken");
            }
        }
    });
    (url, seen)
}

async fn read_request(stream: &mut tokio::net::TcpStream, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end + 4]).into_owned();
            let length = head.to_lowercase().split_once("content-length: ").expect("a length").1.to_owned();
            let length: usize = length.split("\r\n").next().and_then(|text| text.parse().ok()).expect("a number");
            if buffer.len() >= end + 4 + length {
                let body = buffer[end + 4..end + 4 + length].to_vec();
                buffer.drain(..end + 4 + length);
                return Some((head, body));
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

fn spans(posted: &Mutex<Vec<ExportTraceServiceRequest>>) -> Vec<Span> {
    let posted = posted.lock().expect("alive");
    let scopes = posted.iter().flat_map(|post| &post.resource_spans).flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| scope.spans.clone()).collect()
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let value = attributes.iter().find(|known| known.key == name)?.value.as_ref()?.value.as_ref()?;
    Some(match value {
        Any::StringValue(text) => text.clone(),
        Any::IntValue(number) => number.to_string(),
        other => panic!("{name}: {other:?}"),
    })
}

#[test]
fn a_request_is_a_span_below_its_senders_and_its_records_go_on_from_it() {
    run(async {
        let (url, posted) = collector(0).await;
        let settings =
            format!("[telemetry]\notlp_endpoint = \"{url}\"\nsample_ratio = 0\n[producer]\ntrace_header = \"tp\"\n");
        let bridge = Bridge::with(&settings).await;
        let mut client = bridge.client().await;
        assert_eq!(client.ndjson(PATH, &[("traceparent", SENDER)], b"1\n2\n").await.status, 200);
        // Its sender does not record this one; nobody began the other, and none of those is recorded here.
        let unsampled = SENDER.replace("-01", "-00");
        assert_eq!(client.ndjson(PATH, &[("traceparent", &unsampled)], b"3\n").await.status, 200);
        assert_eq!(client.ndjson(PATH, &[], b"4\n").await.status, 200);
        drop(client);
        let kafka = bridge.stopped().await;
        let spans = spans(&posted);
        assert_eq!(spans.len(), 1, "{spans:?}");
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let span = &spans[0];
        assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE_ID, "b7ad6b7169203331"));
        assert_eq!((span.name.as_str(), span.kind), ("POST /v1/topics/{topic}/records", 2));
        for (name, value) in [
            ("http.request.method", "POST"),
            ("http.route", "/v1/topics/{topic}/records"),
            ("url.path", PATH),
            ("http.response.status_code", "200"),
            ("messaging.system", "kafka"),
            ("messaging.destination.name", TOPIC),
            ("messaging.operation.type", "send"),
            ("messaging.batch.message_count", "2"),
            ("penstock.records.written", "2"),
            ("penstock.records.unknown", "0"),
        ] {
            assert_eq!(attribute(&span.attributes, name).as_deref(), Some(value), "{name}");
        }
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
        let resource = posted.lock().expect("alive")[0].resource_spans[0].resource.clone().expect("a resource");
        assert_eq!(attribute(&resource.attributes, "service.name").as_deref(), Some("penstock"));

        let mut records = kafka.all_records(TOPIC).expect("readable");
        records.sort_by_key(|record| record.offset);
        let told = |at: usize| -> String {
            let headers = &records[at].headers;
            headers.iter().map(|(_, value)| String::from_utf8_lossy(value.as_deref().unwrap_or_default())).collect()
        };
        assert_eq!(told(0), format!("00-{TRACE_ID}-{}-01", hex(&span.span_id)));
        assert_eq!(told(0), told(1));
        assert_eq!(told(2), unsampled, "the sender's own where there is no span of ours");
        assert_eq!(told(3), "");
    });
}

#[test]
fn a_collector_that_fails_costs_spans_and_no_request() {
    run(async {
        let (url, posted) = collector(usize::MAX).await;
        let bridge = Bridge::with(&format!("[telemetry]\notlp_endpoint = \"{url}\"\n")).await;
        let mut client = bridge.client().await;
        assert_eq!(client.request("POST", PATH, &[], b"x").await.status, 200);
        while !bridge.manage("/metrics").await.text().contains("penstock_spans_total{outcome=\"failed\"} 1") {
            tokio::task::yield_now().await;
        }
        assert_eq!(spans(&posted).len(), 1);
        assert_eq!(client.request("POST", PATH, &[], b"x").await.status, 200);
    });
}

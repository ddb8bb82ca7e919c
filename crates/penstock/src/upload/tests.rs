//! Uploads to a bridge that is played by `FakeBridge`: it keeps lines by their number, and cuts when a script says so.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    fs,
    io::{Read, Write},
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    header::RETRY_AFTER,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
};

use super::*;
use crate::client::{AbortOnDrop, RequestBody, Trust};

/// How the bridge meets one request; after the script's last step it serves everything.
#[derive(Debug, Clone)]
enum Step {
    /// Takes the connection and closes it before a byte is read.
    Hangup,
    /// Reads this many lines, settles `settle` of them, and ends its side of the connection without a word more.
    CutAfter { lines: u64, settle: u64 },
    /// The same, but the connection is reset: what was said last may not arrive.
    ResetAfter { lines: u64 },
    /// Reads all lines and settles them, and closes the connection before the summary.
    CutBeforeSummary,
    /// Answers with this. The body is read after the answer, for 422 before it.
    Status { status: u16, retry_after: Option<u32>, body: &'static str },
    /// Reads this many lines, then ends the request with a summary, as a bridge that stops does.
    StopAfter { lines: u64 },
    /// As `StopAfter`, and the last `unwritten` lines are not written for want of a broker.
    NoBroker { lines: u64, unwritten: u64 },
    /// Serves everything; these lines are not JSON, and unknown.
    Fails { not_written: u64, unknown: u64 },
    /// Serves everything; settles nothing before the end.
    Late,
    /// Settles lines that were never sent.
    Liar,
}

#[derive(Debug, Default)]
struct Seen {
    /// Every line by its number, each time it came.
    lines: BTreeMap<u64, Vec<Vec<u8>>>,
    /// `Kafka-First-Line` of each request that was read.
    first_lines: Vec<u64>,
    /// Targets and other headers.
    targets: Vec<String>,
    kafka_headers: Vec<String>,
}

struct FakeBridge {
    endpoint: Endpoint,
    seen: Arc<Mutex<Seen>>,
    _accept: AbortOnDrop<()>,
}

impl FakeBridge {
    async fn start(script: impl IntoIterator<Item = Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut script: VecDeque<Step> = script.into_iter().collect();
        let played = seen.clone();
        let accept = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a listener that lives");
                let step = script.pop_front();
                tokio::spawn(play(stream, step, played.clone()));
            }
        });
        let endpoint = Endpoint::new(&url, Trust::System).expect("a good URL");
        Self { endpoint, seen, _accept: AbortOnDrop(accept) }
    }

    fn options(&self) -> Options {
        Options { backoff: Duration::from_millis(1), ..Options::new(self.endpoint.clone(), "logs") }
    }

    /// Every line in order; those that came more than once must have been the same.
    fn content(&self) -> Vec<u8> {
        let seen = self.seen.lock().expect("no panic");
        let mut content = Vec::new();
        for (index, (number, copies)) in seen.lines.iter().enumerate() {
            assert_eq!(*number, index as u64 + 1, "a line is missing");
            assert!(copies.iter().all(|copy| *copy == copies[0]), "line {number} came as {copies:?}");
            content.extend_from_slice(&copies[0]);
        }
        content
    }

    fn first_lines(&self) -> Vec<u64> {
        self.seen.lock().expect("no panic").first_lines.clone()
    }
}

async fn play(stream: TcpStream, step: Option<Step>, seen: Arc<Mutex<Seen>>) {
    if let Some(Step::Hangup) = step {
        return;
    }
    let cut = Arc::new(Notify::new());
    let (stream, mut raw) = twice(stream);
    let is_reset = matches!(step, Some(Step::ResetAfter { .. }));
    let service = service_fn(|request| answer(request, step.clone(), seen.clone(), cut.clone()));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = connection => drop(ended),
        () = cut.notified() => {
            // Closing with bytes unread is a reset. Otherwise: an end after which the other side may go on.
            if !is_reset {
                drop(raw.shutdown().await);
                drop(tokio::io::copy(&mut raw, &mut tokio::io::sink()).await);
            }
        }
    }
}

/// Two handles of one socket.
fn twice(stream: TcpStream) -> (TcpStream, TcpStream) {
    let stream = stream.into_std().expect("a socket");
    let other = stream.try_clone().expect("a handle");
    (TcpStream::from_std(stream).expect("a socket"), TcpStream::from_std(other).expect("a socket"))
}

async fn answer(
    request: Request<Incoming>,
    step: Option<Step>,
    seen: Arc<Mutex<Seen>>,
    cut: Arc<Notify>,
) -> Result<Response<RequestBody>, Infallible> {
    let (pieces, body) = mpsc::channel(64);
    if let Some(Step::Status { status, retry_after, body: text }) = step {
        let mut response = Response::builder().status(status);
        if let Some(seconds) = retry_after {
            response = response.header(RETRY_AFTER, seconds);
        }
        pieces.send(Bytes::from_static(text.as_bytes())).await.expect("room");
        let reading = tokio::spawn(read_on(request.into_body()));
        if status == 422 {
            reading.await.expect("no panic");
        }
        return Ok(response.body(RequestBody::Stream(body)).expect("a response"));
    }
    tokio::spawn(serve(request, step, seen, cut, pieces));
    Ok(Response::new(RequestBody::Stream(body)))
}

/// Reads a body to its end, or to the end of its connection, so that what was answered is not lost in a reset.
async fn read_on(mut body: Incoming) {
    while let Some(Ok(_)) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {}
}

/// Reads lines and answers as the step says.
async fn serve(
    request: Request<Incoming>,
    step: Option<Step>,
    seen: Arc<Mutex<Seen>>,
    cut: Arc<Notify>,
    pieces: mpsc::Sender<Bytes>,
) {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let first: u64 = header("kafka-first-line").and_then(|line| line.parse().ok()).expect("a line's number");
    let encoding = header("content-encoding");
    {
        let mut seen = seen.lock().expect("no panic");
        seen.first_lines.push(first);
        seen.targets.push(request.uri().to_string());
        let headers = request.headers().get_all("kafka-header").iter();
        seen.kafka_headers.extend(headers.map(|value| value.to_str().expect("text").to_owned()));
    }
    // The client may be gone: its test asserts what that means.
    let out = pieces.clone();
    let say = async move |line: String| drop(out.send(Bytes::from(line + "\n")).await);
    if let Some(Step::Liar) = step {
        say(r#"{"through_line":1000000,"written":1000000,"not_written":0,"unknown":0}"#.to_owned()).await;
    }

    let mut body = request.into_body();
    let (mut encoded, mut rest, mut lines) = (Vec::new(), Vec::new(), 0);
    let keep = |line: &[u8], lines: &mut u64| {
        seen.lock().expect("no panic").lines.entry(first + *lines).or_default().push(line.to_vec());
        *lines += 1;
    };
    let progress = |through: u64| {
        let written = through + 1 - first;
        format!("{{\"through_line\":{through},\"written\":{written},\"not_written\":0,\"unknown\":0}}")
    };
    while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else { return };
        let data = frame.into_data().expect("no trailers");
        if encoding.is_some() {
            encoded.extend_from_slice(&data);
            continue;
        }
        rest.extend_from_slice(&data);
        while let Some(end) = memchr::memchr(b'\n', &rest) {
            let line: Vec<u8> = rest.drain(..=end).collect();
            keep(&line, &mut lines);
            match step {
                Some(Step::CutAfter { lines: limit, settle }) if lines == limit => {
                    if settle > 0 {
                        say(progress(first - 1 + settle)).await;
                    }
                    // Everything said so far reaches the socket before the connection goes.
                    while pieces.capacity() < pieces.max_capacity() {
                        tokio::task::yield_now().await;
                    }
                    for _ in 0..8 {
                        tokio::task::yield_now().await;
                    }
                    cut.notify_one();
                    return read_on(body).await;
                }
                Some(Step::ResetAfter { lines: limit }) if lines == limit => return cut.notify_one(),
                Some(Step::StopAfter { lines: limit }) if lines == limit => {
                    say(format!(
                        "{{\"done\":true,\"error_code\":50301,\"message\":\"the bridge stops\",\"lines\":{lines},\
                         \"written\":{lines},\"not_written\":0,\"unknown\":0,\"failures\":[]}}"
                    ))
                    .await;
                    drop((say, pieces));
                    return read_on(body).await;
                }
                Some(Step::NoBroker { lines: limit, unwritten }) if lines == limit => {
                    let last = first + lines - 1;
                    say(format!(
                        "{{\"done\":true,\"error_code\":50302,\"message\":\"no broker\",\"lines\":{lines},\
                         \"written\":{},\"not_written\":{unwritten},\"unknown\":0,\"failures\":[{{\"first_line\":{},\
                         \"last_line\":{last},\"outcome\":\"not_written\",\"error_code\":50302,\"message\":\"no broker\"}}]}}",
                        lines - unwritten,
                        last + 1 - unwritten,
                    ))
                    .await;
                    drop((say, pieces));
                    return read_on(body).await;
                }
                Some(Step::Late | Step::Fails { .. }) => {}
                Some(Step::CutAfter { settle, .. }) if lines > settle => {}
                Some(Step::NoBroker { lines: limit, unwritten }) if lines % 100 == 0 => {
                    let failed = lines.saturating_sub(limit - unwritten);
                    let through = first - 1 + lines;
                    say(format!(
                        "{{\"through_line\":{through},\"written\":{},\"not_written\":{failed},\"unknown\":0}}",
                        lines - failed
                    ))
                    .await;
                }
                _ if lines % 100 == 0 => say(progress(first - 1 + lines)).await,
                _ => {}
            }
        }
    }
    if let Some(encoding) = encoding {
        let mut decoded = Vec::new();
        match encoding.as_str() {
            "gzip" => flate2::read::GzDecoder::new(&encoded[..]).read_to_end(&mut decoded),
            _ => zstd::Decoder::new(&encoded[..]).expect("zstd").read_to_end(&mut decoded),
        }
        .expect("a whole body");
        rest = decoded;
        while let Some(end) = memchr::memchr(b'\n', &rest) {
            let line: Vec<u8> = rest.drain(..=end).collect();
            keep(&line, &mut lines);
        }
    }
    if !rest.is_empty() {
        keep(&rest, &mut lines);
    }
    let failures = match step {
        Some(Step::CutBeforeSummary) => {
            say(progress(first - 1 + lines)).await;
            while pieces.capacity() < pieces.max_capacity() {
                tokio::task::yield_now().await;
            }
            return cut.notify_one();
        }
        Some(Step::Fails { not_written, unknown }) => format!(
            "{{\"first_line\":{not_written},\"last_line\":{not_written},\"outcome\":\"not_written\",\"error_code\":400,\
             \"message\":\"not JSON\"}},{{\"first_line\":{unknown},\"last_line\":{unknown},\"outcome\":\"unknown\",\
             \"error_code\":50401,\"message\":\"late\"}}"
        ),
        _ => String::new(),
    };
    let failed = if failures.is_empty() { 0 } else { 1 };
    say(format!(
        "{{\"done\":true,\"topic\":\"logs\",\"lines\":{lines},\"written\":{},\"not_written\":{failed},\
         \"unknown\":{failed},\"partitions\":[],\"failures\":[{failures}]}}",
        lines - 2 * failed
    ))
    .await;
}

/// Lines of many lengths, some empty, some with `\r\n`, so that chunks end everywhere.
fn lines(count: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for index in 0..count {
        let filler = "é".repeat(index * 7 % 300);
        let end = if index % 11 == 0 { "\r\n" } else { "\n" };
        let line = if index % 17 == 0 { String::new() } else { format!("{{\"n\":{index},\"x\":\"{filler}\"}}") };
        text.extend_from_slice(line.as_bytes());
        text.extend_from_slice(end.as_bytes());
    }
    text
}

/// A file with this content; deleted with the folder.
fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    fs::write(&path, content).expect("a file in it");
    (folder, path)
}

fn open(path: &Path) -> Source {
    Source::open(path, 1 << 20).expect("a file that can be read")
}

async fn upload_file(bridge: &FakeBridge, content: &[u8]) -> Report {
    let (_folder, path) = file("lines.ndjson", content);
    upload(&bridge.options(), open(&path), &Bar::hidden()).await
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("a Vec takes all");
    encoder.finish().expect("a Vec takes all")
}

#[tokio::test]
async fn a_file_arrives_line_for_line() {
    let content = lines(5_000);
    let bridge = FakeBridge::start([]).await;
    let report = upload_file(&bridge, &content).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.lines, report.written, report.resumed), (5_000, 5_000, 0));
    assert_eq!(bridge.content(), content);
}

#[tokio::test]
async fn a_last_line_without_its_end_counts() {
    let bridge = FakeBridge::start([Step::CutAfter { lines: 1, settle: 1 }]).await;
    let report = upload_file(&bridge, b"{\"a\":1}\n{\"b\":2}").await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.lines, 2);
    assert_eq!(bridge.content(), b"{\"a\":1}\n{\"b\":2}");
    assert_eq!(bridge.first_lines(), [1, 2]);
}

#[tokio::test]
async fn cuts_anywhere_lose_no_line_and_the_upload_goes_on_after_the_last_settled_one() {
    let content = lines(20_000);
    let script = [
        Step::Hangup,
        Step::CutAfter { lines: 1, settle: 0 },
        Step::CutAfter { lines: 1, settle: 1 },
        Step::CutAfter { lines: 3_777, settle: 3_776 },
        Step::Hangup,
        Step::CutAfter { lines: 6_000, settle: 5_950 },
        Step::CutBeforeSummary,
    ];
    let bridge = FakeBridge::start(script).await;
    let report = upload_file(&bridge, &content).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.lines, report.written), (20_000, 20_000));
    assert_eq!(bridge.content(), content);
    // After the last cut everything is settled: nothing is left to ask for.
    assert_eq!(bridge.first_lines(), [1, 1, 2, 3_778, 9_728]);
    assert_eq!(report.resumed, 6);
}

#[tokio::test]
async fn resets_lose_no_line_either() {
    let content = lines(20_000);
    let script = [1, 5_000, 300, 9_999].map(|lines| Step::ResetAfter { lines });
    let bridge = FakeBridge::start(script).await;
    let report = upload_file(&bridge, &content).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.lines, report.written), (20_000, 20_000));
    assert_eq!(bridge.content(), content);
}

#[tokio::test]
async fn settled_lines_are_not_sent_again() {
    let content = lines(1_000);
    let bridge = FakeBridge::start([Step::CutAfter { lines: 500, settle: 500 }]).await;
    assert!(upload_file(&bridge, &content).await.is_complete());
    let seen = bridge.seen.lock().expect("no panic");
    assert!(seen.lines.values().all(|copies| copies.len() == 1));
}

#[tokio::test]
async fn compressed_files_are_decoded_and_go_on_after_a_cut() {
    let content = lines(8_000);
    let (half, other) = content.split_at(content.len() / 2);
    let members = [gzip(half), gzip(other)].concat();
    let zstd = zstd::encode_all(&content[..], 1).expect("a Vec takes all");
    // The last has no ending in its name that tells: its first bytes do.
    for (name, compressed) in [("a.ndjson.gz", &members), ("a.ndjson.zst", &zstd), ("a.ndjson", &zstd)] {
        let bridge = FakeBridge::start([Step::CutAfter { lines: 5_001, settle: 4_900 }]).await;
        let (_folder, path) = file(name, compressed);
        let report = upload(&bridge.options(), open(&path), &Bar::hidden()).await;
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(bridge.content(), content, "{name}");
        assert_eq!(bridge.first_lines(), [1, 4_901]);
    }
}

#[tokio::test]
async fn a_file_that_is_not_what_its_name_says_is_refused_before_anything_is_sent() {
    let (_folder, path) = file("a.gz", b"{\"a\":1}\n");
    let error = Source::open(&path, 1 << 20).expect_err("not gzip");
    assert!(error.to_string().contains("not what its name's ending says"), "{error}");
}

#[tokio::test]
async fn a_broken_archive_ends_the_upload_with_what_came_before_it() {
    let mut compressed = gzip(&lines(10_000));
    compressed.truncate(compressed.len() / 2);
    let bridge = FakeBridge::start([]).await;
    let (_folder, path) = file("a.gz", &compressed);
    let report = upload(&bridge.options(), open(&path), &Bar::hidden()).await;
    assert!(report.error.is_some(), "{report:?}");
}

#[tokio::test]
async fn a_pipe_is_kept_until_it_is_settled_and_goes_on_after_a_cut() {
    let content = lines(20_000);
    for compress in [false, true] {
        let script = [Step::CutAfter { lines: 2_000, settle: 1_850 }, Step::CutAfter { lines: 3_333, settle: 3_333 }];
        let bridge = FakeBridge::start(script).await;
        let bytes = if compress { gzip(&content) } else { content.clone() };
        // Far smaller than the content: the window has to move.
        let source = Source::pipe("pipe", std::io::Cursor::new(bytes), 400_000);
        let report = upload(&bridge.options(), source, &Bar::hidden()).await;
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(bridge.content(), content);
        assert_eq!(bridge.first_lines(), [1, 1_851, 5_184]);
    }
}

#[tokio::test]
async fn lines_of_a_slow_pipe_are_sent_when_they_come() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let bridge = FakeBridge::start([]).await;
    let options = bridge.options();
    let uploading =
        tokio::spawn(async move { upload(&options, Source::pipe("pipe", reader, 1 << 20), &Bar::hidden()).await });
    for number in 1..=3_u64 {
        writer.write_all(b"1\n").expect("a reader");
        while bridge.seen.lock().expect("no panic").lines.len() < usize::try_from(number).expect("small") {
            tokio::task::yield_now().await;
        }
    }
    drop(writer);
    let report = uploading.await.expect("no panic");
    assert_eq!((report.lines, report.error), (3, None));
}

#[tokio::test]
async fn a_line_that_fills_the_window_is_an_error_and_not_a_stall() {
    let bridge = FakeBridge::start([]).await;
    let source = Source::pipe("pipe", std::io::Cursor::new(vec![b'x'; 3_000_000]), 1_000_000);
    let report = upload(&bridge.options(), source, &Bar::hidden()).await;
    assert_eq!(report.error.as_deref(), Some("line 1 is longer than the window"));
}

#[tokio::test]
async fn nothing_to_write_is_no_failure() {
    let step = Step::Status { status: 422, retry_after: None, body: r#"{"error_code":42206,"message":"empty body"}"# };
    let bridge = FakeBridge::start([step]).await;
    let report = upload_file(&bridge, b"").await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.lines, 0);
}

#[tokio::test]
async fn a_bridge_that_is_full_or_stops_is_asked_again() {
    let content = lines(3_000);
    let script = [
        Step::Status { status: 503, retry_after: Some(0), body: r#"{"error_code":50301,"message":"full"}"# },
        Step::Status { status: 429, retry_after: None, body: "" },
        Step::StopAfter { lines: 1_200 },
        Step::Status { status: 502, retry_after: None, body: "<html>" },
    ];
    let bridge = FakeBridge::start(script).await;
    let report = upload_file(&bridge, &content).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.written, 3_000);
    assert_eq!(bridge.content(), content);
    assert_eq!(bridge.first_lines(), [1, 1_201]);
}

#[tokio::test]
async fn the_lines_at_the_end_that_found_no_broker_are_sent_again() {
    let content = lines(2_000);
    let bridge = FakeBridge::start([Step::NoBroker { lines: 1_000, unwritten: 300 }]).await;
    let report = upload_file(&bridge, &content).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.written, 2_000);
    assert_eq!(bridge.first_lines(), [1, 701]);
    assert_eq!(bridge.content(), content);
}

#[test]
fn lines_are_held_from_where_they_began_to_fail_until_a_later_one_is_written() {
    let mut hold = Hold::new(10);
    let mut step = |through_line, written, not_written| {
        hold.releases(Progress { through_line, counts: Counts { written, not_written, unknown: 0 } })
    };
    assert_eq!(step(20, 10, 0), 20);
    assert_eq!(step(25, 10, 0), 25, "empty lines");
    assert_eq!(step(30, 12, 3), 25);
    assert_eq!(step(40, 12, 13), 25);
    assert_eq!(step(41, 12, 13), 25);
    assert_eq!(step(50, 20, 14), 41);
    assert_eq!(step(60, 30, 14), 60);
}

#[tokio::test]
async fn a_refusal_ends_the_upload_with_the_bridges_words() {
    let step =
        Step::Status { status: 404, retry_after: None, body: r#"{"error_code":40401,"message":"no such topic"}"# };
    let bridge = FakeBridge::start([step]).await;
    let report = upload_file(&bridge, &lines(10)).await;
    assert_eq!(report.error.as_deref(), Some("404 Not Found: no such topic"));
    assert_eq!((report.lines, report.resumed), (0, 0));
}

#[tokio::test]
async fn failures_of_the_summary_are_reported_by_the_files_lines() {
    let script = [Step::CutAfter { lines: 100, settle: 100 }, Step::Fails { not_written: 150, unknown: 160 }];
    let bridge = FakeBridge::start(script).await;
    let report = upload_file(&bridge, &lines(300)).await;
    assert!(!report.is_complete() && report.error.is_none(), "{report:?}");
    assert_eq!((report.lines, report.written, report.not_written, report.unknown), (300, 298, 1, 1));
    let ranges: Vec<_> = report.failures.iter().map(|failure| (failure.first_line, failure.outcome.as_str())).collect();
    assert_eq!(ranges, [(150, "not_written"), (160, "unknown")]);
}

#[test]
fn failures_whose_list_was_lost_with_the_connection_are_told_by_range() {
    let before = Settled { through_line: 10, ..Settled::default() };
    let mut settled = before.clone();
    let counts = |written, not_written| Counts { written, not_written, unknown: 0 };
    settled.progress(&before, Progress { through_line: 20, counts: counts(10, 0) });
    settled.progress(&before, Progress { through_line: 30, counts: counts(17, 3) });
    assert_eq!(settled.counts, counts(17, 3));
    assert_eq!(settled.failures.len(), 1);
    assert_eq!((settled.failures[0].first_line, settled.failures[0].last_line), (21, 30));
}

#[tokio::test]
async fn without_progress_the_upload_is_given_up() {
    let bridge = FakeBridge::start(std::iter::repeat_n(Step::Hangup, 10_000)).await;
    let options = Options { give_up_after: Duration::from_millis(20), ..bridge.options() };
    let (_folder, path) = file("lines.ndjson", &lines(10));
    let report = upload(&options, open(&path), &Bar::hidden()).await;
    assert!(report.error.expect("given up").starts_with("given up after"));
}

#[tokio::test]
async fn a_pipe_that_has_nothing_to_say_is_waited_for() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let slow =
        r#"{"done":true,"error_code":408,"message":"too slow","lines":0,"written":0,"not_written":0,"unknown":0}"#;
    let script = [Step::Hangup, Step::Status { status: 408, retry_after: None, body: slow }, Step::Hangup];
    let bridge = FakeBridge::start(script).await;
    let options = Options { give_up_after: Duration::from_millis(1), ..bridge.options() };
    let source = Source::pipe("pipe", reader, 1 << 20);
    let uploading = tokio::spawn(async move { upload(&options, source, &Bar::hidden()).await });
    // The fourth connection is served: its request is seen before anything was written to the pipe.
    while bridge.first_lines().is_empty() {
        tokio::task::yield_now().await;
    }
    writer.write_all(b"{}\n").expect("a reader");
    drop(writer);
    let report = uploading.await.expect("no panic");
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.lines, report.resumed), (1, 3));
}

#[tokio::test]
async fn a_bridge_that_settles_what_was_not_sent_is_not_believed() {
    let bridge = FakeBridge::start([Step::Liar]).await;
    let report = upload_file(&bridge, &lines(10)).await;
    assert_eq!(report.error.as_deref(), Some("the answer settles line 1000000, which was not sent"));
}

#[tokio::test]
async fn a_bridge_that_cannot_be_trusted_is_not_asked_again() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let (_folder, authority) = file("ca.pem", made.cert.pem().as_bytes());
    let bridge = FakeBridge::start([]).await;
    let url = format!("https://{}", bridge.endpoint);
    let options = Options::new(Endpoint::new(&url, Trust::File(&authority)).expect("a good URL"), "logs");
    let (_folder, path) = file("lines.ndjson", b"{}\n");
    let report = upload(&options, open(&path), &Bar::hidden()).await;
    // What answers here does not even speak TLS.
    assert_eq!(report.error.as_deref(), Some("received corrupt message of type InvalidContentType"));
    assert_eq!(report.resumed, 0);
}

#[tokio::test]
async fn an_answer_that_only_comes_at_the_end_is_enough() {
    let content = lines(20_000);
    let bridge = FakeBridge::start([Step::Late]).await;
    let report = upload_file(&bridge, &content).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(bridge.content(), content);
}

#[tokio::test]
async fn a_silent_bridge_is_left_for_a_new_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = Endpoint::new(&format!("http://{}", listener.local_addr().expect("bound")), Trust::System);
    let options = Options {
        silence: Duration::from_millis(20),
        backoff: Duration::from_millis(1),
        ..Options::new(endpoint.expect("a good URL"), "logs")
    };
    let (_folder, path) = file("lines.ndjson", b"{}\n");
    let uploading = tokio::spawn(async move { upload(&options, open(&path), &Bar::hidden()).await });
    let (mut silent, _) = listener.accept().await.expect("the first attempt");
    // Whichever of the next comes to read its answer in time: on a busy machine it need not be the second.
    let answering = async {
        loop {
            let (mut next, _) = listener.accept().await.expect("another attempt");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n0\r\n\r\n") {
                if matches!(next.read_buf(&mut request).await, Ok(0) | Err(_)) {
                    break;
                }
            }
            let summary = r#"{"done":true,"lines":1,"written":1,"not_written":0,"unknown":0}"#;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{summary}", summary.len());
            // It may have been left meanwhile.
            let _ = next.write_all(answer.as_bytes()).await;
        }
    };
    let report = tokio::select! {
        report = uploading => report.expect("no panic"),
        () = answering => unreachable!("it answers for ever"),
    };
    assert!(report.is_complete(), "{report:?}");
    assert!(report.resumed >= 1, "{report:?}");
    // The first was closed by the uploader.
    let mut request = Vec::new();
    silent.read_to_end(&mut request).await.expect("an end");
    assert!(request.ends_with(b"{}\n\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&request));
}

#[tokio::test]
async fn the_body_can_be_compressed_and_the_request_says_key_partition_and_headers() {
    let content = lines(500);
    for compress in [Compress::Gzip, Compress::Zstd] {
        let bridge = FakeBridge::start([]).await;
        let options = Options {
            compress: Some(compress),
            key: Some("/user id".to_owned()),
            partition: Some(3),
            headers: vec!["source=test".to_owned(), "source=twice".to_owned()],
            ..bridge.options()
        };
        let (_folder, path) = file("lines.ndjson", &content);
        let report = upload(&options, open(&path), &Bar::hidden()).await;
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(bridge.content(), content);
        let seen = bridge.seen.lock().expect("no panic");
        assert_eq!(seen.targets, ["/v1/topics/logs/records?partition=3&key=/user%20id"]);
        assert_eq!(seen.kafka_headers, ["source=test", "source=twice"]);
    }
}

#[test]
fn trailing_failures_that_may_pass_are_taken_off_and_others_stay() {
    let failure = |first_line, last_line, error_code| Failure {
        first_line,
        last_line,
        outcome: "not_written".to_owned(),
        error_code: Some(error_code),
        message: String::new(),
    };
    let summary = |failures| Summary {
        lines: 100,
        counts: Counts { written: 50, not_written: 50, unknown: 0 },
        failures,
        failures_truncated: false,
        error_code: Some(50302),
        message: None,
    };
    // Two ranges at the end, one refused line in the middle.
    let mut mixed = summary(vec![failure(20, 20, 400), failure(60, 80, 50302), failure(81, 109, 50303)]);
    assert_eq!(mixed.split_off_retriable(10, 0), 59);
    assert_eq!((mixed.counts.not_written, mixed.failures.len()), (0, 1));
    // Lines after the failed range were written: sending the range again would change their order.
    let mut inside = summary(vec![failure(20, 108, 50302)]);
    assert_eq!(inside.split_off_retriable(10, 0), 109);
    // What is released cannot be sent again.
    let mut released = summary(vec![failure(60, 109, 50302)]);
    assert_eq!(released.split_off_retriable(10, 60), 109);
    // Nonsense is left alone.
    let mut nonsense = summary(vec![failure(0, 109, 50302)]);
    assert_eq!(nonsense.split_off_retriable(10, 0), 109);
}

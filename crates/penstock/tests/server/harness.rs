//! A bridge in front of an in-process Kafka, and a client that shows every byte of the conversation.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use krafka::consumer::ConsumerRecord;
use krafka::testing::{ApiKey, FakeBroker};
use penstock::config::Config;
use penstock::server::{ReloadHandle, Server, StopHandle};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Has one partition.
pub(crate) const TOPIC: &str = "events";

/// A hanging test is a failed one; nothing here takes nearly as long.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(120);

/// Runs a test with a deadline.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(GIVE_UP, test).await.expect("the test came to an end") });
}

/// A running bridge and its Kafka.
pub(crate) struct Bridge {
    pub(crate) kafka: FakeBroker,
    pub(crate) data: SocketAddr,
    pub(crate) management: SocketAddr,
    pub(crate) fleet: Option<SocketAddr>,
    pub(crate) stop: StopHandle,
    pub(crate) reload: ReloadHandle,
    server: Server,
    folder: tempfile::TempDir,
}

impl Bridge {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// `settings` is TOML. Addresses, and what reaches Kafka, are set here.
    pub(crate) async fn with(settings: &str) -> Self {
        let kafka = FakeBroker::start_cluster(1).await.expect("loopback");
        kafka.create_topic(TOPIC, 1);
        Self::in_front_of(kafka, settings).await
    }

    pub(crate) async fn in_front_of(kafka: FakeBroker, settings: &str) -> Self {
        let bootstrap = kafka.bootstrap_servers();
        Self::before(bootstrap, kafka, settings).await
    }

    /// Another bridge in front of this one's Kafka. Its own field of that name is another, which nobody uses.
    pub(crate) async fn beside(&self, settings: &str) -> Self {
        let unused = FakeBroker::start_cluster(1).await.expect("loopback");
        Self::before(self.kafka.bootstrap_servers(), unused, settings).await
    }

    async fn before(bootstrap: String, kafka: FakeBroker, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = write_settings(folder.path(), settings);
        let environment = [
            ("PENSTOCK_LISTEN__ADDRESS", "127.0.0.1:0".to_owned()),
            ("PENSTOCK_MANAGEMENT__ADDRESS", "127.0.0.1:0".to_owned()),
            ("PENSTOCK_KAFKA__BOOTSTRAP_SERVERS", bootstrap),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value));
        let config = Config::load(Some(&path), environment).unwrap_or_else(|error| panic!("{error}"));
        let server = Server::start(config).await.expect("loopback");
        let bridge = Self {
            data: server.data_address(),
            management: server.management_address(),
            fleet: server.fleet_address(),
            stop: server.stop_handle(),
            reload: server.reload_handle(),
            kafka,
            server,
            folder,
        };
        bridge.ready().await;
        bridge
    }

    /// Writes other settings into the file that the bridge was started with.
    pub(crate) fn write_settings(&self, settings: &str) {
        write_settings(self.folder.path(), settings);
    }

    /// Waits until a broker has answered.
    async fn ready(&self) {
        while self.manage("/readyz").await.status != 200 {
            tokio::task::yield_now().await;
        }
    }

    /// Asks the management listener.
    pub(crate) async fn manage(&self, path: &str) -> Answer {
        let mut client = Client::connect(self.management).await;
        client.request("GET", path, &[], b"").await
    }

    /// One series of `/metrics`.
    pub(crate) async fn metric(&self, series: &str) -> i64 {
        let metrics = self.manage("/metrics").await.text();
        let value = metrics.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("{series}"));
        value.trim().parse().expect("a number")
    }

    /// Has everything read anew and waits until `what` was.
    pub(crate) async fn reload(&self, what: &str, result: &str) {
        let series = format!("penstock_reloads_total{{what=\"{what}\",result=\"{result}\"}}");
        let before = self.metric(&series).await;
        self.reload.reload();
        while self.metric(&series).await == before {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until Kafka was asked such a thing.
    pub(crate) async fn asked(&self, api: ApiKey) {
        assert!(self.kafka.wait_for_requests(api, 1, GIVE_UP).await, "Kafka was asked");
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.data).await
    }

    /// The log of a topic's partition.
    pub(crate) fn log(&self, topic: &str, partition: i32) -> Vec<ConsumerRecord> {
        let mut records = self.kafka.all_records(topic).expect("readable");
        records.retain(|record| record.partition == partition);
        records.sort_by_key(|record| record.offset);
        records
    }

    /// The values of the only partition of [`TOPIC`].
    pub(crate) fn values(&self) -> Vec<String> {
        let value =
            |record: ConsumerRecord| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into();
        self.log(TOPIC, 0).into_iter().map(value).collect()
    }

    /// Asks the bridge to stop and waits for its end. What is in Kafka then is all that will ever be.
    pub(crate) async fn stopped(self) -> FakeBroker {
        self.stop.stop();
        self.finished().await
    }

    /// Waits for its end.
    pub(crate) async fn finished(self) -> FakeBroker {
        self.server.finished().await.expect("a clean end");
        self.kafka
    }
}

fn write_settings(folder: &Path, settings: &str) -> PathBuf {
    let path = folder.join("penstock.toml");
    let mut settings = settings.to_owned();
    for (table, usual) in [("[drain]", "notice = \"0s\""), ("[tls]", "mode = \"off\""), ("[runtime]", "workers = 2")] {
        if !settings.contains(table) {
            settings += &format!("\n{table}\n{usual}\n");
        }
    }
    std::fs::write(&path, settings).expect("written");
    path
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into()
    }

    /// The error's number, after a look at its status and shape.
    pub(crate) fn error_code(&self) -> u64 {
        let document = self.json();
        assert!(document["message"].as_str().is_some_and(|message| !message.is_empty()), "{document}");
        let code = document["error_code"].as_u64().expect("an error has a number");
        let status = if code < 1000 { code } else { code / 100 };
        assert_eq!(u64::from(self.status), status);
        code
    }
}

/// One connection.
pub(crate) struct Client<S = TcpStream> {
    stream: S,
    /// Read and not yet used.
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("accepted");
        stream.set_nodelay(true).expect("a socket");
        Self::over(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) const fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the bridge reads");
        self.stream.flush().await.expect("the bridge reads");
    }

    /// Sends as long as the bridge takes it.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Sends no more, and still reads.
    pub(crate) async fn finish_sending(&mut self) {
        self.stream.shutdown().await.expect("the bridge reads");
    }

    /// One chunk of a chunked body; the last one if it is empty.
    pub(crate) async fn send_chunk(&mut self, bytes: &[u8]) {
        let head = format!("{:x}\r\n", bytes.len());
        self.send([head.as_bytes(), bytes, b"\r\n"].concat()).await;
    }

    /// The head of a request with `Host` and these headers.
    pub(crate) fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{method} {path} HTTP/1.1\r\nHost: bridge\r\n{headers}\r\n")
    }

    /// Sends a request with a `Content-Length` and reads the answer.
    pub(crate) async fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        if !body.is_empty() || method == "POST" {
            headers.push(("Content-Length", &length));
        }
        self.send([Self::head(method, path, &headers).as_bytes(), body].concat()).await;
        self.answer().await
    }

    /// Posts NDJSON to the topic.
    pub(crate) async fn ndjson(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut headers = headers.to_vec();
        headers.push(("Content-Type", "application/x-ndjson"));
        self.request("POST", path, &headers, body).await
    }

    /// Reads a whole answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.answer_head().await;
        if answer.status == 204 {
            return answer;
        }
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().expect("a number");
            answer.body = self.take(length).await;
        } else {
            assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
            while let Some(chunk) = self.chunk().await {
                answer.body.extend(chunk);
            }
        }
        answer
    }

    /// Reads a whole answer; `None` if the connection ends before it begins.
    pub(crate) async fn try_answer(&mut self) -> Option<Answer> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(1..) => Some(self.answer().await),
            Ok(0) | Err(_) => None,
        }
    }

    /// Reads the head of an answer.
    pub(crate) async fn answer_head(&mut self) -> Answer {
        let head = self.take_until(b"\r\n\r\n").await;
        let head = String::from_utf8(head).expect("ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a header");
            (name.to_lowercase(), value.trim().to_owned())
        });
        Answer { status: status.parse().expect("a number"), headers: headers.collect(), body: Vec::new() }
    }

    /// The next chunk of a chunked answer; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.take_until(b"\r\n").await;
        let size = usize::from_str_radix(String::from_utf8_lossy(&size).trim(), 16).expect("a size");
        let mut chunk = self.take(size + 2).await;
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// The next chunk as a JSON line.
    pub(crate) async fn line(&mut self) -> Option<Value> {
        let chunk = self.chunk().await?;
        assert_eq!(chunk.iter().filter(|&&byte| byte == b'\n').count(), 1, "a line a chunk");
        Some(serde_json::from_slice(&chunk).expect("JSON"))
    }

    /// Whether the bridge closes the connection without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        assert!(self.buffer.is_empty(), "{:?}", String::from_utf8_lossy(&self.buffer));
        matches!(self.stream.read(&mut [0]).await, Ok(0) | Err(_))
    }

    /// Waits for the end of the connection, whatever comes before it.
    pub(crate) async fn is_cut_off(&mut self) -> bool {
        while matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {}
        true
    }

    async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert_ne!(self.stream.read_buf(&mut self.buffer).await.expect("more"), 0, "the connection ended");
        }
        self.buffer.drain(..count).collect()
    }

    async fn take_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return self.buffer.drain(..at + end.len()).collect();
            }
            let read = self.stream.read_buf(&mut self.buffer).await.expect("more");
            assert_ne!(read, 0, "the connection ended after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }
}

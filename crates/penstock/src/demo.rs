//! `penstock demo`: everything in one process, nothing to install.
//!
//! An in-process Kafka of three brokers, a certificate that nobody else trusts, and the bridge as `penstock serve` runs
//! it; then what a first user would do: upload a file over HTTPS, read it back over HTTPS, compare. Afterwards it keeps
//! serving, for the curl commands that it prints.

use std::{
    collections::HashMap,
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process,
};

use hyper::header::HeaderName;
use krafka::testing::FakeBroker;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::{
    client::{Endpoint, Lines, RequestBody, Trust},
    config::Config,
    server::Server,
    tail,
    upload::{self, Bar, Source},
};

/// A few thousand lines as services log them; generate.py beside it wrote them.
const SAMPLE: &[u8] = include_bytes!("../demo/service-log.ndjson");

const TOPIC: &str = "service-log";
const PARTITIONS: i32 = 6;
const BROKERS: usize = 3;

/// Where the bridge listens if it can; else at the next free port.
const FIRST_PORT: u16 = 8443;

/// Bytes of one line of an answer: any line of the sample, with what is around it.
const MAX_LINE: usize = 1024 * 1024;

/// Runs the demo; with `once` it ends after the round trip, else at Ctrl-C.
///
/// # Errors
///
/// Whatever went wrong, in words.
pub async fn run(once: bool) -> Result<(), String> {
    let folder = Folder::new().map_err(|error| format!("no temporary folder: {error}"))?;
    let kafka = FakeBroker::start_cluster(BROKERS).await.map_err(|error| format!("in-process Kafka: {error}"))?;
    kafka.create_topic(TOPIC, PARTITIONS);
    println!("Kafka      {BROKERS} brokers in this process, {}", kafka.bootstrap_servers());

    certificate(&folder.0).map_err(|error| format!("certificate: {error}"))?;
    let file = folder.0.join("penstock.toml");
    fs::write(&file, configuration(&kafka.bootstrap_servers())).map_err(|error| error.to_string())?;
    let config = Config::load(Some(&file), []).map_err(|error| error.to_string())?;
    let port = config.listen.address.port();
    let server = Server::start(config).await.map_err(|error| error.to_string())?;
    let stop = server.stop_handle();
    let url = format!("https://localhost:{port}");
    println!("Bridge     {url}, metrics at {}/metrics", server.management_url());
    println!("           configuration and certificate in {}", folder.0.display());

    let authority = folder.0.join("ca.pem");
    let endpoint = Endpoint::new(&url, Trust::File(&authority))?;
    let result = round_trip(&endpoint).await;
    if result.is_ok() && !once {
        println!("\n{}", suggestions(&url, &authority));
        let mut finished = std::pin::pin!(server.finished());
        return tokio::select! {
            ended = finished.as_mut() => ended.map_err(|error| error.to_string()),
            _ = tokio::signal::ctrl_c() => {
                stop.stop();
                finished.await.map_err(|error| error.to_string())
            }
        };
    }
    stop.stop();
    server.finished().await.map_err(|error| error.to_string())?;
    result
}

/// Uploads the sample, reads it back and compares.
async fn round_trip(endpoint: &Endpoint) -> Result<(), String> {
    let options = upload::Options { key: Some("/service".to_owned()), ..upload::Options::new(endpoint.clone(), TOPIC) };
    let source = Source::pipe("service-log.ndjson", SAMPLE, SAMPLE.len() + 1);
    let report = upload::upload(&options, source, &Bar::hidden()).await;
    if !report.is_complete() {
        return Err(format!("the upload is not complete: {report:?}"));
    }
    println!("Uploaded   {} lines, {} KiB, keyed by /service; all acknowledged", report.lines, SAMPLE.len() >> 10);

    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for (index, line) in SAMPLE.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
        places.insert(line, index);
    }
    let mut read = 0;
    for partition in 0..PARTITIONS {
        let values = partition_values(endpoint, partition).await?;
        let indexes: Option<Vec<usize>> = values.iter().map(|value| places.remove(value.as_slice())).collect();
        let indexes = indexes.ok_or_else(|| format!("partition {partition} holds what was not uploaded, or twice"))?;
        if !indexes.is_sorted() {
            return Err(format!("partition {partition} is not in the file's order"));
        }
        read += indexes.len();
    }
    if !places.is_empty() {
        return Err(format!("{} lines did not come back", places.len()));
    }
    println!(
        "Read back  {read} records from {PARTITIONS} partitions: every byte as it was sent, each partition in order"
    );
    Ok(())
}

/// Every value of one partition, in order.
async fn partition_values(endpoint: &Endpoint, partition: i32) -> Result<Vec<Vec<u8>>, String> {
    let number = |headers: &hyper::HeaderMap, name: &'static str| -> Result<i64, String> {
        let value = headers.get(HeaderName::from_static(name)).and_then(|value| value.to_str().ok()?.parse().ok());
        value.ok_or_else(|| format!("the answer has no {name}"))
    };
    let mut values = Vec::new();
    let mut offset = 0;
    let mut connection = endpoint.connect().await.map_err(|error| error.to_string())?;
    loop {
        let path = format!("/v1/topics/{TOPIC}/partitions/{partition}/records?offset={offset}");
        let request = endpoint.request(&path).body(RequestBody::Empty).map_err(|error| error.to_string())?;
        let response = connection.send(request).await.map_err(|error| error.to_string())?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut lines = Lines::new(response.into_body(), MAX_LINE);
        if !status.is_success() {
            let body = lines.rest().await.unwrap_or_default();
            return Err(format!("{path}: {status} {}", String::from_utf8_lossy(&body)));
        }
        while let Some(line) = lines.next().await.map_err(|error| error.to_string())? {
            values.push(tail::value(&line)?);
        }
        offset = number(&headers, "kafka-next-offset")?;
        if offset >= number(&headers, "kafka-high-watermark")? {
            return Ok(values);
        }
    }
}

/// The demo's own files; deleted at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("penstock-demo-{}", process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// An authority that lives as long as the demo (its key is nowhere), and a certificate that it signed.
fn certificate(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut authority = CertificateParams::new([])?;
    authority.distinguished_name.push(DnType::CommonName, "Penstock demo authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut server = CertificateParams::new(names)?;
    server.distinguished_name.push(DnType::CommonName, "localhost");
    let server = server.signed_by(&key, &authority)?;
    fs::write(folder.join("ca.pem"), authority.pem())?;
    fs::write(folder.join("server.pem"), server.pem())?;
    fs::write(folder.join("server.key"), key.serialize_pem())?;
    Ok(())
}

fn configuration(brokers: &str) -> String {
    let servers: Vec<String> = brokers.split(',').map(|server| format!("{server:?}")).collect();
    let data = (FIRST_PORT..FIRST_PORT + 100).find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    format!(
        "[listen]\naddress = \"127.0.0.1:{}\"\n\n[tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n\n\
         [kafka]\nbootstrap_servers = [{}]\n\n[management]\naddress = \"127.0.0.1:0\"\n\n\
         [drain]\nnotice = \"0s\"\ndeadline = \"5s\"\n\n[log]\nformat = \"text\"\nlevel = \"warn\"\n",
        data.unwrap_or(FIRST_PORT),
        servers.join(", "),
    )
}

fn suggestions(url: &str, authority: &Path) -> String {
    let curl = format!("curl --cacert {}", authority.display());
    format!(
        "Try these while it runs; Ctrl-C ends it.\n\n\
         # one record\n{curl} -H 'Kafka-Key: me' -d '{{\"hello\":\"world\"}}' {url}/v1/topics/{TOPIC}/records\n\n\
         # every line a record\nprintf '{{\"n\":1}}\\n{{\"n\":2}}\\n' | {curl} -T - -X POST \\\n    \
         -H 'Content-Type: application/x-ndjson' -H 'Accept: application/x-ndjson' {url}/v1/topics/{TOPIC}/records\n\n\
         # read a partition\n{curl} '{url}/v1/topics/{TOPIC}/partitions/1/records?offset=earliest&max_records=3'\n\n\
         # what is there\n{curl} {url}/v1/topics/{TOPIC}\n"
    )
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_sample_goes_through_the_bridge_and_comes_back() {
        super::run(true).await.expect("the whole way works");
    }
}

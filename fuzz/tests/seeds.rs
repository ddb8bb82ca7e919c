//! Every seed goes through its target, without a fuzzer.

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).expect("a folder of seeds") {
        let path = entry.expect("a seed").path();
        println!("{}", path.display());
        run(&std::fs::read(&path).expect("a readable seed"));
        replayed += 1;
    }
    assert!(replayed > 0, "{target} has no seeds");
}

#[test]
fn record_batch() {
    replay("record_batch", penstock_fuzz::record_batch::run);
}

#[test]
fn responses() {
    replay("responses", penstock_fuzz::responses::run);
}

#[test]
fn connection() {
    replay("connection", penstock_fuzz::connection::run);
}

#[test]
fn ndjson() {
    replay("ndjson", penstock_fuzz::ndjson::run);
}

#[test]
fn http1() {
    replay("http1", penstock_fuzz::http1::run);
}

#[test]
fn json_pointer() {
    replay("json_pointer", penstock_fuzz::json_pointer::run);
}

#[test]
fn proxy_protocol() {
    replay("proxy_protocol", penstock_fuzz::proxy_protocol::run);
}

#[test]
fn content_encoding() {
    replay("content_encoding", penstock_fuzz::content_encoding::run);
}

#[test]
fn documents() {
    replay("documents", penstock_fuzz::documents::run);
}

#[test]
fn avro() {
    replay("avro", penstock_fuzz::schema_registry::avro);
}

#[test]
fn protobuf() {
    replay("protobuf", penstock_fuzz::schema_registry::protobuf);
}

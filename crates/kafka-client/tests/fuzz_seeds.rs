//! The seeds of the fuzz targets that are about this crate, without a fuzzer.

use std::path::Path;

#[expect(unreachable_pub, reason = "public for the fuzzer")]
#[path = "../../../fuzz/src/connection.rs"]
mod connection;
#[expect(unreachable_pub, reason = "public for the fuzzer")]
#[path = "../../../fuzz/src/responses.rs"]
mod responses;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
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
fn answers_of_every_api_and_version() {
    replay("responses", responses::run);
}

#[test]
fn whole_connections() {
    replay("connection", connection::run);
}

//! The seeds of the fuzz target that is about this crate, without a fuzzer.

use std::path::Path;

#[expect(unreachable_pub, reason = "public for the fuzzer")]
#[path = "../../../fuzz/src/record_batch.rs"]
mod record_batch;

#[test]
fn records_fields() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/record_batch");
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).expect("a folder of seeds") {
        let path = entry.expect("a seed").path();
        println!("{}", path.display());
        record_batch::run(&std::fs::read(&path).expect("a readable seed"));
        replayed += 1;
    }
    assert!(replayed > 0, "there are no seeds");
}

//! `cargo run -p penstock-tests`: a real Kafka of three brokers and the bridge in front of it, to try things by hand.
//!
//! Prints where they are as shell assignments, one a line, then an empty line; ends, and ends them, when its standard
//! input does. With the argument `fetch` it only fetches what tests start beside the bridge, where the cache has none of it:
//! that Kafka and a Schema Registry.

use std::io::Read;

use penstock_tests::{
    bridge::binary,
    distribution::{Version, apicurio_registry},
    shared,
    tls::certificates,
};

fn main() {
    if std::env::args().nth(1).as_deref() == Some("fetch") {
        Version::V4_1_1.class_path();
        apicurio_registry();
        return;
    }
    let bridge = shared::bridge();
    println!("KAFKA={}", shared::three_brokers().bootstrap());
    println!("URL={}", bridge.url(""));
    println!("CACERT={}", certificates().ca.display());
    println!("PENSTOCK={}", binary().display());
    println!();
    // An error is an end too.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

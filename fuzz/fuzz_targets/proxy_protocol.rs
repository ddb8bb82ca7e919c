//! See `penstock_fuzz::proxy_protocol`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| penstock_fuzz::proxy_protocol::run(data));

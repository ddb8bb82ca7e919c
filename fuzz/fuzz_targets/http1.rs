//! See `penstock_fuzz::http1`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| penstock_fuzz::http1::run(data));

//! See `penstock_fuzz::documents::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| penstock_fuzz::documents::run(data));

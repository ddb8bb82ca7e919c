//! See `penstock_fuzz::content_encoding`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| penstock_fuzz::content_encoding::run(data));

//! See `penstock_fuzz::responses`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| penstock_fuzz::responses::run(data));

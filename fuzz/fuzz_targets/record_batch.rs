//! See `penstock_fuzz::record_batch`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| penstock_fuzz::record_batch::run(data));

//! See `penstock_fuzz::json_pointer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| penstock_fuzz::json_pointer::run(data));

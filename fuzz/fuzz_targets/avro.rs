//! See `penstock_fuzz::schema_registry::avro`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| penstock_fuzz::schema_registry::avro(data));

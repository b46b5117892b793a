//! Fuzzes [`oncelog_fuzz::produce_request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oncelog_fuzz::produce_request::run(bytes));

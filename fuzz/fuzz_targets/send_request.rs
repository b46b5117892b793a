//! Fuzzes [`oncelog_fuzz::send_request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oncelog_fuzz::send_request::run(bytes));

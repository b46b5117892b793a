//! Fuzzes [`oncelog_fuzz::broker_calls`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oncelog_fuzz::broker_calls::run(bytes));

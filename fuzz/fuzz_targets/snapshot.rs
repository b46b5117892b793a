//! Fuzzes [`oncelog_fuzz::snapshot`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oncelog_fuzz::snapshot::run(bytes));

//! Fuzzes [`oncelog_fuzz::properties`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oncelog_fuzz::properties::run(bytes));

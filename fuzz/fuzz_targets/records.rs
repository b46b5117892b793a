//! Fuzzes [`oncelog_fuzz::records`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oncelog_fuzz::records::run(bytes));

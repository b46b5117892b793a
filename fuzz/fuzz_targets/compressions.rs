//! Fuzzes [`oncelog_fuzz::compressions`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oncelog_fuzz::compressions::run(bytes));

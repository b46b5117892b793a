//! Fuzzes [`oncelog_fuzz::packed_records`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oncelog_fuzz::packed_records::run(bytes));

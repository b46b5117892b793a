//! Fuzzes [`oncelog_fuzz::journal_files`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oncelog_fuzz::journal_files::run(bytes));

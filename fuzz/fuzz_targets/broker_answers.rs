//! Fuzzes [`oncelog_fuzz::broker_answers`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oncelog_fuzz::broker_answers::run(bytes));

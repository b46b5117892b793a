//! Fuzzes [`oncelog_fuzz::grpc_timeout`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oncelog_fuzz::grpc_timeout::run(bytes));

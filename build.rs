//! Compiles the protobuf files with a compiler written in Rust: nothing but Rust has to be installed.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/oncelog");
    println!("cargo::rerun-if-changed=build.rs");

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(["oncelog/v1/broker.proto", "oncelog/v1/producer.proto"])?;

    // Server reflection serves this file; it holds the imports too, without which grpcurl cannot read it.
    let out = PathBuf::from(env::var("OUT_DIR")?).join("oncelog.bin");
    fs::write(out, compiler.encode_file_descriptor_set())?;

    tonic_prost_build::configure()
        .build_transport(false)
        // Payloads are slices of the received message, not copies of it.
        .bytes(".oncelog.v1")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

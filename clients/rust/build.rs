//! Compiles the contract with a compiler written in Rust: there is no protoc to install.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../../proto/oncelog");
    let files = protox::compile(["oncelog/v1/broker.proto", "oncelog/v1/producer.proto"], ["../../proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    Ok(())
}

//! The `oncelog` command: both services on one machine (`dev`), records in (`send`) and records out (`fetch`), and the proof that
//! none is lost and none is there twice (`verify`, `chaos`).
//!
//! It is a caller like any other: `send` and `fetch` speak the public contract alone.

mod chaos;
mod child;
mod connect;
mod dev;
mod fetch;
mod framing;
mod progress;
mod send;
mod verify;

use std::{io, process::ExitCode};

use clap::Parser;

/// Exactly-once event ingestion: run it, write to it, read from it.
#[derive(Debug, Parser)]
#[command(name = "oncelog", version)]
enum Command {
    /// Run both services in one process, for trying things out.
    Dev(dev::Args),
    /// Write records from stdin to a topic, each of them once.
    Send(send::Args),
    /// Write a topic's records to stdout.
    Fetch(fetch::Args),
    /// Check that what was promised is true of a log, at rest or running.
    Verify(verify::Args),
    /// Run both services, break everything that can break, and verify what is left.
    Chaos(chaos::Args),
    /// The broker alone, for `chaos`.
    #[command(hide = true)]
    ChaosBroker(Box<broker_svc::Config>),
    /// The producer alone, for `chaos`.
    #[command(hide = true)]
    ChaosProducer(Box<producer_svc::Config>),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Dev(args) => dev::run(args).await,
        Command::Send(args) => send::run(args).await,
        Command::Fetch(args) => fetch::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Chaos(args) => chaos::run(args).await,
        Command::ChaosBroker(config) => child::broker(*config).await,
        Command::ChaosProducer(config) => child::producer(*config).await,
    };
    match done {
        Ok(code) => code,
        // Whoever read our output has enough of it: `oncelog fetch … | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oncelog: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

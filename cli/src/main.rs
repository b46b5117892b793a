//! The `oncelog` command. See it work (`demo`), run it (`dev`), write and read (`send`, `fetch`), look after it (`topic`,
//! `producers`, `journal`, `doctor`, `bench`), and prove that no record is lost and none is there twice (`verify`, `chaos`).
//!
//! It is a caller like any other: what speaks to the services speaks the public contract alone.

mod bench;
mod chaos;
mod child;
mod completions;
mod connect;
mod demo;
mod dev;
mod doctor;
mod exit;
mod fetch;
mod framing;
mod interrupt;
mod journal;
mod latency;
mod man;
mod output;
mod producers;
mod progress;
mod reference;
mod send;
mod terminal;
mod topic;
mod verify;
mod workplace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::exit::Exit;

/// Exactly-once event ingestion: see it, run it, write to it, read from it.
#[derive(Debug, Parser)]
#[command(name = "oncelog", version, after_help = exit::table())]
struct Cli {
    /// No colours. So does the environment variable NO_COLOR, and output that is no terminal.
    #[arg(long, global = true)]
    no_color: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See it refuse duplicates: both services and what can fail between them, live, and verified in the end.
    Demo(demo::Args),
    /// Run both services in one process, for trying things out.
    Dev(dev::Args),
    /// Write records from stdin to a topic, each accepted one exactly once.
    Send(send::Args),
    /// Write a topic's records to stdout.
    Fetch(fetch::Args),
    /// Create, list, describe and delete topics.
    Topic(topic::Args),
    /// Tell what the broker remembers of producers: it is by this that it recognises duplicates.
    Producers(producers::Args),
    /// Tell what is on a stopped broker's disk, segment by segment.
    Journal(journal::Args),
    /// Check that what was promised is true of a log, at rest or running.
    Verify(verify::Args),
    /// Tell what of this machine and of running services stands in the way, and what to do about it.
    Doctor(doctor::Args),
    /// Send a light load, and tell how many records a second and how long an answer takes.
    Bench(bench::Args),
    /// Run both services, break everything that can break, and verify what is left.
    Chaos(chaos::Args),
    /// Write a script that completes this command's words in a shell.
    Completions(completions::Args),
    /// Write the manual pages.
    Man(man::Args),
    /// Write docs/command.md.
    #[command(hide = true)]
    Reference,
    /// The broker alone, for `demo`, `bench` and `chaos`.
    #[command(hide = true)]
    ChaosBroker(Box<broker_svc::Config>),
    /// The producer alone, for `demo`, `bench` and `chaos`.
    #[command(hide = true)]
    ChaosProducer(Box<producer_svc::Config>),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.no_color {
        terminal::no_colour();
    }
    let done = match cli.command {
        Command::Demo(args) => demo::run(args).await,
        Command::Dev(args) => dev::run(args).await,
        Command::Send(args) => send::run(args).await,
        Command::Fetch(args) => fetch::run(args).await,
        Command::Topic(args) => topic::run(args).await,
        Command::Producers(args) => producers::run(args).await,
        Command::Journal(args) => journal::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Chaos(args) => chaos::run(args).await,
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
        Command::Reference => reference::run(),
        Command::ChaosBroker(config) => child::broker(*config).await,
        Command::ChaosProducer(config) => child::producer(*config).await,
    };
    match done {
        Ok(code) => code,
        // Whoever read our output has enough of it: `oncelog fetch … | head`.
        Err(error) if output::is_broken_pipe(&error) => Exit::Success.into(),
        Err(error) => {
            eprintln!("oncelog: {error:#}");
            Exit::of(&error).into()
        }
    }
}

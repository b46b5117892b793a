//! Judges any client of oncelog, in any language: runs it in front of the real services, with a front in between that loses,
//! delays, refuses, fences and kills as a script says, and judges what the program does, what it says, and what is in the log.
//!
//! | module | owns |
//! |---|---|
//! | [`contract`] | what suite and program have agreed on |
//! | [`scenario`] | what fails in each run, and what that is there to find |
//! | [`script`] | which calls a fault strikes |
//! | [`way`] | lost calls, lost answers, silence, delay |
//! | [`broker_front`], [`producer_front`] | the services that the program speaks to |
//! | [`producing`], [`sending`] | the judges of what it does; pure |
//! | [`verdict`] | what it says, against what is in the log |
//! | [`accusation`] | what it is blamed for |
//! | [`run`], [`command`] | one run; who kills the services |
//! | [`through_producer_svc`] | producer-svc as a program like any other |

mod accusation;
mod broker_front;
mod command;
mod contract;
mod producer_front;
mod producing;
mod run;
mod scenario;
mod script;
mod sending;
mod through_producer_svc;
mod verdict;
mod way;

use std::{
    collections::HashMap,
    env,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use oncelog_chaos::program::{Program, Programs};

use crate::{
    accusation::{Accusation, Duty},
    contract::{Assignment, Claim},
    run::{Ran, Role, Theatre},
    scenario::{PRODUCER, SENDER, Scenario},
};

/// Judges a client of oncelog. Exit status: 0 it conforms, 1 it does not, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "oncelog-conformance", version)]
struct Args {
    /// Where broker-svc and producer-svc are. Default: beside this command.
    #[arg(long, value_name = "DIR", global = true)]
    services: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Judge a program that is an idempotent producer on InitProducerId and Produce.
    Producer(Judged),
    /// Judge a program that calls Send.
    Sender(Judged),
    /// List the scenarios.
    List,
    /// Be such a program, by starting producer-svc: `oncelog-conformance producer -- oncelog-conformance through-producer-svc`.
    ThroughProducerSvc,
}

#[derive(Debug, clap::Args)]
struct Judged {
    /// Run this scenario alone; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("oncelog-conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<bool> {
    let services = match args.services {
        Some(directory) => directory,
        None => env::current_exe()?.parent().context("where this command is")?.to_owned(),
    };
    let program = |name: &str| Program::new(services.join(name));
    match args.what {
        What::List => list(),
        What::ThroughProducerSvc => {
            let directory = tempfile::tempdir()?;
            let assignment = Assignment::from_environment()?;
            let claims = through_producer_svc::run(&assignment, &program("producer-svc"), directory.path()).await?;
            tell_claims(&claims)
        }
        What::Producer(judged) => judge(Role::Producer, PRODUCER, &judged, &program).await,
        What::Sender(judged) => judge(Role::Sender, SENDER, &judged, &program).await,
    }
}

/// Runs the scenarios one after the other, and tells of each when it is over.
async fn judge(role: Role, scenarios: &[Scenario], judged: &Judged, program: &dyn Fn(&str) -> Program) -> anyhow::Result<bool> {
    for name in &judged.only {
        let is_known = scenarios.iter().any(|scenario| scenario.name == name);
        ensure!(is_known, "there is no scenario {name:?}; `oncelog-conformance list` tells all");
    }
    let chosen: Vec<_> = scenarios
        .iter()
        .filter(|scenario| judged.only.is_empty() || judged.only.iter().any(|name| name == scenario.name))
        .collect();
    let directory = tempfile::tempdir()?;
    let programs = Programs { broker: program("broker-svc"), producer: program("producer-svc") };
    let mut theatre = Theatre::start(programs, directory.path()).await?;
    let mut tokens: HashMap<String, &str> = HashMap::new();
    let mut failed = 0;
    for scenario in &chosen {
        let mut ran = theatre.run(role, scenario, &judged.command).await?;
        for token in std::mem::take(&mut ran.tokens) {
            if let Some(before) = tokens.insert(token, scenario.name) {
                let what =
                    format!("the token of {before:?} is used by another process; two that share one come to share an epoch");
                ran.accusations.push(Accusation { duty: Duty::Token, what });
            }
        }
        failed += usize::from(!ran.accusations.is_empty());
        tell(scenario, &ran)?;
    }
    theatre.stop().await?;
    let mut out = io::stdout().lock();
    match failed {
        0 => writeln!(out, "conforms: {} scenarios", chosen.len())?,
        _ => writeln!(out, "DOES NOT CONFORM: {failed} of {} scenarios failed", chosen.len())?,
    }
    Ok(failed == 0)
}

fn tell(scenario: &Scenario, ran: &Ran) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let count = |is_it: fn(&Claim) -> bool| ran.claims.iter().filter(|claim| is_it(claim)).count();
    let is_well = ran.accusations.is_empty();
    writeln!(
        out,
        "{:<6} {:<22} appended {:>3}, refused {:>2}, unknown {:>2}; calls {:>3}, outstanding at most {}, recoveries {}",
        if is_well { "ok" } else { "FAILED" },
        scenario.name,
        count(|claim| matches!(claim, Claim::Appended(_))),
        count(|claim| matches!(claim, Claim::Refused)),
        count(|claim| matches!(claim, Claim::Unknown)),
        ran.counts.calls,
        ran.counts.most_outstanding,
        ran.counts.recoveries,
    )?;
    if is_well {
        return Ok(());
    }
    writeln!(out, "       ({})", scenario.about)?;
    for accusation in ran.accusations.iter().take(ACCUSATIONS_SHOWN) {
        writeln!(out, "       {accusation}")?;
    }
    let more = ran.accusations.len().saturating_sub(ACCUSATIONS_SHOWN);
    if more > 0 {
        writeln!(out, "       and {more} more")?;
    }
    let lines: Vec<_> = ran.stderr.lines().collect();
    for line in &lines[lines.len().saturating_sub(LINES_SHOWN)..] {
        writeln!(out, "       | {line}")?;
    }
    Ok(())
}

fn list() -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    for (role, scenarios) in [("producer", PRODUCER), ("sender", SENDER)] {
        for scenario in scenarios {
            writeln!(out, "{role:<9} {:<22} {}", scenario.name, scenario.about)?;
        }
    }
    Ok(true)
}

fn tell_claims(claims: &[Claim]) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    for (number, claim) in claims.iter().enumerate() {
        match claim {
            Claim::Appended(offset) => writeln!(out, "{number} appended {offset}")?,
            Claim::Refused => writeln!(out, "{number} refused")?,
            Claim::Unknown => writeln!(out, "{number} unknown")?,
        }
    }
    Ok(true)
}

const ACCUSATIONS_SHOWN: usize = 10;
/// Of the program's stderr.
const LINES_SHOWN: usize = 20;

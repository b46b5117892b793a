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
//! | [`suite`], [`mod@run`], [`command`] | all runs of a program; one of them; who kills the services |
//! | [`written`] | what a program writes to stdout and stderr |
//! | [`through_producer_svc`] | producer-svc as a program like any other |
//! | [`wrong`], [`self_check`] | programs that are wrong on purpose, and whether they are accused |

mod accusation;
mod broker_front;
mod command;
mod contract;
mod producer_front;
mod producing;
mod run;
mod scenario;
mod script;
mod self_check;
mod sending;
mod suite;
mod through_producer_svc;
mod verdict;
mod way;
mod written;
mod wrong;

use std::{
    env, fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use oncelog_chaos::program::Program;

use crate::{
    contract::{Assignment, Claim},
    run::{Ran, Role},
    scenario::Scenario,
    suite::{Judged, Suite, scenarios},
    wrong::{ProducerDefect, SenderDefect},
};

/// Judges a client of oncelog. Exit status: 0 it conforms, 1 it does not, 2 wrong usage, 3 it could not be judged: the services
/// or the program cannot be started.
#[derive(Debug, Parser)]
#[command(name = "oncelog-conformance", version)]
struct Args {
    /// Where broker-svc and producer-svc are. Default: beside this command.
    #[arg(long, value_name = "DIR", global = true)]
    services: Option<PathBuf>,
    /// How long a program may take for a scenario, in seconds, from 1.
    #[arg(long, value_name = "SECONDS", global = true, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Judge a program that is an idempotent producer on InitProducerId and Produce.
    Producer(Chosen),
    /// Judge a program that calls Send.
    Sender(Chosen),
    /// List the scenarios, and the defects of the programs that are wrong on purpose.
    List,
    /// Judge the judge: programs that are wrong on purpose, each in one way, are accused of it.
    SelfCheck,
    /// Be a program to judge: `oncelog-conformance producer -- oncelog-conformance wrong-producer six-outstanding`.
    WrongProducer {
        /// What is wrong with it. Default: nothing.
        defect: Option<ProducerDefect>,
    },
    /// The same, on Send.
    WrongSender {
        /// What is wrong with it. Default: nothing.
        defect: Option<SenderDefect>,
    },
    /// The same, by starting producer-svc: `oncelog-conformance producer -- oncelog-conformance through-producer-svc`.
    ThroughProducerSvc,
}

#[derive(Debug, clap::Args)]
struct Chosen {
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
            ExitCode::from(if error.is::<NoScenario>() { USAGE } else { NOT_JUDGED })
        }
    }
}

async fn run(args: Args) -> anyhow::Result<bool> {
    let this = env::current_exe()?;
    let services = match args.services {
        Some(directory) => directory,
        None => this.parent().context("where this command is")?.to_owned(),
    };
    let patience = Duration::from_secs(args.patience);
    match args.what {
        What::List => list(),
        What::ThroughProducerSvc => {
            let directory = tempfile::tempdir()?;
            let program = Program::new(services.join("producer-svc"));
            let (assignment, mut claims) = (Assignment::from_environment()?, Vec::new());
            let ended = through_producer_svc::run(&assignment, &program, directory.path(), &mut claims).await;
            tell_claims(&claims)?;
            ended.map(|()| true)
        }
        What::WrongProducer { defect } => {
            let (assignment, mut claims) = (Assignment::from_environment()?, Vec::new());
            let ended = wrong::produce(&assignment, defect, &mut claims).await;
            tell_claims(&claims)?;
            ended.map(|()| true)
        }
        What::WrongSender { defect } => {
            let claims = wrong::send(&Assignment::from_environment()?, defect).await?;
            tell_claims(&claims.into_iter().map(Some).collect::<Vec<_>>())?;
            Ok(true)
        }
        What::Producer(program) => judge(&services, patience, Role::Producer, &program).await,
        What::Sender(program) => judge(&services, patience, Role::Sender, &program).await,
        What::SelfCheck => {
            let mut suite = Suite::start(&services, patience).await?;
            let is_right = self_check::run(&mut suite, this).await?;
            suite.stop().await?;
            Ok(is_right)
        }
    }
}

async fn judge(services: &Path, patience: Duration, role: Role, program: &Chosen) -> anyhow::Result<bool> {
    let Chosen { only, command } = program;
    for name in only {
        let is_known = scenarios(role).iter().any(|scenario| scenario.name == name);
        ensure!(is_known, NoScenario(name.clone()));
    }
    let mut suite = Suite::start(services, patience).await?;
    let is_chosen = |scenario: &&Scenario| only.is_empty() || only.iter().any(|name| name == scenario.name);
    let (mut all, mut failed) = (0, 0);
    suite
        .judge(Judged { role, title: "judged", command }, scenarios(role).iter().filter(is_chosen), |scenario, ran| {
            all += 1;
            failed += usize::from(!ran.accusations.is_empty());
            tell(scenario, ran)
        })
        .await?;
    suite.stop().await?;
    let mut out = io::stdout().lock();
    match failed {
        0 => writeln!(out, "conforms: {all} scenarios")?,
        _ => writeln!(out, "DOES NOT CONFORM: {failed} of {all} scenarios failed")?,
    }
    Ok(failed == 0)
}

fn tell(scenario: &Scenario, ran: &Ran) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let count = |is_it: fn(&Claim) -> bool| ran.claims.iter().flatten().filter(|claim| is_it(claim)).count();
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
    for accusation in &ran.accusations {
        writeln!(out, "       {accusation}")?;
    }
    let lines: Vec<_> = ran.stderr.lines().collect();
    for line in &lines[lines.len().saturating_sub(LINES_SHOWN)..] {
        writeln!(out, "       | {line}")?;
    }
    Ok(())
}

fn list() -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    for (name, role) in [("producer", Role::Producer), ("sender", Role::Sender)] {
        for scenario in scenarios(role) {
            writeln!(out, "{name:<14} {:<30} {}", scenario.name, scenario.about)?;
        }
    }
    defects::<ProducerDefect>("wrong-producer", &mut out)?;
    defects::<SenderDefect>("wrong-sender", &mut out)?;
    Ok(true)
}

fn defects<Defect: ValueEnum>(program: &str, out: &mut impl Write) -> anyhow::Result<()> {
    for value in Defect::value_variants().iter().filter_map(Defect::to_possible_value) {
        let about = value.get_help().map(ToString::to_string).unwrap_or_default();
        writeln!(out, "{program:<14} {:<30} {about}", value.get_name())?;
    }
    Ok(())
}

fn tell_claims(claims: &[Option<Claim>]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for (number, claim) in claims.iter().enumerate() {
        match claim {
            None => {}
            Some(Claim::Appended(offset)) => writeln!(out, "{number} appended {offset}")?,
            Some(Claim::Refused) => writeln!(out, "{number} refused")?,
            Some(Claim::Unknown) => writeln!(out, "{number} unknown")?,
        }
    }
    Ok(())
}

/// Named on the command line, and there is none.
#[derive(Debug)]
struct NoScenario(String);

impl fmt::Display for NoScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no scenario {:?}; `oncelog-conformance list` tells all", self.0)
    }
}

impl std::error::Error for NoScenario {}

/// The status of wrong usage, which is also that of the command line's parser.
const USAGE: u8 = 2;
const NOT_JUDGED: u8 = 3;
/// Of the program's stderr.
const LINES_SHOWN: usize = 20;

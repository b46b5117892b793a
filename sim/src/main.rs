//! Runs both services, their real code, on one thread: with simulated time, network and disk, and everything failing that can
//! fail. One seed is one run, exactly. What happened is judged by what a reader reads in the end.
//!
//! | module | owns |
//! |---|---|
//! | [`plan`] | what a seed makes of a run |
//! | [`world`] | the run: storm, calm, verdict |
//! | [`conductor`] | what happens to hosts, disks, links and clocks, and when |
//! | [`broker_host`], [`producer_host`] | the real services |
//! | [`courier`] | what happens to calls |
//! | [`wire`] | connections, and how they break |
//! | [`work`], [`callers`], [`raw`], [`readers`], [`topics`] | who writes and who reads |
//! | [`census`] | what is read in the end |
//! | [`chronicle`], [`murmur`] | what happened; what the services say of it |
//! | [`dice`], [`weather`] | chance; whether it storms |
//! | [`campaign`] | many seeds, each in a process of its own |
//! | `defects` | defects that are there on purpose, and who catches them |

mod broker_host;
mod callers;
mod campaign;
mod census;
mod chronicle;
mod conductor;
mod courier;
#[cfg(feature = "deliberate-defects")]
mod defects;
mod dice;
mod murmur;
mod plan;
mod producer_host;
mod raw;
mod readers;
mod topics;
mod weather;
mod wire;
mod work;
mod world;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use clap::Parser;
use rand::{SeedableRng, rngs::StdRng};

use crate::{chronicle::Chronicle, plan::Plan};

/// Simulates both services with everything failing that can fail, and judges what came of it.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Run this one seed, in this process.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Show all that happens in it, a line each.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Run so many seeds.
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "minutes")]
    seeds: u64,
    /// Run seeds for so long.
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
    /// The first seed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    first: u64,
    /// Seeds that run at the same time.
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Give the services a defect.
    #[cfg(feature = "deliberate-defects")]
    #[arg(long, value_name = "NAME", requires = "seed")]
    defect: Option<oncelog_defects::Defect>,
    /// Try out all defects, and tell in a table who catches them. With names: these only.
    #[cfg(feature = "deliberate-defects")]
    #[arg(long, value_name = "NAME", num_args = 0.., conflicts_with = "seed")]
    defects: Option<Vec<oncelog_defects::Defect>>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    #[cfg(feature = "deliberate-defects")]
    if let Some(only) = args.defects {
        return code(defects::run(&only));
    }
    #[cfg(feature = "deliberate-defects")]
    args.defect.into_iter().for_each(oncelog_defects::choose);
    let Some(seed) = args.seed else {
        return code(campaign::run(args.first, args.seeds, args.minutes, args.jobs.max(1)));
    };
    let outcome = simulate(seed, args.trace);
    let _ = writeln!(io::stdout(), "{}", serde_json::to_string(&outcome).expect("plain data"));
    if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn code(is_well: anyhow::Result<bool>) -> ExitCode {
    match is_well {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("oncelog-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn simulate(seed: u64, is_traced: bool) -> world::Outcome {
    let (plan, chronicle) = (Plan::of(seed), Chronicle::new(is_traced));
    murmur::listen(chronicle.clone(), plan.brief());
    // Hash maps and libraries that ask the operating system for chance get it from the seed, and those that read a clock read the
    // simulated one.
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    let _clock = mad_turmoil::time::SimClocksGuard::init();
    // A task that panics would be gone without a word.
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        HAS_PANICKED.store(true, Ordering::Relaxed);
        before(panic);
    }));
    let mut outcome = world::run(plan, chronicle);
    if HAS_PANICKED.load(Ordering::Relaxed) {
        outcome.failures.push("something panicked: see above".to_owned());
    }
    outcome
}

static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

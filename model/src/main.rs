//! Explores with bounds as large as there is time and memory for.

use std::process::ExitCode;

use clap::Parser;
use oncelog_model::{bounds::Bounds, broken::Broken, explore, scenarios};

/// Every order of events between the real session and the real pipeline, within small bounds.
///
/// Exits with 0 if all of it was explored and no promise is broken, with 1 if one is, and with 3 if --states ended a scenario
/// before.
#[derive(Debug, Parser)]
#[command(name = "oncelog-model")]
struct Args {
    /// Only this scenario; all of them by default.
    scenario: Option<String>,
    /// Most states of a scenario; about 5 KiB of memory for each at the border.
    #[arg(long, default_value_t = 1_000_000)]
    states: usize,
    /// The bounds of the tests, not the larger ones.
    #[arg(long)]
    small: bool,
    /// Break a rule on purpose.
    #[arg(long = "break", value_parser = broken)]
    broken: Option<Broken>,
    /// Give one of the machines a defect.
    #[cfg(feature = "deliberate-defects")]
    #[arg(long)]
    defect: Option<oncelog_defects::Defect>,
}

fn broken(name: &str) -> Result<Broken, String> {
    Broken::named(name).ok_or_else(|| format!("there is {}", Broken::ALL.map(Broken::name).join(", ")))
}

#[expect(clippy::disallowed_methods, reason = "the command says how long it took")]
fn main() -> ExitCode {
    let args = Args::parse();
    #[cfg(feature = "deliberate-defects")]
    args.defect.into_iter().for_each(oncelog_defects::choose);
    let (mut is_broken, mut is_cut_short) = (false, false);
    for scenario in scenarios::all() {
        if args.scenario.as_ref().is_some_and(|only| only != scenario.name) {
            continue;
        }
        let bounds = Bounds { broken: args.broken, ..if args.small { scenario.small } else { scenario.large } };
        let started = std::time::Instant::now();
        eprintln!("{}: {}", scenario.name, scenario.about);
        let report = explore::explore(bounds, args.states, |at| {
            eprint!("\r  depth {} states {} border {}   ", at.depth, at.states, at.border);
        });
        eprintln!(
            "\r  {} states, {} steps, depth {}, longest recovery {}, {:.1} s{}   ",
            report.states,
            report.transitions,
            report.depth,
            report.longest_recovery,
            started.elapsed().as_secs_f64(),
            if report.complete { ", all explored" } else { ", NOT all explored" }
        );
        is_cut_short |= !report.complete && report.counterexample.is_none();
        if let Some(found) = report.counterexample {
            eprintln!("  VIOLATION: {}", found.what);
            found.steps.iter().zip(1..).for_each(|(step, number)| eprintln!("  {number:3} {step}"));
            is_broken = true;
        }
    }
    match (is_broken, is_cut_short) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(CUT_SHORT),
        (false, false) => ExitCode::SUCCESS,
    }
}

/// The exit code if no promise was found broken and `--states` ended a scenario before all of it was explored.
const CUT_SHORT: u8 = 3;

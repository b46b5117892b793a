//! `oncelog-bench`: see README.md beside this crate.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use oncelog_bench::{
    bare::Bare,
    clock, instructions,
    machine::Machine,
    oncelog, pure,
    recording::{self, Recording},
    report::Report,
    rows::{self, Peers, Row, Scale},
    session::Session,
};
use tokio::signal::unix::{SignalKind, signal};

/// Measures oncelog, the limits of this machine and the peers, in turns, and writes a report.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// A quarter of the load and one round: shows that everything works, and is not a result.
    #[arg(long)]
    quick: bool,
    /// Only these rows, by name.
    #[arg(long, value_delimiter = ',', value_name = "ROW,ROW")]
    only: Vec<String>,
    /// Builds the services, installs the peers and ends: what follows finds both done.
    #[arg(long)]
    prepare: bool,
    /// Names the rows and ends.
    #[arg(long)]
    list: bool,
    /// Where the report goes.
    #[arg(long, value_name = "DIR", default_value = "bench-report")]
    out: PathBuf,
    /// A directory on the disk under test. It takes some 12 GB.
    #[arg(long, value_name = "DIR", default_value = "bench-data")]
    dir: PathBuf,
    /// Where peers are installed.
    #[arg(long, value_name = "DIR", default_value = "bench-tools")]
    tools: PathBuf,
    /// Rounds. Default: 5, with --quick 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Goes on with the report that is in --out: whole rounds of the same commit are kept, and those that it lacks are added.
    #[arg(long = "continue")]
    resume: bool,
    /// With --continue: measures the rows again that are named by --only.
    #[arg(long, requires = "resume", requires = "only")]
    anew: bool,
    /// Begins no round that would not end within so many minutes, as far as can be told.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<f64>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Counts the instructions of the pure parts and compares them with the table that is kept.
    Instructions {
        /// Keeps the counts as the new table.
        #[arg(long)]
        write: bool,
        /// By so many percent a count may differ.
        #[arg(long, default_value_t = 2.0)]
        tolerance: f64,
    },
    /// A server that does nothing.
    #[command(hide = true)]
    Bare {
        #[command(subcommand)]
        which: Bare,
    },
    /// Does one pure thing so many times.
    #[command(hide = true)]
    Pure { name: String, times: u64 },
}

// As the services: what is compared with them has to run as they do.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Bare { which }) => which.serve().await,
        Some(Command::Pure { name, times }) => pure::run(&name, times),
        Some(Command::Instructions { write, tolerance }) => instructions::compare(write, tolerance),
        None => run(cli.run).await,
    }
}

async fn run(run: Run) -> anyhow::Result<()> {
    let scale = if run.quick { Scale::Quick } else { Scale::Full };
    // What is wrong with the command line is said before anything is built.
    let planned = chosen(rows::all(scale, &Peers::default()), &run.only)?;
    if run.list {
        for row in planned {
            let entries: Vec<_> = row.entries.iter().map(|entry| entry.name.as_str()).collect();
            let peers = if row.takes_peers { "; the peers" } else { "" };
            eprintln!("{:<16} {} [{}{peers}]", row.name, row.about, entries.join("; "));
        }
        return Ok(());
    }
    oncelog::build()?;
    std::fs::create_dir_all(&run.dir).with_context(|| format!("{} cannot be made", run.dir.display()))?;
    let dir = std::fs::canonicalize(&run.dir)?;
    let peers = if planned.iter().any(|row| row.takes_peers) { Peers::install(&run.tools) } else { Peers::default() };
    for (name, why) in &peers.missing {
        eprintln!("{name} cannot be had: {why}");
    }
    if run.prepare {
        return Ok(());
    }
    let report = Report {
        machine: Machine::describe(&dir),
        began: clock::unix_seconds(),
        is_quick: run.quick,
        versions: peers.versions.clone(),
        missing: peers.missing.clone(),
        sizes: oncelog::sizes()?,
        rows: Vec::new(),
    };
    let mut report = if run.resume { report.continued(&run.out)? } else { report };
    if run.anew {
        report.rows.retain(|kept| planned.iter().all(|row| row.name != kept.name));
    }
    let rounds = run.rounds.unwrap_or(if run.quick { 1 } else { 5 });
    let recording = Recording {
        table: rows::all(scale, &Peers::default()).iter().map(|row| row.name).collect(),
        rows: chosen(rows::all(scale, &peers), &run.only)?,
        rounds: usize::from(rounds),
        scale,
        time: run.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
        out: run.out.clone(),
        session: Session { directory: dir, attempts: if run.quick { 1 } else { ATTEMPTS } },
    };
    eprintln!("this takes some {} on two quiet cores", recording::shown(recording.expected(&mut report)));
    let lacking = tokio::select! {
        lacking = recording.run(&mut report) => lacking?,
        () = interrupted() => bail!("interrupted; whole rounds are in {}, and --continue goes on", run.out.display()),
    };
    eprintln!("the report is {}", run.out.join("report.md").display());
    if lacking > 0 {
        eprintln!("{lacking} rounds are left; --continue goes on with them");
    }
    let failed = report.failed().count();
    ensure!(failed == 0, "{failed} runs failed; the report tells why");
    Ok(())
}

/// SIGINT or SIGTERM. What is dropped then stops its servers and removes its directory.
async fn interrupted() {
    let mut term = signal(SignalKind::terminate()).expect("SIGTERM can be listened for");
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn chosen(rows: Vec<Row>, only: &[String]) -> anyhow::Result<Vec<Row>> {
    let known: Vec<&str> = rows.iter().map(|row| row.name).collect();
    if let Some(unknown) = only.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no row {unknown}; there are {}", known.join(", "));
    }
    Ok(rows.into_iter().filter(|row| only.is_empty() || only.iter().any(|name| name == row.name)).collect())
}

/// Runs until a quiet one.
const ATTEMPTS: usize = 3;

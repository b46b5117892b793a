//! `oncelog-bench`: see README.md beside this crate.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use oncelog_bench::{
    bare::Bare,
    clock, instructions,
    machine::Machine,
    oncelog, pure,
    report::Report,
    rows::{self, Peers, Row, Scale},
    session::Session,
};

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
    if run.list {
        for row in chosen(rows::all(scale, &Peers::default()), &run.only)? {
            let entries: Vec<_> = row.entries.iter().map(|entry| entry.name.as_str()).collect();
            eprintln!("{:<16} {} [{}]", row.name, row.about, entries.join("; "));
        }
        return Ok(());
    }
    // What is wrong with the command line is said before anything is built.
    chosen(rows::all(scale, &Peers::default()), &run.only)?;
    oncelog::build()?;
    std::fs::create_dir_all(&run.dir).with_context(|| format!("{} cannot be made", run.dir.display()))?;
    let dir = std::fs::canonicalize(&run.dir)?;
    let peers = Peers::install(&run.tools);
    for (name, why) in &peers.missing {
        eprintln!("{name} cannot be had: {why}");
    }
    let rows = chosen(rows::all(scale, &peers), &run.only)?;
    let mut report = Report {
        machine: Machine::describe(&dir),
        began: clock::unix_seconds(),
        is_quick: run.quick,
        versions: peers.versions.clone(),
        missing: peers.missing.clone(),
        sizes: oncelog::sizes()?,
        rows: Vec::new(),
    };
    let rounds = run.rounds.unwrap_or(if run.quick { 1 } else { 5 });
    let session = Session { directory: dir, rounds: usize::from(rounds) };
    for row in &rows {
        report.rows.push(session.run(row).await?);
        // After each row: what was measured is not lost with what comes later.
        report.write(&run.out)?;
    }
    let failed = report.rows.iter().flat_map(|row| &row.runs).filter(|run| run.outcome.is_err()).count();
    eprintln!("the report is {}", run.out.join("report.md").display());
    ensure!(failed == 0, "{failed} runs failed; the report tells why");
    Ok(())
}

fn chosen(rows: Vec<Row>, only: &[String]) -> anyhow::Result<Vec<Row>> {
    let known: Vec<&str> = rows.iter().map(|row| row.name).collect();
    if let Some(unknown) = only.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no row {unknown}; there are {}", known.join(", "));
    }
    Ok(rows.into_iter().filter(|row| only.is_empty() || only.iter().any(|name| name == row.name)).collect())
}

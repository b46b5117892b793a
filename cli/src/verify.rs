//! `oncelog verify`: is what was promised true of this log?
//!
//! At rest (`--data-dir`): every byte of the journal is read beside a stopped broker, and nothing is changed. Running: everything
//! is fetched and described by the contract. With a history of calls, as `oncelog send --history` writes one, what callers were
//! told is held against what is there; without one, what can be seen from the log alone.

pub(crate) mod offline;
pub(crate) mod read_only;
pub(crate) mod verdict;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use oncelog_verify::{HistoryFile, Log, Report, judge, judge_log, live};

use self::verdict::Verdict;
use crate::{
    connect,
    exit::Exit,
    output::{self, Output},
    progress::Progress,
};

/// What `oncelog verify` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory of a broker's journal; the broker has to be stopped. Default: a running broker is asked.
    #[arg(long, value_name = "DIR", conflicts_with = "broker")]
    data_dir: Option<PathBuf>,
    /// The broker's address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051", env = "ONCELOG_BROKER")]
    broker: String,
    #[command(flatten)]
    secured: connect::Secured,
    /// Topic to read, again for each. Default: all of them.
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
    /// What was sent and answered, as `oncelog send --history` wrote it.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// The form of the verdict.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Verifies, and tells.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let verdict = match &args.data_dir {
        Some(directory) => {
            let (directory, topics, history) = (directory.clone(), args.topic.clone(), args.history.clone());
            // It reads and computes all the time.
            tokio::task::spawn_blocking(move || offline::verify(&directory, &topics, history.as_deref())).await??
        }
        None => running(&args).await?,
    };
    output::heard(verdict.tell(args.output, args.history.as_deref()))?;
    Ok(if verdict.is_sound() { Exit::Success } else { Exit::NotSound }.into())
}

async fn running(args: &Args) -> anyhow::Result<Verdict> {
    let mut client = connect::broker(&args.broker, &args.secured).await?;
    let mut progress = Progress::start("fetching");
    let read = live::read(&mut client, &args.topic, &mut |at| progress.at(at.read, at.total)).await;
    progress.end();
    let read = read.with_context(|| format!("reading the broker at {}", args.broker))?;
    let mut verdict = Verdict::new(judged(&read.log, args.history.as_deref())?, &read.log);
    if !read.quiet {
        verdict.notes.push("the log was written to meanwhile: what the broker says of its producers was not compared".to_owned());
    }
    Ok(verdict)
}

fn judged(log: &Log, history: Option<&std::path::Path>) -> anyhow::Result<Report> {
    Ok(match history {
        Some(path) => judge(log, &HistoryFile::new(path))?,
        None => judge_log(log),
    })
}

//! `oncelog completions`: a script for a shell.

use std::{io, process::ExitCode};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{Cli, exit::Exit};

/// What `oncelog completions` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell. For bash: `source <(oncelog completions bash)`.
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes the script to stdout.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "oncelog", &mut script);
    io::Write::write_all(&mut io::stdout(), &script)?;
    Ok(Exit::Success.into())
}

//! `oncelog man`: the manual, made from what `--help` says.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::CommandFactory;

use crate::{Cli, exit::Exit};

/// What `oncelog man` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write a page for the command and one for each sub-command into this directory, as in /usr/share/man/man1. Default: the
    /// page of the command, to stdout: `oncelog man | man -l -`.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Writes the pages.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let command = Cli::command();
    match args.directory {
        Some(directory) => {
            fs::create_dir_all(&directory).with_context(|| format!("--directory {}", directory.display()))?;
            clap_mangen::generate_to(command, &directory).with_context(|| format!("--directory {}", directory.display()))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            io::stdout().write_all(&page)?;
        }
    }
    Ok(Exit::Success.into())
}

//! `--output`: for people, or for programs.

use std::io::{self, Write};

use serde::Serialize;

/// The form of what is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Writes a JSON object in a line of its own to stdout.
pub(crate) fn json(told: &impl Serialize) -> io::Result<()> {
    // By way of a buffer: serde_json hides what kind of error writing had, and a broken pipe is none to report.
    let mut line = serde_json::to_vec(told).map_err(io::Error::other)?;
    line.push(b'\n');
    io::stdout().write_all(&line)
}

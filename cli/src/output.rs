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

/// A verdict stays what it is when nobody reads it to its end: `oncelog verify … | head -1` ends with the verdict's number.
pub(crate) fn heard<E: Into<anyhow::Error>>(told: Result<(), E>) -> anyhow::Result<()> {
    told.map_err(Into::into).or_else(|error| if is_broken_pipe(&error) { Ok(()) } else { Err(error) })
}

/// Whoever reads our output has enough of it.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes a JSON object in a line of its own to stdout.
pub(crate) fn json(told: &impl Serialize) -> io::Result<()> {
    // By way of a buffer: serde_json hides what kind of error writing had, and a broken pipe is none to report.
    let mut line = serde_json::to_vec(told).map_err(io::Error::other)?;
    line.push(b'\n');
    io::stdout().write_all(&line)
}

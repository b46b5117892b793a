//! How the command ends: a number for scripts, the same for every sub-command.

use std::{fmt, process::ExitCode};

use anyhow::Error;

/// The number, and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, and everything is as it should be.
    Success,
    /// It was not done, or not all of it; the message says why.
    Failed,
    /// The command line cannot be understood.
    Usage,
    /// Nobody answers at the address of a service.
    Unreachable,
    /// A service answered, and refused; the message has its code and reason.
    Refused,
    /// A verification found that something promised is not true.
    NotSound,
    /// Of some records nobody knows whether they are in the log; sending them again may write them twice.
    Unknown,
    /// Ended by Ctrl-C or another signal that asks for the end.
    Interrupted,
}

impl Exit {
    /// Every one of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Success,
        Self::Failed,
        Self::Usage,
        Self::Unreachable,
        Self::Refused,
        Self::NotSound,
        Self::Unknown,
        Self::Interrupted,
    ];

    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Refused => 4,
            Self::NotSound => 5,
            Self::Unknown => 6,
            // What a shell reports for a process that SIGINT ended.
            Self::Interrupted => 130,
        }
    }

    /// A line for --help and the documents.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done, and everything is as it should be",
            Self::Failed => "not done, or not all of it; the message says why",
            Self::Usage => "the command line cannot be understood; nothing was done",
            Self::Unreachable => "nobody answers at the address of a service",
            Self::Refused => "a service answered and refused; the message has its code and reason",
            Self::NotSound => "a verification found that something promised is not true",
            Self::Unknown => {
                "send, bench: nobody knows of some records whether they are in the log; sent again they may be twice"
            }
            Self::Interrupted => "ended by Ctrl-C or SIGTERM",
        }
    }

    /// An error that ends the command so.
    pub(crate) fn because(self, message: impl fmt::Display) -> Error {
        Error::new(Because { exit: self, message: message.to_string() })
    }

    /// How the command ends after this error.
    pub(crate) fn of(error: &Error) -> Self {
        error.downcast_ref::<Because>().map_or(Self::Failed, |because| because.exit)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.number().into()
    }
}

/// The table for --help.
pub(crate) fn table() -> String {
    let lines = Exit::ALL.map(|exit| format!("  {:>3}  {}", exit.number(), exit.meaning()));
    format!("Exit codes:\n{}", lines.join("\n"))
}

#[derive(Debug)]
struct Because {
    exit: Exit,
    message: String,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Because {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_reason_is_found_under_what_was_said_around_it() {
        let error = Err::<(), _>(Exit::Unreachable.because("nobody is there")).context("sending").context("twice");
        let error = error.expect_err("it is one");
        assert_eq!(Exit::of(&error), Exit::Unreachable);
        assert_eq!(format!("{error:#}"), "twice: sending: nobody is there");
        assert_eq!(Exit::of(&anyhow!("anything else")), Exit::Failed);
    }

    #[test]
    fn every_number_means_one_thing() {
        assert_eq!(Exit::ALL.map(Exit::number).into_iter().collect::<BTreeSet<_>>().len(), Exit::ALL.len());
    }
}

//! What can go wrong, by who has to act: the process (end), the caller (refuse, go on), the operator (decide).

use std::io;

use oncelog_proto::Offset;

/// The disk failed where the outcome decides what is durable. Nothing more is acknowledged; the process ends, and the next
/// opening finds out what is there (I8).
#[derive(Debug, thiserror::Error)]
#[error("{doing} {file} failed: {source}; the process has to end, and the next start finds out what is on the disk")]
pub struct Fatal {
    pub(super) doing: &'static str,
    pub(super) file: String,
    pub(super) source: io::Error,
}

impl Fatal {
    pub(super) fn new(doing: &'static str, file: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_string();
        move |source| Self { doing, file, source }
    }
}

/// There is no room for a further segment. Nothing of the group was written, the journal is as it was: refuse and go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the disk has {free} bytes free and a new segment needs {needed}; free some space or lower the retention limits")]
pub struct NoSpace {
    /// What a new segment needs, in bytes.
    pub needed: u64,
    /// What there is.
    pub free: u64,
}

/// Why a group was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No room; the journal is as it was.
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    /// The outcome is unknown; the process ends.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// Why a journal was not opened. Nothing was changed, unless the disk itself failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What was durable is missing or changed. Never repaired silently.
    #[error("{file} is damaged at byte {position}: {what}. {advice}")]
    Damaged {
        /// The file.
        file: String,
        /// Where in it, in bytes.
        position: u64,
        /// What was found.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// A snapshot speaks of groups that the journal does not hold.
    #[error("the state is ahead of the log: {snapshot} was taken after {what}. {}", advice::AHEAD)]
    StateAheadOfLog {
        /// The snapshot's file.
        snapshot: String,
        /// What the journal lacks.
        what: String,
    },
    /// Another process has it open.
    #[error("another process has the journal open; end that one first")]
    Locked,
    /// A newer version wrote it.
    #[error("{file} was written by a newer version: {what}. Use that version; nothing was changed")]
    NewerFormat {
        /// The file.
        file: String,
        /// How it was recognised.
        what: String,
    },
    /// Locks of such a file system may exclude nobody.
    #[error("the data directory is on {0}, a network file system; use a disk of this machine or a block volume")]
    NetworkFileSystem(&'static str),
    /// An option is out of its range.
    #[error("{0}")]
    Options(String),
    /// Not even room for a small segment.
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    /// Whoever folds the entries does not accept one.
    #[error("{file}: the state refuses what the journal holds: {what}. {}", advice::KEEP)]
    Refused {
        /// The file.
        file: String,
        /// As it said.
        what: String,
    },
    /// The disk failed.
    #[error("{doing} {file} failed: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(doing: &'static str, file: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_string();
        move |source| Self::Io { doing, file, source }
    }

    pub(super) fn damaged(file: impl ToString, position: u64, what: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_string(), position, what: what.into(), advice: advice::KEEP }
    }
}

impl From<Fatal> for OpenError {
    fn from(Fatal { doing, file, source }: Fatal) -> Self {
        Self::Io { doing, file, source }
    }
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// They are no longer part of the log.
    #[error("the offset asked for is no longer in the log; the next one that is, is {next}")]
    Trimmed {
        /// The lowest offset above the one asked for that can be read.
        next: Offset,
    },
    /// They are not what was written. Other ranges can still be read.
    #[error("{file} is damaged at byte {position}: {what}; other ranges can still be read, these need a copy of the file")]
    Damaged {
        /// The file.
        file: String,
        /// Where in it, in bytes.
        position: u64,
        /// What was found.
        what: String,
        /// Where to go on reading; none if that is not known.
        next: Option<Offset>,
    },
    /// The disk failed.
    #[error("reading {file} failed: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
}

/// Why a snapshot was not taken. The older ones are as they were.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Try again later; nothing is deleted meanwhile.
    #[error("the snapshot {file} was not taken: {source}")]
    Dropped {
        /// Its file.
        file: String,
        /// What the disk said, or what was read back.
        source: io::Error,
    },
    /// The names in the directory are in doubt; the process ends.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// What to tell an operator.
mod advice {
    pub(super) const KEEP: &str =
        "Nothing was changed. Copy the directory before anything else; then check the disk and restore the file from a backup";
    pub(super) const AHEAD: &str = "Nothing was changed. The journal's end is missing: restore the directory as a whole";
}

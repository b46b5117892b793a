//! What an opening found and did, for the log and for whoever decides how to go on.

use super::position::Position;

/// How an opening went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenReport {
    /// The directory was empty.
    pub first_opening: bool,
    /// Counts openings of this directory, from 1.
    pub opening: u64,
    /// Names the journal, for ever.
    pub cluster: [u8; 16],
    /// How often the directory was restored from a backup.
    pub incarnation: u64,
    /// The file system is not one to trust with data; its name.
    pub doubtful_file_system: Option<&'static str>,
    /// The snapshot that the state was restored from.
    pub snapshot: Option<String>,
    /// Snapshots that could not be used, and why. Worth an alarm: there is one witness fewer.
    pub damaged_snapshots: Vec<String>,
    /// Groups folded on top of the snapshot.
    pub groups_replayed: u64,
    /// Behind the last group; its time is when the broker was last known to run.
    pub last: Position,
    /// The last stop was a clean one.
    pub clean: bool,
    /// A torn group was cut off.
    pub cut: Option<Cut>,
    /// Indexes that were made anew.
    pub indexes_rebuilt: usize,
}

/// A group that was being written when the machine stopped. Nobody was told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment's file.
    pub file: String,
    /// The byte it was cut at.
    pub position: u64,
    /// Bytes that were cut, up to the last one that was not zero.
    pub bytes: u64,
    /// Where a copy of them is. The eight newest copies are kept.
    pub copy: String,
    /// What was wrong with the group.
    pub what: String,
}

/// How far an opening has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of journal folded.
    pub bytes: u64,
    /// Bytes to fold.
    pub total: u64,
}

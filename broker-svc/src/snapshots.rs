//! The thread that keeps a second copy of the state, folded from released groups only, and writes it down now and then.
//!
//! The live state may be ahead of the disk; a snapshot of it could tell of groups that a crash takes away. This copy never is.

use std::sync::mpsc::Receiver;

use oncelog_proto::Timestamp;

use crate::{
    entry::Entry,
    journal::{Fatal, Position, SnapshotError, SnapshotWriter},
    state::State,
};

/// A durable group, without its payloads.
#[derive(Debug)]
pub(crate) struct Released {
    pub(crate) entries: Vec<Entry>,
    pub(crate) time: Timestamp,
    /// Where it ends.
    pub(crate) at: Position,
    /// A snapshot is due.
    pub(crate) snapshot_due: bool,
}

/// The thread's belongings.
pub(crate) struct Snapshots {
    pub(crate) state: State,
    pub(crate) released: Receiver<Released>,
    pub(crate) writer: SnapshotWriter,
}

impl Snapshots {
    /// Runs until the committer is gone.
    ///
    /// # Errors
    /// The names in the directory are in doubt; the process ends.
    pub(crate) fn run(self) -> Result<(), Fatal> {
        let Self { mut state, released, writer } = self;
        while let Ok(group) = released.recv() {
            fold(&mut state, &group);
            if !group.snapshot_due {
                continue;
            }
            // While the chunks are written the groups that come meanwhile are folded, between one chunk and the next: the
            // committer waits for this thread only if it is very far behind.
            let chunks = state.to_chunks();
            let mut paced = chunks.into_iter().inspect(|_| released.try_iter().for_each(|group| fold(&mut state, &group)));
            match writer.write(group.at, &mut paced) {
                Ok(()) => tracing::info!(at = %group.at, "snapshot written"),
                Err(SnapshotError::Fatal(fatal)) => return Err(fatal),
                // Nothing is deleted meanwhile; the next one is due after as many bytes again.
                Err(error) => tracing::error!(%error, "no snapshot"),
            }
        }
        Ok(())
    }
}

fn fold(state: &mut State, group: &Released) {
    for entry in &group.entries {
        state.apply(entry, group.time).expect("the live state took the same entries in the same order");
    }
}

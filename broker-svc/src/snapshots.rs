//! The loop that keeps a second copy of the state, folded from released groups only, and writes it down now and then.
//!
//! The live state may be ahead of the disk; a snapshot of it could tell of groups that a crash takes away. This copy never is.

use std::iter;

use oncelog_proto::Timestamp;
use tokio::sync::mpsc;

use crate::{
    entry::Entry,
    journal::{Fatal, Position, SnapshotError, SnapshotWriter},
    state::State,
    workers::Workers,
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

/// The loop's belongings.
pub(crate) struct Snapshots {
    pub(crate) state: State,
    pub(crate) released: mpsc::Receiver<Released>,
    pub(crate) writer: SnapshotWriter,
    pub(crate) workers: Workers,
}

impl Snapshots {
    /// Runs until the committer is gone.
    ///
    /// # Errors
    /// The names in the directory are in doubt; the process ends.
    pub(crate) async fn run(self) -> Result<(), Fatal> {
        let Self { mut state, mut released, writer, workers } = self;
        while let Some(group) = released.recv().await {
            fold(&mut state, &group);
            if !group.snapshot_due {
                continue;
            }
            // While the chunks are written the groups that come meanwhile are folded, between one chunk and the next: the
            // committer waits for this loop only if it is very far behind.
            let chunks = state.to_chunks();
            let mut paced = chunks
                .into_iter()
                .inspect(|_| iter::from_fn(|| released.try_recv().ok()).for_each(|group| fold(&mut state, &group)));
            match writer.write(group.at, &mut paced) {
                Ok(()) => tracing::info!(at = %group.at, "snapshot written"),
                Err(SnapshotError::Fatal(fatal)) => return Err(fatal),
                // Nothing is deleted meanwhile; the next one is due after as many bytes again.
                Err(error) => tracing::error!(%error, "no snapshot"),
            }
            workers.disk_time().await;
        }
        Ok(())
    }
}

fn fold(state: &mut State, group: &Released) {
    for entry in &group.entries {
        state.apply(entry, group.time).expect("the live state took the same entries in the same order");
    }
}

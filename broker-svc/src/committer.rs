//! The thread that owns the journal: one write, one sync, then the word to the owner. When it has nothing to do it writes the
//! marker that bears witness to the last group, and looks after retention.
//!
//! An error of a write or a sync ends the thread, and with it the process: what is on the disk is unknown from then on, and the
//! state must not live longer than the log (I8).

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError},
    time::{Duration, Instant},
};

use oncelog_proto::Timestamp;
use tokio::sync::mpsc;

use crate::{
    entry::{Entry, Trimmed},
    journal::{Fatal, Group, GroupPosition, Journal, Retention},
    owner::Clocks,
};

/// A group on its way to the disk.
#[derive(Debug)]
pub(crate) struct ToCommit {
    pub(crate) group: Group,
    /// Say so when it is written, too, before it is synced.
    pub(crate) tell_written: bool,
}

/// What the thread tells the owner.
#[derive(Debug)]
pub(crate) enum Committed {
    Written,
    Synced { room: u64 },
    Room(u64),
    TrimPlanned { through_segment: u64, trimmed: Vec<Trimmed> },
}

/// A durable group without its payloads, for the thread that keeps a second copy of the state.
#[derive(Debug)]
pub(crate) struct Released {
    pub(crate) at: GroupPosition,
    pub(crate) time: Timestamp,
    pub(crate) entries: Vec<Entry>,
}

/// The thread's belongings.
pub(crate) struct Committer {
    pub(crate) journal: Journal,
    pub(crate) retention: Retention,
    pub(crate) clocks: Clocks,
    pub(crate) groups: Receiver<ToCommit>,
    pub(crate) committed: mpsc::Sender<Committed>,
    pub(crate) released: SyncSender<Released>,
}

impl Committer {
    /// Runs until the owner is gone; then the journal is closed with a marker that says that the end is clean.
    ///
    /// # Errors
    /// The disk failed. Nothing more was or will be told to anybody.
    #[expect(clippy::disallowed_methods, reason = "the shell decides when it is idle by a clock")]
    pub(crate) fn run(mut self) -> Result<(), Fatal> {
        let mut last_retention = Instant::now();
        let mut trim_pending = false;
        loop {
            match self.groups.recv_timeout(IDLE) {
                Ok(to_commit) => {
                    trim_pending &= !to_commit.group.entries.iter().any(|entry| matches!(entry, Entry::Trim { .. }));
                    self.commit(to_commit)?;
                }
                Err(RecvTimeoutError::Timeout) => self.journal.write_marker(false)?,
                Err(RecvTimeoutError::Disconnected) => return self.journal.write_marker(true),
            }
            if last_retention.elapsed() >= RETENTION_PAUSE {
                last_retention = Instant::now();
                self.tell(Committed::Room(self.journal.room()));
                if !trim_pending {
                    trim_pending = self.plan_trim();
                }
            }
        }
    }

    fn commit(&mut self, to_commit: ToCommit) -> Result<(), Fatal> {
        let ToCommit { group, tell_written } = to_commit;
        let at = self.journal.write(&group)?;
        if tell_written {
            self.tell(Committed::Written);
        }
        self.journal.sync()?;
        self.tell(Committed::Synced { room: self.journal.room() });
        let Group { time, entries, payloads } = group;
        drop(payloads);
        let released = Released { at, time, entries };
        // A full queue means that folding is slower than writing, which then waits; a missing reader, that snapshots were given up.
        if let Err(TrySendError::Full(released)) = self.released.try_send(released) {
            let _ = self.released.send(released);
        }
        Ok(())
    }

    fn plan_trim(&self) -> bool {
        let plan = self.journal.plan_trim(self.retention, self.clocks.now().wall);
        let Some((through_segment, trimmed)) = plan else { return false };
        self.tell(Committed::TrimPlanned { through_segment, trimmed });
        true
    }

    /// An owner that is gone does not want to know; the end of `groups` says so next.
    fn tell(&self, committed: Committed) {
        let _ = self.committed.blocking_send(committed);
    }
}

/// How long nothing may happen before the last group gets its witness.
const IDLE: Duration = Duration::from_millis(20);
/// Between two looks at the retention and at the room that is left.
const RETENTION_PAUSE: Duration = Duration::from_secs(1);

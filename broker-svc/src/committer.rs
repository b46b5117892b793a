//! The loop that owns the journal: one write, one sync, then the word to the owner. When it has nothing to do it writes the
//! marker that bears witness to the last group, and looks after retention.
//!
//! An error of a write or a sync ends it, and with it the process: what is on the disk is unknown from then on, and the state
//! must not live longer than the log (I8).

use std::{mem, sync::Arc, time::Duration};

use oncelog_defects::{Defect, is_on};
use oncelog_edge::{
    names,
    trace::{Kind, Span, Tracer, as_value},
};
use oncelog_proto::{ErrorCode, Timestamp, trace::Joined};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use crate::{
    entry::{Entry, Trimmed},
    journal::{Fatal, Group, Journal, MARKER_BYTES, Retention, Stats, WriteError},
    metrics::Groups,
    snapshots::Released,
    workers::Workers,
};

/// A group on its way to the disk.
#[derive(Debug)]
pub(crate) struct ToCommit {
    pub(crate) group: Group,
    /// Say so when it is written, too, before it is synced.
    pub(crate) tell_written: bool,
    /// Of the batches in it.
    pub(crate) traces: Joined,
}

/// A group that is being committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Underway {
    /// Since when.
    pub(crate) since: Instant,
    /// The disk was full when it was tried last.
    pub(crate) waits_for_space: bool,
}

/// What the owner is told.
#[derive(Debug)]
pub(crate) enum Committed {
    Written,
    Synced { room: u64 },
    Room(u64),
    TrimPlanned { through_segment: u64, trimmed: Vec<Trimmed> },
}

/// The loop's belongings.
pub(crate) struct Committer {
    pub(crate) journal: Journal,
    pub(crate) workers: Workers,
    pub(crate) retention: Retention,
    pub(crate) groups: mpsc::Receiver<ToCommit>,
    pub(crate) committed: mpsc::Sender<Committed>,
    pub(crate) released: mpsc::Sender<Released>,
    pub(crate) stats: watch::Sender<Stats>,
    /// What is being done about a group, and since when; nothing between two groups.
    pub(crate) underway: watch::Sender<Option<Underway>>,
    /// Every group is counted.
    pub(crate) groups_committed: Arc<Groups>,
    /// And one with a batch in a trace is recorded.
    pub(crate) tracer: Tracer,
}

impl Committer {
    /// Runs until the owner is gone; then the journal is closed with a marker that says that the end is clean.
    ///
    /// # Errors
    /// The disk failed. Nothing more was or will be told to anybody.
    pub(crate) async fn run(mut self) -> Result<(), Fatal> {
        let mut last_look = Instant::now();
        let mut last_group = (Instant::now(), self.journal.position().time());
        let mut room = self.journal.room();
        let mut is_trimming = false;
        let mut last_snapshot = Instant::now();
        self.tell(Committed::Room(room)).await;
        loop {
            match timeout(IDLE, self.groups.recv()).await {
                Ok(Some(to_commit)) => {
                    is_trimming &= !to_commit.group.entries().iter().any(|entry| matches!(entry, Entry::Trim { .. }));
                    last_group = (Instant::now(), to_commit.group.time());
                    room = room.saturating_sub(self.commit(to_commit, room).await?);
                }
                Ok(None) => return self.journal.write_marker(true),
                Err(_) => {
                    self.journal.write_marker(false)?;
                    self.workers.disk_time().await;
                }
            }
            if last_look.elapsed() >= LOOK_PAUSE {
                last_look = Instant::now();
                room = self.journal.room();
                self.tell(Committed::Room(room)).await;
                self.stats.send_replace(self.journal.stats());
                // By the time of groups, which no jump of the wall clock moves.
                let now = last_group.1.plus(last_group.0.elapsed());
                if !is_trimming {
                    is_trimming = self.plan_trim(now).await;
                }
                if !is_trimming && last_snapshot.elapsed() >= SNAPSHOT_PAUSE && self.journal.lacks_snapshots(self.retention, now)
                {
                    last_snapshot = Instant::now();
                    self.ask_for_snapshot(last_group.1).await?;
                }
            }
        }
    }

    /// Returns the bytes that it took.
    async fn commit(&mut self, to_commit: ToCommit, room: u64) -> Result<u64, Fatal> {
        let ToCommit { group, tell_written, traces } = to_commit;
        let (bytes, count) = (group.bytes_on_disk(), group.entries().len());
        // With the marker that follows when it gets quiet.
        let taken = bytes + MARKER_BYTES;
        let mut span = self.tracer.join("commit", Kind::Internal, &traces);
        span.set(names::BYTES, i64::try_from(bytes).unwrap_or(i64::MAX));
        span.set(names::ENTRIES, as_value(count));
        let began = Instant::now();
        self.underway.send_replace(Some(Underway { since: began, waits_for_space: false }));
        self.write(&group).await.inspect_err(|fatal| failed(&mut span, fatal))?;
        let time = group.time();
        let (mut entries, _) = group.into_parts();
        if is_on(Defect::SnapshotAheadOfLog) {
            self.release(mem::take(&mut entries), time).await;
        }
        self.workers.disk_time().await;
        let written = Instant::now();
        if tell_written {
            self.tell(Committed::Written).await;
        }
        let syncing = Instant::now();
        let at = self.journal.sync().inspect_err(|fatal| failed(&mut span, fatal))?;
        self.workers.disk_time().await;
        self.underway.send_replace(None);
        let sync = syncing.elapsed();
        span.set(names::GROUP, i64::try_from(at.group().get()).unwrap_or(i64::MAX));
        span.set(names::SYNC_SECONDS, sync.as_secs_f64());
        drop(span);
        // First, so that whoever has an answer finds the group counted.
        self.groups_committed.committed(bytes, count, written - began, sync);
        self.tell(Committed::Synced { room: room.saturating_sub(taken) }).await;
        self.release(entries, time).await;
        Ok(taken)
    }

    /// The last group is durable, and may be folded into what snapshots are taken of.
    async fn release(&self, entries: Vec<Entry>, time: Timestamp) {
        let (at, snapshot_due) = (self.journal.position(), self.journal.snapshot_due());
        // A full queue means that folding is slower than writing, which then waits; a missing reader, that the process ends.
        let _ = self.released.send(Released { entries, time, at, snapshot_due }).await;
    }

    /// The owner asks for room before it promises a place. If somebody else fills the disk in between, the group has to wait for
    /// space: the state is ahead of the journal by it, so it can be neither refused nor forgotten.
    async fn write(&mut self, group: &Group) -> Result<(), Fatal> {
        loop {
            match self.journal.write(group) {
                Ok(_) => return Ok(()),
                Err(WriteError::Fatal(fatal)) => return Err(fatal),
                Err(WriteError::NoSpace(error)) => {
                    tracing::error!(%error, "the disk is full; calls that were taken wait until there is space");
                    self.underway.send_modify(|underway| {
                        *underway = underway.map(|underway| Underway { waits_for_space: true, ..underway });
                    });
                    sleep(FULL_PAUSE).await;
                }
            }
        }
    }

    /// Of the state as it is, for the sake of retention. It needs two of them, so it may ask twice.
    async fn ask_for_snapshot(&mut self, time: Timestamp) -> Result<(), Fatal> {
        let at = self.journal.snapshot_position()?;
        self.workers.disk_time().await;
        if let Some(at) = at {
            tracing::info!(%at, "retention waits for a snapshot, so one is taken now");
            let _ = self.released.send(Released { entries: Vec::new(), time, at, snapshot_due: true }).await;
        }
        Ok(())
    }

    async fn plan_trim(&self, now: Timestamp) -> bool {
        let Some((through_segment, trimmed)) = self.journal.plan_trim(self.retention, now) else { return false };
        tracing::info!(through_segment, partitions = trimmed.len(), "retention: the oldest segments go");
        self.tell(Committed::TrimPlanned { through_segment, trimmed }).await;
        true
    }

    /// An owner that is gone does not want to know; the end of `groups` says so next.
    async fn tell(&self, committed: Committed) {
        let _ = self.committed.send(committed).await;
    }
}

/// The group may be durable or not: the next start finds out.
fn failed(span: &mut Span, fatal: &Fatal) {
    span.fail_with(ErrorCode::KafkaStorageError.reason(), fatal.to_string());
}

/// How long nothing may happen before the last group gets its witness.
const IDLE: Duration = Duration::from_millis(20);
/// Between two looks at the retention and at the room that is left.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Between two snapshots that nothing but retention asks for: one takes time, and may fail.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(10);
/// Between two tries on a full disk.
const FULL_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use oncelog_proto::{Offset, Timestamp, TraceContext};
    use opentelemetry::trace::{Status, TracerProvider as _};
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};

    use super::*;
    use crate::{
        entry::{Entry, PartitionId},
        journal::{
            self, GroupDraft, Options,
            sim_disk::{Operation, SimDisk},
        },
        state::State,
    };

    /// What is told is what the next admission counts on: a marker comes behind each group when it gets quiet, and takes its
    /// part.
    #[tokio::test(start_paused = true)]
    async fn the_room_that_is_told_behind_a_group_is_there_behind_its_marker_too() {
        let options = Options { spares: 0, ballast_bytes: 0, ..Options::new(1) };
        let disk = SimDisk::new();
        let (journal, _) = journal::open(Arc::new(disk.clone()), options, &mut State::default(), &mut |_| {}).expect("opens");
        disk.set_capacity(Some(disk.used()));
        let group_limit = journal.group_limit();
        let (to_commit, groups) = mpsc::channel(1);
        let (committed, mut told) = mpsc::channel(16);
        let (released, _released) = mpsc::channel(16);
        let (stats, _) = watch::channel(journal.stats());
        let retention = Retention::default();
        let (workers, groups_committed, tracer) = (Workers::Threads, Arc::default(), Tracer::off());
        let underway = watch::Sender::new(None);
        let committer =
            Committer { journal, workers, retention, groups, committed, released, stats, underway, groups_committed, tracer };
        tokio::spawn(committer.run());
        let mut room = async || loop {
            match told.recv().await {
                Some(Committed::Room(room) | Committed::Synced { room }) => return room,
                Some(Committed::Written | Committed::TrimPlanned { .. }) => {}
                None => panic!("the committer ended"),
            }
        };
        room().await;
        let mut after = 0;
        for second in 1..=10 {
            let mut draft = GroupDraft::new(group_limit);
            draft.push(Entry::Opened { downtime: Duration::ZERO, is_clock_doubtful: false });
            let group = draft.finish(Timestamp::from_micros(second));
            to_commit.send(ToCommit { group, tell_written: false, traces: Joined::default() }).await.expect("it runs");
            after = room().await;
            sleep(2 * IDLE).await;
        }
        sleep(2 * LOOK_PAUSE).await;
        assert!(room().await >= after, "nobody else took any");
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_waits_for_space_is_told_as_such_until_it_is_durable() {
        let options = Options { segment_bytes: 1 << 20, spares: 0, ballast_bytes: 0, ..Options::new(1) };
        let disk = SimDisk::new();
        let (journal, _) = journal::open(Arc::new(disk.clone()), options, &mut State::default(), &mut |_| {}).expect("opens");
        let group_limit = journal.group_limit();
        let (to_commit, groups) = mpsc::channel(1);
        let (committed, mut told) = mpsc::channel(16);
        let (released, _released) = mpsc::channel(16);
        let (stats, _) = watch::channel(journal.stats());
        let (workers, retention) = (Workers::Threads, Retention::default());
        let (groups_committed, tracer) = (Arc::default(), Tracer::off());
        let (underway, mut seen) = watch::channel(None);
        let committer =
            Committer { journal, workers, retention, groups, committed, released, stats, underway, groups_committed, tracer };
        tokio::spawn(committer.run());
        tokio::spawn(async move { while told.recv().await.is_some() {} });
        // Room for what is there, and for no further segment.
        disk.set_capacity(Some(disk.used()));
        tokio::spawn(async move {
            for second in 1..=4 {
                let lost = |id| Trimmed { partition: PartitionId(id), log_start: Offset::ZERO, bytes: 1 };
                let mut draft = GroupDraft::new(group_limit);
                draft.push(Entry::Trim { through_segment: 0, partitions: (0..20_000).map(lost).collect() });
                let group = draft.finish(Timestamp::from_micros(second));
                to_commit.send(ToCommit { group, tell_written: false, traces: Joined::default() }).await.expect("it runs");
            }
        });
        let waits = |underway: &Option<Underway>| underway.is_some_and(|underway| underway.waits_for_space);
        let waiting = timeout(100 * FULL_PAUSE, seen.wait_for(waits)).await.expect("there is no space");
        let since = waiting.expect("it runs").expect("just seen").since;
        sleep(10 * FULL_PAUSE).await;
        assert_eq!(*seen.borrow(), Some(Underway { since, waits_for_space: true }), "since it was taken");
        disk.set_capacity(None);
        timeout(100 * FULL_PAUSE, seen.wait_for(Option::is_none)).await.expect("there is space").expect("it runs");
    }

    /// Commits one group with a batch in a trace, where an operation may fail; returns whether it was committed, whether snapshots may
    /// tell of it, and its span.
    async fn commit(fails: Option<Operation>) -> (bool, bool, SpanData) {
        let disk = SimDisk::new();
        let options = Options { segment_bytes: 1 << 20, spares: 0, ballast_bytes: 0, ..Options::new(1) };
        let opened = journal::open(Arc::new(disk.clone()), options, &mut State::default(), &mut |_| {});
        let (journal, _) = opened.expect("it opens on an empty disk");
        let mut draft = GroupDraft::new(journal.group_limit());
        draft.push(Entry::Opened { downtime: Duration::ZERO, is_clock_doubtful: false });
        let group = draft.finish(Timestamp::from_micros(1));
        let (to_commit, groups) = mpsc::channel(1);
        let mut traces = Joined::default();
        traces.extend(TraceContext::new([1; 16], [2; 8]));
        to_commit.send(ToCommit { group, tell_written: false, traces }).await.expect("there is room for one");
        drop(to_commit);
        let (committed, _told) = mpsc::channel(16);
        let (release, mut released) = mpsc::channel(16);
        let (stats, _) = watch::channel(journal.stats());
        let (workers, retention) = (Workers::Threads, Retention::default());
        if let Some(operation) = fails {
            disk.fail(operation, 0);
        }
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let tracer = Tracer::new(provider.tracer("test"));
        let (groups_committed, underway) = (Arc::default(), watch::Sender::new(None));
        let committer = Committer {
            journal,
            workers,
            retention,
            groups,
            committed,
            released: release,
            stats,
            underway,
            groups_committed,
            tracer,
        };
        let ended = committer.run().await;
        let [span] = &exporter.get_finished_spans().expect("whole")[..] else { panic!("one span") };
        (ended.is_ok(), released.recv().await.is_some(), span.clone())
    }

    #[tokio::test]
    async fn what_is_folded_into_snapshots_is_durable() {
        let (is_committed, is_released, _) = commit(None).await;
        assert!(is_committed && is_released);
        let (is_committed, is_released, _) = commit(Some(Operation::Sync)).await;
        assert!(!is_committed && !is_released);
    }

    #[tokio::test]
    async fn a_commit_that_failed_is_recorded_as_such_with_what_it_was_of() {
        for (fails, is_good) in [(None, true), (Some(Operation::Write), false), (Some(Operation::Sync), false)] {
            let (is_committed, _, span) = commit(fails).await;
            let said =
                |key: &str| span.attributes.iter().find(|said| said.key.as_str() == key).map(|said| said.value.to_string());
            assert_eq!((is_committed, span.status == Status::Unset), (is_good, is_good), "{fails:?}");
            assert_eq!(said(names::ERROR_TYPE).as_deref(), (!is_good).then_some("KAFKA_STORAGE_ERROR"), "{fails:?}");
            assert_eq!(said(names::ENTRIES).as_deref(), Some("1"), "{fails:?}");
            assert!(said(names::BYTES).is_some(), "{fails:?}");
            assert_eq!((said(names::GROUP).is_some(), said(names::SYNC_SECONDS).is_some()), (is_good, is_good), "{fails:?}");
        }
    }
}

//! What the broker tells of itself in numbers: each metric's definition, and where it is read from.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use oncelog_edge::{
    metrics::{
        Histogram, Metric, Registry, Unit,
        calls::{Calls, Side},
    },
    names,
};
use oncelog_proto::ErrorCode;
use tokio::sync::watch;

use crate::{journal::Stats, owner::Vitals, pipeline::Counts};

/// Where the numbers come from.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// Calls that are answered.
    pub(crate) calls: Arc<Calls>,
    /// Of the owner's task.
    pub(crate) vitals: watch::Receiver<Vitals>,
    /// Set when the journal is open.
    pub(crate) journal: Arc<OnceLock<watch::Receiver<Stats>>>,
    /// How long the opening took; set when the journal is open.
    pub(crate) recovery: Arc<OnceLock<Duration>>,
    /// Of the committer.
    pub(crate) groups: Arc<Groups>,
    /// What was told to callers.
    pub(crate) refusals: Arc<Refusals>,
}

/// Which of the owner's counts.
type Count = fn(&Counts) -> u64;

/// The groups of the journal, as they were committed.
#[derive(Debug)]
pub(crate) struct Groups {
    bytes: Arc<Histogram>,
    entries: Arc<Histogram>,
    writes: Arc<Histogram>,
    syncs: Arc<Histogram>,
}

/// Batches that were refused, by their code.
#[derive(Debug)]
pub(crate) struct Refusals(Vec<(ErrorCode, AtomicU64)>);

impl Sources {
    /// All of them, as they are told.
    pub(crate) fn registry(self) -> Registry {
        let Self { calls, vitals, journal, recovery, groups, refusals } = self;
        let mut all = Registry::default();
        all.info(&BUILD_INFO, env!("CARGO_PKG_VERSION"));
        calls.register(&mut all, Side::Server, &CALLS_ACTIVE);

        let of_counts = |count: Count| {
            let vitals = vitals.clone();
            move || Some(count(&vitals.borrow().counts))
        };
        let outcomes: [(_, Count); 3] = [
            ("appended", |counts| counts.appended_batches),
            ("duplicate", |counts| counts.duplicate_batches),
            ("refused", |counts| counts.refused_batches),
        ];
        let told = vitals.clone();
        all.counters(&BATCHES, outcomes, move |count| Some(count(&told.borrow().counts)));
        let codes = refusals.0.iter().map(|(code, _)| (code.reason(), *code)).collect::<Vec<_>>();
        all.counters(&BATCHES_REFUSED, codes, move |code| refusals.of(code));
        all.counter(&RECORDS_APPENDED, of_counts(|counts| counts.appended_records));
        all.counter(&RECORDS_DUPLICATE, of_counts(|counts| counts.duplicate_records));
        all.counter(&WINDOW_MISSES, of_counts(|counts| counts.window_misses));
        all.counter(&BATCHES_HELD, of_counts(|counts| counts.held_batches));
        all.counter(&PRODUCERS_EXPIRED, of_counts(|counts| counts.expired_producers));

        let of_vitals = |size: fn(&Vitals) -> usize| {
            let vitals = vitals.clone();
            move || Some(size(&vitals.borrow()) as u64)
        };
        all.gauge(&PRODUCERS, of_vitals(|vitals| vitals.producers));
        all.gauge(&WINDOWS, of_vitals(|vitals| vitals.windows));
        all.gauge(&TOPICS, of_vitals(|vitals| vitals.topics));
        all.gauge(&PARTITIONS, of_vitals(|vitals| vitals.partitions));
        all.gauge(&HELD_BATCHES, of_vitals(|vitals| vitals.held_batches));
        all.gauge(&HELD_BYTES, of_vitals(|vitals| vitals.held_bytes));

        let of_journal = |number: fn(&Stats) -> u64| {
            let journal = Arc::clone(&journal);
            move || journal.get().map(|stats| number(&stats.borrow()))
        };
        all.gauge(&JOURNAL_BYTES, of_journal(|stats| stats.bytes));
        all.gauge(&JOURNAL_SEGMENTS, of_journal(|stats| stats.segments as u64));
        all.counter(&JOURNAL_GROUPS, of_journal(|stats| stats.durable.group().get()));
        all.gauge(&JOURNAL_SNAPSHOTS, of_journal(|stats| stats.snapshots as u64));
        all.measured(&RECOVERY, move || recovery.get().map(Duration::as_secs_f64));
        all.histogram(&GROUP_BYTES, &groups.bytes);
        all.histogram(&GROUP_ENTRIES, &groups.entries);
        all.histogram(&WRITES, &groups.writes);
        all.histogram(&SYNCS, &groups.syncs);
        all
    }
}

impl Default for Groups {
    fn default() -> Self {
        let (bytes, entries) = (Histogram::of_bytes(), Histogram::of_counts());
        let (writes, syncs) = (Histogram::of_syncs(), Histogram::of_syncs());
        Self { bytes: bytes.into(), entries: entries.into(), writes: writes.into(), syncs: syncs.into() }
    }
}

impl Groups {
    /// A group is durable.
    pub(crate) fn committed(&self, bytes: u64, entries: usize, write: Duration, sync: Duration) {
        self.bytes.record(bytes);
        self.entries.record(entries as u64);
        self.writes.record_time(write);
        self.syncs.record_time(sync);
    }
}

impl Default for Refusals {
    fn default() -> Self {
        let codes = (0..CODES).filter_map(|number| ErrorCode::try_from(number).ok());
        Self(codes.map(|code| (code, AtomicU64::new(0))).collect())
    }
}

impl Refusals {
    /// A batch was refused.
    pub(crate) fn note(&self, code: ErrorCode) {
        if let Some((_, count)) = self.0.iter().find(|(known, _)| *known == code) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// None were: it need not be told.
    fn of(&self, code: ErrorCode) -> Option<u64> {
        let (_, count) = self.0.iter().find(|(known, _)| *known == code)?;
        Some(count.load(Ordering::Relaxed)).filter(|&count| count > 0)
    }
}

/// Above the highest number of an error code.
const CODES: i32 = 1_100;

static BUILD_INFO: Metric =
    Metric::new("oncelog.broker.build_info", Unit::Count("build"), "Always 1; its label tells the version.").by(&["version"]);
static CALLS_ACTIVE: Metric = Metric::new("oncelog.broker.calls.active", Unit::Count("call"), "Calls that are being answered.");
static BATCHES: Metric =
    Metric::new("oncelog.broker.batches", Unit::Count("batch"), "Batches whose outcome was decided.").by(&["outcome"]);
static BATCHES_REFUSED: Metric =
    Metric::new("oncelog.broker.batches.refused", Unit::Count("batch"), "Batches whose refusal was told, by the code.")
        .by(&[names::ERROR_TYPE]);
static RECORDS_APPENDED: Metric = Metric::new("oncelog.broker.records.appended", Unit::Count("record"), "Records appended.");
static RECORDS_DUPLICATE: Metric = Metric::new(
    "oncelog.broker.records.duplicate",
    Unit::Count("record"),
    "Records that were in the log already and were not appended again.",
);
static WINDOW_MISSES: Metric = Metric::new(
    "oncelog.broker.window.misses",
    Unit::Count("batch"),
    "Batches below the window: in the log, with an offset that is forgotten.",
);
static BATCHES_HELD: Metric =
    Metric::new("oncelog.broker.batches.held", Unit::Count("batch"), "Batches that waited for their predecessors.");
static PRODUCERS_EXPIRED: Metric =
    Metric::new("oncelog.broker.producers.expired", Unit::Count("producer"), "Producer ids forgotten.");
static PRODUCERS: Metric = Metric::new("oncelog.broker.producers", Unit::Count("producer"), "Producer ids known.");
static WINDOWS: Metric =
    Metric::new("oncelog.broker.windows", Unit::Count("window"), "Pairs of producer and partition remembered.");
static TOPICS: Metric = Metric::new("oncelog.broker.topics", Unit::Count("topic"), "Topics.");
static PARTITIONS: Metric = Metric::new("oncelog.broker.partitions", Unit::Count("partition"), "Partitions of all topics.");
static HELD_BATCHES: Metric =
    Metric::new("oncelog.broker.held.batches", Unit::Count("batch"), "Batches waiting for their predecessors.");
static HELD_BYTES: Metric = Metric::new("oncelog.broker.held.bytes", Unit::Bytes, "Bytes of the batches that wait.");
static JOURNAL_BYTES: Metric = Metric::new("oncelog.broker.journal.bytes", Unit::Bytes, "Bytes of the journal's segments.");
static JOURNAL_SEGMENTS: Metric =
    Metric::new("oncelog.broker.journal.segments", Unit::Count("segment"), "Segments of the journal.");
static JOURNAL_GROUPS: Metric =
    Metric::new("oncelog.broker.journal.groups", Unit::Count("group"), "Number of the last durable group.");
static JOURNAL_SNAPSHOTS: Metric =
    Metric::new("oncelog.broker.journal.snapshots", Unit::Count("snapshot"), "Verified snapshots.");
static RECOVERY: Metric =
    Metric::new("oncelog.broker.recovery.duration", Unit::Seconds, "How long reading the journal took at the start.");
static GROUP_BYTES: Metric =
    Metric::new("oncelog.broker.group.bytes", Unit::Bytes, "Sizes of the groups that were committed, as on disk.");
static GROUP_ENTRIES: Metric =
    Metric::new("oncelog.broker.group.entries", Unit::Count("entry"), "Entries of the groups that were committed.");
static WRITES: Metric =
    Metric::new("oncelog.broker.write.duration", Unit::Seconds, "Writing a group, waiting for space included.");
static SYNCS: Metric = Metric::new("oncelog.broker.sync.duration", Unit::Seconds, "Making a group durable.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_on_observability_shows_every_metric() {
        let sources = Sources {
            calls: Arc::new(Calls::of(&[])),
            vitals: watch::channel(Vitals::default()).1,
            journal: Arc::default(),
            recovery: Arc::default(),
            groups: Arc::default(),
            refusals: Arc::default(),
        };
        let table = sources.registry().table();
        let page = include_str!("../../docs/observability.md");
        assert!(page.contains(&table), "docs/observability.md should have this table:\n{table}");
    }

    #[test]
    fn every_code_is_counted() {
        let refusals = Refusals::default();
        let codes: Vec<_> = (0..100 * CODES).filter_map(|number| ErrorCode::try_from(number).ok()).collect();
        for &code in &codes {
            assert_eq!(refusals.of(code), None);
            refusals.note(code);
            assert_eq!(refusals.of(code), Some(1), "{code:?}");
        }
        assert!(codes.contains(&ErrorCode::SequenceConflict));
    }
}

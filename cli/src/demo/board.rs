//! What is known of a running demo, gathered for whoever shows it. Writers, readers and the one who breaks things put it here.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use oncelog_chaos::recorder::{Counted, Recorder};

use super::{
    audit::{Audit, Found, RecordId},
    mishap::Mishap,
    traffic::Traffic,
    wire_tap::Heard,
};
use crate::latency::{Latency, Percentiles};

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) seed: u64,
    /// How long things fail.
    pub(super) duration: Duration,
    pub(super) idempotence: bool,
}

/// The board. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Board(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    asked: Asked,
    began: Instant,
    phase: Phase,
    struck: Vec<Struck>,
    heard: Option<Heard>,
    recorder: Option<Recorder>,
    audit: Audit,
    latency: Latency,
}

/// What a demo is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The services start.
    Starting,
    /// Things fail.
    Breaking,
    /// Everything runs again; what is open is answered.
    Healing,
    /// The log is read and held against what the writers were told.
    Verifying,
    Ended,
}

/// A mishap that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Struck {
    pub(super) mishap: Mishap,
    /// Since the first writer began.
    pub(super) at: Duration,
    /// How long it took until everything ran again; none: it lasts.
    pub(super) took: Option<Duration>,
}

/// The board as it was at one moment.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) asked: Asked,
    pub(super) now: Instant,
    /// Since the first writer began.
    pub(super) elapsed: Duration,
    pub(super) phase: Phase,
    pub(super) counted: Counted,
    pub(super) traffic: Traffic,
    pub(super) found: Found,
    pub(super) latency: Option<Percentiles>,
    pub(super) struck: Vec<Struck>,
}

impl Board {
    pub(super) fn new(asked: Asked, writers: usize, partitions: usize) -> Self {
        Self(Arc::new(Mutex::new(Known {
            asked,
            began: now(),
            phase: Phase::Starting,
            struck: Vec::new(),
            heard: None,
            recorder: None,
            audit: Audit::new(writers, partitions),
            latency: Latency::new(),
        })))
    }

    /// From now on things fail.
    pub(super) fn begin(&self, heard: Heard, recorder: Recorder) {
        let mut known = self.lock();
        known.began = now();
        known.phase = Phase::Breaking;
        (known.heard, known.recorder) = (Some(heard), Some(recorder));
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    pub(super) fn strikes(&self, mishap: Mishap) {
        let mut known = self.lock();
        let at = now().duration_since(known.began);
        known.struck.push(Struck { mishap, at, took: None });
    }

    /// Everything runs again.
    pub(super) fn mended(&self) {
        let mut known = self.lock();
        let elapsed = now().duration_since(known.began);
        if let Some(last) = known.struck.last_mut() {
            last.took = Some(elapsed.saturating_sub(last.at));
        }
    }

    /// A request was answered after `took`: these records are in the log, each at this place, if the answer knows one.
    pub(super) fn acknowledged(&self, took: Duration, records: impl Iterator<Item = (RecordId, i32, i64)>) {
        let mut known = self.lock();
        let mut count = 0;
        for (record, partition, offset) in records {
            count += 1;
            if let (Ok(partition), 0..) = (usize::try_from(partition), offset) {
                known.audit.acknowledged(record, partition, offset);
            }
        }
        known.latency.record(took, count);
    }

    /// A reader has come to this offset.
    pub(super) fn read(&self, partition: usize, offset: i64, record: Option<RecordId>) {
        self.lock().audit.read(partition, offset, record);
    }

    /// Where a reader goes on.
    pub(super) fn next_offset(&self, partition: usize) -> i64 {
        self.lock().audit.next(partition)
    }

    pub(super) fn view(&self) -> View {
        let known = self.lock();
        let now = now();
        let elapsed = if known.phase == Phase::Starting { Duration::ZERO } else { now.duration_since(known.began) };
        View {
            asked: known.asked,
            now,
            elapsed,
            phase: known.phase,
            counted: known.recorder.as_ref().map(Recorder::counted).unwrap_or_default(),
            traffic: known.heard.as_ref().map_or_else(Traffic::new, Heard::traffic),
            found: known.audit.found(),
            latency: known.latency.percentiles(),
            struck: known.struck.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "what is shown to a person is shown by a real clock")]
fn now() -> Instant {
    Instant::now()
}

//! The history of a round, and what is counted for whoever watches. Everybody who calls records through the same one, so that the
//! order of the lines is the order in which things were seen.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use oncelog_verify::{
    HistoryWriter,
    history::{Began, CallId, Event, FORMAT, Line, ProduceAnswer, SendOutcome},
};

/// Writes a history. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    /// A line is written whole, before the call that it speaks of goes out: what is waited for is a copy into memory.
    history: Mutex<Writing>,
    next_call: AtomicU64,
}

#[derive(Debug)]
struct Writing {
    out: HistoryWriter<File>,
    counted: Counted,
    failed: Option<io::Error>,
}

/// What was seen until now: records that were sent by `Send`, and batches of raw producers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Records sent.
    pub sent: u64,
    /// Of those: acknowledged.
    pub acknowledged: u64,
    /// Of those: certainly not in the log.
    pub refused: u64,
    /// Of those: in the log at most once.
    pub unknown: u64,
    /// Batches that raw producers sent, each time.
    pub produced: u64,
    /// Batches that raw producers sent again.
    pub retried: u64,
    /// Batches of raw producers that the broker recognised.
    pub duplicates_refused: u64,
}

impl Recorder {
    /// Begins a history in which nobody else writes, over networks that repeat nothing.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    #[expect(clippy::disallowed_methods, reason = "a recorder tells when things were seen, by a real clock")]
    pub fn create(path: &Path, expiration_ms: u64) -> io::Result<Self> {
        let out =
            HistoryWriter::create(path, Began { format: FORMAT, alone: true, once: true, expiration_ms: Some(expiration_ms) })?;
        let history = Mutex::new(Writing { out, counted: Counted::default(), failed: None });
        Ok(Self(Arc::new(Inner { started: Instant::now(), history, next_call: AtomicU64::new(0) })))
    }

    /// A name for a call.
    pub fn call(&self) -> CallId {
        CallId(self.0.next_call.fetch_add(1, Ordering::Relaxed))
    }

    /// Writes what was seen. An error is told by [`Self::finish`]: nobody who calls could do anything about it.
    pub fn saw(&self, event: Event) {
        let at = u64::try_from(self.0.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut writing = self.0.history.lock().unwrap_or_else(PoisonError::into_inner);
        writing.counted.count(&event);
        let written = writing.out.write(&Line { at, event });
        if let Err(error) = written {
            writing.failed.get_or_insert(error);
        }
    }

    /// Batches that are sent again; the events themselves do not say so.
    pub fn retried(&self, batches: u64) {
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner).counted.retried += batches;
    }

    /// What was counted until now.
    pub fn counted(&self) -> Counted {
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner).counted
    }

    /// Everything is in the file.
    ///
    /// # Errors
    /// Something of it could not be written.
    pub fn finish(&self) -> io::Result<()> {
        let mut writing = self.0.history.lock().unwrap_or_else(PoisonError::into_inner);
        match writing.failed.take() {
            Some(error) => Err(error),
            None => writing.out.flush(),
        }
    }
}

impl Counted {
    fn count(&mut self, event: &Event) {
        match event {
            Event::SendCalled(send) => self.sent += send.records.len() as u64,
            Event::SendAnswered { outcomes, .. } => {
                for outcome in outcomes {
                    match outcome {
                        SendOutcome::Accepted { .. } => self.acknowledged += 1,
                        SendOutcome::Refused(count) => self.refused += u64::from(*count),
                        SendOutcome::Unknown(count) => self.unknown += u64::from(*count),
                    }
                }
            }
            Event::ProduceCalled(_) => self.produced += 1,
            Event::ProduceAnswered { answer: ProduceAnswer::Acknowledged { duplicate: true, .. }, .. } => {
                self.duplicates_refused += 1
            }
            _ => {}
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            acknowledged: self.acknowledged + other.acknowledged,
            refused: self.refused + other.refused,
            unknown: self.unknown + other.unknown,
            produced: self.produced + other.produced,
            retried: self.retried + other.retried,
            duplicates_refused: self.duplicates_refused + other.duplicates_refused,
        }
    }
}

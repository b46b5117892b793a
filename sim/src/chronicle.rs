//! What happened in a run: the history that is judged, what the simulation did in between, and how often what happened.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use oncelog_verify::history::{CallId, Event, Line};
use sha2::{Digest, Sha256};

/// Keeps it. Clones are the same chronicle.
#[derive(Clone, Debug)]
pub(crate) struct Chronicle(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    lines: Vec<Line>,
    tallies: BTreeMap<String, u64>,
    failures: Vec<String>,
    /// Of everything that was told, so that two runs can be compared.
    digest: Sha256,
    now: Duration,
    next_call: u64,
    is_traced: bool,
}

impl Chronicle {
    pub(crate) fn new(is_traced: bool) -> Self {
        Self(Arc::new(Mutex::new(Kept {
            lines: Vec::new(),
            tallies: BTreeMap::new(),
            failures: Vec::new(),
            digest: Sha256::new(),
            now: Duration::ZERO,
            next_call: 0,
            is_traced,
        })))
    }

    /// A name for a call that is about to be made.
    pub(crate) fn call(&self) -> CallId {
        let mut kept = self.kept();
        kept.next_call += 1;
        CallId(kept.next_call)
    }

    /// Something that the history speaks of.
    pub(crate) fn note(&self, event: Event) {
        let mut kept = self.kept();
        let line = Line { at: kept.advance(), event };
        kept.tell(&serde_json::to_string(&line).expect("plain data"));
        kept.lines.push(line);
    }

    /// Something that the simulation did.
    pub(crate) fn deed(&self, what: &str) {
        let mut kept = self.kept();
        let at = kept.advance();
        kept.tell(&format!("{at} {what}"));
    }

    /// Counts what happened.
    pub(crate) fn count(&self, what: impl Into<String>) {
        self.add(what, 1);
    }

    pub(crate) fn add(&self, what: impl Into<String>, many: u64) {
        *self.kept().tallies.entry(what.into()).or_default() += many;
    }

    /// Something that must not be. It fails the run, whatever the judgement is.
    pub(crate) fn fail(&self, what: impl Into<String>) {
        let what = what.into();
        self.deed(&format!("FAILURE: {what}"));
        self.kept().failures.push(what);
    }

    /// Between two steps no host has the word; then this is the time.
    pub(crate) fn set_now(&self, now: Duration) {
        self.kept().now = now;
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.kept().lines.clone()
    }

    pub(crate) fn tallies(&self) -> BTreeMap<String, u64> {
        self.kept().tallies.clone()
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.kept().failures.clone()
    }

    pub(crate) fn digest(&self) -> String {
        let hash = self.kept().digest.clone().finalize();
        hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic elsewhere fails the run anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The hosts take their turns within a step, each with the whole of its time; here time never goes back.
    fn advance(&mut self) -> u64 {
        self.now = self.now.max(turmoil::sim_elapsed().unwrap_or_default());
        u64::try_from(self.now.as_micros()).expect("a run is short")
    }

    fn tell(&mut self, line: &str) {
        self.digest.update(line.as_bytes());
        self.digest.update(b"\n");
        if self.is_traced {
            // Nobody reads on: then nobody misses it.
            let _ = writeln!(io::stdout(), "{line}");
        }
    }
}

//! What `/metrics` tells, in Prometheus' text format.

use std::{
    fmt::Write,
    sync::{Arc, OnceLock},
};

use tokio::sync::watch;

use crate::{journal::Stats, owner::Vitals};

/// Where it is read from. Clones read the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) vitals: watch::Receiver<Vitals>,
    /// Set when the journal is open.
    pub(crate) journal: Arc<OnceLock<watch::Receiver<Stats>>>,
}

impl Metrics {
    pub(crate) fn text(&self) -> String {
        text(&self.vitals.borrow(), self.journal.get().map(|stats| *stats.borrow()).as_ref())
    }
}

fn text(vitals: &Vitals, journal: Option<&Stats>) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(&str, u64)]| {
        let name = format!("oncelog_broker_{name}");
        // Writing to a string does not fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let counts = vitals.counts;
    let outcomes = [
        ("{outcome=\"appended\"}", counts.appended_batches),
        ("{outcome=\"duplicate\"}", counts.duplicate_batches),
        ("{outcome=\"refused\"}", counts.refused_batches),
    ];
    family("batches_total", "counter", "Batches whose outcome was decided.", &outcomes);
    family("records_appended_total", "counter", "Records appended.", &[("", counts.appended_records)]);
    family("batches_held_total", "counter", "Batches that waited for their predecessors.", &[("", counts.held_batches)]);
    family("producers_expired_total", "counter", "Producer ids forgotten.", &[("", counts.expired_producers)]);
    family("producers", "gauge", "Producer ids known.", &[("", vitals.producers as u64)]);
    family("windows", "gauge", "Pairs of producer and partition remembered.", &[("", vitals.windows as u64)]);
    family("topics", "gauge", "Topics.", &[("", vitals.topics as u64)]);
    family("partitions", "gauge", "Partitions of all topics.", &[("", vitals.partitions as u64)]);
    family("held_batches", "gauge", "Batches waiting for their predecessors.", &[("", vitals.held_batches as u64)]);
    family("held_bytes", "gauge", "Bytes of these.", &[("", vitals.held_bytes as u64)]);
    if let Some(journal) = journal {
        family("journal_bytes", "gauge", "Bytes of the journal's segments.", &[("", journal.bytes)]);
        family("journal_segments", "gauge", "Segments of the journal.", &[("", journal.segments as u64)]);
        family("journal_groups_total", "counter", "Number of the last durable group.", &[("", journal.durable.group().get())]);
        family("journal_snapshots", "gauge", "Verified snapshots.", &[("", journal.snapshots as u64)]);
    }
    text
}

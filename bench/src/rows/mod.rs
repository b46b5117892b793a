//! The table of rows: what is measured, against what, with which load.
//!
//! A further row is one more entry of [`all`]; everything else (rounds, repeats, report, plots) follows from it.

pub(crate) mod costs;
pub(crate) mod latency;
mod peers;
mod throughput;

use std::{cell::Cell, rc::Rc, time::Duration};

pub use peers::Peers;

use crate::{
    calls::produce::{Shape, Transport},
    candidate::Entry,
    metric::Metric,
    oncelog::{Calling, Calls, Content, Settings, Side},
};

/// Candidates that are measured in turns with the same load, or with loads that differ in what the row is about.
#[derive(Debug)]
pub struct Row {
    /// What `--only` calls it.
    pub name: &'static str,
    /// What it is about, in a sentence.
    pub about: &'static str,
    /// What is plotted and what ratios are made of.
    pub metric: Metric,
    /// How long a round takes at full load on a machine of two cores, in seconds. Only an expectation: nothing is cut off by it.
    pub round_seconds: u32,
    /// Do the peers take part, if they can be had?
    pub takes_peers: bool,
    /// Who takes part, in the order of their turns; ratios are against the first.
    pub entries: Vec<Entry>,
}

impl Row {
    /// How long a round is expected to take.
    pub fn round_time(&self, scale: Scale) -> Duration {
        match scale {
            Scale::Full => Duration::from_secs(self.round_seconds.into()),
            // Starting servers takes as long as ever.
            Scale::Quick => Duration::from_secs(self.round_seconds.into()) / 2,
        }
    }
}

/// How much is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As much as a result needs.
    Full,
    /// A quarter: enough to see that everything works.
    Quick,
}

impl Scale {
    fn records(self, full: u64) -> u64 {
        match self {
            Self::Full => full,
            Self::Quick => full.div_ceil(4),
        }
    }

    fn seconds(self, full: f64) -> f64 {
        match self {
            Self::Full => full,
            Self::Quick => full / 4.0,
        }
    }
}

/// All rows, in the order of the report.
pub fn all(scale: Scale, peers: &Peers) -> Vec<Row> {
    let mut rows = throughput::rows(scale);
    rows.extend(peers::rows(scale, peers));
    rows.extend(latency::rows(scale, peers));
    rows.extend(costs::rows(scale));
    rows
}

/// The shape of `Produce` at its peak: 8 producers with 5 calls each out, one batch of 256 KiB a call.
const PEAK: Shape = Shape { producers: 8, outstanding: 5, batches: 1, batch_bytes: 256 << 10, transport: Transport::Unary };

/// Names of entries that more than one row has, or that a target speaks of.
pub mod names {
    #![allow(missing_docs, reason = "they are what they say")]
    pub const ONCELOG: &str = "oncelog";
    pub const ONCELOG_ONE: &str = "oncelog, one record a message";
    pub const ONCELOG_MANY: &str = "oncelog, 32 records a message";
    pub const ECHO: &str = "bare echo";
    pub const RELAY: &str = "bare relay";
    pub const JOURNAL_LOOP: &str = "raw journal loop";
    pub const FIO: &str = "fio";
    pub const LONE_SYNC: &str = "lone fdatasync";
    pub const JETSTREAM: &str = "JetStream";
    pub const JETSTREAM_ALWAYS: &str = "JetStream, sync always";
    pub const REDIS: &str = "Redis Streams, everysec";
    pub const REDIS_ALWAYS: &str = "Redis Streams, always";
    pub const RABBITMQ: &str = "RabbitMQ Streams";
    pub const KAFKA: &str = "Kafka";
    pub const KAFKA_FLUSH: &str = "Kafka, flush every message";
}

fn flags(flags: &[&str]) -> Vec<String> {
    flags.iter().map(|&flag| flag.to_owned()).collect()
}

fn group_size() -> Rc<Cell<usize>> {
    Rc::new(Cell::new(DEFAULT_GROUP_BYTES))
}

fn calling(calls: Calls, side: Side) -> Calling {
    Calling { calls, content: Content::Random, side, group_bytes: group_size() }
}

fn oncelog(calls: Calls, producer_flags: &[&str]) -> Calling {
    calling(calls, Side::Oncelog(Settings { producer: flags(producer_flags), ..Settings::default() }))
}

/// Of the raw journal loop, should oncelog not have run before it.
const DEFAULT_GROUP_BYTES: usize = 512 << 10;
/// What an acknowledgement of a bare server means.
const NOTHING: &str = "none: no state, no disk";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{candidate::Rate, targets};

    #[test]
    fn names_are_unique_and_every_rate_and_target_refers_to_an_entry_or_to_a_peer() {
        let rows = all(Scale::Full, &Peers::default());
        let names: HashSet<_> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows.len());
        for row in &rows {
            let mut before = HashSet::new();
            for entry in &row.entries {
                if let Rate::ShareOf { entry: other, .. } = entry.rate {
                    assert!(before.contains(other), "{}: {other}", row.name);
                }
                assert!(before.insert(entry.name.as_str()), "{}: {} twice", row.name, entry.name);
            }
        }
        let peers =
            [names::JETSTREAM, names::JETSTREAM_ALWAYS, names::REDIS_ALWAYS, names::RABBITMQ, names::KAFKA, names::KAFKA_FLUSH];
        for target in targets::all() {
            let row = rows.iter().find(|row| row.name == target.row).unwrap_or_else(|| panic!("no row {}", target.row));
            for name in std::iter::once(&target.of.0).chain(target.against.0) {
                let is_entry = row.entries.iter().any(|entry| entry.name == *name);
                assert!(is_entry || peers.contains(name), "{}: no entry {name}", target.measure);
            }
        }
    }
}

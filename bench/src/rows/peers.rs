//! The whole path beside what a user would pick instead.
//!
//! A peer takes part by one line in [`Peers::install`]. One that syncs after every message would need minutes for what others do
//! in seconds: it gets a share of the records. Rates and costs are for each record, so it loses nothing by that.

use std::{collections::BTreeMap, path::Path};

use super::{Row, Scale, names, oncelog};
use crate::{
    calls::stream::Shape,
    candidate::{Entry, OfPeer},
    load::Load,
    metric::Metric,
    oncelog::{Calls, DURABILITY},
    peers::{Installed, JetStream, Kafka, Missing, Peer, RabbitStreams, RedisStreams},
};

/// The peers of this machine.
#[derive(Default)]
pub struct Peers {
    makers: Vec<Box<dyn Fn(Load) -> Entry>>,
    /// What was installed, by name.
    pub versions: BTreeMap<String, String>,
    /// Who cannot be had, and why.
    pub missing: BTreeMap<String, String>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").field("versions", &self.versions).field("missing", &self.missing).finish_non_exhaustive()
    }
}

impl Peers {
    /// Installs all of them into `tools`.
    pub fn install(tools: &Path) -> Self {
        Self::default()
            .add(JetStream::syncing_by_default(), 1, tools)
            .add(JetStream::syncing_always(), 16, tools)
            .add(RedisStreams::syncing_every_second(), 1, tools)
            .add(RedisStreams::syncing_always(), 1, tools)
            .add(RabbitStreams::default(), 1, tools)
            .add(Kafka::flushing_by_default(), 1, tools)
            .add(Kafka::flushing_every_message(), 4, tools)
    }

    /// Installs one, which gets one of `share` records.
    fn add<P: Peer + Clone + 'static>(mut self, peer: P, share: u64, tools: &Path) -> Self {
        match peer.install(tools) {
            Ok(Installed(versions)) => {
                self.versions.extend(versions);
                self.makers.push(Box::new(move |load| {
                    let load = Load { records: load.records.div_ceil(share), ..load };
                    Entry::new(peer.name(), peer.durability(), load, OfPeer(peer.clone()))
                }));
            }
            Err(Missing(why)) => {
                self.missing.insert(peer.name().to_owned(), why);
            }
        }
        self
    }

    /// Each of them with a load.
    pub(super) fn entries(&self, load: Load) -> Vec<Entry> {
        self.makers.iter().map(|maker| maker(load)).collect()
    }
}

pub(super) fn rows(scale: Scale, peers: &Peers) -> Vec<Row> {
    vec![
        path(
            "path-1k",
            "The whole path, 8 partitions, records of 1 KiB, 8,192 unacknowledged.",
            1024,
            scale.records(300_000),
            peers,
        ),
        path(
            "path-100",
            "The whole path, 8 partitions, records of 100 B, 8,192 unacknowledged.",
            100,
            scale.records(1_000_000),
            peers,
        ),
    ]
}

fn path(name: &'static str, about: &'static str, record_bytes: usize, records: u64, peers: &Peers) -> Row {
    let load = Load { record_bytes, partitions: 8, records, unacknowledged: 8_192, rate: None };
    let by = |message_records| oncelog(Calls::Stream(Shape { streams: 8, message_records }), &[]);
    let one = Load { unacknowledged: 8_000, ..load };
    let mut entries =
        vec![Entry::new(names::ONCELOG_MANY, DURABILITY, load, by(32)), Entry::new(names::ONCELOG_ONE, DURABILITY, one, by(1))];
    entries.extend(peers.entries(load));
    Row { name, about, metric: Metric::RecordRate, round_seconds: 55, takes_peers: true, entries }
}

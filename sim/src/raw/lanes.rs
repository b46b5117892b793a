//! The tags of one producer id: which batch has which, and which of them are in doubt. A tag is given once.

use std::collections::BTreeMap;

use oncelog_proto::PackedBatch;
use oncelog_verify::history::{FencedPartition, Partition, Producer, Tag};

/// A batch that was tagged.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// Of its records: the same if they are tagged anew.
    pub(super) name: u64,
    pub(super) partition: Partition,
    pub(super) tag: Tag,
    pub(super) packed: PackedBatch,
}

/// Those of the current epoch, by partition.
#[derive(Debug, Default)]
pub(super) struct Lanes(BTreeMap<Partition, Lane>);

#[derive(Debug, Default)]
struct Lane {
    next: i64,
    /// From the lowest in doubt on, by base sequence; those in between that are settled are in it, too (R1).
    open: BTreeMap<i64, Open>,
}

#[derive(Debug)]
struct Open {
    batch: Batch,
    is_settled: bool,
}

impl Lanes {
    /// Tags the next batch of a partition. None: too many are in doubt.
    pub(super) fn tag(&mut self, producer: Producer, name: u64, partition: &Partition, packed: PackedBatch) -> Option<Batch> {
        let lane = self.0.entry(partition.clone()).or_default();
        (lane.open.len() < SPAN).then(|| lane.push(producer, name, partition, packed))
    }

    /// Whose outcome is not known.
    pub(super) fn in_doubt(&self) -> Vec<Batch> {
        let open = self.0.values().flat_map(|lane| lane.open.values());
        open.filter(|open| !open.is_settled).map(|open| open.batch.clone()).collect()
    }

    /// This batch is in the log. Returns it, if that is news.
    pub(super) fn settle(&mut self, batch: &Batch) -> Option<Batch> {
        let lane = self.0.get_mut(&batch.partition)?;
        let open = lane.open.get_mut(&batch.tag.base_sequence).filter(|open| open.batch.name == batch.name)?;
        if std::mem::replace(&mut open.is_settled, true) {
            return None;
        }
        let settled = open.batch.clone();
        while lane.open.first_key_value().is_some_and(|(_, open)| open.is_settled) {
            lane.open.pop_first();
        }
        Some(settled)
    }

    /// The epoch was raised: what certainly is not in the log is tagged anew, in its order. Returns all old ones.
    pub(super) fn recover(&mut self, producer: Producer, fenced: &[FencedPartition]) -> Vec<Batch> {
        let mut old = Vec::new();
        for (partition, lane) in &mut self.0 {
            let in_log = fenced.iter().find(|fenced| fenced.partition == *partition).map_or(0, |fenced| fenced.next_sequence);
            let before = std::mem::take(lane);
            for (base, Open { batch, is_settled }) in before.open {
                if !is_settled && base >= in_log {
                    lane.push(producer, batch.name, partition, batch.packed.clone());
                }
                old.push(batch);
            }
        }
        old
    }

    /// All of them stay in doubt for good.
    pub(super) fn abandon(&mut self) -> Vec<Batch> {
        let lanes = std::mem::take(&mut self.0);
        lanes.into_values().flat_map(|lane| lane.open.into_values()).map(|open| open.batch).collect()
    }
}

impl Lane {
    fn push(&mut self, producer: Producer, name: u64, partition: &Partition, packed: PackedBatch) -> Batch {
        let tag = Tag { producer, base_sequence: self.next };
        self.next += i64::from(packed.count().get());
        let batch = Batch { name, partition: partition.clone(), tag, packed };
        self.open.insert(tag.base_sequence, Open { batch: batch.clone(), is_settled: false });
        batch
    }
}

/// Batches that may be in doubt at once (R1).
const SPAN: usize = 5;

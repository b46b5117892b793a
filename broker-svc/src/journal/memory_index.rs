//! The index of a segment as long as it is in memory: of the active segment, and of a sealed one whose file is not written yet.

use std::collections::BTreeMap;

use oncelog_proto::Offset;

use super::block::{Block, IndexedBatch};
use crate::entry::{PartitionId, Trimmed};

/// Blocks of every partition that has batches in the segment, in offset order.
#[derive(Debug, Default)]
pub(super) struct MemoryIndex(BTreeMap<PartitionId, Vec<Block>>);

impl MemoryIndex {
    /// Adds the next batch of its partition.
    pub(super) fn push(&mut self, batch: &IndexedBatch) {
        let blocks = self.0.entry(batch.append.partition).or_default();
        match blocks.last_mut() {
            Some(last) if !last.is_full() => last.push(batch),
            _ => blocks.push(Block::new(batch)),
        }
    }

    /// The partition's blocks; empty if it has none.
    pub(super) fn blocks(&self, partition: PartitionId) -> &[Block] {
        self.0.get(&partition).map_or(&[], Vec::as_slice)
    }

    /// Number of the partition's last block that starts at or below the offset.
    pub(super) fn find(&self, partition: PartitionId, offset: Offset) -> Option<usize> {
        self.blocks(partition).partition_point(|block| block.first() <= offset).checked_sub(1)
    }

    /// All blocks, by partition and offset.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PartitionId, &Block)> {
        self.0.iter().flat_map(|(partition, blocks)| blocks.iter().map(|block| (*partition, block)))
    }

    /// What each partition loses if the segment goes.
    pub(super) fn contents(&self) -> Vec<Trimmed> {
        let mut contents = Vec::new();
        for (partition, block) in self.iter() {
            add_trimmed(&mut contents, Trimmed { partition, log_start: block.end(), bytes: block.stored() });
        }
        contents
    }
}

/// Adds what goes with one more block. Blocks come sorted by partition and offset.
pub(super) fn add_trimmed(contents: &mut Vec<Trimmed>, block: Trimmed) {
    match contents.last_mut().filter(|last| last.partition == block.partition) {
        Some(last) => (last.log_start, last.bytes) = (block.log_start, last.bytes.saturating_add(block.bytes)),
        None => contents.push(block),
    }
}

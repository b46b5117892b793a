//! Sizes of a journal, for people and metrics.

use super::{
    catalog::{SegmentIndex, Shared},
    position::Position,
};

/// What a journal consists of at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Segments that are part of the log.
    pub segments: usize,
    /// Bytes in them, headers and padding included.
    pub bytes: u64,
    /// Behind the last durable group.
    pub durable: Position,
    /// Spares that are ready.
    pub spares: usize,
    /// Verified snapshots, at most 2.
    pub snapshots: usize,
    /// Segments that are no longer part of the log and still on the disk.
    pub doomed: usize,
    /// Sealed segments whose index is not in a file yet.
    pub unindexed: usize,
    /// The last segment that is no longer part of the log; 0 for none.
    pub trimmed_through: u64,
}

impl Stats {
    pub(super) fn of(shared: &Shared) -> Self {
        let catalog = shared.catalog();
        let sealed = |index: &SegmentIndex| matches!(index, SegmentIndex::Sealed(_));
        Self {
            segments: catalog.segments.len(),
            bytes: catalog.segments.values().map(|segment| segment.end.byte).sum(),
            durable: catalog.durable,
            spares: catalog.spares.len(),
            snapshots: catalog.snapshots.len(),
            doomed: catalog.doomed.len(),
            unindexed: catalog.segments.values().filter(|segment| sealed(&segment.index)).count(),
            trimmed_through: catalog.trimmed_through,
        }
    }
}

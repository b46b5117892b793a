//! What files there are and which durable batches are in them. Derived from the journal; shared by the one that writes it and by
//! those that read, tidy and take snapshots.
//!
//! A batch is entered once its group is durable, never before, so that no reader sees an offset whose content a power loss could
//! change.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use oncelog_proto::Offset;

use super::{
    block::IndexedBatch,
    disk::{Disk, LockGuard},
    identity::Identity,
    index_file::IndexFile,
    memory_index::MemoryIndex,
    options::Options,
    position::Position,
};
use crate::entry::PartitionId;

/// An open journal, as all its handles share it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) identity: Identity,
    pub(super) options: Options,
    catalog: RwLock<Catalog>,
    /// The directory stays locked as long as any handle can touch it.
    _lock: Box<dyn LockGuard>,
}

impl Shared {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        identity: Identity,
        options: Options,
        catalog: Catalog,
        lock: Box<dyn LockGuard>,
    ) -> Self {
        Self { disk, identity, options, catalog: RwLock::new(catalog), _lock: lock }
    }

    /// Held for lookups, never across a disk operation: the writer waits for it after each sync.
    pub(super) fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn catalog_mut(&self) -> RwLockWriteGuard<'_, Catalog> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Files and indexes.
#[derive(Debug)]
pub(super) struct Catalog {
    /// By number, without gaps; the last one is active.
    pub(super) segments: BTreeMap<u64, Segment>,
    /// Behind the last durable group.
    pub(super) durable: Position,
    /// The last segment that is no longer part of the log; 0 for none.
    pub(super) trimmed_through: u64,
    /// Segments that are no longer part of the log and still have to go, oldest first.
    pub(super) doomed: VecDeque<Doomed>,
    /// Spares that are ready, by number.
    pub(super) spares: VecDeque<u64>,
    /// Verified snapshots, oldest first, at most two.
    pub(super) snapshots: Vec<Position>,
    /// Bytes of durable groups since the newest snapshot that an opening found.
    pub(super) log_bytes: u64,
    /// What `log_bytes` was when a snapshot was last begun.
    pub(super) snapshot_begun: u64,
}

/// A segment that is part of the log.
#[derive(Debug)]
pub(super) struct Segment {
    /// Behind its header.
    pub(super) start: Position,
    /// Behind its last durable group.
    pub(super) end: Position,
    pub(super) index: SegmentIndex,
    /// Held by whoever reads the file just now.
    readers: Arc<Readers>,
}

/// A segment that is no longer part of the log.
#[derive(Debug)]
pub(super) struct Doomed {
    pub(super) number: u64,
    readers: Arc<Readers>,
}

/// Stands for those who read a segment's file: as long as there is one, the file is not filled anew under its eyes. New ones do
/// not come once the segment has left the catalog.
#[derive(Debug)]
pub(super) struct Readers;

/// Where the index of a segment is.
#[derive(Debug)]
pub(super) enum SegmentIndex {
    /// Growing.
    Active(MemoryIndex),
    /// Complete, to be written.
    Sealed(Arc<MemoryIndex>),
    /// In a file.
    File(Arc<IndexFile>),
}

/// A block of the index, to be unpacked without holding the catalog.
#[derive(Debug)]
pub(super) struct BlockRef {
    pub(super) segment: u64,
    /// Of the partition's blocks in this segment.
    pub(super) number: usize,
    pub(super) source: Source,
    /// The partition's last one in the active segment, as it was at that moment: nothing of the partition was behind it, and what
    /// it got since is not in it.
    pub(super) grows: bool,
}

/// Where the packed batches are.
#[derive(Debug)]
pub(super) enum Source {
    Memory(Vec<u8>),
    File(Arc<IndexFile>),
}

impl Catalog {
    /// The partition's last block that starts at or below the offset; if there is none, its first block.
    pub(super) fn block_at(&self, partition: PartitionId, offset: Offset) -> Option<BlockRef> {
        let mut oldest = None;
        for (number, segment) in self.segments.iter().rev() {
            if let Some(block) = segment.index.find(partition, offset) {
                return segment.index.block(*number, partition, block);
            }
            if segment.index.count(partition) > 0 {
                oldest = Some((*number, segment));
            }
        }
        oldest.and_then(|(number, segment)| segment.index.block(number, partition, 0))
    }

    /// The partition's next block.
    pub(super) fn block_after(&self, partition: PartitionId, segment: u64, number: usize) -> Option<BlockRef> {
        let same = self.segments.get(&segment).and_then(|s| s.index.block(segment, partition, number + 1));
        let later = || self.segments.range(segment + 1..).find_map(|(number, s)| s.index.block(*number, partition, 0));
        same.or_else(later)
    }

    /// Enters batches of the active segment, whose groups are durable up to `end`.
    pub(super) fn publish(&mut self, batches: &[IndexedBatch], end: Position) {
        let mut active = self.segments.last_entry().expect("there is an active segment");
        let SegmentIndex::Active(index) = &mut active.get_mut().index else { unreachable!("the last segment is active") };
        for batch in batches {
            index.push(batch);
        }
        let segment = active.get_mut();
        self.log_bytes += end.byte - segment.end.byte;
        segment.end = end;
        self.durable = end;
    }

    /// Seals the active segment and enters the next one, which replaces it if it has the same number.
    pub(super) fn roll(&mut self, next: Position) {
        if let Some(mut active) = self.segments.last_entry() {
            let index = &mut active.get_mut().index;
            if let SegmentIndex::Active(growing) = index {
                *index = SegmentIndex::Sealed(Arc::new(std::mem::take(growing)));
            }
        }
        let index = SegmentIndex::Active(MemoryIndex::default());
        self.segments.insert(next.segment, Segment::new(next, next, index));
    }

    /// The oldest segments are no longer part of the log, and an entry that says so is durable.
    pub(super) fn trim(&mut self, through: u64) {
        let kept = self.segments.split_off(&(through + 1));
        let gone = std::mem::replace(&mut self.segments, kept);
        self.doomed.extend(gone.into_iter().map(|(number, segment)| Doomed { number, readers: segment.readers }));
        self.trimmed_through = self.trimmed_through.max(through);
    }
}

impl Segment {
    pub(super) fn new(start: Position, end: Position, index: SegmentIndex) -> Self {
        Self { start, end, index, readers: Arc::new(Readers) }
    }

    /// To be held while the file is read.
    pub(super) fn reading(&self) -> Arc<Readers> {
        Arc::clone(&self.readers)
    }
}

impl Doomed {
    /// One that was out of the log before this opening.
    pub(super) fn unread(number: u64) -> Self {
        Self { number, readers: Arc::new(Readers) }
    }

    pub(super) fn is_read(&self) -> bool {
        Arc::strong_count(&self.readers) > 1
    }
}

impl SegmentIndex {
    fn find(&self, partition: PartitionId, offset: Offset) -> Option<usize> {
        match self {
            Self::Active(index) => index.find(partition, offset),
            Self::Sealed(index) => index.find(partition, offset),
            Self::File(index) => index.find(partition, offset),
        }
    }

    fn count(&self, partition: PartitionId) -> usize {
        match self {
            Self::Active(index) => index.blocks(partition).len(),
            Self::Sealed(index) => index.blocks(partition).len(),
            Self::File(index) => index.count(partition),
        }
    }

    fn block(&self, segment: u64, partition: PartitionId, number: usize) -> Option<BlockRef> {
        let memory = |index: &MemoryIndex| Some(Source::Memory(index.blocks(partition).get(number)?.bytes().to_vec()));
        let source = match self {
            Self::Active(index) => memory(index)?,
            Self::Sealed(index) => memory(index)?,
            Self::File(index) => (number < index.count(partition)).then(|| Source::File(Arc::clone(index)))?,
        };
        let grows = matches!(self, Self::Active(index) if number + 1 == index.blocks(partition).len());
        Some(BlockRef { segment, number, source, grows })
    }
}

#[cfg(test)]
mod tests {
    use oncelog_proto::{Compression, Offset, RecordCount, Timestamp};

    use super::*;
    use crate::{entry::Append, journal::block::MAX_BATCHES};

    const PARTITION: PartitionId = PartitionId(0);

    fn offset(number: u32) -> Offset {
        Offset::new(i64::from(number)).expect("not negative")
    }

    fn batches(from: u32, to: u32) -> Vec<IndexedBatch> {
        let append = |number| Append {
            partition: PARTITION,
            base_offset: offset(number),
            tag: None,
            count: RecordCount::new(1).expect("one"),
            compression: Compression::None,
            uncompressed_bytes: 1,
            data_len: 1,
            checksum: 0,
        };
        (from..to)
            .map(|number| IndexedBatch { append: append(number), time: Timestamp::from_micros(0), position: u64::from(number) })
            .collect()
    }

    fn blocks(catalog: &Catalog, from: u32) -> (usize, bool) {
        let block = catalog.block_at(PARTITION, offset(from)).expect("there is a block");
        (block.number, block.grows)
    }

    /// A reader that has come to the end of a block's copy may only go on to the next one if the copy has all that the block will
    /// ever have: otherwise what it got between two looks would look like a hole.
    #[test]
    fn the_last_block_of_the_active_segment_grows_and_no_other_does() {
        let position = Position::default();
        let mut catalog = Catalog {
            segments: BTreeMap::new(),
            durable: position,
            trimmed_through: 0,
            doomed: VecDeque::new(),
            spares: VecDeque::new(),
            snapshots: Vec::new(),
            log_bytes: 0,
            snapshot_begun: 0,
        };
        catalog.roll(position);
        catalog.publish(&batches(0, MAX_BATCHES), position);
        assert_eq!(blocks(&catalog, MAX_BATCHES), (0, true), "full, and still nothing is behind it");
        catalog.publish(&batches(MAX_BATCHES, MAX_BATCHES + 1), position);
        assert_eq!(blocks(&catalog, 0), (0, false));
        assert_eq!(blocks(&catalog, MAX_BATCHES), (1, true));
        catalog.roll(Position { segment: 1, ..position });
        assert_eq!(blocks(&catalog, MAX_BATCHES), (1, false), "sealed");
    }
}

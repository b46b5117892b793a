//! Reads durable batches: partition → segment → index → data, each checked on the way.

use std::{io, sync::Arc};

use bytes::Bytes;
use oncelog_defects::{Defect, is_on};
use oncelog_proto::{Offset, Timestamp};

use super::{
    block::{Batches, IndexedBatch},
    catalog::{BlockRef, SegmentIndex, Shared, Source},
    disk::{self, read_vec},
    error::{OpenError, ReadError},
    index_file::IndexFault,
    memory_index::MemoryIndex,
    names::FileName,
    scan,
};
use crate::entry::{Append, Entry, PartitionId};

/// Reads a journal while it is written. Cheap to clone. Its calls block on the disk.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// A batch as it is stored. Its checksum was verified when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// Its facts.
    pub append: Append,
    /// When it was appended.
    pub time: Timestamp,
    /// Its data.
    pub data: Bytes,
}

/// Why a read did not get to its end.
pub(super) enum Stopped {
    /// A segment went while it was read: look again.
    Gone,
    Error(ReadError),
}

impl From<ReadError> for Stopped {
    fn from(e: ReadError) -> Self {
        Self::Error(e)
    }
}

impl Reader {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Durable batches of the partition from the one that holds `from` on, in order and without gaps, until `max_bytes` of data
    /// or 4,096 batches are reached; at least one if there is one. Empty at the durable end, and also where everything from
    /// `from` on was trimmed: who knows the partition's log start can tell.
    ///
    /// # Errors
    /// [`ReadError::Trimmed`]: `from` is below what is there, or in a lost range. [`ReadError::Damaged`]: the first batch is not
    /// what was written; a damaged later one ends the answer before it. [`ReadError::Io`].
    pub fn read(&self, partition: PartitionId, from: Offset, max_bytes: usize) -> Result<Vec<StoredBatch>, ReadError> {
        // A segment that is trimmed under a read is gone the next time the catalog is asked, so a few rounds are plenty.
        for _ in 0..ROUNDS {
            match self.locate(partition, from, max_bytes).and_then(|located| self.load(&located)) {
                Ok(batches) => return Ok(batches),
                Err(Stopped::Error(e)) => return Err(e),
                Err(Stopped::Gone) => {}
            }
        }
        let source = io::Error::other("segments go faster than they can be read");
        Err(ReadError::Io { file: format!("partition {}", partition.0), source })
    }

    /// When the first record at or above `log_start` was appended; none if there is none, or it cannot be told.
    pub fn oldest_append_time(&self, partition: PartitionId, log_start: Offset) -> Option<Timestamp> {
        let located = self.locate(partition, log_start, 0).ok()?;
        located.first().map(|(_, batch)| batch.time)
    }

    /// The batches to read, each with its segment.
    fn locate(&self, partition: PartitionId, from: Offset, max_bytes: usize) -> Result<Vec<(u64, IndexedBatch)>, Stopped> {
        let mut found = Vec::new();
        let (mut next, mut bytes) = (from, 0);
        let mut block = self.shared.catalog().block_at(partition, from);
        while let Some(at) = block {
            let packed = self.unpack(partition, &at)?;
            let mut batches = Batches::new(partition, &packed);
            while let Some(batch) = batches.next().map_err(|_| self.unreadable_index(at.segment))? {
                if batch.end() <= next {
                    continue;
                }
                let base = batch.append.base_offset;
                if base > next {
                    return if found.is_empty() { Err(ReadError::Trimmed { next: base }.into()) } else { Ok(found) };
                }
                next = batch.end();
                bytes += batch.append.data_len as usize;
                found.push((at.segment, batch));
                if bytes >= max_bytes || found.len() >= MOST_BATCHES {
                    return Ok(found);
                }
            }
            if at.grows {
                // It may have grown since, and another block may have begun. Going on there would skip what this one got
                // meanwhile.
                break;
            }
            block = self.shared.catalog().block_after(partition, at.segment, at.number);
        }
        Ok(found)
    }

    fn unpack(&self, partition: PartitionId, block: &BlockRef) -> Result<Vec<u8>, Stopped> {
        let index = match &block.source {
            Source::Memory(bytes) => return Ok(bytes.clone()),
            Source::File(index) => index,
        };
        match index.block(&*self.shared.disk, partition, block.number) {
            Ok(bytes) => Ok(bytes),
            Err(IndexFault::Io(source)) => Err(ReadError::Io { file: FileName::Index(block.segment).to_string(), source }.into()),
            Err(IndexFault::Damaged) => {
                // Trimmed under us, or damaged: an index is derived, so it is made anew and looked at again.
                self.rebuild_index(block.segment)?;
                Err(Stopped::Gone)
            }
        }
    }

    /// Makes the index of a sealed segment anew, in memory; the tidying writes it.
    pub(super) fn rebuild_index(&self, segment: u64) -> Result<(), Stopped> {
        let found = self.shared.catalog().segments.get(&segment).map(|s| (s.start, s.end, s.reading()));
        let Some((start, end, _reading)) = found else { return Ok(()) };
        let name = FileName::Segment(segment).to_string();
        let mut index = MemoryIndex::default();
        let walked = self.shared.disk.open(&name).map_err(OpenError::io("opening", &name)).and_then(|file| {
            scan::walk(&*file, &name, start, end, &mut |header, entry, position| {
                if let Entry::Append(append) = entry {
                    index.push(&IndexedBatch { append: append.clone(), time: header.time, position });
                }
                Ok(())
            })
        });
        match walked {
            Ok(()) => {
                if let Some(segment) = self.shared.catalog_mut().segments.get_mut(&segment) {
                    segment.index = SegmentIndex::Sealed(Arc::new(index));
                }
                Ok(())
            }
            Err(_) if !self.holds(segment) => Ok(()),
            Err(OpenError::Io { source, .. }) => Err(ReadError::Io { file: name, source }.into()),
            Err(e) => Err(ReadError::Damaged { file: name, position: 0, what: e.to_string(), next: None }.into()),
        }
    }

    fn unreadable_index(&self, segment: u64) -> Stopped {
        let what = "its checksum is right and its content is not an index".to_owned();
        Stopped::Error(ReadError::Damaged { file: FileName::Index(segment).to_string(), position: 0, what, next: None })
    }

    fn holds(&self, segment: u64) -> bool {
        self.shared.catalog().segments.contains_key(&segment)
    }

    fn load(&self, located: &[(u64, IndexedBatch)]) -> Result<Vec<StoredBatch>, Stopped> {
        let mut batches = Vec::with_capacity(located.len());
        for of_segment in located.chunk_by(|(a, _), (b, _)| a == b) {
            let segment = of_segment[0].0;
            if let Err(stopped) = self.load_from(segment, of_segment, &mut batches) {
                // What was trimmed under us looks like damage, or like a missing file.
                return match stopped {
                    _ if !self.holds(segment) => Err(Stopped::Gone),
                    // What comes before it is told; the next read begins with it.
                    Stopped::Error(_) if !batches.is_empty() => Ok(batches),
                    stopped => Err(stopped),
                };
            }
        }
        Ok(batches)
    }

    fn load_from(&self, segment: u64, located: &[(u64, IndexedBatch)], out: &mut Vec<StoredBatch>) -> Result<(), Stopped> {
        let _reading = self.shared.catalog().segments.get(&segment).ok_or(Stopped::Gone)?.reading();
        let name = FileName::Segment(segment).to_string();
        let io = |source| Stopped::Error(ReadError::Io { file: name.clone(), source });
        let file = self.shared.disk.open(&name).map_err(io)?;
        let mut rest = located;
        // A sector that cannot be read costs its batch, and not those that would have been read along with it.
        let mut one_by_one = 0_usize;
        while !rest.is_empty() {
            let (run, later) = rest.split_at(if one_by_one > 0 { 1 } else { run_length(rest) });
            let start = run[0].1.position;
            let end = run.last().map_or(start, |(_, last)| data_end(last));
            let len = usize::try_from(end - start).map_err(|_| io(io::ErrorKind::InvalidData.into()))?;
            // Once more, because what is called damaged is given up by whoever hears it.
            let read = || read_vec(&*file, start, len);
            let bytes = match read().or_else(|e| if run.len() > 1 || disk::is_passing(&e) { Err(e) } else { read() }) {
                Ok(bytes) => Bytes::from(bytes),
                Err(e) if disk::is_passing(&e) => return Err(io(e)),
                Err(_) if run.len() > 1 => {
                    one_by_one = run.len();
                    continue;
                }
                Err(e) => {
                    let what = format!("it cannot be read: {e}");
                    let (position, next) = (start, Some(run[0].1.end()));
                    return Err(ReadError::Damaged { file: name, position, what, next }.into());
                }
            };
            rest = later;
            one_by_one = one_by_one.saturating_sub(1);
            for (_, batch) in run {
                let from = usize::try_from(batch.position - start).expect("a run has a length");
                let to = from + batch.append.data_len as usize;
                let data = if to <= bytes.len() { bytes.slice(from..to) } else { Bytes::new() };
                let matches = || crc32c::crc32c(&data) == batch.append.checksum || is_on(Defect::ReadDataIsNotChecked);
                if data.len() != to - from || !matches() {
                    let what = format!("the data of {} records does not match its checksum", batch.append.count);
                    let (position, next) = (batch.position, Some(batch.end()));
                    return Err(ReadError::Damaged { file: name, position, what, next }.into());
                }
                out.push(StoredBatch { append: batch.append.clone(), time: batch.time, data });
            }
        }
        Ok(())
    }
}

/// How many of these batches are read at once: neighbours, as long as it is not too much.
fn run_length(located: &[(u64, IndexedBatch)]) -> usize {
    let start = located[0].1.position;
    let together = |pair: &[(u64, IndexedBatch)]| {
        let gap = pair[1].1.position - data_end(&pair[0].1);
        gap <= NEAR && data_end(&pair[1].1) - start <= MOST_READ
    };
    1 + located.windows(2).take_while(|pair| together(pair)).count()
}

fn data_end(batch: &IndexedBatch) -> u64 {
    batch.position + u64::from(batch.append.data_len)
}

const ROUNDS: usize = 8;
/// Most batches of one answer.
const MOST_BATCHES: usize = 4096;
/// Batches of other partitions in between are read along up to this distance: cheaper than one more read.
const NEAR: u64 = 32 << 10;
/// Most bytes read at once, unless a single batch has more.
const MOST_READ: u64 = 1 << 20;

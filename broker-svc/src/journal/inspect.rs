//! Looks through a whole journal and changes nothing: for whoever wants to know, beside a stopped broker, whether all of it is
//! still there and still the same.
//!
//! An opening reads headers and directories, and of the data only what nothing proves durable. This reads every byte, folds the
//! journal from as far back as possible as well as from the newest snapshot (I5), and compares every index with its segment.

use std::{io, sync::Arc};

use bytes::Bytes;

use super::{
    block::IndexedBatch,
    disk::{Disk, DiskFile, FileSystem, LockGuard, read_vec},
    error::OpenError,
    index_file::IndexFile,
    inventory::{Inventory, Snapshots},
    memory_index::MemoryIndex,
    names::FileName,
    open::{Found, Replay},
    reader::StoredBatch,
    replay,
    report::Progress,
    scan,
    segment_header::SegmentHeader,
    snapshot_file::SnapshotHeader,
};
use crate::entry::{Append, Entry};

/// A journal that is looked through. It is locked against a broker that starts meanwhile.
#[derive(Debug)]
pub struct Inspection {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) inventory: Inventory,
    snapshots: Snapshots,
    pub(super) found: Found,
    pub(super) trimmed_through: u64,
    _lock: Box<dyn LockGuard>,
}

/// What a fold can begin with.
#[derive(Clone, Copy, Debug)]
pub struct Base(pub(super) Option<SnapshotHeader>);

/// What a reading of all data found. Damage ends nothing: all of it is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Segments that are part of the log.
    pub segments: u64,
    /// Batches whose data matches its checksum.
    pub batches: u64,
    /// Bytes of data in them.
    pub bytes: u64,
    /// Indexes that say exactly what their segments say.
    pub indexes: u64,
    /// Sealed segments without an index; the next opening makes it anew.
    pub missing_indexes: u64,
    /// What is wrong, with file and byte: the first hundred.
    pub faults: Vec<String>,
    /// How much is wrong.
    pub fault_count: u64,
}

impl Inspection {
    /// Looks at the directory: format, headers, snapshots, and where the last segment ends.
    ///
    /// # Errors
    /// What would also keep the journal from being opened.
    pub fn begin(disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        if let FileSystem::Network(name) = disk.file_system().map_err(OpenError::io("inspecting", "the data directory"))? {
            return Err(OpenError::NetworkFileSystem(name));
        }
        let lock_file = FileName::Lock.to_string();
        let lock = disk.lock(&lock_file).map_err(OpenError::io("locking", &lock_file))?.ok_or(OpenError::Locked)?;
        let inventory = Inventory::take(&*disk)?;
        let snapshots = inventory.verify_snapshots(&*disk)?;
        let found = Found::from(&*disk, &inventory, snapshots.verified.first().copied())?;
        let by_headers = inventory.segments.values().map(|header| header.trimmed_through).max();
        let trimmed_through = by_headers.unwrap_or(0);
        Ok(Self { disk, inventory, snapshots, found, trimmed_through, _lock: lock })
    }

    /// Nothing was ever committed here.
    pub fn is_empty(&self) -> bool {
        self.inventory.identity.is_none()
    }

    /// The last stop was a clean one.
    pub fn is_clean(&self) -> bool {
        self.found.last.as_ref().is_none_or(|last| last.tail.clean)
    }

    /// A group behind the end that was being written when the machine stopped: the next opening cuts it and keeps a copy.
    pub fn torn(&self) -> Option<&str> {
        Some(&self.found.last.as_ref()?.tail.torn.as_ref()?.what)
    }

    /// Snapshots that cannot be used, and why.
    pub fn damaged_snapshots(&self) -> &[String] {
        &self.snapshots.damaged
    }

    /// What a fold can begin with, the newest first. Each has to lead to the same state.
    pub fn bases(&self) -> Vec<Base> {
        let from_the_start = self.inventory.segments.first_key_value().is_none_or(|(first, _)| *first == 1);
        let snapshots = self.snapshots.verified.iter().map(|header| Base(Some(*header)));
        snapshots.chain(from_the_start.then_some(Base(None))).collect()
    }

    /// Folds everything behind the base.
    ///
    /// # Errors
    /// The journal is damaged, or contradicts itself.
    pub fn fold(&mut self, base: Base, state: &mut dyn Replay, progress: &mut dyn FnMut(Progress)) -> Result<u64, OpenError> {
        let found = Found::from(&*self.disk, &self.inventory, base.0)?;
        let replayed = replay::fold(&*self.disk, &self.inventory, &found, state, progress)?;
        self.trimmed_through = self.trimmed_through.max(replayed.trimmed_through);
        Ok(replayed.groups)
    }

    /// Reads the data of every batch that is part of the log, in the order of the journal, and hands it over if it is what was
    /// written. What is trimmed is known after a fold.
    ///
    /// # Errors
    /// A group's header or directory is damaged, or the disk fails.
    pub fn read(&self, batch: &mut dyn FnMut(StoredBatch), progress: &mut dyn FnMut(Progress)) -> Result<Inspected, OpenError> {
        let mut inspected = Inspected::default();
        let Some(last) = &self.found.last else { return Ok(inspected) };
        let headers = || self.inventory.segments.values();
        let ends = headers().skip(1).map(|next| next.prev).chain([last.tail.end]);
        let spans: Vec<_> = headers().zip(ends).filter(|(header, _)| header.number > self.trimmed_through).collect();
        let total = spans.iter().map(|(_, end)| end.byte - SegmentHeader::LEN as u64).sum();
        let mut bytes = 0;
        for (header, end) in spans {
            let name = FileName::Segment(header.number).to_string();
            let file = self.disk.open(&name).map_err(OpenError::io("opening", &name))?;
            let mut index = MemoryIndex::default();
            scan::walk(&*file, &name, header.start(), end, &mut |group, entry, position| {
                let Entry::Append(append) = entry else { return Ok(()) };
                index.push(&IndexedBatch { append: append.clone(), time: group.time, position });
                match read_data(&*file, append, position).map_err(OpenError::io("reading", &name))? {
                    Some(data) => {
                        inspected.batches += 1;
                        inspected.bytes += u64::from(append.data_len);
                        batch(StoredBatch { append: append.clone(), time: group.time, data });
                    }
                    None => {
                        let what = format!("the data of {} records from offset {} on", append.count, append.base_offset);
                        inspected.fault(format!("{name} is damaged at byte {position}: {what} does not match its checksum"));
                    }
                }
                Ok(())
            })?;
            inspected.segments += 1;
            if header.number < last.header.number {
                self.compare_index(header, &end, &index, &mut inspected)?;
            }
            bytes += end.byte - SegmentHeader::LEN as u64;
            progress(Progress { bytes, total });
        }
        Ok(inspected)
    }

    fn compare_index(
        &self,
        header: &SegmentHeader,
        end: &super::Position,
        expected: &MemoryIndex,
        inspected: &mut Inspected,
    ) -> Result<(), OpenError> {
        let name = FileName::Index(header.number).to_string();
        let present = match self.disk.open(&name) {
            Ok(_) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(OpenError::io("opening", &name)(e)),
        };
        let identity = self.inventory.identity.expect("there are segments");
        let loaded = IndexFile::load(&*self.disk, &identity, end).map_err(OpenError::io("reading", &name))?;
        match loaded {
            None if !present => inspected.missing_indexes += 1,
            None => {
                inspected.fault(format!("{name} is not the index of its segment; remove it, and the next start makes it anew"))
            }
            Some(file) if file.holds(&*self.disk, expected) => inspected.indexes += 1,
            Some(_) => inspected
                .fault(format!("{name} says something else than its segment; remove it, and the next start makes it anew")),
        }
        Ok(())
    }
}

impl Base {
    /// The name of the snapshot; none: the beginning of the journal.
    pub fn snapshot(&self) -> Option<String> {
        self.0.map(|header| FileName::Snapshot(header.position.segment, header.position.byte).to_string())
    }
}

impl Inspected {
    fn fault(&mut self, what: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(what);
        }
    }
}

/// None: it is not what was written.
fn read_data(file: &dyn DiskFile, append: &Append, position: u64) -> io::Result<Option<Bytes>> {
    let len = append.data_len as usize;
    let data = read_vec(file, position, len)?;
    Ok((data.len() == len && crc32c::crc32c(&data) == append.checksum).then(|| data.into()))
}

const FAULTS_KEPT: usize = 100;

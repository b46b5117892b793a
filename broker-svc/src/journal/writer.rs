//! The journal's writing end: one group in flight, each of them one write and one sync.
//!
//! Whatever fails between the first byte of a group and the end of its sync is fatal: what is on the disk is unknown, a sync that
//! is tried again may lie, and the next opening is the one place that finds out (I8).

use std::{io::IoSlice, sync::Arc};

use super::{
    background::Background,
    block::IndexedBatch,
    catalog::Shared,
    disk::DiskFile,
    entry_codec,
    error::{Fatal, WriteError},
    group::Group,
    group_header::{BLOCK, GroupHeader, Mark, ZEROS, round_up},
    names::FileName,
    new_segment::{self, Finished, Room},
    options::{GroupLimit, MARKER_ROOM, MIN_SEGMENT_BYTES},
    position::{GroupNumber, Position},
    random::Random,
    reader::Reader,
    reserve,
    retention::{self, Retention},
    segment_header::SegmentHeader,
    snapshot_writer::SnapshotWriter,
    stats::Stats,
};
use crate::entry::{Entry, Trimmed};
use oncelog_defects::{Defect, is_on};
use oncelog_proto::Timestamp;

/// An open journal. Owned by the one thread that writes it; [`Reader`], [`Background`] and [`SnapshotWriter`] go to others.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    active: Active,
    opening: u64,
    salts: Random,
    /// Where the next group goes.
    at: Position,
    /// Behind the last group; in the segment before as long as the active one has none.
    last: Position,
    /// The last group whose sync has returned.
    durable: GroupNumber,
    /// The group in flight.
    pending: Option<Pending>,
    /// The last group is a marker, or the segment's header is still its witness.
    witnessed: bool,
    clean: bool,
    failed: bool,
    background: Option<Background>,
    /// Header and directory of the group being written; kept for its allocation.
    head: Vec<u8>,
}

#[derive(Debug)]
struct Active {
    file: Arc<dyn DiskFile>,
    name: String,
    capacity: u64,
    recycled: bool,
    /// Its blocks have been written before. Where they have not, each sync has to note that they are now, which takes about as
    /// long as the write.
    blocks_written: bool,
}

#[derive(Debug)]
struct Pending {
    batches: Vec<IndexedBatch>,
    trims_through: Option<u64>,
}

/// What an opening hands to the writer.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) shared: Arc<Shared>,
    /// The new, empty segment.
    pub(super) segment: Finished,
    pub(super) header: SegmentHeader,
    pub(super) salts: Random,
}

impl Active {
    fn new(segment: Finished, header: &SegmentHeader) -> Self {
        let Finished { file, capacity, blocks_written } = segment;
        Self { file, name: FileName::Segment(header.number).to_string(), capacity, recycled: header.recycled, blocks_written }
    }

    /// Once: who asks a second time is told that all is well, and the pages are gone (I8).
    fn sync(&self) -> std::io::Result<()> {
        match self.file.sync_data() {
            Err(_) if is_on(Defect::FailedSyncIsTriedAgain) => self.file.sync_data(),
            result => result,
        }
    }

    fn seal(&self, end: u64) -> std::io::Result<()> {
        self.file.set_len(end)?;
        if is_on(Defect::SealIsNotSynced) { Ok(()) } else { self.file.sync_all() }
    }
}

impl Journal {
    pub(super) fn new(start: Start) -> Self {
        let Start { shared, segment, header, salts } = start;
        let active = Active::new(segment, &header);
        let at = header.start();
        Self {
            background: Some(Background::new(Arc::clone(&shared))),
            shared,
            active,
            opening: header.opening,
            salts,
            at,
            last: header.prev,
            durable: at.group,
            pending: None,
            witnessed: true,
            clean: false,
            failed: false,
            head: Vec::new(),
        }
    }

    /// Writes a group: one write, into a new segment if it does not fit the active one. It is not durable, and not readable,
    /// until [`Self::sync`] returned.
    ///
    /// # Errors
    /// [`WriteError::NoSpace`]: there is no room for a new segment; nothing changed, and a later try may succeed. A group with a
    /// [`Entry::Trim`] may use the ballast. [`WriteError::Fatal`]: the process ends.
    ///
    /// # Panics
    /// The group before was not synced; the group is empty or older than the one before; it trims the active segment.
    pub fn write(&mut self, group: &Group) -> Result<GroupNumber, WriteError> {
        self.check_alive()?;
        assert!(self.pending.is_none(), "one group is in flight at a time");
        assert!(!group.entries().is_empty(), "a group has entries; markers are written by themselves");
        assert!(group.time() >= self.at.time, "time in the journal never goes back");
        assert!(group.encoded_len() <= self.group_limit().get(), "a draft never grows beyond the limit");
        let trims_through = group.trims_through();
        assert!(trims_through.is_none_or(|through| through < self.at.segment), "the active segment is never trimmed");
        if let Some(through) = trims_through.filter(|_| is_on(Defect::TrimmedBeforeDurable)) {
            self.shared.catalog_mut().trim(through);
        }
        let len = group.encoded_len() as u64;
        if self.at.byte + len + MARKER_ROOM > self.active.capacity {
            let urgent = (SegmentHeader::LEN as u64 + len + MARKER_ROOM).max(MIN_SEGMENT_BYTES);
            self.roll(trims_through.map(|_| urgent))?;
        } else if !self.active.blocks_written && !self.shared.catalog().spares.is_empty() {
            // The first segment of a directory is made at once, because somebody waits for it. It is left as soon as there is a
            // better one.
            self.roll(None)?;
        }
        self.head.clear();
        self.head.resize(GroupHeader::LEN, 0);
        for entry in group.entries() {
            entry_codec::encode(entry, &mut self.head);
        }
        let header = GroupHeader {
            entries: u32::try_from(group.entries().len()).expect("a group is at most 8 MiB"),
            payload_len: u32::try_from(group.payload_len()).expect("a group is at most 8 MiB"),
            ..self.next_header(group.time(), Mark::None)
        };
        debug_assert_eq!(self.head.len(), GroupHeader::LEN + group.directory_len());
        let start = self.put(header, group)?;
        let mut data = start + self.head.len() as u64;
        let mut batches = Vec::new();
        for entry in group.entries() {
            if let Entry::Append(append) = entry {
                batches.push(IndexedBatch { append: append.clone(), time: group.time(), position: data });
                data += u64::from(append.data_len);
            }
        }
        self.pending = Some(Pending { batches, trims_through });
        Ok(self.at.group)
    }

    /// Makes the group in flight durable, and then readable. Returns where the journal ends; the state after that group may be
    /// kept as the snapshot of this position.
    ///
    /// # Errors
    /// The process ends.
    pub fn sync(&mut self) -> Result<Position, Fatal> {
        self.check_alive()?;
        if let Some(pending) = self.pending.take() {
            self.fatal_if(Active::sync, "syncing")?;
            self.durable = self.at.group;
            let mut catalog = self.shared.catalog_mut();
            catalog.publish(&pending.batches, self.at);
            if let Some(through) = pending.trims_through {
                catalog.trim(through);
            }
        }
        Ok(self.last)
    }

    /// Writes and syncs a group without entries that proves the ones before it durable, so that damage to them is not taken for a
    /// torn group. To be called when it has been quiet for about 20 ms, and with `clean` before a stop. Does nothing if the last
    /// group has a proof already. Never needs a new segment.
    ///
    /// # Errors
    /// The process ends.
    ///
    /// # Panics
    /// The group before was not synced.
    pub fn write_marker(&mut self, clean: bool) -> Result<(), Fatal> {
        self.check_alive()?;
        assert!(self.pending.is_none(), "one group is in flight at a time");
        let needless = if clean { self.clean } else { self.witnessed };
        if needless {
            return Ok(());
        }
        self.head.clear();
        self.head.resize(GroupHeader::LEN, 0);
        let mark = if clean { Mark::Clean } else { Mark::Marker };
        let header = self.next_header(self.at.time, mark);
        self.put_slices(header, &[])?;
        (self.witnessed, self.clean) = (true, clean);
        self.pending = Some(Pending { batches: Vec::new(), trims_through: None });
        self.sync().map(drop)
    }

    /// Behind the last group; after an opening, what the state was folded up to.
    pub const fn position(&self) -> Position {
        self.last
    }

    /// The limit of a group of this journal.
    pub fn group_limit(&self) -> GroupLimit {
        self.shared.options.group_limit()
    }

    pub(super) fn options(&self) -> &super::Options {
        &self.shared.options
    }

    /// Bytes that the disk can still allocate for segments; none if it does not say.
    pub(super) fn free_space(&self) -> u64 {
        let Shared { disk, options, .. } = &*self.shared;
        disk.free_space().unwrap_or(0).saturating_sub(reserve::missing(&**disk, options.ballast_bytes))
    }

    /// Bytes of groups that the active segment has room for.
    pub(super) fn left_in_segment(&self) -> u64 {
        self.active.capacity.saturating_sub(self.at.byte + MARKER_ROOM)
    }

    /// For reading while it is written.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// For taking snapshots on another thread.
    pub fn snapshot_writer(&self) -> SnapshotWriter {
        SnapshotWriter::new(Arc::clone(&self.shared))
    }

    /// The tidying work, for another thread. There is one of it: none the second time.
    pub const fn take_background(&mut self) -> Option<Background> {
        self.background.take()
    }

    /// Is it time for a snapshot? False from the moment one is begun.
    pub fn snapshot_due(&self) -> bool {
        let catalog = self.shared.catalog();
        catalog.log_bytes - catalog.snapshot_begun >= self.shared.options.snapshot_every_bytes
    }

    /// Would retention let something go if there were two snapshots behind it? Then it is time for one, however little was
    /// written.
    pub fn lacks_snapshots(&self, limits: Retention, now: Timestamp) -> bool {
        retention::lacks_snapshots(&self.shared.catalog(), limits, now)
    }

    /// Where a snapshot can be taken that is not taken yet: behind the last group, or, where one is there already, behind a
    /// marker that is written for it. None: there is no group yet, or no room for a marker before the next one.
    ///
    /// # Errors
    /// The process ends.
    ///
    /// # Panics
    /// The group before was not synced.
    pub fn snapshot_position(&mut self) -> Result<Option<Position>, Fatal> {
        if self.last.group.get() > 0 && self.shared.catalog().snapshots.contains(&self.last) {
            // What is behind it has to stay free, as behind every group.
            if self.at.byte + BLOCK as u64 + MARKER_ROOM > self.active.capacity {
                return Ok(None);
            }
            self.witnessed = false;
            self.write_marker(false)?;
        }
        Ok((self.last.group.get() > 0).then_some(self.last))
    }

    /// What retention wants to go: the last segment of it, and what each partition loses, deleted ones included. To be journaled
    /// as [`Entry::Trim`]; the files go after that entry is durable. Not to be asked again in between. Reads indexes from the
    /// disk.
    ///
    /// Only what is wholly before the older of two verified snapshots goes; and so much only that the entry fits half a group.
    pub fn plan_trim(&self, limits: Retention, now: Timestamp) -> Option<(u64, Vec<Trimmed>)> {
        retention::plan(&self.shared, limits, now)
    }

    /// Sizes, for people and metrics.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.shared)
    }

    fn next_header(&self, time: Timestamp, mark: Mark) -> GroupHeader {
        GroupHeader {
            segment: self.at.segment,
            start: self.at.byte,
            group: self.at.group.next(),
            durable: if is_on(Defect::DurableNumberStaysZero) { GroupNumber::default() } else { self.durable },
            time,
            chain: self.at.chain,
            mark,
            entries: 0,
            directory_len: 0,
            directory_checksum: 0,
            payload_len: 0,
        }
    }

    fn put(&mut self, header: GroupHeader, group: &Group) -> Result<u64, Fatal> {
        let start = self.at.byte;
        self.put_slices(header, group.payloads())?;
        (self.witnessed, self.clean) = (false, false);
        Ok(start)
    }

    /// Writes what is in `head` behind the header's place, the payloads, and zeros up to the next block; in a recycled file
    /// through the next block.
    fn put_slices(&mut self, mut header: GroupHeader, payloads: &[bytes::Bytes]) -> Result<(), Fatal> {
        let directory = &self.head[GroupHeader::LEN..];
        header.directory_len = u32::try_from(directory.len()).expect("a group is at most 8 MiB");
        header.directory_checksum = crc32c::crc32c(directory);
        let mut encoded = Vec::with_capacity(GroupHeader::LEN);
        let checksum = header.encode(self.at.salt, &mut encoded);
        self.head[..GroupHeader::LEN].copy_from_slice(&encoded);
        let len = self.head.len() + header.payload_len as usize;
        let mut slices = Vec::with_capacity(payloads.len() + 3);
        slices.push(IoSlice::new(&self.head));
        slices.extend(payloads.iter().map(|payload| IoSlice::new(payload)));
        slices.push(IoSlice::new(&ZEROS[..round_up(len) - len]));
        // Among old bytes the end has to be said. It is as durable as the group, and the next group takes its place.
        if self.active.recycled {
            slices.push(IoSlice::new(&ZEROS));
        }
        let mut written = self.active.file.write_at(&slices, self.at.byte);
        if is_on(Defect::FailedWriteIsPassedOver) {
            written = Ok(());
        }
        if written.is_err() {
            self.failed = true;
        }
        written.map_err(Fatal::new("writing", &self.active.name))?;
        self.last = header.position(self.at.salt, checksum);
        self.at = self.last;
        Ok(())
    }

    /// Seals the active segment and starts the next one. `urgent`: what will do, if the group must be written on a full disk.
    ///
    /// An active segment without groups is replaced, as at an opening: one that began on a full disk may be too small for its
    /// first group, and no segment ever follows an empty one.
    fn roll(&mut self, urgent: Option<u64>) -> Result<(), WriteError> {
        let shared = Arc::clone(&self.shared);
        let is_empty = self.last.segment != self.at.segment;
        let number = if is_empty { self.at.segment } else { self.at.segment + 1 };
        let spare = shared.catalog_mut().spares.pop_front();
        let keep = reserve::missing(&*shared.disk, shared.options.ballast_bytes);
        let room = Room { full: shared.options.segment_bytes, keep, least: urgent };
        // Space first: until it is there, nothing has changed.
        let prepared = match new_segment::prepare(&*shared.disk, number, spare, room) {
            Ok(prepared) => prepared,
            Err(e) => {
                self.failed = matches!(e, WriteError::Fatal(_));
                return Err(e);
            }
        };
        // The file ends a block behind its last group, durably, before a header says where that group ended.
        let end = self.at.byte + BLOCK as u64;
        self.fatal_if(|active| active.seal(end), "sealing")?;
        let header = SegmentHeader {
            identity: shared.identity,
            number,
            salt: self.salts.next(),
            opening: self.opening,
            trimmed_through: shared.catalog().trimmed_through,
            prev: self.last,
            recycled: prepared.recycled(),
        };
        let segment = prepared.finish(&*shared.disk, &header).inspect_err(|_| self.failed = true)?;
        self.active = Active::new(segment, &header);
        self.at = header.start();
        shared.catalog_mut().roll(self.at);
        let how = if header.recycled { "over one that was trimmed" } else { "in new space" };
        tracing::debug!(number, "a segment begins {how}");
        Ok(())
    }

    fn check_alive(&self) -> Result<(), Fatal> {
        let earlier = || std::io::Error::other("an earlier operation on it failed");
        if self.failed { Err(Fatal::new("using", &self.active.name)(earlier())) } else { Ok(()) }
    }

    fn fatal_if(&mut self, act: impl FnOnce(&Active) -> std::io::Result<()>, doing: &'static str) -> Result<(), Fatal> {
        act(&self.active).inspect_err(|_| self.failed = true).map_err(Fatal::new(doing, &self.active.name))
    }
}

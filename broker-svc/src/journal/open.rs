//! Opens a journal: looks at everything, decides, folds, and only then changes anything.
//!
//! The last group of an earlier process may be in the page cache alone: its sync may never have returned, or have failed and
//! dropped the pages. It reads well now and is gone after the next power loss. So what nothing proves durable is written once
//! more, in place, and synced, before anybody is told of it. Names that an earlier process did not sync become durable with that
//! of the new segment.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IoSlice},
    sync::Arc,
};

use oncelog_defects::{Defect, is_on};
use oncelog_proto::Timestamp;

use super::{
    block::IndexedBatch,
    catalog::{Catalog, Doomed, Segment, SegmentIndex, Shared},
    disk::{self, Disk, FileSystem, read_vec},
    error::{OpenError, WriteError},
    format_file,
    group_header::{BLOCK, ZEROS},
    identity::Identity,
    index_file::IndexFile,
    inventory::{Inventory, Snapshots},
    memory_index::MemoryIndex,
    names::FileName,
    new_segment::{self, Room},
    options::{MIN_SEGMENT_BYTES, Options},
    position::{GroupNumber, Position},
    random::Random,
    replay::{self, Replayed},
    report::{Cut, OpenReport, Progress},
    reserve, scan,
    segment_header::SegmentHeader,
    snapshot_file::SnapshotHeader,
    tail::{self, Tail, Torn},
    writer::{Journal, Start},
};
use crate::entry::Entry;

/// What the journal's entries are folded into.
pub trait Replay {
    /// Becomes the state that was handed to [`super::SnapshotWriter::write`]. Called at most once, before the first entry.
    ///
    /// # Errors
    /// The chunks are not a state that this version knows.
    fn restore(&mut self, chunks: &mut dyn Iterator<Item = Vec<u8>>) -> Result<(), String>;

    /// Applies one entry.
    ///
    /// # Errors
    /// The entry contradicts the state.
    fn apply(&mut self, group: GroupNumber, time: Timestamp, entry: &Entry) -> Result<(), String>;
}

/// Opens the journal in a directory, or begins one if the directory is empty.
///
/// # Errors
/// See [`OpenError`]. What was durable is never cut: damage is refused, with file and byte.
pub fn open(
    disk: Arc<dyn Disk>,
    options: Options,
    replay: &mut dyn Replay,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Journal, OpenReport), OpenError> {
    options.check().map_err(OpenError::Options)?;
    let directory = "the data directory";
    let doubtful_file_system = match disk.file_system().map_err(OpenError::io("inspecting", directory))? {
        FileSystem::Local => None,
        FileSystem::Doubtful(name) => Some(name),
        FileSystem::Network(name) => return Err(OpenError::NetworkFileSystem(name)),
    };
    let lock_file = FileName::Lock.to_string();
    let lock = disk.lock(&lock_file).map_err(OpenError::io("locking", &lock_file))?.ok_or(OpenError::Locked)?;
    let inventory = Inventory::take(&*disk)?;
    let found = Found::look(&*disk, &inventory)?;
    let replayed = replay::fold(&*disk, &inventory, &found, replay, progress)?;
    let mut catalog = found.catalog(&inventory, &replayed);
    check_unfolded(&*disk, &inventory, &found, &catalog)?;

    // From here on the directory is changed.
    let mut salts = Random(options.seed);
    let identity = inventory.identity.unwrap_or_else(|| {
        let half = |n: u64| u128::from(n);
        Identity { cluster: (half(salts.next()) << 64 | half(salts.next())).to_be_bytes(), incarnation: 0 }
    });
    catalog.spares = sweep(&*disk, &inventory, options.segment_bytes)?;
    let cut = found.last.as_ref().map(|last| settle(&*disk, last)).transpose()?.flatten();
    let number = catalog.segments.last_key_value().map_or(replayed.trimmed_through, |(number, _)| *number) + 1;
    let keep = reserve::missing(&*disk, options.ballast_bytes);
    let room = Room { full: options.segment_bytes, keep, least: Some(MIN_SEGMENT_BYTES) };
    let spare = catalog.spares.pop_front();
    let prepared = new_segment::prepare(&*disk, number, spare, room).map_err(|e| match e {
        WriteError::NoSpace(e) => OpenError::NoSpace(e),
        WriteError::Fatal(e) => e.into(),
    })?;
    let header = SegmentHeader {
        identity,
        number,
        salt: salts.next(),
        opening: found.last.as_ref().map_or(0, |last| last.header.opening) + 1,
        trimmed_through: replayed.trimmed_through,
        prev: found.end(),
        recycled: prepared.recycled(),
    };
    let segment = prepared.finish(&*disk, &header)?;
    if inventory.identity.is_none() {
        write_format(&*disk, &identity)?;
    }
    let indexes_rebuilt = load_indexes(&*disk, &identity, &mut catalog)?;
    catalog.roll(header.start());
    let report = OpenReport {
        first_opening: inventory.identity.is_none(),
        opening: header.opening,
        cluster: identity.cluster,
        incarnation: identity.incarnation,
        doubtful_file_system,
        snapshot: replayed.snapshot,
        damaged_snapshots: found.snapshots.damaged,
        groups_replayed: replayed.groups,
        last: header.prev,
        clean: found.last.is_none_or(|last| last.tail.clean),
        cut,
        indexes_rebuilt,
    };
    let shared = Arc::new(Shared::new(disk, identity, options, catalog, lock));
    Ok((Journal::new(Start { shared, segment, header, salts }), report))
}

/// Where the journal ends, and which snapshots there are.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) snapshots: Snapshots,
    /// None: there is no segment.
    pub(super) last: Option<Last>,
}

/// The last segment.
#[derive(Debug)]
pub(super) struct Last {
    pub(super) header: SegmentHeader,
    pub(super) tail: Tail,
}

impl Found {
    fn look(disk: &dyn Disk, inventory: &Inventory) -> Result<Self, OpenError> {
        Self::with(disk, inventory, inventory.verify_snapshots(disk)?)
    }

    /// As if the only snapshot were this one.
    pub(super) fn from(disk: &dyn Disk, inventory: &Inventory, base: Option<SnapshotHeader>) -> Result<Self, OpenError> {
        Self::with(disk, inventory, Snapshots { verified: base.into_iter().collect(), damaged: Vec::new() })
    }

    fn with(disk: &dyn Disk, inventory: &Inventory, snapshots: Snapshots) -> Result<Self, OpenError> {
        let Some((number, header)) = inventory.segments.last_key_value() else {
            return Ok(Self { snapshots, last: None });
        };
        let name = FileName::Segment(*number).to_string();
        let file = disk.open(&name).map_err(OpenError::io("opening", &name))?;
        let watch = snapshots.verified.first().map(|header| header.position).filter(|position| position.segment == *number);
        let tail = tail::decide(&*file, &name, header, watch)?;
        Ok(Self { snapshots, last: Some(Last { header: *header, tail }) })
    }

    /// Behind the last group of the journal.
    fn end(&self) -> Position {
        self.last.as_ref().map_or_else(Position::default, Last::end)
    }

    /// The catalog of the segments that stay, without indexes and spares; an empty last segment will be replaced, so it is not in
    /// it.
    fn catalog(&self, inventory: &Inventory, replayed: &Replayed) -> Catalog {
        let mut segments = BTreeMap::new();
        let ends = inventory.segments.values().skip(1).map(|next| next.prev).chain([self.end()]);
        for (header, end) in inventory.segments.values().zip(ends) {
            if end.segment == header.number && header.number > replayed.trimmed_through {
                let index = SegmentIndex::Active(MemoryIndex::default());
                segments.insert(header.number, Segment::new(header.start(), end, index));
            }
        }
        Catalog {
            segments,
            durable: self.end(),
            trimmed_through: replayed.trimmed_through,
            doomed: inventory.segments.range(..=replayed.trimmed_through).map(|(number, _)| Doomed::unread(*number)).collect(),
            spares: VecDeque::new(),
            snapshots: self.snapshots.verified.iter().rev().map(|header| header.position).collect(),
            log_bytes: replayed.bytes,
            snapshot_begun: 0,
        }
    }
}

impl Last {
    pub(super) fn is_empty(&self) -> bool {
        self.tail.end.byte == SegmentHeader::LEN as u64
    }

    /// Behind the last group, which is in the segment before if this one is empty.
    pub(super) fn end(&self) -> Position {
        if self.is_empty() { self.header.prev } else { self.tail.end }
    }
}

/// Walks what the fold passed over, because a snapshot stands for it, and whose index has to be made anew: if that cannot be
/// done, the opening is refused like any other, before anything is changed.
fn check_unfolded(disk: &dyn Disk, inventory: &Inventory, found: &Found, catalog: &Catalog) -> Result<(), OpenError> {
    let (Some(identity), Some(base)) = (&inventory.identity, found.snapshots.verified.first()) else { return Ok(()) };
    for (number, segment) in catalog.segments.range(..=base.position.segment) {
        if IndexFile::load(disk, identity, &segment.end).map_err(OpenError::io("reading", FileName::Index(*number)))?.is_none() {
            index_anew(disk, *number, segment)?;
        }
    }
    Ok(())
}

/// The index of a segment, from the segment itself.
fn index_anew(disk: &dyn Disk, number: u64, segment: &Segment) -> Result<MemoryIndex, OpenError> {
    let name = FileName::Segment(number).to_string();
    let file = disk.open(&name).map_err(OpenError::io("opening", &name))?;
    let mut index = MemoryIndex::default();
    scan::walk(&*file, &name, segment.start, segment.end, &mut |header, entry, position| {
        if let Entry::Append(append) = entry {
            index.push(&IndexedBatch { append: append.clone(), time: header.time, position });
        }
        Ok(())
    })?;
    Ok(index)
}

/// Removes what an earlier process left unfinished; returns the spares that can be used.
fn sweep(disk: &dyn Disk, inventory: &Inventory, segment_bytes: u64) -> Result<VecDeque<u64>, OpenError> {
    let mut spares = VecDeque::new();
    let mut torn = Vec::new();
    for name in &inventory.others {
        let file = name.to_string();
        let useless = match name {
            FileName::Aside(_) | FileName::Trimmed(_) => true,
            FileName::Index(number) => !inventory.segments.contains_key(number),
            FileName::Spare(number) => {
                let len = disk.open(&file).and_then(|spare| spare.len()).map_err(OpenError::io("measuring", &file))?;
                if len == segment_bytes {
                    spares.push_back(*number);
                }
                len != segment_bytes
            }
            FileName::Torn(segment, byte) => {
                torn.push((*segment, *byte));
                false
            }
            _ => false,
        };
        if useless {
            disk.remove(&file).map_err(OpenError::io("removing", &file))?;
        }
    }
    torn.sort_unstable();
    for (segment, byte) in &torn[..torn.len().saturating_sub(KEPT_COPIES - 1)] {
        let file = FileName::Torn(*segment, *byte).to_string();
        disk.remove(&file).map_err(OpenError::io("removing", &file))?;
    }
    spares.make_contiguous().sort_unstable();
    Ok(spares)
}

/// Makes the last segment end where it was decided, durably. A torn group is copied first.
fn settle(disk: &dyn Disk, last: &Last) -> Result<Option<Cut>, OpenError> {
    let name = FileName::Segment(last.header.number).to_string();
    let io = || OpenError::io("settling", &name);
    let end = last.tail.end.byte;
    let file = disk.open(&name).map_err(io())?;
    let mut cut = None;
    if let Some(Torn { until, least_len, what }) = &last.tail.torn {
        let copy = FileName::Torn(last.header.number, end).to_string();
        let len = usize::try_from(until - end).map_err(|_| OpenError::damaged(&name, end, "too much to cut"))?;
        let torn = read_vec(&*file, end, len).map_err(io())?;
        // On a full disk the zeros behind it are where the copy finds its space. But this opening may end here, and the next one
        // is to see a torn group again, and not a file that lost its end.
        file.set_len(*least_len).map_err(io())?;
        reserve::with(disk, || disk::write_aside(disk, &copy, &[IoSlice::new(&torn)]))
            .and_then(|()| disk.sync_dir())
            .map_err(OpenError::io("keeping the torn group as", &copy))?;
        cut = Some(Cut { file: name.clone(), position: end, bytes: until - end, copy, what: what.clone() });
    }
    let mut at = if is_on(Defect::UnprovenIsNotWrittenAgain) { end } else { last.tail.unproven_from };
    while at < end {
        let len = (end - at).min(REWRITE_BYTES);
        let bytes = read_vec(&*file, at, usize::try_from(len).expect("at most 1 MiB")).map_err(io())?;
        if bytes.len() as u64 != len {
            return Err(io()(io::ErrorKind::UnexpectedEof.into()));
        }
        file.write_at(&[IoSlice::new(&bytes)], at).map_err(io())?;
        at += len;
    }
    if cut.is_some() && !is_on(Defect::TornGroupStays) {
        // The torn group goes before the rest of the file does: a file that ends within a group is damaged.
        file.write_at(&[IoSlice::new(&ZEROS)], end).and_then(|()| file.sync_data()).map_err(io())?;
    }
    // Also of an empty segment, which will be replaced: its space may be what the new one needs.
    file.set_len(end + BLOCK as u64).and_then(|()| file.sync_all()).map_err(io())?;
    Ok(cut)
}

fn write_format(disk: &dyn Disk, identity: &Identity) -> Result<(), OpenError> {
    let name = FileName::Format.to_string();
    let text = format_file::encode(identity);
    disk::write_aside(disk, &name, &[IoSlice::new(text.as_bytes())])
        .and_then(|()| disk.sync_dir())
        .map_err(OpenError::io("writing", &name))
}

/// Loads every index; makes anew what is missing or does not fit. Returns how many.
fn load_indexes(disk: &dyn Disk, identity: &Identity, catalog: &mut Catalog) -> Result<usize, OpenError> {
    let mut rebuilt = 0;
    for (number, segment) in &mut catalog.segments {
        let load = || IndexFile::load(disk, identity, &segment.end);
        if let Some(file) = load().map_err(OpenError::io("reading", FileName::Index(*number)))? {
            segment.index = SegmentIndex::File(Arc::new(file));
            continue;
        }
        rebuilt += 1;
        let index = index_anew(disk, *number, segment)?;
        // Written at once, so that many of them are never in memory together. Where it fails the background tries again.
        let written = IndexFile::write(disk, identity, &segment.end, &index).and_then(|()| load());
        segment.index = match written {
            Ok(Some(file)) => SegmentIndex::File(Arc::new(file)),
            Ok(None) | Err(_) => SegmentIndex::Sealed(Arc::new(index)),
        };
    }
    Ok(rebuilt)
}

/// Copies of torn groups that are kept, the new one included.
const KEPT_COPIES: usize = 8;
/// Bytes written again at once.
const REWRITE_BYTES: u64 = 1 << 20;

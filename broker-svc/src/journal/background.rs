//! The tidying work, a small step at a time, for a thread that sleeps in between: recycling or deleting what was trimmed, writing
//! indexes, filling spares, restoring the ballast. Nothing that is acknowledged waits for it.
//!
//! A trimmed segment becomes a spare, because writing over blocks that were written before is about twice as fast as taking new
//! ones from the file system. Its old bytes stay where they are: what makes that safe is said in `tail`. Three things keep a
//! segment from it: somebody reads it, somebody keeps it by a hard link, or its space is needed (for the ballast, or because
//! there are spares enough).

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use oncelog_defects::{Defect, is_on};

use super::{
    catalog::{Doomed, SegmentIndex, Shared},
    disk::{self, Disk, DiskFile},
    error::Fatal,
    index_file::IndexFile,
    names::{self, FileName},
    reserve,
};

/// Does what can wait.
#[derive(Debug)]
pub struct Background {
    shared: Arc<Shared>,
    shrinking: Option<Shrinking>,
    /// The last one is filled first: a recycled one needs little.
    filling: Vec<Filling>,
    zeros: Vec<u8>,
    /// How much had been written to the journal when a spare was last thought of.
    log_bytes: u64,
}

/// What a step did.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// There is nothing to do just now.
    Idle,
    /// Something, with about so many bytes written or freed. There may be more to do.
    Worked {
        /// For the caller to limit the rate by. What is written while the journal is counts for more.
        bytes: u64,
    },
    /// Something could not be done, and will be tried again: worth an alarm, and a pause.
    Postponed {
        /// What, and why.
        what: String,
    },
}

#[derive(Debug)]
struct Shrinking {
    name: String,
    file: Arc<dyn DiskFile>,
    len: u64,
}

/// A spare that is not ready yet, under its other name.
#[derive(Debug)]
struct Filling {
    number: u64,
    file: Arc<dyn DiskFile>,
    /// Up to here its blocks have been written.
    filled: u64,
}

impl Background {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let log_bytes = shared.catalog().log_bytes;
        Self { shared, shrinking: None, filling: Vec::new(), zeros: Vec::new(), log_bytes }
    }

    /// Does one thing: at most about 64 MiB freed, or one index written, or 1 MiB of a spare filled.
    ///
    /// # Errors
    /// The names in the directory are in doubt; the process ends.
    pub fn step(&mut self) -> Result<Step, Fatal> {
        let mut postponed = None;
        // What frees space comes first, what needs it last. One that fails does not keep the others from being tried.
        for task in [Self::clear, Self::write_index, Self::restore_ballast, Self::fill_spare] {
            match task(self)? {
                Step::Idle => {}
                Step::Postponed { what } => postponed = postponed.or(Some(what)),
                worked @ Step::Worked { .. } => return Ok(worked),
            }
        }
        Ok(postponed.map_or(Step::Idle, |what| Step::Postponed { what }))
    }

    /// Takes the next trimmed segment out of the log's names, and makes a spare of it, or frees its blocks bit by bit: freeing a
    /// gigabyte at once would stall every commit for as long.
    fn clear(&mut self) -> Result<Step, Fatal> {
        if let Some(shrinking) = self.shrinking.take() {
            return Ok(self.shrink(shrinking));
        }
        let Some(doomed) = self.shared.catalog_mut().doomed.pop_front() else { return Ok(Step::Idle) };
        let (disk, number) = (&*self.shared.disk, doomed.number);
        let (segment, name) = (FileName::Segment(number).to_string(), FileName::Trimmed(number).to_string());
        match disk.rename(&segment, &name) {
            // An earlier opening got that far.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(Fatal::new("renaming", &segment))?,
        }
        // An index without its segment is removed at the next opening.
        let _ = disk.remove(&FileName::Index(number).to_string());
        // The new name has to be durable before the content changes, or a power loss brings back a segment without its end.
        disk.sync_dir().map_err(Fatal::new("syncing the directory for", &name))?;
        if let Ok(file) = disk.open(&name) {
            let links = if is_on(Defect::LinkedSegmentIsRecycled) { Ok(1) } else { file.links() };
            match (links, file.len()) {
                (Ok(1), Ok(len)) if self.may_recycle(&doomed, len) => return Ok(self.recycle(&name, file, len)),
                (Ok(1), Ok(len)) => self.shrinking = Some(Shrinking { name, file, len }),
                // Somebody keeps it by a hard link: its bytes are not ours to change.
                _ => drop(disk.remove(&name)),
            }
        }
        Ok(Step::Worked { bytes: 0 })
    }

    fn may_recycle(&self, doomed: &Doomed, len: u64) -> bool {
        let Shared { disk, options, .. } = &*self.shared;
        let most = if options.spares == 0 { 0 } else { options.spares + SPARES_RECYCLED };
        let is_wanted = self.shared.catalog().spares.len() + self.filling.len() < most;
        // A much shorter one takes more space than it gives, and a longer one is of another configuration.
        let fits = (options.segment_bytes / 2..=options.segment_bytes).contains(&len);
        is_wanted && fits && !doomed.is_read() && reserve::missing(&**disk, options.ballast_bytes) == 0
    }

    /// What a segment lost at its end when it was sealed is filled up with zeros.
    fn recycle(&mut self, trimmed: &str, file: Arc<dyn DiskFile>, len: u64) -> Step {
        let recycled = next_spare(&*self.shared.disk).and_then(|number| {
            self.shared.disk.rename(trimmed, &names::aside(&FileName::Spare(number).to_string()))?;
            self.allocate_spare(number, file, len)
        });
        outcome(recycled, "recycling a trimmed segment")
    }

    fn shrink(&mut self, mut shrinking: Shrinking) -> Step {
        let left = shrinking.len.saturating_sub(SHRINK_BYTES);
        let bytes = shrinking.len - left;
        let result = if left == 0 { self.shared.disk.remove(&shrinking.name) } else { shrinking.file.set_len(left) };
        if left > 0 && result.is_ok() {
            shrinking.len = left;
            self.shrinking = Some(shrinking);
        }
        // What cannot be freed now is removed at the next opening.
        outcome(result.map(|()| bytes), "deleting a trimmed segment")
    }

    fn write_index(&mut self) -> Result<Step, Fatal> {
        let sealed = self.shared.catalog().segments.iter().find_map(|(number, segment)| match &segment.index {
            SegmentIndex::Sealed(index) => Some((*number, segment.end, Arc::clone(index))),
            SegmentIndex::Active(_) | SegmentIndex::File(_) => None,
        });
        let Some((number, end, index)) = sealed else { return Ok(Step::Idle) };
        let (disk, identity) = (&*self.shared.disk, &self.shared.identity);
        let loaded = IndexFile::write(disk, identity, &end, &index).and_then(|()| IndexFile::load(disk, identity, &end));
        let result = loaded.and_then(|loaded| loaded.ok_or_else(|| io::Error::other("it was read back differently")));
        Ok(outcome(
            result.map(|file| {
                // It may have been trimmed meanwhile.
                if let Some(segment) = self.shared.catalog_mut().segments.get_mut(&number) {
                    segment.index = SegmentIndex::File(Arc::new(file));
                }
                0
            }),
            "writing an index",
        ))
    }

    /// Zeros are written while the journal is not, or only a little: under load they would take more time of the disk than they
    /// save. A spare that was begun is finished, slowly if it has to be.
    fn fill_spare(&mut self) -> Result<Step, Fatal> {
        let (written, spares) = {
            let catalog = self.shared.catalog();
            (catalog.log_bytes - std::mem::replace(&mut self.log_bytes, catalog.log_bytes), catalog.spares.len())
        };
        let result = match self.filling.pop() {
            Some(filling) => self.fill(filling).map(|bytes| if written > 0 { bytes * BUSY_WEIGHT } else { bytes }),
            None if spares < self.shared.options.spares && written <= QUIET_BYTES => self.begin_spare(),
            None => return Ok(Step::Idle),
        };
        Ok(outcome(result, "making a spare"))
    }

    fn begin_spare(&mut self) -> io::Result<u64> {
        let disk = &*self.shared.disk;
        let number = next_spare(disk)?;
        let (bytes, keep) = (self.shared.options.segment_bytes, self.shared.options.ballast_bytes);
        if disk.free_space()? < bytes.saturating_add(reserve::missing(disk, keep)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = disk::create_over(disk, &names::aside(&FileName::Spare(number).to_string()))?;
        self.allocate_spare(number, file, 0)
    }

    fn allocate_spare(&mut self, number: u64, file: Arc<dyn DiskFile>, filled: u64) -> io::Result<u64> {
        if let Err(e) = file.allocate(self.shared.options.segment_bytes) {
            self.shared.disk.remove(&names::aside(&FileName::Spare(number).to_string()))?;
            return Err(e);
        }
        self.filling.push(Filling { number, file, filled });
        Ok(0)
    }

    fn fill(&mut self, mut filling: Filling) -> io::Result<u64> {
        let disk = &*self.shared.disk;
        let name = FileName::Spare(filling.number).to_string();
        let aside = names::aside(&name);
        let left = self.shared.options.segment_bytes - filling.filled;
        if left == 0 {
            // One whose sync failed is not used by anybody.
            filling.file.sync_all().inspect_err(|_| drop(disk.remove(&aside)))?;
            disk.rename(&aside, &name)?;
            self.zeros = Vec::new();
            self.shared.catalog_mut().spares.push_back(filling.number);
            return Ok(0);
        }
        let some = left.min(FILL_BYTES);
        if self.zeros.is_empty() {
            self.zeros = vec![0; usize::try_from(FILL_BYTES).expect("1 MiB")];
        }
        let zeros = &self.zeros[..usize::try_from(some).expect("at most 1 MiB")];
        // Synced bit by bit: a whole spare at once would stand before every commit in the disk's queue.
        let written = filling.file.write_at(&[IoSlice::new(zeros)], filling.filled).and_then(|()| filling.file.sync_data());
        written.inspect_err(|_| drop(disk.remove(&aside)))?;
        filling.filled += some;
        self.filling.push(filling);
        Ok(some)
    }

    fn restore_ballast(&mut self) -> Result<Step, Fatal> {
        match reserve::restore(&self.shared) {
            Ok(false) => Ok(Step::Idle),
            result => Ok(outcome(result.map(|_| 0), "restoring the ballast")),
        }
    }
}

/// A number that no spare has, ready or not.
fn next_spare(disk: &dyn Disk) -> io::Result<u64> {
    let number = |name: &str| match FileName::parse(name.strip_suffix(names::ASIDE).unwrap_or(name)) {
        Some(FileName::Spare(number)) => Some(number),
        _ => None,
    };
    let highest = disk.list()?.iter().filter_map(|name| number(name)).max();
    Ok(highest.map_or(0, |highest| highest.wrapping_add(1)))
}

fn outcome(result: io::Result<u64>, what: &str) -> Step {
    match result {
        Ok(bytes) => Step::Worked { bytes },
        Err(e) => Step::Postponed { what: format!("{what} failed: {e}; it will be tried again") },
    }
}

/// Recycled spares that are kept beside those that are made of zeros: retention gives up two segments at a time where a snapshot
/// comes with every other one.
const SPARES_RECYCLED: usize = 2;
/// Bytes written to the journal between two looks, a tenth of a second apart, up to which it is quiet.
const QUIET_BYTES: u64 = 8 << 20;
/// A byte of zeros counts so often while the journal is written: each of its syncs may wait behind one of theirs.
const BUSY_WEIGHT: u64 = 10;
/// Bytes freed in a step.
const SHRINK_BYTES: u64 = 64 << 20;
/// Bytes of a spare filled in a step.
const FILL_BYTES: u64 = 1 << 20;

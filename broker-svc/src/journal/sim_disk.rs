//! A disk in memory that loses, tears, lies, lags and fills up, so that tests run the real journal over it.
//!
//! Each file has two contents: what a reader sees (the page cache) and what would survive a power loss. A sync copies the pages
//! written since the last one from the first to the second; a **failed** sync drops them from that list instead, as Linux does,
//! so that a later sync succeeds without having written them. Names have the same two states.
//!
//! Calls return at once. On a disk that takes its time the one who called waits for it afterwards, and only then is what he
//! synced durable: a power loss in between may take any page of it, and what others do meanwhile changes nothing about that.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    disk::{Disk, DiskFile, FileSystem, LockGuard},
    names::FileName,
    random::Random,
    sim_content::{NameChange, SimContent},
};
use crate::workers::{DiskTime, Taken};

/// An operation that changes something, as faults name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// A write, an allocation or a change of length.
    Write,
    /// A sync of a file.
    Sync,
    /// A sync of the directory.
    SyncDir,
    /// A change of names.
    Name,
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// [`SimDisk::fail`] had planned it.
    Planned(Operation),
    /// The machine had stopped before it: [`SimDisk::stop_after`].
    Stopped,
    /// There was no room: [`SimDisk::set_capacity`].
    Full,
}

/// What a power loss took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Changes of names that no sync of the directory had made durable.
    pub names: u64,
    /// Pages that were written and not synced, and are as they were before.
    pub pages: u64,
    /// Pages that were not synced either, and made it.
    pub kept_pages: u64,
}

/// How long a disk takes: for each operation a random time up to the one given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// For a write, or a change of names.
    pub write: Duration,
    /// For a sync.
    pub sync: Duration,
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// An empty disk without limits or faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Power loss. What was synced stays; of the rest `seed` chooses which 4 KiB pages, lengths and names made it. Whoever has a
    /// file open loses it. Faults end; a full disk stays full.
    pub fn crash(&self, seed: u64) -> Loss {
        let mut state = self.state();
        let mut random = Random(seed);
        let kept = usize::try_from(random.below(state.name_changes.len() as u64 + 1)).expect("came from a usize");
        let changes = std::mem::take(&mut state.name_changes);
        let mut loss = Loss { names: (changes.len() - kept) as u64, ..Loss::default() };
        for change in changes.into_iter().take(kept) {
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        let named: BTreeSet<u64> = state.names.values().copied().collect();
        state.files.retain(|id, _| named.contains(id));
        for file in state.files.values_mut() {
            let (lost, kept) = file.crash(&mut random);
            loss.pages += lost;
            loss.kept_pages += kept;
        }
        state.restart();
        loss
    }

    /// The process ends and another one starts: what was written is still seen, synced or not. Whoever has a file open loses it;
    /// faults end.
    pub fn restart(&self) {
        self.state().restart();
    }

    /// From now on the `nth` operation of this kind fails, once; 0 is the next one. A failed write leaves half of its bytes.
    pub fn fail(&self, operation: Operation, nth: u64) {
        self.state().fault = Some((operation, nth));
    }

    /// What [`Self::fail`] has planned, and has not come true, does not any more.
    pub fn fail_no_more(&self) {
        self.state().fault = None;
    }

    /// After this many further changes of any kind each one fails without effect, as if the machine had stopped there.
    pub fn stop_after(&self, changes: u64) {
        self.state().stop_after = Some(changes);
    }

    /// How many operations failed by [`Self::fail`] or [`Self::stop_after`] so far.
    pub fn faults(&self) -> u64 {
        self.failures().iter().filter(|(why, _)| **why != Failure::Full).map(|(_, many)| many).sum()
    }

    /// How many operations failed so far, and why.
    pub fn failures(&self) -> BTreeMap<Failure, u64> {
        self.state().failures.clone()
    }

    /// True from the moment in which a segment could not be written or synced, to the next restart: whoever writes the journal
    /// has to end, and must not acknowledge anything before that.
    pub fn has_failed_log(&self) -> watch::Receiver<bool> {
        self.state().has_failed_log.subscribe()
    }

    /// From now on the disk takes its time; none: it takes none.
    pub fn set_pace(&self, seed: u64, pace: Option<Pace>) {
        self.state().pace = pace.map(|pace| (Random(seed), pace));
    }

    /// How many changes of any kind were made so far.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// How much all files together may hold; none: no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes that all files together hold.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// What the disk says it is.
    pub fn set_file_system(&self, system: FileSystem) {
        self.state().system = Some(system);
    }

    /// Pretends that somebody made hard links to every file.
    pub fn set_links(&self, links: u64) {
        self.state().links = Some(links);
    }

    /// The names of all files, sorted.
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// What a file holds; none if there is no such file.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).map(|id| state.files[id].seen.clone())
    }

    /// Replaces a file's content, durably, as somebody with a hex editor would. Makes the file if it does not exist.
    pub fn set_content(&self, name: &str, content: Vec<u8>) {
        let mut state = self.state();
        let id = match state.names.get(name) {
            Some(id) => *id,
            None => state.make(name),
        };
        state.durable_names.insert(name.to_owned(), id);
        let file = state.files.get_mut(&id).expect("a name has a file");
        file.durable.clone_from(&content);
        file.seen = content;
        file.unsynced.clear();
        file.length_unsynced = false;
    }

    /// Turns one bit of a file around, durably. Bit 0 is the lowest of the first byte.
    ///
    /// # Panics
    /// There is no such file or bit.
    pub fn flip_bit(&self, name: &str, bit: u64) {
        let mut content = self.content(name).expect("the file exists");
        content[usize::try_from(bit / 8).expect("in memory")] ^= 1 << (bit % 8);
        self.set_content(name, content);
    }

    /// From now on reads that touch this range of a file fail, as at a bad sector.
    ///
    /// # Panics
    /// There is no such file.
    pub fn spoil(&self, name: &str, range: Range<u64>) {
        let mut state = self.state();
        let id = state.find(name).expect("the file exists");
        state.spoiled.push((id, range));
    }

    /// An independent copy of the disk as it is.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut state = self.state().clone();
        state.locked = false;
        state.has_failed_log = watch::Sender::default();
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, id: u64) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), id, generation: self.state().generation })
    }
}

impl DiskTime for SimDisk {
    fn take(&self) -> Taken {
        let mut state = self.state();
        let taken = Taken { time: std::mem::take(&mut state.time), number: state.next_taken };
        state.next_taken += 1;
        let begun = std::mem::take(&mut state.begun);
        state.syncing.insert(taken.number, begun);
        taken
    }

    fn over(&self, taken: Taken) {
        let mut state = self.state();
        for file in state.syncing.remove(&taken.number).unwrap_or_default() {
            state.finish(file);
        }
    }
}

impl Disk for SimDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let id = {
            let mut state = self.state();
            if state.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.change(Operation::Name)?;
            state.make(name)
        };
        Ok(self.handle(id))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let id = self.state().find(name)?;
        Ok(self.handle(id))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.find(from)?;
        state.change(Operation::Name)?;
        state.change_name(NameChange::Renamed(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.find(name)?;
        state.change(Operation::Name)?;
        state.change_name(NameChange::Removed(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        state.change(Operation::SyncDir)?;
        state.name_changes.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn LockGuard>>> {
        let mut state = self.state();
        if state.locked {
            return Ok(None);
        }
        if !state.names.contains_key(name) {
            state.change(Operation::Name)?;
            state.make(name);
        }
        state.locked = true;
        let generation = state.generation;
        Ok(Some(Box::new(SimLock { disk: self.clone(), generation })))
    }

    fn file_system(&self) -> io::Result<FileSystem> {
        Ok(self.state().system.unwrap_or(FileSystem::Local))
    }

    fn free_space(&self) -> io::Result<u64> {
        let state = self.state();
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used())))
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    generation: u64,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.generation == self.generation {
            state.locked = false;
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: u64,
    generation: u64,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.generation != self.generation {
            return Err(io::Error::other("the machine was restarted since this file was opened"));
        }
        act(&mut state, self.id)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|state, id| Ok(state.file(id).seen.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.with(|state, id| {
            let end = position.saturating_add(buffer.len() as u64);
            if state.spoiled.iter().any(|(spoiled, range)| *spoiled == id && range.start < end && position < range.end) {
                return Err(rustix::io::Errno::IO.into());
            }
            let seen = &state.file(id).seen;
            let from = usize::try_from(position).unwrap_or(usize::MAX).min(seen.len());
            let len = buffer.len().min(seen.len() - from);
            buffer[..len].copy_from_slice(&seen[from..from + len]);
            Ok(len)
        })
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        for slice in slices {
            bytes.extend_from_slice(slice);
        }
        self.with(|state, id| {
            state.room_for(id, position + bytes.len() as u64)?;
            let judged = state.change(Operation::Write);
            match &judged {
                Ok(()) => state.file(id).write(&bytes, position),
                Err(e) if e.kind() == io::ErrorKind::Other => {
                    let half = bytes.len() / 2;
                    state.file(id).write(&bytes[..half], position);
                }
                Err(_) => {}
            }
            state.note_log(id, &judged);
            judged
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state, id| {
            let judged = state.change(Operation::Sync);
            match &judged {
                Ok(()) => {
                    state.begun.push(id);
                    if state.pace.is_none() {
                        state.finish_begun();
                    }
                }
                // The system takes what it could not write for written: a later sync succeeds without it.
                Err(e) if e.kind() == io::ErrorKind::Other => state.file(id).unsynced.clear(),
                // The machine stopped in the middle: some of it made it, as the power loss will say.
                Err(_) => {}
            }
            state.note_log(id, &judged);
            judged
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.with(|state, id| {
            state.room_for(id, len)?;
            state.change(Operation::Write)?;
            let file = state.file(id);
            if (file.seen.len() as u64) < len {
                file.resize(len);
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|state, id| {
            state.room_for(id, len)?;
            state.change(Operation::Write)?;
            state.file(id).resize(len);
            Ok(())
        })
    }

    fn links(&self) -> io::Result<u64> {
        self.with(|state, _| Ok(state.links.unwrap_or(1)))
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    files: BTreeMap<u64, SimContent>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Since the last sync of the directory, in order. A power loss keeps the first few of them.
    name_changes: Vec<NameChange>,
    next_id: u64,
    /// Counts restarts: a file opened before the last one is of no use.
    generation: u64,
    locked: bool,
    capacity: Option<u64>,
    changes: u64,
    stop_after: Option<u64>,
    fault: Option<(Operation, u64)>,
    failures: BTreeMap<Failure, u64>,
    has_failed_log: watch::Sender<bool>,
    pace: Option<(Random, Pace)>,
    time: Duration,
    /// Files whose sync has begun, and whose time nobody has taken yet: all by the one task that has its turn.
    begun: Vec<u64>,
    /// Files whose sync is waited for, by the number of what was taken.
    syncing: BTreeMap<u64, Vec<u64>>,
    next_taken: u64,
    /// Files and ranges of theirs that cannot be read.
    spoiled: Vec<(u64, Range<u64>)>,
    system: Option<FileSystem>,
    links: Option<u64>,
}

impl State {
    fn restart(&mut self) {
        self.generation += 1;
        self.locked = false;
        self.fault = None;
        self.stop_after = None;
        self.time = Duration::ZERO;
        self.begun.clear();
        self.syncing.clear();
        self.has_failed_log.send_replace(false);
    }

    fn note_log(&self, id: u64, judged: &io::Result<()>) {
        let is_segment = |name: &String| matches!(FileName::parse(name), Some(FileName::Segment(_)));
        if judged.is_err() && self.names.iter().any(|(name, file)| *file == id && is_segment(name)) {
            self.has_failed_log.send_replace(true);
        }
    }

    fn failed(&mut self, why: Failure) {
        *self.failures.entry(why).or_default() += 1;
    }

    /// A sync is over. A file has one writer, who wrote nothing meanwhile. The file may be gone.
    fn finish(&mut self, file: u64) {
        if let Some(file) = self.files.get_mut(&file) {
            file.sync();
        }
    }

    fn finish_begun(&mut self) {
        for file in std::mem::take(&mut self.begun) {
            self.finish(file);
        }
    }

    /// Counts a change, and lets it fail if a fault is due. A planned fault is of kind `Other`, a stopped machine is not.
    fn change(&mut self, operation: Operation) -> io::Result<()> {
        // Who goes on before anybody has taken the time is the one who synced: for him it is over.
        self.finish_begun();
        if let Some(left) = &mut self.stop_after {
            if *left == 0 {
                self.failed(Failure::Stopped);
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the machine has stopped"));
            }
            *left -= 1;
        }
        if let Some((kind, nth)) = &mut self.fault
            && *kind == operation
        {
            if *nth == 0 {
                self.fault = None;
                self.failed(Failure::Planned(operation));
                return Err(io::Error::other("planned fault"));
            }
            *nth -= 1;
        }
        self.changes += 1;
        if let Some((random, pace)) = &mut self.pace {
            let most = if matches!(operation, Operation::Sync | Operation::SyncDir) { pace.sync } else { pace.write };
            let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
            self.time += Duration::from_micros(random.below(most.saturating_add(1)));
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        self.names.values().map(|id| self.files[id].seen.len() as u64).sum()
    }

    fn room_for(&mut self, id: u64, end: u64) -> io::Result<()> {
        let growth = end.saturating_sub(self.file(id).seen.len() as u64);
        if growth > 0 && self.capacity.is_some_and(|capacity| self.used() + growth > capacity) {
            self.failed(Failure::Full);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn make(&mut self, name: &str) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.files.insert(id, SimContent::default());
        self.change_name(NameChange::Made(name.to_owned(), id));
        id
    }

    fn change_name(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&mut self, id: u64) -> &mut SimContent {
        self.files.get_mut(&id).expect("a file lives as long as the run")
    }
}

//! A disk that does everything right but one thing: the operation of a given number fails, whatever it is.

use std::{
    io::{self, IoSlice},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use broker_svc::journal::{
    disk::{Disk, DiskFile, FileSystem, LockGuard},
    sim_disk::{Operation, SimDisk},
};

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing was done. A sync loses the pages that it was to keep.
    Undone,
    /// Half of the bytes were written. For what has no halves: nothing was done.
    Half,
    /// All was done, and an error told all the same.
    Done,
}

/// Which operation fails, how, and with which error of the operating system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) number: u64,
    pub(crate) failure: Failure,
    pub(crate) errno: i32,
}

/// A [`SimDisk`] behind a plan.
#[derive(Clone, Debug)]
pub(crate) struct FailingDisk {
    disk: SimDisk,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    plan: Option<Plan>,
    /// What was asked for so far: the kind, and whether it changes anything.
    asked: Vec<(&'static str, bool)>,
    has_failed: bool,
}

impl FailingDisk {
    pub(crate) fn new(disk: &SimDisk, plan: Option<Plan>) -> Self {
        Self { disk: disk.clone(), shared: Arc::new(Mutex::new(Shared { plan, ..Shared::default() })) }
    }

    /// Every operation so far: its kind, and whether it changes anything.
    pub(crate) fn asked(&self) -> Vec<(&'static str, bool)> {
        self.lock().asked.clone()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.lock().has_failed
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is it this one's turn to fail?
    fn turn(&self, kind: &'static str, changes: bool) -> Option<(Failure, io::Error)> {
        let mut shared = self.lock();
        shared.asked.push((kind, changes));
        let plan = shared.plan.filter(|plan| plan.number == shared.asked.len() as u64 - 1)?;
        shared.has_failed = true;
        Some((plan.failure, io::Error::from_raw_os_error(plan.errno)))
    }

    fn read<T>(&self, kind: &'static str, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.turn(kind, false) {
            Some((_, error)) => Err(error),
            None => act(),
        }
    }

    fn change<T>(&self, kind: &'static str, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.turn(kind, true) {
            Some((Failure::Done, error)) => act().and(Err(error)),
            Some((Failure::Undone | Failure::Half, error)) => Err(error),
            None => act(),
        }
    }

    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FailingFile { file, disk: self.clone() })
    }
}

impl Disk for FailingDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.change("create", || self.disk.create(name)).map(|file| self.wrap(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.read("open", || self.disk.open(name)).map(|file| self.wrap(file))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.read("list", || self.disk.list())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change("rename", || self.disk.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change("remove", || self.disk.remove(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.change("sync of the directory", || self.disk.sync_dir())
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn LockGuard>>> {
        self.read("lock", || self.disk.lock(name))
    }

    fn file_system(&self) -> io::Result<FileSystem> {
        self.read("kind of file system", || self.disk.file_system())
    }

    fn free_space(&self) -> io::Result<u64> {
        self.read("free space", || self.disk.free_space())
    }
}

#[derive(Debug)]
struct FailingFile {
    file: Arc<dyn DiskFile>,
    disk: FailingDisk,
}

impl FailingFile {
    fn sync(&self, act: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match self.disk.turn("sync", true) {
            Some((Failure::Done, error)) => act().and(Err(error)),
            Some((_, error)) => {
                self.disk.disk.fail(Operation::Sync, 0);
                act().expect_err("it was told to fail");
                Err(error)
            }
            None => act(),
        }
    }
}

impl DiskFile for FailingFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.read("length", || self.file.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.disk.read("read", || self.file.read_at(buffer, position))
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        match self.disk.turn("write", true) {
            Some((Failure::Undone, error)) => Err(error),
            Some((Failure::Half, error)) => {
                let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
                self.file.write_at(&[IoSlice::new(&bytes[..bytes.len() / 2])], position).and(Err(error))
            }
            Some((Failure::Done, error)) => self.file.write_at(slices, position).and(Err(error)),
            None => self.file.write_at(slices, position),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(|| self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(|| self.file.sync_all())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.change("allocate", || self.file.allocate(len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.change("change of length", || self.file.set_len(len))
    }

    fn links(&self) -> io::Result<u64> {
        self.disk.read("links", || self.file.links())
    }
}

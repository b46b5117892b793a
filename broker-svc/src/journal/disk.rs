//! The seam below the journal: what it asks of a disk, and nothing more.
//!
//! One flat directory. What is written is durable only after a sync of its file; a name that was made, changed or removed is
//! durable only after [`Disk::sync_dir`]. A failed sync says nothing about what is on the disk and must never be repeated as if
//! nothing had happened (I8): the kernel may have dropped the pages and call the next sync a success.

use std::{
    fmt,
    io::{self, IoSlice},
    sync::Arc,
};

/// A directory on a disk.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes an empty file and opens it for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists`, `StorageFull`, and what the disk says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, and what the disk says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// The names of all files, in no order.
    ///
    /// # Errors
    /// What the disk says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Renames a file; one that has the new name is replaced in the same instant.
    ///
    /// # Errors
    /// `NotFound`, and what the disk says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file's name. Who has the file open may go on reading it.
    ///
    /// # Errors
    /// `NotFound`, and what the disk says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every change of names so far durable.
    ///
    /// # Errors
    /// What the disk says.
    fn sync_dir(&self) -> io::Result<()>;

    /// Locks the directory through a file of this name against every other process; none if another one has it. The lock ends
    /// with the guard, and with the process.
    ///
    /// # Errors
    /// What the disk says.
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn LockGuard>>>;

    /// What kind of file system the directory is on.
    ///
    /// # Errors
    /// What the disk says.
    fn file_system(&self) -> io::Result<FileSystem>;

    /// Bytes that can still be allocated.
    ///
    /// # Errors
    /// What the disk says.
    fn free_space(&self) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Its length in bytes.
    ///
    /// # Errors
    /// What the disk says.
    fn len(&self) -> io::Result<u64>;

    /// Is its length 0?
    ///
    /// # Errors
    /// What the disk says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buffer` from `position` on; returns how many bytes there were, fewer than asked for only at the file's end.
    ///
    /// # Errors
    /// What the disk says.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes all slices, one behind the other, from `position` on. After an error nobody knows what of it was written.
    ///
    /// # Errors
    /// `StorageFull`, and what the disk says.
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()>;

    /// Makes the content durable, and of the rest what is needed to read it.
    ///
    /// # Errors
    /// What the disk says.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes content, length and everything else about the file durable. Not its name.
    ///
    /// # Errors
    /// What the disk says.
    fn sync_all(&self) -> io::Result<()>;

    /// Reserves space for `len` bytes and makes the file that long; what is new reads as zeros.
    ///
    /// # Errors
    /// `StorageFull`, and what the disk says.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Cuts the file, or makes it longer with zeros.
    ///
    /// # Errors
    /// What the disk says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// How many names the file has. More than one: somebody keeps it (a backup), and its bytes must stay as they are.
    ///
    /// # Errors
    /// What the disk says.
    fn links(&self) -> io::Result<u64>;
}

/// Holds a directory's lock until it is dropped.
pub trait LockGuard: Send + Sync + fmt::Debug {}

/// What a directory is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// A file system of this machine, as far as can be seen.
    Local,
    /// One that forgets (tmpfs), goes with its container (overlay), or hides what it is (FUSE). Good for a trial.
    Doubtful(&'static str),
    /// One of another machine, whose locks may exclude nobody.
    Network(&'static str),
}

/// Has the disk no room left?
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// May it be well in a moment, because it is the process that ran out of something and not the disk?
pub(super) fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.kind() == io::ErrorKind::Interrupted
        || Errno::from_io_error(error)
            .is_some_and(|errno| [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN].contains(&errno))
}

/// The `len` bytes at `position`; fewer where the file ends.
pub(super) fn read_vec(file: &dyn DiskFile, position: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; len];
    let read = file.read_at(&mut buffer, position)?;
    buffer.truncate(read);
    Ok(buffer)
}

/// The whole content of a small file; an error if it is longer than `limit` bytes.
pub(super) fn read_small(disk: &dyn Disk, name: &str, limit: usize) -> io::Result<Vec<u8>> {
    let content = read_vec(&*disk.open(name)?, 0, limit + 1)?;
    if content.len() > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is longer than {limit} bytes")));
    }
    Ok(content)
}

/// Makes a file that is either whole or not there: written under another name, synced, renamed. The caller syncs the directory.
pub(super) fn write_aside(disk: &dyn Disk, name: &str, slices: &[IoSlice<'_>]) -> io::Result<()> {
    let aside = super::names::aside(name);
    let file = create_over(disk, &aside)?;
    let written = file.write_at(slices, 0).and_then(|()| file.sync_all());
    if let Err(e) = written {
        // What this sync was about is not trusted any more, by no one: the file goes.
        let _ = disk.remove(&aside);
        return Err(e);
    }
    disk.rename(&aside, name)
}

/// Creates a file in place of a leftover of the same name.
pub(super) fn create_over(disk: &dyn Disk, name: &str) -> io::Result<Arc<dyn DiskFile>> {
    match disk.create(name) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(name)?;
            disk.create(name)
        }
        result => result,
    }
}

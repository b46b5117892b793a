//! A disk that cannot be changed: whoever looks at a journal leaves it as it was.

use std::{
    fs::File,
    io::{self, IoSlice},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use broker_svc::journal::disk::{Disk, DiskFile, FileSystem, LockGuard};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// A directory, to be read.
#[derive(Debug)]
pub(crate) struct ReadOnlyDisk(PathBuf);

impl ReadOnlyDisk {
    /// # Errors
    /// It is no directory.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        match path.metadata()?.is_dir() {
            true => Ok(Self(path.to_owned())),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }
}

impl Disk for ReadOnlyDisk {
    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(ReadOnlyFile(File::open(self.0.join(name))?)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self) -> io::Result<()> {
        refused()
    }

    /// A broker that starts meanwhile is told that another process has the journal open.
    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn LockGuard>>> {
        let file = match File::open(self.0.join(name)) {
            Ok(file) => file,
            // A copy of a journal may lack it, and nobody else can hold what is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Box::new(Lock(None)))),
            Err(error) => return Err(error),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(Lock(Some(file))))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn file_system(&self) -> io::Result<FileSystem> {
        // It matters to who writes.
        Ok(FileSystem::Local)
    }

    fn free_space(&self) -> io::Result<u64> {
        Ok(0)
    }
}

#[derive(Debug)]
struct Lock(#[expect(dead_code, reason = "the lock ends with the file")] Option<File>);

impl LockGuard for Lock {}

#[derive(Debug)]
struct ReadOnlyFile(File);

impl DiskFile for ReadOnlyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], position + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<()> {
        refused()
    }

    fn sync_data(&self) -> io::Result<()> {
        refused()
    }

    fn sync_all(&self) -> io::Result<()> {
        refused()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        refused()
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.nlink())
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

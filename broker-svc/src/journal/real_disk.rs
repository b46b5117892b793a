//! The disk seam over the operating system. Owns nothing but the directory's path and handle.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice},
    os::unix::fs::{FileExt, MetadataExt},
    path::PathBuf,
    sync::Arc,
};

use rustix::{
    fs::{FallocateFlags, FlockOperation},
    io::{Errno, retry_on_intr},
};

use super::disk::{Disk, DiskFile, FileSystem, LockGuard};

/// A directory of this machine.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
    directory: File,
}

impl RealDisk {
    /// Opens the directory; makes it, and those above it, if it does not exist.
    ///
    /// # Errors
    /// It can neither be opened nor made.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        std::fs::create_dir_all(&path)?;
        // The name of a new data directory has to be as durable as what is in it.
        if let Some(parent) = path.canonicalize()?.parent() {
            File::open(parent)?.sync_all()?;
        }
        let directory = File::open(&path)?;
        Ok(Self { path, directory })
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.path.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(self.path.join(name))?)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn LockGuard>>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.path.join(name))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(FileLock { _file: file }))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn file_system(&self) -> io::Result<FileSystem> {
        let magic = rustix::fs::fstatfs(&self.directory)?.f_type;
        // The type of the number differs between machines; all magic numbers have 32 bits.
        let magic = u32::try_from(i128::from(magic) & 0xFFFF_FFFF).expect("32 bits were kept");
        Ok(KNOWN.iter().find(|(known, _)| *known == magic).map_or(FileSystem::Local, |(_, system)| *system))
    }

    fn free_space(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[derive(Debug)]
struct FileLock {
    _file: File,
}

impl LockGuard for FileLock {}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.0.read_at(&mut buffer[done..], position + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], mut position: u64) -> io::Result<()> {
        for some in slices.chunks(MOST_SLICES) {
            let mut owned: Vec<IoSlice<'_>>;
            let mut rest: &[IoSlice<'_>] = some;
            loop {
                let left: usize = rest.iter().map(|s| s.len()).sum();
                if left == 0 {
                    break;
                }
                let written = retry_on_intr(|| rustix::io::pwritev(&self.0, rest, position))?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                position += written as u64;
                if written == left {
                    break;
                }
                // Rare: the disk took a part. Go on where it stopped.
                owned = after(rest, written);
                rest = &owned;
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match retry_on_intr(|| rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len)) {
            // A file system that cannot reserve: the length is all there is.
            Err(Errno::OPNOTSUPP) if self.len()? < len => self.0.set_len(len),
            Err(Errno::OPNOTSUPP) => Ok(()),
            result => Ok(result?),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.nlink())
    }
}

/// What is left of `slices` once the first `written` bytes are gone.
fn after<'a>(slices: &[IoSlice<'a>], mut written: usize) -> Vec<IoSlice<'a>> {
    let mut rest = slices.to_vec();
    while let Some(first) = rest.first_mut() {
        if written < first.len() {
            first.advance(written);
            break;
        }
        written -= first.len();
        rest.remove(0);
    }
    rest
}

/// Most slices that the kernel takes at once (`IOV_MAX`).
const MOST_SLICES: usize = 1024;

/// File systems by the magic number of `statfs`.
const KNOWN: [(u32, FileSystem); 12] = [
    (0x0000_6969, FileSystem::Network("NFS")),
    (0x0000_517B, FileSystem::Network("SMB")),
    (0xFE53_4D42, FileSystem::Network("SMB2")),
    (0xFF53_4D42, FileSystem::Network("CIFS")),
    (0x00C3_6400, FileSystem::Network("Ceph")),
    (0x0102_1997, FileSystem::Network("9P")),
    (0x5346_414F, FileSystem::Network("AFS")),
    (0x0BD0_0BD0, FileSystem::Network("Lustre")),
    (0x0102_1994, FileSystem::Doubtful("tmpfs")),
    (0x8584_58F6, FileSystem::Doubtful("ramfs")),
    (0x794C_7630, FileSystem::Doubtful("overlay")),
    (0x6573_5546, FileSystem::Doubtful("FUSE")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_slices_than_the_kernel_takes_are_written_in_order() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let disk = RealDisk::open(directory.path()).expect("opens");
        let file = disk.create("a").expect("new");
        let bytes: Vec<u8> = (0..3 * MOST_SLICES).map(|i| i.to_le_bytes()[0]).collect();
        let slices: Vec<IoSlice<'_>> = bytes.chunks(1).map(IoSlice::new).collect();
        file.write_at(&slices, 5).expect("written");
        let mut read = vec![0; bytes.len() + 9];
        assert_eq!(file.read_at(&mut read, 5).expect("read"), bytes.len());
        assert_eq!(read[..bytes.len()], bytes);
    }

    #[test]
    fn a_part_that_was_written_is_not_written_again() {
        let slices = [IoSlice::new(b"abc"), IoSlice::new(b""), IoSlice::new(b"defg")];
        for written in 0..7 {
            let left: Vec<u8> = after(&slices, written).iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(left, b"abcdefg"[written..]);
        }
    }

    #[test]
    fn a_locked_directory_is_locked_for_everybody_else() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (one, two) = (RealDisk::open(directory.path()).expect("opens"), RealDisk::open(directory.path()).expect("opens"));
        let guard = one.lock("LOCK").expect("no error").expect("free");
        assert!(two.lock("LOCK").expect("no error").is_none());
        drop(guard);
        assert!(two.lock("LOCK").expect("no error").is_some());
    }
}

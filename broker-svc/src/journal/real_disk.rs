//! The disk seam over the operating system. Owns the directory's path and handle, and knows whether its file system takes writes
//! past the page cache: many whole blocks at once go past it (large groups, and the zeros of spares), everything else through it.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice},
    os::unix::fs::{FileExt, MetadataExt},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{FallocateFlags, FlockOperation},
    io::{Errno, retry_on_intr},
};

use super::{
    direct::{Direct, Outcome},
    disk::{Disk, DiskFile, FileSystem, LockGuard},
};

/// A directory of this machine.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
    directory: File,
    /// A sync of the directory failed. The system tells that once, to whoever syncs next; whoever comes after would be told that
    /// all is well (I8).
    lost_names: Mutex<bool>,
    /// The file system refused a write past the cache; it is not asked again.
    refuses_direct: Arc<AtomicBool>,
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
        Ok(Self { path, directory, lost_names: Mutex::default(), refuses_direct: Arc::default() })
    }

    fn file(&self, options: &OpenOptions, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = options.open(self.path.join(name))?;
        Ok(Arc::new(RealFile::new(file, Arc::clone(&self.refuses_direct))))
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.file(OpenOptions::new().read(true).write(true).create_new(true), name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.file(OpenOptions::new().read(true).write(true), name)
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
        let mut lost = self.lost_names.lock().unwrap_or_else(PoisonError::into_inner);
        if *lost {
            return Err(io::Error::other("an earlier sync of the directory failed"));
        }
        self.directory.sync_all().inspect_err(|_| *lost = true)
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
struct RealFile {
    file: File,
    /// Held while a write is under way: a file has one writer, so nobody waits for it.
    blocks: Mutex<Blocks>,
    refuses_direct: Arc<AtomicBool>,
}

/// How whole blocks are written to a file. Its first ones decide.
#[derive(Debug)]
enum Blocks {
    Undecided,
    PastTheCache(Direct),
    ThroughTheCache,
}

impl RealFile {
    const fn new(file: File, refuses_direct: Arc<AtomicBool>) -> Self {
        Self { file, blocks: Mutex::new(Blocks::Undecided), refuses_direct }
    }

    fn write_blocks(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<Outcome> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Blocks::Undecided = *blocks {
            let direct = if self.refuses_direct.load(Ordering::Relaxed) { None } else { Direct::open(&self.file) };
            *blocks = direct.map_or_else(|| self.refused(), Blocks::PastTheCache);
        }
        let Blocks::PastTheCache(direct) = &mut *blocks else { return Ok(Outcome::Refused) };
        let outcome = direct.write(slices, position)?;
        if outcome == Outcome::Refused {
            *blocks = self.refused();
        }
        Ok(outcome)
    }

    fn refused(&self) -> Blocks {
        if !self.refuses_direct.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the file system of the data directory takes no O_DIRECT writes: groups are written through the page cache"
            );
        }
        Blocks::ThroughTheCache
    }

    fn write_through_cache(&self, slices: &[IoSlice<'_>], mut position: u64) -> io::Result<()> {
        for some in slices.chunks(MOST_SLICES) {
            let mut owned: Vec<IoSlice<'_>>;
            let mut rest: &[IoSlice<'_>] = some;
            loop {
                let left: usize = rest.iter().map(|s| s.len()).sum();
                if left == 0 {
                    break;
                }
                let written = retry_on_intr(|| rustix::io::pwritev(&self.file, rest, position))?;
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
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], position + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let outcome = if Direct::takes(slices, position) { self.write_blocks(slices, position)? } else { Outcome::Refused };
        match outcome {
            Outcome::Written => Ok(()),
            Outcome::Unaligned(written) => self.write_through_cache(&after(slices, written), position + written as u64),
            Outcome::Refused => self.write_through_cache(slices, position),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match retry_on_intr(|| rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len)) {
            // A file system that cannot reserve: the length is all there is.
            Err(Errno::OPNOTSUPP) if self.len()? < len => self.file.set_len(len),
            Err(Errno::OPNOTSUPP) => Ok(()),
            result => Ok(result?),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.nlink())
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
    use proptest::prelude::*;

    use super::{super::direct::LEAST_BYTES, *};

    #[test]
    fn a_sync_of_the_directory_that_failed_once_fails_for_everybody_after_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut disk = RealDisk::open(directory.path()).expect("opens");
        disk.sync_dir().expect("a sound directory");
        let sound = std::mem::replace(&mut disk.directory, File::open("/dev/null").expect("opens"));
        disk.sync_dir().expect_err("it cannot be synced");
        disk.directory = sound;
        disk.sync_dir().expect_err("what was lost is lost");
    }

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

    /// A disk in a temporary directory, and whether its file system takes writes past the cache.
    fn disk() -> (tempfile::TempDir, RealDisk, bool) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let disk = RealDisk::open(directory.path()).expect("opens");
        let takes_direct = Direct::open(&tempfile::tempfile_in(directory.path()).expect("a temporary file")).is_some();
        (directory, disk, takes_direct)
    }

    fn real_file(disk: &RealDisk, name: &str) -> RealFile {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(disk.path.join(name));
        RealFile::new(file.expect("it opens"), Arc::clone(&disk.refuses_direct))
    }

    fn goes_past_the_cache(file: &RealFile) -> bool {
        matches!(*file.blocks.lock().expect("nobody panicked"), Blocks::PastTheCache(_))
    }

    #[test]
    fn many_whole_blocks_go_past_the_cache_and_everything_else_through_it() {
        let (_directory, disk, takes_direct) = disk();
        let cases =
            [(LEAST_BYTES + 1, 0, false), (LEAST_BYTES, 1, false), (4096, 0, false), (0, 0, false), (LEAST_BYTES, 8192, true)];
        let bytes = vec![7; LEAST_BYTES + 1];
        for (len, position, is_blocks) in cases {
            let file = real_file(&disk, "a");
            let (one, other) = bytes[..len].split_at(len.min(3));
            file.write_at(&[IoSlice::new(one), IoSlice::new(other)], position).expect("written");
            assert_eq!(goes_past_the_cache(&file), is_blocks && takes_direct, "{len} at {position}");
        }
        assert_eq!(disk.refuses_direct.load(Ordering::Relaxed), !takes_direct);
    }

    #[test]
    fn a_file_system_that_takes_no_direct_writes_is_asked_once_and_written_through_the_cache() {
        let (_directory, disk, _) = disk();
        // A device of the kernel's own refuses at the opening, like a file system that cannot.
        let null = OpenOptions::new().read(true).write(true).open("/dev/null").expect("it is everywhere");
        let null = RealFile::new(null, Arc::clone(&disk.refuses_direct));
        null.write_at(&[IoSlice::new(&[1; LEAST_BYTES])], 0).expect("it takes everything");
        assert!(disk.refuses_direct.load(Ordering::Relaxed));
        let file = real_file(&disk, "a");
        file.write_at(&[IoSlice::new(&[1; LEAST_BYTES])], 4096).expect("written");
        assert!(!goes_past_the_cache(&file));
        let mut read = vec![0; LEAST_BYTES];
        assert_eq!(file.read_at(&mut read, 4096).expect("read"), read.len());
        assert!(read.iter().all(|byte| *byte == 1));
    }

    #[test]
    fn a_refusal_of_the_first_write_is_not_an_error_and_one_of_a_later_write_is() {
        for before in [false, true] {
            let (_directory, disk, takes_direct) = disk();
            let file = real_file(&disk, "a");
            if before {
                file.write_at(&[IoSlice::new(&[1; LEAST_BYTES])], 0).expect("written");
            }
            // The kernel calls a place beyond all files invalid, past the cache and through it.
            let error = file.write_at(&[IoSlice::new(&[1; LEAST_BYTES])], 1 << 63).expect_err("there is no such place");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert_eq!(goes_past_the_cache(&file), before && takes_direct);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn readers_see_what_was_written_whichever_way_it_went(
            writes in prop::collection::vec((0..16_usize, 0..2_usize, prop_oneof![0..8_usize, 60..80_usize], 0..2_usize, any::<u8>()), 1..40),
        ) {
            let (_directory, disk, _) = disk();
            let (writer, reader) = (real_file(&disk, "a"), disk.open("a").expect("there"));
            writer.allocate(1 << 19).expect("there is room");
            let mut expected = vec![0; 1 << 19];
            for (block, beside, blocks, more, byte) in writes {
                let (position, len) = (block * 4096 + beside, blocks * 4096 + more);
                let bytes: Vec<u8> = (0..len).map(|i| byte.wrapping_add(i.to_le_bytes()[0])).collect();
                let (one, other) = bytes.split_at(len / 3);
                writer.write_at(&[IoSlice::new(one), IoSlice::new(&[]), IoSlice::new(other)], position as u64).expect("written");
                expected[position..position + len].copy_from_slice(&bytes);
                // All of it, so that all of it is in the cache before the next write.
                let mut read = vec![0; expected.len()];
                prop_assert_eq!(reader.read_at(&mut read, 0).expect("read"), expected.len());
                prop_assert!(read == expected, "after {len} bytes at {position}");
            }
        }
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

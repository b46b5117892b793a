//! A disk in memory over contents that many of them share: an opening costs what it reads and changes, and nothing for what it
//! leaves alone. It never fails and never forgets; what is wrong with it was put there by hand.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use broker_svc::journal::disk::{Disk, DiskFile, FileSystem, LockGuard};

/// Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    files: Arc<Mutex<BTreeMap<String, File>>>,
    changes: Arc<AtomicU64>,
}

impl Overlay {
    pub(crate) fn new(contents: &BTreeMap<String, Arc<Vec<u8>>>) -> Self {
        let files = contents.iter().map(|(name, content)| (name.clone(), File::over(content)));
        Self { files: Arc::new(Mutex::new(files.collect())), changes: Arc::default() }
    }

    /// Turns one bit of a file around. Bit 0 is the lowest of the first byte.
    pub(crate) fn flip(&self, name: &str, bit: u64) {
        let file = self.find(name).expect("the file exists");
        let mut byte = [0];
        assert_eq!(file.read_at(&mut byte, bit / 8).expect("no fault"), 1, "there is such a bit");
        file.lock().write(&[byte[0] ^ 1 << (bit % 8)], bit / 8);
    }

    /// Cuts a file.
    pub(crate) fn cut(&self, name: &str, len: u64) {
        self.find(name).expect("the file exists").lock().resize(len);
    }

    /// How many changes of any kind were made through the seam.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    fn change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &str) -> io::Result<File> {
        self.files().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn handle(&self, file: File) -> Arc<dyn DiskFile> {
        Arc::new(Handle { file, disk: self.clone() })
    }
}

impl Disk for Overlay {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        if self.files().contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change();
        let file = File::over(&Arc::default());
        self.files().insert(name.to_owned(), file.clone());
        Ok(self.handle(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.handle(self.find(name)?))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change();
        let mut files = self.files();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change();
        self.files().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &str) -> io::Result<Option<Box<dyn LockGuard>>> {
        Ok(Some(Box::new(Unlocked)))
    }

    fn file_system(&self) -> io::Result<FileSystem> {
        Ok(FileSystem::Local)
    }

    fn free_space(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

#[derive(Debug)]
struct Unlocked;

impl LockGuard for Unlocked {}

#[derive(Clone, Debug)]
struct File(Arc<Mutex<Blocks>>);

/// What differs from the shared content, in blocks; what is in neither is zero.
#[derive(Debug)]
struct Blocks {
    shared: Arc<Vec<u8>>,
    /// As far as the shared content still counts.
    shared_len: usize,
    own: BTreeMap<usize, Vec<u8>>,
    len: usize,
}

impl File {
    fn over(content: &Arc<Vec<u8>>) -> Self {
        let (shared, len) = (Arc::clone(content), content.len());
        Self(Arc::new(Mutex::new(Blocks { shared, shared_len: len, own: BTreeMap::new(), len })))
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        Ok(self.lock().read(buffer, position))
    }
}

impl Blocks {
    fn read(&self, buffer: &mut [u8], position: u64) -> usize {
        let from = usize::try_from(position).unwrap_or(usize::MAX).min(self.len);
        let len = buffer.len().min(self.len - from);
        let mut done = 0;
        while done < len {
            let at = from + done;
            let some = (BLOCK - at % BLOCK).min(len - done);
            let target = &mut buffer[done..done + some];
            match self.own.get(&(at / BLOCK)) {
                Some(block) => target.copy_from_slice(&block[at % BLOCK..][..some]),
                None => {
                    let shared = self.shared.get(at..self.shared_len.min(at + some)).unwrap_or_default();
                    target[..shared.len()].copy_from_slice(shared);
                    target[shared.len()..].fill(0);
                }
            }
            done += some;
        }
        len
    }

    fn write(&mut self, bytes: &[u8], position: u64) {
        let from = usize::try_from(position).expect("in memory");
        self.len = self.len.max(from + bytes.len());
        let mut done = 0;
        while done < bytes.len() {
            let at = from + done;
            let some = (BLOCK - at % BLOCK).min(bytes.len() - done);
            let mut block = vec![0; BLOCK];
            self.read(&mut block, (at / BLOCK * BLOCK) as u64);
            block[at % BLOCK..][..some].copy_from_slice(&bytes[done..done + some]);
            self.own.insert(at / BLOCK, block);
            done += some;
        }
    }

    fn resize(&mut self, len: u64) {
        let len = usize::try_from(len).expect("in memory");
        if len < self.len {
            self.shared_len = self.shared_len.min(len);
            self.own.retain(|block, _| block * BLOCK < len);
            if let Some(last) = self.own.get_mut(&(len / BLOCK)) {
                last[len % BLOCK..].fill(0);
            }
        }
        self.len = len;
    }
}

const BLOCK: usize = 4096;

#[derive(Debug)]
struct Handle {
    file: File,
    disk: Overlay,
}

impl DiskFile for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.lock().len as u64)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], mut position: u64) -> io::Result<()> {
        self.disk.change();
        for slice in slices {
            self.file.lock().write(slice, position);
            position += slice.len() as u64;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.change();
        let mut blocks = self.file.lock();
        let len = len.max(blocks.len as u64);
        blocks.resize(len);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.change();
        self.file.lock().resize(len);
        Ok(())
    }

    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }
}

//! Reading the files of a log from one end to the other, in large pieces: what `Fetch` and a replay are held against.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::Context;

use crate::{
    candidate::{Candidate, Place},
    clock,
    load::Load,
    measured::Measured,
};

/// Makes the log, and tells where its files are; the same for all candidates of a row.
#[tonic::async_trait(?Send)]
pub trait Log {
    /// The directory of the log, made when it is asked for the first time.
    async fn directory(&self, load: &Load, place: Place<'_>) -> anyhow::Result<PathBuf>;
}

/// Reads the segments.
pub struct ReadFiles<L> {
    /// Whose.
    pub log: Rc<L>,
    /// From the disk, and not from the kernel's memory.
    pub is_cold: bool,
}

#[tonic::async_trait(?Send)]
impl<L: Log> Candidate for ReadFiles<L> {
    async fn run(&self, load: &Load, place: Place<'_>) -> anyhow::Result<Measured> {
        let directory = self.log.directory(load, place).await?;
        if self.is_cold {
            drop_caches()?;
        } else {
            warm(&directory)?;
        }
        let began = clock::now();
        let bytes = read(&directory)?;
        let seconds = began.elapsed().as_secs_f64();
        let records = bytes / load.record_bytes as u64;
        Ok(Measured { records, payload_bytes: bytes, seconds, disk_bytes: Some(bytes), ..Measured::default() })
    }
}

/// Brings the segments into the kernel's memory.
///
/// # Errors
/// They cannot be read.
pub fn warm(directory: &Path) -> anyhow::Result<()> {
    read(directory).map(drop)
}

/// Empties the kernel's memory of files.
///
/// # Errors
/// This process may not.
pub fn drop_caches() -> anyhow::Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context("a cold run needs the right to drop caches (run as root)")
}

fn read(directory: &Path) -> anyhow::Result<u64> {
    let mut piece = vec![0; 1 << 20];
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let mut file = File::open(path)?;
            loop {
                match file.read(&mut piece)? {
                    0 => break,
                    read => bytes += read as u64,
                }
            }
        }
    }
    Ok(bytes)
}

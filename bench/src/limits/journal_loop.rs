//! What a journal would reach that did nothing but write: a group, `fdatasync`, the next group, over blocks that were written
//! before, as those of a recycled segment are.

use std::{
    cell::Cell,
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    rc::Rc,
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::{
    candidate::{Candidate, Place},
    clock,
    load::Load,
    measured::{self, Measured, Percentiles},
};

/// As many bytes as the load has, in groups of the size that oncelog's had in the same round.
#[derive(Clone, Debug)]
pub struct JournalLoop {
    /// Bytes of a group: written by the candidate that stands before this one.
    pub group_bytes: Rc<Cell<usize>>,
}

#[tonic::async_trait(?Send)]
impl Candidate for JournalLoop {
    async fn run(&self, load: &Load, place: Place<'_>) -> anyhow::Result<Measured> {
        let group_bytes = self.group_bytes.get().div_ceil(BLOCK) * BLOCK;
        let groups = load.payload_bytes().div_ceil(group_bytes as u64);
        let (seconds, latency) = write(place.row, group_bytes, groups, Duration::ZERO).await?;
        let payload_bytes = groups * group_bytes as u64;
        Ok(Measured {
            records: payload_bytes / load.record_bytes as u64,
            payload_bytes,
            seconds,
            latency_us: Percentiles::of_nanos(&latency),
            ..Measured::default()
        })
    }
}

/// How long one write with its `fdatasync` takes when there is nothing else to do.
#[derive(Clone, Copy, Debug)]
pub struct LoneSync {
    /// Bytes of the write, rounded up to whole blocks.
    pub write_bytes: usize,
    /// How many.
    pub count: u64,
    /// Idle time after each.
    pub pause: Duration,
}

#[tonic::async_trait(?Send)]
impl Candidate for LoneSync {
    async fn run(&self, _: &Load, place: Place<'_>) -> anyhow::Result<Measured> {
        let write_bytes = self.write_bytes.div_ceil(BLOCK) * BLOCK;
        let (seconds, latency) = write(place.row, write_bytes, self.count, self.pause).await?;
        Ok(Measured {
            records: self.count,
            payload_bytes: self.count * write_bytes as u64,
            seconds,
            latency_us: Percentiles::of_nanos(&latency),
            ..Measured::default()
        })
    }
}

async fn write(directory: &Path, group_bytes: usize, groups: u64, pause: Duration) -> anyhow::Result<(f64, Histogram<u64>)> {
    let path = directory.join("written-before");
    tokio::task::spawn_blocking(move || {
        let file = written_before(&path)?;
        let group = vec![0x5a; group_bytes];
        let places = FILE_BYTES / group_bytes as u64;
        let mut latency = measured::nanos();
        let began = clock::now();
        for number in 0..groups {
            let one = clock::now();
            file.write_all_at(&group, number % places * group_bytes as u64)?;
            file.sync_data()?;
            latency.saturating_record(u64::try_from(one.elapsed().as_nanos()).unwrap_or(u64::MAX));
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        }
        Ok((began.elapsed().as_secs_f64(), latency))
    })
    .await?
}

fn written_before(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    if file.metadata()?.len() < FILE_BYTES {
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
    }
    Ok(file)
}

/// As a segment.
const FILE_BYTES: u64 = 256 << 20;
/// The journal's.
const BLOCK: usize = 4096;

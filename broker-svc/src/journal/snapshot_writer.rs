//! Keeps the state as it was after a durable group, so that an opening need not fold the whole journal.
//!
//! The state comes from whoever folds a second copy of it from released groups: never from the live one, which runs ahead of the
//! disk by the group in flight. A snapshot ahead of its journal would bring back what nobody was told of.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use oncelog_defects::{Defect, is_on};

use super::{
    catalog::Shared,
    disk,
    error::{Fatal, SnapshotError},
    names::{self, FileName},
    position::Position,
    reserve,
    snapshot_file::{SnapshotHeader, SnapshotReader, chunk_head, footer},
};

/// Takes snapshots. Its calls block on the disk.
#[derive(Clone, Debug)]
pub struct SnapshotWriter {
    shared: Arc<Shared>,
}

impl SnapshotWriter {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Keeps `chunks` as the state after the group that ends at `at`. They may come as slowly as the disk should be spared; each
    /// has 1 byte to 16 MiB. Written aside, synced, read back, named; then all but the two newest go.
    ///
    /// # Errors
    /// [`SnapshotError::Dropped`]: try again later. [`SnapshotError::Fatal`]: the process ends.
    ///
    /// # Panics
    /// The group is not durable, or there is none: a state ahead of its log would be kept. A chunk is empty or too large.
    pub fn write(&self, at: Position, chunks: &mut dyn Iterator<Item = Vec<u8>>) -> Result<(), SnapshotError> {
        let trimmed_through = {
            let mut catalog = self.shared.catalog_mut();
            assert!(at.group.get() > 0, "before the first group there is no state");
            let is_durable = at.group <= catalog.durable.group;
            assert!(is_durable || is_on(Defect::SnapshotAheadOfLog), "{at} is not durable");
            catalog.snapshot_begun = catalog.log_bytes;
            if catalog.snapshots.contains(&at) {
                return Ok(());
            }
            catalog.trimmed_through
        };
        let header = SnapshotHeader { identity: self.shared.identity, position: at, trimmed_through };
        let file = FileName::Snapshot(at.segment, at.byte).to_string();
        let aside = names::aside(&file);
        if let Err(source) = self.write_aside(&aside, &header, chunks) {
            // Also after a failed sync: the file goes, nobody trusts what is left of it.
            let _ = self.shared.disk.remove(&aside);
            return Err(SnapshotError::Dropped { file, source });
        }
        self.shared.disk.rename(&aside, &file).map_err(Fatal::new("renaming", &aside))?;
        self.shared.disk.sync_dir().map_err(Fatal::new("syncing the directory for", &file))?;
        self.keep_two(at);
        Ok(())
    }

    fn write_aside(&self, aside: &str, header: &SnapshotHeader, chunks: &mut dyn Iterator<Item = Vec<u8>>) -> io::Result<()> {
        let disk = &*self.shared.disk;
        let file = reserve::with(disk, || disk::create_over(disk, aside))?;
        let mut end = 0;
        let mut append = |slices: &[IoSlice<'_>]| {
            reserve::with(disk, || file.write_at(slices, end))?;
            end += slices.iter().map(|slice| slice.len() as u64).sum::<u64>();
            io::Result::Ok(())
        };
        append(&[IoSlice::new(&header.encode())])?;
        let mut count = 0;
        for chunk in chunks {
            append(&[IoSlice::new(&chunk_head(&header.position, count, &chunk)), IoSlice::new(&chunk)])?;
            count += 1;
        }
        append(&[IoSlice::new(&footer(&header.position, count))])?;
        file.sync_all()?;
        let read_back = SnapshotReader::verify(&*file).map_err(io::Error::other)?;
        if read_back == *header { Ok(()) } else { Err(io::Error::other("its header was read back differently")) }
    }

    fn keep_two(&self, newest: Position) {
        let mut catalog = self.shared.catalog_mut();
        catalog.snapshots.push(newest);
        catalog.snapshots.sort_by_key(|position| (position.segment, position.byte));
        let surplus = catalog.snapshots.len().saturating_sub(2);
        catalog.snapshots.drain(..surplus);
        let kept = catalog.snapshots.clone();
        drop(catalog);
        let [older, _] = kept[..] else { return };
        for name in self.shared.disk.list().unwrap_or_default() {
            // One that could not be read at the opening is as old as its name says, and goes like the others.
            if let Some(FileName::Snapshot(segment, byte)) = FileName::parse(&name)
                && (segment, byte) < (older.segment, older.byte)
            {
                // A leftover is tried again after the next snapshot.
                let _ = self.shared.disk.remove(&name);
            }
        }
    }
}

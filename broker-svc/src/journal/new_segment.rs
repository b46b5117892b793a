//! How a segment comes into being: prepared under another name, with its space, then named once its header is durable. So a file
//! with a segment's name always has a whole header, and a disk without room is noticed before anything has changed.
//!
//! A spare is a file of zeros or one that was a segment before. Its first block tells which, whoever left it here: what is not
//! zeros is taken for recycled, and that is right in any case, because zeros are old bytes like any others.

use std::{io, sync::Arc};

use oncelog_defects::{Defect, is_on};

use super::{
    disk::{self, Disk, DiskFile, read_vec},
    error::{Fatal, NoSpace, WriteError},
    group_header::ZEROS,
    names::{self, FileName},
    reserve,
    segment_header::SegmentHeader,
};

/// A file that is about to become a segment.
#[derive(Debug)]
pub(super) struct Prepared {
    file: Arc<dyn DiskFile>,
    name: String,
    /// Bytes it has room for.
    capacity: u64,
    recycled: bool,
    blocks_written: bool,
}

/// A segment without groups, ready for the first.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) file: Arc<dyn DiskFile>,
    /// Bytes it has room for.
    pub(super) capacity: u64,
    /// It was a spare: its blocks have been written before.
    pub(super) blocks_written: bool,
}

/// How large it may become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// What it should have.
    pub(super) full: u64,
    /// What a file of that size has to leave free.
    pub(super) keep: u64,
    /// What will do in need; the ballast may be spent for it. None: it is not that urgent.
    pub(super) least: Option<u64>,
}

/// Takes a spare, or makes a file.
pub(super) fn prepare(disk: &dyn Disk, number: u64, spare: Option<u64>, room: Room) -> Result<Prepared, WriteError> {
    if let Some(spare) = spare {
        let name = FileName::Spare(spare).to_string();
        match take_spare(disk, &name) {
            Ok(prepared) => return Ok(prepared),
            Err(e) if disk::is_passing(&e) => return Err(Fatal::new("opening", &name)(e).into()),
            // Nothing is in it, and nobody needs it: new space will do.
            Err(_) => drop(disk.remove(&name)),
        }
    }
    let name = names::aside(&FileName::Segment(number).to_string());
    let make = |capacity| match allocated(disk, &name, capacity) {
        Ok(file) => Ok(Some(Prepared { file, name: name.clone(), capacity, recycled: false, blocks_written: false })),
        Err(e) if disk::is_full(&e) => Ok(None),
        Err(e) => Err(Fatal::new("allocating", &name)(e)),
    };
    let free = || disk.free_space().map_err(Fatal::new("measuring the space for", &name));
    let full = room.full.saturating_add(room.keep);
    if free()? >= full
        && let Some(prepared) = make(room.full)?
    {
        return Ok(prepared);
    }
    if let Some(least) = room.least {
        if let Some(prepared) = make(least)? {
            return Ok(prepared);
        }
        if reserve::release(disk).map_err(Fatal::new("removing", FileName::Ballast))?
            && let Some(prepared) = make(least)?
        {
            return Ok(prepared);
        }
    }
    Err(NoSpace { needed: room.least.unwrap_or(full), free: free()? }.into())
}

fn take_spare(disk: &dyn Disk, name: &str) -> io::Result<Prepared> {
    let file = disk.open(name)?;
    let capacity = file.len()?;
    let recycled = read_vec(&*file, 0, ZEROS.len())? != ZEROS;
    Ok(Prepared { file, name: name.to_owned(), capacity, recycled, blocks_written: true })
}

fn allocated(disk: &dyn Disk, name: &str, capacity: u64) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk::create_over(disk, name)?;
    match file.allocate(capacity) {
        Ok(()) => Ok(file),
        Err(e) => {
            disk.remove(name)?;
            Err(e)
        }
    }
}

impl Prepared {
    /// What [`SegmentHeader::recycled`] has to say.
    pub(super) const fn recycled(&self) -> bool {
        self.recycled
    }

    /// Writes the header, in a recycled file with the zeros that say that nothing follows yet, and names the file. It takes the
    /// place of an empty segment of the same number.
    pub(super) fn finish(self, disk: &dyn Disk, header: &SegmentHeader) -> Result<Finished, Fatal> {
        let name = FileName::Segment(header.number).to_string();
        let encoded = header.encode();
        let mut slices = vec![io::IoSlice::new(&encoded)];
        if header.recycled {
            slices.push(io::IoSlice::new(&ZEROS));
        }
        let sync = || if is_on(Defect::HeaderIsNotSynced) { Ok(()) } else { self.file.sync_all() };
        self.file.write_at(&slices, 0).and_then(|()| sync()).map_err(Fatal::new("writing the header of", &name))?;
        disk.rename(&self.name, &name).map_err(Fatal::new("renaming", &self.name))?;
        let sync_dir = || if is_on(Defect::DirectoryIsNotSynced) { Ok(()) } else { disk.sync_dir() };
        sync_dir().map_err(Fatal::new("syncing the directory for", &name))?;
        Ok(Finished { file: self.file, capacity: self.capacity, blocks_written: self.blocks_written })
    }
}

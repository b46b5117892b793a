//! The ballast: space kept back for the day when the disk is full.
//!
//! Without it a full disk is a trap: to free space a segment has to be trimmed, for that an entry has to be written and two
//! snapshots have to be taken, and both need space.

use std::io;

use super::{
    catalog::Shared,
    disk::{self, Disk},
    names::{self, FileName},
};

/// Gives the space back; false if there is none to give.
pub(super) fn release(disk: &dyn Disk) -> io::Result<bool> {
    match disk.remove(&FileName::Ballast.to_string()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Does something that needs space; if there is none, gives the ballast back and does it once more.
pub(super) fn with<T>(disk: &dyn Disk, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match act() {
        Err(e) if disk::is_full(&e) && release(disk)? => act(),
        result => result,
    }
}

/// Bytes that have to stay free because the ballast that should hold them is gone. What was given back for a snapshot or a trim
/// is not for the next records.
pub(super) fn missing(disk: &dyn Disk, wanted: u64) -> u64 {
    if disk.open(&FileName::Ballast.to_string()).is_ok() { 0 } else { wanted }
}

/// Takes space back if there is plenty of it. True if it did.
pub(super) fn restore(shared: &Shared) -> io::Result<bool> {
    let wanted = shared.options.ballast_bytes;
    let plenty = wanted.saturating_add(shared.options.segment_bytes);
    let name = FileName::Ballast.to_string();
    if missing(&*shared.disk, wanted) == 0 || shared.disk.free_space()? < plenty {
        return Ok(false);
    }
    let aside = names::aside(&name);
    let file = disk::create_over(&*shared.disk, &aside)?;
    if let Err(e) = file.allocate(wanted).and_then(|()| file.sync_all()) {
        let _ = shared.disk.remove(&aside);
        return Err(e);
    }
    shared.disk.rename(&aside, &name)?;
    Ok(true)
}

//! The files of a journal: segments, indexes, snapshots, `FORMAT`. The bytes are changes to the files of a sound directory.
//!
//! The first byte: 1 if the checksums are mended afterwards. Then changes: the file by its number in the order of names (1 byte),
//! a place in it (2 bytes), what to do (1 byte: 0 cut there, 1 to 64 overwrite with so many of the bytes that follow, 65 to 128
//! insert them less 64, others zero 16 times so many).

use broker_svc::{
    entry::PartitionId,
    journal::{Journal, OpenError, ReadError, Retention, sim_disk::SimDisk},
};
use oncelog_proto::{Offset, PackedBatch, Timestamp};

use crate::directory::{self, FILES};

/// A changed directory is refused and stays as it is, or opens; then everything in it can be read or is refused, and the next
/// opening finds the same.
///
/// # Panics
/// A defect was found.
pub fn run(bytes: &[u8]) {
    let Some((mend, changes)) = bytes.split_first() else { return };
    let mut files = FILES.clone();
    let names: Vec<_> = files.keys().cloned().collect();
    let mut rest = changes;
    while let Some(([number, high, low, what], tail)) = rest.split_first_chunk() {
        rest = tail;
        let file = files.get_mut(&names[usize::from(*number) % names.len()]).expect("all names have files");
        rest = change(file, u16::from_be_bytes([*high, *low]).into(), *what, rest);
    }
    if *mend == 1 {
        crate::checksums::mend(&mut files);
    }
    let disk = SimDisk::new();
    for (name, file) in files {
        disk.set_content(&name, file);
    }
    let before = disk.changes();
    match directory::open(&disk, 7) {
        Ok((journal, state)) => {
            read(&journal);
            drop(journal.plan_trim(Retention { bytes: Some(0), age: None }, Timestamp::MAX));
            drop(journal);
            let (journal, again) = directory::open(&disk, 8).expect("what one opening took, and settled, the next one takes");
            assert_eq!(again, state, "and it is the same");
            read(&journal);
        }
        Err(OpenError::Io { source, .. }) => panic!("the disk is sound: {source}"),
        Err(refused) => {
            assert_eq!(disk.changes(), before, "nothing is changed by an opening that is refused: {refused}");
        }
    }
}

/// Makes one change; returns the bytes that it did not use.
fn change<'a>(file: &mut Vec<u8>, place: usize, what: u8, bytes: &'a [u8]) -> &'a [u8] {
    let at = place.min(file.len());
    let len = usize::from(what);
    match what {
        0 => file.truncate(at),
        1..=64 => {
            let (new, rest) = bytes.split_at(len.min(bytes.len()));
            let new = &new[..new.len().min(file.len() - at)];
            file[at..at + new.len()].copy_from_slice(new);
            return rest;
        }
        65..=128 => {
            let (new, rest) = bytes.split_at((len - 64).min(bytes.len()));
            file.splice(at..at, new.iter().copied());
            return rest;
        }
        129.. => {
            let end = (at + 16 * len).min(file.len());
            file[at..end].fill(0);
        }
    }
    bytes
}

/// Reads every partition that there may be, to its end.
fn read(journal: &Journal) {
    let reader = journal.reader();
    for partition in (0..16).map(PartitionId) {
        let _ = reader.oldest_append_time(partition, Offset::ZERO);
        let mut next = Offset::ZERO;
        loop {
            let go_on = match reader.read(partition, next, 1_000) {
                Ok(batches) => batches.last().map(|last| {
                    batches.iter().for_each(unpack);
                    last.append.base_offset.checked_add(last.append.count).expect("it was read")
                }),
                Err(ReadError::Trimmed { next }) => Some(next),
                Err(ReadError::Damaged { next, .. }) => next,
                Err(ReadError::Io { source, .. }) => panic!("the disk is sound: {source}"),
            };
            let Some(further) = go_on else { break };
            assert!(further > next, "partition {}: reading goes forward, from {next} to {further}", partition.0);
            next = further;
        }
    }
}

/// What was stored with a false claim is found out, at the latest when it is unpacked.
fn unpack(batch: &broker_svc::journal::StoredBatch) {
    let append = &batch.append;
    let (compression, count) = (append.compression, append.count);
    let packed = PackedBatch::from_stored(compression, count, append.uncompressed_bytes, append.checksum, batch.data.clone());
    if let Some(packed) = packed.filter(|packed| u64::from(packed.uncompressed_bytes()) <= crate::UNPACKED_BYTES) {
        drop(packed.read().map(|records| records.filter(Result::is_ok).count()));
    }
}

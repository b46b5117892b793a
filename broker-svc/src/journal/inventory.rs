//! What is in the directory, before anything in it is changed: whether this version may touch it, whose it is, and that no
//! segment is missing.

use std::{collections::BTreeMap, io};

use super::{
    disk::{self, Disk, read_vec},
    error::OpenError,
    format_file,
    group_header::BLOCK,
    identity::{FileFault, Identity},
    names::FileName,
    position::Position,
    segment_header::SegmentHeader,
    snapshot_file::{SnapshotFault, SnapshotHeader, SnapshotReader},
    tail,
};

/// The files of a directory.
#[derive(Debug)]
pub(super) struct Inventory {
    /// None: nothing was ever committed here.
    pub(super) identity: Option<Identity>,
    /// By number, without gaps. Empty if and only if there is no identity.
    pub(super) segments: BTreeMap<u64, SegmentHeader>,
    /// Where the snapshots say they were taken, newest first.
    snapshots: Vec<(u64, u64)>,
    /// Everything else that is the journal's.
    pub(super) others: Vec<FileName>,
}

/// Snapshots, looked through.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// The newest ones that verify, newest first, at most two.
    pub(super) verified: Vec<SnapshotHeader>,
    /// Newer ones that do not, and why.
    pub(super) damaged: Vec<String>,
}

impl Inventory {
    /// Looks at the directory. Changes nothing.
    pub(super) fn take(disk: &dyn Disk) -> Result<Self, OpenError> {
        let mut inventory = Self { identity: None, segments: BTreeMap::new(), snapshots: Vec::new(), others: Vec::new() };
        let mut lengths = BTreeMap::new();
        // First: what is of a newer format is not judged any further.
        inventory.identity = read_format(disk)?;
        for name in disk.list().map_err(OpenError::io("listing", "the data directory"))? {
            match FileName::parse(&name) {
                Some(FileName::Segment(number)) => {
                    let (header, len) = read_header(disk, number)?;
                    inventory.segments.insert(number, header);
                    lengths.insert(number, len);
                }
                Some(FileName::Snapshot(segment, byte)) => inventory.snapshots.push((segment, byte)),
                Some(other) => inventory.others.push(other),
                None => {}
            }
        }
        inventory.snapshots.sort_unstable_by(|a, b| b.cmp(a));
        let Some(identity) = inventory.identity else { return inventory.without_format(disk) };
        inventory.check_segments(&identity, &lengths)?;
        Ok(inventory)
    }

    /// FORMAT is written when the first segment exists and before anything is committed. So without it there is at most an empty
    /// first segment, from an opening that did not come to its end.
    fn without_format(mut self, disk: &dyn Disk) -> Result<Self, OpenError> {
        let unused = match self.segments.iter().next() {
            None => true,
            Some((1, header)) if self.segments.len() == 1 && header.prev == Position::default() => {
                let name = FileName::Segment(1).to_string();
                let file = disk.open(&name).map_err(OpenError::io("opening", &name))?;
                let tail = tail::decide(&*file, &name, header, None)?;
                tail.end == header.start() && tail.torn.is_none()
            }
            Some(_) => false,
        };
        if unused && self.snapshots.is_empty() {
            self.segments.clear();
            return Ok(self);
        }
        Err(OpenError::damaged(FileName::Format, 0, "it is missing, although the directory holds a journal"))
    }

    fn check_segments(&self, identity: &Identity, lengths: &BTreeMap<u64, u64>) -> Result<(), OpenError> {
        let Some((first, header)) = self.segments.first_key_value() else {
            return Err(OpenError::damaged(FileName::Segment(1), 0, "all segments are missing"));
        };
        if (*first == 1) != (header.prev == Position::default()) {
            let what = format!("segment {first} says that the one before it is {}", header.prev.segment);
            return Err(OpenError::damaged(FileName::Segment(*first), 0, what));
        }
        for (number, header) in &self.segments {
            let owner = header.identity;
            if owner.cluster != identity.cluster || owner.incarnation > identity.incarnation {
                let what = "it belongs to another journal, or to a later incarnation of this one";
                return Err(OpenError::damaged(FileName::Segment(*number), 0, what));
            }
        }
        self.check_last(self.segments.last_key_value().map_or(0, |(last, _)| *last))?;
        let pairs = self.segments.iter().zip(self.segments.iter().skip(1));
        for ((number, header), (next, next_header)) in pairs {
            let prev = next_header.prev;
            if prev.byte < SegmentHeader::LEN as u64 {
                let what = format!("it says that segment {number} had {} bytes, less than its header", prev.byte);
                return Err(OpenError::damaged(FileName::Segment(*next), 0, what));
            }
            if number + 1 != *next {
                let what = format!("it is missing; segments {number} and {next} are there");
                return Err(OpenError::damaged(FileName::Segment(number + 1), 0, what));
            }
            if (prev.segment, prev.salt) != (*number, header.salt) {
                let what = "it is not the segment that the next one was written after";
                return Err(OpenError::damaged(FileName::Segment(*number), 0, what));
            }
            let (len, sealed) = (lengths[number], prev.byte + BLOCK as u64);
            if len != sealed {
                let what = format!("it has {len} bytes; the next segment was written when it had {sealed}");
                return Err(OpenError::damaged(FileName::Segment(*number), len.min(prev.byte), what));
            }
        }
        Ok(())
    }

    /// A segment has an index only if a later segment is there.
    fn check_last(&self, last: u64) -> Result<(), OpenError> {
        let indexed = self.others.iter().filter_map(|name| match name {
            FileName::Index(number) => Some(*number),
            _ => None,
        });
        match indexed.max().filter(|highest| *highest >= last) {
            None => Ok(()),
            Some(highest) => {
                let what = format!("it is missing; segment {highest} has an index, so it was not the last one");
                Err(OpenError::damaged(FileName::Segment(last + 1), 0, what))
            }
        }
    }

    /// Reads snapshots from the newest on until two verify.
    pub(super) fn verify_snapshots(&self, disk: &dyn Disk) -> Result<Snapshots, OpenError> {
        let mut found = Snapshots::default();
        for (segment, byte) in &self.snapshots {
            let name = FileName::Snapshot(*segment, *byte).to_string();
            let verified = disk.open(&name).map_err(SnapshotFault::Io).and_then(|file| SnapshotReader::verify(&*file));
            match verified {
                Ok(header) if Some(header.identity.cluster) != self.identity.map(|identity| identity.cluster) => {
                    found.damaged.push(format!("{name}: it belongs to another journal"));
                }
                Ok(header) if (header.position.segment, header.position.byte) != (*segment, *byte) => {
                    found.damaged.push(format!("{name}: it was taken at another place than its name says"));
                }
                Ok(header) => found.verified.push(header),
                Err(SnapshotFault::File(fault @ FileFault::Newer { .. })) => {
                    return Err(OpenError::NewerFormat { file: name, what: fault.to_string() });
                }
                Err(fault) => found.damaged.push(format!("{name}: {fault}")),
            }
            if found.verified.len() == 2 {
                break;
            }
        }
        Ok(found)
    }
}

fn read_format(disk: &dyn Disk) -> Result<Option<Identity>, OpenError> {
    let name = FileName::Format.to_string();
    match disk::read_small(disk, &name, format_file::MAX_LEN) {
        Ok(bytes) => format_file::decode(&bytes).map(Some).map_err(|fault| refuse(&name, fault)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            Err(OpenError::damaged(&name, format_file::MAX_LEN as u64, e.to_string()))
        }
        Err(e) => Err(OpenError::io("reading", &name)(e)),
    }
}

fn read_header(disk: &dyn Disk, number: u64) -> Result<(SegmentHeader, u64), OpenError> {
    let name = FileName::Segment(number).to_string();
    let file = disk.open(&name).map_err(OpenError::io("opening", &name))?;
    let bytes = read_vec(&*file, 0, SegmentHeader::LEN).map_err(OpenError::io("reading", &name))?;
    let header = SegmentHeader::decode(&bytes).map_err(|fault| refuse(&name, fault))?;
    if number == 0 || number > MAX_SEGMENT_NUMBER {
        return Err(OpenError::damaged(name, 0, "no segment has that number"));
    }
    if header.number != number {
        let what = format!("it is segment {}, under the name of another", header.number);
        return Err(OpenError::damaged(name, 0, what));
    }
    let len = file.len().map_err(OpenError::io("measuring", &name))?;
    Ok((header, len))
}

fn refuse(name: &str, fault: FileFault) -> OpenError {
    match fault {
        FileFault::Newer { .. } => OpenError::NewerFormat { file: name.to_owned(), what: fault.to_string() },
        FileFault::Damaged(what) => OpenError::damaged(name, 0, what),
    }
}

/// Never reached, so that the number after it is one too.
const MAX_SEGMENT_NUMBER: u64 = u64::MAX / 2;

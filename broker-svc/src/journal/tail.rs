//! Where the last segment ends: the decision between a plain end, a torn group and damage.
//!
//! The first group that is not whole would have the number g. If anything behind it proves that g was durable, g was
//! acknowledged, and what is wrong with it is damage: refuse. Proof is a whole header whose durable number is at least g; the
//! marker that follows a quiet moment is there to give it. Without proof g is the group that was being written when the machine
//! stopped: nobody was told of it, and it goes. "A bad checksum near the end is a torn tail" would delete acknowledged records
//! and then give out their offsets again.
//!
//! A file that ends right behind a group, or within one, was cut by somebody: an incomplete copy looks like that, a crash never
//! does.
//!
//! What this cannot tell apart: damage to the very last group, if no marker followed it, looks like a torn one.
//!
//! A recycled file has old bytes behind its end instead of zeros. No old group is ever taken for one of this segment: its number
//! of the segment is a lower one, and its checksum has another salt. So an old group proves nothing either. But old bytes are no
//! zeros: there the end is said by the block of zeros that came with the last group, and only without it something was torn.

use oncelog_defects::{Defect, is_on};

use super::{
    disk::{DiskFile, read_vec},
    error::OpenError,
    group_header::{BLOCK, GroupHeader, HeaderFault, Mark, ZEROS},
    options::MAX_GROUP_BYTES,
    position::{GroupNumber, Position},
    scan::{Cursor, Directory, Invalid},
    segment_header::SegmentHeader,
};
use crate::entry::Entry;

/// How the last segment ends.
#[derive(Debug)]
pub(super) struct Tail {
    /// Behind the last whole group.
    pub(super) end: Position,
    /// That group was written by a clean stop.
    pub(super) clean: bool,
    /// Where the first group starts that nothing proves durable. From there on the bytes may be in the page cache alone.
    pub(super) unproven_from: u64,
    /// What stands behind the end, if anything does.
    pub(super) torn: Option<Torn>,
    /// The position asked for is the end of a group.
    pub(super) watched: bool,
}

/// A group that was not written to its end.
#[derive(Debug)]
pub(super) struct Torn {
    /// Behind the last byte that is not zero.
    pub(super) until: u64,
    /// As long as the file has to be while the group is in it: a shorter one would have lost its end.
    pub(super) least_len: u64,
    /// What was wrong with it.
    pub(super) what: String,
}

/// Decides. `watch` is the position of a snapshot that has to be the end of a group.
pub(super) fn decide(
    file: &dyn DiskFile,
    name: &str,
    header: &SegmentHeader,
    watch: Option<Position>,
) -> Result<Tail, OpenError> {
    let io = || OpenError::io("reading", name);
    let len = file.len().map_err(io())?;
    let mut cursor = Cursor::new(file, header.start(), len);
    // Groups above the largest durable number seen, with the position before each. One group is in flight at a time, so a file
    // that this journal wrote has at most one of them.
    let mut unproven: Vec<(Position, GroupHeader)> = Vec::new();
    let (mut clean, mut watched) = (false, false);
    let invalid = loop {
        let before = cursor.at();
        match cursor.next().map_err(io())? {
            Ok((group, _)) => {
                unproven.retain(|(_, earlier)| earlier.group > group.durable);
                unproven.push((before, group));
                clean = group.mark == Mark::Clean;
            }
            Err(invalid) => break invalid,
        }
        watched |= watch == Some(cursor.at());
    };
    let mut what = match invalid {
        Invalid::Newer(what) => return Err(OpenError::NewerFormat { file: name.to_owned(), what }),
        Invalid::Foreign(what) => return Err(OpenError::damaged(name, cursor.at().byte, what)),
        Invalid::Unwhole(what) => what,
    };
    let mut end = cursor.at();
    let unproven_from = unproven.first().map_or(end.byte, |(before, _)| before.byte);
    for (before, group) in &unproven {
        if let Some(fault) = data_fault(file, *before, group).map_err(io())?.filter(|_| !is_on(Defect::TailDataIsNotChecked)) {
            // Everything before this group is proven by it, or was looked at in this loop.
            (end, what) = (*before, fault);
            clean = false;
            watched &= watch.is_some_and(|position| position.byte <= before.byte);
            break;
        }
    }
    let behind = look_behind(file, end).map_err(io())?;
    match behind.proof {
        Some(Proof::Newer(what)) => return Err(OpenError::NewerFormat { file: name.to_owned(), what }),
        Some(Proof::Durable { group, at }) if !is_on(Defect::DamageIsCutAsTorn) => {
            let lost = end.group.next();
            let what = format!("{what}, although group {group} at byte {at} proves that group {lost} was durable");
            return Err(OpenError::damaged(name, end.byte, what));
        }
        Some(Proof::Durable { .. }) | None => {}
    }
    // A file has its whole length before anything is written into it, and is never cut shorter than this. One that is shorter was
    // cut by somebody else, and how much stood there nobody knows.
    if len < end.byte + BLOCK as u64 {
        let what =
            format!("the file ends at byte {len}, without a block of zeros behind group {}: its end is missing", end.group);
        return Err(OpenError::damaged(name, end.byte, what));
    }
    let until = if header.recycled {
        let reach = end.byte + MAX_GROUP_BYTES;
        behind.begun.then(|| behind.header_end.unwrap_or(reach).min(reach).min(len))
    } else {
        behind.last_byte.map(|last| last + 1)
    };
    let least = behind.header_end.unwrap_or(0).max(end.byte + BLOCK as u64);
    let torn = until.map(|until| Torn { until, least_len: least.max(until), what });
    if let Some(Torn { until, what, .. }) = torn.as_ref().filter(|torn| torn.until - end.byte > MAX_GROUP_BYTES) {
        let what = format!("{what}, and {} bytes behind it are not zero: more than a group in flight has", until - end.byte);
        return Err(OpenError::damaged(name, end.byte, what));
    }
    Ok(Tail { end, clean, unproven_from, torn, watched })
}

/// What is wrong with the data of a group whose header and directory are whole; none if nothing is.
fn data_fault(file: &dyn DiskFile, before: Position, group: &GroupHeader) -> std::io::Result<Option<String>> {
    let whole = read_vec(file, before.byte, usize::try_from(group.end() - group.start).expect("a group is at most 8 MiB"))?;
    let slice = |from: u64, len: u32| {
        let from = usize::try_from(from - group.start).ok()?;
        whole.get(from..from.checked_add(len as usize)?)
    };
    let mut directory = Directory::new(group, slice(group.directory_start(), group.directory_len).unwrap_or_default());
    loop {
        match directory.next() {
            Ok(None) => return Ok(None),
            // Written like this and whole: the fold will meet it again and refuse.
            Err(_) => return Ok(None),
            Ok(Some((Entry::Append(append), at))) => {
                if slice(at, append.data_len).map(crc32c::crc32c) != Some(append.checksum) {
                    return Ok(Some(format!("data of group {} at byte {at} does not match its checksum", group.group)));
                }
            }
            Ok(Some(_)) => {}
        }
    }
}

struct Behind {
    /// The last byte that is not zero.
    last_byte: Option<u64>,
    /// The group in question left more than zeros at its very start.
    begun: bool,
    /// Where it ends, if its header is whole.
    header_end: Option<u64>,
    proof: Option<Proof>,
}

enum Proof {
    /// The group at this byte speaks of the one in question, or of a later one, as durable.
    Durable { group: GroupNumber, at: u64 },
    /// A later version wrote it; what it proves is not known here.
    Newer(String),
}

/// Reads what stands behind the last whole group, to the end of the file.
fn look_behind(file: &dyn DiskFile, end: Position) -> std::io::Result<Behind> {
    let lost = end.group.next();
    let mut behind = Behind { last_byte: None, begun: false, header_end: None, proof: None };
    let mut position = end.byte;
    loop {
        let bytes = read_vec(file, position, CHUNK)?;
        if bytes.is_empty() {
            return Ok(behind);
        }
        for (block, at) in bytes.chunks(BLOCK).zip((position..).step_by(BLOCK)) {
            if *block == ZEROS[..block.len()] {
                continue;
            }
            behind.last_byte = block.iter().rposition(|byte| *byte != 0).map(|last| at + last as u64);
            // The group in question is no witness of itself.
            if at == end.byte {
                behind.begun = true;
                behind.header_end = GroupHeader::decode(block, end.salt).ok().map(|(header, _)| header.end());
                continue;
            }
            if behind.proof.is_some() {
                continue;
            }
            behind.proof = match GroupHeader::decode(block, end.salt) {
                Ok((header, _)) if (header.segment, header.start) != (end.segment, at) => None,
                Ok((header, _)) if header.durable >= lost || (header.mark == Mark::Clean && header.group > lost) => {
                    Some(Proof::Durable { group: header.group, at })
                }
                Err(fault @ HeaderFault::Newer(..)) => Some(Proof::Newer(fault.to_string())),
                Ok(_) | Err(_) => None,
            };
        }
        position += bytes.len() as u64;
    }
}

/// Bytes read at once. A multiple of the block.
const CHUNK: usize = 1 << 20;

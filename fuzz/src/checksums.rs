//! Makes every checksum of a journal's files right again, so that what was changed is read and not refused for its checksum.
//! Written from the description of the format, not with the journal's code.

use std::collections::BTreeMap;

/// Mends all files. What is too short to have a checksum stays as it is.
pub(crate) fn mend(files: &mut BTreeMap<String, Vec<u8>>) {
    // Where a group ends, and the checksum that everything which points there has to name.
    let mut ends = BTreeMap::new();
    for (name, file) in files.iter_mut().filter(|(name, _)| name.ends_with(".log")) {
        if file.len() >= BLOCK {
            // The segment before has been mended already: files come in the order of their numbers.
            point(file, 80, &ends);
            seal(file, BLOCK);
            let chain = number::<4>(file, 80 + 40);
            mend_groups(name, file, chain, &mut ends);
        }
    }
    for (name, file) in files.iter_mut() {
        match name {
            name if name.ends_with(".idx") => mend_index(file, &ends),
            name if name.starts_with("snap-") => mend_snapshot(file, &ends),
            name if name == "FORMAT" => mend_format(file),
            _ => {}
        }
    }
}

type Ends = BTreeMap<(u64, u64), u64>;

fn mend_groups(name: &str, file: &mut [u8], mut chain: u64, ends: &mut Ends) {
    let segment = name.strip_suffix(".log").and_then(|number| number.parse().ok()).unwrap_or(0);
    let salt = file[56..64].to_vec();
    let mut at = BLOCK;
    while let Some(group) = file.get_mut(at..).filter(|rest| rest.len() >= GROUP && rest.starts_with(b"OLGROUP\0")) {
        let (directory, data) = (number::<4>(group, 64), number::<4>(group, 72));
        if let Some(directory) = usize::try_from(directory).ok().and_then(|len| group.get(GROUP..GROUP + len)) {
            let checksum = crc32c::crc32c(directory);
            group[68..72].copy_from_slice(&checksum.to_le_bytes());
        }
        group[12..16].copy_from_slice(&chain.to_le_bytes()[..4]);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&salt), &group[12..GROUP]);
        group[8..12].copy_from_slice(&checksum.to_le_bytes());
        chain = checksum.into();
        let len = GROUP as u64 + directory + data;
        let Ok(end) = usize::try_from(at as u64 + len.next_multiple_of(BLOCK as u64)) else { return };
        at = end;
        ends.insert((segment, at as u64), chain);
    }
}

fn mend_index(file: &mut [u8], ends: &Ends) {
    if file.len() < INDEX {
        return;
    }
    point(file, 48, ends);
    let lines = usize::try_from(number::<8>(file, 96)).unwrap_or(usize::MAX).min((file.len() - INDEX) / LINE);
    for line in (0..lines).map(|line| INDEX + line * LINE) {
        let (start, len) = (number::<8>(file, line + 32), number::<4>(file, line + 40));
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(len).expect("32 bits"));
        let Some(block) = file.get(start..end) else { continue };
        let whose = crc32c::crc32c(&[&file[line..line + 4], &file[line + 8..line + 16]].concat());
        let checksum = crc32c::crc32c_append(whose, block);
        file[line + 44..line + 48].copy_from_slice(&checksum.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&file[INDEX..INDEX + lines * LINE]);
    file[104..108].copy_from_slice(&checksum.to_le_bytes());
    let len = file.len() as u64;
    file[108..116].copy_from_slice(&len.to_le_bytes());
    seal(file, INDEX);
}

fn mend_snapshot(file: &mut [u8], ends: &Ends) {
    if file.len() < BLOCK {
        return;
    }
    point(file, 48, ends);
    seal(file, BLOCK);
    // Of the position: salt and byte.
    let place = file[56..72].to_vec();
    let (mut at, mut chunk) = (BLOCK, 0_u64);
    while file.len() >= at + 16 {
        let seed = crc32c::crc32c_append(crc32c::crc32c(&place), &chunk.to_le_bytes());
        let len = usize::try_from(number::<4>(file, at)).expect("32 bits");
        if len == 0 {
            file[at + 4..at + 12].copy_from_slice(&chunk.to_le_bytes());
            let checksum = crc32c::crc32c_append(seed, &file[at..at + 12]);
            file[at + 12..at + 16].copy_from_slice(&checksum.to_le_bytes());
            return;
        }
        let Some(bytes) = file.get(at + 8..at + 8 + len) else { return };
        let checksum = crc32c::crc32c_append(seed, bytes);
        file[at + 4..at + 8].copy_from_slice(&checksum.to_le_bytes());
        (at, chunk) = (at + 8 + len, chunk + 1);
    }
}

fn mend_format(file: &mut Vec<u8>) {
    let mark = b"\nchecksum ";
    let Some(at) = file.windows(mark.len()).position(|window| window == mark) else { return };
    let checksum = crc32c::crc32c(&file[..=at]);
    file.truncate(at + mark.len());
    file.extend_from_slice(format!("{checksum:08x}\n").as_bytes());
}

/// Gives the position at `at` the checksum of the group that ends there.
fn point(file: &mut [u8], at: usize, ends: &Ends) {
    let place = (number::<8>(file, at), number::<8>(file, at + 16));
    if let Some(checksum) = ends.get(&place) {
        file[at + 40..at + 44].copy_from_slice(&checksum.to_le_bytes()[..4]);
    }
}

/// The checksum of a header of so many bytes.
fn seal(file: &mut [u8], len: usize) {
    let checksum = crc32c::crc32c(&file[12..len]);
    file[8..12].copy_from_slice(&checksum.to_le_bytes());
}

/// A number of `N` bytes.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + N].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

const BLOCK: usize = 4096;
/// Header of a group.
const GROUP: usize = 96;
/// Header of an index, and a line of it.
const INDEX: usize = 128;
const LINE: usize = 48;

#[cfg(test)]
mod tests {
    use crate::directory::FILES;

    #[test]
    fn what_the_journal_wrote_needs_no_mending() {
        let mut files = FILES.clone();
        super::mend(&mut files);
        let differs = files.iter().find(|(name, file)| FILES.get(*name) != Some(file));
        assert_eq!(differs.map(|(name, _)| name), None);
    }
}

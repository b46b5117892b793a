//! Reads a segment group by group: headers and directories, never data.
//!
//! A group is taken only if it is the one that has to follow: right segment, byte, number, chain and time. What is not taken is
//! told apart by whether a crash can leave it behind.

use std::io;

use oncelog_defects::{Defect, is_on};

use super::{
    disk::{DiskFile, read_vec},
    entry_codec::{self, Decoded},
    error::OpenError,
    group_header::{GroupHeader, HeaderFault},
    options::MAX_GROUP_BYTES,
    position::Position,
};
use crate::entry::Entry;

/// Why there is no further group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// Not a whole group: the end, a torn one, or a damaged one.
    Unwhole(String),
    /// A whole header that does not belong here, or of a group that goes beyond the file. No crash leaves that behind.
    Foreign(String),
    /// A whole header of a later version.
    Newer(String),
}

/// A place in a segment, between two groups.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    window: Window<'a>,
    at: Position,
    limit: u64,
}

impl<'a> Cursor<'a> {
    /// Starts behind the group that ends at `from`; the segment ends at the byte `limit`.
    pub(super) fn new(file: &'a dyn DiskFile, from: Position, limit: u64) -> Self {
        Self { window: Window { file, start: 0, bytes: Vec::new() }, at: from, limit }
    }

    /// Where it stands.
    pub(super) const fn at(&self) -> Position {
        self.at
    }

    /// The next group, with its directory. After [`Invalid`] the cursor stands where it stood.
    pub(super) fn next(&mut self) -> io::Result<Result<(GroupHeader, &[u8]), Invalid>> {
        let bytes = self.window.get(self.at.byte, GroupHeader::LEN)?;
        let (header, checksum) = match GroupHeader::decode(bytes, self.at.salt) {
            Ok(decoded) => decoded,
            Err(fault @ HeaderFault::Newer(..)) => return Ok(Err(Invalid::Newer(fault.to_string()))),
            Err(fault) => return Ok(Err(Invalid::Unwhole(fault.to_string()))),
        };
        if let Some(what) = self.mismatch(&header) {
            return Ok(Err(Invalid::Foreign(what)));
        }
        if header.end() > self.limit {
            return Ok(Err(Invalid::Foreign(format!("the file ends within group {}", header.group))));
        }
        let directory = self.window.get(header.directory_start(), header.directory_len as usize)?;
        let matches = || crc32c::crc32c(directory) == header.directory_checksum || is_on(Defect::DirectoryIsNotChecked);
        if directory.len() != header.directory_len as usize || !matches() {
            let what = format!("the directory of group {} does not match its checksum", header.group);
            return Ok(Err(Invalid::Unwhole(what)));
        }
        self.at = header.position(self.at.salt, checksum);
        Ok(Ok((header, directory)))
    }

    fn mismatch(&self, found: &GroupHeader) -> Option<String> {
        let at = &self.at;
        let differs = |what: &str, found: u64, expected: u64| {
            (found != expected).then(|| format!("a group whose {what} is {found} where {expected} has to follow"))
        };
        differs("segment", found.segment, at.segment)
            .or_else(|| differs("start", found.start, at.byte))
            .or_else(|| differs("number", found.group.get(), at.group.next().get()))
            .or_else(|| differs("link to the group before", found.chain.into(), at.chain.into()))
            .or_else(|| (found.durable > at.group).then(|| format!("group {} speaks of a later one as durable", found.group)))
            .or_else(|| (found.time < at.time).then(|| format!("group {} is older than the one before", found.group)))
            .or_else(|| {
                let len = u64::from(found.directory_len) + u64::from(found.payload_len);
                (len > MAX_GROUP_BYTES).then(|| format!("group {} claims {len} bytes", found.group))
            })
    }
}

/// A part of a file in memory, so that many small groups cost few reads.
#[derive(Debug)]
struct Window<'a> {
    file: &'a dyn DiskFile,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// `len` bytes from `position` on; fewer where the file ends.
    fn get(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if position < self.start || position + len as u64 > end {
            self.bytes = read_vec(self.file, position, len.max(WINDOW))?;
            self.start = position;
        }
        let from = usize::try_from(position - self.start).expect("within the window");
        let to = (from + len).min(self.bytes.len());
        Ok(self.bytes.get(from..to).unwrap_or_default())
    }
}

/// The entries of a group, each with the byte of the segment at which its data starts.
#[derive(Debug)]
pub(super) struct Directory<'a> {
    rest: &'a [u8],
    entries_left: u32,
    data: u64,
    data_end: u64,
}

impl<'a> Directory<'a> {
    pub(super) fn new(header: &GroupHeader, bytes: &'a [u8]) -> Self {
        let data = header.payload_start();
        Self { rest: bytes, entries_left: header.entries, data, data_end: data + u64::from(header.payload_len) }
    }

    /// The next entry; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<(Entry, u64)>, String> {
        while !self.rest.is_empty() {
            self.entries_left = self.entries_left.checked_sub(1).ok_or("more entries than its header counts")?;
            if let Decoded::Entry(entry) = entry_codec::decode(&mut self.rest).map_err(|e| e.to_string())? {
                let at = self.data;
                if let Entry::Append(append) = &entry {
                    self.data += u64::from(append.data_len);
                }
                return Ok(Some((entry, at)));
            }
        }
        if self.entries_left > 0 {
            return Err(format!("{} entries fewer than its header counts", self.entries_left));
        }
        if self.data != self.data_end {
            return Err(format!("its data should end at byte {}, its entries say {}", self.data_end, self.data));
        }
        Ok(None)
    }
}

/// Receives an entry, the header of its group, and the byte at which its data starts.
pub(super) type Visit<'a> = dyn FnMut(&GroupHeader, &Entry, u64) -> Result<(), OpenError> + 'a;

/// Walks all groups between two positions of one segment. They are durable: whatever is wrong is damage.
pub(super) fn walk(
    file: &dyn DiskFile,
    name: &str,
    from: Position,
    until: Position,
    visit: &mut Visit<'_>,
) -> Result<(), OpenError> {
    let mut cursor = Cursor::new(file, from, until.byte);
    while cursor.at().byte < until.byte {
        let start = cursor.at().byte;
        let (header, bytes) = match cursor.next().map_err(OpenError::io("reading", name))? {
            Ok(group) => group,
            Err(Invalid::Newer(what)) => return Err(OpenError::NewerFormat { file: name.to_owned(), what }),
            Err(Invalid::Unwhole(what) | Invalid::Foreign(what)) => return Err(OpenError::damaged(name, start, what)),
        };
        let mut directory = Directory::new(&header, bytes);
        let damaged = |what| OpenError::damaged(name, start, format!("group {}: {what}", header.group));
        while let Some((entry, data)) = directory.next().map_err(damaged)? {
            visit(&header, &entry, data)?;
        }
    }
    if cursor.at() == until {
        return Ok(());
    }
    let what = format!("it ends with {}, what follows was written after {until}", cursor.at());
    Err(OpenError::damaged(name, cursor.at().byte, what))
}

/// Bytes read at once while walking.
const WINDOW: usize = 64 << 10;

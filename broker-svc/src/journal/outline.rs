//! What an inspected journal is made of, by headers and directories; records are not read.

use oncelog_proto::Timestamp;

use super::{
    error::OpenError,
    inspect::{Base, Inspection},
    names::FileName,
    position::Position,
    report::Progress,
    scan,
    segment_header::SegmentHeader,
};
use crate::entry::Entry;

/// A journal's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// What names the journal, for ever, and how often it was restored; none: nothing was ever committed here.
    pub cluster: Option<([u8; 16], u64)>,
    /// By number.
    pub segments: Vec<SegmentOutline>,
    /// The journal's other files but indexes, each with its length in bytes: by name.
    pub others: Vec<(String, u64)>,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentOutline {
    /// From 1.
    pub number: u64,
    /// Its file's name.
    pub file: String,
    /// Length of the file.
    pub file_bytes: u64,
    /// Bytes of it that are in use: its header and its groups.
    pub used_bytes: u64,
    /// Number of its first group.
    pub first_group: u64,
    /// Groups, markers included.
    pub groups: u64,
    /// Batches appended in it.
    pub batches: u64,
    /// Records in these.
    pub records: u64,
    /// Bytes of these, as stored.
    pub data_bytes: u64,
    /// Entries that are no batch: of topics, producers, trimming.
    pub other_entries: u64,
    /// Time of the first and the last group with entries; none: there is no such group.
    pub times: Option<(Timestamp, Timestamp)>,
    /// The opening that made it, from 1.
    pub opening: u64,
    /// It has an index.
    pub is_indexed: bool,
    /// It is no longer part of the log.
    pub is_trimmed: bool,
    /// It is the one that was written to last.
    pub is_last: bool,
}

impl Base {
    /// The group after which the snapshot was taken; none: the beginning of the journal.
    pub fn position(&self) -> Option<Position> {
        self.0.map(|header| header.position)
    }
}

impl Inspection {
    /// Walks through all groups.
    ///
    /// # Errors
    /// A group's header or directory is damaged, or the disk fails.
    pub fn outline(&self, progress: &mut dyn FnMut(Progress)) -> Result<Outline, OpenError> {
        let mut outline = Outline { cluster: None, segments: Vec::new(), others: Vec::new() };
        outline.cluster = self.inventory.identity.map(|identity| (identity.cluster, identity.incarnation));
        for name in &self.inventory.others {
            if !matches!(name, FileName::Index(_)) {
                let name = name.to_string();
                let file = self.disk.open(&name).map_err(OpenError::io("opening", &name))?;
                outline.others.push((name.clone(), file.len().map_err(OpenError::io("measuring", &name))?));
            }
        }
        outline.others.sort();
        let Some(last) = &self.found.last else { return Ok(outline) };
        let headers = || self.inventory.segments.values();
        let spans: Vec<_> = headers().zip(headers().skip(1).map(|next| next.prev).chain([last.tail.end])).collect();
        let total = spans.iter().map(|(_, end)| end.byte).sum();
        let mut bytes = 0;
        let mut trimmed_through = self.trimmed_through;
        for (header, end) in spans {
            outline.segments.push(self.segment(header, end, last.header.number, &mut trimmed_through)?);
            bytes += end.byte;
            progress(Progress { bytes, total });
        }
        // What is trimmed may be said by an entry of the last segment.
        outline.segments.iter_mut().for_each(|segment| segment.is_trimmed = segment.number <= trimmed_through);
        Ok(outline)
    }

    fn segment(
        &self,
        header: &SegmentHeader,
        end: Position,
        last: u64,
        trimmed_through: &mut u64,
    ) -> Result<SegmentOutline, OpenError> {
        let name = FileName::Segment(header.number).to_string();
        let file = self.disk.open(&name).map_err(OpenError::io("opening", &name))?;
        let start = header.start();
        let mut outline = SegmentOutline {
            number: header.number,
            file_bytes: file.len().map_err(OpenError::io("measuring", &name))?,
            used_bytes: end.byte,
            first_group: start.group().next().get(),
            groups: end.group().get() - start.group().get(),
            batches: 0,
            records: 0,
            data_bytes: 0,
            other_entries: 0,
            times: None,
            opening: header.opening,
            is_indexed: self.inventory.others.contains(&FileName::Index(header.number)),
            is_trimmed: false,
            is_last: header.number == last,
            file: name.clone(),
        };
        scan::walk(&*file, &name, start, end, &mut |group, entry, _| {
            let (first, _) = outline.times.unwrap_or((group.time, group.time));
            outline.times = Some((first, group.time));
            match entry {
                Entry::Append(append) => {
                    outline.batches += 1;
                    outline.records += u64::from(append.count.get().unsigned_abs());
                    outline.data_bytes += u64::from(append.data_len);
                    return Ok(());
                }
                Entry::Trim { through_segment, .. } => *trimmed_through = (*trimmed_through).max(*through_segment),
                _ => {}
            }
            outline.other_entries += 1;
            Ok(())
        })?;
        Ok(outline)
    }
}

//! Which segments may go. Decides; the entry that says so is journaled by the caller, and only then do files go.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use oncelog_proto::Timestamp;

use super::{
    catalog::{Catalog, SegmentIndex, Shared},
    entry_codec::TRIMMED_LEN,
    index_file::IndexFault,
    reader::Reader,
};
use crate::entry::{PartitionId, Trimmed};

/// How much of the log is kept. It is one log for all partitions: a noisy one ages out a quiet one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The oldest segments go while all together have more bytes than this. None: no limit.
    pub bytes: Option<u64>,
    /// A segment goes when its last group is older than this. None: no limit.
    pub age: Option<Duration>,
}

pub(super) fn plan(shared: &Arc<Shared>, limits: Retention, now: Timestamp) -> Option<(u64, Vec<Trimmed>)> {
    let due = due(&shared.catalog(), limits, now);
    let most = shared.options.group_limit().get() / 2 / TRIMMED_LEN;
    let mut lost: BTreeMap<PartitionId, Trimmed> = BTreeMap::new();
    let mut through = None;
    for number in due {
        // A segment that cannot be read just now ends the plan.
        let Some(contents) = contents(shared, number) else { break };
        let new = contents.iter().filter(|trimmed| !lost.contains_key(&trimmed.partition)).count();
        // One segment alone always goes: of what it holds only partitions that still exist get into the entry.
        if through.is_some() && lost.len() + new > most {
            break;
        }
        for trimmed in contents {
            let sum = lost.entry(trimmed.partition).or_insert(Trimmed { bytes: 0, ..trimmed });
            sum.log_start = trimmed.log_start;
            sum.bytes += trimmed.bytes;
        }
        through = Some(number);
    }
    through.map(|through| (through, lost.into_values().collect()))
}

/// Does something have to stay only because there are no two snapshots behind it? They come with so many bytes of journal, and on
/// a full disk, or where little is written, those may never come.
pub(super) fn lacks_snapshots(catalog: &Catalog, limits: Retention, now: Timestamp) -> bool {
    let Some((active, _)) = catalog.segments.last_key_value() else { return false };
    let oldest = over_limits(catalog, *active, limits, now).first().copied();
    oldest.is_some_and(|oldest| !matches!(catalog.snapshots[..], [older, _] if older.segment > oldest))
}

/// The segments that are over a limit and not needed by the older of two snapshots, oldest first.
fn due(catalog: &Catalog, limits: Retention, now: Timestamp) -> Vec<u64> {
    let [older, _] = catalog.snapshots[..] else { return Vec::new() };
    over_limits(catalog, older.segment, limits, now)
}

/// The segments below `end` that are over a limit, oldest first.
fn over_limits(catalog: &Catalog, end: u64, limits: Retention, now: Timestamp) -> Vec<u64> {
    let mut bytes: u64 = catalog.segments.values().map(|segment| segment.end.byte).sum();
    let mut due = Vec::new();
    for (number, segment) in catalog.segments.range(..end) {
        let too_many = limits.bytes.is_some_and(|limit| bytes > limit);
        let too_old = limits.age.is_some_and(|limit| now.since(segment.end.time) > limit);
        if !too_many && !too_old {
            break;
        }
        bytes -= segment.end.byte;
        due.push(*number);
    }
    due
}

/// What each partition loses with the segment. An index that is gone or damaged is made anew: it must not keep its segment for
/// ever.
fn contents(shared: &Arc<Shared>, number: u64) -> Option<Vec<Trimmed>> {
    let index = match &shared.catalog().segments.get(&number)?.index {
        SegmentIndex::Active(_) => return None,
        SegmentIndex::Sealed(index) => return Some(index.contents()),
        SegmentIndex::File(index) => Arc::clone(index),
    };
    match index.contents(&*shared.disk) {
        Ok(contents) => return Some(contents),
        Err(IndexFault::Io(_)) => return None,
        Err(IndexFault::Damaged) => {}
    }
    Reader::new(Arc::clone(shared)).rebuild_index(number).ok()?;
    match &shared.catalog().segments.get(&number)?.index {
        SegmentIndex::Sealed(index) => Some(index.contents()),
        // The tidying was faster: the next plan reads what it wrote.
        SegmentIndex::Active(_) | SegmentIndex::File(_) => None,
    }
}

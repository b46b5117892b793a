//! Folds the journal into a state: a snapshot, then every group behind it.

use super::{
    disk::Disk,
    error::OpenError,
    inventory::Inventory,
    names::FileName,
    open::{Found, Replay},
    position::Position,
    report::Progress,
    scan,
    snapshot_file::{SnapshotHeader, SnapshotReader},
};
use crate::entry::Entry;

/// What a fold tells besides the state.
#[derive(Debug)]
pub(super) struct Replayed {
    /// The snapshot it started from.
    pub(super) snapshot: Option<String>,
    pub(super) groups: u64,
    pub(super) bytes: u64,
    /// The last segment that is no longer part of the log.
    pub(super) trimmed_through: u64,
}

/// Folds everything. Changes nothing but the state.
pub(super) fn fold(
    disk: &dyn Disk,
    inventory: &Inventory,
    found: &Found,
    replay: &mut dyn Replay,
    progress: &mut dyn FnMut(Progress),
) -> Result<Replayed, OpenError> {
    let mut replayed = Replayed { snapshot: None, groups: 0, bytes: 0, trimmed_through: 0 };
    let base = found.snapshots.verified.first();
    let Some(last) = &found.last else {
        // Without segments and FORMAT there are no snapshots either.
        assert!(base.is_none(), "a snapshot without a journal was refused");
        return Ok(replayed);
    };
    if let Some(base) = base {
        check_base(inventory, found, base)?;
        replayed.snapshot = Some(FileName::Snapshot(base.position.segment, base.position.byte).to_string());
        replayed.trimmed_through = base.trimmed_through;
        restore(disk, base, replay)?;
    } else if let Some((first, _)) = inventory.segments.first_key_value().filter(|(first, _)| **first != 1) {
        let unread = found.snapshots.damaged.join("; ");
        let what = format!("the journal begins with segment {first}, and there is no snapshot that can be read ({unread})");
        return Err(OpenError::damaged(FileName::Segment(1), 0, what));
    }

    let headers = || inventory.segments.values();
    let ends = headers().skip(1).map(|next| next.prev).chain([last.tail.end]);
    let from = |start: Position| match base {
        Some(base) if base.position.segment > start.segment => None,
        Some(base) if base.position.segment == start.segment => Some(base.position),
        _ => Some(start),
    };
    let spans: Vec<_> = headers().zip(ends).filter_map(|(header, end)| Some((from(header.start())?, end))).collect();
    let total = spans.iter().map(|(from, until)| until.byte - from.byte).sum();
    for (from, until) in spans {
        let name = FileName::Segment(from.segment).to_string();
        let file = disk.open(&name).map_err(OpenError::io("opening", &name))?;
        scan::walk(&*file, &name, from, until, &mut |header, entry, _| {
            if let Entry::Trim { through_segment, .. } = entry {
                replayed.trimmed_through = replayed.trimmed_through.max(*through_segment);
            }
            let refused = |what| OpenError::Refused { file: name.clone(), what: format!("group {}: {what}", header.group) };
            replay.apply(header.group, header.time, entry).map_err(refused)
        })?;
        replayed.groups += until.group.get() - from.group.get();
        replayed.bytes += until.byte - from.byte;
        progress(Progress { bytes: replayed.bytes, total });
    }
    let by_headers = headers().map(|header| header.trimmed_through).max().unwrap_or(0);
    replayed.trimmed_through = replayed.trimmed_through.max(by_headers);
    check_trimmed(inventory, replayed.trimmed_through)?;
    Ok(replayed)
}

/// The journal has to hold exactly the group that a snapshot was taken after.
fn check_base(inventory: &Inventory, found: &Found, base: &SnapshotHeader) -> Result<(), OpenError> {
    let at = base.position;
    let ahead = |what: String| {
        let snapshot = FileName::Snapshot(at.segment, at.byte).to_string();
        Err(OpenError::StateAheadOfLog { snapshot, what })
    };
    let last = found.last.as_ref().expect("there are segments");
    let Some(header) = inventory.segments.get(&at.segment) else {
        let first = inventory.segments.first_key_value().map_or(0, |(first, _)| *first);
        if at.segment < first {
            let what = format!("it is missing; the snapshot needs it, and the journal begins with segment {first}");
            return Err(OpenError::damaged(FileName::Segment(at.segment), 0, what));
        }
        return ahead(format!("{at}; the journal ends with segment {}", last.header.number));
    };
    if header.salt != at.salt {
        return ahead(format!("{at} of another history: the segment of that number is another one"));
    }
    let holds = match inventory.segments.get(&(at.segment + 1)) {
        Some(next) if at.byte == next.prev.byte => at == next.prev,
        // Whether it is the end of a group shows in the walk from there: only the right group links to it.
        Some(next) => at.byte < next.prev.byte,
        None => last.tail.watched,
    };
    if holds { Ok(()) } else { ahead(format!("{at}, which the journal does not hold")) }
}

fn restore(disk: &dyn Disk, base: &SnapshotHeader, replay: &mut dyn Replay) -> Result<(), OpenError> {
    let name = FileName::Snapshot(base.position.segment, base.position.byte).to_string();
    let file = disk.open(&name).map_err(OpenError::io("opening", &name))?;
    let unreadable = |fault: &dyn std::fmt::Display| OpenError::damaged(&name, 0, fault.to_string());
    let mut reader = SnapshotReader::new(&*file).map_err(|e| unreadable(&e))?;
    let mut fault = None;
    let mut chunks = std::iter::from_fn(|| {
        // It was read whole a moment ago; if it cannot be read again, the state that comes out is not used.
        reader.next().unwrap_or_else(|e| {
            fault = Some(e);
            None
        })
    });
    let restored = replay.restore(&mut chunks);
    let rest = chunks.count();
    if let Some(fault) = fault {
        return Err(unreadable(&fault));
    }
    let refused = |what| OpenError::Refused { file: name.clone(), what };
    restored.map_err(refused)?;
    if rest == 0 { Ok(()) } else { Err(refused(format!("{rest} chunks were left over"))) }
}

/// What was trimmed is the oldest part, so what is left begins right behind it, or earlier if deleting is not done yet.
fn check_trimmed(inventory: &Inventory, trimmed_through: u64) -> Result<(), OpenError> {
    let (Some((first, _)), Some((last, _))) = (inventory.segments.first_key_value(), inventory.segments.last_key_value()) else {
        return Ok(());
    };
    if *first > trimmed_through.saturating_add(1) {
        let what = format!("it is missing; the journal was trimmed through segment {trimmed_through} only");
        return Err(OpenError::damaged(FileName::Segment(first - 1), 0, what));
    }
    if trimmed_through >= *last {
        let what = format!("an entry trims segment {trimmed_through}, which is not older than the last one");
        return Err(OpenError::damaged(FileName::Segment(*last), 0, what));
    }
    Ok(())
}

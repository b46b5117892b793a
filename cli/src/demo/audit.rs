//! The live account: what a reader of the log has seen of the records that were sent. Pure. The verdict at the end is another's,
//! made anew from the log and from what callers were told.

use std::collections::BTreeMap;

/// A record of the demo: the so-and-so-many-th of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordId {
    pub(super) writer: usize,
    pub(super) number: u64,
}

impl RecordId {
    /// The value that the record has.
    pub(super) fn value(self) -> String {
        format!("writer {} record {}", self.writer, self.number)
    }

    /// From the value of a record; none: it is not the demo's.
    pub(super) fn from_value(value: &[u8]) -> Option<Self> {
        let (writer, number) = std::str::from_utf8(value).ok()?.strip_prefix("writer ")?.split_once(" record ")?;
        Some(Self { writer: writer.parse().ok()?, number: number.parse().ok()? })
    }
}

/// What was found until now, in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// In the log, as far as it was read; each copy counted.
    pub(super) stored: u64,
    /// In the log once more than sent, for each copy.
    pub(super) duplicated: u64,
    /// Behind a later one of the same writer, in the same partition: who follows the log sees the writer go back.
    pub(super) out_of_order: u64,
    /// Acknowledged, and something else stands in its place.
    pub(super) lost: u64,
}

/// The account.
#[derive(Debug)]
pub(super) struct Audit {
    /// Of each writer the records that were seen, by number.
    seen: Vec<Vec<bool>>,
    partitions: Vec<Partition>,
    found: Found,
}

#[derive(Clone, Debug)]
struct Partition {
    /// The offset that is read next.
    next: i64,
    /// Acknowledged records that the reader has not come to, by offset.
    awaited: BTreeMap<i64, RecordId>,
    /// Of each writer the highest number that was seen here.
    highest: Vec<Option<u64>>,
}

impl Audit {
    pub(super) fn new(writers: usize, partitions: usize) -> Self {
        let partition = Partition { next: 0, awaited: BTreeMap::new(), highest: vec![None; writers] };
        Self { seen: vec![Vec::new(); writers], partitions: vec![partition; partitions], found: Found::default() }
    }

    /// A writer was told that its record is in the log, here.
    pub(super) fn acknowledged(&mut self, record: RecordId, partition: usize, offset: i64) {
        let Some(place) = self.partitions.get_mut(partition) else { return };
        if offset >= place.next {
            place.awaited.insert(offset, record);
        } else if !self.has_seen(record) {
            self.found.lost += 1;
        }
    }

    /// A reader has come to this offset. None: the record there is nobody's.
    pub(super) fn read(&mut self, partition: usize, offset: i64, record: Option<RecordId>) {
        let Some(place) = self.partitions.get_mut(partition) else { return };
        // A reader that was cut off begins where it stood.
        if offset < place.next {
            return;
        }
        place.next = offset + 1;
        let later = place.awaited.split_off(&(offset + 1));
        let passed = std::mem::replace(&mut place.awaited, later);
        self.found.stored += 1;
        if let Some(record) = record {
            self.see(partition, record);
        }
        self.found.lost += passed.into_values().filter(|record| !self.has_seen(*record)).count() as u64;
    }

    /// Where a reader goes on.
    pub(super) fn next(&self, partition: usize) -> i64 {
        self.partitions[partition].next
    }

    pub(super) fn found(&self) -> Found {
        self.found
    }

    fn see(&mut self, partition: usize, RecordId { writer, number }: RecordId) {
        let Some(seen) = self.seen.get_mut(writer) else { return };
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        // Writers count: what is far ahead of everything seen was not written by one of them.
        if index >= seen.len() + FARTHEST_AHEAD {
            return;
        }
        if seen.len() <= index {
            seen.resize(index + 1, false);
        }
        if std::mem::replace(&mut seen[index], true) {
            self.found.duplicated += 1;
        }
        let highest = &mut self.partitions[partition].highest[writer];
        if highest.is_some_and(|highest| highest > number) {
            self.found.out_of_order += 1;
        }
        *highest = (*highest).max(Some(number));
    }

    fn has_seen(&self, record: RecordId) -> bool {
        let index = usize::try_from(record.number).unwrap_or(usize::MAX);
        self.seen.get(record.writer).and_then(|seen| seen.get(index)).copied().unwrap_or(false)
    }
}

/// Numbers between neighbours in the log.
const FARTHEST_AHEAD: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(writer: usize, number: u64) -> RecordId {
        RecordId { writer, number }
    }

    fn read(audit: &mut Audit, records: &[(usize, u64)]) {
        for (offset, (writer, number)) in (audit.next(0)..).zip(records) {
            audit.read(0, offset, Some(record(*writer, *number)));
        }
    }

    #[test]
    fn a_record_is_found_by_its_value() {
        assert_eq!(RecordId::from_value(record(3, 17).value().as_bytes()), Some(record(3, 17)));
        for others in ["", "writer 1", "writer x record 1", "record 1"] {
            assert_eq!(RecordId::from_value(others.as_bytes()), None, "{others}");
        }
    }

    #[test]
    fn once_and_in_order_is_right() {
        let mut audit = Audit::new(2, 1);
        audit.acknowledged(record(0, 0), 0, 0);
        read(&mut audit, &[(0, 0), (1, 0), (0, 1), (1, 5)]);
        audit.acknowledged(record(1, 5), 0, 3);
        assert_eq!(audit.found(), Found { stored: 4, ..Found::default() });
    }

    #[test]
    fn a_second_copy_is_a_duplicate_and_whatever_stands_behind_a_later_record_is_out_of_order() {
        let mut audit = Audit::new(2, 1);
        read(&mut audit, &[(0, 0), (0, 2), (0, 0), (0, 1), (1, 0)]);
        assert_eq!(audit.found(), Found { stored: 5, duplicated: 1, out_of_order: 2, lost: 0 });
    }

    #[test]
    fn what_was_acknowledged_is_lost_if_the_reader_went_by_its_place_without_seeing_it() {
        let mut audit = Audit::new(1, 1);
        audit.acknowledged(record(0, 1), 0, 1);
        read(&mut audit, &[(0, 0)]);
        assert_eq!(audit.found().lost, 0, "not come to yet");
        read(&mut audit, &[(0, 2)]);
        assert_eq!(audit.found().lost, 1);
        audit.acknowledged(record(0, 3), 0, 0);
        assert_eq!(audit.found().lost, 2);
    }

    #[test]
    fn what_a_reader_sees_again_after_it_was_cut_off_counts_once_and_nonsense_takes_no_memory() {
        let mut audit = Audit::new(1, 1);
        read(&mut audit, &[(0, 0)]);
        audit.read(0, 0, Some(record(0, 0)));
        audit.read(0, 1, Some(record(0, u64::MAX)));
        audit.read(0, 2, Some(record(9, 0)));
        audit.read(7, 0, None);
        assert_eq!(audit.found(), Found { stored: 3, ..Found::default() });
    }
}

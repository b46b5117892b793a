//! The window: the last five batches of one producer in one partition.

use std::mem;

use oncelog_proto::{Epoch, Offset, RecordCount, Sequence, Timestamp};

/// How many batches a window remembers (D1). A producer has at most as many unresolved batches in a partition (R1), so a batch
/// whose outcome is in doubt is always found here.
pub const WINDOW_BATCHES: usize = 5;

/// What is remembered of an appended batch. Its base sequence follows from its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) base_offset: Offset,
    pub(super) time: Timestamp,
    pub(super) count: RecordCount,
    pub(super) checksum: u32,
}

/// A remembered batch with its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Remembered {
    /// Sequence of its first record.
    pub base: Sequence,
    /// Number of records.
    pub count: RecordCount,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// When it was appended.
    pub time: Timestamp,
    /// CRC-32C of its data.
    pub checksum: u32,
}

/// Where a range of sequences lies relative to what a window remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Exactly one remembered batch.
    Exactly(Remembered),
    /// All of it below the window: in the log, but no longer remembered.
    Below,
    /// It starts at the expected sequence.
    Next,
    /// It starts above the expected sequence.
    Early,
    /// It overlaps what is in the log in any other way.
    Overlap,
}

/// The window of one epoch. Its batches follow each other without gaps, and the last one ends at `next` (I3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    epoch: Epoch,
    next: Sequence,
    /// Oldest first, at most [`WINDOW_BATCHES`]. Most of a million producers wrote a batch or two: room for more would be most of
    /// it.
    slots: Box<[Slot]>,
}

impl Window {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self { epoch, next: Sequence::ZERO, slots: Box::default() }
    }

    /// Puts a window together from its parts. None if they contradict each other.
    pub(super) fn restore(epoch: Epoch, next: Sequence, slots: &[Slot]) -> Option<Self> {
        let records: i64 = slots.iter().map(|slot| i64::from(slot.count.get())).sum();
        let fits = slots.len() <= WINDOW_BATCHES && records <= next.get();
        fits.then(|| Self { epoch, next, slots: slots.into() })
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn next(&self) -> Sequence {
        self.next
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The remembered batches, oldest first.
    pub(super) fn batches(&self) -> impl Iterator<Item = Remembered> {
        let records: i64 = self.slots().iter().map(|slot| i64::from(slot.count.get())).sum();
        let mut base = Sequence::new(self.next.get() - records).expect("the batches of a window end at `next`");
        self.slots().iter().map(move |slot| {
            let batch =
                Remembered { base, count: slot.count, base_offset: slot.base_offset, time: slot.time, checksum: slot.checksum };
            base = base.checked_add(slot.count).expect("it ends at or before `next`");
            batch
        })
    }

    /// Where the range from `base` to `end`, exclusive, lies.
    pub(super) fn place(&self, base: Sequence, end: Sequence) -> Place {
        if base == self.next {
            return Place::Next;
        }
        if base > self.next {
            return Place::Early;
        }
        let mut lowest = self.next;
        for batch in self.batches() {
            lowest = lowest.min(batch.base);
            if batch.base == base && batch.base.checked_add(batch.count) == Some(end) {
                return Place::Exactly(batch);
            }
        }
        if end <= lowest { Place::Below } else { Place::Overlap }
    }

    /// Remembers a batch that starts at `next`; the oldest of five is forgotten (D3).
    pub(super) fn push(&mut self, slot: Slot) {
        self.next = self.next.checked_add(slot.count).expect("admission checked that the sequence does not overflow");
        if self.slots.len() == WINDOW_BATCHES {
            self.slots.rotate_left(1);
            self.slots[WINDOW_BATCHES - 1] = slot;
        } else {
            let mut slots = mem::take(&mut self.slots).into_vec();
            slots.reserve_exact(1);
            slots.push(slot);
            self.slots = slots.into_boxed_slice();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(n: i64) -> Sequence {
        Sequence::new(n).expect("not negative")
    }

    /// A window after batches of two records each.
    fn window(batches: i64) -> Window {
        let mut window = Window::new(Epoch::ZERO);
        for i in 0..batches {
            window.push(Slot {
                base_offset: Offset::new(100 + 2 * i).expect("not negative"),
                time: Timestamp::default(),
                count: RecordCount::new(2).expect("2"),
                checksum: 0,
            });
        }
        window
    }

    fn place(window: &Window, base: i64, end: i64) -> Place {
        window.place(sequence(base), sequence(end))
    }

    #[test]
    fn the_fifth_last_batch_is_remembered_and_the_sixth_last_is_below() {
        let window = window(6);
        let Place::Exactly(batch) = place(&window, 2, 4) else { panic!("the fifth last is remembered") };
        assert_eq!(batch.base_offset.get(), 102);
        assert_eq!(place(&window, 0, 2), Place::Below);
    }

    #[test]
    fn every_other_overlap_is_told_apart() {
        let window = window(6);
        for (base, end) in [(2, 3), (3, 4), (1, 4), (0, 4), (2, 6), (10, 13), (11, 12), (0, 12)] {
            assert_eq!(place(&window, base, end), Place::Overlap, "{base}..{end}");
        }
        assert_eq!(place(&window, 12, 13), Place::Next);
        assert_eq!(place(&window, 13, 14), Place::Early);
    }

    #[test]
    fn a_restored_window_cannot_start_below_zero() {
        let window = window(3);
        assert_eq!(Window::restore(Epoch::ZERO, sequence(6), window.slots()).as_ref(), Some(&window));
        assert_eq!(Window::restore(Epoch::ZERO, sequence(5), window.slots()), None);
    }
}

//! The hold: batches that arrived before the ones they follow wait here for their turn.
//!
//! Concurrent gRPC calls reach the broker in any order, a fifth to a third of the time out of order even on loopback. Kafka need
//! not care: it reads one call of a connection at a time (D25). Here an early batch waits a bounded time instead of costing its
//! producer a round trip.
//!
//! The hold decides nothing. A batch that leaves it, for whatever reason, is judged again from the start (R4): its epoch may
//! have been fenced meanwhile, and then "expected is 1" means another 1.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    ops::Bound,
    time::Duration,
};

use oncelog_proto::{Epoch, Monotonic, ProducerId, Sequence, Tag, TopicPartition};

/// Most early batches of one producer in one partition. With at most five tagged batches there from the lowest unresolved one
/// on, at most four are ever early (R1).
pub const MAX_EARLY_BATCHES: usize = 5;
/// Most copies of one early batch that wait; a further copy is refused at once.
pub const MAX_COPIES: usize = 5;

/// Whose early batches, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Line {
    producer: ProducerId,
    epoch: Epoch,
    partition: TopicPartition,
}

/// Waiting batches. `T` is a batch with whatever its owner needs to answer it.
#[derive(Clone, Debug)]
pub struct Hold<T> {
    wait: Duration,
    max_bytes: usize,
    bytes: usize,
    batches: usize,
    slots: BTreeMap<(Line, Sequence), Slot<T>>,
    /// In the order in which they end; the wait is the same for all, so that is the order in which they began.
    deadlines: BTreeSet<(Monotonic, Line, Sequence)>,
}

/// Copies of one batch share a slot, or five copies of one would leave no room for its predecessors (R1).
#[derive(Clone, Debug)]
struct Slot<T> {
    deadline: Monotonic,
    copies: Vec<(T, usize)>,
}

impl<T> Hold<T> {
    /// A hold in which a batch waits for `wait`, and all of them together take at most `max_bytes`.
    pub fn new(wait: Duration, max_bytes: usize) -> Self {
        Self { wait, max_bytes, bytes: 0, batches: 0, slots: BTreeMap::new(), deadlines: BTreeSet::new() }
    }

    /// Takes an early batch, or gives it back if there is no room: then it is to be refused at once.
    ///
    /// # Errors
    /// The batch: it would be the sixth of its line, the sixth copy, or the bytes are used up.
    pub fn offer(&mut self, tag: Tag, partition: &TopicPartition, batch: T, bytes: usize, now: Monotonic) -> Result<(), T> {
        if self.wait.is_zero() || self.bytes + bytes > self.max_bytes {
            return Err(batch);
        }
        let line = Line { producer: tag.producer, epoch: tag.epoch, partition: partition.clone() };
        if let Some(slot) = self.slots.get_mut(&(line.clone(), tag.base)) {
            if slot.copies.len() == MAX_COPIES {
                return Err(batch);
            }
            slot.copies.push((batch, bytes));
        } else {
            if self.in_line(&line).count() == MAX_EARLY_BATCHES {
                return Err(batch);
            }
            let deadline = now.plus(self.wait);
            self.deadlines.insert((deadline, line.clone(), tag.base));
            self.slots.insert((line, tag.base), Slot { deadline, copies: vec![(batch, bytes)] });
        }
        self.bytes += bytes;
        self.batches += 1;
        Ok(())
    }

    /// Takes out the batches whose turn has come, or has passed: those at or below `next`.
    pub fn take_due(&mut self, producer: ProducerId, epoch: Epoch, partition: &TopicPartition, next: Sequence) -> Vec<T> {
        if self.slots.is_empty() {
            return Vec::new();
        }
        let line = Line { producer, epoch, partition: partition.clone() };
        let due: Vec<_> = self.in_line(&line).take_while(|base| *base <= next).collect();
        due.into_iter().flat_map(|base| self.remove(line.clone(), base)).collect()
    }

    /// Takes out the batches that have waited long enough.
    pub fn take_overdue(&mut self, now: Monotonic) -> Vec<T> {
        let mut taken = Vec::new();
        while let Some((deadline, line, base)) = self.deadlines.first() {
            if *deadline > now {
                break;
            }
            let (line, base) = (line.clone(), *base);
            taken.extend(self.remove(line, base));
        }
        taken
    }

    /// Takes out the batches of a producer: its epoch was raised, or it expired (R4).
    pub fn take_producer(&mut self, producer: ProducerId) -> Vec<T> {
        self.take_where(|line| line.producer == producer)
    }

    /// Takes out the batches for a topic: it was deleted (R4).
    pub fn take_topic(&mut self, topic: &oncelog_proto::TopicName) -> Vec<T> {
        self.take_where(|line| line.partition.topic == *topic)
    }

    /// When the next batch has waited long enough.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// Batches that wait, copies counted each, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.batches, self.bytes)
    }

    /// Feeds `into` everything that decides what the hold will do: the slots in the order of their deadlines, not the instants. A
    /// batch that comes later waits longer, however far the deadlines are. `batch` feeds one of the batches.
    pub fn digest<H: Hasher>(&self, into: &mut H, mut batch: impl FnMut(&T, &mut H)) {
        self.deadlines.len().hash(into);
        let mut before = None;
        for (deadline, line, base) in &self.deadlines {
            (before.replace(*deadline) == Some(*deadline), line, base).hash(into);
            let copies = &self.slots[&(line.clone(), *base)].copies;
            copies.len().hash(into);
            copies.iter().for_each(|(copy, _)| batch(copy, into));
        }
    }

    fn in_line(&self, line: &Line) -> impl Iterator<Item = Sequence> {
        let from = Bound::Included((line.clone(), Sequence::ZERO));
        let to = Bound::Included((line.clone(), Sequence::MAX));
        self.slots.range((from, to)).map(|((_, base), _)| *base)
    }

    fn take_where(&mut self, is_meant: impl Fn(&Line) -> bool) -> Vec<T> {
        let meant: Vec<_> = self.slots.keys().filter(|(line, _)| is_meant(line)).cloned().collect();
        meant.into_iter().flat_map(|(line, base)| self.remove(line, base)).collect()
    }

    fn remove(&mut self, line: Line, base: Sequence) -> Vec<T> {
        let key = (line, base);
        let Some(slot) = self.slots.remove(&key) else { return Vec::new() };
        let (line, base) = key;
        let had_deadline = self.deadlines.remove(&(slot.deadline, line, base));
        assert!(had_deadline, "every slot has its deadline");
        let unpack = |(batch, bytes)| {
            self.bytes -= bytes;
            self.batches -= 1;
            batch
        };
        slot.copies.into_iter().map(unpack).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(200);

    fn tag(epoch: i32, base: i64) -> Tag {
        Tag {
            producer: ProducerId::new(1).expect("1"),
            epoch: Epoch::new(epoch).expect("small"),
            base: Sequence::new(base).expect("small"),
        }
    }

    fn partition() -> TopicPartition {
        TopicPartition::parse("t", 0).expect("allowed")
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_micros(millis * 1000)
    }

    fn offer(hold: &mut Hold<i64>, tag: Tag, batch: i64) -> Result<(), i64> {
        hold.offer(tag, &partition(), batch, 10, at(0))
    }

    #[test]
    fn the_fifth_early_batch_is_held_and_the_sixth_is_given_back() {
        let mut hold = Hold::new(WAIT, 1000);
        for base in 1..=5 {
            assert_eq!(offer(&mut hold, tag(0, base), base), Ok(()));
        }
        assert_eq!(offer(&mut hold, tag(0, 6), 6), Err(6));
        // Another epoch is another line.
        assert_eq!(offer(&mut hold, tag(1, 6), 7), Ok(()));
    }

    #[test]
    fn copies_of_one_batch_share_a_slot_up_to_a_limit() {
        let mut hold = Hold::new(WAIT, 1000);
        for copy in 0..5 {
            assert_eq!(offer(&mut hold, tag(0, 1), copy), Ok(()));
        }
        assert_eq!(offer(&mut hold, tag(0, 1), 5), Err(5));
        for base in 2..=5 {
            assert_eq!(offer(&mut hold, tag(0, base), base), Ok(()));
        }
        assert_eq!(hold.size(), (9, 90));
    }

    #[test]
    fn bytes_are_bounded_and_come_back() {
        let mut hold = Hold::new(WAIT, 20);
        assert_eq!(offer(&mut hold, tag(0, 1), 1), Ok(()));
        assert_eq!(offer(&mut hold, tag(0, 2), 2), Ok(()));
        assert_eq!(offer(&mut hold, tag(0, 3), 3), Err(3));
        assert_eq!(hold.take_producer(tag(0, 0).producer), [1, 2]);
        assert_eq!(hold.size(), (0, 0));
        assert_eq!(offer(&mut hold, tag(0, 3), 3), Ok(()));
    }

    #[test]
    fn what_is_due_leaves_in_order_and_what_is_not_stays() {
        let mut hold = Hold::new(WAIT, 1000);
        for base in [3, 1, 2] {
            assert_eq!(offer(&mut hold, tag(0, base), base), Ok(()));
        }
        let tag = tag(0, 2);
        assert_eq!(hold.take_due(tag.producer, Epoch::new(1).expect("1"), &partition(), tag.base), [0; 0]);
        assert_eq!(hold.take_due(tag.producer, tag.epoch, &partition(), tag.base), [1, 2]);
        assert_eq!(hold.size(), (1, 10));
    }

    #[test]
    fn a_batch_waits_until_its_deadline_and_no_longer() {
        let mut hold = Hold::new(WAIT, 1000);
        assert_eq!(offer(&mut hold, tag(0, 1), 1), Ok(()));
        assert_eq!(hold.next_deadline(), Some(at(200)));
        assert_eq!(hold.take_overdue(at(199)), [0; 0]);
        assert_eq!(hold.take_overdue(at(200)), [1]);
        assert_eq!(hold.next_deadline(), None);
    }

    #[test]
    fn without_a_wait_nothing_is_held() {
        let mut hold = Hold::new(Duration::ZERO, 1000);
        assert_eq!(offer(&mut hold, tag(0, 1), 1), Err(1));
    }
}

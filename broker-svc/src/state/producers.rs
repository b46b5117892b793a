//! Producers: epochs, windows, closed markers, and when each was last heard of.

use std::{collections::BTreeSet, mem, time::Duration};

use oncelog_defects::{Defect, is_on};
use oncelog_proto::{Epoch, ProducerId, Sequence, Tag, Timestamp, TopicPartition};

use super::{
    Contradiction,
    by_id::ById,
    window::{Slot, Window},
};
use crate::entry::{Append, OwnerHash, PartitionId, TokenHash};

/// What is remembered of one producer id. There may be a million of them, in two copies of the state: what few of them have is
/// boxed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) epoch: Epoch,
    /// Something was appended in the current epoch; from then on the answer of its raise cannot be repeated (R13).
    pub(super) written: bool,
    pub(super) last_seen: Timestamp,
    token: Option<Box<TokenHash>>,
    owner: Option<Box<OwnerHash>>,
    /// Sorted by partition. Windows of the epoch before stay until something is written in the current one, because a repeated
    /// recovery call has to get the same answer. Most producers write to few partitions: there is no room for more.
    windows: Box<[(PartitionId, Window)]>,
    /// Where a topic was deleted under this epoch (R12).
    #[expect(clippy::box_collection, reason = "an empty set has 24 bytes")]
    closed: Option<Box<BTreeSet<TopicPartition>>>,
}

impl Producer {
    pub(super) fn new(epoch: Epoch, token: Option<TokenHash>, last_seen: Timestamp) -> Self {
        Self { epoch, written: false, last_seen, token: token.map(Box::new), owner: None, windows: Box::default(), closed: None }
    }

    /// Of the call that raised the epoch last (R13).
    pub(super) fn token(&self) -> Option<TokenHash> {
        self.token.as_deref().copied()
    }

    /// Whose it is, from the first moment to the last; none: it was handed out when nobody was asked who they are.
    pub(super) fn owner(&self) -> Option<OwnerHash> {
        self.owner.as_deref().copied()
    }

    /// The window of the current epoch.
    pub(super) fn window(&self, partition: PartitionId) -> Option<&Window> {
        let at = self.windows.binary_search_by_key(&partition, |(id, _)| *id).ok()?;
        let (_, window) = &self.windows[at];
        (window.epoch() == self.epoch).then_some(window)
    }

    /// The windows of one epoch, by partition id.
    pub(super) fn windows_of(&self, epoch: Epoch) -> impl Iterator<Item = (PartitionId, &Window)> {
        self.windows.iter().filter(move |(_, window)| window.epoch() == epoch).map(|(id, window)| (*id, window))
    }

    pub(super) fn all_windows(&self) -> impl Iterator<Item = (PartitionId, &Window)> {
        self.windows.iter().map(|(id, window)| (*id, window))
    }

    /// Was its topic deleted under the current epoch?
    pub(super) fn is_closed(&self, partition: &TopicPartition) -> bool {
        self.closed.as_ref().is_some_and(|closed| closed.contains(partition))
    }

    /// The closed markers, sorted.
    pub(super) fn closed(&self) -> impl Iterator<Item = &TopicPartition> {
        self.closed.iter().flat_map(|closed| closed.iter())
    }

    fn close(&mut self, partition: TopicPartition) {
        self.closed.get_or_insert_default().insert(partition);
    }

    /// Windows and markers: what the cap counts.
    pub(super) fn size(&self) -> usize {
        self.windows.len() + self.closed.as_ref().map_or(0, |closed| closed.len())
    }

    /// What of [`Self::size`] goes with the first batch of the current epoch.
    pub(super) fn outdated(&self) -> usize {
        if self.written { 0 } else { self.windows.len() }
    }

    pub(super) fn set_window(&mut self, partition: PartitionId, window: Window) {
        match self.windows.binary_search_by_key(&partition, |(id, _)| *id) {
            Ok(at) => self.windows[at].1 = window,
            Err(at) => {
                let mut windows = mem::take(&mut self.windows).into_vec();
                windows.reserve_exact(1);
                windows.insert(at, (partition, window));
                self.windows = windows.into();
            }
        }
    }

    fn keep_windows(&mut self, is_kept: impl FnMut(&(PartitionId, Window)) -> bool) {
        let mut windows = mem::take(&mut self.windows).into_vec();
        windows.retain(is_kept);
        self.windows = windows.into();
    }

    fn raise(&mut self, epoch: Epoch, token: Option<TokenHash>) {
        let fenced = self.epoch;
        self.keep_windows(|(_, window)| window.epoch() == fenced);
        self.closed = None;
        self.epoch = epoch;
        self.token = token.map(Box::new);
        self.written = false;
    }

    fn append(&mut self, tag: Tag, append: &Append, time: Timestamp) -> Result<(), Contradiction> {
        if tag.epoch != self.epoch && !is_on(Defect::OlderEpochIsAccepted) {
            return Err(Contradiction("a batch of an epoch that is not the producer's"));
        }
        if !self.written {
            self.written = true;
            let epoch = self.epoch;
            self.keep_windows(|(_, window)| window.epoch() == epoch);
        }
        if self.window(append.partition).is_none() {
            self.set_window(append.partition, Window::new(self.epoch));
        }
        let at = self.windows.binary_search_by_key(&append.partition, |(id, _)| *id).expect("it was just put there");
        let window = &mut self.windows[at].1;
        if is_on(Defect::DuplicateIsAppended) && tag.base < window.next() {
            return Ok(());
        }
        if is_on(Defect::GapIsAppended) && tag.base > window.next() {
            *window = Window::restore(self.epoch, tag.base, &[]).expect("an empty window begins anywhere");
        }
        if window.next() != tag.base {
            return Err(Contradiction("the base sequence is not the expected one"));
        }
        window.push(Slot { base_offset: append.base_offset, time, count: append.count, checksum: append.checksum });
        Ok(())
    }
}

/// All producers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Producers {
    by_id: ById<Producer>,
    /// The id after the highest ever handed out.
    next_id: i64,
    /// Windows and markers of all of them.
    size: usize,
    /// How long the broker was down since the first opening. Expiry counts time without it.
    downtime: Duration,
}

impl Producers {
    pub(super) fn restore(next_id: i64, downtime: Duration) -> Self {
        Self { next_id, downtime, ..Self::default() }
    }

    pub(super) fn get(&self, id: ProducerId) -> Option<&Producer> {
        self.by_id.get(id)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn next_id(&self) -> i64 {
        self.next_id
    }

    pub(super) fn downtime(&self) -> Duration {
        self.downtime
    }

    pub(super) fn opened(&mut self, downtime: Duration) {
        self.downtime = self.downtime.saturating_add(downtime);
    }

    /// When a producer was last heard of, by the wall clock.
    pub(super) fn last_seen(&self, producer: &Producer) -> Timestamp {
        producer.last_seen.plus(self.downtime)
    }

    /// In the order of their ids, those above `after`.
    pub(super) fn iter_after(&self, after: Option<ProducerId>) -> impl Iterator<Item = (ProducerId, &Producer)> {
        self.by_id.iter_after(after)
    }

    pub(super) fn insert(&mut self, id: ProducerId, producer: Producer) -> Result<(), Contradiction> {
        self.size += producer.size();
        self.by_id.insert(id, producer).map_err(|_| Contradiction("a producer id is handed out twice"))
    }

    pub(super) fn restore_window(&mut self, id: ProducerId, partition: PartitionId, window: Window) -> Result<(), Contradiction> {
        self.change(id, |producer| {
            producer.set_window(partition, window);
            Ok(())
        })
    }

    pub(super) fn restore_closed(&mut self, id: ProducerId, partition: TopicPartition) -> Result<(), Contradiction> {
        self.change(id, |producer| {
            producer.close(partition);
            Ok(())
        })
    }

    pub(super) fn init(
        &mut self,
        id: ProducerId,
        epoch: Epoch,
        token: Option<TokenHash>,
        time: Timestamp,
    ) -> Result<(), Contradiction> {
        let last_seen = time.minus(self.downtime);
        if epoch == Epoch::ZERO {
            return self.hand_out(id, Producer::new(epoch, token, last_seen));
        }
        self.change(id, |producer| {
            if producer.epoch.next() != Some(epoch) {
                return Err(Contradiction("an epoch is raised by more than one"));
            }
            producer.raise(epoch, token);
            producer.last_seen = last_seen;
            Ok(())
        })
    }

    /// A fresh id, which belongs to `owner`.
    pub(super) fn grant(&mut self, id: ProducerId, owner: OwnerHash, time: Timestamp) -> Result<(), Contradiction> {
        let last_seen = time.minus(self.downtime);
        self.hand_out(id, Producer { owner: Some(Box::new(owner)), ..Producer::new(Epoch::ZERO, None, last_seen) })
    }

    fn hand_out(&mut self, id: ProducerId, producer: Producer) -> Result<(), Contradiction> {
        if id.get() < self.next_id {
            return Err(Contradiction("a producer id is handed out twice"));
        }
        self.next_id = id.get().checked_add(1).ok_or(Contradiction("producer ids overflow"))?;
        self.insert(id, producer)
    }

    pub(super) fn restore_owner(&mut self, id: ProducerId, owner: OwnerHash) -> Result<(), Contradiction> {
        self.change(id, |producer| {
            producer.owner = Some(Box::new(owner));
            Ok(())
        })
    }

    pub(super) fn append(&mut self, tag: Tag, append: &Append, time: Timestamp) -> Result<(), Contradiction> {
        let last_seen = time.minus(self.downtime);
        self.change(tag.producer, |producer| {
            producer.last_seen = last_seen;
            producer.append(tag, append, time)
        })
    }

    pub(super) fn seen(&mut self, id: ProducerId, time: Timestamp) -> Result<(), Contradiction> {
        let last_seen = time.minus(self.downtime);
        self.change(id, |producer| {
            producer.last_seen = last_seen;
            Ok(())
        })
    }

    pub(super) fn expire(&mut self, id: ProducerId) -> Result<(), Contradiction> {
        if is_on(Defect::WindowsExpire) {
            return self.change(id, |producer| {
                producer.windows = Box::default();
                Ok(())
            });
        }
        let gone = self.by_id.remove(id).ok_or(Contradiction("a producer expires that is not known"))?;
        self.size -= gone.size();
        Ok(())
    }

    /// Forgets what was written to deleted partitions, and leaves a closed marker where it was of the current epoch (R12).
    pub(super) fn close(&mut self, deleted: &[(PartitionId, TopicPartition)]) {
        let (Some((first, _)), Some((last, _))) = (deleted.first(), deleted.last()) else { return };
        for producer in self.by_id.values_mut() {
            self.size -= producer.size();
            let (epoch, mut closed) = (producer.epoch, Vec::new());
            producer.keep_windows(|(id, window)| {
                if id < first || id > last {
                    return true;
                }
                if window.epoch() == epoch && !is_on(Defect::NoClosedMarkers) {
                    let at = usize::try_from(id.0 - first.0).expect("a u32 fits");
                    closed.push(deleted[at].1.clone());
                }
                false
            });
            closed.into_iter().for_each(|partition| producer.close(partition));
            self.size += producer.size();
        }
    }

    /// Producers not heard of for `expiration`, at most `most` of them, by id.
    pub(super) fn expired(&self, expiration: Duration, now: Timestamp, most: usize) -> Vec<ProducerId> {
        let now = now.minus(self.downtime);
        let is_expired = |producer: &Producer| now.since(producer.last_seen) >= expiration;
        self.by_id.iter().filter(|(_, producer)| is_expired(producer)).map(|(id, _)| id).take(most).collect()
    }

    fn change(
        &mut self,
        id: ProducerId,
        change: impl FnOnce(&mut Producer) -> Result<(), Contradiction>,
    ) -> Result<(), Contradiction> {
        let producer = self.by_id.get_mut(id).ok_or(Contradiction("a producer that is not known"))?;
        self.size -= producer.size();
        let result = change(producer);
        self.size += producer.size();
        result
    }
}

/// The expected sequence of a window that may not be there (S2).
pub(super) fn expected(window: Option<&Window>) -> Sequence {
    window.map_or(Sequence::ZERO, Window::next)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a window of one batch, 144 bytes in the memory of each of two copies: below the 300 that a known producer may take.
    #[test]
    fn a_producer_has_56_bytes_beside_its_windows() {
        assert_eq!(size_of::<Producer>(), 56);
        assert_eq!(size_of::<(PartitionId, Window)>(), 40);
        assert_eq!(size_of::<Slot>(), 24);
    }
}

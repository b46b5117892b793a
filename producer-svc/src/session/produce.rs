//! Which batches leave in which call.
//!
//! A call carries at most one batch of a partition, of many partitions, resends first, up to `max.request.size`. A batch gets
//! its tag here, when it is first handed over, and not before: what was never handed over is certainly not in the log.

use oncelog_proto::{ErrorCode, Fault, RecordCount, Tag};

use super::{
    Action, OutgoingBatch, ProduceCall, Session,
    calls::{Call, Carried},
    lane::Next,
    schedule::LaneId,
    sends::BatchOutcome,
};
use crate::accumulator::Batch;

/// Most batches of a call, as the contract has it.
const MAX_BATCHES_PER_CALL: usize = 10_000;

/// Bytes of a batch on the wire beside its data and its topic's name, at most: its numbers and the framing around them.
const BATCH_OVERHEAD: usize = 96;

/// A call that is being loaded.
#[derive(Default)]
struct Load {
    batches: Vec<OutgoingBatch>,
    carried: Vec<Carried>,
    bytes: usize,
    /// The smallest company that one of its batches accepts; none if all accept any.
    company: Option<usize>,
}

impl Load {
    /// Is there room for a batch of so many bytes that accepts this company? The first one always fits.
    fn takes(&self, bytes: usize, company: usize, limit: usize) -> bool {
        let count = self.batches.len() + 1;
        let company = self.company.map_or(company, |smallest| smallest.min(company));
        count == 1 || (count <= company.min(MAX_BATCHES_PER_CALL) && self.bytes + bytes <= limit)
    }

    fn add(&mut self, batch: OutgoingBatch, carried: Carried, bytes: usize, company: usize) {
        self.batches.push(batch);
        self.carried.push(carried);
        self.bytes += bytes;
        self.company = Some(self.company.map_or(company, |smallest| smallest.min(company)));
    }
}

impl Session {
    /// Makes as many calls as there is something to send and room for.
    pub(super) fn produce(&mut self) {
        while self.handshake.may_produce() && self.calls.room() > 0 {
            let load = self.load();
            if load.batches.is_empty() {
                return;
            }
            let Load { batches, carried, bytes, company: _ } = load;
            let call = self.calls.start(Call { incarnation: self.handshake.incarnation(), batches: carried, bytes });
            let timeout = self.config.request_timeout;
            self.actions.push_back(Action::Produce(ProduceCall { call, batches, timeout }));
        }
    }

    /// Lets the partitions put their batches into the next call, each in its turn, until one does not fit.
    fn load(&mut self) -> Load {
        let mut load = Load::default();
        while let Some(id) = self.schedule.first_ready() {
            if self.cut_to_size(id) {
                continue;
            }
            if !self.put_into(&mut load, id) {
                break;
            }
            // Out of the queue, so that it gets no second batch in; it takes its next turn after the call is full.
            self.schedule.set_ready(id, None);
        }
        for carried in &load.carried {
            self.reschedule(carried.lane);
        }
        load
    }

    /// Puts the next batch of a partition into the call. False if it does not fit.
    fn put_into(&mut self, load: &mut Load, id: LaneId) -> bool {
        let (call, limit, ready) = (self.calls.next_id(), self.config.max_request_size, self.ready_rule());
        let incarnation = self.handshake.incarnation();
        let Some(lane) = self.lanes.get_mut(id) else { return true };
        let overhead = BATCH_OVERHEAD + lane.partition.topic.as_str().len();
        let bytes = |batch: &Batch| batch.packed().data().len() + overhead;
        let (base, bytes, company) = match lane.next(self.now, ready) {
            Next::Resend(base) => {
                let slot = lane.window.slot_mut(base).expect("the window named it");
                let (bytes, company) = (slot.batch().map_or(0, bytes), slot.company);
                if !load.takes(bytes, company, limit) {
                    return false;
                }
                slot.hand_over(call);
                self.counts.resends += 1;
                (base, bytes, company)
            }
            Next::New => {
                let bytes = lane.accumulator.front().map_or(0, bytes);
                if !load.takes(bytes, usize::MAX, limit) {
                    return false;
                }
                let batch = lane.accumulator.take().expect("the queue has a batch");
                self.counts.batches += 1;
                (lane.window.tag(batch, call), bytes, usize::MAX)
            }
            Next::At(_) | Next::Nothing => {
                self.reschedule(id);
                return true;
            }
        };
        let packed = lane.window.batch(base).expect("just handed over").packed().clone();
        let tag = incarnation.map(|i| Tag { producer: i.producer, epoch: i.epoch, base });
        let carried = Carried { lane: id, base, floor: lane.window.floor() };
        load.add(OutgoingBatch { partition: lane.partition.clone(), tag, packed }, carried, bytes, company);
        true
    }

    /// Splits the first batch of a queue, or refuses it, if the broker has said that it takes none so large. True if it did.
    /// Doing it here costs nothing; hearing the refusal would cost a recovery.
    fn cut_to_size(&mut self, id: LaneId) -> bool {
        let (compression, ready) = (self.config.compression, self.ready_rule());
        let (Some(limit), Some(lane)) = (self.max_batch_bytes, self.lanes.get_mut(id)) else { return false };
        if lane.next(self.now, ready) != Next::New
            || lane.accumulator.front().is_none_or(|batch| batch.packed().data().len() <= limit)
        {
            return false;
        }
        let batch = lane.accumulator.take().expect("just looked at");
        if batch.record_count() > RecordCount::MIN {
            let [left, right] = batch.split(compression);
            lane.accumulator.put_back(right);
            lane.accumulator.put_back(left);
        } else {
            let len = batch.packed().data().len();
            let message = format!("the record has {len} bytes as sent; the broker takes at most {limit}. Send a smaller one");
            self.conclude(id, &batch, &BatchOutcome::Refused(Fault::new(ErrorCode::MessageTooLarge, message).into()));
        }
        self.reschedule(id);
        true
    }
}

#[cfg(test)]
mod tests {
    use oncelog_proto::{Compression, PackedBatch, PartitionIndex, Sequence, TopicName, TopicPartition};

    use super::*;

    fn loaded(batches: usize, bytes: usize, company: usize) -> Load {
        let partition = TopicPartition {
            topic: TopicName::parse("t").expect("valid"),
            partition: PartitionIndex::new(0).expect("not negative"),
        };
        let packed = PackedBatch::pack(&vec![0].into(), RecordCount::MIN, Compression::None).expect("small");
        let mut load = Load::default();
        for _ in 0..batches {
            let carried = Carried { lane: LaneId(0), base: Sequence::ZERO, floor: Sequence::ZERO };
            load.add(OutgoingBatch { partition: partition.clone(), tag: None, packed: packed.clone() }, carried, bytes, company);
        }
        load
    }

    #[test]
    fn a_call_has_at_most_ten_thousand_batches() {
        assert!(loaded(MAX_BATCHES_PER_CALL - 1, 0, usize::MAX).takes(0, usize::MAX, 0));
        assert!(!loaded(MAX_BATCHES_PER_CALL, 0, usize::MAX).takes(0, usize::MAX, 0));
    }

    #[test]
    fn the_first_batch_always_fits_and_the_next_up_to_the_limit() {
        assert!(loaded(0, 0, usize::MAX).takes(11, 1, 10));
        assert!(loaded(1, 6, usize::MAX).takes(4, usize::MAX, 10));
        assert!(!loaded(1, 6, usize::MAX).takes(5, usize::MAX, 10));
    }

    #[test]
    fn the_smallest_company_counts_whoever_asks_for_it() {
        assert!(loaded(1, 0, usize::MAX).takes(0, 2, 10));
        assert!(!loaded(2, 0, usize::MAX).takes(0, 2, 10));
        assert!(loaded(1, 0, 2).takes(0, usize::MAX, 10));
        assert!(!loaded(2, 0, 2).takes(0, usize::MAX, 10));
    }
}

//! What waited too long: a batch lives for `delivery.timeout.ms` from its creation, tagged or not.

use oncelog_proto::{ErrorCode, Fault, Monotonic, Sequence};

use super::{Session, schedule::LaneId, sends::BatchOutcome, slot::Slot};
use crate::accumulator::Batch;

impl Session {
    /// Looks after every partition whose wake-up has come: batches that waited too long, pauses that are over, lingering that
    /// has ended.
    pub(super) fn elapse(&mut self) {
        while let Some(id) = self.schedule.due(self.now) {
            self.expire_late(id);
            self.reschedule(id);
        }
    }

    fn expire_late(&mut self, id: LaneId) {
        let (now, timeout) = (self.now, self.config.delivery_timeout);
        let is_late = |created: Monotonic| created.plus(timeout) <= now;
        let waited = move || {
            let message = format!(
                "not appended within delivery.timeout.ms={}: the broker was away or overloaded, or the linger too long. The records \
                 are certainly not in the log; send them again",
                timeout.as_millis()
            );
            Fault::new(ErrorCode::RequestTimedOut, message)
        };
        let Some(lane) = self.lanes.get(id) else { return };
        let late = |batch: &Batch| is_late(batch.created());
        let bases: Vec<Sequence> = lane.window.slots().filter(|slot| slot.batch().is_some_and(late)).map(Slot::base).collect();
        for base in bases {
            self.expire(id, base, waited);
        }
        while let Some(lane) = self.lanes.get_mut(id) {
            lane.window.slide();
            if !lane.accumulator.oldest().is_some_and(is_late) {
                break;
            }
            let batch = lane.accumulator.take().expect("it has an oldest batch");
            self.conclude(id, &batch, &BatchOutcome::Refused(waited().into()));
        }
    }
}

//! Whose turn it is, and when to look again.
//!
//! Partitions with something to send take turns (C12): who was served goes to the end. Those with something to send again go
//! before all others. Everything else has at most one wake-up; it may be early, never late.

use std::{
    collections::BTreeSet,
    hash::{Hash, Hasher},
};

use oncelog_proto::Monotonic;

use super::digest::Moment;

/// Names a partition within a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneId(pub(super) usize);

/// What a partition has to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Urgency {
    /// A batch that was sent before.
    Resend,
    /// A batch that has no tag yet.
    New,
}

/// The order in which partitions are served, and their wake-ups.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    ready: BTreeSet<(Urgency, u64, LaneId)>,
    wakeups: BTreeSet<(Monotonic, LaneId)>,
    places: Vec<Place>,
    turns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    ready: Option<(Urgency, u64)>,
    wakeup: Option<Monotonic>,
}

impl Schedule {
    /// Queues a partition, or takes it out of the queue. One that is queued keeps its turn.
    pub(super) fn set_ready(&mut self, lane: LaneId, urgency: Option<Urgency>) {
        let place = place(&mut self.places, lane);
        if place.ready.map(|(urgency, _)| urgency) == urgency {
            return;
        }
        if let Some((urgency, turn)) = place.ready.take() {
            self.ready.remove(&(urgency, turn, lane));
        }
        if let Some(urgency) = urgency {
            self.turns += 1;
            place.ready = Some((urgency, self.turns));
            self.ready.insert((urgency, self.turns, lane));
        }
    }

    /// Whose turn it is.
    pub(super) fn first_ready(&self) -> Option<LaneId> {
        self.ready.first().map(|(_, _, lane)| *lane)
    }

    /// Looks at a partition again at `at`, or earlier if that was wished before.
    pub(super) fn wake_by(&mut self, lane: LaneId, at: Monotonic) {
        let place = place(&mut self.places, lane);
        if place.wakeup.is_some_and(|earlier| earlier <= at) {
            return;
        }
        if let Some(later) = place.wakeup.replace(at) {
            self.wakeups.remove(&(later, lane));
        }
        self.wakeups.insert((at, lane));
    }

    /// Takes the next partition whose wake-up has come.
    pub(super) fn due(&mut self, now: Monotonic) -> Option<LaneId> {
        let (at, lane) = *self.wakeups.first()?;
        if at > now {
            return None;
        }
        self.wakeups.pop_first();
        place(&mut self.places, lane).wakeup = None;
        Some(lane)
    }

    /// When the first wake-up comes.
    pub(super) fn next_wakeup(&self) -> Option<Monotonic> {
        self.wakeups.first().map(|(at, _)| *at)
    }

    /// What decides its future: the order of the turns, and how far the wake-ups are.
    pub(super) fn digest(&self, moment: Moment<'_>, into: &mut impl Hasher) {
        self.ready.len().hash(into);
        self.ready.iter().for_each(|(urgency, _, lane)| (urgency, lane).hash(into));
        self.wakeups.len().hash(into);
        self.wakeups.iter().for_each(|(at, lane)| (moment.until(*at), lane).hash(into));
    }
}

fn place(places: &mut Vec<Place>, lane: LaneId) -> &mut Place {
    if places.len() <= lane.0 {
        places.resize(lane.0 + 1, Place::default());
    }
    &mut places[lane.0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(schedule: &mut Schedule) -> Vec<usize> {
        std::iter::from_fn(|| {
            let lane = schedule.first_ready()?;
            schedule.set_ready(lane, None);
            Some(lane.0)
        })
        .collect()
    }

    #[test]
    fn partitions_take_turns_and_resends_go_first() {
        let mut schedule = Schedule::default();
        for lane in [2, 0, 1] {
            schedule.set_ready(LaneId(lane), Some(Urgency::New));
        }
        schedule.set_ready(LaneId(2), None);
        schedule.set_ready(LaneId(2), Some(Urgency::New));
        schedule.set_ready(LaneId(0), Some(Urgency::New));
        schedule.set_ready(LaneId(3), Some(Urgency::Resend));
        assert_eq!(served(&mut schedule), [3, 0, 1, 2]);
    }

    #[test]
    fn the_earliest_wakeup_counts() {
        let at = Monotonic::from_micros;
        let mut schedule = Schedule::default();
        schedule.wake_by(LaneId(0), at(9));
        schedule.wake_by(LaneId(0), at(5));
        schedule.wake_by(LaneId(0), at(7));
        schedule.wake_by(LaneId(1), at(6));
        assert_eq!(schedule.next_wakeup(), Some(at(5)));
        assert_eq!(schedule.due(at(4)), None);
        assert_eq!((schedule.due(at(6)), schedule.due(at(6)), schedule.due(at(6))), (Some(LaneId(0)), Some(LaneId(1)), None));
        assert_eq!(schedule.next_wakeup(), None);
    }
}

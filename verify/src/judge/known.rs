//! What was known of a producer's place in a partition, from acknowledgements, and when. Whatever the broker says later has to be
//! at least that, above all after it was killed (I5).

use std::collections::HashMap;

use crate::history::Producer;

/// The lowest next sequence that answers allow, by producer's epoch and partition.
#[derive(Debug, Default)]
pub(super) struct Known {
    next: HashMap<(Producer, usize), Bound>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bound {
    next: i64,
    /// What it was when the life began in which it last grew.
    at_start: i64,
    life: u32,
}

impl Known {
    /// An acknowledgement was heard in this life of the broker.
    pub(super) fn grow(&mut self, producer: Producer, partition: usize, next: i64, life: u32) {
        let bound = self.next.entry((producer, partition)).or_default();
        if bound.life != life {
            (bound.life, bound.at_start) = (life, bound.next);
        }
        bound.next = bound.next.max(next);
    }

    /// As of now.
    pub(super) fn next(&self, producer: Producer, partition: usize) -> i64 {
        self.next.get(&(producer, partition)).map_or(0, |bound| bound.next)
    }

    /// As of the beginning of this life of the broker.
    pub(super) fn next_at_start(&self, producer: Producer, partition: usize, life: u32) -> i64 {
        let bound = self.next.get(&(producer, partition));
        bound.map_or(0, |bound| if bound.life == life { bound.at_start } else { bound.next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_at_the_start_of_a_life_does_not_grow_within_it() {
        let mut known = Known::default();
        let producer = Producer { id: 1, epoch: 0 };
        known.grow(producer, 0, 5, 0);
        assert_eq!((known.next(producer, 0), known.next_at_start(producer, 0, 0)), (5, 0));
        assert_eq!(known.next_at_start(producer, 0, 1), 5);
        known.grow(producer, 0, 9, 1);
        known.grow(producer, 0, 7, 1);
        assert_eq!((known.next(producer, 0), known.next_at_start(producer, 0, 1)), (9, 5));
    }
}

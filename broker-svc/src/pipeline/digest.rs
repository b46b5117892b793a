//! When two machines are alike: equal digests, equal futures.
//!
//! A model checker has to see that two ways lead to the same place. So the digest leaves out what only gives names or measures
//! the past: a call is told by what it waits for, a deadline is its place among the others.
//!
//! What it takes for granted:
//! - The machines that are compared have the same options, and a wall clock that stands still except for leaps: then the times of
//!   groups that are still to come are alike.
//! - No two batches begin to wait at the same instant unless they came in one call.

use std::hash::{Hash, Hasher};

use super::Pipeline;

impl<R> Pipeline<R> {
    /// Feeds `into` everything that decides what the machine will do when something happens to it, and nothing else. `name` tells
    /// who hears an answer; none if nobody does.
    ///
    /// # Panics
    /// Not every output was polled.
    pub fn digest<H: Hasher>(&self, name: impl Fn(&R) -> Option<u64>, into: &mut H) {
        assert!(self.outputs.is_empty(), "what is to leave is no part of the digest");
        self.state.to_chunks().hash(into);
        self.room.hash(into);
        self.drafts.len().hash(into);
        self.drafts.iter().for_each(|draft| draft.digest(&name, into));
        self.writing.is_some().hash(into);
        if let Some(writing) = &self.writing {
            writing.digest(&name, into);
        }
        // A call waits only for batches in the hold, so the hold names them all: by their places in it.
        let mut waiting = Vec::new();
        self.hold.digest(into, |batch, into| {
            let place = waiting.iter().position(|call| *call == batch.call).unwrap_or_else(|| {
                waiting.push(batch.call);
                waiting.len() - 1
            });
            (place, batch.index, &batch.arrival).hash(into);
        });
        for call in waiting {
            self.calls[&call].digest(&name, into);
        }
    }
}

//! What has to be known of a history before it is judged: when topics were deleted.
//!
//! A record that was acknowledged before its topic went is not in the log of the new topic of that name, and that is right. Where
//! a call and a deletion overlap, nobody can tell which came first, and nothing is claimed.

use std::collections::HashMap;

use crate::{
    history::{CallId, Event},
    history_file::{History, HistoryError},
};

/// When topics were deleted.
#[derive(Debug, Default)]
pub(super) struct Outline {
    deletions: HashMap<String, Deletions>,
}

#[derive(Debug, Default)]
struct Deletions {
    /// Line of the last call that deleted it.
    last_done: u64,
    /// Line at which the last deletion, done or maybe done, had ended.
    last_ended: u64,
}

/// How a claim about a topic stands to the topic that is there in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It speaks of that topic.
    Current,
    /// Nobody can tell.
    Doubtful,
    /// It speaks of one that was deleted.
    Gone,
}

impl Outline {
    pub(super) fn of(history: &(impl History + ?Sized)) -> Result<Self, HistoryError> {
        let mut outline = Self::default();
        let mut open: HashMap<CallId, (String, u64)> = HashMap::new();
        for (number, line) in (1..).zip(history.lines()?) {
            match line?.event {
                Event::DeleteCalled { call, topic } => {
                    open.insert(call, (topic, number));
                }
                Event::DeleteAnswered { call, done } => {
                    let (topic, called) =
                        open.remove(&call).ok_or_else(|| HistoryError::line(number, format!("call {} was not made", call.0)))?;
                    let deletions = outline.deletions.entry(topic).or_default();
                    deletions.last_ended = number;
                    if done {
                        deletions.last_done = deletions.last_done.max(called);
                    }
                }
                _ => {}
            }
        }
        for (topic, _) in open.into_values() {
            // It may still be carried out, at any time.
            outline.deletions.entry(topic).or_default().last_ended = u64::MAX;
        }
        Ok(outline)
    }

    /// Of a call that was made in the line `called` and answered in `answered`.
    pub(super) fn standing(&self, topic: &str, called: u64, answered: u64) -> Standing {
        match self.deletions.get(topic) {
            None => Standing::Current,
            Some(deletions) if called > deletions.last_ended => Standing::Current,
            Some(deletions) if answered < deletions.last_done => Standing::Gone,
            Some(_) => Standing::Doubtful,
        }
    }

    pub(super) fn was_deleted(&self, topic: &str) -> bool {
        self.deletions.contains_key(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Line;

    fn outline(events: Vec<Event>) -> Outline {
        let lines: Vec<_> = events.into_iter().map(|event| Line { at: 0, event }).collect();
        Outline::of(&lines).expect("a history")
    }

    fn called(call: u64) -> Event {
        Event::DeleteCalled { call: CallId(call), topic: "t".into() }
    }

    #[test]
    fn a_call_before_a_deletion_speaks_of_what_is_gone_and_one_beside_it_of_nobody_knows_what() {
        let answered = Event::DeleteAnswered { call: CallId(1), done: true };
        let outline = outline(vec![Event::BrokerStarted, Event::BrokerStarted, called(1), Event::BrokerStarted, answered]);
        assert_eq!(outline.standing("t", 1, 2), Standing::Gone);
        assert_eq!(outline.standing("t", 1, 4), Standing::Doubtful);
        assert_eq!(outline.standing("t", 4, 6), Standing::Doubtful);
        assert_eq!(outline.standing("t", 6, 7), Standing::Current);
        assert_eq!(outline.standing("other", 1, 2), Standing::Current);
    }

    #[test]
    fn a_deletion_that_may_not_have_been_done_proves_nothing() {
        let failed = outline(vec![called(1), Event::DeleteAnswered { call: CallId(1), done: false }]);
        assert_eq!(failed.standing("t", 0, 0), Standing::Doubtful);
        assert_eq!(failed.standing("t", 3, 4), Standing::Current);
        assert_eq!(outline(vec![called(1)]).standing("t", 3, 4), Standing::Doubtful);
    }
}

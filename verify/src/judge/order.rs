//! Judges the order of `Send`: the records of a call stand in their order in each partition, and behind what their caller sent
//! and had answered before. In a stream, behind all that it sent before. Concurrent calls may stand either way.

use std::collections::{HashMap, VecDeque};

use super::{Moment, ground::Ground};
use crate::{
    history::{CallerId, SendCalled},
    report::{Evidence, Report, Rule},
};

/// How far each caller has come.
#[derive(Debug, Default)]
pub(super) struct Orders {
    orders: HashMap<(CallerId, usize), Order>,
    /// Lines of the calls of a caller that are not answered yet, oldest first.
    open: HashMap<CallerId, VecDeque<u64>>,
}

/// How far a caller has come in a partition.
#[derive(Debug, Default)]
struct Order {
    /// Line of an answer, and the highest offset that was acknowledged until then.
    marks: VecDeque<(u64, i64)>,
}

impl Order {
    /// The highest offset that was acknowledged before the line.
    fn before(&self, line: u64) -> Option<(u64, i64)> {
        self.marks.iter().rev().find(|(answered, _)| *answered < line).copied()
    }

    /// Notes an offset; forgets what no call can ask for any more, because all that are open were made after `oldest_open`.
    fn note(&mut self, line: u64, offset: i64, oldest_open: u64) {
        while self.marks.len() > 1 && self.marks[1].0 < oldest_open {
            self.marks.pop_front();
        }
        let highest = self.marks.back().map_or(offset, |(_, highest)| offset.max(*highest));
        match self.marks.back_mut() {
            Some(mark) if mark.0 == line => mark.1 = highest,
            _ => self.marks.push_back((line, highest)),
        }
    }
}

impl Orders {
    /// A call is made in this line.
    pub(super) fn called(&mut self, caller: CallerId, line: u64) {
        self.open.entry(caller).or_default().push_back(line);
    }

    /// Its answer says where its records are, by partition and offset, in the order of the call.
    pub(super) fn answered(
        &mut self,
        ground: &Ground<'_>,
        send: &SendCalled,
        called: u64,
        placed: &[(usize, i64)],
        now: Moment,
        report: &mut Report,
    ) {
        let open = self.open.entry(send.caller).or_default();
        if let Ok(at) = open.binary_search(&called) {
            open.remove(at);
        }
        let oldest_open = open.front().copied().unwrap_or(now.line);
        let mut within: HashMap<usize, i64> = HashMap::new();
        for (index, offset) in placed {
            let order = self.orders.entry((send.caller, *index)).or_default();
            let record = |offset| Evidence::Record { partition: ground.partition(*index).name().clone(), offset };
            let before = if send.streamed { order.before(now.line) } else { order.before(called) };
            if let Some(before) = within.insert(*index, *offset).filter(|before| before >= offset) {
                let what = format!("records of one Send stand at {before} and then at {offset}");
                report.accuse(Rule::Order, what, vec![Evidence::Line(called), record(before), record(*offset)]);
            } else if let Some((earlier, before)) = before.filter(|(_, before)| before >= offset) {
                let what =
                    format!("what caller {} sent later stands at {offset}, what it sent before at {before}", send.caller.0);
                let evidence = vec![Evidence::Line(earlier), Evidence::Line(called), record(before), record(*offset)];
                report.accuse(Rule::Order, what, evidence);
            }
        }
        for (index, offset) in placed {
            self.orders.entry((send.caller, *index)).or_default().note(now.line, *offset, oldest_open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_that_no_open_call_can_ask_for_are_forgotten() {
        let mut order = Order::default();
        for line in 1..=100 {
            order.note(line, i64::try_from(line).expect("small"), line);
        }
        assert!(order.marks.len() <= 2, "{order:?}");
        assert_eq!(order.before(100), Some((99, 99)));
        for line in 101..=110 {
            order.note(line, i64::try_from(line).expect("small"), 100);
        }
        assert_eq!(order.before(101), Some((100, 100)), "a call of line 101 is still open");
    }
}

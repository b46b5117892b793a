//! What fails, and when: a script is a list of rules, each of which strikes certain calls. Calls are counted as they arrive,
//! from 1.

use std::{collections::HashMap, time::Duration};

use oncelog_proto::ErrorCode;

/// Which calls a rule strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// The so-manyth `InitProducerId`.
    Init(u32),
    /// The so-manyth `Produce` or `Send`.
    Call(u32),
    /// Every `Produce` or `Send` that carries the record of this number.
    Record(u32),
    /// The first of them.
    RecordFirst(u32),
    /// All but the first.
    RecordAgain(u32),
    /// The first of them in an epoch that a recovery has raised.
    RecordRaised(u32),
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// On the way there or back.
    Way(Way),
    /// Each batch, or the whole `Send`, is refused with this code; nothing is carried out.
    Refuse(ErrorCode),
    /// The call as a whole fails with the status of this code; nothing is carried out.
    Fail(ErrorCode),
    /// It is carried out, and answered without a result for its batches.
    NoResult,
    /// It is carried out, and the result of each batch is empty.
    NoOutcome,
    /// Half of a `Send` is carried out. Its failure says so, says that the record behind is refused, and nothing of the rest.
    InPart(Where),
    /// The answer to a recovery leaves out the last batch that was acknowledged, as if the log had lost it.
    TellLess,
    /// From here on, the epoch of this call is fenced, as after the deletion of a topic.
    Fence,
    /// Before it is carried out, another process recovers the producer id.
    TakeOver,
    /// From here on, the producer id of this call is unknown, as if it had expired.
    Forget,
    /// The service behind is killed before the call reaches it, and started again.
    Kill,
}

/// Does a failed `Send` say where its records are?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    /// By the offset of the first.
    Told,
    /// It says -1.
    Forgotten,
}

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is carried out; then the connection seems to break.
    LoseAnswer,
    /// The connection seems to break; it is not carried out.
    LoseCall,
    /// It is carried out and never answered.
    Silence,
    /// The connection seems to break; it is carried out so much later.
    Stray(Duration),
    /// It is carried out so much later, and answered.
    Slow(Duration),
    /// It is carried out, and answered so much later.
    SlowAnswer(Duration),
}

/// Which rules there are, which have struck, and how many calls there were.
#[derive(Debug)]
pub(crate) struct Script {
    rules: Vec<(On, Fault, bool)>,
    inits: u32,
    calls: u32,
    /// How many calls carried a record.
    records: HashMap<u32, u32>,
    /// And how many of them in an epoch that was raised.
    raised: HashMap<u32, u32>,
}

impl Script {
    pub(crate) fn new(rules: &[(On, Fault)]) -> Self {
        let rules = rules.iter().map(|(on, fault)| (*on, *fault, false)).collect();
        Self { rules, inits: 0, calls: 0, records: HashMap::new(), raised: HashMap::new() }
    }

    /// What happens to the `InitProducerId` that has just arrived.
    pub(crate) fn init(&mut self) -> Vec<Fault> {
        self.inits += 1;
        let number = self.inits;
        self.strike(|on| on == On::Init(number))
    }

    /// What happens to the `Produce` or `Send` that has just arrived with these records, in an epoch that was raised or not.
    pub(crate) fn call(&mut self, records: &[u32], is_raised: bool) -> Vec<Fault> {
        self.calls += 1;
        let number = self.calls;
        for record in records {
            *self.records.entry(*record).or_default() += 1;
            *self.raised.entry(*record).or_default() += u32::from(is_raised);
        }
        let (times, raised) = (self.records.clone(), self.raised.clone());
        self.strike(|on| match on {
            On::Init(_) => false,
            On::Call(call) => call == number,
            On::Record(record) => records.contains(&record),
            On::RecordFirst(record) => records.contains(&record) && times[&record] == 1,
            On::RecordAgain(record) => records.contains(&record) && times[&record] > 1,
            On::RecordRaised(record) => is_raised && records.contains(&record) && raised[&record] == 1,
        })
    }

    fn strike(&mut self, is_struck: impl Fn(On) -> bool) -> Vec<Fault> {
        let mut struck = Vec::new();
        for (_, fault, has_struck) in self.rules.iter_mut().filter(|(on, ..)| is_struck(*on)) {
            *has_struck = true;
            struck.push(*fault);
        }
        struck
    }

    /// Rules that never struck: what they are there for was not tried.
    pub(crate) fn left_over(&self) -> impl Iterator<Item = (On, Fault)> {
        self.rules.iter().filter(|(.., has_struck)| !has_struck).map(|(on, fault, _)| (*on, *fault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_the_calls_of_a_record_are_counted_apart() {
        let lose = Fault::Way(Way::LoseAnswer);
        let mut script = Script::new(&[
            (On::Call(2), Fault::Fence),
            (On::RecordFirst(3), lose),
            (On::RecordAgain(3), Fault::Forget),
            (On::RecordRaised(4), Fault::Kill),
            (On::Init(1), Fault::Kill),
        ]);
        assert_eq!(script.call(&[1, 2], false), []);
        assert_eq!(script.call(&[3, 4], false), [Fault::Fence, lose]);
        assert_eq!(script.left_over().count(), 3);
        assert_eq!(script.call(&[3, 4], false), [Fault::Forget]);
        assert_eq!((script.call(&[4], true), script.call(&[4], true)), (vec![Fault::Kill], Vec::new()));
        assert_eq!((script.init(), script.init()), (vec![Fault::Kill], Vec::new()));
        assert_eq!(script.left_over().count(), 0);
    }
}

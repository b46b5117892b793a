//! What a program is blamed for.

use std::fmt;

/// What a program owes the contract. The README's table says each in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Duty {
    /// At most five calls are outstanding.
    Outstanding,
    /// R1: at most five tagged batches from the lowest unresolved one on.
    Span,
    /// A batch is sent again unchanged.
    Unchanged,
    /// Sequences begin at 0 and have no gaps.
    Sequence,
    /// R9, R10: ids and epochs are those that were handed out, and a new id is asked for only when the old one is lost.
    Identity,
    /// R8: a record gets another tag only if a recovery said that it is not in the log.
    Renumbered,
    /// What may be in the log is never sent again as if it were new: under another id (R10), or by another `Send`.
    SentAgain,
    /// R5: a refused batch is not sent again before a recovery.
    Refused,
    /// R13: a repeated recovery has the token of the first one, and no two processes have the same.
    Token,
    /// A recovery has a reason.
    Recovery,
    /// Acknowledged records that are said to be gone are not passed over.
    Alarm,
    /// A `Send` has a deadline.
    Deadline,
    /// A request can be read and has what it needs.
    Request,
    /// What is told of a record is what was known.
    Claim,
    /// Records are in the log as claimed, once, in order: I1, I2.
    Log,
    /// The program ends in time, well, with a line for each record.
    Program,
    /// Everything that was to fail has failed. The program made too few calls if not.
    Exercised,
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outstanding => "outstanding",
            Self::Span => "span (R1)",
            Self::Unchanged => "unchanged",
            Self::Sequence => "sequence",
            Self::Identity => "identity (R9, R10)",
            Self::Renumbered => "renumbered (R8)",
            Self::SentAgain => "sent again",
            Self::Refused => "refused (R5)",
            Self::Token => "token (R13)",
            Self::Recovery => "recovery",
            Self::Alarm => "alarm",
            Self::Deadline => "deadline",
            Self::Request => "request",
            Self::Claim => "claim",
            Self::Log => "log",
            Self::Program => "program",
            Self::Exercised => "exercised",
        })
    }
}

/// One fault of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accusation {
    pub(crate) duty: Duty,
    /// What happened, with the values.
    pub(crate) what: String,
}

impl fmt::Display for Accusation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.duty, self.what)
    }
}

/// The first few of each duty.
#[derive(Debug, Default)]
pub(crate) struct Accusations(Vec<Accusation>);

impl Accusations {
    pub(crate) fn accuse(&mut self, duty: Duty, what: impl Into<String>) {
        if self.0.iter().filter(|accusation| accusation.duty == duty).count() < MOST_KEPT {
            self.0.push(Accusation { duty, what: what.into() });
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Accusation> {
        std::mem::take(&mut self.0)
    }
}

/// A program that does one thing wrong mostly does it with every call.
const MOST_KEPT: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_duty_does_not_hide_another() {
        let mut accusations = Accusations::default();
        for number in 0..=MOST_KEPT {
            accusations.accuse(Duty::Claim, format!("{number}"));
        }
        accusations.accuse(Duty::Log, "lost");
        let kept: Vec<_> = accusations.take().iter().map(ToString::to_string).collect();
        assert_eq!(kept, ["claim: 0", "claim: 1", "claim: 2", "claim: 3", "claim: 4", "log: lost"]);
    }
}

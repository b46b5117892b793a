//! Programs that are wrong on purpose, each in one way: what the suite has to find, and proof that it does.
//!
//! A producer and a sender that keep every duty, and at each place where somebody might break one, a defect that does. Without a
//! defect they conform, so what they are accused of with one is its doing.

mod producer;
mod sender;

use clap::ValueEnum;

use crate::accusation::Duty;
pub(crate) use {producer::produce, sender::send};

/// What is expected of the suite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Runs before, in which nothing can be found.
    pub(crate) before: &'static [&'static str],
    /// Each of these finds it.
    pub(crate) scenarios: &'static [&'static str],
    /// As this.
    pub(crate) duty: Duty,
}

/// What may be wrong with a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProducerDefect {
    /// Has six batches on their way.
    SixOutstanding,
    /// Counts what is unresolved alone, so the span grows beyond five (R1).
    CountsTheUnresolved,
    /// Gives a batch whose answer it has not heard a new sequence.
    RenumbersTheUnsure,
    /// Sends a batch again with its records in another order.
    ChangesTheUnsure,
    /// Says that what it has not heard of is unknown, and does not ask.
    GivesUpTheUnsure,
    /// Says of a batch that it is in the log, and never sends it.
    Drops,
    /// Sends the second batch before the first.
    Reorders,
    /// Uses a sequence twice.
    OverlapsSequences,
    /// Leaves the producer id out.
    LeavesOutTheTag,
    /// Sends everything in one batch: no fault strikes.
    OneBatch,
    /// Sends a fenced batch again and again.
    IgnoresFencing,
    /// Takes the next epoch from the error that fenced it (R9).
    TakesTheEpochFromTheError,
    /// Goes on under a fresh id when it is fenced, and takes along what is unsure.
    TakesAFreshIdWhenFenced,
    /// Hears answers of an epoch that is over (R6).
    HearsLateAnswers,
    /// Moves what was sent under a lost id to a fresh one (R10).
    MovesTheUnknown,
    /// Believes a refusal without a recovery (R5).
    BelievesARefusal,
    /// Sends what was refused again (R5).
    RepeatsTheRefused,
    /// Gives up what is refused for now.
    RefusesForGood,
    /// Recovers when a batch has only overtaken others.
    RecoversFromDisorder,
    /// Compares the sequence that is expected with what is known when it hears of it (R7).
    ForgetsTheFloor,
    /// Compares it with the first of the window, of whatever epoch that is (R7).
    KeepsAnOldFloor,
    /// Repeats a recovery with another token (R13).
    AnotherTokenEachTime,
    /// Has the token of every other process (R13).
    OneTokenForAll,
    /// Has no deadline.
    NoDeadline,
    /// Ends when no id is handed out at once.
    DiesWithoutAnId,
    /// Says that it is in the log what was answered OK without a result.
    BelievesAnEmptyAnswer,
    /// Takes a call that is refused as a whole for one that was lost (R5).
    RepeatsTheRefusedCall,
    /// Takes a duplicate for a refusal.
    RecoversFromADuplicate,
    /// Recovers an id that somebody else writes with.
    RecoversASharedId,
    /// When its id is lost, says that what was acknowledged is unknown (I4).
    ForgetsAcknowledgements,
    /// Says of all that is in the log that nobody knows where.
    ForgetsOffsets,
    /// The same, of what a recovery told (R2).
    ForgetsTheWindow,
    /// Overlooks that what was acknowledged is gone, if a batch before it is in doubt.
    OverlooksALoss,
    /// Fails without a word of what it knows.
    FailsInSilence,
}

impl ProducerDefect {
    /// Who finds it, and as what.
    pub(crate) const fn expected(self) -> Expected {
        let (scenarios, duty): (&[&str], _) = match self {
            Self::SixOutstanding => (&["disorder"], Duty::Outstanding),
            Self::CountsTheUnresolved => (&["lost answers"], Duty::Span),
            Self::RenumbersTheUnsure => (&["lost answers"], Duty::Renumbered),
            Self::ChangesTheUnsure => (&["stray copies"], Duty::Unchanged),
            Self::GivesUpTheUnsure => (&["lost calls", "killed"], Duty::Claim),
            Self::Drops | Self::Reorders => (&["calm"], Duty::Log),
            Self::OverlapsSequences => (&["calm"], Duty::Sequence),
            Self::LeavesOutTheTag => (&["calm"], Duty::Request),
            Self::OneBatch => (&["lost answers"], Duty::Exercised),
            Self::IgnoresFencing => (&["fenced"], Duty::Program),
            Self::TakesTheEpochFromTheError | Self::TakesAFreshIdWhenFenced => (&["fenced"], Duty::Identity),
            Self::HearsLateAnswers => (&["fenced"], Duty::Recovery),
            Self::MovesTheUnknown => (&["taken over", "forgotten"], Duty::SentAgain),
            Self::BelievesARefusal => (&["a refusal is not final"], Duty::Log),
            Self::RepeatsTheRefused => (&["refused for good"], Duty::Refused),
            Self::RefusesForGood => (&["refused for now"], Duty::Claim),
            Self::RecoversFromDisorder => (&["disorder"], Duty::Recovery),
            Self::ForgetsTheFloor => (&["late news"], Duty::Recovery),
            Self::KeepsAnOldFloor => (&["after a recovery"], Duty::Recovery),
            Self::AnotherTokenEachTime => (&["fenced and unheard"], Duty::Token),
            Self::OneTokenForAll => (&["refused for good"], Duty::Token),
            Self::NoDeadline => (&["silence"], Duty::Program),
            Self::DiesWithoutAnId => (&["first answers lost"], Duty::Program),
            Self::BelievesAnEmptyAnswer => (&["empty answers"], Duty::Claim),
            Self::RepeatsTheRefusedCall => (&["refused as a whole"], Duty::Refused),
            Self::RecoversFromADuplicate => (&["forgotten where"], Duty::Recovery),
            Self::RecoversASharedId => (&["shared"], Duty::Recovery),
            Self::ForgetsAcknowledgements => (&["forgotten later"], Duty::Claim),
            Self::ForgetsOffsets => (&["calm"], Duty::Claim),
            Self::ForgetsTheWindow => (&["a refusal is not final"], Duty::Claim),
            Self::OverlooksALoss => (&["acknowledged and gone"], Duty::Alarm),
            Self::FailsInSilence => (&["acknowledged and gone"], Duty::Claim),
        };
        let before: &[&str] = if matches!(self, Self::OneTokenForAll) { &["fenced"] } else { &[] };
        Expected { before, scenarios, duty }
    }
}

/// What may be wrong with a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SenderDefect {
    /// Sends again what was not answered.
    RepeatsTheUnsure,
    /// Says that what was not answered is refused.
    RefusesTheUnsure,
    /// Believes a code without a `SendFailure`.
    BelievesTheCode,
    /// Says that a `Send` which failed is unknown as a whole.
    ForgetsTheFailure,
    /// Has no deadline.
    NoDeadline,
    /// Counts on from an offset of -1, which is none.
    CountsFromNowhere,
    /// Says of all that is in the log that nobody knows where.
    ForgetsOffsets,
}

impl SenderDefect {
    /// Who finds it, and as what.
    pub(crate) const fn expected(self) -> Expected {
        let (scenarios, duty): (&[&str], _) = match self {
            Self::RepeatsTheUnsure => (&["lost answers", "lost calls", "killed"], Duty::SentAgain),
            Self::RefusesTheUnsure => (&["silence", "stray copies"], Duty::Claim),
            Self::BelievesTheCode => (&["no word"], Duty::Claim),
            Self::ForgetsTheFailure => (&["refused for now", "refused for good", "in part"], Duty::Claim),
            Self::NoDeadline => (&["calm"], Duty::Deadline),
            Self::CountsFromNowhere => (&["in part"], Duty::Claim),
            Self::ForgetsOffsets => (&["calm"], Duty::Claim),
        };
        Expected { before: &[], scenarios, duty }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{run::Role, suite::scenarios};

    #[test]
    fn each_scenario_has_a_defect_that_it_finds() {
        let producers = ProducerDefect::value_variants().iter().flat_map(|defect| defect.expected().scenarios);
        let senders = SenderDefect::value_variants().iter().flat_map(|defect| defect.expected().scenarios);
        let (mut produced, mut sent): (Vec<_>, Vec<_>) = (producers.copied().collect(), senders.copied().collect());
        for (role, found) in [(Role::Producer, &mut produced), (Role::Sender, &mut sent)] {
            let mut all: Vec<_> = scenarios(role).iter().map(|scenario| scenario.name).collect();
            all.sort_unstable();
            found.sort_unstable();
            found.dedup();
            assert_eq!(*found, all);
        }
    }
}

//! What fails in the demo, and when. Pure: a seed in, mishaps out. First each of them once, in an order of the seed's; then by
//! chance.

use std::time::Duration;

use oncelog_chaos::dice::Dice;

/// Something that fails between the services, or one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mishap {
    /// The broker does its work, and nobody hears of it.
    AnswersLost,
    /// Whatever is on its way, in either direction, is gone.
    ConnectionsCut,
    /// SIGKILL, and a new start over what is on the disk.
    BrokerKilled,
    /// Nobody hears of the work, and the process that could remember it dies.
    AnswersLostAndBrokerKilled,
}

/// One of them, for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    /// Nothing fails before it, for so long.
    pub(super) calm: Duration,
    pub(super) mishap: Mishap,
    /// Of a broker that is killed: until it is started again.
    pub(super) lasts: Duration,
}

impl Mishap {
    pub(super) const ALL: [Self; 4] =
        [Self::AnswersLost, Self::ConnectionsCut, Self::BrokerKilled, Self::AnswersLostAndBrokerKilled];

    /// For people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::AnswersLost => "answers lost on the way back",
            Self::ConnectionsCut => "connections cut",
            Self::BrokerKilled => "broker killed (kill -9)",
            Self::AnswersLostAndBrokerKilled => "answers lost, then broker killed",
        }
    }

    /// For programs.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::AnswersLost => "answers_lost",
            Self::ConnectionsCut => "connections_cut",
            Self::BrokerKilled => "broker_killed",
            Self::AnswersLostAndBrokerKilled => "answers_lost_and_broker_killed",
        }
    }
}

/// Mishaps, one after the other, without end.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    dice: Dice,
    /// What has not had its first turn.
    first: Vec<Mishap>,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut first = Mishap::ALL.to_vec();
        dice.shuffle(&mut first);
        Self { dice, first }
    }
}

impl Iterator for Plan {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        let count = Mishap::ALL.len() as u64;
        let mishap = self.first.pop().unwrap_or_else(|| Mishap::ALL[usize::try_from(self.dice.below(count)).expect("an index")]);
        // Long enough to be seen, and for the window to fill up.
        Some(Planned { calm: self.dice.millis(400, 900), mishap, lasts: self.dice.millis(200, 450) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Whatever comes after it, something was sent again that was stored.
    #[test]
    fn the_seed_that_end_to_end_tests_use_begins_with_lost_answers() {
        let first = Plan::new(7).next().expect("a plan has no end").mishap;
        assert!([Mishap::AnswersLost, Mishap::AnswersLostAndBrokerKilled].contains(&first), "{first:?}");
    }

    #[test]
    fn a_seed_is_one_plan_and_every_mishap_has_its_turn_before_any_comes_again() {
        let plan = |seed| Plan::new(seed).take(50).collect::<Vec<_>>();
        assert_eq!(plan(3), plan(3));
        assert_ne!(plan(3), plan(4));
        let first: BTreeSet<_> = plan(3)[..Mishap::ALL.len()].iter().map(|planned| planned.mishap).collect();
        assert_eq!(first.len(), Mishap::ALL.len());
    }
}

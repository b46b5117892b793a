//! What fails next. Pure: a seed in, failures out. First each kind once, in an order of the seed's, so that a short run sees all
//! of them; then by chance.

use std::time::Duration;

use crate::{dice::Dice, moment::Moment};

/// Something that fails, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What.
    pub kind: Kind,
    /// How long it lasts, or how long a process stays down.
    pub lasts: Duration,
    /// After its moment has come, so much later: what comes after a moment cannot be seen from outside.
    pub after: Duration,
    /// How long nothing fails after it.
    pub calm: Duration,
}

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The broker is killed.
    KillBroker(Moment),
    /// The broker's answers are lost, and then it is killed: between sync and answer.
    SwallowAndKillBroker,
    /// The broker is killed, and killed again while it starts.
    KillBrokerTwice,
    /// The broker is paused, and goes on.
    PauseBroker(Moment),
    /// The broker is stopped in order.
    StopBroker,
    /// producer-svc is killed.
    KillProducer,
    /// producer-svc is paused, and goes on.
    PauseProducer,
    /// The broker's answers are lost.
    Swallow(Link),
    /// Connections are cut, and cannot be made for a while.
    Cut(Link),
    /// Everything arrives late.
    Delay(Link),
    /// The broker's disk is full.
    FillDisk,
}

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// Between producer-svc and broker-svc.
    Inner,
    /// Between callers and producer-svc.
    Callers,
    /// Between raw producers or readers and broker-svc.
    Clients,
}

impl Link {
    const fn name(self) -> &'static str {
        match self {
            Self::Inner => "between the services",
            Self::Callers => "before producer-svc",
            Self::Clients => "before broker-svc",
        }
    }
}

impl Kind {
    /// For messages.
    pub fn name(self) -> String {
        match self {
            Self::KillBroker(moment) => format!("broker killed {}", moment.name()),
            Self::SwallowAndKillBroker => "broker killed between sync and answer".to_owned(),
            Self::KillBrokerTwice => "broker killed, and again while it starts".to_owned(),
            Self::PauseBroker(moment) => format!("broker paused {}", moment.name()),
            Self::StopBroker => "broker stopped and started".to_owned(),
            Self::KillProducer => "producer killed".to_owned(),
            Self::PauseProducer => "producer paused".to_owned(),
            Self::Swallow(link) => format!("answers lost {}", link.name()),
            Self::Cut(link) => format!("network cut {}", link.name()),
            Self::Delay(link) => format!("network slow {}", link.name()),
            Self::FillDisk => "disk full".to_owned(),
        }
    }
}

/// Failures, one after the other, without end.
#[derive(Clone, Debug)]
pub struct Plan {
    dice: Dice,
    kinds: Vec<Kind>,
    /// What has not had its first turn.
    first: Vec<Kind>,
}

impl Plan {
    /// The plan of a seed. Without a disk of its own, none is filled.
    pub fn new(seed: u64, can_fill: bool) -> Self {
        let mut dice = Dice::new(seed);
        let links = [Link::Inner, Link::Callers, Link::Clients];
        let mut kinds: Vec<_> =
            [Moment::Any, Moment::Write, Moment::Roll, Moment::Snapshot, Moment::Recovery].map(Kind::KillBroker).into();
        kinds.extend([
            Kind::SwallowAndKillBroker,
            Kind::KillBrokerTwice,
            Kind::StopBroker,
            Kind::KillProducer,
            Kind::PauseProducer,
        ]);
        kinds.extend([Moment::Any, Moment::Write, Moment::Snapshot].map(Kind::PauseBroker));
        kinds.extend(links.map(Kind::Swallow));
        kinds.extend(links.map(Kind::Cut));
        kinds.extend(links.map(Kind::Delay));
        kinds.extend(can_fill.then_some(Kind::FillDisk));
        let mut first = kinds.clone();
        dice.shuffle(&mut first);
        Self { dice, kinds, first }
    }
}

impl Iterator for Plan {
    type Item = Failure;

    fn next(&mut self) -> Option<Failure> {
        let dice = &mut self.dice;
        let kind = match self.first.pop() {
            Some(kind) => kind,
            None => self.kinds[usize::try_from(dice.below(self.kinds.len() as u64)).expect("an index")],
        };
        let lasts = match kind {
            Kind::FillDisk => dice.millis(500, 2_000),
            Kind::Delay(_) => dice.millis(200, 1_000),
            Kind::KillBroker(_) | Kind::KillProducer | Kind::StopBroker => dice.millis(0, 200),
            _ => dice.millis(20, 500),
        };
        // At the moment itself, or within the two milliseconds in which a sync returns and answers leave.
        let after = if dice.once_in(2) { Duration::ZERO } else { Duration::from_micros(dice.below(2_000)) };
        Some(Failure { kind, lasts, after, calm: dice.millis(30, 250) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_is_one_plan_and_every_kind_has_its_turn_before_any_comes_again() {
        let plan = |seed| Plan::new(seed, true).take(200).collect::<Vec<_>>();
        assert_eq!(plan(3), plan(3));
        assert_ne!(plan(3), plan(4));
        let all = Plan::new(3, true).kinds.len();
        let first: BTreeSet<_> = plan(3)[..all].iter().map(|failure| failure.kind).collect();
        assert_eq!(first.len(), all);
        assert!(!Plan::new(3, false).take(200).any(|failure| failure.kind == Kind::FillDisk));
    }
}

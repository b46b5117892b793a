//! Who has to catch which defect. The simulation wherever it can, because it knows of no defect; the model and tests where they see
//! what a run rarely comes upon.

use std::fmt;

use oncelog_defects::Defect;

/// Somebody who has to catch a defect.
#[derive(Debug)]
pub(super) enum Judge {
    /// The simulation, in one of so many seeds from 1 on: about three times as many as it takes.
    Seeds(u64),
    /// A scenario of the model, within its small bounds.
    Scenario(&'static str),
    /// A test has to fail.
    Test(Test),
}

/// A test.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) package: &'static str,
    pub(super) target: &'static str,
    pub(super) name: &'static str,
}

impl fmt::Display for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seeds(most) => write!(f, "{most} seeds of the simulation"),
            Self::Scenario(scenario) => write!(f, "the model's scenario `{scenario}`"),
            Self::Test(test) => test.fmt(f),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}'s test `{}`", self.package, self.name)
    }
}

/// Each of them has to.
pub(super) fn of(defect: Defect) -> Vec<Judge> {
    match defect {
        Defect::SpanCountsUnresolved => vec![Seeds(10), Scenario("span"), session("r1_tagged_batches_span_five_from_the_lowest_unresolved_one_on")],
        _ => vec![Seeds(60)],
    }
}

fn session(name: &'static str) -> Judge {
    Judge::Test(Test { package: "producer-svc", target: "rules", name })
}

fn broker(name: &'static str) -> Judge {
    Judge::Test(Test { package: "broker-svc", target: "rules", name })
}

fn journal(name: &'static str) -> Judge {
    Judge::Test(Test { package: "broker-svc", target: "journal", name })
}

use Judge::{Scenario, Seeds};

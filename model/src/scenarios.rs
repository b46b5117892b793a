//! The bounds that are explored, by name.

use std::time::Duration;

use oncelog_proto::ErrorCode;
use tonic::Code;

use crate::bounds::{Bounds, Failures, Stranger};

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Its bounds.
    pub bounds: Bounds,
}

/// All of them.
pub fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "retries",
            about: "calls are given up and doubled, their copies live (R1, R6, R7, R8)",
            bounds: Bounds {
                sends: one_record_each(3),
                failures: Failures { give_ups: 2, doubles: 1, ..NONE },
                ..Bounds::default()
            },
        },
        Scenario {
            name: "crashes",
            about: "the broker stops at any moment, and keeps a part of what was not synced (I5, I7, R14)",
            bounds: Bounds {
                sends: one_record_each(2),
                failures: Failures { give_ups: 1, crashes: 2, ..NONE },
                ..Bounds::default()
            },
        },
    ]
}

const NONE: Failures = Failures { give_ups: 0, doubles: 0, crashes: 0, lowered: 0, kills: 0, refusals: 0, statuses: 0 };

/// `Send`s of one record to partition 0.
fn one_record_each(sends: usize) -> Vec<Vec<i32>> {
    vec![vec![0]; sends]
}

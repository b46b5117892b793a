//! The bounds that are explored, by name: small ones for every change, larger ones for a machine with time.

use std::time::Duration;

use oncelog_proto::ErrorCode;
use tonic::Code;

use crate::bounds::{Bounds, Failures, Stranger};

/// What is explored under one name.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Explored by the tests.
    pub small: Bounds,
    /// Explored by the command.
    pub large: Bounds,
}

/// All of them.
pub fn all() -> Vec<Scenario> {
    vec![
        retries(),
        span(),
        crashes(),
        kills(),
        strangers(),
        hold_limit(),
        refusals(),
        too_large(),
        statuses(),
        pauses(),
        deadlines(),
        partitions(),
    ]
}

fn retries() -> Scenario {
    let small = Bounds { sends: alone(3), failures: Failures { give_ups: 2, ..NONE }, ..Bounds::default() };
    let failures = Failures { give_ups: 3, doubles: 1, ..NONE };
    let large = Bounds { sends: alone(3), failures, ..small.clone() };
    Scenario { name: "retries", about: "calls are given up and doubled, and their copies live (R6, R7, R8)", small, large }
}

fn span() -> Scenario {
    let small = Bounds { sends: alone(7), max_in_flight: 2, failures: Failures { give_ups: 1, ..NONE }, ..Bounds::default() };
    let large = Bounds { max_in_flight: 3, failures: Failures { give_ups: 2, ..NONE }, ..small.clone() };
    Scenario {
        name: "span",
        about: "more batches than the broker remembers overtake one whose call was given up (R1)",
        small,
        large,
    }
}

fn crashes() -> Scenario {
    let small = Bounds { sends: alone(2), failures: Failures { give_ups: 1, crashes: 2, ..NONE }, ..Bounds::default() };
    let large = Bounds { sends: alone(3), failures: Failures { give_ups: 2, crashes: 2, ..NONE }, ..small.clone() };
    let about = "the broker stops at any moment, and keeps a part of what was not synced (I5, I7, R14)";
    Scenario { name: "crashes", about, small, large }
}

fn kills() -> Scenario {
    let small =
        Bounds { sends: alone(3), max_in_flight: 2, failures: Failures { kills: 1, crashes: 1, ..NONE }, ..Bounds::default() };
    let large = Bounds { failures: Failures { kills: 2, crashes: 1, give_ups: 1, ..NONE }, ..small.clone() };
    Scenario { name: "kills", about: "the producer process stops, its calls live, and another process starts", small, large }
}

fn strangers() -> Scenario {
    let produce = |epoch, base, records: &[u8]| Stranger::Produce { epoch, base, records: records.to_vec() };
    let small = Bounds {
        strangers: vec![
            produce(0, 0, &[0]),
            produce(0, 0, &[0, 1]),
            produce(0, 1, &[1, 2]),
            produce(0, 2, &[2]),
            Stranger::Recover { epoch: 0, token: "a" },
            produce(1, 0, &[10]),
        ],
        failures: Failures { doubles: 1, crashes: 1, ..NONE },
        ..Bounds::default()
    };
    let mut large = small.clone();
    large.strangers.extend([produce(0, 1, &[1]), produce(1, 1, &[11]), Stranger::Recover { epoch: 0, token: "b" }]);
    let about =
        "batches that overlap in every way, by clients that share an id, and epochs that are raised between them (R4, R13)";
    Scenario { name: "strangers", about, small, large }
}

fn hold_limit() -> Scenario {
    let small = Bounds {
        sends: alone(4),
        max_in_flight: 4,
        // Two held batches, and not a third.
        hold_bytes: 1_100,
        ..Bounds::default()
    };
    let large = Bounds { failures: Failures { give_ups: 1, ..NONE }, ..small.clone() };
    Scenario { name: "hold-limit", about: "more batches are early than the hold has room for (R8)", small, large }
}

fn refusals() -> Scenario {
    let small = Bounds {
        sends: alone(2),
        failures: Failures { refusals: 2, give_ups: 1, ..NONE },
        refusals: vec![
            ErrorCode::MessageTooLarge,
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::ResourceExhausted,
            ErrorCode::KafkaStorageError,
            ErrorCode::InvalidProducerEpoch,
            ErrorCode::SequenceConflict,
        ],
        ..Bounds::default()
    };
    let large = Bounds { sends: alone(3), failures: Failures { refusals: 2, give_ups: 1, ..NONE }, ..small.clone() };
    let about =
        "batches are refused although nothing is wrong with them, copies of them are taken, and the id is taken over (R5)";
    Scenario { name: "refusals", about, small, large }
}

fn too_large() -> Scenario {
    let small = Bounds {
        sends: vec![vec![0, 0], vec![0]],
        batch_size: 100,
        failures: Failures { crashes: 1, lowered: 1, give_ups: 1, ..NONE },
        // One record, and not two.
        lowered_bytes: 8,
        ..Bounds::default()
    };
    let large = Bounds {
        sends: vec![vec![0, 0], vec![0, 0, 0], vec![0]],
        failures: Failures { crashes: 2, lowered: 1, give_ups: 1, ..NONE },
        ..small.clone()
    };
    let about = "a restart lowers the largest batch: batches of many records are refused, split and tagged anew (R5, R15)";
    Scenario { name: "too-large", about, small, large }
}

fn statuses() -> Scenario {
    let small = Bounds {
        sends: vec![vec![0, 1], vec![0]],
        failures: Failures { statuses: 1, give_ups: 1, ..NONE },
        statuses: vec![
            Code::Unavailable,
            Code::ResourceExhausted,
            Code::NotFound,
            Code::FailedPrecondition,
            Code::InvalidArgument,
        ],
        ..Bounds::default()
    };
    let large = Bounds { failures: Failures { statuses: 2, give_ups: 1, crashes: 1, ..NONE }, ..small.clone() };
    let about = "calls end with every kind of status, carried out or not; one of many batches is at fault (R10)";
    Scenario { name: "statuses", about, small, large }
}

fn pauses() -> Scenario {
    let small = Bounds {
        sends: alone(3),
        max_in_flight: 3,
        pause: MILLISECOND,
        failures: Failures { give_ups: 1, refusals: 1, ..NONE },
        refusals: vec![ErrorCode::ResourceExhausted],
        ..Bounds::default()
    };
    let large = Bounds { failures: Failures { give_ups: 2, refusals: 1, crashes: 1, ..NONE }, ..small.clone() };
    Scenario { name: "pauses", about: "what is sent again waits first, and meanwhile everything goes on", small, large }
}

fn deadlines() -> Scenario {
    let small = Bounds {
        sends: alone(2),
        pause: MILLISECOND,
        delivery_timeout: 2 * MILLISECOND,
        failures: Failures { give_ups: 1, crashes: 1, ..NONE },
        ..Bounds::default()
    };
    let large = Bounds { sends: alone(3), failures: Failures { give_ups: 2, crashes: 1, ..NONE }, ..small.clone() };
    let about = "batches wait too long: their callers hear \"unknown\", their tags stay until a recovery";
    Scenario { name: "deadlines", about, small, large }
}

fn partitions() -> Scenario {
    let small = Bounds {
        sends: vec![vec![0, 1], vec![1, 1]],
        batch_size: 100,
        max_in_flight: 2,
        failures: Failures { give_ups: 1, crashes: 1, ..NONE },
        ..Bounds::default()
    };
    let large = Bounds {
        sends: vec![vec![0, 1], vec![1, 1], vec![0, 0]],
        max_in_flight: 3,
        failures: Failures { give_ups: 2, crashes: 1, ..NONE },
        ..small.clone()
    };
    Scenario { name: "partitions", about: "calls carry batches of two partitions, of one and of many records", small, large }
}

/// `Send`s of one record to partition 0.
fn alone(sends: usize) -> Vec<Vec<i32>> {
    vec![vec![0]; sends]
}

const NONE: Failures = Failures { give_ups: 0, doubles: 0, crashes: 0, lowered: 0, kills: 0, refusals: 0, statuses: 0 };
const MILLISECOND: Duration = Duration::from_millis(1);

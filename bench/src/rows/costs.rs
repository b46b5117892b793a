//! Reading, starting, remembering.

use std::rc::Rc;

use super::{PEAK, Row, Scale};
use crate::{
    calls::fetch::Form,
    candidate::Entry,
    limits::ReadFiles,
    load::Load,
    metric::Metric,
    oncelog::{DURABILITY, Fetching, KnownProducers, PreparedLog, Starting, State},
    values::Values,
};

pub(super) fn rows(scale: Scale) -> Vec<Row> {
    vec![
        fetch(scale, "fetch-start", "Fetch of one partition from its start, records of 1 KiB.", 1),
        fetch(scale, "fetch-start-8", "Fetch of eight partitions at once from their start, records of 1 KiB.", 8),
        producers(scale),
        starting(scale),
    ]
}

fn load(partitions: u32, records: u64) -> Load {
    let unacknowledged = PEAK.unacknowledged(&Values::random(1024));
    Load { record_bytes: 1024, partitions, records, unacknowledged, rate: None }
}

fn fetch(scale: Scale, name: &'static str, about: &'static str, partitions: u32) -> Row {
    let load = load(partitions, scale.records(1_000_000));
    let log = Rc::new(PreparedLog::new(PEAK));
    let file = |name, is_cold| Entry::new(name, "read only", load, ReadFiles { log: log.clone(), is_cold });
    let fetch = |name, form, is_cold| Entry::new(name, DURABILITY, load, Fetching { log: log.clone(), is_cold, form });
    let entries = vec![
        file(COLD_FILE, true),
        fetch(COLD_PACKED, Form::Packed, true),
        fetch("Fetch, plain, cold", Form::Plain, true),
        file(WARM_FILE, false),
        fetch(WARM_PACKED, Form::Packed, false),
        fetch("Fetch, plain, warm", Form::Plain, false),
    ];
    Row { name, about, metric: Metric::PayloadRate, round_seconds: 15, takes_peers: false, entries }
}

fn producers(scale: Scale) -> Row {
    let many = match scale {
        Scale::Full => (MILLION_PRODUCERS, 1_000_000),
        Scale::Quick => (MILLION_PRODUCERS_QUICK, 20_000),
    };
    let load = load(8, scale.records(200_000));
    let entry = |(name, count)| Entry::new(name, DURABILITY, load, KnownProducers::new(count, PEAK));
    Row {
        name: "producers",
        about: "Produce calls, 8 partitions, records of 1 KiB, to a broker that knows so many producers, each with a window.",
        metric: Metric::PayloadRate,
        round_seconds: 36,
        takes_peers: false,
        entries: [(ONE_PRODUCER, 1), ("1,000 known", 1_000), many].map(entry).into(),
    }
}

fn starting(scale: Scale) -> Row {
    let gib = match scale {
        Scale::Full => 10,
        Scale::Quick => 1,
    };
    let load = load(8, gib << 20);
    let log = Rc::new(PreparedLog::new(PEAK));
    let start = |name, state| Entry::new(name, DURABILITY, load, Starting { log: log.clone(), state });
    Row {
        name: "start-up",
        about: "From the start of the broker's process until it is ready, nothing in the kernel's memory; the full journal has \
                10 GiB (1 GiB with --quick).",
        metric: Metric::Seconds,
        round_seconds: 40,
        takes_peers: false,
        entries: vec![
            start(EMPTY, State::Empty),
            start(WITH_SNAPSHOTS, State::Snapshots),
            start(FULL_REPLAY, State::Replay),
            Entry::new(READ_FILES, "read only", load, ReadFiles { log: log.clone(), is_cold: true }),
        ],
    }
}

/// Names that targets speak of.
pub(crate) const COLD_FILE: &str = "reading the file, cold";
pub(crate) const COLD_PACKED: &str = "Fetch, packed, cold";
pub(crate) const WARM_FILE: &str = "reading the file, warm";
pub(crate) const WARM_PACKED: &str = "Fetch, packed, warm";
pub(crate) const ONE_PRODUCER: &str = "1 known";
pub(crate) const MILLION_PRODUCERS: &str = "1,000,000 known";
const MILLION_PRODUCERS_QUICK: &str = "20,000 known";
pub(crate) const READ_FILES: &str = "reading the file";
pub(crate) const EMPTY: &str = "empty";
pub(crate) const WITH_SNAPSHOTS: &str = "full, with snapshots";
pub(crate) const FULL_REPLAY: &str = "full, without snapshots";

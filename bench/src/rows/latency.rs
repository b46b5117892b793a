//! How long an acknowledgement takes, by open loops.

use std::time::Duration;

use super::{NOTHING, PEAK, Peers, Row, Scale, calling, names, oncelog};
use crate::{
    calls::{produce, stream},
    candidate::{Entry, Rate},
    limits::LoneSync,
    load::Load,
    metric::Metric,
    oncelog::{Calls, DURABILITY, Side, Tailing},
    values::Values,
};

pub(super) fn rows(scale: Scale, peers: &Peers) -> Vec<Row> {
    vec![acknowledgement(scale), whole_path(scale, peers), tail(scale)]
}

/// A call of 32 KiB, the size of a producer's batch, so that a lone write of as much is what it is held against.
const CALL: produce::Shape = produce::Shape { batch_bytes: 32 << 10, ..PEAK };

fn acknowledgement(scale: Scale) -> Row {
    let unacknowledged = CALL.unacknowledged(&Values::random(1024));
    let load = Load { record_bytes: 1024, partitions: 8, records: scale.records(100_000), unacknowledged, rate: None };
    let produce = || oncelog(Calls::Produce(CALL), &[]);
    let at = |name, share| {
        let rate = Rate::ShareOf { entry: PEAK_ENTRY, share, seconds: scale.seconds(4.0) };
        Entry::new(name, DURABILITY, load, produce()).at(rate)
    };
    let lone = LoneSync { write_bytes: (32 << 10) + 4096, count: scale.records(5_000), pause: Duration::ZERO };
    Row {
        name: "latency-produce",
        about: "Produce calls of 32 KiB at shares of the peak; a lone write of as much with its fdatasync beside it.",
        metric: Metric::P50,
        round_seconds: 20,
        takes_peers: false,
        entries: vec![
            Entry::new(PEAK_ENTRY, DURABILITY, load, produce()),
            at(TENTH, 0.1),
            at(HALF, 0.5),
            at("80 % of the peak", 0.8),
            Entry::new(names::LONE_SYNC, "on disk", load, lone),
        ],
    }
}

fn whole_path(scale: Scale, peers: &Peers) -> Row {
    let shape = stream::Shape { streams: 8, message_records: 1 };
    let rate = 20_000.0;
    let records = (rate * scale.seconds(4.0)) as u64;
    let load = Load { record_bytes: 100, partitions: 8, records, unacknowledged: 8_000, rate: Some(rate) };
    let mut entries = vec![
        Entry::new(names::ONCELOG, DURABILITY, load, oncelog(Calls::Stream(shape), &["--linger-ms=0"])),
        Entry::new(names::RELAY, NOTHING, load, calling(Calls::Stream(shape), Side::Relay)),
    ];
    entries.extend(peers.entries(load));
    Row {
        name: "latency-path",
        about: "20,000 records of 100 B a second through both services, one a message, linger.ms 0.",
        metric: Metric::P50,
        round_seconds: 60,
        takes_peers: true,
        entries,
    }
}

fn tail(scale: Scale) -> Row {
    let shape = produce::Shape { producers: 1, outstanding: 5, batches: 1, batch_bytes: 4 << 10, ..PEAK };
    let values = Values::random(1024);
    let rate = 1_000.0 * shape.call_records(&values) as f64;
    let records = (rate * scale.seconds(5.0)) as u64;
    let load =
        Load { record_bytes: 1024, partitions: 1, records, unacknowledged: shape.unacknowledged(&values), rate: Some(rate) };
    Row {
        name: "fetch-tail",
        about: "1,000 calls of 4 KiB a second into one partition: until they are acknowledged, and until a follower has them.",
        metric: Metric::P50,
        round_seconds: 14,
        takes_peers: false,
        entries: vec![
            Entry::new("acknowledged", DURABILITY, load, oncelog(Calls::Produce(shape), &[])),
            Entry::new("at the follower", DURABILITY, load, Tailing { shape }),
        ],
    }
}

pub(crate) const PEAK_ENTRY: &str = "peak";
/// Names that targets speak of.
pub(crate) const TENTH: &str = "10 % of the peak";
pub(crate) const HALF: &str = "50 % of the peak";

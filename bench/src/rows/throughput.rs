//! As fast as it goes.

use super::{NOTHING, PEAK, Row, Scale, calling, flags, group_size, names, oncelog};
use crate::{
    calls::{
        produce::{self, Transport},
        stream::{self, Shape},
    },
    candidate::Entry,
    limits::{Fio, JournalLoop},
    load::Load,
    metric::Metric,
    oncelog::{Calling, Calls, Content, DURABILITY, Settings, Side, Traced},
    values::Values,
};

pub(super) fn rows(scale: Scale) -> Vec<Row> {
    vec![
        produce("produce-1k", "Produce calls, 8 partitions, records of 1 KiB, within one segment.", 1024, scale.records(200_000)),
        produce(
            "produce-100",
            "Produce calls, 8 partitions, records of 100 B, within one segment.",
            100,
            scale.records(2_000_000),
        ),
        sustained(scale),
        partitions(scale),
        stream(
            ("stream-1-100", "SendStream, one record of 100 B a message, through both services."),
            1,
            100,
            scale.records(1_000_000),
        ),
        stream(
            ("stream-32-100", "SendStream, 32 records of 100 B a message, through both services."),
            32,
            100,
            scale.records(3_000_000),
        ),
        stream(
            ("stream-1-1k", "SendStream, one record of 1 KiB a message, through both services."),
            1,
            1024,
            scale.records(300_000),
        ),
        stream(
            ("stream-32-1k", "SendStream, 32 records of 1 KiB a message, through both services."),
            32,
            1024,
            scale.records(500_000),
        ),
        send(("send-1", "Unary Send of one record of 100 B, one caller."), 1, scale.records(500)),
        send(("send-64", "Unary Send of one record of 100 B, 64 callers."), 64, scale.records(30_000)),
        send(("send-256", "Unary Send of one record of 100 B, 256 callers."), 256, scale.records(100_000)),
        snappy(scale),
        traced(scale),
    ]
}

fn produce(name: &'static str, about: &'static str, record_bytes: usize, records: u64) -> Row {
    let values = Values::random(record_bytes);
    let load = Load { record_bytes, partitions: 8, records, unacknowledged: PEAK.unacknowledged(&values), rate: None };
    let group_bytes = group_size();
    let produce = Calling { group_bytes: group_bytes.clone(), ..oncelog(Calls::Produce(PEAK), &[]) };
    let on_streams = Calls::Produce(produce::Shape { transport: Transport::Stream, ..PEAK });
    // What does less is done sooner: four times as much, and it still takes a fraction of the time.
    let long = Load { records: records * 4, ..load };
    let entries = vec![
        Entry::new(names::ONCELOG, DURABILITY, load, produce),
        Entry::new("oncelog, ProduceStream", DURABILITY, load, oncelog(on_streams, &[])),
        Entry::new(names::ECHO, NOTHING, long, calling(Calls::Produce(PEAK), Side::Sink)),
        Entry::new("bare echo, ProduceStream", NOTHING, long, calling(on_streams, Side::Sink)),
        Entry::new(names::JOURNAL_LOOP, "on disk: fdatasync for each group of oncelog's size", long, JournalLoop { group_bytes }),
        Entry::new(names::FIO, "on disk: fdatasync for each 512 KiB", long, Fio { write_bytes: 512 << 10 }),
    ];
    Row { name, about, metric: Metric::PayloadRate, round_seconds: 12, takes_peers: false, entries }
}

fn sustained(scale: Scale) -> Row {
    // Ten segments and more, most of them dropped while more is written.
    let (records, broker) = match scale {
        Scale::Full => (3_000_000, flags(&["--retention-bytes=1073741824"])),
        Scale::Quick => {
            (300_000, flags(&["--segment-bytes=16777216", "--snapshot-bytes=33554432", "--retention-bytes=67108864"]))
        }
    };
    let values = Values::random(1024);
    let load = Load { record_bytes: 1024, partitions: 8, records, unacknowledged: PEAK.unacknowledged(&values), rate: None };
    let group_bytes = group_size();
    let side = Side::Oncelog(Settings { broker, ..Settings::default() });
    let produce = Calling { group_bytes: group_bytes.clone(), ..calling(Calls::Produce(PEAK), side) };
    Row {
        name: "sustained-1k",
        about: "Produce calls, 8 partitions, records of 1 KiB, over more than ten segments with retention at work.",
        metric: Metric::PayloadRate,
        round_seconds: 24,
        takes_peers: false,
        entries: vec![
            Entry::new(names::ONCELOG, DURABILITY, load, produce),
            Entry::new(
                names::JOURNAL_LOOP,
                "on disk: fdatasync for each group of oncelog's size",
                load,
                JournalLoop { group_bytes },
            ),
            Entry::new(names::FIO, "on disk: fdatasync for each 512 KiB", load, Fio { write_bytes: 512 << 10 }),
        ],
    }
}

/// A call has 256 KiB whatever the number of partitions; it is cut into as many batches as there are partitions, up to 16.
fn partitions(scale: Scale) -> Row {
    let values = Values::random(1024);
    let entry = |(name, partitions): (&str, u32)| {
        let batches = partitions.min(16) as usize;
        let shape = produce::Shape { batches, batch_bytes: PEAK.batch_bytes / batches, ..PEAK };
        let unacknowledged = shape.unacknowledged(&values);
        let load = Load { record_bytes: 1024, partitions, records: scale.records(200_000), unacknowledged, rate: None };
        Entry::new(name, DURABILITY, load, oncelog(Calls::Produce(shape), &[]))
    };
    let counts = [("1 partition", 1), ("8", 8), ("100", 100), ("1,000", 1_000), ("10,000", 10_000)];
    Row {
        name: "partitions",
        about: "Produce calls of 256 KiB over so many partitions, records of 1 KiB.",
        metric: Metric::PayloadRate,
        round_seconds: 22,
        takes_peers: false,
        entries: counts.map(entry).into(),
    }
}

fn stream((name, about): (&'static str, &'static str), message_records: usize, record_bytes: usize, records: u64) -> Row {
    let shape = Shape { streams: 8, message_records };
    // One stream may have some 1,000 messages unanswered.
    let window = if message_records == 1 { 1_000 } else { 128 };
    let unacknowledged = shape.streams * window * message_records;
    let load = Load { record_bytes, partitions: 8, records, unacknowledged, rate: None };
    let entries = vec![
        Entry::new(names::ONCELOG, DURABILITY, load, oncelog(Calls::Stream(shape), &[])),
        Entry::new(names::RELAY, NOTHING, load, calling(Calls::Stream(shape), Side::Relay)),
        Entry::new(names::ECHO, NOTHING, load, calling(Calls::Stream(shape), Side::Sink)),
    ];
    Row { name, about, metric: Metric::RecordRate, round_seconds: 10, takes_peers: false, entries }
}

fn send((name, about): (&'static str, &'static str), callers: usize, records: u64) -> Row {
    let load = Load { record_bytes: 100, partitions: 8, records, unacknowledged: callers, rate: None };
    let entries = vec![
        Entry::new(names::ONCELOG, DURABILITY, load, oncelog(Calls::Send, &[])),
        Entry::new("oncelog, linger.ms 0", DURABILITY, load, oncelog(Calls::Send, &["--linger-ms=0"])),
        Entry::new(names::RELAY, NOTHING, load, calling(Calls::Send, Side::Relay)),
        Entry::new(names::ECHO, NOTHING, load, calling(Calls::Send, Side::Sink)),
    ];
    Row { name, about, metric: Metric::RecordRate, round_seconds: 14, takes_peers: false, entries }
}

/// Without an exporter, nothing is recorded; with one, a share of the requests is, and metrics are sent once a minute.
fn traced(scale: Scale) -> Row {
    let shape = Shape { streams: 8, message_records: 1 };
    let records = scale.records(1_000_000);
    let load = Load { record_bytes: 100, partitions: 8, records, unacknowledged: shape.streams * 1_000, rate: None };
    let calling = || oncelog(Calls::Stream(shape), &[]);
    let entry = |(name, share): (&str, &'static str)| Entry::new(name, DURABILITY, load, Traced::new(calling(), share));
    let mut entries = vec![Entry::new("no exporter", DURABILITY, load, calling())];
    entries.extend([("1 % of the requests traced", "0.01"), ("all requests traced", "1")].map(entry));
    Row {
        name: "traced",
        about: "SendStream, one record of 100 B a message, through both services, by the share of requests that is traced.",
        metric: Metric::RecordRate,
        round_seconds: 14,
        takes_peers: false,
        entries,
    }
}

fn snappy(scale: Scale) -> Row {
    let shape = stream::Shape { streams: 8, message_records: 32 };
    let load =
        Load { record_bytes: 1024, partitions: 8, records: scale.records(300_000), unacknowledged: 8 * 128 * 32, rate: None };
    let entry = |name: &'static str| {
        let flag = format!("--compression-type={name}");
        Entry::new(name, DURABILITY, load, Calling { content: Content::Json, ..oncelog(Calls::Stream(shape), &[&flag]) })
    };
    Row {
        name: "snappy",
        about: "SendStream, 32 JSON events of 1 KiB a message, by compression.type.",
        metric: Metric::RecordRate,
        round_seconds: 13,
        takes_peers: false,
        entries: ["none", "snappy", "lz4", "zstd"].map(entry).into(),
    }
}

//! What is to be reached: the one table of targets, and what a session says to each.

use crate::{
    metric::{Metric, Servers},
    rows::{costs, latency, names},
    session::RowResult,
    statistics::Spread,
};

/// One target. It is judged by the median over the rounds of one session.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// In words.
    pub measure: &'static str,
    /// The row that tells.
    pub row: &'static str,
    /// Whose number of what.
    pub of: (&'static str, Metric),
    /// Against the smallest number of these; of those that were measured.
    pub against: (&'static [&'static str], Metric),
    /// How the two are compared.
    pub comparison: Comparison,
    /// What the comparison has to give.
    pub needed: Needed,
}

/// How two numbers become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    /// The first divided by the second.
    Ratio,
    /// The first less the second, both in MB, in bytes for each of so many.
    BytesEach(f64),
}

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Needed {
    /// This much or more.
    AtLeast(f64),
    /// This much or less.
    AtMost(f64),
}

impl Needed {
    /// Is it met?
    pub fn is_met(self, number: f64) -> bool {
        match self {
            Self::AtLeast(bound) => number >= bound,
            Self::AtMost(bound) => number <= bound,
        }
    }
}

impl std::fmt::Display for Needed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ {bound}"),
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
        }
    }
}

impl Target {
    /// What the session says: the comparison within each round, and its spread. None if one side was not measured.
    pub fn measured(&self, rows: &[RowResult]) -> Option<Spread> {
        let row = rows.iter().find(|row| row.name == self.row)?;
        let rounds = row.rounds();
        let compared = (0..rounds).filter_map(|round| {
            let of = self.of.1.of(row.measured(self.of.0, round)?)?;
            let against = self.against.0.iter().filter_map(|name| self.against.1.of(row.measured(name, round)?));
            let against = against.min_by(f64::total_cmp)?;
            Some(match self.comparison {
                Comparison::Ratio => of / against,
                Comparison::BytesEach(count) => (of - against) * 1e6 / count,
            })
        });
        Spread::of(compared)
    }
}

/// All of them.
pub fn all() -> Vec<Target> {
    let mut targets = limits();
    targets.extend(peers());
    targets.extend(scaling());
    targets.extend(latencies());
    targets.extend(reading());
    targets
}

fn ratio(
    measure: &'static str,
    row: &'static str,
    of: &'static str,
    against: &'static [&'static str],
    metric: Metric,
    needed: Needed,
) -> Target {
    Target { measure, row, of: (of, metric), against: (against, metric), comparison: Comparison::Ratio, needed }
}

fn limits() -> Vec<Target> {
    use Metric::{PayloadRate, RecordRate};
    let slower: &[&str] = &[names::JOURNAL_LOOP, names::ECHO];
    let at_least = Needed::AtLeast;
    vec![
        ratio(
            "Produce, 1 KiB, against fio (the aim is 1.2)",
            "produce-1k",
            names::ONCELOG,
            &[names::FIO],
            PayloadRate,
            at_least(0.9),
        ),
        ratio(
            "Produce, 100 B, against fio (the aim is 1.2)",
            "produce-100",
            names::ONCELOG,
            &[names::FIO],
            PayloadRate,
            at_least(0.9),
        ),
        ratio(
            "Produce, 1 KiB, against the slower of journal loop and echo",
            "produce-1k",
            names::ONCELOG,
            slower,
            PayloadRate,
            at_least(0.85),
        ),
        ratio(
            "Produce, 100 B, against the slower of journal loop and echo",
            "produce-100",
            names::ONCELOG,
            slower,
            PayloadRate,
            at_least(0.85),
        ),
        ratio(
            "whole path, one 100 B record a message, against the relay",
            "stream-1-100",
            names::ONCELOG,
            &[names::RELAY],
            RecordRate,
            at_least(0.6),
        ),
        ratio(
            "whole path, 32 records of 100 B a message, against the relay",
            "stream-32-100",
            names::ONCELOG,
            &[names::RELAY],
            RecordRate,
            at_least(0.6),
        ),
        ratio(
            "unary Send, 256 callers, against the relay",
            "send-256",
            names::ONCELOG,
            &[names::RELAY],
            RecordRate,
            at_least(0.7),
        ),
    ]
}

fn peers() -> Vec<Target> {
    let against = |measure, row, peer: &'static [&'static str], bound| {
        ratio(measure, row, names::ONCELOG_MANY, peer, Metric::RecordRate, Needed::AtLeast(bound))
    };
    let cost = |measure, of, ours, theirs, bound| Target {
        measure,
        row: "path-1k",
        of: (of, ours),
        against: (&[names::JETSTREAM], theirs),
        comparison: Comparison::Ratio,
        needed: Needed::AtMost(bound),
    };
    let cpu = Metric::CpuPerMillion;
    vec![
        against("whole path against JetStream, 1 KiB", "path-1k", &[names::JETSTREAM], 1.5),
        against("whole path against JetStream, 100 B", "path-100", &[names::JETSTREAM], 4.0),
        against("… against JetStream always, 1 KiB", "path-1k", &[names::JETSTREAM_ALWAYS], 20.0),
        against("… against JetStream always, 100 B", "path-100", &[names::JETSTREAM_ALWAYS], 100.0),
        against("… against Redis Streams always, 1 KiB", "path-1k", &[names::REDIS_ALWAYS], 2.0),
        against("… against Redis Streams always, 100 B", "path-100", &[names::REDIS_ALWAYS], 4.0),
        against("… against RabbitMQ Streams, 1 KiB", "path-1k", &[names::RABBITMQ], 0.9),
        against("… against RabbitMQ Streams, 100 B", "path-100", &[names::RABBITMQ], 1.3),
        against("… against Kafka, 1 KiB", "path-1k", &[names::KAFKA], 1.0),
        against("… against Kafka, 100 B", "path-100", &[names::KAFKA], 1.0),
        against("… against Kafka flushing every message, 1 KiB", "path-1k", &[names::KAFKA_FLUSH], 20.0),
        against("… against Kafka flushing every message, 100 B", "path-100", &[names::KAFKA_FLUSH], 20.0),
        cost("CPU of the broker against JetStream, 1 KiB", names::ONCELOG_MANY, cpu(Servers::Broker), cpu(Servers::All), 0.2),
        cost("CPU of both services against JetStream, 1 KiB", names::ONCELOG_MANY, cpu(Servers::All), cpu(Servers::All), 0.6),
        cost("resident memory under load against JetStream", names::ONCELOG_MANY, Metric::Loaded, Metric::Loaded, 0.25),
    ]
}

fn scaling() -> Vec<Target> {
    let rate = |measure, row, of, against, bound| ratio(measure, row, of, against, Metric::PayloadRate, Needed::AtLeast(bound));
    vec![
        rate("1,000 partitions against 1", "partitions", "1,000", &["1 partition"], 0.9),
        rate("10,000 partitions against 1", "partitions", "10,000", &["1 partition"], 0.8),
        rate("a million known producers against one", "producers", costs::MILLION_PRODUCERS, &[costs::ONE_PRODUCER], 0.95),
        Target {
            measure: "bytes for each known producer",
            row: "producers",
            of: (costs::MILLION_PRODUCERS, Metric::Idle),
            against: (&[costs::ONE_PRODUCER], Metric::Idle),
            comparison: Comparison::BytesEach(1e6),
            needed: Needed::AtMost(300.0),
        },
        ratio("snappy against none, JSON", "snappy", "snappy", &["none"], Metric::RecordRate, Needed::AtLeast(1.0)),
    ]
}

fn latencies() -> Vec<Target> {
    let lone: &[&str] = &[names::LONE_SYNC];
    let jetstream: &[&str] = &[names::JETSTREAM];
    let at_most = |measure, row, of, against, metric, bound| ratio(measure, row, of, against, metric, Needed::AtMost(bound));
    vec![
        at_most("Produce at 10 %, p50, against a lone fdatasync", "latency-produce", latency::TENTH, lone, Metric::P50, 2.0),
        at_most("Produce at 50 %, p99, against a lone fdatasync", "latency-produce", latency::HALF, lone, Metric::P99, 4.0),
        at_most("20,000/s, p50, against JetStream", "latency-path", names::ONCELOG, jetstream, Metric::P50, 2.0),
        at_most("20,000/s, p99, against JetStream", "latency-path", names::ONCELOG, jetstream, Metric::P99, 1.3),
    ]
}

fn reading() -> Vec<Target> {
    let fetch = |measure, of, file| ratio(measure, "fetch-start", of, file, Metric::PayloadRate, Needed::AtLeast(0.5));
    vec![
        fetch("Fetch from the start against reading the file, cold", costs::COLD_PACKED, &[costs::COLD_FILE]),
        fetch("Fetch from the start against reading the file, warm", costs::WARM_PACKED, &[costs::WARM_FILE]),
        ratio(
            "start-up with a full journal against an empty one",
            "start-up",
            costs::WITH_SNAPSHOTS,
            &[costs::EMPTY],
            Metric::Seconds,
            Needed::AtMost(10.0),
        ),
        ratio(
            "full replay against reading the file",
            "start-up",
            costs::FULL_REPLAY,
            &[costs::READ_FILES],
            Metric::PayloadRate,
            Needed::AtLeast(0.5),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_met_at_the_bound() {
        assert!(Needed::AtLeast(0.9).is_met(0.9) && !Needed::AtLeast(0.9).is_met(0.899));
        assert!(Needed::AtMost(2.0).is_met(2.0) && !Needed::AtMost(2.0).is_met(2.001));
    }

    #[test]
    fn ratios_are_made_within_a_round_and_the_slower_limit_counts() {
        let rates =
            |of: f64, echo: f64, journal: f64| [(names::ONCELOG, of), (names::ECHO, echo), (names::JOURNAL_LOOP, journal)];
        let row =
            RowResult::of_rates("produce-1k", &[rates(100.0, 50.0, 200.0), rates(10.0, 20.0, 10.0), rates(90.0, 90.0, 90.0)]);
        let target = limits()[2];
        let spread = target.measured(&[row]).expect("both sides");
        assert_eq!((spread.median, spread.least, spread.most), (1.0, 1.0, 2.0));
        assert!(target.measured(&[]).is_none());
    }
}

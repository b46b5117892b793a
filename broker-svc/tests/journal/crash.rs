//! Power loss at every write, sync and rename, with torn pages: what was acknowledged is there, and nothing half.

use broker_svc::{
    entry::Entry,
    journal::{Fatal, Options, Retention, SnapshotError, WriteError, sim_disk::SimDisk},
};
use oncelog_proto::Timestamp;

use crate::{
    recycling,
    support::{Broker, State, options, payload},
};

/// How far a run came.
struct Run {
    /// After the last sync that returned.
    acknowledged: State,
    /// The same and the group in flight.
    in_flight: State,
}

/// A busy life: three openings, segments rolled, spares, indexes, snapshots, trimming, markers. Ends at the first error.
fn live(disk: &SimDisk) -> Run {
    let mut run = Run { acknowledged: State::default(), in_flight: State::default() };
    let _ = try_live(disk, &mut run);
    run
}

enum Stopped {
    Stopped,
}

impl From<WriteError> for Stopped {
    fn from(_: WriteError) -> Self {
        Self::Stopped
    }
}

impl From<Fatal> for Stopped {
    fn from(_: Fatal) -> Self {
        Self::Stopped
    }
}

impl From<SnapshotError> for Stopped {
    fn from(_: SnapshotError) -> Self {
        Self::Stopped
    }
}

fn try_live(disk: &SimDisk, run: &mut Run) -> Result<(), Stopped> {
    for opening in 0..3_i64 {
        let with = Options { spares: 1, ballast_bytes: 64 << 10, ..options(disk) };
        let mut broker = Broker::open_with(disk, with).map_err(|_| Stopped::Stopped)?;
        assert_eq!(broker.state, run.acknowledged, "a process restart loses nothing");
        for round in 0..8 {
            let batches: Vec<_> = (0..3).map(|i| (i, payload(opening * 100 + round * 10 + i64::from(i), 60_000))).collect();
            run.in_flight = broker.write(&batches)?;
            broker.journal.sync()?;
            broker.state = run.in_flight.clone();
            run.acknowledged = run.in_flight.clone();
            if round % 3 == 1 {
                broker.journal.write_marker(false)?;
            }
            for _ in 0..3 {
                broker.background.step()?;
            }
            if round == 4 {
                broker.journal.snapshot_writer().write(broker.journal.position(), &mut broker.state.chunks())?;
            }
        }
        let limits = Retention { bytes: Some(2 << 20), age: None };
        if let Some((through_segment, partitions)) = broker.journal.plan_trim(limits, Timestamp::default()) {
            let mut in_flight = broker.state.clone();
            let time = broker.journal.position().time().plus(std::time::Duration::from_micros(1));
            let entry = Entry::Trim { through_segment, partitions };
            let number = broker.journal.position().group();
            broker_svc::journal::Replay::apply(&mut in_flight, number, time, &entry).expect("folded");
            run.in_flight = in_flight;
            broker.commit_entry(entry)?;
            assert_eq!(broker.state, run.in_flight);
            run.acknowledged = run.in_flight.clone();
        }
        for _ in 0..6 {
            broker.background.step()?;
        }
        if opening == 1 {
            broker.journal.write_marker(true)?;
        }
    }
    Ok(())
}

#[test]
fn what_was_acknowledged_survives_a_power_loss_at_every_change() {
    let whole = SimDisk::new();
    live(&whole);
    let changes = whole.changes();
    assert!(changes > 200, "{changes} changes");
    assert!(whole.names().iter().any(|name| name.starts_with("snap")));
    for stop in 0..=changes {
        let stopped = SimDisk::new();
        stopped.stop_after(stop);
        let run = live(&stopped);
        for seed in 0..3 {
            let disk = stopped.fork();
            disk.crash(stop * 31 + seed);
            let at = format!("stopped after {stop} changes, seed {seed}");
            let mut broker = Broker::open(&disk).unwrap_or_else(|e| panic!("{at}: {e}"));
            let recovered = broker.state.clone();
            assert!(recovered == run.acknowledged || recovered == run.in_flight, "{at}");
            // What is told after the opening is durable: it survives another loss at once, and so does what is built on it.
            disk.crash(seed);
            broker = Broker::open(&disk).unwrap_or_else(|e| panic!("{at}, again: {e}"));
            assert_eq!(broker.state, recovered, "{at}");
            assert_eq!(broker.report.cut, None, "{at}: the cut was settled");
            broker.commit_bytes(1000);
            let after = broker.state.clone();
            disk.crash(seed + 7);
            let broker = Broker::open(&disk).unwrap_or_else(|e| panic!("{at}, and again: {e}"));
            assert_eq!(broker.state, after, "{at}");
        }
    }
}

#[test]
fn the_log_is_readable_after_every_kind_of_power_loss() {
    for stop in (0..400).step_by(7) {
        let disk = SimDisk::new();
        disk.stop_after(stop);
        live(&disk);
        disk.crash(stop);
        let broker = Broker::open(&disk).expect("opens");
        for partition in 0..3 {
            let first = broker.state.lines.iter().filter(|line| line.contains("Trim")).count();
            if first == 0 {
                let read = broker.read_from(partition, 0).expect("readable");
                assert_eq!(read.len() as i64, broker.state.next(partition));
            }
        }
    }
}

#[test]
fn an_opening_that_stops_at_any_change_is_taken_up_by_the_next_one() {
    let mut torn = 0;
    for seed in 0..24 {
        let (disk, mut broker) = if seed % 2 == 0 {
            let disk = SimDisk::new();
            let mut broker = Broker::open(&disk).expect("opens");
            broker.commit_bytes(100);
            (disk, broker)
        } else {
            recycling::recycled()
        };
        let acknowledged = broker.state.clone();
        let in_flight = broker.write(&[(0, payload(broker.state.next(0), 10_000))]).expect("room");
        drop(broker);
        disk.crash(seed);
        let before = disk.changes();
        let whole = disk.fork();
        let cut = Broker::open(&whole).expect("opens").report.cut;
        torn += u64::from(cut.is_some());
        for stop in 0..whole.changes() - before {
            let stopped = disk.fork();
            stopped.stop_after(stop);
            // Without the last ones, those of indexes that were missing, it opens all the same.
            drop(Broker::open(&stopped));
            for power_loss in [false, true] {
                let disk = stopped.fork();
                if power_loss {
                    disk.crash(seed + stop);
                } else {
                    disk.restart()
                }
                let at = format!("seed {seed}, stopped after {stop} changes, power loss {power_loss}");
                let mut broker = Broker::open(&disk).unwrap_or_else(|e| panic!("{at}: {e}"));
                assert!(broker.state == acknowledged || broker.state == in_flight, "{at}");
                let expected = broker.state.clone();
                broker.commit_bytes(100);
                let again = broker.reopen().unwrap_or_else(|e| panic!("{at}, and again: {e}"));
                assert_eq!(again.state.lines[..expected.lines.len()], expected.lines[..], "{at}");
                assert_eq!(again.state.lines.len(), expected.lines.len() + 1, "{at}");
            }
        }
    }
    assert!(torn > 8, "{torn} torn groups");
}

//! Recycled segments: what a file held before never speaks for what it holds now.

use broker_svc::{
    entry::Entry,
    journal::{Fatal, OpenError, Options, Retention, SnapshotError, WriteError, sim_disk::SimDisk},
};
use bytes::Bytes;
use oncelog_proto::Timestamp;

use crate::support::{Broker, State, options, payload, segment};

/// Five groups of this fill a segment, and in each segment they start at the same blocks: where a group of the new life ends, one
/// of the old life begins.
const LEN: usize = 180_000;
const ALL: Retention = Retention { bytes: Some(0), age: None };

fn with_spares(disk: &SimDisk) -> Options {
    Options { spares: 1, ..options(disk) }
}

/// Rolls through segments until one of a recycled file is active and has one group: the old one is the fourth before it.
pub(crate) fn recycled() -> (SimDisk, Broker) {
    let disk = SimDisk::new();
    let mut broker = Broker::open_with(&disk, with_spares(&disk)).expect("opens");
    for _ in 0..4 * 5 {
        broker.commit_bytes(LEN);
    }
    broker.snapshot();
    broker.commit_bytes(LEN);
    broker.snapshot();
    trim(&mut broker).expect("three segments go");
    broker.tidy();
    assert_eq!(broker.journal.stats().spares, 3, "all that went are kept");
    while broker.journal.stats().segments < 3 {
        broker.commit_bytes(LEN);
    }
    (disk, broker)
}

fn trim(broker: &mut Broker) -> Result<(), WriteError> {
    let Some((through_segment, partitions)) = broker.journal.plan_trim(ALL, Timestamp::default()) else { return Ok(()) };
    broker.commit_entry(Entry::Trim { through_segment, partitions }).map(drop)
}

fn active(broker: &Broker) -> String {
    segment(broker.journal.stats().durable.segment())
}

fn is_recycled(content: &[u8]) -> bool {
    content[128] == 1
}

/// Positions of the group headers in a file, of this life and earlier ones.
fn groups(content: &[u8]) -> Vec<usize> {
    (0..content.len()).step_by(4096).filter(|at| content[*at..].starts_with(b"OLGROUP\0")).collect()
}

#[test]
fn a_trimmed_segment_becomes_a_segment_with_its_old_bytes_in_it() {
    let (disk, broker) = recycled();
    let file = disk.content(&active(&broker)).expect("there");
    assert!(is_recycled(&file));
    assert_eq!(file.len(), 1 << 20, "what it lost when it was sealed was filled up");
    assert_eq!(
        groups(&file).len(),
        4,
        "one group of this life, a block of zeros over the second of the earlier one, and three more"
    );
    let expected = broker.state.clone();
    let broker = broker.reopen().expect("opens");
    assert_eq!(broker.report.cut, None, "the end is plain");
    assert_eq!(broker.state, expected);
}

#[test]
fn old_groups_behind_a_torn_one_are_neither_taken_nor_proof_of_damage() {
    for seed in 0..40 {
        let (disk, mut broker) = recycled();
        let acknowledged = broker.state.clone();
        // In flight when the power goes: any of its blocks may still be the old ones, that of the end too.
        let in_flight = broker.write(&[(0, payload(broker.state.next(0), LEN))]).expect("room");
        drop(broker);
        disk.crash(seed);
        let mut broker = Broker::open(&disk).expect("opens");
        assert!(broker.state == acknowledged || broker.state == in_flight, "seed {seed}");
        if let Some(cut) = &broker.report.cut {
            assert!(cut.bytes <= 200_000 || cut.bytes == (1 << 20) - cut.position, "{cut:?}");
        }
        broker.commit_bytes(100);
        let expected = broker.state.clone();
        assert_eq!(broker.reopen().expect("opens").state, expected, "seed {seed}");
    }
}

#[test]
fn no_flipped_bit_of_the_last_groups_of_a_recycled_file_is_silent() {
    // Header and directory; the data of what is proven durable is checked when it is read.
    const USED: u64 = 96 + 40;
    let (disk, mut broker) = recycled();
    for i in 0..2 {
        broker.commit(&[(0, payload(1000 + i, 20))]).expect("room");
    }
    let (name, whole) = (active(&broker), broker.state.clone());
    drop(broker);
    disk.restart();
    let first = (4096 + 96 + LEN).next_multiple_of(4096) as u64;
    let (mut refused, mut cut) = (0, 0);
    for (nth, start) in [first, first + 4096].into_iter().enumerate() {
        for bit in (start * 8..(start + USED) * 8).step_by(5) {
            let disk = disk.fork();
            disk.flip_bit(&name, bit);
            match Broker::open(&disk) {
                Err(OpenError::Damaged { file, position, .. }) => {
                    assert_eq!((nth, file, position), (0, name.clone(), start), "bit {bit}: the last group has no witness");
                    refused += 1;
                }
                Ok(broker) => {
                    assert_eq!(nth, 1, "bit {bit}: only the last group is ever cut");
                    let report = broker.report.cut.as_ref().expect("it is told");
                    assert_eq!(report.position, start);
                    assert_eq!(disk.content(&report.copy).expect("kept").len() as u64, report.bytes);
                    assert_eq!(broker.state.lines.len(), whole.lines.len() - 1);
                    cut += 1;
                }
                Err(e) => panic!("bit {bit}: {e}"),
            }
        }
    }
    assert_eq!((refused, cut), (218, 218));
}

#[test]
fn a_segment_that_a_backup_holds_is_not_recycled() {
    let (disk, mut broker) = recycled();
    broker.tidy();
    let spares = broker.journal.stats().spares;
    broker.snapshot();
    broker.commit_bytes(LEN);
    broker.snapshot();
    disk.set_links(2);
    trim(&mut broker).expect("room");
    broker.tidy();
    assert_eq!(broker.journal.stats().doomed, 0, "they are gone");
    assert_eq!(broker.journal.stats().spares, spares, "and nothing was made of them");
}

#[test]
fn as_many_spares_are_kept_as_are_wanted_and_two_more() {
    let disk = SimDisk::new();
    let mut broker = Broker::open_with(&disk, with_spares(&disk)).expect("opens");
    for _ in 0..6 * 5 {
        broker.commit_bytes(LEN);
    }
    broker.snapshot();
    broker.commit_bytes(LEN);
    broker.snapshot();
    trim(&mut broker).expect("five go");
    broker.tidy();
    assert_eq!(broker.journal.stats().spares, 3);
    let left: Vec<_> = disk.names().into_iter().filter(|name| name.contains("trimmed") || name.contains("unfinished")).collect();
    assert_eq!(left, [""; 0], "the others were deleted");
}

#[test]
fn no_spare_is_made_of_zeros_while_much_is_written() {
    let disk = SimDisk::new();
    let mut broker = Broker::open_with(&disk, with_spares(&disk)).expect("opens");
    for _ in 0..10 {
        broker.commit_bytes(900_000);
    }
    broker.tidy();
    assert_eq!(broker.journal.stats().spares, 0, "9 MB since the last look");
    broker.commit_bytes(900_000);
    broker.tidy();
    assert_eq!(broker.journal.stats().spares, 1, "it is quiet");
}

#[test]
fn spares_are_recognised_by_the_next_opening_whatever_they_are_made_of() {
    let (disk, mut broker) = recycled();
    let spares = broker.journal.stats().spares;
    assert!(spares > 0);
    broker.commit_bytes(LEN);
    let expected = broker.state.clone();
    drop(broker);
    disk.restart();
    // The opening begins a segment in a recycled file, and the next one goes on from there.
    let mut broker = Broker::open_with(&disk, with_spares(&disk)).expect("opens");
    assert_eq!(broker.journal.stats().spares, spares - 1);
    broker.commit_bytes(LEN);
    assert!(is_recycled(&disk.content(&active(&broker)).expect("there")));
    let broker = broker.reopen().expect("opens");
    assert_eq!(broker.state.lines[..expected.lines.len()], expected.lines[..]);
    assert_eq!(broker.state.lines.len(), expected.lines.len() + 1);
}

/// How far a run came.
struct Run {
    /// After the last sync that returned.
    acknowledged: State,
    /// The same and the group in flight.
    in_flight: State,
}

struct Stopped;

impl From<WriteError> for Stopped {
    fn from(_: WriteError) -> Self {
        Self
    }
}

impl From<Fatal> for Stopped {
    fn from(_: Fatal) -> Self {
        Self
    }
}

impl From<SnapshotError> for Stopped {
    fn from(_: SnapshotError) -> Self {
        Self
    }
}

/// A life in which every segment is made of an earlier one: snapshots and trims at every roll. Two openings, tidying in between.
fn live(disk: &SimDisk, run: &mut Run) -> Result<usize, Stopped> {
    let mut recycled = 0;
    for opening in 0..2 {
        let mut broker = Broker::open_with(disk, with_spares(disk)).map_err(|_| Stopped)?;
        assert!(broker.state == run.acknowledged || broker.state == run.in_flight, "a process restart loses nothing");
        run.acknowledged = broker.state.clone();
        for round in 0..8_i64 {
            run.in_flight = broker.write(&[(0, vec![u8::try_from(opening * 100 + round).expect("small"); 2 * LEN])])?;
            broker.journal.sync()?;
            broker.state = run.in_flight.clone();
            run.acknowledged = run.in_flight.clone();
            if round % 3 == 1 {
                broker.journal.write_marker(false)?;
            }
            broker.journal.snapshot_writer().write(broker.journal.position(), &mut broker.state.chunks())?;
            if let Some((through_segment, partitions)) = broker.journal.plan_trim(ALL, Timestamp::default()) {
                let entry = Entry::Trim { through_segment, partitions };
                run.in_flight = broker.write_entry(entry)?;
                broker.journal.sync()?;
                broker.state = run.in_flight.clone();
                run.acknowledged = run.in_flight.clone();
            }
            for _ in 0..4 {
                broker.background.step()?;
            }
            let content = disk.content(&active(&broker)).expect("there");
            recycled += usize::from(is_recycled(&content));
        }
        if opening == 0 {
            broker.journal.write_marker(true)?;
        }
    }
    Ok(recycled)
}

#[test]
fn what_was_acknowledged_survives_a_power_loss_at_every_change_of_a_life_in_recycled_files() {
    let fresh = || Run { acknowledged: State::default(), in_flight: State::default() };
    let whole = SimDisk::new();
    let mut run = fresh();
    let recycled = live(&whole, &mut run).unwrap_or_else(|Stopped| panic!("nothing stops it"));
    assert!(recycled >= 6, "{recycled} rounds in a recycled file");
    for stop in 0..=whole.changes() {
        let disk = SimDisk::new();
        disk.stop_after(stop);
        let mut run = fresh();
        let _ = live(&disk, &mut run);
        disk.crash(stop);
        let at = format!("stopped after {stop} changes");
        let mut broker = Broker::open(&disk).unwrap_or_else(|e| panic!("{at}: {e}"));
        let recovered = broker.state.clone();
        assert!(recovered == run.acknowledged || recovered == run.in_flight, "{at}");
        disk.crash(stop + 1);
        broker = Broker::open(&disk).unwrap_or_else(|e| panic!("{at}, again: {e}"));
        assert_eq!(broker.state, recovered, "{at}");
        assert_eq!(broker.report.cut, None, "{at}: the cut was settled");
        broker.commit_bytes(1000);
        let read = broker.read_from(0, broker.state.next(0) - 1).expect("readable");
        assert_eq!(read.last().map(|(_, data)| Bytes::len(data)), Some(1000), "{at}");
    }
}

//! Trimming: oldest first, only what two snapshots no longer need, only after the entry is durable.

use std::time::Duration;

use broker_svc::{
    entry::{Entry, PartitionId, Trimmed},
    journal::{OpenError, ReadError, Retention, Step, disk::Disk, sim_disk::SimDisk},
};
use oncelog_proto::Timestamp;

use crate::support::{Broker, offset, payload, segment};

const ALL: Retention = Retention { bytes: Some(0), age: None };

/// Six segments of one large batch and one small one each, two snapshots in the fifth.
fn six_segments() -> (SimDisk, Broker) {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    for i in 0..6 {
        if i == 5 {
            broker.snapshot();
            broker.journal.write_marker(false).expect("the disk works");
            broker.snapshot();
        }
        broker.commit(&[(0, payload(i, 900_000)), (1, payload(i, 100))]).expect("room");
    }
    broker.tidy();
    (disk, broker)
}

fn trim(broker: &mut Broker, limits: Retention) -> Option<u64> {
    let (through_segment, partitions) = broker.journal.plan_trim(limits, Timestamp::from_micros(1000))?;
    broker.commit_entry(Entry::Trim { through_segment, partitions }).expect("room");
    Some(through_segment)
}

#[test]
fn nothing_goes_that_a_snapshot_needs_or_that_is_within_the_limits() {
    let (_, broker) = six_segments();
    let plan = |limits| broker.journal.plan_trim(limits, Timestamp::from_micros(1000)).map(|(through, _)| through);
    let bytes = broker.journal.stats().bytes;
    assert_eq!(plan(ALL), Some(4), "the snapshots are in segment 5");
    assert_eq!(plan(Retention::default()), None);
    assert_eq!(plan(Retention { bytes: Some(bytes), age: None }), None);
    assert_eq!(plan(Retention { bytes: Some(bytes - 1), age: None }), Some(1));
    assert_eq!(plan(Retention { bytes: Some(bytes - 1_000_000), age: None }), Some(2));
    let age = |micros: u64| Some(Duration::from_micros(1000 - micros));
    assert_eq!(plan(Retention { bytes: None, age: age(1) }), None);
    assert_eq!(plan(Retention { bytes: None, age: age(2) }), Some(1), "the first group is older than that");
    assert_eq!(plan(Retention { bytes: None, age: age(4) }), Some(3));
}

#[test]
fn without_two_snapshots_nothing_goes() {
    let mut broker = Broker::open(&SimDisk::new()).expect("opens");
    for i in 0..4 {
        broker.commit_bytes(900_000);
        if i == 3 {
            broker.snapshot();
        }
    }
    assert_eq!(broker.journal.plan_trim(ALL, Timestamp::default()), None);
    broker.journal.write_marker(false).expect("the disk works");
    broker.snapshot();
    assert!(broker.journal.plan_trim(ALL, Timestamp::default()).is_some());
}

#[test]
fn a_plan_tells_what_each_partition_loses() {
    let (_, broker) = six_segments();
    let (_, lost) = broker.journal.plan_trim(ALL, Timestamp::default()).expect("four may go");
    let expected = [
        Trimmed { partition: PartitionId(0), log_start: offset(4), bytes: 4 * 900_000 },
        Trimmed { partition: PartitionId(1), log_start: offset(4), bytes: 400 },
    ];
    assert_eq!(lost, expected);
}

#[test]
fn an_index_that_nobody_can_read_does_not_keep_its_segment() {
    let (disk, broker) = six_segments();
    let plan = || broker.journal.plan_trim(ALL, Timestamp::default()).expect("four may go");
    let whole = plan();
    // In the lines of one, which no reader happens to look at; the other is gone.
    disk.flip_bit(&format!("{:020}.idx", 1), 8 * 140);
    assert_eq!(plan(), whole);
    disk.remove(&format!("{:020}.idx", 2)).expect("there");
    assert_eq!(plan(), whole);
    assert_eq!(broker.journal.stats().unindexed, 2, "to be written anew");
}

#[test]
fn files_go_after_the_entry_is_durable_and_never_before() {
    let (disk, mut broker) = six_segments();
    let held = broker.journal.plan_trim(ALL, Timestamp::default());
    broker.tidy();
    assert!(disk.names().contains(&segment(1)), "a plan changes nothing");
    let (through_segment, partitions) = held.expect("four segments are not needed any more");
    assert_eq!(through_segment, 4);
    let after = broker.write_entry(Entry::Trim { through_segment, partitions }).expect("there is room");
    broker.tidy();
    assert!(disk.names().contains(&segment(1)), "nor does an entry that a power loss may still take away");
    broker.journal.sync().expect("the disk works");
    broker.state = after;
    broker.tidy();
    let segments: Vec<_> = disk.names().into_iter().filter(|name| name.contains("000.") || name.contains(".log")).collect();
    assert_eq!(segments, [segment(5), segment(6)].to_vec());
    assert_eq!(broker.journal.stats().trimmed_through, 4);
    let (expected, broker) = (broker.state.clone(), broker.reopen().expect("opens"));
    assert_eq!(broker.state, expected);
    assert_eq!(broker.read_from(0, 4).expect("readable").len(), 2);
}

#[test]
fn a_reader_across_trimming_reads_or_is_told() {
    let (_, mut broker) = six_segments();
    let reader = broker.journal.reader();
    let clone = reader.clone();
    assert_eq!(reader.read(PartitionId(0), offset(1), 1).expect("readable").len(), 1);
    trim(&mut broker, ALL).expect("four go");
    let check = || {
        for from in 0..4 {
            let trimmed = reader.read(PartitionId(0), offset(from), 1);
            assert!(matches!(trimmed, Err(ReadError::Trimmed { next }) if next == offset(4)), "{trimmed:?}");
        }
        assert_eq!(clone.read(PartitionId(0), offset(4), usize::MAX).expect("readable").len(), 2);
    };
    check();
    while broker.background.step().expect("the disk works") != Step::Idle {
        check();
    }
    check();
}

#[test]
fn an_opening_goes_on_deleting_where_the_last_process_stopped() {
    let (disk, mut broker) = six_segments();
    trim(&mut broker, ALL).expect("four go");
    for _ in 0..3 {
        broker.background.step().expect("the disk works");
    }
    let mut broker = broker.reopen().expect("opens");
    assert!(broker.journal.stats().doomed > 0);
    broker.tidy();
    assert_eq!(broker.journal.stats().doomed, 0);
    let left: Vec<_> = disk.names().into_iter().filter(|name| name.ends_with(".log") || name.contains("trimmed")).collect();
    assert_eq!(left, [segment(5), segment(6), segment(7)].to_vec());
    let broker = broker.reopen().expect("opens");
    assert_eq!(broker.read_from(0, 4).expect("readable").len(), 2);
}

#[test]
fn more_missing_than_was_trimmed_is_refused() {
    let (disk, mut broker) = six_segments();
    let limit = broker.journal.stats().bytes - 1;
    trim(&mut broker, Retention { bytes: Some(limit), age: None }).expect("one goes");
    broker.tidy();
    drop(broker);
    assert!(Broker::open(&disk.fork()).is_ok());
    disk.remove(&segment(2)).expect("there");
    match Broker::open(&disk) {
        Err(OpenError::Damaged { file, .. }) => assert_eq!(file, segment(2)),
        other => panic!("{:?}", other.map(|b| b.report)),
    }
}

#[test]
fn without_a_readable_snapshot_a_trimmed_journal_is_refused() {
    let (disk, mut broker) = six_segments();
    trim(&mut broker, ALL).expect("four go");
    broker.tidy();
    drop(broker);
    for name in disk.names().iter().filter(|name| name.starts_with("snap")) {
        disk.flip_bit(name, 5000 * 8);
    }
    assert!(matches!(Broker::open(&disk), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_segment_that_a_backup_holds_is_not_emptied() {
    let (disk, mut broker) = six_segments();
    disk.set_links(2);
    trim(&mut broker, ALL).expect("four go");
    let before = disk.changes();
    broker.background.step().expect("the disk works");
    assert_eq!(disk.changes() - before, 4, "renamed, index removed, directory synced, unlinked");
    assert!(!disk.names().iter().any(|name| name.contains("trimmed")));
}

/// Where nothing more can be written no snapshot is due by bytes, and without two of them nothing may go.
#[test]
fn retention_asks_for_the_two_snapshots_that_it_lacks() {
    let mut broker = Broker::open(&SimDisk::new()).expect("opens");
    let now = Timestamp::from_micros(1000);
    for _ in 0..3 {
        broker.commit_bytes(900_000);
    }
    assert!(!broker.journal.lacks_snapshots(Retention::default(), now), "nothing is over a limit");
    let mut taken = Vec::new();
    while broker.journal.lacks_snapshots(ALL, now) {
        let at = broker.journal.snapshot_position().expect("the disk works").expect("there is room for a marker");
        broker.journal.snapshot_writer().write(at, &mut broker.state.chunks()).expect("the disk works");
        taken.push(at);
    }
    assert_eq!(taken.len(), 2);
    assert_ne!(taken[0], taken[1]);
    assert_eq!(trim(&mut broker, ALL), Some(2));
    let (expected, broker) = (broker.state.clone(), broker.reopen().expect("opens"));
    assert_eq!(broker.state, expected);
}

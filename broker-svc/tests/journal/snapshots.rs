//! Snapshots: never ahead of the log, verified before they count, and two of them.

use broker_svc::journal::{OpenError, disk::Disk, sim_disk::SimDisk};

use crate::support::{Broker, segment};

fn snapshots(disk: &SimDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with("snap")).collect()
}

/// Three openings with groups, a snapshot in each, and one more group at the end.
fn journal_with_snapshots() -> (SimDisk, Broker) {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    for _ in 0..2 {
        for _ in 0..3 {
            broker.commit_bytes(100);
        }
        broker.snapshot();
        broker.commit_bytes(100);
        broker = broker.reopen().expect("opens");
    }
    broker.commit_bytes(100);
    broker.snapshot();
    broker.commit_bytes(100);
    (disk, broker)
}

#[test]
fn the_state_from_a_snapshot_is_the_state_from_all_groups() {
    let (disk, broker) = journal_with_snapshots();
    let expected = broker.state.clone();
    assert_eq!(snapshots(&disk).len(), 2, "the two newest are kept");
    let broker = broker.reopen().expect("opens");
    assert_eq!(broker.state, expected);
    assert_eq!(broker.report.snapshot, snapshots(&disk).pop());
    assert_eq!(broker.report.groups_replayed, 1);
    assert_eq!(broker.journal.stats().snapshots, 2);
    broker.check_log();
    drop(broker);
    for name in snapshots(&disk) {
        disk.remove(&name).expect("there");
    }
    let broker = Broker::open(&disk).expect("nothing was trimmed: the journal alone will do");
    assert_eq!(broker.state, expected);
    assert_eq!(broker.report.snapshot, None);
}

#[test]
fn a_damaged_snapshot_gives_way_to_the_older_one_and_is_told() {
    let (disk, broker) = journal_with_snapshots();
    let expected = broker.state.clone();
    drop(broker);
    let [older, newest] = snapshots(&disk).try_into().expect("two");
    let len = disk.content(&newest).expect("exists").len() as u64;
    for bit in (0..len * 8).step_by(1009) {
        let fork = disk.fork();
        fork.flip_bit(&newest, bit);
        match Broker::open(&fork) {
            Ok(broker) => {
                assert_eq!(broker.state, expected, "bit {bit}");
                assert_eq!(broker.report.snapshot.as_ref(), Some(&older), "bit {bit}");
                assert_eq!(broker.report.damaged_snapshots.len(), 1, "bit {bit}");
            }
            Err(OpenError::NewerFormat { file, .. }) => assert_eq!(file, newest),
            Err(e) => panic!("bit {bit}: {e}"),
        }
    }
    for cut in [0, 100, 4096, len - 1] {
        let fork = disk.fork();
        let mut content = fork.content(&newest).expect("exists");
        content.truncate(usize::try_from(cut).expect("small"));
        fork.set_content(&newest, content);
        assert_eq!(Broker::open(&fork).expect("opens").report.snapshot.as_ref(), Some(&older));
    }
}

#[test]
fn a_snapshot_beyond_the_journals_end_is_refused() {
    let (disk, broker) = journal_with_snapshots();
    drop(broker);
    // The last segment, without its groups; and without the segment at all.
    let fork = disk.fork();
    let mut content = fork.content(&segment(3)).expect("exists");
    content[4096..].fill(0);
    fork.set_content(&segment(3), content);
    let names = fork.names();
    assert!(matches!(Broker::open(&fork), Err(OpenError::StateAheadOfLog { .. })));
    assert_eq!(fork.names(), names);
    let fork = disk.fork();
    fork.remove(&segment(3)).expect("there");
    fork.remove("00000000000000000002.idx").expect("there");
    assert!(matches!(Broker::open(&fork), Err(OpenError::StateAheadOfLog { .. })));
}

#[test]
fn a_snapshot_of_another_history_is_refused() {
    // One directory, copied; both copies go on, each with groups of its own.
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    broker.commit_bytes(100);
    drop(broker);
    let other = disk.fork();
    other.set_links(1);
    let mut broker = Broker::open(&disk).expect("opens");
    broker.commit_bytes(100);
    broker.snapshot();
    let name = snapshots(&disk).pop().expect("one");
    other.set_content("unrelated", Vec::new());
    drop(Broker::open(&other).expect("opens"));
    let mut broker = Broker::open(&other).expect("opens");
    broker.commit_bytes(100);
    drop(broker);
    other.set_content(&name, disk.content(&name).expect("exists"));
    assert!(matches!(Broker::open(&other), Err(OpenError::StateAheadOfLog { .. })));
}

#[test]
fn a_snapshot_at_the_last_group_of_an_earlier_opening_can_be_taken_later() {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    broker.commit_bytes(100);
    let expected = broker.state.clone();
    let broker = broker.reopen().expect("opens");
    broker.snapshot();
    for _ in 0..2 {
        let broker = Broker::open(&disk.fork()).expect("opens");
        assert_eq!(broker.state, expected);
        assert_eq!(broker.report.groups_replayed, 0);
    }
}

#[test]
fn a_snapshot_is_due_by_bytes_and_not_while_one_was_just_begun() {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    broker.commit_bytes(900_000);
    assert!(!broker.journal.snapshot_due());
    broker.commit_bytes(200_000);
    assert!(broker.journal.snapshot_due());
    let broker = broker.reopen().expect("opens");
    assert!(broker.journal.snapshot_due(), "counted from the last snapshot, across openings");
    broker.snapshot();
    assert!(!broker.journal.snapshot_due());
    let broker = broker.reopen().expect("opens");
    assert!(!broker.journal.snapshot_due());
}

#[test]
#[should_panic(expected = "not durable")]
fn a_state_ahead_of_the_durable_end_is_never_kept() {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    broker.commit_bytes(100);
    broker.write(&[(0, vec![1])]).expect("room");
    broker.snapshot();
}

//! A disk that fails, lies or is full.

use std::time::Duration;

use broker_svc::{
    entry::{Entry, PartitionId, Trimmed},
    journal::{
        OpenError, Options, ReadError, Retention, SnapshotError, Step, WriteError,
        disk::Disk as _,
        sim_disk::{Operation, Pace, SimDisk},
    },
    workers::{DiskTime as _, Taken},
};
use oncelog_proto::Timestamp;

use crate::support::{Broker, offset, options, payload, segment};

#[test]
fn a_failed_write_is_fatal_and_stays_so() {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    broker.commit_bytes(10);
    disk.fail(Operation::Write, 0);
    assert!(matches!(broker.write(&[(0, payload(1, 9000))]), Err(WriteError::Fatal(_))));
    assert!(matches!(broker.write(&[(0, payload(1, 10))]), Err(WriteError::Fatal(_))));
    assert!(broker.journal.sync().is_err());
    assert!(broker.journal.write_marker(true).is_err());
    let (expected, broker) = (broker.state.clone(), broker.reopen().expect("opens"));
    assert_eq!(broker.state, expected, "half a group is no group");
}

#[test]
fn a_failed_sync_is_fatal_and_its_pages_are_written_again_by_the_next_opening() {
    for seed in 0..40 {
        let disk = SimDisk::new();
        let mut broker = Broker::open(&disk).expect("opens");
        broker.commit_bytes(10);
        let written = broker.write(&[(0, payload(1, 9000))]).expect("room");
        disk.fail(Operation::Sync, 0);
        assert!(broker.journal.sync().is_err());
        assert!(broker.journal.sync().is_err(), "never tried again as if nothing had happened");
        assert_eq!(broker.read_from(0, 0).expect("readable").len(), 1, "what was not synced is not read");
        drop(broker);
        // The process ends. The page cache still has the group, and calls it clean; the disk never got it.
        disk.restart();
        let broker = Broker::open(&disk).expect("opens");
        assert_eq!(broker.state, written);
        disk.crash(seed);
        let broker = Broker::open(&disk).expect("opens");
        assert_eq!(broker.state, written, "what an opening told is durable");
        broker.check_log();
    }
}

#[test]
fn a_failure_while_a_segment_is_rolled_is_fatal() {
    for (operation, times) in [(Operation::Sync, 2), (Operation::SyncDir, 1), (Operation::Name, 2)] {
        for nth in 0..times {
            let disk = SimDisk::new();
            let mut broker = Broker::open(&disk).expect("opens");
            broker.commit_bytes(900_000);
            disk.fail(operation, nth);
            assert!(matches!(broker.write(&[(0, payload(1, 900_000))]), Err(WriteError::Fatal(_))), "{operation:?} {nth}");
            let (expected, broker) = (broker.state.clone(), broker.reopen().expect("opens"));
            assert_eq!(broker.state, expected);
        }
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    broker.commit_bytes(900_000);
    disk.set_capacity(Some(disk.used() + 1000));
    let before = disk.content("00000000000000000001.log");
    for _ in 0..3 {
        match broker.write(&[(0, payload(1, 900_000))]) {
            Err(WriteError::NoSpace(e)) => assert_eq!((e.needed, e.free), (1 << 20, 1000)),
            other => panic!("{other:?}"),
        }
        assert_eq!(disk.content("00000000000000000001.log"), before, "nothing was written");
    }
    broker.commit_bytes(1000);
    broker.check_log();
    disk.set_capacity(None);
    broker.commit_bytes(900_000);
    let (expected, broker) = (broker.state.clone(), broker.reopen().expect("opens"));
    assert_eq!(broker.state, expected);
    broker.check_log();
}

/// The first segment of a directory is made while somebody waits for it, in space that was never written.
#[test]
fn a_segment_in_new_space_is_left_for_the_first_spare_and_one_in_a_spare_is_filled() {
    let disk = SimDisk::new();
    let mut broker = Broker::open_with(&disk, Options { spares: 1, ..options(&disk) }).expect("opens");
    let segment = |broker: &Broker| broker.journal.position().segment();
    broker.commit_bytes(100);
    let first = segment(&broker);
    broker.tidy();
    broker.commit_bytes(100);
    assert_eq!(segment(&broker), first + 1, "there was a spare");
    broker.tidy();
    assert_eq!(broker.journal.stats().spares, 1);
    broker.commit_bytes(100);
    assert_eq!(segment(&broker), first + 1, "its blocks have been written");
    let (expected, broker) = (broker.state.clone(), broker.reopen().expect("opens"));
    assert_eq!(broker.state, expected);
    broker.check_log();
}

#[test]
fn what_there_is_room_for_is_never_refused_and_room_is_found_again() {
    for (seed, spares) in (0..40).zip([0, 1].into_iter().cycle()) {
        let disk = SimDisk::new();
        let mut broker = Broker::open_with(&disk, Options { spares, ballast_bytes: 1 << 20, ..options(&disk) }).expect("opens");
        broker.tidy();
        disk.set_capacity(Some(disk.used() + (5 << 20)));
        let mut written = 0;
        loop {
            // Groups of very different lengths; each takes its data, and less than two blocks more.
            let len = payload(seed * 1000 + written, 8).iter().fold(1, |len, byte| (len * 7 + usize::from(*byte)) % 1_000_000);
            if broker.journal.room() < (len + 8192) as u64 {
                break;
            }
            broker.commit(&[(0, payload(written, len))]).expect("there is room for it");
            // On a full disk there is always something left to do.
            (0..20).for_each(|_| drop(broker.background.step().expect("the disk works")));
            written += 1;
        }
        assert!(written > 0, "an empty disk has room");
        disk.set_capacity(None);
        assert!(broker.journal.room() > 1 << 20);
        broker.check_log();
    }
}

#[test]
fn the_ballast_lets_a_full_disk_snapshot_trim_and_go_on() {
    let disk = SimDisk::new();
    let with = |disk: &SimDisk| Options { ballast_bytes: 1 << 20, ..options(disk) };
    let mut broker = Broker::open_with(&disk, with(&disk)).expect("opens");
    broker.tidy();
    assert!(disk.names().contains(&"BALLAST".to_owned()));
    for _ in 0..4 {
        broker.commit_bytes(900_000);
    }
    broker.tidy();
    broker.snapshot();
    broker.commit_bytes(1000);
    disk.set_capacity(Some(disk.used()));
    // Nothing grows any more, but for what makes room.
    broker.snapshot();
    assert!(!disk.names().contains(&"BALLAST".to_owned()));
    assert!(matches!(broker.commit(&[(0, payload(9, 900_000))]), Err(WriteError::NoSpace(_))));
    let limits = Retention { bytes: Some(0), age: None };
    let (through_segment, partitions) = broker.journal.plan_trim(limits, Timestamp::default()).expect("three may go");
    assert_eq!(through_segment, 3);
    broker.commit_entry(Entry::Trim { through_segment, partitions }).expect("urgent enough for the ballast");
    broker.tidy();
    assert!(disk.names().contains(&"BALLAST".to_owned()), "taken back before anything else");
    broker.commit_bytes(900_000);
    let (expected, broker) = (broker.state.clone(), broker.reopen().expect("opens"));
    assert_eq!(broker.state, expected);
}

#[test]
fn a_trim_gets_a_small_segment_from_the_ballast() {
    let disk = SimDisk::new();
    let with = Options { ballast_bytes: 1 << 20, segment_bytes: 2 << 20, ..options(&disk) };
    let mut broker = Broker::open_with(&disk, with).expect("opens");
    broker.tidy();
    broker.commit_bytes(1_000_000);
    // Fill the active segment so that not even a small group fits.
    while broker.journal.stats().segments == 1 {
        disk.set_capacity(Some(disk.used()));
        if broker.commit(&[(0, payload(3, 3_000))]).is_err() {
            break;
        }
    }
    let partitions = vec![Trimmed { partition: PartitionId(0), log_start: offset(0), bytes: 0 }];
    broker.commit_entry(Entry::Trim { through_segment: 0, partitions }).expect("from the ballast");
    assert!(!disk.names().contains(&"BALLAST".to_owned()));
    assert_eq!(disk.content("00000000000000000002.log").expect("rolled").len(), 1 << 20);
    let (expected, broker) = (broker.state.clone(), {
        disk.set_capacity(None);
        broker.reopen().expect("opens")
    });
    assert_eq!(broker.state, expected);
}

#[test]
fn an_opening_on_a_full_disk_spends_the_ballast_or_says_so() {
    let disk = SimDisk::new();
    let with = |disk: &SimDisk| Options { ballast_bytes: 1 << 20, segment_bytes: 2 << 20, ..options(disk) };
    let mut broker = Broker::open_with(&disk, with(&disk)).expect("opens");
    broker.tidy();
    broker.commit_bytes(1000);
    let expected = broker.state.clone();
    drop(broker);
    // Somebody else took what the sealed segment gives back.
    disk.set_capacity(Some((1 << 20) + 30_000));
    for _ in 0..2 {
        let broker = Broker::open_with(&disk, with(&disk)).expect("opens with the ballast, then without");
        assert_eq!(broker.state, expected);
    }
    disk.set_capacity(Some(0));
    assert!(matches!(Broker::open_with(&disk, with(&disk)), Err(OpenError::NoSpace(_))));
    disk.set_capacity(None);
    assert_eq!(Broker::open_with(&disk, with(&disk)).expect("opens").state, expected);
}

#[test]
fn a_first_group_too_long_for_the_small_segment_of_a_full_disk_leaves_no_empty_segment_behind() {
    // The machine stops at each change in turn; at last at none.
    for (earlier, stop_after) in (0..=1).flat_map(|earlier| (0..12).map(move |stop_after| (earlier, stop_after))) {
        let disk = SimDisk::new();
        let large = |disk: &SimDisk| Options { segment_bytes: 4 << 20, ..options(disk) };
        if earlier > 0 {
            Broker::open_with(&disk, large(&disk)).expect("opens").commit_bytes(1000);
            disk.crash(0);
        }
        disk.set_capacity(Some(2 << 20));
        let mut broker = Broker::open_with(&disk, large(&disk)).expect("there is room for a small segment");
        disk.set_capacity(None);
        disk.stop_after(stop_after);
        let data = payload(1, 2 << 20);
        let committed = broker.commit(&[(0, data)]).is_ok();
        assert!(committed || stop_after < 11, "no more changes than that");
        let expected = broker.state.clone();
        drop(broker);
        disk.crash(stop_after);
        let mut broker = Broker::open_with(&disk, large(&disk)).expect("opens");
        if committed {
            assert_eq!(broker.state, expected);
        }
        broker.tidy();
        broker.check_log();
    }
}

#[test]
fn a_torn_group_on_a_full_disk_is_kept_in_the_space_behind_it() {
    let disk = SimDisk::new();
    let mut broker = Broker::open_with(&disk, Options { segment_bytes: 4 << 20, ..options(&disk) }).expect("opens");
    broker.commit_bytes(1000);
    let expected = broker.state.clone();
    broker.write(&[(0, payload(1, 900_000))]).expect("room");
    drop(broker);
    disk.restart();
    // The group is torn, and the ballast was spent long ago.
    disk.flip_bit(&segment(1), 8 * 16_384);
    disk.set_capacity(Some(disk.used()));
    let broker = Broker::open_with(&disk, Options { segment_bytes: 4 << 20, ..options(&disk) }).expect("opens");
    assert_eq!(broker.state, expected);
    assert!(broker.report.cut.is_some());
}

#[test]
fn a_snapshot_or_spare_that_fails_is_dropped_and_tried_again() {
    let disk = SimDisk::new();
    let mut broker = Broker::open_with(&disk, Options { spares: 1, ..options(&disk) }).expect("opens");
    let at = broker.commit_bytes(10);
    let writer = broker.journal.snapshot_writer();
    for operation in [Operation::Write, Operation::Sync] {
        disk.fail(operation, 0);
        assert!(matches!(writer.write(at, &mut broker.state.chunks()), Err(SnapshotError::Dropped { .. })));
    }
    disk.fail(Operation::SyncDir, 0);
    assert!(matches!(writer.write(at, &mut broker.state.chunks()), Err(SnapshotError::Fatal(_))));
    writer.write(at, &mut broker.state.chunks()).expect("the disk works again");

    disk.fail(Operation::Sync, 0);
    let mut postponed = 0;
    for _ in 0..20 {
        postponed += usize::from(matches!(broker.background.step().expect("not fatal"), Step::Postponed { .. }));
    }
    assert_eq!(postponed, 1);
    assert_eq!(broker.journal.stats().spares, 1);
    assert!(!disk.names().iter().any(|name| name.ends_with("unfinished")), "{:?}", disk.names());
}

#[test]
fn a_spare_becomes_the_next_segment() {
    let disk = SimDisk::new();
    let mut broker = Broker::open_with(&disk, Options { spares: 2, ..options(&disk) }).expect("opens");
    broker.tidy();
    assert_eq!(broker.journal.stats().spares, 2);
    broker.commit_bytes(900_000);
    assert_eq!(broker.journal.stats().spares, 1, "it took the place of the segment that was empty");
    disk.set_capacity(Some(disk.used()));
    broker.commit_bytes(900_000);
    assert_eq!(broker.journal.stats().spares, 0, "no space was needed");
    assert!(matches!(broker.commit(&[(0, payload(9, 900_000))]), Err(WriteError::NoSpace(_))));
    disk.set_capacity(None);
    let (expected, broker) = (broker.state.clone(), broker.reopen().expect("opens"));
    assert_eq!(broker.state, expected);
    broker.check_log();
}

/// What is read along with it, because it stands near it, may be of other partitions.
#[test]
fn a_sector_that_cannot_be_read_costs_its_batch_and_no_neighbour() {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    let bytes = [payload(0, 10_000), payload(1, 10_000), payload(2, 10_000)];
    let [first, other, second] = bytes.clone();
    let batches = [(0, first), (1, other), (0, second), (0, payload(3, 10_000))];
    broker.commit(&batches).expect("room");
    let content = disk.content(&segment(1)).expect("a segment");
    let at = |bytes: &[u8]| content.windows(bytes.len()).position(|window| window == bytes).expect("it is there") as u64;
    // Between two of partition 0.
    disk.spoil(&segment(1), at(&bytes[1])..at(&bytes[1]) + 512);
    assert_eq!(broker.read_from(0, 0).expect("all of it is sound").len(), 3);
    let error = broker.read_from(1, 0).expect_err("it cannot be read");
    assert!(matches!(error, ReadError::Damaged { next: Some(next), .. } if next == offset(1)), "{error:?}");
    // Among its own: what is before it is told, and where to go on.
    disk.spoil(&segment(1), at(&bytes[2])..at(&bytes[2]) + 512);
    let read = broker.journal.reader().read(PartitionId(0), offset(0), 100_000).expect("the first one is sound");
    assert_eq!(read.len(), 1);
    let error = broker.journal.reader().read(PartitionId(0), offset(1), 100_000).expect_err("the second one is not");
    assert!(matches!(error, ReadError::Damaged { next: Some(next), .. } if next == offset(2)), "{error:?}");
    assert_eq!(broker.read_from(0, 2).expect("sound").len(), 1);
}

#[test]
fn an_index_or_a_spare_that_cannot_be_read_is_made_anew() {
    let disk = SimDisk::new();
    let mut broker = Broker::open_with(&disk, Options { spares: 1, ..options(&disk) }).expect("opens");
    for _ in 0..3 {
        broker.commit_bytes(900_000);
        broker.tidy();
    }
    let names = disk.names();
    let index = names.iter().find(|name| name.ends_with(".idx")).expect("an index");
    let spare = names.iter().find(|name| name.starts_with("spare-")).expect("a spare");
    disk.spoil(index, 0..1 << 20);
    disk.spoil(spare, 0..4096);
    broker.check_log();
    broker.commit_bytes(900_000);
    broker.check_log();
    let (expected, mut broker) = (broker.state.clone(), broker.reopen().expect("opens"));
    assert_eq!(broker.state, expected);
    broker.tidy();
    broker.check_log();
}

#[test]
fn a_read_does_not_end_the_sync_that_somebody_else_waits_for() {
    let pages = |settled: fn(&SimDisk, Taken, Taken)| {
        let disk = SimDisk::new();
        disk.set_pace(1, Some(Pace { write: Duration::from_micros(1), sync: Duration::from_millis(100) }));
        let file = disk.create("a").expect("room");
        disk.sync_dir().expect("the disk works");
        file.write_at(&[std::io::IoSlice::new(&[7; 64 * 4096])], 0).expect("room");
        disk.over(disk.take());
        file.sync_data().expect("the disk works");
        let committer = disk.take();
        let reader = disk.take();
        settled(&disk, committer, reader);
        let loss = disk.crash(3);
        loss.pages + loss.kept_pages
    };
    assert_eq!(pages(|disk, _, reader| disk.over(reader)), 64, "a power loss has all of them to choose from");
    assert_eq!(pages(|disk, committer, _| disk.over(committer)), 0);
}

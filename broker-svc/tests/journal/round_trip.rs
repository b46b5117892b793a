//! What was committed is what is folded and read, across openings, segments and blocks.

use std::{sync::Arc, time::Duration};

use broker_svc::{
    entry::{Entry, PartitionId, TokenHash},
    journal::{GroupDraft, OpenError, Options, ReadError, RealDisk, disk::FileSystem, open, sim_disk::SimDisk},
};
use bytes::Bytes;
use oncelog_proto::{Epoch, ProducerId, Timestamp, TopicName, topic::PartitionCount};

use crate::support::{Broker, State, append, offset, options, payload, segment};

#[test]
fn every_kind_of_entry_comes_back_after_a_restart() {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    assert!(broker.report.first_opening);
    let topic = TopicName::parse("t").expect("allowed");
    let producer = ProducerId::new(7).expect("valid");
    let entries = [
        Entry::Opened { downtime: Duration::from_secs(3), is_clock_doubtful: true },
        Entry::CreateTopic { topic: topic.clone(), first_partition: PartitionId(4), partitions: PartitionCount::ONE },
        Entry::InitProducer { producer, epoch: Epoch::ZERO, token: Some(TokenHash([1; 16])) },
        Entry::Seen { producer },
        Entry::LostRange { partition: PartitionId(4), from: offset(1), to: offset(2) },
        Entry::DeleteTopic { topic },
        Entry::Expire { producer },
    ];
    for entry in entries {
        broker.commit_entry(entry).expect("room");
    }
    broker.commit(&[(0, payload(0, 10)), (1, payload(1, 5000)), (0, payload(2, 3))]).expect("room");
    let (before, position) = (broker.state.clone(), broker.journal.position());
    let broker = broker.reopen().expect("opens");
    assert_eq!(broker.state, before);
    assert_eq!((broker.journal.position(), broker.report.last), (position, position));
    assert_eq!(broker.report.groups_replayed, 8);
    assert!(!broker.report.first_opening);
    assert_eq!(broker.report.cut, None);
    broker.check_log();
}

#[test]
fn the_same_works_on_a_real_disk() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = |seed| Options { segment_bytes: 1 << 20, ballast_bytes: 1 << 20, ..Options::new(seed) };
    let mut written = State::default();
    for seed in 0..3 {
        let disk = Arc::new(RealDisk::open(directory.path()).expect("opens"));
        let mut state = State::default();
        let (mut journal, _) = open(disk, options(seed), &mut state, &mut |_| {}).expect("opens");
        assert_eq!(state, written);
        let mut background = journal.take_background().expect("the first time");
        for round in 0..40 {
            let mut draft = GroupDraft::new(journal.group_limit());
            let base = state.next(0);
            let data = payload(base, 50_000);
            draft.append(append(0, base, &data), Bytes::from(data));
            let time = Timestamp::from_micros(seed * 1000 + round);
            let group = draft.finish(time);
            journal.write(&group).expect("written");
            let position = journal.sync().expect("synced");
            broker_svc::journal::Replay::apply(&mut state, position.group(), time, &group.entries()[0]).expect("folded");
            background.step().expect("the disk works");
        }
        journal.snapshot_writer().write(journal.position(), &mut state.chunks()).expect("taken");
        let reader = journal.reader();
        let mut next = 0;
        while let Some(batch) = reader.read(PartitionId(0), offset(next), 1).expect("readable").first() {
            assert_eq!(batch.data, payload(next, 50_000));
            next += 1;
        }
        assert_eq!(next, state.next(0));
        written = state;
    }
}

/// Much that is written goes past the page cache, and what is read comes through it: a reader at the heels of the writer, whose
/// reads bring blocks into the cache that are about to be written, never meets what stood there before.
#[test]
fn a_reader_that_follows_on_a_real_disk_sees_what_was_written() {
    const BATCHES: i64 = 150;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = Arc::new(RealDisk::open(directory.path()).expect("opens"));
    let options = Options { segment_bytes: 4 << 20, ballast_bytes: 0, ..Options::new(7) };
    let mut state = State::default();
    let (mut journal, _) = open(disk, options, &mut state, &mut |_| {}).expect("opens");
    let len = |number: i64| 100 + usize::try_from(number * 79_190 % 600_000).expect("small");
    let reader = journal.reader();
    let follower = std::thread::spawn(move || {
        let mut next = 0;
        while next < BATCHES {
            for batch in reader.read(PartitionId(0), offset(next), 1 << 20).expect("never damaged, never stale") {
                assert_eq!(batch.data, payload(next, len(next)));
                next += 1;
            }
        }
    });
    for number in 0..BATCHES {
        let data = payload(number, len(number));
        let mut draft = GroupDraft::new(journal.group_limit());
        draft.append(append(0, number, &data), Bytes::from(data));
        let time = Timestamp::from_micros(u64::try_from(number).expect("not negative"));
        journal.write(&draft.finish(time)).expect("written");
        journal.sync().expect("synced");
    }
    follower.join().expect("it read everything");
}

#[test]
fn a_read_goes_across_groups_blocks_segments_and_openings() {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    let mut number = 0;
    for round in 0..30 {
        let batches: Vec<_> = (0..300_u32)
            .map(|i| {
                number += 1;
                (if i % 5 == 0 { 1 } else { 0 }, payload(number, 200 + usize::try_from(i).expect("small")))
            })
            .collect();
        broker.commit(&batches).expect("room");
        if round == 17 {
            broker = broker.reopen().expect("opens");
        }
    }
    assert!(broker.journal.stats().segments >= 4);
    broker.check_log();
    for from in [0, 1, 1023, 1024, 1025, 4000] {
        let expected = broker.read_from(0, 0).expect("readable").split_off(usize::try_from(from).expect("small"));
        assert_eq!(broker.read_from(0, from).expect("readable"), expected);
    }
}

#[test]
fn a_read_ends_at_its_limit_and_holds_at_least_one_batch() {
    let mut broker = Broker::open(&SimDisk::new()).expect("opens");
    for len in [100, 100, 100] {
        broker.commit_bytes(len);
    }
    let reader = broker.journal.reader();
    let count = |max| reader.read(PartitionId(0), offset(0), max).expect("readable").len();
    assert_eq!([count(0), count(100), count(101), count(200), count(201), count(1000)], [1, 1, 2, 2, 3, 3]);
    assert_eq!(reader.read(PartitionId(0), offset(3), 1000).expect("readable"), []);
    assert_eq!(reader.read(PartitionId(9), offset(0), 1000).expect("readable"), []);
    assert_eq!(reader.oldest_append_time(PartitionId(0), offset(1)), Some(Timestamp::from_micros(2)));
    assert_eq!(reader.oldest_append_time(PartitionId(0), offset(3)), None);
}

#[test]
fn an_offset_within_a_batch_finds_the_batch() {
    let mut broker = Broker::open(&SimDisk::new()).expect("opens");
    let data = Bytes::from_static(b"three records");
    let three = broker_svc::entry::Append { count: 3.try_into().expect("valid"), ..append(0, 0, &data) };
    let mut draft = GroupDraft::new(broker.journal.group_limit());
    draft.append(three, data);
    broker.journal.write(&draft.finish(Timestamp::from_micros(1))).expect("room");
    broker.journal.sync().expect("the disk works");
    let reader = broker.journal.reader();
    for from in 0..3 {
        assert_eq!(reader.read(PartitionId(0), offset(from), 1).expect("readable").len(), 1);
    }
    assert_eq!(reader.read(PartitionId(0), offset(3), 1).expect("readable").len(), 0);
}

#[test]
fn what_is_not_synced_is_not_read() {
    let mut broker = Broker::open(&SimDisk::new()).expect("opens");
    broker.commit_bytes(10);
    broker.write(&[(0, payload(1, 10))]).expect("room");
    assert_eq!(broker.read_from(0, 0).expect("readable").len(), 1);
    broker.journal.sync().expect("the disk works");
    assert_eq!(broker.read_from(0, 0).expect("readable").len(), 2);
}

#[test]
fn the_durable_number_moves_from_the_second_group_on() {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    for expected in 0..4_u64 {
        let start = 4096 * (1 + usize::try_from(expected).expect("small"));
        broker.commit_bytes(10);
        let file = disk.content(&segment(1)).expect("exists");
        let field = |at: usize| u64::from_le_bytes(file[start + at..start + at + 8].try_into().expect("eight bytes"));
        assert_eq!((field(32), field(40)), (expected + 1, expected), "number and durable number");
    }
}

#[test]
fn every_opening_begins_a_segment_and_an_empty_one_is_replaced() {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    broker.commit_bytes(10);
    let mut headers = Vec::new();
    for _ in 0..3 {
        broker = broker.reopen().expect("opens");
        assert_eq!(broker.journal.stats().segments, 2);
        headers.push(disk.content(&segment(2)).expect("exists")[..4096].to_vec());
    }
    assert!(headers[0] != headers[1] && headers[1] != headers[2], "each has a salt of its own");
    assert_eq!(broker.report.opening, 4);
    broker.commit_bytes(10);
    let broker = broker.reopen().expect("opens");
    assert_eq!(broker.journal.stats().segments, 3);
    broker.check_log();
}

#[test]
fn a_marker_is_written_once_and_a_clean_stop_is_told() {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    broker.journal.write_marker(false).expect("the disk works");
    assert_eq!(broker.journal.position().group().get(), 0, "nothing to be a witness of");
    broker.commit_bytes(10);
    for expected in [2, 2] {
        broker.journal.write_marker(false).expect("the disk works");
        assert_eq!(broker.journal.position().group().get(), expected);
    }
    let mut broker = broker.reopen().expect("opens");
    assert!(!broker.report.clean);
    for _ in 0..2 {
        broker.journal.write_marker(true).expect("the disk works");
        assert_eq!(broker.journal.position().group().get(), 3);
    }
    let broker = broker.reopen().expect("opens");
    assert!(broker.report.clean);
    assert_eq!(broker.report.groups_replayed, 3);
}

#[test]
fn the_largest_group_fits_the_smallest_segment_with_its_markers() {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    let most = options(&disk).max_batch_bytes();
    for _ in 0..3 {
        broker.commit_bytes(most);
        broker.journal.write_marker(false).expect("the disk works");
        broker.journal.write_marker(true).expect("the disk works");
    }
    assert_eq!(broker.journal.stats().segments, 3);
    let broker = broker.reopen().expect("opens");
    broker.check_log();
}

#[test]
fn a_journal_is_open_once() {
    let disk = SimDisk::new();
    let broker = Broker::open(&disk).expect("opens");
    assert!(matches!(Broker::open(&disk), Err(OpenError::Locked)));
    let reader = broker.journal.reader();
    drop(broker);
    assert!(matches!(Broker::open(&disk), Err(OpenError::Locked)), "a handle can still touch it");
    drop(reader);
    assert!(Broker::open(&disk).is_ok());
}

#[test]
fn a_network_file_system_is_refused_and_a_doubtful_one_is_told() {
    let disk = SimDisk::new();
    disk.set_file_system(FileSystem::Network("NFS"));
    assert!(matches!(Broker::open(&disk), Err(OpenError::NetworkFileSystem("NFS"))));
    assert_eq!(disk.names(), Vec::<String>::new());
    disk.set_file_system(FileSystem::Doubtful("tmpfs"));
    assert_eq!(Broker::open(&disk).expect("opens").report.doubtful_file_system, Some("tmpfs"));
}

#[test]
fn a_gap_in_a_partition_is_told_as_trimmed() {
    let mut broker = Broker::open(&SimDisk::new()).expect("opens");
    broker.commit_bytes(10);
    let data = payload(5, 10);
    let mut draft = GroupDraft::new(broker.journal.group_limit());
    draft.append(append(0, 5, &data), data.into());
    broker.journal.write(&draft.finish(Timestamp::from_micros(9))).expect("room");
    broker.journal.sync().expect("the disk works");
    let reader = broker.journal.reader();
    assert_eq!(reader.read(PartitionId(0), offset(0), 1000).expect("readable").len(), 1);
    assert!(matches!(reader.read(PartitionId(0), offset(1), 1000), Err(ReadError::Trimmed { next }) if next == offset(5)));
    assert_eq!(reader.read(PartitionId(0), offset(5), 1000).expect("readable").len(), 1);
}

//! Indexes are derived: missing, damaged or foreign, they are made anew, and no reader notices.

use broker_svc::journal::{Options, ReadError, disk::Disk, sim_disk::SimDisk};

use crate::support::{Broker, options, payload, segment};

fn index(number: u64) -> String {
    format!("{number:020}.idx")
}

/// Three sealed segments with many small batches of three partitions, and an active one.
fn journal() -> (SimDisk, Broker) {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    for round in 0..16 {
        let batches: Vec<_> = (0..800).map(|i| (u32::try_from(i % 3).expect("small"), payload(round * 1000 + i, 200))).collect();
        broker.commit(&batches).expect("room");
    }
    broker.tidy();
    assert!(broker.journal.stats().segments >= 4);
    assert_eq!(broker.journal.stats().unindexed, 0);
    (disk, broker)
}

#[test]
fn a_missing_cut_or_foreign_index_is_made_anew_by_an_opening() {
    let (disk, broker) = journal();
    drop(broker);
    assert_eq!(Broker::open(&disk.fork()).expect("opens").report.indexes_rebuilt, 1, "of the segment that was active");
    let whole = disk.content(&index(2)).expect("exists");
    let other = disk.content(&index(1)).expect("exists");
    for content in [None, Some(Vec::new()), Some(whole[..500].to_vec()), Some(other)] {
        let fork = disk.fork();
        match content {
            None => fork.remove(&index(2)).expect("there"),
            Some(content) => fork.set_content(&index(2), content),
        }
        let broker = Broker::open(&fork).expect("opens");
        assert_eq!(broker.report.indexes_rebuilt, 2);
        assert_eq!(fork.content(&index(2)).expect("exists"), whole);
        broker.check_log();
    }
}

#[test]
fn a_flipped_bit_in_an_index_is_noticed_at_the_opening_or_by_the_reader() {
    let (disk, broker) = journal();
    drop(broker);
    let len = disk.content(&index(1)).expect("exists").len() as u64;
    for bit in (0..len * 8).step_by(len as usize / 3) {
        let fork = disk.fork();
        fork.flip_bit(&index(1), bit);
        Broker::open(&fork).expect("opens").check_log();
    }
}

#[test]
fn an_index_that_goes_or_rots_under_a_reader_is_made_anew() {
    let (disk, mut broker) = journal();
    disk.remove(&index(1)).expect("there");
    let rotten = disk.content(&index(2)).expect("exists").iter().map(|byte| !byte).collect();
    disk.set_content(&index(2), rotten);
    broker.check_log();
    assert!(broker.journal.stats().unindexed > 0);
    broker.tidy();
    assert_eq!(broker.journal.stats().unindexed, 0);
    broker.check_log();
}

#[test]
fn an_index_that_cannot_be_written_stays_in_memory_until_it_can() {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    for _ in 0..3 {
        broker.commit_bytes(900_000);
    }
    disk.set_capacity(Some(disk.used()));
    broker.background.step().expect("not fatal");
    assert_eq!(broker.journal.stats().unindexed, 2);
    broker.check_log();
    disk.set_capacity(None);
    broker.tidy();
    assert_eq!(broker.journal.stats().unindexed, 0);
    broker.check_log();
}

#[test]
fn damaged_data_is_refused_for_its_range_only() {
    let disk = SimDisk::new();
    let mut broker = Broker::open_with(&disk, Options { ..options(&disk) }).expect("opens");
    for _ in 0..5 {
        broker.commit_bytes(5000);
    }
    // The third group starts behind the header and two groups of two blocks.
    disk.flip_bit(&segment(1), (4096 * 5 + 3000) * 8);
    let reader = broker.journal.reader();
    let partition = broker_svc::entry::PartitionId(0);
    let good = reader.read(partition, crate::support::offset(0), usize::MAX).expect("the good part");
    assert_eq!(good.len(), 2);
    match reader.read(partition, crate::support::offset(2), usize::MAX) {
        Err(ReadError::Damaged { file, next, .. }) => {
            assert_eq!((file, next), (segment(1), Some(crate::support::offset(3))));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(broker.read_from(0, 3).expect("readable").len(), 2);
}

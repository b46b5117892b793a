//! An inspection reads every byte, tells what is wrong, and changes nothing.

use std::sync::Arc;

use broker_svc::journal::{Inspected, Inspection, OpenError, disk::Disk, sim_disk::SimDisk};

use crate::support::{Broker, State, payload, segment};

/// Sealed segments of three partitions with indexes, snapshots, and an active segment.
fn journal() -> (SimDisk, State) {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    for round in 0..8 {
        let batches: Vec<_> = (0..800).map(|i| (u32::try_from(i % 3).expect("small"), payload(round * 1000 + i, 200))).collect();
        broker.commit(&batches).expect("room");
        if round % 3 == 0 {
            broker.snapshot();
        }
    }
    broker.tidy();
    let state = broker.state.clone();
    (disk, state)
}

fn inspect(disk: &SimDisk) -> Result<(Inspected, Vec<State>), OpenError> {
    let mut inspection = Inspection::begin(Arc::new(disk.clone()))?;
    let mut states = Vec::new();
    for base in inspection.bases() {
        let mut state = State::default();
        inspection.fold(base, &mut state, &mut |_| {})?;
        states.push(state);
    }
    Ok((inspection.read(&mut |_| {}, &mut |_| {})?, states))
}

#[test]
fn a_sound_journal_is_read_whole_and_every_base_leads_to_its_state() {
    let (disk, expected) = journal();
    let changes = disk.changes();
    let mut batches = 0;
    let (inspected, states) = inspect(&disk).expect("sound");
    assert_eq!(states, [expected.clone(), expected.clone(), expected], "two snapshots and the beginning");
    let inspection = Inspection::begin(Arc::new(disk.clone())).expect("sound");
    inspection.read(&mut |_| batches += 1, &mut |_| {}).expect("sound");
    assert_eq!((inspected.batches, batches, inspected.fault_count), (6_400, 6_400, 0));
    assert_eq!((inspected.indexes, inspected.missing_indexes), (inspected.segments - 1, 0));
    assert!(inspected.segments >= 2);
    assert_eq!(disk.changes(), changes, "nothing was changed");
}

#[test]
fn a_bit_of_the_data_is_told_with_file_and_byte_and_the_rest_is_read() {
    let (disk, _) = journal();
    let content = disk.content(&segment(1)).expect("exists");
    let data = payload(0, 200);
    let at = content.windows(data.len()).position(|window| window == data).expect("it is there");
    disk.flip_bit(&segment(1), at as u64 * 8);
    let (inspected, _) = inspect(&disk).expect("headers are sound");
    assert_eq!((inspected.batches, inspected.fault_count), (6_399, 1));
    assert!(inspected.faults[0].contains(&segment(1)) && inspected.faults[0].contains(&format!("byte {at}:")), "{inspected:?}");
}

#[test]
fn an_index_that_lies_and_one_that_is_missing_are_told_apart() {
    let (disk, _) = journal();
    let index = |number: u64| format!("{number:020}.idx");
    let (before, _) = inspect(&disk).expect("sound");
    let len = disk.content(&index(1)).expect("exists").len() as u64;
    for bit in [8, len * 4, len * 8 - 1] {
        let fork = disk.fork();
        fork.flip_bit(&index(1), bit);
        let (inspected, _) = inspect(&fork).expect("an index is derived");
        assert_eq!((inspected.indexes, inspected.fault_count), (before.indexes - 1, 1), "bit {bit}");
    }
    disk.remove(&index(1)).expect("there");
    let (inspected, _) = inspect(&disk).expect("an index is derived");
    assert_eq!((inspected.missing_indexes, inspected.fault_count), (1, 0));
}

#[test]
fn damage_of_a_directory_is_refused_as_an_opening_would_and_an_open_journal_is_left_alone() {
    let (disk, _) = journal();
    let open = Broker::open(&disk.fork()).expect("sound");
    assert!(matches!(Inspection::begin(Arc::new(open.disk.clone())), Err(OpenError::Locked)));
    disk.flip_bit(&segment(1), (4096 + 200) * 8);
    assert!(matches!(inspect(&disk), Err(OpenError::Damaged { .. })));
}

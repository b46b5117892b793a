//! An outline tells what a journal is made of, and says the same as a reading of all of it.

use std::sync::Arc;

use broker_svc::journal::{Inspection, disk::Disk, sim_disk::SimDisk};

use crate::support::{Broker, payload, segment};

#[test]
fn an_outline_counts_what_a_reading_of_everything_counts_and_changes_nothing() {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    for round in 0..6 {
        let batches: Vec<_> = (0..800).map(|i| (u32::try_from(i % 3).expect("small"), payload(round * 1000 + i, 200))).collect();
        broker.commit(&batches).expect("room");
        if round == 3 {
            broker.snapshot();
        }
    }
    broker.tidy();
    drop(broker);
    let changes = disk.changes();
    let inspection = Inspection::begin(Arc::new(disk.clone())).expect("sound");
    let outline = inspection.outline(&mut |_| {}).expect("sound");
    let read = inspection.read(&mut |_| {}, &mut |_| {}).expect("sound");
    assert_eq!(outline.segments.len() as u64, read.segments);
    assert_eq!(outline.segments.iter().map(|segment| segment.batches).sum::<u64>(), 4_800);
    assert_eq!(outline.segments.iter().map(|segment| segment.data_bytes).sum::<u64>(), read.bytes);
    assert_eq!(outline.segments.iter().filter(|segment| segment.is_indexed).count() as u64, read.indexes);
    let last: Vec<_> = outline.segments.iter().filter(|segment| segment.is_last).map(|segment| segment.file.clone()).collect();
    assert_eq!(last, [segment(read.segments)]);
    for pair in outline.segments.windows(2) {
        assert_eq!(pair[0].first_group + pair[0].groups, pair[1].first_group, "groups are counted across segments");
        assert!(pair[0].used_bytes < pair[0].file_bytes && pair[0].times <= pair[1].times);
    }
    assert!(outline.segments.len() > 1 && outline.segments.iter().all(|segment| !segment.is_trimmed));
    let (position, bases) = (inspection.bases()[0].position().expect("a snapshot"), inspection.bases());
    assert!(position.group().get() > 0 && bases.last().is_some_and(|base| base.position().is_none()));
    assert!(outline.others.iter().any(|(name, _)| name == "FORMAT") && outline.cluster.is_some());
    assert_eq!(disk.changes(), changes);
}

#[test]
fn an_empty_directory_has_an_empty_outline() {
    let disk = SimDisk::new();
    let inspection = Inspection::begin(Arc::new(disk.clone())).expect("empty");
    let outline = inspection.outline(&mut |_| {}).expect("empty");
    assert_eq!((outline.cluster, outline.segments.len()), (None, 0));
    assert_eq!(disk.list().expect("empty").len(), outline.others.len());
}

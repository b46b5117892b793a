//! The end of the journal: plain, torn or damaged. Damage is never taken for a torn group.

use broker_svc::journal::{OpenError, ReadError, sim_disk::SimDisk};

use crate::support::{Broker, payload, segment};

/// A journal of one segment: groups of one small batch, not stopped cleanly. Returns what was committed after each.
fn small_journal(groups: i64, marker: bool) -> (SimDisk, Vec<Committed>) {
    let disk = SimDisk::new();
    let mut broker = Broker::open(&disk).expect("opens");
    let mut states = vec![Committed { lines: Vec::new() }];
    for i in 0..groups {
        broker.commit(&[(0, payload(i, 20))]).expect("room");
        states.push(Committed { lines: broker.state.lines.clone() });
    }
    if marker {
        broker.journal.write_marker(false).expect("the disk works");
    }
    drop(broker);
    disk.restart();
    (disk, states)
}

struct Committed {
    lines: Vec<String>,
}

/// Bits of a small group: header, directory and data all of them, the padding in samples.
fn bits(group_start: u64) -> impl Iterator<Item = u64> {
    let used = 96 + 60 + 20;
    let all = group_start * 8..(group_start + used) * 8;
    all.chain(((group_start + used) * 8..(group_start + 4096) * 8).step_by(397))
}

#[test]
fn no_flipped_bit_of_the_last_three_groups_is_silent() {
    for marker in [false, true] {
        let (disk, states) = small_journal(4, marker);
        let whole = &states[4].lines;
        let groups = if marker { 5 } else { 4 };
        let (mut refused, mut cut, mut unharmed) = (0, 0, 0);
        for group in groups - 2..=groups {
            for bit in bits(4096 * group) {
                let disk = disk.fork();
                disk.flip_bit(&segment(1), bit);
                match Broker::open(&disk) {
                    Err(OpenError::Damaged { file, position, .. }) => {
                        assert_eq!((file, position), (segment(1), 4096 * group), "bit {bit}");
                        assert_ne!(group, groups, "the last group has no witness");
                        refused += 1;
                    }
                    Err(OpenError::NewerFormat { .. }) => refused += 1,
                    Err(e) => panic!("bit {bit}: {e}"),
                    Ok(broker) if broker.report.cut.is_some() => {
                        assert_eq!(group, groups, "bit {bit}: only the last group is ever cut");
                        let left = usize::try_from(if marker { 4 } else { 3 }).expect("small");
                        assert_eq!(broker.state.lines, states[left].lines, "bit {bit}");
                        broker.check_log();
                        cut += 1;
                    }
                    Ok(broker) => {
                        assert_eq!(&broker.state.lines, whole, "bit {bit}");
                        match broker.read_from(0, 0) {
                            Ok(read) => assert_eq!(read.len(), 4),
                            Err(ReadError::Damaged { position, next, .. }) => {
                                assert_ne!(group, groups, "what is above the durable number is checked at the opening");
                                assert_eq!(position / 4096, group);
                                let next = next.expect("known").get();
                                assert_eq!(next, i64::try_from(group).expect("small"));
                                assert_eq!(broker.read_from(0, next).expect("the rest is readable").len() as i64, 4 - next);
                            }
                            Err(e) => panic!("bit {bit}: {e}"),
                        }
                        unharmed += 1;
                    }
                }
            }
        }
        assert!(refused > 1000 && cut > 500 && unharmed > 100, "{refused} refused, {cut} cut, {unharmed} unharmed");
    }
}

#[test]
fn a_group_with_a_marker_behind_it_is_never_cut() {
    let (disk, _) = small_journal(2, true);
    let before = disk.fork();
    // Its header's magic: it looks as if nothing had been written there.
    for bit in 8192 * 8..8200 * 8 {
        disk.flip_bit(&segment(1), bit);
    }
    let names = disk.names();
    match Broker::open(&disk) {
        Err(OpenError::Damaged { position: 8192, what, .. }) => assert!(what.contains("durable"), "{what}"),
        other => panic!("{:?}", other.map(|b| b.report)),
    }
    assert_eq!(disk.names(), names, "nothing was changed");
    assert!(Broker::open(&before).is_ok());
}

#[test]
fn zeros_over_an_acknowledged_group_are_damage_too() {
    let (disk, _) = small_journal(3, false);
    let mut file = disk.content(&segment(1)).expect("exists");
    file[8192..12288].fill(0);
    disk.set_content(&segment(1), file);
    assert!(matches!(Broker::open(&disk), Err(OpenError::Damaged { position: 8192, .. })));
}

#[test]
fn the_plain_end_is_not_reported_and_leaves_nothing_behind() {
    let (disk, states) = small_journal(3, false);
    let broker = Broker::open(&disk).expect("opens");
    assert_eq!(broker.report.cut, None);
    assert_eq!(broker.state.lines, states[3].lines);
    assert!(!disk.names().iter().any(|name| name.starts_with("torn")));
    assert_eq!(disk.content(&segment(1)).expect("exists").len(), 5 * 4096, "sealed a block behind its end");
}

#[test]
fn a_torn_group_is_kept_aside_cut_and_reported() {
    let (disk, states) = small_journal(3, false);
    let mut file = disk.content(&segment(1)).expect("exists");
    file[3 * 4096 + 150..].fill(0);
    disk.set_content(&segment(1), file.clone());
    let broker = Broker::open(&disk).expect("opens");
    let cut = broker.report.cut.clone().expect("reported");
    assert_eq!((cut.file.as_str(), cut.position), (segment(1).as_str(), 3 * 4096));
    assert!(cut.bytes <= 150);
    let copy = disk.content(&cut.copy).expect("kept");
    assert_eq!(copy, file[3 * 4096..][..copy.len()]);
    assert_eq!(broker.state.lines, states[2].lines);
    let settled = disk.content(&segment(1)).expect("exists");
    assert!(settled[3 * 4096..].iter().all(|byte| *byte == 0), "nothing of it is left behind the end");
    let broker = broker.reopen().expect("opens");
    assert_eq!(broker.report.cut, None, "it is settled");
}

#[test]
fn a_shorter_group_over_a_torn_one_brings_nothing_back() {
    for seed in 0..60 {
        let disk = SimDisk::new();
        let mut broker = Broker::open(&disk).expect("opens");
        broker.commit_bytes(100);
        // Many blocks, in flight when the power goes; any of them may be on the disk.
        let torn: Vec<_> = (0..200).map(|i| (0, payload(i, 300))).collect();
        broker.write(&torn).expect("room");
        disk.crash(seed);
        let mut broker = Broker::open(&disk).expect("opens");
        let recovered = broker.state.lines.len();
        assert!(recovered == 1 || recovered == 201, "whole or not at all");
        broker.commit_bytes(50);
        let expected = broker.state.clone();
        disk.crash(seed + 1);
        let broker = Broker::open(&disk).expect("opens");
        assert_eq!(broker.state, expected);
        broker.check_log();
    }
}

#[test]
fn only_the_newest_copies_of_torn_groups_are_kept() {
    let disk = SimDisk::new();
    let mut cuts = 0;
    for seed in 0..60 {
        let mut broker = Broker::open(&disk).expect("opens");
        cuts += usize::from(broker.report.cut.is_some());
        broker.commit_bytes(10);
        let torn: Vec<_> = (0..50).map(|i| (0, payload(i, 300))).collect();
        broker.write(&torn).expect("room");
        disk.crash(seed);
    }
    assert!(cuts > 8, "{cuts} cuts");
    let copies = disk.names().iter().filter(|name| name.starts_with("torn")).count();
    assert_eq!(copies, 8);
}

#[test]
fn a_missing_middle_file_is_refused_by_name() {
    let disk = SimDisk::new();
    for _ in 0..4 {
        let mut broker = Broker::open(&disk).expect("opens");
        broker.commit_bytes(10);
    }
    for missing in [1, 2, 3] {
        let fork = disk.fork();
        broker_svc::journal::disk::Disk::remove(&fork, &segment(missing)).expect("there");
        match Broker::open(&fork) {
            Err(OpenError::Damaged { file, .. }) => assert_eq!(file, segment(missing)),
            other => panic!("{:?}", other.map(|b| b.report)),
        }
    }
}

#[test]
fn a_segment_that_is_shorter_longer_or_another_one_is_refused() {
    let disk = SimDisk::new();
    for _ in 0..3 {
        let mut broker = Broker::open(&disk).expect("opens");
        broker.commit_bytes(10);
        broker.commit_bytes(10);
    }
    let whole = disk.content(&segment(2)).expect("exists");
    let mut longer = whole.clone();
    longer.extend([0; 4096]);
    let mut zeroed = whole.clone();
    zeroed[8192..].fill(0);
    let other = disk.content(&segment(1)).expect("exists");
    for content in [whole[..8192].to_vec(), longer, zeroed, other] {
        let fork = disk.fork();
        fork.set_content(&segment(2), content);
        assert!(matches!(Broker::open(&fork), Err(OpenError::Damaged { .. })));
    }
    assert!(Broker::open(&disk).is_ok());
}

#[test]
fn every_flipped_bit_of_a_segment_header_is_refused() {
    let (disk, _) = small_journal(1, false);
    for bit in (0..4096 * 8).step_by(61) {
        let fork = disk.fork();
        fork.flip_bit(&segment(1), bit);
        assert!(matches!(Broker::open(&fork), Err(OpenError::Damaged { .. } | OpenError::NewerFormat { .. })), "bit {bit}");
    }
}

#[test]
fn a_directory_that_lost_its_segments_or_its_format_file_is_refused() {
    use broker_svc::journal::disk::Disk;
    let (disk, _) = small_journal(1, false);
    let fork = disk.fork();
    fork.remove(&segment(1)).expect("there");
    assert!(matches!(Broker::open(&fork), Err(OpenError::Damaged { .. })));
    let fork = disk.fork();
    fork.remove("FORMAT").expect("there");
    assert!(matches!(Broker::open(&fork), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_newer_format_is_refused_before_anything_is_changed() {
    let (disk, _) = small_journal(1, false);
    let text = String::from_utf8(disk.content("FORMAT").expect("exists")).expect("text");
    disk.set_content("FORMAT", text.replace("format 1", "format 2").into_bytes());
    disk.set_content(&format!("{}.unfinished", segment(9)), vec![1]);
    let before = disk.changes();
    assert!(matches!(Broker::open(&disk), Err(OpenError::NewerFormat { .. })));
    assert_eq!(disk.changes(), before);

    let (disk, _) = small_journal(1, false);
    let mut header = disk.content(&segment(1)).expect("exists");
    header[12] = 2;
    disk.set_content(&segment(1), header);
    let before = disk.changes();
    assert!(matches!(Broker::open(&disk), Err(OpenError::NewerFormat { .. })));
    assert_eq!(disk.changes(), before);
}

#[test]
fn the_newest_segments_do_not_go_unnoticed() {
    let disk = SimDisk::new();
    for _ in 0..3 {
        let mut broker = Broker::open(&disk).expect("opens");
        broker.commit_bytes(10);
    }
    broker_svc::journal::disk::Disk::remove(&disk, &segment(3)).expect("there");
    match Broker::open(&disk) {
        Err(OpenError::Damaged { file, .. }) => assert_eq!(file, segment(3)),
        other => panic!("{:?}", other.map(|b| b.report)),
    }
}

#[test]
fn more_than_one_group_of_garbage_is_no_torn_group() {
    let (disk, states) = small_journal(2, false);
    let whole = disk.content(&segment(1)).expect("exists");
    for (garbage, taken) in [(8 << 20, true), ((8 << 20) + 1, false)] {
        let fork = disk.fork();
        let mut file = whole[..3 * 4096].to_vec();
        file.resize(3 * 4096 + garbage, 7);
        fork.set_content(&segment(1), file);
        match Broker::open(&fork) {
            Ok(broker) => assert!(taken && broker.report.cut.is_some() && broker.state.lines == states[2].lines),
            Err(e) => assert!(!taken && matches!(e, OpenError::Damaged { .. }), "{e}"),
        }
    }
}

/// Two journals of one history, to the salt, whose second groups differ.
fn twins() -> (SimDisk, SimDisk) {
    let twin = |second: i64| {
        let disk = SimDisk::new();
        let with = crate::support::options(&disk);
        let mut broker = Broker::open_with(&disk, with).expect("opens");
        for seed in [1, second, 3] {
            broker.commit(&[(0, payload(seed, 20))]).expect("room");
        }
        disk
    };
    (twin(2), twin(9))
}

#[test]
fn a_group_of_another_history_is_noticed_by_the_link_of_the_next_one() {
    let (one, other) = twins();
    let (mut file, from) = (one.content(&segment(1)).expect("exists"), other.content(&segment(1)).expect("exists"));
    assert_eq!(file[..8192], from[..8192], "header and first group are the same");
    file[8192..12288].copy_from_slice(&from[8192..12288]);
    one.set_content(&segment(1), file);
    match Broker::open(&one) {
        Err(OpenError::Damaged { position, what, .. }) => assert!(position == 12288 && what.contains("link"), "{what}"),
        other => panic!("{:?}", other.map(|b| b.report)),
    }
}

#[test]
fn a_segment_of_another_history_is_noticed_by_the_header_of_the_next_one() {
    let (one, other) = twins();
    drop(Broker::open(&one).expect("opens"));
    drop(Broker::open(&other).expect("opens"));
    one.set_content(&segment(1), other.content(&segment(1)).expect("exists"));
    match Broker::open(&one) {
        Err(OpenError::Damaged { file, what, .. }) => assert!(file == segment(1) && what.contains("what follows"), "{what}"),
        other => panic!("{:?}", other.map(|b| b.report)),
    }
}

//! A whole directory under every damage that there is: each single bit of each file flipped, each file cut at each length, each
//! file removed, emptied, zeroed, swapped, overwritten with another one, and under another one's name.
//!
//! Each case has to end in the same state with the same records, in a refusal that names the file and the place, or, only for a
//! last group that no marker followed, in a cut that is reported. How many ended in what is printed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::{AddAssign, Range},
    sync::Arc,
    thread,
    time::Duration,
};

use broker_svc::{
    entry::{Append, Entry, PartitionId, TokenHash, Trimmed},
    journal::{
        GroupDraft, GroupNumber, Journal, OpenError, Options, ReadError, Replay, Retention, Step, open, sim_disk::SimDisk,
    },
};
use bytes::Bytes;
use oncelog_proto::{Epoch, Offset, ProducerId, Timestamp, TopicName, topic::PartitionCount};

use crate::{
    overlay::Overlay,
    support::{append, offset, options, payload, segment},
};

/// What stands behind the last group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nothing: the group has no witness.
    Bare,
    /// The same in a recycled file: behind a block of zeros stand old groups.
    Recycled,
    Marker,
    Clean,
}

impl End {
    fn has_witness(self) -> bool {
        matches!(self, Self::Marker | Self::Clean)
    }
}

/// What stands in the files of a directory, by their names.
type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// Four openings, the first segment trimmed, two snapshots, two indexes, every kind of entry.
struct Directory {
    files: Files,
    /// Everything that was ever committed, in order.
    history: Arc<Vec<(Timestamp, Entry)>>,
    /// How many of it were committed before the last group.
    before_last: usize,
    /// Where the last group starts, in the last segment.
    last_group: u64,
    end: End,
    /// The batches that are in the log, by partition: in which file and where, and the data.
    batches: BTreeMap<PartitionId, Vec<Stored>>,
}

#[derive(Clone)]
struct Stored {
    base: Offset,
    end: Offset,
    data: Vec<u8>,
}

/// The state of a fold: how far it has come in the one history that there is.
#[derive(Clone)]
struct Fold {
    history: Arc<Vec<(Timestamp, Entry)>>,
    len: usize,
}

impl Replay for Fold {
    fn restore(&mut self, chunks: &mut dyn Iterator<Item = Vec<u8>>) -> Result<(), String> {
        for chunk in chunks {
            self.len = usize::from_le_bytes(chunk.try_into().map_err(|_| "another length")?);
        }
        Ok(())
    }

    fn apply(&mut self, _: GroupNumber, time: Timestamp, entry: &Entry) -> Result<(), String> {
        assert_eq!(self.history.get(self.len), Some(&(time, entry.clone())), "an entry that was never committed there");
        self.len += 1;
        Ok(())
    }
}

/// Commits and remembers.
struct Life {
    journal: Journal,
    history: Vec<(Timestamp, Entry)>,
    batches: BTreeMap<PartitionId, Vec<Stored>>,
    before_last: usize,
    last_group: u64,
}

impl Life {
    fn open(disk: &SimDisk, before: Option<Self>) -> Self {
        let (history, batches) = before.map(|life| (life.history, life.batches)).unwrap_or_default();
        let mut fold = Fold { history: Arc::new(history), len: 0 };
        let (journal, _) = open(Arc::new(disk.clone()), options(disk), &mut fold, &mut |_| {}).expect("a sound disk");
        let history = fold.history.to_vec();
        assert_eq!(fold.len, history.len());
        Self { journal, history, batches, before_last: 0, last_group: 0 }
    }

    fn commit(&mut self, entries: Vec<Entry>, appends: &[(u32, usize)]) {
        let mut draft = GroupDraft::new(self.journal.group_limit());
        let time = Timestamp::from_micros(self.history.len() as u64 + 1);
        self.before_last = self.history.len();
        let mut remember = |entry: &Entry| self.history.push((time, entry.clone()));
        for entry in entries {
            remember(&entry);
            draft.push(entry);
        }
        for (partition, len) in appends {
            let batches = self.batches.entry(PartitionId(*partition)).or_default();
            let base = batches.last().map_or(Offset::ZERO, |last| last.end);
            let data = payload(i64::from(*partition) * 1000 + base.get(), *len);
            let append: Append = append(*partition, base.get(), &data);
            batches.push(Stored { base, end: offset(base.get() + 1), data: data.clone() });
            remember(&Entry::Append(append.clone()));
            draft.append(append, Bytes::from(data));
        }
        self.journal.write(&draft.finish(time)).expect("there is room");
        self.journal.sync().expect("a sound disk");
        // Each group of this life fits a block.
        self.last_group += BLOCK as u64;
    }

    fn snapshot(&self) {
        let chunk = self.history.len().to_le_bytes().to_vec();
        self.journal.snapshot_writer().write(self.journal.position(), &mut [chunk].into_iter()).expect("a sound disk");
    }

    fn tidy(&mut self) {
        let mut background = self.journal.take_background().expect("once for each opening");
        while background.step().expect("a sound disk") != Step::Idle {}
    }
}

impl Directory {
    fn new(end: End) -> Self {
        let disk = SimDisk::new();
        let topic = |name| TopicName::parse(name).expect("allowed");
        let producer = ProducerId::new(7).expect("valid");
        let create = |name, first| Entry::CreateTopic {
            topic: topic(name),
            first_partition: PartitionId(first),
            partitions: PartitionCount::new(2).expect("2"),
        };
        let mut life = Life::open(&disk, None);
        life.commit(vec![create("a", 0), create("b", 2)], &[(0, 30)]);
        let mut life = Life::open(&disk, Some(life));
        let fresh = Entry::InitProducer { producer, epoch: Epoch::ZERO, token: None };
        let lost = Entry::LostRange { partition: PartitionId(3), from: offset(0), to: offset(4) };
        life.commit(vec![fresh, Entry::Seen { producer }, lost], &[(0, 50), (1, 60), (0, 70)]);
        life.snapshot();
        let mut life = Life::open(&disk, Some(life));
        life.commit(
            vec![Entry::Opened { downtime: Duration::from_secs(5), is_clock_doubtful: false }],
            &[(0, 80), (0, 1), (1, 90)],
        );
        life.snapshot();
        life.tidy();
        if end == End::Recycled {
            let old = disk.content(&segment(2)).expect("there");
            disk.set_content(&format!("spare-{:020}", 0), old.iter().copied().cycle().take(1 << 20).collect());
        }
        let mut life = Life::open(&disk, Some(life));
        let limits = Retention { bytes: Some(0), age: None };
        let (through_segment, partitions) = life.journal.plan_trim(limits, Timestamp::default()).expect("one segment may go");
        assert_eq!(through_segment, 1);
        let of_partition_1 = Trimmed { partition: PartitionId(1), log_start: offset(0), bytes: 0 };
        let partitions = partitions.into_iter().chain([of_partition_1]).collect();
        let delete = Entry::DeleteTopic { topic: topic("b") };
        life.commit(vec![Entry::Trim { through_segment, partitions }, delete], &[(1, 10), (0, 20)]);
        life.tidy();
        let raised = Entry::InitProducer { producer, epoch: Epoch::new(1).expect("valid"), token: Some(TokenHash([3; 16])) };
        life.commit(vec![Entry::Expire { producer }, raised], &[(0, 40), (1, 40)]);
        if end.has_witness() {
            life.journal.write_marker(end == End::Clean).expect("a sound disk");
        }
        life.batches.get_mut(&PartitionId(0)).expect("it has some").remove(0);
        let Life { history, batches, before_last, last_group, .. } = life;
        let mut files: BTreeMap<_, _> =
            disk.names().into_iter().map(|name| (name.clone(), disk.content(&name).expect("listed"))).collect();
        let last = files.get_mut(&segment(4)).expect("the last one");
        // Of the zeros behind the last group one block, and of the old groups one: the others are like them.
        let blocks = if end == End::Bare { 2 } else { 3 };
        last.truncate(usize::try_from(last_group).expect("small") + blocks * BLOCK);
        assert_eq!(last[128] == 1 && last[last.len() - BLOCK..].starts_with(b"OLGROUP"), end == End::Recycled);
        let files: BTreeMap<_, _> = files.into_iter().map(|(name, content)| (name, Arc::new(content))).collect();
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        let expected = [
            "00000000000000000002.idx",
            "00000000000000000002.log",
            "00000000000000000003.idx",
            "00000000000000000003.log",
            "00000000000000000004.log",
            "FORMAT",
            "LOCK",
            "snap-00000000000000000002-00000000000000008192",
            "snap-00000000000000000003-00000000000000008192",
        ];
        assert_eq!(names, expected);
        Self { files, history: Arc::new(history), before_last, last_group, end, batches }
    }

    fn disk(&self) -> Overlay {
        Overlay::new(&self.files)
    }

    fn open(&self, disk: &Overlay) -> Result<Opened, OpenError> {
        let mut fold = Fold { history: Arc::clone(&self.history), len: 0 };
        let with = Options { segment_bytes: 1 << 20, spares: 0, ballast_bytes: 0, ..Options::new(disk.changes() + 99) };
        let (journal, report) = open(Arc::new(disk.clone()), with, &mut fold, &mut |_| {})?;
        Ok(Opened { journal, cut: report.cut.map(|cut| (cut.file, cut.position)), len: fold.len })
    }

    /// Opens what was changed, and judges what comes of it.
    fn judge(&self, disk: &Overlay, damage: &Damage) -> Ending {
        let opened = match self.open(disk) {
            Ok(opened) => opened,
            Err(error) => {
                assert_eq!(disk.changes(), 0, "{damage}: refused, and nothing is changed");
                self.judge_refusal(&error, damage);
                return Ending::Refused;
            }
        };
        let whole = self.history.len();
        let ending = match &opened.cut {
            None => {
                assert_eq!(opened.len, whole, "{damage}: what is missing is missed");
                Ending::Same
            }
            Some((file, position)) => {
                assert_eq!(*file, segment(4), "{damage}: only in the last segment is anything ever cut");
                assert!(damage.files.contains(file.as_str()), "{damage}: what was whole is not cut");
                if opened.len == whole {
                    // Behind the end, or in the marker.
                    assert!(*position > self.last_group, "{damage}");
                    Ending::Same
                } else {
                    assert!(!self.end.has_witness(), "{damage}: a group with a witness is never cut");
                    assert_eq!(
                        (*position, opened.len),
                        (self.last_group, self.before_last),
                        "{damage}: only the last group goes"
                    );
                    Ending::Cut
                }
            }
        };
        let unreadable = self.read(&opened, damage);
        if ending == Ending::Cut || damage.is_of_files {
            drop(opened.journal);
            let again = self.open(disk).unwrap_or_else(|e| panic!("{damage}: settled, and then: {e}"));
            assert_eq!((again.len, again.cut), (opened.len, None), "{damage}: it is settled");
        }
        if unreadable { Ending::Unreadable } else { ending }
    }

    fn judge_refusal(&self, error: &OpenError, damage: &Damage) {
        let (file, position) = match error {
            OpenError::Damaged { file, position, .. } => (file, Some(*position)),
            OpenError::NewerFormat { file, .. } => (file, None),
            OpenError::StateAheadOfLog { snapshot, .. } if damage.is_of_files => (snapshot, None),
            other => panic!("{damage}: {other}"),
        };
        // With no snapshot left it is the start of the journal that is missing, and the message says which snapshots failed.
        let without_snapshots =
            *file == segment(1) && damage.files.iter().all(|name| name.starts_with("snap") && error.to_string().contains(name));
        assert!(damage.files.contains(file.as_str()) || without_snapshots, "{damage}: refused for another file: {error}");
        if let (Some(position), Some(at)) = (position, &damage.at) {
            let block = position..position + BLOCK as u64;
            assert!(
                at.start <= position && position < at.end || block.contains(&at.start),
                "{damage}: refused for another place: {error}"
            );
        }
    }

    /// Reads everything. What cannot be read is where the damage is, and nothing else is; true if there was any.
    fn read(&self, opened: &Opened, damage: &Damage) -> bool {
        let reader = opened.journal.reader();
        let mut unreadable = false;
        let gone = if opened.len == self.history.len() { 0 } else { 1 };
        for (partition, stored) in &self.batches {
            let mut expected = &stored[..stored.len() - gone];
            let mut next = expected[0].base;
            loop {
                match reader.read(*partition, next, 1 << 20) {
                    Ok(batches) if batches.is_empty() => break,
                    Ok(batches) => {
                        for batch in batches {
                            let (first, rest) = expected.split_first().unwrap_or_else(|| panic!("{damage}: a batch too many"));
                            assert_eq!((batch.append.base_offset, &batch.data[..]), (first.base, &first.data[..]), "{damage}");
                            (expected, next) = (rest, first.end);
                        }
                    }
                    Err(ReadError::Damaged { file, position, next: further, .. }) => {
                        let (first, rest) = expected.split_first().expect("there is one more");
                        let place = position..position + first.data.len() as u64;
                        let at = damage.at.as_ref().unwrap_or_else(|| panic!("{damage}: {file} at {position}"));
                        assert!(
                            damage.files.contains(file.as_str()) && place.contains(&at.start),
                            "{damage}: {file} at {position}"
                        );
                        assert_eq!(further, Some(first.end), "{damage}: the next one can be asked for");
                        (expected, next) = (rest, first.end);
                        unreadable = true;
                    }
                    Err(e) => panic!("{damage}: {e}"),
                }
            }
            assert!(expected.is_empty(), "{damage}: the log ends at {next}, in silence");
        }
        unreadable
    }
}

struct Opened {
    journal: Journal,
    cut: Option<(String, u64)>,
    len: usize,
}

/// What was done to a directory.
struct Damage {
    what: &'static str,
    files: BTreeSet<String>,
    /// Bytes that are not what they were; none if it is not one place.
    at: Option<Range<u64>>,
    /// Whole files were moved about.
    is_of_files: bool,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} at {:?}", self.what, self.files, self.at)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Same,
    /// Same state; some records are told to be damaged when they are read.
    Unreadable,
    Refused,
    Cut,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    same: u64,
    unreadable: u64,
    refused: u64,
    cut: u64,
}

impl Tally {
    fn count(&mut self, ending: Ending) {
        *match ending {
            Ending::Same => &mut self.same,
            Ending::Unreadable => &mut self.unreadable,
            Ending::Refused => &mut self.refused,
            Ending::Cut => &mut self.cut,
        } += 1;
    }

    fn cases(&self) -> u64 {
        self.same + self.unreadable + self.refused + self.cut
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.same += other.same;
        self.unreadable += other.unreadable;
        self.refused += other.refused;
        self.cut += other.cut;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { same, unreadable, refused, cut } = self;
        let cases = self.cases();
        write!(
            f,
            "{cases} cases: {same} as before, {unreadable} unreadable in one place, {refused} refused, {cut} cut and reported"
        )
    }
}

/// Tries cases `0..count` on two threads.
fn try_all(count: u64, case: impl Fn(u64) -> Ending + Sync) -> Tally {
    let some = |first: u64| {
        let mut tally = Tally::default();
        (first..count).step_by(THREADS).for_each(|number| tally.count(case(number)));
        tally
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS as u64).map(|first| scope.spawn(move || some(first))).collect();
        let mut sum = Tally::default();
        threads.into_iter().for_each(|thread| sum += thread.join().expect("no case fails"));
        sum
    })
}

/// Flips these bits of a file, one at a time.
fn flip_all(directory: &Directory, name: &String, bits: &[u64]) -> Tally {
    let tally = try_all(bits.len() as u64, |number| {
        let (disk, bit) = (directory.disk(), bits[usize::try_from(number).expect("in memory")]);
        disk.flip(name, bit);
        let at = Some(bit / 8..bit / 8 + 1);
        directory.judge(&disk, &Damage { what: "a bit flipped in", files: [name.clone()].into(), at, is_of_files: false })
    });
    eprintln!("bits of {name}, {:?} end: {tally}", directory.end);
    tally
}

#[test]
fn no_flipped_bit_of_any_file_is_silent() {
    let bare = Directory::new(End::Bare);
    let mut sum = Tally::default();
    for (name, content) in &bare.files {
        sum += flip_all(&bare, name, &(0..content.len() as u64 * 8).collect::<Vec<_>>());
    }
    assert!(sum.same > 1_000 && sum.unreadable > 1_000 && sum.refused > 1_000 && sum.cut > 1_000, "{sum}");
    for end in [End::Recycled, End::Marker, End::Clean] {
        // What stands before the last group is as it was above; and so is the padding of a block, of which one bit of each byte.
        let directory = Directory::new(end);
        let bytes = directory.last_group..directory.files[&segment(4)].len() as u64;
        let is_used = |byte: u64| byte % (BLOCK as u64) < 300;
        let bits: Vec<_> = (bytes.start * 8..bytes.end * 8).filter(|bit| is_used(bit / 8) || bit % 8 == bit / 8 % 8).collect();
        let tally = flip_all(&directory, &segment(4), &bits);
        assert_eq!(tally.cut == 0, end.has_witness(), "{tally}");
        sum += tally;
    }
    eprintln!("every bit flipped: {sum}");
}

#[test]
fn no_file_that_was_cut_looks_whole() {
    let mut sum = Tally::default();
    for end in [End::Bare, End::Recycled, End::Marker, End::Clean] {
        let directory = Directory::new(end);
        for (name, content) in directory.files.iter().filter(|(name, _)| end == End::Bare || **name == segment(4)) {
            let whole = content.len() as u64;
            let tally = try_all(whole, |len| {
                let disk = directory.disk();
                disk.cut(name, len);
                let at = Some(len..whole);
                directory.judge(&disk, &Damage { what: "cut", files: [name.clone()].into(), at, is_of_files: false })
            });
            eprintln!("cuts of {name}, {end:?} end: {tally}");
            sum += tally;
        }
    }
    assert_eq!((sum.unreadable, sum.cut), (0, 0), "no crash ever makes a file shorter");
    eprintln!("every cut: {sum}");
}

#[test]
fn no_file_that_is_missing_or_another_one_goes_unnoticed() {
    let mut tally = Tally::default();
    for end in [End::Bare, End::Recycled, End::Marker, End::Clean] {
        let directory = Directory::new(end);
        let names: Vec<_> = directory.files.keys().collect();
        let mut judge = |what, files: &[&String], change: &dyn Fn(&mut Files)| {
            let mut changed = directory.files.clone();
            change(&mut changed);
            let files = files.iter().map(|name| (*name).clone()).collect();
            tally.count(directory.judge(&Overlay::new(&changed), &Damage { what, files, at: None, is_of_files: true }));
        };
        for one in &names {
            judge("removed", &[one], &|files| drop(files.remove(*one)));
            judge("emptied", &[one], &|files| *files.get_mut(*one).expect("there") = Arc::default());
            judge("zeroed", &[one], &|files| {
                let file = files.get_mut(*one).expect("there");
                *file = Arc::new(vec![0; file.len()]);
            });
            for other in &names {
                if one == other {
                    continue;
                }
                let (first, second) = (Arc::clone(&directory.files[*one]), Arc::clone(&directory.files[*other]));
                judge("overwritten with another one", &[one], &|files| drop(files.insert((*one).clone(), Arc::clone(&second))));
                if one < other {
                    judge("swapped", &[one, other], &|files| {
                        files.insert((*one).clone(), Arc::clone(&second));
                        files.insert((*other).clone(), Arc::clone(&first));
                    });
                }
            }
            for name in further_names() {
                judge("present twice", &[one, &name], &|files| {
                    drop(files.insert(name.clone(), Arc::clone(&directory.files[*one])))
                });
            }
        }
    }
    assert_eq!((tally.unreadable, tally.cut), (0, 0));
    eprintln!("files moved about: {tally}");
}

#[test]
fn a_segment_that_nothing_but_its_lost_index_needs_is_looked_at_before_anything_is_changed() {
    let directory = Directory::new(End::Clean);
    let index = "00000000000000000002.idx".to_owned();
    let mut without_index = directory.files.clone();
    without_index.remove(&index);
    let mut tally = Tally::default();
    for byte in BLOCK as u64..BLOCK as u64 + 300 {
        let disk = Overlay::new(&without_index);
        disk.flip(&segment(2), byte * 8);
        let files = [segment(2), index.clone()].into();
        let damage = Damage { what: "flipped without its index", files, at: Some(byte..byte + 1), is_of_files: false };
        tally.count(directory.judge(&disk, &damage));
    }
    assert!(tally.refused > 200 && tally.same == 0, "headers and directories are refused, data is not looked at: {tally}");
}

/// Names that a journal could have given, and did not. An index of segment 4 would say, rightly, that segment 5 is missing.
fn further_names() -> [String; 8] {
    [
        segment(1),
        segment(5),
        format!("{:020}.idx", 1),
        format!("snap-{:020}-{:020}", 3, 12_288),
        format!("snap-{:020}-{:020}", 4, 8_192),
        format!("spare-{:020}", 0),
        "BALLAST".to_owned(),
        format!("{:020}.trimmed", 2),
    ]
}

const BLOCK: usize = 4096;
const THREADS: usize = 2;

//! A broker in small: folds entries, gives out offsets, and can say what the log has to hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use broker_svc::{
    entry::{Append, Entry, PartitionId},
    journal::{
        Background, Group, GroupDraft, GroupNumber, Journal, OpenError, OpenReport, Options, Position, ReadError, Replay, Step,
        WriteError, disk::Disk, open, sim_disk::SimDisk,
    },
};
use bytes::Bytes;
use oncelog_proto::{Compression, Epoch, Offset, ProducerId, RecordCount, Sequence, Tag, Timestamp};

/// Small segments, no spares, no ballast. The seed differs from one opening to the next.
pub(crate) fn options(disk: &SimDisk) -> Options {
    let small = Options::new(disk.changes() * 2 + 1);
    Options { segment_bytes: 1 << 20, snapshot_every_bytes: 1 << 20, spares: 0, ballast_bytes: 0, ..small }
}

/// What the entries fold into: one line for each, and the next offset of each partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) lines: Vec<String>,
    next: BTreeMap<u32, i64>,
}

impl State {
    fn fold(&mut self, time: Timestamp, entry: &Entry) {
        self.lines.push(format!("{time} {entry:?}"));
        if let Entry::Append(append) = entry {
            self.next.insert(append.partition.0, append.base_offset.get() + i64::from(append.count.get()));
        }
    }

    pub(crate) fn chunks(&self) -> impl Iterator<Item = Vec<u8>> + use<> {
        let next: Vec<Vec<u8>> = self.next.iter().map(|(p, n)| format!("next {p} {n}").into_bytes()).collect();
        next.into_iter().chain(self.lines.clone().into_iter().map(String::into_bytes))
    }

    pub(crate) fn next(&self, partition: u32) -> i64 {
        self.next.get(&partition).copied().unwrap_or(0)
    }
}

impl Replay for State {
    fn restore(&mut self, chunks: &mut dyn Iterator<Item = Vec<u8>>) -> Result<(), String> {
        for chunk in chunks {
            let line = String::from_utf8(chunk).map_err(|e| e.to_string())?;
            match line.strip_prefix("next ").and_then(|rest| rest.split_once(' ')) {
                Some((p, n)) => {
                    self.next.insert(p.parse().expect("a number"), n.parse().expect("a number"));
                }
                None => self.lines.push(line),
            }
        }
        Ok(())
    }

    fn apply(&mut self, _: GroupNumber, time: Timestamp, entry: &Entry) -> Result<(), String> {
        self.fold(time, entry);
        Ok(())
    }
}

pub(crate) struct Broker {
    pub(crate) disk: SimDisk,
    pub(crate) journal: Journal,
    pub(crate) background: Background,
    /// Folded from what was synced.
    pub(crate) state: State,
    pub(crate) report: OpenReport,
    clock: u64,
}

impl Broker {
    pub(crate) fn open(disk: &SimDisk) -> Result<Self, OpenError> {
        Self::open_with(disk, options(disk))
    }

    pub(crate) fn open_with(disk: &SimDisk, options: Options) -> Result<Self, OpenError> {
        Self::open_over(disk, Arc::new(disk.clone()), options)
    }

    /// Opens the disk by way of another one.
    pub(crate) fn open_over(disk: &SimDisk, over: Arc<dyn Disk>, options: Options) -> Result<Self, OpenError> {
        let mut state = State::default();
        let (mut journal, report) = open(over, options, &mut state, &mut |_| {})?;
        let clock = journal.position().time().as_micros();
        let background = journal.take_background().expect("the first time");
        Ok(Self { disk: disk.clone(), journal, background, state, report, clock })
    }

    /// A process that ends without a word, and the next one.
    pub(crate) fn reopen(self) -> Result<Self, OpenError> {
        let disk = self.disk.clone();
        drop(self);
        Self::open(&disk)
    }

    /// A group with one batch for each payload, and the state after it.
    pub(crate) fn gather(&mut self, batches: &[(u32, Vec<u8>)]) -> (State, Group) {
        let mut after = self.state.clone();
        let mut draft = GroupDraft::new(self.journal.group_limit());
        self.clock += 1;
        let time = Timestamp::from_micros(self.clock);
        for (partition, data) in batches {
            let append = append(*partition, after.next(*partition), data);
            after.fold(time, &Entry::Append(append.clone()));
            draft.append(append, Bytes::from(data.clone()));
        }
        (after, draft.finish(time))
    }

    /// Appends one batch for each payload, in one group, without a sync.
    pub(crate) fn write(&mut self, batches: &[(u32, Vec<u8>)]) -> Result<State, WriteError> {
        let (after, group) = self.gather(batches);
        self.journal.write(&group)?;
        Ok(after)
    }

    pub(crate) fn commit(&mut self, batches: &[(u32, Vec<u8>)]) -> Result<Position, WriteError> {
        let after = self.write(batches)?;
        let position = self.journal.sync()?;
        self.state = after;
        Ok(position)
    }

    pub(crate) fn commit_entry(&mut self, entry: Entry) -> Result<Position, WriteError> {
        let after = self.write_entry(entry)?;
        let position = self.journal.sync()?;
        self.state = after;
        Ok(position)
    }

    /// Without a sync.
    pub(crate) fn write_entry(&mut self, entry: Entry) -> Result<State, WriteError> {
        self.clock += 1;
        let time = Timestamp::from_micros(self.clock);
        let mut draft = GroupDraft::new(self.journal.group_limit());
        draft.push(entry.clone());
        self.journal.write(&draft.finish(time))?;
        let mut after = self.state.clone();
        after.fold(time, &entry);
        Ok(after)
    }

    /// Commits one batch of so many bytes to partition 0.
    pub(crate) fn commit_bytes(&mut self, len: usize) -> Position {
        self.commit(&[(0, payload(self.state.next(0), len))]).expect("there is room")
    }

    pub(crate) fn snapshot(&self) {
        self.journal.snapshot_writer().write(self.journal.position(), &mut self.state.chunks()).expect("the disk works");
    }

    /// Tidies until there is nothing to do.
    pub(crate) fn tidy(&mut self) {
        for _ in 0..10_000 {
            if self.background.step().expect("the disk works") == Step::Idle {
                return;
            }
        }
        panic!("tidying comes to an end");
    }

    /// Everything of a partition from an offset on, read in small bites.
    pub(crate) fn read_from(&self, partition: u32, from: i64) -> Result<Vec<(i64, Bytes)>, ReadError> {
        let reader = self.journal.reader();
        let mut all = Vec::new();
        let mut next = from;
        loop {
            let batches = reader.read(PartitionId(partition), offset(next), 100_000)?;
            let Some(last) = batches.last() else { return Ok(all) };
            next = last.append.base_offset.get() + i64::from(last.append.count.get());
            all.extend(batches.into_iter().map(|batch| (batch.append.base_offset.get(), batch.data)));
        }
    }

    /// The log holds exactly what the state says, for every partition, from its first offset on.
    pub(crate) fn check_log(&self) {
        let told: BTreeSet<&str> = self.state.lines.iter().filter_map(|line| line.split("checksum: ").nth(1)).collect();
        for (partition, next) in &self.state.next {
            let read = self.read_from(*partition, 0).expect("readable");
            assert_eq!(read.len() as i64, *next, "batches of one record, from 0 on");
            for (i, (base, data)) in read.iter().enumerate() {
                assert_eq!(*base, i as i64);
                assert!(told.contains(format!("{} }})", crc32c::crc32c(data)).as_str()), "data that was not committed");
            }
        }
    }
}

/// The facts of a batch of one record.
pub(crate) fn append(partition: u32, base: i64, data: &[u8]) -> Append {
    let tag = Tag { producer: ProducerId::new(7).expect("valid"), epoch: Epoch::ZERO, base: Sequence::new(base).expect("valid") };
    Append {
        partition: PartitionId(partition),
        base_offset: offset(base),
        tag: (base % 3 != 2).then_some(tag),
        count: RecordCount::MIN,
        compression: Compression::None,
        uncompressed_bytes: u32::try_from(data.len()).expect("small"),
        data_len: u32::try_from(data.len()).expect("small"),
        checksum: crc32c::crc32c(data),
    }
}

pub(crate) fn offset(n: i64) -> Offset {
    Offset::new(n).expect("not negative")
}

/// Bytes that look like no others: no two pages of them are alike.
pub(crate) fn payload(seed: i64, len: usize) -> Vec<u8> {
    let mut x = seed.unsigned_abs().wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(PERIOD + 8);
    while bytes.len() < PERIOD.min(len) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(PERIOD);
    let mut bytes = bytes.repeat(len / PERIOD + 1);
    bytes.truncate(len);
    bytes
}

/// A prime, so that each page begins elsewhere in it.
const PERIOD: usize = 1021;

pub(crate) fn segment(number: u64) -> String {
    format!("{number:020}.log")
}

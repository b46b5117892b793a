//! The real state machine over a disk of which only what is synced can be relied on.
//!
//! Groups are polled, written and synced one step at a time, so that answers are late and a crash finds everything in the
//! middle. A crash takes the machine with all that it knew: the group that was being written may have survived, what was only
//! gathered has not, and nobody hears the answers. The next machine starts from what the surviving groups add up to (I5).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use broker_svc::{
    entry::{Append, Entry, PartitionId},
    journal::{self, Group},
    pipeline::{self, BatchOutcome, Now, Options, Output, Pipeline, Request},
    state::{Granted, Limits, Recovered, State},
    wire::parse,
};
use bytes::Bytes;
use oncelog_proto::{
    Epoch, ErrorCode, Fault, Monotonic, PackedBatch, ProducerId, Timestamp, TopicName, TopicPartition, topic::PartitionCount, v1,
};
use producer_svc::session::{
    BatchAnswer, CallId, FailureKind, InitAnswer, InitId, OutgoingBatch, RecoveredBatch, RecoveredPartition,
};

use super::{
    broker::{Answer, Broker, Call, Log, record_numbers},
    dice::Dice,
};

/// What the disk does with a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// What it has.
    Honest,
    /// It says that it is done when it has only taken the group. To see whether the model notices.
    Lying,
}

/// A caller of the machine. Nobody hears an operator's answers.
#[derive(Clone, Copy, Debug)]
enum Caller {
    Produce(CallId),
    Init(InitId),
    Operator,
}

/// The machine, its journal, its clocks.
#[derive(Debug)]
pub(crate) struct RealBroker {
    pipeline: Pipeline<u64>,
    limits: Limits,
    /// The limits may be others after each crash.
    varies: bool,
    disk: Disk,
    journal: Vec<Group>,
    writing: Option<Group>,
    callers: BTreeMap<u64, Caller>,
    next_caller: u64,
    answers: VecDeque<Answer>,
    now: Monotonic,
    /// How far its clock is ahead of the session's: days in which it heard nothing.
    ahead: Duration,
    downtime: Duration,
}

impl RealBroker {
    /// A fresh one whose limits stay as they are.
    pub(crate) fn new(disk: Disk) -> Self {
        let (now, limits) = (Monotonic::from_micros(0), generous());
        let state = State::default();
        let pipeline = Pipeline::open(options(limits.clone()), state, None, read_clocks(now, Duration::ZERO, Duration::ZERO));
        Self {
            pipeline,
            limits,
            varies: false,
            disk,
            journal: Vec::new(),
            writing: None,
            callers: BTreeMap::new(),
            next_caller: 0,
            answers: VecDeque::new(),
            now,
            ahead: Duration::ZERO,
            downtime: Duration::ZERO,
        }
    }

    /// A fresh one whose limits change with every crash.
    pub(crate) fn with_varying_limits() -> Self {
        Self { varies: true, ..Self::new(Disk::Honest) }
    }

    fn clocks(&self) -> Now {
        read_clocks(self.now, self.ahead, self.downtime)
    }

    fn ask(&mut self, caller: Caller, request: Request) {
        let number = self.next_caller;
        self.next_caller += 1;
        self.callers.insert(number, caller);
        self.pipeline.on_request(number, request, self.clocks());
        self.hear();
    }

    fn hear(&mut self) {
        while let Some(output) = self.pipeline.poll_output() {
            let Output::Answer(number, answer) = output else { continue };
            let caller = self.callers.remove(&number).expect("a call is answered once");
            self.answers.extend(told(caller, answer, self.limits.max_message_bytes));
        }
    }

    /// The next machine, on what the journal holds.
    fn open(&mut self, dice: &mut Dice) {
        let state = self.replay(dice);
        let last = self.journal.last().map(Group::time);
        self.pipeline = Pipeline::open(options(self.limits.clone()), state, last, self.clocks());
    }

    /// The journal's sum; halfway it may go through a snapshot, which changes nothing.
    fn replay(&self, dice: &mut Dice) -> State {
        let whole = fold(State::default(), &self.journal);
        let (before, after) = self.journal.split_at(dice.roll(self.journal.len() + 1));
        let snapshot = State::from_chunks(fold(State::default(), before).to_chunks()).expect("a snapshot can be read back");
        assert_eq!(fold(snapshot, after), whole, "a snapshot is worth the groups before it");
        whole
    }

    /// What the machine knows is the sum of what is in the journal and what would still have come into it, and nothing else (I5).
    fn assert_lived_as_replayed(&mut self) {
        let mut state = fold(State::default(), &self.journal);
        if let Some(group) = &self.writing {
            state = fold(state, std::slice::from_ref(group));
            self.pipeline.on_synced(u64::MAX);
        }
        while let Some(group) = self.pipeline.poll_group() {
            state = fold(state, &[group]);
            self.pipeline.on_synced(u64::MAX);
        }
        assert_eq!(&state, self.pipeline.state(), "replay leads to the state that was lived");
    }

    /// The logs of the partitions of this name, one for each life; and whether the last one lives.
    fn lives(&self, partition: &TopicPartition) -> (Vec<(PartitionId, Log)>, bool) {
        let (mut lives, mut lives_now): (Vec<(PartitionId, Log)>, bool) = (Vec::new(), false);
        for group in &self.journal {
            let mut payloads = group.payloads().iter();
            for entry in group.entries() {
                match entry {
                    Entry::CreateTopic { topic, first_partition, partitions }
                        if *topic == partition.topic && partitions.contains(partition.partition) =>
                    {
                        lives.push((first_partition.nth(partition.partition), Log::new()));
                        lives_now = true;
                    }
                    Entry::DeleteTopic { topic } if *topic == partition.topic => lives_now = false,
                    Entry::Append(append) => {
                        let data = payloads.next().expect("an append has its data");
                        if let Some((_, log)) = lives.last_mut().filter(|(id, _)| *id == append.partition) {
                            assert!(lives_now, "nothing is appended to a partition that is gone");
                            assert_eq!(append.base_offset.get(), i64::try_from(log.len()).expect("few"), "offsets have no gaps");
                            log.extend(record_numbers(&stored(append, data)).into_iter().map(|number| (number, group.time())));
                        }
                    }
                    _ => {}
                }
            }
        }
        (lives, lives_now)
    }
}

impl Broker for RealBroker {
    fn arrive(&mut self, call: Call, refusal: Option<ErrorCode>) {
        match call {
            Call::Produce(id, batches) => match parse::produce(produce_request(&batches), self.limits.max_message_bytes) {
                Ok(Request::Produce { acks, mut batches }) => {
                    if let Some(code) = refusal {
                        batches[0] = Err(Fault::new(code, "the model refuses at random"));
                    }
                    self.ask(Caller::Produce(id), Request::Produce { acks, batches });
                }
                Ok(other) => panic!("{other:?}"),
                Err(fault) => panic!("the session makes well-formed calls: {fault}"),
            },
            Call::Init(id, recover, token) => {
                let (request, _) = parse::init_producer(&init_request(recover, token)).expect("well-formed");
                self.ask(Caller::Init(id), Request::InitProducer(request));
            }
        }
    }

    fn poll_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    fn work(&mut self) -> bool {
        match (self.disk, self.writing.take()) {
            (Disk::Honest, Some(group)) => {
                self.journal.push(group);
                self.pipeline.on_synced(u64::MAX);
            }
            (Disk::Lying, Some(group)) => self.journal.push(group),
            (disk, None) => {
                let Some(group) = self.pipeline.poll_group() else { return false };
                self.writing = Some(group);
                self.pipeline.on_written();
                if disk == Disk::Lying {
                    self.pipeline.on_synced(u64::MAX);
                }
            }
        }
        self.hear();
        true
    }

    fn next_wakeup(&self) -> Option<Monotonic> {
        let since_start = self.pipeline.next_wakeup().since(Monotonic::default());
        let at = Monotonic::default().plus(since_start.saturating_sub(self.ahead));
        (!self.callers.is_empty()).then_some(at)
    }

    fn tick(&mut self, now: Monotonic) {
        self.now = now;
        let clocks = self.clocks();
        if self.pipeline.next_wakeup() <= clocks.monotonic {
            self.pipeline.on_tick(clocks);
            self.hear();
        }
    }

    fn crash(&mut self, dice: &mut Dice) {
        if self.disk == Disk::Honest {
            self.assert_lived_as_replayed();
        }
        let survives = dice.roll(2) == 1;
        self.journal.extend(self.writing.take().filter(|_| survives));
        for caller in std::mem::take(&mut self.callers).into_values() {
            match caller {
                _ if dice.roll(2) == 0 => {}
                Caller::Produce(id) => self.answers.push_back(Answer::ProduceFailed(id, FailureKind::InDoubt)),
                Caller::Init(id) => self.answers.push_back(Answer::Init(id, Err(FailureKind::InDoubt))),
                Caller::Operator => {}
            }
        }
        self.downtime += dice.choose(&[Duration::ZERO, Duration::from_millis(10), HOUR, 30 * HOUR]);
        if self.varies {
            self.limits = Limits {
                max_message_bytes: dice.choose(&[400, 400, 60, 100]),
                max_windows: dice.choose(&[100, 100, 1, 3]),
                auto_create_topics: dice.roll(3) > 0,
                ..generous()
            };
        }
        self.open(dice);
    }

    fn heal(&mut self) {
        if self.varies {
            self.varies = false;
            self.limits = generous();
            self.crash(&mut Dice(0));
        }
    }

    fn expire_producers(&mut self) {
        self.ahead += EXPIRATION + HOUR;
        self.tick(self.now);
    }

    fn create_topic(&mut self, topic: &TopicName, partitions: i32) {
        let partitions = Some(PartitionCount::new(partitions).expect("small"));
        self.ask(Caller::Operator, Request::CreateTopic { topic: topic.clone(), partitions });
    }

    fn delete_topic(&mut self, topic: &TopicName) {
        self.ask(Caller::Operator, Request::DeleteTopic(topic.clone()));
    }

    fn log(&self, partition: &TopicPartition) -> Log {
        let (mut lives, lives_now) = self.lives(partition);
        lives.pop().filter(|_| lives_now).map(|(_, log)| log).unwrap_or_default()
    }

    fn past_logs(&self, partition: &TopicPartition) -> Vec<Log> {
        let (mut lives, lives_now) = self.lives(partition);
        lives.truncate(lives.len() - usize::from(lives_now));
        lives.into_iter().map(|(_, log)| log).collect()
    }
}

fn fold(mut state: State, groups: &[Group]) -> State {
    for group in groups {
        for entry in group.entries() {
            state.apply(entry, group.time()).expect("the journal does not contradict itself");
        }
    }
    state
}

fn stored(append: &Append, data: &Bytes) -> PackedBatch {
    PackedBatch::from_stored(append.compression, append.count, append.uncompressed_bytes, append.checksum, data.clone())
        .expect("what is in the journal was verified")
}

fn produce_request(batches: &[OutgoingBatch]) -> v1::ProduceRequest {
    let tag = batches[0].tag;
    let batch = |batch: &OutgoingBatch| v1::Batch {
        topic: batch.partition.topic.to_string(),
        partition: batch.partition.partition.get(),
        base_sequence: batch.tag.map_or(0, |tag| tag.base.get()),
        packed: Some(batch.packed.to_proto()),
        ..Default::default()
    };
    v1::ProduceRequest {
        producer_id: tag.map(|tag| tag.producer.get()),
        producer_epoch: tag.map_or(0, |tag| tag.epoch.get()),
        batches: batches.iter().map(batch).collect(),
        ..Default::default()
    }
}

fn init_request(recover: Option<(ProducerId, Epoch)>, recovery_token: String) -> v1::InitProducerIdRequest {
    v1::InitProducerIdRequest {
        producer_id: recover.map(|(producer, _)| producer.get()),
        producer_epoch: recover.map(|(_, epoch)| epoch.get()),
        recovery_token,
        ..Default::default()
    }
}

fn told(caller: Caller, answer: pipeline::Answer, max_batch_bytes: usize) -> Option<Answer> {
    Some(match (caller, answer) {
        (Caller::Operator, _) => return None,
        (Caller::Produce(id), pipeline::Answer::Produced(outcomes)) => {
            Answer::Produce(id, outcomes.into_iter().map(batch_answer).collect())
        }
        (Caller::Produce(id), pipeline::Answer::Refused(fault)) => {
            Answer::ProduceFailed(id, FailureKind::of_produce(fault.to_status().code()))
        }
        (Caller::Init(id), pipeline::Answer::Granted(granted)) => Answer::Init(id, Ok(init_answer(granted, max_batch_bytes))),
        (Caller::Init(id), pipeline::Answer::Refused(fault)) => {
            Answer::Init(id, Err(FailureKind::of_init(fault.to_status().code())))
        }
        (caller, answer) => panic!("{caller:?} is told {answer:?}"),
    })
}

fn batch_answer(outcome: BatchOutcome) -> BatchAnswer {
    match outcome {
        BatchOutcome::Acknowledged { base_offset, time, duplicate } => {
            BatchAnswer::Acknowledged { base_offset, append_time: time, duplicate }
        }
        BatchOutcome::Refused(fault) => {
            BatchAnswer::Refused { code: fault.code(), message: fault.message().to_owned(), expected: fault.expected_sequence() }
        }
    }
}

fn init_answer(granted: Granted, max_batch_bytes: usize) -> InitAnswer {
    let partition = |recovered: Recovered| RecoveredPartition {
        partition: recovered.partition,
        next: recovered.next,
        window: recovered
            .window
            .into_iter()
            .map(|batch| RecoveredBatch {
                base: batch.base,
                count: batch.count,
                base_offset: batch.base_offset,
                append_time: batch.time,
                checksum: batch.checksum,
            })
            .collect(),
    };
    let partitions = granted.recovered.into_iter().map(partition).collect();
    InitAnswer { producer: granted.producer, epoch: granted.epoch, max_batch_bytes, partitions }
}

fn read_clocks(now: Monotonic, ahead: Duration, downtime: Duration) -> Now {
    let monotonic = now.plus(ahead);
    let wall = EPOCH.saturating_add(monotonic.since(Monotonic::default())).saturating_add(downtime);
    Now { monotonic, wall: Timestamp::default().plus(wall) }
}

fn generous() -> Limits {
    Limits {
        max_message_bytes: 400,
        auto_create_topics: true,
        default_partitions: PartitionCount::new(2).expect("2"),
        max_partitions: 100,
        max_producers: 10_000,
        max_windows: 1_000,
        producer_id_expiration: EXPIRATION,
    }
}

fn options(limits: Limits) -> Options {
    Options {
        limits,
        hold: Duration::from_millis(200),
        hold_bytes: 4_000,
        group_limit: journal::Options { segment_bytes: 1 << 20, ..journal::Options::new(0) }.group_limit(),
        incarnation: 0,
        accept_clock_jump: false,
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const EXPIRATION: Duration = Duration::from_secs(24 * 3600);
/// What people call the time when the model starts, since 1970.
const EPOCH: Duration = Duration::from_secs(1_000_000_000);

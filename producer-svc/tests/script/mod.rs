//! A session to converse with: the test plays callers, broker and clock, one event at a time.

// Each test file uses its part of it.
#![allow(dead_code)]

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use oncelog_proto::{
    Compression, Epoch, ErrorCode, Fault, Monotonic, Offset, PartitionIndex, ProducerId, Sequence, Timestamp, TopicName,
    TopicPartition, v1::Record,
};
use producer_svc::session::{
    Action, BatchAnswer, CallFailure, Event, FailureKind, InitAnswer, InitId, OutgoingBatch, ProduceCall, RecordOutcome,
    RecoveredBatch, RecoveredPartition, SendId, Session, SessionConfig, record_cost,
};

pub(crate) struct Script {
    pub(crate) session: Session,
    pub(crate) now: Monotonic,
    calls: VecDeque<ProduceCall>,
    inits: VecDeque<Init>,
    outcomes: BTreeMap<SendId, Vec<RecordOutcome>>,
    pub(crate) alarms: Vec<String>,
    pub(crate) forgotten: Vec<TopicName>,
    /// Bytes taken and not freed.
    pub(crate) memory: usize,
    sends: u64,
}

/// An `InitProducerId` call: its id, what it recovers, its token.
type Init = (InitId, Option<(i64, i32)>, String);

/// The id that [`Script::new`] establishes.
pub(crate) const PRODUCER: i64 = 7;

/// No linger, no compression, one record a batch: a record is a batch is a sequence.
pub(crate) fn one_by_one() -> SessionConfig {
    SessionConfig {
        linger: Duration::ZERO,
        batch_size: 0,
        compression: Compression::None,
        // Nothing grows together while calls are out, or a test would have to count bytes.
        max_request_size: 0,
        ..producer_svc::Config::default().resolve(&|_| None).expect("the defaults agree").session("token".to_owned())
    }
}

impl Script {
    /// A session that has its id, 7, at epoch 0; or needs none.
    pub(crate) fn new(config: SessionConfig) -> Self {
        let idempotence = config.idempotence;
        let mut script = Self::fresh(config);
        if idempotence {
            script.answer_init(PRODUCER, 0, Vec::new());
        }
        script
    }

    /// A session that asks for its id.
    pub(crate) fn fresh(config: SessionConfig) -> Self {
        let mut script = Self {
            session: Session::new(config, 1),
            now: Monotonic::from_micros(0),
            calls: VecDeque::new(),
            inits: VecDeque::new(),
            outcomes: BTreeMap::new(),
            alarms: Vec::new(),
            forgotten: Vec::new(),
            memory: 0,
            sends: 0,
        };
        script.act();
        script
    }

    pub(crate) fn handle(&mut self, event: Event) {
        self.session.handle(event, self.now);
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Produce(call) => self.calls.push_back(call),
                Action::Init { init, recover, token, timeout: _ } => {
                    self.inits.push_back((init, recover.map(|(id, epoch)| (id.get(), epoch.get())), token));
                }
                Action::Complete { send, outcomes } => {
                    assert!(self.outcomes.insert(send, outcomes).is_none(), "a Send is complete once");
                }
                Action::Free { bytes } => self.memory = self.memory.checked_sub(bytes).expect("no more than was taken"),
                Action::ForgetTopic { topic } => self.forgotten.push(topic),
                Action::Alarm { message } => self.alarms.push(message),
            }
        }
    }

    /// Sends one record with this value to a partition of the topic `t`.
    pub(crate) fn send(&mut self, partition: i32, value: &str) -> SendId {
        self.send_all("t", &[(partition, value)])
    }

    pub(crate) fn send_all(&mut self, topic: &str, records: &[(i32, &str)]) -> SendId {
        let id = SendId(self.sends);
        self.sends += 1;
        let record = |value: &str| Record { value: Some(value.to_owned().into()), ..Record::default() };
        let records: Vec<_> = records.iter().map(|(partition, value)| (index(*partition), record(value))).collect();
        self.memory += records.iter().map(|(_, record)| record_cost(record)).sum::<usize>();
        self.handle(Event::Send { id, topic: TopicName::parse(topic).expect("valid"), records });
        id
    }

    /// The call that the session made next.
    pub(crate) fn call(&mut self) -> ProduceCall {
        self.calls.pop_front().expect("the session makes a call")
    }

    pub(crate) fn assert_no_call(&self) {
        assert!(self.calls.is_empty(), "unexpected: {:?}", self.calls);
    }

    pub(crate) fn answer(&mut self, call: &ProduceCall, results: Vec<BatchAnswer>) {
        self.handle(Event::ProduceAnswered { call: call.call, results });
    }

    pub(crate) fn fail(&mut self, call: &ProduceCall, kind: FailureKind) {
        self.handle(Event::ProduceFailed { call: call.call, failure: failure(kind) });
    }

    /// The `InitProducerId` call that the session made next: what it recovers, with which token.
    pub(crate) fn init(&mut self) -> Init {
        self.inits.pop_front().expect("the session asks for an id")
    }

    pub(crate) fn assert_no_init(&self) {
        assert!(self.inits.is_empty(), "unexpected: {:?}", self.inits);
    }

    pub(crate) fn answer_init(&mut self, producer: i64, epoch: i32, partitions: Vec<RecoveredPartition>) {
        let (init, ..) = self.init();
        self.handle(Event::InitAnswered { init, answer: init_answer(producer, epoch, partitions) });
    }

    pub(crate) fn fail_init(&mut self, kind: FailureKind) -> Option<(i64, i32)> {
        let (init, recover, _) = self.init();
        self.handle(Event::InitFailed { init, failure: failure(kind) });
        recover
    }

    /// Lets time pass, with all wake-ups on the way.
    pub(crate) fn wait(&mut self, ms: u64) {
        let until = self.now.plus(Duration::from_millis(ms));
        while let Some(at) = self.session.next_wakeup().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.handle(Event::Tick);
        }
        self.now = until;
        self.handle(Event::Tick);
    }

    pub(crate) fn outcome(&self, send: SendId) -> Option<&RecordOutcome> {
        self.outcomes.get(&send).map(|outcomes| match outcomes.as_slice() {
            [one] => one,
            many => panic!("{} outcomes", many.len()),
        })
    }

    pub(crate) fn outcomes(&self, send: SendId) -> Option<&[RecordOutcome]> {
        self.outcomes.get(&send).map(Vec::as_slice)
    }

    pub(crate) fn refusal(&self, send: SendId) -> Option<ErrorCode> {
        match self.outcome(send)? {
            RecordOutcome::Refused(fault) => Some(Fault::code(fault)),
            RecordOutcome::Appended { .. } | RecordOutcome::Unknown => None,
        }
    }
}

/// Epoch and base sequence of each batch of a call.
pub(crate) fn tags(call: &ProduceCall) -> Vec<(i32, i64)> {
    call.batches.iter().map(|batch| batch.tag.expect("tagged")).map(|tag| (tag.epoch.get(), tag.base.get())).collect()
}

/// The values in each batch of a call.
pub(crate) fn values(call: &ProduceCall) -> Vec<Vec<String>> {
    let of = |batch: &OutgoingBatch| {
        let records = batch.packed.records().expect("the session packs well");
        records.into_iter().map(|r| String::from_utf8(r.value.expect("given").to_vec()).expect("text")).collect()
    };
    call.batches.iter().map(of).collect()
}

pub(crate) fn ack(offset: i64) -> BatchAnswer {
    BatchAnswer::Acknowledged { base_offset: Offset::new(offset).ok(), append_time: time(offset), duplicate: false }
}

/// The outcome that [`ack`] leads to.
pub(crate) fn appended(partition: i32, offset: i64) -> RecordOutcome {
    RecordOutcome::Appended { partition: index(partition), offset: Offset::new(offset).ok(), append_time: time(offset) }
}

pub(crate) fn refuse(code: ErrorCode) -> BatchAnswer {
    BatchAnswer::Refused { code, message: "because".to_owned(), expected: None }
}

pub(crate) fn out_of_order(expected: i64) -> BatchAnswer {
    let expected = Some(sequence(expected));
    BatchAnswer::Refused { code: ErrorCode::OutOfOrderSequenceNumber, message: "early".to_owned(), expected }
}

/// What a recovery says of a partition of `t` after these batches were appended, the first of them at offset 0.
pub(crate) fn recovered(partition: i32, batches: &[&OutgoingBatch]) -> RecoveredPartition {
    let mut offset = 0;
    let window = batches.iter().map(|batch| {
        let entry = RecoveredBatch {
            base: batch.tag.expect("tagged").base,
            count: batch.packed.count(),
            base_offset: Offset::new(offset).expect("not negative"),
            append_time: time(offset),
            checksum: batch.packed.checksum(),
        };
        offset += i64::from(batch.packed.count().get());
        entry
    });
    let window: Vec<_> = window.collect();
    let next = window.last().map_or(0, |last| last.base.get() + i64::from(last.count.get()));
    RecoveredPartition { partition: partition_of_t(partition), next: sequence(next), window }
}

pub(crate) fn init_answer(producer: i64, epoch: i32, partitions: Vec<RecoveredPartition>) -> InitAnswer {
    let producer = ProducerId::new(producer).expect("not negative");
    InitAnswer { producer, epoch: Epoch::new(epoch).expect("not negative"), max_batch_bytes: 1 << 20, partitions }
}

pub(crate) fn failure(kind: FailureKind) -> CallFailure {
    CallFailure { kind, message: "the broker says so".to_owned() }
}

pub(crate) fn partition_of_t(partition: i32) -> TopicPartition {
    TopicPartition { topic: TopicName::parse("t").expect("valid"), partition: index(partition) }
}

pub(crate) fn sequence(value: i64) -> Sequence {
    Sequence::new(value).expect("not negative")
}

fn index(partition: i32) -> PartitionIndex {
    PartitionIndex::new(partition).expect("not negative")
}

fn time(offset: i64) -> Timestamp {
    Timestamp::from_micros(1_000 + offset.unsigned_abs())
}

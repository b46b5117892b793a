//! A session and a broker with a bad network between them, on one thread, driven by numbers.
//!
//! Whatever is sent may be lost, doubled, delayed and reordered for ever: a copy of a call that was given up long ago may still
//! arrive. What the session is told about a call it is told once, as the shell does.

pub(crate) mod broker;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broker::Broker;
use oncelog_proto::{Epoch, ErrorCode, Monotonic, PartitionIndex, ProducerId, Timestamp, TopicName, TopicPartition, v1::Record};
use producer_svc::session::{
    Action, BatchAnswer, CallFailure, CallId, Event, FailureKind, InitAnswer, InitId, OutgoingBatch, RecordOutcome, SendId,
    Session, SessionConfig, record_cost,
};

/// One thing that happens; the numbers choose among what is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) what: What,
    pub(crate) which: usize,
    pub(crate) how: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Send,
    /// A call arrives at the broker; one copy of it is gone.
    Arrive,
    /// An answer arrives at the session.
    Answer,
    DoubleCall,
    LoseCall,
    LoseAnswer,
    /// A call is given up; copies of it live.
    GiveUp,
    /// The next batch that arrives is refused unseen.
    Refuse,
    /// The next call that arrives is refused as a whole.
    RefuseCall,
    Restart,
    Wait,
    ExpireProducers,
    DeleteTopic,
}

/// Everything that is on its way, and everything that has to come out right.
pub(crate) struct World<B> {
    pub(crate) broker: B,
    session: Session,
    now: Monotonic,
    calls: Vec<Call>,
    answers: Vec<Answer>,
    waiting: BTreeSet<CallId>,
    waiting_init: BTreeSet<InitId>,
    refuse: Option<ErrorCode>,
    refuse_call: bool,
    sends: BTreeMap<SendId, Vec<(TopicPartition, u64)>>,
    pub(crate) outcomes: BTreeMap<u64, (TopicPartition, RecordOutcome)>,
    records: u64,
    memory: usize,
    pub(crate) alarms: Vec<String>,
    /// Logs of deleted topics.
    pub(crate) deleted: Vec<(TopicPartition, Vec<(u64, Timestamp)>)>,
    /// Every action, to compare runs.
    pub(crate) trace: Vec<String>,
    /// Bytes of each tag that was ever sent: a resend is the same.
    tags: BTreeMap<(TopicPartition, ProducerId, Epoch, i64), u32>,
}

#[derive(Clone)]
enum Call {
    Produce(CallId, Vec<OutgoingBatch>),
    Init(InitId, Option<(ProducerId, Epoch)>, String),
}

#[derive(Clone)]
enum Answer {
    Produce(CallId, Vec<BatchAnswer>),
    ProduceFailed(CallId, FailureKind),
    Init(InitId, Result<InitAnswer, FailureKind>),
}

impl<B: Broker> World<B> {
    pub(crate) fn new(broker: B, config: SessionConfig, seed: u64) -> Self {
        let mut world = Self {
            broker,
            session: Session::new(config, seed),
            now: Monotonic::from_micros(1_000_000),
            calls: Vec::new(),
            answers: Vec::new(),
            waiting: BTreeSet::new(),
            waiting_init: BTreeSet::new(),
            refuse: None,
            refuse_call: false,
            sends: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            records: 0,
            memory: 0,
            alarms: Vec::new(),
            deleted: Vec::new(),
            trace: Vec::new(),
            tags: BTreeMap::new(),
        };
        world.act();
        world
    }

    pub(crate) fn step(&mut self, step: Step) {
        let Step { what, which, how } = step;
        match what {
            What::Send => self.send(which, how),
            What::Arrive if !self.calls.is_empty() => {
                let call = self.calls.remove(which % self.calls.len());
                self.arrive(call);
            }
            What::Answer if !self.answers.is_empty() => {
                let answer = self.answers.remove(which % self.answers.len());
                self.answer(answer);
            }
            // Bounded, or copies of copies fill the world.
            What::DoubleCall if !self.calls.is_empty() && self.calls.len() < 60 => {
                let call = self.calls[which % self.calls.len()].clone();
                self.calls.push(call);
            }
            What::LoseCall if !self.calls.is_empty() => drop(self.calls.remove(which % self.calls.len())),
            What::LoseAnswer if !self.answers.is_empty() => drop(self.answers.remove(which % self.answers.len())),
            What::GiveUp => self.give_up(which),
            What::Refuse => self.refuse = Some(REFUSALS[which % REFUSALS.len()]),
            What::RefuseCall => self.refuse_call = true,
            What::Restart => {
                self.broker.restart();
                while !self.waiting.is_empty() || !self.waiting_init.is_empty() {
                    self.give_up(0);
                    if self.calls.len() > 50 {
                        break;
                    }
                }
            }
            What::Wait => self.wait([1, 5, 20, 100, 300, 1000, 3000][which % 7]),
            What::ExpireProducers => self.broker.expire_producers(),
            What::DeleteTopic => {
                let topic = topic(which % 2);
                for partition in partitions().into_iter().filter(|p| p.topic == topic) {
                    self.deleted.push((partition.clone(), self.broker.log(&partition)));
                }
                self.broker.delete_topic(&topic);
            }
            What::Arrive | What::Answer | What::DoubleCall | What::LoseCall | What::LoseAnswer => {}
        }
    }

    /// From now on the network is good: everything arrives, oldest first. Ends when every `Send` has its outcome.
    pub(crate) fn heal(&mut self) {
        (self.refuse, self.refuse_call) = (None, false);
        self.handle(Event::Close);
        for _ in 0..10_000 {
            if !self.answers.is_empty() {
                let answer = self.answers.remove(0);
                self.answer(answer);
            } else if !self.calls.is_empty() {
                let call = self.calls.remove(0);
                self.arrive(call);
            } else if !self.waiting.is_empty() || !self.waiting_init.is_empty() {
                // Its copies were lost before.
                self.give_up(0);
            } else if self.session.is_idle() {
                return;
            } else {
                let at = self.session.next_wakeup().expect("something is to come");
                self.now = self.now.max(at);
                self.handle(Event::Tick);
            }
        }
        panic!("the network is good and the session does not come to an end");
    }

    fn send(&mut self, which: usize, how: usize) {
        let topic = topic(which % 2);
        let id = SendId(u64::try_from(self.sends.len()).expect("few"));
        let records: Vec<_> = (0..1 + how % 4)
            .map(|i| {
                let number = self.records;
                self.records += 1;
                let mut value = number.to_be_bytes().to_vec();
                value.resize(8 + how % 40, u8::try_from(how % 251).expect("small"));
                let partition = PartitionIndex::new(i32::from((which / 2 + i * (how / 4)) % 2 == 1)).expect("0 or 1");
                (partition, number, Record { value: Some(value.into()), ..Record::default() })
            })
            .collect();
        let named = |partition| TopicPartition { topic: topic.clone(), partition };
        self.sends.insert(id, records.iter().map(|(partition, number, _)| (named(*partition), *number)).collect());
        self.memory += records.iter().map(|(_, _, record)| record_cost(record)).sum::<usize>();
        let records = records.into_iter().map(|(partition, _, record)| (partition, record)).collect();
        self.handle(Event::Send { id, topic, records });
    }

    fn arrive(&mut self, call: Call) {
        match call {
            Call::Produce(id, _) if std::mem::take(&mut self.refuse_call) => {
                self.answers.push(Answer::ProduceFailed(id, FailureKind::Permanent));
            }
            Call::Produce(id, batches) => {
                let mut refusal = self.refuse.take();
                let mut results = Vec::new();
                for batch in &batches {
                    match refusal.take() {
                        Some(code) => {
                            let message = "the model refuses at random".to_owned();
                            results.push(BatchAnswer::Refused { code, message, expected: None });
                        }
                        None => results.extend(self.broker.produce(std::slice::from_ref(batch))),
                    }
                }
                self.answers.push(Answer::Produce(id, results));
            }
            Call::Init(id, recover, token) => {
                let answer = self.broker.init(recover, &token);
                self.answers.push(Answer::Init(id, answer));
            }
        }
    }

    fn answer(&mut self, answer: Answer) {
        let failure = |kind| CallFailure { kind, message: "the model says so".to_owned() };
        match answer {
            Answer::Produce(call, results) if self.waiting.remove(&call) => {
                self.handle(Event::ProduceAnswered { call, results });
            }
            Answer::ProduceFailed(call, kind) if self.waiting.remove(&call) => {
                self.handle(Event::ProduceFailed { call, failure: failure(kind) });
            }
            Answer::Init(init, answer) if self.waiting_init.remove(&init) => match answer {
                Ok(answer) => self.handle(Event::InitAnswered { init, answer }),
                Err(kind) => self.handle(Event::InitFailed { init, failure: failure(kind) }),
            },
            // The shell has given the call up.
            Answer::Produce(..) | Answer::ProduceFailed(..) | Answer::Init(..) => {}
        }
    }

    fn give_up(&mut self, which: usize) {
        let failure = CallFailure { kind: FailureKind::InDoubt, message: "cut".to_owned() };
        let (produce, init) = (self.waiting.len(), self.waiting_init.len());
        match which % (produce + init).max(1) {
            i if i < produce => {
                let call = *self.waiting.iter().nth(i).expect("counted");
                self.waiting.remove(&call);
                self.handle(Event::ProduceFailed { call, failure });
            }
            i if i < produce + init => {
                let init = *self.waiting_init.iter().nth(i - produce).expect("counted");
                self.waiting_init.remove(&init);
                self.handle(Event::InitFailed { init, failure });
            }
            _ => {}
        }
    }

    fn wait(&mut self, ms: u64) {
        let until = self.now.plus(Duration::from_millis(ms));
        while let Some(at) = self.session.next_wakeup().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.handle(Event::Tick);
        }
        self.now = until;
        self.handle(Event::Tick);
    }

    fn handle(&mut self, event: Event) {
        self.session.handle(event, self.now);
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.session.poll_action() {
            self.trace.push(format!("{action:?}"));
            match action {
                Action::Produce(call) => {
                    self.waiting.insert(call.call);
                    assert!(self.waiting.len() <= 5, "at most five calls are out");
                    let tagged = call.batches.iter().any(|batch| batch.tag.is_some());
                    assert!(!tagged || self.waiting_init.is_empty(), "nothing is sent while an epoch is being fenced");
                    self.check_tags(&call.batches);
                    self.calls.push(Call::Produce(call.call, call.batches));
                }
                Action::Init { init, recover, token, timeout: _ } => {
                    assert!(self.waiting_init.is_empty(), "one recovery at a time");
                    self.waiting_init.insert(init);
                    self.calls.push(Call::Init(init, recover, token));
                }
                Action::Complete { send, outcomes } => {
                    let records = &self.sends[&send];
                    assert_eq!(records.len(), outcomes.len());
                    for ((partition, number), outcome) in records.iter().zip(outcomes) {
                        let before = self.outcomes.insert(*number, (partition.clone(), outcome));
                        assert!(before.is_none(), "record {number} gets one outcome");
                    }
                }
                Action::Free { bytes } => {
                    self.memory = self.memory.checked_sub(bytes).expect("no more is freed than was taken");
                }
                Action::ForgetTopic { .. } => {}
                Action::Alarm { message } => self.alarms.push(message),
            }
        }
    }

    fn check_tags(&mut self, batches: &[OutgoingBatch]) {
        let partitions: BTreeSet<_> = batches.iter().map(|batch| &batch.partition).collect();
        assert_eq!(partitions.len(), batches.len(), "at most one batch of a partition in a call");
        for batch in batches {
            let Some(tag) = batch.tag else { continue };
            let key = (batch.partition.clone(), tag.producer, tag.epoch, tag.base.get());
            let before = self.tags.insert(key, batch.packed.checksum());
            assert!(before.is_none_or(|before| before == batch.packed.checksum()), "{tag} was sent with other bytes before");
        }
    }

    /// The records that are in no log although they were acknowledged.
    pub(crate) fn lost(&self) -> Vec<u64> {
        let logs = partitions().into_iter().flat_map(|partition| self.broker.log(&partition));
        let there: BTreeSet<u64> = logs.map(|(number, _)| number).collect();
        let acknowledged = self.outcomes.iter().filter(|(_, (_, outcome))| matches!(outcome, RecordOutcome::Appended { .. }));
        acknowledged.map(|(number, _)| *number).filter(|number| !there.contains(number)).collect()
    }

    /// Says what is wrong with the log, if anything. To be asked after [`Self::heal`].
    pub(crate) fn violation(&self) -> Option<String> {
        let mut places: BTreeMap<u64, Vec<(TopicPartition, usize, Timestamp)>> = BTreeMap::new();
        for partition in partitions() {
            let log = self.broker.log(&partition);
            if let Some(pair) = log.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
                return Some(format!("{partition}: {} stands before {}", pair[0].0, pair[1].0));
            }
            for (offset, (number, time)) in log.into_iter().enumerate() {
                places.entry(number).or_default().push((partition.clone(), offset, time));
            }
        }
        for number in 0..self.records {
            let Some((partition, outcome)) = self.outcomes.get(&number) else {
                return Some(format!("record {number} has no outcome"));
            };
            let found = places.remove(&number).unwrap_or_default();
            let was_deleted = self.deleted.iter().any(|(_, log)| log.iter().any(|(deleted, _)| *deleted == number));
            let wrong = match outcome {
                RecordOutcome::Appended { offset, append_time, .. } => match found.as_slice() {
                    [(place, at, time)] => {
                        let said = (offset.map(|offset| offset.get()), *append_time);
                        let is = (i64::try_from(*at).ok(), *time);
                        !was_deleted && (place != partition || said != is)
                    }
                    [] => !was_deleted,
                    _ => true,
                },
                RecordOutcome::Refused(_) => !found.is_empty(),
                RecordOutcome::Unknown => found.len() > 1 || found.iter().any(|(place, _, _)| place != partition),
            };
            if wrong {
                return Some(format!("record {number} of {partition}: {outcome:?}, but it is at {found:?}"));
            }
        }
        (self.memory != 0).then(|| format!("{} bytes are never freed", self.memory))
    }
}

/// What a batch is refused with at random.
const REFUSALS: [ErrorCode; 8] = [
    ErrorCode::MessageTooLarge,
    ErrorCode::InvalidRecord,
    ErrorCode::ResourceExhausted,
    ErrorCode::RequestTimedOut,
    ErrorCode::UnknownTopicOrPartition,
    ErrorCode::TopicAuthorizationFailed,
    ErrorCode::InvalidProducerEpoch,
    ErrorCode::KafkaStorageError,
];

fn topic(which: usize) -> TopicName {
    TopicName::parse(["a", "b"][which]).expect("valid")
}

/// All partitions that the model writes to.
pub(crate) fn partitions() -> Vec<TopicPartition> {
    let of = |topic: usize, i| TopicPartition { topic: self::topic(topic), partition: PartitionIndex::new(i).expect("small") };
    vec![of(0, 0), of(0, 1), of(1, 0), of(1, 1)]
}

/// Small limits and short times, so that a few steps meet them.
pub(crate) fn config(max_in_flight: usize) -> SessionConfig {
    SessionConfig {
        batch_size: 60,
        max_request_size: 600,
        max_in_flight,
        request_timeout: Duration::from_millis(500),
        delivery_timeout: Duration::from_millis(4000),
        ..SessionConfig::with_defaults("token")
    }
}

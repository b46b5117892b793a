//! A session and a broker with a bad network between them, on one thread, driven by numbers.
//!
//! Whatever is sent may be lost, doubled, delayed and reordered for ever: a copy of a call that was given up long ago may still
//! arrive. What the session is told about a call it is told once, as the shell does.

pub(crate) mod broker;
pub(crate) mod dice;
pub(crate) mod real;
pub(crate) mod reference;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broker::{Answer, Broker, Call};
use dice::Dice;
use oncelog_proto::{ErrorCode, Monotonic, Offset, PartitionIndex, Tag, Timestamp, TopicName, TopicPartition, v1::Record};
use producer_svc::session::{
    Action, BatchAnswer, CallFailure, CallId, Event, FailureKind, InitId, OutgoingBatch, RecordOutcome, SendId, Session,
    SessionConfig, record_cost,
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
    /// The broker takes a step of a write or a sync.
    Work,
    /// The broker stops without warning and starts again.
    Crash,
    Wait,
    /// Nothing happens for hours.
    Idle,
    ExpireProducers,
    CreateTopic,
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
    /// What is sent from this record on can only succeed.
    healthy_from: u64,
    memory: usize,
    pub(crate) alarms: Vec<String>,
    /// Every action, to compare runs.
    pub(crate) trace: Vec<String>,
    /// The tagged batches of each call.
    carried: BTreeMap<CallId, Vec<Option<(TopicPartition, Tag)>>>,
    /// Checksum of each tagged batch that was ever sent: a resend is the same.
    tags: BTreeMap<(TopicPartition, Tag), u32>,
    /// What was ever said of a tagged batch, heard or not.
    acknowledged: BTreeMap<(TopicPartition, Tag), (Option<Offset>, Timestamp)>,
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
            healthy_from: u64::MAX,
            memory: 0,
            alarms: Vec::new(),
            trace: Vec::new(),
            carried: BTreeMap::new(),
            tags: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
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
            What::Work => drop(self.broker.work()),
            What::Crash => {
                let mut dice = Dice(u64::try_from(which << 16 | how).expect("two small numbers"));
                let connections_break = dice.roll(2) == 0;
                self.broker.crash(&mut dice);
                while connections_break && !(self.waiting.is_empty() && self.waiting_init.is_empty()) && self.calls.len() <= 50 {
                    self.give_up(0);
                }
            }
            What::Wait => self.wait([5, 5, 5, 1, 20, 20, 100, 100, 300, 1000, 3000][which % 11]),
            What::Idle => self.wait([2, 25][which % 2] * 3_600_000),
            What::ExpireProducers => self.broker.expire_producers(),
            What::CreateTopic => self.broker.create_topic(&topic(which % 2), 1 + i32::from(how % 2 == 0)),
            What::DeleteTopic => self.broker.delete_topic(&topic(which % 2)),
            What::Arrive | What::Answer | What::DoubleCall | What::LoseCall | What::LoseAnswer => {}
        }
        self.collect();
    }

    /// From now on everything works. Ends when every `Send` has its outcome, and with some more `Send`s: the first of them may
    /// still find out what broke, the last ones have to be appended.
    pub(crate) fn heal(&mut self) {
        (self.refuse, self.refuse_call) = (None, false);
        self.broker.heal();
        self.settle();
        for _ in 0..2 {
            // A topic that was refused a moment ago is asked for again only after a pause.
            self.wait(3_000);
            self.healthy_from = self.records;
            self.send(0, 0);
            self.send(1, 0);
            self.settle();
        }
        self.send(0, 0);
        self.handle(Event::Close);
        self.settle();
    }

    /// What is sent arrives, oldest first, until every `Send` has its outcome.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.collect();
            if !self.answers.is_empty() {
                let answer = self.answers.remove(0);
                self.answer(answer);
            } else if !self.calls.is_empty() {
                let call = self.calls.remove(0);
                self.arrive(call);
            } else if self.broker.work() {
            } else if let Some(at) = self.broker.next_wakeup() {
                self.pass(at);
            } else if !self.waiting.is_empty() || !self.waiting_init.is_empty() {
                // Its copies or its answer were lost before.
                self.give_up(0);
            } else if self.session.is_idle() {
                return;
            } else {
                self.pass(self.session.next_wakeup().expect("something is to come"));
            }
        }
        panic!("everything works and the session does not come to an end");
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
            Call::Produce(..) => {
                let refusal = self.refuse.take();
                self.broker.arrive(call, refusal);
            }
            Call::Init(..) => self.broker.arrive(call, None),
        }
    }

    /// What the broker says is on its way. An acknowledgement never changes (I4), not even one that nobody will hear.
    fn collect(&mut self) {
        while let Some(answer) = self.broker.poll_answer() {
            if let Answer::Produce(call, results) = &answer {
                for (batch, result) in self.carried[call].iter().zip(results) {
                    let (Some(batch), BatchAnswer::Acknowledged { base_offset, append_time, .. }) = (batch, result) else {
                        continue;
                    };
                    let said = (*base_offset, *append_time);
                    let before = *self.acknowledged.entry(batch.clone()).or_insert(said);
                    assert_eq!(before, said, "an acknowledgement never changes: {batch:?}");
                }
            }
            self.answers.push(answer);
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

    pub(crate) fn wait(&mut self, ms: u64) {
        let until = self.now.plus(Duration::from_millis(ms));
        let next = |world: &Self| [world.session.next_wakeup(), world.broker.next_wakeup()].into_iter().flatten().min();
        while let Some(at) = next(self).filter(|at| *at <= until) {
            self.pass(at);
        }
        self.pass(until);
    }

    /// Time goes on until `at`.
    fn pass(&mut self, at: Monotonic) {
        self.now = self.now.max(at);
        self.broker.tick(self.now);
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
                    let carried = call.batches.iter().map(|batch| Some((batch.partition.clone(), batch.tag?)));
                    self.carried.insert(call.call, carried.collect());
                    self.calls.push(Call::Produce(call.call, call.batches));
                }
                Action::Init { init, recover, token, timeout: _ } => {
                    // Beside a recovery of an id that was given up meanwhile, a fresh one is asked for.
                    assert!(self.waiting_init.is_empty() || recover.is_none(), "one recovery at a time");
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
            let before = self.tags.insert((batch.partition.clone(), tag), batch.packed.checksum());
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
        let mut places: BTreeMap<u64, Vec<Place>> = BTreeMap::new();
        for partition in partitions() {
            let lives = self.broker.past_logs(&partition).into_iter().map(|log| (log, false));
            for (log, alive) in lives.chain([(self.broker.log(&partition), true)]) {
                if let Some(pair) = log.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
                    return Some(format!("{partition}: {} stands before {}", pair[0].0, pair[1].0));
                }
                for (offset, (number, time)) in log.into_iter().enumerate() {
                    let offset = Offset::new(i64::try_from(offset).expect("few")).expect("not negative");
                    let place = Place { partition: partition.clone(), alive, offset, time };
                    places.entry(number).or_default().push(place);
                }
            }
        }
        for number in 0..self.records {
            let Some((partition, outcome)) = self.outcomes.get(&number) else {
                return Some(format!("record {number} has no outcome"));
            };
            let found = places.remove(&number).unwrap_or_default();
            let strays = found.iter().any(|place| place.partition != *partition);
            let wrong = strays || !is_as_told(outcome, &found);
            let fails = number >= self.healthy_from && !matches!(outcome, RecordOutcome::Appended { .. });
            if wrong || fails {
                return Some(format!("record {number} of {partition}: {outcome:?}, but it is at {found:?}"));
            }
        }
        (self.memory != 0).then(|| format!("{} bytes are never freed", self.memory))
    }
}

/// Where a record was found.
#[derive(Clone, Debug)]
struct Place {
    partition: TopicPartition,
    /// The partition was not deleted since.
    alive: bool,
    offset: Offset,
    time: Timestamp,
}

/// Does the log agree with what the caller heard? `found` is in the order of the partition's lives; each ends with the deletion
/// of its topic. Within one life a record stands once, as each log is in the order of its
/// numbers. An earlier life may hold a copy whose acknowledgement nobody heard: the topic was deleted with it, and so the record
/// was certainly in no log when it was sent anew. A later life must not: what was acknowledged once is never appended again
/// (R12).
fn is_as_told(outcome: &RecordOutcome, found: &[Place]) -> bool {
    match outcome {
        RecordOutcome::Appended { offset, append_time, .. } => {
            found.last().is_some_and(|last| (*offset, *append_time) == (Some(last.offset), last.time))
        }
        RecordOutcome::Refused(_) => !found.iter().any(|place| place.alive),
        RecordOutcome::Unknown => true,
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
fn partitions() -> Vec<TopicPartition> {
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
        ..producer_svc::Config::default().resolve(&|_| None).expect("the defaults agree").session("token".to_owned())
    }
}

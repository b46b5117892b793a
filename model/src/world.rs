//! A state of everything: what may come next, and what comes of it.

use std::{
    collections::{BTreeSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    rc::Rc,
};

use oncelog_proto::{Epoch, ErrorCode, PackedBatch, PartitionIndex, ProducerId, Sequence, Tag, TopicName, TopicPartition};
use producer_svc::session::{Action, Event, FailureKind, OutgoingBatch, ProduceCall, RecordOutcome, SendId};

use crate::{
    bounds::{Bounds, Failures, Stranger},
    broken::Broken,
    broker::Broker,
    ledger::{Ledger, Violation},
    process::Process,
    step::Step,
    travel::{Answer, Call, Message, Sent, Waiter},
    wire,
};

/// A producer process, a broker, and what is on its way between them.
#[derive(Clone, Debug)]
pub struct World {
    bounds: Rc<Bounds>,
    process: Process,
    /// How many processes there were before.
    generation: u8,
    broker: Broker,
    calls: Vec<Call>,
    answers: Vec<Answer>,
    ledger: Ledger,
    left: Failures,
    /// How many of the bounds' `Send`s were handed over.
    sends: usize,
    /// Somebody has taken the producer's id over.
    is_robbed: bool,
}

impl World {
    /// Before anything has happened.
    ///
    /// # Errors
    /// A promise is broken already.
    pub fn new(bounds: Rc<Bounds>) -> Result<Self, Violation> {
        let mut world = Self {
            process: Process::start(&bounds, 0),
            generation: 0,
            broker: Broker::new(&bounds),
            calls: Vec::new(),
            answers: Vec::new(),
            ledger: Ledger::default(),
            left: bounds.failures,
            sends: 0,
            is_robbed: false,
            bounds,
        };
        if !world.bounds.strangers.is_empty() {
            world.broker.hand_out_id(&mut world.ledger)?;
            world.ledger.expect_strangers(STRANGERS_RECORDS);
            world.calls = world.bounds.strangers.iter().map(stranger).collect();
        }
        world.act()?;
        Ok(world)
    }

    /// Everything that may come next.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.sends < self.bounds.sends.len() {
            steps.push(Step::Send);
        }
        let mut seen = BTreeSet::new();
        for (index, call) in self.calls.iter().enumerate() {
            // Two of the same make no difference.
            if seen.insert(self.digest_of_call(call)) {
                self.add_steps_of(index, call, &mut steps);
            }
        }
        steps.extend((0..self.answers.len()).map(Step::Answer));
        for (place, waiter) in self.process.waiters().enumerate() {
            if self.left.give_ups > 0 || self.times_out(waiter) {
                steps.push(Step::GiveUp(place));
            }
        }
        steps.extend(self.broker.is_writing().then_some(Step::Sync));
        steps.extend(self.broker.holds().then_some(Step::BrokerTime));
        steps.extend(self.process.next_wakeup().map(|_| Step::SessionTime));
        for lowered in [false, true] {
            let possible = if lowered { self.left.lowered > 0 } else { !self.broker.is_idle() };
            if self.left.crashes > 0 && possible {
                steps.extend((0..=self.broker.unsynced()).map(|kept| Step::Crash { kept, lowered }));
            }
        }
        steps.extend((self.left.kills > 0).then_some(Step::Kill));
        steps
    }

    fn add_steps_of(&self, index: usize, call: &Call, steps: &mut Vec<Step>) {
        steps.push(Step::Arrive(index));
        if self.left.doubles > 0 {
            steps.push(Step::Double(index));
        }
        if self.left.refusals > 0 && matches!(call.message, Message::Produce(_)) {
            steps.extend(self.bounds.refusals.iter().map(|code| Step::Refuse(index, *code)));
        }
        if self.left.statuses > 0 && call.waiter.is_some() {
            for status in self.bounds.statuses.iter().copied() {
                steps.extend([false, true].map(|carried_out| Step::Fail { call: index, status, carried_out }));
            }
        }
    }

    /// What comes next if from now on nothing fails; nothing if all is at rest.
    pub fn next_if_healthy(&self) -> Option<Step> {
        if !self.answers.is_empty() {
            return Some(Step::Answer(0));
        }
        if let Some(index) = self.calls.iter().position(|call| call.waiter.is_some()) {
            // Of equal calls the first stands for all.
            let digest = self.digest_of_call(&self.calls[index]);
            return self.calls.iter().position(|call| self.digest_of_call(call) == digest).map(Step::Arrive);
        }
        if self.broker.is_writing() {
            return Some(Step::Sync);
        }
        if self.broker.holds() && self.broker.keeps_waiting() {
            return Some(Step::BrokerTime);
        }
        if let Some(place) = self.process.waiters().position(|waiter| self.times_out(waiter)) {
            return Some(Step::GiveUp(place));
        }
        (!self.process.is_idle() && self.process.next_wakeup().is_some()).then_some(Step::SessionTime)
    }

    /// Has everything that was handed over its outcome?
    pub fn is_settled(&self) -> bool {
        self.ledger.is_settled(self.generation)
    }

    /// Takes a step.
    ///
    /// # Errors
    /// A promise is broken.
    ///
    /// # Panics
    /// The step is none of [`Self::steps`], or one of the machines finds itself in a state that cannot be.
    pub fn take(&mut self, step: Step) -> Result<(), Violation> {
        match step {
            Step::Send => self.send(),
            Step::Arrive(index) => {
                let call = self.calls.remove(index);
                self.broker.arrive(call, None);
            }
            Step::Double(index) => {
                self.left.doubles -= 1;
                let call = self.calls[index].clone();
                self.calls[index].waiter = None;
                self.broker.arrive(call, None);
            }
            Step::Refuse(index, code) => {
                self.left.refusals -= 1;
                let call = self.calls.remove(index);
                if code == ErrorCode::SequenceConflict {
                    self.is_robbed |= self.broker.rob(call, &self.ledger);
                } else {
                    self.broker.arrive(call, Some(code));
                }
            }
            Step::Fail { call, status, carried_out } => self.fail(call, status, carried_out),
            Step::Answer(index) => {
                let answer = self.answers.remove(index);
                let waiter = answer.waiter();
                self.process.answer(answer);
                self.stop_waiting(waiter)?;
            }
            Step::GiveUp(place) => {
                let waiter = self.process.waiters().nth(place).expect("one of those that wait");
                self.left.give_ups -= u8::from(self.is_under_way(waiter));
                self.process.give_up(waiter);
                self.stop_waiting(waiter)?;
            }
            Step::Sync => {
                let answers = self.broker.sync(&mut self.ledger)?;
                self.answers.extend(answers);
            }
            Step::BrokerTime => self.broker.pass(),
            Step::SessionTime => self.process.pass(),
            Step::Crash { kept, lowered } => {
                self.left.crashes -= 1;
                self.left.lowered -= u8::from(lowered);
                self.broker.crash(kept, lowered.then_some(self.bounds.lowered_bytes), &mut self.ledger)?;
            }
            Step::Kill => self.kill(),
        }
        self.act()?;
        let answers = match self.left.crashes {
            0 => self.broker.sync_all(&mut self.ledger)?,
            _ => self.broker.work(&mut self.ledger)?,
        };
        self.answers.extend(answers);
        Ok(())
    }

    /// May the session raise an alarm? If a status lied, or if its id is in fact used by somebody else.
    fn may_alarm(&self) -> bool {
        self.is_robbed || self.bounds.may_alarm()
    }

    fn send(&mut self) {
        let id = SendId(self.sends as u64);
        let indices = &self.bounds.sends[self.sends];
        let record = |index: &i32| (partition(*index).partition, wire::record(self.ledger.send(self.generation)));
        let records = indices.iter().map(record).collect();
        self.sends += 1;
        self.process.handle(Event::Send { id, topic: topic(), records });
    }

    fn fail(&mut self, index: usize, status: tonic::Code, carried_out: bool) {
        self.left.statuses -= 1;
        let call = self.calls.remove(index);
        let waiter = call.waiter.expect("somebody waits for it");
        self.answers.push(match waiter {
            Waiter::Produce(id) => Answer::Produce(id, Err(FailureKind::of_produce(status))),
            Waiter::Init(id) => Answer::Init(id, Err(FailureKind::of_init(status))),
        });
        if carried_out {
            self.broker.arrive(Call { waiter: None, ..call }, None);
        }
    }

    fn kill(&mut self) {
        self.left.kills -= 1;
        self.ledger.end(self.generation);
        let waiters: Vec<_> = self.process.waiters().collect();
        self.generation += 1;
        self.process = Process::start(&self.bounds, self.generation);
        waiters.into_iter().for_each(|waiter| self.forget(waiter));
    }

    /// Does a call, or its answer, still have to arrive?
    fn is_under_way(&self, waiter: Waiter) -> bool {
        self.calls.iter().any(|call| call.waiter == Some(waiter))
            || self.answers.iter().any(|answer| answer.waiter() == waiter)
            || self.broker.has(waiter)
    }

    /// What was lost is given up some time, and that is no further failure.
    fn times_out(&self, waiter: Waiter) -> bool {
        !self.is_under_way(waiter) && self.bounds.broken != Some(Broken::NoTimeouts)
    }

    /// A call has ended for the session. What is left of it says nothing to anybody, unless that is broken.
    fn stop_waiting(&mut self, waiter: Waiter) -> Result<(), Violation> {
        self.act()?;
        let other = self.process.waiters().find(|other| matches!(other, Waiter::Produce(_)));
        match (self.bounds.broken, waiter, other) {
            (Some(Broken::AnswersOfOtherCalls), Waiter::Produce(_), Some(other)) => self.rename(waiter, other),
            _ => self.forget(waiter),
        }
        Ok(())
    }

    fn rename(&mut self, from: Waiter, to: Waiter) {
        self.broker.rename(from, Some(to));
        self.calls.iter_mut().filter(|call| call.waiter == Some(from)).for_each(|call| call.waiter = Some(to));
        for answer in &mut self.answers {
            match (answer, to) {
                (Answer::Produce(call, _), Waiter::Produce(to)) if Waiter::Produce(*call) == from => *call = to,
                _ => {}
            }
        }
    }

    fn forget(&mut self, waiter: Waiter) {
        self.answers.retain(|answer| answer.waiter() != waiter);
        for call in self.calls.iter_mut().filter(|call| call.waiter == Some(waiter)) {
            call.waiter = None;
        }
        self.calls.retain(|call| call.waiter.is_some() || !call.message.is_fresh());
        self.broker.rename(waiter, None);
    }

    /// Does what the session wants done.
    fn act(&mut self) -> Result<(), Violation> {
        while let Some((action, forgotten)) = self.process.act() {
            forgotten.into_iter().for_each(|waiter| self.forget(waiter));
            match action {
                Action::Produce(call) => self.call(call)?,
                Action::Init { init, recover, token, timeout: _ } => {
                    let message = Message::Init { recover, token: token.into() };
                    self.calls.push(Call { waiter: Some(Waiter::Init(init)), message });
                }
                Action::Complete { send, outcomes } => self.complete(send, &outcomes)?,
                Action::Alarm { message } if !self.may_alarm() => return Err(Violation(format!("alarm: {message}"))),
                Action::Alarm { .. } | Action::Free { .. } | Action::ForgetTopic { .. } => {}
            }
        }
        Ok(())
    }

    fn call(&mut self, call: ProduceCall) -> Result<(), Violation> {
        let partitions: BTreeSet<_> = call.batches.iter().map(|batch| &batch.partition).collect();
        if partitions.len() != call.batches.len() || self.process.waiters().count() > self.bounds.max_in_flight + 1 {
            return Err(Violation(format!("too many calls are out, or two batches of a partition in one: {:?}", call.batches)));
        }
        let sent = call.batches.into_iter().map(|batch| Sent { records: wire::numbers(&batch.packed), batch });
        let message = Message::Produce(sent.collect());
        self.calls.push(Call { waiter: Some(Waiter::Produce(call.call)), message });
        Ok(())
    }

    fn complete(&mut self, send: SendId, outcomes: &[RecordOutcome]) -> Result<(), Violation> {
        let which = usize::try_from(send.0).expect("few");
        let before: usize = self.bounds.sends[..which].iter().map(Vec::len).sum();
        let first = before + if self.bounds.strangers.is_empty() { 0 } else { STRANGERS_RECORDS };
        for (place, (index, outcome)) in self.bounds.sends[which].iter().zip(outcomes).enumerate() {
            let number = u8::try_from(first + place).expect("fewer than 100 of each");
            let allowed = match outcome {
                RecordOutcome::Appended { .. } => true,
                RecordOutcome::Refused(_) => self.bounds.may_be_refused(),
                RecordOutcome::Unknown => self.bounds.may_be_unknown() || self.may_alarm(),
            };
            if !allowed {
                return Err(Violation(format!("record {number} is told {outcome:?}, and nothing that happened makes it so")));
            }
            self.ledger.tell(number, &partition(*index), outcome)?;
        }
        Ok(())
    }

    /// Worlds of equal digests have the same future.
    pub fn digest(&self) -> u64 {
        let mut into = DefaultHasher::new();
        self.process.digest(&mut into);
        self.broker.digest(|waiter| self.process.place(waiter), &mut into);
        let mut calls: Vec<_> = self.calls.iter().map(|call| self.digest_of_call(call)).collect();
        calls.sort_unstable();
        let mut answers: Vec<_> = self.answers.iter().map(|answer| self.digest_of_answer(answer)).collect();
        answers.sort_unstable();
        (calls, answers, self.left, self.sends, self.generation, self.is_robbed).hash(&mut into);
        self.ledger.digest(&mut into);
        into.finish()
    }

    fn digest_of_call(&self, call: &Call) -> u64 {
        let mut into = DefaultHasher::new();
        (call.waiter.and_then(|waiter| self.process.place(waiter)), &call.message).hash(&mut into);
        into.finish()
    }

    fn digest_of_answer(&self, answer: &Answer) -> u64 {
        let mut into = DefaultHasher::new();
        self.process.place(answer.waiter()).hash(&mut into);
        answer.digest(&mut into);
        into.finish()
    }

    /// A step in words, before it is taken.
    pub fn describe(&self, step: Step) -> String {
        let call = match step {
            Step::Arrive(index) | Step::Double(index) | Step::Refuse(index, _) | Step::Fail { call: index, .. } => {
                self.calls.get(index)
            }
            _ => None,
        };
        let answer = match step {
            Step::Answer(index) => self.answers.get(index),
            _ => None,
        };
        let detail = call.map(Call::to_string).or_else(|| answer.map(|answer| format!("{answer:?}"))).unwrap_or_default();
        format!("{step:?} {detail}")
    }

    /// The durable logs, in words.
    pub fn logs(&self) -> String {
        self.ledger.logs()
    }
}

fn stranger(stranger: &Stranger) -> Call {
    let producer = ProducerId::new(1).expect("1");
    let of = |epoch: i32| Epoch::new(epoch).expect("not negative");
    let message = match stranger {
        Stranger::Produce { epoch, base, records } => {
            let tag = Tag { producer, epoch: of(*epoch), base: Sequence::new(*base).expect("not negative") };
            let packed: Vec<_> = records.iter().map(|number| wire::record(*number)).collect();
            let packed = PackedBatch::from_records(&packed).expect("small");
            let batch = OutgoingBatch { partition: partition(0), tag: Some(tag), packed };
            Message::Produce([Sent { batch, records: records.clone() }].into())
        }
        Stranger::Recover { epoch, token } => Message::Init { recover: Some((producer, of(*epoch))), token: (*token).into() },
    };
    Call { waiter: None, message }
}

fn topic() -> TopicName {
    TopicName::parse("t").expect("allowed")
}

fn partition(index: i32) -> TopicPartition {
    TopicPartition { topic: topic(), partition: PartitionIndex::new(index).expect("not negative") }
}

/// Strangers' records have the numbers below this, others those from here on.
const STRANGERS_RECORDS: usize = 100;

//! The broker: the real pipeline over a disk of which only what is synced can be relied on.
//!
//! The committer takes a group as soon as the one before it is durable. While no crash can come any more, nobody can tell what is
//! durable from what is not, and every group is synced at once.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{Hash, Hasher},
    rc::Rc,
    time::Duration,
};

use broker_svc::{
    journal::{self, Group},
    pipeline::{Answer as Told, BatchOutcome, Now, Options, Output, Pipeline, Request},
    state::{Granted, InitRequest, Limits, Recovered, State},
};
use oncelog_proto::{ErrorCode, Fault, Monotonic, Timestamp, topic::PartitionCount};

use crate::{
    bounds::Bounds,
    broken::Broken,
    ledger::{Ledger, Violation},
    travel::{Answer, Call, Message, Sent, Waiter},
    wire,
};

/// The broker and its disk.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pipeline: Pipeline<u64>,
    options: Options,
    broken: Option<Broken>,
    /// What the synced groups add up to.
    durable: State,
    /// Groups that were written and not synced, oldest first. One at most, unless a rule is broken.
    unsynced: VecDeque<Group>,
    callers: BTreeMap<u64, Caller>,
    next_caller: u64,
    /// What recoveries told, for [`Broken::RecoveryOfOlderEpochs`].
    recovered: Vec<Recovered>,
    micros: u64,
}

/// Who asked.
#[derive(Clone, Debug)]
struct Caller {
    waiter: Option<Waiter>,
    /// The batches of a `Produce`.
    sent: Option<Rc<[Sent]>>,
    /// The token of an `InitProducerId`.
    token: Option<Rc<str>>,
}

impl Broker {
    /// On an empty disk.
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let options = options(bounds);
        let pipeline = Pipeline::open(options.clone(), State::default(), None, now(0));
        let mut broker = Self {
            pipeline,
            options,
            broken: bounds.broken,
            durable: State::default(),
            unsynced: VecDeque::new(),
            callers: BTreeMap::new(),
            next_caller: 0,
            recovered: Vec::new(),
            micros: 0,
        };
        broker.settle_opening(&mut Ledger::default()).expect("nothing is promised yet");
        broker
    }

    /// A fresh id for the strangers.
    pub(crate) fn hand_out_id(&mut self, ledger: &mut Ledger) -> Result<(), Violation> {
        self.ask(Caller { waiter: None, sent: None, token: None }, Request::InitProducer(InitRequest::Fresh));
        self.sync_all(ledger).map(drop)
    }

    /// A call arrives. With `refusal` its first batch is refused unseen.
    pub(crate) fn arrive(&mut self, call: Call, refusal: Option<ErrorCode>) {
        let mut request = wire::request(&call.message, self.options.limits.max_message_bytes);
        if let (Some(code), Request::Produce { batches, .. }) = (refusal, &mut request) {
            batches[0] = Err(Fault::new(code, UNSEEN));
        }
        let (sent, token) = match call.message {
            Message::Produce(sent) => (Some(sent), None),
            Message::Init { token, .. } => (None, Some(token)),
        };
        self.ask(Caller { waiter: call.waiter, sent, token }, request);
    }

    /// A call arrives, and its first batch meets what another process has written under the same id: it is told of a conflict.
    /// The other one has recovered the epoch before, as it has to: nothing of it gets in any more, wherever copies are.
    ///
    /// False: the batch itself is in the log, so nobody else can have written there. Then the call is like any other.
    pub(crate) fn rob(&mut self, call: Call, ledger: &Ledger) -> bool {
        let Message::Produce(sent) = &call.message else { unreachable!("only batches are refused") };
        if ledger.holds(&sent[0].records) {
            self.arrive(call, None);
            return false;
        }
        let tag = sent[0].batch.tag.expect("an id is shared by those who have one");
        let recovery = Message::Init { recover: Some((tag.producer, tag.epoch)), token: "a stranger".into() };
        self.arrive(Call { waiter: None, message: recovery }, None);
        self.arrive(call, Some(ErrorCode::SequenceConflict));
        true
    }

    fn ask(&mut self, caller: Caller, request: Request) {
        // A moment apart, so that no two calls begin to wait at the same instant.
        self.micros += 1;
        self.callers.insert(self.next_caller, caller);
        self.pipeline.on_request(self.next_caller, request, now(self.micros));
        self.next_caller += 1;
    }

    /// Writes what can be written; returns what leaves.
    pub(crate) fn work(&mut self, ledger: &mut Ledger) -> Result<Vec<Answer>, Violation> {
        let early = self.broken == Some(Broken::AnswersBeforeSync);
        while self.unsynced.is_empty() || early {
            let Some(group) = self.pipeline.poll_group() else { break };
            self.pipeline.on_written();
            self.unsynced.push_back(group);
            if early {
                self.pipeline.on_synced(u64::MAX);
            }
        }
        self.leave(ledger)
    }

    /// Has something to be synced?
    pub(crate) fn is_writing(&self) -> bool {
        !self.unsynced.is_empty()
    }

    /// How many groups are written and not synced?
    pub(crate) fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// The oldest group is durable; returns what leaves.
    pub(crate) fn sync(&mut self, ledger: &mut Ledger) -> Result<Vec<Answer>, Violation> {
        let group = self.unsynced.pop_front().expect("only asked if something is written");
        self.persist(&group, ledger)?;
        if self.broken != Some(Broken::AnswersBeforeSync) {
            self.pipeline.on_synced(u64::MAX);
        }
        let answers = self.work(ledger)?;
        if !self.is_writing() && *self.pipeline.state() != self.durable {
            return Err(Violation("what was lived is not what would be replayed (I5)".to_owned()));
        }
        Ok(answers)
    }

    /// Everything is durable; returns what leaves.
    pub(crate) fn sync_all(&mut self, ledger: &mut Ledger) -> Result<Vec<Answer>, Violation> {
        let mut answers = self.work(ledger)?;
        while self.is_writing() {
            answers.extend(self.sync(ledger)?);
        }
        Ok(answers)
    }

    fn persist(&mut self, group: &Group, ledger: &mut Ledger) -> Result<(), Violation> {
        for entry in group.entries() {
            let applied = self.durable.apply(entry, group.time());
            applied.map_err(|why| Violation(format!("the journal contradicts itself: {why}")))?;
        }
        ledger.commit(group)
    }

    /// The answers that leave, each judged before it does.
    fn leave(&mut self, ledger: &mut Ledger) -> Result<Vec<Answer>, Violation> {
        let mut answers = Vec::new();
        while let Some(output) = self.pipeline.poll_output() {
            let Output::Answer(number, told) = output else { continue };
            let caller = self.callers.remove(&number).expect("a call is answered once");
            let told = self.deny(told);
            match (&told, &caller.sent) {
                (Told::Produced(outcomes), Some(sent)) => {
                    assert_eq!(sent.len(), outcomes.len(), "each batch is answered");
                    let mut judged = sent.iter().zip(outcomes).filter(|(_, outcome)| !is_unseen(outcome));
                    judged.try_for_each(|(sent, outcome)| ledger.answer_batch(sent, outcome))?;
                }
                (Told::Granted(granted), _) => ledger.answer_grant(granted, caller.token.as_ref())?,
                _ => {}
            }
            let told = self.bend(told);
            let max_batch_bytes = self.options.limits.max_message_bytes;
            answers.extend(caller.waiter.map(|waiter| wire::answer(waiter, caller.sent.as_deref(), told, max_batch_bytes)));
        }
        Ok(answers)
    }

    /// Refuses what was appended, if that is asked for.
    fn deny(&self, told: Told) -> Told {
        match told {
            Told::Produced(outcomes) if self.broken == Some(Broken::RefusesWhatItAppends) => {
                let too_large = Fault::new(ErrorCode::MessageTooLarge, "too large, and appended all the same");
                let deny = |outcome| match outcome {
                    BatchOutcome::Acknowledged { .. } => BatchOutcome::Refused(too_large.clone()),
                    refused => refused,
                };
                Told::Produced(outcomes.into_iter().map(deny).collect())
            }
            told => told,
        }
    }

    /// Makes an answer wrong behind the back of whoever judges it, if that is asked for.
    fn bend(&mut self, told: Told) -> Told {
        match (self.broken, told) {
            (Some(Broken::RecoveryWithoutWindows), Told::Granted(mut granted)) => {
                granted.recovered.iter_mut().for_each(|told| told.window.clear());
                Told::Granted(granted)
            }
            (Some(Broken::RecoveryOfOlderEpochs), Told::Granted(mut granted)) => {
                self.add_older(&mut granted);
                Told::Granted(granted)
            }
            (_, told) => told,
        }
    }

    fn add_older(&mut self, granted: &mut Granted) {
        let told = granted.recovered.clone();
        self.recovered.retain(|older| told.iter().all(|newer| newer.partition != older.partition));
        granted.recovered.extend(self.recovered.iter().cloned());
        self.recovered.extend(told);
    }

    /// Does a batch of somebody who waits for the answer wait in the hold?
    pub(crate) fn keeps_waiting(&self) -> bool {
        self.pipeline.held().0 > 0 && self.callers.values().any(|caller| caller.waiter.is_some())
    }

    /// Can time alone make it answer?
    pub(crate) fn holds(&self) -> bool {
        self.pipeline.held().0 > 0
    }

    /// Time passes until the next held batch has waited long enough.
    pub(crate) fn pass(&mut self) {
        let at = self.pipeline.next_wakeup();
        self.micros = self.micros.max(at.as_micros());
        self.pipeline.on_tick(now(self.micros));
    }

    /// Is this call here?
    pub(crate) fn has(&self, waiter: Waiter) -> bool {
        self.callers.values().any(|caller| caller.waiter == Some(waiter))
    }

    /// Somebody else waits for this call from now on, or nobody.
    pub(crate) fn rename(&mut self, from: Waiter, to: Option<Waiter>) {
        self.callers.values_mut().filter(|caller| caller.waiter == Some(from)).for_each(|caller| caller.waiter = to);
    }

    /// Would a crash lose anything?
    pub(crate) fn is_idle(&self) -> bool {
        self.pipeline.is_idle() && self.unsynced.is_empty()
    }

    /// Stops and starts. The first `kept` groups that were not synced are there all the same.
    pub(crate) fn crash(&mut self, kept: usize, max_message_bytes: Option<usize>, ledger: &mut Ledger) -> Result<(), Violation> {
        let unsynced = std::mem::take(&mut self.unsynced);
        let state = if self.broken == Some(Broken::StateAheadOfLog) { Some(self.pipeline.state().clone()) } else { None };
        unsynced.iter().take(kept).try_for_each(|group| self.persist(group, ledger))?;
        self.callers.clear();
        self.options.limits.max_message_bytes = max_message_bytes.unwrap_or(self.options.limits.max_message_bytes);
        let state = state.unwrap_or_else(|| self.durable.clone());
        self.pipeline = Pipeline::open(self.options.clone(), state, Some(WALL), now(self.micros));
        self.settle_opening(ledger)
    }

    /// The first group of an opening says only that; nothing is told apart by the time it takes.
    fn settle_opening(&mut self, ledger: &mut Ledger) -> Result<(), Violation> {
        self.pipeline.on_tick(now(self.micros));
        let group = self.pipeline.poll_group().expect("an opening is noted");
        self.persist(&group, ledger)?;
        self.pipeline.on_written();
        self.pipeline.on_synced(u64::MAX);
        Ok(())
    }

    /// `name` tells the place of a waiter among all.
    pub(crate) fn digest(&self, name: impl Fn(Waiter) -> Option<u64>, into: &mut impl Hasher) {
        self.options.limits.max_message_bytes.hash(into);
        self.durable.to_chunks().hash(into);
        self.unsynced.len().hash(into);
        self.unsynced.iter().for_each(|group| group.entries().hash(into));
        self.recovered.hash(into);
        self.pipeline.digest(|number| self.callers[number].waiter.and_then(&name), into);
    }
}

/// Whoever refuses a batch unseen knows nothing of the log.
fn is_unseen(outcome: &BatchOutcome) -> bool {
    matches!(outcome, BatchOutcome::Refused(fault) if fault.message() == UNSEEN)
}

fn options(bounds: &Bounds) -> Options {
    Options {
        limits: Limits {
            max_message_bytes: 1 << 20,
            auto_create_topics: true,
            default_partitions: PartitionCount::new(2).expect("2"),
            max_partitions: 100,
            max_producers: 100,
            max_windows: 100,
            producer_id_expiration: Duration::from_secs(24 * 3600),
        },
        hold: if bounds.hold { Duration::from_millis(200) } else { Duration::ZERO },
        hold_bytes: bounds.hold_bytes,
        group_limit: journal::Options::new(0).group_limit(),
        incarnation: 0,
        accept_clock_jump: false,
    }
}

fn now(micros: u64) -> Now {
    Now { monotonic: Monotonic::from_micros(micros), wall: WALL }
}

/// Why a batch is refused that nothing is wrong with.
const UNSEEN: &str = "refused unseen";
/// What people call the time; it stands still.
const WALL: Timestamp = Timestamp::MAX;

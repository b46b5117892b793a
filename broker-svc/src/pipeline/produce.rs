//! A `Produce` call on its way: each batch judged, held, and decided; the call answered when its last batch is decided.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
};

use oncelog_proto::{Epoch, ErrorCode, Fault, Monotonic, Tag};

use super::{Acks, Answer, BatchOutcome, Now, Output, Pipeline, Waited};
use crate::{
    entry::{Entry, OwnerHash},
    state::{Arrival, Verdict, out_of_order, unknown_producer},
};

/// A `Produce` call some of whose batches are undecided.
#[derive(Clone, Debug)]
pub(super) struct Call<R> {
    reply: R,
    acks: Acks,
    outcomes: Vec<Option<BatchOutcome>>,
    undecided: usize,
}

impl<R> Call<R> {
    /// What decides its future.
    pub(super) fn digest(&self, name: &impl Fn(&R) -> Option<u64>, into: &mut impl Hasher) {
        // Nobody hears what was decided of the batches of a call that was given up.
        name(&self.reply).map(|name| (name, &self.outcomes)).hash(into);
    }
}

/// A batch with its place in its call.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) call: u64,
    pub(super) index: usize,
    pub(super) arrival: Arrival,
    /// In a trace: when it began to wait for its turn.
    pub(super) held: Option<Monotonic>,
}

impl<R> Pipeline<R> {
    /// A producer id never changes hands, so whose it is need not be asked again of a batch that waits for its turn.
    pub(super) fn produce(
        &mut self,
        caller: Option<OwnerHash>,
        reply: R,
        acks: Acks,
        batches: Vec<Result<Arrival, Fault>>,
        now: Now,
    ) {
        assert!(!batches.is_empty(), "the edge refuses a call without batches");
        let call = self.next_call;
        self.next_call += 1;
        let undecided = batches.len();
        self.calls.insert(call, Call { reply, acks, outcomes: vec![None; undecided], undecided });
        for (index, batch) in batches.into_iter().enumerate() {
            match batch {
                Ok(Arrival { tag: Some(tag), .. }) if !self.state.owns(caller, tag.producer) => {
                    self.decide(call, index, BatchOutcome::Refused(unknown_producer(tag.producer)), now);
                }
                Ok(arrival) => self.admit(Waiting { call, index, arrival, held: None }, true, now),
                Err(fault) => self.decide(call, index, BatchOutcome::Refused(fault), now),
            }
        }
    }

    /// Judges a batch, and those that waited for it.
    fn admit(&mut self, batch: Waiting, may_wait: bool, now: Now) {
        let mut queue = VecDeque::from([(batch, may_wait)]);
        while let Some((mut batch, may_wait)) = queue.pop_front() {
            self.note_wait(&mut batch, now);
            match self.judge(&batch.arrival) {
                Verdict::Append { create, append } => {
                    let Arrival { partition, tag, packed, trace } = batch.arrival;
                    if let Some(create) = create {
                        self.enter(create, None, now);
                    }
                    let (id, base_offset) = (append.partition, append.base_offset);
                    self.counts.appended_batches += 1;
                    self.counts.appended_records += u64::from(append.count.get().unsigned_abs());
                    let time = self.enter(Entry::Append(append), Some(packed.data().clone()), now);
                    self.note_ends(id);
                    if let Some(trace) = trace {
                        self.draft(now).leaving.traces.push(trace);
                    }
                    let base_offset = Some(base_offset);
                    let outcome = BatchOutcome::Acknowledged { base_offset, time, duplicate: false };
                    self.decide(batch.call, batch.index, outcome, now);
                    if let Some(tag) = tag {
                        let next = tag.end(packed.count()).expect("it was appended");
                        let due = self.hold.take_due(tag.producer, tag.epoch, &partition, next);
                        queue.extend(due.into_iter().map(|batch| (batch, true)));
                    }
                }
                Verdict::Duplicate { base_offset, time } => {
                    self.counts.duplicate_batches += 1;
                    self.counts.duplicate_records += u64::from(batch.arrival.packed.count().get().unsigned_abs());
                    let producer = batch.arrival.tag.expect("only a tagged batch is recognised").producer;
                    self.note_seen(producer, now);
                    let outcome = BatchOutcome::Acknowledged { base_offset: Some(base_offset), time, duplicate: true };
                    self.decide(batch.call, batch.index, outcome, now);
                }
                Verdict::Early { expected } => {
                    let tag = batch.arrival.tag.expect("only a tagged batch can be early");
                    let partition = batch.arrival.partition.clone();
                    let bytes = batch.arrival.packed.data().len() + HELD_BYTES;
                    batch.held = batch.arrival.trace.map(|_| now.monotonic);
                    let refused =
                        if may_wait { self.hold.offer(tag, &partition, batch, bytes, now.monotonic).err() } else { Some(batch) };
                    match refused {
                        None => self.counts.held_batches += 1,
                        Some(batch) => {
                            let fault = out_of_order(tag, &partition, expected);
                            self.decide(batch.call, batch.index, BatchOutcome::Refused(fault), now);
                        }
                    }
                }
                Verdict::Refuse(fault) => {
                    self.counts.window_misses += u64::from(fault.code() == ErrorCode::DuplicateSequenceNumber);
                    self.decide(batch.call, batch.index, BatchOutcome::Refused(fault), now);
                }
            }
        }
    }

    /// A batch in a trace that was held is judged again: its wait is told.
    fn note_wait(&mut self, batch: &mut Waiting, now: Now) {
        if let (Some(trace), Some(since)) = (batch.arrival.trace, batch.held.take()) {
            self.waited.push_back(Waited { trace, time: now.monotonic.since(since) });
        }
    }

    fn judge(&self, arrival: &Arrival) -> Verdict {
        let verdict = self.state.judge(arrival, &self.options.limits);
        if !matches!(verdict, Verdict::Append { .. }) {
            return verdict;
        }
        // The disk is asked last: a full one must not keep a duplicate from its acknowledgement.
        self.check_room(arrival.packed.data().len()).map_or_else(Verdict::Refuse, |()| verdict)
    }

    /// What the hold must never do (R4): a batch waits on, as one of another epoch.
    pub(super) fn hold_on(&mut self, mut batch: Waiting, epoch: Epoch, now: Now) {
        batch.arrival.tag = batch.arrival.tag.map(|tag| Tag { epoch, ..tag });
        self.admit(batch, true, now);
    }

    /// Judges batches that left the hold without their turn having come. They do not wait a second time.
    pub(super) fn rejudge(&mut self, batches: Vec<Waiting>, now: Now) {
        for batch in batches {
            self.admit(batch, false, now);
        }
    }

    fn decide(&mut self, call: u64, index: usize, outcome: BatchOutcome, now: Now) {
        if matches!(outcome, BatchOutcome::Refused(_)) {
            self.counts.refused_batches += 1;
        }
        let entry = self.calls.get_mut(&call).expect("a call stays until all its batches are decided");
        let before = entry.outcomes[index].replace(outcome);
        assert!(before.is_none(), "a batch is decided once");
        entry.undecided -= 1;
        if entry.undecided > 0 {
            return;
        }
        let Call { reply, acks, outcomes, .. } = self.calls.remove(&call).expect("it was just there");
        let outcomes = outcomes.into_iter().map(|outcome| outcome.expect("none is undecided"));
        match acks {
            Acks::All => self.answer(reply, Answer::Produced(outcomes.collect()), now),
            Acks::One => {
                let answer = Answer::Produced(outcomes.collect());
                self.draft(now).leaving.on_written.push((reply, answer));
                self.release_drafts_without_entries();
            }
            Acks::Zero => {
                let answer = Answer::Produced(outcomes.map(BatchOutcome::without_offset).collect());
                // An answer ends the accounting of its request's memory. Once a whole group waits behind the one that is being
                // written, this answer waits as well, or nothing would bound what is gathered.
                if self.drafts.len() > 1 {
                    self.draft(now).leaving.on_written.push((reply, answer));
                } else {
                    self.outputs.push_back(Output::Answer(reply, answer));
                }
            }
        }
    }
}

/// What a waiting batch takes beside its data, about: a great many tiny ones take memory as well.
const HELD_BYTES: usize = 512;

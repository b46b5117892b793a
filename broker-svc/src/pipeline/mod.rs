//! The way of a batch through the broker, as one pure machine: hold, judge, group, release.
//!
//! ```text
//!  request ──▶ judge ──▶ draft of the next group ──poll_group──▶ journal: one write, one sync
//!               │  ▲         entries, payloads,                     │
//!         early ▼  │ turn    answers                               │ on_written, on_synced
//!              hold                                                ▼
//!                                                      poll_output: every answer of the group, at once
//! ```
//!
//! Requests and `now` go in; groups and answers come out. Every answer, a rejection or a duplicate or a description too, is
//! computed from a state that may be ahead of the disk. So it joins the draft of the group that is being gathered, and leaves
//! when that group is durable (I7, R14): a group is durable only after all groups before it, so whatever the answer was
//! computed from is on disk by then. An answer that finds nothing gathered and nothing being written leaves at once.
//!
//! While a group is being written the next one gathers: group commit, without any waiting for company.
//!
//! | file | owns |
//! |---|---|
//! | `exchange` | what goes in and what comes out |
//! | `produce` | a `Produce` call, until its last batch is decided |
//! | `producers`, `topics` | the other requests, by what they are about; expiry |
//! | `draft` | a group that is being gathered, and what leaves with it |
//! | `clock` | the time of a group |
//! | `digest` | when two machines are alike |
//!
//! *Deliberately absent*: a clock, threads, channels, files. After a failed write the machine is thrown away with its state;
//! there is no way back for either (I8).

mod clock;
mod digest;
mod draft;
mod exchange;
mod produce;
mod producers;
mod topics;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem,
    time::Duration,
};

pub use clock::Now;
use clock::{GroupClock, Opening};
use draft::{Draft, Leaving};
pub use exchange::{Acks, Answer, BatchOutcome, Counts, Output, Request, Waited};
use oncelog_defects::{Defect, is_on};
use oncelog_proto::{ErrorCode, Fault, Monotonic, Timestamp, trace::Joined};
use produce::{Call, Waiting};

use crate::{
    entry::{Entry, OwnerHash, PartitionId, Trimmed},
    hold::Hold,
    journal::{Group, GroupLimit},
    state::{Limits, State},
};

/// What the machine is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the state may grow to.
    pub limits: Limits,
    /// How long an early batch waits. Zero: not at all.
    pub hold: Duration,
    /// Bytes of all waiting batches together.
    pub hold_bytes: usize,
    /// Largest group of the journal.
    pub group_limit: GroupLimit,
    /// The journal's incarnation: the high bits of fresh producer ids.
    pub incarnation: u16,
    /// The operator vouches for a clock that is more than a day ahead of the journal.
    pub accept_clock_jump: bool,
}

/// The machine. `R` is what an answer is sent with: a channel in the service, a number in a test.
#[derive(Clone, Debug)]
pub struct Pipeline<R> {
    options: Options,
    state: State,
    hold: Hold<Waiting>,
    clock: GroupClock,
    calls: HashMap<u64, Call<R>>,
    next_call: u64,
    /// Groups that are being gathered, oldest first. There is a second one only if the first is full.
    drafts: VecDeque<Draft<R>>,
    /// What leaves when the group that is being written is durable.
    writing: Option<Leaving<R>>,
    outputs: VecDeque<Output<R>>,
    /// Bytes that the journal can certainly still write.
    room: u64,
    next_housekeeping: Monotonic,
    counts: Counts,
    /// What is to be told of batches in traces, and of nothing else.
    waited: VecDeque<Waited>,
}

impl<R> Pipeline<R> {
    /// Starts from what a journal held. `last_group` is the time of its last group.
    pub fn open(options: Options, mut state: State, last_group: Option<Timestamp>, now: Now) -> Self {
        if is_on(Defect::ExpiresAtReplay) {
            state.forget_idle(&options.limits, now.wall);
        }
        let (clock, opening) = GroupClock::open(last_group, now, state.is_clock_doubtful(), options.accept_clock_jump);
        let mut pipeline = Self {
            hold: Hold::new(options.hold, options.hold_bytes),
            options,
            state,
            clock,
            calls: HashMap::new(),
            next_call: 0,
            drafts: VecDeque::new(),
            writing: None,
            outputs: VecDeque::new(),
            room: u64::MAX,
            next_housekeeping: now.monotonic,
            counts: Counts::default(),
            waited: VecDeque::new(),
        };
        let Opening { downtime, is_doubtful } = opening;
        pipeline.enter(Entry::Opened { downtime, is_clock_doubtful: is_doubtful }, None, now);
        pipeline
    }

    /// A caller asks who is nobody in particular. The answer comes out of [`Self::poll_output`] with `reply`.
    pub fn on_request(&mut self, reply: R, request: Request, now: Now) {
        self.on_request_of(None, reply, request, now);
    }

    /// The same of a caller whose producer ids are its own. What else it may do was looked at before.
    pub fn on_request_of(&mut self, caller: Option<OwnerHash>, reply: R, request: Request, now: Now) {
        match request {
            Request::Produce { acks, batches } => self.produce(caller, reply, acks, batches, now),
            Request::InitProducer(request) => {
                let answer = self.init_producer(caller, request, now);
                self.answer(reply, answer, now);
            }
            Request::CreateTopic { topic, partitions } => {
                let answer = match self.create_topic(&topic, partitions, now) {
                    Ok(partitions) => Answer::Created(partitions),
                    Err(fault) => Answer::Refused(fault),
                };
                self.answer(reply, answer, now);
            }
            Request::DeleteTopic(topic) => {
                let answer = self.delete_topic(&topic, now);
                self.answer(reply, answer, now);
            }
            Request::DescribeTopics { topics, create, after } => {
                let answer =
                    self.describe_topics(topics, create, after.as_ref(), now).map_or_else(Answer::Refused, Answer::Topics);
                self.answer(reply, answer, now);
            }
            Request::DescribeProducers { producer, topic, after, most } => {
                let producers = self.state.describe_producers(producer, topic.as_ref(), after, most);
                self.answer(reply, Answer::Producers(producers), now);
            }
            Request::Locate(partition) => {
                let found = self.state.find_partition(&partition);
                let answer = found.map_or_else(Answer::Refused, |(id, ends)| Answer::Located(id, ends));
                self.answer(reply, answer, now);
            }
        }
    }

    /// The journal proposes to drop its oldest segments.
    ///
    /// A segment may hold records of any number of partitions, most of them deleted by now. Those that are left are few enough
    /// for an entry, and there is nothing to be said of the others.
    pub fn on_trim(&mut self, through_segment: u64, mut trimmed: Vec<Trimmed>, now: Now) {
        trimmed.retain(|trimmed| self.state.ends(trimmed.partition).is_some());
        let touched: Vec<_> = trimmed.iter().map(|trimmed| trimmed.partition).collect();
        self.enter(Entry::Trim { through_segment, partitions: trimmed }, None, now);
        touched.into_iter().for_each(|partition| self.note_ends(partition));
    }

    /// Time has passed: early batches stop waiting, idle producers expire. To be called at [`Self::next_wakeup`] or later.
    pub fn on_tick(&mut self, now: Now) {
        let overdue = self.hold.take_overdue(now.monotonic);
        self.rejudge(overdue, now);
        if now.monotonic >= self.next_housekeeping {
            self.next_housekeeping = now.monotonic.plus(self.expire_producers(now));
        }
    }

    /// The journal has written the group that [`Self::poll_group`] gave it, and has not synced it yet.
    pub fn on_written(&mut self) {
        let writing = self.writing.as_mut().expect("a group is written only after it was polled");
        for (reply, answer) in mem::take(&mut writing.on_written) {
            self.outputs.push_back(Output::Answer(reply, answer));
        }
    }

    /// The group is durable. `room` is how many bytes the journal can certainly still write.
    pub fn on_synced(&mut self, room: u64) {
        let durable = self.writing.take().expect("a group is synced only after it was polled");
        self.room = room;
        self.release(durable);
        self.release_drafts_without_entries();
    }

    /// How many bytes the journal can certainly still write has changed.
    pub fn on_room(&mut self, room: u64) {
        self.room = room;
    }

    /// The next group to write, if none is being written and there is something to write.
    pub fn poll_group(&mut self) -> Option<Group> {
        if self.writing.is_some() {
            return None;
        }
        self.release_drafts_without_entries();
        let (group, leaving) = self.drafts.pop_front()?.finish();
        self.writing = Some(leaving);
        Some(group)
    }

    /// Does somebody wait for the group that is being written to be written, and not only for its sync?
    pub fn is_written_awaited(&self) -> bool {
        self.writing.as_ref().is_some_and(|leaving| !leaving.on_written.is_empty())
    }

    /// The traces of the batches in the group that is being written, told once.
    pub fn take_traces(&mut self) -> Joined {
        self.writing.as_mut().map(|leaving| mem::take(&mut leaving.traces)).unwrap_or_default()
    }

    /// The next batch in a trace that has waited in the hold.
    pub fn poll_waited(&mut self) -> Option<Waited> {
        self.waited.pop_front()
    }

    /// What leaves next.
    pub fn poll_output(&mut self) -> Option<Output<R>> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::on_tick`].
    pub fn next_wakeup(&self) -> Monotonic {
        self.hold.next_deadline().map_or(self.next_housekeeping, |deadline| deadline.min(self.next_housekeeping))
    }

    /// Is everything that came in answered and durable?
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.drafts.is_empty() && self.writing.is_none() && self.outputs.is_empty()
    }

    /// The state, as far as it has been decided: it may be ahead of the disk.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Batches in the hold, and their bytes.
    pub fn held(&self) -> (usize, usize) {
        self.hold.size()
    }

    /// Did the wall clock, at this opening or at one before, stand more than a day after the journal's last group, and did nobody
    /// accept that? Then nothing is dropped for its age.
    pub fn is_clock_doubtful(&self) -> bool {
        self.state.is_clock_doubtful()
    }

    /// Is there certainly room for one more change, with so many bytes of data?
    ///
    /// Everything asks that may be refused or put off, ids and expiries as well as records. A group that finds no room once it is
    /// gathered could neither be refused nor forgotten, and would stand before the trim that is to make room.
    fn check_room(&self, data: usize) -> Result<(), Fault> {
        let gathered: usize = self.drafts.iter().map(Draft::bytes).sum();
        let promised = gathered + self.writing.as_ref().map_or(0, |leaving| leaving.bytes) + RESERVED_BYTES;
        let needed = data + draft::CHANGE_BYTES_MAX;
        if (promised + needed) as u64 <= self.room {
            return Ok(());
        }
        let message = format!(
            "the journal has room for {} more bytes and this needs {needed}: free disk space, or lower the retention",
            self.room.saturating_sub(promised as u64)
        );
        Err(Fault::new(ErrorCode::ResourceExhausted, message).retry_after(Duration::from_secs(1)))
    }

    /// Makes a change and puts it into the group that is being gathered; returns that group's time.
    fn enter(&mut self, entry: Entry, payload: Option<bytes::Bytes>, now: Now) -> Timestamp {
        if self.drafts.back().is_some_and(|draft| !draft.fits(&entry)) {
            self.drafts.push_back(Draft::new(self.clock.tick(now), self.options.group_limit));
        }
        let time = self.draft(now).time;
        self.state.apply(&entry, time).expect("what was decided from a state can be applied to it");
        self.draft(now).push(entry, payload);
        time
    }

    fn note_ends(&mut self, partition: PartitionId) {
        if let Some(ends) = self.state.ends(partition) {
            self.drafts.back_mut().expect("an entry was just made").leaving.ends.insert(partition, ends);
        }
    }

    fn answer(&mut self, reply: R, answer: Answer, now: Now) {
        if (self.drafts.is_empty() && self.writing.is_none()) || leaves_early(&answer) {
            self.outputs.push_back(Output::Answer(reply, answer));
        } else if is_on(Defect::AnswersBeforeSync) {
            self.draft(now).leaving.on_written.push((reply, answer));
        } else {
            self.draft(now).leaving.on_synced.push((reply, answer));
        }
    }

    fn draft(&mut self, now: Now) -> &mut Draft<R> {
        if self.drafts.is_empty() {
            self.drafts.push_back(Draft::new(self.clock.tick(now), self.options.group_limit));
        }
        self.drafts.back_mut().expect("there is one now")
    }

    /// With nothing being written, everything before a draft is durable; one without entries then has nothing to wait for.
    fn release_drafts_without_entries(&mut self) {
        while self.writing.is_none() && self.drafts.front().is_some_and(Draft::has_no_entries) {
            let draft = self.drafts.pop_front().expect("it was just looked at");
            self.release(draft.leaving);
        }
    }

    fn release(&mut self, leaving: Leaving<R>) {
        let Leaving { on_written, on_synced, ends, gone, .. } = leaving;
        // The ends first: who has heard that a record is in the log finds it there.
        self.outputs.extend(BTreeMap::into_iter(ends).map(|(partition, ends)| Output::Moved(partition, ends)));
        self.outputs.extend(on_written.into_iter().chain(on_synced).map(|(reply, answer)| Output::Answer(reply, answer)));
        self.outputs.extend(gone.into_iter().map(Output::Gone));
    }
}

/// No answer does (R14).
fn leaves_early(answer: &Answer) -> bool {
    let is_duplicate = |outcome: &BatchOutcome| matches!(outcome, BatchOutcome::Acknowledged { duplicate: true, .. });
    match answer {
        Answer::Produced(outcomes) => is_on(Defect::DuplicatesAnswerEarly) && outcomes.iter().all(is_duplicate),
        Answer::Granted(_) => is_on(Defect::RecoveriesAnswerEarly),
        Answer::Topics(_) | Answer::Producers(_) | Answer::Located(..) => is_on(Defect::DescriptionsAnswerEarly),
        Answer::Created(_) | Answer::Deleted | Answer::Refused(_) => false,
    }
}

/// Room that is kept for what cannot be refused: the trim that makes room, and the markers behind groups.
const RESERVED_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests;

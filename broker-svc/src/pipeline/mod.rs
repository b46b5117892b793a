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
//! *Deliberately absent*: a clock, threads, channels, files. After a failed write the machine is thrown away with its state;
//! there is no way back for either (I8).

mod clock;
mod draft;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem,
    time::Duration,
};

use clock::GroupClock;
pub use clock::Now;
use draft::{Draft, Leaving};
use oncelog_proto::{
    Epoch, ErrorCode, Fault, Monotonic, Offset, ProducerId, Timestamp, TopicName, TopicPartition, topic::PartitionCount,
};

use crate::{
    entry::{Entry, PartitionId, Trimmed},
    hold::Hold,
    journal::{Group, GroupLimit},
    state::{
        Arrival, Ends, Granted, InitDecision, InitRequest, Limits, ProducerPage, State, TopicDescription, Verdict, out_of_order,
    },
};

/// What callers ask for. Everything in it is well-formed: it was parsed at the edge.
#[derive(Clone, Debug)]
pub enum Request {
    /// Append batches, each judged on its own; one that is not well-formed comes with its fault.
    Produce {
        /// When to answer.
        acks: Acks,
        /// In the caller's order. Tagged ones are for different partitions.
        batches: Vec<Result<Arrival, Fault>>,
    },
    /// Hand out or recover a producer id.
    InitProducer(InitRequest),
    /// Create a topic.
    CreateTopic {
        /// Its name.
        topic: TopicName,
        /// Absent: the default number.
        partitions: Option<PartitionCount>,
    },
    /// Delete a topic.
    DeleteTopic(TopicName),
    /// Describe topics.
    DescribeTopics {
        /// Which; none means all.
        topics: Vec<TopicName>,
        /// Create those that do not exist, if that is allowed.
        create: bool,
    },
    /// Describe producers, by id.
    DescribeProducers {
        /// Only this one.
        producer: Option<ProducerId>,
        /// Only those that wrote to it.
        topic: Option<TopicName>,
        /// Only those above it.
        after: Option<ProducerId>,
        /// At most so many.
        most: usize,
    },
    /// Find a partition, to read from it.
    Locate(TopicPartition),
}

/// When a `Produce` call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// When its batches are durable.
    All,
    /// When they are written. Only for untagged batches.
    One,
    /// When they are accepted, without offsets. Only for untagged batches.
    Zero,
}

/// What callers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Request::Produce`]: one outcome for each batch, in order.
    Produced(Vec<BatchOutcome>),
    /// To [`Request::InitProducer`].
    Granted(Granted),
    /// To [`Request::CreateTopic`].
    Created(PartitionCount),
    /// To [`Request::DeleteTopic`].
    Deleted,
    /// To [`Request::DescribeTopics`].
    Topics(Vec<TopicDescription>),
    /// To [`Request::DescribeProducers`].
    Producers(ProducerPage),
    /// To [`Request::Locate`].
    Located(PartitionId, Ends),
    /// To any of them: refused as a whole.
    Refused(Fault),
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// It is in the log.
    Acknowledged {
        /// Where; none with [`Acks::Zero`].
        base_offset: Option<Offset>,
        /// Since when.
        time: Timestamp,
        /// It was there before this call.
        duplicate: bool,
    },
    /// It was refused.
    Refused(Fault),
}

/// What leaves the machine, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<R> {
    /// An answer to the request that came with `R`.
    Answer(R, Answer),
    /// The durable log of a partition moved: readers that follow it may go on.
    Moved(PartitionId, Ends),
    /// A partition is gone: readers that follow it end.
    Gone(PartitionId),
}

/// How many of what happened, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records appended.
    pub appended_records: u64,
    /// Batches appended.
    pub appended_batches: u64,
    /// Batches acknowledged again.
    pub duplicate_batches: u64,
    /// Batches refused.
    pub refused_batches: u64,
    /// Batches that waited in the hold.
    pub held_batches: u64,
    /// Producers that expired.
    pub expired_producers: u64,
}

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
#[derive(Debug)]
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
}

/// A `Produce` call some of whose batches are undecided.
#[derive(Debug)]
struct Call<R> {
    reply: R,
    acks: Acks,
    outcomes: Vec<Option<BatchOutcome>>,
    undecided: usize,
}

/// A batch with its place in its call.
#[derive(Debug)]
struct Waiting {
    call: u64,
    index: usize,
    arrival: Arrival,
}

impl<R> Pipeline<R> {
    /// Starts from what a journal held. `last_group` is the time of its last group.
    pub fn open(options: Options, state: State, last_group: Option<Timestamp>, now: Now) -> Self {
        let (clock, downtime) = GroupClock::open(last_group, now, options.accept_clock_jump);
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
        };
        pipeline.enter(Entry::Opened { downtime }, None, now);
        pipeline
    }

    /// A caller asks. The answer comes out of [`Self::poll_output`] with `reply`.
    pub fn on_request(&mut self, reply: R, request: Request, now: Now) {
        match request {
            Request::Produce { acks, batches } => self.produce(reply, acks, batches, now),
            Request::InitProducer(request) => {
                let answer = self.init_producer(request, now);
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
            Request::DescribeTopics { topics, create } => {
                let answer = self.describe_topics(topics, create, now).map_or_else(Answer::Refused, Answer::Topics);
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
    pub fn on_trim(&mut self, through_segment: u64, trimmed: Vec<Trimmed>, now: Now) {
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

    /// Did the wall clock, at opening, stand more than a day after the journal's last group? Then nothing is dropped for its age.
    pub fn is_clock_doubtful(&self) -> bool {
        self.clock.is_doubtful()
    }

    fn produce(&mut self, reply: R, acks: Acks, batches: Vec<Result<Arrival, Fault>>, now: Now) {
        assert!(!batches.is_empty(), "the edge refuses a call without batches");
        let call = self.next_call;
        self.next_call += 1;
        let undecided = batches.len();
        self.calls.insert(call, Call { reply, acks, outcomes: vec![None; undecided], undecided });
        for (index, batch) in batches.into_iter().enumerate() {
            match batch {
                Ok(arrival) => self.admit(Waiting { call, index, arrival }, true, now),
                Err(fault) => self.decide(call, index, BatchOutcome::Refused(fault), now),
            }
        }
    }

    /// Judges a batch, and those that waited for it.
    fn admit(&mut self, batch: Waiting, may_wait: bool, now: Now) {
        let mut queue = VecDeque::from([(batch, may_wait)]);
        while let Some((batch, may_wait)) = queue.pop_front() {
            match self.judge(&batch.arrival) {
                Verdict::Append { create, append } => {
                    let Arrival { partition, tag, packed, .. } = batch.arrival;
                    if let Some(create) = create {
                        self.enter(create, None, now);
                    }
                    let (id, base_offset) = (append.partition, append.base_offset);
                    self.counts.appended_batches += 1;
                    self.counts.appended_records += u64::from(append.count.get().unsigned_abs());
                    let time = self.enter(Entry::Append(append), Some(packed.data().clone()), now);
                    self.note_ends(id);
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
                    let producer = batch.arrival.tag.expect("only a tagged batch is recognised").producer;
                    self.note_seen(producer, now);
                    let outcome = BatchOutcome::Acknowledged { base_offset: Some(base_offset), time, duplicate: true };
                    self.decide(batch.call, batch.index, outcome, now);
                }
                Verdict::Early { expected } => {
                    let tag = batch.arrival.tag.expect("only a tagged batch can be early");
                    let partition = batch.arrival.partition.clone();
                    let bytes = batch.arrival.packed.data().len() + HELD_BYTES;
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
                Verdict::Refuse(fault) => self.decide(batch.call, batch.index, BatchOutcome::Refused(fault), now),
            }
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

    /// Judges batches that left the hold without their turn having come. They do not wait a second time.
    fn rejudge(&mut self, batches: Vec<Waiting>, now: Now) {
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

    fn init_producer(&mut self, request: InitRequest, now: Now) -> Answer {
        match self.state.init_producer(request, self.options.incarnation, &self.options.limits) {
            InitDecision::Grant { entry, granted } => {
                if let Err(fault) = self.check_room(0) {
                    return Answer::Refused(fault);
                }
                self.enter(entry, None, now);
                if granted.epoch != Epoch::ZERO {
                    // Held batches of the fenced epoch are told at once (R4).
                    let fenced = self.hold.take_producer(granted.producer);
                    self.rejudge(fenced, now);
                }
                Answer::Granted(granted)
            }
            InitDecision::Repeat(granted) => {
                self.note_seen(granted.producer, now);
                Answer::Granted(granted)
            }
            InitDecision::Refuse(fault) => Answer::Refused(fault),
        }
    }

    fn create_topic(&mut self, topic: &TopicName, partitions: Option<PartitionCount>, now: Now) -> Result<PartitionCount, Fault> {
        let entry = self.state.create_topic(topic, partitions, &self.options.limits)?;
        self.check_room(0)?;
        let Entry::CreateTopic { partitions, .. } = entry else { unreachable!("create_topic returns that entry") };
        self.enter(entry, None, now);
        Ok(partitions)
    }

    fn delete_topic(&mut self, topic: &TopicName, now: Now) -> Answer {
        let gone = self.state.partition_ids(topic);
        match self.check_room(0).and_then(|()| self.state.delete_topic(topic)) {
            Ok(entry) => {
                self.enter(entry, None, now);
                self.draft(now).leaving.gone.extend(gone);
                let held = self.hold.take_topic(topic);
                self.rejudge(held, now);
                Answer::Deleted
            }
            Err(fault) => Answer::Refused(fault),
        }
    }

    fn describe_topics(&mut self, topics: Vec<TopicName>, create: bool, now: Now) -> Result<Vec<TopicDescription>, Fault> {
        if topics.is_empty() {
            let all = self.state.topic_names();
            return all.iter().map(|topic| self.state.describe_topic(topic)).collect();
        }
        let mut described = Vec::with_capacity(topics.len());
        for topic in &topics {
            if create && self.options.limits.auto_create_topics && self.state.describe_topic(topic).is_err() {
                self.create_topic(topic, None, now)?;
            }
            described.push(self.state.describe_topic(topic)?);
        }
        Ok(described)
    }

    /// Expires idle producers; returns when to look again.
    fn expire_producers(&mut self, now: Now) -> Duration {
        let expiration = self.options.limits.producer_id_expiration;
        let pause = (expiration / 10).clamp(Duration::from_millis(50), Duration::from_secs(600));
        if self.clock.is_doubtful() {
            return pause;
        }
        let time = self.clock.read(now);
        let expired = self.state.expired_producers(&self.options.limits, time, EXPIRED_PER_TURN);
        for producer in &expired {
            if self.check_room(0).is_err() {
                return pause;
            }
            self.enter(Entry::Expire { producer: *producer }, None, now);
            self.counts.expired_producers += 1;
            let held = self.hold.take_producer(*producer);
            self.rejudge(held, now);
        }
        if expired.len() == EXPIRED_PER_TURN { Duration::from_millis(1) } else { pause }
    }

    /// A duplicate keeps its producer alive (W5), across a restart too.
    fn note_seen(&mut self, producer: ProducerId, now: Now) {
        let time = self.clock.read(now);
        if self.state.is_seen_stale(producer, &self.options.limits, time) && self.check_room(0).is_ok() {
            self.enter(Entry::Seen { producer }, None, now);
        }
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
        if self.drafts.is_empty() && self.writing.is_none() {
            self.outputs.push_back(Output::Answer(reply, answer));
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
        self.outputs.extend(on_written.into_iter().chain(on_synced).map(|(reply, answer)| Output::Answer(reply, answer)));
        self.outputs.extend(BTreeMap::into_iter(ends).map(|(partition, ends)| Output::Moved(partition, ends)));
        self.outputs.extend(gone.into_iter().map(Output::Gone));
    }
}

impl BatchOutcome {
    fn without_offset(self) -> Self {
        match self {
            Self::Acknowledged { time, duplicate, .. } => Self::Acknowledged { base_offset: None, time, duplicate },
            Self::Refused(fault) => Self::Refused(fault),
        }
    }
}

/// So that a million producers that expire together do not stall anybody.
const EXPIRED_PER_TURN: usize = 1_000;
/// Room that is kept for what cannot be refused: the trim that makes room, and the markers behind groups.
const RESERVED_BYTES: usize = 64 << 10;
/// What a waiting batch takes beside its data, about: a great many tiny ones take memory as well.
const HELD_BYTES: usize = 512;

#[cfg(test)]
mod tests;

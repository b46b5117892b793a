//! Judges a program that is an idempotent producer, by the calls that arrive and the answers that leave. Pure: the service in
//! front of the broker tells what it sees.
//!
//! An answer counts from the moment it leaves. The program hears it later, or never if it has given up the call, so what it may
//! do because of an answer is allowed at once, and nothing is demanded of it because of one that it may not have heard.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use oncelog_proto::{
    ErrorCode, Fault, PackedBatch,
    v1::{Batch, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, batch_result},
};
use oncelog_verify::{
    history::{InitAnswer, Partition, ProduceAnswer, Producer, Tag},
    wire,
};
use tonic::{Code, Status};

use crate::{
    accusation::{Accusations, Duty},
    contract::{Claim, number_of},
};

/// What a producer has done so far.
#[derive(Debug, Default)]
pub(crate) struct Producing {
    pub(crate) accusations: Accusations,
    /// Handed out to the program.
    granted: HashSet<Producer>,
    /// The program has written with these ids, so it has heard of them. Of another it may not have: its deadline came first.
    heard: BTreeSet<i64>,
    /// By a recovery's answer: from which sequence on nothing of this epoch is in the log. A partition that is absent: from 0 on.
    recovered: HashMap<Producer, HashMap<Partition, i64>>,
    /// The program was told that these ids cannot be recovered, or are shared.
    lost: HashSet<i64>,
    /// Since when the program may listen to no answer of these any more: it recovers them, or was told that they are shared.
    /// Counted from the begin of the run, as all times here.
    deaf: HashMap<Producer, Duration>,
    tokens: HashMap<Producer, String>,
    lanes: HashMap<(Producer, Partition), Lane>,
    /// Under which tags each record was sent.
    copies: HashMap<u32, BTreeSet<(Tag, Partition)>>,
    /// The program was told that these were refused for good.
    refused: HashSet<u32>,
    open: BTreeSet<Call>,
    given_up: BTreeSet<Call>,
    calls: u64,
    most_outstanding: usize,
    /// Records of the largest batch.
    largest: usize,
}

/// Names a `Produce` call.
pub(crate) type Call = u64;

/// The batches of an epoch in a partition, by base sequence.
#[derive(Debug, Default)]
struct Lane {
    batches: BTreeMap<i64, Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    count: u32,
    checksum: u32,
    is_resolved: bool,
    is_refused: bool,
    /// When an acknowledgement left, to a call that was still open.
    acknowledged: Option<Duration>,
    /// That, or a recovery, told its offset.
    is_placed: bool,
}

/// What a `Produce` carries for one partition.
struct Carried {
    partition: Partition,
    tag: Tag,
    count: u32,
    checksum: u32,
    records: Vec<u32>,
}

/// What is told of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Calls with records in them.
    pub(crate) calls: u64,
    /// Most of them that were outstanding at once.
    pub(crate) most_outstanding: usize,
    /// Epochs that were recovered.
    pub(crate) recoveries: usize,
}

impl Producing {
    /// An `InitProducerId` has arrived.
    pub(crate) fn init_called(&mut self, request: &InitProducerIdRequest, now: Duration) {
        let Some(producer) = recovers(request) else {
            if let Some(id) = self.heard.iter().find(|id| !self.lost.contains(id)) {
                let what = format!("asked for a fresh id, though producer {id} may be recovered: what is in doubt stays so");
                self.accusations.accuse(Duty::Identity, what);
            }
            return;
        };
        self.deaf.entry(producer).or_insert(now);
        let Producer { id, epoch } = producer;
        if !self.granted.contains(&producer) {
            let what = format!("recovers producer {id} epoch {epoch}, which no InitProducerId had told it");
            self.accusations.accuse(Duty::Identity, what);
        }
        let token = &request.recovery_token;
        if token.is_empty() {
            self.accusations.accuse(Duty::Token, format!("recovers producer {id} epoch {epoch} without a recovery_token"));
        }
        let first = self.tokens.entry(producer).or_insert_with(|| token.clone());
        if first != token {
            let what = format!("repeats the recovery of producer {id} epoch {epoch} with another token; it is refused for that");
            self.accusations.accuse(Duty::Token, what);
        }
    }

    /// And its answer leaves.
    pub(crate) fn init_answered(&mut self, request: &InitProducerIdRequest, answer: InitAnswer) {
        let recovers = recovers(request);
        match (answer, recovers) {
            (InitAnswer::Granted { producer, fenced }, recovers) => {
                self.granted.insert(producer);
                if let Some(fenced_epoch) = recovers {
                    for told in &fenced {
                        let Some(lane) = self.lanes.get_mut(&(fenced_epoch, told.partition.clone())) else { continue };
                        for entry in told.window.iter().filter(|entry| entry.place.offset >= 0) {
                            if let Some(sent) = lane.batches.get_mut(&entry.base_sequence) {
                                sent.is_placed = true;
                            }
                        }
                    }
                    let told = fenced.into_iter().map(|told| (told.partition, told.next_sequence));
                    self.recovered.entry(fenced_epoch).or_default().extend(told);
                }
            }
            (InitAnswer::UnknownProducer | InitAnswer::Refused, Some(producer)) => {
                self.lost.insert(producer.id);
            }
            _ => {}
        }
    }

    /// Takes the last batch that was acknowledged, and all behind it, out of a recovery's answer: as if the log had lost them.
    pub(crate) fn leave_out_acknowledged(&self, request: &InitProducerIdRequest, answer: &mut InitProducerIdResponse) {
        let Some(fenced) = recovers(request) else { return };
        for told in &mut answer.partitions {
            let Some(lane) = self.lanes.get(&(fenced, Partition::new(&told.topic, told.partition))) else { continue };
            if let Some((base, _)) = lane.batches.iter().rfind(|(_, sent)| sent.acknowledged.is_some()) {
                told.next_sequence = told.next_sequence.min(*base);
                told.window.retain(|entry| entry.base_sequence < *base);
            }
        }
    }

    /// A `Produce` has arrived, with these records.
    pub(crate) fn called(&mut self, request: &ProduceRequest) -> (Call, Vec<u32>) {
        self.calls += 1;
        self.open.insert(self.calls);
        let mut records = Vec::new();
        let mut partitions = HashSet::new();
        for batch in &request.batches {
            match carried(request, batch) {
                Ok(carried) => {
                    if !partitions.insert(carried.partition.clone()) {
                        let what = format!("a call carries two batches for {}: their order is lost", carried.partition);
                        self.accusations.accuse(Duty::Request, what);
                    }
                    self.judge(&carried);
                    self.largest = self.largest.max(carried.records.len());
                    records.extend(carried.records);
                }
                Err(what) => self.accusations.accuse(Duty::Request, what),
            }
        }
        (self.calls, records)
    }

    fn judge(&mut self, carried: &Carried) {
        let Carried { partition, tag, count, checksum, records } = carried;
        let Tag { producer, base_sequence: base } = *tag;
        let batch = format!("{partition}: producer {} epoch {} sequence {base}", producer.id, producer.epoch);
        if !self.granted.contains(&producer) {
            let what = format!("{batch}: no InitProducerId had told it this id and epoch");
            self.accusations.accuse(Duty::Identity, what);
        }
        self.heard.insert(producer.id);
        let lane = self.lanes.entry((producer, partition.clone())).or_default();
        if let Some(sent) = lane.batches.get(&base) {
            if (sent.count, sent.checksum) != (*count, *checksum) {
                let what = format!(
                    "{batch}: {count} records (checksum {checksum:08x}) are sent under the tag of {} others ({:08x})",
                    sent.count, sent.checksum
                );
                self.accusations.accuse(Duty::Unchanged, what);
            }
            if sent.is_refused {
                self.accusations.accuse(Duty::Refused, format!("{batch} was refused and is sent again before a recovery"));
            }
            return;
        }
        // Concurrent calls arrive in any order, so a gap says nothing yet.
        if let Some(other) = lane.overlapped(base, *count) {
            let what = format!("{batch} is a new batch of {count} records, and overlaps the one of sequence {other}");
            self.accusations.accuse(Duty::Sequence, what);
        }
        lane.batches.insert(base, Sent { count: *count, checksum: *checksum, ..Sent::default() });
        let span = lane.batches.values().skip_while(|sent| sent.is_resolved).count();
        if span > WINDOW {
            let what = format!("{batch} is the {span}th batch from the lowest unresolved one on; {WINDOW} are allowed");
            self.accusations.accuse(Duty::Span, what);
        }
        for (sequence, record) in (base..).zip(records) {
            self.judge_record(*record, Tag { producer, base_sequence: sequence }, partition, &batch);
        }
    }

    /// A record that has another tag than before.
    fn judge_record(&mut self, record: u32, now: Tag, partition: &Partition, batch: &str) {
        let copies = self.copies.entry(record).or_default();
        for (before, there) in &*copies {
            let Producer { id, epoch } = before.producer;
            if id != now.producer.id {
                let what = format!("{batch}: record {record} was sent under producer {id} before, and may be in the log");
                self.accusations.accuse(Duty::SentAgain, what);
                continue;
            }
            let told = self.recovered.get(&before.producer);
            let next = told.map(|told| told.get(there).copied().unwrap_or(0));
            if next.is_none_or(|next| before.base_sequence < next) {
                let known =
                    next.map_or_else(|| "no recovery has told".to_owned(), |next| format!("all below {next} is in the log"));
                let what = format!("{batch}: record {record} was sequence {} of epoch {epoch}; {known}", before.base_sequence);
                self.accusations.accuse(Duty::Renumbered, what);
            }
        }
        copies.insert((now, partition.clone()));
    }

    /// How many calls are outstanding, those that were given up since `call` arrived left out.
    pub(crate) fn judge_outstanding(&mut self, among: &BTreeSet<Call>) {
        let outstanding = among.iter().filter(|call| !self.given_up.contains(call)).count();
        self.most_outstanding = self.most_outstanding.max(outstanding);
        if outstanding > WINDOW {
            let what = format!("{outstanding} Produce calls are outstanding; {WINDOW} are allowed");
            self.accusations.accuse(Duty::Outstanding, what);
        }
    }

    /// The calls that are neither answered nor given up.
    pub(crate) fn open(&self) -> BTreeSet<Call> {
        self.open.clone()
    }

    /// A call's answer leaves.
    pub(crate) fn answered(
        &mut self,
        call: Call,
        request: &ProduceRequest,
        answer: &Result<ProduceResponse, Status>,
        now: Duration,
    ) {
        let is_heard = self.open.remove(&call);
        let results = answer.as_ref().map_or(&[][..], |response| response.results.as_slice());
        for (index, batch) in request.batches.iter().enumerate() {
            let Ok(carried) = carried(request, batch) else { continue };
            let is_refused = match (results.get(index), answer) {
                (Some(result), _) => {
                    let code = match &result.outcome {
                        Some(batch_result::Outcome::Error(error)) => Some(error.code()),
                        _ => None,
                    };
                    match wire::produce(result) {
                        ProduceAnswer::Acknowledged { place, .. } => {
                            self.resolve(&carried);
                            if let Some(sent) = self.sent(&carried).filter(|_| is_heard) {
                                sent.acknowledged.get_or_insert(now);
                                sent.is_placed |= place.offset >= 0;
                            }
                        }
                        ProduceAnswer::DuplicateBelowWindow => self.resolve(&carried),
                        ProduceAnswer::Conflict => {
                            self.lost.insert(carried.tag.producer.id);
                            self.deaf.entry(carried.tag.producer).or_insert(now);
                        }
                        _ => {}
                    }
                    code.is_some_and(is_final)
                }
                (None, Err(status)) => {
                    matches!(status.code(), Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition)
                }
                (None, Ok(_)) => false,
            };
            if is_refused {
                self.refused.extend(&carried.records);
                // Of a call that was given up the program has not heard the answer, and sends the batch again.
                if let Some(sent) = self.sent(&carried).filter(|_| is_heard) {
                    sent.is_refused = true;
                }
            }
        }
    }

    fn resolve(&mut self, carried: &Carried) {
        if let Some(sent) = self.sent(carried) {
            sent.is_resolved = true;
        }
    }

    fn sent(&mut self, carried: &Carried) -> Option<&mut Sent> {
        let lane = self.lanes.get_mut(&(carried.tag.producer, carried.partition.clone()))?;
        lane.batches.get_mut(&carried.tag.base_sequence)
    }

    /// The program has cancelled a call, or its deadline is over.
    pub(crate) fn gave_up(&mut self, call: Call) {
        if self.open.remove(&call) {
            self.given_up.insert(call);
        }
    }

    /// The run is over; the program says this of each record. None: it failed, and said nothing of this one.
    pub(crate) fn claimed(&mut self, claims: &[Option<Claim>]) {
        self.judge_gaps();
        let mut on_their_way = WINDOW * self.largest * self.lost.len();
        // It may tell of records in their order, so it owes nothing behind one that is in doubt.
        let mut owes = true;
        for (number, claim) in (0..).zip(claims) {
            let is_acknowledged = self.is_acknowledged(number);
            owes &= is_acknowledged;
            let Some(claim) = claim else {
                if owes {
                    let what =
                        format!("record {number} was acknowledged, as all before it, and the program failed without saying so");
                    self.accusations.accuse(Duty::Claim, what);
                }
                continue;
            };
            match claim {
                // Where it is, and how often, the log tells.
                Claim::Appended(offset) => {
                    if !self.is_told(number) {
                        let what = format!("record {number} is said to be in the log; no answer told it so");
                        self.accusations.accuse(Duty::Claim, what);
                    } else if *offset < 0 && self.copies_of(number).any(|(_, sent)| sent.is_placed) {
                        let what = format!("record {number} is said to be in the log, nobody knows where; an answer told where");
                        self.accusations.accuse(Duty::Claim, what);
                    }
                }
                Claim::Unknown if is_acknowledged => {
                    let what = format!("record {number} is said to be unknown; it was acknowledged, and that never changes");
                    self.accusations.accuse(Duty::Claim, what);
                }
                Claim::Refused if self.refused.contains(&number) => {}
                Claim::Refused => {
                    self.accusations.accuse(Duty::Claim, format!("record {number} is said to be refused; nobody had refused it"));
                }
                Claim::Unknown => {
                    let is_lost = match self.copies.get(&number) {
                        Some(copies) => copies.iter().any(|(tag, _)| self.lost.contains(&tag.producer.id)),
                        // Handed to the transport under a lost id, and given up before it arrived: not more than a window of it.
                        None => on_their_way.checked_sub(1).inspect(|left| on_their_way = *left).is_some(),
                    };
                    if !is_lost {
                        let what =
                            format!("record {number} is said to be unknown; its producer id lives, and the broker can tell");
                        self.accusations.accuse(Duty::Claim, what);
                    }
                }
            }
        }
    }

    /// The batches that carry a record, and whose they are.
    fn copies_of(&self, number: u32) -> impl Iterator<Item = (Producer, &Sent)> {
        let copies = self.copies.get(&number).into_iter().flatten();
        copies.filter_map(|(tag, partition)| {
            let lane = self.lanes.get(&(tag.producer, partition.clone()))?;
            lane.batch(tag.base_sequence).map(|sent| (tag.producer, sent))
        })
    }

    /// An answer told that the record is in the log: an acknowledgement, or a recovery.
    fn is_told(&self, number: u32) -> bool {
        let mut copies = self.copies.get(&number).into_iter().flatten();
        self.copies_of(number).any(|(_, sent)| sent.is_resolved)
            || copies.any(|(tag, partition)| {
                let next = self.recovered.get(&tag.producer).and_then(|told| told.get(partition));
                next.is_some_and(|next| tag.base_sequence < *next)
            })
    }

    /// Certainly heard: the acknowledgement left some time before the program may have stopped listening. Who hears that its
    /// epoch is fenced gives its calls up, and with them the answers that come just then.
    fn is_acknowledged(&self, number: u32) -> bool {
        self.copies_of(number).any(|(producer, sent)| {
            let is_heard = |left: Duration| self.deaf.get(&producer).is_none_or(|deaf| left + NEWS <= *deaf);
            sent.acknowledged.is_some_and(is_heard)
        })
    }

    /// An epoch that is given up may have gaps: its calls were cancelled, some before they were on their way.
    fn judge_gaps(&mut self) {
        for ((producer, partition), lane) in &self.lanes {
            if self.recovered.contains_key(producer) || self.lost.contains(&producer.id) {
                continue;
            }
            if let Some(missing) = lane.gap() {
                let Producer { id, epoch } = producer;
                let what =
                    format!("{partition}: producer {id} epoch {epoch}: sequence {missing} was never sent, others above it were");
                self.accusations.accuse(Duty::Sequence, what);
            }
        }
    }

    /// Tokens of its recoveries.
    pub(crate) fn tokens(&self) -> HashSet<String> {
        self.tokens.values().cloned().collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts { calls: self.calls, most_outstanding: self.most_outstanding, recoveries: self.recovered.len() }
    }
}

impl Lane {
    /// The base sequence of a batch that these sequences overlap.
    fn overlapped(&self, base: i64, count: u32) -> Option<i64> {
        let (other, sent) = self.batches.range(..base + i64::from(count)).next_back()?;
        (other + i64::from(sent.count) > base).then_some(*other)
    }

    /// The batch with this sequence.
    fn batch(&self, sequence: i64) -> Option<&Sent> {
        self.batches.range(..=sequence).next_back().map(|(_, sent)| sent)
    }

    /// The first sequence that is missing below others.
    fn gap(&self) -> Option<i64> {
        let mut next = 0;
        for (base, sent) in &self.batches {
            if *base != next {
                return Some(next);
            }
            next = base + i64::from(sent.count);
        }
        None
    }
}

fn recovers(request: &InitProducerIdRequest) -> Option<Producer> {
    Some(Producer { id: request.producer_id?, epoch: request.producer_epoch.unwrap_or(0) })
}

fn carried(request: &ProduceRequest, batch: &Batch) -> Result<Carried, String> {
    let partition = Partition::new(&batch.topic, batch.partition);
    let id = request.producer_id.ok_or_else(|| format!("{partition}: a batch without a producer id is not idempotent"))?;
    let unreadable = |fault: Fault| format!("{partition}: a batch cannot be read: {fault}");
    let packed = match &batch.packed {
        Some(packed) => PackedBatch::from_proto(packed.clone()),
        None => PackedBatch::from_records(&batch.records),
    };
    let packed = packed.map_err(unreadable)?;
    let records: Option<Vec<u32>> = packed.records().map_err(unreadable)?.iter().map(number_of).collect();
    let records = records.ok_or_else(|| format!("{partition}: a batch has a record that is not by the rule"))?;
    if batch.base_sequence < 0 || batch.base_sequence > HIGHEST_BASE {
        return Err(format!("{partition}: a batch has the base sequence {}", batch.base_sequence));
    }
    let producer = Producer { id, epoch: request.producer_epoch };
    Ok(Carried {
        partition,
        tag: Tag { producer, base_sequence: batch.base_sequence },
        count: u32::try_from(records.len()).unwrap_or(u32::MAX),
        checksum: packed.checksum(),
        records,
    })
}

/// Is it refused for good, whatever is tried?
fn is_final(code: ErrorCode) -> bool {
    let is_of_the_tag = matches!(
        code,
        ErrorCode::Unspecified
            | ErrorCode::DuplicateSequenceNumber
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::UnknownProducerId
    );
    !is_of_the_tag && !code.is_retriable()
}

/// How long the news of a call may take: that it was given up, or answered.
pub(crate) const NEWS: Duration = Duration::from_millis(100);
/// Sequences begin at 0 and a run has a few hundred; far below where their sum would overflow.
const HIGHEST_BASE: i64 = i64::MAX / 2;
/// Calls, and batches of a partition, that may be unresolved.
const WINDOW: usize = 5;

#[cfg(test)]
mod tests {
    use oncelog_proto::v1::{self, BatchAck, BatchResult};
    use oncelog_verify::history::{FencedPartition, Place, WindowEntry};

    use super::*;
    use crate::{accusation::Accusation, contract::record};

    const FIRST: Producer = Producer { id: 7, epoch: 0 };
    const RAISED: Producer = Producer { id: 7, epoch: 1 };

    fn granted(to: Producer) -> InitAnswer {
        InitAnswer::Granted { producer: to, fenced: Vec::new() }
    }

    fn fresh() -> Producing {
        let mut producing = Producing::default();
        producing.init_answered(&InitProducerIdRequest::default(), granted(FIRST));
        producing
    }

    /// A batch of one record.
    fn produce(producer: Producer, sequence: u32, number: u32) -> ProduceRequest {
        let batch =
            Batch { topic: "t".into(), base_sequence: i64::from(sequence), records: vec![record(number)], ..Batch::default() };
        ProduceRequest {
            producer_id: Some(producer.id),
            producer_epoch: producer.epoch,
            batches: vec![batch],
            ..ProduceRequest::default()
        }
    }

    fn recovery(token: &str) -> InitProducerIdRequest {
        InitProducerIdRequest {
            producer_id: Some(FIRST.id),
            producer_epoch: Some(FIRST.epoch),
            recovery_token: token.into(),
            ..InitProducerIdRequest::default()
        }
    }

    fn told(next_sequence: i64) -> InitAnswer {
        let fenced = vec![FencedPartition { partition: Partition::new("t", 0), next_sequence, window: Vec::new() }];
        InitAnswer::Granted { producer: RAISED, fenced }
    }

    fn outcome(outcome: batch_result::Outcome) -> Result<ProduceResponse, Status> {
        outcome_of(BatchResult { outcome: Some(outcome) })
    }

    fn outcome_of(result: BatchResult) -> Result<ProduceResponse, Status> {
        Ok(ProduceResponse { results: vec![result] })
    }

    fn acknowledged() -> Result<ProduceResponse, Status> {
        outcome(batch_result::Outcome::Ack(BatchAck::default()))
    }

    fn refused(code: ErrorCode) -> Result<ProduceResponse, Status> {
        outcome(batch_result::Outcome::Error(Fault::new(code, "no").to_batch_error()))
    }

    fn duties(producing: &mut Producing) -> Vec<Duty> {
        producing.accusations.take().into_iter().map(|Accusation { duty, .. }| duty).collect()
    }

    #[test]
    fn five_batches_from_the_lowest_unresolved_one_on_and_no_sixth() {
        let mut producing = fresh();
        let requests: Vec<_> = (0..7).map(|n| produce(FIRST, n, n)).collect();
        let calls: Vec<_> = requests[..5].iter().map(|request| producing.called(request).0).collect();
        // All but the lowest are in the log, and still the sixth would be too much.
        for index in 1..5 {
            producing.answered(calls[index], &requests[index], &acknowledged(), Duration::ZERO);
        }
        assert_eq!(duties(&mut producing), []);
        producing.called(&requests[5]);
        assert_eq!(duties(&mut producing), [Duty::Span]);
        producing.answered(calls[0], &requests[0], &acknowledged(), Duration::ZERO);
        producing.called(&requests[6]);
        assert_eq!(duties(&mut producing), []);
    }

    #[test]
    fn a_tag_stays_with_its_bytes() {
        let mut producing = fresh();
        producing.called(&produce(FIRST, 0, 0));
        producing.called(&produce(FIRST, 0, 0));
        assert_eq!(duties(&mut producing), []);
        producing.called(&produce(FIRST, 0, 1));
        assert_eq!(duties(&mut producing), [Duty::Unchanged]);
    }

    #[test]
    fn sequences_arrive_in_any_order_and_have_neither_gaps_nor_overlaps() {
        let mut producing = fresh();
        for number in [2, 0, 1] {
            producing.called(&produce(FIRST, number, number));
        }
        producing.claimed(&[]);
        assert_eq!(duties(&mut producing), []);
        producing.called(&produce(FIRST, 4, 4));
        producing.claimed(&[]);
        assert_eq!(duties(&mut producing), [Duty::Sequence], "3 is missing");
        let mut two = produce(FIRST, 3, 5);
        two.batches[0].records.push(record(6));
        producing.called(&two);
        assert_eq!(duties(&mut producing), [Duty::Sequence], "4 is there already");
        producing.init_answered(&recovery("x"), granted(RAISED));
        producing.called(&produce(RAISED, 1, 7));
        producing.claimed(&[]);
        assert_eq!(duties(&mut producing), [Duty::Sequence], "an epoch begins at 0");
    }

    #[test]
    fn a_record_is_renumbered_only_if_a_recovery_said_that_it_is_not_in_the_log() {
        for (next, expected) in [(None, vec![Duty::Renumbered]), (Some(1), vec![Duty::Renumbered]), (Some(0), vec![])] {
            let mut producing = fresh();
            producing.called(&produce(FIRST, 0, 0));
            producing.init_called(&recovery("x"), Duration::ZERO);
            producing.init_answered(&recovery("x"), granted(RAISED));
            producing.recovered.clear();
            if let Some(next) = next {
                producing.init_answered(&recovery("x"), told(next));
            }
            producing.called(&produce(RAISED, 0, 0));
            assert_eq!(duties(&mut producing), expected, "{next:?}");
        }
    }

    #[test]
    fn what_was_sent_under_a_lost_id_is_unknown_and_never_sent_again() {
        let mut producing = fresh();
        producing.init_called(&InitProducerIdRequest::default(), Duration::ZERO);
        assert_eq!(duties(&mut producing), [], "it may not have heard of the first");
        producing.called(&produce(FIRST, 0, 0));
        producing.init_called(&InitProducerIdRequest::default(), Duration::ZERO);
        assert_eq!(duties(&mut producing), [Duty::Identity], "it may be recovered");
        producing.claimed(&[Some(Claim::Unknown)]);
        assert_eq!(duties(&mut producing), [Duty::Claim], "it may be recovered");
        producing.init_answered(&recovery("x"), InitAnswer::UnknownProducer);
        producing.init_called(&InitProducerIdRequest::default(), Duration::ZERO);
        let other = Producer { id: 8, epoch: 0 };
        producing.init_answered(&InitProducerIdRequest::default(), granted(other));
        producing.called(&produce(other, 0, 1));
        producing.claimed(&[Some(Claim::Unknown)]);
        assert_eq!(duties(&mut producing), []);
        producing.called(&produce(other, 1, 0));
        producing.claimed(&[Some(Claim::Unknown); 2]);
        assert_eq!(duties(&mut producing), [Duty::SentAgain, Duty::Claim]);
    }

    #[test]
    fn of_what_never_arrived_a_window_is_unknown_with_a_lost_id_and_no_more() {
        for (is_lost, claims, expected) in [(true, 5, vec![]), (true, 6, vec![Duty::Claim]), (false, 1, vec![Duty::Claim])] {
            let mut producing = fresh();
            producing.called(&produce(FIRST, 0, 99));
            if is_lost {
                producing.init_answered(&recovery("x"), InitAnswer::UnknownProducer);
            }
            producing.claimed(&vec![Some(Claim::Unknown); claims]);
            assert_eq!(duties(&mut producing), expected, "{is_lost} {claims}");
        }
    }

    #[test]
    fn an_acknowledgement_that_was_heard_outlives_its_id() {
        for (left, asked, expected) in [
            (Duration::ZERO, None, vec![Duty::Claim]),
            (Duration::ZERO, Some(NEWS), vec![Duty::Claim]),
            // It may have stopped listening just before.
            (Duration::from_millis(1), Some(NEWS), vec![]),
            (NEWS, Some(Duration::ZERO), vec![]),
        ] {
            let mut producing = fresh();
            let (call, _) = producing.called(&produce(FIRST, 0, 0));
            producing.answered(call, &produce(FIRST, 0, 0), &acknowledged(), left);
            if let Some(asked) = asked {
                producing.init_called(&recovery("x"), asked);
            }
            producing.init_answered(&recovery("x"), InitAnswer::UnknownProducer);
            producing.claimed(&[Some(Claim::Unknown)]);
            assert_eq!(duties(&mut producing), expected, "{left:?} {asked:?}");
        }
    }

    #[test]
    fn a_call_that_was_given_up_acknowledges_nothing() {
        let mut producing = fresh();
        let (call, _) = producing.called(&produce(FIRST, 0, 0));
        producing.gave_up(call);
        producing.answered(call, &produce(FIRST, 0, 0), &acknowledged(), Duration::ZERO);
        producing.init_answered(&recovery("x"), InitAnswer::UnknownProducer);
        producing.claimed(&[Some(Claim::Unknown)]);
        assert_eq!(duties(&mut producing), []);
    }

    #[test]
    fn appended_is_what_an_answer_told_and_where_it_told_it() {
        let duplicate = || refused(ErrorCode::DuplicateSequenceNumber);
        for (answer, offset, expected) in [
            (acknowledged(), 0, vec![]),
            (acknowledged(), -1, vec![Duty::Claim]),
            (duplicate(), -1, vec![]),
            (refused(ErrorCode::OutOfOrderSequenceNumber), 0, vec![Duty::Claim]),
            (Ok(ProduceResponse::default()), -1, vec![Duty::Claim]),
            (outcome_of(BatchResult::default()), -1, vec![Duty::Claim]),
        ] {
            let mut producing = fresh();
            let (call, _) = producing.called(&produce(FIRST, 0, 0));
            producing.answered(call, &produce(FIRST, 0, 0), &answer, Duration::ZERO);
            producing.claimed(&[Some(Claim::Appended(offset))]);
            assert_eq!(duties(&mut producing), expected, "{answer:?} {offset}");
        }
    }

    #[test]
    fn a_recovery_tells_that_a_batch_is_in_the_log_and_if_it_is_in_the_window_where() {
        for (base_offset, expected) in [(None, vec![]), (Some(-1), vec![]), (Some(7), vec![Duty::Claim])] {
            let mut producing = fresh();
            producing.called(&produce(FIRST, 0, 0));
            producing.called(&produce(FIRST, 1, 1));
            let place = |offset| Place { offset, append_time: 0 };
            let entry = |offset| WindowEntry { base_sequence: 0, record_count: 1, place: place(offset), checksum: 0 };
            let window = base_offset.map(entry).into_iter().collect();
            let fenced = vec![FencedPartition { partition: Partition::new("t", 0), next_sequence: 1, window }];
            producing.init_answered(&recovery("x"), InitAnswer::Granted { producer: RAISED, fenced });
            producing.claimed(&[Some(Claim::Appended(-1))]);
            assert_eq!(duties(&mut producing), expected, "{base_offset:?}");
            producing.claimed(&[None, Some(Claim::Appended(-1))]);
            assert_eq!(duties(&mut producing), [Duty::Claim], "nobody told it of the second");
        }
    }

    #[test]
    fn who_fails_owes_what_was_acknowledged_before_the_first_that_is_in_doubt() {
        let mut producing = fresh();
        for number in 0..4 {
            let request = produce(FIRST, number, number);
            let (call, _) = producing.called(&request);
            if number != 2 {
                producing.answered(call, &request, &acknowledged(), Duration::ZERO);
            }
        }
        producing.claimed(&[Some(Claim::Appended(0)), Some(Claim::Appended(1)), None, None]);
        assert_eq!(duties(&mut producing), []);
        producing.claimed(&[Some(Claim::Appended(0)), None, None, None]);
        assert_eq!(duties(&mut producing), [Duty::Claim]);
    }

    #[test]
    fn what_is_left_out_of_a_recovery_is_the_last_that_was_acknowledged() {
        let mut producing = fresh();
        for number in 0..3 {
            let request = produce(FIRST, number, number);
            let (call, _) = producing.called(&request);
            if number < 2 {
                producing.answered(call, &request, &acknowledged(), Duration::ZERO);
            }
        }
        let entry = |base_sequence| v1::WindowEntry { base_sequence, ..v1::WindowEntry::default() };
        let partitions = vec![v1::init_producer_id_response::Partition {
            topic: "t".into(),
            partition: 0,
            next_sequence: 3,
            window: (0..3).map(entry).collect(),
        }];
        let mut answer = InitProducerIdResponse { partitions, ..InitProducerIdResponse::default() };
        producing.leave_out_acknowledged(&recovery("x"), &mut answer);
        assert_eq!((answer.partitions[0].next_sequence, answer.partitions[0].window.as_slice()), (1, &[entry(0)][..]));
    }

    #[test]
    fn a_refused_batch_waits_for_a_recovery_and_only_a_refused_one_is_said_to_be() {
        let mut producing = fresh();
        let request = produce(FIRST, 0, 0);
        for code in [ErrorCode::ResourceExhausted, ErrorCode::OutOfOrderSequenceNumber, ErrorCode::InvalidProducerEpoch] {
            let (call, _) = producing.called(&request);
            producing.answered(call, &request, &refused(code), Duration::ZERO);
        }
        producing.claimed(&[Some(Claim::Refused)]);
        assert_eq!(duties(&mut producing), [Duty::Claim]);
        let (call, _) = producing.called(&request);
        producing.answered(call, &request, &refused(ErrorCode::MessageTooLarge), Duration::ZERO);
        producing.claimed(&[Some(Claim::Refused)]);
        assert_eq!(duties(&mut producing), []);
        producing.called(&request);
        assert_eq!(duties(&mut producing), [Duty::Refused]);
    }

    #[test]
    fn a_repeated_recovery_has_its_token_and_names_an_epoch_that_was_told() {
        let mut producing = fresh();
        producing.init_called(&recovery("x"), Duration::ZERO);
        producing.init_called(&recovery("x"), Duration::ZERO);
        assert_eq!(duties(&mut producing), []);
        producing.init_called(&recovery("y"), Duration::ZERO);
        producing.init_called(&InitProducerIdRequest { producer_epoch: Some(1), ..recovery("") }, Duration::ZERO);
        assert_eq!(duties(&mut producing), [Duty::Token, Duty::Identity, Duty::Token]);
    }

    #[test]
    fn an_epoch_that_was_only_named_in_an_error_is_nobodys() {
        let mut producing = fresh();
        producing.called(&produce(RAISED, 0, 0));
        assert_eq!(duties(&mut producing), [Duty::Identity]);
    }

    #[test]
    fn six_are_too_many_unless_one_of_them_was_given_up() {
        let mut producing = fresh();
        for number in 0..6 {
            producing.called(&produce(FIRST, number.min(4), number.min(4)));
        }
        let open = producing.open();
        producing.judge_outstanding(&open);
        assert_eq!(duties(&mut producing), [Duty::Outstanding]);
        producing.gave_up(3);
        producing.judge_outstanding(&open);
        assert_eq!(duties(&mut producing), []);
    }
}

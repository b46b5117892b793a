//! An idempotent producer on `InitProducerId` and `Produce`, which may be wrong.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context, bail, ensure};
use oncelog_proto::{
    ErrorCode,
    v1::{
        Batch as TaggedBatch, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, batch_result,
        broker_service_client::BrokerServiceClient, init_producer_id_response::Partition,
    },
};
use tokio::{task::JoinSet, time::sleep};
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint},
};

use super::ProducerDefect;
use crate::contract::{Assignment, Claim, record};

/// Sends what is assigned. What is claimed stands in the order of the numbers, also of what was known when it failed.
///
/// # Errors
/// The address is none, acknowledged records are gone, or the defect ends it.
pub(crate) async fn produce(
    assignment: &Assignment,
    defect: Option<ProducerDefect>,
    claims: &mut Vec<Option<Claim>>,
) -> anyhow::Result<()> {
    let endpoint = Endpoint::new(format!("http://{}", assignment.address))?;
    let numbers: Vec<u32> = (0..assignment.records).collect();
    let size = if defect == Some(ProducerDefect::OneBatch) { numbers.len() } else { 10 };
    let mut waiting: VecDeque<_> = numbers.chunks(size).map(Batch::new).collect();
    *claims = vec![None; numbers.len()];
    match defect {
        Some(ProducerDefect::Reorders) => waiting.swap(0, 1),
        Some(ProducerDefect::Drops) => {
            let dropped = waiting.remove(2).context("there are three batches")?;
            dropped.tell(Claim::Appended(i64::from(dropped.first())), claims);
        }
        _ => {}
    }
    let token = match defect {
        Some(ProducerDefect::OneTokenForAll) => "token".to_owned(),
        _ => random_token()?,
    };
    let producer = Producer {
        broker: BrokerServiceClient::new(endpoint.connect_lazy()),
        topic: assignment.topic.clone(),
        timeout: (defect != Some(ProducerDefect::NoDeadline)).then_some(assignment.timeout),
        defect,
        id: 0,
        epoch: 0,
        next: 0,
        acknowledged: 0,
        token,
        waiting,
        window: VecDeque::new(),
        calls: JoinSet::new(),
    };
    let ended = producer.run(claims).await;
    if ended.is_err() && defect == Some(ProducerDefect::FailsInSilence) {
        claims.clear();
    }
    ended
}

#[derive(Debug)]
struct Producer {
    broker: BrokerServiceClient<Channel>,
    topic: String,
    timeout: Option<Duration>,
    defect: Option<ProducerDefect>,
    id: i64,
    epoch: i32,
    next: i64,
    /// All below was acknowledged in this epoch.
    acknowledged: i64,
    token: String,
    waiting: VecDeque<Batch>,
    /// From the lowest that is unresolved on.
    window: VecDeque<Batch>,
    calls: JoinSet<Answered>,
}

#[derive(Debug)]
struct Batch {
    numbers: Vec<u32>,
    base: i64,
    attempts: u32,
    is_refused: bool,
    /// What is claimed of its first record, once it is known.
    claim: Option<Claim>,
}

/// A call of an epoch is over.
#[derive(Debug)]
struct Answered {
    /// The first record of its batch.
    first: u32,
    id: i64,
    epoch: i32,
    /// All below was known to be in the log when it was made.
    floor: i64,
    answer: Result<ProduceResponse, Status>,
}

/// What an answer means.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    Appended(i64),
    /// There is no answer.
    Unsure,
    NotNow,
    TooEarly,
    /// What is acknowledged is gone, or the id is unknown.
    Lost,
    Fenced(i32),
    Refused,
    Shared,
}

impl Batch {
    fn new(numbers: &[u32]) -> Self {
        Self { numbers: numbers.to_vec(), base: 0, attempts: 0, is_refused: false, claim: None }
    }

    fn first(&self) -> u32 {
        self.numbers[0]
    }

    fn end(&self) -> i64 {
        self.base + self.numbers.len() as i64
    }

    fn tell(&self, claim: Claim, claims: &mut [Option<Claim>]) {
        for (index, number) in (0..).zip(&self.numbers) {
            claims[*number as usize] = Some(match claim {
                Claim::Appended(base) if base >= 0 => Claim::Appended(base + index),
                other => other,
            });
        }
    }
}

impl Producer {
    fn is(&self, defect: ProducerDefect) -> bool {
        self.defect == Some(defect)
    }

    async fn run(mut self, claims: &mut [Option<Claim>]) -> anyhow::Result<()> {
        self.fresh_id().await?;
        loop {
            while let Some(claim) = self.window.front().and_then(|batch| batch.claim) {
                self.window.pop_front().context("it was there")?.tell(claim, claims);
            }
            while self.has_room()
                && let Some(batch) = self.waiting.pop_front()
            {
                self.window.push_back(batch);
                self.tag_and_send(self.window.len() - 1);
            }
            if self.window.is_empty() {
                return Ok(());
            }
            let answered = self.calls.join_next().await.context("nothing is under way, and something is unresolved")??;
            self.hear(answered).await?;
        }
    }

    fn has_room(&self) -> bool {
        match self.defect {
            Some(ProducerDefect::SixOutstanding) => self.window.len() < 6,
            Some(ProducerDefect::CountsTheUnresolved) => self.window.iter().filter(|batch| batch.claim.is_none()).count() < 5,
            _ => self.window.len() < 5,
        }
    }

    async fn hear(&mut self, answered: Answered) -> anyhow::Result<()> {
        let is_late = (answered.id, answered.epoch) != (self.id, self.epoch);
        // It would recover for ever; twice is enough to be found.
        let hears = self.is(ProducerDefect::HearsLateAnswers) && self.epoch < 2;
        if is_late && !hears {
            return Ok(());
        }
        let unresolved = |batch: &Batch| batch.claim.is_none() && batch.first() == answered.first;
        let Some(index) = self.window.iter().position(unresolved) else { return Ok(()) };
        match (self.judge(&answered, &self.window[index]), self.defect) {
            (Verdict::Appended(offset), _) => {
                let offset = if self.is(ProducerDefect::ForgetsOffsets) { -1 } else { offset };
                self.window[index].claim = Some(Claim::Appended(offset));
                if !is_late {
                    self.acknowledged = self.acknowledged.max(self.window[index].end());
                }
            }
            (Verdict::Unsure, Some(ProducerDefect::RenumbersTheUnsure)) => self.tag_and_send(index),
            (Verdict::Unsure, Some(ProducerDefect::GivesUpTheUnsure)) => self.window[index].claim = Some(Claim::Unknown),
            (Verdict::NotNow, Some(ProducerDefect::RefusesForGood)) => self.refuse(index).await?,
            (Verdict::TooEarly, Some(ProducerDefect::RecoversFromDisorder)) => self.recover().await?,
            (Verdict::Fenced(_), Some(ProducerDefect::IgnoresFencing)) => self.send_again(index),
            (Verdict::Fenced(current), Some(ProducerDefect::TakesTheEpochFromTheError)) if self.epoch == 0 => {
                self.begin(self.id, current + 1);
                self.tag_the_unresolved();
            }
            (Verdict::Fenced(_), Some(ProducerDefect::TakesAFreshIdWhenFenced)) => {
                self.fresh_id().await?;
                self.tag_the_unresolved();
            }
            (Verdict::Refused, Some(ProducerDefect::BelievesARefusal)) => self.window[index].claim = Some(Claim::Refused),
            (Verdict::Refused, Some(ProducerDefect::RepeatsTheRefused)) if self.window[index].attempts < 3 => {
                self.send_again(index);
            }
            (Verdict::Unsure | Verdict::NotNow | Verdict::TooEarly, _) => self.send_again(index),
            (Verdict::Refused, _) => self.refuse(index).await?,
            (Verdict::Fenced(_) | Verdict::Lost, _) => self.recover().await?,
            (Verdict::Shared, Some(ProducerDefect::RecoversASharedId)) => self.recover().await?,
            (Verdict::Shared, _) => self.lose_id().await?,
        }
        Ok(())
    }

    fn judge(&self, answered: &Answered, batch: &Batch) -> Verdict {
        let result = match &answered.answer {
            Ok(response) => response.results.first().and_then(|result| result.outcome.as_ref()),
            Err(status) => {
                let is_final = matches!(status.code(), Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition);
                // It would repeat it for ever; twice is enough to be found.
                let is_refused = is_final && !(self.is(ProducerDefect::RepeatsTheRefusedCall) && batch.attempts < 2);
                return if is_refused { Verdict::Refused } else { Verdict::Unsure };
            }
        };
        let error = match result {
            Some(batch_result::Outcome::Ack(ack)) => return Verdict::Appended(ack.base_offset),
            Some(batch_result::Outcome::Error(error)) => error,
            None if self.is(ProducerDefect::BelievesAnEmptyAnswer) => return Verdict::Appended(-1),
            None => return Verdict::Unsure,
        };
        let floor = if self.is(ProducerDefect::ForgetsTheFloor) { self.floor() } else { answered.floor };
        let expected = error.expected_sequence.unwrap_or(batch.base);
        match error.code() {
            ErrorCode::DuplicateSequenceNumber if self.is(ProducerDefect::RecoversFromADuplicate) => Verdict::Refused,
            ErrorCode::DuplicateSequenceNumber => Verdict::Appended(-1),
            ErrorCode::OutOfOrderSequenceNumber if expected < floor => Verdict::Lost,
            ErrorCode::OutOfOrderSequenceNumber if batch.base < expected && expected < batch.end() => Verdict::Shared,
            ErrorCode::OutOfOrderSequenceNumber => Verdict::TooEarly,
            ErrorCode::SequenceConflict => Verdict::Shared,
            ErrorCode::InvalidProducerEpoch => Verdict::Fenced(error.current_epoch.unwrap_or(self.epoch)),
            ErrorCode::UnknownProducerId => Verdict::Lost,
            code if code.is_retriable() => Verdict::NotNow,
            _ => Verdict::Refused,
        }
    }

    /// The lowest sequence of this epoch that is not known to be in the log.
    fn floor(&self) -> i64 {
        let unresolved = self.window.iter().find(|batch| batch.claim.is_none());
        unresolved.map_or(self.next, |batch| batch.base)
    }

    fn tag_and_send(&mut self, index: usize) {
        if self.is(ProducerDefect::OverlapsSequences) && self.next == 20 {
            self.next -= 1;
        }
        let batch = &mut self.window[index];
        (batch.base, batch.attempts) = (self.next, 0);
        self.next = batch.end();
        self.send(index);
    }

    fn tag_the_unresolved(&mut self) {
        for index in 0..self.window.len() {
            if self.window[index].claim.is_none() {
                self.tag_and_send(index);
            }
        }
    }

    fn send_again(&mut self, index: usize) {
        self.window[index].attempts += 1;
        self.send(index);
    }

    fn send(&mut self, index: usize) {
        let floor = if self.is(ProducerDefect::KeepsAnOldFloor) { self.window[0].base } else { self.floor() };
        let Batch { numbers, base, attempts, .. } = &self.window[index];
        let mut records: Vec<_> = numbers.iter().map(|number| record(*number)).collect();
        if self.is(ProducerDefect::ChangesTheUnsure) && *attempts > 0 {
            records.reverse();
        }
        let tagged = TaggedBatch { topic: self.topic.clone(), base_sequence: *base, records, ..TaggedBatch::default() };
        let request = self.request(ProduceRequest {
            producer_id: (!self.is(ProducerDefect::LeavesOutTheTag)).then_some(self.id),
            producer_epoch: self.epoch,
            batches: vec![tagged],
            ..ProduceRequest::default()
        });
        let (first, id, epoch, pause) = (numbers[0], self.id, self.epoch, backoff(*attempts));
        let mut broker = self.broker.clone();
        self.calls.spawn(async move {
            sleep(pause).await;
            let answer = broker.produce(request).await.map(Response::into_inner);
            Answered { first, id, epoch, floor, answer }
        });
    }

    async fn refuse(&mut self, index: usize) -> anyhow::Result<()> {
        self.window[index].is_refused = true;
        self.recover().await
    }

    async fn recover(&mut self) -> anyhow::Result<()> {
        let question = InitProducerIdRequest {
            producer_id: Some(self.id),
            producer_epoch: Some(self.epoch),
            ..InitProducerIdRequest::default()
        };
        self.forget_calls();
        let Some(answer) = self.init(question).await? else { return self.lose_id().await };
        let told = answer.partitions.into_iter().find(|told| told.topic == self.topic).unwrap_or_default();
        let is_overlooked = self.is(ProducerDefect::OverlooksALoss) && self.window[0].base <= told.next_sequence;
        let (next, acknowledged) = (told.next_sequence, self.acknowledged);
        let is_whole = next >= acknowledged || is_overlooked;
        ensure!(is_whole, "acknowledged records are gone: from sequence {next} on, of {acknowledged}");
        self.begin(answer.producer_id, answer.producer_epoch);
        self.settle(&told);
        Ok(())
    }

    /// What a recovery has told of the batches of the window.
    fn settle(&mut self, told: &Partition) {
        for index in 0..self.window.len() {
            let batch = &mut self.window[index];
            if batch.claim.is_some() {
                continue;
            }
            if batch.end() <= told.next_sequence {
                let is_told = self.defect != Some(ProducerDefect::ForgetsTheWindow);
                let entry = told.window.iter().find(|entry| is_told && entry.base_sequence == batch.base);
                batch.claim = Some(Claim::Appended(entry.map_or(-1, |entry| entry.base_offset)));
            } else if batch.is_refused {
                batch.claim = Some(Claim::Refused);
            } else {
                self.tag_and_send(index);
            }
        }
    }

    async fn lose_id(&mut self) -> anyhow::Result<()> {
        self.forget_calls();
        if self.is(ProducerDefect::MovesTheUnknown) {
            self.fresh_id().await?;
            self.tag_the_unresolved();
            return Ok(());
        }
        let forgets = self.is(ProducerDefect::ForgetsAcknowledgements);
        for batch in self.window.iter_mut().filter(|batch| forgets || batch.claim.is_none()) {
            batch.claim = Some(Claim::Unknown);
        }
        self.fresh_id().await
    }

    async fn fresh_id(&mut self) -> anyhow::Result<()> {
        let answer = self.init(InitProducerIdRequest::default()).await?.context("no producer id is handed out")?;
        self.begin(answer.producer_id, answer.producer_epoch);
        Ok(())
    }

    fn begin(&mut self, id: i64, epoch: i32) {
        self.forget_calls();
        (self.id, self.epoch, self.next, self.acknowledged) = (id, epoch, 0, 0);
    }

    fn forget_calls(&mut self) {
        if !self.is(ProducerDefect::HearsLateAnswers) {
            self.calls = JoinSet::new();
        }
    }

    /// None: the id cannot be recovered.
    async fn init(&mut self, question: InitProducerIdRequest) -> anyhow::Result<Option<InitProducerIdResponse>> {
        for attempts in 1.. {
            let mut question = question.clone();
            if question.producer_id.is_some() {
                let is_another = self.is(ProducerDefect::AnotherTokenEachTime);
                question.recovery_token = if is_another { random_token()? } else { self.token.clone() };
            }
            let request = self.request(question);
            match self.broker.init_producer_id(request).await {
                Ok(answer) => return Ok(Some(answer.into_inner())),
                Err(status) if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) => return Ok(None),
                Err(status) if self.is(ProducerDefect::DiesWithoutAnId) => bail!(status),
                Err(_) => sleep(backoff(attempts)).await,
            }
        }
        unreachable!("it is asked for ever")
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        request
    }
}

/// 100 ms, doubled each time, up to 1 s.
fn backoff(attempts: u32) -> Duration {
    match attempts {
        0 => Duration::ZERO,
        _ => Duration::from_millis((50 << attempts.min(5)).min(1_000)),
    }
}

fn random_token() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

//! An idempotent producer: every record is in the log once and in order, whatever fails on the way.
//!
//! Each batch gets a tag, which is the producer's id and epoch and the sequence of its first record. A tag is for ever: a batch
//! whose outcome is not known is sent again, unchanged, and the broker recognises it. When sending again does not help, a
//! recovery tells what is in the log, and only what certainly is not gets a new tag. The numbers R1 to R13 are those of
//! proto/RULES.md.

use std::{collections::VecDeque, time::Duration};

use anyhow::bail;
use oncelog_clients::{
    Assignment,
    v1::{
        self, BatchError, BatchResult, ErrorCode, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, Record,
        batch_result::Outcome as Answer, broker_service_client::BrokerServiceClient,
    },
    within,
};
use rand::Rng;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tonic::{Code, Request, Status, transport::Channel};

/// What became of a batch.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is in the log, at this offset. None: the broker has forgotten where.
    Appended(Option<i64>),
    /// It is certainly not in the log.
    Refused(String),
    /// It is in the log at most once; nobody will ever know.
    Unknown,
}

/// Written as a whole.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub records: Vec<Record>,
    /// None until it is known.
    pub outcome: Option<Outcome>,
    base: i64,
    attempts: u32,
    /// R5: not final before a recovery.
    refusal: Option<String>,
}

impl Batch {
    fn end(&self) -> i64 {
        self.base + i64::try_from(self.records.len()).expect("in memory")
    }
}

/// What an answer means for its batch.
enum Verdict {
    Appended(Option<i64>),
    /// In doubt, or not now: the same batch, unchanged.
    Again,
    /// Only a recovery can tell what is in the log.
    Recover,
    /// R5: not final, a copy may be in the log.
    Refused(String),
    /// Somebody else writes with this id.
    Shared,
}

/// Writes to one partition.
pub struct Producer {
    broker: BrokerServiceClient<Channel>,
    topic: String,
    partition: i32,
    timeout: Duration,
    id: i64,
    epoch: i32,
    next: i64,
    /// The highest end of a batch that was acknowledged in this epoch.
    acknowledged: i64,
    token: String,
    /// R1: at most five tagged batches from the lowest unresolved one on, resolved ones in between included.
    window: VecDeque<Batch>,
    /// Each is done with the base sequence of its batch. They end with their epoch, so no answer is taken for that of another
    /// (R6).
    calls: JoinSet<(i64, Verdict)>,
}

impl Producer {
    /// Asks for a producer id.
    pub async fn start(
        broker: BrokerServiceClient<Channel>,
        topic: String,
        partition: i32,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let token = format!("{:032x}", rand::random::<u128>()); // R13: of this process alone
        let (window, calls) = (VecDeque::new(), JoinSet::new());
        let (id, epoch, next, acknowledged) = (0, 0, 0, 0);
        let mut producer = Self { broker, topic, partition, timeout, id, epoch, next, acknowledged, token, window, calls };
        producer.fresh_id().await?;
        Ok(producer)
    }

    /// Writes the batches that come, until there are no more, and hands them on in their order.
    pub async fn run(mut self, mut batches: mpsc::Receiver<Vec<Record>>, resolved: mpsc::Sender<Batch>) -> anyhow::Result<()> {
        let mut is_more = true;
        while is_more || !self.window.is_empty() {
            tokio::select! {
                records = batches.recv(), if is_more && self.window.len() < WINDOW => match records {
                    Some(records) => {
                        self.window.push_back(Batch { records, ..Batch::default() });
                        self.tag_and_send(self.window.len() - 1);
                    }
                    None => is_more = false,
                },
                Some(done) = self.calls.join_next() => {
                    let (base, verdict) = done?;
                    self.hear(base, verdict).await?;
                }
            }
            while self.window.front().is_some_and(|batch| batch.outcome.is_some()) {
                resolved.send(self.window.pop_front().expect("there is a front")).await?;
            }
        }
        Ok(())
    }

    async fn hear(&mut self, base: i64, verdict: Verdict) -> anyhow::Result<()> {
        let is_it = |batch: &Batch| batch.outcome.is_none() && batch.base == base;
        let index = self.window.iter().position(is_it).expect("in the window until it is resolved");
        let batch = &mut self.window[index];
        match verdict {
            Verdict::Appended(offset) => {
                batch.outcome = Some(Outcome::Appended(offset));
                self.acknowledged = self.acknowledged.max(batch.end());
            }
            Verdict::Again => {
                batch.attempts += 1;
                self.send(index);
            }
            Verdict::Refused(why) => {
                batch.refusal = Some(why);
                self.recover().await?;
            }
            Verdict::Recover => self.recover().await?,
            Verdict::Shared => self.lose_id().await?,
        }
        Ok(())
    }

    fn tag_and_send(&mut self, index: usize) {
        let batch = &mut self.window[index];
        (batch.base, batch.attempts) = (self.next, 0);
        self.next = batch.end();
        self.send(index);
    }

    fn send(&mut self, index: usize) {
        let Batch { records, base, attempts, .. } = self.window[index].clone();
        // R7: all below the floor was known to be in the log when this call was made.
        let floor = self.window.iter().find(|batch| batch.outcome.is_none()).map_or(base, |batch| batch.base);
        let end = self.window[index].end();
        let batch = v1::Batch {
            topic: self.topic.clone(),
            partition: self.partition,
            base_sequence: base,
            records,
            ..Default::default()
        };
        let produce =
            ProduceRequest { producer_id: Some(self.id), producer_epoch: self.epoch, batches: vec![batch], ..Default::default() };
        let (mut broker, request, timeout) = (self.broker.clone(), self.request(produce), self.timeout);
        self.calls.spawn(async move {
            sleep(backoff(attempts)).await;
            let answer = within(timeout, broker.produce(request)).await;
            (base, judge(base, end, floor, answer.map(|mut response| response.results.pop())))
        });
    }

    /// Fences all that is on its way, and learns what of it is in the log (R2, R8).
    async fn recover(&mut self) -> anyhow::Result<()> {
        self.calls = JoinSet::new();
        let recovery = InitProducerIdRequest {
            producer_id: Some(self.id),
            producer_epoch: Some(self.epoch),
            recovery_token: self.token.clone(),
            ..Default::default()
        };
        let Some(answer) = self.init(recovery).await? else { return self.lose_id().await };
        let is_mine = |p: &&v1::init_producer_id_response::Partition| p.topic == self.topic && p.partition == self.partition;
        let told = answer.partitions.iter().find(is_mine).cloned().unwrap_or_default(); // R3: absent means nothing of this epoch
        if told.next_sequence < self.acknowledged {
            bail!("acknowledged records are gone: {}/{} from sequence {} on", self.topic, self.partition, told.next_sequence);
        }
        if told.next_sequence > self.next {
            return self.lose_id().await;
        }
        self.begin(&answer);
        for index in 0..self.window.len() {
            let batch = &mut self.window[index];
            if batch.outcome.is_some() {
                continue;
            } else if batch.end() <= told.next_sequence {
                let entry = told.window.iter().find(|entry| entry.base_sequence == batch.base);
                batch.outcome = Some(Outcome::Appended(entry.map(|entry| entry.base_offset)));
            } else if let Some(why) = batch.refusal.take() {
                batch.outcome = Some(Outcome::Refused(why)); // R5: now it is final
            } else {
                self.tag_and_send(index);
            }
        }
        Ok(())
    }

    /// Whatever was sent under this id is in the log at most once, and nobody will ever know (R10).
    async fn lose_id(&mut self) -> anyhow::Result<()> {
        self.calls = JoinSet::new();
        for batch in &mut self.window {
            batch.outcome.get_or_insert(Outcome::Unknown);
        }
        self.fresh_id().await
    }

    async fn fresh_id(&mut self) -> anyhow::Result<()> {
        let Some(answer) = self.init(InitProducerIdRequest::default()).await? else { bail!("the broker hands out no id") };
        self.begin(&answer);
        Ok(())
    }

    /// R9: the only place where an epoch is learned.
    fn begin(&mut self, answer: &InitProducerIdResponse) {
        (self.id, self.epoch, self.next, self.acknowledged) = (answer.producer_id, answer.producer_epoch, 0, 0);
    }

    /// Repeats the same question until it is answered. None: the id expired, or another process recovered it.
    async fn init(&mut self, question: InitProducerIdRequest) -> anyhow::Result<Option<InitProducerIdResponse>> {
        for attempts in 1.. {
            let request = self.request(question.clone());
            match within(self.timeout, self.broker.init_producer_id(request)).await {
                // A producer that writes to one partition gets its answer in one page.
                Ok(answer) => return Ok(Some(answer)),
                Err(status) if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) => return Ok(None),
                Err(status) if status.code() == Code::InvalidArgument => bail!(status),
                Err(_) => sleep(backoff(attempts)).await,
            }
        }
        unreachable!("it is asked for ever")
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }
}

/// Whatever is not clearly an answer leaves the batch in doubt.
fn judge(base: i64, end: i64, floor: i64, answer: Result<Option<BatchResult>, Status>) -> Verdict {
    let error = match answer {
        Ok(Some(BatchResult { outcome: Some(Answer::Ack(ack)) })) => return Verdict::Appended(Some(ack.base_offset)),
        Ok(Some(BatchResult { outcome: Some(Answer::Error(error)) })) => error,
        Ok(_) => return Verdict::Again,
        Err(status) if matches!(status.code(), Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition) => {
            return Verdict::Refused(status.message().to_owned());
        }
        Err(_) => return Verdict::Again,
    };
    let BatchError { message, expected_sequence, .. } = &error;
    let expected = expected_sequence.unwrap_or(base);
    match error.code() {
        ErrorCode::DuplicateSequenceNumber => Verdict::Appended(None),
        ErrorCode::OutOfOrderSequenceNumber if expected < floor => Verdict::Recover,
        ErrorCode::OutOfOrderSequenceNumber if base < expected && expected < end => Verdict::Shared,
        ErrorCode::SequenceConflict => Verdict::Shared,
        ErrorCode::InvalidProducerEpoch | ErrorCode::UnknownProducerId => Verdict::Recover,
        // Its predecessors are still on their way.
        ErrorCode::OutOfOrderSequenceNumber => Verdict::Again,
        ErrorCode::RequestTimedOut
        | ErrorCode::BrokerNotAvailable
        | ErrorCode::KafkaStorageError
        | ErrorCode::ResourceExhausted => Verdict::Again,
        _ => Verdict::Refused(message.clone()),
    }
}

/// 100 ms, doubled each time, up to 1 s; with 20 % jitter.
fn backoff(attempts: u32) -> Duration {
    match attempts {
        0 => Duration::ZERO,
        _ => Duration::from_millis((50 << attempts.min(5)).min(1_000)).mul_f64(rand::rng().random_range(0.8..1.2)),
    }
}

const WINDOW: usize = 5;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let assignment = Assignment::from_environment("127.0.0.1:50051")?;
    let broker = BrokerServiceClient::new(assignment.channel()?);
    let producer = Producer::start(broker, assignment.topic.clone(), 0, assignment.timeout).await?;
    let (give, batches) = mpsc::channel(1);
    let (resolved, mut outcomes) = mpsc::channel(WINDOW);
    let running = tokio::spawn(producer.run(batches, resolved));
    tokio::spawn(async move {
        for records in assignment.records().chunks(10) {
            // The producer has ended if it takes no more; it says why.
            let _ = give.send(records.to_vec()).await;
        }
    });
    let mut numbers = 0..;
    while let Some(batch) = outcomes.recv().await {
        for ((index, _), number) in (0..).zip(&batch.records).zip(&mut numbers) {
            match &batch.outcome {
                Some(Outcome::Appended(Some(base))) => println!("{number} appended {}", base + index),
                Some(Outcome::Appended(None)) => println!("{number} appended -1"),
                Some(Outcome::Refused(why)) => println!("{number} refused {why}"),
                Some(Outcome::Unknown) | None => println!("{number} unknown"),
            }
        }
    }
    running.await?
}

//! `Produce` calls by idempotent producers, written straight on the generated client; each a call of its own, or on a stream.
//!
//! Each producer has a connection, an id and sequences of its own, and up to five calls out. A call carries batches for as many
//! partitions; the producers go round the partitions, each from another place.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, future::Either, stream};
use oncelog_proto::{
    Compression,
    v1::{self, batch_result::Outcome, broker_service_client::BrokerServiceClient, produce_stream_response},
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{Timed, connect, nanos_since};
use crate::{
    clock,
    load::Load,
    measured,
    pace::{self, Turn},
    values::Values,
};

/// How the records of a load are put into calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Producers, each with a connection.
    pub producers: usize,
    /// Calls that each has out, 1 to 5.
    pub outstanding: usize,
    /// Batches of a call, each for another partition.
    pub batches: usize,
    /// Bytes of a batch, encoded and not compressed; as many records as fit.
    pub batch_bytes: usize,
    /// How a call travels.
    pub transport: Transport,
}

/// How a call travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `Produce`, a call for each request.
    Unary,
    /// `ProduceStream`, a stream for each producer.
    Stream,
}

impl Shape {
    /// Records of a batch: at least one.
    pub fn batch_records(&self, values: &Values) -> usize {
        (self.batch_bytes / values.encoded_len()).max(1)
    }

    /// Records of a call.
    pub fn call_records(&self, values: &Values) -> u64 {
        (self.batches * self.batch_records(values)) as u64
    }

    /// Who sent a record.
    pub fn lane_of(self, values: &Values) -> impl Fn(u64) -> usize + use<> {
        let call_records = self.call_records(values);
        move |number| usize::try_from(number / call_records).unwrap_or_default() % self.producers
    }

    /// Records that may be unacknowledged at once.
    pub fn unacknowledged(&self, values: &Values) -> usize {
        self.producers * self.outstanding * usize::try_from(self.call_records(values)).unwrap_or(usize::MAX)
    }
}

/// Sends as many calls as hold the load; the last one is whole, so it may be a few records more.
///
/// # Errors
/// A call fails, or a batch is refused or taken for a duplicate.
pub async fn run(broker: SocketAddr, topic: &str, shape: Shape, load: &Load, values: &Values) -> anyhow::Result<Timed> {
    ensure!(shape.batches <= load.partitions as usize, "a call has at most one batch for each partition");
    let call_records = shape.call_records(values);
    let calls = load.records.div_ceil(call_records);
    let mut producers = Vec::new();
    for index in 0..shape.producers {
        producers.push(Producer::start(broker, topic, index, shape, load.partitions).await?);
    }
    let rate = load.rate.map(|records| records / call_records as f64);
    let began = clock::now();
    let lanes = pace::lanes(calls, shape.producers, rate);
    let running = producers.into_iter().zip(lanes).map(|(mut producer, turns)| {
        let values = values.clone();
        tokio::spawn(async move {
            let answers = turns.map(|turn| producer.call(turn, &values)).buffer_unordered(shape.outstanding);
            let mut latency = measured::nanos();
            let mut answers = std::pin::pin!(answers);
            while let Some(nanos) = answers.try_next().await? {
                latency.saturating_record(nanos);
            }
            anyhow::Ok(latency)
        })
    });
    let mut latency = measured::nanos();
    for task in running.collect::<Vec<_>>() {
        latency.add(task.await??)?;
    }
    Ok(Timed { records: calls * call_records, took: began.elapsed(), latency })
}

/// Makes `count` producers known, each with one record of its own in the topic, by the API alone; `at_once` calls are out.
///
/// # Errors
/// A call fails or a batch is refused.
pub async fn introduce(broker: SocketAddr, topic: &str, count: u64, at_once: usize, values: &Values) -> anyhow::Result<()> {
    let channel = connect(broker).await?;
    let introduced = stream::iter(0..count).map(|number| {
        let mut client = BrokerServiceClient::new(channel.clone());
        let batch = v1::Batch {
            topic: topic.to_owned(),
            packed: Some(values.packed(number, 1, 1, Compression::None)),
            ..v1::Batch::default()
        };
        async move {
            let id = client.init_producer_id(v1::InitProducerIdRequest::default()).await?.into_inner().producer_id;
            let request = v1::ProduceRequest { producer_id: Some(id), batches: vec![batch], ..v1::ProduceRequest::default() };
            check(client.produce(request).await?.into_inner(), 1)
        }
    });
    introduced.buffer_unordered(at_once).try_collect().await
}

/// An idempotent producer.
pub struct Producer {
    way: Way,
    id: i64,
    index: usize,
    topic: String,
    shape: Shape,
    /// The next sequence, by partition.
    sequences: Vec<i64>,
}

impl Producer {
    /// Gets an id for the producer of this index, which is below `shape.producers`.
    ///
    /// # Errors
    /// The broker gives none.
    pub async fn start(broker: SocketAddr, topic: &str, index: usize, shape: Shape, partitions: u32) -> anyhow::Result<Self> {
        let mut client = BrokerServiceClient::new(connect(broker).await?);
        let id = client.init_producer_id(v1::InitProducerIdRequest::default()).await?.into_inner().producer_id;
        let way = match shape.transport {
            Transport::Unary => Way::Unary(client),
            Transport::Stream => Way::Stream(Calls::open(client, shape.outstanding).await?),
        };
        Ok(Self { way, id, index, topic: topic.to_owned(), shape, sequences: vec![0; partitions as usize] })
    }

    /// The call of this turn, and how long its answer takes from when it was due, in nanoseconds. The request, its sequences
    /// included, is made here and not in the future: calls begin in the order of their sequences.
    pub fn call(&mut self, turn: Turn, values: &Values) -> impl Future<Output = anyhow::Result<u64>> + use<> {
        let Shape { producers, batches, .. } = self.shape;
        let records = self.shape.batch_records(values);
        let first = turn.number * self.shape.call_records(values);
        let own_turn = usize::try_from(turn.number).unwrap_or_default() / producers;
        let batches: Vec<_> = (0..batches)
            .map(|batch| {
                let partition = (own_turn * batches + batch + self.index) % self.sequences.len();
                let base_sequence = self.sequences[partition];
                self.sequences[partition] += i64::try_from(records).expect("a batch is small");
                v1::Batch {
                    topic: self.topic.clone(),
                    partition: i32::try_from(partition).expect("a partition's number"),
                    base_sequence,
                    packed: Some(values.packed(first + (batch * records) as u64, 1, records, Compression::None)),
                    ..v1::Batch::default()
                }
            })
            .collect();
        let request = v1::ProduceRequest { producer_id: Some(self.id), batches, ..v1::ProduceRequest::default() };
        let count = self.shape.batches;
        let answer = self.way.call(request);
        async move {
            check(answer.await?, count)?;
            Ok(nanos_since(turn.due))
        }
    }
}

/// How a producer's calls travel.
enum Way {
    Unary(BrokerServiceClient<Channel>),
    Stream(Calls),
}

impl Way {
    /// The answer to a request, which is sent in the order of these calls.
    fn call(&self, request: v1::ProduceRequest) -> impl Future<Output = anyhow::Result<v1::ProduceResponse>> + use<> {
        match self {
            Self::Unary(client) => {
                let mut client = client.clone();
                Either::Left(async move { Ok(client.produce(request).await.context("a Produce call failed")?.into_inner()) })
            }
            Self::Stream(calls) => {
                let answer = calls.call(request);
                Either::Right(async move { answer.await.context("a ProduceStream ended early")? })
            }
        }
    }
}

/// One `ProduceStream`. The queues have a place for every call that may be out.
struct Calls {
    requests: mpsc::Sender<v1::ProduceStreamRequest>,
    /// Who waits, in the order of the requests, which is that of the answers.
    waiting: mpsc::Sender<Waiting>,
}

type Waiting = oneshot::Sender<anyhow::Result<v1::ProduceResponse>>;

impl Calls {
    async fn open(mut client: BrokerServiceClient<Channel>, outstanding: usize) -> anyhow::Result<Self> {
        let (requests, sent) = mpsc::channel(outstanding);
        let (waiting, waits) = mpsc::channel(outstanding);
        let answers = client.produce_stream(ReceiverStream::new(sent)).await.context("a ProduceStream was refused")?;
        tokio::spawn(hand_out(answers.into_inner(), waits));
        Ok(Self { requests, waiting })
    }

    fn call(&self, request: v1::ProduceRequest) -> oneshot::Receiver<anyhow::Result<v1::ProduceResponse>> {
        let (tell, answer) = oneshot::channel();
        // A stream that has ended drops those who wait; they tell.
        let _ = self.waiting.try_send(tell);
        let _ = self.requests.try_send(v1::ProduceStreamRequest { produce: Some(request) });
        answer
    }
}

/// Gives each answer to the one who waits for it. A stream that fails tells the first of them why.
async fn hand_out(mut answers: Streaming<v1::ProduceStreamResponse>, mut waits: mpsc::Receiver<Waiting>) {
    while let Some(tell) = waits.recv().await {
        let answer = answers.message().await;
        let is_over = !matches!(answer, Ok(Some(_)));
        // Nobody may want it any more: the run has failed elsewhere.
        let _ = tell.send(answer.map_err(anyhow::Error::from).and_then(produced));
        if is_over {
            return;
        }
    }
}

fn produced(answer: Option<v1::ProduceStreamResponse>) -> anyhow::Result<v1::ProduceResponse> {
    match answer.context("a ProduceStream ended early")?.outcome {
        Some(produce_stream_response::Outcome::Produced(produced)) => Ok(produced),
        Some(produce_stream_response::Outcome::Failed(failure)) => bail!("a call of a ProduceStream failed: {}", failure.message),
        None => bail!("a call of a ProduceStream has no outcome"),
    }
}

fn check(response: v1::ProduceResponse, batches: usize) -> anyhow::Result<()> {
    ensure!(response.results.len() == batches, "{} results for {batches} batches", response.results.len());
    for result in response.results {
        match result.outcome {
            Some(Outcome::Ack(ack)) => ensure!(!ack.duplicate, "a batch that was sent once was taken for a duplicate"),
            Some(Outcome::Error(error)) => bail!("a batch was refused: {}", error.message),
            None => bail!("a batch has no outcome"),
        }
    }
    Ok(())
}

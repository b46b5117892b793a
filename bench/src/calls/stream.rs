//! `SendStream`: messages of one or many records, with a window of unanswered ones.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use futures_util::Stream;
use hdrhistogram::Histogram;
use oncelog_proto::v1::{self, producer_service_client::ProducerServiceClient, send_stream_response::Outcome};
use tokio::sync::mpsc;
use tonic::transport::Channel;

use super::{Timed, connect, nanos_since};
use crate::{
    clock,
    load::Load,
    measured,
    pace::{self, Turns},
    values::Values,
};

/// How the records of a load are put into streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Streams, all on one connection.
    pub streams: usize,
    /// Records of a message, all for one partition.
    pub message_records: usize,
}

impl Shape {
    /// Which stream a record was sent in.
    pub fn lane_of(self) -> impl Fn(u64) -> usize {
        move |number| usize::try_from(number).unwrap_or_default() / self.message_records % self.streams
    }
}

/// Sends as many messages as hold the load; the last one is whole, so it may be a few records more.
///
/// # Errors
/// A stream ends early, or a message is answered with a failure.
pub async fn run(producer: SocketAddr, topic: &str, shape: Shape, load: &Load, values: &Values) -> anyhow::Result<Timed> {
    let channel = connect(producer).await?;
    let message_records = shape.message_records as u64;
    let messages = load.records.div_ceil(message_records);
    let window = (load.unacknowledged / shape.message_records / shape.streams).max(1);
    let began = clock::now();
    let rate = load.rate.map(|records| records / message_records as f64);
    let mut running = Vec::new();
    for turns in pace::lanes(messages, shape.streams, rate) {
        let (give, places) = mpsc::channel(window);
        for _ in 0..window {
            give.try_send(()).expect("the channel has as many places");
        }
        let out = Out::default();
        let messages = Messages {
            topic: topic.to_owned(),
            partitions: u64::from(load.partitions),
            message_records,
            values: values.clone(),
            turns,
            places,
            has_place: false,
            out: Arc::clone(&out),
        };
        running.push(tokio::spawn(one(channel.clone(), messages, give, out)));
    }
    let mut latency = measured::nanos();
    for task in running {
        latency.add(task.await??)?;
    }
    let answered = latency.len();
    ensure!(answered == messages, "{answered} answers to {messages} messages");
    Ok(Timed { records: messages * message_records, took: began.elapsed(), latency })
}

/// What the side that writes and the side that reads have in common: when each unanswered message was due, in order.
type Out = Arc<Mutex<VecDeque<Instant>>>;

async fn one(channel: Channel, messages: Messages, window: mpsc::Sender<()>, out: Out) -> anyhow::Result<Histogram<u64>> {
    let mut client = ProducerServiceClient::new(channel);
    let mut answers = client.send_stream(messages).await.context("a SendStream was refused")?.into_inner();
    let mut latency = measured::nanos();
    while let Some(answer) = answers.message().await.context("a SendStream ended early")? {
        match answer.outcome {
            Some(Outcome::Sent(_)) => {}
            Some(Outcome::Failed(failure)) => bail!("a message of a SendStream failed: {}", failure.message),
            None => bail!("a message of a SendStream has no outcome"),
        }
        let due = out.lock().unwrap_or_else(PoisonError::into_inner).pop_front().context("an answer to nothing")?;
        latency.saturating_record(nanos_since(due));
        // The channel has as many places as the window. It is closed once everything was sent.
        let _ = window.try_send(());
    }
    Ok(latency)
}

/// The messages of one stream, each in its turn and as soon as the window has a place for it.
struct Messages {
    topic: String,
    partitions: u64,
    message_records: u64,
    values: Values,
    turns: Turns,
    /// A place in the window for each that comes.
    places: mpsc::Receiver<()>,
    has_place: bool,
    out: Out,
}

impl Messages {
    fn message(&self, number: u64) -> v1::SendStreamRequest {
        let first = number * self.message_records;
        v1::SendStreamRequest {
            topic: self.topic.clone(),
            partition: i32::try_from(number % self.partitions).ok(),
            records: (first..first + self.message_records).map(|number| self.values.record(number)).collect(),
            ..v1::SendStreamRequest::default()
        }
    }
}

impl Stream for Messages {
    type Item = v1::SendStreamRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.has_place {
            // Whoever reads the answers has gone: so has the stream.
            if ready!(self.places.poll_recv(cx)).is_none() {
                return Poll::Ready(None);
            }
            self.has_place = true;
        }
        let Some(turn) = ready!(Pin::new(&mut self.turns).poll_next(cx)) else { return Poll::Ready(None) };
        self.has_place = false;
        self.out.lock().unwrap_or_else(PoisonError::into_inner).push_back(turn.due);
        Poll::Ready(Some(self.message(turn.number)))
    }
}

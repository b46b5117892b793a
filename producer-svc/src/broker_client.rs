//! The calls to the broker: carries out what the session wants done, and says what came of it in the session's words.
//!
//! One channel, connected when it is first needed and again after it broke. Every call ends in time with exactly one event. A
//! call that is given up is cancelled, which does not unmake it: a copy may still be on its way or being carried out, and so
//! whatever is not clearly an answer leaves the call in doubt.

pub(crate) mod answer;
mod produce_stream;

use std::{collections::HashSet, sync::Arc, time::Duration};

use oncelog_edge::{machine::WallClock, metrics::calls::Calls, security::dial};
use oncelog_proto::{
    Bearer, Epoch, ErrorCode, Fault, Link, ProducerId, TopicName,
    fault::ERROR_DOMAIN,
    topic::PartitionCount,
    v1,
    v1::{Acks, broker_service_client::BrokerServiceClient},
};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::{
    config::Settings,
    session::{CallFailure, Event, FailureKind, InitAnswer, InitId, ProduceCall},
    surroundings::Connect,
    topics::{Describe, DescribeError},
    traces::Attempts,
};
use answer::Nonsense;
use produce_stream::{Outgoing, ProduceStream};

/// The broker, as far as this process knows it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct BrokerClient {
    stub: BrokerServiceClient<Link>,
    stream: ProduceStream,
    acks: Acks,
    describe_timeout: Duration,
    /// With acks=0 nobody tells when a batch was appended.
    wall_clock: WallClock,
    calls: Arc<Calls>,
}

/// What came of a call, and the status that it ended with.
pub(crate) type Ended = (Event, Code);

impl BrokerClient {
    /// Does not connect yet. Calls are made as `settings` say, at most `max_in_flight` of them with batches at a time, and each
    /// is counted into `calls`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn new(settings: &Settings, connect: &Connect, bearer: Bearer, wall_clock: WallClock, calls: Arc<Calls>) -> Self {
        let endpoint = dial::endpoint(&settings.broker)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(MAX_FRAME_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT);
        let stub = BrokerServiceClient::new(bearer.on(connect(endpoint))).max_decoding_message_size(MAX_ANSWER_BYTES);
        let stream = ProduceStream::start(stub.clone(), settings.max_in_flight, Arc::clone(&calls));
        Self { stub, stream, acks: settings.acks, describe_timeout: settings.request_timeout, wall_clock, calls }
    }

    /// Makes a `Produce` call, once: on the stream, or unary where the broker offers no streams. The batches at some places are
    /// in traces. When this returns, the call has its place behind those that were made before; what came of it is still to be
    /// waited for.
    ///
    /// # Panics
    /// More calls than `max_in_flight` have not ended.
    pub(crate) fn produce(&self, produce: ProduceCall, attempts: Attempts) -> impl Future<Output = Ended> + Send + use<> {
        let ProduceCall { call, batches, timeout } = produce;
        let counts: Vec<_> = batches.iter().map(|batch| batch.packed.count()).collect();
        let answered = self.stream.call(Outgoing { batches, acks: self.acks, attempts }, Instant::now() + timeout);
        let (acks, wall_clock) = (self.acks, self.wall_clock.clone());
        async move {
            let answered = answered.await;
            let status = answered.as_ref().map_or_else(Status::code, |_| Code::Ok);
            let results = answered
                .map_err(|status| failure(&status, false))
                .and_then(|response| answer::batches(response, &counts, acks, wall_clock.now()).map_err(in_doubt));
            match results {
                Ok(results) => (Event::ProduceAnswered { call, results }, status),
                Err(failure) => (Event::ProduceFailed { call, failure }, status),
            }
        }
    }

    /// Calls `InitProducerId` and follows its pages.
    pub(crate) async fn init(
        self,
        init: InitId,
        recover: Option<(ProducerId, Epoch)>,
        token: String,
        timeout: Duration,
    ) -> Event {
        match self.init_pages(recover, token, Instant::now() + timeout).await {
            Ok(answer) => Event::InitAnswered { init, answer },
            Err(failure) => Event::InitFailed { init, failure },
        }
    }

    async fn init_pages(
        mut self,
        recover: Option<(ProducerId, Epoch)>,
        token: String,
        deadline: Instant,
    ) -> Result<InitAnswer, CallFailure> {
        let mut request = v1::InitProducerIdRequest {
            producer_id: recover.map(|(producer, _)| producer.get()),
            producer_epoch: recover.map(|(_, epoch)| epoch.get()),
            recovery_token: if recover.is_some() { token } else { String::new() },
            page_token: String::new(),
        };
        let mut whole: Option<InitAnswer> = None;
        let mut seen = HashSet::new();
        loop {
            let call = until(deadline, self.stub.init_producer_id(request.clone()));
            let answered = self.calls.begin("/oncelog.v1.BrokerService/InitProducerId").until(call).await;
            let mut page = answered.map_err(|status| failure(&status, true))?;
            let next = std::mem::take(&mut page.next_page_token);
            let page = answer::init_page(page).map_err(in_doubt)?;
            for partition in &page.partitions {
                if !seen.insert(partition.partition.clone()) {
                    return Err(in_doubt(Nonsense(format!("partition {} stands in it twice", partition.partition))));
                }
            }
            match &mut whole {
                None => whole = Some(page),
                Some(whole) if (whole.producer, whole.epoch) == (page.producer, page.epoch) => {
                    whole.partitions.extend(page.partitions);
                }
                Some(_) => return Err(in_doubt(Nonsense("its pages speak of different producers".to_owned()))),
            }
            if next.is_empty() {
                return whole.ok_or_else(|| in_doubt(Nonsense("it has no page".to_owned())));
            }
            if seen.len() > MAX_RECOVERED_PARTITIONS || next == request.page_token {
                return Err(in_doubt(Nonsense("its pages do not end".to_owned())));
            }
            request.page_token = next;
        }
    }
}

impl Describe for BrokerClient {
    async fn describe(&self, topic: &TopicName) -> Result<PartitionCount, DescribeError> {
        let request =
            v1::DescribeTopicsRequest { topics: vec![topic.to_string()], allow_auto_create: true, ..Default::default() };
        let mut stub = self.stub.clone();
        let call = until(Instant::now() + self.describe_timeout, stub.describe_topics(request));
        match self.calls.begin("/oncelog.v1.BrokerService/DescribeTopics").until(call).await {
            Ok(response) => answer::partition_count(&response, topic).map_err(|Nonsense(what)| DescribeError::Unreachable(what)),
            Err(status) => Err(describe_error(&status)),
        }
    }
}

/// A call in the contract's words. All its batches have the same producer and epoch, or none has a tag.
fn request(Outgoing { batches, acks, attempts }: Outgoing) -> v1::ProduceRequest {
    let tag = batches.first().and_then(|batch| batch.tag);
    let batches = batches.into_iter().map(|batch| v1::Batch {
        topic: batch.partition.topic.to_string(),
        partition: batch.partition.partition.get(),
        base_sequence: batch.tag.map_or(0, |tag| tag.base.get()),
        packed: Some(batch.packed.to_proto()),
        ..v1::Batch::default()
    });
    let mut request = v1::ProduceRequest {
        producer_id: tag.map(|tag| tag.producer.get()),
        producer_epoch: tag.map_or(0, |tag| tag.epoch.get()),
        acks: acks.into(),
        batches: batches.collect(),
    };
    for (index, context) in attempts {
        request.batches[index].traceparent = context.to_string();
    }
    request
}

/// A call with its own clock: tonic's would report a deadline as `CANCELLED`.
async fn until<T>(deadline: Instant, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match timeout_at(deadline, call).await {
        Ok(answered) => answered.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("the broker has not answered in time")),
    }
}

/// What the status of a call means.
fn failure(status: &Status, init: bool) -> CallFailure {
    let kind = if init { FailureKind::of_init(status.code()) } else { FailureKind::of_produce(status.code()) };
    CallFailure { kind, message: told(status) }
}

/// An answer that makes no sense is none: what it answers may have been carried out or not.
fn in_doubt(Nonsense(what): Nonsense) -> CallFailure {
    CallFailure { kind: FailureKind::InDoubt, message: format!("the broker's answer makes no sense: {what}") }
}

fn describe_error(status: &Status) -> DescribeError {
    let fallback = match status.code() {
        Code::NotFound => ErrorCode::UnknownTopicOrPartition,
        Code::PermissionDenied => ErrorCode::TopicAuthorizationFailed,
        Code::ResourceExhausted => ErrorCode::ResourceExhausted,
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => ErrorCode::InvalidRequest,
        // `UNAUTHENTICATED` as well: it is this process that the broker does not know, and nothing of the topic's.
        // `OUT_OF_RANGE` as well: the question is never too large, so that is said of an answer, and by this process.
        _ => return DescribeError::Unreachable(told(status)),
    };
    let details = status.get_error_details();
    let named = details.error_info().filter(|info| info.domain == ERROR_DOMAIN);
    let code = named.and_then(|info| ErrorCode::from_str_name(&format!("ERROR_CODE_{}", info.reason))).unwrap_or(fallback);
    let fault = Fault::new(code, shortened(status.message()).to_owned());
    let hint = details.retry_info().and_then(|info| info.retry_delay);
    DescribeError::Refused(match hint {
        Some(delay) => fault.retry_after(delay),
        None => fault,
    })
}

fn told(status: &Status) -> String {
    format!("{:?}: {}", status.code(), shortened(status.message()))
}

/// What a peer says is kept to a length that suits a log line.
fn shortened(message: &str) -> &str {
    let end = (0..=MAX_MESSAGE_BYTES.min(message.len())).rev().find(|&end| message.is_char_boundary(end));
    &message[..end.unwrap_or(0)]
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const MAX_FRAME_BYTES: u32 = 1 << 20;
/// Servers take pings more often than every 30 seconds for an attack.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A page of a recovery answer is below 2 MiB, an answer for 10,000 batches too.
const MAX_ANSWER_BYTES: usize = 16 << 20;
const MAX_RECOVERED_PARTITIONS: usize = 1_000_000;
const MAX_MESSAGE_BYTES: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_statuses_are_permanent_only_init_can_say_unknown_and_only_produce_too_large() {
        for number in 1..=16 {
            let code = Code::from_i32(number);
            let kind = |init| failure(&Status::new(code, "x"), init).kind;
            let (of_produce, of_init) = match code {
                Code::InvalidArgument | Code::FailedPrecondition => (FailureKind::Permanent, FailureKind::Permanent),
                Code::OutOfRange => (FailureKind::TooLarge, FailureKind::InDoubt),
                Code::NotFound => (FailureKind::InDoubt, FailureKind::UnknownProducer),
                _ => (FailureKind::InDoubt, FailureKind::InDoubt),
            };
            assert_eq!((kind(false), kind(true)), (of_produce, of_init), "{code:?}");
        }
    }

    #[test]
    fn a_refused_topic_keeps_the_brokers_reason() {
        let refused = Fault::new(ErrorCode::InvalidTopicException, "bad").retry_after(Duration::from_secs(2)).to_status();
        let DescribeError::Refused(fault) = describe_error(&refused) else { panic!("refused") };
        assert_eq!((fault.code(), fault.message()), (ErrorCode::InvalidTopicException, "bad"));
        let DescribeError::Refused(fault) = describe_error(&Status::not_found("x")) else { panic!("refused") };
        assert_eq!(fault.code(), ErrorCode::UnknownTopicOrPartition);
        for away in
            [Code::Unavailable, Code::Cancelled, Code::Internal, Code::DeadlineExceeded, Code::OutOfRange, Code::Unauthenticated]
        {
            assert!(matches!(describe_error(&Status::new(away, "x")), DescribeError::Unreachable(_)), "{away:?}");
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = "ä".repeat(MAX_MESSAGE_BYTES);
        assert_eq!(shortened(&long).len(), MAX_MESSAGE_BYTES);
        assert_eq!(shortened(&format!("x{long}")).len(), MAX_MESSAGE_BYTES - 1);
        assert_eq!(shortened("x"), "x");
    }
}

//! The way of a request from the wire to the session.
//!
//! Everything that can be wrong with a request is found before its first record is handed over; so nothing of a refused one
//! is ever appended. Requests that are admitted one after the other are handed over in that order, whichever of them had to
//! wait for its topic or for memory.

use std::{pin::pin, time::Duration};

use oncelog_edge::{
    security::{access::Rights, permissions::Operation},
    trace::Tracer,
};
use oncelog_proto::{
    ErrorCode, Fault, PartitionIndex, TopicName, TraceContext,
    record_set::{MAX_HEADER_KEY_BYTES, MAX_HEADERS, RecordSetEncoder},
    v1::{Record, SendRequest},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::stamp::{StampLimits, stamp};
use crate::{
    batch_limit::BatchLimit,
    broker_client::BrokerClient,
    buffer::Buffer,
    config::Settings,
    driver::{HandOver, Prepared},
    session::{RecordOutcome, record_cost},
    topics::Topics,
    traces::TracedRecords,
};

/// Lets requests in. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    topics: Topics<BrokerClient>,
    buffer: Buffer,
    inbox: mpsc::Sender<HandOver>,
    max_request_size: usize,
    max_block: Duration,
    stamping: Stamping,
}

/// What traces do to requests.
#[derive(Clone, Debug)]
pub(crate) struct Stamping {
    /// Records requests of a stream, each of which is in a trace of its own.
    pub(crate) tracer: Tracer,
    /// A context makes no record larger than the broker takes.
    pub(crate) batch_limit: BatchLimit,
}

/// A request that is right in itself.
#[derive(Debug)]
pub(crate) struct Checked {
    topic: TopicName,
    partition: Option<PartitionIndex>,
    cost: usize,
}

impl Admission {
    /// Hands over to `inbox`.
    pub(crate) fn new(
        settings: &Settings,
        topics: Topics<BrokerClient>,
        buffer: Buffer,
        inbox: mpsc::Sender<HandOver>,
        stamping: Stamping,
    ) -> Self {
        let (max_request_size, max_block) = (settings.max_request_size, settings.max_block);
        Self { topics, buffer, inbox, max_request_size, max_block, stamping }
    }

    /// Records requests of a stream.
    pub(crate) fn tracer(&self) -> &Tracer {
        &self.stamping.tracer
    }

    /// Largest message of a caller: room for several records of the largest size, and at least gRPC's usual 4 MiB. A larger
    /// one is refused by the transport with `OUT_OF_RANGE`.
    pub(crate) fn max_message_bytes(&self) -> usize {
        (4 * self.max_request_size).max(4 << 20)
    }

    /// Hands the records of a request over to the session, and tells where their outcomes will be told.
    ///
    /// # Errors
    /// Nothing was handed over: the request is wrong, its caller may not write to its topic, its topic or partition does not
    /// exist, too much is waiting already, or `max.block.ms` passed before the broker told its partitions or memory was free.
    pub(crate) async fn admit(
        &self,
        request: SendRequest,
        rights: &Rights,
        trace: Option<TraceContext>,
    ) -> Result<oneshot::Receiver<Vec<RecordOutcome>>, Fault> {
        let prepared = self.prepare(request, rights, trace).await?;
        self.hand_over(prepared).await
    }

    /// Checks a request and waits for all that it needs. If it is in a trace, so are its records from here on.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub(crate) async fn prepare(
        &self,
        mut request: SendRequest,
        rights: &Rights,
        trace: Option<TraceContext>,
    ) -> Result<Prepared, Fault> {
        let Checked { topic, partition, mut cost } = check(&request, self.max_request_size)?;
        rights.check(Operation::Write, &topic)?;
        let traced = trace.map(|context| TracedRecords { first: 0, count: request.records.len(), context });
        if let Some(context) = trace {
            cost = stamp(&mut request.records, context, self.stamp_limits(cost));
        }
        // One time for both waits (C51).
        let deadline = Instant::now() + self.max_block;
        let waits = async {
            let mut count = pin!(self.topics.count(&topic, partition, deadline));
            let count = tokio::select! {
                biased;
                count = &mut count => count?,
                // It has to be asked for, and the records wait meanwhile: in the line, where what waits has a limit. Else they
                // would pile up while the broker is away.
                place = async { self.buffer.line_up(cost) } => {
                    let _place = place?;
                    count.await?
                }
            };
            let reserved = self.buffer.reserve(cost, deadline).await?;
            Ok((count, reserved))
        };
        let (count, reserved) = tokio::select! {
            biased;
            waited = waits => waited?,
            () = self.inbox.closed() => return Err(ending()),
        };
        let records = request.records.into_iter().map(|record| (partition, record)).collect();
        Ok(Prepared { topic, count, records, reserved, traced: traced.into_iter().collect() })
    }

    /// Puts the records of a request behind those of earlier ones of the same caller, to be handed over with them, if it goes to
    /// the same topic and need not wait for anything. Whether the caller may write to the topic was asked for the first of them.
    ///
    /// # Errors
    /// The request: it has to be prepared by itself, or there is something wrong with it. Its records may have the context of
    /// `trace` by then, which they get once.
    pub(crate) fn join(
        &self,
        earlier: &mut Prepared,
        mut request: SendRequest,
        trace: Option<TraceContext>,
    ) -> Result<(), SendRequest> {
        let Ok(partition) = request.partition.map(PartitionIndex::new).transpose() else { return Err(request) };
        if request.topic != earlier.topic.as_str() || partition.is_some_and(|partition| !earlier.count.contains(partition)) {
            return Err(request);
        }
        let Ok(mut cost) = check_records(&request.records, self.max_request_size) else { return Err(request) };
        if let Some(context) = trace {
            cost = stamp(&mut request.records, context, self.stamp_limits(cost));
        }
        let Some(reserved) = self.buffer.try_reserve(cost) else { return Err(request) };
        earlier.reserved.add(reserved);
        let (first, count) = (earlier.records.len(), request.records.len());
        earlier.traced.extend(trace.map(|context| TracedRecords { first, count, context }));
        earlier.records.extend(request.records.into_iter().map(|record| (partition, record)));
        Ok(())
    }

    /// Hands over what is prepared, and tells where the outcomes will be told: of all the records together.
    ///
    /// # Errors
    /// Nothing more is let in.
    pub(crate) async fn hand_over(&self, prepared: Prepared) -> Result<oneshot::Receiver<Vec<RecordOutcome>>, Fault> {
        let (outcomes, receiver) = oneshot::channel();
        self.inbox.send(HandOver { prepared, outcomes }).await.map_err(|_| ending())?;
        Ok(receiver)
    }

    /// What a request of this `cost` may become by its trace.
    fn stamp_limits(&self, cost: usize) -> StampLimits {
        let record = self.max_request_size.min(self.stamping.batch_limit.get());
        StampLimits { record, cost, most: self.buffer.capacity() }
    }

    /// Is nothing more let in?
    pub(crate) fn is_closed(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Waits until nothing more is let in, because the process is about to end.
    pub(crate) async fn closed(&self) {
        self.inbox.closed().await;
    }
}

/// Why nothing more is let in.
fn ending() -> Fault {
    let message = "the service is about to end; nothing was taken in; send it to another one, or again in a moment";
    Fault::new(ErrorCode::BrokerNotAvailable, message).retry_after(RETRY_AFTER)
}

/// Finds everything that can be wrong with a request in itself.
pub(crate) fn check(request: &SendRequest, max_request_size: usize) -> Result<Checked, Fault> {
    let topic = TopicName::parse(&request.topic)?;
    let partition = request
        .partition
        .map(PartitionIndex::new)
        .transpose()
        .map_err(|e| Fault::new(ErrorCode::UnknownTopicOrPartition, format!("topic {topic}: {e}")).with("topic", &topic))?;
    let cost = check_records(&request.records, max_request_size)?;
    Ok(Checked { topic, partition, cost })
}

/// Finds everything that can be wrong with the records of a request, and tells what they cost.
fn check_records(records: &[Record], max_request_size: usize) -> Result<usize, Fault> {
    let count = records.len();
    if !(1..=MAX_RECORDS).contains(&count) {
        let message = format!("the request has {count} records; allowed is 1 to {MAX_RECORDS}");
        return Err(Fault::new(ErrorCode::InvalidRequest, message).with("records", count).with("limit", MAX_RECORDS));
    }
    let mut cost = 0;
    for (index, record) in records.iter().enumerate() {
        check_record(index, record, max_request_size)?;
        cost += record_cost(record);
    }
    Ok(cost)
}

fn check_record(index: usize, record: &Record, max_request_size: usize) -> Result<(), Fault> {
    let size = RecordSetEncoder::added_len(record);
    if size > max_request_size {
        let message = format!("record {index} has {size} bytes; max.request.size is {max_request_size}; send less in one record");
        let fault = Fault::new(ErrorCode::MessageTooLarge, message);
        return Err(fault.with("index", index).with("size", size).with("limit", max_request_size));
    }
    let headers = record.headers.len();
    if headers > MAX_HEADERS {
        let fault =
            Fault::new(ErrorCode::InvalidRecord, format!("record {index} has {headers} headers; allowed are {MAX_HEADERS}"));
        return Err(fault.with("index", index).with("headers", headers).with("limit", MAX_HEADERS));
    }
    if let Some(header) = record.headers.iter().find(|header| header.key.len() > MAX_HEADER_KEY_BYTES) {
        let len = header.key.len();
        let message = format!("record {index} has a header key of {len} bytes; allowed are {MAX_HEADER_KEY_BYTES}");
        let fault = Fault::new(ErrorCode::InvalidRecord, message);
        return Err(fault.with("index", index).with("size", len).with("limit", MAX_HEADER_KEY_BYTES));
    }
    Ok(())
}

/// Most records of one request.
const MAX_RECORDS: usize = 10_000;
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use oncelog_proto::v1::Header;

    use super::*;

    fn request(records: Vec<Record>) -> SendRequest {
        SendRequest { topic: "t".to_owned(), partition: None, records }
    }

    fn sized(bytes: usize) -> Record {
        Record { value: Some(vec![b'x'; bytes].into()), ..Record::default() }
    }

    fn judge(request: &SendRequest) -> Result<(), ErrorCode> {
        check(request, 1000).map(|_| ()).map_err(|fault| fault.code())
    }

    #[test]
    fn the_number_of_records_is_limited_on_both_sides() {
        assert_eq!(judge(&request(vec![])), Err(ErrorCode::InvalidRequest));
        assert_eq!(judge(&request(vec![sized(1)])), Ok(()));
        assert_eq!(judge(&request(vec![sized(0); MAX_RECORDS])), Ok(()));
        assert_eq!(judge(&request(vec![sized(0); MAX_RECORDS + 1])), Err(ErrorCode::InvalidRequest));
    }

    #[test]
    fn a_record_may_have_max_request_size_and_one_byte_more_is_named() {
        let largest = (0..1000).rev().map(sized).find(|r| RecordSetEncoder::added_len(r) <= 1000).expect("fits");
        assert_eq!(RecordSetEncoder::added_len(&largest), 1000);
        assert_eq!(judge(&request(vec![largest.clone()])), Ok(()));
        let larger = sized(largest.value.as_ref().expect("has one").len() + 1);
        let fault = check(&request(vec![sized(1), larger]), 1000).expect_err("too large");
        assert_eq!(fault.code(), ErrorCode::MessageTooLarge);
        for part in ["record 1", "1001", "1000"] {
            assert!(fault.message().contains(part), "{fault}");
        }
    }

    #[test]
    fn header_limits_are_exact() {
        let with = |headers: usize, key: usize| Record {
            headers: vec![Header { key: "k".repeat(key), value: Vec::new().into() }; headers],
            ..Record::default()
        };
        let judge = |record| check(&request(vec![record]), 1 << 20).map(|_| ()).map_err(|fault| fault.code());
        assert_eq!(judge(with(MAX_HEADERS, 1)), Ok(()));
        assert_eq!(judge(with(MAX_HEADERS + 1, 1)), Err(ErrorCode::InvalidRecord));
        assert_eq!(judge(with(1, MAX_HEADER_KEY_BYTES)), Ok(()));
        assert_eq!(judge(with(1, MAX_HEADER_KEY_BYTES + 1)), Err(ErrorCode::InvalidRecord));
    }

    #[test]
    fn topic_and_partition_are_checked() {
        let with = |topic: &str, partition| SendRequest { topic: topic.to_owned(), partition, records: vec![sized(1)] };
        assert_eq!(judge(&with("", None)), Err(ErrorCode::InvalidTopicException));
        assert_eq!(judge(&with("a/b", None)), Err(ErrorCode::InvalidTopicException));
        assert_eq!(judge(&with("t", Some(-1))), Err(ErrorCode::UnknownTopicOrPartition));
        assert_eq!(judge(&with("t", Some(0))), Ok(()));
    }

    #[test]
    fn the_cost_is_that_of_all_records() {
        let records = vec![sized(1), sized(100)];
        let cost: usize = records.iter().map(record_cost).sum();
        assert_eq!(check(&request(records), 1000).expect("right").cost, cost);
    }
}

//! The spans of records on their way to the broker, for those `Send`s that are in a trace.
//!
//! ```text
//! Send ─┐
//! Send ─┼──▶ send topic (a batch) ──▶ Produce (an attempt) ──▶ the broker's
//! Send ─┘      child of the first,    ──▶ Produce (another)  ──▶ the broker's
//!              linked to each
//! ```
//!
//! The session knows nothing of it. It is asked whose records a batch holds, when the batch leaves; and a batch is known by the
//! first of its records that is in a trace, which stays the same however often it is sent and whichever tag it gets. Where no
//! `Send` is in a trace, nothing is asked and nothing is kept.

use std::collections::hash_map::Entry;

use oncelog_edge::{
    metrics::calls::status_name,
    names,
    trace::{Kind, Span, Tracer, as_value},
};
use oncelog_proto::{
    ErrorCode, RecordCount, TraceContext,
    trace::{Joined, MAX_TRACED_BATCHES},
};
use rustc_hash::FxHashMap;
use tonic::{Code, transport::Uri};

use crate::session::{BatchAnswer, CallFailure, CallId, FailureKind, OutgoingBatch, ProduceCall, RecordOutcome, SendId, Session};

/// Records of one request that is in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TracedRecords {
    /// Index of the first of them in what is handed over.
    pub(crate) first: usize,
    /// How many.
    pub(crate) count: usize,
    /// That of the request.
    pub(crate) context: TraceContext,
}

/// The batches of a call that are in a trace, by their places, with the contexts of their attempts.
pub(crate) type Attempts = Vec<(usize, TraceContext)>;

/// The spans of what is on its way.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    tracer: Tracer,
    /// Of the broker, as it is configured.
    server_address: String,
    server_port: i64,
    sends: FxHashMap<SendId, TracedSend>,
    calls: FxHashMap<CallId, Vec<Attempt>>,
}

#[derive(Debug)]
struct TracedSend {
    /// In order.
    records: Vec<TracedRecords>,
    /// The batches that are known by a record of it.
    batches: FxHashMap<usize, TracedBatch>,
}

#[derive(Debug)]
struct TracedBatch {
    span: Span,
    records: RecordCount,
    attempts: i64,
}

/// What a batch is known by: a `Send`, and the index of a record of it.
type BatchKey = (SendId, usize);

#[derive(Debug)]
struct Attempt {
    /// The place of its batch in the call.
    index: usize,
    batch: BatchKey,
    span: Span,
}

impl Traces {
    /// Of calls to `broker`.
    pub(crate) fn new(tracer: Tracer, broker: &Uri) -> Self {
        let usual = if broker.scheme_str() == Some("https") { 443 } else { 80 };
        let server_port = broker.port_u16().unwrap_or(usual);
        let server_address = broker.host().unwrap_or_default().to_owned();
        Self { tracer, server_address, server_port: server_port.into(), ..Self::default() }
    }

    /// A `Send` becomes the session's.
    pub(crate) fn open(&mut self, send: SendId, records: Vec<TracedRecords>) {
        if !records.is_empty() {
            self.sends.insert(send, TracedSend { records, batches: FxHashMap::default() });
        }
    }

    /// A call is about to be made, for which the session asked last.
    pub(crate) fn attempt(&mut self, session: &Session, call: &ProduceCall) -> Attempts {
        if self.sends.is_empty() {
            return Vec::new();
        }
        let mut attempts = Vec::new();
        for (index, batch) in call.batches.iter().enumerate() {
            if attempts.len() == MAX_TRACED_BATCHES {
                break;
            }
            let Some((key, joined)) = self.joined(session, call.call, index) else { continue };
            let Some(attempt) = self.attempt_of(key, &joined, batch, index) else { continue };
            attempts.extend(attempt.span.context().map(|context| (index, context)));
            self.calls.entry(call.call).or_default().push(attempt);
        }
        attempts
    }

    /// The contexts of those whose records a batch holds, and what it is known by.
    fn joined(&self, session: &Session, call: CallId, index: usize) -> Option<(BatchKey, Joined)> {
        let mut key = None;
        let mut joined = Joined::default();
        for share in session.shares(call, index) {
            let Some(traced) = self.sends.get(&share.send) else { continue };
            let end = share.first + share.count;
            let before = traced.records.partition_point(|records| records.first + records.count <= share.first);
            for records in traced.records[before..].iter().take_while(|records| records.first < end) {
                key.get_or_insert_with(|| (share.send, records.first.max(share.first)));
                joined.push(records.context);
            }
        }
        Some((key?, joined))
    }

    fn attempt_of(&mut self, key: BatchKey, joined: &Joined, batch: &OutgoingBatch, index: usize) -> Option<Attempt> {
        let (tracer, (send, first), records) = (&self.tracer, key, batch.packed.count());
        let batches = &mut self.sends.get_mut(&send)?.batches;
        // A half of a batch that was split is known by the same record as the whole, and holds fewer; it is another batch.
        if let Entry::Occupied(whole) = batches.entry(first)
            && whole.get().records != records
        {
            whole.remove().span.set(names::OUTCOME, "split");
        }
        let traced =
            batches.entry(first).or_insert_with(|| TracedBatch { span: batch_span(tracer, joined, batch), records, attempts: 0 });
        traced.attempts += 1;
        let mut span = tracer.child(names::PRODUCE, Kind::Client, traced.span.context()?);
        span.set(names::RPC_SYSTEM, names::GRPC);
        span.set(names::RPC_METHOD, names::PRODUCE);
        span.set(names::SERVER_ADDRESS, self.server_address.clone());
        span.set(names::SERVER_PORT, self.server_port);
        span.set(names::ATTEMPT, traced.attempts);
        span.set(names::BYTES, as_value(batch.packed.data().len()));
        if let Some(tag) = batch.tag {
            span.set(names::PRODUCER_ID, tag.producer.get());
            span.set(names::PRODUCER_EPOCH, i64::from(tag.epoch.get()));
            span.set(names::BASE_SEQUENCE, tag.base.get());
        }
        Some(Attempt { index, batch: key, span })
    }

    /// A call was answered. A batch that is in the log is at its end; any other may be sent again.
    pub(crate) fn answered(&mut self, call: CallId, results: &[BatchAnswer]) {
        for Attempt { index, batch: (send, first), mut span } in self.ended(call) {
            span.set(names::RPC_STATUS, status_name(Code::Ok));
            match results.get(index) {
                Some(BatchAnswer::Acknowledged { base_offset, duplicate, .. }) => {
                    let outcome = if *duplicate { "duplicate" } else { "appended" };
                    span.set(names::OUTCOME, outcome);
                    // Before the batch that it stands below.
                    drop(span);
                    let Some(mut batch) = self.sends.get_mut(&send).and_then(|traced| traced.batches.remove(&first)) else {
                        continue;
                    };
                    batch.span.set(names::OUTCOME, outcome);
                    if let Some(offset) = base_offset {
                        batch.span.set(names::BASE_OFFSET, offset.get());
                    }
                }
                Some(BatchAnswer::Refused { code, message, .. }) => {
                    span.set(names::OUTCOME, names::refusal(*code));
                    span.fail_with(code.reason(), message.clone());
                }
                None => span.set(names::OUTCOME, "unknown"),
            }
        }
    }

    /// A call ended with this status and without an answer, or with one that makes no sense.
    pub(crate) fn failed(&mut self, call: CallId, status: Code, failure: &CallFailure) {
        for Attempt { mut span, .. } in self.ended(call) {
            span.set(names::RPC_STATUS, status_name(status));
            span.set(names::OUTCOME, if failure.kind == FailureKind::Permanent { "refused" } else { "unknown" });
            span.fail_with(if status == Code::Ok { names::OTHER } else { status_name(status) }, failure.message.clone());
        }
    }

    /// All records of a `Send` have their outcomes. What became of a batch by no answer, but by a recovery, a refusal or its age,
    /// is heard here, and ends its span: rather late if others of the `Send` took longer, and for that no batch need be followed
    /// by the session.
    pub(crate) fn completed(&mut self, send: SendId, outcomes: &[RecordOutcome]) {
        if self.sends.is_empty() {
            return;
        }
        let Some(traced) = self.sends.remove(&send) else { return };
        for (first, mut batch) in traced.batches {
            let (outcome, error) = match outcomes.get(first) {
                // Told by a recovery, not by an answer.
                Some(RecordOutcome::Appended { .. }) => ("appended", None),
                Some(RecordOutcome::Refused(fault)) => ("refused", Some(fault.code().reason())),
                // Whatever left it unknown, its age or a lost id: callers are told the same.
                Some(RecordOutcome::Unknown) | None => ("unknown", Some(ErrorCode::RequestTimedOut.reason())),
            };
            batch.span.set(names::OUTCOME, outcome);
            if let Some(error) = error {
                batch.span.fail(error);
            }
        }
    }

    /// A trace that a call is in, for the log.
    pub(crate) fn of_call(&self, call: CallId) -> Option<TraceContext> {
        self.calls.get(&call)?.first()?.span.context()
    }

    fn ended(&mut self, call: CallId) -> Vec<Attempt> {
        if self.calls.is_empty() { Vec::new() } else { self.calls.remove(&call).unwrap_or_default() }
    }
}

fn batch_span(tracer: &Tracer, joined: &Joined, batch: &OutgoingBatch) -> Span {
    let OutgoingBatch { partition, packed, .. } = batch;
    let mut span = tracer.join(format!("send {}", partition.topic), Kind::Client, joined);
    span.set(names::MESSAGING_SYSTEM, names::ONCELOG);
    span.set(names::MESSAGING_OPERATION, "send");
    span.set(names::MESSAGING_OPERATION_TYPE, "send");
    span.set(names::MESSAGING_DESTINATION, partition.topic.to_string());
    span.set(names::MESSAGING_PARTITION, partition.partition.to_string());
    span.set(names::MESSAGING_COUNT, i64::from(packed.count().get()));
    span
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use oncelog_proto::{Epoch, Monotonic, Offset, PartitionIndex, ProducerId, Timestamp, TopicName, v1::Record};
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};

    use super::*;
    use crate::session::{Action, Event, InitAnswer, SessionConfig};

    /// A session with its id, the spans of what it does, and where they go.
    struct Followed {
        session: Session,
        traces: Traces,
        exporter: InMemorySpanExporter,
        now: Monotonic,
    }

    impl Followed {
        fn start() -> Self {
            let settings = crate::Config::default().resolve(&|_| None).expect("the defaults agree");
            let config = SessionConfig { linger: Duration::from_millis(5), ..settings.session("token".to_owned()) };
            let exporter = InMemorySpanExporter::default();
            let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
            let traces = Traces::new(Tracer::new(provider.tracer("test")), &Uri::from_static("http://broker:50051"));
            let mut followed = Self { session: Session::new(config, 1), traces, exporter, now: Monotonic::from_micros(0) };
            let Some(Action::Init { init, .. }) = followed.session.poll_action() else { panic!("it asks for an id first") };
            let producer = ProducerId::new(7).expect("positive");
            let answer = InitAnswer { producer, epoch: Epoch::ZERO, max_batch_bytes: 1 << 20, partitions: Vec::new() };
            followed.tell(Event::InitAnswered { init, answer });
            followed
        }

        fn tell(&mut self, event: Event) {
            self.session.handle(event, self.now);
        }

        fn send(&mut self, id: u64, context: Option<TraceContext>) {
            self.send_to(id, vec![PartitionIndex::MIN; 2], context);
        }

        /// A record for each of these partitions.
        fn send_to(&mut self, id: u64, partitions: Vec<PartitionIndex>, context: Option<TraceContext>) {
            let count = partitions.len();
            let records = partitions.into_iter().map(|partition| (partition, Record::default())).collect();
            let traced = context.map(|context| TracedRecords { first: 0, count, context });
            self.traces.open(SendId(id), traced.into_iter().collect());
            self.tell(Event::Send { id: SendId(id), topic: TopicName::parse("t").expect("allowed"), records });
        }

        /// The call that is made after some time.
        fn call(&mut self) -> (CallId, Attempts) {
            self.now = self.now.plus(Duration::from_secs(2));
            self.tell(Event::Tick);
            while let Some(action) = self.session.poll_action() {
                if let Action::Produce(call) = action {
                    return (call.call, self.traces.attempt(&self.session, &call));
                }
            }
            panic!("there is something to send")
        }

        /// The call was answered so.
        fn answer(&mut self, call: CallId, result: BatchAnswer) {
            let results = vec![result];
            self.traces.answered(call, &results);
            self.tell(Event::ProduceAnswered { call, results });
        }

        /// The recovery that is asked for after some time finds nothing in the log.
        fn recover(&mut self) {
            self.now = self.now.plus(Duration::from_secs(2));
            self.tell(Event::Tick);
            let action = self.session.poll_action();
            let Some(Action::Init { init, recover: Some((producer, epoch)), .. }) = action else { panic!("{action:?}") };
            let epoch = epoch.next().expect("the second");
            let answer = InitAnswer { producer, epoch, max_batch_bytes: 1 << 20, partitions: Vec::new() };
            self.tell(Event::InitAnswered { init, answer });
        }

        fn spans(&self) -> Vec<SpanData> {
            self.exporter.get_finished_spans().expect("whole")
        }
    }

    fn context(n: u8) -> TraceContext {
        TraceContext::new([n; 16], [n; 8]).expect("not zero")
    }

    fn said(span: &SpanData, key: &str) -> String {
        span.attributes.iter().find(|said| said.key.as_str() == key).map(|said| said.value.to_string()).unwrap_or_default()
    }

    #[test]
    fn every_attempt_of_a_batch_is_below_one_span_that_links_to_each_send_in_it() {
        let mut followed = Followed::start();
        for (id, context) in [(0, None), (1, Some(context(1))), (2, Some(context(2)))] {
            followed.send(id, context);
        }
        let (first, attempts) = followed.call();
        assert_eq!(attempts.iter().map(|(index, context)| (*index, context.trace())).collect::<Vec<_>>(), [(0, [1; 16])]);
        assert_eq!(followed.traces.of_call(first).map(|context| context.trace()), Some([1; 16]));
        let failure = CallFailure { kind: FailureKind::InDoubt, message: "cut".to_owned() };
        followed.traces.failed(first, Code::Unavailable, &failure);
        followed.tell(Event::ProduceFailed { call: first, failure });
        let (second, attempts) = followed.call();
        assert_eq!(attempts.len(), 1);
        let append_time = Timestamp::from_micros(1);
        let results = vec![BatchAnswer::Acknowledged { base_offset: Some(Offset::ZERO), append_time, duplicate: true }];
        followed.traces.answered(second, &results);
        followed.tell(Event::ProduceAnswered { call: second, results });

        let spans = followed.spans();
        let told: Vec<_> =
            spans.iter().map(|span| (span.name.to_string(), said(span, names::OUTCOME), said(span, names::ATTEMPT))).collect();
        let told: Vec<_> =
            told.iter().map(|(name, outcome, attempt)| (name.as_str(), outcome.as_str(), attempt.as_str())).collect();
        let attempt = names::PRODUCE;
        assert_eq!(told, [(attempt, "unknown", "1"), (attempt, "duplicate", "2"), ("send t", "duplicate", "")]);
        assert_eq!(spans[..2].iter().map(|attempt| said(attempt, names::RPC_STATUS)).collect::<Vec<_>>(), ["UNAVAILABLE", "OK"]);
        assert_eq!(
            (said(&spans[0], names::SERVER_ADDRESS), said(&spans[0], names::SERVER_PORT)),
            ("broker".into(), "50051".into())
        );
        let batch = &spans[2];
        assert_eq!(said(batch, names::MESSAGING_COUNT), "6");
        assert!(spans[..2].iter().all(|attempt| attempt.parent_span_id == batch.span_context.span_id()));
        let linked: Vec<_> = batch.links.iter().map(|link| link.span_context.span_id().to_bytes()[0]).collect();
        assert_eq!(linked, [1, 2]);

        while let Some(action) = followed.session.poll_action() {
            if let Action::Complete { send, outcomes } = action {
                followed.traces.completed(send, &outcomes);
            }
        }
        assert!(followed.traces.sends.is_empty() && followed.traces.calls.is_empty(), "nothing stays behind");
        assert_eq!(followed.spans().len(), 3);
    }

    #[test]
    fn a_batch_without_an_answer_ends_with_its_send() {
        let mut followed = Followed::start();
        followed.send(0, Some(context(1)));
        let (call, _) = followed.call();
        let failure = CallFailure { kind: FailureKind::InDoubt, message: "cut".to_owned() };
        followed.traces.failed(call, Code::DeadlineExceeded, &failure);
        followed.traces.completed(SendId(0), &[RecordOutcome::Unknown, RecordOutcome::Unknown]);
        let spans = followed.spans();
        assert_eq!(spans.iter().map(|span| said(span, names::OUTCOME)).collect::<Vec<_>>(), ["unknown", "unknown"]);
    }

    #[test]
    fn a_batch_that_is_split_ends_and_each_half_is_one_of_its_own_with_its_own_sends() {
        let mut followed = Followed::start();
        for (id, n) in [(0, 1), (1, 2)] {
            followed.send(id, Some(context(n)));
        }
        let (whole, _) = followed.call();
        let (code, message) = (ErrorCode::MessageTooLarge, "too large".to_owned());
        followed.answer(whole, BatchAnswer::Refused { code, message, expected: None });
        followed.recover();
        for _ in 0..2 {
            let (half, attempts) = followed.call();
            assert_eq!(attempts.len(), 1);
            let append_time = Timestamp::from_micros(1);
            followed.answer(half, BatchAnswer::Acknowledged { base_offset: None, append_time, duplicate: false });
        }
        let spans = followed.spans();
        let batches: Vec<_> = spans.iter().filter(|span| span.name == "send t").collect();
        let told = batches.iter().map(|batch| {
            let linked: Vec<_> = batch.links.iter().map(|link| link.span_context.span_id().to_bytes()[0]).collect();
            (said(batch, names::OUTCOME), said(batch, names::MESSAGING_COUNT), linked)
        });
        let expected = [("split", "4", vec![1, 2]), ("appended", "2", vec![1]), ("appended", "2", vec![2])];
        let expected = expected.map(|(outcome, count, linked)| (outcome.to_owned(), count.to_owned(), linked));
        assert_eq!(told.collect::<Vec<_>>(), expected);
        let attempts = spans.iter().filter(|span| span.name == names::PRODUCE);
        let parents: Vec<_> = attempts.map(|attempt| (attempt.parent_span_id, said(attempt, names::ATTEMPT))).collect();
        assert_eq!(parents, [0, 1, 2].map(|n| (batches[n].span_context.span_id(), "1".to_owned())));
    }

    #[test]
    fn as_many_batches_of_a_call_are_followed_as_the_limit_says() {
        for (batches, followed_batches) in
            [(MAX_TRACED_BATCHES, MAX_TRACED_BATCHES), (MAX_TRACED_BATCHES + 1, MAX_TRACED_BATCHES)]
        {
            let mut followed = Followed::start();
            let partitions = (0..batches).map(|n| PartitionIndex::new(i32::try_from(n).expect("few")).expect("not negative"));
            followed.send_to(0, partitions.collect(), Some(context(1)));
            let (_, attempts) = followed.call();
            assert_eq!(attempts.len(), followed_batches);
        }
    }

    #[test]
    fn without_a_trace_nothing_is_recorded_and_nothing_kept() {
        let mut followed = Followed::start();
        followed.send(0, None);
        let (call, attempts) = followed.call();
        assert!(attempts.is_empty() && followed.traces.sends.is_empty() && followed.traces.calls.is_empty());
        followed.traces.answered(call, &[]);
        assert!(followed.spans().is_empty());
    }
}

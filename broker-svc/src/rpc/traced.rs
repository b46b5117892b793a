//! The spans of batches that are in a trace, from their arrival to the answer: which outcome each got.
//!
//! The pipeline is told the context of a batch's span in place of its sender's, so that what is waited for on the batch's behalf, its
//! predecessors or the group that it is written with, stands below it. A batch without a span is in no trace for it: what it waits for
//! is not recorded, and nothing is kept for its sake.

use std::mem;

use oncelog_edge::{
    names,
    trace::{Kind, Span, Tracer, as_value},
};
use oncelog_proto::{Fault, TraceContext, trace::MAX_TRACED_BATCHES};

use crate::{
    pipeline::{BatchOutcome, Request},
    state::Arrival,
};

/// The spans of one call, each with the place of its batch. Empty, and without memory, unless a trace is recorded.
#[derive(Debug, Default)]
pub(crate) struct Traced(Vec<(usize, Span)>);

impl Traced {
    /// Begins the spans of the batches that are in a trace, by their own context or that of the `call`.
    pub(super) fn begin(tracer: &Tracer, request: &mut Request, call: Option<TraceContext>) -> Self {
        let Request::Produce { batches, .. } = request else { return Self::default() };
        let mut spans = Vec::new();
        let arrivals = batches.iter_mut().enumerate().filter_map(|(index, batch)| Some((index, batch.as_mut().ok()?)));
        for (index, arrival) in arrivals {
            let sender = arrival.trace.take().or(call).filter(|_| tracer.is_on() && spans.len() < MAX_TRACED_BATCHES);
            let Some(sender) = sender else { continue };
            let span = append_span(tracer, arrival, sender);
            arrival.trace = span.context();
            if span.is_recorded() {
                spans.push((index, span));
            }
        }
        Self(spans)
    }

    /// Ends them with the outcomes of the call's batches.
    pub(super) fn end(&mut self, outcomes: &[BatchOutcome]) {
        for (index, mut span) in mem::take(&mut self.0) {
            match outcomes.get(index) {
                Some(BatchOutcome::Acknowledged { base_offset, duplicate, .. }) => {
                    span.set(names::OUTCOME, if *duplicate { "duplicate" } else { "appended" });
                    if let Some(offset) = base_offset {
                        span.set(names::BASE_OFFSET, offset.get());
                    }
                }
                Some(BatchOutcome::Refused(fault)) => refused(&mut span, fault),
                None => span.set(names::OUTCOME, "unknown"),
            }
        }
    }

    /// Ends them: nothing of the call was done.
    pub(super) fn refuse(&mut self, fault: &Fault) {
        mem::take(&mut self.0).iter_mut().for_each(|(_, span)| refused(span, fault));
    }
}

impl Drop for Traced {
    /// Nobody heard what became of them.
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|(_, span)| span.set(names::OUTCOME, "unknown"));
    }
}

fn refused(span: &mut Span, fault: &Fault) {
    span.set(names::OUTCOME, names::refusal(fault.code()));
    span.fail(fault.code().reason());
}

fn append_span(tracer: &Tracer, arrival: &Arrival, parent: TraceContext) -> Span {
    let Arrival { partition, tag, packed, .. } = arrival;
    let mut span = tracer.child(format!("append {}", partition.topic), Kind::Server, parent);
    if span.is_recorded() {
        span.set(names::MESSAGING_SYSTEM, names::ONCELOG);
        span.set(names::MESSAGING_OPERATION, "append");
        span.set(names::MESSAGING_DESTINATION, partition.topic.to_string());
        span.set(names::MESSAGING_PARTITION, partition.partition.to_string());
        span.set(names::MESSAGING_COUNT, i64::from(packed.count().get()));
        span.set(names::BYTES, as_value(packed.data().len()));
        if let Some(tag) = tag {
            span.set(names::PRODUCER_ID, tag.producer.get());
            span.set(names::PRODUCER_EPOCH, i64::from(tag.epoch.get()));
            span.set(names::BASE_SEQUENCE, tag.base.get());
        }
    }
    span
}

#[cfg(test)]
mod tests {
    use oncelog_proto::{Compression, ErrorCode, PackedBatch, PartitionIndex, RecordCount, TopicName, TopicPartition};
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};

    use super::*;
    use crate::pipeline::Acks;

    fn recording() -> (Tracer, InMemorySpanExporter) {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        (Tracer::new(provider.tracer("test")), exporter)
    }

    fn context(n: u8) -> TraceContext {
        TraceContext::new([n; 16], [n; 8]).expect("not zero")
    }

    /// A call with so many batches, each with this context of its own.
    fn call(batches: usize, trace: Option<TraceContext>) -> Request {
        let partition = TopicPartition { topic: TopicName::parse("t").expect("allowed"), partition: PartitionIndex::MIN };
        let packed = PackedBatch::pack(&vec![0].into(), RecordCount::MIN, Compression::None).expect("small");
        let arrival = Arrival { partition, tag: None, packed, trace };
        Request::Produce { acks: Acks::All, batches: vec![Ok(arrival); batches] }
    }

    /// Those that the pipeline is told.
    fn told(request: &Request) -> Vec<TraceContext> {
        let Request::Produce { batches, .. } = request else { panic!("of another kind") };
        batches.iter().flatten().filter_map(|arrival| arrival.trace).collect()
    }

    #[test]
    fn as_many_batches_of_a_call_have_spans_as_the_limit_says_and_the_pipeline_hears_of_no_other() {
        for (batches, spans) in [(MAX_TRACED_BATCHES, MAX_TRACED_BATCHES), (MAX_TRACED_BATCHES + 1, MAX_TRACED_BATCHES)] {
            for (own, of_call) in [(Some(context(1)), None), (None, Some(context(1))), (Some(context(1)), Some(context(2)))] {
                let ((tracer, exporter), mut request) = (recording(), call(batches, own));
                drop(Traced::begin(&tracer, &mut request, of_call));
                let recorded = exporter.get_finished_spans().expect("whole");
                assert_eq!((recorded.len(), told(&request).len()), (spans, spans), "{batches}");
                assert!(recorded.iter().all(|span| span.parent_span_id.to_bytes() == [1; 8]));
                let own: Vec<_> = recorded.iter().map(|span| span.span_context.span_id().to_bytes()).collect();
                assert_eq!(told(&request).iter().map(TraceContext::span).collect::<Vec<_>>(), own, "in place of the sender's");
            }
        }
    }

    #[test]
    fn without_an_exporter_the_pipeline_hears_of_no_trace() {
        let mut request = call(1, Some(context(1)));
        assert!(Traced::begin(&Tracer::off(), &mut request, Some(context(2))).0.is_empty());
        assert_eq!(told(&request), []);
    }

    #[test]
    fn a_batch_that_is_refused_before_it_is_judged_has_no_span_and_what_nobody_heard_of_is_unknown() {
        let ((tracer, exporter), mut request) = (recording(), call(2, Some(context(1))));
        let Request::Produce { batches, .. } = &mut request else { panic!("of another kind") };
        batches[0] = Err(Fault::new(ErrorCode::InvalidRecord, "it cannot be read"));
        drop(Traced::begin(&tracer, &mut request, None));
        let [span] = &exporter.get_finished_spans().expect("whole")[..] else { panic!("one span") };
        let outcome = span.attributes.iter().find(|said| said.key.as_str() == names::OUTCOME).map(|said| said.value.to_string());
        assert_eq!(outcome.as_deref(), Some("unknown"));
    }
}

//! Head sampling before there is a span: whether a trace that begins here, or one that its caller does not record, is recorded.
//!
//! At a sampling of 1 % nearly every request of a stream is in no trace. The library makes a span for each all the same, asks the
//! sampler, and throws the span away; at several hundred thousand requests a second that would be seen. So the sampler is asked
//! first, with an id that is drawn for the trace, and a span is made only if it is taken: with the same id, so that whoever asks
//! again hears the same.

use std::cell::Cell;

use opentelemetry::{
    Context, SpanId, TraceId,
    trace::{SpanContext, SpanKind, TraceContextExt, TraceFlags, TraceState},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SamplingDecision, ShouldSample};

/// Asks a sampler that decides by the caller and the trace's id alone, as all do that `OTEL_TRACES_SAMPLER` can name.
#[derive(Clone, Debug)]
pub struct HeadSampler {
    sampler: Box<dyn ShouldSample>,
    /// It may take what a caller does not record.
    takes_unsampled: bool,
}

/// Makes the ids of traces; that of one which a [`HeadSampler`] has taken is the one that was drawn for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct DrawnIds;

impl HeadSampler {
    /// Asks `sampler`. The tracer's provider has the same one, and [`DrawnIds`].
    pub fn new(sampler: Box<dyn ShouldSample>) -> Self {
        let flags = TraceFlags::NOT_SAMPLED;
        let caller = SpanContext::new(TAKEN_BY_ANY_RATIO, SpanId::from(1), flags, true, TraceState::default());
        let caller = Context::new().with_remote_span_context(caller);
        let takes_unsampled = takes(&*sampler, Some(&caller), TAKEN_BY_ANY_RATIO);
        Self { sampler, takes_unsampled }
    }

    /// Is the trace that begins now recorded? Then its span is the next that is made on this thread.
    pub(super) fn takes_root(&self) -> bool {
        let drawn = RandomIdGenerator::default().new_trace_id();
        let is_taken = takes(&*self.sampler, None, drawn);
        if is_taken {
            DRAWN.set(Some(drawn));
        }
        is_taken
    }

    /// May a call be recorded whose caller does not record it?
    pub(super) fn takes_unsampled(&self) -> bool {
        self.takes_unsampled
    }
}

impl IdGenerator for DrawnIds {
    fn new_trace_id(&self) -> TraceId {
        DRAWN.take().unwrap_or_else(|| RandomIdGenerator::default().new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        RandomIdGenerator::default().new_span_id()
    }
}

fn takes(sampler: &dyn ShouldSample, caller: Option<&Context>, trace: TraceId) -> bool {
    sampler.should_sample(caller, trace, "", &SpanKind::Server, &[], &[]).decision == SamplingDecision::RecordAndSample
}

thread_local! {
    static DRAWN: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// A share of traces is taken by the lower half of their ids, from 0 on.
const TAKEN_BY_ANY_RATIO: TraceId = TraceId::from_bytes([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

#[cfg(test)]
mod tests {
    use oncelog_proto::{TraceContext, trace::Traceparent};
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider};

    use super::*;
    use crate::trace::Tracer;

    fn recording(sampler: Sampler) -> (Tracer, InMemorySpanExporter) {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_sampler(sampler.clone()).with_id_generator(DrawnIds);
        let provider = provider.with_simple_exporter(exporter.clone()).build();
        (Tracer::new(provider.tracer("test")).asking(HeadSampler::new(Box::new(sampler))), exporter)
    }

    fn ratio(share: f64) -> Sampler {
        Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share)))
    }

    #[test]
    fn every_trace_that_is_taken_is_recorded_and_of_those_that_begin_a_share() {
        let (tracer, exporter) = recording(ratio(0.25));
        let recorded = (0..4_000).filter(|_| tracer.serve("call", None).is_recorded()).count();
        assert!((700..1_300).contains(&recorded), "{recorded} of 4,000 at 25 %");
        assert_eq!(exporter.get_finished_spans().expect("whole").len(), recorded);
        let (tracer, _) = recording(ratio(0.0));
        assert!((0..100).all(|_| !tracer.serve("call", None).is_recorded()));
    }

    #[test]
    fn what_a_caller_does_not_record_is_taken_by_a_sampler_that_does_not_ask_it() {
        let context = TraceContext::new([7; 16], [7; 8]).expect("not zero");
        let caller = |sampled| Some(Traceparent { context, sampled });
        for (sampler, unsampled) in [
            (ratio(1.0), false),
            (Sampler::AlwaysOn, true),
            (Sampler::TraceIdRatioBased(1.0), true),
            (Sampler::TraceIdRatioBased(0.0), false),
            (Sampler::AlwaysOff, false),
        ] {
            let (tracer, _) = recording(sampler.clone());
            assert_eq!(tracer.serve("call", caller(false)).is_recorded(), unsampled, "{sampler:?}");
        }
        let (tracer, _) = recording(ratio(0.0));
        assert!(tracer.serve("call", caller(true)).is_recorded());
        // A share of them is a share of all traces, whoever began them.
        let sampler = HeadSampler::new(Box::new(Sampler::TraceIdRatioBased(0.001)));
        assert!(sampler.takes_unsampled());
    }
}

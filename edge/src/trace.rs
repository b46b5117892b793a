//! Spans: the way of a record through the services, where a trace is recorded.
//!
//! Most calls are in no trace, so a [`Span`] that is not recorded is nothing: it is not allocated, and what it is told is
//! dropped. The only thing that goes from one span to the next, within a process or between two, is a [`TraceContext`]; and there
//! is one only if the span is sampled. So whoever has none has nothing to do.
//!
//! Where many become one, records a batch and batches a group, the one is a child of the first and links to each of them
//! ([`Tracer::join`]). As a root of its own it would ask the sampler again, and a send that is followed would be lost halfway.

mod head;

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use oncelog_proto::{
    Timestamp, TraceContext,
    trace::{Joined, Traceparent},
};
use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId, Value,
    trace::{Link, Span as _, SpanBuilder, SpanContext, Status, TraceContextExt, TraceState, Tracer as _},
};
use opentelemetry_sdk::trace::SdkTracer;

use crate::names;

pub use head::{DrawnIds, HeadSampler};
pub use opentelemetry::trace::SpanKind as Kind;

/// Makes spans, if traces are exported. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tracer(Option<Recording>);

#[derive(Clone)]
struct Recording {
    tracer: SdkTracer,
    head: Option<Arc<HeadSampler>>,
}

/// A span that ends when it is dropped; nothing if it is not recorded.
#[derive(Default)]
#[must_use]
pub struct Span(Option<Box<opentelemetry_sdk::trace::Span>>);

impl Tracer {
    /// Makes none.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Records with `tracer`.
    pub fn new(tracer: SdkTracer) -> Self {
        Self(Some(Recording { tracer, head: None }))
    }

    /// The same, with `head` asked before a span is made.
    #[must_use]
    pub fn asking(self, head: HeadSampler) -> Self {
        Self(self.0.map(|recording| Recording { head: Some(Arc::new(head)), ..recording }))
    }

    /// Is anything recorded at all?
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins the span of something that a caller asked for. What the caller decided about sampling is kept; without a word from
    /// it, the sampler decides.
    pub fn serve(&self, name: impl Into<Cow<'static, str>>, caller: Option<Traceparent>) -> Span {
        let Some(Recording { tracer, head }) = &self.0 else { return Span(None) };
        if let Some(head) = head {
            let may_be_taken = match caller {
                None => head.takes_root(),
                Some(caller) => caller.sampled || head.takes_unsampled(),
            };
            if !may_be_taken {
                return Span(None);
            }
        }
        let parent = caller.map_or_else(Context::new, |caller| of(remote(caller.context, caller.sampled)));
        start(tracer, SpanBuilder::from_name(name).with_kind(Kind::Server), &parent)
    }

    /// Begins a span within a trace.
    pub fn child(&self, name: impl Into<Cow<'static, str>>, kind: Kind, parent: TraceContext) -> Span {
        let Some(Recording { tracer, .. }) = &self.0 else { return Span(None) };
        start(tracer, SpanBuilder::from_name(name).with_kind(kind), &of(remote(parent, true)))
    }

    /// Begins the span of what many became. Not recorded if there is none of them.
    pub fn join(&self, name: impl Into<Cow<'static, str>>, kind: Kind, joined: &Joined) -> Span {
        let (Some(Recording { tracer, .. }), [first, ..]) = (&self.0, joined.contexts()) else { return Span(None) };
        let links = joined.contexts().iter().map(|&context| Link::new(remote(context, true), Vec::new(), 0)).collect();
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_links(links);
        let mut span = start(tracer, builder, &of(remote(*first, true)));
        if joined.more() > 0 {
            span.set(names::MORE_LINKS, as_value(joined.more()));
        }
        span
    }

    /// Records a span that began so long before `ended`, which is now.
    pub fn past(&self, name: impl Into<Cow<'static, str>>, parent: TraceContext, took: Duration, ended: Timestamp) {
        let Some(Recording { tracer, .. }) = &self.0 else { return };
        let ended = SystemTime::UNIX_EPOCH + Duration::from_micros(ended.as_micros());
        let builder = SpanBuilder::from_name(name).with_kind(Kind::Internal).with_start_time(ended - took);
        if let Some(mut span) = start(tracer, builder, &of(remote(parent, true))).0 {
            span.end_with_timestamp(ended);
        }
    }
}

impl Span {
    /// One that is not recorded.
    pub const fn none() -> Self {
        Self(None)
    }

    /// What comes after it carries this; none if it is not recorded.
    pub fn context(&self) -> Option<TraceContext> {
        let context = self.0.as_ref()?.span_context();
        TraceContext::new(context.trace_id().to_bytes(), context.span_id().to_bytes())
    }

    /// Is it recorded? What is costly to say need not be made otherwise.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Says something of it.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// It failed, for this reason (a status or an error code).
    pub fn fail(&mut self, reason: &'static str) {
        self.fail_with(reason, reason);
    }

    /// It failed, for this reason, and this is what was said.
    pub fn fail_with(&mut self, reason: &'static str, message: impl Into<Cow<'static, str>>) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(names::ERROR_TYPE, reason));
            span.set_status(Status::error(message));
        }
    }
}

/// A count as an attribute.
pub fn as_value(count: usize) -> Value {
    Value::I64(i64::try_from(count).unwrap_or(i64::MAX))
}

fn start(tracer: &SdkTracer, builder: SpanBuilder, parent: &Context) -> Span {
    let span = tracer.build_with_context(builder, parent);
    Span(span.span_context().is_sampled().then(|| Box::new(span)))
}

fn of(parent: SpanContext) -> Context {
    Context::new().with_remote_span_context(parent)
}

fn remote(context: TraceContext, sampled: bool) -> SpanContext {
    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let (trace, span) = (TraceId::from_bytes(context.trace()), SpanId::from_bytes(context.span()));
    SpanContext::new(trace, span, flags, true, TraceState::default())
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tracer").field(&if self.is_on() { "on" } else { "off" }).finish()
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(&self.context()).finish()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider};

    use super::*;

    fn recording(sampler: Sampler) -> (Tracer, InMemorySpanExporter) {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_sampler(sampler).with_simple_exporter(exporter.clone()).build();
        (Tracer::new(provider.tracer("test")), exporter)
    }

    fn context(n: u8) -> TraceContext {
        TraceContext::new([n; 16], [n; 8]).expect("not zero")
    }

    #[test]
    fn what_many_became_is_a_child_of_the_first_and_links_to_each() {
        let (tracer, exporter) = recording(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
        let mut joined = Joined::default();
        joined.extend((1..=130).map(context));
        drop(tracer.join("batch", Kind::Client, &joined));
        let [span] = &exporter.get_finished_spans().expect("whole")[..] else { panic!("one span") };
        assert_eq!(span.span_context.trace_id().to_bytes(), [1; 16]);
        assert_eq!(span.parent_span_id.to_bytes(), [1; 8]);
        let linked: Vec<_> = span.links.iter().map(|link| link.span_context.span_id().to_bytes()[0]).collect();
        assert_eq!(linked, (1..=128).collect::<Vec<u8>>());
        let more = span.attributes.iter().find(|said| said.key.as_str() == names::MORE_LINKS).expect("counted");
        assert_eq!(more.value, Value::I64(2));
        assert!(!tracer.join("batch", Kind::Client, &Joined::default()).is_recorded());
    }

    #[test]
    fn the_caller_decides_about_sampling_and_without_a_word_from_it_the_sampler() {
        let (tracer, _) = recording(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)));
        let caller = |sampled| Some(Traceparent { context: context(7), sampled });
        assert_eq!(tracer.serve("call", caller(false)).context(), None);
        let own = tracer.serve("call", caller(true)).context().expect("sampled");
        assert_eq!(own.trace(), [7; 16]);
        assert_ne!(own.span(), [7; 8]);
        assert!(tracer.serve("call", None).is_recorded());
        let (tracer, _) = recording(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
        assert!(!tracer.serve("call", None).is_recorded());
    }

    #[test]
    fn a_tracer_that_is_off_records_nothing() {
        let mut span = Tracer::off().child("x", Kind::Internal, context(1));
        span.set(names::ATTEMPT, 1);
        span.fail("x");
        assert_eq!((span.context(), span.is_recorded()), (None, false));
    }
}

//! The spans of batches that are in a trace, from their arrival to the answer: which outcome each got.
//!
//! The pipeline is told the context of a batch's span in place of its sender's, so that what is waited for on the batch's behalf, its
//! predecessors or the group that it is written with, stands below it.

use oncelog_edge::{
    names,
    trace::{Kind, Span, Tracer, as_value},
};
use oncelog_proto::{Offset, TraceContext};

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
        if !tracer.is_on() {
            return Self::default();
        }
        let arrivals = batches.iter_mut().enumerate().filter_map(|(index, batch)| Some((index, batch.as_mut().ok()?)));
        let spans = arrivals.filter_map(|(index, arrival)| {
            let span = append_span(tracer, arrival, arrival.trace.or(call)?);
            arrival.trace = span.context();
            Some((index, span))
        });
        Self(spans.take(MAX_SPANS).collect())
    }

    /// Ends them with the outcomes of the call's batches.
    pub(super) fn end(self, outcomes: &[BatchOutcome]) {
        for (index, mut span) in self.0 {
            match outcomes.get(index) {
                Some(BatchOutcome::Acknowledged { base_offset, duplicate, .. }) => {
                    span.set(names::OUTCOME, if *duplicate { "duplicate" } else { "appended" });
                    span.set(names::BASE_OFFSET, base_offset.map_or(-1, Offset::get));
                }
                Some(BatchOutcome::Refused(fault)) => {
                    span.set(names::OUTCOME, names::refusal(fault.code()));
                    span.fail(fault.code().reason());
                }
                None => span.set(names::OUTCOME, "unknown"),
            }
        }
    }
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

/// Batches of one call that have a span: a caller with ten thousand partitions would fill every queue of spans by itself.
const MAX_SPANS: usize = 64;

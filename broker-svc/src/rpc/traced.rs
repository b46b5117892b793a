//! The spans of batches that are in a trace, from their arrival to the answer: which outcome each got.
//!
//! The pipeline is told the context of a batch's span in place of its sender's, so that what is waited for on the batch's behalf,
//! its predecessors or the group that it is written with, stands below it.

use std::mem;

use oncelog_edge::{
    names,
    trace::{Kind, Span, Tracer, as_value},
};
use oncelog_proto::{Fault, TraceContext};

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

/// Batches of one call that have a span: a caller with ten thousand partitions would fill every queue of spans by itself.
const MAX_SPANS: usize = 64;

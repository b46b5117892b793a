//! The trace context in the headers of records, where consumers look for it.
//!
//! Only that of a recorded span, and never in place of one that a record came with: that is its trace then, whoever sent it. It
//! is put in before the records are encoded, so what is kept and what is sent again are the same bytes.
//!
//! A trace changes nothing about what is taken in: a record that would be too large with it goes without. Too large is what the
//! service does not take, and what the broker does not, by what it said last: a batch of several records is split, but one of a
//! single record is refused. Before compression, since nobody knows beforehand what that leaves.

use bytes::Bytes;
use oncelog_proto::{
    TraceContext,
    record_set::{MAX_HEADERS, RecordSetEncoder},
    trace::TRACEPARENT,
    v1::{Header, Record},
};

use crate::session::record_cost;

/// What records may become.
#[derive(Clone, Copy, Debug)]
pub(super) struct StampLimits {
    /// Bytes of one as encoded, before compression.
    pub(super) record: usize,
    /// What all of them cost before.
    pub(super) cost: usize,
    /// What all of them may cost.
    pub(super) most: usize,
}

/// Puts `context` into the records that have none, and tells what all of them cost then.
pub(super) fn stamp(records: &mut [Record], context: TraceContext, limits: StampLimits) -> usize {
    let mut cost = limits.cost;
    let value = Bytes::from(context.to_string());
    for record in records {
        let has_one = record.headers.iter().any(|header| header.key.eq_ignore_ascii_case(TRACEPARENT));
        if has_one || record.headers.len() >= MAX_HEADERS {
            continue;
        }
        let before = record_cost(record);
        record.headers.push(Header { key: TRACEPARENT.to_owned(), value: value.clone() });
        let grown = cost - before + record_cost(record);
        if grown > limits.most || RecordSetEncoder::added_len(record) > limits.record {
            record.headers.pop();
        } else {
            cost = grown;
        }
    }
    cost
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn context() -> TraceContext {
        TraceContext::new([1; 16], [2; 8]).expect("not zero")
    }

    fn stamped(records: &mut [Record], record: usize, most: usize) -> usize {
        let cost = records.iter().map(record_cost).sum();
        let told = stamp(records, context(), StampLimits { record, cost, most });
        assert_eq!(told, records.iter().map(record_cost).sum::<usize>());
        told
    }

    fn with_header(key: &str, value: &str) -> Record {
        let value = value.to_owned().into();
        Record { headers: vec![Header { key: key.to_owned(), value }], ..Record::default() }
    }

    #[test]
    fn a_record_gets_the_context_and_keeps_one_that_it_came_with() {
        let mut records = [with_header("k", "v"), with_header(TRACEPARENT, OTHER), with_header("Traceparent", OTHER)];
        stamped(&mut records, 1000, 1000);
        let [first, second, third] = records;
        assert_eq!(first.headers.len(), 2);
        assert_eq!((first.headers[1].key.as_str(), &first.headers[1].value[..]), (TRACEPARENT, context().to_string().as_bytes()));
        assert_eq!(second, with_header(TRACEPARENT, OTHER));
        assert_eq!(third, with_header("Traceparent", OTHER));
    }

    #[test]
    fn a_trace_makes_no_record_too_large() {
        let full = [with_header("k", "v")];
        let mut with = full.clone();
        stamped(&mut with, usize::MAX, usize::MAX);
        let (size, cost) = (RecordSetEncoder::added_len(&with[0]), record_cost(&with[0]));
        for (record, most, fits) in [(size, cost, true), (size - 1, cost, false), (size, cost - 1, false)] {
            let mut records = full.clone();
            stamped(&mut records, record, most);
            assert_eq!(records == with, fits, "{record} {most}");
        }
        let mut headers = [Record { headers: vec![Header::default(); MAX_HEADERS], ..Record::default() }];
        stamped(&mut headers, usize::MAX, usize::MAX);
        assert_eq!(headers[0].headers.len(), MAX_HEADERS);
        headers[0].headers.pop();
        stamped(&mut headers, usize::MAX, usize::MAX);
        assert_eq!(headers[0].headers.len(), MAX_HEADERS);
    }
}

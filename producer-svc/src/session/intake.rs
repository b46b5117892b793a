//! A `Send` comes in: its records join the batches of their partitions, or all of it is refused at once.

use std::sync::Arc;

use oncelog_proto::{
    ErrorCode, Fault, PartitionIndex, TopicName, packed::MAX_UNCOMPRESSED_BYTES, record_set::RecordSetEncoder, v1::Record,
};

use super::{Action, RecordOutcome, SendId, Session, schedule::LaneId, window::SPAN};
use crate::accumulator::{CloseRule, record_cost};

impl Session {
    pub(super) fn accept(&mut self, id: SendId, topic: &TopicName, records: &[(PartitionIndex, Record)]) {
        if let Some(fault) = self.refused_topics.fault(topic, self.now) {
            return self.refuse_send(id, records, &fault);
        }
        if let Some(fault) = records.iter().find_map(|(_, record)| too_large(record)) {
            return self.refuse_send(id, records, &fault);
        }
        if records.is_empty() {
            return self.actions.push_back(Action::Complete { send: id, outcomes: Vec::new() });
        }
        self.sends.open(id, records.len());
        // Those that this very `Send` has used are not dropped meanwhile: they hold its records.
        let mut used: Vec<(PartitionIndex, LaneId)> = Vec::with_capacity(MAX_REMEMBERED);
        for (index, (partition, record)) in records.iter().enumerate() {
            let lane = match used.iter().find(|(same, _)| same == partition) {
                Some((_, lane)) => *lane,
                None => {
                    let lane = self.lanes.open(topic, *partition);
                    if used.len() == MAX_REMEMBERED {
                        used.clear();
                    }
                    used.push((*partition, lane));
                    lane
                }
            };
            self.append(lane, record, id, index);
        }
    }

    fn append(&mut self, id: LaneId, record: &Record, send: SendId, index: usize) {
        let (room, may_produce) = (self.calls.room(), self.handshake.may_produce());
        let lane = self.lanes.get_mut(id).expect("a lane is dropped when another is opened, and never one that was just used");
        // As long as a call is free for it, a batch is full at `batch.size`. When none is, closing it would gain nothing: it
        // fills on, so that five calls a round trip carry whatever has come meanwhile.
        let waiting = lane.accumulator.closed();
        let leaves_at_once = may_produce && waiting < room && lane.window.len() + waiting < SPAN;
        let bytes = if leaves_at_once { self.config.batch_size } else { usize::MAX };
        let ceiling = self.config.max_request_size.min(self.max_batch_bytes.unwrap_or(usize::MAX)).min(MAX_UNCOMPRESSED_BYTES);
        let age = self.config.linger.max(self.config.delivery_timeout / JOIN_FRACTION);
        let rule = CloseRule { bytes: bytes.min(ceiling), age, compression: self.config.compression };
        let opened = lane.accumulator.push(record, send, index, rule, self.now);
        if opened || lane.accumulator.is_full(self.config.batch_size) {
            self.reschedule(id);
        }
    }

    fn refuse_send(&mut self, send: SendId, records: &[(PartitionIndex, Record)], fault: &Fault) {
        let outcomes = vec![RecordOutcome::Refused(Arc::new(fault.clone())); records.len()];
        self.actions.push_back(Action::Complete { send, outcomes });
        let bytes = records.iter().map(|(_, record)| record_cost(record)).sum();
        self.actions.push_back(Action::Free { bytes });
    }
}

/// A record that no batch can hold. The configured limits are checked before, and lower; this one is the format's.
fn too_large(record: &Record) -> Option<Fault> {
    let len = RecordSetEncoder::added_len(record);
    let message = || format!("the record has {len} bytes; a batch holds at most {MAX_UNCOMPRESSED_BYTES}. Send a smaller one");
    (len > MAX_UNCOMPRESSED_BYTES).then(|| Fault::new(ErrorCode::MessageTooLarge, message()))
}

/// Partitions of a `Send` that are found without asking by name.
const MAX_REMEMBERED: usize = 16;

/// A record joins a batch in the first tenth of the batch's delivery timeout, so that it has the rest for itself.
const JOIN_FRACTION: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_taken_up_to_what_a_batch_holds() {
        let record = |len: usize| Record { value: Some(vec![0; len].into()), ..Record::default() };
        let framing = RecordSetEncoder::added_len(&record(MAX_UNCOMPRESSED_BYTES - 100)) - (MAX_UNCOMPRESSED_BYTES - 100);
        assert_eq!(too_large(&record(MAX_UNCOMPRESSED_BYTES - framing)), None);
        let fault = too_large(&record(MAX_UNCOMPRESSED_BYTES - framing + 1)).expect("one byte too many");
        assert_eq!(fault.code(), ErrorCode::MessageTooLarge);
    }
}

//! What the producer hears from the broker. The first byte chooses the kind of answer, the others are the message.

use bytes::Bytes;
use oncelog_proto::{
    RecordCount, Timestamp, TopicName,
    v1::{Acks, DescribeTopicsResponse, InitProducerIdResponse, ProduceResponse},
};
use producer_svc::wire;
use prost::Message;

/// An answer is understood or makes no sense; a window that is understood has no gap.
///
/// # Panics
/// A defect was found.
pub fn run(bytes: &[u8]) {
    let Some((kind, message)) = bytes.split_first() else { return };
    let message = Bytes::copy_from_slice(message);
    match kind % 5 {
        kind @ 0..=2 => {
            let Ok(response) = ProduceResponse::decode(message) else { return };
            let counts = vec![RecordCount::MIN; response.results.len()];
            let acks = [Acks::All, Acks::One, Acks::Zero][usize::from(kind)];
            if let Ok(answers) = wire::produced(response, &counts, acks, Timestamp::default()) {
                assert_eq!(answers.len(), counts.len(), "one answer for each batch");
            }
        }
        3 => {
            let Ok(page) = InitProducerIdResponse::decode(message) else { return };
            let Ok(granted) = wire::granted(page) else { return };
            for partition in &granted.partitions {
                let mut next = partition.next;
                for batch in partition.window.iter().rev() {
                    assert_eq!(batch.base.checked_add(batch.count), Some(next), "a window leads up to its next sequence");
                    next = batch.base;
                }
            }
        }
        _ => {
            let Ok(response) = DescribeTopicsResponse::decode(message) else { return };
            let topic = TopicName::parse("t").expect("an allowed name");
            if let Ok(count) = wire::partitions(&response, &topic) {
                assert_eq!(usize::try_from(count.get()), Ok(response.topics[0].partitions.len()));
            }
        }
    }
}

//! From answers to messages.

use oncelog_proto::{Offset, ProducerId, Timestamp, TopicPartition, v1};
use prost::Message;

use crate::{
    pipeline::BatchOutcome,
    state::{Granted, PartitionDescription, ProducerDescription, ProducerPage, Recovered, TopicDescription, TopicPage},
};

/// The answer to a `Produce` call.
pub fn produced(outcomes: Vec<BatchOutcome>) -> v1::ProduceResponse {
    v1::ProduceResponse { results: outcomes.into_iter().map(batch_result).collect() }
}

fn batch_result(outcome: BatchOutcome) -> v1::BatchResult {
    use v1::batch_result::Outcome;
    let outcome = match outcome {
        BatchOutcome::Acknowledged { base_offset, time, duplicate } => Outcome::Ack(v1::BatchAck {
            base_offset: base_offset.map_or(-1, Offset::get),
            append_time: Some(time.to_proto()),
            duplicate,
        }),
        BatchOutcome::Refused(fault) => Outcome::Error(fault.to_batch_error()),
    };
    v1::BatchResult { outcome: Some(outcome) }
}

/// One page of an answer to `InitProducerId`: the partitions after `last`, as many as fit.
pub fn granted(granted: Granted, last: Option<&TopicPartition>, max_batch_bytes: usize) -> v1::InitProducerIdResponse {
    let mut response = v1::InitProducerIdResponse {
        producer_id: granted.producer.get(),
        producer_epoch: granted.epoch.get(),
        max_batch_bytes: i64::try_from(max_batch_bytes).unwrap_or(i64::MAX),
        ..Default::default()
    };
    let mut bytes = 0;
    let mut previous = None;
    for recovered in granted.recovered.iter().filter(|r| last.is_none_or(|last| r.partition > *last)) {
        let partition = recovered_partition(recovered);
        bytes += partition.encoded_len() + FRAMING_BYTES;
        if bytes > PAGE_BYTES
            && let Some(previous) = previous
        {
            response.next_page_token = TopicPartition::to_string(previous);
            break;
        }
        response.partitions.push(partition);
        previous = Some(&recovered.partition);
    }
    response
}

fn recovered_partition(recovered: &Recovered) -> v1::init_producer_id_response::Partition {
    let entry = |batch: &crate::state::Remembered| v1::WindowEntry {
        base_sequence: batch.base.get(),
        record_count: batch.count.get(),
        base_offset: batch.base_offset.get(),
        append_time: Some(batch.time.to_proto()),
        checksum: batch.checksum,
    };
    v1::init_producer_id_response::Partition {
        topic: recovered.partition.topic.to_string(),
        partition: recovered.partition.partition.get(),
        next_sequence: recovered.next.get(),
        window: recovered.window.iter().map(entry).collect(),
    }
}

/// One page of an answer to `DescribeTopics`. `oldest` as in [`topic`].
pub fn topics(page: &TopicPage, oldest: &impl Fn(&PartitionDescription) -> Option<Timestamp>) -> v1::DescribeTopicsResponse {
    let next_page_token = page.after.as_ref().map_or_else(String::new, ToString::to_string);
    v1::DescribeTopicsResponse { topics: page.topics.iter().map(|described| topic(described, oldest)).collect(), next_page_token }
}

/// The description of one topic. `oldest` tells when a partition's first record was appended; it may read files.
pub fn topic(
    topic: &TopicDescription,
    oldest: &impl Fn(&PartitionDescription) -> Option<Timestamp>,
) -> v1::describe_topics_response::Topic {
    let partition = |(index, partition): (i32, &PartitionDescription)| v1::describe_topics_response::Partition {
        partition: index,
        log_start_offset: partition.ends.start.get(),
        log_end_offset: partition.ends.end.get(),
        bytes: i64::try_from(partition.bytes).unwrap_or(i64::MAX),
        oldest_append_time: oldest(partition).map(Timestamp::to_proto),
    };
    v1::describe_topics_response::Topic {
        topic: topic.topic.to_string(),
        partitions: (0..).zip(&topic.partitions).map(partition).collect(),
    }
}

/// One page of an answer to `DescribeProducers`.
pub fn producers(page: ProducerPage) -> v1::DescribeProducersResponse {
    use v1::describe_producers_response::{Partition, Producer};
    let next_page_token = page.after.as_ref().map_or_else(String::new, ProducerId::to_string);
    let partition = |(name, next): (TopicPartition, oncelog_proto::Sequence)| Partition {
        topic: name.topic.to_string(),
        partition: name.partition.get(),
        next_sequence: next.get(),
    };
    let producer = |described: ProducerDescription| Producer {
        producer_id: described.producer.get(),
        producer_epoch: described.epoch.get(),
        last_seen: Some(described.last_seen.to_proto()),
        partitions: described.partitions.into_iter().map(partition).collect(),
    };
    v1::DescribeProducersResponse { producers: page.producers.into_iter().map(producer).collect(), next_page_token }
}

/// A page stays below 2 MiB.
const PAGE_BYTES: usize = (2 << 20) - (64 << 10);
/// Key and length in front of each partition.
const FRAMING_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use oncelog_proto::{Epoch, PartitionIndex, Sequence, TopicName};

    use super::*;

    #[test]
    fn a_long_recovery_answer_comes_in_pages_that_join_to_the_whole() {
        let topic = TopicName::parse(&"t".repeat(249)).expect("allowed");
        let recovered: Vec<_> = (0..10_000)
            .map(|index| Recovered {
                partition: TopicPartition { topic: topic.clone(), partition: PartitionIndex::new(index).expect("small") },
                next: Sequence::new(i64::from(index)).expect("small"),
                window: Vec::new(),
            })
            .collect();
        let producer = ProducerId::new(7).expect("7");
        let whole = Granted { producer, epoch: Epoch::ZERO, recovered };
        let (mut pages, mut seen, mut last) = (0, Vec::new(), None);
        loop {
            let page = granted(whole.clone(), last.as_ref(), 1);
            assert!(page.encoded_len() < 2 << 20);
            pages += 1;
            seen.extend(page.partitions.iter().map(|p| p.next_sequence));
            let Some((topic, partition)) = page.next_page_token.rsplit_once('/') else { break };
            last = Some(TopicPartition::parse(topic, partition.parse().expect("a number")).expect("allowed"));
        }
        assert_eq!(seen, (0..10_000).collect::<Vec<i64>>());
        assert!(pages > 1);
    }
}

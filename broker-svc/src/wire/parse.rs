//! From messages to requests: everything that can be wrong with a message in itself is found here.
//!
//! A fault of one batch stays with that batch; a fault of the call refuses the call.

use std::collections::HashSet;

use oncelog_proto::{
    Epoch, ErrorCode, Fault, PackedBatch, ProducerId, Sequence, Tag, TopicName, TopicPartition, TraceContext, fault::excerpt,
    packed::MAX_UNCOMPRESSED_BYTES, topic::PartitionCount, v1,
};
use sha2::{Digest, Sha256};

use crate::{
    entry::TokenHash,
    pipeline::{Acks, Request},
    state::{Arrival, InitRequest},
};

/// Most batches of one call.
pub const MAX_BATCHES: usize = 10_000;
/// Most bytes that the batches of one call may have together before compression: what is verified has to be unpacked.
pub const MAX_UNPACKED_BYTES: u64 = 256 << 20;
/// Most topics that one call names.
pub const MAX_TOPICS: usize = 1_000;
/// Longest recovery token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 64;
/// Most producers that one page describes.
pub const MAX_PAGE_SIZE: i32 = 1_000;
const DEFAULT_PAGE_SIZE: i32 = 100;

/// A `Produce` call. A batch of more than `max_message_bytes` is not verified.
///
/// # Errors
/// The call is wrong as a whole.
pub fn produce(request: v1::ProduceRequest, max_message_bytes: usize) -> Result<Request, Fault> {
    let producer = producer(request.producer_id, request.producer_epoch)?;
    let acks = acks(request.acks, producer.is_some())?;
    let count = request.batches.len();
    if !(1..=MAX_BATCHES).contains(&count) {
        return Err(invalid(format!("the call has {count} batches; allowed is 1 to {MAX_BATCHES}")));
    }
    let unpacked = unpacked_bytes(&request, max_message_bytes);
    if unpacked > MAX_UNPACKED_BYTES {
        let advice = "send fewer batches in a call";
        return Err(invalid(format!(
            "the batches have {unpacked} bytes before compression; allowed is {MAX_UNPACKED_BYTES}: {advice}"
        )));
    }
    if producer.is_some() {
        let mut seen = HashSet::with_capacity(count);
        if let Some(twice) = request.batches.iter().find(|batch| !seen.insert((&batch.topic, batch.partition))) {
            let (topic, partition) = (excerpt(&twice.topic), twice.partition);
            let advice = "send at most one tagged batch for each partition in a call";
            return Err(invalid(format!("the call has two batches for {topic}/{partition}; {advice}")));
        }
    }
    let batches = request.batches.into_iter().map(|batch| arrival(batch, producer, max_message_bytes)).collect();
    Ok(Request::Produce { acks, batches })
}

/// Bytes that [`produce`] unpacks. What is refused by its claim or its size alone, and what came as records, is not unpacked.
pub fn unpacked_bytes(request: &v1::ProduceRequest, max_message_bytes: usize) -> u64 {
    let packed = request.batches.iter().filter_map(|batch| batch.packed.as_ref());
    let unpacked = packed.filter(|packed| packed.data.len() <= max_message_bytes);
    let claims = unpacked.filter_map(|packed| usize::try_from(packed.uncompressed_bytes).ok());
    claims.filter(|claim| *claim <= MAX_UNCOMPRESSED_BYTES).map(|claim| claim as u64).sum()
}

fn producer(id: Option<i64>, epoch: i32) -> Result<Option<(ProducerId, Epoch)>, Fault> {
    match id {
        Some(id) => {
            let id = ProducerId::new(id).map_err(|e| invalid(e.to_string()))?;
            Ok(Some((id, Epoch::new(epoch).map_err(|e| invalid(e.to_string()))?)))
        }
        None if epoch == 0 => Ok(None),
        None => Err(invalid(format!("producer_epoch is {epoch} without a producer_id; give both or neither"))),
    }
}

fn acks(acks: i32, is_tagged: bool) -> Result<Acks, Fault> {
    let acks = match v1::Acks::try_from(acks) {
        Ok(v1::Acks::Unspecified | v1::Acks::All) => Acks::All,
        Ok(v1::Acks::One) => Acks::One,
        Ok(v1::Acks::Zero) => Acks::Zero,
        Err(_) => return Err(invalid(format!("acks is {acks}; allowed is 0 or 1 (all), 2 (one) and 3 (zero)"))),
    };
    if is_tagged && acks != Acks::All {
        let message = "a call with a producer_id has to be acknowledged by all: leave acks out";
        return Err(Fault::new(ErrorCode::InvalidRequiredAcks, message));
    }
    Ok(acks)
}

fn arrival(batch: v1::Batch, producer: Option<(ProducerId, Epoch)>, max_message_bytes: usize) -> Result<Arrival, Fault> {
    let partition = TopicPartition::parse(&batch.topic, batch.partition)?;
    let trace = TraceContext::sampled(&batch.traceparent);
    let tag = match producer {
        None => None,
        Some((producer, epoch)) => {
            // Kafka, too, calls a negative sequence an invalid record (S7).
            let base = Sequence::new(batch.base_sequence).map_err(|e| Fault::new(ErrorCode::InvalidRecord, e.to_string()))?;
            Some(Tag { producer, epoch, base })
        }
    };
    let packed = match (batch.packed, batch.records) {
        (Some(_), records) if !records.is_empty() => {
            let message = "the batch has both records and packed; give one of them";
            return Err(Fault::new(ErrorCode::InvalidRecord, message));
        }
        (Some(packed), _) => {
            let packed = PackedBatch::from_proto(packed)?;
            // What is too large is refused anyway, or was verified when it was appended.
            if packed.data().len() <= max_message_bytes {
                packed.verify()?;
            }
            packed
        }
        (None, records) => PackedBatch::from_records(&records)?,
    };
    Ok(Arrival { partition, tag, packed, trace })
}

/// An `InitProducerId` call, and the last partition of the page before the one asked for.
///
/// # Errors
/// The call is malformed.
pub fn init_producer(request: &v1::InitProducerIdRequest) -> Result<(InitRequest, Option<TopicPartition>), Fault> {
    let token = request.recovery_token.as_bytes();
    if token.len() > MAX_TOKEN_BYTES {
        let len = token.len();
        return Err(invalid(format!("recovery_token has {len} bytes; allowed is 1 to {MAX_TOKEN_BYTES}")));
    }
    match (request.producer_id, request.producer_epoch) {
        (None, None) if request.page_token.is_empty() => Ok((InitRequest::Fresh, None)),
        (None, None) => Err(invalid("page_token without a producer_id: only a recovery has pages".to_owned())),
        (Some(producer), Some(epoch)) => {
            if token.is_empty() {
                return Err(invalid(format!("recovery_token is empty; a recovery needs 1 to {MAX_TOKEN_BYTES} random bytes")));
            }
            let recover = InitRequest::Recover {
                producer: ProducerId::new(producer).map_err(|e| invalid(e.to_string()))?,
                epoch: Epoch::new(epoch).map_err(|e| invalid(e.to_string()))?,
                token: token_hash(token),
            };
            Ok((recover, page_start(&request.page_token)?))
        }
        _ => Err(invalid("give both producer_id and producer_epoch, or neither".to_owned())),
    }
}

fn token_hash(token: &[u8]) -> TokenHash {
    let hash = Sha256::digest(token);
    TokenHash(hash[..16].try_into().expect("a hash has 32 bytes"))
}

/// A page token names the last partition of the page before.
fn page_start(page_token: &str) -> Result<Option<TopicPartition>, Fault> {
    if page_token.is_empty() {
        return Ok(None);
    }
    let parsed =
        page_token.rsplit_once('/').and_then(|(topic, partition)| TopicPartition::parse(topic, partition.parse().ok()?).ok());
    match parsed {
        Some(last) => Ok(Some(last)),
        None => Err(foreign_page_token(page_token)),
    }
}

/// A `CreateTopic` call.
///
/// # Errors
/// The name or the number is not allowed.
pub fn create_topic(request: &v1::CreateTopicRequest) -> Result<Request, Fault> {
    let partitions = match request.partitions {
        0 => None,
        partitions => Some(PartitionCount::new(partitions)?),
    };
    Ok(Request::CreateTopic { topic: TopicName::parse(&request.topic)?, partitions })
}

/// A `DescribeTopics` call.
///
/// # Errors
/// A name is not allowed, stands there twice, or is one too many.
pub fn describe_topics(request: &v1::DescribeTopicsRequest) -> Result<Request, Fault> {
    let count = request.topics.len();
    if count > MAX_TOPICS {
        return Err(invalid(format!("the call names {count} topics; allowed is 1 to {MAX_TOPICS}, or none to describe all")));
    }
    // A name that is repeated would make the answer any number of times as large as all that there is.
    let mut seen = HashSet::with_capacity(count);
    if let Some(twice) = request.topics.iter().find(|topic| !seen.insert(topic.as_str())) {
        return Err(invalid(format!("the call names topic {:?} twice; name it once", excerpt(twice))));
    }
    let topics = request.topics.iter().map(|topic| TopicName::parse(topic)).collect::<Result<_, _>>()?;
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(TopicName::parse(token).map_err(|_| foreign_page_token(token))?),
    };
    Ok(Request::DescribeTopics { topics, create: request.allow_auto_create, after })
}

/// A `DescribeProducers` call.
///
/// # Errors
/// The call is malformed.
pub fn describe_producers(request: &v1::DescribeProducersRequest) -> Result<Request, Fault> {
    let id = |id: i64| ProducerId::new(id).map_err(|e| invalid(e.to_string()));
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(token.parse().map_err(|_| foreign_page_token(token)).and_then(id)?),
    };
    let page_size = match request.page_size {
        0 => DEFAULT_PAGE_SIZE,
        size @ 1..=MAX_PAGE_SIZE => size,
        size => return Err(invalid(format!("page_size is {size}; allowed is 1 to {MAX_PAGE_SIZE}"))),
    };
    let topic = match request.topic.as_str() {
        "" => None,
        topic => Some(TopicName::parse(topic)?),
    };
    let most = usize::try_from(page_size).expect("it is in its range");
    Ok(Request::DescribeProducers { producer: request.producer_id.map(id).transpose()?, topic, after, most })
}

fn foreign_page_token(token: &str) -> Fault {
    invalid(format!("page_token {:?} is none that this broker gave; start without one", excerpt(token)))
}

/// The fault of a malformed request.
pub fn invalid(message: String) -> Fault {
    Fault::new(ErrorCode::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(partition: i32, uncompressed_bytes: i32) -> v1::Batch {
        let packed = v1::PackedRecords { record_count: 1, uncompressed_bytes, data: vec![0; 2].into(), ..Default::default() };
        v1::Batch { topic: "t".to_owned(), partition, packed: Some(packed), ..Default::default() }
    }

    #[test]
    fn a_call_may_unpack_to_so_many_bytes_and_no_more() {
        let call = |last: &[i32]| {
            let last = last.iter().map(|bytes| batch(4, *bytes));
            let batches = (0..3).map(|partition| batch(partition, 64 << 20)).chain(last).collect();
            produce(v1::ProduceRequest { batches, ..Default::default() }, 1 << 20)
        };
        // The claims are false, which is each batch's own fault.
        assert!(call(&[64 << 20]).is_ok());
        // A claim beyond what a batch may have is refused without a look at the data.
        assert!(call(&[64 << 20, (64 << 20) + 1]).is_ok());
        let fault = call(&[64 << 20, 1]).expect_err("too much to unpack");
        assert_eq!(fault.code(), ErrorCode::InvalidRequest);
    }

    #[test]
    fn a_call_names_as_many_topics_as_are_allowed_and_each_once() {
        let call = |topics: Vec<String>| {
            describe_topics(&v1::DescribeTopicsRequest { topics, allow_auto_create: false, ..Default::default() })
        };
        let names = |count: usize| (0..count).map(|n| n.to_string()).collect();
        assert!(call(names(0)).is_ok());
        assert!(call(names(MAX_TOPICS)).is_ok());
        assert!(call(names(MAX_TOPICS + 1)).is_err());
        let fault = call(vec!["a".to_owned(), "a".to_owned()]).expect_err("twice");
        assert!(fault.message().contains("topic \"a\" twice"), "{fault}");
    }

    #[test]
    fn a_long_page_token_is_refused_with_a_status_that_fits_its_headers() {
        // What takes most when it is quoted.
        let long = "\u{10ffff}".repeat(1 << 20);
        let page_token = long.clone();
        let recovery = v1::InitProducerIdRequest {
            producer_id: Some(1),
            producer_epoch: Some(0),
            recovery_token: "token".to_owned(),
            page_token: long.clone(),
        };
        let twice = v1::Batch { topic: long.clone(), ..batch(0, 1) };
        let twice = v1::ProduceRequest { producer_id: Some(1), batches: vec![twice.clone(), twice], ..Default::default() };
        let refused = [
            describe_topics(&v1::DescribeTopicsRequest { page_token, ..Default::default() }).map(drop),
            describe_topics(&v1::DescribeTopicsRequest { topics: vec![long.clone(), long.clone()], ..Default::default() })
                .map(drop),
            describe_producers(&v1::DescribeProducersRequest { page_token: long, ..Default::default() }).map(drop),
            init_producer(&recovery).map(drop),
            produce(twice, 1 << 20).map(drop),
        ];
        for fault in refused.map(|refused| refused.expect_err("it is none of ours")) {
            assert_eq!(fault.code(), ErrorCode::InvalidRequest);
            assert!(fault.message().len() < 1 << 10 && fault.message().contains('…'), "{} bytes", fault.message().len());
            // The advice stands behind what is repeated, and is still there.
            assert!(
                ["start without one", "name it once", "in a call"]
                    .iter()
                    .any(|advice| fault.to_status().message().ends_with(advice))
            );
            let headers = fault.to_status().into_http::<()>();
            let bytes: usize = headers.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
            assert!(bytes <= 8 << 10, "{bytes}");
        }
    }
}

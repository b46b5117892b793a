//! The requests of a transcript.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use oncelog_proto::{Compression, PackedBatch, v1};

/// A request, with the messages of the contract where it is a call.
#[derive(Clone, Debug)]
pub enum Request {
    /// Wait for the answer.
    Call(Call),
    /// Do not wait for it.
    Later(String, Call),
    /// Wait for one that was not waited for.
    Answer(String),
    /// Let time pass.
    Idle(Duration),
    /// Stop and start again on the same journal, orderly or not.
    Restart {
        /// Orderly.
        clean: bool,
    },
}

/// A call.
#[derive(Clone, Debug)]
pub enum Call {
    /// `InitProducerId`
    Init(v1::InitProducerIdRequest),
    /// `Produce`
    Produce(v1::ProduceRequest),
    /// `Fetch`
    Fetch(v1::FetchRequest),
    /// `CreateTopic`
    Create(v1::CreateTopicRequest),
    /// `DeleteTopic`
    Delete(v1::DeleteTopicRequest),
    /// `DescribeTopics`
    Describe(v1::DescribeTopicsRequest),
    /// `DescribeProducers`
    Producers(v1::DescribeProducersRequest),
}

pub(super) fn parse(line: &str) -> Result<Request> {
    let words: Vec<_> = line.split_whitespace().collect();
    Ok(match words.as_slice() {
        ["later", name, call @ ..] => Request::Later((*name).to_owned(), parse_call(call)?),
        ["answer", name] => Request::Answer((*name).to_owned()),
        ["idle", millis] => Request::Idle(Duration::from_millis(millis.parse()?)),
        ["restart", "clean"] => Request::Restart { clean: true },
        ["restart", "kill"] => Request::Restart { clean: false },
        call => Request::Call(parse_call(call)?),
    })
}

fn parse_call(words: &[&str]) -> Result<Call> {
    Ok(match words {
        ["init"] => Call::Init(v1::InitProducerIdRequest::default()),
        ["init", producer, token] => {
            let (id, epoch) = producer.split_once('/').context("P/E")?;
            Call::Init(v1::InitProducerIdRequest {
                producer_id: Some(id.parse()?),
                producer_epoch: Some(epoch.parse()?),
                recovery_token: token.strip_prefix("token=").context("token=")?.to_owned(),
                ..Default::default()
            })
        }
        ["produce", producer, rest @ ..] => Call::Produce(parse_produce(producer, rest)?),
        ["fetch", partition, rest @ ..] => {
            let (topic, partition) = parse_partition(partition)?;
            let mut fetch = v1::FetchRequest { topic, partition, ..Default::default() };
            for pair in rest.chunks(2) {
                match pair {
                    ["from", offset] => fetch.offset = Some(offset.parse()?),
                    ["max", records] => fetch.max_records = Some(records.parse()?),
                    other => bail!("{other:?}"),
                }
            }
            Call::Fetch(fetch)
        }
        ["create", topic] => Call::Create(v1::CreateTopicRequest { topic: (*topic).to_owned(), partitions: 0 }),
        ["create", topic, partitions] => {
            Call::Create(v1::CreateTopicRequest { topic: (*topic).to_owned(), partitions: partitions.parse()? })
        }
        ["delete", topic] => Call::Delete(v1::DeleteTopicRequest { topic: (*topic).to_owned() }),
        ["describe", topic] => Call::Describe(v1::DescribeTopicsRequest {
            topics: vec![(*topic).to_owned()],
            allow_auto_create: false,
            ..Default::default()
        }),
        ["producers"] => Call::Producers(v1::DescribeProducersRequest::default()),
        other => bail!("no such request: {other:?}"),
    })
}

fn parse_produce(producer: &str, mut words: &[&str]) -> Result<v1::ProduceRequest> {
    let mut request = v1::ProduceRequest::default();
    if let Some((id, epoch)) = producer.split_once('/') {
        request.producer_id = Some(id.parse()?);
        request.producer_epoch = epoch.parse()?;
    }
    if let Some(acks) = words.first().and_then(|word| word.strip_prefix("acks=")) {
        let acks = match acks {
            "one" => v1::Acks::One,
            "zero" => v1::Acks::Zero,
            other => bail!("acks={other}"),
        };
        request.acks = acks.into();
        words = &words[1..];
    }
    request.batches = words.iter().map(|word| parse_batch(word).with_context(|| (*word).to_owned())).collect::<Result<_>>()?;
    Ok(request)
}

fn parse_partition(word: &str) -> Result<(String, i32)> {
    let (topic, partition) = word.rsplit_once('/').context("topic/partition")?;
    Ok((topic.to_owned(), partition.parse()?))
}

/// `topic/partition[@base]xN[:content][~codec][!claim=N]`
fn parse_batch(word: &str) -> Result<v1::Batch> {
    let (word, claim) = word.split_once('!').map_or((word, None), |(word, claim)| (word, Some(claim)));
    let (word, codec) = word.split_once('~').map_or((word, None), |(word, codec)| (word, Some(codec)));
    let (word, content) = word.split_once(':').unwrap_or((word, "a"));
    let (place, count) = word.rsplit_once('x').context("xN")?;
    let (place, base) = place.split_once('@').unwrap_or((place, "0"));
    let (topic, partition) = parse_partition(place)?;
    let (base, count): (i64, i64) = (base.parse()?, count.parse()?);
    let record =
        |index: i64| v1::Record { value: Some(format!("{content}{}", base.wrapping_add(index)).into()), ..Default::default() };
    let records: Vec<_> = (0..count).map(record).collect();
    let mut batch = v1::Batch { topic, partition, base_sequence: base, ..Default::default() };
    match codec {
        None => batch.records = records,
        Some(codec) => batch.packed = Some(pack(&records, codec, claim)?),
    }
    Ok(batch)
}

fn pack(records: &[v1::Record], codec: &str, claim: Option<&str>) -> Result<v1::PackedRecords> {
    let compression = match codec {
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        other => bail!("~{other}"),
    };
    let encoded = oncelog_proto::record_set::encode(records);
    let count = oncelog_proto::RecordCount::of_len(records.len())?;
    let mut packed = PackedBatch::pack(&encoded, count, compression)?.to_proto();
    match claim.and_then(|claim| claim.split_once('=')) {
        Some(("count", claimed)) => packed.record_count = claimed.parse()?,
        Some(("length", claimed)) => packed.uncompressed_bytes = claimed.parse()?,
        Some((other, _)) => bail!("!{other}"),
        None => {}
    }
    Ok(packed)
}

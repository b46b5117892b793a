//! Reads a running broker by its contract: every partition from its log start to its end, and where each producer stands.

use oncelog_proto::{
    Link, PackedBatch, Timestamp,
    v1::{
        DescribeProducersRequest, DescribeTopicsRequest, FetchRequest, broker_service_client::BrokerServiceClient,
        describe_topics_response::Topic, fetch_response::FetchedBatch,
    },
};
use tonic::{Code, Status};

use crate::{
    history::{Digest, Partition, Place, Producer, Tag},
    log::{Log, PartitionLog, Stand},
};

/// A generated client.
pub type Client = BrokerServiceClient<Link>;

/// How far a reading has come, in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Read.
    pub read: u64,
    /// To read.
    pub total: u64,
}

/// What was read.
#[derive(Debug)]
pub struct Read {
    /// The log.
    pub log: Log,
    /// Nothing was written while it was read, so what the broker says of its producers was compared too. Otherwise it was left
    /// out.
    pub quiet: bool,
}

/// Why it could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A call failed.
    #[error("{tried}: {status}")]
    Call {
        /// What was tried.
        tried: String,
        /// How it ended.
        status: Box<Status>,
    },
    /// An answer is not what the contract says.
    #[error("{partition}: {what}")]
    Contract {
        /// Where.
        partition: Partition,
        /// What is wrong with it.
        what: String,
    },
}

/// Reads these topics; none: all of them.
///
/// # Errors
/// See [`ReadError`].
pub async fn read(client: &mut Client, topics: &[String], progress: &mut dyn FnMut(Progress)) -> Result<Read, ReadError> {
    let described = describe(client, topics).await?;
    let ends = |topics: &[Topic]| -> Vec<(Partition, i64, i64)> {
        let partitions = topics.iter().flat_map(|topic| topic.partitions.iter().map(|partition| (&topic.topic, partition)));
        let ends = partitions.map(|(topic, p)| (Partition::new(topic, p.partition), p.log_start_offset, p.log_end_offset));
        ends.collect()
    };
    let before = ends(&described);
    let total = before.iter().map(|(_, start, end)| end - start).sum::<i64>().unsigned_abs();
    let mut so_far = Progress { read: 0, total };
    let mut log = Log::of(topics);
    for (name, start, end) in &before {
        log.add(read_partition(client, name, *start, *end, &mut so_far, progress).await?);
    }
    let stands = stands(client).await?;
    let quiet = ends(&describe(client, topics).await?) == before;
    for stand in stands.into_iter().filter(|_| quiet) {
        log.add_stand(stand);
    }
    Ok(Read { log, quiet })
}

async fn describe(client: &mut Client, topics: &[String]) -> Result<Vec<Topic>, ReadError> {
    let mut described = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = DescribeTopicsRequest { topics: topics.to_vec(), allow_auto_create: false, page_token };
        let page = client.describe_topics(request).await.map_err(failed("DescribeTopics"))?.into_inner();
        described.extend(page.topics);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(described);
        }
    }
}

async fn read_partition(
    client: &mut Client,
    name: &Partition,
    start: i64,
    end: i64,
    so_far: &mut Progress,
    progress: &mut dyn FnMut(Progress),
) -> Result<PartitionLog, ReadError> {
    let mut log = PartitionLog::new(name.clone(), start, end);
    let mut next = start;
    while next < end {
        let request = FetchRequest {
            topic: name.topic.clone(),
            partition: name.partition,
            offset: Some(next),
            max_records: Some(end - next),
            follow: false,
            packed: true,
        };
        let before = next;
        let tried = || format!("Fetch of {name} from {before} on");
        let mut stream = match client.fetch(request).await {
            Ok(stream) => stream.into_inner(),
            // Retention went on meanwhile: what is gone cannot be read, and what is claimed of it will not be judged.
            Err(status) if status.code() == Code::OutOfRange => {
                let topics = describe(client, std::slice::from_ref(&name.topic)).await?;
                let partitions = topics.iter().flat_map(|topic| &topic.partitions);
                let now = partitions.filter(|p| p.partition == name.partition).map(|p| p.log_start_offset).max().unwrap_or(0);
                if now <= next {
                    return Err(failed(&tried())(status));
                }
                log = PartitionLog::new(name.clone(), now, end.max(now));
                next = now;
                continue;
            }
            Err(status) => return Err(failed(&tried())(status)),
        };
        while let Some(response) = stream.message().await.map_err(failed(&tried()))? {
            for batch in response.batches {
                let batch = unpack(name, batch)?;
                next = batch.next_offset();
                so_far.read += batch.records.len() as u64;
                log.push(batch.place, batch.tag, Some(batch.checksum), &batch.records);
            }
            progress(*so_far);
        }
        if next <= before {
            // The broker says that there is more and gives nothing: the judgement tells what is missing.
            break;
        }
    }
    Ok(log)
}

/// A batch as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatch {
    /// Where it stands.
    pub place: Place,
    /// None: it was appended without one.
    pub tag: Option<Tag>,
    /// CRC-32C of its data.
    pub checksum: u32,
    /// Its records, at least one.
    pub records: Vec<Digest>,
}

impl ReadBatch {
    /// The offset behind its last record.
    pub fn next_offset(&self) -> i64 {
        self.place.offset.saturating_add(i64::try_from(self.records.len()).unwrap_or(i64::MAX))
    }
}

/// Unpacks a batch of the partition `name`, as `Fetch` answers it if asked `packed`.
///
/// # Errors
/// [`ReadError::Contract`]: it is not what it says.
pub fn unpack(name: &Partition, batch: FetchedBatch) -> Result<ReadBatch, ReadError> {
    let contract = |what: String| ReadError::Contract { partition: name.clone(), what };
    let offset = batch.base_offset;
    let at = |what: &dyn std::fmt::Display| contract(format!("the batch at offset {offset} {what}"));
    let packed = batch.packed.ok_or_else(|| at(&"has no data"))?;
    let packed = PackedBatch::from_proto(packed).map_err(|fault| at(&fault))?;
    if packed.checksum() != batch.checksum {
        return Err(at(&"does not match its checksum"));
    }
    let digests: Vec<_> = packed.records().map_err(|fault| at(&fault))?.iter().map(Digest::of).collect();
    if offset < 0 || digests.is_empty() || digests.len() != usize::try_from(packed.count().get()).unwrap_or(0) {
        return Err(at(&"has another number of records than it says"));
    }
    let append_time = batch.append_time.map_or(0, |time| Timestamp::from_proto(&time).as_micros());
    let tag = batch
        .producer_id
        .map(|id| Tag { producer: Producer { id, epoch: batch.producer_epoch }, base_sequence: batch.base_sequence });
    Ok(ReadBatch { place: Place { offset, append_time }, tag, checksum: packed.checksum(), records: digests })
}

async fn stands(client: &mut Client) -> Result<Vec<Stand>, ReadError> {
    let mut stands = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = DescribeProducersRequest { page_token, page_size: PAGE_SIZE, ..Default::default() };
        let page = client.describe_producers(request).await.map_err(failed("DescribeProducers"))?.into_inner();
        for producer in page.producers {
            let whose = Producer { id: producer.producer_id, epoch: producer.producer_epoch };
            stands.extend(producer.partitions.into_iter().map(|partition| Stand {
                producer: whose,
                partition: Partition::new(partition.topic, partition.partition),
                next_sequence: partition.next_sequence,
            }));
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(stands);
        }
    }
}

fn failed(tried: &str) -> impl FnOnce(Status) -> ReadError {
    let tried = tried.to_owned();
    move |status| ReadError::Call { tried, status: Box::new(status) }
}

const PAGE_SIZE: i32 = 1_000;

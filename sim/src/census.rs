//! What a reader reads when all is over, and what the broker then says of its producers.

use std::time::Duration;

use oncelog_proto::{
    PackedBatch,
    v1::{DescribeProducersRequest, DescribeTopicsRequest, FetchRequest, broker_service_client::BrokerServiceClient},
};
use oncelog_verify::{
    Log, PartitionLog,
    history::{Digest, Partition, Place, Producer, Tag},
    log::Stand,
};
use tokio::time::{sleep, timeout};
use tonic::{Status, transport::Channel};

use crate::callers::micros;

/// Reads everything, however often it has to try.
pub(crate) async fn take(mut broker: BrokerServiceClient<Channel>) -> Log {
    loop {
        match timeout(PATIENCE, read(&mut broker)).await {
            Ok(Ok(log)) => return log,
            Ok(Err(_)) | Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn read(broker: &mut BrokerServiceClient<Channel>) -> Result<Log, Status> {
    let mut log = Log::default();
    let topics = broker.describe_topics(DescribeTopicsRequest::default()).await?.into_inner().topics;
    for topic in topics {
        for at in topic.partitions {
            let name = Partition { topic: topic.topic.clone(), partition: at.partition };
            let (start, end) = (at.log_start_offset, at.log_end_offset);
            let mut partition = PartitionLog::new(name.clone(), start, end);
            if start < end {
                fetch(broker, &name, start, &mut partition).await?;
            }
            log.add(partition);
        }
    }
    let mut request = DescribeProducersRequest::default();
    loop {
        let page = broker.describe_producers(request.clone()).await?.into_inner();
        for producer in page.producers {
            let whose = Producer { id: producer.producer_id, epoch: producer.producer_epoch };
            for at in producer.partitions {
                let partition = Partition { topic: at.topic, partition: at.partition };
                log.add_stand(Stand { producer: whose, partition, next_sequence: at.next_sequence });
            }
        }
        if page.next_page_token.is_empty() {
            return Ok(log);
        }
        request.page_token = page.next_page_token;
    }
}

async fn fetch(
    broker: &mut BrokerServiceClient<Channel>,
    name: &Partition,
    offset: i64,
    partition: &mut PartitionLog,
) -> Result<(), Status> {
    let (topic, number) = (name.topic.clone(), name.partition);
    let request =
        FetchRequest { topic, partition: number, offset: Some(offset), packed: true, ..FetchRequest::default() };
    let mut stream = broker.fetch(request).await?.into_inner();
    while let Some(response) = stream.message().await? {
        for batch in response.batches {
            let place = Place { offset: batch.base_offset, append_time: micros(batch.append_time.as_ref()) };
            let producer = batch.producer_id.map(|id| Producer { id, epoch: batch.producer_epoch });
            let tag = producer.map(|producer| Tag { producer, base_sequence: batch.base_sequence });
            let packed = PackedBatch::from_proto(batch.packed.unwrap_or_default())?;
            let digests: Vec<_> = packed.records()?.iter().map(Digest::of).collect();
            partition.push(place, tag, Some(batch.checksum), &digests);
        }
    }
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(5);

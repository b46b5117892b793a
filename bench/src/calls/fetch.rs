//! `Fetch`: whole partitions from the start, for reading back and for measuring.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use oncelog_proto::{
    PackedBatch,
    v1::{self, broker_service_client::BrokerServiceClient},
};
use tonic::transport::Channel;

use super::connect;
use crate::{ledger::Ledger, load::Load};

/// In what form records are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Batches as they are stored.
    Packed,
    /// Records, one by one.
    Plain,
}

/// What was read, decoded no further than the form asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Records.
    pub records: u64,
    /// Bytes of what holds them: encoded sets, or values.
    pub bytes: u64,
}

/// Reads a partition from its start to its end, and checks that offsets follow one another.
///
/// # Errors
/// The stream fails, or an offset is not the next one.
pub async fn drain(channel: Channel, topic: &str, partition: u32, form: Form) -> anyhow::Result<Read> {
    let mut read = Read::default();
    let mut responses = open(channel, topic, partition, form, false).await?;
    while let Some(response) = responses.message().await? {
        for batch in &response.batches {
            let packed = batch.packed.as_ref().context("a batch without records")?;
            ensure!(u64::try_from(batch.base_offset)? == read.records, "offset {} after {}", batch.base_offset, read.records);
            read.records += u64::try_from(packed.record_count)?;
            read.bytes += packed.data.len() as u64;
        }
        for record in &response.records {
            ensure!(u64::try_from(record.offset)? == read.records, "offset {} after {}", record.offset, read.records);
            read.records += 1;
            read.bytes += record.record.as_ref().and_then(|record| record.value.as_ref()).map_or(0, |value| value.len() as u64);
        }
    }
    Ok(read)
}

/// A stream of one partition from its start; `follow` waits at the end for more.
///
/// # Errors
/// The broker refuses it.
pub async fn open(
    channel: Channel,
    topic: &str,
    partition: u32,
    form: Form,
    follow: bool,
) -> anyhow::Result<tonic::Streaming<v1::FetchResponse>> {
    let request = v1::FetchRequest {
        topic: topic.to_owned(),
        partition: i32::try_from(partition)?,
        follow,
        packed: form == Form::Packed,
        ..v1::FetchRequest::default()
    };
    let mut client = BrokerServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    Ok(client.fetch(request).await.context("a Fetch was refused")?.into_inner())
}

/// What has to be there when a load is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Every record.
    All,
    /// What retention has left: the log still counts all of them, and the rest is in order.
    Rest,
}

/// Reads every partition back into a ledger, which checks each record; how many there were.
///
/// # Errors
/// A stream fails, the ledger objects, or records are missing.
pub async fn verify(broker: SocketAddr, topic: &str, load: &Load, kept: Kept, mut ledger: Ledger<'_>) -> anyhow::Result<u64> {
    let channel = connect(broker).await?;
    let mut appended = 0;
    // One after the other. Streams that are open and not read would fill the window of the connection, and the one that is read
    // would wait for ever.
    for partition in 0..load.partitions {
        let mut responses = open(channel.clone(), topic, partition, Form::Packed, false).await?;
        ledger.next_partition();
        let mut end = 0;
        while let Some(response) = responses.message().await? {
            end = u64::try_from(response.log_end_offset)?;
            for batch in response.batches {
                let packed = PackedBatch::from_proto(batch.packed.context("a batch without records")?)?;
                for record in packed.read()? {
                    ledger.enter(record?.value.as_ref())?;
                }
            }
        }
        appended += end;
    }
    ensure!(appended == ledger.records(), "the partitions end at {appended} records together; {} were sent", ledger.records());
    match kept {
        Kept::All => ledger.close(),
        Kept::Rest => Ok(ledger.count()),
    }
}

/// Above any batch with its framing.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

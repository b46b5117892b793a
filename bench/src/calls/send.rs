//! Unary `Send` with one record, from many callers at once.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use oncelog_proto::v1::{self, producer_service_client::ProducerServiceClient};

use super::{Timed, connect, nanos_since};
use crate::{clock, load::Load, measured, pace, values::Values};

/// Most connections of all callers together; further callers share them.
pub const MAX_CONNECTIONS: usize = 8;

/// `load.unacknowledged` callers, each with one call out.
///
/// # Errors
/// A call fails.
pub async fn run(producer: SocketAddr, topic: &str, load: &Load, values: &Values) -> anyhow::Result<Timed> {
    let callers = load.unacknowledged;
    let mut channels = Vec::new();
    for _ in 0..callers.min(MAX_CONNECTIONS) {
        channels.push(connect(producer).await?);
    }
    let began = clock::now();
    let lanes = pace::lanes(load.records, callers, load.rate);
    let mut running = Vec::new();
    for (lane, mut turns) in lanes.into_iter().enumerate() {
        let mut client = ProducerServiceClient::new(channels[lane % channels.len()].clone());
        let (topic, values, partitions) = (topic.to_owned(), values.clone(), u64::from(load.partitions));
        running.push(tokio::spawn(async move {
            let mut latency = measured::nanos();
            while let Some(turn) = turns.next().await {
                let partition = i32::try_from(turn.number % partitions)?;
                let request = v1::SendRequest {
                    topic: topic.clone(),
                    partition: Some(partition),
                    records: vec![values.record(turn.number)],
                };
                let answer = client.send(request).await.context("a Send failed")?.into_inner();
                ensure!(answer.records.len() == 1, "{} answers for one record", answer.records.len());
                latency.saturating_record(nanos_since(turn.due));
            }
            anyhow::Ok(latency)
        }));
    }
    let mut latency = measured::nanos();
    for task in running {
        latency.add(task.await??)?;
    }
    Ok(Timed { records: load.records, took: began.elapsed(), latency })
}

/// Who sent a record.
pub fn lane_of(callers: usize) -> impl Fn(u64) -> usize {
    move |number| usize::try_from(number).unwrap_or_default() % callers
}

//! `Fetch` that follows the end of a partition: from when a record was due to be produced until the follower has it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt};

use super::{
    Services,
    calling::{Content, TOPIC},
    services::{self, Settings, create_topic},
};
use crate::{
    calls::{Timed, connect, fetch, produce},
    candidate::{Candidate, Place},
    clock,
    load::Load,
    measured::{self, Measured},
    pace,
};

/// One producer and one follower of one partition. The load has a rate; its latency is that of the follower.
#[derive(Clone, Copy, Debug)]
pub struct Tailing {
    /// Of one producer, with one batch a call.
    pub shape: produce::Shape,
}

#[tonic::async_trait(?Send)]
impl Candidate for Tailing {
    async fn run(&self, load: &Load, place: Place<'_>) -> anyhow::Result<Measured> {
        let shape = self.shape;
        anyhow::ensure!(load.partitions == 1 && shape.producers == 1 && shape.batches == 1, "one producer, one partition");
        let services = Services::start_broker(&Settings::default(), &services::data(place.run), place.run).await?;
        let broker = services.broker_address;
        create_topic(broker, TOPIC, 1).await?;
        let values = Content::Random.values(load);
        let call_records = shape.call_records(&values);
        let calls = load.records.div_ceil(call_records);
        let mut producer = produce::Producer::start(broker, TOPIC, 0, shape, 1).await?;
        let channel = connect(broker).await?;
        let due: Arc<Mutex<VecDeque<std::time::Instant>>> = Arc::default();
        let mut responses = fetch::open(channel, TOPIC, 0, fetch::Form::Packed, true).await?;

        services.rest().await?;
        let usage = services.usage()?;
        let began = clock::now();
        let noted = Arc::clone(&due);
        let turns = pace::lanes(calls, 1, load.rate.map(|rate| rate / call_records as f64)).remove(0);
        let producing = tokio::spawn(async move {
            let called = turns.map(|turn| {
                noted.lock().unwrap_or_else(PoisonError::into_inner).push_back(turn.due);
                producer.call(turn, &values)
            });
            called.buffer_unordered(shape.outstanding).try_for_each(async |_| Ok(())).await
        });
        let mut latency = measured::nanos();
        while latency.len() < calls {
            let response = responses.message().await?.context("the stream that follows has ended")?;
            for _ in &response.batches {
                let due = due.lock().unwrap_or_else(PoisonError::into_inner).pop_front().context("more batches than calls")?;
                latency.saturating_record(u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
        }
        let took = began.elapsed();
        producing.await??;
        let mut measured = Timed { records: calls * call_records, took, latency }.measured(load);
        usage.end(&mut measured)?;
        let (values, lane_of) = (Content::Random.values(load), |_: u64| 0);
        let ledger = crate::ledger::Ledger::new(&values, measured.records, 1, &lane_of);
        measured.verified = fetch::verify(broker, TOPIC, load, fetch::Kept::All, ledger).await?;
        drop(responses);
        services.stop().await?;
        Ok(measured)
    }
}

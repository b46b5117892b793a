//! What it costs to know many producers: memory, and time per call.

use std::{cell::Cell, path::PathBuf};

use super::{
    Services,
    calling::Content,
    services::{Settings, create_topic},
};
use crate::{
    calls::{fetch, produce},
    candidate::{Candidate, Place},
    ledger::Ledger,
    load::Load,
    measured::Measured,
};

/// A broker that knows so many producers, each with a window in one partition, and is called by a few others.
///
/// They are made known through the API, once a row: `InitProducerId` and a `Produce` of one record for each. Every run then
/// starts a broker on what that left, so that the memory that is idle is that of a state read from disk.
#[derive(Debug)]
pub struct KnownProducers {
    count: u64,
    shape: produce::Shape,
    runs: Cell<u32>,
}

impl KnownProducers {
    /// `count` beside the few of `shape`.
    pub fn new(count: u64, shape: produce::Shape) -> Self {
        Self { count, shape, runs: Cell::new(0) }
    }

    async fn data(&self, place: Place<'_>, settings: &Settings) -> anyhow::Result<PathBuf> {
        let data = place.row.join(format!("known-{}", self.count));
        if !data.is_dir() {
            let services = Services::start_broker(settings, &data, place.row).await?;
            let values = crate::values::Values::random(crate::values::MIN_BYTES);
            create_topic(services.broker_address, "known", 1).await?;
            produce::introduce(services.broker_address, "known", self.count, AT_ONCE, &values).await?;
            services.stop().await?;
        }
        Ok(data)
    }
}

#[tonic::async_trait(?Send)]
impl Candidate for KnownProducers {
    async fn run(&self, load: &Load, place: Place<'_>) -> anyhow::Result<Measured> {
        let settings = Settings::default();
        let data = self.data(place, &settings).await?;
        let run = self.runs.get();
        self.runs.set(run + 1);
        let services = Services::start_broker(&settings, &data, place.run).await?;
        let (broker, values) = (services.broker_address, Content::Random.values(load));
        let (warm, topic) = (format!("warm-{run}"), format!("load-{run}"));
        for topic in [&warm, &topic] {
            create_topic(broker, topic, load.partitions).await?;
        }
        let usage = services.usage()?;
        produce::run(broker, &warm, self.shape, &Load { records: load.records.div_ceil(20), ..*load }, &values).await?;
        services.rest().await?;
        let idle = usage;
        let usage = services.usage()?;
        let timed = produce::run(broker, &topic, self.shape, load, &values).await?;
        let mut measured = timed.measured(load);
        usage.end(&mut measured)?;
        // Idle is before anything was sent, the first load included.
        let mut before = Measured::default();
        idle.end(&mut before)?;
        measured.idle_bytes = before.idle_bytes;
        let lane_of = self.shape.lane_of(&values);
        let ledger = Ledger::new(&values, timed.records, self.shape.producers, &lane_of);
        measured.verified = fetch::verify(broker, &topic, load, fetch::Kept::All, ledger).await?;
        services.stop().await?;
        Ok(measured)
    }
}

/// Calls that are out while producers are made known.
const AT_ONCE: usize = 512;

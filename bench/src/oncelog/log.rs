//! A log that several candidates of a row read: made once, by the broker, from `Produce` calls.

use std::{cell::Cell, path::PathBuf};

use super::{
    calling::{Content, TOPIC},
    services::{self, Services, Settings, create_topic},
};
use crate::{
    calls::{fetch, produce},
    candidate::Place,
    ledger::Ledger,
    limits::Log,
    load::Load,
};

/// The load of the row, written and read back.
#[derive(Debug)]
pub struct PreparedLog {
    /// How it is written.
    pub shape: produce::Shape,
    /// What the broker is started with.
    pub settings: Settings,
    /// Is it there?
    pub is_made: Cell<bool>,
}

impl PreparedLog {
    /// One that is not there yet.
    pub fn new(shape: produce::Shape) -> Self {
        Self { shape, settings: Settings::default(), is_made: Cell::new(false) }
    }
}

#[tonic::async_trait(?Send)]
impl Log for PreparedLog {
    async fn directory(&self, load: &Load, place: Place<'_>) -> anyhow::Result<PathBuf> {
        let data = services::data(place.row);
        if !self.is_made.get() {
            let services = Services::start_broker(&self.settings, &data, place.row).await?;
            let broker = services.broker_address;
            create_topic(broker, TOPIC, load.partitions).await?;
            let values = Content::Random.values(load);
            let written = produce::run(broker, TOPIC, self.shape, load, &values).await?;
            let lane_of = self.shape.lane_of(&values);
            let ledger = Ledger::new(&values, written.records, self.shape.producers, &lane_of);
            fetch::verify(broker, TOPIC, load, fetch::Kept::All, ledger).await?;
            services.stop().await?;
            self.is_made.set(true);
        }
        Ok(data)
    }
}

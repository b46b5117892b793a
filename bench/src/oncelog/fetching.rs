//! `Fetch` of a whole topic from its start.

use std::rc::Rc;

use tokio::task::JoinSet;

use super::{PreparedLog, Services, calling::TOPIC};
use crate::{
    calls::{connect, fetch},
    candidate::{Candidate, Place},
    clock,
    limits::{self, Log},
    load::Load,
    measured::Measured,
};

/// All partitions at once, over one connection.
#[derive(Debug)]
pub struct Fetching {
    /// What is read.
    pub log: Rc<PreparedLog>,
    /// From the disk, and not from the kernel's memory.
    pub is_cold: bool,
    /// In what form.
    pub form: fetch::Form,
}

#[tonic::async_trait(?Send)]
impl Candidate for Fetching {
    async fn run(&self, load: &Load, place: Place<'_>) -> anyhow::Result<Measured> {
        let data = self.log.directory(load, place).await?;
        let services = Services::start_broker(&self.log.settings, &data, place.run).await?;
        if self.is_cold {
            limits::drop_caches()?;
        } else {
            limits::warm(&data)?;
        }
        let channel = connect(services.broker_address).await?;
        let usage = services.usage()?;
        let began = clock::now();
        let mut reading = JoinSet::new();
        for partition in 0..load.partitions {
            reading.spawn(fetch::drain(channel.clone(), TOPIC, partition, self.form));
        }
        let mut read = fetch::Read::default();
        while let Some(partition) = reading.join_next().await {
            let partition = partition??;
            read.records += partition.records;
            read.bytes += partition.bytes;
        }
        let seconds = began.elapsed().as_secs_f64();
        // The records themselves were compared when the log was made; here it is their number and the chain of offsets.
        let mut measured =
            Measured { records: read.records, payload_bytes: read.bytes, seconds, verified: read.records, ..Measured::default() };
        usage.end(&mut measured)?;
        services.stop().await?;
        anyhow::ensure!(read.records >= load.records, "{} records came of {}", read.records, load.records);
        Ok(measured)
    }
}

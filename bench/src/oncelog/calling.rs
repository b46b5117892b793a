//! Calls to oncelog, and the same calls to bare servers.

use std::{cell::Cell, net::SocketAddr, rc::Rc};

use super::services::{self, Services, Settings, create_topic};
use crate::{
    bare,
    calls::{Timed, fetch, produce, send, stream},
    candidate::{Candidate, Place},
    ledger::{LaneOf, Ledger},
    load::Load,
    measured::Measured,
    process::{Server, Usage},
    values::Values,
};

/// What is called, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// `Produce` to the broker.
    Produce(produce::Shape),
    /// `Send` of one record to the producer.
    Send,
    /// `SendStream` to the producer.
    Stream(stream::Shape),
}

/// What the values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// They cannot be compressed.
    Random,
    /// Events in JSON.
    Json,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// The services: broker-svc alone for `Produce`, else both.
    Oncelog(Settings),
    /// A server that does nothing.
    Sink,
    /// A server that hands everything on to one that does nothing.
    Relay,
}

/// Calls of a kind to a side.
#[derive(Clone, Debug)]
pub struct Calling {
    /// What is called.
    pub calls: Calls,
    /// What is sent.
    pub content: Content,
    /// Who answers.
    pub side: Side,
    /// Told how large the groups of the journal were, on average.
    pub group_bytes: Rc<Cell<usize>>,
}

#[tonic::async_trait(?Send)]
impl Candidate for Calling {
    async fn run(&self, load: &Load, place: Place<'_>) -> anyhow::Result<Measured> {
        let values = self.content.values(load);
        match &self.side {
            Side::Oncelog(settings) => self.oncelog(settings, load, &values, place).await,
            Side::Sink => {
                let (sink, address) = bare::start_sink(place.run).await?;
                self.prepare(address, address, load, &values).await?;
                let usage = Usage::begin(&[&sink])?;
                let timed = self.calls.run(address, TOPIC, load, &values).await?;
                finish(&timed, load, usage, vec![sink]).await
            }
            Side::Relay => {
                let (sink, sink_address) = bare::start_sink(place.run).await?;
                let (relay, address) = bare::start_relay(sink_address, place.run).await?;
                self.prepare(sink_address, address, load, &values).await?;
                let usage = Usage::begin(&[&relay, &sink])?;
                let timed = self.calls.run(address, TOPIC, load, &values).await?;
                finish(&timed, load, usage, vec![relay, sink]).await
            }
        }
    }
}

impl Calling {
    async fn oncelog(&self, settings: &Settings, load: &Load, values: &Values, place: Place<'_>) -> anyhow::Result<Measured> {
        let mut services = Services::start_broker(settings, &services::data(place.run), place.run).await?;
        let broker = services.broker_address;
        let to = match self.calls {
            Calls::Produce(_) => broker,
            Calls::Send | Calls::Stream(_) => services.start_producer(settings, place.run).await?,
        };
        self.prepare(broker, to, load, values).await?;
        services.rest().await?;
        let (before, usage) = (services.journal().await?, services.usage()?);
        let timed = self.calls.run(to, TOPIC, load, values).await?;
        let mut measured = timed.measured(load);
        usage.end(&mut measured)?;
        let after = services.journal().await?;
        let groups = usize::try_from((after.groups - before.groups).max(1))?;
        self.group_bytes.set(usize::try_from(timed.records)? * values.encoded_len() / groups);
        // Retention may have made it smaller; then this is not known.
        measured.disk_bytes = after.bytes.checked_sub(before.bytes);
        measured.verified = self.verify(broker, timed.records, load, values, settings).await?;
        services.stop().await?;
        Ok(measured)
    }

    /// Topics, and a small load of the same kind that nobody looks at.
    async fn prepare(&self, broker: SocketAddr, to: SocketAddr, load: &Load, values: &Values) -> anyhow::Result<()> {
        create_topic(broker, WARM_TOPIC, load.partitions).await?;
        create_topic(broker, TOPIC, load.partitions).await?;
        let warm = Load { records: load.records.div_ceil(WARM_SHARE), ..*load };
        self.calls.run(to, WARM_TOPIC, &warm, values).await.map(drop)
    }

    async fn verify(
        &self,
        broker: SocketAddr,
        records: u64,
        load: &Load,
        values: &Values,
        settings: &Settings,
    ) -> anyhow::Result<u64> {
        let is_trimmed = settings.broker.iter().any(|flag| flag.starts_with("--retention-bytes"));
        let kept = if is_trimmed { fetch::Kept::Rest } else { fetch::Kept::All };
        let (lanes, lane_of): (usize, Box<LaneOf>) = match self.calls {
            Calls::Produce(shape) => (shape.producers, Box::new(shape.lane_of(values))),
            Calls::Send => (load.unacknowledged, Box::new(send::lane_of(load.unacknowledged))),
            Calls::Stream(shape) => (shape.streams, Box::new(shape.lane_of())),
        };
        fetch::verify(broker, TOPIC, load, kept, Ledger::new(values, records, lanes, &*lane_of)).await
    }
}

impl Calls {
    async fn run(self, to: SocketAddr, topic: &str, load: &Load, values: &Values) -> anyhow::Result<Timed> {
        match self {
            Self::Produce(shape) => produce::run(to, topic, shape, load, values).await,
            Self::Send => send::run(to, topic, load, values).await,
            Self::Stream(shape) => stream::run(to, topic, shape, load, values).await,
        }
    }
}

impl Content {
    pub(super) fn values(self, load: &Load) -> Values {
        match self {
            Self::Random => Values::random(load.record_bytes),
            Self::Json => Values::json(load.record_bytes),
        }
    }
}

async fn finish(timed: &Timed, load: &Load, usage: Usage, servers: Vec<Server>) -> anyhow::Result<Measured> {
    let mut measured = timed.measured(load);
    usage.end(&mut measured)?;
    for server in servers {
        server.stop().await?;
    }
    Ok(measured)
}

/// What is measured.
pub(super) const TOPIC: &str = "load";
const WARM_TOPIC: &str = "warm";
/// So small a part of the load is sent beforehand.
const WARM_SHARE: u64 = 20;

//! Starting and stopping both services, and what the broker tells of its journal.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use oncelog_proto::v1::{self, broker_service_client::BrokerServiceClient};

use tokio::time::sleep;

use super::binaries;
use crate::{
    calls,
    metric::BROKER,
    process::{self, Server, Usage, http_get},
};

/// Flags (`--key=value`) beside the addresses; none is the default configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Of broker-svc.
    pub broker: Vec<String>,
    /// Of producer-svc.
    pub producer: Vec<String>,
    /// Variables for both.
    pub environment: Vec<(String, String)>,
}

/// A running broker, and maybe a producer before it.
#[derive(Debug)]
pub struct Services {
    broker: Server,
    producer: Option<Server>,
    /// Where the broker takes calls.
    pub broker_address: SocketAddr,
    admin: SocketAddr,
    data: PathBuf,
    started_in: Duration,
}

/// What the journal consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    /// Bytes of its segments.
    pub bytes: u64,
    /// Groups that are durable.
    pub groups: u64,
    /// Segments.
    pub segments: u64,
}

impl Services {
    /// Starts a broker on `data`.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start_broker(settings: &Settings, data: &Path, logs: &Path) -> anyhow::Result<Self> {
        let (listen, admin) = (process::free_address()?, process::free_address()?);
        let mut args =
            vec![format!("--listen={listen}"), format!("--admin-listen={admin}"), format!("--data-dir={}", data.display())];
        args.extend(settings.broker.iter().cloned());
        let mut broker = Server::start_with(BROKER, &binaries::path(BROKER)?, args, &settings.environment, logs)?;
        let started_in = broker.ready(async || http_get(admin, "/readyz").await.is_some()).await?;
        Ok(Self { broker, producer: None, broker_address: listen, admin, data: data.to_owned(), started_in })
    }

    /// Starts a producer before it; its address.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start_producer(&mut self, settings: &Settings, logs: &Path) -> anyhow::Result<SocketAddr> {
        let (listen, admin) = (process::free_address()?, process::free_address()?);
        let mut args = vec![
            format!("--listen={listen}"),
            format!("--admin-listen={admin}"),
            format!("--broker=http://{}", self.broker_address),
        ];
        args.extend(settings.producer.iter().cloned());
        let mut producer =
            Server::start_with("producer-svc", &binaries::path("producer-svc")?, args, &settings.environment, logs)?;
        producer.ready(async || http_get(admin, "/readyz").await.is_some()).await?;
        self.producer = Some(producer);
        Ok(listen)
    }

    /// How long the broker took from the start of its process until it was ready.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// What both use from now on.
    ///
    /// # Errors
    /// One has ended.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let servers: Vec<&Server> = [Some(&self.broker), self.producer.as_ref()].into_iter().flatten().collect();
        Usage::begin(&servers)
    }

    /// Lets the broker rest until it has the spare that it makes when it is quiet, as every broker has that is not in its first
    /// seconds. One that makes none is not waited for for ever.
    ///
    /// # Errors
    /// Its directory cannot be read.
    pub async fn rest(&self) -> anyhow::Result<()> {
        for _ in 0..MOST_LOOKS {
            for entry in std::fs::read_dir(&self.data).context("reading the broker's directory")? {
                let name = entry?.file_name();
                if name.to_str().is_some_and(|name| name.starts_with("spare-") && !name.contains('.')) {
                    return Ok(());
                }
            }
            sleep(SPARE_PAUSE).await;
        }
        Ok(())
    }

    /// What the journal consists of, after a rest in which the broker gets to look: it does so once a second.
    ///
    /// # Errors
    /// The broker does not tell.
    pub async fn journal(&self) -> anyhow::Result<Journal> {
        sleep(LOOK_PAUSE).await;
        let text = http_get(self.admin, "/metrics").await.context("the broker tells no metrics")?;
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|number| number.parse::<u64>().ok()).with_context(|| format!("the broker tells no {name}"))
        };
        Ok(Journal {
            bytes: number("oncelog_broker_journal_bytes")?,
            groups: number("oncelog_broker_journal_groups_total")?,
            segments: number("oncelog_broker_journal_segments")?,
        })
    }

    /// SIGTERM to both, the producer first.
    ///
    /// # Errors
    /// One does not end well.
    pub async fn stop(self) -> anyhow::Result<()> {
        if let Some(producer) = self.producer {
            producer.stop().await?;
        }
        self.broker.stop().await
    }
}

/// A little longer than the broker's own.
const LOOK_PAUSE: Duration = Duration::from_millis(1_100);

/// Between two looks for a spare.
const SPARE_PAUSE: Duration = Duration::from_millis(100);
/// Ten seconds.
const MOST_LOOKS: u32 = 100;

/// Where runs of a row keep their data.
pub(super) fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// Creates a topic.
///
/// # Errors
/// It exists, or has too many partitions.
pub(super) async fn create_topic(broker: SocketAddr, topic: &str, partitions: u32) -> anyhow::Result<()> {
    let mut client = BrokerServiceClient::new(calls::connect(broker).await?);
    let request = v1::CreateTopicRequest { topic: topic.to_owned(), partitions: i32::try_from(partitions)? };
    client.create_topic(request).await.with_context(|| format!("the topic {topic} cannot be created"))?;
    Ok(())
}

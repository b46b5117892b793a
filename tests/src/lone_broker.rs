//! A broker-svc process on its own, spoken to by its contract.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, ensure};
use oncelog_chaos::{
    port,
    process::{Process, get},
};
use oncelog_proto::v1::{self, broker_service_client::BrokerServiceClient};
use tokio::time::{sleep, timeout};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{binaries, workplace::Workplace};

/// A generated client.
pub type Client = BrokerServiceClient<Channel>;

/// A broker with its data in a directory of its own.
#[derive(Debug)]
pub struct LoneBroker {
    process: Option<Process>,
    flags: Vec<String>,
    listen: SocketAddr,
    admin: SocketAddr,
    data: PathBuf,
    // The last to go: nobody writes there any more.
    workplace: Workplace,
}

impl LoneBroker {
    /// Starts it with `flags` (`--key=value`) added, and waits until it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(flags: &[&str]) -> anyhow::Result<Self> {
        let workplace = Workplace::new();
        let data = workplace.path("data");
        Self::start_at(data, workplace, flags).await
    }

    /// The same, with its data in a directory of the caller's.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_in(data: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_at(data.to_owned(), Workplace::new(), flags).await
    }

    async fn start_at(data: PathBuf, workplace: Workplace, flags: &[&str]) -> anyhow::Result<Self> {
        let (listen, admin) = (port::free(), port::free());
        let mut all =
            vec![format!("--listen={listen}"), format!("--admin-listen={admin}"), format!("--data-dir={}", data.display())];
        all.extend(flags.iter().map(|&flag| flag.to_owned()));
        let mut broker = Self { process: None, flags: all, listen, admin, data, workplace };
        broker.launch().await?;
        Ok(broker)
    }

    /// SIGKILL, and a start on the same data.
    ///
    /// # Errors
    /// It had ended by itself, or does not start again.
    pub async fn kill_and_restart(&mut self) -> anyhow::Result<()> {
        self.process.take().context("it runs")?.kill().await?;
        self.launch().await
    }

    /// Waits until it ends by itself; tells how, and everything that it said.
    ///
    /// # Errors
    /// It goes on.
    pub async fn ended(&mut self) -> anyhow::Result<(ExitStatus, String)> {
        let process = self.process.as_mut().context("it runs")?;
        let ended = (process.wait_for_end().await?, process.log()?);
        self.process = None;
        Ok(ended)
    }

    /// A start on the same data, after it ended.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        ensure!(self.process.is_none(), "it runs");
        self.launch().await
    }

    /// SIGTERM, and a start on the same data.
    ///
    /// # Errors
    /// It did not end well, or does not start again.
    pub async fn stop_and_restart(&mut self) -> anyhow::Result<()> {
        let status = self.process.take().context("it runs")?.terminate().await?;
        ensure!(status.success(), "the broker ended with {status}");
        self.launch().await
    }

    /// Another value of a flag (`--key=value`), from the next start on.
    pub fn set(&mut self, flag: &str) {
        let key = flag.split_once('=').map_or(flag, |(key, _)| key);
        self.flags.retain(|old| old.split_once('=').is_none_or(|(old, _)| old != key));
        self.flags.push(flag.to_owned());
    }

    async fn launch(&mut self) -> anyhow::Result<()> {
        let mut process = Process::start(&binaries::program("broker-svc"), &self.flags, &self.workplace.path("broker.log"))?;
        process.ready(self.admin).await?;
        self.process = Some(process);
        Ok(())
    }

    /// A client with a connection of its own, made when it is used. It takes answers of any size.
    ///
    /// # Panics
    /// Never: the address is valid.
    pub fn client(&self) -> Client {
        BrokerServiceClient::new(self.channel()).max_decoding_message_size(usize::MAX)
    }

    /// A connection, made when it is used.
    ///
    /// # Panics
    /// Never: the address is valid.
    pub fn channel(&self) -> Channel {
        Endpoint::new(format!("http://{}", self.listen)).expect("an address").connect_lazy()
    }

    /// Where its data is.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listen
    }

    /// The most memory that the process ever had, in bytes.
    ///
    /// # Errors
    /// It does not run, or not on Linux.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        self.process.as_ref().context("it runs")?.peak_memory()
    }

    /// One sample of `/metrics`, by its name and labels.
    ///
    /// # Errors
    /// There is none.
    pub async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let text = get(self.admin, "/metrics").await?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("there is no metric {name}"))?.parse()?)
    }

    /// Waits until a metric is at least `least`.
    ///
    /// # Errors
    /// It is not after 30 seconds.
    pub async fn metric_reaches(&self, name: &str, least: u64) -> anyhow::Result<()> {
        self.metric_becomes(name, |value| value >= least).await
    }

    /// Waits until a metric is as it should be.
    ///
    /// # Errors
    /// It is not after 30 seconds.
    pub async fn metric_becomes(&self, name: &str, is_right: impl Fn(u64) -> bool) -> anyhow::Result<()> {
        let wait = async {
            while !is_right(self.metric(name).await?) {
                sleep(Duration::from_millis(2)).await;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, wait).await.with_context(|| format!("{name} does not become what it should"))?
    }
}

/// Everything that a Fetch answers, to its end.
///
/// # Errors
/// The status that it is refused or ends with.
pub async fn fetch(client: &mut Client, request: v1::FetchRequest) -> Result<Vec<v1::FetchResponse>, Status> {
    let mut stream = client.fetch(request).await?.into_inner();
    let mut responses = Vec::new();
    while let Some(response) = stream.message().await? {
        responses.push(response);
    }
    Ok(responses)
}

const PATIENCE: Duration = Duration::from_secs(30);

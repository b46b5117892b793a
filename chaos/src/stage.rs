//! Broker, producer, and the networks between them and their callers:
//!
//! ```text
//! callers ──callers──▶ producer-svc ──inner──▶ broker-svc ◀──clients── raw producers, readers
//! ```

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use tonic::transport::{Channel, Endpoint};

use crate::{
    port,
    process::{Process, get},
    program::Programs,
    proxy::Proxy,
};

/// Both services, with networks in between that can be broken.
#[derive(Debug)]
pub struct Stage {
    programs: Programs,
    /// Where the logs of the processes go.
    logs: PathBuf,
    broker_args: Vec<String>,
    producer_args: Vec<String>,
    /// Where the producer calls the broker.
    way_to_broker: SocketAddr,
    /// Between producer and broker.
    pub inner: Proxy,
    /// Between callers of `Send` and the producer.
    pub callers: Proxy,
    /// Between raw producers or readers and the broker.
    pub clients: Proxy,
    broker: Option<Process>,
    producer: Option<Process>,
    broker_addr: SocketAddr,
    broker_admin: SocketAddr,
    producer_addr: SocketAddr,
    producer_admin: SocketAddr,
}

impl Stage {
    /// Starts both, with arguments added, and waits until they are ready. The broker's data goes to `data`, what they say to
    /// `logs`.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start(
        programs: Programs,
        data: &Path,
        logs: &Path,
        broker_args: &[String],
        producer_args: &[String],
    ) -> anyhow::Result<Self> {
        let mut stage = Self::prepare(programs, data, logs, broker_args, producer_args).await?;
        stage.up().await?;
        Ok(stage)
    }

    /// The networks are there, and no process yet: see [`Self::start`].
    ///
    /// # Errors
    /// No port can be bound.
    pub async fn prepare(
        programs: Programs,
        data: &Path,
        logs: &Path,
        broker_args: &[String],
        producer_args: &[String],
    ) -> anyhow::Result<Self> {
        let [broker_addr, broker_admin, producer_addr, producer_admin] = std::array::from_fn(|_| port::free());
        let inner = Proxy::start(broker_addr).await?;
        let clients = Proxy::start(broker_addr).await?;
        let callers = Proxy::start(producer_addr).await?;
        let mut all_broker_args = vec![
            format!("--listen={broker_addr}"),
            format!("--admin-listen={broker_admin}"),
            format!("--data-dir={}", data.display()),
        ];
        all_broker_args.extend_from_slice(broker_args);
        let mut all_producer_args = vec![format!("--listen={producer_addr}"), format!("--admin-listen={producer_admin}")];
        all_producer_args.extend_from_slice(producer_args);
        Ok(Self {
            programs,
            logs: logs.to_owned(),
            broker_args: all_broker_args,
            producer_args: all_producer_args,
            way_to_broker: inner.addr(),
            inner,
            callers,
            clients,
            broker: None,
            producer: None,
            broker_addr,
            broker_admin,
            producer_addr,
            producer_admin,
        })
    }

    /// The producer calls the broker at this address, from its next start on. Default: [`Self::inner`].
    pub fn lead_producer_by(&mut self, addr: SocketAddr) {
        self.way_to_broker = addr;
    }

    /// Starts both, and waits until they are ready.
    ///
    /// # Errors
    /// One of them is up already, or does not start.
    pub async fn up(&mut self) -> anyhow::Result<()> {
        self.restart_broker().await?;
        self.restart_producer().await
    }

    /// The broker's process.
    ///
    /// # Errors
    /// It is down.
    pub fn broker(&mut self) -> anyhow::Result<&mut Process> {
        self.broker.as_mut().context("the broker is down")
    }

    /// The producer's process.
    ///
    /// # Errors
    /// It is down.
    pub fn producer(&mut self) -> anyhow::Result<&mut Process> {
        self.producer.as_mut().context("the producer is down")
    }

    /// The broker's process, for whoever ends it.
    ///
    /// # Errors
    /// It is down already.
    pub fn take_broker(&mut self) -> anyhow::Result<Process> {
        self.broker.take().context("the broker is down already")
    }

    /// The producer's process, for whoever ends it.
    ///
    /// # Errors
    /// It is down already.
    pub fn take_producer(&mut self) -> anyhow::Result<Process> {
        self.producer.take().context("the producer is down already")
    }

    /// Kills the broker with SIGKILL.
    ///
    /// # Errors
    /// It had ended by itself, or is down already.
    pub async fn kill_broker(&mut self) -> anyhow::Result<()> {
        self.take_broker()?.kill().await
    }

    /// Starts the broker on the same data, and does not wait.
    ///
    /// # Errors
    /// It is up already, or cannot be started.
    pub fn launch_broker(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.broker.is_none(), "the broker is up already");
        let log = self.logs.join("broker.log");
        self.broker = Some(Process::start(&self.programs.broker, &self.broker_args, &log)?);
        Ok(())
    }

    /// Starts the broker on the same data and waits until it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_broker(&mut self) -> anyhow::Result<()> {
        self.launch_broker()?;
        self.broker_ready().await
    }

    /// Waits until the broker is ready.
    ///
    /// # Errors
    /// It is down, or does not become ready.
    pub async fn broker_ready(&mut self) -> anyhow::Result<()> {
        let admin = self.broker_admin;
        self.broker()?.ready(admin).await
    }

    /// Starts the producer and waits until it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_producer(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.producer.is_none(), "the producer is up already");
        let log = self.logs.join("producer.log");
        let mut args = self.producer_args.clone();
        args.push(format!("--broker=http://{}", self.way_to_broker));
        let mut producer = Process::start(&self.programs.producer, &args, &log)?;
        producer.ready(self.producer_admin).await?;
        self.producer = Some(producer);
        Ok(())
    }

    /// Kills the producer with SIGKILL.
    ///
    /// # Errors
    /// It had ended by itself, is down already, or has raised an alarm.
    pub async fn kill_producer(&mut self) -> anyhow::Result<()> {
        // It takes the count along.
        self.no_alarms().await?;
        self.take_producer()?.kill().await
    }

    /// Nobody shares the producer's id here, no topic is deleted and no disk forgets: whatever it finds wrong is wrong.
    ///
    /// # Errors
    /// The producer has raised an alarm since it was started, or does not say.
    pub async fn no_alarms(&self) -> anyhow::Result<()> {
        let metrics = get(self.producer_admin, "/metrics").await?;
        let alarms = metrics.lines().find_map(|line| line.strip_prefix("oncelog_producer_alarms_total "));
        let alarms: u64 = alarms.context("the producer does not count its alarms")?.trim().parse()?;
        anyhow::ensure!(alarms == 0, "the producer has raised {alarms} alarms: see {}", self.logs.join("producer.log").display());
        Ok(())
    }

    /// All networks forward everything again.
    pub fn heal(&self) {
        for network in [&self.inner, &self.callers, &self.clients] {
            network.heal();
        }
    }

    /// SIGTERM to both, the producer first.
    ///
    /// # Errors
    /// One of them does not end well.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for process in [self.producer.take(), self.broker.take()].into_iter().flatten() {
            let name = process.name().to_owned();
            let status = process.terminate().await?;
            anyhow::ensure!(status.success(), "{name} ended with {status}");
        }
        Ok(())
    }

    /// Where the broker itself listens.
    pub fn broker_addr(&self) -> SocketAddr {
        self.broker_addr
    }

    /// Where the producer itself listens.
    pub fn producer_addr(&self) -> SocketAddr {
        self.producer_addr
    }
}

/// A connection to an address, made when it is used.
///
/// # Panics
/// Never: the address is valid.
pub fn channel(addr: SocketAddr) -> Channel {
    Endpoint::new(format!("http://{addr}")).expect("an address").connect_lazy()
}

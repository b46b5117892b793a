//! Broker, proxy and producer, put together: `oncelog send → producer-svc → proxy → broker-svc`.

use std::{net::SocketAddr, process::Output};

use anyhow::Context;
use tonic::transport::{Channel, Endpoint};

use crate::{
    binaries, port,
    process::{Process, Workplace},
    proxy::Proxy,
};

/// Both services, with a network in between that can be broken.
#[derive(Debug)]
pub struct Stack {
    /// Where data and logs are.
    pub workplace: Workplace,
    /// Between producer and broker.
    pub proxy: Proxy,
    /// The producer's process.
    pub producer: Process,
    broker: Option<Process>,
    broker_addr: SocketAddr,
    broker_admin: SocketAddr,
    producer_addr: SocketAddr,
}

impl Stack {
    /// Starts both, the producer with `producer_args` added, and waits until they are ready.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start(producer_args: &[&str]) -> anyhow::Result<Self> {
        let workplace = Workplace::new();
        let (broker_addr, broker_admin) = (port::free(), port::free());
        let (producer_addr, producer_admin) = (port::free(), port::free());
        let proxy = Proxy::start(broker_addr).await?;
        let mut broker = start_broker(&workplace, broker_addr, broker_admin)?;
        broker.ready(broker_admin).await?;
        let mut args = vec![
            format!("--listen={producer_addr}"),
            format!("--admin-listen={producer_admin}"),
            format!("--broker=http://{}", proxy.addr()),
        ];
        args.extend(producer_args.iter().map(|&arg| arg.to_owned()));
        let mut producer = Process::start("producer-svc", &args, &workplace.path("producer.log"))?;
        producer.ready(producer_admin).await?;
        Ok(Self { workplace, proxy, producer, broker: Some(broker), broker_addr, broker_admin, producer_addr })
    }

    /// Kills the broker with SIGKILL.
    ///
    /// # Errors
    /// It had ended by itself, or is down already.
    pub async fn kill_broker(&mut self) -> anyhow::Result<()> {
        self.broker.take().context("the broker is down already")?.kill().await
    }

    /// Starts the broker again on the same data and waits until it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_broker(&mut self) -> anyhow::Result<()> {
        self.launch_broker()?;
        self.broker.as_mut().context("just started")?.ready(self.broker_admin).await
    }

    /// Starts the broker again on the same data, and does not wait.
    ///
    /// # Errors
    /// It is up already, or cannot be started.
    pub fn launch_broker(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.broker.is_none(), "the broker is up already");
        self.broker = Some(start_broker(&self.workplace, self.broker_addr, self.broker_admin)?);
        Ok(())
    }

    /// A way to the broker itself, not by the proxy; connects when it is used.
    ///
    /// # Errors
    /// None: the address is valid.
    pub fn broker_channel(&self) -> anyhow::Result<Channel> {
        Ok(Endpoint::new(format!("http://{}", self.broker_addr))?.connect_lazy())
    }

    /// `--broker` for commands: the broker itself, not by way of the proxy.
    pub fn broker_flag(&self) -> String {
        format!("--broker=http://{}", self.broker_addr)
    }

    /// `--producer` for commands.
    pub fn producer_flag(&self) -> String {
        format!("--producer=http://{}", self.producer_addr)
    }

    /// Runs `oncelog fetch` on the broker.
    ///
    /// # Errors
    /// It fails; the message is what it says.
    pub async fn fetch(&self, args: &[&str]) -> anyhow::Result<Vec<u8>> {
        let mut command = binaries::command("oncelog");
        command.arg("fetch").arg(self.broker_flag()).args(args);
        succeeded(command.output().await?)
    }
}

fn start_broker(workplace: &Workplace, listen: SocketAddr, admin: SocketAddr) -> anyhow::Result<Process> {
    let args = [
        format!("--listen={listen}"),
        format!("--admin-listen={admin}"),
        format!("--data-dir={}", workplace.path("data").display()),
        // Small, so that a run goes over many of them.
        "--segment-bytes=4194304".to_owned(),
    ];
    Process::start("broker-svc", &args, &workplace.path("broker.log"))
}

/// The stdout of a command that went well.
///
/// # Errors
/// It did not; the message is what it said.
pub fn succeeded(output: Output) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

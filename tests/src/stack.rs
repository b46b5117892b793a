//! A stage in a directory of its own, and its log as `oncelog fetch` reads it.

use std::process::Output;

use oncelog_chaos::stage::{Stage, channel};
use tonic::transport::Channel;

use crate::{binaries, workplace::Workplace};

/// Both services, with networks in between that can be broken.
#[derive(Debug)]
pub struct Stack {
    /// The services.
    pub stage: Stage,
    /// Where data and logs are. The last to go: nobody writes there any more.
    pub workplace: Workplace,
}

impl Stack {
    /// Starts both, the producer with `producer_args` added, and waits until they are ready.
    ///
    /// # Errors
    /// One of them does not start.
    pub async fn start(producer_args: &[&str]) -> anyhow::Result<Self> {
        let workplace = Workplace::new();
        // Small, so that a run goes over many of them.
        let broker_args = ["--segment-bytes=4194304".to_owned()];
        let producer_args: Vec<_> = producer_args.iter().map(|&arg| arg.to_owned()).collect();
        let (data, logs) = (workplace.path("data"), workplace.path(""));
        let stage = Stage::start(binaries::programs(), &data, &logs, &broker_args, &producer_args).await?;
        Ok(Self { stage, workplace })
    }

    /// A way to the broker itself, not by the network in between; connects when it is used.
    pub fn broker_channel(&self) -> Channel {
        channel(self.stage.broker_addr())
    }

    /// `--broker` for commands: the broker itself.
    pub fn broker_flag(&self) -> String {
        format!("--broker=http://{}", self.stage.broker_addr())
    }

    /// `--producer` for commands: the producer itself.
    pub fn producer_flag(&self) -> String {
        format!("--producer=http://{}", self.stage.producer_addr())
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

/// The stdout of a command that went well.
///
/// # Errors
/// It did not; the message is what it said.
pub fn succeeded(output: Output) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

//! The ordeal: the package list goes through `oncelog send → producer-svc → proxy → broker-svc` while everything behind the
//! producer breaks, again and again.
//!
//! The input is released piece by piece, one for each round, and a round breaks things only after the log has grown: every
//! kill finds work under way. The rounds follow a fixed sequence of numbers; what the processes make of it does not.

use std::{process::Stdio, time::Duration};

use anyhow::Context;
use oncelog_chaos::dice::Dice;
use oncelog_proto::v1::{DescribeTopicsRequest, broker_service_client::BrokerServiceClient};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin},
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    binaries,
    records::{self, Keyed},
    stack::{Stack, succeeded},
    verdict::Verdict,
};

/// What came of it.
#[derive(Debug)]
pub struct Ordeal {
    /// How often the broker was killed.
    pub kills: usize,
    /// What was sent and what is in the log.
    pub verdict: Verdict,
    /// Both services, still running.
    pub stack: Stack,
}

/// Sends the package list to a topic with [`PARTITIONS`] partitions by way of a producer with `producer_args`.
///
/// # Errors
/// A process does not do what it should, or `oncelog send` says that not every record was acknowledged.
pub async fn run(producer_args: &[&str]) -> anyhow::Result<Ordeal> {
    let mut stack = Stack::start(producer_args).await?;
    let sent = records::packages(RECORDS);
    let (released, seen) = watch::channel(0);
    let mut send = start_send(&stack)?;
    let feeding = tokio::spawn(feed(send.stdin.take().context("it is piped")?, sent.clone(), seen));

    let mut kills = 0;
    let mut dice = Dice::new(0x5eed);
    for round in 0..ROUNDS {
        let before = log_end(&stack).await?;
        released.send_replace(round + 1);
        grown(&stack, before).await.with_context(|| format!("round {round}"))?;
        kills += break_things(&mut stack, round, &mut dice).await.with_context(|| format!("round {round}"))?;
    }
    feeding.await?.context("oncelog send does not take its input")?;
    let output = timeout(PATIENCE, send.wait_with_output()).await.context("oncelog send does not come to its end")??;
    succeeded(output).context("oncelog send")?;

    let mut partitions = Vec::new();
    for partition in 0..PARTITIONS {
        let args = [TOPIC, "--output=length-prefixed", &format!("--partition={partition}")];
        partitions.push(records::from_bytes(&stack.fetch(&args).await?)?);
    }
    Ok(Ordeal { kills, verdict: Verdict::of(&sent, &partitions), stack })
}

/// One round's breakage; every way of it in turn. Leaves everything running. How often the broker was killed.
async fn break_things(stack: &mut Stack, round: usize, dice: &mut Dice) -> anyhow::Result<usize> {
    if round.is_multiple_of(2) {
        // The broker does its work, its answers are lost, and it lives on: what is sent again meets a warm memory.
        stack.stage.inner.swallow_answers();
        sleep(dice.millis(20, 150)).await;
        stack.stage.inner.cut_and_forward();
        sleep(dice.millis(0, 100)).await;
    }
    match round % 4 {
        0 => stack.stage.kill_broker().await?,
        1 => {
            // The same, but it dies: what is sent again meets what was recovered from disk.
            stack.stage.inner.swallow_answers();
            sleep(dice.millis(20, 150)).await;
            stack.stage.kill_broker().await?;
            stack.stage.inner.cut_and_forward();
        }
        2 => {
            stack.stage.producer()?.pause()?;
            sleep(dice.millis(50, 300)).await;
            stack.stage.kill_broker().await?;
            stack.stage.restart_broker().await?;
            stack.stage.producer()?.go_on()?;
            return Ok(1);
        }
        _ => {
            stack.stage.inner.cut();
            sleep(dice.millis(0, 50)).await;
            stack.stage.kill_broker().await?;
            // And once more while it starts.
            stack.stage.launch_broker()?;
            sleep(dice.millis(1, 60)).await;
            stack.stage.kill_broker().await?;
            stack.stage.restart_broker().await?;
            return Ok(2);
        }
    }
    sleep(dice.millis(0, 200)).await;
    stack.stage.restart_broker().await?;
    Ok(1)
}

fn start_send(stack: &Stack) -> anyhow::Result<Child> {
    let child = binaries::command("oncelog")
        .args(["send", TOPIC, "--format=length-prefixed", "--batch=100"])
        .arg(format!("--partitions={PARTITIONS}"))
        .args([stack.producer_flag(), stack.broker_flag()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok(child)
}

/// Writes as many pieces as are released.
async fn feed(mut stdin: ChildStdin, records: Vec<Keyed>, mut released: watch::Receiver<usize>) -> anyhow::Result<()> {
    for (index, piece) in records.chunks(records.len().div_ceil(ROUNDS)).enumerate() {
        released.wait_for(|released| *released > index).await?;
        stdin.write_all(&records::to_bytes(piece)).await?;
    }
    Ok(())
}

/// Sum of the log's ends; 0 before the topic exists.
async fn log_end(stack: &Stack) -> anyhow::Result<i64> {
    let mut broker = BrokerServiceClient::new(stack.broker_channel());
    let request = DescribeTopicsRequest { topics: vec![TOPIC.to_owned()], allow_auto_create: false, ..Default::default() };
    match broker.describe_topics(request).await {
        Ok(described) => Ok(described.into_inner().topics.iter().flat_map(|t| &t.partitions).map(|p| p.log_end_offset).sum()),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(0),
        Err(status) => Err(status.into()),
    }
}

async fn grown(stack: &Stack, before: i64) -> anyhow::Result<()> {
    let grows = async {
        while log_end(stack).await? <= before {
            sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, grows).await.context("the log does not grow any more")?
}

/// Partitions of the topic.
pub const PARTITIONS: usize = 8;
/// The topic.
pub const TOPIC: &str = "packages";
/// Pieces of the input; in every fourth round the broker is killed twice.
const ROUNDS: usize = 18;
const RECORDS: usize = 30_000;
const PATIENCE: Duration = Duration::from_secs(60);

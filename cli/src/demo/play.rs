//! The demo itself, without a display: services, writers and readers; what fails; and the verdict on what is left.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use oncelog_chaos::{
    dice::Dice,
    recorder::Recorder,
    stage::{Stage, channel},
};
use oncelog_proto::{
    Bearer,
    v1::{CreateTopicRequest, DescribeTopicsRequest},
};
use oncelog_verify::{
    HistoryFile,
    history::Event,
    judge,
    live::{self, Client},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    board::{Asked, Board, Phase},
    mishap::{Mishap, Plan, Planned},
    reader,
    verdict::Verdict,
    wire_tap::WireTap,
    writer::{self, Ways},
};
use crate::{child, verify::offline};

/// Plays, and judges.
///
/// # Errors
/// A process did not do what it should: it ended by itself, or does not come back. That is a failed demo.
pub(super) async fn play(directory: &Path, asked: Asked, board: &Board) -> anyhow::Result<Verdict> {
    let data = directory.join("data");
    let mut producer_args: Vec<_> = PRODUCER_ARGS.map(str::to_owned).into();
    producer_args.push(format!("--enable-idempotence={}", asked.idempotence));
    let mut stage = Stage::prepare(child::programs()?, &data, directory, &BROKER_ARGS.map(str::to_owned), &producer_args).await?;
    let tap = WireTap::start(stage.inner.addr()).await?;
    stage.lead_producer_by(tap.addr());
    stage.up().await?;
    stage.inner.delay(NETWORK_DELAY);
    let mut direct = Client::new(Bearer::none().on(channel(stage.broker_addr()))).max_decoding_message_size(MOST_BYTES);
    direct.create_topic(CreateTopicRequest { topic: TOPIC.to_owned(), partitions: PARTITIONS_I32 }).await?;

    let history = directory.join("history.jsonl");
    let recorder = Recorder::create(&history, EXPIRATION_MS)?;
    board.begin(tap.heard(), recorder.clone());
    let mut readers = JoinSet::new();
    for partition in 0..PARTITIONS {
        readers.spawn(reader::run(stage.broker_addr(), TOPIC.to_owned(), partition, board.clone()));
    }
    let (stop, stopping) = watch::channel(false);
    let mut writers = JoinSet::new();
    let mut dice = Dice::new(!asked.seed);
    for number in 0..WRITERS {
        let ways =
            Ways { topic: TOPIC.to_owned(), producer: stage.producer_addr(), recorder: recorder.clone(), board: board.clone() };
        writers.spawn(writer::run(ways, number, Dice::new(dice.draw()), stopping.clone()));
    }

    break_things(&mut stage, asked, board, &recorder).await?;
    board.phase(Phase::Healing);
    stop.send_replace(true);
    timeout(PATIENCE, async {
        while let Some(ended) = writers.join_next().await {
            ended.context("a writer ended wrongly")?;
        }
        anyhow::Ok(())
    })
    .await
    .context("writers are not answered although everything runs again")??;
    timeout(PATIENCE, read_to_end(&mut direct, board)).await.context("readers do not come to the end of the log")??;
    readers.shutdown().await;

    board.phase(Phase::Verifying);
    let verdict = verify(stage, direct, &data, &history, asked, board, &recorder).await?;
    board.phase(Phase::Ended);
    Ok(verdict)
}

#[expect(clippy::disallowed_methods, reason = "a demo lasts so long by a real clock")]
async fn break_things(stage: &mut Stage, asked: Asked, board: &Board, recorder: &Recorder) -> anyhow::Result<()> {
    let end = Instant::now() + asked.duration;
    for Planned { calm, mishap, lasts } in Plan::new(asked.seed) {
        let left = end.saturating_duration_since(Instant::now());
        sleep(calm.min(left)).await;
        if Instant::now() >= end {
            break;
        }
        board.strikes(mishap);
        strike(stage, mishap, lasts, recorder).await.context(mishap.name())?;
        board.mended();
    }
    Ok(())
}

/// Lets it happen, and leaves everything running.
async fn strike(stage: &mut Stage, mishap: Mishap, lasts: Duration, recorder: &Recorder) -> anyhow::Result<()> {
    match mishap {
        Mishap::AnswersLost => {
            stage.inner.swallow_answers();
            sleep(lasts).await;
        }
        Mishap::ConnectionsCut => {
            stage.inner.take_down();
            sleep(lasts).await;
        }
        Mishap::BrokerKilled => restart(stage, lasts, recorder).await?,
        Mishap::AnswersLostAndBrokerKilled => {
            stage.inner.swallow_answers();
            sleep(lasts).await;
            restart(stage, Duration::ZERO, recorder).await?;
        }
    }
    stage.inner.heal();
    stage.inner.delay(NETWORK_DELAY);
    Ok(())
}

async fn restart(stage: &mut Stage, down: Duration, recorder: &Recorder) -> anyhow::Result<()> {
    stage.kill_broker().await?;
    recorder.saw(Event::BrokerDied);
    sleep(down).await;
    // From here on, what is answered may be from the new life.
    recorder.saw(Event::BrokerStarted);
    stage.restart_broker().await
}

/// Waits until the readers stand where the log ends.
async fn read_to_end(direct: &mut Client, board: &Board) -> anyhow::Result<()> {
    let request = DescribeTopicsRequest { topics: vec![TOPIC.to_owned()], ..DescribeTopicsRequest::default() };
    let described = direct.describe_topics(request).await?.into_inner();
    let partitions = described.topics.into_iter().flat_map(|topic| topic.partitions);
    for (partition, described) in partitions.enumerate() {
        while board.next_offset(partition) < described.log_end_offset {
            sleep(LOOK_PAUSE).await;
        }
    }
    Ok(())
}

/// Reads the log from the running broker, then kills it and reads every byte of what is on the disk.
async fn verify(
    mut stage: Stage,
    mut direct: Client,
    data: &Path,
    history: &Path,
    asked: Asked,
    board: &Board,
    recorder: &Recorder,
) -> anyhow::Result<Verdict> {
    recorder.finish().context("the history cannot be written")?;
    let read = live::read(&mut direct, &[TOPIC.to_owned()], &mut |_| {}).await?;
    ensure!(read.quiet, "somebody writes to {TOPIC} although all have ended");
    let file = HistoryFile::new(history);
    let running = tokio::task::spawn_blocking(move || judge(&read.log, &file)).await??;
    if asked.idempotence {
        stage.kill_producer().await?;
    }
    stage.kill_broker().await?;
    let (data, history): (PathBuf, PathBuf) = (data.into(), history.into());
    let at_rest = tokio::task::spawn_blocking(move || offline::verify(&data, &[], Some(&history))).await??;
    Ok(Verdict::new(asked, board.view(), running, at_rest))
}

pub(super) const WRITERS: usize = 4;
pub(super) const PARTITIONS: usize = 3;
const PARTITIONS_I32: i32 = 3;
const TOPIC: &str = "orders";
/// Small, so that a start does not wait for much to be zeroed; and a stop need not wait.
const BROKER_ARGS: [&str; 2] = ["--segment-bytes=16777216", "--shutdown-timeout-ms=2000"];
/// Impatient: what is not answered in a second is asked again.
const PRODUCER_ARGS: [&str; 3] = ["--request-timeout-ms=1000", "--delivery-timeout-ms=30000", "--shutdown-timeout-ms=2000"];
/// As between two machines, so that calls are seen on their way.
const NETWORK_DELAY: Duration = Duration::from_millis(4);
/// The broker's default.
const EXPIRATION_MS: u64 = 86_400_000;
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_millis(20);
const MOST_BYTES: usize = 128 << 20;

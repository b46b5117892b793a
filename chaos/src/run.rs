//! A run: rounds of failures, each on a topic of its own, each judged when everything runs again. So a run of any length takes
//! bounded memory and disk, and what it shows of lost and duplicated records is known, not hoped.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use oncelog_proto::{Bearer, v1::CreateTopicRequest};
use oncelog_verify::{
    HistoryFile, Report, Violation, judge,
    live::{self, Client},
};
use tokio::{sync::watch, time::sleep};

use crate::{
    dice::Dice,
    load::{Load, PARTITIONS, Ways},
    plan::{Kind, Plan},
    program::Programs,
    recorder::{Counted, Recorder},
    stage::{Stage, channel},
    strike::Target,
    volume::Volume,
};

/// What a run is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is tried.
    pub programs: Programs,
    /// An empty directory for data, logs and histories.
    pub directory: PathBuf,
    /// How long things fail.
    pub duration: Duration,
    /// Decides what fails, and when, and what is sent.
    pub seed: u64,
    /// Fill the disk, too, if a small one can be mounted.
    pub fill_disk: bool,
    /// Further arguments for producer-svc.
    pub producer_args: Vec<String>,
}

/// How a run stands, for whoever watches.
#[derive(Clone, Debug)]
pub struct Status {
    /// What it is at.
    pub phase: Phase,
    /// Rounds that were judged.
    pub rounds: u64,
    /// What was seen until now.
    pub counted: Counted,
    /// Records that were judged.
    pub judged: u64,
    /// Of those: lost.
    pub lost: u64,
    /// In the log more often than sent.
    pub duplicated: u64,
    /// Promises broken.
    pub violations: u64,
    /// How often each failure happened.
    pub struck: BTreeMap<Kind, u64>,
    /// The last one.
    pub last: Option<Kind>,
    /// Moments that were waited for in vain.
    pub missed: u64,
}

/// What a run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The services start.
    Starting,
    /// Things fail.
    Breaking,
    /// Everything runs again; open calls are answered.
    Healing,
    /// The log is read and judged.
    Judging,
    /// It is over.
    Ended,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// How it stood in the end.
    pub status: Status,
    /// The first violations.
    pub violations: Vec<Violation>,
    /// What could not be judged, in all rounds.
    pub unjudged: u64,
    /// What could not be tried, and why.
    pub left_out: Vec<String>,
    /// The broker's data, at rest.
    pub data: PathBuf,
    /// The history of the last round, and its topic.
    pub history: PathBuf,
    /// The small disk, as long as somebody looks at the data.
    pub volume: Option<Volume>,
}

/// Runs. It ends before its time if a promise is broken.
///
/// # Errors
/// A process did not do what it should: it ended by itself, or does not come back. That is a failed run, too.
pub async fn run(options: Options, watchers: watch::Sender<Status>) -> anyhow::Result<Outcome> {
    let mut left_out = Vec::new();
    let volume = match options.fill_disk.then(|| Volume::mount(&options.directory, VOLUME_BYTES)) {
        Some(Ok(volume)) => Some(volume),
        Some(Err(error)) => {
            left_out.push(format!("the disk is not filled: {error:#}"));
            None
        }
        None => {
            left_out.push("the disk is not filled: it was not asked for".to_owned());
            None
        }
    };
    let data = volume.as_ref().map_or(options.directory.as_path(), Volume::path).join("data");
    let broker_args = BROKER_ARGS.map(str::to_owned);
    let mut producer_args: Vec<_> = PRODUCER_ARGS.map(str::to_owned).into();
    producer_args.extend(options.producer_args.clone());
    let stage = Stage::start(options.programs.clone(), &data, &options.directory, &broker_args, &producer_args).await?;
    let mut run = Run {
        plan: Plan::new(options.seed, volume.is_some()),
        dice: Dice::new(!options.seed),
        stage,
        volume,
        data,
        directory: options.directory,
        watchers,
        violations: Vec::new(),
        unjudged: 0,
        past: Counted::default(),
    };
    let history = run.rounds(options.duration).await?;
    // A clean stop or a kill: what is left behind has to be the same (I5).
    if run.dice.once_in(2) {
        run.stage.stop().await?;
    } else {
        run.stage.kill_producer().await?;
        run.stage.kill_broker().await?;
    }
    run.watchers.send_modify(|status| status.phase = Phase::Ended);
    let status = run.watchers.borrow().clone();
    Ok(Outcome {
        status,
        violations: run.violations,
        unjudged: run.unjudged,
        left_out,
        data: run.data,
        history,
        volume: run.volume,
    })
}

impl Default for Status {
    fn default() -> Self {
        Self {
            phase: Phase::Starting,
            rounds: 0,
            counted: Counted::default(),
            judged: 0,
            lost: 0,
            duplicated: 0,
            violations: 0,
            struck: BTreeMap::new(),
            last: None,
            missed: 0,
        }
    }
}

struct Run {
    plan: Plan,
    dice: Dice,
    stage: Stage,
    volume: Option<Volume>,
    data: PathBuf,
    directory: PathBuf,
    watchers: watch::Sender<Status>,
    violations: Vec<Violation>,
    unjudged: u64,
    /// Counted in rounds that are over.
    past: Counted,
}

impl Run {
    /// Returns the history of the last round.
    #[expect(clippy::disallowed_methods, reason = "a run lasts so long by a real clock")]
    async fn rounds(&mut self, duration: Duration) -> anyhow::Result<PathBuf> {
        let end = Instant::now() + duration;
        let mut history = PathBuf::new();
        for round in 1.. {
            if round > 1 {
                fs::remove_file(&history)?;
            }
            history = self.directory.join(format!("history-{round}.jsonl"));
            let round_end = (Instant::now() + ROUND).min(end);
            self.round(round, &history, round_end).await.with_context(|| format!("round {round}"))?;
            if Instant::now() >= end || !self.violations.is_empty() {
                break;
            }
        }
        Ok(history)
    }

    async fn round(&mut self, round: u64, history: &Path, end: Instant) -> anyhow::Result<()> {
        let topic = format!("chaos-{round}");
        let mut direct = Client::new(Bearer::none().on(channel(self.stage.broker_addr()))).max_decoding_message_size(MOST_BYTES);
        direct.create_topic(CreateTopicRequest { topic: topic.clone(), partitions: PARTITIONS }).await?;
        let recorder = Recorder::create(history, EXPIRATION_MS)?;
        let (producer, broker) = (self.stage.callers.addr(), self.stage.clients.addr());
        let ways = Ways { topic: topic.clone(), producer, broker, recorder: recorder.clone() };
        self.phase(Phase::Breaking);
        let load = Load::start(&ways, self.dice.draw());
        self.breaking(&recorder, end).await?;
        self.phase(Phase::Healing);
        self.stage.heal();
        let finished = load.finish();
        tokio::pin!(finished);
        loop {
            tokio::select! {
                finished = &mut finished => break finished?,
                () = sleep(LOOK_PAUSE) => self.count(&recorder),
            }
        }
        self.count(&recorder);
        self.stage.no_alarms().await?;
        recorder.finish().context("the history cannot be written")?;
        self.past = self.past.plus(recorder.counted());

        self.phase(Phase::Judging);
        let read = live::read(&mut direct, std::slice::from_ref(&topic), &mut |_| {}).await?;
        ensure!(read.quiet, "somebody writes to {topic} although all have ended");
        let history = HistoryFile::new(history);
        let report = tokio::task::spawn_blocking(move || judge(&read.log, &history)).await??;
        self.judged(report);
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "a round lasts so long by a real clock")]
    async fn breaking(&mut self, recorder: &Recorder, end: Instant) -> anyhow::Result<()> {
        while Instant::now() < end {
            let failure = self.plan.next().context("a plan has no end")?;
            let mut target = Target { stage: &mut self.stage, data: &self.data, volume: self.volume.as_ref(), recorder };
            let name = failure.kind.name();
            let struck = {
                let striking = target.strike(failure);
                tokio::pin!(striking);
                loop {
                    tokio::select! {
                        struck = &mut striking => break struck.with_context(|| name.clone())?,
                        () = sleep(LOOK_PAUSE) => count(&self.watchers, self.past, recorder),
                    }
                }
            };
            self.watchers.send_modify(|status| {
                if struck {
                    *status.struck.entry(failure.kind).or_default() += 1;
                    status.last = Some(failure.kind);
                } else {
                    status.missed += 1;
                }
            });
            self.count(recorder);
            sleep(failure.calm).await;
        }
        Ok(())
    }

    fn judged(&mut self, report: Report) {
        self.unjudged += report.unjudged.total();
        let counts = report.counts;
        self.watchers.send_modify(|status| {
            status.rounds += 1;
            status.judged += counts.in_log;
            status.lost += counts.lost;
            status.duplicated += counts.duplicated;
            status.violations += report.violation_count;
        });
        self.violations.extend(report.violations);
    }

    fn phase(&self, phase: Phase) {
        self.watchers.send_modify(|status| status.phase = phase);
    }

    fn count(&self, recorder: &Recorder) {
        count(&self.watchers, self.past, recorder);
    }
}

fn count(watchers: &watch::Sender<Status>, past: Counted, recorder: &Recorder) {
    watchers.send_modify(|status| status.counted = past.plus(recorder.counted()));
}

/// Small, so that a run goes over many segments and snapshots; and at most so much that the oldest rounds go.
const BROKER_ARGS: [&str; 5] = [
    "--segment-bytes=1048576",
    "--snapshot-bytes=1048576",
    "--max-message-bytes=500000",
    "--retention-bytes=201326592",
    "--shutdown-timeout-ms=2000",
];
/// Impatient, so that much is sent again.
const PRODUCER_ARGS: [&str; 3] = ["--request-timeout-ms=1000", "--delivery-timeout-ms=30000", "--shutdown-timeout-ms=2000"];
/// The broker's default.
const EXPIRATION_MS: u64 = 86_400_000;
const VOLUME_BYTES: u64 = 384 << 20;
/// A round of failures.
const ROUND: Duration = Duration::from_secs(15);
/// Between two looks at what was counted.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
const MOST_BYTES: usize = 128 << 20;

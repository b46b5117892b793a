//! Who sends and reads while things fail: callers of `Send` one call after the other, callers of `SendStream`, raw idempotent
//! producers that speak to the broker itself, and readers that follow every partition. All of them go through networks that
//! break, and write down what they do and what they hear.

mod caller;
mod raw_producer;
mod reader;
mod streamer;

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use oncelog_proto::v1::Record;
use oncelog_verify::history::{CallerId, Partition};
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{dice::Dice, recorder::Recorder};

/// Where everybody goes.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    pub(crate) topic: String,
    /// To producer-svc.
    pub(crate) producer: SocketAddr,
    /// To broker-svc.
    pub(crate) broker: SocketAddr,
    pub(crate) recorder: Recorder,
}

/// Everybody, at work.
#[derive(Debug)]
pub(crate) struct Load {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Load {
    /// Starts everybody on a topic with [`PARTITIONS`] partitions.
    pub(crate) fn start(ways: &Ways, seed: u64) -> Self {
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut dice = Dice::new(seed);
        for number in 0..CALLERS {
            tasks.spawn(caller::run(ways.clone(), CallerId(number), Dice::new(dice.draw()), stopping.clone()));
        }
        for number in CALLERS..CALLERS + STREAMERS {
            tasks.spawn(streamer::run(ways.clone(), number, Dice::new(dice.draw()), stopping.clone()));
        }
        for partition in 0..PARTITIONS {
            let partition = Partition::new(&ways.topic, partition);
            tasks.spawn(reader::run(ways.clone(), partition.clone(), stopping.clone()));
            if partition.partition < RAW_PRODUCERS {
                tasks.spawn(raw_producer::run(ways.clone(), partition, Dice::new(dice.draw()), stopping.clone()));
            }
        }
        Self { tasks, stop }
    }

    /// Nobody begins anything more; waits for the answers to what was begun.
    ///
    /// # Errors
    /// Somebody waits for ever, or is not well.
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.context("a caller ended wrongly")?;
            }
            anyhow::Ok(())
        };
        timeout(FINISH_PATIENCE, all).await.context("calls are not answered although everything runs again")?
    }
}

/// Records that nobody else sends, of differing length.
fn records(who: &str, first: u64, dice: &mut Dice, most: u64) -> Vec<Record> {
    let count = 1 + dice.below(most);
    let record = |number: u64| Record {
        key: Some(format!("{who}/{}", number % KEYS).into()),
        value: Some(format!("{number} of {who}{}", ".".repeat(usize::try_from(number % 97).expect("small"))).into()),
        ..Record::default()
    };
    (first..first + count).map(record).collect()
}

/// Partitions of a topic.
pub(crate) const PARTITIONS: i32 = 4;
/// Each writes to a partition of its own, among all the others.
const RAW_PRODUCERS: i32 = 2;
const CALLERS: u64 = 4;
const STREAMERS: u64 = 2;
const KEYS: u64 = 16;
/// Longer than producer-svc tries here, and than a caller waits.
const FINISH_PATIENCE: Duration = Duration::from_secs(90);
/// How long a caller waits for an answer: longer than producer-svc tries.
const ANSWER_PATIENCE: Duration = Duration::from_secs(45);
/// After something failed.
const PAUSE: Duration = Duration::from_millis(20);

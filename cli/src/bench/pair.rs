//! A pair of services of one's own, as processes.

use std::path::Path;

use broker_svc::journal::{
    RealDisk,
    disk::{Disk, FileSystem},
};
use oncelog_chaos::stage::Stage;

use crate::{child, workplace::Workplace};

/// Both, running. Their directory goes when this does.
#[derive(Debug)]
pub(super) struct Pair {
    stage: Stage,
    workplace: Workplace,
    notes: Vec<String>,
}

impl Pair {
    /// Starts both, with data in a new directory in `parent`.
    ///
    /// # Errors
    /// One of them does not start.
    pub(super) async fn start(parent: Option<&Path>) -> anyhow::Result<Self> {
        let workplace = Workplace::new(parent, "oncelog-bench")?;
        let mut notes = Vec::new();
        if let FileSystem::Doubtful(name) = RealDisk::open(workplace.path())?.file_system()? {
            notes.push(format!("{} is on {name}, where nothing lasts; name a --directory on a disk", workplace.path().display()));
        }
        let data = workplace.path().join("data");
        let mut stage = Stage::prepare(child::programs()?, &data, workplace.path(), &[], &[]).await?;
        // No network in between: it would be measured, too.
        stage.lead_producer_by(stage.broker_addr());
        stage.up().await?;
        Ok(Self { stage, workplace, notes })
    }

    /// `--producer` for it.
    pub(super) fn producer(&self) -> String {
        format!("http://{}", self.stage.producer_addr())
    }

    /// Stops both; returns what has to be known to read the numbers.
    ///
    /// # Errors
    /// One of them does not end well.
    pub(super) async fn stop(self) -> anyhow::Result<Vec<String>> {
        let Self { stage, workplace, notes } = self;
        stage.stop().await?;
        drop(workplace);
        Ok(notes)
    }
}

//! A pair of services of one's own, as processes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use broker_svc::journal::{
    RealDisk,
    disk::{Disk, FileSystem},
};
use oncelog_chaos::{
    program::{Program, Programs},
    stage::Stage,
};

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
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("oncelog-bench-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("the directory {}", path.display()))?;
        let workplace = Workplace(path);
        let mut notes = Vec::new();
        if let FileSystem::Doubtful(name) = RealDisk::open(&workplace.0)?.file_system()? {
            notes.push(format!("{} is on {name}, where nothing lasts; name a --directory on a disk", parent.display()));
        }
        let exe = std::env::current_exe().context("where this command is")?;
        let programs =
            Programs { broker: Program::subcommand(&exe, "chaos-broker"), producer: Program::subcommand(&exe, "chaos-producer") };
        let mut stage = Stage::prepare(programs, &workplace.0.join("data"), &workplace.0, &[], &[]).await?;
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

#[derive(Debug)]
struct Workplace(PathBuf);

impl Drop for Workplace {
    fn drop(&mut self) {
        // What cannot be removed is in a place for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

//! From the start of the process until the broker is ready.

use std::{fs, path::Path, rc::Rc};

use super::{PreparedLog, Services, services};
use crate::{
    candidate::{Candidate, Place},
    limits::{self, Log},
    load::Load,
    measured::Measured,
};

/// What it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No journal.
    Empty,
    /// The journal of the row's load, as the broker left it, snapshots included.
    Snapshots,
    /// The same without snapshots: everything is replayed.
    Replay,
}

/// A start; nothing is in the kernel's memory of files.
#[derive(Debug)]
pub struct Starting {
    /// The journal.
    pub log: Rc<PreparedLog>,
    /// What the broker finds of it.
    pub state: State,
}

#[tonic::async_trait(?Send)]
impl Candidate for Starting {
    async fn run(&self, load: &Load, place: Place<'_>) -> anyhow::Result<Measured> {
        let data = match self.state {
            State::Empty => services::data(place.run),
            State::Snapshots | State::Replay => self.log.directory(load, place).await?,
        };
        let aside = place.run.join("snapshots");
        fs::create_dir(&aside)?;
        if self.state == State::Replay {
            move_snapshots(&data, &aside)?;
        }
        limits::drop_caches()?;
        let services = Services::start_broker(&self.log.settings, &data, place.run).await?;
        let journal = services.journal().await?;
        let mut measured = Measured {
            records: if self.state == State::Empty { 0 } else { load.records },
            payload_bytes: if self.state == State::Empty { 0 } else { journal.bytes },
            seconds: services.started_in().as_secs_f64(),
            disk_bytes: Some(journal.bytes),
            ..Measured::default()
        };
        services.usage()?.end(&mut measured)?;
        // CPU time since the start of the process is not what usage counts: it began when the broker was ready.
        measured.server_cpu_seconds.clear();
        services.stop().await?;
        if self.state == State::Replay {
            move_snapshots(&aside, &data)?;
        }
        Ok(measured)
    }
}

fn move_snapshots(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("snap-") {
            fs::rename(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

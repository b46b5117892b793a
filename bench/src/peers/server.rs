//! A peer's server process: started, waited for, asked what it costs, stopped.
//!
//! Peers differ from the services in how they end: a Java machine calls SIGTERM an error, and what was read back need not be
//! kept.

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::proc;

/// A running server; killed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command`; what it says goes to a file in `dir` that is named after `name`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(name: &'static str, command: &mut Command, dir: &Path) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { name, child, log })
    }

    /// Waits until somebody listens on `address`.
    ///
    /// # Errors
    /// The process ended, or does not listen after a minute.
    pub(super) async fn listens(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let wait = async {
            while TcpStream::connect(address).await.is_err() {
                if let Some(status) = self.child.try_wait()? {
                    bail!("{} ended with {status} before it listened:\n{}", self.name, end_of(&self.log));
                }
                sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        let waited = timeout(PATIENCE, wait).await;
        waited.with_context(|| format!("{} does not listen after {PATIENCE:?}:\n{}", self.name, end_of(&self.log)))?
    }

    /// What the process is called in a report.
    pub(super) fn name(&self) -> String {
        self.name.to_owned()
    }

    /// CPU time that it has used so far, user and system, in seconds.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        proc::cpu_seconds(self.id()?)
    }

    /// Resident memory in bytes: now, and the most there ever was.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn resident_bytes(&self) -> anyhow::Result<(u64, u64)> {
        proc::resident_bytes(self.id()?)
    }

    /// SIGTERM, and after a while SIGKILL: what it holds was read back already.
    ///
    /// # Errors
    /// It had ended by itself before, which a server should not.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended by itself with {status}:\n{}", self.name, end_of(&self.log));
        }
        let pid = Pid::from_raw(i32::try_from(self.id()?)?).context("a process id is not 0")?;
        kill_process(pid, Signal::TERM)?;
        if timeout(PATIENCE, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }

    fn id(&self) -> anyhow::Result<u32> {
        self.child.id().with_context(|| format!("{} has ended:\n{}", self.name, end_of(&self.log)))
    }
}

/// Bytes that the files in `dir` and below take on disk. Blocks are counted, not lengths: some peers make their files longer than
/// they are.
///
/// # Errors
/// It cannot be read.
pub(super) fn disk_bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // A server that cleans up while we look is no fault.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * BLOCK };
    }
    Ok(bytes)
}

/// The end of a log, for a message about a failure.
pub(super) fn end_of(log: &Path) -> String {
    let said = fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&said[said.len().saturating_sub(SHOWN_BYTES)..]).into_owned()
}

const PATIENCE: Duration = Duration::from_secs(60);
const SHOWN_BYTES: usize = 4096;
/// What `st_blocks` counts.
const BLOCK: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_bytes_count_blocks_not_lengths() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("below")).unwrap();
        fs::write(place.path().join("below/written"), vec![1; 64 << 10]).unwrap();
        File::create(place.path().join("sparse")).unwrap().set_len(1 << 30).unwrap();
        let bytes = disk_bytes(place.path()).unwrap();
        assert!((64 << 10..1 << 20).contains(&bytes), "{bytes}");
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_tells_what_it_said() {
        let place = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        let mut server = Server::start("shell", command.args(["-c", "echo port taken; exit 1"]), place.path()).unwrap();
        let error = server.listens(SocketAddr::from(([127, 0, 0, 1], 1))).await.unwrap_err().to_string();
        assert!(error.contains("port taken") && error.contains("shell ended"), "{error}");
    }
}

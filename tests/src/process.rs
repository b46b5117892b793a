//! One process: started, asked whether it is ready, paused, ended, killed. What it says goes to a file, whose end is shown if
//! the test fails.

use std::{
    fs::{self, File, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Child,
    time::{sleep, timeout},
};

use crate::binaries;

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `binary` with `args`; stdout and stderr are added to the file `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(binary: &str, args: &[String], log: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log)?;
        let child = binaries::command(binary)
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{binary} cannot be started"))?;
        Ok(Self { name: binary.to_owned(), child, log: log.to_owned() })
    }

    /// Waits until `GET /readyz` on `admin` says yes.
    ///
    /// # Errors
    /// The process ended, or is not ready after 30 seconds.
    pub async fn ready(&mut self, admin: SocketAddr) -> anyhow::Result<()> {
        let wait = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    bail!("{} ended with {status} before it was ready", self.name);
                }
                if get(admin, "/readyz").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                    return Ok(());
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, wait).await.with_context(|| format!("{} is not ready after {PATIENCE:?}", self.name))?
    }

    /// SIGKILL: ends it at once, whatever it does.
    ///
    /// # Errors
    /// It had ended by itself before.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} had ended by itself, with {status}", self.name);
        }
        self.child.kill().await?;
        Ok(())
    }

    /// SIGSTOP: it stands still, its connections stay open.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    /// It has ended.
    pub fn go_on(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It has ended before, or does not end within 60 seconds.
    pub async fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let ended = timeout(2 * PATIENCE, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} did not end after SIGTERM", self.name))??)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not within 30 seconds.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} does not end", self.name))??)
    }

    /// What it has said.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// The most memory that it ever had, in bytes.
    ///
    /// # Errors
    /// It has ended, or does not run on Linux.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        let id = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        Ok(peak.context("there is no VmHWM")?.trim().parse::<u64>()? << 10)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        let pid = Pid::from_raw(i32::try_from(id)?).context("a process id is not 0")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
            eprintln!("--- the end of what {} said ---\n{end}\n---", self.name);
        }
    }
}

/// The answer to a plain HTTP request, head and body.
///
/// # Errors
/// Nobody listens, or the answer is cut or no text.
pub async fn get(addr: SocketAddr, path: &str) -> anyhow::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.1 "), "no HTTP answer: {answer:?}");
        Ok(answer)
    };
    timeout(Duration::from_secs(5), exchange).await.context("no answer within 5 seconds")?
}

/// A directory for one test: data and logs. It is kept, and its path told, if the test fails.
#[derive(Debug)]
pub struct Workplace {
    directory: Option<tempfile::TempDir>,
}

impl Workplace {
    /// A new, empty one.
    ///
    /// # Panics
    /// If there is no place for temporary files.
    pub fn new() -> Self {
        Self { directory: Some(tempfile::tempdir().expect("a place for temporary files")) }
    }

    /// A path in it.
    ///
    /// # Panics
    /// Never: the directory is there until the drop.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.as_ref().expect("there until dropped").path().join(name)
    }

    /// A new file in it, for stderr of a command.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn file(&self, name: &str) -> anyhow::Result<File> {
        Ok(File::create(self.path(name))?)
    }
}

impl Default for Workplace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("data and logs are kept in {}", directory.keep().display());
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
const LINES_SHOWN: usize = 40;

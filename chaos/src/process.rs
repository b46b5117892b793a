//! One process: started, asked whether it is ready, paused, ended, killed. What it says goes to a file, whose end is shown if
//! a test fails.

use std::{
    fs::{self, OpenOptions},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
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

use crate::program::Program;

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with `args`; stdout and stderr are added to the file `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Program, args: &[String], log: &Path) -> anyhow::Result<Self> {
        let name = program.name();
        let file = OpenOptions::new().create(true).append(true).open(log)?;
        let child = program
            .command()
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { name, child, log: log.to_owned() })
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

    /// Waits until it has said `words`, and returns all that it has said. Being ready comes before the word of it.
    ///
    /// # Errors
    /// The process ended, or has not said them after 30 seconds.
    pub async fn said(&mut self, words: &str) -> anyhow::Result<String> {
        let wait = async {
            loop {
                let said = self.log()?;
                if said.contains(words) {
                    return Ok(said);
                }
                if let Some(status) = self.child.try_wait()? {
                    bail!("{} ended with {status} before it said {words:?}", self.name);
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, wait).await.with_context(|| format!("{} has not said {words:?} after {PATIENCE:?}", self.name))?
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

    /// Waits for the end of a process that somebody else has killed.
    ///
    /// # Errors
    /// It ended in another way, or does not end.
    pub async fn killed(mut self) -> anyhow::Result<()> {
        let status = timeout(PATIENCE, self.child.wait()).await.with_context(|| format!("{} was not killed", self.name))??;
        ensure!(status.signal() == Some(Signal::KILL.as_raw()), "{} had ended by itself, with {status}", self.name);
        Ok(())
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
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
    pub async fn wait_for_end(&mut self) -> anyhow::Result<ExitStatus> {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} does not end", self.name))??)
    }

    /// For messages.
    pub fn name(&self) -> &str {
        &self.name
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

    /// Its id, for whoever signals it from another thread.
    ///
    /// # Errors
    /// It has ended.
    pub fn id(&self) -> anyhow::Result<Pid> {
        let id = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        Pid::from_raw(i32::try_from(id)?).context("a process id is not 0")
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(self.id()?, signal)?)
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

const PATIENCE: Duration = Duration::from_secs(30);
const LINES_SHOWN: usize = 40;

//! Server processes of the bench: started, watched, stopped.

use std::{
    ffi::OsStr,
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{clock, measured::Measured, proc};

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    child: Child,
    pid: u32,
    began: Instant,
    log: PathBuf,
}

impl Server {
    /// Starts it. What it says goes to `<directory>/<name>.log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start<A: AsRef<OsStr>>(
        name: &'static str,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        Self::start_with(name, program, args, &[], directory)
    }

    /// The same with variables in its environment.
    ///
    /// # Errors
    /// As there.
    pub fn start_with<A: AsRef<OsStr>>(
        name: &'static str,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        environment: &[(String, String)],
        directory: &Path,
    ) -> anyhow::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let began = clock::now();
        let child = Command::new(program)
            .args(args)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let pid = child.id().context("a process that was just started has an id")?;
        Ok(Self { name, child, pid, began, log })
    }

    /// Waits until `is_ready` says so; how long that took since the start.
    ///
    /// # Errors
    /// It ended, or is not ready after ten minutes.
    pub async fn ready(&mut self, is_ready: impl AsyncFn() -> bool) -> anyhow::Result<Duration> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before it was ready; it said: {}", self.name, self.last_words());
            }
            if is_ready().await {
                return Ok(self.began.elapsed());
            }
            ensure!(self.began.elapsed() < PATIENCE, "{} is not ready after {PATIENCE:?}", self.name);
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It had ended before, or ends with an error, or not within a minute.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} had ended by itself, with {status}; it said: {}", self.name, self.last_words());
        }
        let pid = Pid::from_raw(i32::try_from(self.pid)?).context("a process id is not 0")?;
        kill_process(pid, Signal::TERM)?;
        let status =
            timeout(STOP_PATIENCE, self.child.wait()).await.with_context(|| format!("{} does not stop", self.name))??;
        ensure!(status.success(), "{} ended with {status}; it said: {}", self.name, self.last_words());
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }
}

/// What processes use from here to [`Self::end`]; the servers' and this one's.
#[derive(Debug)]
pub struct Usage {
    own: f64,
    servers: Vec<(String, u32, f64, u64)>,
}

impl Usage {
    /// Begins.
    ///
    /// # Errors
    /// One of them has ended.
    pub fn begin(servers: &[&Server]) -> anyhow::Result<Self> {
        let of = |server: &&Server| {
            Ok((server.name.to_owned(), server.pid, proc::cpu_seconds(server.pid)?, proc::resident_bytes(server.pid)?.0))
        };
        Ok(Self { own: proc::cpu_seconds(std::process::id())?, servers: servers.iter().map(of).collect::<anyhow::Result<_>>()? })
    }

    /// Ends: fills in what was used.
    ///
    /// # Errors
    /// One of them has ended.
    pub fn end(self, measured: &mut Measured) -> anyhow::Result<()> {
        measured.client_cpu_seconds = proc::cpu_seconds(std::process::id())? - self.own;
        for (name, pid, cpu, idle) in self.servers {
            measured.server_cpu_seconds.insert(name.clone(), proc::cpu_seconds(pid)? - cpu);
            measured.idle_bytes.insert(name.clone(), idle);
            measured.loaded_bytes.insert(name, proc::resident_bytes(pid)?.1);
        }
        Ok(())
    }
}

/// An address on the loopback on which nobody listens, and which no outgoing connection is given before a server takes it: its
/// port is below those that the kernel hands out. Each call gives another one, until all were given once.
///
/// # Errors
/// All ports are taken.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Another bench on this machine begins elsewhere.
    let first = (std::process::id() % u32::from(PORTS)) as u16;
    (0..PORTS)
        .map(|_| FIRST_PORT + (first + GIVEN.fetch_add(1, Ordering::Relaxed) % PORTS) % PORTS)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .with_context(|| format!("the {PORTS} ports from {FIRST_PORT} on are taken"))
}

/// Does anybody listen there?
pub async fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

/// The body of the answer to a plain HTTP request; none if it is not a 200, or nobody answers.
pub async fn http_get(address: SocketAddr, path: &str) -> Option<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
    };
    timeout(Duration::from_secs(5), exchange).await.ok()?
}

/// Linux gives 32768 and above to outgoing connections.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;
const PATIENCE: Duration = Duration::from_secs(600);
const STOP_PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_once_and_are_none_that_an_outgoing_connection_gets() {
        let (one, another) = (free_address().expect("a port"), free_address().expect("a port"));
        assert_ne!(one, another);
        assert!([one, another].iter().all(|address| (20_000..32_768).contains(&address.port())));
    }
}

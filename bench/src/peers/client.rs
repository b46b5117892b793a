//! The client that drives NATS, Redis and RabbitMQ: a program of its own (`client/`), through the Go clients that those peers
//! offer. Its process is to them what the bench's own senders are to oncelog.
//!
//! Between its phases it waits for a line, so that the costs of the server are those of sending: neither the creation of
//! partitions nor reading back is in them.

use std::{
    collections::BTreeMap,
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::server::{Server, disk_bytes, end_of};
use crate::{
    load::Load,
    measured::{Measured, Percentiles},
};

/// How a server is driven.
#[derive(Debug)]
pub(super) struct Drive<'a> {
    /// The program.
    pub(super) client: &'a Path,
    /// What it is to speak: `nats`, `redis` or `rabbitmq`.
    pub(super) protocol: &'static str,
    /// Where the server listens.
    pub(super) address: SocketAddr,
    /// Connections that send; each partition has one of them.
    pub(super) connections: u32,
    /// Where the server keeps its log.
    pub(super) data: &'a Path,
}

impl Drive<'_> {
    /// Sends `load` to `server` and reads it back.
    ///
    /// # Errors
    /// A record was not acknowledged, or was not read back as it was sent; the message has what the client said.
    pub(super) async fn measure(&self, load: &Load, server: &Server) -> anyhow::Result<Measured> {
        let mut talk = Talk::begin(self, load)?;
        talk.hear("ready").await?;
        let idle_bytes = BTreeMap::from([(server.name(), server.resident_bytes()?.0)]);
        let cpu_before = server.cpu_seconds()?;
        talk.go_on().await?;
        let sent: Value = serde_json::from_str(&talk.hear("sent").await?)?;
        let cpu_after = server.cpu_seconds()?;
        let loaded_bytes = BTreeMap::from([(server.name(), server.resident_bytes()?.1)]);
        let disk_bytes = Some(disk_bytes(self.data)?);
        talk.go_on().await?;
        let verified = talk.hear("verified").await?.parse()?;
        ensure!(verified == load.records, "{verified} of {} records were read back", load.records);
        Ok(Measured {
            records: load.records,
            payload_bytes: load.payload_bytes(),
            seconds: number(&sent, "seconds")?,
            client_cpu_seconds: number(&sent, "cpu_seconds")?,
            server_cpu_seconds: BTreeMap::from([(server.name(), cpu_after - cpu_before)]),
            idle_bytes,
            loaded_bytes,
            disk_bytes,
            latency_us: load.rate.map(|_| latency_us(&sent["latency_ns"])).transpose()?,
            verified,
        })
    }
}

/// Lines to the client and from it.
#[derive(Debug)]
struct Talk {
    // Killed when dropped.
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    input: ChildStdin,
    log: PathBuf,
}

impl Talk {
    fn begin(drive: &Drive<'_>, load: &Load) -> anyhow::Result<Self> {
        let log = drive.data.with_extension("client.log");
        let mut child = Command::new(drive.client)
            .args(arguments(drive, load))
            // The client's garbage is collected at four times what lives instead of twice: that costs memory, which is not
            // counted, and saves the peer CPU time, which is.
            .env("GOGC", "300")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().context("stdout is a pipe")?;
        let input = child.stdin.take().context("stdin is a pipe")?;
        Ok(Self { _child: child, lines: BufReader::new(output).lines(), input, log })
    }

    /// The rest of the next line, which must begin with `word`.
    async fn hear(&mut self, word: &str) -> anyhow::Result<String> {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.with_context(|| format!("the client is not `{word}` after {PATIENCE:?}:\n{}", end_of(&self.log)))??;
        let line = line.with_context(|| format!("the client ended before it was `{word}`:\n{}", end_of(&self.log)))?;
        let rest = line.strip_prefix(word).with_context(|| format!("`{word}` was due, and the client said `{line}`"))?;
        Ok(rest.trim().to_owned())
    }

    async fn go_on(&mut self) -> anyhow::Result<()> {
        Ok(self.input.write_all(b"\n").await?)
    }
}

fn arguments(drive: &Drive<'_>, load: &Load) -> Vec<String> {
    vec![
        format!("-peer={}", drive.protocol),
        format!("-address={}", drive.address),
        format!("-connections={}", drive.connections),
        format!("-record-bytes={}", load.record_bytes),
        format!("-partitions={}", load.partitions),
        format!("-records={}", load.records),
        format!("-unacknowledged={}", load.unacknowledged),
        format!("-rate={}", load.rate.unwrap_or(0.0)),
    ]
}

fn latency_us(nanos: &Value) -> anyhow::Result<Percentiles> {
    let micros = |field| number(nanos, field).map(|nanos| nanos / 1e3);
    Ok(Percentiles {
        p50: micros("p50")?,
        p90: micros("p90")?,
        p99: micros("p99")?,
        p99_9: micros("p99_9")?,
        max: micros("max")?,
    })
}

fn number(object: &Value, field: &str) -> anyhow::Result<f64> {
    object[field].as_f64().with_context(|| format!("the client does not say {field}: {object}"))
}

/// The longest phase, the slowest peer sending, takes a quarter of it.
const PATIENCE: Duration = Duration::from_secs(120);

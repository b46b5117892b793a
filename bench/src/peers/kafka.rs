//! Apache Kafka, one process that is broker and controller, driven by its own `ProducerPerformance`. The producer is idempotent
//! and asks for all acknowledgements, which are its defaults.
//!
//! What differs from the other peers, because the tool has it so:
//! - The tool gives records to partitions itself, a batch at a time, which is the fastest that its producer can; the partitions'
//!   shares differ by some batches.
//! - A Java machine becomes fast by running. Records that warm up come before those that are counted. Processor time and disk
//!   bytes cannot be told apart, so the counted records get their share of both.
//! - What is unacknowledged is bounded in bytes, by the producer's memory.
//! - Latencies are in whole milliseconds, from the call of `send`, which with a rate is made when the record is due unless the
//!   producer's memory is used up; and the tool tells the 95th percentile, not the 90th.
//! - The records are lines of a file, picked at random by the tool. So reading back shows that each partition's end offset and
//!   the records and bytes that Kafka's own `ConsumerPerformance` read are those that were sent, under the checksums of Kafka's
//!   batches; not in which order.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process,
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, ensure};
use tokio::{process::Command, time::timeout};

use super::{
    Installed, Missing, Peer,
    install::{finish, once, unusable},
    server::{Server, disk_bytes},
};
use crate::{
    load::Load,
    measured::{Measured, Percentiles},
    process::free_address,
    rows::names,
};

/// Kafka.
#[derive(Clone, Debug)]
pub struct Kafka {
    flush: Flush,
    libraries: OnceLock<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
enum Flush {
    Default,
    EveryMessage,
}

impl Kafka {
    /// As it comes: it leaves flushing to the kernel, and to replicas.
    pub fn flushing_by_default() -> Self {
        Self { flush: Flush::Default, libraries: OnceLock::new() }
    }

    /// With `log.flush.interval.messages=1`.
    pub fn flushing_every_message() -> Self {
        Self { flush: Flush::EveryMessage, libraries: OnceLock::new() }
    }
}

impl Peer for Kafka {
    fn name(&self) -> &'static str {
        match self.flush {
            Flush::Default => names::KAFKA,
            Flush::EveryMessage => names::KAFKA_FLUSH,
        }
    }

    fn durability(&self) -> &'static str {
        match self.flush {
            Flush::Default => "memory of the kernel; no sync before a segment is full",
            Flush::EveryMessage => "on disk: sync after every batch of a partition",
        }
    }

    fn install(&self, tools: &Path) -> Result<Installed, Missing> {
        let directory = tools.join(format!("kafka-{VERSION}"));
        once(&directory, |unfinished| {
            let project = unfinished.join("pom.xml");
            fs::write(&project, PROJECT.replace("VERSION", VERSION)).map_err(|error| unusable(&project, &error))?;
            finish(
                process::Command::new("mvn")
                    .args(["--quiet", "--batch-mode", COPY_DEPENDENCIES, "-DoutputDirectory=lib"])
                    .current_dir(unfinished),
            )?;
            Ok(())
        })?;
        let said = finish(process::Command::new("java").arg("-version"))?;
        let java = said.split('"').nth(1).unwrap_or(&said).to_owned();
        let directory = directory.canonicalize().map_err(|error| unusable(&directory, &error))?;
        self.libraries.get_or_init(|| directory.join("lib"));
        Ok(Installed([("Kafka".to_owned(), VERSION.to_owned()), ("Java".to_owned(), java)].into()))
    }

    async fn run(&self, load: &Load, dir: &Path) -> anyhow::Result<Measured> {
        let dir = &dir.canonicalize()?;
        let broker = free_address()?.to_string();
        let kafka = Instance { libraries: self.libraries.get().context("install Kafka first")?, dir, broker: &broker };
        let data = dir.join("kafka");
        let configuration = dir.join("server.properties");
        fs::write(&configuration, self.configuration(load, &broker, &free_address()?.to_string(), &data))?;
        kafka.finish("kafka.tools.StorageTool", ["format", "-t", CLUSTER, "-c", &configuration.display().to_string()]).await?;

        let mut command = kafka.java("kafka.Kafka", SERVER_OPTIONS);
        let mut server = Server::start("kafka", command.arg(&configuration), dir)?;
        server.listens(broker.parse()?).await?;
        let idle_bytes = BTreeMap::from([(server.name(), server.resident_bytes()?.0)]);

        let warm_up = (load.records / 4).min(MOST_WARM_UP_RECORDS);
        let payloads = dir.join("payloads");
        write_payloads(&payloads, load.record_bytes)?;
        let server_cpu_before = server.cpu_seconds()?;
        let children_cpu_before = children_cpu_seconds()?;
        let said = kafka.finish(PRODUCER, producer_arguments(load, warm_up, &broker, &payloads)).await?;
        let share = load.records as f64 / (warm_up + load.records) as f64;
        let client_cpu_seconds = (children_cpu_seconds()? - children_cpu_before) * share;
        let server_cpu_seconds = BTreeMap::from([(server.name(), (server.cpu_seconds()? - server_cpu_before) * share)]);
        let loaded_bytes = BTreeMap::from([(server.name(), server.resident_bytes()?.1)]);
        let disk_bytes = disk_bytes(&data)?;
        let counted = Summary::last_of(&said).with_context(|| format!("{PRODUCER} said no summary:\n{said}"))?;
        ensure!(counted.records == load.records, "{} of {} records were acknowledged:\n{said}", counted.records, load.records);

        kafka.read_back(warm_up + load.records, load.record_bytes).await?;
        server.stop().await?;
        Ok(Measured {
            records: load.records,
            payload_bytes: load.payload_bytes(),
            seconds: load.records as f64 / counted.records_per_second,
            client_cpu_seconds,
            server_cpu_seconds,
            idle_bytes,
            loaded_bytes,
            disk_bytes: Some((disk_bytes as f64 * share) as u64),
            latency_us: load.rate.map(|_| counted.latency_us),
            verified: load.records,
        })
    }
}

impl Kafka {
    fn configuration(&self, load: &Load, broker: &str, controller: &str, data: &Path) -> String {
        let flush = match self.flush {
            Flush::Default => "",
            Flush::EveryMessage => "log.flush.interval.messages=1",
        };
        let partitions = load.partitions;
        let data = data.display();
        // The topic is made on first use. The topic in which the reading back keeps its offsets needs no 50 partitions on 3
        // brokers.
        format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@{controller}\n\
             controller.listener.names=CONTROLLER\n\
             listeners=PLAINTEXT://{broker},CONTROLLER://{controller}\n\
             log.dirs={data}\n\
             num.partitions={partitions}\n\
             offsets.topic.num.partitions=1\n\
             offsets.topic.replication.factor=1\n\
             {flush}\n"
        )
    }
}

/// A server's libraries, directory and address.
struct Instance<'a> {
    libraries: &'a Path,
    dir: &'a Path,
    broker: &'a str,
}

impl Instance<'_> {
    fn java(&self, class: &str, options: &[&str]) -> Command {
        let mut command = Command::new("java");
        command
            .args(options)
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg("-cp")
            .arg(self.libraries.join("*"))
            .arg(class);
        command.current_dir(self.dir).kill_on_drop(true);
        command
    }

    /// Runs one of Kafka's own tools to its end, and returns what it said.
    async fn finish(&self, class: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> anyhow::Result<String> {
        let mut command = self.java(class, TOOL_OPTIONS);
        let output = timeout(PATIENCE, command.args(arguments).output()).await;
        let output = output.with_context(|| format!("{class} does not end within {PATIENCE:?}"))??;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{class} failed:\n{said}{}", String::from_utf8_lossy(&output.stderr));
        Ok(said)
    }

    async fn read_back(&self, records: u64, record_bytes: usize) -> anyhow::Result<()> {
        let said = self.finish(OFFSETS, ["--bootstrap-server", self.broker, "--topic", TOPIC]).await?;
        let in_log = end_offsets(&said).with_context(|| format!("{OFFSETS} said no offsets:\n{said}"))?;
        ensure!(in_log == records, "{in_log} records instead of {records} are in the log");

        let number = records.to_string();
        let said = self
            .finish(CONSUMER, ["--bootstrap-server", self.broker, "--topic", TOPIC, "--num-records", &number, "--hide-header"])
            .await?;
        let (mebibytes, read) = consumed(&said).with_context(|| format!("{CONSUMER} said no summary:\n{said}"))?;
        ensure!(read == records, "{read} records instead of {records} were read back");
        let sent = (records * record_bytes as u64) as f64 / f64::from(1 << 20);
        // Told with four digits behind the point.
        ensure!((mebibytes - sent).abs() < 1e-4, "{mebibytes} MiB instead of {sent} were read back");
        Ok(())
    }
}

fn producer_arguments(load: &Load, warm_up: u64, broker: &str, payloads: &Path) -> Vec<String> {
    let unacknowledged_bytes = load.unacknowledged * load.record_bytes;
    // One request holds a batch of each partition, and five of them are out: batches as large as what is unacknowledged allows.
    let batch_bytes = (unacknowledged_bytes / (load.partitions as usize * 2)).clamp(16 << 10, MOST_BATCH_BYTES);
    // The producer takes memory in whole batches, and one for each partition at least.
    let memory_bytes = unacknowledged_bytes.max(batch_bytes * 2);
    let throughput = load.rate.map_or_else(|| "-1".to_owned(), |rate| rate.to_string());
    [
        ["--bootstrap-server", broker].map(str::to_owned).to_vec(),
        ["--topic", TOPIC].map(str::to_owned).to_vec(),
        vec!["--num-records".to_owned(), (warm_up + load.records).to_string()],
        vec!["--warmup-records".to_owned(), warm_up.to_string()],
        // Making random records in the tool would take more processor time than sending them.
        vec!["--payload-file".to_owned(), payloads.display().to_string()],
        vec!["--throughput".to_owned(), throughput],
        vec!["--command-property".to_owned(), "acks=all".to_owned(), "enable.idempotence=true".to_owned()],
        vec![format!("batch.size={batch_bytes}"), format!("buffer.memory={memory_bytes}")],
    ]
    .concat()
}

/// Lines of printable characters, each a record.
fn write_payloads(path: &Path, record_bytes: usize) -> anyhow::Result<()> {
    ensure!(record_bytes > 0, "a record needs a byte");
    let mut file = BufWriter::new(File::create(path)?);
    let mut state = 1u64;
    for line in 0..PAYLOADS {
        if line > 0 {
            file.write_all(b"\n")?;
        }
        for _ in 0..record_bytes {
            // Knuth's MMIX generator; its high bits are good enough for noise.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            file.write_all(&[b'0' + (state >> 58) as u8])?;
        }
    }
    Ok(file.into_inner()?.sync_all()?)
}

/// The line with which `ProducerPerformance` ends; with a warm-up, the last one is that of the counted records.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Summary {
    records: u64,
    records_per_second: f64,
    latency_us: Percentiles,
}

impl Summary {
    fn last_of(said: &str) -> Option<Self> {
        Self::parse(said.lines().rev().find(|line| line.contains("records sent, ") && line.ends_with("99.9th."))?)
    }

    /// `100 steady state records sent, 11494.2 records/sec (11.22 MB/sec), 1.29 ms avg latency, 9.00 ms max latency, ...`
    fn parse(line: &str) -> Option<Self> {
        let parts: Vec<_> = line.split(", ").collect();
        let first = |part: &str| part.split(' ').next()?.parse::<f64>().ok();
        let micros =
            |what: &str| first(parts.iter().find(|part| part.trim_end_matches('.').ends_with(what))?).map(|millis| millis * 1e3);
        Some(Self {
            records: parts.first()?.split(' ').next()?.parse().ok()?,
            records_per_second: first(parts.get(1)?)?,
            latency_us: Percentiles {
                p50: micros("ms 50th")?,
                // At least the 90th, which the tool does not tell.
                p90: micros("ms 95th")?,
                p99: micros("ms 99th")?,
                p99_9: micros("ms 99.9th")?,
                max: micros("ms max latency")?,
            },
        })
    }
}

/// The sum of the end offsets in lines of `topic:partition:offset`; without transactions every offset is a record.
fn end_offsets(said: &str) -> Option<u64> {
    let lines = said.lines().filter_map(|line| line.strip_prefix(TOPIC)?.strip_prefix(':'));
    lines.map(|line| line.rsplit_once(':')?.1.parse::<u64>().ok()).collect::<Option<Vec<_>>>().map(|offsets| offsets.iter().sum())
}

/// MiB and records in the line `start, end, MB, MB/s, records, ...`.
fn consumed(said: &str) -> Option<(f64, u64)> {
    let fields: Vec<_> = said.lines().last()?.split(", ").collect();
    Some((fields.get(2)?.parse().ok()?, fields.get(4)?.parse().ok()?))
}

/// CPU time of this process' children that have ended, in seconds.
fn children_cpu_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, behind_name) = stat.rsplit_once(')').context("/proc/self/stat has a name")?;
    // The 16th and 17th field, counted from 1; the first behind the name is the third.
    let ticks = behind_name.split_whitespace().skip(13).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The newest of which Maven Central has both the server and the tools.
const VERSION: &str = "4.3.1";
const PROJECT: &str = include_str!("kafka.pom.xml");
const COPY_DEPENDENCIES: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
/// Kafka's own start scripts run the server with these.
const SERVER_OPTIONS: &[&str] = &[
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];
/// And its performance tools with this.
const TOOL_OPTIONS: &[&str] = &["-Xmx512M"];
const PRODUCER: &str = "org.apache.kafka.tools.ProducerPerformance";
const CONSUMER: &str = "org.apache.kafka.tools.ConsumerPerformance";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
/// Any sixteen bytes, as Kafka writes them.
const CLUSTER: &str = "b25jZWxvZy1iZW5jaC0wMQ";
const TOPIC: &str = "records";
const PAYLOADS: usize = 512;
/// After so many the compiler has long done its work.
const MOST_WARM_UP_RECORDS: u64 = 500_000;
/// Measured with 16 KiB (the default), 64, 128 and 256 KiB; the server takes no more than 1 MiB.
const MOST_BATCH_BYTES: usize = 256 << 10;
/// The longest tool, sending to the slower mode, takes a quarter of it.
const PATIENCE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Warmup first 25 records.\n\
        125 records sent, 10.5 records/sec (10.15 MB/sec), 2108.23 ms avg latency, 3514.00 ms max latency, 2071 ms 50th, 3377 ms 95th, 3428 ms 99th, 3479 ms 99.9th.\n\
        100 steady state records sent, 11.5 records/sec (11.22 MB/sec), 1941.29 ms avg latency, 3466.00 ms max latency, 1901 ms 50th, 3353 ms 95th, 3414 ms 99th, 3452 ms 99.9th.\n";

    #[test]
    fn the_records_that_warmed_up_are_not_counted() {
        let latency_us = Percentiles { p50: 1_901e3, p90: 3_353e3, p99: 3_414e3, p99_9: 3_452e3, max: 3_466e3 };
        assert_eq!(Summary::last_of(SAID), Some(Summary { records: 100, records_per_second: 11.5, latency_us }));
    }

    #[test]
    fn without_a_warm_up_the_only_summary_counts() {
        let first = SAID.lines().nth(1).unwrap();
        assert_eq!(Summary::last_of(first).unwrap().records, 125);
        assert_eq!(Summary::last_of("nothing"), None);
    }

    #[test]
    fn end_offsets_are_summed_over_the_partitions_of_the_topic() {
        assert_eq!(end_offsets("records:0:15600\nrecords:1:15660\nother:0:7\n"), Some(31_260));
        assert_eq!(end_offsets("records:0:\n"), None);
    }

    #[test]
    fn what_was_consumed_is_told_in_mebibytes_and_records() {
        let said = "2026-11-23 09:00:46:615, 2026-11-23 09:00:53:055, 122.0703, 18.9550, 125000, 19409.9379, 4646, 1794, 68.0437, 69676.7001\n";
        assert_eq!(consumed(said), Some((122.0703, 125_000)));
        assert_eq!(consumed(""), None);
    }

    #[test]
    fn a_payload_is_a_line_of_as_many_bytes_as_a_record() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("payloads");
        write_payloads(&path, 100).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), PAYLOADS);
        assert!(text.lines().all(|line| line.len() == 100));
    }

    #[test]
    fn a_small_window_still_leaves_the_producer_room_for_two_batches() {
        let load = Load { record_bytes: 100, partitions: 8, records: 10, unacknowledged: 1, rate: None };
        let arguments = producer_arguments(&load, 2, "b:1", Path::new("p"));
        assert!(arguments.contains(&"batch.size=16384".to_owned()) && arguments.contains(&"buffer.memory=32768".to_owned()));
    }
}

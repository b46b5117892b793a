//! Runs one peer with one load.

use std::{fs, path::PathBuf};

use clap::Parser;
use oncelog_bench::{
    load::Load,
    peers::{Installed, JetStream, Kafka, Missing, Peer, RabbitStreams, RedisStreams},
};

#[derive(Debug, Parser)]
struct Cli {
    peer: String,
    #[arg(long, default_value = "bench-tools")]
    tools: PathBuf,
    #[arg(long, default_value = "bench-data")]
    dir: PathBuf,
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    #[arg(long, default_value_t = 8)]
    partitions: u32,
    #[arg(long, default_value_t = 100_000)]
    records: u64,
    #[arg(long, default_value_t = 8192)]
    unacknowledged: usize,
    #[arg(long)]
    rate: Option<f64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.peer.as_str() {
        "kafka" => run(Kafka::flushing_by_default(), &cli).await,
        "kafka-flush" => run(Kafka::flushing_every_message(), &cli).await,
        "nats" => run(JetStream::syncing_by_default(), &cli).await,
        "nats-always" => run(JetStream::syncing_always(), &cli).await,
        "redis" => run(RedisStreams::syncing_every_second(), &cli).await,
        "redis-always" => run(RedisStreams::syncing_always(), &cli).await,
        "rabbitmq" => run(RabbitStreams::default(), &cli).await,
        other => anyhow::bail!("no peer {other}"),
    }
}

async fn run(peer: impl Peer, cli: &Cli) -> anyhow::Result<()> {
    let Installed(versions) = peer.install(&cli.tools).map_err(|Missing(why)| anyhow::Error::msg(why))?;
    eprintln!("{}: {}; {versions:?}", peer.name(), peer.durability());
    if cli.dir.exists() {
        fs::remove_dir_all(&cli.dir)?;
    }
    fs::create_dir_all(&cli.dir)?;
    let load = Load {
        record_bytes: cli.record_bytes,
        partitions: cli.partitions,
        records: cli.records,
        unacknowledged: cli.unacknowledged,
        rate: cli.rate,
    };
    let measured = peer.run(&load, &cli.dir).await?;
    eprintln!(
        "{:.0} records/s, {:.1} MB/s: {measured:?}",
        measured.records as f64 / measured.seconds,
        measured.payload_bytes as f64 / 1e6 / measured.seconds
    );
    Ok(())
}

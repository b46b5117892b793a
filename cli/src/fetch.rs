//! `oncelog fetch`: a topic's records on stdout.
//!
//! Records are fetched as they are stored, whole batches, and unpacked here. Without `--follow` partitions come one after the
//! other; with it, each as its records come, in offset order within a partition.

mod output;

use std::{
    io::{BufWriter, Write},
    process::ExitCode,
};

use anyhow::{anyhow, bail};
use oncelog_proto::{
    Link, PackedBatch,
    v1::{
        DescribeTopicsRequest, FetchRequest, FetchResponse, broker_service_client::BrokerServiceClient,
        fetch_response::FetchedBatch,
    },
};
use tokio::sync::mpsc;
use tonic::Status;

use self::output::{Fetched, Output, Tag};
use crate::connect;

/// What `oncelog fetch` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Topic to read.
    topic: String,
    /// The broker's address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051", env = "ONCELOG_BROKER")]
    broker: String,
    #[command(flatten)]
    secured: connect::Secured,
    /// Partition to read, from 0. Default: all of them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Offset to begin at. Default: the oldest record there is.
    #[arg(long, value_name = "N", requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,
    /// End after this many records. Default: at the end of the log.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    max_records: Option<i64>,
    /// Wait for more at the end of the log.
    #[arg(long)]
    follow: bool,
    /// How records are written: values, each with a newline; a JSON object a line; or key and value, each after its length.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Fetches, and writes to stdout.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut client = connect::broker(&args.broker, &args.secured).await?;
    let partitions = match args.partition {
        Some(partition) => vec![partition],
        None => partitions_of(&mut client, &args.topic).await?,
    };
    let out = BufWriter::new(std::io::stdout().lock());
    let mut reader = Reader { out, output: args.output, left: args.max_records };
    if args.follow {
        reader.follow(&client, &args, &partitions).await?;
    } else {
        for partition in partitions {
            reader.read(&mut client, &args, partition).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn partitions_of(client: &mut BrokerServiceClient<Link>, topic: &str) -> anyhow::Result<Vec<i32>> {
    let request = DescribeTopicsRequest { topics: vec![topic.to_owned()], allow_auto_create: false, ..Default::default() };
    let described = client.describe_topics(request).await.map_err(|s| connect::failure(&format!("topic {topic}"), &s))?;
    let described = described.into_inner().topics.into_iter().find(|described| described.topic == topic);
    match described {
        Some(described) if !described.partitions.is_empty() => Ok(described.partitions.iter().map(|p| p.partition).collect()),
        _ => bail!("the broker did not describe {topic} with its partitions"),
    }
}

fn request(args: &Args, partition: i32, max_records: Option<i64>) -> FetchRequest {
    FetchRequest { topic: args.topic.clone(), partition, offset: args.offset, max_records, follow: args.follow, packed: true }
}

/// A stream that ended too early, and where it stood.
fn broken(args: &Args, partition: i32, next: i64, status: &Status) -> anyhow::Error {
    let on = format!("go on with --partition {partition} --offset {next}");
    connect::failure(&format!("fetching {}/{partition} ({on})", args.topic), status)
}

struct Reader<W> {
    out: W,
    output: Output,
    /// Records that may still be written.
    left: Option<i64>,
}

impl<W: Write> Reader<W> {
    async fn read(&mut self, client: &mut BrokerServiceClient<Link>, args: &Args, partition: i32) -> anyhow::Result<()> {
        if self.left == Some(0) {
            return Ok(());
        }
        let mut next = args.offset.unwrap_or(0);
        let mut stream = client
            .fetch(request(args, partition, self.left))
            .await
            .map_err(|status| connect::failure(&format!("fetching {}/{partition}", args.topic), &status))?
            .into_inner();
        while let Some(response) = stream.message().await.map_err(|status| broken(args, partition, next, &status))? {
            self.write(partition, &mut next, response)?;
        }
        Ok(())
    }

    async fn follow(&mut self, client: &BrokerServiceClient<Link>, args: &Args, partitions: &[i32]) -> anyhow::Result<()> {
        let (tx, mut responses) = mpsc::channel(partitions.len());
        for &partition in partitions {
            let (mut client, tx) = (client.clone(), tx.clone());
            let request = request(args, partition, self.left);
            tokio::spawn(async move {
                let mut stream = match client.fetch(request).await {
                    Ok(response) => response.into_inner(),
                    Err(status) => return drop(tx.send((partition, Err(status))).await),
                };
                loop {
                    let ended = || Err(Status::unavailable("the broker ended the stream"));
                    let response = stream.message().await.transpose().unwrap_or_else(ended);
                    let last = response.is_err();
                    if tx.send((partition, response)).await.is_err() || last {
                        return;
                    }
                }
            });
        }
        drop(tx);
        let mut next = vec![args.offset.unwrap_or(0); partitions.len()];
        while let Some((partition, response)) = responses.recv().await {
            let at = partitions.iter().position(|&p| p == partition).expect("one of those that were asked for");
            let next = &mut next[at];
            let response = response.map_err(|status| broken(args, partition, *next, &status))?;
            self.write(partition, next, response)?;
            if self.left == Some(0) {
                break;
            }
        }
        Ok(())
    }

    /// Writes what is asked for of one response: its batches are whole, so the first may begin too early and the last may
    /// end too late.
    fn write(&mut self, partition: i32, next: &mut i64, response: FetchResponse) -> anyhow::Result<()> {
        for batch in response.batches {
            let base = batch.base_offset;
            for (index, fetched) in (0..).zip(unpack(partition, batch)?) {
                let offset = base + index;
                if offset < *next {
                    continue;
                }
                match &mut self.left {
                    Some(0) => break,
                    Some(left) => *left -= 1,
                    None => {}
                }
                self.output.write(&fetched, &mut self.out)?;
                *next = offset + 1;
            }
        }
        Ok(self.out.flush()?)
    }
}

fn unpack(partition: i32, batch: FetchedBatch) -> anyhow::Result<impl Iterator<Item = Fetched>> {
    let damaged = |why: &str| anyhow!("the batch at offset {} of partition {partition} {why}", batch.base_offset);
    let packed = batch.packed.ok_or_else(|| damaged("came without records"))?;
    let packed = PackedBatch::from_proto(packed).map_err(|fault| damaged(&format!("cannot be read: {fault}")))?;
    let impossible = |base: i64| base < 0 || base.checked_add(packed.count().get().into()).is_none();
    if impossible(batch.base_offset) || impossible(batch.base_sequence) {
        bail!(damaged("claims an offset or a sequence that no log has"));
    }
    if packed.checksum() != batch.checksum {
        bail!(damaged("has another checksum than the broker says: it was damaged on its way"));
    }
    let records = packed.records().map_err(|fault| damaged(&format!("cannot be read: {fault}")))?;
    let (offset, append_time) = (batch.base_offset, batch.append_time);
    let tag = batch.producer_id.map(|id| (id, batch.producer_epoch, batch.base_sequence));
    Ok((0..).zip(records).map(move |(index, record)| Fetched {
        partition,
        offset: offset + index,
        append_time,
        tag: tag.map(|(producer_id, producer_epoch, base)| Tag { producer_id, producer_epoch, sequence: base + index }),
        record,
    }))
}

//! `oncelog producers`: what the broker remembers of who wrote to it. By this it recognises duplicates.

use std::{io, process::ExitCode};

use anyhow::ensure;
use oncelog_proto::v1::{DescribeProducersRequest, describe_producers_response as described};
use serde::Serialize;

use crate::{
    connect,
    exit::Exit,
    output::{self, Output},
    terminal::Table,
};

/// What `oncelog producers` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this producer id.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(0..))]
    producer_id: Option<i64>,
    /// Only producers that wrote to this topic.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Tell of at most this many producers, by id.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// The broker's address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051", env = "ONCELOG_BROKER")]
    broker: String,
    #[command(flatten)]
    secured: connect::Secured,
    /// The form of what is told.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Producers {
    producers: Vec<Producer>,
    /// There are more than the limit allows.
    more: bool,
}

#[derive(Debug, Serialize)]
struct Producer {
    producer_id: i64,
    producer_epoch: i32,
    last_seen: Option<String>,
    partitions: Vec<Partition>,
}

#[derive(Debug, Serialize)]
struct Partition {
    topic: String,
    partition: i32,
    next_sequence: i64,
}

/// Asks, and tells.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let told = ask(&args).await?;
    match args.output {
        Output::Text => {
            table(&told).write(&mut io::stdout().lock())?;
            if told.more {
                eprintln!("oncelog: there are more; see --limit, --topic and --producer-id");
            }
        }
        Output::Json => output::json(&told)?,
    }
    Ok(Exit::Success.into())
}

async fn ask(args: &Args) -> anyhow::Result<Producers> {
    let mut broker = connect::broker(&args.broker, &args.secured).await?;
    let limit = usize::try_from(args.limit).expect("at most 100,000");
    let mut producers = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = DescribeProducersRequest {
            producer_id: args.producer_id,
            topic: args.topic.clone().unwrap_or_default(),
            page_token: page_token.clone(),
            page_size: PAGE,
        };
        let page = broker.describe_producers(request).await.map_err(|s| connect::failure("describing producers", &s))?;
        let page = page.into_inner();
        producers.extend(page.producers.into_iter().map(Producer::of));
        let is_last = page.next_page_token.is_empty();
        ensure!(is_last || page.next_page_token != page_token, "the broker repeats a page; see its log");
        if is_last || producers.len() > limit {
            let more = producers.len() > limit;
            producers.truncate(limit);
            return Ok(Producers { producers, more });
        }
        page_token = page.next_page_token;
    }
}

impl Producer {
    fn of(producer: described::Producer) -> Self {
        let partition =
            |p: described::Partition| Partition { topic: p.topic, partition: p.partition, next_sequence: p.next_sequence };
        Self {
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            last_seen: producer.last_seen.map(|time| time.to_string()),
            partitions: producer.partitions.into_iter().map(partition).collect(),
        }
    }
}

/// A row for each partition that a producer wrote to.
fn table(told: &Producers) -> Table {
    let mut table = Table::new(&["#PRODUCER", "#EPOCH", "LAST SEEN", "TOPIC", "#PARTITION", "#NEXT SEQUENCE"]);
    for producer in &told.producers {
        let mut row = |partition: [String; 3]| {
            let last_seen = producer.last_seen.clone().unwrap_or_else(|| "-".to_owned());
            let mut cells = vec![producer.producer_id.to_string(), producer.producer_epoch.to_string(), last_seen];
            cells.extend(partition);
            table.row(cells);
        };
        for partition in &producer.partitions {
            row([partition.topic.clone(), partition.partition.to_string(), partition.next_sequence.to_string()]);
        }
        if producer.partitions.is_empty() {
            row(["-", "-", "-"].map(str::to_owned));
        }
    }
    table
}

const PAGE: i32 = 1_000;

//! `oncelog topic`: create, list, describe, delete.

use std::{io, process::ExitCode};

use anyhow::bail;
use oncelog_proto::{
    Link,
    v1::{
        CreateTopicRequest, DeleteTopicRequest, DescribeTopicsRequest, broker_service_client::BrokerServiceClient,
        describe_topics_response as described,
    },
};
use serde::Serialize;
use tonic::Code;

use crate::{
    connect,
    exit::Exit,
    output::{self, Output},
    terminal::{Table, bytes, grouped},
};

/// What `oncelog topic` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    /// The broker's address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051", env = "ONCELOG_BROKER", global = true)]
    broker: String,
    #[command(flatten)]
    secured: connect::Secured,
    /// The form of what is told.
    #[arg(long, value_enum, default_value_t, global = true)]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create a topic.
    Create {
        /// 1 to 249 characters of [a-zA-Z0-9._-].
        topic: String,
        /// Number of partitions; it never changes. Default: the broker's default.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// Be content if it exists with as many partitions as are asked for.
        #[arg(long)]
        if_not_exists: bool,
    },
    /// List all topics.
    #[command(visible_alias = "ls")]
    List,
    /// Tell offsets and sizes of each partition.
    Describe {
        /// Topics.
        #[arg(required = true)]
        topic: Vec<String>,
    },
    /// Delete a topic and everything in it, at once and for ever.
    #[command(visible_alias = "rm")]
    Delete {
        /// Topics.
        #[arg(required = true)]
        topic: Vec<String>,
    },
}

/// Does it, and tells.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut broker = connect::broker(&args.broker, &args.secured).await?;
    match args.action {
        Action::Create { topic, partitions, if_not_exists } => {
            let created = create(&mut broker, &topic, partitions, if_not_exists).await?;
            match args.output {
                Output::Text if created.existed => tell(&format!("{topic} exists with {} partitions", created.partitions))?,
                Output::Text => tell(&format!("created {topic} with {} partitions", created.partitions))?,
                Output::Json => output::json(&created)?,
            }
        }
        Action::List => {
            let topics = describe(&mut broker, &[]).await?;
            match args.output {
                Output::Text => list(&topics).write(&mut io::stdout().lock())?,
                Output::Json => output::json(&Topics { topics })?,
            }
        }
        Action::Describe { topic } => {
            let topics = describe(&mut broker, &topic).await?;
            match args.output {
                Output::Text => partitions(&topics).write(&mut io::stdout().lock())?,
                Output::Json => output::json(&Topics { topics })?,
            }
        }
        Action::Delete { topic } => {
            let mut deleted = Vec::new();
            let mut failed = None;
            for topic in topic {
                let request = DeleteTopicRequest { topic: topic.clone() };
                if let Err(status) = broker.delete_topic(request).await {
                    failed = Some(connect::failure(&format!("deleting topic {topic}"), &status));
                    break;
                }
                if args.output == Output::Text {
                    tell(&format!("deleted {topic}"))?;
                }
                deleted.push(topic);
            }
            // Those before the one that failed are gone all the same.
            if args.output == Output::Json {
                output::json(&serde_json::json!({ "deleted": deleted }))?;
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }
    Ok(Exit::Success.into())
}

#[derive(Debug, Serialize)]
struct Created {
    topic: String,
    partitions: i32,
    existed: bool,
}

async fn create(
    broker: &mut BrokerServiceClient<Link>,
    topic: &str,
    partitions: Option<i32>,
    if_not_exists: bool,
) -> anyhow::Result<Created> {
    let request = CreateTopicRequest { topic: topic.to_owned(), partitions: partitions.unwrap_or(0) };
    match broker.create_topic(request).await {
        Ok(created) => Ok(Created { topic: topic.to_owned(), partitions: created.into_inner().partitions, existed: false }),
        Err(status) if if_not_exists && status.code() == Code::AlreadyExists => {
            let described = describe(broker, &[topic.to_owned()]).await?;
            let exist = described.first().map_or(0, |topic| topic.partitions.len());
            let exist = i32::try_from(exist).unwrap_or(i32::MAX);
            if partitions.is_some_and(|asked| asked != exist) {
                bail!(Exit::Refused.because(format!(
                    "topic {topic} exists with {exist} partitions, and their number never changes; \
                     leave --partitions away, or name another topic"
                )));
            }
            Ok(Created { topic: topic.to_owned(), partitions: exist, existed: true })
        }
        Err(status) => Err(connect::failure(&format!("creating topic {topic}"), &status)),
    }
}

#[derive(Debug, Serialize)]
struct Topics {
    topics: Vec<Topic>,
}

#[derive(Debug, Serialize)]
struct Topic {
    topic: String,
    records: i64,
    bytes: i64,
    partitions: Vec<Partition>,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: i32,
    log_start_offset: i64,
    log_end_offset: i64,
    bytes: i64,
    oldest_append_time: Option<String>,
}

impl Topic {
    fn of(topic: described::Topic) -> Self {
        let partitions: Vec<_> = topic.partitions.into_iter().map(Partition::of).collect();
        let records = partitions.iter().map(Partition::records).fold(0, i64::saturating_add);
        let bytes = partitions.iter().map(|partition| partition.bytes).fold(0, i64::saturating_add);
        Self { topic: topic.topic, records, bytes, partitions }
    }
}

impl Partition {
    fn of(partition: described::Partition) -> Self {
        Self {
            partition: partition.partition,
            log_start_offset: partition.log_start_offset,
            log_end_offset: partition.log_end_offset,
            bytes: partition.bytes,
            oldest_append_time: partition.oldest_append_time.map(|time| time.to_string()),
        }
    }

    fn records(&self) -> i64 {
        self.log_end_offset.saturating_sub(self.log_start_offset)
    }
}

/// Topics by name, or all of them, page by page.
async fn describe(broker: &mut BrokerServiceClient<Link>, topics: &[String]) -> anyhow::Result<Vec<Topic>> {
    let mut told = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = DescribeTopicsRequest { topics: topics.to_vec(), allow_auto_create: false, page_token: page_token.clone() };
        let page = broker.describe_topics(request).await.map_err(|s| connect::failure("describing topics", &s))?.into_inner();
        told.extend(page.topics.into_iter().map(Topic::of));
        if page.next_page_token.is_empty() {
            return Ok(told);
        }
        if page.next_page_token == page_token {
            bail!("the broker's pages do not end");
        }
        page_token = page.next_page_token;
    }
}

fn list(topics: &[Topic]) -> Table {
    let mut table = Table::new(&["TOPIC", "#PARTITIONS", "#RECORDS", "#STORED"]);
    for topic in topics {
        table.row(vec![topic.topic.clone(), topic.partitions.len().to_string(), number(topic.records), size(topic.bytes)]);
    }
    table
}

fn partitions(topics: &[Topic]) -> Table {
    let mut table = Table::new(&["TOPIC", "#PARTITION", "#LOG START", "#LOG END", "#RECORDS", "#STORED", "OLDEST RECORD"]);
    for topic in topics {
        for partition in &topic.partitions {
            table.row(vec![
                topic.topic.clone(),
                partition.partition.to_string(),
                number(partition.log_start_offset),
                number(partition.log_end_offset),
                number(partition.records()),
                size(partition.bytes),
                partition.oldest_append_time.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
    }
    table
}

fn number(number: i64) -> String {
    u64::try_from(number).map_or_else(|_| number.to_string(), grouped)
}

fn size(size: i64) -> String {
    u64::try_from(size).map_or_else(|_| size.to_string(), bytes)
}

fn tell(line: &str) -> io::Result<()> {
    use std::io::Write;
    writeln!(io::stdout(), "{line}")
}

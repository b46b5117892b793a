//! `oncelog send`: records from stdin to a topic, with many requests outstanding.
//!
//! Every record that was sent is accounted for at the end: acknowledged, refused, or unknown. Nothing is ever sent a second
//! time from here, because a second time is a second record; what the connection takes with it is reported as unknown.

mod input;
mod ledger;
mod recording;

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::bail;
use oncelog_proto::{
    Link,
    v1::{
        CreateTopicRequest, DescribeTopicsRequest, SendStreamRequest, SendStreamResponse,
        producer_service_client::ProducerServiceClient,
    },
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use self::{
    input::{Chunk, Input},
    ledger::Ledger,
    recording::Recording,
};
use crate::{
    connect,
    exit::Exit,
    framing::Framing,
    output::{self, Output},
};

/// What `oncelog send` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Topic to write to; created on first use unless the broker forbids it.
    topic: String,
    /// The producer's address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50052", env = "ONCELOG_PRODUCER")]
    producer: String,
    /// The broker's address; needed with --partitions only.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051", env = "ONCELOG_BROKER")]
    broker: String,
    #[command(flatten)]
    secured: connect::Secured,
    /// How records stand on stdin: one a line, or key and value each after a 4-byte big-endian length (0xFFFFFFFF: none).
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// A line's key is what stands before the first of these. Default: no keys.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// Partition for all records, from 0. Default: by the hash of the key.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Create the topic with this many partitions if it does not exist.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Most records in a request.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Give up after so many seconds without any answer while some are awaited. The default is longer than a producer tries,
    /// which is max.block.ms and delivery.timeout.ms.
    #[arg(long, value_name = "SECONDS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Write down what was sent and what was answered, for `oncelog verify`. A new file.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// The form of the account at the end: text goes to stderr, JSON to stdout.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// How records stand on stdin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    Lines,
    LengthPrefixed,
}

/// Sends stdin, tells how it went.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let framing = match (args.format, args.key_separator.clone()) {
        (Format::Lines, key_separator) => Framing::Lines { key_separator },
        (Format::LengthPrefixed, None) => Framing::LengthPrefixed,
        (Format::LengthPrefixed, Some(_)) => {
            bail!("--key-separator belongs to --format lines; length-prefixed records carry their keys")
        }
    };
    if let Some(partitions) = args.partitions {
        create_if_missing(&args, partitions).await?;
    }
    let recording = Recording::begin(args.history.as_deref(), &args.topic, args.partition)?;
    let client = connect::producer(&args.producer, &args.secured).await?;
    let batch = usize::try_from(args.batch).expect("at most 10,000");
    let mut sending = Sending {
        call: Call::open(client),
        input: Input::stdin(framing, batch),
        ledger: Ledger::default(),
        recording,
        progress: Progress::start(),
    };
    let ended = sending.run(&args).await;
    sending.progress.end();
    sending.report(ended, args.output)
}

async fn create_if_missing(Args { broker, secured, topic, .. }: &Args, partitions: i32) -> anyhow::Result<()> {
    let mut client = connect::broker(broker, secured).await?;
    let create = CreateTopicRequest { topic: topic.to_owned(), partitions };
    match client.create_topic(create).await {
        Ok(_) => return Ok(()),
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => return Err(connect::failure(&format!("creating topic {topic}"), &status)),
    }
    let describe = DescribeTopicsRequest { topics: vec![topic.to_owned()], allow_auto_create: false, ..Default::default() };
    let described = client.describe_topics(describe).await;
    let described = described.map_err(|status| connect::failure(&format!("describing topic {topic}"), &status))?.into_inner();
    let exist = described.topics.first().map_or(0, |t| t.partitions.len());
    if usize::try_from(partitions) != Ok(exist) {
        bail!("topic {topic} exists with {exist} partitions, not {partitions}; leave --partitions away, or name another topic");
    }
    Ok(())
}

/// One run over the input.
struct Sending {
    call: Call,
    input: Input,
    ledger: Ledger,
    recording: Recording,
    progress: Progress,
}

/// Why the sending came to its end.
enum End {
    /// Every request was answered, and the input has ended.
    Done,
    /// The user asked for it; all requests were answered.
    Interrupted,
    /// The input cannot be read further; all requests were answered.
    Input(anyhow::Error),
    /// There will be no more answers.
    Broken(String),
}

impl Sending {
    async fn run(&mut self, args: &Args) -> End {
        let patience = Duration::from_secs(args.timeout);
        let mut interrupts = match signal(SignalKind::interrupt()) {
            Ok(interrupts) => interrupts,
            Err(error) => return End::Broken(format!("SIGINT cannot be caught: {error}")),
        };
        let mut heard = Instant::now();
        let mut ended = None;
        loop {
            if self.ledger.outstanding() == 0
                && let Some(end) = ended
            {
                return end;
            }
            let may_send = ended.is_none() && self.ledger.outstanding() < MAX_OUTSTANDING;
            tokio::select! {
                // In this order, because while input and answers keep coming the others would never get their turn.
                biased;
                Some(()) = interrupts.recv() => match ended {
                    Some(End::Interrupted) => return End::Broken("interrupted while answers were awaited".to_owned()),
                    _ => {
                        eprintln!("oncelog: interrupted; waiting for the answers to what was sent, once more to stop at once");
                        ended = Some(End::Interrupted);
                    }
                },
                () = self.progress.tick() => self.progress.show(&self.ledger),
                answer = self.call.answers.recv() => {
                    heard = Instant::now();
                    match answer {
                        Some(Ok(answer)) => {
                            if let Err(error) = self.recording.answered(&answer) {
                                return unrecorded(&error);
                            }
                            self.ledger.answered(answer);
                        }
                        Some(Err(status)) => return End::Broken(connect::failure("sending", &status).to_string()),
                        None => return End::Broken("the producer ended the stream".to_owned()),
                    }
                }
                chunk = self.input.next(), if may_send => match chunk {
                    Some(Ok(chunk)) => {
                        // Waiting for input is not waiting for an answer.
                        if self.ledger.outstanding() == 0 {
                            heard = Instant::now();
                        }
                        // What is not written down is not sent.
                        if let Err(error) = self.recording.called(&chunk.records) {
                            return unrecorded(&error);
                        }
                        self.send(args, chunk);
                    }
                    Some(Err(error)) => ended = Some(End::Input(error)),
                    None => ended = Some(End::Done),
                },
                () = sleep_until(heard + patience), if self.ledger.outstanding() > 0 => {
                    return End::Broken(format!("no answer for {} seconds (--timeout)", args.timeout));
                }
            }
        }
    }

    fn send(&mut self, args: &Args, chunk: Chunk) {
        self.ledger.sent(chunk.first, chunk.records.len());
        let request = SendStreamRequest {
            topic: args.topic.clone(),
            partition: args.partition,
            records: chunk.records,
            traceparent: String::new(),
        };
        // It has room for all that may be outstanding. If it is closed the call has ended, and `answers` will say why.
        let _ = self.call.requests.try_send(request);
    }

    fn report(mut self, ended: End, output: Output) -> anyhow::Result<ExitCode> {
        let ended = match self.recording.end() {
            Ok(()) => ended,
            Err(error) => unrecorded(&error),
        };
        self.ledger.no_more_answers();
        let ledger = &self.ledger;
        let why = match ended {
            End::Done => None,
            End::Interrupted => Some("interrupted: the rest of the input was not sent".to_owned()),
            End::Input(error) => Some(format!("stdin: {error:#}; what stands from there on was not sent")),
            End::Broken(why) => {
                let next = ledger.next_record();
                Some(format!("{why}. Records from {next} on, if there are any, were not sent"))
            }
        };
        match output {
            Output::Text => tell(ledger, why.as_deref())?,
            Output::Json => output::json(&serde_json::json!({
                "sent": ledger.records_sent(), "acknowledged": ledger.acknowledged(), "refused": ledger.refused(),
                "unknown": ledger.unknown(), "failures": ledger.failures().iter().map(ToString::to_string).collect::<Vec<_>>(),
                "failures_not_kept": ledger.failures_not_kept(), "ended_early": why,
            }))?,
        }
        let exit = match why {
            _ if ledger.unknown() > 0 => Exit::Unknown,
            None if ledger.refused() == 0 => Exit::Success,
            _ => Exit::Failed,
        };
        Ok(exit.into())
    }
}

fn tell(ledger: &Ledger, why: Option<&str>) -> std::io::Result<()> {
    let mut err = std::io::stderr().lock();
    let (sent, acknowledged) = (ledger.records_sent(), ledger.acknowledged());
    writeln!(err, "sent {sent}, acknowledged {acknowledged}, refused {}, unknown {}", ledger.refused(), ledger.unknown())?;
    for failure in ledger.failures() {
        writeln!(err, "  {failure}")?;
    }
    if ledger.failures_not_kept() > 0 {
        writeln!(err, "  … and {} more", ledger.failures_not_kept())?;
    }
    if let Some(why) = why {
        writeln!(err, "oncelog: {why}")?;
    }
    if ledger.unknown() > 0 {
        writeln!(err, "oncelog: an unknown record is in the log once or not at all; whoever sends it again may have it twice")?;
    }
    Ok(())
}

fn unrecorded(error: &std::io::Error) -> End {
    End::Broken(format!("--history cannot be written: {error}"))
}

/// One `SendStream`.
struct Call {
    requests: mpsc::Sender<SendStreamRequest>,
    answers: mpsc::Receiver<Result<SendStreamResponse, Status>>,
}

impl Call {
    fn open(mut client: ProducerServiceClient<Link>) -> Self {
        let (requests, requests_rx) = mpsc::channel(MAX_OUTSTANDING);
        let (answers_tx, answers) = mpsc::channel(ANSWERS_AHEAD);
        // In a task of its own: the call may not be open before the first request is sent.
        tokio::spawn(async move {
            let mut stream = match client.send_stream(ReceiverStream::new(requests_rx)).await {
                Ok(response) => response.into_inner(),
                Err(status) => return drop(answers_tx.send(Err(status)).await),
            };
            while let Some(answer) = stream.message().await.transpose() {
                let last = answer.is_err();
                if answers_tx.send(answer).await.is_err() || last {
                    return;
                }
            }
        });
        Self { requests, answers }
    }
}

/// What is shown while it runs: a line that renews itself on a terminal, else a line every ten seconds.
struct Progress {
    ticks: tokio::time::Interval,
    started: Instant,
    terminal: bool,
}

impl Progress {
    fn start() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let mut ticks = interval(if terminal { Duration::from_millis(200) } else { Duration::from_secs(10) });
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks.reset();
        Self { ticks, started: Instant::now(), terminal }
    }

    async fn tick(&mut self) {
        self.ticks.tick().await;
    }

    fn show(&self, ledger: &Ledger) {
        let acknowledged = ledger.acknowledged();
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = acknowledged as f64 / seconds;
        let awaited = ledger.records_awaited();
        let line = format!("acknowledged {acknowledged} ({rate:.0}/s), unacknowledged {awaited}");
        let mut err = std::io::stderr().lock();
        // Progress that nobody can see is no reason to stop.
        let _ = if self.terminal { write!(err, "\r\x1b[K{line}") } else { writeln!(err, "{line}") };
        let _ = err.flush();
    }

    fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

/// Requests that are not answered yet.
const MAX_OUTSTANDING: usize = 256;
const ANSWERS_AHEAD: usize = 16;

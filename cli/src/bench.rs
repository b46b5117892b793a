//! `oncelog bench`: a light load by `SendStream`, and what came of it. It tells what to expect of this pair on this machine, in a
//! minute; how oncelog compares with others is measured elsewhere, with more care.

mod pair;

use std::{
    collections::VecDeque,
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use oncelog_proto::{
    Link,
    v1::{
        Record, SendStreamRequest, SendStreamResponse, producer_service_client::ProducerServiceClient,
        send_failure::outcome::Outcome as Fate, send_stream_response::Outcome,
    },
};
use serde::Serialize;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use self::pair::Pair;
use crate::{
    connect,
    exit::Exit,
    interrupt::Interrupt,
    latency::{Latency, Percentiles},
    output::{self, Output},
    progress::Progress,
    terminal::{bytes, grouped, micros},
};

/// What `oncelog bench` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Records to send.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    records: u64,
    /// Bytes of a record's value.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    size: u32,
    /// Records in a request.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Requests that are not answered yet, at most. 1 tells how long one caller waits.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    outstanding: u32,
    /// Topic to write to; created on first use. It stays: `oncelog topic delete` removes it.
    #[arg(long, value_name = "TOPIC", default_value = "oncelog-bench")]
    topic: String,
    /// The producer's address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50052", env = "ONCELOG_PRODUCER")]
    producer: String,
    #[command(flatten)]
    secured: connect::Secured,
    /// Start a pair of services for this, with data in a temporary directory, and stop it after.
    #[arg(long)]
    start: bool,
    /// With --start: make the temporary directory in this one, to measure its disk. Default: the system's place for such.
    #[arg(long, value_name = "DIR", requires = "start")]
    directory: Option<std::path::PathBuf>,
    /// The form of the result.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Told {
    records: u64,
    acknowledged: u64,
    refused: u64,
    unknown: u64,
    bytes: u64,
    seconds: f64,
    records_per_second: f64,
    bytes_per_second: f64,
    /// Of requests, each of `batch` records.
    latency_micros: Option<Percentiles>,
    batch: u32,
    size: u32,
    outstanding: u32,
    /// Why not everything was sent.
    ended_early: Option<String>,
    /// What has to be known to read the numbers.
    notes: Vec<String>,
}

/// Sends, and tells.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::catch()?;
    tokio::select! {
        code = measure(args) => code,
        // The services that were started go, and their directory with them.
        () = interrupt.asked() => Ok(Exit::Interrupted.into()),
    }
}

async fn measure(args: Args) -> anyhow::Result<ExitCode> {
    let pair = if args.start { Some(Pair::start(args.directory.as_deref()).await?) } else { None };
    let url = pair.as_ref().map_or_else(|| args.producer.clone(), Pair::producer);
    let client = connect::producer(&url, &args.secured).await?;
    let mut told = send(&args, client).await;
    if let Some(pair) = pair {
        told.notes.extend(pair.stop().await?);
    }
    match args.output {
        Output::Text => output::heard(tell(&told, &mut io::stdout().lock()))?,
        Output::Json => output::heard(output::json(&told))?,
    }
    let exit = match (told.unknown, told.acknowledged == told.records) {
        (0, true) => Exit::Success,
        (0, false) => Exit::Failed,
        _ => Exit::Unknown,
    };
    Ok(exit.into())
}

async fn send(args: &Args, mut client: ProducerServiceClient<Link>) -> Told {
    let (requests, outgoing) = mpsc::channel(usize::try_from(args.outstanding).expect("at most 1,000"));
    let mut load = Load::new(args);
    let mut progress = Progress::start("sending");
    let started = now();
    // The answer to the call itself may wait for the first request.
    load.fill(&requests);
    let mut opened = match timeout(PATIENCE, client.send_stream(ReceiverStream::new(outgoing))).await {
        Ok(Ok(answers)) => Ok(answers.into_inner()),
        Ok(Err(status)) => Err(connect::failure("sending", &status).to_string()),
        Err(_) => Err(silence()),
    };
    let ended_early = loop {
        let answers = match &mut opened {
            Ok(answers) => answers,
            Err(why) => break Some(why.clone()),
        };
        if load.open.is_empty() {
            break None;
        }
        match next(answers).await {
            Ok(answer) => load.answered(&answer),
            Err(why) => break Some(why),
        }
        progress.at(load.sent, args.records);
        load.fill(&requests);
    };
    let seconds = now().duration_since(started).as_secs_f64();
    progress.end();
    load.told(seconds, ended_early)
}

/// The next answer; else why there is none.
async fn next(answers: &mut Streaming<SendStreamResponse>) -> Result<SendStreamResponse, String> {
    match timeout(PATIENCE, answers.message()).await {
        Ok(Ok(Some(answer))) => Ok(answer),
        Ok(Ok(None)) => Err("the producer ended the stream".to_owned()),
        Ok(Err(status)) => Err(ended(&status)),
        Err(_) => Err(silence()),
    }
}

fn ended(status: &Status) -> String {
    connect::failure("sending", status).to_string()
}

fn silence() -> String {
    format!("no answer for {} seconds", PATIENCE.as_secs())
}

struct Load<'a> {
    args: &'a Args,
    value: Vec<u8>,
    /// Without an answer, oldest first: when it was sent, and its records.
    open: VecDeque<(Instant, u64)>,
    sent: u64,
    acknowledged: u64,
    refused: u64,
    latency: Latency,
}

impl<'a> Load<'a> {
    fn new(args: &'a Args) -> Self {
        let mut dice = oncelog_chaos::dice::Dice::new(1);
        // Letters by chance: what compresses to nothing measures nothing.
        let letter = |_| b'a' + u8::try_from(dice.below(26)).expect("a letter");
        let value = (0..args.size).map(letter).collect();
        Self { args, value, open: VecDeque::new(), sent: 0, acknowledged: 0, refused: 0, latency: Latency::new() }
    }

    /// Sends as much as may be outstanding.
    fn fill(&mut self, requests: &mpsc::Sender<SendStreamRequest>) {
        while self.sent < self.args.records && self.open.len() < requests.max_capacity() {
            let count = (self.args.records - self.sent).min(self.args.batch.into());
            let records = (self.sent..self.sent + count).map(|number| self.record(number)).collect();
            let request = SendStreamRequest { topic: self.args.topic.clone(), records, ..SendStreamRequest::default() };
            self.sent += count;
            self.open.push_back((now(), count));
            // It has room for all that may be outstanding; if it is closed, the answers will say so.
            let _ = requests.try_send(request);
        }
    }

    /// Each value another: its number, and then letters from another place on.
    fn record(&self, number: u64) -> Record {
        let mut value = self.value.clone();
        let turn = usize::try_from(number).unwrap_or(0) % value.len();
        value.rotate_left(turn);
        Record { key: Some(format!("{number}").into()), value: Some(value.into()), ..Record::default() }
    }

    fn answered(&mut self, answer: &SendStreamResponse) {
        let Some((sent, count)) = self.open.pop_front() else { return };
        match &answer.outcome {
            Some(Outcome::Sent(_)) => {
                self.acknowledged += count;
                self.latency.record(now().duration_since(sent), 1);
            }
            Some(Outcome::Failed(failed)) => {
                for outcome in &failed.outcomes {
                    let count = u64::try_from(outcome.count).unwrap_or(0);
                    match outcome.outcome {
                        Some(Fate::Appended(_)) => self.acknowledged += count,
                        Some(Fate::Refused(_)) => self.refused += count,
                        Some(Fate::Unknown(_)) | None => {}
                    }
                }
            }
            None => {}
        }
    }

    fn told(self, seconds: f64, ended_early: Option<String>) -> Told {
        let bytes = self.acknowledged.saturating_mul(self.args.size.into());
        let seconds = seconds.max(1e-6);
        Told {
            records: self.args.records,
            acknowledged: self.acknowledged,
            refused: self.refused,
            unknown: self.sent.saturating_sub(self.acknowledged + self.refused),
            bytes,
            seconds,
            records_per_second: self.acknowledged as f64 / seconds,
            bytes_per_second: bytes as f64 / seconds,
            latency_micros: self.latency.percentiles(),
            batch: self.args.batch,
            size: self.args.size,
            outstanding: self.args.outstanding,
            ended_early,
            notes: Vec::new(),
        }
    }
}

fn tell(told: &Told, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{} records of {} bytes acknowledged in {:.2} s: {} records/s, {}/s",
        grouped(told.acknowledged),
        told.size,
        told.seconds,
        grouped(told.records_per_second.round() as u64),
        bytes(told.bytes_per_second.round() as u64),
    )?;
    if let Some(latency) = &told.latency_micros {
        writeln!(
            out,
            "until a request of {} was acknowledged, {} outstanding: p50 {}, p90 {}, p99 {}, p99.9 {}, slowest {}",
            told.batch,
            told.outstanding,
            micros(latency.p50),
            micros(latency.p90),
            micros(latency.p99),
            micros(latency.p999),
            micros(latency.max),
        )?;
    }
    if told.refused + told.unknown > 0 {
        writeln!(out, "refused {}, unknown {}", grouped(told.refused), grouped(told.unknown))?;
    }
    for note in &told.notes {
        writeln!(out, "note: {note}")?;
    }
    if let Some(why) = &told.ended_early {
        writeln!(out, "ended early: {why}")?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a load is measured by a real clock")]
fn now() -> Instant {
    Instant::now()
}

/// Longer than a producer tries.
const PATIENCE: Duration = Duration::from_secs(200);

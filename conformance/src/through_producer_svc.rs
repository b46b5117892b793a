//! producer-svc as a client program: started by this one, given the records by `SendStream`, and judged by what it does on the
//! wire.

use std::path::Path;

use anyhow::{Context, ensure};
use oncelog_chaos::{port, process::Process, program::Program, stage::channel};
use oncelog_proto::v1::{SendStreamRequest, SendStreamResponse, producer_service_client::ProducerServiceClient};
use oncelog_verify::{history::SendOutcome, wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::contract::{Assignment, Claim, record};

/// Sends the assigned records through it. What is claimed stands in the order of the numbers, also of what was known when it
/// failed.
///
/// # Errors
/// It does not start, does not end well, says that acknowledged records are lost, or its stream breaks.
pub(crate) async fn run(
    assignment: &Assignment,
    program: &Program,
    directory: &Path,
    claims: &mut Vec<Option<Claim>>,
) -> anyhow::Result<()> {
    let (listen, admin) = (port::free(), port::free());
    let args = [
        format!("--listen={listen}"),
        format!("--admin-listen={admin}"),
        format!("--broker=http://{}", assignment.address),
        format!("--request-timeout-ms={}", assignment.timeout.as_millis()),
        // Batches of some ten records.
        "--batch-size=128".to_owned(),
        "--linger-ms=0".to_owned(),
        "--compression-type=none".to_owned(),
    ];
    let log = directory.join("producer.log");
    let mut process = Process::start(program, &args, &log)?;
    process.ready(admin).await?;
    let mut client = ProducerServiceClient::new(channel(listen));
    let (requests, stream) = mpsc::channel(WINDOW);
    let mut answers = client.send_stream(ReceiverStream::new(stream)).await?.into_inner();
    let numbers: Vec<u32> = (0..assignment.records).collect();
    let (mut sent, mut heard) = (numbers.chunks(BATCH), numbers.chunks(BATCH));
    for chunk in sent.by_ref().take(WINDOW) {
        requests.send(request(&assignment.topic, chunk)).await?;
    }
    for chunk in heard.by_ref() {
        let answer = answers.message().await?.context("the stream ended early")?;
        claims.extend(claimed(chunk.len(), &answer).into_iter().map(Some));
        if let Some(next) = sent.next() {
            requests.send(request(&assignment.topic, next)).await?;
        }
    }
    drop(requests);
    let status = process.terminate().await?;
    ensure!(status.success(), "producer-svc ended with {status}");
    // A service does not end because of it, and goes on with what is left.
    let alarm = std::fs::read_to_string(&log)?.lines().find(|line| line.contains(ALARM)).map(str::to_owned);
    ensure!(alarm.is_none(), "{}", alarm.unwrap_or_default());
    Ok(())
}

fn request(topic: &str, numbers: &[u32]) -> SendStreamRequest {
    let records = numbers.iter().map(|number| record(*number)).collect();
    SendStreamRequest { topic: topic.to_owned(), records, ..SendStreamRequest::default() }
}

fn claimed(count: usize, answer: &SendStreamResponse) -> Vec<Claim> {
    let mut claims = Vec::with_capacity(count);
    for outcome in wire::send_stream(count, answer) {
        let (count, claim) = match outcome {
            SendOutcome::Accepted { place, .. } => (1, Claim::Appended(place.offset)),
            SendOutcome::Refused(count) => (count, Claim::Refused),
            SendOutcome::Unknown(count) => (count, Claim::Unknown),
        };
        claims.extend((0..count).map(|_| claim));
    }
    claims
}

/// What its log says when a recovery tells less than was acknowledged.
const ALARM: &str = "ACKNOWLEDGED RECORDS ARE LOST";
const BATCH: usize = 10;
/// Requests that are unanswered.
const WINDOW: usize = 5;

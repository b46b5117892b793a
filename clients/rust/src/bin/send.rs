//! Calls `Send`, and says of each record whether it is in the log, is not, or nobody knows.

use std::time::Duration;

use oncelog_clients::{
    Assignment,
    v1::{
        Record, SendFailure, SendRequest, producer_service_client::ProducerServiceClient, send_failure::outcome::Outcome as Told,
    },
    within,
};
use prost::Message;
use tokio::time::sleep;
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::pb;

/// What became of a record.
#[derive(Clone, Debug)]
enum Outcome {
    Appended(i64),
    Refused(String),
    /// In the log once or not at all.
    Unknown,
}

/// The outcome of each record.
///
/// One whose outcome is unknown is not sent again here, because that may make two of it. Give records an id of your own, in the
/// key or in a header, if a reader has to tell.
async fn send(producer: &mut ProducerServiceClient<Channel>, request: &SendRequest, timeout: Duration) -> Vec<Outcome> {
    let count = request.records.len();
    for attempt in 1.. {
        let mut call = Request::new(request.clone());
        call.set_timeout(timeout);
        let status = match within(timeout, producer.send(call)).await {
            Ok(sent) => return sent.records.iter().map(|record| Outcome::Appended(record.offset)).collect(),
            Err(status) => status,
        };
        // The deadline, a broken connection, a killed service: they all look alike, whatever the code.
        let Some(failure) = failure_of(&status) else { return vec![Outcome::Unknown; count] };
        // Together with a SendFailure these two mean that nothing of the request is in the log.
        let is_harmless = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
        if !is_harmless || attempt == ATTEMPTS {
            return outcomes(&failure, count);
        }
        sleep(attempt * Duration::from_millis(100)).await;
    }
    unreachable!("the last attempt returns")
}

fn failure_of(status: &Status) -> Option<SendFailure> {
    let details = pb::Status::decode(status.details()).ok()?;
    let any = details.details.iter().find(|any| any.type_url.ends_with("/oncelog.v1.SendFailure"))?;
    SendFailure::decode(any.value.as_slice()).ok()
}

/// What the failure does not speak of is unknown: its list may be cut.
fn outcomes(failure: &SendFailure, count: usize) -> Vec<Outcome> {
    let mut outcomes = vec![Outcome::Unknown; count];
    for told in &failure.outcomes {
        for (index, record) in (0..told.count).zip(told.first_index..) {
            let Some(outcome) = usize::try_from(record).ok().and_then(|record| outcomes.get_mut(record)) else { continue };
            *outcome = match &told.outcome {
                // -1: nobody knows where any of them is.
                Some(Told::Appended(appended)) if appended.offset < 0 => Outcome::Appended(appended.offset),
                Some(Told::Appended(appended)) => Outcome::Appended(appended.offset + i64::from(index)),
                Some(Told::Refused(refused)) => Outcome::Refused(refused.message.clone()),
                Some(Told::Unknown(_)) | None => Outcome::Unknown,
            };
        }
    }
    outcomes
}

const ATTEMPTS: u32 = 10;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let assignment = Assignment::from_environment("127.0.0.1:50052")?;
    let mut producer = ProducerServiceClient::new(assignment.channel()?);
    let mut numbers = 0..assignment.records;
    for records in assignment.records().chunks(10) {
        let records: Vec<Record> = records.to_vec();
        let request = SendRequest { topic: assignment.topic.clone(), records, ..Default::default() };
        let told = send(&mut producer, &request, assignment.timeout).await;
        for (outcome, number) in told.into_iter().zip(&mut numbers) {
            match outcome {
                Outcome::Appended(offset) => println!("{number} appended {offset}"),
                Outcome::Refused(why) => println!("{number} refused {why}"),
                Outcome::Unknown => println!("{number} unknown"),
            }
        }
    }
    Ok(())
}

//! A program that calls `Send`, and may be wrong.

use std::time::Duration;

use oncelog_proto::v1::{SendRequest, SendResponse, producer_service_client::ProducerServiceClient};
use oncelog_verify::{history::SendOutcome, wire};
use tokio::time::sleep;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};

use super::SenderDefect;
use crate::contract::{Assignment, Claim, record};

/// Sends what is assigned. What is claimed stands in the order of the numbers.
///
/// # Errors
/// The address is none.
pub(crate) async fn send(assignment: &Assignment, defect: Option<SenderDefect>) -> anyhow::Result<Vec<Claim>> {
    let endpoint = Endpoint::new(format!("http://{}", assignment.address))?;
    let mut producer = ProducerServiceClient::new(endpoint.connect_lazy());
    let numbers: Vec<u32> = (0..assignment.records).collect();
    let mut claims = Vec::new();
    for ten in numbers.chunks(10) {
        claims.extend(send_ten(&mut producer, assignment, ten, defect).await);
    }
    Ok(claims)
}

async fn send_ten(
    producer: &mut ProducerServiceClient<Channel>,
    assignment: &Assignment,
    numbers: &[u32],
    defect: Option<SenderDefect>,
) -> Vec<Claim> {
    let records = numbers.iter().map(|number| record(*number)).collect();
    let send = SendRequest { topic: assignment.topic.clone(), records, ..SendRequest::default() };
    loop {
        let mut request = Request::new(send.clone());
        if defect != Some(SenderDefect::NoDeadline) {
            request.set_timeout(assignment.timeout);
        }
        let answer = producer.send(request).await.map(tonic::Response::into_inner);
        if !repeats(&answer, numbers.len(), defect) {
            return claimed(&answer, numbers.len(), defect);
        }
        sleep(PAUSE).await;
    }
}

/// Is it sent again? Only if nothing of it is in the log.
fn repeats(answer: &Result<SendResponse, Status>, count: usize, defect: Option<SenderDefect>) -> bool {
    let Err(status) = answer else { return false };
    let is_for_now = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
    match defect {
        Some(SenderDefect::RepeatsTheUnsure) => is_for_now || status.code() == Code::DeadlineExceeded,
        Some(SenderDefect::ForgetsTheFailure) => false,
        _ => is_for_now && is_told(answer, count),
    }
}

fn is_told(answer: &Result<SendResponse, Status>, count: usize) -> bool {
    wire::send(count, answer) != wire::no_answer(count)
}

fn claimed(answer: &Result<SendResponse, Status>, count: usize, defect: Option<SenderDefect>) -> Vec<Claim> {
    let is_told = is_told(answer, count);
    let instead = match defect {
        Some(SenderDefect::RefusesTheUnsure) if !is_told => Some(Claim::Refused),
        Some(SenderDefect::BelievesTheCode) if !is_told => {
            let is_full = answer.as_ref().is_err_and(|status| status.code() == Code::ResourceExhausted);
            is_full.then_some(Claim::Refused)
        }
        Some(SenderDefect::ForgetsTheFailure) if answer.is_err() => Some(Claim::Unknown),
        _ => None,
    };
    let mut claims: Vec<Claim> = Vec::with_capacity(count);
    for outcome in wire::send(count, answer) {
        let (some, claim) = match outcome {
            SendOutcome::Accepted { place, .. } => {
                let offset = match defect {
                    Some(SenderDefect::CountsFromNowhere) if place.offset < 0 => place.offset + claims.len() as i64,
                    Some(SenderDefect::ForgetsOffsets) => -1,
                    _ => place.offset,
                };
                (1, Claim::Appended(offset))
            }
            SendOutcome::Refused(some) => (some, Claim::Refused),
            SendOutcome::Unknown(some) => (some, Claim::Unknown),
        };
        claims.extend((0..some).map(|_| instead.unwrap_or(claim)));
    }
    claims
}

const PAUSE: Duration = Duration::from_millis(100);

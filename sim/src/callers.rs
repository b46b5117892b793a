//! Callers of `Send` and of `SendStream`: they send what nobody else sends, each in its order, and write down what they hear.

use std::{collections::VecDeque, time::Duration};

use oncelog_proto::v1::{SendRequest, SendStreamRequest, producer_service_client::ProducerServiceClient};
use oncelog_verify::{
    history::{CallId, CallerId, Digest, Event, SendCalled, SendOutcome},
    wire,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, transport::Channel};

use crate::work::{Place, Service};

/// Calls `Send`, one call after the other.
pub(crate) async fn send(mut place: Place, producers: Vec<Service>) {
    let caller = CallerId(place.chronicle.call().0);
    let mut clients: Vec<_> = producers.iter().map(|service| client(&place, service)).collect();
    while !place.weather.is_calm() {
        let request = request(&mut place);
        // One in four has no patience; it may never hear of its records, which are sent all the same.
        let patience = if place.dice.percent(25) { place.dice.millis(1..=1_500) } else { Duration::from_secs(600) };
        let at = place.dice.index(clients.len());
        call(&place, caller, (&producers[at], &mut clients[at]), request, patience).await;
        place.pause(Duration::from_millis(400)).await;
    }
    // Whatever was broken before: now each of them works.
    for (client, service) in clients.iter_mut().zip(&producers) {
        let began = Instant::now();
        loop {
            let mut request = request(&mut place);
            // The others may have been deleted under it.
            request.topic.clone_from(&place.topics.lasting[0].0);
            if call(&place, caller, (service, &mut *client), request, Duration::from_secs(60)).await {
                break;
            }
            if began.elapsed() > LONG_ENOUGH {
                place
                    .chronicle
                    .fail(format!("{}: {} did not accept a record for {LONG_ENOUGH:?} of calm", place.name, service.host));
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// True: all its records were accepted.
async fn call(
    place: &Place,
    caller: CallerId,
    (service, client): (&Service, &mut ProducerServiceClient<Channel>),
    request: SendRequest,
    patience: Duration,
) -> bool {
    let (call, count) = (called(place, caller, service, false, &request), request.records.len());
    let outcomes = match timeout(patience, client.send(request)).await {
        Ok(answer) => wire::send(count, &answer.map(Response::into_inner)),
        Err(_) => {
            place.chronicle.count("send: the caller gave up");
            Vec::new()
        }
    };
    let is_accepted = answered(place, call, count, outcomes);
    if service.repeats && is_accepted {
        place.chronicle.count("send: accepted without idempotence");
    }
    is_accepted
}

/// Calls `SendStream` with many requests under way.
pub(crate) async fn stream(mut place: Place, producers: Vec<Service>) {
    while !place.weather.is_calm() {
        let mut open = VecDeque::new();
        let end = one_stream(&mut place, &producers, &mut open).await;
        for (call, count) in open {
            // Without a word at the end nothing is known of what was not answered.
            let outcomes = end.as_ref().map_or_else(Vec::new, |status| wire::send_stream_ended(count, status));
            if matches!(outcomes[..], [SendOutcome::Refused(_)]) {
                place.chronicle.count("send: not taken in when a stream ended");
            }
            answered(&place, call, count, outcomes);
        }
        place.pause(Duration::from_millis(500)).await;
    }
}

/// One stream, until it is over; `open` are the requests that were not answered. Returns the status at its end, if there was one.
async fn one_stream(place: &mut Place, producers: &[Service], open: &mut VecDeque<(CallId, usize)>) -> Option<Status> {
    // Of an earlier stream records may still be on their way; so a new one is somebody else.
    let caller = CallerId(place.chronicle.call().0);
    let service = place.dice.pick(producers).clone();
    let mut client = client(place, &service);
    let (requests, receiver) = mpsc::channel(4);
    // The answer may not begin before the first request is there.
    let first = streamed(place, caller, &service, open);
    let _ = requests.try_send(first);
    let opened = timeout(Duration::from_secs(60), client.send_stream(ReceiverStream::new(receiver))).await;
    let mut answers = match opened {
        Ok(Ok(answers)) => answers.into_inner(),
        Ok(Err(status)) => return Some(status),
        Err(_) => return None,
    };
    let mut left = place.dice.within(1..=60);
    let mut requests = Some(requests);
    loop {
        let may_send = requests.is_some() && open.len() < WINDOW;
        let pause = place.dice.long_tailed(Duration::from_millis(200));
        tokio::select! {
            biased;
            answer = answers.message() => match answer {
                Ok(Some(answer)) => {
                    let Some((call, count)) = open.pop_front() else {
                        place.chronicle.fail(format!("{}: more answers than requests", place.name));
                        return None;
                    };
                    answered(place, call, count, wire::send_stream(count, &answer));
                }
                Ok(None) => return None,
                Err(status) => return Some(status),
            },
            () = sleep(pause), if may_send => {
                let request = streamed(place, caller, &service, open);
                left -= 1;
                let sent = requests.as_ref().is_some_and(|requests| requests.try_send(request).is_ok());
                // A request that found no room was never sent, and is unknown to be on the safe side.
                if !sent || left == 0 || place.weather.is_calm() {
                    requests = None;
                }
            }
        }
    }
}

fn client(place: &Place, service: &Service) -> ProducerServiceClient<Channel> {
    ProducerServiceClient::new(place.wires.watched_channel(&service.host)).max_decoding_message_size(16 << 20)
}

fn request(place: &mut Place) -> SendRequest {
    let topic = place.topic();
    let partition = place.dice.percent(20).then_some(0);
    let count = place.dice.within(1..=6);
    let records = (0..count).map(|_| place.record()).collect();
    SendRequest { topic, partition, records }
}

fn streamed(place: &mut Place, caller: CallerId, service: &Service, open: &mut VecDeque<(CallId, usize)>) -> SendStreamRequest {
    let request = request(place);
    open.push_back((called(place, caller, service, true, &request), request.records.len()));
    let SendRequest { topic, partition, records } = request;
    SendStreamRequest { topic, partition, records, ..SendStreamRequest::default() }
}

fn called(place: &Place, caller: CallerId, service: &Service, streamed: bool, request: &SendRequest) -> CallId {
    let call = place.chronicle.call();
    let records = request.records.iter().map(Digest::of).collect();
    let (topic, partition, repeats) = (request.topic.clone(), request.partition, service.repeats);
    place.chronicle.note(Event::SendCalled(SendCalled { call, caller, streamed, repeats, topic, partition, records }));
    call
}

/// True: all records were accepted.
fn answered(place: &Place, call: CallId, count: usize, outcomes: Vec<SendOutcome>) -> bool {
    let (mut accepted, mut refused) = (0, 0);
    for outcome in &outcomes {
        match outcome {
            SendOutcome::Accepted { place: there, .. } => {
                accepted += 1;
                if there.offset < 0 {
                    // No batch is in doubt for longer than the broker remembers it (R1), and a recovery tells offsets (R2).
                    place.chronicle.fail(format!("{}: a record was accepted, and nobody says where it is", place.name));
                }
            }
            SendOutcome::Refused(some) => refused += u64::from(*some),
            SendOutcome::Unknown(_) => {}
        }
    }
    let count = count as u64;
    place.chronicle.add("send: records accepted", accepted);
    place.chronicle.add("send: records refused", refused);
    place.chronicle.add("send: records unknown", count - accepted - refused);
    place.chronicle.note(Event::SendAnswered { call, outcomes });
    accepted == count
}

const WINDOW: usize = 12;
/// Longer than it takes to find a connection that hangs, and to start over.
const LONG_ENOUGH: Duration = Duration::from_secs(90);

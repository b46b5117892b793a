//! A caller of `Send`: one call after the other, never one a second time.

use oncelog_proto::v1::{SendRequest, producer_service_client::ProducerServiceClient};
use oncelog_verify::{
    history::{CallerId, Digest, Event, SendCalled},
    wire,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{ANSWER_PATIENCE, PAUSE, Ways, records};
use crate::{dice::Dice, stage::channel};

pub(super) async fn run(ways: Ways, caller: CallerId, mut dice: Dice, stop: watch::Receiver<bool>) {
    let mut client = ProducerServiceClient::new(channel(ways.producer));
    let who = format!("{}/caller {}", ways.topic, caller.0);
    let mut sent = 0;
    while !*stop.borrow() {
        let records = records(&who, sent, &mut dice, 20);
        sent += records.len() as u64;
        let count = records.len();
        let call = ways.recorder.call();
        let digests = records.iter().map(Digest::of).collect();
        let called = SendCalled {
            call,
            caller,
            streamed: false,
            repeats: false,
            topic: ways.topic.clone(),
            partition: None,
            records: digests,
        };
        ways.recorder.saw(Event::SendCalled(called));
        let request = SendRequest { topic: ways.topic.clone(), partition: None, records };
        let answer = timeout(ANSWER_PATIENCE, client.send(request)).await;
        let answer = answer.ok().map(|answer| answer.map(tonic::Response::into_inner));
        let failed = !matches!(answer, Some(Ok(_)));
        let outcomes = answer.map_or_else(|| wire::no_answer(count), |answer| wire::send(count, &answer));
        ways.recorder.saw(Event::SendAnswered { call, outcomes });
        sleep(if failed { PAUSE } else { dice.millis(0, 4) }).await;
    }
}

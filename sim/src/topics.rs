//! Who makes topics: those that stay, before anybody writes; and one that is deleted again and again, while others write to it.

use std::time::Duration;

use oncelog_proto::v1::{CreateTopicRequest, DeleteTopicRequest};
use oncelog_verify::history::Event;
use tokio::time::{error::Elapsed, sleep, timeout};
use tonic::{Code, Status};

use crate::{readers, work::Place};

/// Makes the topics that stay. Who wrote before could make one as well, with as many partitions as the broker likes.
pub(crate) async fn found(mut place: Place) {
    let mut broker = readers::client(&place);
    for (topic, partitions) in place.topics.lasting.clone() {
        let request = CreateTopicRequest { topic, partitions };
        while !made(&timeout(PATIENCE, broker.create_topic(request.clone())).await) {
            place.pause(Duration::from_millis(300)).await;
        }
    }
}

/// Now, or by an earlier call whose answer did not arrive.
fn made<T>(answer: &Result<Result<T, Status>, Elapsed>) -> bool {
    match answer {
        Ok(Ok(_)) => true,
        Ok(Err(status)) => status.code() == Code::AlreadyExists,
        Err(_) => false,
    }
}

pub(crate) async fn come_and_go(mut place: Place, topic: String) {
    let mut broker = readers::client(&place);
    while !place.weather.is_calm() {
        let pause = place.dice.millis(500..=4_000);
        sleep(pause).await;
        let call = place.chronicle.call();
        place.chronicle.note(Event::DeleteCalled { call, topic: topic.clone() });
        let deleted = timeout(PATIENCE, broker.delete_topic(DeleteTopicRequest { topic: topic.clone() })).await;
        let done = matches!(deleted, Ok(Ok(_)));
        let is_known = done || matches!(&deleted, Ok(Err(status)) if status.code() == Code::NotFound);
        if !is_known {
            // Until it can no longer be under way.
            sleep(4 * PATIENCE).await;
        }
        place.chronicle.count(if done { "topic: deleted" } else { "topic: maybe deleted" });
        place.chronicle.note(Event::DeleteAnswered { call, done });
        if place.dice.percent(50) {
            // Else whoever writes to it next makes it.
            let partitions = i32::try_from(place.dice.within(1..=4)).expect("small");
            let _ = timeout(PATIENCE, broker.create_topic(CreateTopicRequest { topic: topic.clone(), partitions })).await;
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(3);

//! Those who read while others write: what they see has to be true in the end (I7).

use std::time::Duration;

use oncelog_proto::v1::{
    DescribeProducersRequest, DescribeTopicsRequest, FetchRequest, FetchResponse, broker_service_client::BrokerServiceClient,
};
use oncelog_verify::history::{CallId, Digest, Event, Partition, Producer, Sight};
use tokio::time::{sleep, timeout};
use tonic::{Code, transport::Channel};

use crate::work::Place;

/// Follows one partition, from its start to its end when nobody writes any more.
pub(crate) async fn follow(mut place: Place, partition: Partition) {
    let mut broker = client(&place);
    let mut next = Some(0);
    loop {
        let request = FetchRequest {
            topic: partition.topic.clone(),
            partition: partition.partition,
            offset: next,
            follow: true,
            ..FetchRequest::default()
        };
        let call = place.chronicle.call();
        place.chronicle.note(Event::LookCalled { call });
        if let Ok(Ok(stream)) = timeout(PATIENCE, broker.fetch(request)).await {
            let mut stream = stream.into_inner();
            // It ends now and then by itself, because a stream that says nothing may hang.
            while let Ok(Ok(Some(response))) = timeout(PATIENCE, stream.message()).await {
                next =
                    Some(saw(&place, call, &partition, &response).unwrap_or_else(|| next.unwrap_or(response.log_start_offset)));
                if place.roll.is_quiet() && next.is_some_and(|next| next >= response.log_end_offset) {
                    break;
                }
            }
        }
        if place.weather.is_calm() && place.roll.is_quiet() {
            match ends(&mut broker, &partition).await {
                Ok(Some((_, end))) if next.is_some_and(|next| next >= end) => return,
                Ok(Some((start, _))) if next.is_some_and(|next| next < start) => {
                    place.chronicle.count("fetch: trimmed under the reader");
                    next = Some(start);
                }
                // Nobody ever wrote to it.
                Ok(None) => return,
                Ok(Some(_)) | Err(_) => {}
            }
        } else if place.dice.percent(20)
            && let Ok(Some((start, _))) = ends(&mut broker, &partition).await
        {
            next = next.map(|next| next.max(start));
        }
        place.pause(Duration::from_millis(800)).await;
    }
}

/// Writes down what a response shows; returns the offset behind it, if it has records.
fn saw(place: &Place, call: CallId, partition: &Partition, response: &FetchResponse) -> Option<i64> {
    let sight =
        Sight::Ends { partition: partition.clone(), log_start: response.log_start_offset, log_end: response.log_end_offset };
    place.chronicle.note(Event::Saw { call, sight });
    let offset = response.records.first()?.offset;
    let records: Vec<_> = response.records.iter().filter_map(|fetched| fetched.record.as_ref()).map(Digest::of).collect();
    place.chronicle.add("fetch: records followed", records.len() as u64);
    let behind = response.records.last()?.offset + 1;
    place.chronicle.note(Event::Saw { call, sight: Sight::Records { partition: partition.clone(), offset, records } });
    Some(behind)
}

/// Both ends of a partition; none: there is no such topic.
async fn ends(broker: &mut BrokerServiceClient<Channel>, partition: &Partition) -> Result<Option<(i64, i64)>, ()> {
    let request = DescribeTopicsRequest { topics: vec![partition.topic.clone()], ..DescribeTopicsRequest::default() };
    match timeout(PATIENCE, broker.describe_topics(request)).await {
        Ok(Ok(answer)) => {
            let answer = answer.into_inner();
            let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
            let found = partitions.find(|found| found.partition == partition.partition);
            Ok(found.map(|found| (found.log_start_offset, found.log_end_offset)))
        }
        Ok(Err(status)) if status.code() == Code::NotFound => Ok(None),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}

/// Asks now and then where everybody stands.
pub(crate) async fn look(mut place: Place) {
    let mut broker = client(&place);
    while !(place.weather.is_calm() && place.roll.is_quiet()) {
        let call = place.chronicle.call();
        place.chronicle.note(Event::LookCalled { call });
        if place.dice.percent(50) {
            let request = DescribeProducersRequest::default();
            if let Ok(Ok(answer)) = timeout(PATIENCE, broker.describe_producers(request)).await {
                for producer in answer.into_inner().producers {
                    let whose = Producer { id: producer.producer_id, epoch: producer.producer_epoch };
                    for at in producer.partitions {
                        let partition = Partition { topic: at.topic, partition: at.partition };
                        let sight = Sight::Next { partition, producer: whose, next_sequence: at.next_sequence };
                        place.chronicle.note(Event::Saw { call, sight });
                    }
                }
            }
        } else if let Ok(Ok(answer)) = timeout(PATIENCE, broker.describe_topics(DescribeTopicsRequest::default())).await {
            for topic in answer.into_inner().topics {
                for at in topic.partitions {
                    let partition = Partition { topic: topic.topic.clone(), partition: at.partition };
                    let (log_start, log_end) = (at.log_start_offset, at.log_end_offset);
                    place.chronicle.note(Event::Saw { call, sight: Sight::Ends { partition, log_start, log_end } });
                }
            }
        }
        let pause = place.dice.millis(100..=2_000);
        sleep(pause).await;
    }
}

pub(crate) fn client(place: &Place) -> BrokerServiceClient<Channel> {
    BrokerServiceClient::new(place.wires.watched_channel("broker")).max_decoding_message_size(16 << 20)
}

const PATIENCE: Duration = Duration::from_secs(4);

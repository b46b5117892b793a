//! A reader that follows one partition. What it has seen has to be there in the end.

use oncelog_proto::{Bearer, v1::FetchRequest};
use oncelog_verify::{
    history::{Event, Partition, Sight},
    live::{self, Client},
};
use tokio::{sync::watch, time::sleep};

use super::{PAUSE, Ways};
use crate::stage::channel;

pub(super) async fn run(ways: Ways, partition: Partition, mut stop: watch::Receiver<bool>) {
    let mut client = Client::new(Bearer::none().on(channel(ways.broker))).max_decoding_message_size(MOST_BYTES);
    let mut next = 0;
    let reading = async {
        loop {
            follow(&mut client, &ways, &partition, &mut next).await;
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = reading => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// One stream, until it ends or breaks.
async fn follow(client: &mut Client, ways: &Ways, partition: &Partition, next: &mut i64) {
    let call = ways.recorder.call();
    ways.recorder.saw(Event::LookCalled { call });
    let request = FetchRequest {
        topic: partition.topic.clone(),
        partition: partition.partition,
        offset: Some(*next),
        max_records: None,
        follow: true,
        packed: true,
    };
    let Ok(stream) = client.fetch(request).await else { return };
    let mut stream = stream.into_inner();
    while let Ok(Some(response)) = stream.message().await {
        let ends =
            Sight::Ends { partition: partition.clone(), log_start: response.log_start_offset, log_end: response.log_end_offset };
        ways.recorder.saw(Event::Saw { call, sight: ends });
        for batch in response.batches {
            // The verdict reads it again; here it is enough to stop.
            let Ok(batch) = live::unpack(partition, batch) else { return };
            *next = batch.next_offset();
            let sight = Sight::Records { partition: partition.clone(), offset: batch.place.offset, records: batch.records };
            ways.recorder.saw(Event::Saw { call, sight });
        }
    }
}

const MOST_BYTES: usize = 128 << 20;

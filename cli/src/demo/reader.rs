//! A reader that follows one partition, on the broker itself, and tells the board what stands there.

use std::{net::SocketAddr, time::Duration};

use oncelog_chaos::stage::channel;
use oncelog_proto::{Bearer, v1::FetchRequest};
use oncelog_verify::live::Client;
use tokio::time::sleep;

use super::{audit::RecordId, board::Board};

/// Reads for ever.
pub(super) async fn run(broker: SocketAddr, topic: String, partition: usize, board: Board) {
    let mut client = Client::new(Bearer::none().on(channel(broker))).max_decoding_message_size(MOST_BYTES);
    loop {
        follow(&mut client, &topic, partition, &board).await;
        sleep(PAUSE).await;
    }
}

/// One stream, until it ends or breaks.
async fn follow(client: &mut Client, topic: &str, partition: usize, board: &Board) {
    let request = FetchRequest {
        topic: topic.to_owned(),
        partition: i32::try_from(partition).expect("a demo has a few"),
        offset: Some(board.next_offset(partition)),
        follow: true,
        ..FetchRequest::default()
    };
    let Ok(stream) = client.fetch(request).await else { return };
    let mut stream = stream.into_inner();
    while let Ok(Some(response)) = stream.message().await {
        for fetched in response.records {
            let value = fetched.record.as_ref().and_then(|record| record.value.as_deref());
            board.read(partition, fetched.offset, value.and_then(RecordId::from_value));
        }
    }
}

const MOST_BYTES: usize = 128 << 20;
const PAUSE: Duration = Duration::from_millis(20);

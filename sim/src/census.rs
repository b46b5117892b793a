//! What a reader reads when all is over, and what the broker then says of its producers.

use std::time::Duration;

use oncelog_verify::{
    Log,
    live::{self, Client},
};
use tokio::time::{sleep, timeout};

/// Reads everything, however often it has to try.
pub(crate) async fn take(mut broker: Client) -> Log {
    loop {
        let read = timeout(PATIENCE, live::read(&mut broker, &[], &mut |_| {})).await;
        if let Ok(Ok(read)) = read
            && read.quiet
        {
            return read.log;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

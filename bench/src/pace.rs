//! When a message is due.
//!
//! An open loop keeps its schedule whatever the answers do, and latency counts from when a message was due: a server that
//! stands still for a second is charged that second by every message that was due in it, not by the one that was out. (A closed
//! loop would have waited with it: coordinated omission.)
//!
//! The timers of an asynchronous runtime tick in milliseconds, as long as what is measured. So a thread of its own keeps the
//! schedule, with the kernel's slack for its sleeps switched off.

use std::{
    pin::Pin,
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::clock;

/// A message's turn.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Its number among all lanes, from 0.
    pub number: u64,
    /// When it was due: by the schedule, or as soon as it was its turn.
    pub due: Instant,
}

/// The turns of one lane, in order.
pub struct Turns(Pin<Box<dyn Stream<Item = Turn> + Send>>);

impl Stream for Turns {
    type Item = Turn;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Turn>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl std::fmt::Debug for Turns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Turns")
    }
}

/// `count` turns, dealt to `lanes` lanes: turn `n` to lane `n % lanes`. `rate` is turns a second, of all lanes together; none is
/// as fast as they are taken.
///
/// # Panics
/// If the machine gives no thread.
pub fn lanes(count: u64, lanes: usize, rate: Option<f64>) -> Vec<Turns> {
    match rate {
        None => (0..lanes as u64)
            .map(|lane| {
                let numbers = (lane..count).step_by(lanes);
                Turns(Box::pin(stream::iter(numbers.map(|number| Turn { number, due: clock::now() }))))
            })
            .collect(),
        Some(rate) => {
            let (tell, turns): (Vec<_>, Vec<_>) = (0..lanes).map(|_| mpsc::channel(TURNS_AHEAD)).unzip();
            let began = clock::now() + LEAD;
            thread::Builder::new()
                .name("pace".to_owned())
                .spawn(move || keep(count, rate, began, &tell))
                .expect("a thread for the schedule");
            turns.into_iter().map(|turns| Turns(Box::pin(ReceiverStream::new(turns)))).collect()
        }
    }
}

fn keep(count: u64, rate: f64, began: Instant, lanes: &[mpsc::Sender<Turn>]) {
    // Without it the schedule is 50 µs less exact, and still one.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    for number in 0..count {
        let due = began + Duration::from_secs_f64(number as f64 / rate);
        let ahead = due.saturating_duration_since(clock::now());
        if !ahead.is_zero() {
            thread::sleep(ahead);
        }
        // The lanes have gone: the run has failed.
        if lanes[usize::try_from(number).unwrap_or_default() % lanes.len()].blocking_send(Turn { number, due }).is_err() {
            return;
        }
    }
}

/// Turns that are due and not taken, for each lane. Above, the schedule is behind anyway, and latency tells it.
const TURNS_AHEAD: usize = 1 << 16;
/// For everybody to be ready when the first turn is due.
const LEAD: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    async fn numbers(rate: Option<f64>) -> Vec<Vec<u64>> {
        let mut all = Vec::new();
        for lane in lanes(7, 3, rate) {
            all.push(lane.map(|turn| turn.number).collect().await);
        }
        all
    }

    #[tokio::test]
    async fn turns_are_dealt_in_order_whether_there_is_a_schedule_or_not() {
        let expected = [vec![0, 3, 6], vec![1, 4], vec![2, 5]];
        assert_eq!(numbers(None).await, expected);
        assert_eq!(numbers(Some(1e5)).await, expected);
    }

    #[tokio::test]
    async fn a_turn_that_is_taken_late_was_due_by_the_schedule() {
        let turns: Vec<_> = lanes(3, 1, Some(1_000.0)).remove(0).collect().await;
        assert_eq!(turns[2].due - turns[0].due, Duration::from_millis(2));
    }
}

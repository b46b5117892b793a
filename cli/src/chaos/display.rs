//! What is shown while it runs: lines that renew themselves on a terminal, else a line every five seconds.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use oncelog_chaos::{Phase, Status};
use tokio::{sync::watch, task::JoinHandle, time::interval};

/// Shows how a run stands, until it is ended.
#[derive(Debug)]
pub(super) struct Display {
    showing: JoinHandle<()>,
    terminal: bool,
}

impl Display {
    #[expect(clippy::disallowed_methods, reason = "what is shown to a person is shown by a real clock")]
    pub(super) fn start(duration: Duration, seed: u64, status: watch::Receiver<Status>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let started = Instant::now();
        let showing = tokio::spawn(async move {
            let mut ticks = interval(if terminal { Duration::from_millis(200) } else { Duration::from_secs(5) });
            let mut shown = 0;
            loop {
                ticks.tick().await;
                let lines = lines(&status.borrow(), started.elapsed(), duration, seed);
                let text = if terminal {
                    format!("{}{}\n", up(shown), lines.join("\x1b[K\n") + "\x1b[K")
                } else {
                    lines.join("; ") + "\n"
                };
                shown = lines.len();
                // Progress that nobody can see is no reason to stop.
                let _ = std::io::stderr().write_all(text.as_bytes());
            }
        });
        Self { showing, terminal }
    }

    pub(super) async fn end(self) {
        self.showing.abort();
        let _ = self.showing.await;
        if self.terminal {
            let _ = writeln!(std::io::stderr());
        }
    }
}

/// Back to the first of the lines that stand there.
fn up(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\r") }
}

fn lines(status: &Status, elapsed: Duration, duration: Duration, seed: u64) -> Vec<String> {
    let phase = match status.phase {
        Phase::Starting => "starting",
        Phase::Breaking => "breaking",
        Phase::Healing => "waiting for answers",
        Phase::Judging => "judging",
        Phase::Ended => "ended",
    };
    let failures: u64 = status.struck.values().sum();
    let last = status.last.map_or_else(String::new, |kind| format!(", last: {}", kind.name()));
    let counted = status.counted;
    vec![
        format!("{phase} {} s of {} s, seed {seed}: {failures} failures{last}", elapsed.as_secs(), duration.as_secs()),
        format!(
            "sent {}, acknowledged {}, unknown {}, refused {}, batches retried {}, duplicates refused {}",
            counted.sent, counted.acknowledged, counted.unknown, counted.refused, counted.retried, counted.duplicates_refused
        ),
        format!("judged {} in {} rounds: lost {}, duplicated {}", status.judged, status.rounds, status.lost, status.duplicated),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_says_what_was_lost_and_duplicated() {
        let mut status = Status { judged: 5, rounds: 1, ..Status::default() };
        status.counted.sent = 7;
        let shown = lines(&status, Duration::from_secs(3), Duration::from_secs(60), 9).join("\n");
        assert!(shown.contains("3 s of 60 s, seed 9") && shown.contains("sent 7"), "{shown}");
        assert!(shown.contains("judged 5 in 1 rounds: lost 0, duplicated 0"), "{shown}");
    }
}

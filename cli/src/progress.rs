//! A line on stderr that says how far something long has come, and how long it will still take. Only on a terminal.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// The line.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    started: Instant,
    shown: Instant,
    terminal: bool,
}

impl Progress {
    #[expect(clippy::disallowed_methods, reason = "what is shown to a person is shown by a real clock")]
    pub(crate) fn start(what: &'static str) -> Self {
        let now = Instant::now();
        Self { what, started: now, shown: now, terminal: std::io::stderr().is_terminal() }
    }

    /// Shows it, unless it was shown a moment ago.
    #[expect(clippy::disallowed_methods, reason = "what is shown to a person is shown by a real clock")]
    pub(crate) fn at(&mut self, done: u64, total: u64) {
        let now = Instant::now();
        if !self.terminal || now.duration_since(self.shown) < PAUSE {
            return;
        }
        self.shown = now;
        let line = line(self.what, done, total, now.duration_since(self.started));
        // Progress that nobody can see is no reason to stop.
        let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
    }

    pub(crate) fn end(self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
    let left = match (done, total.saturating_sub(done)) {
        (0, _) => String::new(),
        (done, left) => format!(", {:.0} s left", elapsed.as_secs_f64() * left as f64 / done as f64),
    };
    format!("{what}: {percent} %{left}")
}

const PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_estimated_from_what_is_done() {
        let elapsed = Duration::from_secs(10);
        assert_eq!(line("reading", 25, 100, elapsed), "reading: 25 %, 30 s left");
        assert_eq!(line("reading", 0, 100, elapsed), "reading: 0 %");
        assert_eq!(line("reading", 0, 0, elapsed), "reading: 100 %");
        assert_eq!(line("reading", 120, 100, elapsed), "reading: 100 %, 0 s left");
    }
}

//! Shows a demo while it plays: in place on a terminal; elsewhere a line each second, and one for everything that fails.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::Mutex,
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use super::{
    board::{Board, Phase},
    screen,
};
use crate::{
    output::Output,
    terminal::{InPlace, Line},
};

/// Something is shown, as long as [`Self::for_ever`] is polled.
#[derive(Debug)]
pub(super) struct Showing {
    board: Board,
    shown: Mutex<Shown>,
}

#[derive(Debug)]
enum Shown {
    InPlace(InPlace<File>),
    Lines(Lines),
}

impl Showing {
    /// On stdout; on stderr if stdout is for JSON.
    pub(super) fn start(board: Board, output: Output) -> Self {
        let stream = match output {
            Output::Text => io::stdout().as_fd().try_clone_to_owned(),
            Output::Json => io::stderr().as_fd().try_clone_to_owned(),
        };
        let shown = stream.ok().map(File::from).and_then(InPlace::on).map(Shown::InPlace);
        let shown = Mutex::new(shown.unwrap_or(Shown::Lines(Lines { output, told: 0, mended: 0, ticks: 0 })));
        Self { board, shown }
    }

    /// Never ends.
    pub(super) async fn for_ever(&self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.show();
        }
    }

    /// A last time.
    pub(super) fn end(self) {
        self.show();
    }

    fn show(&self) {
        let view = self.board.view();
        match &mut *self.shown.lock().expect("one task shows") {
            Shown::InPlace(screen) => {
                let mut lines = screen::frame(&view, screen.columns(), screen.style().unicode);
                // Apart from the verdict below.
                lines.push(Line::new());
                screen.draw(&lines);
            }
            Shown::Lines(lines) => lines.show(&view),
        }
    }
}

#[derive(Debug)]
struct Lines {
    output: Output,
    /// Mishaps that were told.
    told: usize,
    /// Mishaps whose end was told.
    mended: usize,
    ticks: u32,
}

impl Lines {
    fn show(&mut self, view: &super::board::View) {
        for (index, struck) in view.struck.iter().enumerate().skip(self.mended) {
            if index >= self.told {
                self.write(&screen::strikes(struck));
                self.told = index + 1;
            }
            let Some(mended) = screen::mended(struck) else { break };
            self.write(&mended);
            self.mended = index + 1;
        }
        let is_over = view.phase == Phase::Ended;
        if (self.ticks.is_multiple_of(TICKS_A_LINE) && view.phase == Phase::Breaking) || is_over {
            self.write(&screen::line(view));
        }
        self.ticks += 1;
    }

    fn write(&self, line: &str) {
        // What nobody can see is no reason to stop.
        let _ = match self.output {
            Output::Text => writeln!(io::stdout(), "{line}"),
            Output::Json => writeln!(io::stderr(), "{line}"),
        };
    }
}

const TICK: Duration = Duration::from_millis(100);
const TICKS_A_LINE: u32 = 10;

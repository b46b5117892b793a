//! Lines that are redrawn where they stand. The cursor is hidden meanwhile, and comes back however this ends.

use std::io::{IsTerminal, Write};

use rustix::{fd::AsFd, termios::tcgetwinsize};

use super::{Line, Style};

/// A part of the terminal.
#[derive(Debug)]
pub(crate) struct InPlace<W: Write + AsFd> {
    out: W,
    style: Style,
    /// Lines that stand there.
    shown: usize,
}

impl<W: Write + AsFd + IsTerminal> InPlace<W> {
    /// None: this is no terminal.
    pub(crate) fn on(out: W) -> Option<Self> {
        if !out.is_terminal() {
            return None;
        }
        let style = Style::of(&out);
        let mut screen = Self { out, style, shown: 0 };
        screen.write("\x1b[?25l");
        Some(screen)
    }

    /// Columns, as they are now.
    pub(crate) fn columns(&self) -> usize {
        self.size().0
    }

    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// Draws these lines over the ones before: as many as there is room for, each as long as there is.
    pub(crate) fn draw(&mut self, lines: &[Line]) {
        let (columns, rows) = self.size();
        let lines = &lines[..lines.len().min(rows.saturating_sub(1))];
        let mut text = up(self.shown);
        for line in lines {
            text += &line.rendered(self.style, columns);
            text += "\x1b[K\n";
        }
        // What stood below: fewer lines than before.
        text += "\x1b[J";
        self.shown = lines.len();
        self.write(&text);
    }

    fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(&self.out).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
    }
}

impl<W: Write + AsFd> InPlace<W> {
    fn write(&mut self, text: &str) {
        // What nobody can see is no reason to stop.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

impl<W: Write + AsFd> Drop for InPlace<W> {
    fn drop(&mut self) {
        self.write("\x1b[?25h");
    }
}

/// Back to the first of so many lines.
fn up(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\r") }
}

//! A line made of pieces, each in a tone. Cut by what is seen of it, not by what colours it.

use anstyle::{AnsiColor, Style as Ansi};

use super::Style;

/// What a piece of a line means. Colour only repeats what the words say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Strong,
    /// Beside the point.
    Faint,
    Good,
    /// Worth a look.
    Notable,
    Bad,
}

/// Pieces, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line(Vec<(Tone, String)>);

impl Line {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// With one piece more.
    pub(crate) fn then(mut self, tone: Tone, text: impl Into<String>) -> Self {
        self.0.push((tone, text.into()));
        self
    }

    /// With another line behind it.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Filled up with blanks until so many characters are seen.
    pub(crate) fn up_to(self, column: usize) -> Self {
        let blanks = column.saturating_sub(self.width());
        self.then(Tone::Plain, " ".repeat(blanks))
    }

    /// Characters that are seen. All that is written here is one column wide.
    pub(crate) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.chars().count()).sum()
    }

    /// As it is written: at most `width` characters are seen, the last of which says that there is more.
    pub(crate) fn rendered(&self, style: Style, width: usize) -> String {
        let mut left = width;
        let is_cut = self.width() > width;
        if is_cut {
            left = left.saturating_sub(1);
        }
        let mut out = String::new();
        for (tone, text) in &self.0 {
            let seen: String = text.chars().take(left).collect();
            left -= seen.chars().count();
            match style.colour.then(|| tone.ansi()) {
                Some(ansi) if !seen.is_empty() => out += &format!("{ansi}{seen}{ansi:#}"),
                _ => out += &seen,
            }
        }
        if is_cut && width > 0 {
            out.push(if style.unicode { '…' } else { '>' });
        }
        if style.unicode { out } else { out.replace(|c: char| !c.is_ascii(), "?") }
    }
}

impl Tone {
    fn ansi(self) -> Ansi {
        let coloured = |colour: AnsiColor| Ansi::new().fg_color(Some(anstyle::Color::Ansi(colour)));
        match self {
            Self::Plain => Ansi::new(),
            Self::Strong => Ansi::new().bold(),
            Self::Faint => Ansi::new().dimmed(),
            Self::Good => coloured(AnsiColor::Green),
            Self::Notable => coloured(AnsiColor::Yellow),
            Self::Bad => coloured(AnsiColor::Red).bold(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_what_is_seen_and_says_so() {
        let line = Line::new().then(Tone::Strong, "lost").then(Tone::Plain, " 12");
        assert_eq!(line.rendered(Style::PLAIN, 7), "lost 12");
        assert_eq!(line.rendered(Style::PLAIN, 6), "lost >");
        assert_eq!(line.rendered(Style { colour: false, unicode: true }, 3), "lo…");
        let coloured = line.rendered(Style { colour: true, unicode: true }, 7);
        assert_eq!(coloured, "\u{1b}[1mlost\u{1b}[0m 12");
    }

    #[test]
    fn columns_start_where_they_are_told_to() {
        let line = Line::new().then(Tone::Good, "ab").up_to(5).then(Tone::Plain, "c");
        assert_eq!(line.rendered(Style::PLAIN, 80), "ab   c");
        assert_eq!(Line::new().then(Tone::Good, "abc").up_to(2).width(), 3);
    }
}

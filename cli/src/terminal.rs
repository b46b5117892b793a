//! What a person sees: lines in tones, in colour or without, in the characters that the terminal has, no wider than it is.

mod in_place;
mod line;
mod table;

use std::{env, io::IsTerminal, sync::OnceLock};

use rustix::{fd::AsFd, termios::tcgetwinsize};

pub(crate) use self::{
    in_place::InPlace,
    line::{Line, Tone},
    table::Table,
};

/// How lines are written to one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) colour: bool,
    /// Characters beyond ASCII.
    pub(crate) unicode: bool,
}

impl Style {
    /// Neither colour nor anything beyond ASCII.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { colour: false, unicode: false };

    /// What suits a stream: no colour unless it is a terminal that has some and nobody has asked for none.
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let asked_for_none = NO_COLOUR.get().is_some() || set("NO_COLOR").is_some();
        let colour = stream.is_terminal() && !asked_for_none && env::var("TERM").is_ok_and(|term| term != "dumb");
        Self { colour, unicode: is_utf8(set) }
    }
}

/// `--no-color`, for everything that this process writes.
pub(crate) fn no_colour() {
    // Set before: it is set to the same.
    let _ = NO_COLOUR.set(());
}

/// The locale, as the C library decides it.
fn is_utf8(set: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    locale.to_ascii_lowercase().replace('-', "").contains("utf8")
}

/// A number with its digits in groups of three: 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A text in lines of at most `width` characters, broken between words; a word that is longer stands alone.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Columns of a stream; none: it is no terminal.
pub(crate) fn columns(stream: &(impl IsTerminal + AsFd)) -> Option<usize> {
    let size = stream.is_terminal().then(|| tcgetwinsize(stream).ok()).flatten()?;
    (size.ws_col > 0).then(|| size.ws_col.into())
}

/// Bytes in the largest unit that leaves a number from 1 on.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{size:.1} {}", units[unit]) }
}

/// A time in three digits: `420 us`, `12.3 ms`, `1.20 s`.
pub(crate) fn micros(micros: u64) -> String {
    let (value, unit) = match micros {
        0..=999 => return format!("{micros} us"),
        1_000..=999_999 => (micros as f64 / 1e3, "ms"),
        _ => (micros as f64 / 1e6, "s"),
    };
    match value {
        ..10.0 => format!("{value:.2} {unit}"),
        10.0..100.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

static NO_COLOUR: OnceLock<()> = OnceLock::new();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1_023, 1_536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!([999, 1_234, 45_600, 999_000, 1_200_000].map(micros), ["999 us", "1.23 ms", "45.6 ms", "999 ms", "1.20 s"]);
    }

    #[test]
    fn a_text_is_broken_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("one two three", 80), ["one two three"]);
        assert_eq!(wrapped("extraordinary one", 3), ["extraordinary", "one"]);
    }

    #[test]
    fn the_first_locale_that_is_set_decides() {
        let set = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        assert!(is_utf8(set(&[("LANG", "de_DE.UTF-8")])));
        assert!(is_utf8(set(&[("LC_CTYPE", "C.utf8"), ("LANG", "C")])));
        assert!(!is_utf8(set(&[("LC_ALL", "C"), ("LANG", "en_GB.UTF-8")])));
        assert!(!is_utf8(set(&[])));
    }
}

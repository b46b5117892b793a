//! Columns under heads, as wide as their widest cell. Numbers stand to the right, so that they can be compared.

use std::io::{self, Write};

/// A table to be written.
#[derive(Debug)]
pub(crate) struct Table {
    heads: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

impl Table {
    /// A head that begins with `#` is one of numbers.
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        let head = |head: &&'static str| match head.strip_prefix('#') {
            Some(numbers) => (numbers, Align::Right),
            None => (*head, Align::Left),
        };
        Self { heads: heads.iter().map(head).collect(), rows: Vec::new() }
    }

    /// A cell for each head.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.heads.len(), "a cell for each head");
        self.rows.push(cells);
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let heads: Vec<String> = self.heads.iter().map(|(head, _)| (*head).to_owned()).collect();
        let lines = || std::iter::once(&heads).chain(&self.rows);
        let widths: Vec<usize> =
            (0..heads.len()).map(|column| lines().map(|line| line[column].chars().count()).max().unwrap_or(0)).collect();
        for line in lines() {
            let cells = line.iter().zip(&widths).zip(&self.heads);
            let cells = cells.map(|((cell, width), (_, align))| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_no_line_ends_with_blanks() {
        let mut table = Table::new(&["TOPIC", "#RECORDS", "WHAT"]);
        table.row(vec!["a-long-name".into(), "7".into(), String::new()]);
        table.row(vec!["b".into(), "1234567890".into(), "x".into()]);
        let mut out = Vec::new();
        table.write(&mut out).expect("memory");
        let expected = "TOPIC           RECORDS  WHAT\na-long-name           7\nb            1234567890  x\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}

//! What a session leaves behind: `results.json` with every run, `report.md` with the tables, and a plot for each row.

mod json;
mod markdown;
mod plot;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context;

use crate::{machine::Machine, session::RowResult};

/// Everything that is reported.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where it was made.
    pub machine: Machine,
    /// Seconds since 1970 when it began.
    pub began: u64,
    /// Was it a part of the load?
    pub is_quick: bool,
    /// Versions of the peers.
    pub versions: BTreeMap<String, String>,
    /// Peers that cannot be had, and why.
    pub missing: BTreeMap<String, String>,
    /// Name and size of the commands.
    pub sizes: Vec<(String, u64)>,
    /// What was measured so far.
    pub rows: Vec<RowResult>,
}

impl Report {
    /// Writes all files, over those of before.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
        let write = |name: String, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))
        };
        write("results.json".to_owned(), json::text(self)?)?;
        write("report.md".to_owned(), markdown::text(self))?;
        for row in &self.rows {
            write(format!("{}.svg", row.name), plot::svg(row))?;
        }
        Ok(())
    }
}

/// A number with as many digits as it deserves, and thousands apart.
fn number(number: f64) -> String {
    let digits = match number.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{number:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (place, digit) in whole.chars().enumerate() {
        let left = whole.len() - place;
        if place > 0 && left % 3 == 0 && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_thousands_stand_apart() {
        for (of, text) in
            [(1_234_567.8, "1,234,568"), (999.4, "999"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123"), (-1234.0, "-1,234")]
        {
            assert_eq!(number(of), text);
        }
    }
}

//! What a session leaves behind: `results.json` with every run, `report.md` with the tables, and a plot for each row.

mod markdown;
mod plot;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    machine::Machine,
    rows::Row,
    session::{RowResult, Run},
};

/// Everything that is reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Bytes of the commands, by name.
    pub sizes: BTreeMap<String, u64>,
    /// What was measured so far.
    pub rows: Vec<RowResult>,
}

impl Report {
    /// With the rows of an earlier report in `directory`, which this one goes on with. Nothing changes if there is none.
    ///
    /// # Errors
    /// It cannot be read, or was made elsewhere or with another load, so that its numbers do not belong beside new ones.
    pub fn continued(self, directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(RESULTS);
        if !path.exists() {
            return Ok(self);
        }
        let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let earlier: Self = serde_json::from_str(&text).with_context(|| format!("{} is not a report", path.display()))?;
        if let Some((what, here, there)) = self.machine.difference(&earlier.machine) {
            anyhow::bail!("{} was made elsewhere: {what} was {there} and is {here}; give another --out", path.display());
        }
        ensure!(earlier.is_quick == self.is_quick, "{} has another load: --quick differs; give another --out", path.display());
        let mut versions = earlier.versions;
        versions.extend(self.versions);
        Ok(Self { began: earlier.began, versions, rows: earlier.rows, ..self })
    }

    /// Where the result of `row` lies, for rounds to be added: what is there if they would belong to it, else nothing yet. Rows
    /// stand in the order of `table`.
    pub fn place_of(&mut self, row: &Row, commit: &str, table: &[&str]) -> &mut RowResult {
        let kept = self.rows.iter().position(|result| result.name == row.name).map(|index| self.rows.remove(index));
        let result = kept.filter(|kept| kept.is_of(row, commit)).unwrap_or_else(|| RowResult::empty(row, commit));
        let rank = |name: &str| table.iter().position(|known| *known == name);
        let index = self.rows.partition_point(|before| rank(&before.name) < rank(row.name));
        self.rows.insert(index, result);
        &mut self.rows[index]
    }

    /// Runs without a result.
    pub fn failed(&self) -> impl Iterator<Item = &Run> {
        self.rows.iter().flat_map(|row| &row.runs).filter(|run| run.outcome.is_err())
    }

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
        write(RESULTS.to_owned(), serde_json::to_string_pretty(self)?)?;
        write("report.md".to_owned(), markdown::text(self))?;
        for row in self.rows.iter().filter(|row| !row.runs.is_empty()) {
            write(format!("{}.svg", row.name), plot::svg(row))?;
        }
        Ok(())
    }
}

const RESULTS: &str = "results.json";

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
    use crate::metric::Metric;

    fn report(rows: Vec<RowResult>) -> Report {
        let machine = Machine(vec![("kernel".to_owned(), "a kernel".to_owned())]);
        let (versions, missing, sizes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Report { machine, began: 7, is_quick: false, versions, missing, sizes, rows }
    }

    fn row(name: &'static str) -> Row {
        Row { name, about: "a test", metric: Metric::PayloadRate, round_seconds: 1, takes_peers: false, entries: Vec::new() }
    }

    fn result(name: &'static str) -> RowResult {
        let mut result = RowResult::of_rates(name, &[[("oncelog", 1.5)]]);
        result.entries.clear();
        result.runs[0].disturbance.others = 0.1;
        result
    }

    #[test]
    fn a_report_is_continued_where_it_was_made_and_nowhere_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let earlier = report(vec![RowResult::of_rates("a", &[[("x", 1.5)]]), RowResult::of_rates("b", &[[("x", 2.0)]])]);
        earlier.write(directory.path()).expect("it can be written");
        let again = Report { began: 9, ..report(Vec::new()) }.continued(directory.path()).expect("the same machine");
        assert_eq!(again, earlier);

        let elsewhere = Report { machine: Machine(vec![("kernel".to_owned(), "another".to_owned())]), ..report(Vec::new()) };
        let error = elsewhere.continued(directory.path()).expect_err("another machine").to_string();
        assert!(error.contains("kernel was a kernel and is another"), "{error}");
        let quick = Report { is_quick: true, ..report(Vec::new()) };
        assert!(quick.continued(directory.path()).is_err_and(|error| error.to_string().contains("--quick")));
        let fresh = report(Vec::new()).continued(&directory.path().join("nothing")).expect("nothing to go on with");
        assert!(fresh.rows.is_empty());
    }

    #[test]
    fn rounds_of_another_commit_or_of_others_are_not_added_to() {
        let mut report = report(vec![result("a"), result("c")]);
        let table = ["a", "b", "c"];
        assert_eq!(report.place_of(&row("a"), "a commit", &table).rounds(), 1);
        assert_eq!(report.place_of(&row("b"), "a commit", &table).rounds(), 0);
        assert_eq!(report.place_of(&row("c"), "another commit", &table).rounds(), 0);
        report.rows[0].entries.push(crate::session::Participant { name: "a peer".to_owned(), durability: "none".to_owned() });
        assert_eq!(report.place_of(&row("a"), "a commit", &table).rounds(), 0);
        assert_eq!(report.rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), table);
    }

    #[test]
    fn numbers_keep_three_digits_and_thousands_stand_apart() {
        for (of, text) in
            [(1_234_567.8, "1,234,568"), (999.4, "999"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123"), (-1234.0, "-1,234")]
        {
            assert_eq!(number(of), text);
        }
    }
}

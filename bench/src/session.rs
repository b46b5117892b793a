//! One round of a row: its entries in turns, so that whatever drifts drifts under all of them.
//!
//! A run that something else disturbed is repeated, so often as the session says; the quietest counts, and is marked if it
//! was not quiet. A run that fails is part of the result, with its error.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{
    candidate::{Entry, Place, Rate},
    clock,
    disturbance::{Disturbance, Observation},
    load::Load,
    measured::Measured,
    metric::Metric,
    rows::Row,
};

/// One run that counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The entry's name.
    pub entry: String,
    /// From 0.
    pub round: usize,
    /// The load as it was: its rate may depend on another entry.
    pub load: Load,
    /// What others did meanwhile.
    pub disturbance: Disturbance,
    /// Runs that it took to get a quiet one.
    pub attempts: usize,
    /// How long all of them took, with preparing and reading back.
    pub took_seconds: f64,
    /// What came out, or why nothing did.
    pub outcome: Result<Measured, String>,
}

/// Who took part in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// The entry's name.
    pub name: String,
    /// What an acknowledgement of it means.
    pub durability: String,
}

/// All runs of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowResult {
    /// The row's name.
    pub name: String,
    /// What it is about.
    pub about: String,
    /// What ratios are made of.
    pub metric: Metric,
    /// The commit of oncelog that was measured.
    pub commit: String,
    /// In the order of their turns.
    pub entries: Vec<Participant>,
    /// In the order in which they were made.
    pub runs: Vec<Run>,
}

impl RowResult {
    /// Of a row before its first round.
    pub fn empty(row: &Row, commit: &str) -> Self {
        let participant = |entry: &Entry| Participant { name: entry.name.clone(), durability: entry.durability.clone() };
        Self {
            name: row.name.to_owned(),
            about: row.about.to_owned(),
            metric: row.metric,
            commit: commit.to_owned(),
            entries: row.entries.iter().map(participant).collect(),
            runs: Vec::new(),
        }
    }

    /// Would further rounds belong to these, and would they compare the same?
    pub fn is_of(&self, row: &Row, commit: &str) -> bool {
        Self { runs: Vec::new(), ..self.clone() } == Self::empty(row, commit)
    }

    /// What an entry gave in a round. None if it failed.
    pub fn measured(&self, entry: &str, round: usize) -> Option<&Measured> {
        self.runs.iter().find(|run| run.round == round && run.entry == entry)?.outcome.as_ref().ok()
    }

    /// How many rounds there were.
    pub fn rounds(&self) -> usize {
        self.runs.iter().map(|run| run.round + 1).max().unwrap_or(0)
    }

    /// Runs that succeeded, of an entry.
    pub fn of_entry<'a>(&'a self, entry: &'a str) -> impl Iterator<Item = &'a Measured> {
        self.runs.iter().filter(move |run| run.entry == entry).filter_map(|run| run.outcome.as_ref().ok())
    }
}

/// Where a session works, and how patiently.
#[derive(Clone, Debug)]
pub struct Session {
    /// A directory on the disk under test.
    pub directory: PathBuf,
    /// A run is made so often before a disturbed one counts; from 1.
    pub attempts: usize,
}

/// Where a row keeps what its rounds share; removed when dropped.
#[derive(Debug)]
pub struct RowDirectory(PathBuf);

impl Drop for RowDirectory {
    fn drop(&mut self) {
        // What is left is removed before the row is run again.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Session {
    /// A fresh directory for a row.
    ///
    /// # Errors
    /// The directory of the session cannot be used.
    pub fn directory_of(&self, row: &Row) -> io::Result<RowDirectory> {
        fresh(&self.directory.join(row.name)).map(RowDirectory)
    }

    /// Adds a round to the result of a row.
    ///
    /// # Errors
    /// The directory cannot be used, or this is not Linux. What fails in a run is part of the result.
    pub async fn round(&self, row: &Row, directory: &RowDirectory, result: &mut RowResult) -> anyhow::Result<()> {
        let round = result.rounds();
        for entry in &row.entries {
            let run = self.turn(row, entry, round, result, &directory.0).await?;
            eprintln!("{}", progress(row.metric, &run));
            result.runs.push(run);
        }
        Ok(())
    }

    async fn turn(
        &self,
        row: &Row,
        entry: &Entry,
        round: usize,
        so_far: &RowResult,
        row_directory: &Path,
    ) -> anyhow::Result<Run> {
        let load = match load(row.metric, entry, round, so_far) {
            Ok(load) => load,
            Err(why) => {
                let (entry, load) = (entry.name.clone(), entry.load);
                let disturbance = Disturbance::default();
                return Ok(Run { entry, round, load, disturbance, attempts: 0, took_seconds: 0.0, outcome: Err(why) });
            }
        };
        let mut best: Option<Run> = None;
        let first = clock::now();
        for attempts in 1..=self.attempts {
            let run_directory = fresh(&row_directory.join("run"))?;
            settle().await;
            let observation = Observation::begin()?;
            let began = clock::now();
            let place = Place { run: &run_directory, row: row_directory };
            let outcome = timeout(PATIENCE, entry.candidate.run(&load, place)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("it was not done after {PATIENCE:?}")));
            let disturbance = observation.end()?;
            let is_last = attempts == self.attempts || disturbance.is_quiet() || outcome.is_err() || began.elapsed() > LONG;
            let outcome = outcome.map_err(|error| format!("{error:#}"));
            if outcome.is_err() {
                keep_logs(&run_directory, &self.directory.join(format!("failed-{}", row.name)));
            }
            let run = Run { entry: entry.name.clone(), round, load, disturbance, attempts, took_seconds: 0.0, outcome };
            if best.as_ref().is_none_or(|best| run.outcome.is_err() || disturbance.total() < best.disturbance.total()) {
                best = Some(run);
            }
            fs::remove_dir_all(&run_directory)?;
            if is_last {
                break;
            }
        }
        let best = best.expect("there is at least one attempt");
        Ok(Run { took_seconds: first.elapsed().as_secs_f64(), ..best })
    }
}

/// The load of this turn.
fn load(metric: Metric, entry: &Entry, round: usize, so_far: &RowResult) -> Result<Load, String> {
    match entry.rate {
        Rate::Given => Ok(entry.load),
        Rate::ShareOf { entry: other, share, seconds } => {
            let peak = so_far.measured(other, round).and_then(|measured| Metric::RecordRate.of(measured));
            let rate = peak.ok_or_else(|| format!("{other} gave no rate in this round; {metric:?} cannot be measured"))? * share;
            Ok(Load { rate: Some(rate), records: (rate * seconds).ceil() as u64, ..entry.load })
        }
    }
}

/// What was written is on disk, and what was deleted is gone, before something else is measured.
async fn settle() {
    rustix::fs::sync();
    tokio::time::sleep(SETTLE).await;
}

fn fresh(directory: &Path) -> io::Result<PathBuf> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory)?;
    Ok(directory.to_owned())
}

/// What servers said in a run that failed; the data is not kept.
fn keep_logs(from: &Path, to: &Path) {
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries.flatten().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log")) {
        let _ = fs::create_dir_all(to).and_then(|()| fs::copy(entry.path(), to.join(entry.file_name())));
    }
}

fn progress(metric: Metric, run: &Run) -> String {
    let what = match &run.outcome {
        Ok(measured) => {
            let number = metric.of(measured).map_or_else(|| "-".to_owned(), |number| format!("{number:.1} {}", metric.unit()));
            let latency = measured.latency_us.map_or_else(String::new, |l| format!(", p50 {:.0} µs, p99 {:.0} µs", l.p50, l.p99));
            let verified = if measured.verified > 0 { format!(", {} read back", measured.verified) } else { String::new() };
            format!("{number}{latency}, {:.2} s{verified}", measured.seconds)
        }
        Err(why) => format!("FAILED: {why}"),
    };
    let disturbed = if run.disturbance.is_quiet() {
        String::new()
    } else {
        format!(" [disturbed: {:.2} cores, after {} attempts]", run.disturbance.total(), run.attempts)
    };
    format!("   {} {:<34} {what}{disturbed}", run.round + 1, run.entry)
}

/// A run that takes so long is not repeated.
const LONG: Duration = Duration::from_secs(60);
/// A run that takes so long has failed. The longest one makes a log of 10 GiB and reads it back.
const PATIENCE: Duration = Duration::from_secs(900);
const SETTLE: Duration = Duration::from_millis(300);

#[cfg(test)]
impl RowResult {
    /// With one run for each rate, which is in MB/s.
    pub(crate) fn of_rates<const N: usize>(name: &'static str, rounds: &[[(&'static str, f64); N]]) -> Self {
        let run = |round: usize, (entry, rate): (&str, f64)| Run {
            entry: entry.to_owned(),
            round,
            load: Load { record_bytes: 1, partitions: 1, records: 1, unacknowledged: 1, rate: None },
            disturbance: Disturbance::default(),
            attempts: 1,
            took_seconds: 1.0,
            outcome: Ok(Measured { payload_bytes: (rate * 1e6) as u64, records: 1, seconds: 1.0, ..Measured::default() }),
        };
        let runs = rounds.iter().enumerate().flat_map(|(round, rates)| rates.map(|rate| run(round, rate))).collect();
        let participant = |name: &str| Participant { name: name.to_owned(), durability: "none".to_owned() };
        let entries = rounds[0].iter().map(|(name, _)| participant(name)).collect();
        let [name, about, commit] = [name, "a test", "a commit"].map(str::to_owned);
        Self { name, about, metric: Metric::PayloadRate, commit, entries, runs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails, or measures a rate of a hundred records a second.
    struct Fake {
        fails: bool,
    }

    #[tonic::async_trait(?Send)]
    impl crate::candidate::Candidate for Fake {
        async fn run(&self, load: &Load, place: Place<'_>) -> anyhow::Result<Measured> {
            anyhow::ensure!(!self.fails, "as expected");
            anyhow::ensure!(fs::read_dir(place.run)?.next().is_none(), "the directory is not fresh");
            fs::write(place.run.join("something"), "left behind")?;
            let seconds = load.rate.map_or(1.0, |rate| load.records as f64 / rate);
            Ok(Measured { records: load.records, seconds, ..Measured::default() })
        }
    }

    #[tokio::test]
    async fn entries_take_turns_and_a_failure_of_one_is_told_and_ends_nothing() {
        let load = Load { record_bytes: 1, partitions: 1, records: 100, unacknowledged: 1, rate: None };
        let entry = |name: &str, fails| Entry::new(name, "none", load, Fake { fails });
        let half = |name: &str, of| entry(name, false).at(Rate::ShareOf { entry: of, share: 0.5, seconds: 3.0 });
        let row = Row {
            name: "a-row",
            about: "a test",
            metric: Metric::RecordRate,
            round_seconds: 1,
            takes_peers: false,
            entries: vec![entry("a", false), entry("b", true), half("half of a", "a"), half("half of b", "b")],
        };
        let directory = std::env::temp_dir().join(format!("oncelog-bench-session-{}", std::process::id()));
        let session = Session { directory: directory.clone(), attempts: 1 };
        let mut result = RowResult::empty(&row, "a commit");
        let of_row = session.directory_of(&row).expect("a directory");
        for _ in 0..2 {
            session.round(&row, &of_row, &mut result).await.expect("a directory");
        }
        drop(of_row);
        fs::remove_dir(directory).expect("it is there, and nothing is left in it");
        let order: Vec<_> = result.runs.iter().map(|run| (run.round, run.entry.as_str())).collect();
        let round = |round| ["a", "b", "half of a", "half of b"].map(|name| (round, name));
        assert_eq!(order, [round(0), round(1)].concat());
        assert!(result.runs[1].outcome.as_ref().is_err_and(|error| error == "as expected"));
        assert_eq!((result.runs[2].load.rate, result.runs[2].load.records), (Some(50.0), 150));
        assert!(result.runs[3].outcome.as_ref().is_err_and(|error| error.starts_with("b gave no rate")));
        assert_eq!(result.rounds(), 2);
    }
}

//! A recording: the rounds that a report lacks, as many of them as there is time for.
//!
//! Quiet time comes in pieces. So the report is written after every round, a recording may end after any of them, and the next
//! one goes on where it ended. A round is never split: what is compared was measured within minutes.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    clock, machine,
    report::Report,
    rows::{Row, Scale},
    session::Session,
};

/// What is to be recorded.
#[derive(Debug)]
pub struct Recording {
    /// The rows, in the order of the report.
    pub rows: Vec<Row>,
    /// Names of all rows there are, in that order.
    pub table: Vec<&'static str>,
    /// How many of each.
    pub rounds: usize,
    /// How much is sent.
    pub scale: Scale,
    /// No round begins that would not end by then. None: all of them are made.
    pub time: Option<Duration>,
    /// Where the report is written.
    pub out: PathBuf,
    /// Runs rounds.
    pub session: Session,
}

/// How long rounds take: what the table of rows expects, corrected by what they took so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Pace {
    expected: Duration,
    took: Duration,
}

impl Recording {
    /// Adds rounds to the report until it has all of them or time is up; how many it still lacks.
    ///
    /// # Errors
    /// The report cannot be written, the directory under test cannot be used, or this is not Linux.
    pub async fn run(&self, report: &mut Report) -> anyhow::Result<usize> {
        let (began, commit) = (clock::now(), machine::commit());
        let mut pace = Pace::default();
        let mut lacking: Vec<usize> =
            self.rows.iter().map(|row| self.rounds.saturating_sub(report.place_of(row, &commit, &self.table).rounds())).collect();
        for (place, row) in self.rows.iter().enumerate() {
            if lacking[place] == 0 {
                eprintln!("== {}: all its rounds are in the report", row.name);
                continue;
            }
            let mut directory = None;
            while lacking[place] > 0 && self.has_time(began, pace.expect(row.round_time(self.scale))) {
                if directory.is_none() {
                    let left = pace.expect(self.left(&lacking));
                    eprintln!("== {} ({} of {}; some {} left): {}", row.name, place + 1, self.rows.len(), shown(left), row.about);
                }
                let directory = match &directory {
                    Some(made) => made,
                    None => directory.insert(self.session.directory_of(row)?),
                };
                let round_began = clock::now();
                self.session.round(row, directory, report.place_of(row, &commit, &self.table)).await?;
                pace.expected += row.round_time(self.scale);
                pace.took += round_began.elapsed();
                lacking[place] -= 1;
                report.write(&self.out)?;
            }
        }
        Ok(lacking.iter().sum())
    }

    /// How long all rounds that `report` lacks are expected to take.
    pub fn expected(&self, report: &mut Report) -> Duration {
        let commit = machine::commit();
        let rounds = self.rows.iter().map(|row| self.rounds.saturating_sub(report.place_of(row, &commit, &self.table).rounds()));
        self.left(&rounds.collect::<Vec<_>>())
    }

    fn left(&self, lacking: &[usize]) -> Duration {
        let of = |(row, rounds): (&Row, &usize)| row.round_time(self.scale) * u32::try_from(*rounds).unwrap_or(u32::MAX);
        self.rows.iter().zip(lacking).map(of).sum()
    }

    fn has_time(&self, began: Instant, round: Duration) -> bool {
        self.time.is_none_or(|time| began.elapsed() + round <= time)
    }
}

impl Pace {
    fn expect(self, round: Duration) -> Duration {
        if self.expected.is_zero() { round } else { round.mul_f64(self.took.as_secs_f64() / self.expected.as_secs_f64()) }
    }
}

/// In minutes, or in seconds if it is a few.
pub fn shown(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 90 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    }
}

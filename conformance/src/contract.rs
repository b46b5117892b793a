//! What the suite and a client program have agreed on: what the program is told in its environment, which records it sends, and
//! how it says what became of them. The README says the same to those who write one.

use std::{env, str::FromStr, time::Duration};

use anyhow::{Context, bail, ensure};
use oncelog_proto::v1::Record;

/// What a client program is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// `host:port` of the service that the program speaks to.
    pub(crate) address: String,
    /// Where to; partition 0.
    pub(crate) topic: String,
    /// How many records to send, numbered from 0.
    pub(crate) records: u32,
    /// The deadline of each call.
    pub(crate) timeout: Duration,
}

impl Assignment {
    /// As environment variables.
    pub(crate) fn to_environment(&self) -> [(&'static str, String); 4] {
        [
            (ADDRESS, self.address.clone()),
            (TOPIC, self.topic.clone()),
            (RECORDS, self.records.to_string()),
            (TIMEOUT_MS, self.timeout.as_millis().to_string()),
        ]
    }

    /// From this process's environment.
    ///
    /// # Errors
    /// A variable is missing or out of its range.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let text = |name| env::var(name).with_context(|| format!("{name} is not set"));
        let number = |name| u32::from_str(&text(name)?).with_context(|| format!("{name} is no number"));
        let timeout = Duration::from_millis(u64::from(number(TIMEOUT_MS)?));
        Ok(Self { address: text(ADDRESS)?, topic: text(TOPIC)?, records: number(RECORDS)?, timeout })
    }
}

/// The record of a number.
pub(crate) fn record(number: u32) -> Record {
    Record { value: Some(format!("{VALUE_PREFIX}{number}").into()), ..Record::default() }
}

/// The number of a record. None: it is not exactly what [`record`] makes.
pub(crate) fn number_of(given: &Record) -> Option<u32> {
    let value = std::str::from_utf8(given.value.as_ref()?).ok()?;
    let number = value.strip_prefix(VALUE_PREFIX)?.parse().ok()?;
    (record(number) == *given).then_some(number)
}

/// What a program says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is in the log, at this offset; -1: the offset is not known.
    Appended(i64),
    /// It is certainly not in the log.
    Refused,
    /// It is in the log at most once.
    Unknown,
}

/// Reads what a program wrote to stdout: one line for each record, in any order. None: it said nothing of this one.
///
/// # Errors
/// A line is none of these, or a record has two.
pub(crate) fn claims(stdout: &str, records: u32) -> anyhow::Result<Vec<Option<Claim>>> {
    let mut claims = vec![None; records as usize];
    for line in stdout.lines() {
        let (number, claim) = claim(line).with_context(|| format!("stdout says {line:?}"))?;
        let slot = claims.get_mut(number as usize);
        let slot = slot.with_context(|| format!("stdout says {line:?}; records go from 0 to {}", records.saturating_sub(1)))?;
        ensure!(slot.replace(claim).is_none(), "stdout says {line:?}, and speaks of record {number} elsewhere as well");
    }
    Ok(claims)
}

/// There is a claim for each record.
///
/// # Errors
/// There is not.
pub(crate) fn is_complete(claims: &[Option<Claim>]) -> anyhow::Result<()> {
    let missing = claims.iter().filter(|claim| claim.is_none()).count();
    let first = claims.iter().position(Option::is_none).unwrap_or(0);
    let records = claims.len();
    ensure!(missing == 0, "stdout says nothing of {missing} of the {records} records, of which the first is {first}");
    Ok(())
}

fn claim(line: &str) -> anyhow::Result<(u32, Claim)> {
    let words: Vec<_> = line.split(' ').collect();
    let claim = match words[1..] {
        ["appended", offset] => Claim::Appended(offset.parse().context("an offset is a number")?),
        // Whoever reads may be told why.
        ["refused", ..] => Claim::Refused,
        ["unknown"] => Claim::Unknown,
        _ => bail!("a line is `N appended OFFSET`, `N refused WHY` or `N unknown`"),
    };
    Ok((words[0].parse().context("a line begins with the number of a record")?, claim))
}

const ADDRESS: &str = "ONCELOG_ADDRESS";
const TOPIC: &str = "ONCELOG_TOPIC";
const RECORDS: &str = "ONCELOG_RECORDS";
const TIMEOUT_MS: &str = "ONCELOG_TIMEOUT_MS";
const VALUE_PREFIX: &str = "record ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_by_its_number_and_by_nothing_less() {
        assert_eq!(number_of(&record(17)), Some(17));
        assert_eq!(number_of(&Record { key: Some("k".into()), ..record(17) }), None);
        for value in ["record 017", "record +17", "record", "17", ""] {
            assert_eq!(number_of(&Record { value: Some(value.into()), ..Record::default() }), None, "{value:?}");
        }
    }

    #[test]
    fn each_record_has_one_line() {
        let all = claims("2 unknown\n0 appended 7\n1 refused too large\n", 3).expect("a line for each");
        assert_eq!(all, [Claim::Appended(7), Claim::Refused, Claim::Unknown].map(Some));
        is_complete(&all).expect("a line for each");
        for (wrong, why) in [
            ("0 unknown", "nothing of 2 of the 3 records, of which the first is 1"),
            ("0 unknown\n0 unknown", "elsewhere as well"),
            ("3 unknown", "records go from 0 to 2"),
            ("0 appended", "a line is"),
            ("done", "a line is"),
            ("x unknown", "the number of a record"),
        ] {
            let error = format!("{:#}", claims(wrong, 3).and_then(|claims| is_complete(&claims)).expect_err(wrong));
            assert!(error.contains(why), "{wrong:?}: {error}");
        }
    }
}

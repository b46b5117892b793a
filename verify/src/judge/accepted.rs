//! Looks for an accepted record where its answer says that it is (I1), and since when (I4).

use super::ground::Ground;
use crate::{
    history::{Digest, Partition, Place},
    report::{Evidence, Report, Rule},
};

/// Where an accepted record is.
pub(super) enum Accepted {
    /// Where the answer says, in this partition.
    There(usize),
    /// The answer did not say where.
    Somewhere,
    /// It was there, and retention took it.
    Trimmed,
    /// It is lost; that was said.
    Missing,
}

pub(super) fn find(
    ground: &Ground<'_>,
    name: &Partition,
    place: Place,
    digest: Digest,
    lines: [u64; 2],
    report: &mut Report,
) -> Accepted {
    let mut evidence: Vec<_> = lines.map(Evidence::Line).into();
    if place.offset < 0 {
        return Accepted::Somewhere;
    }
    let Some(index) = ground.log.find(name) else {
        report.counts.lost += 1;
        report.accuse(
            Rule::I1,
            format!("{name} is not there; a record was acknowledged at its offset {}", place.offset),
            evidence,
        );
        return Accepted::Missing;
    };
    let partition = ground.partition(index);
    if place.offset < partition.log_start() {
        report.unjudged.trimmed += 1;
        return Accepted::Trimmed;
    }
    evidence.push(Evidence::Record { partition: name.clone(), offset: place.offset });
    match partition.at(place.offset) {
        Some((batch, there)) if there == digest => {
            let time = partition.batch(batch).place.append_time;
            if time != place.append_time {
                let what = format!(
                    "{name} offset {}: the time acknowledged is {}, in the log it is {time}",
                    place.offset, place.append_time
                );
                report.accuse(Rule::I4, what, evidence);
            }
            Accepted::There(index)
        }
        there => {
            report.counts.lost += 1;
            let instead = if there.is_some() { "another record is there" } else { "there is none" };
            let what = format!("{name} offset {}: a record was acknowledged there, and {instead}", place.offset);
            report.accuse(Rule::I1, what, evidence);
            Accepted::Missing
        }
    }
}

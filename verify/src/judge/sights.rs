//! Judges what was seen while calls were going on: it has to be true in the end (I7), and it may not fall behind what was known
//! before the broker started anew (I5).

use super::{Moment, ground::Ground, known::Known, outline::Standing};
use crate::{
    history::Sight,
    report::{Evidence, Report, Rule},
};

/// A look that was begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) line: u64,
    pub(super) life: u32,
}

pub(super) fn judge(ground: &Ground<'_>, known: &Known, look: Look, sight: &Sight, now: Moment, report: &mut Report) {
    let (Sight::Records { partition: name, .. } | Sight::Ends { partition: name, .. } | Sight::Next { partition: name, .. }) =
        sight;
    if ground.standing(&name.topic, look.line, now.line) != Standing::Current {
        report.unjudged.deleted += 1;
        return;
    }
    let lines = || vec![Evidence::Line(look.line), Evidence::Line(now.line)];
    let Some(index) = ground.log.find(name) else {
        return report.accuse(Rule::I7, format!("{name} was seen, and is not there"), lines());
    };
    let partition = ground.partition(index);
    match sight {
        Sight::Records { offset, records, .. } => {
            for (offset, seen) in (*offset..).zip(records) {
                if offset < partition.log_start() {
                    report.unjudged.trimmed += 1;
                } else if partition.at(offset).map(|(_, digest)| digest) != Some(*seen) {
                    let mut evidence = lines();
                    evidence.push(Evidence::Record { partition: name.clone(), offset });
                    let what = format!("{name} offset {offset}: a record was read there that is not there any more");
                    return report.accuse(Rule::I7, what, evidence);
                }
            }
        }
        Sight::Ends { log_start, log_end, .. } => {
            if *log_end > partition.log_end() {
                let what = format!("{name} was seen to end at {log_end}; it ends at {}", partition.log_end());
                report.accuse(Rule::I7, what, lines());
            }
            // A trim is told when its entry is durable, and is never undone.
            if *log_start > partition.log_start() {
                let what = format!("{name} was seen to start at {log_start}; it starts at {}", partition.log_start());
                report.accuse(Rule::I7, what, lines());
            }
        }
        Sight::Next { producer, next_sequence, .. } => {
            let in_log = ground.next_sequence(*producer, index);
            let at_start = if look.life == now.life { known.next_at_start(*producer, index, now.life) } else { 0 };
            let of = format!("{name}: producer {} epoch {}", producer.id, producer.epoch);
            if *next_sequence < at_start {
                let what = format!("{of} is said to go on with {next_sequence}; {at_start} was known before the broker started");
                report.accuse(Rule::I5, what, lines());
            } else if in_log.is_none() && partition.is_trimmed() {
                report.unjudged.trimmed += 1;
            } else if in_log.unwrap_or(0) < *next_sequence {
                let what = format!("{of} was seen to go on with {next_sequence}; the log ends before {}", in_log.unwrap_or(0));
                report.accuse(Rule::I7, what, lines());
            }
        }
    }
}

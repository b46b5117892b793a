//! Judges the order of streams once more when all is over, where answers did not come: what is in the log although its caller
//! heard nothing of it stands in the order of its stream like everything else.
//!
//! Nobody said where it is, so it is looked for by what it is. Records that were sent more than once, or are there more than
//! once, cannot be told from each other and are left out.

use std::collections::{HashMap, HashSet};

use super::{
    ground::Ground,
    sends::{Key, Sends},
};
use crate::{
    history::{CallerId, Event},
    history_file::{History, HistoryError},
    report::{Evidence, Report, Rule},
};

/// A record of a stream that is in the log, in the order in which they were sent.
struct Sent {
    caller: CallerId,
    line: u64,
    key: Key,
    is_accepted: bool,
}

/// The last record of a stream in a partition.
struct Last {
    offset: i64,
    line: u64,
    is_accepted: bool,
}

/// Judges the streams of these callers: those of which not everything was answered.
pub(super) fn judge(
    sends: &Sends,
    callers: &HashSet<CallerId>,
    ground: &Ground<'_>,
    history: &(impl History + ?Sized),
    report: &mut Report,
) -> Result<(), HistoryError> {
    if callers.is_empty() {
        return Ok(());
    }
    let sent = in_log(sends, callers, history)?;
    let wanted: HashSet<Key> = sent.iter().map(|sent| sent.key).collect();
    let mut places: HashMap<Key, (usize, i64)> = HashMap::with_capacity(wanted.len());
    for (index, partition) in ground.log.partitions().iter().enumerate() {
        for (offset, _, digest) in partition.records() {
            let key = sends.key(&partition.name().topic, digest).filter(|key| wanted.contains(key));
            places.extend(key.map(|key| (key, (index, offset))));
        }
    }
    let mut last: HashMap<(CallerId, usize), Last> = HashMap::new();
    for Sent { caller, line, key, is_accepted } in sent {
        let (index, offset) = places[&key];
        let before = last.get(&(caller, index)).filter(|before| before.offset >= offset);
        let Some(before) = before else {
            last.insert((caller, index), Last { offset, line, is_accepted });
            continue;
        };
        // Of two that were answered this was said when they were.
        if !(is_accepted && before.is_accepted) {
            let record = |offset| Evidence::Record { partition: ground.partition(index).name().clone(), offset };
            let what = format!(
                "what stream {} sent later stands at {offset}, what it sent before at {}; not both were answered",
                caller.0, before.offset
            );
            let evidence = vec![Evidence::Line(before.line), Evidence::Line(line), record(before.offset), record(offset)];
            report.accuse(Rule::Order, what, evidence);
        }
    }
    Ok(())
}

fn in_log(sends: &Sends, callers: &HashSet<CallerId>, history: &(impl History + ?Sized)) -> Result<Vec<Sent>, HistoryError> {
    let mut sent = Vec::new();
    for (line, event) in (1..).zip(history.lines()?) {
        let Event::SendCalled(send) = event?.event else { continue };
        if !send.streamed || !callers.contains(&send.caller) {
            continue;
        }
        let found = send.records.iter().filter_map(|digest| sends.only_one(&send.topic, *digest));
        sent.extend(found.map(|(key, is_accepted)| Sent { caller: send.caller, line, key, is_accepted }));
    }
    Ok(sent)
}

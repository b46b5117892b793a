//! A journal at rest: every byte is read, and nothing is changed. The state is folded from each base there is, the beginning and
//! the snapshots, and has to be the same each time (I5).

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::Context;
use broker_svc::{
    entry::PartitionId,
    journal::{Base, Inspected, Inspection, StoredBatch},
    state::State,
};
use oncelog_proto::{PackedBatch, Sequence};
use oncelog_verify::{
    Log, PartitionLog, Rule,
    history::{Digest, Partition, Place, Producer, Tag},
    log::Stand,
};

use super::{judged, read_only::ReadOnlyDisk, verdict::Verdict};
use crate::progress::Progress;

/// Verifies the journal in a directory.
///
/// # Errors
/// It cannot be read: damaged where a broker would refuse it too, locked, or of a newer format.
pub(crate) fn verify(directory: &Path, topics: &[String], history: Option<&Path>) -> anyhow::Result<Verdict> {
    let wrong = || format!("the journal in {}", directory.display());
    let disk = ReadOnlyDisk::open(directory).with_context(wrong)?;
    let mut inspection = Inspection::begin(Arc::new(disk)).with_context(wrong)?;
    let mut notes = Vec::new();
    if inspection.is_empty() {
        notes.push("nothing was ever written here".to_owned());
    }
    if let Some(torn) = inspection.torn() {
        let what = "the last group was being written when the machine stopped; nobody was told of it, and the next start cuts it";
        notes.push(format!("{what} ({torn})"));
    }
    let (state, contradictions) = fold(&mut inspection, &mut notes).with_context(wrong)?;
    let (log, inspected, unreadable) = read(&inspection, &state, topics).with_context(wrong)?;
    let mut report = judged(&log, history)?;
    for contradiction in contradictions {
        report.accuse(Rule::I5, contradiction, Vec::new());
    }
    let mut verdict = Verdict::new(report, &log);
    verdict.damage = inspection.damaged_snapshots().to_vec();
    verdict.damage.extend(inspected.faults);
    verdict.damage.extend(unreadable);
    let Inspected { segments, batches, bytes, indexes, missing_indexes, .. } = inspected;
    notes.push(format!(
        "{segments} segments with {batches} batches, {bytes} bytes; {indexes} indexes agree, {missing_indexes} to be made"
    ));
    verdict.notes = notes;
    Ok(verdict)
}

/// Folds from every base; returns the state, and where the bases do not lead to the same one.
fn fold(inspection: &mut Inspection, notes: &mut Vec<String>) -> anyhow::Result<(State, Vec<String>)> {
    let name = |base: &Base| base.snapshot().unwrap_or_else(|| "the beginning".to_owned());
    let mut folded: Option<(String, State)> = None;
    let mut contradictions = Vec::new();
    let bases = inspection.bases();
    for base in &bases {
        let mut state = State::default();
        let mut progress = Progress::start("folding");
        let fold = inspection.fold(*base, &mut state, &mut |at| progress.at(at.bytes, at.total));
        progress.end();
        fold?;
        match &folded {
            None => folded = Some((name(base), state)),
            Some((first, expected)) if *expected != state => {
                contradictions.push(format!("the state from {first} on is another than from {} on", name(base)));
            }
            Some(_) => {}
        }
    }
    if bases.len() < 2 {
        notes.push("there is one way to the state, so there was nothing to compare it with".to_owned());
    } else {
        let names: Vec<_> = bases.iter().map(name).collect();
        notes.push(format!("the state was folded from {}", names.join(" and from ")));
    }
    Ok((folded.map(|(_, state)| state).unwrap_or_default(), contradictions))
}

/// Reads every batch; returns the log, what was inspected, and what cannot be unpacked.
fn read(inspection: &Inspection, state: &State, topics: &[String]) -> anyhow::Result<(Log, Inspected, Vec<String>)> {
    let mut partitions: BTreeMap<PartitionId, PartitionLog> = BTreeMap::new();
    for name in state.topic_names() {
        if !topics.is_empty() && !topics.iter().any(|topic| *topic == name.to_string()) {
            continue;
        }
        let described = state.describe_topic(&name).expect("it was just listed");
        for (index, partition) in (0..).zip(described.partitions) {
            let (start, end) = (partition.ends.start.get(), partition.ends.end.get());
            partitions.insert(partition.id, PartitionLog::new(Partition::new(name.to_string(), index), start, end));
        }
    }
    let mut unreadable = Vec::new();
    let mut progress = Progress::start("reading");
    let inspected = inspection.read(
        &mut |batch| {
            // A topic that was deleted is still in the journal, and in no log.
            let Some(partition) = partitions.get_mut(&batch.append.partition) else { return };
            if let Err(what) = push(partition, batch)
                && unreadable.len() < FAULTS_KEPT
            {
                unreadable.push(what);
            }
        },
        &mut |at| progress.at(at.bytes, at.total),
    );
    progress.end();
    let inspected = inspected?;
    let mut log = Log::of(topics);
    if !(inspected.faults.is_empty() && unreadable.is_empty()) {
        log.note_damage();
    }
    partitions.into_values().for_each(|partition| log.add(partition));
    for stand in stands(state) {
        log.add_stand(stand);
    }
    Ok((log, inspected, unreadable))
}

fn push(partition: &mut PartitionLog, batch: StoredBatch) -> Result<(), String> {
    let append = batch.append;
    let offset = append.base_offset.get();
    let at = format!("{} offset {offset}", partition.name());
    let (count, checksum) = (append.count, append.checksum);
    let packed = PackedBatch::from_stored(append.compression, count, append.uncompressed_bytes, checksum, batch.data);
    let records = packed
        .ok_or_else(|| format!("{at}: its entry says what cannot be"))?
        .records()
        .map_err(|fault| format!("{at}: {fault}"))?;
    if records.len() != usize::try_from(count.get()).unwrap_or(0) {
        return Err(format!("{at}: there are {} records, its entry says {count}", records.len()));
    }
    let digests: Vec<_> = records.iter().map(Digest::of).collect();
    let tag = append
        .tag
        .map(|tag| Tag { producer: Producer { id: tag.producer.get(), epoch: tag.epoch.get() }, base_sequence: tag.base.get() });
    partition.push(Place { offset, append_time: batch.time.as_micros() }, tag, Some(checksum), &digests);
    Ok(())
}

fn stands(state: &State) -> Vec<Stand> {
    let mut stands = Vec::new();
    let mut after = None;
    loop {
        let page = state.describe_producers(None, None, after, PAGE);
        for described in page.producers {
            let producer = Producer { id: described.producer.get(), epoch: described.epoch.get() };
            stands.extend(described.partitions.into_iter().map(|(name, next)| Stand {
                producer,
                partition: Partition::new(name.topic.to_string(), name.partition.get()),
                next_sequence: Sequence::get(next),
            }));
        }
        after = page.after;
        if after.is_none() {
            return stands;
        }
    }
}

const PAGE: usize = 1_000;
const FAULTS_KEPT: usize = 100;

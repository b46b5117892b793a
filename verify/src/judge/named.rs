//! Judges whether records stand in the partition that they were sent to, where one was named: elsewhere nobody sent them (I2).

use std::collections::HashMap;

use super::{
    ground::Ground,
    sends::{Key, Sends},
};
use crate::{
    history::{Partition, SendCalled},
    report::{Evidence, Report, Rule},
};

/// The partitions that were named.
#[derive(Debug, Default)]
pub(super) struct Named(HashMap<Key, i32>);

impl Named {
    /// A record is sent there.
    pub(super) fn note(&mut self, partition: Option<i32>, key: Key) {
        self.0.extend(partition.map(|partition| (key, partition)));
    }

    /// At the end: records whose callers were not told where they are. One that was sent twice may have been sent elsewhere.
    pub(super) fn check_log(&self, sends: &Sends, ground: &Ground<'_>, report: &mut Report) {
        if self.0.is_empty() {
            return;
        }
        for partition in ground.log.partitions() {
            let Partition { topic, partition: at } = partition.name();
            for (offset, _, digest) in partition.records() {
                let Some((key, false)) = sends.only_one(topic, digest) else { continue };
                if let Some(named) = self.0.get(&key).filter(|named| *named != at) {
                    let what = format!("{topic}/{at} offset {offset}: a record that was sent to partition {named}");
                    let evidence = Evidence::Record { partition: partition.name().clone(), offset };
                    report.accuse(Rule::I2, what, vec![evidence]);
                }
            }
        }
    }
}

/// An answer says that a record was accepted in this partition.
pub(super) fn check_answer(send: &SendCalled, partition: i32, lines: [u64; 2], report: &mut Report) {
    if let Some(named) = send.partition.filter(|named| *named != partition) {
        let what = format!("{}: a record that was sent to partition {named} was accepted in partition {partition}", send.topic);
        report.accuse(Rule::I2, what, lines.map(Evidence::Line).into());
    }
}

//! Is everything that was sent in the log, once, in order?

use std::collections::HashMap;

use crate::records::Keyed;

/// What became of the records of a run.
#[derive(Debug, Default)]
pub struct Verdict {
    /// In the log less often than sent.
    pub missing: Vec<Keyed>,
    /// In the log more often than sent.
    pub duplicated: Vec<Keyed>,
    /// In the log, but never sent.
    pub strange: Vec<Keyed>,
    /// The first difference between the order of sending and the order of a partition, in words; meaningful if nothing is
    /// missing, duplicated or strange.
    pub disorder: Option<String>,
}

impl Verdict {
    /// Compares what was sent, in the order of sending, with what is in each partition, in the order of the log.
    pub fn of(sent: &[Keyed], partitions: &[Vec<Keyed>]) -> Self {
        let mut balance: HashMap<&Keyed, i64> = HashMap::new();
        for record in sent {
            *balance.entry(record).or_default() += 1;
        }
        let known: HashMap<_, _> = balance.clone();
        for record in partitions.iter().flatten() {
            *balance.entry(record).or_default() -= 1;
        }
        let mut verdict = Self { disorder: disorder(sent, partitions), ..Self::default() };
        for (record, balance) in balance {
            match balance {
                0 => {}
                1.. => verdict.missing.push(record.clone()),
                _ if known.contains_key(record) => verdict.duplicated.push(record.clone()),
                _ => verdict.strange.push(record.clone()),
            }
        }
        verdict
    }

    /// Fails unless every record is in the log exactly once and in order.
    ///
    /// # Panics
    /// If one is not; the message shows the first ones.
    pub fn assert_exactly_once_in_order(&self) {
        let first = |records: &[Keyed]| format!("{} {:?}", records.len(), &records[..records.len().min(3)]);
        assert!(
            self.missing.is_empty() && self.duplicated.is_empty() && self.strange.is_empty(),
            "missing: {}; duplicated: {}; never sent: {}",
            first(&self.missing),
            first(&self.duplicated),
            first(&self.strange)
        );
        assert_eq!(self.disorder, None);
    }
}

fn disorder(sent: &[Keyed], partitions: &[Vec<Keyed>]) -> Option<String> {
    let mut home: HashMap<&[u8], usize> = HashMap::new();
    for (partition, records) in partitions.iter().enumerate() {
        for record in records {
            let first = *home.entry(&record.key).or_insert(partition);
            if first != partition {
                return Some(format!("{record:?} is in partition {partition}, another one of its key in {first}"));
            }
        }
    }
    for (partition, records) in partitions.iter().enumerate() {
        let expected = sent.iter().filter(|record| home.get(&record.key[..]) == Some(&partition));
        if let Some((at, (expected, found))) = expected.zip(records).enumerate().find(|(_, (expected, found))| expected != found)
        {
            return Some(format!("partition {partition}, offset {at}: {expected:?} was sent there, {found:?} is there"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> Keyed {
        Keyed { key: key.into(), value: value.into() }
    }

    #[test]
    fn once_and_in_order_is_right_and_every_fault_is_seen() {
        let [a1, a2, b1] = [record("a", "1"), record("a", "2"), record("b", "1")];
        let sent = [a1.clone(), b1.clone(), a2.clone(), a1.clone()];
        let judge = |partitions: &[Vec<Keyed>]| Verdict::of(&sent, partitions);
        let one = vec![b1.clone()];

        judge(&[vec![a1.clone(), a2.clone(), a1.clone()], one.clone()]).assert_exactly_once_in_order();
        assert!(judge(&[vec![a2.clone(), a1.clone(), a1.clone()], one.clone()]).disorder.is_some());
        assert!(judge(&[vec![a1.clone(), a2.clone()], vec![b1.clone(), a1.clone()]]).disorder.is_some());
        assert_eq!(judge(&[vec![a1.clone(), a2.clone()], one.clone()]).missing, std::slice::from_ref(&a1));
        let twice = vec![a1.clone(), a2.clone(), a2.clone(), a1.clone()];
        assert_eq!(judge(&[twice, one.clone()]).duplicated, std::slice::from_ref(&a2));
        let strange = vec![a1.clone(), a2, a1, record("a", "3")];
        assert_eq!(judge(&[strange, one]).strange, [record("a", "3")]);
    }
}

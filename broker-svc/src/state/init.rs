//! What becomes of an `InitProducerId`: a fresh id, a raised epoch, the answer to a repeated call, or a refusal.

use oncelog_defects::{Defect, is_on};
use oncelog_proto::{Epoch, ErrorCode, Fault, ProducerId, Sequence, TopicPartition};

use super::{Limits, Remembered, State, judge::unknown_producer};
use crate::entry::{Entry, OwnerHash, TokenHash};

/// An `InitProducerId` call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitRequest {
    /// A fresh producer id.
    Fresh,
    /// A recovery: raise the epoch and tell what is in the log.
    Recover {
        /// Whose.
        producer: ProducerId,
        /// The epoch to be fenced.
        epoch: Epoch,
        /// Of the caller's recovery token (R13).
        token: TokenHash,
    },
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitDecision {
    /// Granted once the entry is durable.
    Grant {
        /// The change.
        entry: Entry,
        /// The answer.
        granted: Granted,
    },
    /// It was granted before, and its answer may have been lost.
    Repeat(Granted),
    /// Refused.
    Refuse(Fault),
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Granted {
    /// The producer id.
    pub producer: ProducerId,
    /// The epoch to write with.
    pub epoch: Epoch,
    /// What the log holds of the fenced epoch, sorted by topic and partition; of no older one (R3).
    pub recovered: Vec<Recovered>,
}

/// What a partition holds of a fenced epoch (R2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recovered {
    /// Which partition.
    pub partition: TopicPartition,
    /// Sequences below this are in the log; all others never will be.
    pub next: Sequence,
    /// The last batches, oldest first.
    pub window: Vec<Remembered>,
}

impl State {
    /// Decides an `InitProducerId`. Changes nothing. `incarnation` is the journal's: the high bits of fresh ids, so that a
    /// restored copy of the journal does not hand out the ids of its original again. A fresh id belongs to the `caller`, and only
    /// its owner recovers it: to others it is as if it had never been handed out.
    pub fn init_producer(
        &self,
        request: InitRequest,
        caller: Option<OwnerHash>,
        incarnation: u16,
        limits: &Limits,
    ) -> InitDecision {
        let decision = match request {
            InitRequest::Fresh => self.fresh(caller, incarnation, limits),
            InitRequest::Recover { producer, epoch, token } => self.recover(caller, producer, epoch, token),
        };
        decision.unwrap_or_else(InitDecision::Refuse)
    }

    fn fresh(&self, caller: Option<OwnerHash>, incarnation: u16, limits: &Limits) -> Result<InitDecision, Fault> {
        let (have, most) = (self.producers.len(), limits.max_producers);
        if have >= most {
            let message = format!(
                "the broker knows {have} producers; --max-producers is {most}: wait for idle ones to expire, or raise it"
            );
            return Err(Fault::new(ErrorCode::ResourceExhausted, message).with("max_producers", most));
        }
        let lowest = i64::from(incarnation & 0x7fff) << INCARNATION_SHIFT;
        // The first id is 1: a 0 in a request too easily means "forgotten".
        let id = self.producers.next_id().max(lowest + 1);
        let producer = ProducerId::new(id).expect("15 bits of incarnation leave the sign alone");
        let entry = match caller {
            None => Entry::InitProducer { producer, epoch: Epoch::ZERO, token: None },
            Some(owner) => Entry::GrantProducer { producer, owner },
        };
        Ok(InitDecision::Grant { entry, granted: Granted { producer, epoch: Epoch::ZERO, recovered: Vec::new() } })
    }

    fn recover(&self, caller: Option<OwnerHash>, id: ProducerId, epoch: Epoch, token: TokenHash) -> Result<InitDecision, Fault> {
        let owned = self.producers.get(id).filter(|producer| producer.owner() == caller);
        let producer = owned.ok_or_else(|| unknown_producer(id))?;
        let current = producer.epoch;
        let refuse = |why: &str| {
            let message = format!("producer {id} cannot recover from epoch {epoch}: {why}");
            Fault::new(ErrorCode::InvalidProducerEpoch, message).current_epoch(current)
        };
        if epoch == current {
            let next = current.next().ok_or_else(|| refuse("it is the last epoch; ask for a fresh id"))?;
            let entry = Entry::InitProducer { producer: id, epoch: next, token: Some(token) };
            let granted = Granted { producer: id, epoch: next, recovered: self.recovered(id, current) };
            return Ok(InitDecision::Grant { entry, granted });
        }
        if current.previous() != Some(epoch) {
            return Err(refuse(&format!("it is at epoch {current}")));
        }
        // Without the token two processes could come to share an epoch: both would be told that it is theirs (R13).
        if producer.token() != Some(token) && !is_on(Defect::TokensAreNotCompared) {
            return Err(refuse(&format!("another process raised it to epoch {current}")));
        }
        if producer.written {
            return Err(refuse(&format!("epoch {current} has been written to since")));
        }
        Ok(InitDecision::Repeat(Granted { producer: id, epoch: current, recovered: self.recovered(id, epoch) }))
    }

    fn recovered(&self, id: ProducerId, fenced: Epoch) -> Vec<Recovered> {
        let Some(producer) = self.producers.get(id) else { return Vec::new() };
        let mut recovered: Vec<_> = producer
            .all_windows()
            .filter(|(_, window)| window.epoch() == fenced || is_on(Defect::RecoveryTellsOlderEpochs))
            .filter_map(|(partition, window)| {
                let partition = self.topics.partition(partition)?.name.clone();
                let batches = window.batches().filter(|_| !is_on(Defect::RecoveryTellsNoOffsets));
                Some(Recovered { partition, next: window.next(), window: batches.collect() })
            })
            .collect();
        recovered.sort_unstable_by(|a, b| a.partition.cmp(&b.partition));
        recovered
    }
}

/// 15 bits of incarnation above, 48 bits of counter below.
const INCARNATION_SHIFT: u32 = 48;

//! Deliberate defects: each breaks one rule, at the place in the code where that rule lives. Tests that find nothing are worth
//! something only if they find these.
//!
//! The services ask [`is_on`] at those places. Without the feature `deliberate-defects`, which no crate has by default, the
//! answer is the constant `false`, and nothing of a defect is in the binary. With it one defect is chosen for the whole process:
//! by its name, with `--defect` where a program knows that argument, else in the variable `ONCELOG_DEFECT`, which is how tests
//! are told.
//!
//! What catches which defect, and after how much work, is tried out by
//! `cargo run --release -p oncelog-sim --features deliberate-defects -- --defects`.

#[cfg(feature = "deliberate-defects")]
mod chosen;

#[cfg(feature = "deliberate-defects")]
pub use chosen::{ENVIRONMENT, choose, is_on};

/// Is this defect switched on? It is not: this was built without any.
#[cfg(not(feature = "deliberate-defects"))]
#[inline(always)]
pub const fn is_on(_: Defect) -> bool {
    false
}

/// Each defect with what is wrong then, and the rule that is broken.
macro_rules! defects {
    ($(#[doc = $about:literal] $defect:ident: $rule:literal;)*) => {
        /// A defect. Its documentation says what is wrong with the code that has it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Defect {
            $(#[doc = $about] $defect,)*
        }

        #[cfg(any(test, feature = "deliberate-defects"))]
        impl Defect {
            /// All of them: the rules of the protocol first, then what every log needs, then the disk.
            pub const ALL: &[Self] = &[$(Self::$defect,)*];

            /// What is wrong then, in a sentence.
            pub fn about(self) -> &'static str {
                match self { $(Self::$defect => $about.trim_ascii(),)* }
            }

            /// The rule that is broken.
            pub fn rule(self) -> &'static str {
                match self { $(Self::$defect => $rule,)* }
            }
        }
    };
}

defects! {
    /// A new batch waits for unresolved batches alone, not for the span from the lowest of them on.
    SpanCountsUnresolved: "R1";
    /// The answer to a recovery says how far the log goes, and not where the last batches are.
    RecoveryTellsNoOffsets: "R2";
    /// The answer to a recovery tells of older epochs than the fenced one too.
    RecoveryTellsOlderEpochs: "R3";
    /// A held batch whose epoch is fenced waits on, and counts for the new epoch when its turn comes.
    HeldBatchesChangeEpoch: "R4";
    /// A refused batch is given up at once.
    RefusalIsFinal: "R5";
    /// An answer counts although its batch got another tag since.
    StaleAnswersCount: "R6";
    /// "Out of order" is judged by what is known when it is heard, not when the call was sent.
    FloorAtAnswerTime: "R7";
    /// "Out of order" is taken to prove that a batch is not in the log.
    OutOfOrderMeansAbsent: "R8";
    /// Whoever is fenced goes on in the next epoch, without asking for it.
    EpochIsGuessed: "R9";
    /// Batches of an unknown outcome are tagged anew under the next id.
    UnknownIdIsTaggedAnew: "R10";
    /// A producer's windows expire, and its id lives on.
    WindowsExpire: "R11";
    /// A deleted topic leaves no closed markers behind.
    NoClosedMarkers: "R12";
    /// A recovery is answered again whatever its token is.
    TokensAreNotCompared: "R13";
    /// An answer to duplicates does not wait until their originals are durable.
    DuplicatesAnswerEarly: "R14";
    /// An answer to a recovery does not wait until what it tells is durable.
    RecoveriesAnswerEarly: "R14";
    /// A description does not wait until what it tells is durable.
    DescriptionsAnswerEarly: "R14";
    /// Limits are checked before duplicates are looked up.
    LimitsComeFirst: "R15";

    /// A batch that is in the log is appended again.
    DuplicateIsAppended: "I2";
    /// Other content under sequences that are in the log is acknowledged as if it were there.
    ConflictIsSwallowed: "I1";
    /// An early batch is appended, and the ones before it are missing.
    GapIsAppended: "I3";
    /// A batch of an older epoch is taken for one of the current epoch.
    OlderEpochIsAccepted: "I6";

    /// Answers leave when their group is written, not when it is synced.
    AnswersBeforeSync: "I7";
    /// A write that fails is passed over: the state goes on without it.
    FailedWriteIsPassedOver: "I8";
    /// A sync that fails is tried again.
    FailedSyncIsTriedAgain: "I8";
    /// A restart forgets the oldest batch of each window.
    WindowForgetsAtRestart: "I4";
    /// Groups are folded into snapshots when they are written, not when they are durable.
    SnapshotAheadOfLog: "I5";
    /// An opening forgets who is idle by the wall clock, and journals nothing of it.
    ExpiresAtReplay: "I5";
    /// The time of groups jumps with the wall clock.
    WallClockIsTrusted: "I5";
    /// The durable number in group headers stays 0.
    DurableNumberStaysZero: "I1";
    /// Damage is cut like a torn group, whatever proves it durable.
    DamageIsCutAsTorn: "I1";
    /// A torn group stays where it is when the next opening goes on behind the last whole one.
    TornGroupStays: "I1";
    /// What nothing proves durable is not written again by an opening.
    UnprovenIsNotWrittenAgain: "I7";
    /// A new segment's name is not made durable.
    DirectoryIsNotSynced: "I1";
    /// A new segment's header is not made durable before its name is.
    HeaderIsNotSynced: "I1";
    /// A sealed segment's end is not made durable.
    SealIsNotSynced: "I1";
    /// A trimmed segment goes before the entry that says so is durable.
    TrimmedBeforeDurable: "I1";
    /// Whoever opens does not check the data of the last group.
    TailDataIsNotChecked: "I2";
    /// The checksum of a group's directory is not checked.
    DirectoryIsNotChecked: "I1";
    /// The data of a batch is not checked when it is read.
    ReadDataIsNotChecked: "I1";
    /// The chunks of a snapshot are not checked.
    SnapshotIsNotChecked: "I5";
    /// A segment that a backup holds by a hard link is filled anew.
    LinkedSegmentIsRecycled: "I1";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_invariant_has_a_defect() {
        for invariant in 1..=8 {
            let rule = format!("I{invariant}");
            assert!(Defect::ALL.iter().any(|defect| defect.rule() == rule), "nothing breaks {rule}");
        }
    }

    #[test]
    fn a_defect_is_described_in_a_sentence() {
        for defect in Defect::ALL {
            assert!(defect.about().ends_with('.'), "{defect:?}");
        }
    }
}

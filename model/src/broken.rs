//! Rules broken on purpose, each in what stands around the two machines. A checker that finds nothing is worth something only if
//! it finds these.
//!
//! What is broken within the machines is switched on by `oncelog-defects`.

/// A rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Answers leave when their group is written, not when it is synced (R14).
    AnswersBeforeSync,
    /// The broker starts with what it knew, not with what is on disk (I5).
    StateAheadOfLog,
    /// Recovery answers tell how far the log goes, and no offsets (R2).
    RecoveryWithoutWindows,
    /// Recovery answers tell of older epochs too (R3).
    RecoveryOfOlderEpochs,
    /// The answer to a call that was given up is taken for the answer to another (R6).
    AnswersOfOtherCalls,
    /// The answer to what was appended says that it was not (I7).
    RefusesWhatItAppends,
    /// Batches have no tags.
    NoTags,
    /// A call whose answer was lost never ends.
    NoTimeouts,
}

impl Broken {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::AnswersBeforeSync,
        Self::StateAheadOfLog,
        Self::RecoveryWithoutWindows,
        Self::RecoveryOfOlderEpochs,
        Self::AnswersOfOtherCalls,
        Self::RefusesWhatItAppends,
        Self::NoTags,
        Self::NoTimeouts,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AnswersBeforeSync => "answers-before-sync",
            Self::StateAheadOfLog => "state-ahead-of-log",
            Self::RecoveryWithoutWindows => "recovery-without-windows",
            Self::RecoveryOfOlderEpochs => "recovery-of-older-epochs",
            Self::AnswersOfOtherCalls => "answers-of-other-calls",
            Self::RefusesWhatItAppends => "refuses-what-it-appends",
            Self::NoTags => "no-tags",
            Self::NoTimeouts => "no-timeouts",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|broken| broken.name() == name)
    }
}

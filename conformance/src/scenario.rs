//! The scenarios: what fails in each, and what it is there to find.

use std::time::Duration;

use oncelog_proto::ErrorCode;

use crate::script::{Fault, On, Way, Where};

/// One run of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// Words of letters.
    pub(crate) name: &'static str,
    /// What happens, in a sentence.
    pub(crate) about: &'static str,
    pub(crate) script: &'static [(On, Fault)],
    /// Recoveries that the script gives a reason for.
    pub(crate) recoveries: usize,
}

impl Scenario {
    /// A topic of its own.
    pub(crate) fn topic(&self) -> String {
        self.name.replace(' ', "-")
    }

    /// A recovery says that acknowledged records are gone, so no program may end as if all were well.
    pub(crate) fn is_alarming(&self) -> bool {
        self.script.iter().any(|(_, fault)| *fault == Fault::TellLess)
    }
}

/// For a program that is an idempotent producer.
pub(crate) const PRODUCER: &[Scenario] = &[
    Scenario { name: "calm", about: "nothing fails", script: &[], recoveries: 0 },
    Scenario {
        name: "first answers lost",
        about: "a producer id is handed out twice, and the program hears of neither",
        script: &[(On::Init(1), LOSE_ANSWER), (On::Init(2), SILENCE)],
        recoveries: 0,
    },
    Scenario {
        name: "lost answers",
        about: "batches are in the log and the program does not hear it",
        script: &[
            (On::RecordFirst(0), LOSE_ANSWER),
            (On::Call(3), LOSE_ANSWER),
            (On::Call(5), LOSE_ANSWER),
            (On::Call(6), LOSE_ANSWER),
            (On::Call(8), LOSE_ANSWER),
        ],
        recoveries: 0,
    },
    Scenario {
        name: "empty answers",
        about: "batches are in the log and the answer is OK, but says nothing: as good as none",
        script: &[(On::RecordFirst(0), Fault::NoResult), (On::Call(5), Fault::NoOutcome)],
        recoveries: 0,
    },
    Scenario {
        name: "lost calls",
        about: "batches never arrive, and those behind them do",
        script: &[(On::RecordFirst(0), LOSE_CALL), (On::Call(4), LOSE_CALL), (On::Call(7), LOSE_CALL), (On::Call(8), LOSE_CALL)],
        recoveries: 0,
    },
    Scenario {
        name: "silence",
        about: "a call is carried out and never answered: only a deadline ends it",
        script: &[(On::RecordFirst(15), SILENCE), (On::Call(8), SILENCE)],
        recoveries: 0,
    },
    Scenario {
        name: "stray copies",
        about: "calls seem lost and are carried out long after they were sent again",
        script: &[(On::RecordFirst(0), stray(400)), (On::RecordFirst(25), stray(700)), (On::Call(8), stray(300))],
        recoveries: 0,
    },
    Scenario {
        name: "disorder",
        about: "calls overtake each other, by less and by more than the broker waits",
        script: &[(On::RecordFirst(0), slow(120)), (On::RecordFirst(15), slow(60)), (On::RecordFirst(65), slow(400))],
        recoveries: 0,
    },
    Scenario {
        name: "late news",
        about: "\"sequence 0 is expected\" is heard long after it was acknowledged; nothing is lost (R7)",
        script: &[(On::RecordFirst(0), slow(350)), (On::RecordFirst(15), slow_answer(450))],
        recoveries: 0,
    },
    Scenario {
        name: "refused for now",
        about: "the broker is full, or about to end: nothing is taken in, and it may be tried again",
        script: &[
            (On::Call(2), Fault::Refuse(ErrorCode::ResourceExhausted)),
            (On::Call(3), Fault::Refuse(ErrorCode::KafkaStorageError)),
            (On::Call(5), Fault::Fail(ErrorCode::BrokerNotAvailable)),
            (On::Call(7), Fault::Fail(ErrorCode::ResourceExhausted)),
        ],
        recoveries: 0,
    },
    Scenario {
        name: "refused for good",
        about: "one batch can never be written; those behind it get other numbers, after a recovery (R5)",
        // Those before it are not in the log yet: all tags of the window change.
        script: &[(On::RecordFirst(5), slow(150)), (On::Record(37), Fault::Refuse(ErrorCode::InvalidRecord))],
        recoveries: 1,
    },
    Scenario {
        name: "refused as a whole",
        about: "the call of one batch fails with a status that is final, whenever it is made (R5)",
        script: &[(On::Record(37), Fault::Fail(ErrorCode::InvalidRequest))],
        recoveries: 1,
    },
    Scenario {
        name: "a refusal is not final",
        about: "a batch is refused when it is sent again; it is in the log, and the recovery says so (R2, R5)",
        script: &[(On::RecordFirst(37), LOSE_ANSWER), (On::RecordAgain(37), Fault::Refuse(ErrorCode::InvalidRecord))],
        recoveries: 1,
    },
    Scenario {
        name: "forgotten where",
        about: "a batch is sent again, and is in the log, but the broker no longer knows where",
        script: &[(On::RecordFirst(37), LOSE_ANSWER), (On::RecordAgain(37), Fault::Refuse(ErrorCode::DuplicateSequenceNumber))],
        recoveries: 0,
    },
    Scenario {
        name: "fenced",
        about: "the epoch may write no more; some of the answers that say so are late (R6, R8)",
        // The first two are under way when the third is told so; what is said of them is about an epoch that is over.
        script: &[(On::RecordFirst(45), slow(150)), (On::RecordFirst(55), slow_answer(300)), (On::RecordFirst(75), Fault::Fence)],
        recoveries: 1,
    },
    Scenario {
        name: "fenced and unheard",
        about: "the answers to the recovery are lost: it is repeated, with its token (R13)",
        script: &[(On::Call(6), Fault::Fence), (On::Init(2), LOSE_ANSWER), (On::Init(3), SILENCE)],
        recoveries: 1,
    },
    Scenario {
        name: "after a recovery",
        about: "calls overtake each other after a recovery; that \"sequence 0 is expected\" is no loss in a new epoch (R7)",
        // When the epoch is fenced the first batch of the window is in the log, with a high sequence that says nothing any more.
        script: &[
            (On::RecordFirst(25), slow(100)),
            (On::RecordFirst(55), slow_answer(350)),
            (On::RecordFirst(75), Fault::Fence),
            (On::RecordRaised(75), slow(400)),
        ],
        recoveries: 1,
    },
    Scenario {
        name: "taken over",
        about: "another process recovers the id: what is in doubt stays so, the rest goes on under a new one (R10)",
        script: &[(On::Call(6), Fault::TakeOver)],
        recoveries: 0,
    },
    Scenario {
        name: "forgotten",
        about: "the broker has forgotten the id: what is in doubt stays so, the rest goes on under a new one (R10)",
        script: &[(On::Call(6), Fault::Forget)],
        recoveries: 0,
    },
    Scenario {
        name: "forgotten later",
        about: "the same, when batches behind the one in doubt were acknowledged: they stay so (I4)",
        script: &[(On::RecordFirst(45), SILENCE), (On::RecordAgain(45), Fault::Forget)],
        recoveries: 0,
    },
    Scenario {
        name: "shared",
        about: "the sequences of a batch are in the log with other content: somebody else writes with this id (R10)",
        script: &[(On::Call(6), Fault::Refuse(ErrorCode::SequenceConflict))],
        recoveries: 0,
    },
    Scenario {
        name: "acknowledged and gone",
        about: "a recovery says that less is in the log than was acknowledged: it says what it knows, and ends with an error",
        script: &[(On::RecordFirst(45), SILENCE), (On::RecordAgain(45), Fault::Fence), (On::Init(2), Fault::TellLess)],
        recoveries: 1,
    },
    Scenario {
        name: "killed",
        about: "the broker is killed in the middle, twice, and comes back",
        script: &[(On::Call(4), Fault::Kill), (On::Call(8), Fault::Kill)],
        recoveries: 0,
    },
];

/// For a program that calls `Send`.
pub(crate) const SENDER: &[Scenario] = &[
    Scenario { name: "calm", about: "nothing fails", script: &[], recoveries: 0 },
    Scenario {
        name: "lost answers",
        about: "records are in the log and the program does not hear it: unknown, and not sent again",
        script: &[(On::Call(2), LOSE_ANSWER), (On::Call(5), LOSE_ANSWER)],
        recoveries: 0,
    },
    Scenario {
        name: "lost calls",
        about: "records never arrive; the program cannot tell this from a lost answer",
        script: &[(On::Call(1), LOSE_CALL), (On::Call(6), LOSE_CALL)],
        recoveries: 0,
    },
    Scenario {
        name: "silence",
        about: "a call is carried out and never answered: only a deadline ends it",
        script: &[(On::Call(4), SILENCE)],
        recoveries: 0,
    },
    Scenario {
        name: "stray copies",
        about: "a call seems lost, and is carried out later",
        script: &[(On::Call(3), stray(500))],
        recoveries: 0,
    },
    Scenario {
        name: "refused for now",
        about: "nothing of it is in the log, and the failure says so: it may be sent again",
        script: &[
            (On::Call(2), Fault::Refuse(ErrorCode::BrokerNotAvailable)),
            (On::Call(5), Fault::Refuse(ErrorCode::ResourceExhausted)),
        ],
        recoveries: 0,
    },
    Scenario {
        name: "refused for good",
        about: "nothing of it is in the log, and never will be",
        script: &[(On::Record(37), Fault::Refuse(ErrorCode::InvalidRecord))],
        recoveries: 0,
    },
    Scenario {
        name: "in part",
        about: "some records are in the log, once nobody knows where, one is refused, and of the rest the failure says nothing",
        script: &[(On::Call(3), Fault::InPart(Where::Told)), (On::Call(6), Fault::InPart(Where::Forgotten))],
        recoveries: 0,
    },
    Scenario {
        name: "no word",
        about: "a status that looks final, without a SendFailure: unknown",
        script: &[
            (On::Call(2), Fault::Fail(ErrorCode::ResourceExhausted)),
            (On::Call(4), Fault::Fail(ErrorCode::KafkaStorageError)),
        ],
        recoveries: 0,
    },
    Scenario {
        name: "killed",
        about: "producer-svc is killed in the middle and comes back",
        script: &[(On::Call(5), Fault::Kill)],
        recoveries: 0,
    },
];

const LOSE_ANSWER: Fault = Fault::Way(Way::LoseAnswer);
const LOSE_CALL: Fault = Fault::Way(Way::LoseCall);
const SILENCE: Fault = Fault::Way(Way::Silence);

const fn stray(ms: u64) -> Fault {
    Fault::Way(Way::Stray(Duration::from_millis(ms)))
}

const fn slow(ms: u64) -> Fault {
    Fault::Way(Way::Slow(Duration::from_millis(ms)))
}

const fn slow_answer(ms: u64) -> Fault {
    Fault::Way(Way::SlowAnswer(Duration::from_millis(ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_make_topics() {
        for scenarios in [PRODUCER, SENDER] {
            for (index, scenario) in scenarios.iter().enumerate() {
                assert!(scenarios[..index].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
                assert!(scenario.topic().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", scenario.name);
            }
        }
    }

    #[test]
    fn a_script_has_only_what_its_service_can_do() {
        for (on, fault) in PRODUCER.iter().flat_map(|scenario| scenario.script) {
            let fits = match fault {
                Fault::InPart(_) => false,
                Fault::Way(_) | Fault::Kill => true,
                Fault::TellLess => matches!(on, On::Init(_)),
                _ => !matches!(on, On::Init(_)),
            };
            assert!(fits, "{on:?} {fault:?}");
        }
        for (on, fault) in SENDER.iter().flat_map(|scenario| scenario.script) {
            let fits = !matches!(on, On::Init(_) | On::RecordRaised(_))
                && matches!(fault, Fault::Way(_) | Fault::Refuse(_) | Fault::Fail(_) | Fault::InPart(_) | Fault::Kill);
            assert!(fits, "{on:?} {fault:?}");
        }
    }
}

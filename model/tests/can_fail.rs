//! The checker is worth something only if it finds what is broken. Each rule that is broken on purpose is found, and by what.

use oncelog_model::{bounds::Bounds, broken::Broken, explore::explore, scenarios};

/// The scenario that finds it, and a word of what it says.
fn found_by(broken: Broken) -> (&'static str, &'static str) {
    match broken {
        Broken::AnswersBeforeSync => ("crashes", "(I7)"),
        Broken::StateAheadOfLog => ("crashes", "(I5)"),
        Broken::RecoveryWithoutWindows => ("refusals", "(R2)"),
        Broken::RecoveryOfOlderEpochs => ("refusals", "has other content than this process sent"),
        Broken::AnswersOfOtherCalls => ("retries", "(I1)"),
        Broken::RefusesWhatItAppends => ("retries", "told that it is not appended"),
        Broken::NoTags => ("crashes", "(I"),
        Broken::NoTimeouts => ("crashes", "never gets its outcome"),
    }
}

#[test]
fn each_broken_rule_is_found() {
    for broken in Broken::ALL {
        let (name, word) = found_by(broken);
        let scenario = scenarios::all().into_iter().find(|scenario| scenario.name == name).expect("it is one of them");
        let report = explore(Bounds { broken: Some(broken), ..scenario.small }, usize::MAX, |_| {});
        let found = report.counterexample.unwrap_or_else(|| panic!("{name} does not find {broken:?}"));
        assert!(found.what.contains(word), "{broken:?}: {}\n{}", found.what, found.steps.join("\n"));
    }
}

#[test]
fn a_name_stands_for_one_rule() {
    for broken in Broken::ALL {
        assert_eq!(Broken::named(broken.name()), Some(broken));
    }
}

//! Every scenario, within its small bounds, down to the last state.

use oncelog_model::{explore::explore, scenarios};

/// Explores a scenario; it has to end.
fn holds(name: &str) {
    let scenario = scenarios::all().into_iter().find(|scenario| scenario.name == name).expect("it is one of them");
    let report = explore(scenario.small, usize::MAX, |_| {});
    if let Some(found) = report.counterexample {
        panic!("{name}: {}\n{}", found.what, found.steps.join("\n"));
    }
    assert!(report.complete);
    assert!(report.states > 100, "the bounds of {name} allow next to nothing: {} states", report.states);
}

/// A test for each scenario, so that each is named where it fails.
macro_rules! scenarios {
    ($($test:ident: $name:literal,)*) => {
        $(#[test] fn $test() { holds($name); })*

        #[test]
        fn none_is_left_out() {
            assert_eq!(scenarios::all().iter().map(|scenario| scenario.name).collect::<Vec<_>>(), [$($name),*]);
        }
    };
}

scenarios! {
    calls_that_are_given_up_break_no_promise: "retries",
    batches_that_overtake_break_no_promise: "span",
    a_broker_that_stops_breaks_no_promise: "crashes",
    a_producer_that_stops_breaks_no_promise: "kills",
    clients_that_share_an_id_break_no_promise: "strangers",
    a_hold_that_is_full_breaks_no_promise: "hold-limit",
    refusals_break_no_promise: "refusals",
    a_limit_that_is_lowered_breaks_no_promise: "too-large",
    statuses_that_lie_break_no_promise: "statuses",
    pauses_break_no_promise: "pauses",
    deadlines_break_no_promise: "deadlines",
    calls_with_many_batches_break_no_promise: "partitions",
}

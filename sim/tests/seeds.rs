//! Some hundred seeds, and that a seed is a run. More of them: `cargo run --release -p oncelog-sim -- --minutes 10`.

use std::process::{Command, Output};

fn simulate(args: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oncelog-sim")).args(args).output().expect("it was built for this test")
}

#[test]
fn the_same_seed_twice_is_the_same_run_to_the_byte() {
    for seed in [1, 7, 23] {
        let run = || simulate(&[format!("--seed={seed}"), "--trace".to_owned()]);
        let (first, second) = (run(), run());
        assert!(first.stdout.len() > 10_000, "seed {seed} did next to nothing");
        assert!(first.stdout == second.stdout, "seed {seed} is not the same run twice");
    }
}

#[test]
fn nothing_is_lost_and_nothing_is_twice_whatever_fails() {
    let output = simulate(&["--first=1".to_owned(), format!("--seeds={SEEDS}")]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    // A simulation in which nothing fails proves nothing.
    for what in MUST_HAPPEN {
        assert!(told.lines().any(|line| line.ends_with(&format!("seeds  {what}"))), "{what} did not happen:\n{told}");
    }
}

/// Some minutes of one core, with and without optimisation.
const SEEDS: u64 = if cfg!(debug_assertions) { 200 } else { 1_200 };
const MUST_HAPPEN: &[&str] = &[
    "batch: appended",
    "batch: duplicate",
    "batch: duplicate_sequence_number",
    "batch: invalid_producer_epoch",
    "batch: out_of_order_sequence_number",
    "batch: sequence_conflict",
    "batch: unknown_producer_id",
    "broker: batches held",
    "broker: killed",
    "broker: power lost",
    "broker: producers expired",
    "broker: stopped in order",
    "call: answer lost",
    "call: delayed",
    "call: doubled",
    "call: lost",
    "client: recovered",
    "client: took over an id",
    "disk: Full",
    "disk: Planned(Name)",
    "disk: Planned(Sync)",
    "disk: Planned(SyncDir)",
    "disk: Planned(Write)",
    "disk: Stopped",
    "disk: torn writes",
    "disk: unsynced names lost",
    "disk: unsynced pages lost",
    "init: refused",
    "judged: duplicates refused",
    "judged: records unknown to their callers, in the log",
    "log: a segment begins in new space",
    "log: a segment begins over one that was trimmed",
    "log: recovering",
    "log: retention",
    "log: snapshot written",
    "log: the journal is open, from a snapshot",
    "log: the last group was torn when the machine stopped",
    "mishap: ClockJump",
    "mishap: CutLink",
    "mishap: FullDisk",
    "mishap: HoldLink",
    "mishap: KillBroker",
    "mishap: KillProducer",
    "mishap: NameError",
    "mishap: PowerLoss",
    "mishap: SlowDisk",
    "mishap: StopAtChange",
    "mishap: StopAtOpening",
    "mishap: StopBroker",
    "mishap: StopProducer",
    "mishap: SyncError",
    "mishap: WriteError",
    "network: connection cut",
    "producer: drained",
    "producer: ended",
    "send: accepted without idempotence",
    "send: records accepted",
    "send: records refused",
    "send: records unknown",
    "topic: deleted",
];

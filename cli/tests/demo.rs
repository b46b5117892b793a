//! `oncelog demo`, as a newcomer starts it: nothing set up, and the verdict in the last line.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

async fn demo(args: &[&str], temporary: &tempfile::TempDir) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncelog"));
    command.arg("demo").args(args).env("NO_COLOR", "1").env("TMPDIR", temporary.path()).kill_on_drop(true);
    timeout(Duration::from_secs(120), command.output()).await.expect("it ends").expect("it can be started")
}

/// Of this seed the first failure is one that loses answers: whatever comes after it, something was sent again that was stored.
const SEED: &str = "--seed=7";

fn number(told: &Value, field: &str) -> u64 {
    told[field].as_u64().unwrap_or_else(|| panic!("no {field} in {told:#}"))
}

#[tokio::test]
async fn whatever_fails_each_record_is_there_once_and_the_exit_code_says_so() {
    let temporary = tempfile::tempdir().expect("a directory");
    let output = demo(&[SEED, "--duration=5s"], &temporary).await;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}{complained}");
    let last = said.lines().last().expect("a verdict");
    assert!(last.starts_with("EXACTLY ONCE: "), "{said}");
    // Lines for a file, each a picture of its moment.
    assert!(said.lines().any(|line| line.contains("broker killed (kill -9)")), "{said}");
    assert!(said.lines().any(|line| line.contains(" in flight ") && line.contains("duplicates refused")), "{said}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
    assert_eq!(std::fs::read_dir(temporary.path()).expect("there").count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn the_same_failures_without_idempotence_leave_duplicates_and_are_found_out() {
    let temporary = tempfile::tempdir().expect("a directory");
    let output = demo(&[SEED, "--duration=5s", "--without-idempotence", "--output=json"], &temporary).await;
    let complained = String::from_utf8_lossy(&output.stderr);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {complained}"));
    assert_eq!((output.status.code(), &told["sound"]), (Some(5), &false.into()), "{told:#}{complained}");
    assert!(number(&told, "duplicated") > 0 && number(&told, "batches_retried") > 0, "{told:#}");
    assert_eq!((number(&told, "duplicates_refused"), number(&told, "lost")), (0, 0), "{told:#}");
    let rules: Vec<_> = told["violations"].as_array().expect("a list").iter().filter_map(|v| v["rule"].as_str()).collect();
    assert!(rules.contains(&"I2"), "{rules:?}");
}

#[tokio::test]
async fn json_tells_what_was_sent_again_and_refused_and_that_nothing_is_missing() {
    let temporary = tempfile::tempdir().expect("a directory");
    let output = demo(&[SEED, "--duration=5s", "--output=json"], &temporary).await;
    let complained = String::from_utf8_lossy(&output.stderr);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {complained}"));
    assert_eq!((output.status.code(), &told["sound"]), (Some(0), &true.into()), "{told:#}{complained}");
    // A run in which nothing happened would prove nothing.
    assert!(number(&told, "acknowledged") > 500 && number(&told, "batches_retried") > 0, "{told:#}");
    assert!(number(&told, "duplicates_refused") > 0, "{told:#}");
    assert_eq!(number(&told, "sent"), number(&told, "stored"), "{told:#}");
    assert_eq!((number(&told, "lost"), number(&told, "duplicated"), number(&told, "out_of_order")), (0, 0, 0), "{told:#}");
    let failures: u64 = told["failures"].as_object().expect("by kind").values().filter_map(Value::as_u64).sum();
    assert!(failures >= 1, "{told:#}");
}

#[tokio::test]
async fn who_has_seen_enough_ends_it_and_nothing_stays_behind() {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncelog"));
    command.args(["demo", "--duration=100s"]).env("TMPDIR", temporary.path()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("it can be started");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = timeout(Duration::from_secs(60), lines.next_line()).await.expect("it shows something");
    assert!(line.expect("readable").is_some_and(|line| line.contains(" s: ")));
    let id = i32::try_from(child.id().expect("it runs")).expect("an id");
    kill_process(Pid::from_raw(id).expect("not 0"), Signal::INT).expect("it runs");
    let status = timeout(Duration::from_secs(30), child.wait()).await.expect("it ends").expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert_eq!(std::fs::read_dir(temporary.path()).expect("there").count(), 0);
}

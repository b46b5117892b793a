//! `oncelog demo`, as a newcomer starts it: nothing set up, and the verdict in the last line.

use std::{process::Output, time::Duration};

use serde_json::Value;
use tokio::{process::Command, time::timeout};

async fn demo(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncelog"));
    command.arg("demo").args(args).env("NO_COLOR", "1").kill_on_drop(true);
    timeout(Duration::from_secs(120), command.output()).await.expect("it ends").expect("it can be started")
}

fn number(told: &Value, field: &str) -> u64 {
    told[field].as_u64().unwrap_or_else(|| panic!("no {field} in {told:#}"))
}

#[tokio::test]
async fn whatever_fails_each_record_is_there_once_and_the_exit_code_says_so() {
    let output = demo(&["--seed=7", "--duration=5s"]).await;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}{complained}");
    let last = said.lines().last().expect("a verdict");
    assert!(last.starts_with("EXACTLY ONCE: "), "{said}");
    // Lines for a file, each a picture of its moment.
    assert!(said.lines().any(|line| line.contains("broker killed (kill -9)")), "{said}");
    assert!(said.lines().any(|line| line.contains(" in flight ") && line.contains("duplicates refused")), "{said}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
    let left: Vec<_> = std::fs::read_dir(std::env::temp_dir())
        .expect("a place for temporary files")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("oncelog-demo-") && name.ends_with("-7"))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "nothing is left behind");
}

#[tokio::test]
async fn the_same_failures_without_idempotence_leave_duplicates_and_are_found_out() {
    let output = demo(&["--seed=8", "--duration=5s", "--without-idempotence", "--output=json"]).await;
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
    let output = demo(&["--seed=9", "--duration=5s", "--output=json"]).await;
    let complained = String::from_utf8_lossy(&output.stderr);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {complained}"));
    assert_eq!((output.status.code(), &told["sound"]), (Some(0), &true.into()), "{told:#}{complained}");
    // A run in which nothing happened would prove nothing.
    assert!(number(&told, "acknowledged") > 500 && number(&told, "batches_retried") > 0, "{told:#}");
    assert!(number(&told, "duplicates_refused") > 0, "{told:#}");
    assert_eq!(number(&told, "sent"), number(&told, "stored"), "{told:#}");
    assert_eq!((number(&told, "lost"), number(&told, "duplicated"), number(&told, "out_of_order")), (0, 0, 0), "{told:#}");
    let failures: u64 = told["failures"].as_object().expect("by kind").values().filter_map(Value::as_u64).sum();
    assert!(failures >= 3, "{told:#}");
}

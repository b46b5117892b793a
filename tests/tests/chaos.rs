//! `oncelog chaos` over real processes, and that it finds out what is broken on purpose.

use std::time::Duration;

use oncelog_tests::{binaries, workplace::Workplace};
use serde_json::Value;
use tokio::time::timeout;

async fn chaos(args: &[&str]) -> (bool, Value) {
    let workplace = Workplace::new();
    let mut command = binaries::command("oncelog");
    command.args(["chaos", "--output=json", &format!("--directory={}", workplace.path("chaos").display())]).args(args);
    let output = timeout(Duration::from_secs(300), command.output()).await.expect("it ends").expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (output.status.success(), told)
}

fn number(told: &Value, field: &str) -> u64 {
    told[field].as_u64().unwrap_or_else(|| panic!("no {field} in {told}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_is_there_twice_whatever_breaks() {
    let (sound, told) = chaos(&["--seed=7", "--duration=25s"]).await;
    assert!(sound && told["sound"] == true, "{told:#}");
    assert_eq!((number(&told, "lost"), number(&told, "duplicated"), number(&told, "violation_count")), (0, 0, 0));
    assert_eq!(number(&told, "unjudged"), 0, "{told:#}");
    // A run in which nothing happened would prove nothing.
    let failures: u64 = told["failures"].as_object().expect("by kind").values().filter_map(Value::as_u64).sum();
    assert!(failures >= 15, "{told:#}");
    assert!(number(&told, "acknowledged") > 1_000 && number(&told, "judged") > 1_000, "{told:#}");
    assert!(number(&told, "duplicates_refused") > 0 && number(&told, "batches_retried") > 0, "{told:#}");
    for left_out in told["left_out"].as_array().expect("a list") {
        eprintln!("left out: {left_out}");
    }
}

/// The counter-check: without it a verdict that is always "sound" would pass, too.
#[tokio::test(flavor = "multi_thread")]
async fn without_idempotence_the_same_run_is_found_out() {
    let (sound, told) = chaos(&["--seed=7", "--duration=25s", "--producer-flag=--enable-idempotence=false"]).await;
    assert!(!sound && told["sound"] == false, "{told:#}");
    assert!(number(&told, "duplicated") > 0, "{told:#}");
    let rules: Vec<_> = told["violations"].as_array().expect("a list").iter().filter_map(|v| v["rule"].as_str()).collect();
    assert!(rules.contains(&"I2"), "{rules:?}");
}

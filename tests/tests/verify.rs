//! `oncelog verify`, running and at rest: with what was sent, beside a stopped broker, and over a journal that somebody changed.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Output, Stdio},
};

use oncelog_tests::{binaries, stack::Stack};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

async fn send(stack: &Stack, history: &Path, lines: usize) -> Output {
    let mut child = binaries::command("oncelog")
        .args(["send", "t", "--partitions=3", "--batch=100", &format!("--history={}", history.display())])
        .args([stack.producer_flag(), stack.broker_flag()])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let input: String = (0..lines).map(|line| format!("line {line}\n")).collect();
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).await.expect("it reads");
    drop(stdin);
    child.wait_with_output().await.expect("it ends")
}

async fn verify(args: &[String]) -> (bool, Value) {
    let output = binaries::command("oncelog").args(["verify", "--output=json"]).args(args).output().await.expect("started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}")))
}

/// Names, lengths and contents of everything in a directory.
fn content(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable"));
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("readable"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_verified_running_and_at_rest_and_nothing_is_changed() {
    let mut stack = Stack::start(&[]).await.expect("it starts");
    let history = stack.workplace.path("history.jsonl");
    let sent = send(&stack, &history, 5_000).await;
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let with_history = format!("--history={}", history.display());

    let (sound, told) = verify(&[stack.broker_flag(), with_history.clone()]).await;
    assert!(sound, "{told:#}");
    assert_eq!(
        (&told["counts"]["accepted"], &told["counts"]["in_log"], &told["partitions"]),
        (&5_000.into(), &5_000.into(), &3.into())
    );

    let data = stack.workplace.path("data");
    let at_rest = [format!("--data-dir={}", data.display()), with_history.clone()];
    let running = binaries::command("oncelog").arg("verify").args(&at_rest).output().await.expect("started");
    assert!(
        !running.status.success() && String::from_utf8_lossy(&running.stderr).contains("another process has the journal open")
    );

    stack.stage.kill_broker().await.expect("it ran");
    let before = content(&data);
    let (sound, told) = verify(&at_rest).await;
    assert!(sound, "{told:#}");
    assert_eq!(told["counts"]["accepted"], 5_000);
    assert_eq!((&told["counts"]["lost"], &told["counts"]["duplicated"]), (&0.into(), &0.into()));
    assert_eq!(content(&data), before, "a verification changes nothing");

    // One bit of one record, on the disk.
    let (name, mut bytes) =
        before.into_iter().find(|(name, bytes)| name.ends_with(".log") && position(bytes).is_some()).expect("records");
    let at = position(&bytes).expect("found");
    bytes[at] ^= 1;
    fs::write(data.join(&name), &bytes).expect("writable");
    let (sound, told) = verify(&at_rest).await;
    assert!(!sound, "{told:#}");
    let damage = told["damage"][0].as_str().expect("a text");
    assert!(damage.contains(&name) && damage.contains("does not match its checksum"), "{damage}");
    assert!(told["counts"]["lost"].as_u64().is_some_and(|lost| lost > 0), "what cannot be read was acknowledged: {told:#}");
}

/// Where a record's text stands in a segment: near the start, far below what the last groups prove.
fn position(bytes: &[u8]) -> Option<usize> {
    bytes.windows(5).position(|window| window == b"line ")
}

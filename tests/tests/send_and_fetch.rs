//! `oncelog send` and `oncelog fetch`, as they are used.

use std::{process::Stdio, time::Duration};

use oncelog_tests::{
    binaries,
    stack::{Stack, succeeded},
};
use tokio::io::AsyncWriteExt;

async fn send(stack: &Stack, args: &[&str], input: &[u8]) -> std::process::Output {
    let mut child = binaries::command("oncelog")
        .arg("send")
        .args([stack.producer_flag(), stack.broker_flag()])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    child.stdin.take().expect("piped").write_all(input).await.expect("it reads");
    child.wait_with_output().await.expect("it ends")
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_come_out_as_they_went_in() {
    let stack = Stack::start(&[]).await.expect("it starts");
    let sent = send(&stack, &["colours", "--key-separator=:", "--partition=0"], b"a:red\nb:\xff\nplain").await;
    assert_eq!(stderr(&sent), "sent 3, acknowledged 3, refused 0, unknown 0\n");
    assert!(sent.status.success());

    let raw = stack.fetch(&["colours"]).await.expect("there");
    assert_eq!(raw, b"red\n\xff\nplain\n");
    let json = stack.fetch(&["colours", "--output=json", "--partition=0", "--offset=1"]).await.expect("there");
    let lines: Vec<serde_json::Value> =
        serde_json::Deserializer::from_slice(&json).into_iter().map(|l| l.expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["key"], &lines[0]["value_base64"]), (&"b".into(), &"/w==".into()));
    assert_eq!((&lines[1]["value"], lines[1].get("key")), (&"plain".into(), None));
    let one = stack.fetch(&["colours", "--max-records=1"]).await.expect("there");
    assert_eq!(one, b"red\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_created_with_its_partitions_and_another_number_is_refused() {
    let stack = Stack::start(&[]).await.expect("it starts");
    for _ in 0..2 {
        let sent = send(&stack, &["wide", "--partitions=3"], b"x\n").await;
        assert!(sent.status.success(), "{}", stderr(&sent));
    }
    let refused = send(&stack, &["wide", "--partitions=4"], b"").await;
    assert!(!refused.status.success());
    assert!(stderr(&refused).contains("exists with 3 partitions, not 4"), "{}", stderr(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_record_is_named_and_the_others_are_written() {
    let stack = Stack::start(&["--max-request-size=40000", "--batch-size=1000"]).await.expect("it starts");
    let mut input = b"first\n".to_vec();
    input.extend([vec![b'x'; 50_000], b"\nthird\n".to_vec()].concat());
    let sent = send(&stack, &["sizes", "--batch=1"], &input).await;
    let said = stderr(&sent);
    assert!(!sent.status.success());
    assert!(said.starts_with("sent 3, acknowledged 2, refused 1, unknown 0\n  record 2: refused"), "{said}");
    assert_eq!(stack.fetch(&["sizes"]).await.expect("there"), b"first\nthird\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_producer_what_is_not_answered_is_unknown() {
    let mut stack = Stack::start(&[]).await.expect("it starts");
    // Without a broker nothing is answered.
    let sent = send(&stack, &["lost"], b"a\n").await;
    assert!(sent.status.success(), "{}", stderr(&sent));
    stack.stage.kill_broker().await.expect("it ran");
    let mut child = binaries::command("oncelog")
        .args(["send", "lost", &stack.producer_flag()])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"b\nc\n").await.expect("it reads");
    tokio::time::sleep(Duration::from_millis(500)).await;
    stack.stage.take_producer().expect("it is up").kill().await.expect("it ran");
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(6));
    let said = stderr(&output);
    assert!(said.starts_with("sent 2, acknowledged 0, refused 0, unknown 2\n  records 1 to 2: unknown"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_enough_is_no_error() {
    let stack = Stack::start(&[]).await.expect("it starts");
    let input: Vec<u8> = (0..100_000).flat_map(|i: u32| format!("{i}\n").into_bytes()).collect();
    let sent = send(&stack, &["many"], &input).await;
    assert!(sent.status.success(), "{}", stderr(&sent));
    let shell = format!("set -o pipefail; {} fetch many {} | head -1", binaries::path("oncelog").display(), stack.broker_flag());
    let output = tokio::process::Command::new("bash").args(["-c", &shell]).output().await.expect("bash");
    assert_eq!(stderr(&output), "");
    assert_eq!(succeeded(output).expect("no error"), b"0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn following_shows_what_comes_later() {
    let stack = Stack::start(&[]).await.expect("it starts");
    assert!(send(&stack, &["news"], b"old\n").await.status.success());
    let mut follow = binaries::command("oncelog")
        .args(["fetch", "news", "--follow", "--max-records=2", &stack.broker_flag()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let mut first = [0; 4];
    let mut stdout = follow.stdout.take().expect("piped");
    tokio::io::AsyncReadExt::read_exact(&mut stdout, &mut first).await.expect("what is there is shown at once");
    assert_eq!(&first, b"old\n");
    assert!(send(&stack, &["news"], b"new\n").await.status.success());
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stdout, &mut rest).await.expect("it ends after two");
    assert_eq!(rest, b"new\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_said_in_a_line() {
    let stack = Stack::start(&[]).await.expect("it starts");
    let error = stack.fetch(&["nowhere"]).await.expect_err("there is no such topic").to_string();
    assert!(error.contains("NOT_FOUND UNKNOWN_TOPIC_OR_PARTITION"), "{error}");
    assert!(send(&stack, &["here"], b"x\n").await.status.success());
    let error = stack.fetch(&["here", "--partition=0", "--offset=9"]).await.expect_err("beyond the end").to_string();
    assert!(error.contains("OUT_OF_RANGE OFFSET_OUT_OF_RANGE"), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
}

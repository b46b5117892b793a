//! `oncelog dev` in an empty directory: the first minute of whoever tries it.

use std::process::Stdio;

use oncelog_tests::{binaries, dev::Dev, stack::succeeded, workplace::Workplace};
use tokio::io::AsyncWriteExt;

async fn send(dev: &Dev, line: &[u8]) {
    let mut child = binaries::command("oncelog")
        .args(["send", "orders", &format!("--producer=http://{}", dev.producer)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    child.stdin.take().expect("piped").write_all(line).await.expect("it reads");
    succeeded(child.wait_with_output().await.expect("it ends")).expect("acknowledged");
}

async fn fetch(dev: &Dev) -> Vec<u8> {
    let mut command = binaries::command("oncelog");
    command.args(["fetch", "orders", &format!("--broker=http://{}", dev.broker)]);
    succeeded(command.output().await.expect("it can be started")).expect("there")
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_still_there_after_a_stop_and_a_start() {
    let workplace = Workplace::new();
    let (data, log) = (workplace.path("data"), workplace.path("dev.log"));
    let dev = Dev::start(&data, &log).await.expect("it starts in an empty directory");
    send(&dev, b"first\n").await;
    assert_eq!(fetch(&dev).await, b"first\n");
    let status = dev.process.terminate().await.expect("it ends");
    assert!(status.success(), "{status}");

    let dev = Dev::start(&data, &log).await.expect("it starts again");
    assert_eq!(fetch(&dev).await, b"first\n");
    send(&dev, b"second\n").await;
    assert_eq!(fetch(&dev).await, b"first\nsecond\n");
    let status = dev.process.terminate().await.expect("it ends");
    assert!(status.success(), "{status}");
}

//! The lines that `oncelog dev` prints, run as they are by a shell, with the real grpcurl.

use std::env;

use oncelog_tests::{binaries, dev::Dev, workplace::Workplace};

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_lines_do_what_they_say() {
    if !binaries::has_grpcurl() {
        eprintln!("LEFT OUT: there is no grpcurl in PATH");
        return;
    }
    let workplace = Workplace::new();
    let mut dev = Dev::start(&workplace.path("data"), &workplace.path("dev.log")).await.expect("it starts");
    let said = dev.process.said(LAST_LINE).await.expect("it says what to try");
    let (_, card) = said.split_once("\n\n").expect("the lines come after the greeting");

    let bin = binaries::path("oncelog");
    let path = format!("{}:{}", bin.parent().expect("a directory").display(), env::var("PATH").expect("set"));
    let output = tokio::process::Command::new("bash").args(["-c", card]).env("PATH", path).output().await.expect("bash");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let context = || format!("--- stdout\n{stdout}\n--- stderr\n{stderr}\n--- script\n{card}");
    assert!(output.status.success(), "{}", context());

    // Send and Fetch: the record comes back as it went in.
    assert_eq!(stdout.matches(r#""value": "aGVsbG8=""#).count(), 1, "{}", context());
    assert_eq!(stdout.matches(r#""key": "b3JkZXItMQ==""#).count(), 1, "{}", context());
    // The same batch twice: two answers, the second one a duplicate.
    assert_eq!(stdout.matches(r#""ack""#).count(), 2, "{}", context());
    assert_eq!(stdout.matches(r#""duplicate": true"#).count(), 1, "{}", context());
    // The gap.
    assert!(stdout.contains("ERROR_CODE_OUT_OF_ORDER_SEQUENCE_NUMBER"), "{}", context());
    assert!(stdout.contains(r#""expectedSequence": "1""#), "{}", context());
    // Volume.
    assert!(stderr.contains("sent 100000, acknowledged 100000, refused 0, unknown 0"), "{}", context());
    assert!(stdout.ends_with("99998\n99999\n100000\n"), "{}", context());
}

/// The end of the lines.
const LAST_LINE: &str = "| tail -3\n";

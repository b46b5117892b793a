//! producer-svc is judged like a client in any other language, and the suite accuses what is wrong.

use oncelog_tests::binaries;

#[tokio::test]
async fn producer_svc_conforms() {
    let suite = binaries::path("oncelog-conformance");
    let mut command = binaries::command("oncelog-conformance");
    let output = command.args(["producer", "--"]).arg(suite).arg("through-producer-svc").output().await.expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn programs_that_are_wrong_in_one_way_are_accused_of_it() {
    let mut command = binaries::command("oncelog-conformance");
    // Some of them never end.
    let output = command.args(["self-check", "--patience", "8"]).output().await.expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_program_that_does_nothing_does_not_conform() {
    for role in ["producer", "sender"] {
        let mut command = binaries::command("oncelog-conformance");
        let output = command.args([role, "--only", "lost answers", "--", "true"]).output().await.expect("it runs");
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("stdout says nothing of 200 of the 200 records"), "{told}");
        assert!(told.contains("exercised: "), "{told}");
    }
}

#[tokio::test]
async fn what_a_program_wrote_before_it_hung_is_shown() {
    let mut command = binaries::command("oncelog-conformance");
    let hangs = ["sh", "-c", "echo 'waits for an answer' >&2; sleep 20"];
    let output =
        command.args(["producer", "--only", "calm", "--patience", "1", "--"]).args(hangs).output().await.expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("it has not ended after 1 s") && told.contains("| waits for an answer"), "{told}");
}

#[tokio::test]
async fn wrong_usage_and_what_cannot_be_judged_are_no_verdict() {
    for (args, expected) in [
        (&["producer", "--only", "no such scenario", "--", "true"][..], 2),
        // It is looked at before anything is started.
        (&["sender", "--services", "/nowhere", "--only", "fenced", "--", "true"], 2),
        (&["sender"], 2),
        (&["producer", "--services", "/nowhere", "--", "true"], 3),
        (&["producer", "--only", "calm", "--", "/nowhere/my-producer"], 3),
    ] {
        let output = binaries::command("oncelog-conformance").args(args).output().await.expect("it runs");
        assert_eq!(output.status.code(), Some(expected), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

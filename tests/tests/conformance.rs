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

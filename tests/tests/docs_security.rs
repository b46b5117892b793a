//! The page on security: its lines are run as they stand there, by a shell, in an empty directory.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use oncelog_chaos::port;
use oncelog_tests::{binaries, workplace::Workplace};

fn has(tool: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().is_ok_and(|output| output.status.success());
    let required = env::var("CI").is_ok_and(|value| value == "true");
    assert!(found || !required, "CI=true, and there is no {tool} in PATH");
    found
}

/// The lines in shell blocks below the heading that begins like this, with ports that nobody has.
fn script(heading: &str) -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security.md")).expect("there is the page");
    let (_, section) = page.split_once(&format!("\n## {heading}")).expect("there is the heading");
    let section = section.split("\n## ").next().expect("it ends somewhere");
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().expect("it ends"));
    let ports = ["50051", "50052", "9464", "9465"].map(|standing| (standing, port::free().port().to_string()));
    let ports = BTreeMap::from(ports);
    ports
        .iter()
        .fold(blocks.collect(), |script: String, (standing, free)| script.replace(&format!(":{standing}"), &format!(":{free}")))
}

/// What the section's lines say on stdout and stderr.
async fn run(heading: &str) -> Option<(String, String)> {
    if !["openssl", "curl", "sha256sum"].iter().all(|tool| has(tool)) {
        eprintln!("LEFT OUT: openssl, curl or sha256sum is not in PATH");
        return None;
    }
    let workplace = Workplace::new();
    let bin = binaries::path("oncelog");
    let path = format!("{}:{}", bin.parent().expect("a directory").display(), env::var("PATH").expect("set"));
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p); wait' EXIT\n{}", script(heading));
    let mut command = tokio::process::Command::new("bash");
    command.args(["-c", &script]).env("PATH", path).current_dir(workplace.path(""));
    let output = command.output().await.expect("bash");
    let said = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{script}\n--- stdout\n{}\n--- stderr\n{}", said.0, said.1);
    Some(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_set_up_as_the_page_says() {
    let Some((stdout, stderr)) = run("TLS with").await else { return };
    assert!(stdout.ends_with("1\n2\n3\n"), "{stdout}\n---\n{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_permissions_are_set_up_as_the_page_says() {
    let Some((stdout, stderr)) = run("Tokens and").await else { return };
    assert!(stdout.ends_with("1\n2\n3\n"), "{stdout}\n---\n{stderr}");
    let denied = "PERMISSION_DENIED TOPIC_AUTHORIZATION_FAILED: orders-svc may not read topic orders: ";
    assert!(stderr.contains(denied), "{stderr}");
}

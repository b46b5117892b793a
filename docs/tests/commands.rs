//! Every command of the README and of the pages in `docs/` does what its page says.
//!
//! A block of `sh` is run as it stands and has to succeed; of a block of `console` each command has to say what stands below it,
//! but for times. How they are run, and what is only looked at: [`oncelog_docs::stage`]. A block that cannot be run says why on
//! its fence (```` ```sh not run: REASON ````) or is not a block of commands (```` ```text ````).

use std::path::Path;

use oncelog_docs::{
    page::{Block, Page},
    stage::Stage,
};
use oncelog_tests::binaries;
use serde_json::{Deserializer, Value};

/// Pages of which no command is run, and why.
const LEFT_OUT: [(&str, &str); 2] = [
    ("docs/runbook.md", "its commands are for a Kubernetes cluster"),
    ("docs/security.md", "it starts services of its own: tests/tests/docs_security.rs runs it"),
];

fn pages() -> Vec<Page> {
    let is_ours = |page: &Page| page.path == Path::new("README.md") || page.path.parent() == Some(Path::new("docs"));
    Page::all().into_iter().filter(is_ours).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_does_what_its_page_says() {
    let mut wrong = Vec::new();
    for page in pages() {
        if let Some((_, reason)) = LEFT_OUT.iter().find(|(path, _)| page.path == Path::new(path)) {
            eprintln!("LEFT OUT: {}: {reason}", page.path.display());
            continue;
        }
        let mut stage = Stage::new();
        for block in page.blocks() {
            let place = format!("{}:{}", page.path.display(), block.line);
            if let Err(why) = try_block(&mut stage, &block, &place).await {
                wrong.push(format!("=== {place}\n{why}"));
            }
        }
        stage.stop().await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn try_block(stage: &mut Stage, block: &Block, place: &str) -> Result<(), String> {
    if block.language.is_empty() {
        return Err("a block says what it is: sh or console, which are run, or text, which is not".to_owned());
    }
    let commands = match block.language.as_str() {
        "sh" | "bash" | "shell" => vec![(block.text.clone(), None)],
        "console" => conversation(&block.text).into_iter().map(|(command, answer)| (command, Some(answer))).collect(),
        _ => return Ok(()),
    };
    if let Some(reason) = block.remark.strip_prefix("not run: ") {
        eprintln!("LEFT OUT: {place}: {reason}");
        return Ok(());
    }
    if !block.remark.is_empty() {
        return Err(format!("{:?} is no reason; say why with `not run: `, or nothing", block.remark));
    }
    for (command, answer) in commands {
        if command.contains("grpcurl") && !binaries::has_grpcurl() {
            eprintln!("LEFT OUT: {place}: there is no grpcurl in PATH");
            continue;
        }
        let ended = stage.run(&command).await;
        match answer {
            None if !ended.well => return Err(format!("{command}--- failed with\n{}", beginning(&ended.said))),
            Some(answer) if !alike(&answer, &ended.said) => {
                return Err(format!("$ {command}\n--- the page says\n{answer}--- but it says\n{}", beginning(&ended.said)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// As much of it as somebody reads.
fn beginning(text: &str) -> String {
    text.chars().take(2_000).collect()
}

/// Each command behind a `$`, with what stands below it. A backslash at its end goes on with the next line.
fn conversation(text: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push((command.to_owned(), String::new())),
            (None, Some((command, _))) if command.ends_with('\\') => *command += &format!("\n{line}"),
            (None, Some((_, answer))) => *answer += &format!("{line}\n"),
            (None, None) => panic!("a conversation begins with a command, not with {line:?}"),
        }
    }
    steps
}

/// Is it the same but for times? JSON may be spaced in another way.
fn alike(expected: &str, said: &str) -> bool {
    let [expected, said] = [expected, said].map(timeless);
    let json = |text: &str| Deserializer::from_str(text).into_iter().collect::<Result<Vec<Value>, _>>().ok();
    expected.trim() == said.trim() || json(&expected).is_some_and(|expected| json(&said) == Some(expected))
}

/// Every time of day becomes the same.
fn timeless(text: &str) -> String {
    let is_time =
        |word: &str| word.len() >= 20 && word.ends_with('Z') && word.get(4..5) == Some("-") && word.get(10..11) == Some("T");
    let in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '-');
    let words = text.split_inclusive(|c| !in_word(c));
    words.map(|word| if is_time(word.trim_end_matches(|c| !in_word(c))) { "TIME\"" } else { word }).collect()
}

#[test]
fn only_times_may_differ() {
    let at = |time: &str, offset: &str| format!("{{\n  \"offset\": \"{offset}\", \"appendTime\": \"{time}\"\n}}\n");
    let [morning, evening] = ["2026-11-23T06:42:51.773061Z", "2026-11-24T18:00:00Z"];
    assert!(alike(&at(morning, "1"), &at(evening, "1").replace('\n', "")));
    assert!(!alike(&at(morning, "1"), &at(morning, "2")));
    assert!(!alike("sent 3\n", "sent 2\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_on_a_page_is_found() {
    let mut stage = Stage::new();
    let block = |language: &str, remark: &str, text: &str| Block {
        line: 1,
        language: language.to_owned(),
        remark: remark.to_owned(),
        text: text.to_owned(),
    };
    for wrong in [
        block("", "", "ls\n"),
        block("sh", "slow", "true\n"),
        block("sh", "", "false\ntrue\n"),
        block("sh", "", "oncelog fetch there-is-no-such-topic\n"),
        block("sh", "", "cargo run --release --bin oncelog -- dev --data-directory x\n"),
        block("sh", "", "cargo run --release -p oncelog-sim -- --hours 10\n"),
        block("sh", "", "cargo test -p oncelog-nothing\n"),
        block("sh", "", "broker-svc --no-such-flag\n"),
        block("console", "", "$ echo 1\n2\n"),
    ] {
        assert!(try_block(&mut stage, &wrong, "here").await.is_err(), "{wrong:?}");
    }
    for right in [
        block("text", "", "anything\n"),
        block("sh", "not run: no cluster", "false\n"),
        block("sh", "", "cargo run --release -p oncelog-sim -- --minutes 10    # why\n"),
        block("sh", "", "broker-svc --data-dir x --hold-ms=5\n"),
        block("console", "", "$ echo 1; \\\n  echo 2\n1\n2\n$ echo 3\n3\n"),
    ] {
        assert_eq!(try_block(&mut stage, &right, "here").await, Ok(()), "{right:?}");
    }
    stage.stop().await;
}

//! What an operator does: topics, producers, the journal, a small load, a look at everything that may stand in the way. Over a
//! real pair of services, by what is written to stdout as JSON, and by the exit codes.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use oncelog_chaos::{port, process::Process, program::Program};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

/// `oncelog dev` on free ports.
struct Pair {
    process: Process,
    directory: tempfile::TempDir,
    flags: Vec<String>,
}

impl Pair {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let [broker, producer, broker_admin, producer_admin] = std::array::from_fn(|_| port::free());
        let args = [
            "dev".to_owned(),
            format!("--data-dir={}", directory.path().join("data").display()),
            format!("--broker-listen={broker}"),
            format!("--producer-listen={producer}"),
            format!("--broker-admin-listen={broker_admin}"),
            format!("--producer-admin-listen={producer_admin}"),
            "--output=json".to_owned(),
        ];
        let program = Program::new(env!("CARGO_BIN_EXE_oncelog"));
        let mut process = Process::start(&program, &args, &directory.path().join("dev.log")).expect("it can be started");
        process.ready(broker_admin).await.expect("ready");
        process.ready(producer_admin).await.expect("ready");
        let flags = vec![
            format!("--broker=http://{broker}"),
            format!("--producer=http://{producer}"),
            format!("--broker-admin={broker_admin}"),
            format!("--producer-admin={producer_admin}"),
        ];
        Self { process, directory, flags }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The flags whose names begin so.
    fn flags(&self, names: &[&str]) -> Vec<String> {
        let is_asked = |flag: &String| names.iter().any(|name| flag.starts_with(&format!("--{name}=")));
        self.flags.iter().filter(|flag| is_asked(flag)).cloned().collect()
    }
}

struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn oncelog(args: &[&str], flags: &[String], input: &str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncelog"));
    command.args(args).args(flags).env("NO_COLOR", "1").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it can be started");
    // Who reads no input may have ended by now.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes()).await;
    let output = child.wait_with_output().await.expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The JSON that a command writes if it succeeds.
async fn json(args: &[&str], flags: &[String]) -> Value {
    let said = oncelog(&[args, &["--output=json"]].concat(), flags, "").await;
    assert_eq!(said.code, Some(0), "{args:?}: {}", said.stderr);
    assert_eq!(said.stdout.lines().count(), 1, "one object in one line: {}", said.stdout);
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {}", said.stdout))
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_listed_described_and_deleted() {
    let pair = Pair::start().await;
    let broker = pair.flags(&["broker"]);
    assert_eq!(json(&["topic", "create", "a", "--partitions=3"], &broker).await["partitions"], 3);
    let again = oncelog(&["topic", "create", "a"], &broker, "").await;
    assert_eq!(again.code, Some(4), "{}", again.stderr);
    assert!(again.stderr.contains("ALREADY_EXISTS TOPIC_ALREADY_EXISTS"), "{}", again.stderr);
    assert_eq!(json(&["topic", "create", "a", "--partitions=3", "--if-not-exists"], &broker).await["existed"], true);
    let other = oncelog(&["topic", "create", "a", "--partitions=4", "--if-not-exists"], &broker, "").await;
    assert!(other.code == Some(4) && other.stderr.contains("exists with 3 partitions"), "{}", other.stderr);

    let sent = oncelog(&["send", "a", "--output=json"], &pair.flags(&["broker", "producer"]), "x\ny\n").await;
    let sent: Value = serde_json::from_str(&sent.stdout).unwrap_or_else(|error| panic!("{error}: {}", sent.stderr));
    assert_eq!((&sent["sent"], &sent["acknowledged"], &sent["unknown"]), (&2.into(), &2.into(), &0.into()));

    let listed = json(&["topic", "list"], &broker).await;
    assert_eq!((&listed["topics"][0]["topic"], &listed["topics"][0]["records"]), (&"a".into(), &2.into()));
    let described = json(&["topic", "describe", "a"], &broker).await;
    let partitions = described["topics"][0]["partitions"].as_array().expect("a list");
    assert_eq!(partitions.len(), 3);
    assert_eq!(partitions.iter().filter_map(|partition| partition["log_end_offset"].as_i64()).sum::<i64>(), 2);
    let text = oncelog(&["topic", "describe", "a"], &broker, "").await.stdout;
    assert!(text.starts_with("TOPIC  PARTITION  LOG START  LOG END  RECORDS  STORED  OLDEST RECORD\n"), "{text}");
    assert_eq!(text.lines().count(), 4, "{text}");

    let deleted = oncelog(&["topic", "delete", "a"], &broker, "").await;
    assert_eq!((deleted.code, deleted.stdout.as_str()), (Some(0), "deleted a\n"));
    let gone = oncelog(&["topic", "describe", "a"], &broker, "").await;
    assert!(gone.code == Some(4) && gone.stderr.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{}", gone.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_measured_and_what_it_leaves_is_seen_running_and_at_rest() {
    let pair = Pair::start().await;
    let broker = pair.flags(&["broker"]);
    let told = json(&["bench", "--records=2003", "--batch=10", "--topic=load"], &pair.flags(&["producer"])).await;
    assert_eq!((&told["acknowledged"], &told["unknown"], &told["refused"]), (&2_003.into(), &0.into(), &0.into()));
    assert!(told["records_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{told:#}");
    let latency = &told["latency_micros"];
    assert!(latency["p50"].as_u64() > Some(0) && latency["p50"].as_u64() <= latency["max"].as_u64(), "{told:#}");

    let producers = json(&["producers"], &broker).await;
    let producer = &producers["producers"][0];
    assert_eq!((&producer["producer_epoch"], &producers["more"]), (&0.into(), &false.into()), "{producers:#}");
    let partition = &producer["partitions"][0];
    assert_eq!((&partition["topic"], &partition["next_sequence"]), (&"load".into(), &2_003.into()), "{producers:#}");
    assert!(producer["last_seen"].as_str().is_some_and(|time| time.ends_with('Z')), "{producers:#}");
    assert_eq!(json(&["producers", "--topic=none-writes-here"], &broker).await["producers"], Value::Array(Vec::new()));

    let data = [format!("--data-dir={}", pair.data().display())];
    let running = oncelog(&["journal"], &data, "").await;
    assert!(running.code == Some(1) && running.stderr.contains("another process has the journal open"), "{}", running.stderr);
    let Pair { process, directory, .. } = pair;
    assert!(process.terminate().await.expect("it ends").success());
    let journal = json(&["journal"], &data).await;
    assert_eq!(journal["clean"], true, "{journal:#}");
    let segments = journal["segments"].as_array().expect("a list");
    assert_eq!(segments.iter().filter_map(|segment| segment["records"].as_u64()).sum::<u64>(), 2_003, "{journal:#}");
    assert_eq!(segments.last().map(|segment| &segment["state"]), Some(&"active".into()), "{journal:#}");
    let text = oncelog(&["journal"], &data, "").await.stdout;
    assert!(text.contains("the last stop was a clean one") && text.contains("SEGMENT  STATE"), "{text}");
    assert_eq!(json(&["verify"], &data).await["counts"]["in_log"], 2_003);
    drop(directory);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_finds_nothing_wrong_with_a_pair_that_runs() {
    let pair = Pair::start().await;
    let mut flags = pair.flags(&["broker", "producer", "broker-admin", "producer-admin"]);
    flags.push(format!("--data-dir={}", pair.data().display()));
    let told = json(&["doctor"], &flags).await;
    assert_eq!(told["well"], true, "{told:#}");
    let findings = told["findings"].as_array().expect("a list");
    let of = |check: &str| findings.iter().filter(|finding| finding["check"] == check).collect::<Vec<_>>();
    let disk = of("disk");
    assert!(disk[0]["values"]["commits_per_second"].as_f64().is_some_and(|commits| commits > 0.0), "{told:#}");
    for check in ["version", "file system", "disk space", "clock", "open files", "memory", "broker", "producer"] {
        assert!(!of(check).is_empty(), "no {check} in {told:#}");
    }
    for service in ["broker", "producer"] {
        let said = of(service).iter().map(|finding| finding["what"].as_str().expect("a text")).collect::<Vec<_>>().join("; ");
        assert!(said.contains("serving") && said.contains("ready") && said.contains("clock"), "{said}");
    }
    for finding in findings.iter().filter(|finding| finding["level"] != "good") {
        assert!(finding["advice"].is_string(), "what is not good comes with what to do about it: {finding:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_that_reaches_nobody_says_so_and_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let [broker, producer] = std::array::from_fn(|_| port::free());
    let flags = [
        format!("--broker=http://{broker}"),
        format!("--producer=http://{producer}"),
        format!("--data-dir={}", directory.path().display()),
    ];
    let told = oncelog(&["doctor"], &flags, "").await;
    assert_eq!(told.code, Some(3), "{}{}", told.stdout, told.stderr);
    let line = |service: &str| told.stdout.lines().any(|line| line.starts_with("PROBLEM") && line.contains(service));
    assert!(line("broker") && line("producer"), "{}", told.stdout);
    assert!(told.stdout.contains(&broker.to_string()) && told.stdout.contains("oncelog dev"), "{}", told.stdout);
    let offline = oncelog(&["doctor", "--offline"], &flags, "").await;
    assert_eq!(offline.code, Some(0), "{}", offline.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_can_start_a_pair_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let in_it = [format!("--directory={}", directory.path().display())];
    let told = json(&["bench", "--start", "--records=500"], &in_it).await;
    assert_eq!(told["acknowledged"], 500, "{told:#}");
    assert_eq!(std::fs::read_dir(directory.path()).expect("there").count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn nobody_listening_has_an_exit_code_of_its_own() {
    let nobody = port::free();
    let (broker, producer) = ([format!("--broker=http://{nobody}")], [format!("--producer=http://{nobody}")]);
    let commands: [(&[&str], &[String]); 6] = [
        (&["topic", "list"], &broker),
        (&["producers"], &broker),
        (&["fetch", "a"], &broker),
        (&["verify"], &broker),
        (&["send", "a"], &producer),
        (&["bench"], &producer),
    ];
    for (args, flags) in commands {
        let said = oncelog(args, flags, "").await;
        assert_eq!(said.code, Some(3), "{args:?}: {}", said.stderr);
        assert!(said.stderr.contains(&nobody.to_string()) && said.stderr.lines().count() == 1, "{args:?}: {}", said.stderr);
    }
    assert_eq!(oncelog(&["topic", "paint"], &[], "").await.code, Some(2));
    let no_url = oncelog(&["topic", "list"], &["--broker=somewhere".to_owned()], "").await;
    assert_eq!(no_url.code, Some(2), "{}", no_url.stderr);
}

#[tokio::test]
async fn a_verdict_that_nobody_reads_to_its_end_is_still_the_verdict() {
    let nobody = port::free();
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncelog"));
    command.args(["doctor", &format!("--broker=http://{nobody}"), &format!("--producer=http://{nobody}")]);
    let directory = tempfile::tempdir().expect("a directory");
    command.arg(format!("--data-dir={}", directory.path().display())).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it can be started");
    drop(child.stdout.take());
    assert_eq!(child.wait().await.expect("it ends").code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_interrupted_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let args = ["bench".to_owned(), "--start".to_owned(), "--records=100000000".to_owned()];
    let in_it = format!("--directory={}", directory.path().display());
    let log = tempfile::NamedTempFile::new().expect("a file");
    let program = Program::new(env!("CARGO_BIN_EXE_oncelog"));
    let mut process = Process::start(&program, &[&args[..], &[in_it]].concat(), log.path()).expect("it can be started");
    let has_begun = || walk(directory.path()).any(|path| path.ends_with("data/lock") || path.extension().is_some());
    while !has_begun() {
        assert!(process.ended().expect("asked").is_none(), "it ended by itself: {}", process.log().expect("a log"));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(process.terminate().await.expect("it ends").code(), Some(130));
    assert_eq!(std::fs::read_dir(directory.path()).expect("there").count(), 0, "nothing is left behind");
}

/// All files below a directory.
fn walk(directory: &Path) -> Box<dyn Iterator<Item = PathBuf>> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    Box::new(entries.flat_map(|path| if path.is_dir() { walk(&path) } else { Box::new(std::iter::once(path)) }))
}

#[tokio::test]
async fn completions_and_manual_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = oncelog(&["completions", shell], &[], "").await.stdout;
        for word in ["demo", "topic", "without-idempotence", "doctor"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let page = oncelog(&["man"], &[], "").await.stdout;
    assert!(page.contains(".TH oncelog 1") && page.contains("Exit codes"), "{page}");
    let written = oncelog(&["man", &format!("--directory={}", directory.path().display())], &[], "").await;
    assert_eq!(written.code, Some(0), "{}", written.stderr);
    for page in ["oncelog.1", "oncelog-demo.1", "oncelog-topic.1"] {
        assert!(Path::new(&directory.path().join(page)).is_file(), "{page}");
    }
}

#[tokio::test]
async fn the_page_in_the_docs_is_what_the_command_says_of_itself() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/command.md");
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    let told = oncelog(&["reference"], &[], "").await.stdout;
    assert!(page == told, "docs/command.md is another one: cargo run --bin oncelog -- reference > docs/command.md");
}

#[tokio::test]
async fn help_documents_the_exit_codes() {
    let help = oncelog(&["--help"], &[], "").await.stdout;
    let codes = help.split_once("Exit codes:").expect("a table").1;
    for code in ["  0  done", "  2  the command line", "  3  nobody answers", "  5  a verification", "130  ended by Ctrl-C"] {
        assert!(codes.contains(code), "{code:?} is not in {codes}");
    }
}

//! One defect before one judge, each time in a process of its own.
//!
//! A judge's word counts only if it lets the same code pass without the defect, by the same arguments, and only if it says what
//! was broken: one that cannot run, crashes, or does not end has caught nothing.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    io::Read,
    process::{Command, Output, Stdio},
    thread::{self, sleep},
    time::Duration,
};

use anyhow::{Context, ensure};
use oncelog_defects::{Defect, ENVIRONMENT};

use super::judges::{Judge, Test};
use crate::{campaign::now, world::Outcome};

/// Where judges are heard.
#[derive(Debug, Default)]
pub(super) struct Court {
    /// By their arguments: runs that were well without a defect.
    sound: BTreeSet<String>,
}

impl Court {
    /// Builds what is not built yet.
    pub(super) fn open() -> anyhow::Result<Self> {
        // Together with this program: alone, what both stand on would have other features, and be built a second time.
        let mut build = cargo("build", "oncelog-model");
        build.args(["-p", "oncelog-sim"]).args(if cfg!(debug_assertions) { &[][..] } else { &["--release"] });
        ensure!(build.status()?.success(), "the model cannot be built");
        Ok(Self::default())
    }

    /// Says how the judge caught it; none: it did not.
    ///
    /// # Errors
    /// The judge is none: it cannot run, or finds fault with what has no defect.
    pub(super) fn hold(&mut self, defect: Defect, judge: &Judge) -> anyhow::Result<Option<String>> {
        match judge {
            Judge::Seeds(most) => self.simulate(defect, *most),
            Judge::Scenario(scenario) => self.explore(defect, scenario, &["--small"]),
            Judge::LargeScenario(scenario) => self.explore(defect, scenario, &[]),
            Judge::Test(test) => fail(defect, test),
        }
    }

    fn simulate(&mut self, defect: Defect, most: u64) -> anyhow::Result<Option<String>> {
        let program = env::current_exe().context("finding this program")?;
        for seed in 1..=most {
            let run = || {
                let mut run = Command::new(&program);
                run.arg(format!("--seed={seed}"));
                run
            };
            let which = format!("seed {seed}");
            self.control(&which, || Ok(failures(&watch(&mut run())?)?.into_iter().next()))?;
            let output = watch(run().arg(format!("--defect={defect}"))).with_context(|| which.clone())?;
            let failures = failures(&output).context(which)?;
            if !failures.is_empty() {
                return Ok(Some(format!("{}: {}", seeds(seed), in_short(&failures))));
            }
        }
        Ok(None)
    }

    fn explore(&mut self, defect: Defect, scenario: &str, bounds: &[&str]) -> anyhow::Result<Option<String>> {
        let program = env::current_exe().context("finding this program")?.with_file_name("oncelog-model");
        let run = || {
            let mut run = Command::new(&program);
            run.args(bounds).arg(scenario);
            run
        };
        self.control(&format!("model {scenario} {bounds:?}"), || violation(&watch(&mut run())?))?;
        let found = violation(&watch(run().arg(format!("--defect={defect}")))?)?;
        Ok(found.map(|what| format!("model, `{scenario}`: {}", in_short(&[what]))))
    }

    /// The same without the defect; once is enough.
    fn control(&mut self, which: &str, run: impl FnOnce() -> anyhow::Result<Option<String>>) -> anyhow::Result<()> {
        if !self.sound.contains(which) {
            let fault = run().with_context(|| format!("{which}, without a defect"))?;
            ensure!(fault.is_none(), "{which} finds a fault where there is no defect: {}", fault.unwrap_or_default());
            self.sound.insert(which.to_owned());
        }
        Ok(())
    }
}

/// What a run of the simulation says is wrong.
fn failures(output: &Output) -> anyhow::Result<Vec<String>> {
    let text = String::from_utf8_lossy(&output.stdout);
    let outcome = text.lines().last().and_then(|line| serde_json::from_str::<Outcome>(line).ok());
    Ok(outcome.with_context(|| ended_without(output, "an outcome"))?.failures)
}

/// What an exploration says is broken.
fn violation(output: &Output) -> anyhow::Result<Option<String>> {
    let text = String::from_utf8_lossy(&output.stderr);
    let found = text.lines().find_map(|line| line.split_once("VIOLATION: ")).map(|(_, what)| what.to_owned());
    // It says how many states it saw, whether it saw all of them or not.
    let is_told = text.lines().any(|line| line.contains(" states, ") && line.contains("explored"));
    ensure!(found.is_some() || is_told, ended_without(output, "a word on what it explored"));
    Ok(found)
}

fn ended_without(output: &Output, what: &str) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<_> = said.lines().rev().take(LINES_SHOWN).collect();
    format!("it ended without {what}, with {}: {}", output.status, last.into_iter().rev().collect::<Vec<_>>().join(" / "))
}

fn fail(defect: Defect, test: &Test) -> anyhow::Result<Option<String>> {
    let run = |defect: Option<Defect>| {
        let mut run = cargo("test", test.package);
        run.args(test.target).args(["--", "--exact", test.name]).env_remove(ENVIRONMENT);
        let output = watch(run.envs(defect.map(|defect| (ENVIRONMENT, defect.to_string()))))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let is_told = |result: &str| text.lines().any(|line| line.starts_with(result));
        match (is_told("test result: ok. 1 passed"), is_told("test result: FAILED. 0 passed; 1 failed")) {
            (true, _) => Ok(true),
            (_, true) => Ok(false),
            _ => anyhow::bail!("{test} cannot be run:\n{text}\n{}", String::from_utf8_lossy(&output.stderr)),
        }
    };
    ensure!(run(None)?, "{test} fails without a defect");
    Ok((!run(Some(defect))?).then(|| test.to_string()))
}

fn cargo(command: &str, package: &str) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut cargo = Command::new(program);
    cargo.args([command, "--quiet", "-p", package, "--features", "deliberate-defects"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo
}

/// What a process wrote. It is read while it runs: one that writes much would wait for ever for somebody to do so.
fn watch(command: &mut Command) -> anyhow::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdout = drain(child.stdout.take().expect("it is piped"));
    let stderr = drain(child.stderr.take().expect("it is piped"));
    let began = now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if now() - began > PATIENCE {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("it does not end");
        }
        sleep(Duration::from_millis(5));
    };
    let read = |pipe: thread::JoinHandle<Vec<u8>>| pipe.join().expect("it only reads");
    Ok(Output { status, stdout: read(stdout), stderr: read(stderr) })
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut read = Vec::new();
        // What was read until then is all there is.
        let _ = pipe.read_to_end(&mut read);
        read
    })
}

fn seeds(seed: u64) -> String {
    format!("simulation, {seed} seed{}", if seed == 1 { "" } else { "s" })
}

/// The promises that were broken, each once; what has no number, in its first words.
fn in_short(failures: &[String]) -> String {
    let mut names: Vec<_> = failures.iter().map(|failure| name(failure)).collect();
    // What has a number first.
    names.sort_unstable_by_key(|name| (name.starts_with('"'), name.clone()));
    names.dedup();
    names.truncate(3);
    names.join(", ")
}

fn name(failure: &str) -> String {
    if let Some((rule, _)) = failure.split_once(": ").filter(|(rule, _)| rule.len() == 2 || *rule == "Order") {
        return rule.to_owned();
    }
    let short: String = failure.chars().take(SHORT).collect();
    let dots = if short.len() < failure.len() { "…" } else { "" };
    format!("\"{}{dots}\"", short.replace('|', "/"))
}

/// A run takes a second, and a scenario some. On a machine that is busy with other things this is not to be reached either.
const PATIENCE: Duration = Duration::from_secs(600);
const SHORT: usize = 100;
const LINES_SHOWN: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(script: &str) -> Output {
        watch(Command::new("sh").args(["-c", script])).expect("there is a shell")
    }

    #[test]
    fn a_judge_that_cannot_run_catches_nothing() {
        for script in ["exit 2", "kill -9 $$", "echo a panic >&2; exit 101", "yes | head -c 1000000; exit 1"] {
            let output = ended(script);
            assert!(failures(&output).is_err(), "{script}");
            assert!(violation(&output).is_err(), "{script}");
        }
        assert!(watch(&mut Command::new("/there/is/no/such/program")).is_err());
    }

    #[test]
    fn a_judge_is_taken_at_its_word() {
        let outcome = |failures: &str| {
            ended(&format!(
                r#"echo more; echo '{{"seed":1,"failures":[{failures}],"tallies":{{}},"digest":"","simulated_ms":0}}'"#
            ))
        };
        assert_eq!(failures(&outcome("")).expect("an outcome"), [""; 0]);
        assert_eq!(failures(&outcome(r#""I2: twice""#)).expect("an outcome"), ["I2: twice"]);
        let explored = |said: &str| violation(&ended(&format!("echo '{said}' >&2; exit 3"))).expect("an exploration");
        assert_eq!(explored("  7 states, 9 steps, depth 3, NOT all explored   "), None);
        assert_eq!(explored("  VIOLATION: twice (I2)"), Some("twice (I2)".to_owned()));
    }

    #[test]
    fn whoever_finds_fault_where_there_is_none_is_no_judge() {
        let mut court = Court::default();
        assert!(court.control("one", || Ok(Some("always".to_owned()))).is_err());
        assert!(court.control("one", || Ok(None)).is_ok());
        // It was heard; the other one was not.
        assert!(court.control("one", || Ok(Some("always".to_owned()))).is_ok());
        assert!(court.control("other", || Ok(Some("always".to_owned()))).is_err());
    }
}

//! One defect before one judge, each time in a process of its own.

use std::{
    env,
    ffi::OsString,
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, ensure};
use oncelog_defects::{Defect, ENVIRONMENT};

use super::judges::{Judge, Test};
use crate::{campaign::now, world::Outcome};

/// Builds what is not built yet.
pub(super) fn prepare() -> anyhow::Result<()> {
    // Together with this program: alone, what both stand on would have other features, and be built a second time.
    let mut build = cargo("build", "oncelog-model");
    build.args(["-p", "oncelog-sim"]).args(if cfg!(debug_assertions) { &[][..] } else { &["--release"] });
    ensure!(build.status()?.success(), "the model cannot be built");
    Ok(())
}

/// Says how the judge caught it; none: it did not.
pub(super) fn hold(defect: Defect, judge: &Judge) -> anyhow::Result<Option<String>> {
    match judge {
        Judge::Seeds(most) => simulate(defect, *most),
        Judge::Scenario(scenario) => explore(defect, scenario, &["--small"]),
        Judge::LargeScenario(scenario) => explore(defect, scenario, &[]),
        Judge::Test(test) => fail(defect, test),
    }
}

fn simulate(defect: Defect, most: u64) -> anyhow::Result<Option<String>> {
    for seed in 1..=most {
        let mut run = Command::new(env::current_exe().context("finding this program")?);
        let Some(output) = watch(run.arg(format!("--seed={seed}")).arg(format!("--defect={defect}")))? else {
            return Ok(Some(format!("{}: a run that does not end", seeds(seed))));
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let outcome = text.lines().last().and_then(|line| serde_json::from_str::<Outcome>(line).ok());
        let failures = outcome.map_or_else(|| vec![format!("the run ended without a result: {}", output.status)], |o| o.failures);
        if !failures.is_empty() {
            return Ok(Some(format!("{}: {}", seeds(seed), in_short(&failures))));
        }
    }
    Ok(None)
}

fn explore(defect: Defect, scenario: &str, bounds: &[&str]) -> anyhow::Result<Option<String>> {
    let model = env::current_exe().context("finding this program")?.with_file_name("oncelog-model");
    let Some(output) = watch(Command::new(model).args(bounds).arg(scenario).arg(format!("--defect={defect}")))? else {
        return Ok(Some(format!("model, `{scenario}`: an exploration that does not end")));
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let what = text.lines().find_map(|line| line.split_once("VIOLATION: ")).map(|(_, what)| vec![what.to_owned()]);
    let what = what.unwrap_or_else(|| vec!["a panic".to_owned()]);
    Ok((!output.status.success()).then(|| format!("model, `{scenario}`: {}", in_short(&what))))
}

fn fail(defect: Defect, test: &Test) -> anyhow::Result<Option<String>> {
    let run = |defect: Option<Defect>| {
        let mut run = cargo("test", test.package);
        run.args(test.target).args(["--", "--exact", &test.name]).env_remove(ENVIRONMENT);
        let output = run.envs(defect.map(|defect| (ENVIRONMENT, defect.to_string()))).output()?;
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

/// What a process wrote; none if it did not come to an end.
fn watch(command: &mut Command) -> anyhow::Result<Option<Output>> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let began = now();
    while is_running(&mut child)? {
        if now() - began > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        sleep(Duration::from_millis(5));
    }
    Ok(Some(child.wait_with_output()?))
}

fn is_running(child: &mut Child) -> anyhow::Result<bool> {
    Ok(child.try_wait()?.is_none())
}

fn seeds(seed: u64) -> String {
    format!("simulation, {seed} seed{}", if seed == 1 { "" } else { "s" })
}

/// The promises that were broken, each once; what has no number, in its first words.
fn in_short(failures: &[String]) -> String {
    let mut names: Vec<_> = failures.iter().map(|failure| name(failure)).collect();
    names.sort_unstable();
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
